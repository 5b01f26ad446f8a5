"""`tracklayer logs` prints what a run printed; and what a run says of the signal that ended it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

import tracklayer
from machine import Machine, killed_at_the_end, wait_until
from program import cli
from tracklayer.surroundings import ConsoleLine

BEGINNING = [
    ConsoleLine(1e9, "stdout", "first"),
    ConsoleLine(1e9 + 0.25, "stderr", "a warning"),
    ConsoleLine(1e9 + 0.5, "stdout", "steers\x1b[2J\x9b1m a\tterminal é 雪"),
    ConsoleLine(1e9 + 0.75, "stdout", ""),
    ConsoleLine(1e9 + 1.0, "stdout", "last"),
]


@pytest.fixture(autouse=True)
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKLAYER_DIR", str(tmp_path / "store"))
    with tracklayer.init(id="run", backend="sqlite") as run:
        run._sink.log_console(BEGINNING)  # type: ignore[attr-defined]


def test_logs_prints_the_lines_and_steers_no_terminal() -> None:
    assert cli("logs", "run").stdout.splitlines() == [
        "first",
        "a warning",
        "steers\\x1b[2J\\x9b1m a\tterminal é 雪",
        "",
        "last",
    ]


def test_logs_of_one_stream() -> None:
    assert cli("logs", "run", "--stream", "stderr").stdout == "a warning\n"


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (["-n", "2"], ["", "last"]),
        (["-n", "0"], []),
        (["-n", "99", "--stream", "stderr"], ["a warning"]),
        (["-n", "1", "--stream", "stderr"], ["a warning"]),
    ],
)
def test_logs_prints_only_the_last_lines(options: list[str], lines: list[str]) -> None:
    assert cli("logs", "run", *options).stdout.splitlines() == lines


def test_logs_says_when_each_line_was_printed() -> None:
    first = cli("logs", "run", "--times").stdout.splitlines()[1]
    found = re.fullmatch(r"(\S+ \S+)  a warning", first)
    assert found is not None
    assert datetime.fromisoformat(found[1]).timestamp() == 1e9 + 0.25


def test_logs_prints_a_json_object_a_line() -> None:
    lines = map(json.loads, cli("logs", "run", "--json").stdout.splitlines())
    assert [ConsoleLine(**line) for line in lines] == BEGINNING


def test_logs_follows_a_finished_run_to_its_end() -> None:
    assert cli("logs", "run", "--follow", "-n", "1").stdout == "last\n"


def test_logs_of_nobody_is_exit_code_3() -> None:
    assert "no run 'nobody'" in cli("logs", "nobody", expect=3).stderr


PRINTING = """
import sys, tracklayer
with tracklayer.init(id="r", backend="sqlite"):
    print("ready", flush=True)
    for line in sys.stdin:
        print("heard", line.strip(), flush=True)
        sys.stderr.write("without an end")
"""


@pytest.mark.slow
def test_logs_follows_a_run_that_goes_on(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    training = machine.start(PRINTING, TRACKLAYER_CONSOLE="python")
    with killed_at_the_end(training):
        assert training.hear() == "ready"
        with subprocess.Popen(
            [sys.executable, "-m", "tracklayer", "logs", "r", "--follow", "--dir", str(machine.store)],
            stdout=subprocess.PIPE,
            text=True,
        ) as following:
            assert following.stdout is not None
            assert following.stdout.readline() == "ready\n"
            training.tell("one")
            assert following.stdout.readline() == "heard one\n"
            training.process.communicate(timeout=60)
            assert following.stdout.read().splitlines()[-1] == "without an end"
            assert following.wait(60) == 0


@pytest.mark.slow
def test_an_interrupt_ends_following_quietly(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    training = machine.start(PRINTING, TRACKLAYER_CONSOLE="python")
    with killed_at_the_end(training):
        training.hear()
        with subprocess.Popen(
            [sys.executable, "-m", "tracklayer", "logs", "r", "--follow", "--dir", str(machine.store)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as following:
            assert following.stdout is not None
            assert following.stdout.readline() == "ready\n"
            following.send_signal(signal.SIGINT)
            assert following.communicate(timeout=60) == ("", "")
            assert following.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["python", "process"])
def test_what_a_killed_process_printed_is_recorded_but_for_the_last_moment(tmp_path: Path, mode: str) -> None:
    machine = Machine(tmp_path / "machine")
    training = machine.start(PRINTING, TRACKLAYER_CONSOLE=mode)
    with killed_at_the_end(training):
        training.hear()
        training.tell("one")
        wait_until(lambda: len(list(machine.recorded().console())) == 2)
        training.process.kill()
    assert [line.text for line in machine.recorded().console()] == ["ready", "heard one"]


WAITING = """
import signal, sys, time, tracklayer
if "own" in sys.argv:
    signal.signal(signal.SIGUSR1, lambda *_: print("its own", flush=True))
run = tracklayer.init(id="r", backend="sqlite")
print("ready", flush=True)
sys.stdin.readline()
run.finish()
"""


@pytest.mark.slow
def test_the_signal_by_which_slurm_warns_is_recorded(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    training = machine.start(WAITING, TRACKLAYER_CONSOLE="python", SLURM_JOB_ID="7")
    with killed_at_the_end(training):
        training.hear()
        training.process.send_signal(signal.SIGUSR1)
        assert training.process.wait(60) == -signal.SIGUSR1
    reader = machine.recorded()
    (environment,) = reader.environments().values()
    assert environment["preempted_by"] == "SIGUSR1"
    assert (reader.info.state, reader.info.exit_code) == ("failed", 128 + signal.SIGUSR1)
    assert [line.text for line in reader.console()] == ["ready"]


@pytest.mark.slow
def test_a_job_that_handles_the_warning_itself_goes_on(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    training = machine.start(WAITING, "own", SLURM_JOB_ID="7")
    with killed_at_the_end(training):
        training.hear()
        training.process.send_signal(signal.SIGUSR1)
        assert training.hear() == "its own"
        training.tell()
        assert training.end().code == 0
    reader = machine.recorded()
    assert reader.info.state == "finished"
    assert all("preempted_by" not in environment for environment in reader.environments().values())
