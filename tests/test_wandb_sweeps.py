"""A sweep with `TRACKLAYER_BACKEND=wandb`, by the real client: the same program, on W&B's server.

The client's agents ask the server each 5 s; here, by attributes of theirs that are public, at once.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tracklayer
from machine import Ended, Machine, killed_at_the_end, wait_until
from wandb_server import WandbServer

pytestmark = pytest.mark.slow

QUICK = """
from wandb import wandb_agent
from wandb.agents import pyagent

pyagent.Agent.HEARTBEAT_SLEEP_SECONDS = 0.05
wandb_agent.Agent.POLL_INTERVAL = 0.05
"""


@pytest.fixture
def machine(tmp_path: Path, server: WandbServer) -> Machine:
    return Machine(tmp_path, server, TRACKLAYER_BACKEND="wandb")


def in_any_order(what: Iterable[Any]) -> list[str]:
    return sorted(json.dumps(one, sort_keys=True) for one in what)


# -- the same program, with one variable changed --------------------------------------------------

PROGRAM = (
    QUICK
    + """
import json
import tracklayer

sweep_id = tracklayer.sweep(
    {
        "method": "grid",
        "metric": {"name": "loss", "goal": "minimize"},
        "note": "W&B knows no such entry",
        "parameters": {
            "lr": {"values": [0.1, 0.2]},
            "model": {"parameters": {"depth": {"values": [2]}, "width": {"value": 8}}},
            "fail": {"values": [False, True]},
        },
    },
    project="p",
)


def train():
    run = tracklayer.init(config={"lr": 7, "seed": 3, "model": {"name": "cnn"}})
    run.config.lr = 5
    assert run.sweep_id == sweep_id
    for epoch in range(3):
        run.log({"loss": run.config["lr"] / (epoch + 1)})
    if run.config["fail"]:
        raise ValueError("this one fails")
    # and the run stays open


tracklayer.agent(sweep_id, function=train, count=4)
print(json.dumps(sweep_id))
"""
)
POINTS = [
    {"lr": lr, "fail": fail, "model": {"depth": 2, "width": 8, "name": "cnn"}, "seed": 3}
    for lr in (0.1, 0.2)
    for fail in (False, True)
]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ended, WandbServer, Machine]]:
    with WandbServer() as server:
        machine = Machine(tmp_path_factory.mktemp("x") / "y", server, TRACKLAYER_BACKEND="wandb")
        yield machine.run(PROGRAM), server, machine


def test_it_is_a_sweep_of_the_server(swept: tuple[Ended, WandbServer, Machine]) -> None:
    ended, server, _ = swept
    assert ended.code == 0, ended.stderr
    assert ended.stdout == f'"{server.sweep.id}"\n'
    assert server.sweep.config["metric"] == {"name": "loss", "goal": "minimize"}
    assert {run.sweep for run in server.runs.values()} == {server.sweep.id}
    assert list(server.runs) == server.sweep.runs
    assert "Violation 1. Additional properties are not allowed ('note' was unexpected)" in ended.stderr


def test_each_run_there_has_its_trials_parameters_and_rows(
    swept: tuple[Ended, WandbServer, Machine],
) -> None:
    runs = list(swept[1].runs.values())
    assert in_any_order(run.config for run in runs) == in_any_order(POINTS)
    for run in runs:
        assert run.project == "p"
        assert [row["loss"] for row in run.history] == [run.config["lr"] / (n + 1) for n in range(3)]
        assert run.summary["loss"] == run.config["lr"] / 3


def test_a_run_that_was_left_open_is_finished_as_its_function_ended(
    swept: tuple[Ended, WandbServer, Machine],
) -> None:
    for run in swept[1].runs.values():
        assert (run.state, run.exit_code) == (("failed", 1) if run.config["fail"] else ("finished", 0))


def test_what_a_function_raised_is_told_once(swept: tuple[Ended, WandbServer, Machine]) -> None:
    said = swept[0].complaints
    assert said.count("ValueError: this one fails") == 2
    assert sum("errored: this one fails" in line for line in said) == 2  # by the agent, in a line of its own


def test_a_config_entry_of_the_sweeps_stays(swept: tuple[Ended, WandbServer, Machine]) -> None:
    ended, _, _ = swept
    assert "config lr: a parameter of the sweep, which stays" in ended.stderr
    assert "locked by" not in ended.stderr


def test_the_local_records_say_the_same(swept: tuple[Ended, WandbServer, Machine]) -> None:
    _, server, machine = swept
    recorded = tracklayer.open_store(machine.store).runs()
    assert {reader.id for reader in recorded} == set(server.runs)
    for reader in recorded:
        there = server.runs[reader.id]
        assert (reader.config, reader.info.state) == (there.config, there.state)


def test_offline_it_is_the_same_sweep(
    swept: tuple[Ended, WandbServer, Machine], tmp_path: Path, server: WandbServer
) -> None:
    machine = Machine(tmp_path / "offline", server, TRACKLAYER_BACKEND="sqlite")
    assert machine.run(PROGRAM).code == 0
    assert server.requests == []
    offline = tracklayer.open_store(machine.store).runs()
    online = swept[1].runs.values()
    assert in_any_order((reader.config, reader.info.state) for reader in offline) == in_any_order(
        (run.config, run.state) for run in online
    )


# -- what comes between ---------------------------------------------------------------------------

LONG = (
    QUICK
    + """
