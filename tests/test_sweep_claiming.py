"""Claims: each trial is one process's at a time, and comes to its end whatever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from tracklayer.errors import StoreError, StoreTooNewError, SweepNotFoundError, TrialLostError
from tracklayer.sweeps import claiming, study
from tracklayer.sweeps.claiming import ClaimedTrial, Nothing, claim, rejoin
from tracklayer.sweeps.configuration import read_config
from tracklayer.sweeps.leases import Lease
from tracklayer.sweeps.reading import SweepReader
from tracklayer.sweeps.study import PriorRun, SweepStudy, create, find_sweeps, open_sweep

GRID: dict[str, Any] = {"method": "grid", "parameters": {"a": {"values": [1, 2]}, "b": {"value": "x"}}}
RANDOM: dict[str, Any] = {"method": "random", "parameters": {"a": {"min": 0.0, "max": 1.0}}}
BAYES: dict[str, Any] = {
    "method": "bayes",
    "metric": {"name": "loss"},
    "parameters": {
        "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
        "noise": {"distribution": "normal", "mu": 0, "sigma": 1},
        "model": {"parameters": {"layers": {"values": [[8], [8, 8], [32]]}}},
    },
}
ONE_BY_ONE = """
import sys, time
from pathlib import Path
from tracklayer.sweeps.claiming import Nothing, claim
from tracklayer.sweeps.leases import Lease
from tracklayer.sweeps.study import open_sweep
sweep = open_sweep(Path(sys.argv[1]), sys.argv[2])
with Lease(sweep.agents) as lease:
    print("ready", flush=True)
    sys.stdin.readline()
    while not isinstance(claimed := claim(sweep, lease), Nothing):
        print(claimed.parameters["point"], flush=True)
        if sys.argv[3] == "hang":
            sys.stdin.read()
        time.sleep(0.01)
        claimed.started(f"run-{claimed.number}")
        claimed.end("finished")
    print(claimed.name, flush=True)
"""


@pytest.fixture
def sweep(tmp_path: Path) -> SweepStudy:
    return made(tmp_path, GRID)


@pytest.fixture
def lease(sweep: SweepStudy) -> Iterator[Lease]:
    with Lease(sweep.agents) as held:
        yield held


def made(store: Path, config: Mapping[str, Any], **settled: Any) -> SweepStudy:
    return create(store, read_config(config), project="p", **settled)


def claimed(sweep: SweepStudy, lease: Lease) -> ClaimedTrial:
    found = claim(sweep, lease)
    assert isinstance(found, ClaimedTrial)
    return found


def trials(sweep: SweepStudy) -> list[optuna.trial.FrozenTrial]:
    return open_sweep(sweep.store, sweep.id).study.get_trials()


def plain_study(sweep: SweepStudy) -> optuna.Study:
    """Return the study as a program has it that knows only Optuna."""
    return optuna.load_study(study_name=sweep.id, storage=JournalStorage(JournalFileBackend(str(sweep.path))))


def outcomes(sweep: SweepStudy) -> list[str | None]:
    return [trial.user_attrs.get("outcome") for trial in trials(sweep)]


def begun_by_a_dead_process(sweep: SweepStudy) -> ClaimedTrial:
    with Lease(sweep.agents) as dead:
        return claimed(sweep, dead)


def move_to_another_host(sweep: SweepStudy, lease: Lease, silent: float) -> None:
    """Make a process's lease look as if it was on another host, and was not touched for so many seconds."""
    file = sweep.agents / f"{lease.id}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "host": "elsewhere"}))
    os.utime(file, (time.time() - silent,) * 2)


def test_a_grid_has_each_point_once_and_then_is_done(sweep: SweepStudy, lease: Lease) -> None:
    first, second = claimed(sweep, lease), claimed(sweep, lease)
    assert [first.parameters, second.parameters] == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
    assert claim(sweep, lease) is Nothing.DONE
    assert first.end("finished")
    assert second.end("failed")
    assert claim(sweep, lease) is Nothing.DONE
    assert outcomes(sweep) == ["finished", "failed"]


