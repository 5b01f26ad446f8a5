"""The file that a sweep's study lies in: Optuna's journal, made whole and kept readable."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, final

from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from tracklayer.errors import StoreError

_GRACE_SECONDS: Final = 3
"""After which Optuna's lock is broken: whoever has it then was killed while it wrote a line.

It is not one of ours that is merely slow, for that one holds the file lock as well, which ends with it.  It
is the least that Optuna takes without a warning; all others stand still for so long.
"""
_WAIT_SECONDS: Final = 60.0
"""A line is written in milliseconds: whoever waits longer waits for a process that hangs."""
_BLOCK: Final = 65536


def open_journal(path: Path) -> JournalStorage:
    """Open a journal, which is made if it is not there.

    Raises:
        OSError: it cannot be read, or made.
        ValueError, KeyError, TypeError, AssertionError: it is no journal, or damaged.
    """
    return _Storage(JournalFileBackend(str(path), lock_obj=_JournalLock(path)))


@final
class _Storage(JournalStorage):
    """Optuna's storage, where a sampler may also choose for a trial that is not in the study yet.

    Each parameter that Optuna sets is a write of its own, and a trial that is added with all of them is one.
    """

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute, but none of a trial that is not there: TPE tells others by one what it chose."""
        if trial_id >= 0:  # else what `create_trial` made
            super().set_trial_system_attr(trial_id, key, value)


@final
class _JournalLock(JournalFileOpenLock):
    """The lock under which a line is written, which it is only behind a whole one.

    A machine that goes down while it writes may leave half a line.  At the end of the file, readers pass over
    it; but the next one to append to it would make it a line that nobody can read, and with it all behind it.

    It is two locks.  A file lock, which the system takes from a process that dies, is for agents.  Optuna's,
    by an exclusive file, is for its own tools, which know no other, and whose lock by a symbolic link
    respects it; that link would name the journal by its path, and hold for ever once the folder was moved.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _GRACE_SECONDS)
        self._path = path
        self._agents = FileLock(path.with_suffix(".writing"), timeout=_WAIT_SECONDS)
        # by itself, for it calls its own `release` also while it waits, to break another's lock
        self._programs = JournalFileOpenLock(str(path), _GRACE_SECONDS)

    def acquire(self) -> bool:
        try:
            self._agents.acquire()
        except Timeout as error:
            msg = f"another process has held {error.lock_file} for {_WAIT_SECONDS:.0f} s: end it if it hangs"
            raise StoreError(msg) from error
        try:
            self._programs.acquire()
            try:
                _cut_unfinished_line(self._path)
            except BaseException:
                self._programs.release()
                raise
        except BaseException:
            self._agents.release()
            raise
        return True

    def release(self) -> None:
        try:
            with suppress(RuntimeError):  # another program broke it; what was written is written
                self._programs.release()
        finally:
            self._agents.release()


def _cut_unfinished_line(path: Path) -> None:
    with path.open("rb+", buffering=0) as file:
        end = size = file.seek(0, os.SEEK_END)
        block = 1  # mostly, the last character tells
        while end:
            start = max(end - block, 0)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end, block = start, _BLOCK
        if end != size:
            file.truncate(end)
