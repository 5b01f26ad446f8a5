"""Which process works on which trial: claims, ends, and what becomes of a dead process's trials.

Whoever claims a trial, or ends one, holds the sweep's lock, so that what it saw of the study stays so; a
process that is killed meanwhile loses it.  The steps are in such an order that the next one then finds
nothing that is lost and nothing that is there twice: a trial is in the study before it is anybody's, is
somebody's before it runs, and the retry of a dead one is there before that is told to have failed.

The study is also open to programs of Optuna.  What they enqueue becomes a trial of the sweep; a trial that
one of them runs has no `agent`, and is left alone.

The attributes of a trial:

    parameters  the real values, nested, constants included
    agent       the lease of the process that has it; none of a trial that a program of Optuna runs
    attempt     1, and one more for each retry; 0 of a run that was there before the sweep
    retry_of    the number of the trial that is tried again
    point       which of a grid's points it is
    run         the id of its run
    reached     true once it has logged the target of the metric
    outcome     how it ended
    iterations  how often the metric was logged
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from itertools import islice
from typing import Any, Final, Literal, final

from optuna import load_study
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from tracklayer import reporting
from tracklayer.errors import TrialLostError
from tracklayer.sweeps.leases import DEAD_SECONDS, LATE_SECONDS, Lease, forget, silence
from tracklayer.sweeps.study import SweepStudy

Outcome = Literal["finished", "failed", "pruned", "died"]

_ENDS: Final = {
    "finished": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "pruned": TrialState.PRUNED,
}
_CHUNK: Final = 50
"""So many of a grid's points are put into the study at a time: a huge grid may never be done."""


@final
class Nothing(Enum):
    """Why there is no trial to work on just now."""

    PAUSED = "paused"
    """The sweep may be resumed."""
    STOPPED = "stopped"
    """The sweep was ended."""
    DONE = "done"
    """There is nothing more to try."""
    WAIT = "wait"
    """Nothing but what another process may just have died over: ask again in some seconds."""


@final
@dataclass(frozen=True, eq=False)
class ClaimedTrial:
    """A trial that is this process's to work on.

    Attributes:
        sweep: what it is a trial of.
        number: which one, from 0 on.
        parameters: the real values, nested, constants included.
        attempt: 1, and one more for each process that died over it.
        trial: Optuna's handle.
    """

    sweep: SweepStudy
    number: int
    parameters: dict[str, Any]
    attempt: int
    trial: Trial

    def __str__(self) -> str:
        """Name it in a message."""
        return f"trial {self.number} of sweep {self.sweep.id}"

    def recorded(self) -> FrozenTrial:
        """Return what the sweep's file says of it now."""
        return self.sweep.study.get_trials(deepcopy=False)[self.number]

    def started(self, run_id: str) -> None:
        """Say which run is the trial's.

        Raises:
            StoreError: the sweep's file cannot be written.
        """
        self._set("run", run_id)

    def reached(self) -> None:
        """Say that the trial has reached the metric's target: nobody is to begin another one.

        Raises:
            StoreError: the sweep's file cannot be written.
        """
        self._set("reached", True)  # noqa: FBT003 - an attribute's name and value

    def report(self, iteration: int, value: float) -> bool:
        """Report a value of the metric; return whether the trial is to stop.

        It is so where it does badly, by the pruner, and where it was taken away from this process.

        Args:
            iteration: how often the metric was logged, this time included; each one is reported once.
            value: the metric's.

        Raises:
            StoreError: the sweep's file cannot be written.
        """
        with self.sweep.errors():
            try:
                self.trial.report(value, iteration)
                return self.trial.should_prune()
            except UpdateFinishedTrialError:
                return True

    def end(self, outcome: Outcome, value: float | None = None, iterations: int = 0) -> bool:
        """Say how the trial ended; return False where that was said already, or it was taken away.

        One that finished without a value of the sweep's metric has failed; one that died is tried again, if
        it may be.

        Args:
            outcome: how it ended.
            value: the best of the metric, of a trial that finished.
            iterations: how often the metric was logged.

        Raises:
            StoreError: the sweep's file cannot be written.
        """
        if self.sweep.config.metric is None:
            value = 0.0  # Optuna wants one
        if outcome == "finished" and (value is None or math.isnan(value)):
            outcome = "failed"
        with self.sweep.errors(), self.sweep.lock():
            trials = self.sweep.study.get_trials(deepcopy=False)
            if trials[self.number].state is not TrialState.RUNNING:
                return False
            if iterations:
                self._set("iterations", iterations)
            if outcome == "died":
                _bury(self.sweep, trials, trials[self.number])
            else:
                self._set("outcome", outcome)
                values = value if outcome == "finished" else None
                self.sweep.study.tell(self.number, values, _ENDS[outcome])
            return True

    def _set(self, name: str, value: object) -> None:
        with self.sweep.errors(), suppress(UpdateFinishedTrialError):  # it was taken away
            self.trial.set_user_attr(name, value)


