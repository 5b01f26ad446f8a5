"""What a sweep has come to, for people to look at: nothing of it is changed."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, final

from optuna.trial import FrozenTrial, TrialState

from tracklayer.sweeps.claiming import is_reached
from tracklayer.sweeps.leases import is_alive

if TYPE_CHECKING:
    from datetime import datetime

    from tracklayer.sweeps.study import SweepStudy

Outcome = Literal["running", "finished", "pruned", "failed", "died"]
Progress = Literal["running", "paused", "stopped", "finished"]

OUTCOMES: Final[Mapping[TrialState, Outcome]] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@final
@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A trial that was begun, by an agent or by a program of Optuna, or a prior run.

    Attributes:
        number: which one, from 0 on.
        outcome: how it ended; `"died"` also before an agent has found out.
        value: the best of the metric, of one that finished; of others the last that decided on its stopping.
        iterations: how often the metric was logged, as far as that is known.
        run: the id of its run, once that was begun.
        attempt: 1, and one more for each retry; 0 of a prior run, or of one that is Optuna's alone.
        retry_of: the number of the trial that it tries again.
        point: which of a grid's points it is.
        started_at, ended_at: Unix seconds.
        parameters: nested, constants included.
    """

    number: int
    outcome: Outcome
    value: float | None
    iterations: int
    run: str | None
    attempt: int
    retry_of: int | None
    point: int | None
    started_at: float | None
    ended_at: float | None
    parameters: Mapping[str, Any]

    @property
    def seconds(self) -> float | None:
        """How long it took, or has taken so far."""
        if self.started_at is None:
            return None
        return (time.time() if self.ended_at is None else self.ended_at) - self.started_at


@final
class SweepReader:
    """A sweep, as it was at one moment.

    Attributes:
        sweep: the sweep.
        trials: those that were begun, by their numbers.
        waiting: how many more are settled, such as a grid's next points, and not begun.

    Raises:
        StoreError: it cannot be read.
    """

    def __init__(self, sweep: SweepStudy) -> None:
        self.sweep: Final = sweep
        with sweep.errors():
            found = sweep.study.get_trials(deepcopy=False)
            self._said: Final = sweep.state
        begun = [trial for trial in found if _is_begun(trial)]
        self._retried: Final = frozenset(trial.user_attrs.get("retry_of") for trial in found)
        self._alive: Final[dict[str, bool]] = {}
        self.trials: Final[Sequence[TrialRecord]] = [self._record(trial) for trial in begun]
        self._is_reached: Final = is_reached(sweep, found)
        self._known_points: Final = len(
            {frozenset(trial.params.items()) for trial in found if trial.user_attrs.get("attempt") == 0}
        )
        self.waiting: Final = sum(trial.state is TrialState.WAITING for trial in found)

    @property
    def outcomes(self) -> dict[str, int]:
        """How many trials there are of each outcome, and how many wait; none of which there is none."""
        counts = Counter[str](trial.outcome for trial in self.trials)
        counts["waiting"] = self.waiting
        order = ("finished", "pruned", "failed", "died", "running", "waiting")
        return {outcome: counts[outcome] for outcome in order if counts[outcome]}

    @property
    def done(self) -> int:
        """How many of the sweep's trials are over, a trial and its retries taken as one."""
        return sum(
            trial.attempt > 0 and trial.ended_at is not None and trial.number not in self._retried
            for trial in self.trials
        )

    @property
    def total(self) -> int | None:
        """How many trials it will be, by the grid's points or `run_cap`; None where nothing says so.

        Prior runs are none of them, and their points of a grid are not tried again.
        """
        config = self.sweep.config
        points = None if config.points is None else config.points - self._known_points
        return min((limit for limit in (points, config.run_cap) if limit is not None), default=None)

    @property
    def state(self) -> Progress:
        """Whether agents find something to do."""
        if self._said != "running":
            return self._said
        is_over = self._is_reached or (self.total is not None and self.done >= self.total)
        return "finished" if is_over else "running"

    @property
    def best(self) -> TrialRecord | None:
        """The trial that has the best value of those that finished; the first of several."""
        metric = self.sweep.config.metric
        best: TrialRecord | None = None
        for trial in self.trials:
            if metric is None or trial.outcome != "finished" or trial.value is None:
                continue
            if best is None or best.value is None or metric.is_better(trial.value, best.value):
                best = trial
        return best

    @property
    def pruned_at(self) -> dict[int, int]:
        """How many trials were pruned at which iterations, in their order."""
        counts = Counter(trial.iterations for trial in self.trials if trial.outcome == "pruned")
        return dict(sorted(counts.items()))

    def importance(self) -> dict[str, float]:
        """Return how much each parameter mattered for the best values, by Optuna's evaluator (PED-ANOVA).

        They are of Optuna's names (nested ones joined by `/`), the highest first, and add up to 1.  Empty
        where that cannot be told: without a metric, or two finished trials with different values.
        """
        values = {trial.value for trial in self.trials if trial.outcome == "finished"}
        if len(values) < 2:
            return {}
        from optuna.importance import get_param_importances  # with it come scikit-learn and pandas: a second

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few trials, which a reader sees
            found = get_param_importances(self.sweep.study)
        return dict(sorted(((name, float(share)) for name, share in found.items()), key=lambda one: -one[1]))

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        said = trial.user_attrs
        outcome = said.get("outcome") or OUTCOMES.get(trial.state) or self._unfinished(said.get("agent"))
        has_value = self.sweep.config.metric is not None and trial.state is TrialState.COMPLETE
        last = trial.last_step
        reported = None if last is None else trial.intermediate_values[last]
        return TrialRecord(
            number=trial.number,
            outcome=outcome,
            value=trial.value if has_value else reported,
            iterations=(last if outcome == "pruned" else None) or said.get("iterations") or last or 0,
            run=said.get("run"),
            attempt=said.get("attempt", 0),
            retry_of=said.get("retry_of"),
            point=said.get("point"),
            started_at=_seconds(trial.datetime_start),
            ended_at=_seconds(trial.datetime_complete),
            parameters=said.get("parameters", trial.params),
        )

    def _unfinished(self, agent: str | None) -> Outcome:
        if agent is None:  # a program of Optuna has it
            return "running"
        if agent not in self._alive:
            self._alive[agent] = is_alive(self.sweep.agents, agent)
        return "running" if self._alive[agent] else "died"


def _is_begun(trial: FrozenTrial) -> bool:
    """Say whether an agent or a program of Optuna was given a trial, or it is a prior run."""
    return trial.state is not TrialState.WAITING


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
