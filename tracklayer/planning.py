"""What a push sends: the rows that a server lacks, worked out one by one as they are read."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, final

from tracklayer.media.base import Media
from tracklayer.values import SCALAR_TYPES, Text

if TYPE_CHECKING:
    from tracklayer.delivery import ReceivedRow
    from tracklayer.reading import Row, RunReader
    from tracklayer.values import Value


class PlannedRow(NamedTuple):
    """A row to send; one that `is_there` was sent before, but for some of its files, maybe."""

    row: Row
    is_there: bool = False


@final
@dataclass(frozen=True, slots=True)
class Base:
    """What a server had of a run when a push of it began.

    Attributes:
        lines: the rows of its history.
        last_step: the highest step of its history; -1 for none.
        through: what was logged at this step or one below it is there, and nothing above it.
        rows: the steps that were logged there.
    """

    lines: int = 0
    last_step: int = -1
    through: int = -1
    rows: int = 0

    @property
    def top(self) -> int:
        """The highest step that it says anything about: rows above it are new, and not late."""
        return max(self.last_step, self.through)


class Settled(NamedTuple):
    """Which rows of a running run can be sent.

    `upto` is the highest step that can; -1 for none.  `waiting` rows above it wait, some of them for a
    moment only where `is_brief`.
    """

    upto: int
    waiting: int
    is_brief: bool


def settled(rows: Iterable[Row], before: float) -> Settled:
    """Look which rows will hardly change any more.

    The highest step is still written, maybe; and media come later than the rest of their row.

    Args:
        rows: steps ascending.
        before: what was logged later, in Unix seconds, waits, and whatever is above it.
    """
    upto = highest = -1
    waiting = 0
    for row in rows:
        if waiting or row.time > before:
            waiting += 1
        if waiting <= 1:
            upto, highest = highest, row.step
    return Settled(upto, waiting or int(highest >= 0), is_brief=waiting > 1)


@final
class ServerRows:
    """What a server has at each step: some thirty bytes a row.

    Args:
        rows: in any order; several may be of one step.
        ignored: keys whose values are not compared: what the client adds to rows by itself.
    """

    def __init__(self, rows: Iterable[ReceivedRow], ignored: frozenset[str] = frozenset()) -> None:
        import numpy as np

        self.last_step = -1
        """The highest step that was logged there; -1 for none."""
        self._ignored = ignored
        self._keys: list[frozenset[str]] = []
        places: dict[frozenset[str], int] = {}
        steps, keys, sums = array("q"), array("q"), array("q")
        for row in rows:
            names = frozenset(key for key, value in row.values.items() if value is not None)
            place = places.setdefault(names, len(places))
            if place == len(self._keys):
                self._keys.append(names)
            steps.append(row.step)
            keys.append(place)
            sums.append(self._sum(row.values))
        self._steps = np.frombuffer(steps, np.int64) if steps else np.empty(0, np.int64)
        order = np.argsort(self._steps, kind="stable")
        self._steps, self._order = self._steps[order], array("q", order.tobytes())
        if steps:
            self.last_step = int(self._steps[-1])
        self._places, self._sums = keys, sums

    def lacking(self, row: Row) -> tuple[dict[str, Value], dict[str, Value], bool]:
        """Split a row into what the server lacks and what it has; say whether it has other values there."""
        low, high = self._steps.searchsorted((row.step, row.step + 1))
        keys, found = frozenset[str](), 0
        for place in self._order[low:high]:
            keys |= self._keys[self._places[place]]
            found ^= self._sums[place]
        lacking = {key: value for key, value in row.values.items() if key not in keys}
        there = {key: value for key, value in row.values.items() if key in keys}
        return lacking, there, bool(there) and self._sum(there) != found

    def _sum(self, values: Mapping[str, Any]) -> int:
        """Return a number that tells values apart; those of a row's parts combine by XOR."""
        total = 0
        for key, value in values.items():
            plain = _plain(value)
            if plain is not None and key not in self._ignored:
                total ^= hash((key, plain))
        return total


