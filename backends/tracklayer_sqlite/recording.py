"""Recording a run into its file."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import chain
from operator import itemgetter
from time import time as now
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from sqlalchemy import Connection, Engine, func, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError

from tracklayer.artifacts.blobs import Blobs
from tracklayer.artifacts.claims import claimed
from tracklayer.errors import BackendLostError
from tracklayer.forking import tell_children
from tracklayer.media.base import Media
from tracklayer.protocol import MetricRule, RunInfo, Status
from tracklayer.values import SCALAR_TYPES, Value
from tracklayer_sqlite import schema
from tracklayer_sqlite.artifacts import contents_here, lies_here, version_here
from tracklayer_sqlite.connecting import keep_for_ever, transaction
from tracklayer_sqlite.lease import HEARTBEAT_SECONDS
from tracklayer_sqlite.schema import RUN, storable, storable_or_none
from tracklayer_sqlite.surroundings import PendingSurroundings

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.sql.base import Executable

    from tracklayer.artifacts.catalog import Catalog
    from tracklayer.artifacts.locations import FolderLocation
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.contents import Content
    from tracklayer.surroundings import ConsoleLine, Environment, SystemRow

Point: TypeAlias = tuple[int, int, float, Any]
"""(key id, step, Unix seconds, number)."""
_FOLD_EVERY: Final = 100  # commits
_FOLD_ABOVE: Final = 50_000  # points not yet folded: a tenth of a second, in which nothing is committed
_NETWORK_INTERVAL: Final = 2.0  # seconds between commits on a network file system
_APPEND: Final = "INSERT INTO new_points (run, key_id, step, time, value) VALUES "
_REPLACE: Final = "INSERT OR REPLACE INTO points (run, key_id, step, time, value) VALUES "
_PLACES: Final = f"({RUN}, ?, ?, ?, ?)"
_MANY: Final = 200
"""Points an INSERT: 2 to 2.5 times as fast as one, and the interpreter is handed over less often.
SQLite takes at least 999 parameters."""
_BURST: Final = 50
"""Points a key in one commit, above which they go straight to their places, without a later fold."""
_FOLD: Final = (
    "INSERT OR REPLACE INTO points (run, key_id, step, time, value) "
    f"SELECT {RUN}, key_id, step, time, value FROM new_points ORDER BY key_id, step, seq"
)

_INLINE: Final = 1 << 20
"""The largest content in bytes that lies in the run's file; one file a run is what cluster quotas want."""
_ADD_CONTENT: Final = (
    f"INSERT INTO contents (run, sha256, size, content) VALUES ({RUN}, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_ADD_FILE: Final = (
    "INSERT INTO artifact_files (run, artifact, path, sha256, size, reference, checksum) "
    f"VALUES ({RUN}, ?, ?, ?, ?, ?, ?)"
)
_COUNT_FOLD: Final = update(schema.runs).values(folds=schema.runs.c.folds + 1)


