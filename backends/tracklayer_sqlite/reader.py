"""Reading a run's file, finished, live or crashed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import time as now
from typing import TYPE_CHECKING, Any, Final, Literal, cast, final

from sqlalchemy import Connection, func, select

from tracklayer.artifacts.blobs import Blobs
from tracklayer.artifacts.locations import FolderLocation, locate
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.contents import Content
from tracklayer.errors import CorruptRunError
from tracklayer.naming import did_you_mean
from tracklayer.protocol import MetricRule, RunInfo, State, rule_for
from tracklayer.reading import MediaPoint, Metric, Row, Segment, join_seeds
from tracklayer.seeds import split_seed
from tracklayer.settings import artifacts_url
from tracklayer.summaries import entry
from tracklayer.values import Histogram, Text, Value, value_from_json
from tracklayer_sqlite import schema, surroundings
from tracklayer_sqlite.lease import Holder
from tracklayer_sqlite.opening import connected, snapshot
from tracklayer_sqlite.points import (
    FETCH,
    collect_newest,
    overlay,
    points_digest,
    series,
    sort_into_copy,
    statistics,
)

if TYPE_CHECKING:
    from tracklayer.media.base import Media
    from tracklayer.surroundings import ConsoleLine, Environment, SystemRow

_CONTENTS: Final = (
    "SELECT sha256, size FROM contents WHERE content IS NULL UNION "
    "SELECT sha256, size FROM artifacts JOIN artifact_files USING (run, artifact) "
    "WHERE reference IS NULL AND (? OR version IS NULL)"
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
        with self._connect() as connection, snapshot(connection):
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
        with self._connect() as connection, snapshot(connection):
            collect_newest(connection)
            rules = _rules(connection)
            for key_id, key in connection.execute(select(schema.keys.c.key_id, schema.keys.c.key)).all():
                rule = rule_for(key, rules)
                found = statistics(connection, key_id, rule)
                value = None if found is None else entry(rule, found)
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
        with self._connect() as connection, snapshot(connection):
            state = [
                connection.execute(select(schema.runs.c.folds)).scalar_one(),
                connection.execute(select(func.max(schema.new_points.c.seq))).scalar(),
                connection.execute(select(func.max(schema.objects.c.seq))).scalar(),
                connection.execute(select(func.max(schema.artifacts.c.artifact))).scalar(),
                connection.execute(select(func.max(schema.console.c.line))).scalar(),
                connection.execute(select(func.max(schema.system_metrics.c.row))).scalar(),
                *(
                    [list(row) for row in connection.execute(select(table))]
                    for table in (
                        schema.config,
                        schema.summary,
                        schema.metric_rules,
                        schema.runs,
                        schema.environments,
                    )
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
        with self._connect() as connection, snapshot(connection):
            key_id = connection.execute(select(schema.keys.c.key_id).where(schema.keys.c.key == key)).scalar()
            if key_id is None:
                seeds = {
                    part[1]: name for name in self.keys() if (part := split_seed(name)) and part[0] == key
                }
                if seeds:
                    return join_seeds(key, {seed: self.metric(name) for seed, name in seeds.items()})
                raise LookupError(self._no_key("metric", key, self.keys()))
            folded = series(connection, "points", key_id, "step")
            new = series(connection, "new_points", key_id, "seq")
        step, time, value = overlay(folded, new)
        return Metric(key, step, time, value)

    def rows(self, after: int | None = None) -> Iterator[Row]:
        """Yield one row a step, in order; its time is that of the step's last call.

        Args:
            after: leave out this step and those below it.
        """
        return self._read(after, each_call=False)

    def calls(self, after: int | None = None) -> Iterator[Row]:
        """Yield what was logged, one row a step and time, in that order.

        Args:
            after: leave out this step and those below it.
        """
        return self._read(after, each_call=True)

    def _read(self, after: int | None, *, each_call: bool) -> Iterator[Row]:
        """Yield rows, of each call or of each step.

        The run's file is held only while a sorted copy is made in SQLite's temporary storage, so that a
        slow consumer stalls no writer.
        """
        with self._connect() as connection:
            with snapshot(connection):
                sort_into_copy(connection, -1 if after is None else after)
                keys = connection.execute(select(schema.keys.c.key_id, schema.keys.c.key))
                names: dict[int, str] = dict(map(tuple, keys))
            cursor: Any = connection.connection.cursor()
            cursor.arraysize = FETCH
            cursor.execute("SELECT step, time, key_id, value, kind, data FROM temp.sorted ORDER BY rowid")
            step, time = -1, math.nan
            values: dict[str, Value] = {}
            for its_step, its_time, key_id, value, kind, data in cursor:
                if its_step != step or (each_call and its_time != time):
                    if values:
                        yield Row(step, time, values)
                    step, values = its_step, {}
                time = its_time
                if kind is None:
                    values[names[key_id]] = math.nan if value is None else value
                else:
                    values[names[key_id]] = self._object(kind, data)
            if values:
                yield Row(step, time, values)

    def digest(self, through: int) -> str:
        """Return a word that changes when anything is logged at this step or one below it, again or anew.

        It reads all points up to there, in about 0.2 s a million, and sorts none.
        """
        with self._connect() as connection, snapshot(connection):
            return points_digest(connection, through)

    def environments(self) -> dict[int, Environment]:
        """Return what the processes that recorded the run were, by the number of the segment."""
        with self._connect() as connection:
            return surroundings.environments(connection)

    def console(self, after: int = 0) -> Iterator[ConsoleLine]:
        """Yield what the run's processes printed, in order, without the first so many lines."""
        with self._connect() as connection:
            yield from surroundings.console(connection, after)

    def system_metrics(self, after: int = 0) -> Iterator[SystemRow]:
        """Yield what was measured on the run's machines, in order, without the first so many rows."""
        with self._connect() as connection:
            yield from surroundings.system_metrics(connection, after)

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
        with self._connect() as connection, snapshot(connection):
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
        with self._connect() as connection, snapshot(connection):
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
