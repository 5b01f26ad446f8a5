"""Who needs contents that no version names yet, and who is removing contents just now.

Both say so with a file in `claims/`, and look for the other's only then.  So of a process that relies on
content and one that collects garbage, at least one sees the other: the first waits, the second spares what is
claimed.

A file of a process that is no more counts for nothing.  On its own host that is known; on others the file is
written again every minute, and counts for nothing when that was not done for ten.  For a collection, which
others wait for, it is written every five seconds, and is over for who waited a minute in which that was not
done, whatever its host's clock says; so a collection that could not say for long that it goes on ends itself.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from tracklayer.artifacts.locations import Location
from tracklayer.errors import StoreError
from tracklayer.processes import Process, host_digest, this_host, this_process

_FOLDER: Final = "claims"
_COLLECTING: Final = "collecting-"
_STAGED: Final = "tracklayer-"
REFRESH_SECONDS: Final = 60.0
STALE_SECONDS: Final = 600.0
COLLECTING_REFRESH_SECONDS: Final = 5.0
_COLLECTING_STALE_SECONDS: Final = 60.0
_COLLECTING_LATE_SECONDS: Final = 30.0
"""After which a collection removes nothing more: what it asked a server for is done before others go on."""
_PATIENCE: Final = 600.0
"""Seconds that a process waits for a collection before it gives up."""
_first_seen: Final[dict[tuple[str, float], float]] = {}
"""When this process first saw a collection of another host, as it was refreshed last; by `time.monotonic`."""


@contextmanager
def claimed(location: Location, sha256s: Iterable[str]) -> Generator[None]:
    """Keep contents from being collected, whether they are there already or are added inside the block.

    What is found there inside the block stays there until its end.

    Raises:
        StoreError: the location cannot be written, or another process collects and does not come to an end.
    """
    with _Claim(location, secrets.token_hex(8), sorted(set(sha256s))).held(REFRESH_SECONDS):
        _wait_for_collections(location)
        yield


@contextmanager
def collecting(location: Location) -> Generator[Collection]:
    """Keep others from relying on contents that no version names, while the block runs.

    What versions need is to be read inside the block: a claim ends when a version is there instead.

    Raises:
        StoreError: another process collects here.
    """
    mine = _Claim(location, _COLLECTING + secrets.token_hex(8), [])
    with mine.held(COLLECTING_REFRESH_SECONDS):
        live = _live(location)
        for claim in live:
            if claim.is_collecting and claim.name != mine.name:  # two that begin at once may both give up
                msg = f"{location.url}: {claim.holder} collects here: try again when it is done"
                raise StoreError(msg)
        yield Collection(_contents(live), mine)


def claimed_contents(location: Location) -> frozenset[str]:
    """Return the SHA-256 of the contents that live processes claim just now."""
    return _contents(_live(location))


@contextmanager
def staged(location: Location) -> Generator[Path]:
    """Give a folder, empty and private to this process, from which files are moved in; it is gone afterwards.

    Raises:
        StoreError: it cannot be made.
    """
    process = this_process()
    whose = f"{process.pid}-{process.started_at:.0f}-{host_digest(process.host)}"
    folder = location.staging() / f"{_STAGED}{whose}-{secrets.token_hex(8)}"
    try:
        folder.mkdir(0o700 if location.folder is None else 0o777)  # a temporary folder is everybody's
    except OSError as error:
        msg = f"cannot write {folder}: {error.strerror}"
        raise StoreError(msg) from error
    try:
        with _repeated(lambda: _touch(folder), REFRESH_SECONDS):  # files may lie still for long
            yield folder
    finally:
        if os.getpid() == process.pid:  # a forked child ends its parent's block, too
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
        """Say so: surely of a process of this host, of others by when they last said that they go on."""
        if self.holder.is_here:
            return self.holder.runs()
        return time.time() - self.refreshed_at < STALE_SECONDS


@final
class _Claim:
    """This process's claim."""

    def __init__(self, location: Location, token: str, contents: list[str]) -> None:
        self.name: Final = f"{_FOLDER}/{token}.json"
        self._location = location
        self._process = this_process()
        self._contents = contents
        self._refreshed_at = 0.0

    @contextmanager
    def held(self, seconds: float) -> Generator[None]:
        """Write it now, and again after so many seconds each, until the block ends."""
        self._write()
        try:
            with _repeated(self._refresh, seconds):
                yield
        finally:
            if os.getpid() == self._process.pid:  # a forked child ends its parent's block, too
                with suppress(StoreError):  # it ends with this process
                    self._location.delete(self.name)

    def age(self) -> float:
        """Return how many seconds ago others could last read that this process is at work."""
        return abs(time.time() - self._refreshed_at)  # not `monotonic`, which stops while a machine sleeps

    def _write(self) -> None:
        now = time.time()
        said: dict[str, Any] = {
            "host": self._process.host,
            "pid": self._process.pid,
            "started_at": self._process.started_at,
            "refreshed_at": now,
            "contents": self._contents,
        }
        self._location.replace(self.name, json.dumps(said).encode())
        self._refreshed_at = now

    def _refresh(self) -> None:
        with suppress(StoreError):  # it is tried again
            self._write()


