"""Starting a run's file, or continuing one: its folder, its journal and its lease."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import time as now
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, RowMapping, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError

from tracklayer.artifacts.catalog import Catalog
from tracklayer.artifacts.locations import FolderLocation, locate
from tracklayer.errors import RunExistsError, RunInUseError, RunNotFoundError, StoreError, UsageError
from tracklayer.folders import make_store
from tracklayer.naming import file_name
from tracklayer.protocol import Resume, RunInfo
from tracklayer.settings import DEFAULT_PROJECT
from tracklayer_sqlite import schema
from tracklayer_sqlite.connecting import engine_for, on_network, store_error, transaction
from tracklayer_sqlite.lease import Holder, this_process
from tracklayer_sqlite.opening import connected
from tracklayer_sqlite.recording import SQLiteRun
from tracklayer_sqlite.schema import RUN, storable_or_none

if TYPE_CHECKING:
    from tracklayer.settings import Settings

_WAL_PAGES: Final = 4000  # between checkpoints: 16 MB
_CACHE_KIB: Final = 16_000  # folding sorts in memory of this size


def run_path(store: Path, run_id: str) -> Path:
    """Return where a run's file lies in a store."""
    return store / "runs" / f"{file_name(run_id)}.sqlite"


def open_run(info: RunInfo, resume: Resume | None, settings: Settings) -> SQLiteRun:
    """Start a run's file, or continue it.

    Raises:
        RunExistsError, RunNotFoundError, RunInUseError: as `resume` demands.
        StoreError: the store cannot be written.
        UsageError: there is no such place for artifacts.
    """
    store = settings.dir
    path = run_path(store, info.id)
    own, catalog = FolderLocation(store), Catalog(locate(settings.artifacts, store))
    _prepare_folder(store)
    is_new = resume != "must" and _claim(path)
    if not is_new and resume in {None, "never"}:
        _refuse_if_live(info.id, path)
        msg = (
            f"run {info.id!r} is recorded in {store} already: pass resume='allow' to continue it, or "
            "another id"
        )
        raise RunExistsError(msg)
    if not is_new and not path.exists():
        msg = f"resume='must', but there is no run {info.id!r} in {store}"
        raise RunNotFoundError(msg)
    network = on_network(path)
    engine = engine_for(path, mode="rw")
    connection: Connection | None = None
    try:
        connection = engine.connect()
        with transaction(connection):
            recorded, segment = _take_lease(connection, info, path)
        # not before: a finished run that may not be continued keeps standing for itself
        _set_journal(connection, "DELETE" if network else "WAL")
        return SQLiteRun(engine, connection, recorded, segment, path, own, catalog, network=network)
    except BaseException as error:
        if connection is not None:
            connection.close()
        engine.dispose()
        if is_new:
            _take_back(path)
        if isinstance(error, DatabaseError):
            raise store_error(error, path) from error
        raise


def _prepare_folder(store: Path) -> None:
    try:
        make_store(store)
        (store / "runs").mkdir(exist_ok=True)
    except OSError as error:
        msg = f"cannot write to the store {store}: {error.strerror}; choose another with TRACKLAYER_DIR"
        raise StoreError(msg) from error


def _claim(path: Path) -> bool:
    """Create the run's file if there is none; say whether it was created."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
    except FileExistsError:
        return False
    except OSError as error:
        msg = f"cannot write to the store {path.parent.parent}: {error.strerror}"
        raise StoreError(msg) from error
    return True


def _take_back(path: Path) -> None:
    """Remove a file in which no run could be started, so that its id can be tried again."""
    try:
        if path.stat().st_size == 0:
            path.unlink()
    except OSError:
        return  # the disk that could not take the run cannot do this either


def _refuse_if_live(run_id: str, path: Path) -> None:
    """Raise RunInUseError where a live process records a run; a file that cannot be read says nothing."""
    try:
        with connected(path) as connection:
            last = _last_segment(connection)
    except StoreError:
        return
    if last is not None:
        _check_holder(run_id, last)


def _last_segment(connection: Connection) -> RowMapping | None:
    query = select(schema.segments).order_by(schema.segments.c.segment.desc())
    return connection.execute(query).mappings().first()


def _check_holder(run_id: str, segment: RowMapping) -> None:
    """Raise RunInUseError if a segment's process lives and still records."""
    holder = Holder(segment["host"], segment["pid"], segment["process_started_at"])
    if segment["state"] == "running" and holder.is_alive(segment["heartbeat_at"], now()):
        msg = (
            f"run {run_id!r} is being recorded by process {holder.pid} on host {holder.host}; "
            "finish that one first, or use another id"
        )
        raise RunInUseError(msg)


def _set_journal(connection: Connection, mode: str) -> None:
    with suppress(DatabaseError):  # somebody reads it just now: the mode that it has serves as well
        connection.exec_driver_sql(f"PRAGMA journal_mode = {mode}")
    connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
    connection.exec_driver_sql(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    connection.exec_driver_sql(f"PRAGMA cache_size = -{_CACHE_KIB}")


def _take_lease(connection: Connection, info: RunInfo, path: Path) -> tuple[RunInfo, int]:
    """Become the one process that records this run; return what it is, and the segment's number."""
    if schema.is_empty(connection):
        schema.create(connection)
    else:
        version = schema.version_of(connection, path)
        if version < schema.current_version():
            schema.migrate(connection, version)
    row = connection.execute(select(schema.runs)).mappings().first()
    last = _last_segment(connection)
    moment = now()
    if last is not None and last["state"] == "running":
        _check_holder(info.id, last)
        connection.execute(
            update(schema.segments)
            .where(schema.segments.c.segment == last["segment"])
            .values(state="crashed", ended_at=last["heartbeat_at"])
        )
    recorded = _merge_info(info, row)
    values = _info_columns(recorded)
    connection.execute(insert(schema.runs).values(**values).on_conflict_do_update(["run"], set_=values))
    segment = 1 if last is None else int(last["segment"]) + 1
    me = this_process()
    connection.execute(
        schema.segments.insert().values(
            run=RUN,
            segment=segment,
            host=me.host,
            pid=me.pid,
            process_started_at=me.started_at,
            started_at=moment,
            heartbeat_at=moment,
            state="running",
        )
    )
    return recorded, segment


def _merge_info(info: RunInfo, row: Mapping[Any, Any] | None) -> RunInfo:
    """Return what the run is: as it was recorded, but for what is given anew."""
    if row is None:
        return replace(info, name=info.name or info.id)
    if info.project not in {DEFAULT_PROJECT, row["project"]}:
        msg = f"run {info.id!r} is of project {row['project']!r}, not {info.project!r}"
        raise UsageError(msg)
    return replace(
        info,
        project=row["project"],
        name=info.name or row["name"],
        entity=info.entity or row["entity"],
        group=info.group or row["run_group"],
        job_type=info.job_type or row["job_type"],
        tags=info.tags or tuple(json.loads(row["tags"])),
        notes=info.notes if info.notes is not None else row["notes"],
        created_at=row["created_at"],
        resumed=True,
    )


def _info_columns(info: RunInfo) -> dict[str, Any]:
    return {
        "run": RUN,
        "id": info.id,
        "project": info.project,
        "entity": info.entity,
        "name": info.name,
        "run_group": info.group,
        "job_type": info.job_type,
        "tags": json.dumps(info.tags),
        "notes": storable_or_none(info.notes),
        "created_at": info.created_at,
    }
