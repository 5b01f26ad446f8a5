"""Taking the process's own output, file descriptors 1 and 2, with what C code and children write there."""

from __future__ import annotations

import codecs
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from time import time as now
from typing import Any, Final, NamedTuple, final

from tracklayer import reporting
from tracklayer.console import relay
from tracklayer.surroundings import Stream

_KINDS: Final[dict[bytes, Stream]] = {relay.STDOUT: "stdout", relay.STDERR: "stderr"}
_PATIENCE: Final = 4.0
"""Seconds that are waited for what is still on its way."""
_MOMENT: Final = 1.0
_START: Final = 10.0
"""Seconds within which an interpreter starts."""


class Piece(NamedTuple):
    """Something that was written, when (Unix seconds), and where."""

    time: float
    stream: Stream
    text: str


class _Taken(NamedTuple):
    """A descriptor of the process that leads through a pipe or a pseudo-terminal now."""

    number: int
    original: int
    """Where it led."""
    entrance: int
    """What it leads to now."""
    exit: int
    """The other end, which the relay reads; read here only where the relay is gone."""
    size: bytes
    """The original terminal's size, as the system has it; empty where it is none."""


def open_descriptors() -> Descriptors | None:
    """Take the descriptors; where that cannot be done, say why and take nothing."""
    if sys.platform not in {"linux", "darwin"}:
        reporting.warn(f"what C code and children print is not recorded on {sys.platform}: Python's own is")
        return None
    try:
        return Descriptors()
    except (OSError, subprocess.SubprocessError) as error:
        reporting.warn(f"what C code and children print is not recorded, but Python's own is: {error}")
        return None


@final
class Descriptors:
    """The process's descriptors 1 and 2, led through a process that passes everything on at once.

    Each is a pseudo-terminal where it was a terminal, of the same size, else a pipe.  That process, the
    relay, lives on when this one dies, in whatever way, and ends when all has been passed on that anybody
    wrote: where it is not killed itself, as at the end of a container, nothing is missing.  What a killed
    process printed may come a moment after its end.  Where the relay is killed, the descriptors are led back
    within about 0.1 s, and what was in between is passed on from here.  What is written to both at the same
    moment may change its order on a screen that shows both.

    What C's stdio still keeps to itself when the capture ends is printed, and not recorded.

    Raises:
        OSError: it cannot be done here; nothing was changed.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._missed = False
        self._is_restored = False
        self._relay_is_gone = False
        self._caught_up = False
        self._buffer = b""
        self._pieces: list[Piece] = []
        self._decoders = {
            stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in _KINDS.values()
        }
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            self._taken: list[_Taken] = []
            for number in (1, 2):
                taken = _lead_through(number)
                for opened in (taken.original, taken.entrance, taken.exit):
                    undo.callback(os.close, opened)
                self._taken.append(taken)
            with theirs:
                _start_relay(theirs.fileno(), self._taken)
            undo.pop_all()
        self._socket = ours
        self._socket.settimeout(0.0)
        _flush()
        for taken in self._taken:
            os.dup2(taken.entrance, taken.number)

    def takes(self, stream: Any) -> bool:
        """Say whether what is written to one of Python's streams comes through here."""
        try:
            return stream.fileno() in {taken.number for taken in self._taken}
        except (AttributeError, OSError, ValueError):  # a stream without a descriptor
            return False

    def received(self) -> Iterator[Piece]:
        """Yield what was written since the last time; waits for nothing."""
        self._receive(0.0)
        if self._relay_is_gone:
            self._pass_on_here()
        elif not self._is_restored:
            self._taken = [_same_size(taken) for taken in self._taken]
        pieces, self._pieces = self._pieces, []
        yield from pieces

    def missed(self) -> bool:
        """Say whether something was written too fast to be recorded, since the last time."""
        missed, self._missed = self._missed, False
        return missed

    def restore(self) -> None:
        """Lead the descriptors back, but for one in whose place the program has put something else."""
        if self._is_restored or os.getpid() != self._pid:
            return
        _flush_in_time()
        self._lead_back()

    def catch_up(self) -> None:
        """Wait, for some seconds at most, until all that was written here is passed on and received."""
        deadline = monotonic() + _PATIENCE
        with suppress(OSError):  # the relay is gone
            self._socket.send(b"?")
        while not self._caught_up and not self._relay_is_gone and monotonic() < deadline:
            self._receive(0.1)

    def close(self) -> None:
        """Let go, after `restore`.  What children write goes on to be passed on."""
        self._socket.close()
        for taken in self._taken:
            for opened in (taken.original, taken.entrance, taken.exit):
                os.close(opened)

    def forget(self) -> None:
        """In a forked child: keep printing through the relay, which is the parent's."""
        self._is_restored = True
        self.close()

    def _lead_back(self) -> None:
        self._is_restored = True
        for taken in self._taken:
            with suppress(OSError):  # the program closed it
                if os.path.sameopenfile(taken.number, taken.entrance):
                    os.dup2(taken.original, taken.number)

    def _receive(self, timeout: float) -> None:
        self._socket.settimeout(timeout)
        try:
            while data := self._socket.recv(1 << 20):
                self._parse(data)
                if timeout:
                    return
        except (BlockingIOError, TimeoutError):
            return
        except OSError:  # as at its end
            self._relay_is_gone = True
        else:
            self._relay_is_gone = True

    def _parse(self, data: bytes) -> None:
        buffer, position = self._buffer + data, 0
        header = relay.HEADER
        while len(buffer) - position >= header.size:
            time, kind, length = header.unpack_from(buffer, position)
            start = position + header.size
            if len(buffer) - start < length:
                break
            position = start + length
            if kind == relay.CAUGHT_UP:
                self._caught_up = True
            elif kind == relay.MISSED:
                self._missed = True
            else:
                self._decode(time, _KINDS[kind], buffer[start:position])
        self._buffer = buffer[position:]

    def _decode(self, time: float, stream: Stream, data: bytes) -> None:
        self._pieces.append(Piece(time, stream, self._decoders[stream].decode(data)))

    def _pass_on_here(self) -> None:
        """Do what the relay, which is gone, did: for what was on its way, and for children."""
        self._drain()
        if not self._is_restored:
            self._lead_back()
            self._drain()

    def _drain(self) -> None:
        for stream, taken in zip(_KINDS.values(), self._taken, strict=True):
            os.set_blocking(taken.exit, False)
            while data := relay.read_some(taken.exit):
                relay.write_all(taken.original, data)
                self._decode(now(), stream, data)


