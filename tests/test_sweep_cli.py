"""Sweeps on the command line: real studies, and real agents that run a program."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tracklayer
from machine import Machine, killed_at_the_end
from program import cli, on_a_terminal, read_json
from tracklayer.sweeps.claiming import ClaimedTrial, claim
from tracklayer.sweeps.leases import Lease
from tracklayer.sweeps.reading import SweepReader
from tracklayer.sweeps.study import SweepStudy, open_sweep

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RANDOM = """
program: fit.py
method: random
metric: {name: loss, goal: minimize}
parameters:
  lr: {min: 0.0, max: 1.0}
  layers: {value: 2}
"""
GRID: Mapping[str, Any] = {
    "name": "widths",
    "method": "grid",
    "metric": {"name": "loss", "goal": "minimize"},
    "parameters": {"width": {"values": [8, 16, 32]}},
}
FIT = """
import sys
import tracklayer

with tracklayer.init() as run:
    assert sys.argv[1:] == [f"--layers={run.config['layers']}", f"--lr={run.config['lr']}"]
    for step in range(3):
        run.log({"loss": run.config["lr"] + 1 / (1 + step)})
"""


@pytest.fixture(autouse=True)
def _own_store(store: Path) -> None: ...


@pytest.fixture
def lease(store: Path) -> Iterator[Lease]:
    """A lease of this process, for trials that a test brings to their end."""
    with Lease(store / "agents") as held:
        yield held


def write(text: str, name: str = "sweep.yaml") -> Path:
    file = Path(name).absolute()
    file.write_text(text)
    return file


def create(store: Path, config: Mapping[str, Any] = GRID, **arguments: Any) -> SweepStudy:
    return open_sweep(store, tracklayer.sweep(config, **arguments))


def begin(sweep: SweepStudy, lease: Lease, run: str | None = None) -> ClaimedTrial:
    claimed = claim(sweep, lease)
    assert isinstance(claimed, ClaimedTrial)
    if run is not None:
        claimed.started(run)
    return claimed


def held(sweep: SweepStudy) -> Lease:
    return Lease(sweep.agents)


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Return all that is in a folder, and when it was written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


# -- creating one ---------------------------------------------------------------------------------


def test_a_sweep_is_created_of_a_file_and_only_its_id_is_printed(store: Path) -> None:
    done = cli("sweep", write(RANDOM))
    (sweep_id,) = done.stdout.splitlines()
    assert open_sweep(store, sweep_id).config.program == "fit.py"
    assert f"`tracklayer agent {sweep_id}` works on it" in done.stderr


@pytest.mark.parametrize("words", [["sweep.yaml", "--seed", "7"], ["--seed", "7", "sweep.yaml"]])
@pytest.mark.parametrize("command", [[], ["create"]])
def test_options_stand_before_or_after_the_file(command: list[str], words: list[str]) -> None:
    write(RANDOM)
    options = ("--project", "digits", "--entity", "team", "--retries", "0")
    sweep_id = cli("sweep", *command, *words, *options).stdout.strip()
    shown = read_json("sweep", "show", sweep_id)
    assert [shown[key] for key in ("project", "entity", "seed", "retries")] == ["digits", "team", 7, 0]


def test_a_file_is_created_of_in_the_folder_that_dir_names(tmp_path: Path) -> None:
    sweep_id = cli("sweep", write(RANDOM), "--dir", tmp_path / "other").stdout.strip()
    assert read_json("sweep", "show", sweep_id, "--dir", tmp_path / "other")["id"] == sweep_id
    cli("sweep", "show", sweep_id, expect=3)


def test_a_file_that_is_called_as_a_command_is_named_with_its_folder() -> None:
    write(RANDOM, "show")
    assert cli("sweep", "./show").stdout
    assert "Missing argument 'SWEEP'" in cli("sweep", "show", expect=2).stderr


def test_a_prior_run_counts_as_a_trial() -> None:
    with tracklayer.init(config={"lr": 0.25}) as run:
        run.log({"loss": 0.5})
    sweep_id = cli("sweep", write(RANDOM), "--prior-run", run.id).stdout.strip()
    best = read_json("sweep", "show", sweep_id)["best"]
    assert (best["run"], best["value"], best["attempt"]) == (run.id, 0.5, 0)
    assert best["parameters"] == {"lr": 0.25}  # what the run had, which is not all that the sweep has


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method: [", "sweep.yaml, line 2: this is no YAML"),
        ("- method", "sweep.yaml: a sweep's configuration is a mapping"),
        (RANDOM.replace("max: 1.0", "max: -1.0"), "parameters.lr"),
        (RANDOM.replace("random", "randm"), "method"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_with_the_place(text: str, said: str) -> None:
    done = cli("sweep", write(text + "\n"), expect=2)
    assert said in done.stderr
    assert "JSON" not in done.stderr
    assert done.stdout == ""
    assert read_json("sweeps")["sweeps"] == []


def test_a_file_that_is_not_there_is_named() -> None:
    assert "fit.yaml: the sweep's configuration cannot be read" in cli("sweep", "fit.yaml", expect=2).stderr


def test_a_command_that_is_misspelled_or_spelled_as_wandbs_is_told_the_right_one() -> None:
    assert "did you mean 'show'" in cli("sweep", "shwo", "qd4mpzk7", expect=2).stderr
    assert "`tracklayer sweep pause SWEEP`" in cli("sweep", "--pause", "qd4mpzk7", expect=2).stderr


# -- looking at them ------------------------------------------------------------------------------


def test_the_sweeps_are_listed_with_how_they_stand(store: Path, lease: Lease) -> None:
    sweep = create(store, project="digits", entity="team")
    begin(sweep, lease, "r0").end("finished", 0.25, 1)
    begin(sweep, lease, "r1").end("failed")
    create(
        store, {**GRID, "metric": {"name": "accuracy", "goal": "maximize", "target": 0.9}}, project="other"
    )
    header, first, second = cli("sweeps").stdout.splitlines()
    assert header.split() == ["id", "name", "project", "method", "metric", "trials", "best", "state", "age"]
    assert f"{sweep.id}  widths  digits   grid    minimize loss" in first
    assert "1 finished, 1 failed, 1 waiting  0.25  running" in first
    assert "maximize accuracy to 0.9" in second
    (listed,) = read_json("sweeps", "--project", "digits")["sweeps"]
    assert listed["outcomes"] == {"finished": 1, "failed": 1, "waiting": 1}
    assert (listed["done"], listed["total"], listed["best"]["run"]) == (2, 3, "r0")


def test_a_store_without_sweeps_says_so(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("sweeps").stdout == f"no sweeps in {store}\n"
    monkeypatch.setenv("TRACKLAYER_BACKEND", "wandb")
    assert cli("sweeps").stdout == f"no sweeps in {store}; those of W&B's server are on its pages\n"
    assert not store.exists()


def test_a_sweep_that_cannot_be_read_hides_no_other(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    damaged, whole = create(store), create(store)
    damaged.path.write_text("{}\n")
    assert [sweep["id"] for sweep in read_json("sweeps")["sweeps"]] == [whole.id]
    assert str(damaged.path) in caplog.text
    assert str(damaged.path) in cli("sweep", "show", damaged.id, expect=4).stderr


@pytest.mark.parametrize("command", [["sweep", "show"], ["sweep", "pause"], ["sweep", "stop"], ["agent"]])
def test_an_unknown_sweep_is_told_from_other_failures(command: list[str], store: Path) -> None:
    done = cli(*command, "nobody", expect=3)
    assert (
        done.stderr
        == f"tracklayer: no sweep 'nobody' is in {store}: `tracklayer sweeps` lists those that are\n"
    )


def test_where_new_sweeps_are_a_servers_that_is_said_of_one_that_is_not_here(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = create(store)
    monkeypatch.setenv("TRACKLAYER_BACKEND", "wandb")
    said = cli("sweep", "pause", "nobody", expect=3).stderr
    assert "one of W&B's server is looked after on its page there" in said
    assert read_json("sweep", "show", here.id)["id"] == here.id
    assert "one trial at a time" in cli("agent", here.id, "--jobs", "2", expect=2).stderr


def test_each_trial_is_shown_with_how_it_ended(store: Path) -> None:
    sweep = create(
        store,
        {
            **GRID,
            "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2},
            "parameters": {"width": {"values": [8, 16, 32]}, "seed": {"values": [0, 1]}},
        },
    )
    with held(sweep) as lease, held(sweep) as other:
        good = begin(sweep, lease, "r0")
        assert not good.report(2, 0.25)
        good.end("finished", 0.125, 5)
        bad = begin(sweep, lease, "r1")
        assert bad.report(2, 0.75)
        bad.end("pruned", iterations=3)
        begin(sweep, lease, "r2").end("failed")
        begin(sweep, other, "r3").end("died")
        begin(sweep, lease)
        shown = read_json("sweep", "show", sweep.id)
        text = cli("sweep", "show", sweep.id).stdout
    facts = ("outcome", "value", "iterations", "run", "attempt", "retry_of")
    assert [[trial[fact] for fact in facts] for trial in shown["trials"]] == [
        ["finished", 0.125, 5, "r0", 1, None],
        ["pruned", 0.75, 2, "r1", 1, None],
        ["failed", None, 0, "r2", 1, None],
        ["died", None, 0, "r3", 1, None],
        ["running", None, 0, None, 1, None],
    ]
    assert shown["trials"][1]["parameters"] == {"seed": 0, "width": 16}
    assert shown["best"] == shown["trials"][0]
    assert shown["pruned_at"] == {"2": 1}
    assert (shown["done"], shown["total"], shown["state"]) == (3, 6, "running")
    assert shown["config"]["name"] == "widths"
    assert "pruned   1 at iteration 2\n" in text
    assert "trials   1 finished, 1 pruned, 1 failed, 1 died, 1 running" in text
    assert "best so far: 0.125, by trial 0, run r0\n  seed: 0\n  width: 8\n" in text


def test_a_retry_says_of_which_trial_it_is_one(store: Path) -> None:
    sweep = create(store, {**GRID, "run_cap": 1})
    with held(sweep) as lease:
        begin(sweep, lease).end("died")
        assert read_json("sweep", "show", sweep.id)["done"] == 0
        begin(sweep, lease, "again").end("finished", 0.5, 1)
    shown = read_json("sweep", "show", sweep.id)
    assert [trial["retry_of"] for trial in shown["trials"]] == [None, 0]
    assert (shown["done"], shown["total"], shown["state"]) == (1, 1, "finished")
    lines = cli("sweep", "show", sweep.id).stdout.splitlines()
    assert lines[-3].split()[:5] == ["trial", "state", "retry", "of", "value"]
    assert lines[-1].split()[:4] == ["1", "finished", "0", "0.5"]


@pytest.mark.parametrize(("goal", "best"), [("minimize", "r1"), ("maximize", "r2")])
def test_the_best_trial_is_so_by_the_metrics_goal(goal: str, best: str, store: Path, lease: Lease) -> None:
    sweep = create(store, {**GRID, "metric": {"name": "loss", "goal": goal}})
    for number, value in enumerate((0.5, 0.25, 0.75)):
        begin(sweep, lease, f"r{number}").end("finished", value, 1)
    assert read_json("sweeps")["sweeps"][0]["best"]["run"] == best


def test_a_sweep_whose_target_is_reached_is_finished(store: Path, lease: Lease) -> None:
    sweep = create(store, {**GRID, "metric": {"name": "accuracy", "goal": "maximize", "target": 0.9}})
    begin(sweep, lease).end("finished", 0.8, 1)
    assert read_json("sweep", "show", sweep.id)["state"] == "running"
    begin(sweep, lease).end("finished", 0.95, 1)
    (listed,) = read_json("sweeps")["sweeps"]
    assert (listed["state"], listed["best"]["value"]) == ("finished", 0.95)


def test_a_grid_is_finished_when_the_points_that_prior_runs_left_are_done(store: Path) -> None:
    for width in (8, 8, 32):
        with tracklayer.init(
            id=f"prior-{len(tracklayer.open_store().runs())}", config={"width": width}
        ) as run:
            run.log({"loss": width})
    sweep = create(store, prior_runs=["prior-0", "prior-1", "prior-2"])
    assert SweepReader(sweep).state == "running"
    with held(sweep) as lease:
        begin(sweep, lease).end("finished", 1.0)
    found = SweepReader(sweep)
    assert (found.done, found.total, found.state) == (1, 1, "finished")


def test_a_trial_whose_process_is_gone_has_died_before_any_agent_finds_out(store: Path) -> None:
    sweep = create(store)
    with held(sweep) as lease:
        begin(sweep, lease)
        assert read_json("sweep", "show", sweep.id)["outcomes"]["running"] == 1
    shown = read_json("sweep", "show", sweep.id)
    assert [trial["outcome"] for trial in shown["trials"]] == ["died"]
    assert (shown["done"], shown["trials"][0]["ended_at"]) == (0, None)


def test_a_trial_of_another_host_has_died_when_nothing_was_heard_of_it_for_long(store: Path) -> None:
    sweep = create(store)
    with held(sweep) as lease:
        begin(sweep, lease)
        (file,) = sweep.agents.glob("*.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), "host": "elsewhere"}))
        assert read_json("sweep", "show", sweep.id)["outcomes"]["running"] == 1
        long_ago = file.stat().st_mtime - 100
        os.utime(file, (long_ago, long_ago))
        assert read_json("sweep", "show", sweep.id)["outcomes"]["died"] == 1


def test_looking_changes_nothing(store: Path) -> None:
    sweep = create(store)
    with held(sweep) as lease:
        begin(sweep, lease)
    before = contents(store)
    cli("sweeps")
    cli("sweep", "show", sweep.id)
    assert contents(store) == before


def test_a_sweep_without_a_metric_has_no_best_trial(store: Path, lease: Lease) -> None:
    sweep = create(store, {"method": "grid", "parameters": {"seed": {"values": [0, 1]}}})
    for _ in range(2):
        begin(sweep, lease).end("finished")
    shown = read_json("sweep", "show", sweep.id)
    assert [trial["value"] for trial in shown["trials"]] == [None, None]
    assert (shown["metric"], shown["best"], shown["importance"]) == (None, None, {})
    assert "best" not in cli("sweep", "show", sweep.id).stdout


def test_a_limit_leaves_the_newest_trials(store: Path, lease: Lease) -> None:
    sweep = create(store)
    for run in ("r0", "r1", "r2"):
        begin(sweep, lease, run).end("failed")
    lines = cli("sweep", "show", sweep.id, "--limit", "1").stdout.splitlines()
    assert lines[-3] == "trials: the last 1 of 3"
    assert "r2" in lines[-1]
    shown = read_json("sweep", "show", sweep.id, "--limit", "2")
    assert [trial["run"] for trial in shown["trials"]] == ["r1", "r2"]
    assert shown["outcomes"] == {"failed": 3}


@pytest.mark.slow  # scikit-learn, which Optuna's evaluators bring along, takes a second to import
def test_the_parameter_that_mattered_is_the_first(store: Path, lease: Lease) -> None:
    parameters = {
        "noise": {"min": 0.0, "max": 1.0},
        "optimizer": {"parameters": {"lr": {"min": 0.0, "max": 1.0}}},
    }
    sweep = create(store, {**GRID, "method": "random", "parameters": parameters}, seed=1)
    for _ in range(30):
        claimed = begin(sweep, lease)
        claimed.end("finished", claimed.parameters["optimizer"]["lr"], 1)
    importance = read_json("sweep", "show", sweep.id)["importance"]
    assert list(importance) == ["optimizer/lr", "noise"]
    assert importance["optimizer/lr"] > 0.8
    assert sum(importance.values()) == pytest.approx(1)
    assert (
        "importance, by 30 finished trials\nparameter     importance\noptimizer/lr"
        in cli("sweep", "show", sweep.id).stdout
    )


@pytest.mark.slow
def test_a_terminal_is_shown_the_newest_trials(store: Path, lease: Lease) -> None:
    sweep = create(store, {**GRID, "parameters": {"seed": {"values": list(range(25))}}})
    for _ in range(25):
        begin(sweep, lease).end("failed")
    assert "trials: the last 20 of 25" in on_a_terminal("sweep", "show", sweep.id)
    assert len(cli("sweep", "show", sweep.id).stdout.split("\ntrials\n")[1].splitlines()) == 26


# -- agents ---------------------------------------------------------------------------------------


def test_the_state_of_a_sweep_is_changed_and_said(store: Path) -> None:
    sweep = create(store)
    for command, state in (("pause", "paused"), ("stop", "stopped"), ("resume", "running")):
        assert f"{sweep.id} is {state}: " in cli("sweep", command, sweep.id[:5]).stdout
        assert read_json("sweep", "show", sweep.id)["state"] == state


def test_an_agent_of_a_stopped_sweep_ends_at_once() -> None:
    write("raise SystemExit('it was run')", "fit.py")
    sweep_id = cli("sweep", write(RANDOM)).stdout.strip()
    cli("sweep", "stop", sweep_id)
    assert f"agent of sweep {sweep_id}: no trials" in cli("agent", sweep_id).stderr


def test_an_agent_whose_first_trials_all_fail_gives_up() -> None:
    write("raise SystemExit(3)", "fit.py")
    sweep_id = cli("sweep", write(RANDOM)).stdout.strip()
    done = cli("agent", sweep_id, expect=1)
    assert "its first 3 trials failed, and it ends" in done.stderr
    assert read_json("sweep", "show", sweep_id)["outcomes"] == {"failed": 3}


def test_an_agent_that_cannot_begin_claims_no_trial() -> None:
    sweep_id = cli("sweep", write(RANDOM), "--project", "digits").stdout.strip()
    assert "the sweep's program 'fit.py' is not there" in cli("agent", sweep_id, expect=2).stderr
    assert (
        "is of project 'digits', not 'other'" in cli("agent", sweep_id, "--project", "other", expect=3).stderr
    )
    cli("agent", sweep_id, "--count", "0", expect=2)
    assert read_json("sweep", "show", sweep_id)["trials"] == []


@pytest.mark.slow
def test_an_agent_that_waits_for_a_paused_sweep_runs_its_program_once_that_is_resumed(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    in_its_store = ("--dir", machine.store)
    sweep_id = cli("sweep", write(RANDOM), "--project", "digits", *in_its_store).stdout.strip()
    (machine.folder / "fit.py").write_text(FIT)
    cli("sweep", "pause", sweep_id, *in_its_store)
    program = "from tracklayer.cli import main; main()"
    agent = machine.start(program, "agent", sweep_id, "--jobs", "2", "--count", "4")
    with killed_at_the_end(agent):
        assert agent.process.stderr is not None
        assert "is paused: this agent waits" in agent.process.stderr.readline()
        assert read_json("sweep", "show", sweep_id, *in_its_store)["trials"] == []
        cli("sweep", "resume", sweep_id, *in_its_store)
        ended = agent.end()
    assert (ended.code, ended.stdout) == (0, "")
    shown = read_json("sweep", "show", sweep_id, *in_its_store)
    assert Counter(trial["outcome"] for trial in shown["trials"]) == {"finished": 4}
    for trial in shown["trials"]:
        assert trial["value"] == pytest.approx(trial["parameters"]["lr"] + 1 / 3)
        assert trial["iterations"] == 3
    assert ended.complaints[-1].startswith(
        f"tracklayer: agent of sweep {sweep_id}: 4 done; best loss so far: "
    )
    runs = read_json("runs", "--group", sweep_id, *in_its_store)["runs"]
    assert {run["id"] for run in runs} == {trial["run"] for trial in shown["trials"]}
    assert {(run["project"], run["state"]) for run in runs} == {("digits", "finished")}
