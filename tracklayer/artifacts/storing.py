"""Stores files by their content: copied aside while they are hashed, and moved in when all are.

The contents are those at the call.  A file that changes while it is read is read again; one that changes each
time is refused.  What the caller's files do wrong is an `OSError` or one of ours that is no `StoreError`; a
`StoreError` is the location's.

Everything is on disk before the block that may name it: large files are synced one by one, by the threads
that copied them, and many small ones by one sync of their file system, which costs less than theirs together.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar, final

from tracklayer.artifacts.blobs import Blobs, blob_name, copied, sha256_of, writing
from tracklayer.artifacts.claims import claimed, staged
from tracklayer.artifacts.locations import Location
from tracklayer.artifacts.records import ArtifactFile
from tracklayer.artifacts.reflink import reflink
from tracklayer.errors import FileChangedError, UsageError

_THREADS: Final = 8
_FEW_THREADS: Final = 2
"""For many small files: more would get in each other's way, but for calls that wait for a network."""
_LARGE: Final = 1 << 20
"""From so many bytes on a reflink is tried, and a file is synced by itself."""
_FEW: Final = 64
"""So many small files at most are synced one by one."""
_TRIES: Final = 3
_CLOCK_TICK: Final = 0.02
"""Seconds after which a file system surely shows a write in the time of change, as a rule 0.004 or 0.01."""
_IMPATIENCE: Final = 1.0
"""Seconds before a terminal shows a progress line."""
_QUIET_SECONDS: Final = 10.0
"""Between two progress lines where there is no terminal, and before the first."""

_Item = TypeVar("_Item")


@contextmanager
def stored(
    files: Mapping[str, Path],
    location: Location,
    *,
    known: Mapping[str, ArtifactFile],
    progress: str | None,
) -> Generator[tuple[ArtifactFile, ...]]:
    """Put files into a location; inside the block they are there, and are not collected.

    Args:
        files: by their paths in the artifact.
        location: where to.
        known: files that were stored before, by their paths: where one has the same size, it is read, and
            copied only if its content is another.
        progress: what is being done, for a line on stderr when it takes long; None for no such line.

    Yields:
        What was stored, in the order of the paths.

    Raises:
        UsageError: something is no regular file.
        FileChangedError: a file changed each time that it was read.
        StoreError: the location cannot be written.
        OSError: a file cannot be read, or is not there.
    """
    blobs = Blobs(location)
    with staged(location) as folder:
        taken = _take(files, known, folder, location, progress)
        while True:
            with claimed(location, (one.sha256 for one in taken.values())):
                gone = _move_in(taken.values(), location, progress)
                if not gone:
                    yield tuple(
                        ArtifactFile(path, one.sha256, one.size, blobs.place(one.sha256))
                        for path, one in sorted(taken.items())
                    )
                    return
            # it was there before, and was removed before it was claimed: now it is copied; the rest is there
            taken = {path: replace(one, copy=None) for path, one in taken.items()}
            again = {path: files[path] for path, one in taken.items() if one.sha256 in gone}
            taken |= _take(again, {}, folder, location, progress)


@final
@dataclass(frozen=True, slots=True)
class _Taken:
    """A file's content: copied aside, or found to be one that was stored before."""

    sha256: str
    size: int
    copy: Path | None


@final
@dataclass(frozen=True, slots=True)
class _State:
    """What tells that a file changed."""

    size: int
    mtime_ns: int
    inode: int