def test_a_huge_grid_is_not_listed_whole(tmp_path: Path) -> None:
    values = {"values": list(range(100))}
    sweep = made(tmp_path, {"method": "grid", "run_cap": 51, "parameters": dict.fromkeys("abcdef", values)})
    with Lease(sweep.agents) as lease:
        found = [claimed(sweep, lease) for _ in range(51)]
        assert claim(sweep, lease) is Nothing.DONE
    assert [one.parameters["f"] for one in found] == list(range(51))
    assert len(trials(sweep)) == 51


def test_plain_optuna_opens_the_study_and_finds_the_real_values(tmp_path: Path) -> None:
    sweep = made(tmp_path, BAYES)
    with Lease(sweep.agents) as lease:
        one = claimed(sweep, lease)
        one.started("r1")
        one.end("finished", 0.5, 7)
    storage = JournalStorage(JournalFileBackend(str(sweep.path)))
    found = optuna.load_study(study_name=sweep.id, storage=storage)
    (trial,) = found.trials
    assert found.direction == optuna.study.StudyDirection.MINIMIZE
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.5)
    assert trial.params["lr"] == one.parameters["lr"]
    assert 0 <= trial.params["noise"] <= 1  # Optuna has no normal distribution: a quantile
    assert trial.user_attrs == {
        "parameters": one.parameters,
        "attempt": 1,
        "agent": lease.id,
        "run": "r1",
        "iterations": 7,
        "outcome": "finished",
    }
    assert one.parameters["model"]["layers"] in ([8], [8, 8], [32])


@pytest.mark.parametrize(("config", "count"), [(RANDOM, 3), (BAYES, 13)], ids=["random", "bayes"])
def test_with_a_seed_one_agent_repeats_a_sweep_even_if_it_is_started_again(
    tmp_path: Path, config: dict[str, Any], count: int
) -> None:
    """Bayes takes the first ten by chance, and learns then."""

    def tried(seed: int | None, *counts: int) -> list[dict[str, Any]]:
        sweep, found = made(tmp_path, config, seed=seed), list[dict[str, Any]]()
        for each in counts:
            sweep = open_sweep(tmp_path, sweep.id)
            with Lease(sweep.agents) as lease:
                for _ in range(each):
                    one = claimed(sweep, lease)
                    found.append(one.parameters)
                    one.end("finished", float(len(str(one.parameters))))
        return found

    first = tried(3, count)
    assert tried(3, count - 2, 2) == first
    assert tried(4, 2) != first[:2]
    assert tried(None, 2) != tried(None, 2)


def test_bayes_learns_also_from_trials_that_still_run(tmp_path: Path) -> None:
    """What agents try at once differs more than if each knew only what has ended: Optuna's constant liar."""
    config = {**BAYES, "parameters": {"x": {"min": 0.0, "max": 1.0}}}
    sweep = made(tmp_path, config, seed=1)
    with Lease(sweep.agents) as lease:
        for _ in range(12):
            one = claimed(sweep, lease)
            one.end("finished", (one.parameters["x"] - 0.5) ** 2)
        at_once = [claimed(sweep, lease).parameters["x"] for _ in range(12)]
    assert len(set(at_once)) == 12
    assert max(at_once) - min(at_once) > 0.2


def test_a_trial_whose_process_died_is_tried_again_as_often_as_allowed(tmp_path: Path) -> None:
    sweep = made(tmp_path, RANDOM, retries=2)
    tries = [begun_by_a_dead_process(sweep) for _ in range(3)]
    assert [one.attempt for one in tries] == [1, 2, 3]
    assert tries[0].parameters == tries[1].parameters == tries[2].parameters
    with Lease(sweep.agents) as lease:
        assert claimed(sweep, lease).parameters != tries[0].parameters
    assert outcomes(sweep) == ["died", "died", "died", None]
    assert [trial.user_attrs.get("retry_of") for trial in trials(sweep)] == [None, 0, 1, None]
    assert list(sweep.agents.iterdir()) == []


def test_a_trial_of_another_host_is_waited_for_before_it_is_tried_again(
    sweep: SweepStudy, lease: Lease
) -> None:
    with Lease(sweep.agents) as other:
        for _ in range(2):
            claimed(sweep, other)
        move_to_another_host(sweep, other, silent=0)
        assert claim(sweep, lease) is Nothing.DONE  # it is at work: nothing will be left over
        move_to_another_host(sweep, other, silent=40)
        assert claim(sweep, lease) is Nothing.WAIT
        move_to_another_host(sweep, other, silent=100)
        again = claimed(sweep, lease)
        assert (again.parameters, again.attempt) == ({"a": 1, "b": "x"}, 2)
        assert outcomes(sweep) == ["died", "died", None, None]