import os, signal, time
import tracklayer

sweep_id = tracklayer.sweep({"method": "grid", "parameters": {"end": {"values": ["stop", "ctrl-c"]}}})


def train():
    run = tracklayer.init()
    for step in range(10_000):
        run.log({"loss": step})
        time.sleep(0.005)
        if step == 20 and run.config["end"] == "ctrl-c":
            os.kill(os.getpid(), signal.SIGINT)


tracklayer.agent(sweep_id, train)
assert tracklayer.run is None
print("the agent ended")
"""
)


def test_a_trial_that_the_server_or_ctrl_c_stops_ends_as_failed(
    machine: Machine, server: WandbServer
) -> None:
    started = machine.start(LONG)
    with killed_at_the_end(started):
        wait_until(lambda: any(run.history for run in server.runs.values()))
        server.sweep.stopping.update(server.sweep.runs)
        ended = started.end()
    assert ended.code == 0, ended.stderr
    assert ended.stdout == "the agent ended\n"
    assert [run.config["end"] for run in server.runs.values()] == ["stop", "ctrl-c"]
    for run in server.runs.values():
        assert (run.state, run.exit_code) == ("failed", 1)
        recorded = machine.recorded(run.id)
        assert (recorded.info.state, recorded.info.exit_code) == ("failed", 1)
        assert recorded.last_step == run.last_step >= 0


def test_a_signal_finishes_the_run_of_a_trial(machine: Machine, server: WandbServer) -> None:
    started = machine.start(LONG)
    with killed_at_the_end(started):
        wait_until(lambda: any(run.history for run in server.runs.values()))
        started.process.terminate()
        ended = started.end()
    assert ended.code == -signal.SIGTERM
    (run,) = server.runs.values()
    assert (run.state, run.exit_code) == ("failed", 128 + signal.SIGTERM)
    assert machine.recorded(run.id).info.state == "failed"


def test_a_trials_run_is_the_one_that_the_server_waits_for(machine: Machine, server: WandbServer) -> None:
    ended = machine.run(
        QUICK
        + """
import tracklayer

sweep_id = tracklayer.sweep(
    {"method": "grid", "parameters": {"a": {"values": [1]}}}, project="p", prior_runs=["before"]
)


def train():
    with tracklayer.init(project="mine", id="mine") as run:
        run.log({"loss": 1})
    with tracklayer.init() as again:
        again.log({"loss": 2})


tracklayer.agent(sweep_id, train, count=1)
"""
    )
    assert ended.code == 0, ended.stderr
    assert "init: id='mine', project='mine' is ignored" in ended.stderr
    assert server.sweep.prior_runs == ["before"]
    (run,) = server.runs.values()
    assert (run.project, run.sweep, run.config) == ("p", server.sweep.id, {"a": 1})
    assert {row["_step"]: row["loss"] for row in run.history} == {0: 1, 1: 2}
    assert machine.recorded(run.id).info.project == "p"


def test_a_sweep_that_cannot_be_says_why(machine: Machine, server: WandbServer) -> None:
    started = machine.start(
        """
import json
import tracklayer
from tracklayer.errors import BackendUnavailableError, SweepNotFoundError, UsageError

try:
    tracklayer.agent("e/p/gone", print)
