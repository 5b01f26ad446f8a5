"""`tracklayer wait`, and the conditions that it takes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tracklayer
from program import cli
from tracklayer.conditions import parse_condition
from tracklayer.errors import UsageError

KNOWN = {
    "state": "finished",
    "step": 1000,
    "exit_code": 0,
    "val/accuracy": 0.9,
    "nan": float("nan"),
    "flag": True,
    "note": "two words",
    "odd name": 1,
    "1e3": 5,
    "list": [1, 2],
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRACKLAYER_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


# -- conditions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("state == finished", True),
        ("state=='finished'", True),
        ("state != finished", False),
        ("step >= 1000", True),
        ("step > 1000", False),
        ("step<=1e3", True),
        ("step == 1000.0", True),
        ("val/accuracy > 0.89 and val/accuracy < .91", True),
        ("step < 10 or val/accuracy > 0.5 and state == running", False),
        ("(step > 10 or val/accuracy > 0.99) and state == finished", True),
        ("not (state == running or step < 1000)", True),
        ("not not step == 1000", True),
        ("not step == 1000 or exit_code == 0", True),
        ('note == "two words"', True),
        ('"odd name" == 1', True),
        ("1e3 == 5", True),
        ("flag == true", True),
        ("flag == false", False),
        ("state < g", True),
        # what is not known, or of another kind, compares to nothing
        ("absent == 1", False),
        ("absent != 1", False),
        ("not absent == 1", True),
        ("state == 1", False),
        ("state != 1", False),
        ('step == "1000"', False),
        ("nan == nan", False),
        ("nan < 1 or nan >= 1", False),
        ("list == 1", False),
    ],
)
def test_a_condition_holds_or_not(text: str, holds: bool) -> None:
    assert parse_condition(text)(KNOWN.get) is holds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "at character 1, it ends; the name of a metric"),
        ("step", "at character 5, it ends; one of == != < <= > >= is expected"),
        ("step = 1", "at character 6, there is '='; one of =="),
        ("step == ", "at character 9, it ends; a number or a word"),
        ("step == 1 2", "at character 11, there is '2'; 'and', 'or' or the end"),
        ("(step == 1", r"it ends; '\)'"),
        ("step == 1)", r"there is '\)'; 'and', 'or' or the end"),
        ("and == 1", "at character 1, there is 'and'; the name of a metric"),
        ("step == not", "at character 9, there is 'not'; a number or a word"),
        ("1 < step < 3", "at character 10, there is '<'; 'and', 'or' or the end"),
        ("note == 'two words", "the quote at character 9 is not closed"),
        ("__import__('os').system('true')", "there is "),
        ("(" * 1000 + "step == 1", "no more than 50 parts in one another"),
        ("not " * 1000 + "step == 1", "no more than 50 parts in one another"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_place(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_condition(text)


# -- runs that ended --------------------------------------------------------------------------------------


def test_the_exit_code_says_whether_it_holds(store: Path) -> None:
    with tracklayer.init(id="good") as run:
        run.define_metric("loss", summary="min")
        for step in range(10):
            run.log({"loss": 1 / (step + 1), "val/accuracy": step / 10}, step=step)
        run.summary["note"] = "done"
    assert cli("wait", "good").stdout == "good: finished, step 9\n"
    for condition in (
        "state == finished and exit_code == 0",
        "val/accuracy > 0.89",
        "step >= 9 and loss.min < 0.11",
        "note == done",
    ):
        cli("wait", "good", "--until", condition)
    assert (
        cli("wait", "good", "--until", "val/accuracy > 0.95", expect=1).stdout == "good: finished, step 9\n"
    )


def test_a_run_that_failed_has_ended(store: Path) -> None:
    tracklayer.init(id="bad").finish(3)
    assert cli("wait", "bad").stdout == "bad: failed, step -1\n"
    cli("wait", "bad", "--until", "state == finished", expect=1)
    cli("wait", "bad", "--until", "exit_code == 3 or step > 0")


def test_what_is_no_condition_is_exit_code_2_at_once(store: Path) -> None:
    output = cli("wait", "nobody", "--timeout", "600", "--until", "step > ", expect=2).stderr
    assert output == "tracklayer: 'step > ': at character 8, it ends; a number or a word is expected\n"


# -- runs that are still to end, or to begin --------------------------------------------------------------


def test_a_run_that_is_not_there_is_waited_for_only_with_a_time_limit(store: Path) -> None:
    assert cli("wait", "nobody", expect=3).stderr.startswith("tracklayer: no run 'nobody' in ")
    began = time.monotonic()
    done = cli("wait", "nobody", "--timeout", "0.3", "--interval", "0.05", expect=124)
    assert 0.3 <= time.monotonic() - began < 10
    assert done.stderr == "tracklayer: no run 'nobody' came in 0.3 s\n"


def test_a_live_run_that_takes_too_long_is_exit_code_124(store: Path) -> None:
    with tracklayer.init(id="live") as run:
        run.log({"loss": 1.0}, step=5)
        assert run.flush()
        cli("wait", "live", "--until", "step >= 5")
        done = cli("wait", "live", "--timeout", "0", expect=124)
        assert done.stderr == "tracklayer: it did not come to hold for run live in 0 s\n"
        cli("wait", "live", "--timeout", "0.1", "--interval", "60", "--until", "loss < 0.5", expect=124)


LIVE = """
    import sys, time, tracklayer
    print("ready", flush=True)
    sys.stdin.readline()
    run = tracklayer.init(id="live")
    run.log({"loss": 0.25}, step=7)
    run.flush()
    sys.stdin.readline()
"""


@pytest.fixture
def to_come(store: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that makes a run when it is told to, and ends it when it is told again."""
    code = textwrap.dedent(LIVE)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def waiting(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tracklayer", "wait", "live", "--interval", "0.05", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def tell(process: subprocess.Popen[str]) -> None:
    print(file=process.stdin, flush=True)


@pytest.mark.slow
def test_scripts_wait_for_a_run_to_begin_to_reach_a_value_and_to_end(
    to_come: subprocess.Popen[str],
) -> None:
    begun = waiting("--timeout", "60", "--until", "loss <= 0.25")
    ended = waiting("--timeout", "60")
    time.sleep(0.5)
    assert begun.poll() is None
    tell(to_come)
    assert begun.communicate(timeout=60) == ("live: running, step 7\n", "")
    assert begun.returncode == 0
    assert ended.poll() is None
    tell(to_come)
    assert ended.communicate(timeout=60) == ("live: finished, step 7\n", "")
    assert ended.returncode == 0


@pytest.mark.slow
def test_a_run_whose_process_was_killed_has_ended(to_come: subprocess.Popen[str]) -> None:
    tell(to_come)
    cli("wait", "live", "--timeout", "60", "--interval", "0.05", "--until", "step == 7")
    to_come.kill()
    to_come.wait()
    assert cli("wait", "live", "--timeout", "60").stdout == "live: crashed, step 7\n"
    cli("wait", "live", "--until", "state == finished", expect=1)