def claim(sweep: SweepStudy, lease: Lease) -> ClaimedTrial | Nothing:
    """Claim a trial to work on: one that is to be tried again or was planned, else a new one.

    Trials of processes that died are found out here, and no other way.

    Args:
        sweep: the sweep.
        lease: this process's.

    Raises:
        StoreError: the sweep's file cannot be read or written.
    """
    with sweep.errors(), sweep.lock():
        state = sweep.state
        if state != "running":
            return Nothing(state)
        trials = sweep.study.get_trials(deepcopy=False)
        if is_reached(sweep, trials):
            return Nothing.DONE
        may_die = _bury_dead(sweep, trials, lease)
        while True:
            trials = sweep.study.get_trials(deepcopy=False)
            planned = next((trial for trial in trials if trial.state is TrialState.WAITING), None)
            if planned is None:
                if not _plan(sweep, trials):
                    return Nothing.WAIT if may_die else Nothing.DONE
            elif _is_whole(planned) or _adopt(sweep, planned):
                trial = _trial(sweep, planned.number)
                trial.set_user_attr("agent", lease.id)
                if trial.storage.set_trial_state_values(trial.number, TrialState.RUNNING):
                    return _claimed(sweep, trial)
                # else a program of Optuna, which knows no lock of ours, took it just now


def is_reached(sweep: SweepStudy, trials: Sequence[FrozenTrial]) -> bool:
    """Say whether a trial has reached the target of the metric, if there is one; it may still run."""
    metric = sweep.config.metric
    return metric is not None and any(
        trial.user_attrs.get("reached") or any(map(metric.reached, trial.values or ())) for trial in trials
    )


def rejoin(sweep: SweepStudy, number: int, agent: str, lease: Lease) -> ClaimedTrial:
    """Take over a trial that another process of this agent claimed, as its parent.

    Args:
        sweep: the sweep.
        number: which trial.
        agent: the lease of the process that has it.
        lease: this process's, which has it from now on.

    Raises:
        TrialLostError: it is not that process's (any more).
        StoreError: the sweep's file cannot be read or written.
    """
    with sweep.errors(), sweep.lock():
        running = sweep.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        for found in running:
            if found.number == number and found.user_attrs.get("agent") == agent:
                trial = _trial(sweep, number)
                trial.set_user_attr("agent", lease.id)
                return _claimed(sweep, trial)
    msg = f"trial {number} of sweep {sweep.id} has ended, or is tried again by another agent"
    raise TrialLostError(msg)


def _bury_dead(sweep: SweepStudy, trials: Sequence[FrozenTrial], lease: Lease) -> bool:
    """Plan the retries of the trials whose process died; say whether another one may just have died."""
    running = [
        (trial, str(trial.user_attrs["agent"]))
        for trial in trials
        if trial.state is TrialState.RUNNING and "agent" in trial.user_attrs
    ]
    silences = {lease.id: 0.0}
    now = lease.touch()
    for _, agent in running:
        if agent not in silences:
            silences[agent] = silence(sweep.agents, agent, now)
    for trial, agent in running:
        if silences[agent] > DEAD_SECONDS:
            _bury(sweep, trials, trial)
    for agent, seconds in silences.items():
        if seconds > DEAD_SECONDS:
            forget(sweep.agents, agent)
    return any(LATE_SECONDS < seconds <= DEAD_SECONDS for seconds in silences.values())


def _bury(sweep: SweepStudy, trials: Sequence[FrozenTrial], dead: FrozenTrial) -> None:
    """Plan the retry of a trial whose process died, if there is to be one, then end the trial."""
    told = dead.user_attrs
    attempt = told["attempt"] + 1
    has_retry = any(trial.user_attrs.get("retry_of") == dead.number for trial in trials)
    if attempt <= sweep.retries + 1 and not has_retry:
        point = {"point": told["point"]} if "point" in told else {}
        _add(sweep, dead.params, attempt=attempt, retry_of=dead.number, **point)
    _trial(sweep, dead.number).set_user_attr("outcome", "died")
    sweep.study.tell(dead.number, state=TrialState.FAIL)


