"""Who needs contents that no version names yet, and who is removing contents just now.

Both say so with a file in `claims/`, and look for the other's only then.  So of a process that relies on
content and one that collects garbage, at least one sees the other: the first waits, the second spares what is
claimed.

A file of a process that is no more counts for nothing.  On its own host that is known; on others the file is
written again every minute, and counts for nothing when that was not done for ten.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from tracklayer.artifacts.locations import Location
from tracklayer.errors import StoreError

_FOLDER: Final = "claims"
_COLLECTING: Final = "collecting-"
_STAGED: Final = "tracklayer-"
REFRESH_SECONDS: Final = 60.0
STALE_SECONDS: Final = 600.0
_PATIENCE: Final = 600.0
"""Seconds that a process waits for a collection before it gives up."""
_SAME_START: Final = 60.0
"""Seconds by which two readings of a process's start may differ, as when the clock was set meanwhile."""


@contextmanager
def claimed(location: Location, sha256s: Iterable[str]) -> Generator[None]:
    """Keep contents from being collected, whether they are there already or are added inside the block.

    What is found there inside the block stays there until its end.

    Raises:
        StoreError: the location cannot be written, or another process collects and does not come to an end.
    """
    with _Claim(location, secrets.token_hex(8), sorted(set(sha256s))):
        _wait_for_collections(location)
        yield


@contextmanager
def collecting(location: Location) -> Generator[frozenset[str]]:
    """Keep others from relying on contents that no version names, while the block runs.

    What versions need is to be read inside the block: a claim ends when a version is there instead.

    Yields:
        The SHA-256 of the contents that live processes claim.

    Raises:
        StoreError: another process collects here.
    """
    with _Claim(location, _COLLECTING + secrets.token_hex(8), []) as mine:
        live = [claim for claim in _claims(location) if claim.is_live()]
        for claim in live:
            if claim.is_collecting and claim.name != mine.name:  # two that begin at once may both give up
                msg = f"{location.url}: {claim.holder} collects here: try again when it is done"
                raise StoreError(msg)
        yield frozenset(sha256 for claim in live for sha256 in claim.contents)


@contextmanager
def staged(location: Location) -> Generator[Path]:
    """Give a folder, empty and private to this process, from which files are moved in; it is gone afterwards.

    Raises:
        StoreError: it cannot be made.
    """
    process = this_process()
    whose = f"{process.pid}-{process.started_at:.0f}-{process.host_digest}"
    folder = location.staging() / f"{_STAGED}{whose}-{secrets.token_hex(8)}"
    try:
        folder.mkdir(0o700 if location.folder is None else 0o777)  # a temporary folder is everybody's
    except OSError as error:
        msg = f"cannot write {folder}: {error.strerror}"
        raise StoreError(msg) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def leftovers(location: Location) -> list[Path | str]:
    """Return what dead processes left behind: names of claims, and folders with staged files."""
    claims = [claim.name for claim in _claims(location) if not claim.is_live()]
    folders = [folder for folder in location.staging().glob(f"{_STAGED}*") if _is_abandoned(folder)]
    return [*claims, *folders]


def remove_leftover(location: Location, leftover: Path | str) -> None:
    """Remove what `leftovers` returned.

    Raises:
        StoreError: the location cannot be written.
    """
    if isinstance(leftover, Path):
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        location.delete(leftover)


@final
@dataclass(frozen=True, slots=True)
class Process:
    """A process: where it runs, its id there, and when it started, in Unix seconds."""

    host: str
    pid: int
    started_at: float

    def __str__(self) -> str:
        """Name it in a message."""
        return f"process {self.pid} on {self.host}"

    @property
    def host_digest(self) -> str:
        """What stands for the host in a file name."""
        return _digest(self.host)

    def is_alive(self, seen_at: float) -> bool:
        """Say whether it lives: surely on its own host, elsewhere by when it was last seen (Unix seconds)."""
        if self.host != _host():
            return time.time() - seen_at < STALE_SECONDS
        return _runs(self.pid, self.started_at)


