"""The tables of a run's file, for us and for whoever opens it with sqlite3, pandas or DuckDB.

Times are Unix seconds (float64).  Every table is keyed by `run`, a small integer, so that the same tables
can hold many runs; in a run's file it is 1.

- `metrics`: a view for reading by hand: id, key, step, time, value (double, NULL for NaN).
- `points`: the scalars, clustered by key, then step.  `value` is an SQLite INTEGER for integers (exact to
  int64; 0 and 1 for bools), REAL for floats, NULL for NaN.
- `new_points`: scalars as they came, not yet folded into `points`; empty once a run is finished.  Of two
  with the same key and step the higher `seq` counts, and both win over `points`.
- `objects`: what is no scalar, as JSON: `kind` says what (`tracklayer.values`, `tracklayer.media`).
- `contents`: the files of media by SHA-256, which `objects` names; those above 1 MiB are NULL here and lie in
  the store's `blobs/`.
- `config`, `summary`: JSON by top-level key; `summary` holds what was set by hand.
- `metric_rules`: what `define_metric` said.
- `segments`: the processes that recorded the run; the last one's lease says whether it is live.
- `artifacts`, `artifact_files`: what the run made, and what it used (`used` is 1).  `version` is its number
  in `project`, NULL for what has none; `aliases` are those given at the call, as a JSON list.  The contents
  lie in the store's `blobs/`, those of versions where `TRACKLAYER_ARTIFACTS` says; a `reference` is a URI,
  whose content is not kept.
- `environments`: what each segment's process was: its program, code, packages and machine, as JSON.
- `console`: what the run's processes printed, lines numbered from 1 on.
- `system_metrics`: what was measured on its machines; `row` counts the moments from 1 on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    create_mock_engine,
    select,
    text,
    update,
)
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.types import UserDefinedType

from tracklayer.artifacts.records import ArtifactFile, files_digest
from tracklayer.errors import CorruptRunError, StoreTooNewError


class Number(UserDefinedType[Any]):
    """A column that keeps integers and doubles apart: it has no declared type, hence no affinity."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Return the type's DDL, which is empty."""
        return ""


metadata: Final = MetaData()
RUN: Final = 1
"""The run's number in its own file."""


def _run() -> Column[int]:
    return Column("run", Integer, nullable=False)


schema_version: Final = Table("schema_version", metadata, Column("version", Integer, nullable=False))

