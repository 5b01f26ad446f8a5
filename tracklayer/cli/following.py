"""`tracklayer push --follow`: what is new, again and again, until somebody interrupts it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from tracklayer.cli import failures
from tracklayer.cli.push import chains, shown_push
from tracklayer.cli.transfers import NoBars
from tracklayer.cli.working import work_through
from tracklayer.errors import TracklayerError

if TYPE_CHECKING:
    from tracklayer.cli.push import PushOne
    from tracklayer.push_report import PushReport
    from tracklayer.reading import RunReader

_LONGEST: Final = 600.0
"""Seconds between rounds, while nothing can be sent; unless `--every` is longer."""


def follow(
    choose: Callable[[], tuple[list[RunReader], list[Exception]]],
    push_one: PushOne,
    every: float,
    jobs: int,
    say: Callable[[PushReport], None],
) -> int:
    """Push what `choose` chooses, round by round.

    Of a run, something is said only where something was sent, or where what keeps it from being sent is new.
    While no run can be sent, the pauses grow.

    Returns:
        The exit code: whether all was well in the last round.
    """
    told: dict[str, str] = {}
    pause = every
    with _interruptible() as stopping:
        while True:
            try:
                readers, errors = choose()
            except (TracklayerError, OSError) as failure:  # a disk that is away comes back
                readers, errors = [], [failure]
            for error in errors:
                if str(error) not in told:
                    told[str(error)] = ""
                    failures.tell(error)
            done = work_through(chains(readers), lambda reader: _push(reader, push_one, stopping), jobs)
            reports = [report for report in done if report is not None]
            for report in reports:
                news = "" if report.outcome in {"sent", "unchanged"} else report.message
                if report.outcome == "sent" or told.get(report.run_id, "") != news:
                    say(report)
                told[report.run_id] = news
            bad = [report for report in reports if report.outcome not in {"sent", "unchanged"}]
            went_through = any(report.outcome == "sent" for report in reports)
            pause = min(2 * pause, max(every, _LONGEST)) if bad and not went_through else every
            if stopping.wait(pause):
                return failures.FAILED if bad or errors else 0


def _push(reader: RunReader, push_one: PushOne, stopping: threading.Event) -> PushReport | None:
    return None if stopping.is_set() else shown_push(reader, push_one, NoBars())


@contextmanager
def _interruptible() -> Generator[threading.Event]:
    """Have the first SIGINT or SIGTERM set an event, and the second one do what it always does."""
    stopping = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def stop(_number: int, _frame: Any) -> None:
        stopping.set()
        for number in numbers:
            signal.signal(number, before[number])

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield stopping
    finally:
        for number in numbers:
            signal.signal(number, before[number])