def this_process() -> Process:
    """Return the process that this one is."""
    import psutil

    return Process(_host(), os.getpid(), psutil.Process().create_time())


@final
@dataclass(frozen=True, slots=True)
class _Found:
    """A claim that was read."""

    name: str
    holder: Process
    refreshed_at: float
    contents: tuple[str, ...]

    @property
    def is_collecting(self) -> bool:
        return self.name.startswith(f"{_FOLDER}/{_COLLECTING}")

    def is_live(self) -> bool:
        return self.holder.is_alive(self.refreshed_at)


@final
class _Claim:
    """This process's claim, written again every minute until the block ends."""

    def __init__(self, location: Location, token: str, contents: list[str]) -> None:
        self.name: Final = f"{_FOLDER}/{token}.json"
        self._location = location
        self._process = this_process()
        self._contents = contents
        self._ended = threading.Event()
        self._refreshing = threading.Thread(target=self._refresh, name="tracklayer-claim", daemon=True)

    def __enter__(self) -> _Claim:
        self._write()
        with suppress(RuntimeError):  # the interpreter ends, and starts no thread any more
            self._refreshing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if os.getpid() == self._process.pid:  # a forked child ends its parent's block, too
            if self._refreshing.is_alive():
                self._refreshing.join()
            with suppress(StoreError):  # it ends with this process
                self._location.delete(self.name)

    def _write(self) -> None:
        said: dict[str, Any] = {
            "host": self._process.host,
            "pid": self._process.pid,
            "started_at": self._process.started_at,
            "refreshed_at": time.time(),
            "contents": self._contents,
        }
        self._location.replace(self.name, json.dumps(said).encode())

    def _refresh(self) -> None:
        while not self._ended.wait(REFRESH_SECONDS):
            with suppress(StoreError):  # it is tried again in a minute
                self._write()


def _wait_for_collections(location: Location) -> None:
    deadline, pause = time.monotonic() + _PATIENCE, 0.05
    while found := [claim for claim in _claims(location, _COLLECTING) if claim.is_live()]:
        if time.monotonic() > deadline:
            msg = f"{location.url}: {found[0].holder} removes unneeded contents here, and does not end"
            raise StoreError(msg)
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def _claims(location: Location, prefix: str = "") -> list[_Found]:
    found: list[_Found] = []
    for name in location.names(_FOLDER):
        if name.startswith(prefix):
            data = location.read(f"{_FOLDER}/{name}")
            if data is not None:  # else it ended meanwhile
                found.append(_claim(f"{_FOLDER}/{name}", data, location))
    return found


def _claim(name: str, data: bytes, location: Location) -> _Found:
    try:
        said = json.loads(data)
        holder = Process(str(said["host"]), int(said["pid"]), float(said["started_at"]))
        return _Found(name, holder, float(said["refreshed_at"]), tuple(map(str, said["contents"])))
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{location.place(name)} is no claim that this version of tracklayer reads ({error!r})"
        raise StoreError(msg) from error


def _is_abandoned(folder: Path) -> bool:
    """Say whether the process that a staging folder's name tells of is no more."""
    try:
        pid, started_at, host_digest, _ = folder.name.removeprefix(_STAGED).split("-")
        if host_digest == _digest(_host()):
            return not _runs(int(pid), float(started_at))
        newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except (ValueError, OSError):  # not made by `staged`; or gone meanwhile, or another user's
        return False
    return time.time() - newest > STALE_SECONDS


def _runs(pid: int, started_at: float) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        is_it = abs(process.create_time() - started_at) < _SAME_START
        return is_it and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # there is one, but what it is cannot be known
        return True


def _host() -> str:
    """Return what tells apart where process ids count: the host, and on Linux its containers."""
    name = socket.gethostname()
    with suppress(OSError):
        return f"{name} {Path('/proc/self/ns/pid').readlink()}"
    return name


def _digest(host: str) -> str:
    return hashlib.sha256(host.encode()).hexdigest()[:16]
