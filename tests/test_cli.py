"""The command line: real stores, real files, and real processes where they matter."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

import tracklayer
from program import cli, on_a_terminal, read_json
from tracklayer.cli import main
from tracklayer.ledger import Entry, Ledger
from tracklayer.protocol import RunInfo, Status
from tracklayer.spill import Call, Spill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "store"
    monkeypatch.setenv("TRACKLAYER_DIR", str(folder))
    return folder


def record(store: Path, rows: Mapping[int, Mapping[str, Any]] | None = None, **arguments: Any) -> str:
    """Record a finished run; return its id."""
    with tracklayer.init(dir=store, backend="sqlite", **arguments) as run:
        for step, values in (rows or {0: {"loss": 1.0}}).items():
            run.log(values, step=step)
    return run.id


def run_file(store: Path, run_id: str) -> Path:
    return store / "runs" / f"{run_id}.sqlite"


def query(file: Path, sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute(sql).fetchall()


def change(file: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(sql)


def child(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


LIVE = """
import sys, time, tracklayer
run = tracklayer.init(dir=sys.argv[1], backend="sqlite", id=sys.argv[2], project="digits")
for step in range(100):
    run.log({"loss": 1 / (step + 1)}, step=step)
run.flush()
print("ready", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def live_run(store: Path, run_id: str) -> Iterator[subprocess.Popen[str]]:
    """Record 100 steps in another process, which lives on."""
    with child(LIVE, store, run_id) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def crash(store: Path, run_id: str) -> None:
    """Record 100 steps in another process, and kill that."""
    with live_run(store, run_id) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()


# -- the program as a whole -----------------------------------------------------------------------


def commands() -> dict[str, click.Command]:
    """Return every command by what is typed, such as `artifact show`."""
    found = dict(main.commands)
    groups = {name: command for name, command in found.items() if isinstance(command, click.Group)}
    return found | {
        f"{name} {sub}": one for name, group in groups.items() for sub, one in group.commands.items()
    }


def test_every_command_and_every_option_has_help() -> None:
    of_an_artifact = ("show", "get", "diff", "verify", "alias", "pin", "unpin", "delete")
    assert set(commands()) == {
        *("runs", "show", "media", "push", "export", "backends", "recover", "artifacts", "artifact", "gc"),
        *("diff", "logs", "reproduce", "wait", "sweeps", "sweep", "agent"),
        *(f"sweep {name}" for name in ("create", "show", "pause", "resume", "stop")),
        *(f"artifact {name}" for name in of_an_artifact),
    }
    for name, command in [("tracklayer", main), *commands().items()]:
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"


def test_the_short_help_of_a_command_is_a_whole_sentence() -> None:
    for words in map(str.split, commands()):
        listed = cli(*words[:-1], "--help").stdout
        line = re.search(rf"^  {words[-1]} +(.*)$", listed, re.MULTILINE)
        assert line is not None
        assert line[1].endswith("."), line[1]
        assert not line[1].endswith("..."), line[1]


def test_help_says_what_the_exit_codes_mean() -> None:
    assert "0 done" in " ".join(cli("--help").stdout.split())


def test_help_and_version_import_nothing_heavy() -> None:
    code = """
import sys
from tracklayer.cli import main
for argument in ("--version", "--help"):
    main([argument], standalone_mode=False)
print(sorted({"sqlalchemy", "rich", "numpy", "wandb", "tensorboardX", "plotille"} & set(sys.modules)))
"""
    with child(code) as process:
        output, _ = process.communicate()
    assert tracklayer.__version__ in output
    assert output.splitlines()[-1] == "[]"


def test_the_module_is_the_program() -> None:
    command = [sys.executable, "-m", "tracklayer", "show", "nobody"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("tracklayer: no run 'nobody' in ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_reader_that_has_enough_ends_the_program_without_a_word(store: Path) -> None:
    record(store, id="first")
    command = [sys.executable, "-m", "tracklayer", "show", "first"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.stderr == b""


def test_an_unknown_option_is_exit_code_2() -> None:
    cli("runs", "--nonsense", expect=2)
    cli("runs", "--state", "asleep", expect=2)


def test_the_folder_option_is_stronger_than_the_environment(store: Path, tmp_path: Path) -> None:
    record(store, id="here")
    record(tmp_path / "elsewhere", id="there")
    assert "there" not in cli("runs").stdout
    assert "there" in cli("runs", "--dir", tmp_path / "elsewhere").stdout


def test_a_store_that_is_a_file_is_exit_code_4(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    result = cli("runs", "--dir", tmp_path / "file", expect=4)
    assert result.stderr.startswith("tracklayer: ")
    assert result.stderr.count("\n") == 1


def test_a_store_that_cannot_be_listed_is_not_taken_for_an_empty_one(store: Path) -> None:
    store.mkdir()
    (store / "runs").write_text("not a folder")
    assert str(store) in cli("runs", expect=4).stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_store_that_may_not_be_read_is_exit_code_4(store: Path) -> None:
    record(store)
    (store / "runs").chmod(0)
    try:
        assert "ermission" in cli("runs", expect=4).stderr
    finally:
        (store / "runs").chmod(0o700)


# -- runs -----------------------------------------------------------------------------------------


def test_runs_are_listed_newest_last(store: Path) -> None:
    record(store, {0: {"a": 1}, 41: {"a": 2}}, id="older", name="first try", project="digits")
    record(store, id="newer", project="letters")
    header, older, newer = cli("runs").stdout.splitlines()
    assert " ".join(header.split()) == "id name project state steps created duration pushed"
    assert re.split(r"  +", older)[:5] == ["older", "first try", "digits", "finished", "42"]
    assert re.split(r"  +", newer)[:4] == ["newer", "newer", "letters", "finished"]


def test_a_run_without_rows_has_no_steps(store: Path) -> None:
    with tracklayer.init(dir=store, backend="sqlite", id="empty"):
        pass
    assert re.split(r"  +", cli("runs").stdout.splitlines()[1])[4] == "-"
    assert read_json("runs")["runs"][0]["steps"] == 0


def test_runs_are_chosen_by_project_group_and_state(store: Path) -> None:
    record(store, id="a", project="p", group="g")
    record(store, id="b", project="p")
    with pytest.raises(ZeroDivisionError), tracklayer.init("q", dir=store, id="c", group="g"):
        _ = 1 / 0

    def ids(*options: str) -> list[str]:
        return [run["id"] for run in read_json("runs", *options)["runs"]]

    assert ids("--project", "p") == ["a", "b"]
    assert ids("--group", "g") == ["a", "c"]
    assert ids("--state", "failed") == ["c"]
    assert ids("--project", "p", "--group", "g", "--state", "finished") == ["a"]
    assert ids("--project", "none") == []


def test_times_are_shown_in_the_local_time_zone(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = record(store)
    change(run_file(store, run_id), "UPDATE runs SET created_at = 1700000000.5")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert "2023-11-15 07:13:20+09:00" in cli("runs").stdout
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_the_duration_of_a_resumed_run_leaves_out_the_pause(store: Path) -> None:
    record(store, id="twice")
    file = run_file(store, "twice")
    change(file, "UPDATE runs SET created_at = created_at - 7200")
    change(file, "UPDATE segments SET started_at = started_at - 7200, ended_at = ended_at - 3600")
    record(store, id="twice", resume="must")
    assert read_json("runs")["runs"][0]["duration_seconds"] == pytest.approx(3600, abs=5)
    assert "  1:00:0" in cli("runs").stdout


def test_no_store_is_no_runs_and_says_where_it_looked(tmp_path: Path) -> None:
    assert cli("runs").stdout == f"no runs in {tmp_path / '.tracklayer'}\n"
    assert read_json("runs") == {
        "store": str(tmp_path / ".tracklayer"),
        "runs": [],
        "unreadable": [],
    }
    assert not (tmp_path / ".tracklayer").exists()


def test_run_files_that_cannot_be_read_are_marked_and_stop_nobody(store: Path) -> None:
    for run_id in ("whole", "torn", "garbage", "empty", "newer"):
        record(store, id=run_id)
    content = run_file(store, "torn").read_bytes()
    run_file(store, "torn").write_bytes(content[: len(content) // 2])
    run_file(store, "garbage").write_bytes(b"not a database" * 1000)
    run_file(store, "empty").write_bytes(b"")
    change(run_file(store, "newer"), "UPDATE schema_version SET version = 999")

    found = read_json("runs", "--project", "uncategorized")
    assert [run["id"] for run in found["runs"]] == ["whole"]
    reasons = {entry["file"]: entry["error"] for entry in found["unreadable"]}
    assert set(reasons) == {f"{name}.sqlite" for name in ("torn", "garbage", "empty", "newer")}
    assert "upgrade tracklayer" in reasons["newer.sqlite"]
    assert "empty" in reasons["empty.sqlite"]
    listed = cli("runs").stdout
    assert listed.splitlines()[1].startswith("whole ")
    for file, reason in reasons.items():
        assert re.search(rf"^{file} +{re.escape(reason)}$", listed, re.MULTILINE)


@pytest.mark.parametrize("table", ["runs", "segments", "points", "keys"])
def test_damage_inside_of_a_file_hides_no_other_run(store: Path, table: str) -> None:
    record(store, id="whole")
    record(store, id="damaged")
    file = run_file(store, "damaged")
    [(page,)] = query(file, f"SELECT rootpage FROM sqlite_master WHERE name = '{table}'")
    [(size,)] = query(file, "PRAGMA page_size")
    with file.open("r+b") as raw:
        raw.seek((page - 1) * size)
        raw.write(b"\xff" * size)
    found = read_json("runs")
    assert [run["id"] for run in found["runs"]] == ["whole"]
    assert len(found["unreadable"]) == 1
    assert "damaged" in cli("show", "damaged", expect=4).stderr


def test_text_that_is_no_text_any_more_is_damage(store: Path) -> None:
    record(store, id="whole")
    record(store, id="damaged", notes="a note")
    change(run_file(store, "damaged"), "UPDATE runs SET notes = CAST(x'ff9700' AS TEXT)")
    assert [run["id"] for run in read_json("runs")["runs"]] == ["whole"]


def test_runs_says_what_was_pushed(store: Path) -> None:
    for run_id in ("never", "stale", "sent"):
        record(store, id=run_id)
    record(store, {0: {"a": 1}, 49: {"a": 2}}, id="half")
    revision = tracklayer.open_store(store).run("sent").revision
    done = Entry(revision=revision, through=0, lines=1, confirmed_at=1.0, url="http://host/sent")
    Ledger(store, "sent").record("x:/p", done)
    Ledger(store, "stale").record("x:/p", replace(done, revision="another", url=""))
    Ledger(store, "half").record("x:/p", replace(done, through=30))
    last = {line.split()[0]: line for line in cli("runs").stdout.splitlines()}
    assert last["never"].endswith("  no")
    assert last["stale"].endswith("  changed since")
    assert last["half"].endswith("  62 %")
    assert last["sent"].endswith("  yes")
    assert "http://host/sent" in cli("show", "sent").stdout
    pushes = {run["id"]: run["pushes"] for run in read_json("runs")["runs"]}
    assert pushes["never"] == []
    assert [push["up_to_date"] for push in pushes["stale"] + pushes["sent"]] == [False, True]
    assert [pushes[run_id][0]["state"] for run_id in ("stale", "sent", "half")] == [
        "changed",
        "pushed",
        "partly",
    ]
    assert (pushes["half"][0]["through"], pushes["half"][0]["last_step"]) == (30, 49)


@pytest.mark.slow
def test_a_run_in_another_process_is_live_and_then_crashed(store: Path) -> None:
    with live_run(store, "watched") as process:
        [run] = read_json("runs", "--state", "running")["runs"]
        assert run["id"] == "watched"
        assert run["steps"] == 100
        process.send_signal(signal.SIGKILL)
        process.wait()
        [run] = read_json("runs", "--state", "crashed")["runs"]
        assert run["steps"] == 100


# -- finding a run --------------------------------------------------------------------------------


def test_a_run_is_found_by_id_by_prefix_and_by_name(store: Path) -> None:
    record(store, id="abc123", name="baseline")
    record(store, id="abd456", name="wider")
    for ref in ("abc123", "abc", "baseline"):
        assert read_json("show", ref)["id"] == "abc123"


def test_a_reference_to_several_runs_is_exit_code_3_and_lists_them(store: Path) -> None:
    record(store, id="abc123", name="same")
    record(store, id="abd456", name="same")
    for ref in ("ab", "same"):
        message = cli("show", ref, expect=3).stderr
        assert "abc123" in message
        assert "abd456" in message


def test_an_unknown_run_is_exit_code_3(store: Path, tmp_path: Path) -> None:
    record(store, id="abc")
    for ref in ("xyz", ""):
        assert "no run" in cli("show", ref, expect=3).stderr
    assert "no run" in cli("show", "abc", "--dir", tmp_path / "nowhere", expect=3).stderr
    assert "no run" in cli("export", "xyz", "--out", tmp_path / "out", expect=3).stderr


def test_a_run_that_cannot_be_read_is_exit_code_4_by_a_prefix_too(store: Path) -> None:
    record(store, id="whole")
    record(store, id="broken")
    run_file(store, "broken").write_bytes(b"x" * 5000)
    for ref in ("broken", "bro"):
        assert "broken.sqlite" in cli("show", ref, expect=4).stderr
    cli("show", "whole")


# -- show -----------------------------------------------------------------------------------------


@pytest.fixture
def rich_run(store: Path, tmp_path: Path) -> str:
    """Record a run with something of everything."""
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"\x00\x01")
    nan, infinity = float("nan"), float("inf")
    config = {"model": {"width": 32, "layers": [1, 2]}, "lr": 1e-3, "none": None, "bad": nan}
    with tracklayer.init(
        "digits", dir=store, backend="sqlite", id="full", name="all of it", group="g",
        job_type="train", tags=["x", "y"], notes="two\nlines", config=config,
    ) as run:  # fmt: skip
        run.define_metric("loss", summary="min")
        run.log({"loss": 2.5, "steps": 1 << 62, "note": "hello"}, step=3)
        run.log({"loss": nan, "up": infinity, "down": -infinity}, step=7)
        run.log({"grads": tracklayer.Histogram([1.0, 2.0])}, step=7)
        run.summary["best"] = infinity
        run.log_artifact(weights, "weights", "model")
    return run.id


def test_show_as_json_is_complete_and_strict(rich_run: str, store: Path) -> None:
    shown = read_json("show", rich_run)
    assert shown["config"] == {
        "model": {"width": 32, "layers": [1, 2]},
        "lr": 1e-3,
        "none": None,
        "bad": "NaN",
    }
    assert shown["tags"] == ["x", "y"]
    assert (shown["name"], shown["project"], shown["group"], shown["job_type"], shown["notes"]) == (
        "all of it", "digits", "g", "train", "two\nlines",
    )  # fmt: skip
    assert (shown["state"], shown["exit_code"], shown["steps"]) == ("finished", 0, 8)
    assert shown["summary"]["best"] == "Infinity"
    assert shown["summary"]["down"] == "-Infinity"
    assert {m["key"]: (m["points"], m["last_step"], m["last"]) for m in shown["metrics"]} == {
        "loss": (2, 7, "NaN"),
        "steps": (1, 3, 1 << 62),
        "up": (1, 7, "Infinity"),
        "down": (1, 7, "-Infinity"),
    }
    assert [(entry["key"], entry["kinds"], entry["steps"]) for entry in shown["media"]] == [
        ("note", ["text"], 1),
        ("grads", ["histogram"], 1),
    ]
    assert [rule["pattern"] for rule in shown["metric_rules"]] == ["loss"]
    [segment] = shown["segments"]
    assert segment["pid"] == os.getpid()
    [artifact] = shown["artifacts"]
    assert (artifact["name"], artifact["type"]) == ("weights", "model")
    [file] = artifact["files"]
    assert (file["path"], file["size"]) == ("weights.bin", 2)
    assert file["sha256"] == hashlib.sha256(b"\x00\x01").hexdigest()
    assert Path(file["source"]).is_relative_to(store)


def test_show_for_people_has_every_part(rich_run: str) -> None:
    shown = cli("show", rich_run).stdout
    for line in (
        r"name +all of it",
        r"notes +two\\nlines",
        r"tags +x, y",
        r"  model:",
        r"    width: 32",
        r"    layers: \[1, 2\]",
        r"loss +2 +7 +NaN",
        rf"steps +1 +3 +{1 << 62}",
        r"note +text +1 +3 +3 +- +-",
        r"weights:v0 +model +- +1 +2",
    ):
        assert re.search(rf"^{line}$", shown, re.MULTILINE), line


def test_plain_output_is_not_wrapped_shortened_or_decorated(store: Path) -> None:
    long_name, long_value = "n" * 128, "v" * 400
    record(store, id="i" * 100, name=long_name, config={"text": long_value})
    assert f"{'i' * 100}  {long_name}  " in cli("runs").stdout
    shown = cli("show", "i" * 100).stdout
    assert f"  text: {long_value}\n" in shown
    assert shown.isascii()
    assert "\x1b" not in shown


def test_what_a_run_holds_cannot_steer_the_terminal(store: Path) -> None:
    record(store, {0: {"\x1b[2Jkey": 1.0}}, id="r", config={"a\nb": "\x1b]0;title\x07"})
    shown = cli("show", "r").stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert r"a\nb: \x1b]0;title\x07" in shown


@pytest.mark.slow
def test_output_that_cannot_be_encoded_is_escaped(store: Path) -> None:
    record(store, id="r", name="näme", config={"greek": "λ"})
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "tracklayer", "show", "r"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert r"n\xe4me" in done.stdout
    assert r"\u03bb" in done.stdout


# -- on a terminal --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_terminal_gets_tables_that_fold_and_lose_nothing(store: Path) -> None:
    record(store, id="abcdefgh", name="a name that is longer than its column [bold]")
    written = on_a_terminal("runs")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", written)
    assert "─" in plain
    assert "\x1b[32m" in written  # finished is green
    assert "…" not in plain
    assert max(len(line) for line in plain.splitlines()) <= 80
    words = "".join(re.findall(r"[a-z\[\]]+", plain))
    assert "abcdefgh" in words
    shown = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal("show", "abcdefgh"))
    assert "[bold]" in shown


# -- export ---------------------------------------------------------------------------------------


def test_a_live_run_is_exported_whole(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.sqlite"
    with live_run(store, "live"):
        cli("export", "live", "--out", out)
    assert query(out, "SELECT count(*), max(step) FROM metrics WHERE key = 'loss'") == [(100, 99)]
    assert query(out, "PRAGMA integrity_check") == [("ok",)]
    assert query(out, "PRAGMA journal_mode") == [("delete",)]
    assert [file.name for file in tmp_path.glob("*out*")] == ["out.sqlite"]


@pytest.mark.slow
def test_a_crashed_run_is_exported_whole_and_readable_in_another_store(store: Path, tmp_path: Path) -> None:
    crash(store, "crashed")
    other = tmp_path / "other"
    (other / "runs").mkdir(parents=True)
    cli("export", "crashed", "--out", run_file(other, "crashed"))
    shown = read_json("show", "crashed", "--dir", other)
    assert shown["state"] == "crashed"
    assert shown["metrics"] == [{"key": "loss", "points": 100, "last_step": 99, "last": 0.01}]


def test_an_exported_file_may_be_read_by_whom_the_run_may(store: Path, tmp_path: Path) -> None:
    record(store, id="run")
    run_file(store, "run").chmod(0o640)
    cli("export", "run", "--out", tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


def test_export_overwrites_nothing(store: Path, tmp_path: Path) -> None:
    record(store, id="run")
    out = tmp_path / "out"
    out.write_text("mine")
    assert str(out) in cli("export", "run", "--out", out, expect=1).stderr
    assert out.read_text() == "mine"


def test_export_works_where_there_are_no_hard_links(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    record(store, id="run")
    monkeypatch.setattr(os, "link", refuse)
    cli("export", "run", "--out", tmp_path / "out")
    assert query(tmp_path / "out", "SELECT count(*) FROM metrics") == [(1,)]


def test_export_needs_a_folder_to_write_to(store: Path, tmp_path: Path) -> None:
    record(store, id="run")
    message = cli("export", "run", "--out", tmp_path / "no" / "out", expect=1).stderr
    assert str(tmp_path / "no") in message
    assert "--out" in cli("export", "run", expect=2).stderr


# -- backends -------------------------------------------------------------------------------------


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a distribution that registers a backend."""
    site = tmp_path / "site"

    def install(name: str, code: str) -> None:
        info = site / f"{name}-2.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
        (info / "entry_points.txt").write_text(f"[tracklayer.backends]\n{name} = {name}:backend\n")
        (site / f"{name}.py").write_text(code)

    monkeypatch.syspath_prepend(site)
    return install


def test_backends_are_listed_with_where_they_come_from(plug_ins: Callable[..., None]) -> None:
    plug_ins(
        "good",
        "from tracklayer.protocol import Backend\n"
        "backend = Backend('good', 'for tests', open=lambda *_: None)",
    )
    found = {backend["name"]: backend for backend in read_json("backends")["backends"]}
    assert {"sqlite", "tensorboard", "wandb", "disabled", "good"} <= set(found)
    assert found["sqlite"]["usable"]
    assert found["sqlite"]["default"]
    assert not found["wandb"]["default"]
    assert found["good"] == {
        "name": "good",
        "summary": "for tests",
        "from": "good 2.0",
        "entry_point": "good:backend",
        "usable": True,
        "reason": None,
        "default": False,
    }
    assert re.search(r"^good +- +yes +good 2.0 +for tests$", cli("backends").stdout, re.MULTILINE)


UNLICENSED = """
from tracklayer.protocol import Backend
def check():
    raise RuntimeError("no licence")
backend = Backend("bad", "for tests", open=lambda *_: None, check=check)
"""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import not_there_at_all", "not_there_at_all"),
        ("backend = 'no backend'", "no tracklayer.protocol.Backend"),
        ("1 / 0", "division"),
        ("syntax error", "syntax"),
        (UNLICENSED, "no licence"),
    ],
)
def test_a_backend_that_cannot_be_used_says_why(
    plug_ins: Callable[..., None], code: str, reason: str
) -> None:
    name = f"bad{abs(hash(code))}"
    plug_ins(name, code)
    found = {backend["name"]: backend for backend in read_json("backends")["backends"]}
    assert found["sqlite"]["usable"]
    assert not found[name]["usable"]
    assert reason in found[name]["reason"]


def test_the_default_backends_are_what_the_environment_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRACKLAYER_BACKEND", "tensorboard,nobody")
    found = read_json("backends")
    assert [backend["name"] for backend in found["backends"] if backend["default"]] == ["tensorboard"]
    assert found["unknown"] == ["nobody"]
    assert "'nobody'" in cli("backends").stdout


# -- recover --------------------------------------------------------------------------------------


def spill(run: RunInfo, *items: Any) -> Path:
    file = Spill(run)
    for item in items:
        file.write(item)
    file.close()
    return file.path


def read_info(store: Path, run_id: str) -> RunInfo:
    return tracklayer.open_store(store).run(run_id).info


@pytest.mark.slow
def test_what_a_hung_disk_did_not_take_is_recovered(store: Path, tmp_path: Path) -> None:
    code = """
import sqlite3, sys, tracklayer
run = tracklayer.init(dir=sys.argv[1], backend="sqlite", id="hung", config={"lr": 0.5})
run.log({"loss": 1.0}, step=0)
run.flush()
lock = sqlite3.connect(f"{sys.argv[1]}/runs/hung.sqlite")
lock.execute("BEGIN IMMEDIATE")
for step in range(1, 50):
    run.log({"loss": float(step), "text": "t", "h": tracklayer.Histogram([1.0, step])}, step=step)
run.summary["best"] = float("nan")
run.finish()
"""
    environment = {**os.environ, "TRACKLAYER_FINISH_TIMEOUT": "0.5"}
    command = [sys.executable, "-c", code, str(store)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    [file] = (tmp_path / "temporary").glob("tracklayer-hung-*.jsonl")
    assert f"tracklayer recover {file}" in done.stderr
    assert read_info(store, "hung").state == "crashed"

    recovered = cli("recover", file)
    assert recovered.stdout.startswith("run hung: ")
    assert not file.exists()
    reader = tracklayer.open_store(store).run("hung")
    assert (reader.info.state, reader.info.exit_code) == ("finished", 0)
    assert reader.metric("loss").value.tolist() == [1.0, *map(float, range(1, 50))]
    assert [row.values["h"] for row in reader.rows() if row.step == 7] == [tracklayer.Histogram([1.0, 7])]
    assert str(reader.summary["best"]) == "nan"


@pytest.mark.slow
def test_a_run_ends_as_it_had_ended(store: Path) -> None:
    record(store, id="finished")
    with pytest.raises(ZeroDivisionError), tracklayer.init(dir=store, id="failed"):
        _ = 1 / 0
    crash(store, "crashed")
    for run_id in ("finished", "failed", "crashed"):
        info = read_info(store, run_id)
        cli("recover", spill(info, (500, time.time(), {"loss": 0.25})))
        after = tracklayer.open_store(store).run(run_id)
        assert after.info.state == run_id
        assert (after.info.exit_code or 0) == (info.exit_code or 0)
        assert after.last_step == 500


def test_what_was_logged_again_since_keeps_the_newer_value(store: Path) -> None:
    run_id = record(store, {0: {"a": 10.0}, 1: {"a": 11.0}})
    earlier = time.time() - 60
    rows = [(step, earlier, {"a": -1.0, "b": float(step)}) for step in range(3)]
    cli("recover", spill(read_info(store, run_id), *rows))
    reader = tracklayer.open_store(store).run(run_id)
    assert reader.metric("a").value.tolist() == [10.0, 11.0, -1.0]
    assert reader.metric("b").value.tolist() == [0.0, 1.0, 2.0]


def test_recovering_twice_does_no_harm(store: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"w")
    with tracklayer.init(dir=store, id="run") as run:
        run.log({"a": 1.0}, step=0)
        run.log_artifact(weights, "weights", "model")
    [artifact] = tracklayer.open_store(store).run("run").artifacts()
    file = spill(
        read_info(store, "run"),
        (1, time.time(), {"a": 2.0}),
        Call("update_config", {"lr": 0.5}),
        Call("log_artifact", replace(artifact, name="other")),
        Call("log_artifact", artifact),
    )
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(file.read_bytes())
    for again in (file, copy):
        cli("recover", again)
    shown = read_json("show", "run")
    assert [metric["points"] for metric in shown["metrics"]] == [2]
    assert shown["config"] == {"lr": 0.5}
    assert [artifact["name"] for artifact in shown["artifacts"]] == ["weights", "other"]


def test_several_files_of_one_run_are_one_recovery(store: Path) -> None:
    run_id = record(store, {0: {"a": 0.0}})
    info = read_info(store, run_id)
    files = [spill(info, (step, time.time(), {"a": float(step)})) for step in (1, 2)]
    assert "2 calls" in cli("recover", *files).stdout
    shown = read_json("show", run_id)
    assert shown["steps"] == 3
    assert len(shown["segments"]) == 2


def test_a_torn_last_line_costs_that_line_only(store: Path) -> None:
    run_id = record(store)
    file = spill(read_info(store, run_id), *[(s, time.time(), {"a": 1.0}) for s in (1, 2)])
    file.write_bytes(file.read_bytes()[:-5])
    cli("recover", file)
    assert tracklayer.open_store(store).run(run_id).last_step == 1


def test_a_file_that_is_no_spill_is_exit_code_4_and_stays(store: Path, tmp_path: Path) -> None:
    run_id = record(store)
    good = spill(read_info(store, run_id), (1, time.time(), {"a": 1.0}))
    lines = good.read_text().splitlines(keepends=True)
    for content in ("", "hello\n", "{}\n", "[1]\n", '["run", 1]\n', lines[1], lines[0] + "x\n"):
        file = tmp_path / "bad.jsonl"
        file.write_text(content)
        message = cli("recover", file, expect=4).stderr
        assert "no spill of tracklayer's" in message
        assert file.exists()
    assert "missing" in cli("recover", tmp_path / "missing", expect=1).stderr
    assert len(read_json("show", run_id)["segments"]) == 1


def test_a_bad_file_does_not_stop_the_others(store: Path, tmp_path: Path) -> None:
    run_id = record(store)
    (tmp_path / "bad").write_text("hello\n")
    good = spill(read_info(store, run_id), (1, time.time(), {"a": 1.0}))
    cli("recover", tmp_path / "bad", good, expect=4)
    assert not good.exists()
    assert tracklayer.open_store(store).run(run_id).last_step == 1


@pytest.mark.usefixtures("store")
def test_recover_makes_no_run_unless_it_is_told_to() -> None:
    run = RunInfo("new", "digits", "my name", tags=("x",), created_at=1700000000.0)
    file = spill(run, (0, 1700000001.0, {"a": 1.0}), Call("finish", Status("failed", 3)))
    assert "--dir" in cli("recover", file, expect=3).stderr
    assert file.exists()
    cli("recover", file, "--create")
    shown = read_json("show", "new")
    assert (shown["project"], shown["name"], shown["tags"]) == ("digits", "my name", ["x"])
    assert (shown["state"], shown["exit_code"]) == ("failed", 3)
    assert shown["created_at"] == 1700000000.0


@pytest.mark.slow
def test_a_run_that_is_live_is_not_touched(store: Path) -> None:
    with live_run(store, "live") as process:
        file = spill(read_info(store, "live"), (500, time.time(), {"a": 1.0}))
        assert str(process.pid) in cli("recover", file, expect=1).stderr
        assert file.exists()
        assert read_json("show", "live")["steps"] == 100


def test_a_file_with_a_call_that_is_refused_is_kept(store: Path, tmp_path: Path) -> None:
    run_id = record(store)
    with tracklayer.init(dir=tmp_path / "other", id="maker") as maker:
        (tmp_path / "weights").write_bytes(b"w")
        maker.log_artifact(tmp_path / "weights", "weights", "model")
    [artifact] = tracklayer.open_store(tmp_path / "other").run("maker").artifacts()
    Path(artifact.files[0].source).unlink()
    file = spill(read_info(store, run_id), Call("log_artifact", artifact), (1, time.time(), {"a": 1.0}))
    assert str(file) in cli("recover", file, expect=1).stderr
    assert file.exists()
    assert tracklayer.open_store(store).run(run_id).last_step == 1
