"""The metrics over which others are drawn, as `define_metric(step_metric=…)` says.

The client copies the last value of such a metric into each row of the others that lacks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from tracklayer.protocol import MetricRule, rule_for
from tracklayer_wandb.history import scalar_text

if TYPE_CHECKING:
    from tracklayer.reading import RunReader


@final
class StepMetrics:
    """The last values of the step metrics, as rows pass in order of steps.

    Args:
        reader: the run.
        last_step: the last step that was sent before; -1 for none.
    """

    def __init__(self, reader: RunReader, last_step: int) -> None:
        self._reader = reader
        self._last_step = last_step
        self._rules: dict[str, MetricRule] = {}
        self._of: dict[str, str | None] = {}
        """By key: the metric that it is drawn over."""
        self._names: set[str] = set()
        self._last: dict[str, bytes] = {}

    def define(self, rule: MetricRule) -> None:
        """Apply a rule from now on."""
        self._rules[rule.pattern] = rule
        self._of.clear()
        name = rule.step_metric
        if name is not None and name not in self._names:
            self._names.add(name)
            if self._last_step >= 0:
                self._last |= self._value_before(name)

    def _value_before(self, name: str) -> dict[str, bytes]:
        """Return the last value that the server has, since it was sent earlier."""
        try:
            metric = self._reader.metric(name)
        except LookupError:
            return {}
        number = int(metric.step.searchsorted(self._last_step, side="right")) - 1
        text = scalar_text(metric.value[number].item()) if number >= 0 and metric.value.ndim == 1 else None
        return {} if text is None else {name: text}

    def complete(self, row: dict[str, bytes]) -> None:
        """Put the values of step metrics into a row that lacks them."""
        if not self._names:
            return
        for key in tuple(row):
            if key not in self._of:
                rule = rule_for(key, self._rules)
                self._of[key] = None if rule is None else rule.step_metric
            name = self._of[key]
            if name is not None and name not in row and name in self._last:
                row[name] = self._last[name]
        for name in self._names & row.keys():
            self._last[name] = row[name]
