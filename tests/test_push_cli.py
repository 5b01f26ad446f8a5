"""`tracklayer push` and what it shows, with a server in this process."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import tracklayer
from program import cli, on_a_terminal, read_json
from push_fakes import HostedRun, Line, MemoryServer
from tracklayer import pushing, registry
from tracklayer.cli.push import chains
from tracklayer.cli.working import work_through
from tracklayer.protocol import RunInfo


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> MemoryServer:
    found = MemoryServer(environment=None)
    backend, load = found.backend(), registry.load
    monkeypatch.setattr(registry, "load", lambda name: backend if name == "wandb" else load(name))
    monkeypatch.setattr(pushing, "_CONFIRM_SECONDS", 0.0)
    return found


def record(store: Path, run_id: str, rows: int = 2, **arguments: Any) -> None:
    arguments = {"project": "p", "resume": "allow", **arguments}
    with tracklayer.init(dir=store, backend="sqlite", id=run_id, **arguments) as run:
        for _ in range(rows):
            run.log({"a": run.step})


def test_the_named_runs_are_pushed_and_reported(store: Path, server: MemoryServer) -> None:
    for run_id in ("first", "second", "third"):
        record(store, run_id)
    *lines, total = cli("push", "second", "fir", "first").stdout.splitlines()
    assert sorted(line.split("; ")[0] for line in lines) == [
        "first: sent, 2 of 2 rows",
        "second: sent, 2 of 2 rows",
    ]
    assert all(line.endswith(f"http://x/{line.split(':')[0]}") for line in lines)
    assert total == "2 runs: 2 sent"
    assert set(server.runs) == {"first", "second"}
    assert server.runs["first"].cells() == {(0, "a"): [0], (1, "a"): [1]}


@pytest.mark.slow
def test_all_runs_are_pushed_as_far_as_they_are_new(store: Path, server: MemoryServer) -> None:
    record(store, "first", project="p", group="g")
    record(store, "second", project="q", group="g")
    record(store, "third", project="q")
    assert cli("push", "--all", "--project", "p").stdout.endswith("1 run: 1 sent\n")
    assert set(server.runs) == {"first"}
    assert cli("push", "--all", "--group", "g").stdout.endswith("2 runs: 1 unchanged, 1 sent\n")
    assert cli("push", "--all", "--state", "failed").stdout.startswith("nothing to push")
    assert cli("push", "--all").stdout.endswith("3 runs: 2 unchanged, 1 sent\n")
    assert cli("runs").stdout.count("  yes") == 3


def test_a_dry_run_says_what_would_be_sent(store: Path, server: MemoryServer) -> None:
    record(store, "first", 5)
    (would,) = read_json("push", "first", "--dry-run")["runs"]
    assert (would["outcome"], would["rows"], would["total"]) == ("would send", 5, 5)
    assert not server.runs
    assert not (store / "ledgers").exists()
    cli("push", "first")
    record(store, "first", 3)
    (would,) = read_json("push", "first", "--dry-run")["runs"]
    assert (would["outcome"], would["rows"], would["total"]) == ("would send", 3, 8)
    assert len(server.runs["first"].history) == 5
    assert "  62 %" in cli("runs").stdout


def test_a_run_that_fails_stops_no_other_and_is_exit_code_1(store: Path, server: MemoryServer) -> None:
    record(store, "first")
    record(store, "second")
    server.away.add("first")
    failed, sent, total = cli("push", "--all", "--jobs", "1", expect=1).stdout.splitlines()
    assert failed.startswith("first: failed")
    assert "not reachable" in failed
    assert "password" not in failed
    assert sent.startswith("second: sent")
    assert total == "2 runs: 1 failed, 1 sent"
    pushed = read_json("push", "--all", expect=1)
    assert [run["outcome"] for run in pushed["runs"]] == ["failed", "unchanged"]
    assert "password" not in json.dumps(pushed)


def test_what_was_cut_off_is_exit_code_1_and_shown_as_far_as_it_came(
    store: Path, server: MemoryServer
) -> None:
    record(store, "r", 4)
    server.lines_until_cut = 3
    (cut,) = read_json("push", "r", expect=1)["runs"]
    assert (cut["outcome"], cut["rows"]) == ("unconfirmed", 3)
    assert "push again" in cut["message"]
    assert cli("runs").stdout.splitlines()[1].endswith("  0 %")
    server.lines_until_cut = None
    assert read_json("push", "r")["runs"][0]["rows"] == 1


def test_a_run_that_cannot_be_read_stops_no_other_push(store: Path, server: MemoryServer) -> None:
    record(store, "first")
    record(store, "broken")
    (store / "runs" / "broken.sqlite").write_bytes(b"x" * 5000)
    result = cli("push", "--all", expect=4)
    assert "broken.sqlite" in result.stderr
    assert result.stdout.endswith("1 run: 1 sent\n")
    assert "nobody" in cli("push", "nobody", "first", expect=3).stderr
    assert set(server.runs) == {"first"}


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--all"),
        (["--project", "p"], "--all"),
        (["first", "--all"], "--all"),
        (["--all", "--id", "x"], "--id"),
        (["first", "--to", "somewhere"], "ENTITY/PROJECT"),
        (["first", "--to", "a/b/c"], "ENTITY/PROJECT"),
        (["first", "--to", "nobody:x"], "unknown backend"),
        (["first", "--to", "sqlite:"], "sqlite:FOLDER"),
        (["first", "--follow", "--dry-run"], "--follow"),
    ],
)
def test_what_cannot_be_meant_is_refused(store: Path, arguments: list[str], said: str) -> None:
    record(store, "first")
    assert said in cli("push", *arguments, expect=2).stderr


@pytest.mark.usefixtures("server")
def test_pushing_an_empty_store_does_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    assert cli("push", "--all", "--dir", folder).stdout == f"nothing to push in {folder}\n"


def test_a_run_goes_to_another_place_under_another_name(store: Path, server: MemoryServer) -> None:
    record(store, "r")
    asked: list[RunInfo] = []
    server.asked = asked.append
    assert read_json("push", "r", "--to", "team/other", "--id", "copy")["runs"][0]["outcome"] == "sent"
    assert {(info.entity, info.project, info.id) for info in asked} == {("team", "other", "copy")}
    assert set(server.runs) == {"copy"}
    assert cli("push", "r").stdout.splitlines()[-1] == "1 run: 1 sent"
    assert len(read_json("runs")["runs"][0]["pushes"]) == 2


def test_another_run_there_is_merged_with_force_only(store: Path, server: MemoryServer) -> None:
    record(store, "r")
    server.runs["r"] = HostedRun(created_at=5.0, state="finished", history=[Line(0, 0, {"z": 1})])
    assert "--force" in cli("push", "r", expect=1).stdout
    assert len(server.runs["r"].history) == 1
    cli("push", "r", "--force")
    assert server.runs["r"].cells() == {(0, "z"): [1], (0, "a"): [0], (1, "a"): [1]}


def test_two_pushes_of_one_run_do_not_meet(
    store: Path, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(store, "r", 3)
    reader = tracklayer.open_store(store).run("r")
    sending, go_on = threading.Event(), threading.Event()

    def wait(_value: Any) -> bool:
        sending.set()
        return go_on.wait(30)

    server.takes = wait
    first = threading.Thread(target=lambda: pushing.push(reader, server.backend(), store))
    first.start()
    assert sending.wait(30)
    monkeypatch.setattr(pushing, "LOCK_SECONDS", 0.1)
    report = pushing.push(reader, server.backend(), store)
    assert (report.outcome, report.message) == ("busy", "another push of run 'r' is at work")
    monkeypatch.setattr(pushing, "LOCK_SECONDS", 30.0)
    go_on.set()
    assert pushing.push(reader, server.backend(), store).outcome == "unchanged"
    first.join()
    assert len(server.runs["r"].history) == 3


@pytest.mark.slow
def test_several_are_pushed_at_a_time_and_no_more(store: Path, server: MemoryServer) -> None:
    for number in range(5):
        record(store, f"r{number}", 1)
    at_once, most, lock, two = 0, 0, threading.Lock(), threading.Barrier(2)

    def asked(_info: RunInfo) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        with contextlib.suppress(threading.BrokenBarrierError):
            two.wait(0.2)
        with lock:
            at_once -= 1

    server.asked = asked
    cli("push", "--all", "--jobs", "2")
    assert most == 2


def test_runs_with_artifacts_are_pushed_in_their_order(store: Path) -> None:
    for run_id in ("a", "b", "c", "d"):
        record(store, run_id, 1)
        if run_id in "bd":
            with tracklayer.init("p", dir=store, backend="sqlite", id=run_id, resume="must") as run:
                run.log_artifact(store / "runs" / "a.sqlite", "file", "data")
    readers = tracklayer.open_store(store).runs()
    assert [[one.id for one in chain] for chain in chains(readers)] == [["b", "d"], ["a"], ["c"]]


def test_an_error_of_a_program_stops_no_other_run_and_is_raised() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        if item == 1:
            raise ZeroDivisionError
        done.append(item)
        return item

    with pytest.raises(ZeroDivisionError):
        list(work_through([[0], [1, 2], [3]], work, 1))
    assert done == [0, 2, 3]


HOSTED = """
import sys
sys.path.insert(0, sys.argv[1])
from push_fakes import MemoryServer
from tracklayer import pushing, registry
from tracklayer.cli import main