except SweepNotFoundError as error:
    print(json.dumps(str(error)), flush=True)
try:  # what W&B's client refuses
    tracklayer.sweep({"method": "random", "parameters": {"a": {"min": 0, "max": 1.5}}})
except UsageError as error:
    print(json.dumps(str(error)), flush=True)
input()
try:
    tracklayer.sweep({"method": "grid", "parameters": {"a": {"values": [1]}}})
except BackendUnavailableError as error:
    print(json.dumps(str(error)))
""",
        WANDB_X_GRAPHQL_RETRY_MAX="1",
    )
    with killed_at_the_end(started):
        assert started.hear() == f'"no sweep e/p/gone at {server.url}"'
        assert "Parameter a is ambiguous" in started.hear()
        server.stop()
        started.tell()
        ended = started.end()
    assert ended.code == 0, ended.stderr
    assert ended.said.startswith(f"cannot create a sweep at {server.url}: ")
    assert ended.said.endswith("with TRACKLAYER_BACKEND=sqlite, the same program sweeps without a server")


# -- a program ------------------------------------------------------------------------------------


def test_without_a_function_the_sweeps_program_is_run(machine: Machine, server: WandbServer) -> None:
    (machine.folder / "trial.py").write_text(
        """
import sys
import tracklayer

with tracklayer.init(config={"arguments": sys.argv[1:]}) as run:
    run.log({"loss": run.config["lr"]})
"""
    )
    ended = machine.run(
        QUICK
        + """
import sys
import tracklayer

sweep_id = tracklayer.sweep(
    {
        "method": "grid",
        "program": "trial.py",
        "command": [sys.executable, "${program}", "${args}"],
        "parameters": {"lr": {"values": [0.1]}},
    }
)
tracklayer.agent(sweep_id)
"""
    )
    assert ended.code == 0, ended.stderr
    (run,) = server.runs.values()
    assert (run.state, run.sweep) == ("finished", server.sweep.id)
    assert run.config == {"lr": 0.1, "arguments": ["--lr=0.1"]}
    assert [row["loss"] for row in run.history] == [0.1]


# -- a sweep without a server, pushed -------------------------------------------------------------


def test_a_sweep_that_ran_offline_is_pushed_as_a_group(machine: Machine, server: WandbServer) -> None:
    script = """
import os, signal, sys, time
import tracklayer

sweep_id = sys.argv[1] if sys.argv[1:] else tracklayer.sweep(
    {
        "method": "grid",
        "metric": {"name": "loss", "goal": "minimize"},
        "early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 2},
        "parameters": {
            "end": {"values": ["well", "pruned", "fails", "dies"]},
            "model": {"parameters": {"depth": {"value": 2}}},
        },
    },
    project="p",
)
print(sweep_id, flush=True)


def train():
    run = tracklayer.init()
    run.log({"loss": 9 if run.config.end == "pruned" else 1})
    if run.config.end == "fails":
        raise ValueError
    if run.config.end == "dies" and not sys.argv[1:]:
        time.sleep(0.3)  # so that what came so far is recorded
        os.kill(os.getpid(), signal.SIGKILL)
    while run.config.end == "pruned":
        time.sleep(0.02)
        run.log({"loss": 9})
    run.log({"loss": 0.5})


tracklayer.agent(sweep_id, train)
"""
    begun = machine.run(script, TRACKLAYER_BACKEND="sqlite")
    assert begun.code == -signal.SIGKILL, begun.stderr
    sweep_id = begun.stdout.strip()
    assert machine.run(script, sweep_id, TRACKLAYER_BACKEND="sqlite").code == 0
    assert server.requests == []

    machine.tracklayer("push", "--all", "--group", sweep_id).well()

    runs = server.runs.values()
    assert {(run.project, run.group, run.sweep) for run in runs} == {("p", sweep_id, None)}
    assert all(run.config["model"] == {"depth": 2} for run in runs)
    shown = [
        (run.config["end"], run.state, run.summary.get("loss"), run.summary.get("pruned")) for run in runs
    ]
    assert sorted(shown, key=str) == [
        ("dies", "failed", 1, None),  # W&B takes no crashed run for what it is
        ("dies", "finished", 0.5, None),
        ("fails", "failed", 1, None),
        ("pruned", "finished", 9, True),
        ("well", "finished", 0.5, None),
    ]