@final
@dataclass(frozen=True, slots=True)
class _Reading:
    """How a file is read.

    Attributes:
        path: in the artifact.
        source: the file.
        known: what was stored before under this path.
        copy: where a copy goes.
        syncs: whether the copy is to outlast a power cut.
        work: is told of what was read.
    """

    path: str
    source: Path
    known: ArtifactFile | None
    copy: Path
    syncs: bool
    work: _Work

    def read(self, state: _State) -> tuple[_Taken, bool]:
        """Return the content, and whether it surely is that of one moment."""
        is_large = state.size >= _LARGE
        with self.source.open("rb", buffering=0) as file:
            if self.known is not None and self.known.size == state.size:
                if sha256_of(file, self.work.count) == self.known.sha256:
                    return _Taken(self.known.sha256, state.size, None), False
                file.seek(0)
            if is_large and reflink(file.fileno(), self.copy):
                return self._cloned(), True
            sync = is_large and self.syncs
            return _Taken(*copied(file, self.copy, sync=sync, count=self.work.count), self.copy), False

    def remove_copy(self) -> None:
        """Make room for another."""
        with writing(self.copy):
            self.copy.unlink(missing_ok=True)

    def _cloned(self) -> _Taken:
        with writing(self.copy), self.copy.open("rb") as file:
            taken = _Taken(sha256_of(file, self.work.count), os.fstat(file.fileno()).st_size, self.copy)
        if self.syncs:
            _sync(self.copy)
        return taken


def _take(
    files: Mapping[str, Path],
    known: Mapping[str, ArtifactFile],
    folder: Path,
    location: Location,
    progress: str | None,
) -> dict[str, _Taken]:
    """Copy files aside, but for those that are known to be there."""
    states = {path: _state(path, source) for path, source in files.items()}
    work = _Work(progress, sum(state.size for state in states.values()))
    syncs = location.folder is not None  # what is sent elsewhere is not kept here
    taken: dict[str, _Taken] = {}

    def take(path: str) -> None:
        reading = _Reading(path, files[path], known.get(path), folder / secrets.token_hex(8), syncs, work)
        taken[path] = _content(reading, states[path])

    by_size = sorted(files, key=lambda path: -states[path].size)
    work.do(take, [path for path in by_size if states[path].size >= _LARGE], _threads())
    work.do(take, [path for path in by_size if states[path].size < _LARGE], _FEW_THREADS)
    small = [one.copy for one in taken.values() if one.copy is not None and one.size < _LARGE]
    if syncs and not (len(small) > _FEW and _sync_file_system(folder)):
        work.do(_sync, small, _THREADS)
    return {path: taken[path] for path in files}  # each of them, or none


def _content(file: _Reading, state: _State) -> _Taken:
    """Return what a file holds at one moment."""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(0.1 * attempt)
            state = _state(file.path, file.source)
        age = time.time() - state.mtime_ns / 1e9
        if 0 <= age < _CLOCK_TICK:  # another write just now might not show
            time.sleep(_CLOCK_TICK - age)
        taken, is_whole = file.read(state)
        if is_whole or _state(file.path, file.source) == state:
            return taken
        file.remove_copy()
    msg = f"{file.source} changed each of the {_TRIES} times that it was read: log it once it is written"
    raise FileChangedError(msg)


def _move_in(taken: Iterable[_Taken], location: Location, progress: str | None) -> set[str]:
    """Move into the location what is not there; return the SHA-256 of what can be found nowhere."""
    blobs, gone, folders = Blobs(location), set[str](), set[str]()
    found: dict[str, _Taken] = {}
    for one in taken:
        if one.copy is not None or one.sha256 not in found:
            found[one.sha256] = one
    work = _Work(progress, sum(one.size for one in found.values()))

    def move_in(one: _Taken) -> None:
        if one.copy is None:
            if not blobs.has(one.sha256):
                gone.add(one.sha256)
        elif location.folder is not None or not blobs.has(one.sha256):  # a rename costs no more than a look
            name = blob_name(one.sha256)
            location.move_in(one.copy, name)
            folders.add(name.rpartition("/")[0])
        work.count(one.size)

    work.do(move_in, found.values(), _THREADS if location.folder is None else _FEW_THREADS)
    location.settle(folders)
    return gone


def _state(path: str, source: Path) -> _State:
    found = source.stat()
    if not stat.S_ISREG(found.st_mode):
        msg = f"artifact file {path!r}: {source} is no regular file"
        raise UsageError(msg)
    return _State(found.st_size, found.st_mtime_ns, found.st_ino)


