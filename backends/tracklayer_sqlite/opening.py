"""Opening a run's file for reading: of whatever version it is, and where nothing may be written, too."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError, NoResultFound

from tracklayer.errors import CorruptRunError, RunNotFoundError, StoreError
from tracklayer_sqlite import schema
from tracklayer_sqlite.connecting import engine_for, engine_of, is_writable, store_error

_COPIES: Final = 5  # attempts at a copy that nobody wrote to meanwhile


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
def snapshot(connection: Connection) -> Generator[None]:
    """See one state of the file throughout."""
    connection.exec_driver_sql("BEGIN")
    try:
        yield
    finally:
        connection.exec_driver_sql("ROLLBACK" if not _wrote_temporary(connection) else "COMMIT")


def _wrote_temporary(connection: Connection) -> bool:
    return bool(connection.exec_driver_sql("SELECT count(*) FROM sqlite_temp_master").scalar())
