"""A trial of a sweep in the store, and its run: what that logs, and how it ends, is told to the study."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, final

from optuna.trial import TrialState

from tracklayer import agreeing, reporting
from tracklayer.errors import TrialPruned, UsageError
from tracklayer.lifecycle import ended_by_signal
from tracklayer.settings import store_folder
from tracklayer.sweeps.claiming import ClaimedTrial, Outcome, rejoin
from tracklayer.sweeps.current import AGENT, SWEEP, TRIAL, Trial
from tracklayer.sweeps.leases import Lease
from tracklayer.sweeps.study import SweepStudy, open_sweep

if TYPE_CHECKING:
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.protocol import RunInfo, Status
    from tracklayer.reading import RunReader
    from tracklayer.values import Value

_SHOWN: Final = 8


def trial_of(claimed: ClaimedTrial, lease: Lease | None = None) -> Trial:
    """Return a trial that this process has claimed; the first run that is opened in it is the trial's own.

    Args:
        claimed: the trial as the study knows it.
        lease: one to be released with the trial's run.
    """
    trial = _shared(claimed.sweep, claimed.number, claimed.parameters)
    runs: list[TrialRun] = []

    def watch(
        info: RunInfo, stop: Callable[[str, Exception], None], recorded: RunReader | None
    ) -> TrialRun | None:
        if runs:
            return None
        if recorded is not None and info.id != trial.previous_run:
            reporting.warn(
                f"{claimed} continues run {info.id}, which is of another trial, or of none: what that logged "
                "before does not count; leave out the `id`, for a run of its own"
            )
            recorded = None
        runs.append(TrialRun(claimed, info, stop, recorded, lease))
        return runs[0]

    return replace(trial, watch=watch)


def _shared(sweep: SweepStudy, number: int, parameters: Mapping[str, Any]) -> Trial:
    """Return a trial of whose end another process tells."""
    return Trial(
        sweep.id,
        parameters,
        project=sweep.project,
        entity=sweep.entity,
        group=sweep.id,
        store=sweep.store,
        previous_run=_previous_run(sweep, number),
    )


@final
class TrialRun:
    """Tells a sweep's study of a run: a `Run` behind a queue of its own, so that training waits for nothing.

    What is to be told is told in `commit` and `finish`, which are called again until they succeed.
    """

    def __init__(
        self,
        claimed: ClaimedTrial,
        info: RunInfo,
        stop: Callable[[str, Exception], None],
        recorded: RunReader | None,
        lease: Lease | None,
    ) -> None:
        self.info: Final = info
        self._claimed = claimed
        self._stop = stop
        self._lease = lease
        self._metric = claimed.sweep.config.metric
        self._bands = claimed.sweep.config.early_terminate
        self._keys = () if self._metric is None else self._metric.keys
        self._iterations = 0
        self._best: float | None = None
        self._reached: deque[tuple[int, str, float]] = deque()
        """The bands that the study does not know of: iteration, key, and value."""
        self._others: Mapping[str, Value] = {}
        """The last row that did not hold the metric."""
        self._is_started = self._is_to_stop = self._is_preempted = self._is_target_told = False
        if recorded is not None:
            self._continue_from(recorded)

    def log(self, values: Mapping[str, Value], *, step: int, time: float) -> None:
        """Look at a row."""
        self.log_rows([(step, time, values)])

    def log_rows(self, rows: Sequence[tuple[int, float, Mapping[str, Value]]]) -> None:
        """Look at rows: each one that holds the metric is an iteration of the trial."""
        for _, _, values in rows:
            for key in self._keys:
                value = values.get(key)
                if isinstance(value, (int, float)):
                    self._iterate(key, float(value))
                    break
            else:
                self._others = values

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Take nothing: the study knows the trial's parameters."""

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        """Look at entries: one of the metric counts as a value of it."""
        for key in self._keys:
            value = summary.get(key)
            if isinstance(value, (int, float)):
                self._take(float(value))

    def log_artifact(self, artifact: LoggedArtifact) -> None:
        """Take nothing."""

    def mark_preempting(self, by: str) -> None:
        """Know that the process is about to be ended, so that a failure is none of the trial's."""
        del by
        self._is_preempted = True

    def commit(self) -> None:
        """Tell the study of the run, and of the bands that it has reached; have the run stop if it is to.

        Raises:
            StoreError: the study cannot be told now.
        """
        if not self._is_started:
            self._claimed.started(self.info.id)
            self._is_started = True
        if self._is_at_target() and not self._is_target_told:
            self._claimed.reached()
            self._is_target_told = True
        while self._reached:
            iteration, key, value = self._reached[0]
            self._is_to_stop = self._claimed.report(iteration, value)
            self._reached.popleft()
            if self._is_to_stop:
                self._reached.clear()
                msg = (
                    f"{self._claimed} is pruned at iteration {iteration}, with {key} = {value:.6g}: "
                    "others did better by then"
                )
                self._stop(key, TrialPruned(msg))

    def finish(self, status: Status) -> None:
        """Tell the study how the trial ended.

        Raises:
            StoreError: the study cannot be told now.
        """
        self.commit()
        outcome = self._outcome(status)
        self._claimed.end(outcome, self._best, self._iterations)
        if self._lease is not None:
            self._lease.release()
        if outcome == "finished" and self._metric is not None and self._best is None:
            reporting.warn(f"{self._claimed} {self._lack(self._metric.name)}: it counts as failed")

    def _outcome(self, status: Status) -> Outcome:
        if status.state == "finished":
            # also where training was over before it heard of it, so that a sweep can be repeated
            return "pruned" if self._is_to_stop else "finished"
        from_outside = self._is_preempted or ended_by_signal(status.exit_code)
        return "failed" if status.state == "failed" and not from_outside else "died"

    def _lack(self, metric: str) -> str:
        if self._iterations:
            return f"has logged no finite value of {metric!r}"
        if any(key in self._others for key in self._keys):
            return f"has logged {metric!r}, the sweep's metric, as something else than a number"
        names = ", ".join(map(repr, list(self._others)[:_SHOWN]))
        return f"has never logged {metric!r}, the sweep's metric" + (f" (but {names})" if names else "")

    def _iterate(self, key: str, value: float) -> None:
        self._iterations += 1
        self._take(value)
        if self._bands and not self._is_to_stop and self._bands.is_band(self._iterations):
            if not math.isfinite(value):
                value = math.nan  # the pruner lets no such trial go on, however good it was before
            elif not self._bands.strict and self._best is not None:
                value = self._best
            self._reached.append((self._iterations, key, value))

    def _take(self, value: float) -> None:
        if self._metric is None or not math.isfinite(value):
            return
        if self._best is None or self._metric.is_better(value, self._best):
            self._best = value

    def _is_at_target(self) -> bool:
        return self._metric is not None and self._best is not None and self._metric.reached(self._best)

    def _continue_from(self, recorded: RunReader) -> None:
        """Count what the run logged before, of which the study knows nothing: that was another trial."""
        for key in self._keys:
            with suppress(LookupError):
                values: Sequence[float] = recorded.metric(key).value.ravel().tolist()
                self._iterations += len(values)
                for value in values:
                    self._take(value)
        self.update_summary(recorded.explicit_summary)


