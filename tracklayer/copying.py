"""Pushing a run into a folder: a replay into any backend that keeps runs there.

The copy is made aside and moved into its place when it is whole, so that a kill leaves the old one or the new
one; where these are folders, but for the moment between two renames, after which the next push puts it right.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, final

from tracklayer.artifacts.catalog import Catalog
from tracklayer.artifacts.describing import artifacts_now
from tracklayer.artifacts.locations import locate
from tracklayer.errors import RunExistsError, RunInUseError, TracklayerError, UsageError
from tracklayer.folders import make_store
from tracklayer.ledger import Entry, Ledger, Sending
from tracklayer.push_report import LOCK_SECONDS, Place, Progress, PushReport
from tracklayer.reading import as_replayed
from tracklayer.replaying import replay
from tracklayer.settings import Settings, artifacts_url

if TYPE_CHECKING:
    from tracklayer.protocol import Backend
    from tracklayer.push_report import Outcome
    from tracklayer.reading import RunReader


def push_to_folder(
    reader: RunReader,
    backend: Backend,
    folder: Path,
    store: Path,
    *,
    place: Place | None = None,
    dry_run: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> PushReport:
    """Make a folder's copy of a run what the run is.

    Args:
        reader: the run.
        backend: one that keeps runs in a folder.
        folder: the one that would be its `TRACKLAYER_DIR`.
        store: the run's own store, where the ledger lies.
        place: what the run is called there, if not as here.
        dry_run: only say what would be done.
        force: replace a run of that id that is not from here, or was changed there since.
        progress: is told how far it is.

    Returns:
        What happened; an error of ours or of the system is a report, not an exception.
    """
    ledger = Ledger(store, reader.id)
    try:
        with nullcontext() if dry_run else ledger.locked(LOCK_SECONDS):
            copy = _Copy(reader, backend, folder, store, ledger, place or Place(), progress or Progress())
            return copy.run(dry_run=dry_run, force=force)
    except RunInUseError as error:
        return PushReport(reader.id, "busy", 0, 0, str(error))
    except (TracklayerError, OSError) as error:
        return PushReport(reader.id, "failed", 0, 0, str(error) or type(error).__name__)


@final
class _Copy:
    """One run's push to a folder: of what it holds now."""

    def __init__(
        self,
        reader: RunReader,
        backend: Backend,
        folder: Path,
        store: Path,
        ledger: Ledger,
        place: Place,
        progress: Progress,
    ) -> None:
        if backend.place is None:
            msg = f"backend {backend.name!r} does not keep a run in one place of a folder: no push goes there"
            raise UsageError(msg)
        backend.check()
        self._revision = reader.revision  # before all else: what is logged from now on changes it
        self._info = as_replayed(place.of(reader.info))
        self._reader = reader
        self._backend = backend
        self._place_in = backend.place
        self._folder = folder
        self._place = backend.place(folder, self._info)
        if backend.place(store, reader.info).resolve() == self._place.resolve() and backend.open_store:
            msg = f"{folder} is the run's own store: name another folder, or another id with --id"
            raise UsageError(msg)
        self._ledger = ledger
        self._progress = progress
        self._artifacts = artifacts_now(reader, Catalog(locate(artifacts_url(), store)))
        self._target = f"{backend.name}:{self._place.resolve()}"
        self._entry = ledger.entry(self._target)

    def run(self, *, dry_run: bool, force: bool) -> PushReport:
        """Copy, unless the copy that is there is of what the run is now."""
        entry, sending = self._entry, self._entry.sending
        if sending is not None and sending.scratch and not dry_run:
            shutil.rmtree(sending.scratch, ignore_errors=True)
        mark = _mark(self._place)
        if mark and mark not in {entry.mark, sending.mark if sending else ""} and not force:
            msg = (
                f"{self._place} is not from here, or was changed since: choose another id with --id or "
                "another folder with --to, or replace it with --force"
            )
            raise RunExistsError(msg)
        now = (mark, self._revision, self._artifacts.labels)
        if mark and (entry.mark, entry.revision, entry.labels) == now:
            return self._report("unchanged", 0, entry.rows, "copied before")
        if dry_run:
            rows = sum(1 for _ in self._reader.rows())
            message = "in place of the copy of before" if mark else "a new copy"
            return self._report("would send", rows, rows, message)
        return self._copy()

    def _copy(self) -> PushReport:
        make_store(self._folder)
        scratch = Path(tempfile.mkdtemp(prefix=".tracklayer-push-", dir=self._folder))
        sending = Sending(host=socket.gethostname(), pid=os.getpid(), at=time.time(), scratch=str(scratch))
        try:
            self._ledger.record(self._target, replace(self._entry, sending=sending))
            rows = self._replay(scratch / "new")
            made = self._place_in(scratch / "new", self._info)
            mark = _mark(made)
            self._ledger.record(self._target, replace(self._entry, sending=replace(sending, mark=mark)))
            _exchange(made, self._place, scratch / "old")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        entry = Entry(
            revision=self._revision,
            labels=self._artifacts.labels,
            through=self._reader.last_step,
            rows=rows,
            state=self._reader.info.state,
            confirmed_at=time.time(),
            mark=mark,
        )
        self._ledger.record(self._target, entry)
        return self._report("sent", rows, rows, "the copy is in its place")

    def _replay(self, made: Path) -> int:
        """Record the run in a new folder, and its artifacts where they stay; return the number of rows."""
        settings = Settings(
            backends=(self._backend.name,), dir=made, artifacts=str(self._folder), replaying=True
        )
        run = self._backend.open(self._info, None, settings)
        rows = replay(
            self._reader,
            run,
            artifacts=self._artifacts.made,
            uses=self._artifacts.used,
            kinds=self._backend.kinds,
            progress=self._note,
        )
        _merge(made, self._folder, apart=self._place_in(made, self._info))
        return rows

    def _note(self, rows: int) -> None:
        self._progress.rows = rows

    def _report(self, outcome: Outcome, rows: int, total: int, message: str) -> PushReport:
        return PushReport(self._reader.id, outcome, rows, total, message, str(self._place))


def _mark(place: Path) -> str:
    """Return a word for what lies at a place, which changes when that does; empty for nothing."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    stats = [(path.name, (found := path.stat()).st_size, found.st_mtime_ns) for path in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16] if stats else ""


def _merge(made: Path, folder: Path, *, apart: Path) -> None:
    """Move what several runs share, which lies under its hash, to where it is not yet."""
    shared = (path for path in made.rglob("*/*") if path.is_file() and apart not in {path, *path.parents})
    for path in [*shared]:
        there = folder / path.relative_to(made)
        if not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            path.replace(there)


def _exchange(made: Path, place: Path, old: Path) -> None:
    """Move what was made to its place; what is there goes away."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if made.is_dir() and place.exists():
        place.rename(old)
    made.replace(place)
