"""The SQLite backend and store: one file a run, in a folder; no server, no network, no account.

Importing this package costs next to nothing; SQLAlchemy is imported when a run or a store is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tracklayer.protocol import Backend, Resume, RunInfo

if TYPE_CHECKING:
    from tracklayer.reading import Store
    from tracklayer.settings import Settings
    from tracklayer_sqlite.recording import SQLiteRun


def _open(info: RunInfo, resume: Resume | None, settings: Settings) -> SQLiteRun:
    from tracklayer_sqlite.starting import open_run

    return open_run(info, resume, settings)


def _open_store(path: Path) -> Store:
    from tracklayer_sqlite.store import SQLiteStore

    return SQLiteStore(path)


def _place(store: Path, info: RunInfo) -> Path:
    from tracklayer_sqlite.starting import run_path

    return run_path(store, info.id)


backend = Backend(
    name="sqlite",
    summary="one SQLite file a run, in a folder on this disk",
    open=_open,
    open_store=_open_store,
    place=_place,
)
