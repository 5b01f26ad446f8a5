"""Waking a thread: what a queue, whoever waits for it and signal handlers can use at any moment.

A `threading.Event` deadlocks in a handler that interrupts it.  `SimpleQueue.get` does not, but waits for
ever where a handler takes longer than what was left of its timeout (seen in CPython 3.11).
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import final


@final
class Bell:
    """Rung by any thread, heard by one: rings that nobody heard are one ring."""

    def __init__(self) -> None:
        self._silence = threading.Lock()
        self._silence.acquire()

    def ring(self) -> None:
        """Wake the thread that waits, or the next one that will."""
        with suppress(RuntimeError):  # it rings already
            self._silence.release()

    def wait(self, timeout: float) -> bool:
        """Wait for a ring for so many seconds; say whether it came."""
        return self._silence.acquire(timeout=max(0.0, timeout))
