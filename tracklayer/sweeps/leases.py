"""Which processes work on a sweep's trials, and whether each of them still lives.

Each has a file, a lease, in the sweep's folder, which it touches every ten seconds and removes at its end.
On its own host, whether a process lives is known without that.  On others it is dead when its file is gone,
or was not touched for 90 s: more than the 60 s for which an NFS client may go by what it knows of a file, and
two touches that failed.  Ages are told by one's own file, touched just then, so that only the file server's
clock matters, and not how those of the hosts differ.
"""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self, final

from tracklayer.errors import StoreError
from tracklayer.naming import new_run_id
from tracklayer.processes import Process, this_process

HEARTBEAT_SECONDS: Final = 10.0
LATE_SECONDS: Final = 2 * HEARTBEAT_SECONDS
"""After which a process of another host may have died."""
DEAD_SECONDS: Final = 90.0
"""After which it has."""


@final
class Lease:
    """What says that this process works on trials, from `start` to `release` or in a `with` block.

    Attributes:
        id: what trials say of whose they are.
    """

    def __init__(self, folder: Path) -> None:
        """Make one that is not started yet.

        Args:
            folder: the sweep's, for the leases of its agents.
        """
        self.id: Final = new_run_id()
        self._path = _path(folder, self.id)
        self._process = this_process()
        self._touching = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_touching, name="tracklayer-lease", daemon=True)

    def start(self) -> None:
        """Write the file, and touch it until the end.

        Raises:
            StoreError: it cannot be written.
        """
        self.touch()
        self._thread.start()

    def release(self) -> None:
        """Remove the file; what this process has not ended of its trials is then tried again by others."""
        if os.getpid() != self._process.pid:  # a forked child: the lease is its parent's, and the thread too
            return
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(OSError):  # it ends with this process
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Release it."""
        self.release()

    def touch(self) -> float:
        """Say that this process lives; return the file server's time, in Unix seconds.

        Raises:
            StoreError: the file cannot be written.
        """
        try:
            with self._touching:
                try:
                    os.utime(self._path)
                except FileNotFoundError:  # not written yet; or removed by who took this process for dead
                    self._write()
                return self._path.stat().st_mtime
        except OSError as error:
            msg = f"cannot write {self._path}: {error.strerror}"
            raise StoreError(msg) from error

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        said: dict[str, Any] = {
            "host": self._process.host,
            "pid": self._process.pid,
            "started_at": self._process.started_at,
        }
        aside = self._path.with_suffix(".new")  # so that nobody reads half of it
        aside.write_text(json.dumps(said), encoding="utf-8")
        aside.replace(self._path)

    def _keep_touching(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            with suppress(StoreError):  # it is tried again
                self.touch()


def is_alive(folder: Path, lease_id: str) -> bool:
    """Say whether a process lives, as far as this host's clock tells; nothing is written.

    Raises:
        StoreError: the folder cannot be read.
    """
    return silence(folder, lease_id, time.time()) <= DEAD_SECONDS


def silence(folder: Path, lease_id: str, now: float) -> float:
    """Return for how many seconds nothing was heard of a process; 0 if it lives, infinite if it is dead.

    Args:
        folder: the sweep's, for the leases of its agents.
        lease_id: the process's.
        now: the file server's time, as `Lease.touch` returned it, in Unix seconds.

    Raises:
        StoreError: the folder cannot be read.
    """
    path = _path(folder, lease_id)
    try:
        with path.open("rb") as file:  # to open it is to ask an NFS server how it is just now
            content, touched_at = file.read(), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return float("inf")
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise StoreError(msg) from error
    with suppress(ValueError, KeyError, TypeError):  # torn as a machine went down: its age tells
        said = json.loads(content)
        process = Process(str(said["host"]), int(said["pid"]), float(said["started_at"]))
        if process.is_here:
            return 0.0 if process.runs() else float("inf")
    return max(now - touched_at, 0.0)


def forget(folder: Path, lease_id: str) -> None:
    """Remove the lease of a process that is dead; one that was only taken for dead writes it again."""
    with suppress(OSError):  # it only lies there
        _path(folder, lease_id).unlink(missing_ok=True)


def _path(folder: Path, lease_id: str) -> Path:
    return folder / f"{lease_id}.json"