server = MemoryServer(environment=None)
backend, load = server.backend(), registry.load
registry.load = lambda name: backend if name == "wandb" else load(name)
"""


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal(store: Path) -> None:
    record(store, "first", 30)
    slow = """
import time
server.takes = lambda value: time.sleep(0.03) or True
main(["push", "--all"])
"""
    shown = on_a_terminal(program=HOSTED + slow, columns=140)
    assert "of 30 rows" in shown
    assert "rows/s" in shown
    assert "first: sent, 30 of 30 rows; confirmed by the server" in shown


@pytest.mark.slow
def test_follow_pushes_what_is_new_until_it_is_interrupted(store: Path) -> None:
    record(store, "first", 2)
    code = 'main(["push", "--all", "--follow", "--every", "0.1", "--json"])'
    command = [sys.executable, "-c", HOSTED + code, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None

            def heard() -> tuple[str, str, int]:
                said: dict[str, Any] = {"rows": 0}
                while not said["rows"]:  # it may see a run that goes on before that has logged
                    said = json.loads(process.stdout.readline())  # type: ignore[union-attr]
                return said["run_id"], said["outcome"], said["rows"]

            assert heard() == ("first", "sent", 2)
            record(store, "first", 3)
            assert heard() == ("first", "sent", 3)
            record(store, "second", 1)
            assert heard() == ("second", "sent", 1)
            time.sleep(0.5)  # nothing happens, and nothing is said
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            assert (process.returncode, out, err) == (0, "", "")
        finally:
            process.kill()


@pytest.mark.slow
def test_a_second_interrupt_ends_a_push_that_is_at_work(store: Path) -> None:
    record(store, "first", 2)
    code = """
import time
server.takes = lambda value: print("sending", flush=True) or time.sleep(600)
main(["push", "--all", "--follow"])
"""
    command = [sys.executable, "-c", HOSTED + code, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "sending\n"
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) != 0
        finally:
            process.kill()


def test_a_ledger_that_cannot_be_written_is_a_report_and_nothing_is_sent(
    store: Path, server: MemoryServer
) -> None:
    record(store, "r")
    (store / "ledgers").write_text("in the way")
    assert "ledgers" in cli("push", "r", expect=1).stdout
    assert not server.runs


def test_a_store_that_is_damaged_meanwhile_is_a_report(store: Path, server: MemoryServer) -> None:
    record(store, "r", 3)

    def damage(_info: RunInfo) -> None:
        with contextlib.closing(sqlite3.connect(store / "runs" / "r.sqlite")) as connection, connection:
            connection.execute("DROP TABLE points")

    server.asked = damage
    (report,) = read_json("push", "r", expect=1)["runs"]
    assert report["outcome"] == "failed"
    assert "r.sqlite" in report["message"]
