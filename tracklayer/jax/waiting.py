"""Waiting for what compiled programs still log, and counting what of it is not recorded."""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Final, final

import jax

from tracklayer import reporting

_QUIET: Final = 0.3
"""Seconds without a row after which a signal handler waits for no more of them."""
_PATIENCE: Final = 5.0
"""Seconds that a signal handler waits in all: who sent the signal will not wait much longer."""


def wait_for_taps(*, at_end: bool = False) -> None:
    """Wait until the programs that this thread started have logged; never raises.

    JAX knows of each program in the thread that started it only: of those that other threads started, wait
    for the results.  In a signal handler, which may have interrupted what a tap is waiting for, wait only
    for as long as rows keep coming.

    Args:
        at_end: say then how much was not recorded.
    """
    if not taps.exist:
        return
    if _in_signal_handler():
        taps.wait_until_quiet()
    else:
        try:
            jax.effects_barrier()  # type: ignore[no-untyped-call] # jax's own types are partial
        except Exception as error:  # noqa: BLE001 - a program that failed is the program's business
            taps.report_failed_program(error)
    if at_end:
        taps.tell_losses()


@final
class Taps:
    """What the taps of this process have in common."""

    def __init__(self) -> None:
        self.exist = False
        self._fired_at = 0.0
        self._lock = threading.RLock()
        self._lost: Counter[str] = Counter()
        self._failures: set[str] = set()

    @contextmanager
    def counting_losses(self) -> Generator[None]:
        """Have no error reach the program: count what is not recorded, report the first of each kind."""
        self._fired_at = monotonic()
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above
            kind = type(error).__name__
            with self._lock:
                self._lost[kind] += 1
                is_first = self._lost[kind] == 1
            if is_first:
                reporting.warn(f"a row of tracklayer.jax.log is not recorded: {error or repr(error)}")

    def tell_losses(self) -> None:
        """Say how much was not recorded since this was last said, where it was more than was reported."""
        with self._lock:
            lost, self._lost = self._lost, Counter()
        if lost.total() > len(lost):
            reporting.warn(f"{lost.total()} rows of tracklayer.jax.log were not recorded")

    def report_failed_program(self, error: Exception) -> None:
        """Say once what ended a program: JAX says it each time that one waits."""
        what = str(error).partition("\n")[0]
        if what not in self._failures:
            self._failures.add(what)
            reporting.warn(f"a jitted program failed, and may have logged less than it should: {what}")

    def wait_until_quiet(self) -> None:
        """Wait as long as rows keep coming, but not for long."""
        deadline = monotonic() + _PATIENCE
        while monotonic() < min(deadline, self._fired_at + _QUIET):
            sleep(0.01)


taps: Final = Taps()


def _in_signal_handler() -> bool:
    """Say whether a signal handler is at work on this thread."""
    if threading.current_thread() is not threading.main_thread():
        return False
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    frame = sys._getframe()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - inspect's is the same
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code in handlers:
            return True
    return False
