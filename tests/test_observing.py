"""What a process is, prints and measures is in its run's record, and costs the program nothing but that."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import tracklayer
from machine import Machine, wait_until
from tracklayer.arguments import Settings as WandbSettings
from tracklayer.cli import main
from tracklayer.environment import PARTS, capturing
from tracklayer.errors import UsageError
from tracklayer.reading import RunReader
from tracklayer.settings import Settings, read_settings
from wandb_server import WandbServer


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store, with the settings that a user has who set none."""
    for name in ("TRACKLAYER_CONSOLE", "TRACKLAYER_SYSTEM_INTERVAL", "TRACKLAYER_OMIT"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRACKLAYER_DIR", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "store"
    tracklayer.finish()


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What capturing the environment finds."""
    found = {"host": "h", "git": {"commit": "0123456789abcdef", "branch": "main", "dirty": True}}
    monkeypatch.setattr(capturing, "capture", lambda omit, started_at: {**found, "started_at": started_at})
    return found


def recorded(run_id: str = "r") -> RunReader:
    found = tracklayer.open_store().find(run_id)
    assert found is not None
    return found


def texts(run_id: str = "r") -> list[str]:
    return [line.text for line in recorded(run_id).console()]


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("tracklayer")}


# -- what is recorded ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_says_what_its_process_was_printed_and_measured(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    settings: dict[str, str | None] = {
        "TRACKLAYER_CONSOLE": None,
        "TRACKLAYER_OMIT": None,
        "TRACKLAYER_SYSTEM_INTERVAL": "0.05",
    }
    script = """
    import sys, time, tracklayer
    begin = time.time()
    with tracklayer.init(id="r", project="p", save_code=True) as run:
        print("hello", flush=True)
        print("trouble", file=sys.stderr)
        for step in range(20):
            run.log({"x": step})
            time.sleep(0.01)
        import jax
        jax.devices()
        print("no end", end="")
    print(begin)
    """
    ended = machine.run(script, "--lr", "0.1", **settings)
    assert ended.code == 0
    reader = machine.recorded()
    (environment,) = reader.environments().values()
    assert environment["program"] == "train.py"
    assert environment["args"] == ["--lr", "0.1"]
    assert environment["packages"]["tracklayer"] == tracklayer.__version__
    assert environment["jax"]["backend"] == "cpu"  # which it knew at the end alone
    begin = float(ended.stdout.removeprefix("hello\nno end"))
    assert begin <= environment["started_at"] <= reader.segments[0].started_at + 1
    assert [(line.stream, line.text) for line in reader.console()] == [
        ("stdout", "hello"),
        ("stderr", "trouble"),
        ("stdout", "no end"),
    ]
    rows = list(reader.system_metrics())
    assert len(rows) >= 2
    assert all("cpu" in row.values for row in rows)
    assert begin < rows[0].time < rows[-1].time <= reader.segments[0].heartbeat_at + 1
    (code,) = reader.artifacts()
    assert (code.label, code.type, [file.path for file in code.files]) == (
        environment["code"],
        "code",
        ["train.py"],
    )


@pytest.mark.slow
def test_a_run_that_is_preempted_says_by_which_signal(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    script = """
    import tracklayer
    run = tracklayer.init(id="r")
    run.log({"x": 1})
    print("up", flush=True)
    input()
    """
    started = machine.start(script, TRACKLAYER_CONSOLE=None)
    assert started.hear() == "up"
    started.process.send_signal(signal.SIGTERM)
    assert started.end().code == -signal.SIGTERM
    reader = machine.recorded()
    assert reader.info.state == "failed"
    assert reader.environments()[1]["preempted_by"] == "SIGTERM"
    assert reader.environments()[1]["program"] == "train.py"
    assert [line.text for line in reader.console()] == ["up"]


def test_a_program_may_say_that_it_is_preempted(captured: dict[str, Any]) -> None:
    run = tracklayer.init(id="r")
    tracklayer.mark_preempting()
    run.finish(1)
    assert recorded().environments()[1].items() >= {"preempted_by": "mark_preempting", "host": "h"}.items()
    assert captured


@pytest.mark.slow
def test_w_and_b_is_told_at_once_that_a_run_is_preempted(tmp_path: Path) -> None:
    script = """
        import tracklayer
        run = tracklayer.init(project="p", id="r", backend="wandb")
        run.mark_preempting()
        run.finish(1)
    """
    with WandbServer() as server:
        assert Machine(tmp_path / "machine", server).run(script).code == 0
        assert any(request.body.get("preempting") for request in server.requests if request.body)
        assert server.runs["r"].state == "failed"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.slow
def test_a_forked_child_records_nothing_of_itself_in_the_parents_run(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    script = """
    import os, time, tracklayer
    run = tracklayer.init(id="r")
    print("parent", flush=True)
    child = os.fork()
    if not child:
        print("child", flush=True)
        time.sleep(0.3)
        os._exit(0)
    os.waitpid(child, 0)
    print("parent again", flush=True)
    run.finish()
    """
    ended = machine.run(script, TRACKLAYER_CONSOLE="python", TRACKLAYER_SYSTEM_INTERVAL="0.1").well()
    assert ended.stdout == "parent\nchild\nparent again\n"
    assert [line.text for line in machine.recorded().console()] == ["parent", "parent again"]
    times = [row.time for row in machine.recorded().system_metrics()]
    assert len(times) == len(set(times)) > 2


def test_a_resumed_run_has_an_environment_for_each_segment(captured: dict[str, Any]) -> None:
    tracklayer.init(id="r").finish(1)
    captured["host"] = "another"
    tracklayer.init(id="r", resume="must").finish()
    assert [env["host"] for env in recorded().environments().values()] == ["h", "another"]


def test_a_replay_of_several_segments_says_what_the_last_process_was(captured: dict[str, Any]) -> None:
    tracklayer.init(id="r").finish(1)
    run = tracklayer.init(id="r", resume="must")
    run.mark_preempting()
    run.finish(1)
    captured.clear()
    captured["host"] = "another"
    tracklayer.init(id="r", resume="must").finish()
    tracklayer.replay(recorded(), tracklayer.init(id="copy"))
    (environment,) = recorded("copy").environments().values()
    assert environment.keys() == {"host", "started_at"}
    assert environment["host"] == "another"


# -- what is not --------------------------------------------------------------------------------------


def test_where_nothing_is_recorded_nothing_is_looked_at() -> None:
    before, streams = threads(), (sys.stdout.write, sys.stderr.write)
    with tracklayer.init(mode="disabled"):
        assert (sys.stdout.write, sys.stderr.write) == streams
        assert threads() - before <= {"tracklayer-disabled"}


def test_each_of_them_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, captured: dict[str, Any]) -> None:
    monkeypatch.setenv("TRACKLAYER_CONSOLE", "off")
    monkeypatch.setenv("TRACKLAYER_SYSTEM_INTERVAL", "0")
    monkeypatch.setenv("TRACKLAYER_OMIT", ",".join(PARTS))
    before = threads()
    with tracklayer.init(id="r"):
        click.echo("not recorded")
        assert threads() - before <= {"tracklayer-sqlite"}
    reader = recorded()
    assert (reader.environments(), texts(), list(reader.system_metrics())) == ({}, [], [])
    assert captured


# -- trouble ------------------------------------------------------------------------------------------


def test_what_fails_is_reported_once_and_costs_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(omit: frozenset[str], started_at: float) -> dict[str, Any]:
        raise OSError(28, f"no space {len(omit)} {started_at > 0}")

    monkeypatch.setattr(capturing, "capture", fails)
    monkeypatch.setenv("TRACKLAYER_SYSTEM_INTERVAL", "0.05")
    with tracklayer.init(id="r") as run:
        run.log({"x": 1})
        click.echo("printed")
        wait_until(lambda: run.flush() and list(recorded().system_metrics()))
    messages = [record.getMessage() for record in caplog.records if record.name == "tracklayer"]
    assert messages == [
        "tracklayer: the environment of this process cannot be recorded: OSError(28, 'no space 0 True')"
    ]
    assert recorded().environments() == {}
    assert "printed" in texts()
    assert recorded().summary == {"x": 1}


def test_finish_waits_a_while_and_no_longer_for_what_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()

    def hangs(omit: frozenset[str], started_at: float) -> dict[str, Any]:
        released.wait(30)
        return {"host": "too late", "omit": len(omit), "started_at": started_at}

    monkeypatch.setattr(capturing, "capture", hangs)
    monkeypatch.setattr("tracklayer.observing._PATIENCE", 0.3)
    monkeypatch.setenv("TRACKLAYER_SYSTEM_INTERVAL", "0")
    run = tracklayer.init(id="r")
    click.echo("printed")
    begin = time.monotonic()
    run.finish()
    assert 0.3 <= time.monotonic() - begin < 10
    released.set()
    assert ["still being looked for" in record.getMessage() for record in caplog.records] == [True]
    assert recorded().environments() == {}
    assert texts() == ["printed"]
    assert recorded().info.state == "finished"


# -- settings -----------------------------------------------------------------------------------------

NO_GIT, NO_CODE = frozenset({"git"}), frozenset({"code", "diff"})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ("python", 10.0, frozenset())),
        (
            {"TRACKLAYER_CONSOLE": "process", "TRACKLAYER_SYSTEM_INTERVAL": "2.5"},
            ("process", 2.5, frozenset()),
        ),
        ({"TRACKLAYER_OMIT": " git, Diff,,"}, ("python", 10.0, frozenset({"git", "diff"}))),
        ({"WANDB_CONSOLE": "off", "WANDB_DISABLE_GIT": "true"}, ("off", 10.0, NO_GIT)),
        ({"WANDB_CONSOLE": "redirect", "WANDB_DISABLE_CODE": "1"}, ("process", 10.0, NO_CODE)),
        ({"WANDB_CONSOLE": "wrap_emu", "WANDB_DISABLE_GIT": "false"}, ("python", 10.0, frozenset())),
        ({"WANDB_CONSOLE": "off", "TRACKLAYER_CONSOLE": "python"}, ("python", 10.0, frozenset())),
        (
            {"TRACKLAYER_OMIT": "user", "WANDB_DISABLE_GIT": "1", "WANDB_DISABLE_CODE": "yes"},
            ("python", 10.0, NO_GIT | NO_CODE | {"user"}),
        ),
    ],
)
def test_the_environment_says_what_is_recorded_of_a_process(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: tuple[Any, ...]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert said(read_settings()) == expected


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TRACKLAYER_CONSOLE", "wrap", "use 'python' .the default., 'process' or 'off'"),
        ("TRACKLAYER_SYSTEM_INTERVAL", "-1", "use a number of seconds"),
        ("TRACKLAYER_OMIT", "git,gti", "names gti; use words of arguments, code, "),
        ("WANDB_CONSOLE", "on", "use one of 'auto', 'off', "),
    ],
)
def test_a_setting_that_cannot_be_right_opens_no_run(
    monkeypatch: pytest.MonkeyPatch, store: Path, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=f"{variable}.*{message}"):
        tracklayer.init()
    assert not store.exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("process", 10.0, NO_CODE | {"user"})),
        ({"console": "off"}, ("off", 10.0, NO_CODE | {"user"})),
        ({"console": "auto", "x_disable_stats": True}, ("python", 0.0, NO_CODE | {"user"})),
        ({"x_stats_sampling_interval": 3, "disable_git": True}, ("process", 3, NO_CODE | NO_GIT | {"user"})),
        ({"disable_code": False}, ("process", 10.0, NO_CODE | {"user"})),
        ({"x_save_requirements": False}, ("process", 10.0, NO_CODE | {"user", "packages"})),
        ({"x_disable_meta": True, "x_disable_stats": False}, ("process", 10.0, PARTS)),
    ],
)
def test_wandbs_settings_are_stronger_than_the_environment(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    monkeypatch.setenv("TRACKLAYER_CONSOLE", "process")
    monkeypatch.setenv("TRACKLAYER_OMIT", "code,diff,user")
    assert said(WandbSettings(**given).applied_to(read_settings())) == expected


def said(settings: Settings) -> tuple[Any, ...]:
    return settings.console, settings.system_interval, settings.omit


# -- looking at it ------------------------------------------------------------------------------------


def test_show_says_what_the_process_of_each_segment_was(captured: dict[str, Any]) -> None:
    captured |= {"program": "train.py", "args": ["--name", "a b"], "python": "3.11.7"}
    captured["jax"] = {"jax": "0.5", "flax": "1", "backend": "gpu", "process_count": 2}
    captured["jax"]["devices"] = [{"kind": "H100", "count": 8, "memory_bytes": 1}]
    with tracklayer.init(id="r"):
        click.echo("printed")
    captured["git"] = {"commit": "fedcba9876543210"}
    tracklayer.init(id="r", resume="must").finish()
    shown = CliRunner().invoke(main, ["show", "r"], catch_exceptions=False).output
    environment, segments = shown.split("environment\n")[1].split("segments\n")
    assert [line.split(None, 1) for line in environment.splitlines() if line] == [
        ["commit", "fedcba9876"],
        ["program", "train.py --name 'a b'"],
        ["host", "h"],
        ["python", "3.11.7"],
        ["jax", "jax 0.5, flax 1"],
        ["devices", "8 x H100"],
        ["processes", "2"],
    ]
    assert [line.split("  ")[-1] for line in segments.splitlines()[1:3]] == [
        "0123456789 (dirty)",
        "fedcba9876",
    ]
    described = json.loads(CliRunner().invoke(main, ["show", "r", "--json"]).output)
    assert [segment["environment"]["git"]["commit"] for segment in described["segments"]] == [
        "0123456789abcdef",
        "fedcba9876543210",
    ]
    assert described["console_lines"] == 1
    assert described["system_rows"] == len(list(recorded().system_metrics())) > 0
