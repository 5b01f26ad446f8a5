"""Which process this is, and whether another one still runs."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

_SAME_START: Final = 60.0
"""Seconds by which two readings of a process's start may differ, as when the clock was set meanwhile."""


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
    def is_here(self) -> bool:
        """Whether it was on this host since it was started, so that `runs` can tell."""
        return self.host == this_host()

    def runs(self) -> bool:
        """Say whether a process of this host still runs."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            is_it = abs(process.create_time() - self.started_at) < _SAME_START
            return is_it and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:  # there is one, but what it is cannot be known
            return True


def this_process() -> Process:
    """Return the process that this one is."""
    import psutil

    return Process(this_host(), os.getpid(), psutil.Process().create_time())


def this_host() -> str:
    """Return what tells apart where process ids count: the host, and on Linux its boot and its containers."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # not Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def host_digest(host: str) -> str:
    """Return what stands for a host in a file name."""
    return hashlib.sha256(host.encode()).hexdigest()[:16]
