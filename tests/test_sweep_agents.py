"""Agents that call a function: which trials they work on, how each ends, and what is left of killed ones."""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import pytest
from optuna.trial import TrialState

import tracklayer
import tracklayer.jax
from sweep_oracle import outcomes, trials
from tracklayer import agreeing
from tracklayer.errors import (
    BackendUnavailableError,
    RunNotFoundError,
    StoreError,
    SweepNotFoundError,
    TrialPruned,
    UsageError,
)
from tracklayer.sweeps import agents, calling, study
from tracklayer.sweeps.study import open_sweep

GRID: dict[str, Any] = {
    "method": "grid",
    "metric": {"name": "loss", "goal": "minimize"},
    "parameters": {"x": {"values": [0, 1, 2, 3]}, "batch_size": {"value": 8}},
}
ALL_FINISHED = {x: ["finished"] for x in range(4)}
RANDOM: dict[str, Any] = {
    "method": "random",
    "metric": {"name": "loss"},
    "parameters": {"x": {"min": 0.0, "max": 1.0}, "depth": {"min": 1, "max": 100}},
}


@pytest.fixture(autouse=True)
def folder(store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(agents, "_POLL", 0.02)
    yield store
    tracklayer.finish()


@pytest.fixture
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that are not recorded, which takes less time."""
    monkeypatch.setenv("TRACKLAYER_BACKEND", "disabled")


def train() -> None:
    with tracklayer.init() as run:
        run.log({"loss": run.config["x"]})


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- which trials --------------------------------------------------------------------------------------


def test_an_agent_tries_each_point_of_a_grid_once_and_ends(store: Path) -> None:
    sweep = tracklayer.sweep(GRID, project="digits")
    assert tracklayer.agent(sweep, train) is None
    assert outcomes(store, sweep) == ALL_FINISHED
    runs = tracklayer.open_store().runs(group=sweep)
    assert [run.config for run in runs] == [{"x": x, "batch_size": 8} for x in range(4)]
    assert {(run.info.project, run.info.state) for run in runs} == {("digits", "finished")}
    assert [trial.value for trial in trials(store, sweep)] == [0, 1, 2, 3]


@pytest.mark.usefixtures("unrecorded")
def test_a_count_ends_an_agent_and_the_next_one_goes_on(store: Path) -> None:
    sweep = tracklayer.sweep(GRID)
    tracklayer.agent(sweep, train, count=3)
    assert [trial.state for trial in trials(store, sweep)][:3] == [TrialState.COMPLETE] * 3
    assert outcomes(store, sweep)[3] == ["WAITING"]
    tracklayer.agent(sweep, train, count=3)
    assert outcomes(store, sweep) == ALL_FINISHED


@pytest.mark.usefixtures("unrecorded")
def test_run_cap_ends_a_sweep_that_has_no_other_end(store: Path) -> None:
    sweep = tracklayer.sweep(RANDOM | {"run_cap": 3})
    tracklayer.agent(sweep, train)
    tracklayer.agent(sweep, train)
    assert len(trials(store, sweep)) == 3


@pytest.mark.usefixtures("unrecorded")
def test_an_agent_waits_for_a_store_that_fails_and_says_so_once(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(study, "_LOCK_SECONDS", 0.02)
    sweep = tracklayer.sweep(GRID)
    held, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with open_sweep(store, sweep).lock():
            held.set()
            enough.wait()

    threading.Thread(target=hold).start()
    held.wait()
    threading.Timer(0.3, enough.set).start()
    tracklayer.agent(sweep, train)
    assert outcomes(store, sweep) == ALL_FINISHED
    (said,) = complaints(caplog)
    assert re.search(r"another process has held .*\.claim for .* it tries again for 600 s", said)
    monkeypatch.setattr(agents, "_PATIENCE", 0.1)
    with open_sweep(store, sweep).lock(), pytest.raises(StoreError, match="another process has held"):
        tracklayer.agent(sweep, train)


@pytest.mark.slow
@pytest.mark.usefixtures("unrecorded")
def test_bayes_goes_by_what_the_runs_of_earlier_trials_logged(store: Path) -> None:
    def parabola() -> None:
        with tracklayer.init() as run:
            run.log({"loss": (run.config["x"] - 0.3) ** 2})

    sweep = tracklayer.sweep(
        {**RANDOM, "method": "bayes", "parameters": {"x": {"min": -1.0, "max": 1.0}}}, seed=0
    )
    tracklayer.agent(sweep, parabola, count=40)
    off = [abs(trial.params["x"] - 0.3) for trial in trials(store, sweep)]
    assert statistics.median(off[20:]) < 0.3  # 0.5 by chance


def test_a_store_that_takes_no_run_ends_the_agent_and_costs_no_trial(store: Path) -> None:
    sweep = tracklayer.sweep(GRID)
    (store / "runs").write_text("no folder")
    with pytest.raises(StoreError, match="cannot write to the store"):
        tracklayer.agent(sweep, train)
    assert outcomes(store, sweep)[0] == ["died", "WAITING"]
    (store / "runs").unlink()
    tracklayer.agent(sweep, train)
    assert outcomes(store, sweep) == ALL_FINISHED | {0: ["died", "finished"]}


@pytest.mark.parametrize("method", ["random", "bayes"])
@pytest.mark.usefixtures("unrecorded")
def test_a_seed_makes_a_sweep_repeatable(store: Path, method: str) -> None:
    tried: list[list[Any]] = []
    for seed, counts in ((7, [6]), (7, [2, 4]), (8, [6])):
        sweep = tracklayer.sweep(RANDOM | {"method": method}, seed=seed)
        for count in counts:
            tracklayer.agent(sweep, train, count=count)
        tried.append([trial.user_attrs["parameters"] for trial in trials(store, sweep)])
    assert tried[0] == tried[1] != tried[2]


@pytest.mark.parametrize("count", [0, -1])
def test_an_agent_works_on_one_trial_at_least(count: int) -> None:
    with pytest.raises(UsageError, match=f"count={count}: an agent works on at least one trial"):
        tracklayer.agent("any", train, count=count)


@pytest.mark.usefixtures("unrecorded")
def test_one_of_several_processes_claims_no_trial_of_its_own(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tracklayer.sweep(GRID)
    monkeypatch.setattr(agreeing, "place", lambda: (1, 4, None))
    for agent in (tracklayer.agent, tracklayer.jax.agent):
        with pytest.raises(UsageError, match="this is process 1 of 4, .*run `tracklayer agent SWEEP`"):
            agent(sweep, train)
    assert trials(store, sweep) == []


def test_a_sweep_goes_by_its_path_as_with_wandb(store: Path) -> None:
    sweep = tracklayer.sweep(GRID, entity="team", project="digits")
    for path in (sweep, f"digits/{sweep}", f"team/digits/{sweep}"):
        tracklayer.agent(path, train, count=1)
    tracklayer.agent(sweep, train, project="digits", entity="team", count=1)
    assert outcomes(store, sweep) == ALL_FINISHED
    for wrong in ({"project": "other"}, {"entity": "other"}):
        with pytest.raises(SweepNotFoundError, match="not 'other'"):
            tracklayer.agent(sweep, train, **wrong)


@pytest.mark.usefixtures("unrecorded")
def test_a_paused_sweep_is_waited_for_and_a_stopped_one_is_not(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = tracklayer.sweep(GRID)
    other = open_sweep(store, sweep)
    other.set_state("paused")
    working = threading.Thread(target=tracklayer.agent, args=(sweep, train))
    working.start()
    time.sleep(0.15)
    assert trials(store, sweep) == []
    other.set_state("running")
    working.join(60)
    assert outcomes(store, sweep) == ALL_FINISHED
    assert complaints(caplog) == [
        f"tracklayer: sweep {sweep} is paused: this agent waits until it is resumed"
    ]
    again = tracklayer.sweep(GRID)
    open_sweep(store, again).set_state("stopped")
    assert agents.work(open_sweep(store, again), pytest.fail).reason == "stopped"


# -- how a trial ends ----------------------------------------------------------------------------------


def test_a_run_that_the_function_leaves_open_is_finished(store: Path) -> None:
    def leave_open() -> None:
        tracklayer.init(reinit="create_new").log({"loss": 1})

    sweep = tracklayer.sweep(GRID)
    tracklayer.agent(sweep, leave_open, count=2)
    assert [run.info.state for run in tracklayer.open_store().runs()] == ["finished"] * 2
    assert [trial.value for trial in trials(store, sweep)][:2] == [1, 1]


def test_a_run_that_was_open_before_is_finished_by_init_which_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = tracklayer.init(id="before")
    tracklayer.agent(tracklayer.sweep(GRID), train, count=1)
    assert before.info.state == "finished"
    (said,) = complaints(caplog)
    assert "init: run before was still open, and is finished now" in said


def test_a_function_that_raises_fails_and_the_next_trial_follows(
    store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail_once() -> None:
        run = tracklayer.init()
        run.log({"loss": 1})
        if run.config["x"] == 0:
            raise ValueError("diverged")  # noqa: EM101 - as people write

    sweep = tracklayer.sweep(GRID)
    tracklayer.agent(sweep, fail_once, count=2)
    assert outcomes(store, sweep)[0] == ["failed"]
    assert outcomes(store, sweep)[1] == ["finished"]
    assert [run.info.state for run in tracklayer.open_store().runs()] == ["failed", "finished"]
    written = capfd.readouterr().err
    assert written.count("ValueError: diverged") == 1
    assert "in fail_once" in written
    assert "tracklayer/sweeps" not in written


@pytest.mark.usefixtures("unrecorded")
def test_an_agent_whose_first_three_trials_fail_ends_and_says_so(
    store: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    sweep = tracklayer.sweep(GRID)
    report = agents.work(open_sweep(store, sweep), lambda batch: calling.call(lambda: 1 / 0, *batch), count=3)
    assert (report.failed, report.reason) == (3, "failing")
    assert capfd.readouterr().err.count("ZeroDivisionError: division by zero") == 3
    assert outcomes(store, sweep)[3] == ["WAITING"]
    (said,) = complaints(caplog)
    assert said.startswith(f"tracklayer: agent of sweep {sweep}: its first 3 trials failed")


@pytest.mark.usefixtures("unrecorded")
def test_what_sys_exit_says_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        tracklayer.init()
        sys.exit("there is no data")

    tracklayer.agent(tracklayer.sweep(GRID), stop, count=1)
    assert capfd.readouterr().err.count("there is no data\n") == 1


def test_on_a_terminal_the_sweep_and_what_came_of_it_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger("tracklayer"), "hasHandlers", lambda: False)  # but pytest's
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    sweep = tracklayer.sweep(GRID)
    tracklayer.agent(sweep, train)
    assert capsys.readouterr().err.splitlines() == [
        f"tracklayer: sweep {sweep} is created; `tracklayer sweep show {sweep}` shows it",
        f"tracklayer: agent of sweep {sweep}: 4 done; best loss so far: 0, by trial 0",
    ]


@pytest.mark.parametrize(
    ("sweep", "function", "said"),
    [
        (None, train, "sweep_id=None: give the id"),
        ("qd4mpzk7", "train", "function='train': give the function"),
    ],
)
def test_what_is_no_id_and_what_is_no_function_is_refused(sweep: Any, function: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tracklayer.agent(sweep, function)


@pytest.mark.usefixtures("unrecorded")
def test_failures_after_a_success_do_not_end_an_agent(store: Path) -> None:
    def fail_later() -> None:
        train_x = tracklayer.init()
        train_x.log({"loss": 0})
        if train_x.config["x"]:
            raise ValueError

    sweep = tracklayer.sweep(GRID)
    tracklayer.agent(sweep, fail_later)
    assert outcomes(store, sweep) == {0: ["finished"], 1: ["failed"], 2: ["failed"], 3: ["failed"]}


@pytest.mark.usefixtures("unrecorded")
def test_a_function_without_a_run_fails_and_is_told_to_make_one(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = tracklayer.sweep(GRID)
    tracklayer.agent(sweep, lambda: None, count=1)
    assert outcomes(store, sweep)[0] == ["failed"]
    assert complaints(caplog) == [
        f"tracklayer: trial 0 of sweep {sweep}: the function recorded no run: it is to call tracklayer.init"
    ]


def test_sys_exit_ends_a_trial_and_not_the_agent(store: Path) -> None:
    def leave() -> None:
        run = tracklayer.init()
        run.log({"loss": 1})
        sys.exit(run.config["x"])

    sweep = tracklayer.sweep(GRID)
    tracklayer.agent(sweep, leave, count=2)
    assert outcomes(store, sweep)[0] == ["finished"]
    assert outcomes(store, sweep)[1] == ["failed"]
    assert [run.info.exit_code for run in tracklayer.open_store().runs()] == [0, 1]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), SystemExit(143)])
def test_what_ends_the_process_ends_the_agent_and_the_trial_is_tried_again(
    store: Path, interrupt: BaseException
) -> None:
    def be_interrupted() -> None:
        tracklayer.init().log({"loss": 1})
        raise interrupt

    sweep = tracklayer.sweep(GRID)
    with pytest.raises(type(interrupt)):
        tracklayer.agent(sweep, be_interrupted)
    (run,) = tracklayer.open_store().runs()
    assert run.info.state == "failed"
    tracklayer.agent(sweep, train)
    assert outcomes(store, sweep) == ALL_FINISHED | {0: ["died", "finished"]}


def test_a_trial_that_is_pruned_ends_well_and_without_a_word(
    store: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    saved: list[int] = []

    def train_for_long() -> None:
        run = tracklayer.init()
        x = run.config["x"]
        try:
            for _ in range(4):
                run.log({"loss": x})
                run.flush()
        except TrialPruned:
            saved.append(x)
            raise

    sweep = tracklayer.sweep(GRID | {"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 2}})
    report = agents.work(open_sweep(store, sweep), lambda batch: calling.call(train_for_long, *batch))
    assert outcomes(store, sweep) == {0: ["finished"], 1: ["pruned"], 2: ["pruned"], 3: ["pruned"]}
    assert saved == [1, 2, 3]
    assert (report.done, report.pruned, str(report)) == (1, 3, "1 done, 3 pruned")
    assert {run.info.state for run in tracklayer.open_store().runs()} == {"finished"}
    assert capfd.readouterr().err == ""
    assert complaints(caplog) == []


# -- how a sweep is made -------------------------------------------------------------------------------


def test_a_sweep_is_of_the_project_that_is_named_nearest(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def project(**given: str) -> str:
        config = GRID | ({"project": given.pop("in_config")} if "in_config" in given else {})
        return open_sweep(store, tracklayer.sweep(config, **given)).project  # type: ignore[arg-type]

    assert project() == "uncategorized"
    monkeypatch.setenv("WANDB_PROJECT", "environment")
    assert project() == "environment"
    assert project(in_config="config") == "config"
    assert project(in_config="config", project="argument") == "argument"


def test_what_is_done_otherwise_is_told_when_a_sweep_is_made(caplog: pytest.LogCaptureFixture) -> None:
    sweep = tracklayer.sweep(GRID | {"nonsense": 1})
    (said,) = complaints(caplog)
    assert said.startswith(f"tracklayer: sweep {sweep}: ")
    assert "nonsense" in said


def test_a_prior_run_keeps_its_real_values(store: Path) -> None:
    values = {"x": 0.23028989067235903, "c": 2}  # a quantile and back would be another float
    with tracklayer.init(id="before", config=values) as run:
        run.log({"loss": 1.0})
    beta = {"distribution": "beta", "a": 2, "b": 3}
    sweep = tracklayer.sweep(
        RANDOM | {"parameters": {"x": beta, "c": {"value": 1}, "new": {"value": 1}}}, prior_runs=["before"]
    )
    (trial,) = trials(store, sweep)
    assert trial.user_attrs["parameters"] == values


def test_prior_runs_count_by_the_best_that_they_logged(store: Path) -> None:
    for run_id, losses in (("good", [3.0, float("nan"), 1.0, 2.0]), ("silent", [])):
        with tracklayer.init(id=run_id, config={"x": 0.5, "depth": 3}) as run:
            for loss in losses:
                run.log({"val": {"loss": loss}})
    nested = RANDOM | {"metric": {"name": "val.loss"}}  # as W&B names it
    sweep = tracklayer.sweep(nested, prior_runs=["good", "silent"])
    (trial,) = trials(store, sweep)
    assert (trial.value, trial.params, trial.user_attrs["run"]) == (1.0, {"x": 0.5, "depth": 3}, "good")
    with pytest.raises(RunNotFoundError, match="no run 'nobody'"):
        tracklayer.sweep(RANDOM, prior_runs=["nobody"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"retries": -1}, "retries=-1: use 0"), ({"project": "a/b"}, "project 'a/b'")],
)
def test_arguments_that_cannot_be_right_are_refused(arguments: Mapping[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tracklayer.sweep(GRID, **arguments)


@pytest.mark.parametrize("arguments", [{"seed": 1}, {"retries": 0}])
def test_what_a_sweep_of_wandb_has_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: Mapping[str, Any]
) -> None:
    monkeypatch.setenv("TRACKLAYER_BACKEND", "wandb")
    with pytest.raises(UsageError, match="has neither `seed` nor `retries`"):
        tracklayer.sweep(GRID, **arguments)


@pytest.mark.parametrize(
    "call", [lambda: tracklayer.sweep(GRID), lambda: tracklayer.agent("any", train)], ids=["sweep", "agent"]
)
def test_without_optuna_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(BackendUnavailableError, match=r"need optuna: pip install 'tracklayer\[sweeps\]'"):
        call()


# -- many agents, which are killed ---------------------------------------------------------------------


POINTS = 60
AGENTS = 4
AGENT = """
import os, signal, sys, time
from pathlib import Path
import tracklayer
from tracklayer.sweeps import claiming, trial

tracklayer.init(backend="disabled").finish()  # imports what a run needs
log = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def say(word, *more):
    os.write(log, (" ".join(map(str, (word, os.getpid(), time.monotonic(), *more))) + "\\n").encode())

def train():
    with tracklayer.init() as run:
        x = run.config["x"]
        say("begin", x, run.id)
        for _ in range(3):
            run.log({"loss": x})
            time.sleep(0.02 + 0.02 * (x % 3))
        say("end", x)

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the killed need nobody to bury them
for line in sys.stdin:
    agent = os.fork()
    if not agent:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            tracklayer.agent(sys.argv[1], train)
            say("done")
        finally:
            os._exit(0)
    print(agent, flush=True)
"""


@final
class Agents:
    """Processes that work on a sweep; one that imported all they need makes them."""

    def __init__(self, sweep: str) -> None:
        with Path("stderr").open("w") as stderr:
            self._maker = subprocess.Popen(
                [sys.executable, "-c", AGENT, sweep],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                bufsize=1,
            )
        self.alive: list[int] = []
        self.killed_at: dict[int, float] = {}

    def start(self) -> None:
        assert self._maker.stdin is not None
        assert self._maker.stdout is not None
        self._maker.stdin.write("another\n")
        self.alive.append(int(self._maker.stdout.readline()))

    def kill(self, agent: int) -> None:
        self.alive.remove(agent)
        self.killed_at[agent] = time.monotonic()
        os.kill(agent, signal.SIGKILL)

    def done(self) -> set[int]:
        """Return those that came to their end."""
        return {int(line.split()[1]) for line in said() if line.startswith("done")}

    def end(self) -> None:
        for agent in set(self.alive) - self.done():
            os.kill(agent, signal.SIGKILL)
        self._maker.communicate()


def said() -> list[str]:
    return Path("log").read_text().splitlines() if Path("log").exists() else []


def stretches(killed_at: Mapping[int, float]) -> dict[int, list[tuple[float, float]]]:
    """Return from when to when each point was worked on: to its end, or to that of its process."""
    found: dict[int, dict[int, tuple[float, float]]] = {}
    for line in said():
        word, agent, at, *more = line.split()
        if word == "begin":
            found.setdefault(int(more[0]), {})[int(agent)] = (
                float(at),
                killed_at.get(int(agent), float("inf")),
            )
        elif word == "end":
            begun, _ = found[int(more[0])][int(agent)]
            found[int(more[0])][int(agent)] = (begun, float(at))
    return {x: sorted(of_agents.values()) for x, of_agents in found.items()}


@pytest.mark.slow
def test_agents_are_killed_at_random_and_each_point_is_done_once(store: Path) -> None:
    sweep = tracklayer.sweep(GRID | {"parameters": {"x": {"values": list(range(POINTS))}}}, retries=1000)
    dice = random.Random(20)
    working = Agents(sweep)
    try:
        for _ in range(AGENTS):
            working.start()
        deadline = time.monotonic() + 100
        seen = 0
        while not working.done():
            assert time.monotonic() < deadline, f"not done after {len(working.killed_at)} kills"
            time.sleep(dice.uniform(0.05, 0.4))
            agent = dice.choice(working.alive)
            # not while all wait for a lock that a killed one left
            if len(said()) > seen and agent not in working.done():
                seen = len(said())
                working.kill(agent)
                working.start()
        while set(working.alive) - working.done():
            assert time.monotonic() < deadline, "an agent does not end"
            time.sleep(0.05)
    finally:
        working.end()
    runs = tracklayer.open_store().runs(group=sweep)
    states = [run.info.state for run in runs]
    tried = outcomes(store, sweep)
    figures = (
        f"{len(working.killed_at)} kills, {len(runs)} runs: {states}; {tried}; {Path('stderr').read_text()}"
    )
    assert len(working.killed_at) >= 10, figures
    assert tried.keys() == set(range(POINTS)), figures
    assert all(ended == ["died"] * (len(ended) - 1) + ["finished"] for ended in tried.values()), figures
    assert sum(len(ended) > 1 for ended in tried.values()) >= 5, figures
    assert {trial.state for trial in trials(store, sweep)} == {TrialState.COMPLETE, TrialState.FAIL}, figures
    assert set(states) == {"finished", "crashed"}, figures
    points = {run.id: run.config.get("x") for run in runs}  # which some did not live to record
    done = [trial for trial in trials(store, sweep) if trial.state is TrialState.COMPLETE]
    assert all(points[trial.user_attrs["run"]] == trial.params["x"] == trial.value for trial in done), figures
    for x, at in stretches(working.killed_at).items():
        for (_, ended), (begun, _) in pairwise(at):
            assert ended <= begun, f"{x} was worked on twice at once: {at}; {figures}"
