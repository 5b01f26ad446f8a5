"""The open runs of this process, and their end when the process ends.

At interpreter exit, on SIGTERM and on SIGHUP the open runs are finished.  A program's own signal handlers
are left alone: ours stands only where the default action, dying at once, stood before.  SIGINT needs
none: Python turns it into an exception, and the interpreter's exit follows.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Final

from tracklayer.errors import NoActiveRunError
from tracklayer.forking import tell_children
from tracklayer.protocol import Status

if TYPE_CHECKING:
    from tracklayer.front import ActiveRun

_SIGNALS: Final = ("SIGTERM", "SIGHUP")


class _OpenRuns:
    """What is open: the module's one piece of state."""

    def __init__(self) -> None:
        self.all: list[ActiveRun] = []
        self.current: ActiveRun | None = None

    def after_fork_in_child(self) -> None:
        """The parent's runs stay current, so that logging to them says what is wrong."""
        self.all.clear()


_open = _OpenRuns()
tell_children(_open)


def current_run() -> ActiveRun:
    """Return the current run.

    Raises:
        NoActiveRunError: there is none.
    """
    if _open.current is None:
        msg = "no run is open: call tracklayer.init() first"
        raise NoActiveRunError(msg)
    return _open.current


def open_run() -> ActiveRun | None:
    """Return the current run if it is open in this process."""
    return _open.current if _open.current in _open.all else None


def opened(run: ActiveRun, *, current: bool) -> None:
    """Take note of a run that was opened."""
    _open.all.append(run)
    if current:
        _open.current = run
    exit_before_others()
    _install_signal_handlers()


def finished(run: ActiveRun) -> None:
    """Take note of a run that was finished."""
    if run in _open.all:
        _open.all.remove(run)
    if _open.current is run:
        _open.current = None
    if not _open.all:
        _remove_signal_handlers()


def exit_before_others() -> None:
    """Finish runs before the exit hooks that others registered so far, which may take away clients."""
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)


def _at_exit() -> None:
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    failed = error is not None and not hasattr(sys, "ps1")  # an interactive session goes on after one
    _finish_all(Status("failed", 1) if failed else Status())


def _finish_all(status: Status) -> None:
    for run in list(_open.all):
        run.finish(status)


def _on_signal(number: int, frame: FrameType | None) -> None:
    del frame
    _finish_all(Status("failed", 128 + number))
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)  # end as the default action would have ended, for whoever waits


def _install_signal_handlers() -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # Python allows it nowhere else
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _on_signal)


def _remove_signal_handlers() -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is _on_signal:
            signal.signal(number, signal.SIG_DFL)