@final
class Collection:
    """A collection at work.

    Attributes:
        claimed: the SHA-256 of the contents that live processes claim.
    """

    def __init__(self, claimed: frozenset[str], claim: _Claim) -> None:
        self.claimed: Final = claimed
        self._claim = claim

    def check(self) -> None:
        """Make sure, before something is removed, that others still wait.

        Raises:
            StoreError: they may not: they could not be told for too long.
        """
        age = self._claim.age()
        if age > _COLLECTING_LATE_SECONDS:
            msg = f"collecting was interrupted for {age:.0f} s: run it again"
            raise StoreError(msg)


@contextmanager
def _repeated(action: Callable[[], None], seconds: float) -> Generator[None]:
    """Do something after so many seconds each, in a thread, until the block ends."""
    ended, pid = threading.Event(), os.getpid()

    def repeat() -> None:
        while not ended.wait(seconds):
            action()

    thread = threading.Thread(target=repeat, name="tracklayer-claim", daemon=True)
    with suppress(RuntimeError):  # the interpreter ends, and starts no thread any more
        thread.start()
    try:
        yield
    finally:
        if os.getpid() == pid:  # a forked child has no such thread
            ended.set()
            if thread.is_alive():
                thread.join()


def _touch(folder: Path) -> None:
    with suppress(OSError):  # it is tried again
        os.utime(folder)


def _wait_for_collections(location: Location) -> None:
    deadline, pause = time.monotonic() + _PATIENCE, 0.05
    while found := [claim for claim in _claims(location, _COLLECTING) if _goes_on(claim)]:
        if time.monotonic() > deadline:
            msg = f"{location.url}: {found[0].holder} removes unneeded contents here, and does not end"
            raise StoreError(msg)
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def _goes_on(collection: _Found) -> bool:
    """Say whether a collection is to be waited for; not so if its host was silent while this one waited."""
    if not collection.is_live():
        return False
    if collection.holder.is_here:
        return True
    now = time.monotonic()
    first_seen = _first_seen.setdefault((collection.name, collection.refreshed_at), now)
    return now - first_seen < _COLLECTING_STALE_SECONDS


def _live(location: Location) -> list[_Found]:
    return [claim for claim in _claims(location) if claim.is_live()]


def _contents(claims: Iterable[_Found]) -> frozenset[str]:
    return frozenset(sha256 for claim in claims for sha256 in claim.contents)


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
        written_at = _written_at(name, location)
        if time.time() - written_at > STALE_SECONDS:
            return _Found(name, Process("", 0, 0.0), written_at, ())
        place = location.place(name)
        msg = f"{place} is no claim that this version of tracklayer reads ({error!r}): update tracklayer; or"
        msg += " delete the file, if no process is storing artifacts there"
        raise StoreError(msg) from error


def _written_at(name: str, location: Location) -> float:
    """Return when a file was written, in Unix seconds; of an object store, which is not asked: now."""
    if location.folder is not None:
        with suppress(OSError):
            return (location.folder / name).stat().st_mtime
    return time.time()


def _is_abandoned(folder: Path) -> bool:
    """Say whether the process that a staging folder's name tells of is no more."""
    try:
        pid, started_at, digest, _ = folder.name.removeprefix(_STAGED).split("-")
        if digest == host_digest(host := this_host()):
            return not Process(host, int(pid), float(started_at)).runs()
        newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except (ValueError, OSError):  # not made by `staged`; or gone meanwhile, or another user's
        return False
    return time.time() - newest > STALE_SECONDS
