"""Rules that raise alerts, and the watch that judges them.

Rows are judged when they have come to the host, on the thread of the run's first queue: training waits for
nothing.  A rule raises an alert when it comes to hold, and another when it does so again after it did not.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias, final

from tracklayer.errors import UsageError
from tracklayer.protocol import MetricRule
from tracklayer.rows import ReadyRow
from tracklayer.values import Value
from tracklayer.watching import strange_values

_SHOWN: Final = 8


@final
@dataclass(frozen=True, slots=True)
class NotFinite:
    """A value is NaN or infinite, or a histogram has counted such values.

    Attributes:
        key: a metric, a prefix followed by `*`, or `*` for all of them.
    """

    key: str = "*"

    @property
    def title(self) -> str:
        """The title of its alerts."""
        return "values are not finite" if self.key == "*" else f"{self.key} is not finite"


@final
@dataclass(frozen=True, slots=True)
class NoImprovement:
    """A metric was not better than its best value for so many steps, counted between rows that have it.

    A value that is not finite is no better.  What was logged before `alert_when` is not known to it.

    Attributes:
        key: the metric.
        steps: how many steps are too many.
        goal: what is better: a lower value, or a higher one.

    Raises:
        UsageError: `steps` is less than 1, or there is no such goal.
    """

    key: str
    steps: int
    goal: Literal["minimize", "maximize"] = "minimize"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.goal not in {"minimize", "maximize"}:
            msg = f"{self}: give steps from 1 on, and the goal 'minimize' or 'maximize'"
            raise UsageError(msg)

    @property
    def title(self) -> str:
        """The title of its alerts."""
        return f"{self.key} has not improved"


@final
@dataclass(frozen=True, slots=True)
class NoRows:
    """No row was recorded for so long; one whose values a device still computes is not recorded yet.

    Attributes:
        minutes: how long is too long.

    Raises:
        UsageError: it is not more than 0.
    """

    minutes: float

    def __post_init__(self) -> None:
        if not 0 < self.minutes < math.inf:
            msg = f"{self}: give more than 0 minutes"
            raise UsageError(msg)

    @property
    def title(self) -> str:
        """The title of its alerts."""
        return "no rows"


Rule: TypeAlias = NotFinite | NoImprovement | NoRows


class Raised(NamedTuple):
    """A rule that has come to hold, and what the alert is to say."""

    rule: Rule
    text: str


class _Judge(Protocol):
    """A rule on rows, with what it remembers of them."""

    def __call__(self, step: int, values: Mapping[str, Value]) -> str | None:
        """Look at a row; return the alert's text if the rule has come to hold."""
        ...


@final
class RuleWatch:
    """Judges rules: on rows, which it is shown, and on silence, when it is asked."""

    def __init__(self) -> None:
        self.wake: Callable[[], None] = _nobody
        """Called when a rule on rows has come to hold, on the thread that shows rows."""
        self._judges: tuple[tuple[Rule, _Judge], ...] = ()
        self._silences: tuple[_Silence, ...] = ()
        self._raised: deque[Raised] = deque()

    def add(self, rule: Rule) -> None:
        """Judge one more rule, on what comes from now on."""
        if isinstance(rule, NoRows):
            self._silences = (*self._silences, _Silence(rule))
        else:
            judge = _Finiteness(rule) if isinstance(rule, NotFinite) else _Improvement(rule)
            self._judges = (*self._judges, (rule, judge))

    @property
    def is_needed(self) -> bool:
        """Whether there are any rules."""
        return bool(self._judges or self._silences)

    def add_rows(self, rows: Sequence[ReadyRow]) -> None:
        """Look at rows: (step, Unix seconds, values)."""
        if self._silences and not all(_is_alert(values) for _, _, values in rows):
            last = max(step for step, _, _ in rows)
            for silence in self._silences:
                silence.broken(last)
        if not self._judges:
            return
        before = len(self._raised)
        for step, _, values in rows:
            for rule, judge in self._judges:
                text = judge(step, values)
                if text is not None:
                    self._raised.append(Raised(rule, text))
        if len(self._raised) > before:
            self.wake()

    def seconds_to_next(self) -> float:
        """Return in how many seconds a silence may have become too long; infinity if none can."""
        return min((silence.seconds_left() for silence in self._silences), default=math.inf)

    def raised(self) -> list[Raised]:
        """Return what has come to hold since the last call."""
        found = [Raised(silence.rule, text) for silence in self._silences if (text := silence.judge())]
        while self._raised:
            found.append(self._raised.popleft())
        return found


@final
class _Finiteness:
    def __init__(self, rule: NotFinite) -> None:
        self._key = rule.key
        self._is_all = rule.key == "*"
        self._pattern = MetricRule(rule.key)
        self._strange: frozenset[str] = frozenset()
        """The keys whose last value was not finite."""

    def __call__(self, step: int, values: Mapping[str, Value]) -> str | None:
        watched = values if self._is_all else {k: v for k, v in values.items() if self._pattern.matches(k)}
        found = strange_values(watched)
        new = found.keys() - self._strange
        if found or self._strange:
            self._strange = (self._strange - watched.keys()) | found.keys()
        if not new:
            return None
        named = [f"{key} is {text}" for key, text in found.items() if key in new]
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        return f"step {step}: {', '.join(named[:_SHOWN])}{more}"


@final
class _Improvement:
    def __init__(self, rule: NoImprovement) -> None:
        self._rule = rule
        self._sign = 1 if rule.goal == "minimize" else -1
        self._best = math.inf
        """The best value, with the sign with which less is better."""
        self._best_step: int | None = None
        self._holds = False

    def __call__(self, step: int, values: Mapping[str, Value]) -> str | None:
        value = values.get(self._rule.key)
        if not isinstance(value, (int, float)):
            return None
        if self._best_step is None:
            self._best_step = step
        if self._sign * value < self._best and math.isfinite(value):
            self._best, self._best_step, self._holds = self._sign * value, step, False
            return None
        if self._holds or step - self._best_step < self._rule.steps:
            return None
        self._holds = True
        best = (
            f"its best, {self._sign * self._best:.6g}, was at step {self._best_step}"
            if math.isfinite(self._best)
            else f"it has not been finite since step {self._best_step}"
        )
        return f"step {step}: {self._rule.key} is {value:.6g}; {best}"


@final
class _Silence:
    def __init__(self, rule: NoRows) -> None:
        self.rule = rule
        self._since = monotonic()
        self._last_step: int | None = None
        self._holds = False

    def broken(self, step: int) -> None:
        """Take note of rows, the last of them with this step."""
        self._since, self._last_step, self._holds = monotonic(), step, False

    def seconds_left(self) -> float:
        """Return in how many seconds it will be too long; infinity if it is already."""
        return math.inf if self._holds else self._since + 60 * self.rule.minutes - monotonic()

    def judge(self) -> str | None:
        """Return the alert's text if the silence has just become too long."""
        if self.seconds_left() > 0:
            return None
        self._holds = True
        step = self._last_step
        last = "none came since `alert_when`" if step is None else f"the last had step {step}"
        return f"no row for {self.rule.minutes:g} minutes; {last}"


def _is_alert(values: Mapping[str, Value]) -> bool:
    """Say whether a row is an alert, which breaks no silence."""
    return len(values) == 1 and next(iter(values)).startswith("alert/")


def _nobody() -> None:
    """Wake nobody."""