@final
class SQLiteRun:
    """A run's file, open for writing."""

    def __init__(
        self,
        engine: Engine,
        connection: Connection,
        info: RunInfo,
        segment: int,
        path: Path,
        own: FolderLocation,
        catalog: Catalog,
        *,
        network: bool,
    ) -> None:
        self.info = info
        self.commit_interval = _NETWORK_INTERVAL if network else 0.1
        self._engine = engine
        self._connection = connection
        self._segment = segment
        self._path = path
        self._own = own
        """Where contents lie that no version has: a run's rows must not wait for a place that is far."""
        self._catalog = catalog
        self._rows: list[tuple[int, float, Mapping[str, Value]]] = []
        self._statements: list[Executable] = []
        self._contents: list[Content] = []
        self._files: list[tuple[Any, ...]] = []
        """The files of artifacts, as rows of their table."""
        self._surroundings = PendingSurroundings(connection, segment)
        self._claims = ExitStack()
        """On contents of artifacts that nothing names before the next commit."""
        known = connection.execute(select(schema.keys.c.key, schema.keys.c.key_id))
        self._key_ids: dict[str, int] = dict(map(tuple, known))
        self._named_rows = 0
        self._last_key_id = max(self._key_ids.values(), default=0)
        self._new_keys: list[str] = []
        self._artifacts = connection.execute(select(func.count()).select_from(schema.artifacts)).scalar_one()
        c = schema.artifacts.c
        used = connection.execute(select(c.project, c.name, c.version).where(c.used == 1))
        self._used: set[tuple[str, str, int | None]] = set(map(tuple, used))
        self._unfolded = connection.execute(select(func.count()).select_from(schema.new_points)).scalar_one()
        self._commits = 0
        self._heartbeat_at = now()
        self._has_ended = False
        tell_children(self)

    def log(self, values: Mapping[str, Value], *, step: int, time: float) -> None:
        """Keep a row for the next commit."""
        if SCALAR_TYPES.issuperset(map(type, values.values())):
            self._rows.append((step, time, values))
            return
        self._name_keys()  # those of earlier rows come first
        scalars: dict[str, Value] = {}
        for key, value in values.items():
            if isinstance(value, (bool, int, float)):
                scalars[key] = value
                self._key_id(key)
            else:
                if isinstance(value, Media):
                    self._contents.extend(value.encoded.contents.values())
                self._log_object(key, value.kind, value.to_json(), step, time)
        if scalars:
            self._rows.append((step, time, scalars))

    def log_rows(self, rows: Sequence[tuple[int, float, Mapping[str, Value]]]) -> None:
        """Keep rows of nothing but scalars for the next commit."""
        self._rows.extend(rows)

    def _log_object(self, key: str, kind: str, data: dict[str, Any], step: int, time: float) -> None:
        columns = {
            "run": RUN,
            "key_id": self._key_id(key),
            "step": step,
            "time": time,
            "kind": kind,
            "data": json.dumps(data),
        }
        self._statements.append(insert(schema.objects).prefix_with("OR REPLACE").values(**columns))

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Keep config entries for the next commit."""
        self._set(schema.config, config)

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        """Keep summary entries for the next commit."""
        self._set(schema.summary, summary)

    def _set(self, table: Any, entries: Mapping[str, Any]) -> None:
        for key, value in entries.items():
            columns = {"run": RUN, "key": storable(key), "value": json.dumps(value)}
            self._statements.append(insert(table).prefix_with("OR REPLACE").values(**columns))

    def define_metric(self, rule: MetricRule) -> None:
        """Keep a metric rule for the next commit."""
        columns = {
            "run": RUN,
            "pattern": storable(rule.pattern),
            "summary": json.dumps(rule.summary),
            "step_metric": storable_or_none(rule.step_metric),
            "goal": rule.goal,
        }
        self._statements.append(insert(schema.metric_rules).prefix_with("OR REPLACE").values(**columns))

    def record_environment(self, environment: Environment) -> None:
        """Keep entries of this segment's environment for the next commit."""
        self._surroundings.set_environment(environment)

    def log_console(self, lines: Sequence[ConsoleLine]) -> None:
        """Keep lines for the next commit."""
        self._surroundings.add_lines(lines)

    def log_system(self, row: SystemRow) -> None:
        """Keep a row of system metrics for the next commit."""
        self._surroundings.add_row(row)

    def log_artifact(self, artifact: LoggedArtifact) -> None:
        """Keep an artifact for the next commit; contents and a version that are not here come into being.

        Raises:
            CorruptArtifactError: content is gone, or is not what was logged.
            StoreError: the place where artifacts lie cannot be read or written.
            UsageError: the name belongs to artifacts of another type here.
        """
        artifact = self._in_project(artifact)
        if artifact.version is None:
            self._claims.enter_context(contents_here(artifact, self._own))
        elif not lies_here(artifact, self._catalog):
            made = version_here(artifact, artifact.version, self._catalog, self.info.id)
            artifact = replace(artifact, version=made.number)
        self._keep(artifact, used=False)

    def use_artifact(self, artifact: LoggedArtifact) -> None:
        """Keep the first use of a version for the next commit; one that is not here comes into being.

        Who uses what lies here notes that with the version; of what comes from elsewhere it is noted now.

        Raises:
            CorruptArtifactError: content is gone, or is not what was logged.
            StoreError: the place where artifacts lie cannot be read or written.
            UsageError: the name belongs to artifacts of another type here.
        """
        artifact = replace(self._in_project(artifact), aliases=())
        if artifact.version is None or lies_here(artifact, self._catalog):
            self._keep_use(artifact)
        else:
            used = version_here(artifact, artifact.version, self._catalog, None)
            self._keep_use(replace(artifact, version=used.number))
            self._catalog.note_use(used, self.info.id)

    def _keep_use(self, artifact: LoggedArtifact) -> None:
        version = (artifact.project, artifact.name, artifact.version)
        if version not in self._used:  # a loop may use one in each round
            self._used.add(version)
            self._keep(artifact, used=True)

    def _in_project(self, artifact: LoggedArtifact) -> LoggedArtifact:
        return artifact if artifact.project else replace(artifact, project=self.info.project)

    def _keep(self, artifact: LoggedArtifact, *, used: bool) -> None:
        number = self._artifacts = self._artifacts + 1
        self._statements.append(
            schema.artifacts.insert().values(
                run=RUN,
                artifact=number,
                name=artifact.name,
                type=storable(artifact.type),
                description=storable_or_none(artifact.description),
                metadata=json.dumps(artifact.metadata),
                time=artifact.time,
                project=storable(artifact.project),
                version=artifact.version,
                digest=artifact.digest,
                aliases=json.dumps(artifact.aliases),
                used=used,
            )
        )
        for file in artifact.files:
            reference, checksum = map(storable_or_none, (file.reference, file.checksum))
            self._files.append((number, storable(file.path), file.sha256, file.size, reference, checksum))

    def commit(self) -> None:
        """Write all that was kept in one transaction; after a failure, the next call tries again.

        Raises:
            StoreError: the disk cannot take it now.
            BackendLostError: another process took the run over, or its file is gone.
        """
        moment = now()
        beat = moment - self._heartbeat_at >= HEARTBEAT_SECONDS
        if not (self._rows or self._statements or self._surroundings or beat):
            return
        points = self._points()
        burst = len(points) > _BURST * len(self._key_ids)
        if burst:
            self._fold()  # older points must not win over newer ones
            points.sort(key=itemgetter(0))
        with self._large_contents():
            try:
                self._write(points, burst=burst, beat=moment if beat else None)
            except OverflowError:  # an integer beyond int64 is kept as the nearest double
                points = [(key, step, time, _within_int64(value)) for key, step, time, value in points]
                self._write(points, burst=burst, beat=moment if beat else None)
        self._claims.close()
        self._rows.clear()
        self._named_rows = 0
        self._statements.clear()
        self._files.clear()
        self._contents.clear()
        self._surroundings.clear()
        self._new_keys.clear()
        self._commits += 1
        if not burst:
            self._unfolded += len(points)
            if self._commits % _FOLD_EVERY == 0 or self._unfolded > _FOLD_ABOVE:
                self._fold()

    def _write(self, points: list[Point], *, burst: bool, beat: float | None) -> None:
        with transaction(self._connection):
            self._write_keys()
            if burst:
                self._insert(_REPLACE, points)
                self._connection.execute(_COUNT_FOLD)
            else:
                self._insert(_APPEND, points)
            for statement in self._statements:
                self._connection.execute(statement)
            if self._files:
                self._connection.exec_driver_sql(_ADD_FILE, self._files)
            self._write_contents()
            self._surroundings.write(self._connection)
            if beat is not None:
                self._beat(beat)

    @contextmanager
    def _large_contents(self) -> Generator[None]:
        """Write the contents that do not lie in the run's file; claimed until the block has named them."""
        large = {content.sha256: content for content in self._contents if content.size > _INLINE}
        if not large:
            yield
            return
        blobs = Blobs(self._own)
        with claimed(self._own, large):
            for content in large.values():
                if not blobs.has(content.sha256):
                    blobs.add_bytes(content.read())
            yield

    def _write_contents(self) -> None:
        rows = [(c.sha256, c.size, c.read() if c.size <= _INLINE else None) for c in self._contents]
        if rows:
            self._connection.exec_driver_sql(_ADD_CONTENT, rows)

    def _points(self) -> list[Point]:
        ids = self._key_ids
        try:
            return [
                (ids[key], step, time, value)
                for step, time, values in self._rows
                for key, value in values.items()
            ]
        except KeyError:
            self._name_keys()
            return self._points()

    def _name_keys(self) -> None:
        """Give the keys of rows that wait their numbers, in the order in which they came."""
        for _, _, values in self._rows[self._named_rows :]:
            for key in values:
                self._key_id(key)
        self._named_rows = len(self._rows)

    def _key_id(self, key: str) -> int:
        if key not in self._key_ids:
            stored = storable(key)
            if stored not in self._key_ids:
                self._last_key_id += 1
                self._key_ids[stored] = self._last_key_id
                self._new_keys.append(stored)
            self._key_ids[key] = self._key_ids[stored]
        return self._key_ids[key]

    def _write_keys(self) -> None:
        if self._new_keys:
            self._connection.execute(
                schema.keys.insert(),
                [{"run": RUN, "key_id": self._key_ids[key], "key": key} for key in self._new_keys],
            )

    def _insert(self, statement: str, points: list[Point]) -> None:
        whole = len(points) - len(points) % _MANY
        if whole:
            flat = list(chain.from_iterable(points[:whole]))
            width = len(points[0]) * _MANY
            groups = [tuple(flat[i : i + width]) for i in range(0, len(flat), width)]
            self._connection.exec_driver_sql(
                statement + ", ".join([_PLACES] * _MANY),
                groups,
            )
        if whole < len(points):
            self._connection.exec_driver_sql(statement + _PLACES, points[whole:])

    def _beat(self, moment: float) -> None:
        """Renew the lease.

        Raises:
            BackendLostError: it is no longer ours.
        """
        renewed = self._connection.execute(
            update(schema.segments)
            .where(schema.segments.c.segment == self._segment, schema.segments.c.state == "running")
            .values(heartbeat_at=moment)
        )
        if renewed.rowcount != 1:
            msg = f"run {self.info.id} was taken over by another process"
            raise BackendLostError(msg)
        if not self._path.exists():
            msg = f"{self._path} was moved or deleted"
            raise BackendLostError(msg)
        self._heartbeat_at = moment

    def _fold(self) -> None:
        if self._unfolded:
            with transaction(self._connection):
                self._connection.exec_driver_sql(_FOLD)
                self._connection.exec_driver_sql("DELETE FROM new_points")
                self._connection.execute(_COUNT_FOLD)
            self._unfolded = 0

    def finish(self, status: Status) -> None:
        """Leave a file that stands for itself: folded, ended, without a write-ahead log."""
        self.commit()
        self._fold()
        if not self._has_ended:
            self._end(status)
            self._has_ended = True
        # where somebody reads it just now, the file stays in WAL mode, whole with its -wal file
        with suppress(DatabaseError):
            self._connection.exec_driver_sql("PRAGMA journal_mode = DELETE")
        self._connection.close()
        self._engine.dispose()

    def _end(self, status: Status) -> None:
        moment = now()
        with transaction(self._connection):
            self._beat(moment)  # a run whose file is gone did not finish
            if status.state != "running":
                self._connection.execute(
                    update(schema.segments)
                    .where(schema.segments.c.segment == self._segment)
                    .values(state=status.state, exit_code=status.exit_code, ended_at=moment)
                )

    def after_fork_in_child(self) -> None:
        """Leave the connection alone: it is the parent's."""
        keep_for_ever(self)  # and with it what SQLAlchemy rolls back and closes when it is let go


def _within_int64(value: Any) -> Any:
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    return value
