"""The open runs of this process, and their end when the process ends.

At interpreter exit, on SIGTERM and on SIGHUP the open runs are finished; in a job of Slurm also on the
signals by which that warns (`sbatch --signal`).  A program's own signal handlers are left alone: ours stands
only where the default action, dying at once, stood before.  SIGINT mostly needs none: Python turns it into
an exception, and the interpreter's exit follows.

Python does not tell exit hooks the exit code of `sys.exit`.  So that a run which ended with one is not
taken for finished, `sys.exit` takes a note of it while runs are open, as W&B's client does.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

from tracklayer.errors import NoActiveRunError, TrialPruned
from tracklayer.forking import tell_children
from tracklayer.protocol import Status

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from tracklayer.front import ActiveRun

_SIGNALS: Final = ("SIGTERM", "SIGHUP", "SIGINT")
_SLURM_SIGNALS: Final = ("SIGUSR1", "SIGUSR2", "SIGXCPU")


class _OpenRuns:
    """What is open."""

    def __init__(self) -> None:
        self.all: list[ActiveRun] = []
        self.current: ActiveRun | None = None
        self.sys_exit: Callable[..., NoReturn] = sys.exit
        self.exit_code: object = None
        """What `sys.exit` was last called with, while runs were open."""

    def after_fork_in_child(self) -> None:
        """The parent's runs stay current, so that logging to them says what is wrong."""
        self.all.clear()


_shut_down_first: Final[weakref.WeakSet[Executor]] = weakref.WeakSet()
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
    _exit_with_process()
    _install_signal_handlers()
    if sys.exit is not _noted_exit:
        _open.sys_exit, sys.exit = sys.exit, _noted_exit
        _open.exit_code = None


def finished(run: ActiveRun) -> None:
    """Take note of a run that was finished."""
    if run in _open.all:
        _open.all.remove(run)
    if _open.current is run:
        _open.current = None
    if not _open.all:
        _remove_signal_handlers()
        if sys.exit is _noted_exit:
            sys.exit = _open.sys_exit


def exit_code_of(error: BaseException | None) -> int:
    """Return the exit code of a process that ends with this exception; a trial that is pruned ends well."""
    if error is None or isinstance(error, TrialPruned):
        return 0
    if isinstance(error, SystemExit):
        code = error.code
        return 0 if code is None else code if isinstance(code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return 1


def ended_by_signal(exit_code: int) -> bool:
    """Say whether an exit code is that of a process which a signal ended, as a shell tells it: 128 + n."""
    return exit_code - 128 in signal.valid_signals()


@contextmanager
def finishing_runs() -> Generator[None]:
    """Finish the runs that are opened in the block and left open, as the block itself ended."""
    opened_before = tuple(_open.all)
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        for run in tuple(_open.all):
            if run not in opened_before:
                run.finish(exit_code_of(error))


@contextmanager
def finishing_on_signals() -> Generator[None]:
    """Finish runs on signals in the block, also those that other threads open; for the main thread.

    Else that is so from the first run on that the main thread opens: no other thread can set a handler.
    """
    _install_signal_handlers()
    try:
        yield
    finally:
        if not _open.all:
            _remove_signal_handlers()


def exit_before_others() -> None:
    """Finish runs before the exit hooks that others registered so far, which may take away clients."""
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)


def shut_down_first(executor: Executor) -> None:
    """Have an executor's work done at interpreter exit, while others still take what it gives them to do.

    Exit hooks come after that.  Python's own executors have a place before it, which is no public one.
    """
    register: Callable[[Callable[[], object]], None] | None = getattr(threading, "_register_atexit", None)
    if not _shut_down_first and register is not None:
        with suppress(RuntimeError):  # the interpreter is going down already
            register(_shut_down)
    _shut_down_first.add(executor)


def _shut_down() -> None:
    for executor in list(_shut_down_first):
        executor.shutdown()


def _exit_with_process() -> None:
    """Finish runs at the end of a child of multiprocessing, too, which runs no exit hooks."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _at_exit, exitpriority=100)


def _at_exit() -> None:
    error = sys.exc_info()[1]  # in flight at the end of a child of multiprocessing
    if error is None and not hasattr(sys, "ps1"):  # an interactive session goes on after one
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    code = exit_code_of(error if error is not None else SystemExit(_open.exit_code))
    _finish_all(Status("failed" if code else "finished", code))
    if type(error) is KeyboardInterrupt:
        _end_as_interrupted()


def _end_as_interrupted() -> None:
    """Have CPython end the process by SIGINT after an interrupt that nobody caught, as it means to.

    It takes note of one when it leaves a program's code, and forgets it when any thread begins to run code
    that is given as text, as modules do that are imported meanwhile.
    """
    with suppress(KeyboardInterrupt):
        exec("raise KeyboardInterrupt")  # noqa: S102 - noted once more


def _noted_exit(status: object = None, /) -> NoReturn:
    if threading.current_thread() is threading.main_thread():  # it ends no more than a thread elsewhere
        _open.exit_code = status
    _open.sys_exit(status)


def _finish_all(status: Status) -> None:
    for run in list(_open.all):
        run.finish(status)


def _on_signal(number: int, frame: FrameType | None) -> None:
    del frame
    if number != signal.SIGINT:
        for run in _open.all:
            run.record_signal(signal.Signals(number).name)
    _finish_all(Status("failed", 128 + number))
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)  # end as the default action would have ended, for whoever waits


def _install_signal_handlers() -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # Python allows it nowhere else
    for name in _SIGNALS + (_SLURM_SIGNALS if "SLURM_JOB_ID" in os.environ else ()):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL and not _is_caught(number):
            signal.signal(number, _on_signal)


def _is_caught(number: int) -> bool:
    """Say whether a handler stands that was not set through Python, as far as can be told.

    `jax.distributed` has one for SIGTERM, by which checkpoints learn of a preemption; Python sees none.
    """
    try:
        with open("/proc/self/status") as status:  # noqa: PTH123 - this also runs while little else does
            caught = next(line for line in status if line.startswith("SigCgt:"))
    except (OSError, StopIteration):  # not Linux
        return False
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def _remove_signal_handlers() -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for name in _SIGNALS + _SLURM_SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is _on_signal:
            signal.signal(number, signal.SIG_DFL)