def test_a_lease_that_is_torn_counts_by_its_age(sweep: SweepStudy, lease: Lease) -> None:
    with Lease(sweep.agents) as other:
        claimed(sweep, other)
        claimed(sweep, lease)
        file = sweep.agents / f"{other.id}.json"
        file.write_bytes(b"")
        assert claim(sweep, lease) is Nothing.DONE
        os.utime(file, (time.time() - 100,) * 2)
        assert claimed(sweep, lease).attempt == 2


def test_a_process_that_was_taken_for_dead_changes_nothing_any_more(sweep: SweepStudy, lease: Lease) -> None:
    with Lease(sweep.agents) as other:
        one = claimed(sweep, other)
        move_to_another_host(sweep, other, silent=100)
        again = claimed(sweep, lease)
        one.started("late")
        assert one.report(1, 0.5)  # it is to stop
        assert not one.end("finished", 1.0)
        claimed(sweep, other)  # and what it claims from then on is its own
        assert claim(sweep, lease) is Nothing.DONE
    assert again.end("finished")
    assert outcomes(sweep)[0] == "died"
    assert "run" not in trials(sweep)[0].user_attrs


def test_a_trial_ends_once(sweep: SweepStudy, lease: Lease) -> None:
    one = claimed(sweep, lease)
    assert one.end("pruned")
    assert not one.end("finished")
    assert outcomes(sweep)[0] == "pruned"


def test_a_trial_that_is_given_back_is_tried_again_at_once(sweep: SweepStudy, lease: Lease) -> None:
    assert claimed(sweep, lease).end("died")
    assert claimed(sweep, lease).parameters["a"] == 2
    again = claimed(sweep, lease)
    assert (again.parameters["a"], again.attempt) == (1, 2)


def test_a_trial_without_a_value_of_the_metric_has_failed(tmp_path: Path) -> None:
    sweep = made(tmp_path, BAYES)
    with Lease(sweep.agents) as lease:
        for value in (None, float("nan"), 1.0):
            claimed(sweep, lease).end("finished", value)
    assert outcomes(sweep) == ["failed", "failed", "finished"]


