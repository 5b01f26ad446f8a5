"""Reading a run's file, finished, live or crashed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time as now
from typing import TYPE_CHECKING, Any, Final, Literal, cast, final

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DatabaseError, NoResultFound

from tracklayer.artifacts.blobs import Blobs
from tracklayer.artifacts.locations import FolderLocation, locate
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.contents import Content
from tracklayer.errors import CorruptRunError, RunNotFoundError, StoreError
from tracklayer.naming import did_you_mean
from tracklayer.protocol import MetricRule, RunInfo, State, rule_for
from tracklayer.reading import MediaPoint, Metric, Row, Segment, join_seeds, merge_steps
from tracklayer.seeds import split_seed
from tracklayer.settings import artifacts_url
from tracklayer.summaries import entry
from tracklayer.values import Histogram, Text, Value, value_from_json
from tracklayer_sqlite import schema
from tracklayer_sqlite.connecting import engine_for, engine_of, is_writable, store_error
from tracklayer_sqlite.lease import Holder

if TYPE_CHECKING:
    import numpy as np

    from tracklayer.media.base import Media

_FETCH: Final = 10_000
_COPIES: Final = 5  # attempts at a copy that nobody wrote to meanwhile
_NOT_NEWER: Final = (
    "NOT EXISTS (SELECT 1 FROM temp.newest n WHERE n.run = p.run AND n.key_id = p.key_id AND n.step = p.step)"
)
_CONTENTS: Final = (
    "SELECT sha256, size FROM contents WHERE content IS NULL UNION "
    "SELECT sha256, size FROM artifacts JOIN artifact_files USING (run, artifact) "
    "WHERE reference IS NULL AND (? OR version IS NULL)"
)
_POINTS: Final = (
    "SELECT value FROM temp.newest WHERE run = 1 AND key_id = ?1 UNION ALL "
    f"SELECT value FROM points p WHERE run = 1 AND key_id = ?1 AND {_NOT_NEWER}"
)


@final
class SQLiteRunReader:
    """A recorded run.  Every call opens the file, reads in one short transaction, and lets go."""

    def __init__(self, path: Path, store: Path) -> None:
        self._path = path
        self._store = store
        with self._connect() as connection:
            self._id: str = connection.exec_driver_sql("SELECT id FROM runs").scalar_one()

    @property
    def id(self) -> str:
        """The run's id."""
        return self._id

    @property
    def path(self) -> Path:
        """The run's file."""
        return self._path

    @property
    def info(self) -> RunInfo:
        """What the run is, and its state now."""
        with self._connect() as connection, _snapshot(connection):
            # plain SQL: in a list of many runs, compiling statements would take longest
            row = connection.exec_driver_sql("SELECT * FROM runs").mappings().one()
            segments = _segments(connection)
            exit_code = connection.exec_driver_sql(
                "SELECT exit_code FROM segments ORDER BY segment DESC LIMIT 1"
            ).scalar()
            tags = tuple(json.loads(row["tags"]))
        last = segments[-1]
        return RunInfo(
            id=row["id"],
            project=row["project"],
            name=row["name"],
            entity=row["entity"],
            group=row["run_group"],
            job_type=row["job_type"],
            tags=tags,
            notes=row["notes"],
            created_at=row["created_at"],
            state=last.state,
            exit_code=exit_code,
            finished_at=last.ended_at if last.state != "running" else None,
            resumed=len(segments) > 1,
        )

    @property
    def segments(self) -> list[Segment]:
        """The processes that recorded the run, in order."""
        with self._connect() as connection:
            return _segments(connection)

    @property
    def config(self) -> dict[str, Any]:
        """The config, nested as it was given."""
        return self._entries(schema.config)

    @property
    def explicit_summary(self) -> dict[str, Any]:
        """The part of the summary that was set by hand."""
        return self._entries(schema.summary)

    @property
    def rules(self) -> dict[str, MetricRule]:
        """The metric rules, by pattern."""
        with self._connect() as connection:
            return _rules(connection)

    @property
    def summary(self) -> dict[str, Any]:
        """The metrics by their rules (the last value by default), and what was set by hand."""
        entries: dict[str, Any] = {}
        with self._connect() as connection, _snapshot(connection):
            _collect_newest(connection)
            rules = _rules(connection)
            for key_id, key in connection.execute(select(schema.keys.c.key_id, schema.keys.c.key)).all():
                rule = rule_for(key, rules)
                statistics = _statistics(connection, key_id, rule)
                value = None if statistics is None else entry(rule, statistics)
                if value is not None:
                    entries[key] = value
        return {**entries, **self.explicit_summary}

    @property
    def last_step(self) -> int:
        """The highest step that was logged; -1 for none."""
        with self._connect() as connection:
            return int(
                connection.exec_driver_sql(
                    "SELECT coalesce(max(step), -1) FROM ("
                    "SELECT (SELECT max(step) FROM points p WHERE p.run = k.run "
                    "AND p.key_id = k.key_id) AS step FROM keys k "
                    "UNION ALL SELECT max(step) FROM new_points "
                    "UNION ALL SELECT max(step) FROM objects)"
                ).scalar_one()
            )

    @property
    def revision(self) -> str:
        """A word that changes whenever anything that a push would send has changed."""
        with self._connect() as connection, _snapshot(connection):
            state = [
                connection.execute(select(schema.runs.c.folds)).scalar_one(),
                connection.execute(select(func.max(schema.new_points.c.seq))).scalar(),
                connection.execute(select(func.max(schema.objects.c.seq))).scalar(),
                connection.execute(select(func.max(schema.artifacts.c.artifact))).scalar(),
                *(
                    [list(row) for row in connection.execute(select(table))]
                    for table in (schema.config, schema.summary, schema.metric_rules, schema.runs)
                ),
                [(s.number, s.state) for s in _segments(connection)],
            ]
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]

    def keys(self) -> list[str]:
        """Return every logged key, of any kind, in the order of first appearance."""
        with self._connect() as connection:
            return list(
                connection.execute(select(schema.keys.c.key).order_by(schema.keys.c.key_id)).scalars()
            )

    def metric(self, key: str) -> Metric:
        """Return a scalar's series, or those of all seeds where there is one for each.

        Raises:
            LookupError: nothing was logged under that key; the message lists close ones.
        """
        with self._connect() as connection, _snapshot(connection):
            key_id = connection.execute(select(schema.keys.c.key_id).where(schema.keys.c.key == key)).scalar()
            if key_id is None:
                seeds = {
                    part[1]: name for name in self.keys() if (part := split_seed(name)) and part[0] == key
                }
                if seeds:
                    return join_seeds(key, {seed: self.metric(name) for seed, name in seeds.items()})
                raise LookupError(self._no_key("metric", key, self.keys()))
            folded = _series(connection, "points", key_id, "step")
            new = _series(connection, "new_points", key_id, "seq")
        step, time, value = _overlay(folded, new)
        return Metric(key, step, time, value)

    def rows(self) -> Iterator[Row]:
        """Yield one row a step, in order; its time is that of the step's last call."""
        return merge_steps(self.calls())

    def calls(self) -> Iterator[Row]:
        """Yield what was logged, one row a step and time, in that order.

        The run's file is held only while a sorted copy is made in SQLite's temporary storage, so that a
        slow consumer stalls no writer.
        """
        with self._connect() as connection:
            with _snapshot(connection):
                _sort_into_copy(connection)
                rows = connection.execute(select(schema.keys.c.key_id, schema.keys.c.key))
                names: dict[int, str] = dict(map(tuple, rows))
            cursor: Any = connection.connection.cursor()
            cursor.arraysize = _FETCH
            cursor.execute("SELECT step, time, key_id, value, kind, data FROM temp.sorted ORDER BY rowid")
            row: Row | None = None
            for step, time, key_id, value, kind, data in cursor:
                if row is None or row.step != step or row.time != time:
                    if row is not None:
                        yield row
                    row = Row(step, time, {})
                row.values[names[key_id]] = (
                    cast("Value", _number(value)) if kind is None else self._object(kind, data)
                )
            if row is not None:
                yield row

    def media(self, key: str | None = None) -> Iterator[MediaPoint]:
        """Yield what is no scalar, of one key or of all, in the order of steps.

        Raises:
            LookupError: nothing was logged under that key; the message lists close ones.
        """
        objects, keys = schema.objects.c, schema.keys.c
        query = (
            select(keys.key, objects.step, objects.time, objects.kind, objects.data)
            .join(schema.keys, (objects.run == keys.run) & (objects.key_id == keys.key_id))
            .order_by(objects.step, objects.time, objects.key_id)
        )
        if key is not None:
            known = self.keys()
            if key not in known:
                raise LookupError(self._no_key("key", key, known))
            query = query.where(keys.key == key)
        with self._connect() as connection:
            found = connection.execute(query).all()
        for name, step, time, kind, data in found:
            yield MediaPoint(name, step, time, self._object(kind, data))

    def artifacts(self) -> list[LoggedArtifact]:
        """Return the artifacts that the run made, in order."""
        return self._artifacts(used=False)

    def used_artifacts(self) -> list[LoggedArtifact]:
        """Return the artifacts that the run used, in order."""
        return self._artifacts(used=True)

    def _artifacts(self, *, used: bool) -> list[LoggedArtifact]:
        versioned, own = Blobs(locate(artifacts_url(), self._store)), self._own_blobs()
        files: dict[int, list[ArtifactFile]] = {}
        with self._connect() as connection, _snapshot(connection):
            for number, version, path, sha256, size, reference, checksum in connection.exec_driver_sql(
                "SELECT artifact, version, path, sha256, size, reference, checksum "
                "FROM artifacts JOIN artifact_files USING (run, artifact) WHERE used = ? ORDER BY path",
                (used,),
            ):
                blobs = own if version is None else versioned
                source = blobs.place(sha256) if reference is None else reference
                file = ArtifactFile(path, sha256, size, source, reference, checksum)
                files.setdefault(number, []).append(file)
            table = schema.artifacts
            query = select(table).where(table.c.used == used).order_by(table.c.artifact)
            return [
                LoggedArtifact(
                    name=row["name"],
                    type=row["type"],
                    files=tuple(files.get(row["artifact"], ())),
                    description=row["description"],
                    metadata=json.loads(row["metadata"]),
                    time=row["time"],
                    project=row["project"],
                    version=row["version"],
                    aliases=tuple(json.loads(row["aliases"])),
                )
                for row in connection.execute(query).mappings()
            ]

    def contents(self) -> dict[str, int]:
        """Return the sizes, in bytes by SHA-256, of the contents outside its file that the run needs."""
        with self._connect() as connection, _snapshot(connection):
            is_live = _segments(connection)[-1].state == "running"
            return dict(map(tuple, connection.exec_driver_sql(_CONTENTS, (is_live,))))

    def _entries(self, table: Any) -> dict[str, Any]:
        with self._connect() as connection:
            rows = connection.execute(select(table.c.key, table.c.value))
            return {key: json.loads(value) for key, value in rows}

    def _object(self, kind: str, data: str) -> Text | Histogram | Media:
        try:
            fields = json.loads(data)
        except ValueError as error:
            msg = f"{self._path} is damaged ({error!r})"
            raise CorruptRunError(msg) from error
        return value_from_json(kind, fields, self._content)

    def _content(self, sha256: str, size: int) -> Content:
        return Content(sha256, size, lambda: self._read_content(sha256))

    def _read_content(self, sha256: str) -> bytes:
        with self._connect() as connection:
            query = select(schema.contents.c.content).where(schema.contents.c.sha256 == sha256)
            content = connection.execute(query).scalar()
        if content is not None:
            return bytes(content)
        with self._own_blobs().open(sha256) as file:  # which `Content` checks
            return file.read()

    def _own_blobs(self) -> Blobs:
        """Return the contents that no version has, which lie in the store itself."""
        return Blobs(FolderLocation(self._store))

    def _no_key(self, what: str, key: str, known: list[str]) -> str:
        return f"run {self._id} has no {what} {key!r}{did_you_mean(key, known)}"

    @contextmanager
    def _connect(self) -> Generator[Connection]:
        with connected(self._path) as connection:
            yield connection


