"""Encoding media between the call that logs them and the queues: on a thread of its own.

What a queue's thread commits meanwhile waits for none of it.  Encoders of images and sound let go of the
interpreter while they work, so that training hardly notices.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final, final

from tracklayer import reporting
from tracklayer.bell import Bell
from tracklayer.forking import tell_children

if TYPE_CHECKING:
    from tracklayer.rows import MediaValues
    from tracklayer.values import Value

_LIMIT: Final = 256_000_000  # bytes that wait to be encoded, before callers wait
_POLL: Final = 0.002  # seconds


@final
class Encoder:
    """Encodes the media of rows in their order, and passes them on.

    Attributes:
        lost: how many values could not be encoded.
    """

    def __init__(self, limit_bytes: int = _LIMIT) -> None:
        self.lost = 0
        self._limit = limit_bytes
        self._waiting: deque[tuple[MediaValues, int, Callable[[dict[str, Value]], None]]] = deque()
        self._bytes_in = self._bytes_out = 0
        self._taken = self._done = 0
        self._lock = threading.RLock()  # of callers among themselves
        self._wake = Bell()
        self._thread: threading.Thread | None = None
        self._reported: set[str] = set()
        self._ends = False
        tell_children(self)

    def put(self, media: MediaValues, pass_on: Callable[[dict[str, Value]], None]) -> None:
        """Take media; `pass_on` is called with those that could be encoded, on the encoder's thread.

        Waits while more than the limit would wait to be encoded; one row always may.
        """
        size = media.size
        while self._taken > self._done and self._bytes_in - self._bytes_out + size > self._limit:
            sleep(_POLL)
        with self._lock:  # `finish` comes before or after, but not between
            runs = not self._ends and self._is_running()
            if runs:
                self._waiting.append((media, size, pass_on))
                self._bytes_in += size
                self._taken += 1
        if runs:
            self._wake.ring()
        else:
            self._encode(media, pass_on)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what came so far is passed on; say whether it is."""
        deadline = None if timeout is None else monotonic() + timeout
        goal = self._taken
        while self._done < goal:
            if deadline is not None and monotonic() >= deadline:
                return False
            self._wake.ring()
            sleep(_POLL)
        return True

    def finish(self) -> None:
        """Wait until all is passed on, and end the thread."""
        with self._lock:
            self._ends = True
        self.flush()
        self._wake.ring()
        if self.lost > 1:
            reporting.warn(f"{self.lost} values in all could not be encoded")

    def after_fork_in_child(self) -> None:
        """Take nothing any more: the thread is in the parent."""
        self._waiting.clear()
        self._lock = threading.RLock()
        self._taken = self._done = 0

    def _is_running(self) -> bool:
        """Start the thread with the first media; say whether there is one."""
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="tracklayer-encoder", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is going down and starts no threads any more
                return False
            self._thread = thread
        return True

    def _work(self) -> None:
        while True:
            ends = self._ends  # read first: nothing comes once it is set
            while self._waiting:
                media, size, pass_on = self._waiting.popleft()
                self._encode(media, pass_on)
                self._bytes_out += size
                self._done += 1
                del media, pass_on  # an image may be large, and the next may be long in coming
            if ends:
                return
            self._wake.wait(1.0)

    def _encode(self, media: MediaValues, pass_on: Callable[[dict[str, Value]], None]) -> None:
        encoded = media.encoded(self._report)
        self.lost += media.count - len(encoded)
        if encoded:
            try:
                pass_on(encoded)
            except Exception as error:  # noqa: BLE001 - a thread that dies would keep all others waiting
                self.lost += len(encoded)
                self._report("queue", f"{', '.join(map(repr, encoded))} could not be recorded: {error!r}")

    def _report(self, about: str, message: str) -> None:
        """Say something once."""
        if about not in self._reported:
            self._reported.add(about)
            reporting.warn(message)
