"""Sweeps of programs: W&B's macros in a command, and what becomes of a trial by how its program ends."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from wandb.sdk.launch.sweeps import utils as wandb_sweeps

import tracklayer
from machine import Machine, killed_at_the_end, wait_until
from sweep_oracle import outcomes, trials
from tracklayer.errors import UsageError
from tracklayer.sweeps.agents import work_programs
from tracklayer.sweeps.configuration import read_config
from tracklayer.sweeps.programs import command_of
from tracklayer.sweeps.study import open_sweep

PARAMETERS: dict[str, Any] = {
    "rate": 1e-05,
    "epochs": 3,
    "name": "a b",
    "augment": True,
    "nesterov": False,
    "seed": None,
    "layers": [64, 32],
    "optimizer": {"name": "adam", "betas": {"first": 0.9}},
}
WANDBS = (
    "args",
    "args_no_equals",
    "args_no_hyphens",
    "args_no_boolean_flags",
    "args_json",
    "args_append_hydra",
    "args_override_hydra",
)

TRAIN = """
import json, os, sys
import tracklayer

with tracklayer.init() as run:
    run.log({"loss": run.config["x"]})
print(json.dumps([sys.argv[1:], os.environ["TRACKLAYER_JOB"], sys.stdin.read()]))
"""


def wandbs_command(command: list[Any], parameters: Mapping[str, Any]) -> list[str]:
    """Return what the agent of wandb makes of a command: `Agent._command_run` of `wandb.wandb_agent`."""
    macros = wandb_sweeps.create_sweep_command_args(
        {"args": {k: {"value": v} for k, v in parameters.items()}}
    )
    macros |= {"interpreter": [sys.executable], "program": ["train.py"], "env": ["/usr/bin/env"]}
    words: list[str] = []
    for word in map(str, wandb_sweeps.create_sweep_command(list(command))):
        if word.startswith("${") and word.endswith("}"):
            words += macros.get(word[2:-1]) or []
        else:
            words.append(word)
    return words


def our_command(command: list[Any] | None, parameters: Mapping[str, Any] = PARAMETERS) -> list[str]:
    given: dict[str, Any] = {"method": "grid", "program": "train.py", "parameters": {"x": {"value": 1}}}
    config = read_config(given | ({} if command is None else {"command": command}))
    return command_of(config, parameters, os.environ, "parameters.json")


@pytest.mark.parametrize("macro", WANDBS)
def test_a_macro_is_filled_in_as_wandb_does(macro: str) -> None:
    command = ["${env}", "${interpreter}", "-O", "${program}", f"${{{macro}}}", "--verbose"]
    assert our_command(command) == wandbs_command(command, PARAMETERS)


def test_without_a_command_it_is_that_of_wandb() -> None:
    assert our_command(None) == wandbs_command([], PARAMETERS)


def test_variables_stand_within_words_as_with_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.delenv("UNSET", raising=False)
    command = ["python", "--to=${envvar:SCRATCH}/${envvar:UNSET}", "x${args}", "${nonsense}", 7]
    expected = ["python", "--to=/scratch/UNSET", "x${args}", "7"]
    assert our_command(command) == wandbs_command(command, PARAMETERS) == expected


def test_the_file_of_parameters_is_named() -> None:
    assert our_command(["run", "${args_json_file}"]) == ["run", "parameters.json"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"program": "nowhere.py"}, "program 'nowhere.py' is not there in .*, nor on the PATH"),
        ({"program": "/nowhere.py"}, "program '/nowhere.py' is not there: "),
        ({"program": None}, "names no `program`"),
        ({"command": ["no-such-command", "${args}"]}, "program 'no-such-command' is not there"),
        ({"command": ["${nonsense}"]}, "`command` is empty"),
    ],
)
def test_a_program_that_is_not_here_is_told_before_a_trial_is_claimed(
    store: Path, changes: Mapping[str, Any], said: str
) -> None:
    sweep = create(1, **changes)
    with pytest.raises(UsageError, match=said):
        tracklayer.agent(sweep)
    assert trials(store, sweep) == []


def create(points: int, **changes: Any) -> str:
    config: dict[str, Any] = {
        "method": "grid",
        "program": "train.py",
        "metric": {"name": "loss"},
        "parameters": {"x": {"values": list(range(points))}},
    }
    given = {name: value for name, value in (config | changes).items() if value is not None}
    return tracklayer.sweep(given, project="p")


@pytest.mark.slow
def test_a_program_finds_its_trial(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("train.py").write_text(TRAIN)
    sweep = create(3)
    report = work_programs(open_sweep(store, sweep), jobs=2)
    assert (report.done, report.reason) == (3, "done")
    assert outcomes(store, sweep) == {0: ["finished"], 1: ["finished"], 2: ["finished"]}
    runs = tracklayer.open_store().runs(group=sweep)
    assert sorted(run.config["x"] for run in runs) == [0, 1, 2]
    printed, complaints = capfd.readouterr()
    assert complaints == ""
    said = [json.loads(line) for line in printed.splitlines()]
    assert sorted(arguments for arguments, _, _ in said) == [["--x=0"], ["--x=1"], ["--x=2"]]
    assert {job for _, job, _ in said} == {"0", "1"}
    assert {heard for _, _, heard in said} == {""}


ENDS = """
import os, signal, sys
from pathlib import Path
import tracklayer