@contextmanager
def connected(path: Path) -> Generator[Connection]:
    """Open a run's file for reading, of whatever version it is.

    Raises:
        RunNotFoundError: there is no such file any more.
        CorruptRunError, StoreTooNewError, StoreError: it cannot be read.
    """
    try:
        if path.stat().st_size == 0:
            msg = f"{path} is empty: its process died before it wrote anything"
            raise CorruptRunError(msg)
        with _readable(path) as (file, mode), _opened(file, mode) as connection:
            version = schema.version_of(connection, path) if _has_version(connection) else 0
            if not version:
                msg = f"{path} holds no run: it is damaged, or not ours"
                raise CorruptRunError(msg)
            if version == schema.current_version():
                yield connection
                return
            with _migrated(connection, version) as copy:
                yield copy
    except DatabaseError as error:
        raise store_error(error, path) from error
    except sqlite3.DatabaseError as error:  # of a bare cursor
        raise store_error(DatabaseError(None, None, error), path) from error
    except (NoResultFound, ValueError, KeyError, TypeError, OverflowError) as error:
        # damage that SQLite does not see: text that is no UTF-8 or no JSON, a row that is gone
        msg = f"{path} is damaged ({error!r})"
        raise CorruptRunError(msg) from error
    except FileNotFoundError as error:
        msg = f"{path} is gone"
        raise RunNotFoundError(msg) from error
    except StoreError:
        raise
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise StoreError(msg) from error


