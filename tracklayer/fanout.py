"""Several runs behind one: each gets every call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from tracklayer.protocol import (
    MetricRule,
    Run,
    RunInfo,
    Status,
    TakesConsole,
    TakesEnvironment,
    TakesMetricRules,
    TakesSystemMetrics,
    TakesUses,
)

if TYPE_CHECKING:
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.surroundings import ConsoleLine, Environment, SystemRow
    from tracklayer.values import Value


@final
class FanOut:
    """A run that passes every call on to each of several, in order."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = tuple(runs)
        self._logs = tuple(run.log for run in self._runs)

    @property
    def info(self) -> RunInfo:
        """The first run's info."""
        return self._runs[0].info

    def log(self, values: Mapping[str, Value], *, step: int, time: float) -> None:
        """Pass a row on; all get the same mapping, which none may change."""
        for log in self._logs:
            log(values, step=step, time=time)

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Pass config on."""
        for run in self._runs:
            run.update_config(config)

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        """Pass summary entries on."""
        for run in self._runs:
            run.update_summary(summary)

    def define_metric(self, rule: MetricRule) -> None:
        """Pass a rule on to those that take rules."""
        for run in self._runs:
            if isinstance(run, TakesMetricRules):
                run.define_metric(rule)

    def log_artifact(self, artifact: LoggedArtifact) -> None:
        """Pass an artifact on."""
        for run in self._runs:
            run.log_artifact(artifact)

    def use_artifact(self, artifact: LoggedArtifact) -> None:
        """Pass a use on to those that take uses."""
        for run in self._runs:
            if isinstance(run, TakesUses):
                run.use_artifact(artifact)

    def record_environment(self, environment: Environment) -> None:
        """Pass an environment on to those that take one."""
        for run in self._runs:
            if isinstance(run, TakesEnvironment):
                run.record_environment(environment)

    def log_console(self, lines: Sequence[ConsoleLine]) -> None:
        """Pass lines on to those that take them."""
        for run in self._runs:
            if isinstance(run, TakesConsole):
                run.log_console(lines)

    def log_system(self, row: SystemRow) -> None:
        """Pass a row of system metrics on to those that take them."""
        for run in self._runs:
            if isinstance(run, TakesSystemMetrics):
                run.log_system(row)

    def commit(self) -> None:
        """Commit each."""
        for run in self._runs:
            run.commit()

    def finish(self, status: Status) -> None:
        """Finish each."""
        for run in self._runs:
            run.finish(status)