runs: Final = Table(
    "runs",
    metadata,
    Column("run", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("project", Text, nullable=False),
    Column("entity", Text),
    Column("name", Text, nullable=False),
    Column("run_group", Text),
    Column("job_type", Text),
    Column("tags", Text, nullable=False),
    Column("notes", Text),
    Column("created_at", Double, nullable=False),
    Column("folds", Integer, nullable=False, default=0),
)

segments: Final = Table(
    "segments",
    metadata,
    _run(),
    Column("segment", Integer, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started_at", Double, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("heartbeat_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("state", Text, nullable=False),
    Column("exit_code", Integer),
    PrimaryKeyConstraint("run", "segment"),
    sqlite_with_rowid=False,
)

config: Final = Table(
    "config",
    metadata,
    _run(),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("run", "key"),
    sqlite_with_rowid=False,
)

summary: Final = Table(
    "summary",
    metadata,
    _run(),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    PrimaryKeyConstraint("run", "key"),
    sqlite_with_rowid=False,
)

metric_rules: Final = Table(
    "metric_rules",
    metadata,
    _run(),
    Column("pattern", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("step_metric", Text),
    Column("goal", Text),
    PrimaryKeyConstraint("run", "pattern"),
    sqlite_with_rowid=False,
)

keys: Final = Table(
    "keys",
    metadata,
    _run(),
    Column("key_id", Integer, nullable=False),
    Column("key", Text, nullable=False),
    PrimaryKeyConstraint("run", "key_id"),
    UniqueConstraint("run", "key"),
    sqlite_with_rowid=False,
)

points: Final = Table(
    "points",
    metadata,
    _run(),
    Column("key_id", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("time", Double, nullable=False),
    Column("value", Number),
    PrimaryKeyConstraint("run", "key_id", "step"),
    sqlite_with_rowid=False,
)

new_points: Final = Table(
    "new_points",
    metadata,
    Column("seq", Integer, primary_key=True),
    _run(),
    Column("key_id", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("time", Double, nullable=False),
    Column("value", Number),
)

objects: Final = Table(
    "objects",
    metadata,
    Column("seq", Integer, primary_key=True),
    _run(),
    Column("key_id", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("time", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", Text, nullable=False),
    UniqueConstraint("run", "key_id", "step"),
)

contents: Final = Table(
    "contents",
    metadata,
    _run(),
    Column("sha256", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("content", LargeBinary),
    UniqueConstraint("run", "sha256"),
)

artifacts: Final = Table(
    "artifacts",
    metadata,
    _run(),
    Column("artifact", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("description", Text),
    Column("metadata", Text, nullable=False),
    Column("time", Double, nullable=False),
    Column("project", Text, nullable=False, server_default=""),
    Column("version", Integer),
    Column("digest", Text, nullable=False, server_default=""),
    Column("aliases", Text, nullable=False, server_default="[]"),
    Column("used", Integer, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("run", "artifact"),
    sqlite_with_rowid=False,
)

artifact_files: Final = Table(
    "artifact_files",
    metadata,
    _run(),
    Column("artifact", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("reference", Text),
    Column("checksum", Text),
    PrimaryKeyConstraint("run", "artifact", "path"),
    sqlite_with_rowid=False,
)

console: Final = Table(
    "console",
    metadata,
    _run(),
    Column("line", Integer, nullable=False),
    Column("time", Double, nullable=False),
    Column("stream", Text, nullable=False),
    Column("text", Text, nullable=False),
    PrimaryKeyConstraint("run", "line"),
    sqlite_with_rowid=False,
)

system_metrics: Final = Table(
    "system_metrics",
    metadata,
    _run(),
    Column("row", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("time", Double, nullable=False),
    Column("value", Number),
    PrimaryKeyConstraint("run", "row", "key"),
    sqlite_with_rowid=False,
)

environments: Final = Table(
    "environments",
    metadata,
    _run(),
    Column("segment", Integer, nullable=False),
    Column("data", Text, nullable=False),
    PrimaryKeyConstraint("run", "segment"),
    sqlite_with_rowid=False,
)

_METRICS_VIEW: Final = """
CREATE VIEW metrics AS
SELECT runs.id AS id, keys.key AS "key", p.step AS step, p.time AS time, CAST(p.value AS REAL) AS value
FROM (SELECT run, key_id, step, time, value FROM points
      UNION ALL SELECT run, key_id, step, time, value FROM new_points) AS p
JOIN keys ON keys.run = p.run AND keys.key_id = p.key_id
JOIN runs ON runs.run = p.run
"""

_VERSION_COLUMNS: Final = (
    ("artifacts", "project TEXT NOT NULL DEFAULT ''"),
    ("artifacts", "version INTEGER"),
    ("artifacts", "digest TEXT NOT NULL DEFAULT ''"),
    ("artifacts", "aliases TEXT NOT NULL DEFAULT '[]'"),
    ("artifacts", "used INTEGER NOT NULL DEFAULT 0"),
    ("artifact_files", "reference TEXT"),
    ("artifact_files", "checksum TEXT"),
)


def _add_versions(connection: Connection) -> None:
    """Add what tells of an artifact's version; what was recorded before has none."""
    for table, column in _VERSION_COLUMNS:
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column}")
    files: dict[int, list[ArtifactFile]] = {
        number: [] for number in connection.exec_driver_sql("SELECT artifact FROM artifacts").scalars()
    }
    rows = connection.exec_driver_sql("SELECT artifact, path, sha256 FROM artifact_files")
    for number, path, sha256 in rows:
        files[number].append(ArtifactFile(path, sha256, 0, ""))
    for number, its_files in files.items():
        connection.exec_driver_sql(
            "UPDATE artifacts SET digest = ? WHERE artifact = ?", (files_digest(its_files), number)
        )


def _add_surroundings(connection: Connection) -> None:
    """Add what a run's processes were; nothing wrote system metrics before, which had other columns."""
    system_metrics.drop(connection)
    system_metrics.create(connection)
    environments.create(connection)


Migration = Callable[[Connection], None]
# 2: media; 3: versions of artifacts; 4: environments
MIGRATIONS: Final[list[Migration]] = [contents.create, _add_versions, _add_surroundings]
"""The step at index i turns version i + 1 into i + 2.  Files of older versions are migrated when a run is
continued, and in a copy in memory when it is read."""


def current_version() -> int:
    """Return the version that this program writes."""
    return len(MIGRATIONS) + 1


def create(connection: Connection) -> None:
    """Create all tables in an empty database, within the caller's transaction."""
    for statement in _tables():
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(_METRICS_VIEW)
    connection.execute(schema_version.insert().values(version=current_version()))


@cache
def _tables() -> list[str]:
    """Return the statements that create the tables: SQLAlchemy would compile them for each file anew."""
    statements: list[str] = []

    def keep(statement: ExecutableDDLElement, *_: object) -> None:
        statements.append(str(statement.compile(dialect=engine.dialect)))

    engine = create_mock_engine("sqlite://", keep)
    metadata.create_all(engine, checkfirst=False)
    return statements


def is_empty(connection: Connection) -> bool:
    """Say whether nothing was created yet."""
    return not connection.exec_driver_sql("SELECT EXISTS (SELECT 1 FROM sqlite_master)").scalar()


def version_of(connection: Connection, name: object) -> int:
    """Return the version of a run's file.

    Raises:
        StoreTooNewError: a newer tracklayer wrote it.
        CorruptRunError: it has no version.
    """
    version = connection.execute(select(schema_version.c.version)).scalar()
    if version is None:
        msg = f"{name} has no schema version: the file is damaged"
        raise CorruptRunError(msg)
    if version > current_version():
        msg = (
            f"{name} was written by a newer tracklayer (schema {version}, this one knows "
            f"{current_version()}): upgrade tracklayer to open it"
        )
        raise StoreTooNewError(msg)
    return int(version)


def migrate(connection: Connection, version: int, steps: Sequence[Migration] | None = None) -> None:
    """Bring an older file up to date, within the caller's transaction."""
    for step in (MIGRATIONS if steps is None else steps)[version - 1 :]:
        step(connection)
    connection.execute(update(schema_version).values(version=current_version()))


def storable(text: str) -> str:
    """Return text that a column can hold: lone surrogates have no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def storable_or_none(text: str | None) -> str | None:
    """Return text that a column can hold, if there is any."""
    return None if text is None else storable(text)
