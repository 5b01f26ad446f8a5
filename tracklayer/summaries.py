"""How metrics become summary entries, by their rules.

The last value is the one at the highest step; the others are over the values of all steps, leaving NaN
out of `min` and `max`.  As W&B has it, an entry is the value itself under the default rule, and nested
under a rule: `{"loss": {"min": 0.1}}`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter, lt
from typing import TYPE_CHECKING, Any, Final, final

from tracklayer.errors import UsageError
from tracklayer.media.base import Media
from tracklayer.protocol import MetricRule, rule_for
from tracklayer.values import Histogram, Text, Value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracklayer.reading import RunReader

SUMMARIES: Final = ("min", "max", "mean", "last", "none")
_RICH: Final = (Text, Histogram, Media)


def metric_rule(
    pattern: str,
    summary: str | Iterable[str] | None = None,
    step_metric: str | None = None,
    goal: str | None = None,
) -> MetricRule:
    """Return a checked rule; `summary` may also hold several words, `"min,max"`.

    Raises:
        UsageError: an unknown summary or goal, or a `*` that is not at the pattern's end.
    """
    if not pattern or "*" in pattern[:-1]:
        msg = f"metric pattern {pattern!r}: a key, or a prefix followed by one '*'"
        raise UsageError(msg)
    words = summary.split(",") if isinstance(summary, str) else (summary or ())
    chosen = tuple(dict.fromkeys(word.strip() for word in words if word.strip()))
    unknown = [word for word in chosen if word not in SUMMARIES]
    if unknown:
        msg = f"define_metric({pattern!r}): summary {unknown[0]!r} is none of {', '.join(SUMMARIES)}"
        raise UsageError(msg)
    match goal:
        case None | "minimize" | "maximize":
            return MetricRule(pattern, chosen, step_metric, goal)
        case _:
            msg = f"define_metric({pattern!r}): goal is 'minimize' or 'maximize', not {goal!r}"
            raise UsageError(msg)


def entry(rule: MetricRule | None, statistics: Mapping[str, Value]) -> Any:
    """Return a metric's summary entry, given `last`, `min`, `max` and `mean`; None for no entry."""
    if rule is None or not rule.summary:
        return statistics["last"]
    if "none" in rule.summary:
        return None
    return {word: statistics[word] for word in rule.summary}


@final
class MetricSummaries:
    """The summary of what was logged so far; fed by a queue, on its thread."""

    def __init__(self) -> None:
        self.is_exact = True
        """False once what was recorded may give other values than what passed here: a step was logged
        again, a rule came after values, or earlier segments have some."""
        self._rules: dict[str, MetricRule] = {}
        self._folding: dict[str, MetricRule] = {}
        """The rules by which `_folds` was made; the queue's thread alone changes either."""
        self._latest: dict[str, Any] = {}
        self._steps: dict[str, int] = {}
        self._highest = -1
        self._folds: dict[str, _Fold | None] = {}

    def define(self, rule: MetricRule) -> None:
        """Apply a rule from now on."""
        self._rules = {**self._rules, rule.pattern: rule}

    def completed(self, rule: MetricRule) -> MetricRule:
        """Return a rule with what it leaves open as the one has it that it replaces."""
        old = self._rules.get(rule.pattern)
        if old is None:
            return rule
        return MetricRule(
            rule.pattern,
            rule.summary or old.summary,
            rule.step_metric or old.step_metric,
            rule.goal or old.goal,
        )

    def continue_from(self, reader: RunReader) -> None:
        """Begin with what earlier segments recorded."""
        self.is_exact = False
        self._rules = dict(reader.rules)
        recorded = {**reader.summary, **dict.fromkeys(reader.explicit_summary)}
        self._latest = {
            key: value for key, value in recorded.items() if value is not None and not isinstance(value, dict)
        }

    def add_rows(self, rows: Sequence[tuple[int, float, Mapping[str, Any]]]) -> None:
        """Take rows: (step, Unix seconds, values)."""
        steps = [row[0] for row in rows]
        in_order = bool(steps) and steps[0] >= self._highest and all(map(lt, steps, steps[1:]))
        if in_order and not self._rules:
            # of rows that have the same keys, only the last counts
            rows = sorted({tuple(row[2]): row for row in rows}.values(), key=itemgetter(0))
        for step, _, values in rows:
            self.add(values, step)

    def add(self, values: Mapping[str, Any], step: int) -> None:
        """Take a row."""
        if self._rules:
            self._fold(values, step)
        if step >= self._highest:
            self._highest = step
            self._latest.update(values)
            self._steps.update(dict.fromkeys(values, step))
        else:
            for key, value in values.items():
                if step >= self._steps.get(key, -1):
                    self._latest[key], self._steps[key] = value, step

    def current(self) -> dict[str, Any]:
        """Return the entries as they stand."""
        entries: dict[str, Any] = {}
        for key, last in list(self._latest.items()):
            if isinstance(last, _RICH):
                continue
            rule = rule_for(key, self._rules)
            fold = self._folds.get(key)
            if fold is None and rule is not None and rule.summary:
                self.is_exact = False
                fold = _Fold()
                fold.add(last)
            value = entry(rule, {"last": last, **(fold.statistics() if fold else {})})
            if value is not None:
                entries[key] = value
        return entries

    def _fold(self, values: Mapping[str, Any], step: int) -> None:
        if self._folding is not self._rules:
            self._folding = self._rules
            self._folds = {key: fold for key, fold in self._folds.items() if fold is not None}
        for key, value in values.items():
            if key not in self._folds:
                rule = rule_for(key, self._folding)
                self._folds[key] = _Fold() if rule and rule.summary else None
                late = key in self._steps
            else:
                late = step <= self._steps.get(key, -1)
            fold = self._folds[key]
            if fold is not None and isinstance(value, (int, float)):
                fold.add(value)
                if late:
                    self.is_exact = False


@final
class _Fold:
    """Running statistics of one metric."""

    __slots__ = ("_count", "_max", "_min", "_total")

    def __init__(self) -> None:
        self._min = self._max = math.nan
        self._total = 0.0
        self._count = 0

    def add(self, value: float) -> None:
        self._total += _as_float(value)
        self._count += 1
        if value < self._min or self._min != self._min:
            self._min = value
        if value > self._max or self._max != self._max:
            self._max = value

    def statistics(self) -> dict[str, float]:
        mean = self._total / self._count if self._count else math.nan
        return {"min": self._min, "max": self._max, "mean": mean}


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an int may be larger than any float
        return math.copysign(math.inf, 1 if value > 0 else -1)
