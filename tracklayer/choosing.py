"""What a push has to send, found out by as few questions as what is known allows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final, TypeVar, final

from tracklayer.planning import Base, Plan, ServerRows, settled

if TYPE_CHECKING:
    from tracklayer.delivery import Received, ReceivedRow
    from tracklayer.ledger import Entry, Sending
    from tracklayer.reading import RunReader
    from tracklayer.surroundings import ConsoleLine, SystemRow

_T = TypeVar("_T")
_SETTLE_SECONDS: Final = 5.0  # media take a moment to be encoded
_SAME_LINE: Final = 1.0  # seconds between two looks at the same line, by W&B's client and by ours
_SAME_ROW: Final = 1e-3


@final
@dataclass(frozen=True, slots=True)
class Choice:
    """The rows to send.

    Attributes:
        plan: them.
        digest: the run's, through the highest of them.
        is_whole: what was logged below them is there.
        is_brief: some rows above them wait for a moment only.
        is_compared: all rows that the server has were looked at.
    """

    plan: Plan
    digest: str
    is_whole: bool = True
    is_brief: bool = False
    is_compared: bool = False

    @property
    def known_step(self) -> int:
        """The highest step that the server is known to have; -1 for none."""
        return self.plan.base.last_step


@final
class Chooser:
    """Chooses the rows of a run to send.

    Args:
        reader: the run.
        ask_rows: reads all rows that the server has.
        is_running: the run is; then late rows, and those that may still change, wait.
    """

    def __init__(
        self, reader: RunReader, ask_rows: Callable[[], Iterable[ReceivedRow]], *, is_running: bool
    ) -> None:
        self._reader = reader
        self._ask_rows = ask_rows
        self._is_running = is_running

    def choose(self, entry: Entry, found: Received | None) -> Choice:
        """Choose, by what the ledger knows and the server has."""
        if found is None:
            return self._above(Base())
        if (entry.lines, entry.last_step) == (found.line_count, found.last_step):
            choice = self._above(Base(entry.lines, entry.last_step, entry.through, entry.rows))
            # asked last: what is logged between the two is in neither digest, or in both
            is_whole = entry.digest != "" and self._reader.digest(entry.through) == entry.digest
            if is_whole or self._is_running:
                return replace(choice, is_whole=is_whole)
        return self._continued(entry.sending, found) or self._compared(found)

    def _above(self, base: Base, there: ServerRows | None = None) -> Choice:
        """Choose all rows above what is there; with a look at what is there, also what lacks below."""
        upto, waiting, is_brief = self._reader.last_step, 0, False
        if self._is_running:
            rows = self._reader.rows(after=base.top)
            settled_upto, waiting, is_brief = settled(rows, time.time() - _SETTLE_SECONDS)
            upto = max(settled_upto, base.through if there is None else base.top)
        digest = self._reader.digest(upto)  # before the rows are read: what it tells of is among them
        plan = Plan(
            self._reader,
            base,
            upto,
            there=there,
            takes_late=not self._is_running,
            waiting=waiting,
        )
        return Choice(plan, digest, is_brief=is_brief, is_compared=there is not None)

    def _continued(self, sending: Sending | None, found: Received) -> Choice | None:
        """Go on where a push was cut off; None where it cannot be known where that was."""
        if sending is None or not sending.digest or found.line_count < sending.lines:
            return None
        choice = self._above(Base(sending.lines, sending.last_step, sending.through, sending.rows))
        if self._reader.digest(sending.upto) != sending.digest:
            return None
        plan, count = choice.plan, found.line_count - sending.lines
        last = plan.last_step_after(count)
        if last is None or last != found.last_step:
            return None
        if last > sending.upto and plan.upto != sending.upto:  # in the midst of late rows, and new ones came
            return None
        if not sending.is_whole and not self._is_running:  # late rows have waited for this
            return None
        return replace(choice, plan=plan.without(count), is_whole=sending.is_whole)

    def _compared(self, found: Received) -> Choice:
        """Look at all rows that the server has."""
        ignored = frozenset(rule.step_metric for rule in self._reader.rules.values() if rule.step_metric)
        there = ServerRows(self._ask_rows() if found.line_count else (), ignored)
        return self._above(Base(found.line_count, max(found.last_step, there.last_step)), there)


def console_sent(reader: RunReader, found: Received) -> int:
    """Return how many lines of the console, from the first on, a server has.

    It has as many as it counts where they were pushed; its own client may have cut the text into others.
    """
    last, count = found.last_line, found.console_lines
    if last is None or _is_at(reader.console(after=max(0, count - 1)), lambda line: line.text == last.text):
        return count
    lines = enumerate(reader.console(), 1)
    same = ((abs(line.time - last.time), number) for number, line in lines if line.text == last.text)
    apart, number = min(same, default=(math.inf, 0))
    return number if apart <= _SAME_LINE else _until(reader.console(), last.time)


def system_sent(reader: RunReader, found: Received) -> int:
    """Return how many rows of system metrics, from the first on, a server has, or has others in place of.

    It has as many as it counts where they were pushed; its own client measures at other times.
    """
    last, count = found.last_system, found.system_rows
    rows = reader.system_metrics(after=max(0, count - 1))
    if last is None or _is_at(rows, lambda row: abs(row.time - last) < _SAME_ROW):
        return count
    return _until(reader.system_metrics(), last)


def _is_at(items: Iterator[_T], is_it: Callable[[_T], bool]) -> bool:
    """Say whether the first item is the one that is looked for."""
    return any(is_it(item) for item in islice(items, 1))


def _until(items: Iterable[ConsoleLine | SystemRow], time: float) -> int:
    return sum(1 for _ in takewhile(lambda item: item.time <= time, items))
