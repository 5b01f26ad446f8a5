"""The process between a program and where it prints: passes all of it on at once, and sends a copy back.

Run by its path, by a bare interpreter: nothing but the standard library is here, and little of that. It lives
as long as anybody has one of the program's streams, so what a program printed before it was killed is passed
on; and it is nobody's child, in a session of its own, so no Ctrl-C and no `wait` meets it. The copy waits for
nobody: what the program's process does not fetch is kept up to a limit, then left out.
"""

import os
import select
import struct
import sys
import time
from collections import deque

HEADER = struct.Struct("=dcI")
"""Unix seconds, a kind, and the length of what follows."""
STDOUT, STDERR, CAUGHT_UP, MISSED = b"o", b"e", b"c", b"m"
LIMIT = 32_000_000
"""Bytes of the copy that wait, at most."""
_CHUNK = 65_536
_ROUNDS = 64
"""Reads that surely get what a pipe held when the program asked for it."""
_PATIENCE = 5.0
"""Seconds for which the rest of the copy is offered at the end."""


class _Copy:
    """The way back to the program's process."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._frames: deque[bytes] = deque()
        self._waiting = 0
        self._missed = False
        self.is_open = True
        os.set_blocking(descriptor, False)

    def add(self, kind: bytes, data: bytes = b"") -> None:
        """Put something behind what waits."""
        if not self.is_open:
            return
        if self._waiting > LIMIT and kind != CAUGHT_UP:
            self._missed = True
            return
        if self._missed:
            self._missed = False
            self.add(MISSED)
        frame = HEADER.pack(time.time(), kind, len(data)) + data
        self._frames.append(frame)
        self._waiting += len(frame)

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to send."""
        return self.is_open and bool(self._frames)

    def send(self) -> None:
        """Send as much as the other side takes."""
        try:
            while self._frames:
                sent = os.write(self.descriptor, self._frames[0])
                self._waiting -= sent
                if sent < len(self._frames[0]):
                    self._frames[0] = self._frames[0][sent:]
                    return
                self._frames.popleft()
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def close(self) -> None:
        """Go on without: the program's process is gone, or wants no copy any more."""
        if not self.is_open:
            return
        self.is_open = False
        self._frames.clear()
        os.close(self.descriptor)


def write_all(descriptor: int, data: bytes) -> bool:
    """Write, however long it takes; say whether it could be."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # somebody who shares the terminal made it so
            select.select([], [descriptor], [])
        except OSError:
            return False
    return True


def read_some(descriptor: int) -> bytes:
    """Read what is there; nothing at the end, which a pseudo-terminal tells by an error."""
    try:
        return os.read(descriptor, _CHUNK)
    except OSError:
        return b""


def relay(copy: _Copy, ways: "dict[int, tuple[int, bytes]]") -> None:
    """Pass on until nobody can write any more.

    `ways` has, for each descriptor to read, the one to write and the kind of its copy.
    """
    while ways:
        reading = [*ways, copy.descriptor] if copy.is_open else [*ways]
        writing = [copy.descriptor] if copy.is_waiting else []
        ready, _, _ = select.select(reading, writing, [])
        asked = copy.is_open and copy.descriptor in ready
        if asked and not read_some(copy.descriptor):
            asked = False
            copy.close()
        for _ in range(_ROUNDS if asked else 1):
            if not _pass_on(copy, ways, ready):
                return
            if asked:
                ready, _, _ = select.select([*ways], [], [], 0)
        if asked:
            copy.add(CAUGHT_UP)
        copy.send()
    deadline = time.monotonic() + _PATIENCE
    while copy.is_waiting and time.monotonic() < deadline:
        select.select([], [copy.descriptor], [], _PATIENCE)
        copy.send()


def _pass_on(copy: _Copy, ways: "dict[int, tuple[int, bytes]]", ready: "list[int]") -> bool:
    """Pass on what is there; say whether to go on."""
    for way in [way for way in ways if way in ready]:
        to, kind = ways[way]
        data = read_some(way)
        if data and write_all(to, data):
            copy.add(kind, data)
            continue
        if data and copy.is_open:
            return False  # the program writes by itself again, and meets what is wrong there
        os.close(way)
        del ways[way]
    return True


def main() -> None:
    """Leave the program's family, then relay; the arguments are descriptors."""
    given = [int(argument) for argument in sys.argv[1:]]
    if os.fork():
        os._exit(0)  # whoever waits for all of the program's children does not wait for this one
    os.setsid()
    os.chdir("/")
    back, read_out, write_out, read_error, write_error = [os.dup(number) for number in given]  # low numbers
    for number in given:
        os.close(number)
    relay(_Copy(back), {read_out: (write_out, STDOUT), read_error: (write_error, STDERR)})


if __name__ == "__main__":
    main()