def _adopt(sweep: SweepStudy, enqueued: FrozenTrial) -> bool:
    """Make a trial that a user of Optuna enqueued one of the sweep; or end it, and say why.

    What it does not name is chosen as of any other trial.
    """
    trial = _trial(sweep, enqueued.number)
    named: dict[str, Any] = enqueued.system_attrs.get("fixed_params", {})
    try:
        unknown = ", ".join(map(repr, named.keys() - sweep.distributions.keys()))
        if unknown:
            msg = f"of {unknown} the sweep chooses nothing, but of {', '.join(sweep.distributions)}"
            raise ValueError(msg)  # noqa: TRY301 - as by Optuna, of a value outside
        params = _chosen(sweep, enqueued.number) | named
        whole = create_trial(state=TrialState.WAITING, params=params, distributions=sweep.distributions)
    except (ValueError, TypeError) as error:
        reporting.warn(f"sweep {sweep.id}: trial {enqueued.number}, which was enqueued, has failed: {error}")
        trial.set_user_attr("outcome", "failed")
        trial.storage.set_trial_state_values(trial.number, TrialState.FAIL)
        return False
    for name, distribution in whole.distributions.items():
        internal = distribution.to_internal_repr(whole.params[name])
        trial.storage.set_trial_param(trial.number, name, internal, distribution)
    trial.set_user_attr("attempt", 1)
    trial.set_user_attr("parameters", sweep.config.nested(whole.params))
    return True


def _plan(sweep: SweepStudy, trials: Sequence[FrozenTrial]) -> bool:
    """Plan new trials, if there are to be more: the next points of a grid, else one that is chosen now."""
    config = sweep.config
    left = _CHUNK
    if config.run_cap is not None:
        left = min(left, config.run_cap - sum(map(_is_new, trials)))
    if left <= 0:
        return False
    if config.points is None:
        _add(sweep, _chosen(sweep, len(trials)), attempt=1)
        return True
    begin = 1 + max((trial.user_attrs.get("point", -1) for trial in trials), default=-1)
    known = [trial.params for trial in trials if _is_whole(trial) and "point" not in trial.user_attrs]
    new = (point for point in range(begin, config.points) if config.point(point) not in known)
    points = list(islice(new, left))
    for point in points:
        _add(sweep, config.point(point), attempt=1, point=point)
    return bool(points)


def _is_new(trial: FrozenTrial) -> bool:
    """Say whether a trial is neither a retry nor a run that was there before the sweep."""
    return "retry_of" not in trial.user_attrs and trial.user_attrs.get("attempt", 0) > 0


def _is_whole(trial: FrozenTrial) -> bool:
    """Say whether a trial is one of the sweep, or was there before it: Optuna's programs have others."""
    return "parameters" in trial.user_attrs


def _add(sweep: SweepStudy, params: dict[str, Any], **attributes: int) -> None:
    """Put a trial into the study for somebody to claim: whole, as one line of the file."""
    sweep.study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=params,
            distributions=sweep.distributions,
            user_attrs={"parameters": sweep.config.nested(params), **attributes},
        )
    )


def _chosen(sweep: SweepStudy, number: int) -> dict[str, Any]:
    """Return the parameters of a new trial: with a seed, what follows from it and the trials before."""
    seed = None
    if sweep.seed is not None:
        seed = int.from_bytes(sha256(f"{sweep.seed} {number}".encode()).digest()[:4], "big")
    sampler = TPESampler(seed=seed) if sweep.config.method == "bayes" else RandomSampler(seed=seed)
    # samplers keep what they saw of a study until that is asked for a trial, as nobody does here
    study = load_study(study_name=sweep.id, storage=sweep.storage, sampler=sampler)
    trial = create_trial(state=TrialState.WAITING)
    space = {name: space for name, space in sweep.distributions.items() if not space.single()}
    params = sampler.sample_relative(study, trial, space)
    for name, distribution in sweep.distributions.items():
        if name not in params:
            params[name] = sampler.sample_independent(study, trial, name, distribution)
    return params


def _claimed(sweep: SweepStudy, trial: Trial) -> ClaimedTrial:
    told = trial.user_attrs
    return ClaimedTrial(sweep, trial.number, told["parameters"], told["attempt"], trial)


def _trial(sweep: SweepStudy, number: int) -> Trial:
    """Return a trial of another process: Optuna gives such a handle only to who asked for the trial.

    A trial's id in a journal is its number, for there is one study in it.
    """
    return Trial(sweep.study, number)