def _plain(value: Any) -> float | str | None:
    """Return a scalar or a text so that it is equal to what a server made of it; None for all else."""
    if isinstance(value, (int, float)):
        try:
            number = float(value)
        except OverflowError:
            return str(value)
        return number if number - number == 0 else str(number)  # NaN has a hash of its own each time
    if isinstance(value, Text):
        value = value.text
    if isinstance(value, str):
        return {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}.get(value, value)
    return None


@final
class Plan:
    """The rows to send, in the order in which a `Delivery` takes them; it can be gone through again.

    First come those above the server's last step, ascending, then the late ones.

    Args:
        reader: the run.
        base: what the server had when the push began.
        upto: the highest step to send.
        skipped: the number of rows, from the first on, that an earlier push of the same plan sent.
        there: what the server has at each step, where that had to be looked up.
        takes_late: late rows are to be sent now; else they wait.
        waiting: the rows above `upto`.

    Attributes:
        sent: rows gone through that are to be sent, so far; all of them, once it was gone through.
        late: how many of these are late.
        repeated: rows of which the server has, and keeps, other values.
        late_waiting: late rows that are not to be sent now.
        rows: steps that the server has, or will have then.
    """

    def __init__(
        self,
        reader: RunReader,
        base: Base,
        upto: int,
        *,
        skipped: int = 0,
        there: ServerRows | None = None,
        takes_late: bool = True,
        waiting: int = 0,
    ) -> None:
        self.base = base
        self.upto = upto
        self._reader = reader
        self._skipped = skipped
        self._there = there
        self._takes_late = takes_late
        self._waiting = waiting
        self._start()

    def _start(self) -> None:
        self.sent = self.late = self.repeated = self.late_waiting = 0
        self.rows = self.base.rows

    def __iter__(self) -> Iterator[PlannedRow]:
        """Yield the rows."""
        self._start()
        return self._all()

    def without(self, count: int) -> Plan:
        """Return the plan of which the first so many rows were sent."""
        return Plan(
            self._reader,
            self.base,
            self.upto,
            skipped=count,
            takes_late=self._takes_late,
            waiting=self._waiting,
        )

    @property
    def waiting(self) -> int:
        """The rows that are not to be sent now, so far."""
        return self._waiting + self.late_waiting

    def last_step_after(self, count: int) -> int | None:
        """Return the server's last step once it has the first so many rows; None where there are fewer."""
        last = self.base.last_step
        for planned in islice(self, count):
            last = planned.row.step if planned.row.step > last else last + 1
            count -= 1
        return last if count == 0 else None

    def _all(self) -> Iterator[PlannedRow]:
        skipped = self._skipped
        for row in self._between(self.base.top, self.upto):
            self.rows += 1
            self.sent += not skipped
            yield PlannedRow(row, is_there=bool(skipped))
            skipped -= bool(skipped)
        for row in self._between(self.base.through, min(self.base.last_step, self.upto)):
            lacking, there = row.values, dict[str, Any]()
            if self._there is not None:
                lacking, there, is_repeated = self._there.lacking(row)
                self.repeated += is_repeated
            if has_rich(there):  # its files may lack, and the summary shows it
                yield PlannedRow(row._replace(values=there), is_there=True)
            if lacking and not self._takes_late:
                self.late_waiting += 1
                continue
            self.rows += 1
            if lacking:
                self.sent += not skipped
                self.late += not skipped
                yield PlannedRow(row._replace(values=lacking), is_there=bool(skipped))
                skipped -= bool(skipped)

    def _between(self, above: int, upto: int) -> Iterator[Row]:
        if above >= upto:
            return
        for row in self._reader.rows(after=above):
            if row.step > upto:
                return
            yield row


def has_rich(values: Mapping[str, Value]) -> bool:
    """Say whether any of a row's values is no scalar."""
    return not SCALAR_TYPES.issuperset(map(type, values.values()))


def file_bytes(row: Row) -> int:
    """Return the sum of the sizes of a row's files."""
    if not has_rich(row.values):
        return 0
    media = (value for value in row.values.values() if isinstance(value, Media))
    return sum(content.size for value in media for content in value.encoded.contents.values())