def joined(environment: MutableMapping[str, str]) -> Trial:
    """Return the trial that the environment names, which becomes this process's if it is the first to ask.

    It takes the agent's name out of the environment, so that children of this process are not the trial's.

    Raises:
        TrialLostError: it is another agent's by now: this process was taken for dead.
        SweepNotFoundError: its sweep is not in the store.
        StoreError: the store cannot be read or written.
        UsageError: the environment is not as an agent leaves it.
    """
    sweep = open_sweep(store_folder(), environment.get(SWEEP, ""))
    trials = sweep.study.get_trials(deepcopy=False)
    text = environment[TRIAL]
    if not text.isdecimal() or int(text) >= len(trials):
        msg = f"{TRIAL}={text!r} is no trial of sweep {sweep.id}: it is an agent that sets it"
        raise UsageError(msg)
    number = int(text)
    told = trials[number].user_attrs
    agent = environment.get(AGENT)
    is_others = trials[number].state is TrialState.RUNNING and told.get("agent") != agent
    has_ended = trials[number].state.is_finished() and told.get("outcome") != "died"
    if agent is None or is_others or has_ended or agreeing.place()[0] > 0:
        environment.pop(AGENT, None)
        return _shared(sweep, number, told["parameters"])
    lease = Lease(sweep.agents)
    lease.start()
    try:
        claimed = rejoin(sweep, number, agent, lease)
    except BaseException:
        lease.release()
        raise
    del environment[AGENT]
    _say_pruned_in_a_line()
    return trial_of(claimed, lease)


def _previous_run(sweep: SweepStudy, number: int) -> str | None:
    trials = sweep.study.get_trials(deepcopy=False)
    while (retried := trials[number].user_attrs.get("retry_of")) is not None:
        number = retried
        if (run := trials[number].user_attrs.get("run")) is not None:
            return str(run)
    return None


def _say_pruned_in_a_line() -> None:
    """Have a program whose trial is pruned say so in a line as it ends, without an error's traceback."""
    others = sys.excepthook

    def say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, TrialPruned):
            reporting.warn(str(error))
        else:
            others(kind, error, trace)

    sys.excepthook = say
