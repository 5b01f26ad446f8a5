"""What a run is to the sweep whose trial it is: its parameters, its metric, how it ends, and pruning."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import jax.numpy as jnp
import optuna
import pytest

import tracklayer
from machine import Machine
from tracklayer.errors import StoreError, TrialLostError, TrialPruned
from tracklayer.front import ActiveRun
from tracklayer.sweeps.claiming import ClaimedTrial, Nothing, claim
from tracklayer.sweeps.configuration import read_config
from tracklayer.sweeps.current import NO_TRIAL, Trial, current_trial, working_on
from tracklayer.sweeps.leases import Lease
from tracklayer.sweeps.study import SweepStudy, create
from tracklayer.sweeps.trial import trial_of

PARAMETERS = {"lr": {"value": 0.1}}
HALVING = {"type": "hyperband", "min_iter": 2, "eta": 2}


@pytest.fixture(autouse=True)
def _in_a_store(store: Path) -> Iterator[None]:
    del store
    yield
    tracklayer.finish()


@final
class Sweep:
    """A sweep in the store, and an agent of it."""

    def __init__(self, store: Path, **config: Any) -> None:
        given = {"method": "random", "parameters": PARAMETERS, "metric": {"name": "loss"}, **config}
        given = {key: value for key, value in given.items() if value is not None}
        self.study: SweepStudy = create(store, read_config(given), project="digits", entity="team")
        self.lease = Lease(self.study.agents)

    def claim(self) -> ClaimedTrial:
        claimed = claim(self.study, self.lease)
        assert isinstance(claimed, ClaimedTrial)
        return claimed

    @contextmanager
    def trial(self) -> Generator[Trial]:
        """Claim a trial, and have the block be its process."""
        trial = trial_of(self.claim())
        with working_on(trial):
            yield trial

    def logged(self, *losses: Any) -> bool:
        """Train in a trial; say whether it was pruned."""
        with self.trial(), tracklayer.init() as run:
            return not logs(run, *losses)

    def raised(self, error: BaseException, *losses: Any) -> ActiveRun:
        """Train in a trial that ends by an error; return its run."""
        runs: list[ActiveRun] = []

        def train() -> None:
            with self.trial(), tracklayer.init() as run:
                runs.append(run)
                logs(run, *losses)
                raise error

        with pytest.raises(type(error)):
            train()
        return runs[0]

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        return self.study.study.trials

    @property
    def last(self) -> optuna.trial.FrozenTrial:
        """The trial that was begun last."""
        return [trial for trial in self.trials if "agent" in trial.user_attrs][-1]

    @property
    def other_leases(self) -> set[str]:
        """The leases of other processes than the agent's."""
        return {path.stem for path in self.study.agents.glob("*.json")} - {self.lease.id}

    @property
    def outcome(self) -> tuple[str, float | None]:
        """How that ended, and its value."""
        return self.last.user_attrs["outcome"], self.last.value


@pytest.fixture
def sweep(store: Path) -> Sweep:
    return Sweep(store)


@pytest.fixture
def halving(store: Path) -> Sweep:
    """A sweep that prunes, and has seen a trial which is hard to beat."""
    sweep = Sweep(store, early_terminate=HALVING)
    assert not sweep.logged(0.5, 0.4, 0.3, 0.2)
    return sweep


def logs(run: ActiveRun, *losses: Any) -> bool:
    """Log losses as a slow program does; say whether it got to their end."""
    try:
        for loss in losses:
            run.log({"loss": loss})
            run.flush()
    except TrialPruned:
        return False
    return True


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- what a run of a trial is -------------------------------------------------------------------------


def test_a_process_without_a_trial_imports_nothing_of_optuna(tmp_path: Path) -> None:
    said = Machine(tmp_path).run("""
        import json, sys, tracklayer
        with tracklayer.init(backend="disabled") as run:
            run.log({"loss": 1})
        print(json.dumps([run.sweep_id, "optuna" in sys.modules, "tracklayer.sweeps.trial" in sys.modules]))
    """)
    assert said.well().said == [None, False, False]


def test_a_run_finds_its_trials_parameters_and_belongs_to_the_sweep(sweep: Sweep) -> None:
    with sweep.trial() as trial, tracklayer.init() as run:
        assert current_trial() is trial
        assert run.config == {"lr": 0.1} == trial.parameters
        assert (run.group, run.sweep_id) == (sweep.study.id, sweep.study.id)
        assert (run.project, run.entity) == ("digits", "team")
    assert current_trial() is NO_TRIAL
    assert tracklayer.init().sweep_id is None