@contextmanager
def _opened(path: Path, mode: str) -> Generator[Connection]:
    engine = engine_for(path, mode=mode)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _readable(path: Path) -> Generator[tuple[Path, str]]:
    """Give a file that can be opened, and the mode to open it in.

    That is the run's own file; but where SQLite would have to make or mend files beside it and may not,
    a copy.
    """
    journal = path.with_name(path.name + "-journal")
    if is_writable(path.parent):
        # a killed process may have left half a transaction: whoever reads first takes it back
        yield path, "rw" if journal.exists() and os.access(path, os.W_OK) else "ro"
        return
    if not journal.exists() and not _is_in_wal_mode(path):
        yield path, "ro"
        return
    with tempfile.TemporaryDirectory(prefix="tracklayer-") as folder:
        yield _copied(path, Path(folder)), "rw"


def _is_in_wal_mode(path: Path) -> bool:
    """Say so; only for files that this process does not record.

    Closing a file gives up all of a process's locks on it, SQLite's own among them.
    """
    with path.open("rb") as file:
        return file.read(20)[18:] == b"\2\2"


def _copied(path: Path, folder: Path) -> Path:
    """Copy a run's file with what lies beside it; all of one moment, though it may be written just now."""
    beside = [path.with_name(path.name + ending) for ending in ("-wal", "-journal")]
    files = [path, *beside]
    for _ in range(_COPIES):
        before = [_beginning(file) for file in files]
        for source in files:
            with suppress(FileNotFoundError):
                shutil.copyfile(source, folder / source.name)
        if before == [_beginning(file) for file in files]:
            return folder / path.name
        for file in folder.iterdir():
            file.unlink()
    msg = f"{path} changes faster than it can be copied; read it where its folder can be written"
    raise StoreError(msg)


