"""Who records a run: the lease that keeps a second process away, and tells the live from the dead."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Final, final

import psutil

HEARTBEAT_SECONDS: Final = 10.0
STALE_SECONDS: Final = 90.0
"""On another host, a run without a heartbeat for so long is taken to be dead."""
_SAME_START: Final = 1.0  # seconds by which two readings of a process's start may differ


@final
@dataclass(frozen=True, slots=True)
class Holder:
    """A process: where it runs, its id, and when it started (Unix seconds)."""

    host: str
    pid: int
    started_at: float

    def is_alive(self, heartbeat_at: float, now: float) -> bool:
        """Say whether it lives: exactly on its own host, by its heartbeat elsewhere."""
        if self.host != socket.gethostname():
            return now - heartbeat_at < STALE_SECONDS
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return abs(process.create_time() - self.started_at) < _SAME_START
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return now - heartbeat_at < STALE_SECONDS


def this_process() -> Holder:
    """Return the holder that this process is."""
    return Holder(socket.gethostname(), os.getpid(), psutil.Process().create_time())
