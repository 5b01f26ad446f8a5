"""Recording what the run's process prints, without standing in its way."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from time import monotonic
from time import time as now
from typing import TYPE_CHECKING, Any, Final, Literal, cast, final

from tracklayer import reporting
from tracklayer.bell import Bell
from tracklayer.console.lines import Screen
from tracklayer.console.tee import Tee
from tracklayer.forking import tell_children
from tracklayer.surroundings import ConsoleLine, Stream

if TYPE_CHECKING:
    from tracklayer.console.descriptors import Descriptors

RUN_LIMIT: Final = 32_000_000
"""Characters that are recorded of one process; each line counts as `_LINE` more."""
_LINE: Final = 40
_INTERVAL: Final = 0.1
"""Seconds between looks at what was printed: so exact are the times of lines."""
_WAITING: Final = 1 << 20
"""Small writes that wait, at most: more than a program makes between two looks."""
_LARGE_WAITING: Final = 32_000_000
"""Characters of larger writes that wait, at most."""
_PATIENCE: Final = 5.0
"""Seconds that `stop` waits for what is left to be handed on."""
_PAGE: Final = 8192
"""Writes that are made into lines at once."""
_LEISURE: Final = 19.0
"""After a page, a program that goes on printing alone gets so many times as long: a burst is recorded when it
is over."""
_BATCH: Final = 500
_TEXT: Final[Callable[[ConsoleLine], str]] = attrgetter("text")
_STREAMS: Final[tuple[Stream, ...]] = ("stdout", "stderr")
_MISSED: Final = "tracklayer: some of what was printed here came too fast, and is not recorded"
_FULL: Final = f"tracklayer: the rest is not recorded: a process's first {RUN_LIMIT // 1_000_000} MB are"


@final
class ConsoleCapture:
    """Makes lines of what the process prints, and hands them on from a thread of its own.

    In mode `"python"` these are the texts written to `sys.stdout` and `sys.stderr` as they are at the start:
    by `print`, `logging`, whoever holds the streams.  What goes past them, to `sys.stdout.buffer` or to the
    file descriptors, as C code and children do, is not seen.

    In mode `"process"` it is all that reaches the file descriptors 1 and 2; see `Descriptors` for what is
    guaranteed when the process dies.  Linux and macOS; elsewhere, it is as `"python"`.

    At most `RUN_LIMIT` characters are handed on; after them one line says so, and nothing is captured any
    more.

    Args:
        sink: takes lines, in order, several at once; where it raises, that is reported, and the capture ends.
        mode: what is captured.
    """

    def __init__(
        self, sink: Callable[[Sequence[ConsoleLine]], None], mode: Literal["python", "process"]
    ) -> None:
        self._sink = sink
        self._mode = mode
        self._pieces: deque[str | tuple[str]] = deque(maxlen=_WAITING)
        """What was written and is not yet made into lines: to stdout; as a tuple, to stderr."""
        self._large = 0
        self._missed = False
        self._screens = {stream: Screen(stream) for stream in _STREAMS}
        self._tees: list[Tee] = []
        self._descriptors: Descriptors | None = None
        self._recorded = 0
        self._bell = Bell()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin.  What cannot be captured is reported, and left alone."""
        if self._mode == "process":
            from tracklayer.console.descriptors import open_descriptors

            self._descriptors = open_descriptors()
        captured = self._descriptors
        streams: list[object] = []
        for stream, note in zip(_STREAMS, (self._pieces.append, self._note_error), strict=True):
            target = getattr(sys, stream)
            reaches = captured is not None and captured.takes(target)
            if target is not None and not reaches and not any(target is other for other in streams):
                streams.append(target)
                self._install(stream, Tee(target, note, self._counting(note)))
        if not self._tees and captured is None:
            return
        tell_children(self)
        thread = threading.Thread(target=self._work, name="tracklayer-console", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is going down and starts no threads any more
            self._release()
            return
        self._thread = thread
        _before_each_cell(self._renew, register=True)

    def stop(self) -> None:
        """Give the streams back, and hand on what is left; waits a few seconds at most.

        What others put before or in place of them meanwhile stays.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._release()
        self._stopping = True
        self._bell.ring()
        if thread is not threading.current_thread():
            thread.join(_PATIENCE)

    def after_fork_in_child(self) -> None:
        """Capture nothing here: the run is the parent's."""
        self._thread = None
        for tee in self._tees:
            tee.remove()
        if self._descriptors is not None:
            self._descriptors.forget()

    # -- on the threads that print ----------------------------------------------------------------

    def _note_error(self, text: str) -> None:
        self._pieces.append((text,))

    def _counting(self, note: Callable[[str], object]) -> Callable[[object], object]:
        def note_large(text: object) -> None:
            if not isinstance(text, str):  # some streams take anything
                return
            if self._large > _LARGE_WAITING:
                self._missed = True
                return
            self._large += len(text)
            note(text)

        return note_large

    # -- on a thread of its own -------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self._stopping:
                self._bell.wait(_INTERVAL)
                for tee in self._tees:
                    tee.hold()
                self._take()
            if self._descriptors is not None:
                self._descriptors.catch_up()
            self._take()
            for screen in self._screens.values():
                self._hand_on(screen.close())
        except Exception as error:  # noqa: BLE001 - it must not bring down what it only looks at
            reporting.warn(f"what is printed is recorded no more: {error!r}")
        finally:
            self._release()
            if self._descriptors is not None:
                self._descriptors.close()

    def _take(self) -> None:
        """Make lines of what was printed since the last time."""
        waiting = len(self._pieces)
        missed = self._missed or waiting == _WAITING
        self._missed = False
        self._large = 0
        time = now()
        take = self._pieces.popleft
        is_printing = True
        while waiting:
            begun = monotonic()
            pieces = [take() for _ in range(min(waiting, _PAGE))]
            waiting -= len(pieces)
            for stream, text in _texts(pieces):
                self._hand_on(self._screens[stream].feed(text, time))
            before = len(self._pieces)
            if waiting and is_printing and not self._stopping and before < _WAITING // 2:
                self._bell.wait(_LEISURE * (monotonic() - begun))
                is_printing = len(self._pieces) > before
        if self._descriptors is not None:
            for written, stream, text in self._descriptors.received():
                self._hand_on(self._screens[stream].feed(text, written))
            missed = missed or self._descriptors.missed()
        for screen in self._screens.values():
            self._hand_on(screen.ended(time))
        if missed:
            self._hand_on([ConsoleLine(time, "stderr", _MISSED)])

    def _hand_on(self, lines: Sequence[ConsoleLine]) -> None:
        for first in range(0, len(lines), _BATCH):
            if self._recorded > RUN_LIMIT:
                return
            batch = list(lines[first : first + _BATCH])
            self._recorded += sum(map(len, map(_TEXT, batch))) + len(batch) * _LINE
            if self._recorded > RUN_LIMIT:
                batch[-1] = ConsoleLine(batch[-1].time, "stderr", _FULL)
                self._release()
                self._stopping = True
            self._sink(batch)

    # -- both -------------------------------------------------------------------------------------

    def _install(self, stream: str, tee: Tee) -> None:
        try:
            tee.install()
        except (AttributeError, TypeError):  # made with __slots__, or in C without a place for attributes
            reporting.warn(f"what is printed to this sys.{stream} is not recorded: it cannot be captured")
        else:
            self._tees.append(tee)

    def _renew(self, *_: object) -> None:
        for tee in self._tees:
            tee.renew()

    def _release(self) -> None:
        """Leave the streams and descriptors as they would be without this capture."""
        tees, self._tees = self._tees, []
        for tee in tees:
            tee.remove()
        _before_each_cell(self._renew, register=False)
        if self._descriptors is not None:
            self._descriptors.restore()


def _before_each_cell(action: Callable[..., None], *, register: bool) -> None:
    """Have something done, or not any more, at each cell of a notebook.

    IPython puts a `write` of its own into the streams for each cell, and the older one back at its end.
    """
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return
    with suppress(ValueError):  # it was unregistered before
        (shell.events.register if register else shell.events.unregister)("pre_run_cell", action)


def _texts(pieces: Sequence[str | tuple[str]]) -> Iterable[tuple[Stream, str]]:
    """Join what went to the same stream."""
    try:
        yield "stdout", "".join(cast("Sequence[str]", pieces))  # mostly, all of it went there
    except TypeError:
        for is_error, group in groupby(pieces, key=lambda piece: isinstance(piece, tuple)):
            texts: list[object] = [piece[0] if isinstance(piece, tuple) else piece for piece in group]
            # some streams take anything, and say nothing
            yield "stderr" if is_error else "stdout", "".join(text for text in texts if isinstance(text, str))