def test_one_that_was_killed_as_it_claimed_takes_nothing_along(
    sweep: SweepStudy, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed(sweep, lease)
    with Lease(sweep.agents) as dead, monkeypatch.context() as patch:
        patch.setattr(
            optuna.storages.JournalStorage, "set_trial_state_values", lambda *_: pytest.fail("killed")
        )
        with pytest.raises(pytest.fail.Exception):
            claim(sweep, dead)
    one = claimed(sweep, lease)
    assert (one.number, one.parameters["a"], one.attempt) == (1, 2, 1)
    assert claim(sweep, lease) is Nothing.DONE
    assert outcomes(sweep) == [None, None]


def test_what_a_user_of_optuna_enqueues_is_a_trial_and_what_it_does_not_name_is_chosen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = made(tmp_path, BAYES, seed=1)
    theirs = plain_study(sweep)
    theirs.enqueue_trial({"noise": 0.5, "lr": 0.01}, user_attrs={"why": "a guess"})
    theirs.enqueue_trial({"lr": 7.0})
    theirs.enqueue_trial({"rate": 0.1})
    with Lease(sweep.agents) as lease:
        one, other = claimed(sweep, lease), claimed(sweep, lease)
        assert one.end("died")
        again = claimed(sweep, lease)
    assert (one.number, other.number, again.attempt) == (0, 3, 2)
    assert (one.parameters["lr"], one.parameters["noise"]) == (0.01, pytest.approx(0.0))
    assert one.parameters["model"]["layers"] in ([8], [8, 8], [32])
    assert again.parameters == one.parameters
    assert trials(sweep)[0].user_attrs["why"] == "a guess"
    assert [trial.state for trial in trials(sweep)][1:3] == [TrialState.FAIL] * 2
    said = [record.getMessage() for record in caplog.records]
    assert "trial 1, which was enqueued, has failed: The value 7.0 of parameter 'lr'" in said[0]
    assert "of 'rate' the sweep chooses nothing, but of lr, model/layers, noise" in said[1]


def test_a_grid_passes_over_a_point_that_was_enqueued(sweep: SweepStudy, lease: Lease) -> None:
    plain_study(sweep).enqueue_trial({"a": 2})
    assert [claimed(sweep, lease).parameters["a"] for _ in range(2)] == [2, 1]
    assert claim(sweep, lease) is Nothing.DONE


def test_a_trial_that_a_program_of_optuna_runs_is_left_to_it(tmp_path: Path) -> None:
    sweep = made(tmp_path, RANDOM | {"run_cap": 2})
    theirs = plain_study(sweep)
    its = theirs.ask()
    with Lease(sweep.agents) as lease:
        assert [claimed(sweep, lease).end("finished") for _ in range(2)] == [True, True]
        assert claim(sweep, lease) is Nothing.DONE
    assert SweepReader(sweep).outcomes == {"finished": 2, "running": 1}
    its.suggest_float("a", 0.0, 1.0)
    theirs.tell(its, 0.5)
    first, *_ = SweepReader(sweep).trials
    assert (first.outcome, first.attempt, first.parameters) == ("finished", 0, its.params)


def test_one_that_was_killed_as_it_planned_a_retry_leaves_one_retry(
    sweep: SweepStudy, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_by_a_dead_process(sweep)
    with monkeypatch.context() as patch:
        patch.setattr(claiming, "_trial", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            claim(sweep, lease)
    assert outcomes(sweep) == [None, None, None]
    assert [claimed(sweep, lease).parameters["a"] for _ in range(2)] == [2, 1]
    assert claim(sweep, lease) is Nothing.DONE


def test_run_cap_counts_what_runs_and_no_retry(tmp_path: Path) -> None:
    sweep = made(tmp_path, {**RANDOM, "run_cap": 3})
    begun_by_a_dead_process(sweep)
    with Lease(sweep.agents) as lease:
        assert [claimed(sweep, lease).attempt for _ in range(3)] == [2, 1, 1]
        assert claim(sweep, lease) is Nothing.DONE


def test_a_sweep_is_done_when_a_trial_reaches_the_target(tmp_path: Path) -> None:
    metric = {"name": "loss", "goal": "minimize", "target": 0.1}
    sweep = made(tmp_path, {**RANDOM, "metric": metric})
    with Lease(sweep.agents) as lease:
        claimed(sweep, lease).end("finished", 0.2)
        other = claimed(sweep, lease)
        claimed(sweep, lease).end("finished", 0.1)
        assert claim(sweep, lease) is Nothing.DONE
        assert other.end("finished", 0.3)


def test_others_pause_resume_and_stop_a_sweep(sweep: SweepStudy, lease: Lease) -> None:
    here = open_sweep(sweep.store, sweep.id)
    one = claimed(sweep, lease)
    here.set_state("paused")
    assert claim(sweep, lease) is Nothing.PAUSED
    assert one.end("finished")
    here.set_state("running")
    claimed(sweep, lease)
    here.set_state("stopped")
    assert claim(sweep, lease) is Nothing.STOPPED
    assert sweep.state == "stopped"


def test_a_trial_that_does_badly_at_a_band_is_to_stop(tmp_path: Path) -> None:
    config = {**RANDOM, "metric": {"name": "acc", "goal": "maximize"}}
    config["early_terminate"] = {"type": "hyperband", "min_iter": 2, "eta": 2}
    sweep = made(tmp_path, config)
    with Lease(sweep.agents) as lease:
        decisions = [claimed(sweep, lease).report(2, value) for value in (0.5, 0.6, 0.7, 0.1)]
    assert decisions == [False, False, False, True]


def test_a_child_takes_over_the_trial_of_its_agent_alone(sweep: SweepStudy, lease: Lease) -> None:
    one, own = claimed(sweep, lease), Lease(sweep.agents)
    with pytest.raises(TrialLostError, match=f"trial 0 of sweep {sweep.id}"):
        rejoin(sweep, 0, "another", own)
    with pytest.raises(TrialLostError):
        rejoin(sweep, 1, lease.id, own)  # it is planned, and nobody's
    own.start()
    child = rejoin(open_sweep(sweep.store, sweep.id), 0, lease.id, own)
    assert child.parameters == one.parameters
    own.release()  # it ends, and its agent lives
    claimed(sweep, lease)
    assert outcomes(sweep)[0] == "died"
    assert not one.end("failed")


def test_prior_runs_are_trials_or_left_out_with_a_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parameters = {"lr": 1e-3, "noise": 0.0, "model": {"layers": [8, 8]}, "other": 1}
    prior = [
        PriorRun(parameters, 0.25, "kept"),
        PriorRun({**parameters, "lr": 1.0}, 0.5, "outside"),
        PriorRun({"lr": 1e-3}, 0.5, "partial"),
        PriorRun(parameters, None, "unmeasured"),
    ]
    sweep = made(tmp_path, {**BAYES, "run_cap": 1}, prior=prior)
    (trial,) = trials(sweep)
    assert (trial.value, trial.user_attrs["run"], trial.params["noise"]) == (0.25, "kept", 0.5)
    assert trial.user_attrs["parameters"] == {"lr": 1e-3, "noise": 0.0, "model": {"layers": [8, 8]}}
    told = [record.message.partition("prior run ")[2].split(":")[0] for record in caplog.records]
    assert told == [f"{name} is left out" for name in ("outside", "partial", "unmeasured")]
    with Lease(sweep.agents) as lease:
        claimed(sweep, lease)  # they do not count against the cap
        assert claim(sweep, lease) is Nothing.DONE


def test_a_grid_passes_over_the_points_of_prior_runs(tmp_path: Path) -> None:
    sweep = made(tmp_path, GRID, prior=[PriorRun({"a": 1}, None, "r")])
    with Lease(sweep.agents) as lease:
        assert claimed(sweep, lease).parameters["a"] == 2
        assert claim(sweep, lease) is Nothing.DONE


def test_half_a_line_of_a_machine_that_went_down_is_cut_off(sweep: SweepStudy, lease: Lease) -> None:
    one = claimed(sweep, lease)
    whole = sweep.path.read_bytes()
    with sweep.path.open("ab") as file:
        file.write(whole.splitlines()[-1][:-9])
    assert trials(sweep)[0].user_attrs["agent"] == lease.id  # who looks, passes over it
    assert sweep.path.read_bytes() != whole
    assert one.end("finished")
    assert sweep.path.read_bytes().startswith(whole)
    assert outcomes(sweep) == ["finished", None]


def test_a_damaged_sweep_is_named_and_the_others_are_found(
    sweep: SweepStudy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    later = made(tmp_path, RANDOM)
    for name, content in (
        ("torn", b'{"a": \n{}\n'),
        ("empty", b""),
        ("binary", b"\xff\n\n"),
        ("other", b"[]\n"),
    ):
        (sweep.path.parent / f"{name}.journal").write_bytes(content)
    assert [found.id for found in find_sweeps(tmp_path)] == [sweep.id, later.id]
    assert len([record for record in caplog.records if "no sweep, or is damaged" in record.message]) == 4
    with pytest.raises(StoreError, match=r"torn\.journal is no sweep.*or delete it"):
        open_sweep(tmp_path, "torn")


def test_a_sweep_of_a_later_version_is_left_alone(sweep: SweepStudy) -> None:
    sweep.study.set_user_attr("tracklayer", {**sweep.study.user_attrs["tracklayer"], "version": 2})
    with pytest.raises(StoreTooNewError, match="update"):
        open_sweep(sweep.store, sweep.id)


def test_a_sweep_goes_by_its_id_or_the_beginning_of_it(sweep: SweepStudy) -> None:
    for name in (sweep.id, sweep.id[:5], f"p/{sweep.id}", f"me/p/{sweep.id[:5]}"):
        assert open_sweep(sweep.store, name).id == sweep.id
    with pytest.raises(SweepNotFoundError, match="is of project 'p', not 'q'"):
        open_sweep(sweep.store, f"q/{sweep.id}")
    for name in ("", "nosuch", "p/"):
        with pytest.raises(SweepNotFoundError, match="no sweep"):
            open_sweep(sweep.store, name)
    (sweep.path.parent / f"{sweep.id[:5]}x.journal").touch()
    with pytest.raises(SweepNotFoundError, match="several sweeps"):
        open_sweep(sweep.store, sweep.id[:5])
    assert find_sweeps(sweep.store / "nowhere") == []


def test_what_was_settled_is_read_again(tmp_path: Path) -> None:
    config = {**BAYES, "metric": {"name": "acc", "goal": "maximize"}}
    before = made(tmp_path, config, entity="me", seed=5, retries=1)
    after = open_sweep(tmp_path, before.id)
    settled = ("id", "store", "config", "project", "entity", "seed", "retries", "created_at", "state")
    assert {name: getattr(after, name) for name in settled} == {
        name: getattr(before, name) for name in settled
    }
    assert after.study.direction == optuna.study.StudyDirection.MAXIMIZE
    names = sorted(path.name for path in after.path.parent.iterdir())
    assert names == [f"{after.id}.journal", f"{after.id}.writing"]
    assert (tmp_path / ".gitignore").read_text() == "*\n"


def test_optuna_says_nothing_of_a_sweep(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    verbosity = optuna.logging.get_verbosity()
    sweep = made(tmp_path, BAYES)
    with Lease(sweep.agents) as lease:
        claimed(sweep, lease).end("finished", 1.0)
    find_sweeps(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == verbosity


def test_a_lock_that_another_process_keeps_is_an_error_in_the_end(
    sweep: SweepStudy, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "_LOCK_SECONDS", 0.05)
    with sweep.lock(), pytest.raises(StoreError, match=r"another process has held .*\.claim"):
        claim(open_sweep(sweep.store, sweep.id), lease)
    claimed(sweep, lease)


def test_a_lease_is_touched_until_its_end(sweep: SweepStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracklayer.sweeps.leases.HEARTBEAT_SECONDS", 0.02)
    with Lease(sweep.agents) as held:
        (file,) = sweep.agents.iterdir()
        assert file.stem == held.id
        os.utime(file, (1.0, 1.0))
        deadline = time.monotonic() + 10
        while file.stat().st_mtime == 1.0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        file.unlink()
        while not file.exists():  # by who took it for dead: it says that it is not
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert list(sweep.agents.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_forked_child_leaves_its_parents_lease(tmp_path: Path) -> None:
    script = """
import os, sys, warnings
from pathlib import Path
from tracklayer.sweeps.leases import Lease
warnings.simplefilter("ignore")
folder, parent = Path(sys.argv[1]), os.getpid()
with Lease(folder):
    if os.fork():
        assert os.wait()[1] == 0
        assert len(list(folder.iterdir())) == 1
assert len(list(folder.iterdir())) == (os.getpid() != parent)
"""
    subprocess.run([sys.executable, "-c", script, tmp_path / "agents"], check=True, timeout=60)


def agent(sweep: SweepStudy, how: str) -> subprocess.Popen[str]:
    """Start a process that is ready to claim trials, and begins when it is sent a line."""
    command = [sys.executable, "-c", ONE_BY_ONE, str(sweep.store), sweep.id, how]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.slow
def test_processes_that_claim_at_once_get_each_point_of_a_grid_once(tmp_path: Path) -> None:
    points = {"point": {"values": list(range(40))}}
    sweep = made(tmp_path, {"method": "grid", "parameters": points})
    agents = [agent(sweep, "work") for _ in range(2)]
    for process in agents:
        begin(process)
    said = [process.communicate(timeout=60)[0].split() for process in agents]
    assert [process.returncode for process in agents] == [0, 0]
    assert [words[-1] for words in said] == ["DONE", "DONE"]
    assert min(map(len, said)) > 1  # both had their part
    assert Counter(said[0][:-1] + said[1][:-1]) == Counter(map(str, range(40)))
    assert outcomes(sweep) == ["finished"] * 40
    assert list(sweep.agents.iterdir()) == []


@pytest.mark.slow
def test_a_killed_processes_trial_is_tried_once_more_and_then_has_failed(tmp_path: Path) -> None:
    points = {"point": {"values": [0, 1]}}
    sweep = made(tmp_path, {"method": "grid", "parameters": points}, retries=1)
    for expected in ("0", "1", "0", "1"):
        process = agent(sweep, "hang")
        begin(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == expected
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    with Lease(sweep.agents) as lease:
        assert claim(sweep, lease) is Nothing.DONE
    assert outcomes(sweep) == ["died"] * 4
    assert [trial.user_attrs["attempt"] for trial in trials(sweep)] == [1, 1, 2, 2]
    assert list(sweep.agents.iterdir()) == []