def _lead_through(number: int) -> _Taken:
    original = os.dup(number)
    try:
        if os.isatty(number):
            way, entrance, size = _terminal_like(original)
        else:
            (way, entrance), size = os.pipe(), b""
    except OSError:
        os.close(original)
        raise
    return _Taken(number, original, entrance, way, size)


def _terminal_like(original: int) -> tuple[int, int, bytes]:
    """Make a pseudo-terminal that leaves all to the one behind it; return its ends, and the size of that."""
    import pty
    import termios

    way, entrance = pty.openpty()
    attributes = termios.tcgetattr(original)
    attributes[1] &= ~termios.OPOST  # the real one makes CR LF of a line's end
    attributes[3] &= ~(termios.ECHO | termios.ISIG)
    termios.tcsetattr(entrance, termios.TCSANOW, attributes)
    return way, entrance, _copy_size(original, way)


def _same_size(taken: _Taken) -> _Taken:
    """Give the pseudo-terminal the size that the terminal has by now."""
    if not taken.size:
        return taken
    return taken._replace(size=_copy_size(taken.original, taken.exit, taken.size))


def _copy_size(original: int, to: int, known: bytes = b"") -> bytes:
    import fcntl
    import termios

    try:
        size = fcntl.ioctl(original, termios.TIOCGWINSZ, bytes(8))
        if size != known:
            fcntl.ioctl(to, termios.TIOCSWINSZ, size)
    except OSError:  # the terminal was closed
        return known
    return size


def _start_relay(back: int, taken: list[_Taken]) -> None:
    """Start the relay; it has left this process's family when this returns."""
    descriptors = [back, *(number for one in taken for number in (one.exit, one.original))]
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and file
        [sys.executable, "-I", "-S", str(Path(relay.__file__)), *map(str, descriptors)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=descriptors,
    )
    if code := process.wait(_START):
        msg = f"the process that would pass it on ended with {code}"
        raise OSError(msg)


def _flush() -> None:
    """Have Python's streams write what they keep; in a handler that interrupted one, it cannot be done."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # whatever the program has put there
            stream.flush()


def _flush_in_time() -> None:
    """Flush, but wait no longer than a moment for somebody who holds a stream."""
    flushing = threading.Thread(target=_flush, name="tracklayer-flush", daemon=True)
    with suppress(RuntimeError):  # the interpreter is going down, and flushes them itself
        flushing.start()
        flushing.join(_MOMENT)
