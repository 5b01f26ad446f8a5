"""Event files: a log that a full disk cannot tear, and files that are there whole or not at all."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from errno import EIO
from typing import TYPE_CHECKING, Final, final

from tracklayer.errors import BackendLostError
from tracklayer_tensorboard.records import framed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_NAME: Final = re.compile(r"events\.out\.tfevents\.(\d{1,18})\..+")
_END: Final = ".end"
_MENDED: Final = ".mended"
_UNFINISHED: Final = "unfinished."  # TensorBoard reads any file with "tfevents" in its name


@final
class EventLog:
    """An event file that grows: events wait in memory until `flush` has them in the file.

    A write that fails may leave a torn record in the file, at which TensorBoard waits; the rest
    stays in memory.  The next `flush` goes on at that very byte, and the record becomes whole.
    """

    def __init__(self, path: Path) -> None:
        """Create the file; it must be new."""
        self.path = path
        self._pending = bytearray()
        self._written = 0
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    def append(self, event: bytes) -> None:
        """Take a serialized event."""
        self._pending += framed(event)

    def flush(self) -> None:
        """Hand all events to the operating system.

        Raises:
            OSError: not all could be written; the next call goes on from there.
            BackendLostError: the file is shorter than what was written to it.
        """
        while self._pending:
            descriptor = self._open()
            try:
                count = _write(descriptor, self._pending, self._written)
            except OSError:
                self._descriptor = None  # a network file system may never take this one back
                with suppress(OSError):
                    os.close(descriptor)
                raise
            self._written += count
            del self._pending[:count]

    def close(self) -> None:
        """Wait until the disk has the file, and let go of it; a second call does nothing.

        Raises:
            OSError: the disk did not take it.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _open(self) -> int:
        if self._descriptor is None:
            descriptor = os.open(self.path, os.O_WRONLY)
            if os.fstat(descriptor).st_size < self._written:
                os.close(descriptor)
                msg = f"{self.path} was shortened: something else writes to it"
                raise BackendLostError(msg)
            self._descriptor = descriptor
        return self._descriptor


def event_files(folder: Path) -> list[Path]:
    """Return a folder's event files, in the order in which TensorBoard reads them."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if "tfevents" in path.name)


def new_log(folder: Path, earlier: list[Path], time: float) -> EventLog:
    """Create a segment's event file; it is read after all earlier ones, whatever clocks say."""
    stamps = [int(match[1]) for path in earlier if (match := _NAME.fullmatch(path.name))]
    stamp = max([int(time), *(stamp + 1 for stamp in stamps)])
    host = re.sub(r"[^A-Za-z0-9_\-]+", "-", socket.gethostname())
    return EventLog(folder / f"events.out.tfevents.{stamp:010}.{host}.{os.getpid()}")


def end_file(log: Path) -> Path:
    """Return the file with the mark of how the run ended, if it ended with this segment."""
    return log.with_name(log.name + _END)


def mended_file(log: Path) -> Path:
    """Return the file that repeats what TensorBoard would hide; it is read after the log."""
    return log.with_name(log.name + _MENDED)


def clear_ends(folder: Path) -> None:
    """Remove what marks a run as ended, since it goes on: TensorBoard holds on to the first mark.

    What a killed process was about to write goes with it.
    """
    for path in folder.iterdir():
        is_end = "tfevents" in path.name and path.name.endswith(_END)
        if is_end or path.name.startswith(_UNFINISHED):
            path.unlink(missing_ok=True)


def write_whole(path: Path, events: Iterable[bytes]) -> None:
    """Create a file that TensorBoard sees whole or not at all.

    Raises:
        OSError: it could not be written, and is not there.
    """
    unfinished = path.with_name(f"{_UNFINISHED}{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.writelines(map(framed, events))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def _write(descriptor: int, data: bytearray, offset: int) -> int:
    os.lseek(descriptor, offset, os.SEEK_SET)
    count = os.write(descriptor, data)
    if count == 0:
        raise OSError(EIO, os.strerror(EIO))
    return count