def _beginning(file: Path) -> bytes | None:
    """Return what changes when SQLite begins a log anew, or changes a file without one."""
    try:
        with file.open("rb") as opened:
            return opened.read(32)
    except FileNotFoundError:
        return None


@contextmanager
def _migrated(connection: Connection, version: int) -> Generator[Connection]:
    """Give a copy in memory of an older file, brought up to date."""
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    source: Any = connection.connection.dbapi_connection
    source.backup(memory)
    engine: Engine = engine_of(lambda: memory, "a migrated copy")
    with engine.connect() as copy:
        schema.migrate(copy, version)
        yield copy


def _has_version(connection: Connection) -> bool:
    return bool(
        connection.exec_driver_sql(
            "SELECT count(*) FROM sqlite_master WHERE name = 'schema_version'"
        ).scalar()
    )


@contextmanager
def _snapshot(connection: Connection) -> Generator[None]:
    """See one state of the file throughout."""
    connection.exec_driver_sql("BEGIN")
    try:
        yield
    finally:
        connection.exec_driver_sql("ROLLBACK" if not _wrote_temporary(connection) else "COMMIT")


def _wrote_temporary(connection: Connection) -> bool:
    return bool(connection.exec_driver_sql("SELECT count(*) FROM sqlite_temp_master").scalar())


def _segments(connection: Connection) -> list[Segment]:
    moment = now()
    found: list[Segment] = []
    for row in connection.exec_driver_sql("SELECT * FROM segments ORDER BY segment").mappings():
        state, ended = cast("State", row["state"]), row["ended_at"]
        holder = Holder(row["host"], row["pid"], row["process_started_at"])
        if state == "running" and not holder.is_alive(row["heartbeat_at"], moment):
            state, ended = "crashed", row["heartbeat_at"]
        found.append(
            Segment(
                row["segment"],
                row["host"],
                row["pid"],
                row["started_at"],
                row["heartbeat_at"],
                ended,
                state,
            )
        )
    if not found:
        msg = "a run's file holds no segment: it is damaged"
        raise CorruptRunError(msg)
    return found


def _rules(connection: Connection) -> dict[str, MetricRule]:
    return {
        row["pattern"]: MetricRule(
            row["pattern"],
            tuple(json.loads(row["summary"])),
            row["step_metric"],
            cast('Literal["minimize", "maximize"] | None', row["goal"]),
        )
        for row in connection.execute(select(schema.metric_rules)).mappings()
    }


