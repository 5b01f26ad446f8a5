"""Opening a run's file: connections, journal modes, and the file systems on which they hold.

WAL needs shared memory, which network file systems do not give; there the rollback journal is used,
without memory-mapped reads (gradio-app/trackio#555 tells what happens otherwise).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import psutil
from sqlalchemy import URL, Connection, Dialect, Engine, create_engine
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from tracklayer.errors import CorruptRunError, StoreError

_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "lustre", "gpfs", "wekafs", "ceph", "cifs", "smb", "smb2", "smb3", "smbfs"}
    | {"beegfs", "afs", "afpfs", "9p", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph"}
    | {"pvfs2", "orangefs", "panfs", "webdav", "virtiofs"}
)
_BUSY_SECONDS: Final = 5.0


def on_network(path: Path) -> bool:
    """Say whether a path lies on a network file system."""
    real = path.resolve()
    best, kind = "", ""
    try:
        disks = psutil.disk_partitions(all=True)
    except OSError:  # a sandbox that does not tell
        return False
    for disk in disks:
        if real.is_relative_to(disk.mountpoint) and len(disk.mountpoint) >= len(best):
            best, kind = disk.mountpoint, disk.fstype.lower()
    return kind in _NETWORK


def engine_for(path: Path, *, mode: str) -> Engine:
    """Return an engine for one file; `mode` is SQLite's: `ro`, `rw` or `rwc`."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return engine_of(lambda: sqlite3.connect(uri, uri=True, **_CONNECT), str(path))


def engine_of(connect: Callable[[], sqlite3.Connection], name: str) -> Engine:
    """Return an engine whose connections `connect` makes, in autocommit: we say BEGIN ourselves.

    The engines of a process share their dialect and what it compiled: with one of its own, as
    `create_engine` gives it, each file would have all statements compiled again, which takes 10 ms.
    """

    def connect_in_autocommit() -> Any:  # what SQLAlchemy takes from a driver is not typed as sqlite3 is
        connection = connect()
        connection.isolation_level = None
        connection.execute("PRAGMA mmap_size = 0")
        return connection

    dialect = _dialect()
    return Engine(
        NullPool(connect_in_autocommit, dialect=dialect),
        dialect,
        URL.create("sqlite", database=name),  # for messages only: `connect` opens what it opens
        execution_options={"compiled_cache": _compiled()},
    )


@cache
def _dialect() -> Dialect:
    """Return SQLite's dialect, which learns at its first connection what this SQLite can do."""
    engine = create_engine("sqlite://", poolclass=NullPool)
    engine.connect().close()
    return engine.dialect


@cache
def _compiled() -> dict[Any, Any]:
    """Return what was compiled in this process: no more than there are statements in this package."""
    return {}


_CONNECT: Final[dict[str, Any]] = {"timeout": _BUSY_SECONDS, "check_same_thread": False}


@contextmanager
def transaction(connection: Connection, kind: str = "IMMEDIATE") -> Generator[None]:
    """Run a block in one transaction; an exception rolls it back.

    Raises:
        StoreError: the disk is full, read-only, gone, or somebody holds the file.
    """
    try:
        connection.exec_driver_sql(f"BEGIN {kind}")
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException as error:
        _roll_back(connection)
        if isinstance(error, DatabaseError):
            raise store_error(error, connection.engine.url.database) from error
        raise


def store_error(error: DatabaseError, where: object) -> StoreError:
    """Return our error for one of SQLite's."""
    code = getattr(error.orig, "sqlite_errorname", "")
    if code in {"SQLITE_CORRUPT", "SQLITE_NOTADB"}:
        return CorruptRunError(f"{where} is damaged ({error.orig})")
    return StoreError(f"{where}: {error.orig} ({code or 'no code'})")


def _roll_back(connection: Connection) -> None:
    raw: Any = connection.connection.dbapi_connection
    if raw is not None and raw.in_transaction:
        try:
            raw.execute("ROLLBACK")
        except sqlite3.Error:
            # the disk is gone: SQLite rolls back when the file is next opened
            return


def keep_for_ever(instance: object) -> None:
    """Never let an object be finalised in this process.

    For a forked child: SQLite forbids it to close a connection that its parent opened.
    """
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(instance))


def is_writable(folder: Path) -> bool:
    """Say whether files can be made in a folder."""
    return os.access(folder, os.W_OK | os.X_OK)