def test_what_init_is_given_wins_over_the_sweep_and_the_sweep_over_the_environment(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "of the environment")
    with sweep.trial(), tracklayer.init(entity="me", group="mine", settings={"project": "ours"}) as run:
        assert (run.project, run.entity, run.group) == ("ours", "me", "mine")
    with sweep.trial(), tracklayer.init() as run:
        assert run.project == "digits"


def test_runs_go_to_the_store_of_their_sweep(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKLAYER_DIR", "elsewhere")
    with sweep.trial(), tracklayer.init() as run:
        assert run.dir == str(sweep.study.store)


@dataclass
class Optimizer:
    lr: float = 1.0
    name: str = "adam"


def test_parameters_win_over_the_config_also_where_they_are_nested(store: Path) -> None:
    nested = {"optimizer": {"parameters": {"lr": {"value": 0.5}}}, "depth": {"value": 3}}
    with (
        Sweep(store, parameters=nested).trial(),
        tracklayer.init(config={"optimizer": Optimizer(), "depth": 1, "seed": 7}) as run,
    ):
        assert run.config == {"optimizer": {"lr": 0.5, "name": "adam"}, "depth": 3, "seed": 7}
    recorded = tracklayer.open_store(run.dir).run(run.id)
    assert recorded.config == run.config.as_dict()


def test_what_config_is_told_later_leaves_the_parameters_as_they_are(
    sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    with sweep.trial(), tracklayer.init() as run:
        run.config.update({"lr": 9.0, "epochs": 2})
        run.config.lr = 8.0
        run.config["lr"] = 0.1
        assert run.config == {"lr": 0.1, "epochs": 2}
    (said,) = [warning for warning in warnings(caplog) if "config" in warning]
    assert "config lr" in said


# -- what the sweep learns of it ----------------------------------------------------------------------


@pytest.mark.parametrize(("goal", "best"), [("minimize", 0.25), ("maximize", 2.0)])
def test_a_trial_is_worth_the_best_finite_value_of_its_metric(store: Path, goal: str, best: float) -> None:
    sweep = Sweep(store, metric={"name": "loss", "goal": goal})
    assert not sweep.logged(1, float("nan"), 0.25, float("-inf"), float("inf"), 2.0, 0.5)
    assert sweep.outcome == ("finished", best)
    assert sweep.last.user_attrs["iterations"] == 7


def test_a_trial_that_reaches_the_target_ends_the_sweep_while_it_still_runs(store: Path) -> None:
    sweep = Sweep(store, metric={"name": "loss", "target": 0.1})
    with sweep.trial(), tracklayer.init() as run:
        run.log({"loss": 0.2})
        run.flush()
        sweep.claim().end("failed")
        run.log({"loss": 0.1})
        run.flush()
        with Lease(sweep.study.agents) as others:
            assert claim(sweep.study, others) is Nothing.DONE
        run.log({"loss": 5.0})  # whatever comes of it
    assert sweep.trials[0].user_attrs["outcome"] == "finished"


def test_the_study_knows_the_run(sweep: Sweep) -> None:
    with sweep.trial(), tracklayer.init() as run:
        logs(run, 1.0)
        assert sweep.last.user_attrs["run"] == run.id


def test_a_summary_entry_counts_as_a_value_and_not_as_an_iteration(sweep: Sweep) -> None:
    with sweep.trial(), tracklayer.init() as run:
        logs(run, 1.0, 0.9)
        run.summary["loss"] = 0.25
    assert (*sweep.outcome, sweep.last.user_attrs["iterations"]) == ("finished", 0.25, 2)


def test_values_on_a_device_and_series_count_as_any(sweep: Sweep) -> None:
    with sweep.trial(), tracklayer.init() as run:
        run.log({"loss": jnp.float32(0.5)})
        run.log_series({"loss": jnp.array([0.75, 0.125])})
    assert (*sweep.outcome, sweep.last.user_attrs["iterations"]) == ("finished", 0.125, 3)


@pytest.mark.parametrize("name", ["val.loss", "val/loss"])
def test_a_nested_metric_is_found_by_either_name(store: Path, name: str) -> None:
    sweep = Sweep(store, metric={"name": name})
    with sweep.trial(), tracklayer.init() as run:
        run.log({"val": {"loss": 0.5}})
    assert sweep.outcome == ("finished", 0.5)


def test_a_trial_whose_metric_was_never_logged_has_failed_and_a_warning_says_so(
    sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    with sweep.trial(), tracklayer.init() as run:
        run.log({"train/loss": 1.0})
    assert sweep.outcome == ("failed", None)
    (said,) = warnings(caplog)
    assert "never logged 'loss'" in said
    assert "'train/loss'" in said


def test_a_metric_that_is_no_number_is_called_so(sweep: Sweep, caplog: pytest.LogCaptureFixture) -> None:
    with sweep.trial(), tracklayer.init() as run:
        run.log({"loss": "0.5"})
    (said,) = warnings(caplog)
    assert "has logged 'loss', the sweep's metric, as something else than a number" in said


def test_a_trial_without_a_finite_value_has_failed(sweep: Sweep, caplog: pytest.LogCaptureFixture) -> None:
    assert not sweep.logged(float("nan"))
    assert sweep.outcome == ("failed", None)
    assert any("no finite value of 'loss'" in warning for warning in warnings(caplog))


def test_a_sweep_without_a_metric_goes_by_how_its_runs_end(store: Path) -> None:
    sweep = Sweep(store, metric=None)
    assert not sweep.logged(1.0)
    assert sweep.outcome[0] == "finished"


def test_a_failed_run_is_a_failed_trial(sweep: Sweep) -> None:
    sweep.raised(ZeroDivisionError(), 1.0)
    assert sweep.outcome == ("failed", None)
    assert sweep.claim().attempt == 1


@pytest.mark.parametrize("how", [KeyboardInterrupt(), SystemExit(143)])
def test_a_run_that_is_ended_from_outside_is_tried_again(store: Path, how: BaseException) -> None:
    sweep = Sweep(store, parameters={"lr": {"min": 0.0, "max": 1.0}})
    run = sweep.raised(how, 1.0)
    assert sweep.outcome[0] == "died"
    again = sweep.claim()
    assert (again.parameters, again.attempt) == (run.config, 2)


def test_a_failure_of_a_job_that_is_preempted_is_none_of_the_trial(sweep: Sweep) -> None:
    with sweep.trial():
        run = tracklayer.init()
        run.mark_preempting()
        run.finish(1)
    assert sweep.outcome[0] == "died"


def test_the_first_run_of_a_trial_is_its_own_and_others_belong_to_the_group(sweep: Sweep) -> None:
    with sweep.trial(), tracklayer.init() as run:
        with tracklayer.init(reinit="create_new", job_type="eval") as other:
            assert other.config == run.config
            assert other.group == run.group
            other.log({"loss": 0.0})
        logs(run, 1.0)
    assert sweep.outcome == ("finished", 1.0)


def test_a_sweep_works_without_a_record(halving: Sweep) -> None:
    with halving.trial(), tracklayer.init(backend="disabled") as run:
        assert not logs(run, 2.0, 2.0, 2.0)
    assert halving.outcome[0] == "pruned"


# -- pruning ------------------------------------------------------------------------------------------


def test_a_trial_that_does_badly_at_a_band_stops_at_the_next_row_with_the_metric(halving: Sweep) -> None:
    def train() -> None:
        with tracklayer.init(id="r") as run:
            assert logs(run, 0.9, 0.9)
            run.log({"epoch": 1})
            run.log({"loss": 0.8, "accuracy": 0.5})

    with halving.trial(), pytest.raises(TrialPruned, match=r"iteration 2.*loss = 0\.9"):
        train()
    assert halving.outcome[0] == "pruned"
    assert halving.last.intermediate_values == {2: 0.9}
    recorded = tracklayer.open_store().run("r")
    assert (recorded.info.state, recorded.info.exit_code) == ("finished", 0)
    assert recorded.metric("loss").value.tolist() == [0.9, 0.9, 0.8]
    assert recorded.summary["pruned"] is True


def test_a_program_may_save_when_it_is_pruned(halving: Sweep) -> None:
    with halving.trial(), tracklayer.init() as run:
        assert not logs(run, 0.9, 0.9, 0.9)
        run.log({"saved": 1})
        run.summary["checkpoint"] = "here"
        assert not logs(run, 0.7)
    assert halving.outcome[0] == "pruned"
    assert halving.last.user_attrs["iterations"] == 4


def test_a_trial_that_does_well_goes_on(halving: Sweep) -> None:
    assert not halving.logged(0.4, 0.3, 0.2, 0.1)
    assert halving.outcome == ("finished", 0.1)
    assert halving.last.intermediate_values == {2: 0.3, 4: 0.1}


def test_a_trial_that_ended_before_it_heard_of_it_is_pruned_all_the_same(halving: Sweep) -> None:
    with halving.trial(), tracklayer.init() as run:
        run.log({"loss": 0.9})
        run.log({"loss": 0.8})
    assert halving.outcome == ("pruned", 0.8)


@pytest.mark.parametrize(("strict", "told"), [(False, 0.1), (True, 0.6)])
def test_what_counts_at_a_band_is_the_best_so_far_or_strictly_the_value(
    store: Path, strict: bool, told: float
) -> None:
    sweep = Sweep(store, early_terminate={**HALVING, "strict": strict})
    sweep.logged(0.1, 0.6)
    assert sweep.last.intermediate_values == {2: told}


def test_a_trial_that_is_not_finite_at_a_band_is_pruned_whatever_it_was_before(halving: Sweep) -> None:
    assert halving.logged(0.001, float("inf"), 0.001)
    assert halving.outcome[0] == "pruned"


def test_a_series_stops_as_well_once_it_is_recorded(halving: Sweep) -> None:
    with halving.trial(), tracklayer.init() as run:
        run.log_series({"loss": [0.9, 0.9]})
        run.flush()
        run.log_series({"accuracy": [0.5, 0.6]})
        with pytest.raises(TrialPruned):
            run.log_series({"loss": jnp.array([0.9, 0.8])})
    assert halving.last.user_attrs["iterations"] == 4


def test_a_compiled_program_that_logs_is_not_broken_off(
    halving: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    with halving.trial(), tracklayer.init() as run:
        assert logs(run, 0.9, 0.9)
        tracklayer.jax.log(run, {"loss": 0.8}, step=2)
        run.flush()
    assert halving.last.user_attrs["iterations"] == 3
    assert warnings(caplog) == []


# -- a study that cannot be told ----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["report", "end"])
def test_training_goes_on_while_the_study_cannot_be_told(
    halving: Sweep, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    works, failures = getattr(ClaimedTrial, method), [StoreError("the disk is full")]

    def fails_at_first(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return works(*arguments)

    monkeypatch.setattr(ClaimedTrial, method, fails_at_first)
    assert not halving.logged(0.1, 0.1)
    assert halving.outcome == ("finished", 0.1)
    cannot, again = warnings(caplog)
    assert "the disk is full" in cannot
    assert "records again" in again


# -- attempts -----------------------------------------------------------------------------------------


def test_a_run_that_was_another_trials_counts_for_what_it_logs_now(
    sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    for loss in (0.1, 0.7):
        with sweep.trial(), tracklayer.init(id="mine", resume="allow") as run:
            run.log({"loss": loss})
    assert sweep.outcome == ("finished", 0.7)
    (said,) = caplog.messages
    assert re.search("trial 1 of sweep .* continues run mine, which is of another trial", said)


def test_resume_auto_goes_on_with_the_run_of_the_last_attempt_and_counts_on(halving: Sweep) -> None:
    first = halving.raised(KeyboardInterrupt(), 0.9, 0.1)
    tracklayer.init(project="digits", group=halving.study.id).finish(1)  # which is no attempt of this trial
    with halving.trial(), tracklayer.init(resume="auto") as run:
        assert (run.id, run.resumed, run.step) == (first.id, True, 2)
        logs(run, 0.3, 0.3)
    assert halving.outcome == ("finished", 0.1)
    assert halving.last.intermediate_values == {4: 0.1}
    with halving.trial(), tracklayer.init(resume="auto") as run:
        assert not run.resumed


# -- trials of programs -------------------------------------------------------------------------------

PROGRAM = """
    import json, os, sys, tracklayer
    run = tracklayer.init(config={"lr": 1, "seed": 0})
    print(json.dumps([run.config.as_dict(), run.group, "TRACKLAYER_AGENT" in os.environ]), flush=True)
    for loss in map(float, sys.argv[1:]):
        run.log({"loss": loss})
        run.flush()
"""


def of_program(sweep: Sweep, claimed: ClaimedTrial) -> Mapping[str, str]:
    """The environment that an agent gives to the program of a trial."""
    return {
        "TRACKLAYER_DIR": str(sweep.study.store),
        "TRACKLAYER_SWEEP": sweep.study.id,
        "TRACKLAYER_TRIAL": str(claimed.number),
        "TRACKLAYER_AGENT": sweep.lease.id,
    }


def joins(sweep: Sweep, claimed: ClaimedTrial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process be the program of a trial."""
    for name, value in of_program(sweep, claimed).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def _forgets_its_trial(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with working_on(NO_TRIAL):
        yield


@pytest.mark.slow
def test_a_program_joins_its_trial_and_says_in_a_line_that_it_is_pruned(
    halving: Sweep, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "machine")
    ended = machine.run(PROGRAM, "0.9", "0.9", "0.9", **of_program(halving, halving.claim()))
    assert ended.said == [{"lr": 0.1, "seed": 0}, halving.study.id, False]
    (line,) = ended.complaints
    assert "is pruned at iteration 2" in line
    assert ended.code == 1
    assert halving.outcome[0] == "pruned"
    assert not halving.other_leases
    ended = machine.run(PROGRAM, "0.3", "0.2", "oops", **of_program(halving, halving.claim()))
    assert "could not convert string to float: 'oops'" in ended.stderr
    assert halving.outcome[0] == "failed"


@pytest.mark.usefixtures("_forgets_its_trial")
def test_a_program_has_a_lease_of_its_own_until_its_run_has_ended(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = sweep.claim()
    joins(sweep, claimed, monkeypatch)
    with tracklayer.init() as run:
        assert sweep.other_leases == {sweep.last.user_attrs["agent"]}
        logs(run, 0.5)
    assert sweep.outcome == ("finished", 0.5)
    assert not sweep.other_leases
    with tracklayer.init() as other:  # as of a script that evaluates
        assert other.config == run.config
        other.log({"loss": 0.0})
    assert sweep.outcome == ("finished", 0.5)


@pytest.mark.usefixtures("_forgets_its_trial")
@pytest.mark.parametrize("first_has", ["begun", "ended"])
def test_a_program_whose_trial_another_of_its_processes_has_opens_an_ordinary_run(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, first_has: str
) -> None:
    claimed = sweep.claim()
    with working_on(NO_TRIAL):
        joins(sweep, claimed, monkeypatch)
        first = tracklayer.init()
        first.log({"loss": 0.5})
        if first_has == "ended":
            first.finish()
    joins(sweep, claimed, monkeypatch)  # as for another one that the same script starts
    with tracklayer.init(reinit="create_new") as run:
        assert run.config == {"lr": 0.1}
        assert run.group == sweep.study.id
        run.log({"loss": 0.0})
    first.finish()
    assert sweep.outcome == ("finished", 0.5)


@pytest.mark.usefixtures("_forgets_its_trial")
def test_a_program_whose_trial_was_taken_away_is_told_so(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = sweep.claim()
    claimed.end("died")
    joins(sweep, claimed, monkeypatch)
    with pytest.raises(TrialLostError, match=f"trial 0 of sweep {sweep.study.id}"):
        tracklayer.init()
    assert tracklayer.run is None
    assert not sweep.other_leases


@pytest.mark.usefixtures("_forgets_its_trial")
def test_a_trial_that_does_not_exist_is_refused(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    joins(sweep, sweep.claim(), monkeypatch)
    monkeypatch.setenv("TRACKLAYER_TRIAL", "99")
    with pytest.raises(tracklayer.errors.UsageError, match="TRACKLAYER_TRIAL='99'"):
        tracklayer.init()
    assert os.environ["TRACKLAYER_AGENT"] == sweep.lease.id


# -- trials of W&B's client ---------------------------------------------------------------------------


def test_the_parameters_of_a_trial_of_wandbs_client_count_where_wandb_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text(
        "wandb_version: 1\n\nlr:\n  value: 0.5\noptimizer:\n  value:\n    name: adam\n"
    )
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "config.yaml"))
    with tracklayer.init(backend="wandb", mode="offline", config={"lr": 1}) as run:
        assert (run.config, run.sweep_id) == ({"lr": 0.5, "optimizer": {"name": "adam"}}, "s1")
        assert run.group is None
    with tracklayer.init(config={"lr": 1}) as run:
        assert (run.config, run.sweep_id) == ({"lr": 1}, None)
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "gone.yaml"))
    with pytest.raises(tracklayer.errors.UsageError, match=r"WANDB_SWEEP_PARAM_PATH=.*gone\.yaml"):
        tracklayer.init(backend="wandb", mode="offline")