def _statistics(connection: Connection, key_id: int, rule: MetricRule | None) -> dict[str, Any] | None:
    """Return a metric's last value and, where a rule asks for more, the rest; None if it has none."""
    ends = [
        row
        for table in ("points", "temp.newest")  # of one step, the latter counts
        for row in connection.exec_driver_sql(
            f"SELECT step, value FROM {table} WHERE run = 1 AND key_id = ? ORDER BY step DESC LIMIT 1",
            (key_id,),
        )
    ]
    if not ends:
        return None
    last = ends[-1] if ends[-1][0] >= ends[0][0] else ends[0]
    statistics = {"last": _number(last[1])}
    if rule is not None and rule.summary:
        low, high, mean = connection.exec_driver_sql(
            "SELECT min(value), max(value), CASE WHEN count(*) = count(value) THEN avg(value) END "
            f"FROM ({_POINTS})",
            (key_id,),
        ).one()
        statistics |= {"min": _number(low), "max": _number(high), "mean": _number(mean)}
    return statistics


def _number(value: Any) -> Any:
    return float("nan") if value is None else value


def _collect_newest(connection: Connection) -> None:
    """Copy what is not folded yet to temp.newest, one point a key and step."""
    connection.exec_driver_sql(
        "CREATE TEMP TABLE newest (run INTEGER, key_id INTEGER, step INTEGER, time REAL, value, "
        "PRIMARY KEY (run, key_id, step)) WITHOUT ROWID"
    )
    connection.exec_driver_sql(
        "INSERT OR REPLACE INTO temp.newest SELECT run, key_id, step, time, value FROM new_points "
        "ORDER BY run, key_id, step, seq"
    )


def _sort_into_copy(connection: Connection) -> None:
    _collect_newest(connection)
    connection.exec_driver_sql(
        "CREATE TEMP TABLE sorted AS SELECT step, time, key_id, value, kind, data FROM ("
        f"SELECT step, time, key_id, value, NULL AS kind, NULL AS data FROM points p WHERE {_NOT_NEWER} "
        "UNION ALL SELECT step, time, key_id, value, NULL, NULL FROM temp.newest "
        "UNION ALL SELECT step, time, key_id, NULL, kind, data FROM objects) "
        "ORDER BY step, time, key_id"
    )


def _series(connection: Connection, table: str, key_id: int, order: str) -> tuple[Any, Any, Any]:
    """Return step, time and value of one key's points, straight from the cursor."""
    import numpy as np

    where = f"FROM {table} WHERE run = 1 AND key_id = ?"
    columns = [("step", "<i8"), ("time", "<f8"), ("value", "<f8")]

    def fetch(what: str) -> Any:
        cursor: Any = connection.connection.cursor()
        cursor.arraysize = _FETCH
        cursor.execute(f"SELECT {what} {where} ORDER BY {order}", (key_id,))
        return np.fromiter(cursor, dtype=columns)

    first = connection.exec_driver_sql(f"SELECT typeof(value) {where} LIMIT 1", (key_id,)).scalar()
    if first == "integer" and not _holds_other_than_integers(connection, where, key_id):
        columns[-1] = ("value", "<i8")
    try:
        rows = fetch("step, time, value")
    except TypeError:  # a NULL, which stands for NaN: look for those, too
        columns.append(("is_nan", "?"))
        rows = fetch("step, time, coalesce(value, 0.0), value IS NULL")
        rows["value"][rows["is_nan"]] = np.nan
    step, time, value = (np.ascontiguousarray(rows[name]) for name in ("step", "time", "value"))
    return step, time, value


def _holds_other_than_integers(connection: Connection, where: str, key_id: int) -> bool:
    found = connection.exec_driver_sql(
        f"SELECT EXISTS (SELECT 1 {where} AND typeof(value) <> 'integer')", (key_id,)
    )
    return bool(found.scalar())


def _overlay(folded: tuple[Any, Any, Any], new: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    """Lay points in the order of their arrival over folded ones: the last of each step counts."""
    import numpy as np

    if not len(new[0]):
        return folded
    step: np.ndarray[Any, Any] = np.concatenate([folded[0], new[0]])
    order = np.argsort(step, kind="stable")
    step = step[order]
    keep = np.append(step[1:] != step[:-1], [True])
    # nothing folded has no dtype to mix in
    value = np.concatenate([folded[2], new[2]]) if len(folded[0]) else new[2]
    time = np.concatenate([folded[1], new[1]])
    return step[keep], time[order][keep], value[order][keep]