x = int(sys.argv[1].removeprefix("--x="))
if x == 0:  # never says a word
    sys.exit(0)
if x == 1:
    sys.exit("no GPU")
run = tracklayer.init()
run.log({"loss": x})
if x == 2:
    raise ValueError("diverged")
if x == 3 and not Path("tried").exists():
    Path("tried").touch()
    run.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_trial_ends_as_its_program_does(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path("train.py").write_text(ENDS)
    sweep = create(5, parameters={"x": {"values": [4, 0, 1, 2, 3]}})
    report = work_programs(open_sweep(store, sweep))
    assert outcomes(store, sweep) == {
        0: ["failed"],
        1: ["failed"],
        2: ["failed"],
        3: ["died", "finished"],
        4: ["finished"],
    }
    assert (report.done, report.failed, report.died, report.reason) == (2, 3, 1, "done")
    assert "ended with code 0, and no run of it told the trial's end" in caplog.text
    assert "ended with code 1, and no run" in caplog.text
    assert "was ended by signal 9" in caplog.text
    assert {run.info.state for run in tracklayer.open_store().runs(group=sweep)} == {
        "failed",
        "crashed",
        "finished",
    }


WAITS = """
import sys, time
from pathlib import Path
import tracklayer

with tracklayer.init() as run:
    run.log({"loss": 1})
    if not Path("waited").exists():
        Path("waited").touch()
        time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_agent_ends_its_program_and_the_trial_is_tried_again(
    tmp_path: Path, number: signal.Signals
) -> None:
    machine = Machine(tmp_path / "machine")
    (machine.folder / "program.py").write_text(WAITS)
    made = machine.run(
        """
        import json, tracklayer
        print(json.dumps(tracklayer.sweep({
            "method": "grid", "program": "program.py", "metric": {"name": "loss"},
            "parameters": {"x": {"values": [0, 1]}},
        })))
        """
    )
    sweep = made.well().said
    script = "import sys, tracklayer; tracklayer.agent(sys.argv[1])"
    agent = machine.start(script, sweep)
    with killed_at_the_end(agent):
        wait_until((machine.folder / "waited").exists)
        agent.process.send_signal(number)
        ended = agent.end()
    assert ended.code == (143 if number == signal.SIGTERM else -signal.SIGINT)
    (run,) = tracklayer.open_store(machine.store).runs(group=sweep)
    assert (run.info.state, run.info.exit_code) == ("failed", 128 + number)
    machine.run(script, sweep).well()
    assert outcomes(machine.store, sweep) == {0: ["died", "finished"], 1: ["finished"]}


DEAF = """
trap "" TERM
echo $$ > deaf
sleep 600
"""


@pytest.mark.slow
def test_a_program_that_does_not_heed_a_signal_is_killed(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    (machine.folder / "program.sh").write_text(DEAF)
    agent = machine.start(
        """
        import tracklayer
        from tracklayer.sweeps import agents

        agents._GRACE = 0.3
        print(sweep := tracklayer.sweep({
            "method": "grid", "program": "program.sh", "command": ["sh", "${program}"],
            "parameters": {"x": {"values": [0, 1]}},
        }), flush=True)
        tracklayer.agent(sweep)
        """
    )
    with killed_at_the_end(agent):
        sweep = agent.hear()
        wait_until(lambda: (machine.folder / "deaf").exists() and (machine.folder / "deaf").read_text())
        program = psutil.Process(int((machine.folder / "deaf").read_text()))
        agent.process.terminate()
        assert agent.end().code == 143
    assert not program.is_running()
    assert outcomes(machine.store, sweep) == {0: ["died", "WAITING"], 1: ["WAITING"]}