def _sync(path: Path) -> None:
    with writing(path):
        descriptor = os.open(path, os.O_RDWR)  # Windows syncs no file that is open for reading alone
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync_file_system(folder: Path) -> bool:
    """Sync all of the file system that a folder lies on; say whether this operating system can."""
    if sys.platform != "linux":
        return False
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    with writing(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if libc.syncfs(descriptor) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(descriptor)
    return True


def _started(pool: ThreadPoolExecutor, work: Callable[[], None], count: int) -> Iterator[Future[None]]:
    """Start so many threads, or fewer where the system has no more, or the interpreter ends."""
    with suppress(RuntimeError):
        for _ in range(count):
            yield pool.submit(work)


def _threads() -> int:
    """Return how many threads large files are worth: some wait for the disk, while others copy and hash."""
    if sys.platform == "linux":  # where a process may be kept to some of the processors
        return min(_THREADS, 2 * len(os.sched_getaffinity(0)))
    return min(_THREADS, 2 * (os.cpu_count() or 1))


@final
class _Work:
    """Work on many files by several threads, of which a line on stderr tells when it takes long.

    Args:
        progress: what is being done; None for no such line.
        total: how many bytes there are to do.
    """

    def __init__(self, progress: str | None, total: int) -> None:
        has_place = sys.stderr is not None  # a program without a console has none
        self._line = _Line(progress, total) if progress is not None and has_place else None
        self._done = 0
        self._stopped = False

    def do(self, work: Callable[[_Item], None], items: Iterable[_Item], count: int) -> None:
        """Do work on each item, with so many threads at most; the first that goes wrong ends it."""
        waiting = deque(items)

        def run() -> None:
            while True:
                try:
                    item = waiting.popleft()
                except IndexError:
                    return
                work(item)

        with ThreadPoolExecutor(count, "tracklayer-storing") as pool:
            try:
                self._watch(list(_started(pool, run, min(count, len(waiting)))))
                run()  # as much as no thread could be started for
            except BaseException:
                self._stopped = True
                waiting.clear()
                raise

    def count(self, size: int) -> None:
        """Note that bytes were done, in the thread that did them.

        Raises:
            CancelledError: the work was given up.
        """
        self._done += size  # a sum that two threads spoil now and then is good enough for a line
        if self._stopped:
            raise CancelledError

    def _watch(self, threads: list[Future[None]]) -> None:
        pending = set(threads)
        while pending:
            done, pending = wait(pending, _Line.SECONDS, FIRST_EXCEPTION)
            for thread in done:
                thread.result()
            if self._line is not None:
                self._line.write(self._done, is_last=not pending)


@final
class _Line:
    """A line on stderr: on a terminal one that changes, after a second; elsewhere one now and then."""

    SECONDS: Final = 0.2

    def __init__(self, progress: str, total: int) -> None:
        self._progress = progress
        self._total = total
        self._on_terminal = False
        isatty = getattr(sys.stderr, "isatty", None)  # what stands there may be no file
        with suppress(OSError, ValueError):  # it is closed
            self._on_terminal = bool(isatty and isatty())
        self._next = time.monotonic() + (_IMPATIENCE if self._on_terminal else _QUIET_SECONDS)
        self._is_shown = False

    def write(self, done: int, *, is_last: bool) -> None:
        """Write it if it is time to; on a terminal, the last time removes it."""
        if self._on_terminal and is_last and self._is_shown:
            self._say("\r\x1b[K")
        elif time.monotonic() >= self._next and not is_last:
            self._next = time.monotonic() + (self.SECONDS if self._on_terminal else _QUIET_SECONDS)
            self._is_shown = True
            share = f"{min(done, self._total) / 1e6:,.0f} of {self._total / 1e6:,.0f} MB"
            line = f"tracklayer: {self._progress}: {share}"
            self._say(f"\r{line}\x1b[K" if self._on_terminal else f"{line}\n")

    @staticmethod
    def _say(text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):  # it is closed, or gone, or cannot be flushed
            sys.stderr.write(text)
            sys.stderr.flush()
