"""`tracklayer push`: recorded runs become the W&B runs that they would have been.

The real client sends them.  What is sent when is tried in `test_planning.py`; what becomes of each field in
`test_push_equals_live.py`; kills at any instant in `test_push_trials.py`.
"""

from __future__ import annotations

import math
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tensorboard_oracle
import tracklayer
from machine import Ended, Machine, killed_at_the_end, wait_until
from tracklayer import pushing, registry
from tracklayer.artifacts.locations import FolderLocation
from tracklayer.artifacts.records import LoggedArtifact
from tracklayer.delivery import Question
from tracklayer.protocol import RunInfo
from tracklayer.push_report import Place, PushReport
from tracklayer.values import Histogram, Text
from tracklayer_wandb.client import wait_for_orphan
from wandb_server import API_KEY, Failure, Request, ServedRun, WandbServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WandbServer]:
    """A server, and this process as its client."""
    import wandb

    home = tmp_path_factory.mktemp("home")
    (home / "temporary").mkdir()
    with WandbServer() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment(home).items():
            patch.setenv(name, "1" if name.endswith("RETRY_MAX") else value)
        patch.setattr(tempfile, "tempdir", str(home / "temporary"))
        wandb.teardown()
        yield server
        wandb.teardown()


@pytest.fixture
def server(listening: WandbServer) -> Iterator[WandbServer]:
    yield listening
    listening.fail = None
    for run_id in listening.runs:
        listening.delete(run_id)
    listening.store._deleted.clear()
    listening.requests.clear()


@pytest.fixture
def machine(tmp_path: Path, server: WandbServer) -> Machine:
    return Machine(tmp_path, server, TRACKLAYER_BACKEND="sqlite")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def record(store: Path, rows: int = 10, run_id: str = "r", **config: Any) -> None:
    """Record rows of a run, or more of them."""
    options: dict[str, Any] = {"project": "p", "id": run_id, "resume": "allow", "config": config}
    with tracklayer.init(dir=store, backend="sqlite", **options) as run:
        for _ in range(rows):
            run.log({"i": run.step})


def push(store: Path, run_id: str = "r", **options: Any) -> PushReport:
    """Push a run with the real client, in this process."""
    reader = tracklayer.open_store(store).run(run_id)
    return pushing.push(reader, registry.load("wandb"), store, **options)


def column(run: ServedRun, key: str) -> dict[int, Any]:
    """The values of a key by W&B's step."""
    return {row["_step"]: row[key] for row in run.history if key in row}


def sent_lines(server: WandbServer, run_id: str = "r") -> list[int]:
    """The number of each history line that was ever sent, in order."""
    ranges = server.history_ranges(run_id)
    return [line for start, count in ranges for line in range(start, start + count)]


def writes(requests: list[Request]) -> list[str]:
    """What of these requests changes something."""
    changing = {"UpsertBucket", "CreateRunFiles", "CreateArtifact", "CommitArtifact", "UseArtifact"}
    return [r.operation or r.path for r in requests if r.operation in changing or r.is_stream]


def assert_complete(server: WandbServer, steps: int, run_id: str = "r") -> None:
    """Demand rows 0, 1, … of the key "i", each sent once, each at its own step."""
    run = server.runs[run_id]
    assert column(run, "i") == {step: step for step in range(steps)}
    assert sent_lines(server, run_id) == list(range(steps))


# -- once, and only once --------------------------------------------------------------------------


def test_a_run_that_was_pushed_is_not_sent_again(server: WandbServer, store: Path) -> None:
    record(store)
    would = push(store, dry_run=True)
    assert (would.outcome, would.rows) == ("would send", 10)
    assert writes(server.requests) == []
    sent = push(store)
    assert (sent.outcome, sent.rows, sent.url) == ("sent", 10, f"{server.url}/tester/p/runs/r")
    assert_complete(server, 10)
    assert server.runs["r"].state == "finished"

    before = len(server.requests)
    again = push(store)
    assert (again.outcome, again.rows, again.total) == ("unchanged", 0, 10)
    assert len(server.requests) == before

    shutil.rmtree(store / "ledgers")
    unsure = push(store)
    assert (unsure.outcome, unsure.rows) == ("sent", 0)
    assert writes(server.requests[before:]) == []
    assert_complete(server, 10)


def test_what_is_new_is_sent_by_the_next_push(server: WandbServer, store: Path) -> None:
    record(store, note="one")
    assert push(store).outcome == "sent"
    record(store, note="two")
    later = push(store)
    assert (later.outcome, later.rows, later.total) == ("sent", 10, 20)
    assert_complete(server, 20)
    for note in ("with its ledger", "without"):
        with tracklayer.init(dir=store, backend="sqlite", id="r", resume="must") as run:
            run.summary["note"] = run.config["note"] = note
        assert push(store).outcome == "sent"
        found = server.runs["r"]
        assert (found.summary["note"], found.summary["i"], found.config) == (note, 19, {"note": note})
        shutil.rmtree(store / "ledgers")
    assert_complete(server, 20)
    assert server.runs["r"].state == "finished"


def test_late_rows_land_on_their_own_steps_or_tell_them(server: WandbServer, store: Path) -> None:
    with tracklayer.init("p", dir=store, backend="sqlite", id="r") as run:
        for step in (30, 10, 20, 10, 0):
            run.log({"a": step}, step=step)
        run.log({"a": -10}, step=10)
    assert push(store).late == 0
    found = server.runs["r"]
    assert column(found, "a") == {0: 0, 10: -10, 20: 20, 30: 30}
    with tracklayer.init(dir=store, backend="sqlite", id="r", resume="must") as run:
        run.log({"a": 15, "b": 1}, step=15)
        run.log({"a": 77, "b": 2}, step=20)
    report = push(store)
    assert (report.late, report.repeated) == (2, 1)
    assert [(row["_step"], row["tracklayer/step"]) for row in found.history[4:]] == [(31, 15), (32, 20)]
    assert [{k: v for k, v in row.items() if len(k) == 1} for row in found.history[4:]] == [
        {"a": 15, "b": 1},
        {"b": 2},
    ]
    assert (found.summary["a"], found.summary["b"]) == (30, 2)


def test_each_place_has_its_own_entry_in_the_ledger(server: WandbServer, store: Path) -> None:
    record(store)
    assert push(store).outcome == "sent"
    assert push(store, place=Place(run_id="copy")).outcome == "sent"
    assert_complete(server, 10, "copy")
    assert push(store, place=Place(project="other", run_id="third")).outcome == "sent"
    assert server.runs["third"].project == "other"
    assert push(store).outcome == "unchanged"


def test_a_run_there_that_is_not_ours_is_left_alone(server: WandbServer, store: Path, tmp_path: Path) -> None:
    record(store, note="mine")
    push(store)
    record(tmp_path / "other", 3, note="theirs")
    report = push(tmp_path / "other")
    assert (report.outcome, "--force" in report.message) == ("failed", True)
    assert server.runs["r"].config == {"note": "mine"}
    assert_complete(server, 10)


def test_two_pushes_at_once_send_once(server: WandbServer, machine: Machine) -> None:
    record(machine.store, 50)
    pushes = [machine.start("from tracklayer.cli import main; main(['push', 'r', '--json'])") for _ in "ab"]
    with killed_at_the_end(*pushes):
        outcomes = sorted(one.end().well().stdout.count('"sent"') for one in pushes)
    assert outcomes == [0, 1]
    assert_complete(server, 50)


LIVE = """
import sys, time, tracklayer
run = tracklayer.init(project="p", id="r")
for i in range(50):
    run.log({"i": i}, step=i)
run.flush()
print("half", flush=True)
sys.stdin.readline()
for i in range(50, 100):
    run.log({"i": i}, step=i)
"""


def test_a_run_that_goes_on_is_pushed_so_far_and_later_whole(
    server: WandbServer, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracklayer.choosing._SETTLE_SECONDS", 0.0)
    training = machine.start(LIVE)
    with killed_at_the_end(training):
        training.hear()
        first = push(machine.store)
        assert (first.outcome, first.rows, first.waiting) == ("sent", 49, 1)
        assert server.runs["r"].state == "running"
        training.tell()
        training.end().well()
    assert push(machine.store).rows == 51
    assert_complete(server, 100)
    assert (server.runs["r"].state, server.runs["r"].summary["i"]) == ("finished", 99)


def test_a_run_that_is_recorded_live_is_left_to_its_own_client(server: WandbServer, machine: Machine) -> None:
    training = machine.start(LIVE, TRACKLAYER_BACKEND="wandb")
    with killed_at_the_end(training):
        training.hear()
        report = push(machine.store)
        assert (report.outcome, report.rows) == ("unchanged", 0)
        assert "once it has ended" in report.message
        training.tell()
        training.end().well()
    assert [push(machine.store).outcome for _ in "ab"] == ["sent", "unchanged"]
    assert_complete(server, 100)


def test_a_killed_run_can_be_pushed(server: WandbServer, machine: Machine) -> None:
    training = machine.start(LIVE)
    with killed_at_the_end(training):
        training.hear()
        training.process.send_signal(signal.SIGKILL)
        training.process.wait()
    assert machine.recorded().info.state == "crashed"
    report = push(machine.store)
    assert (report.outcome, report.total) == ("sent", 50)
    assert_complete(server, 50)
    assert server.runs["r"].state == "failed"
    assert push(machine.store).outcome == "unchanged"


def test_a_login_node_may_be_set_to_offline(
    server: WandbServer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(store)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert push(store).outcome == "sent"
    assert_complete(server, 10)


def test_of_what_many_runs_made_a_push_reads_what_its_own_run_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        with tracklayer.init(project="p", id=f"r{number}", backend="sqlite", dir=tmp_path / "store") as run:
            (tmp_path / "w.bin").write_text(str(number))
            run.log_artifact(tmp_path / "w.bin", name="model", type="model")
    reader = tracklayer.open_store(tmp_path / "store").run("r3")
    read: list[str] = []
    read_file = FolderLocation.read

    def noted(self: FolderLocation, name: str) -> bytes | None:
        read.append(name)
        return read_file(self, name)

    monkeypatch.setattr(FolderLocation, "read", noted)
    asked: list[Sequence[LoggedArtifact]] = []

    def received(info: RunInfo, question: Question) -> None:
        asked.append(question.made)

    backend = replace(registry.load("wandb"), received=received)
    report = pushing.push(reader, backend, tmp_path / "store", dry_run=True)
    assert (report.outcome, [made.label for made in asked[0]]) == ("would send", ["model:v3"])
    versions = {Path(name).stem for name in read if "/versions/" in name}
    assert versions == {"v3", "v11"}, "its own, and the newest, which `latest` names"


# -- a server that fails --------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [Failure(status=401), Failure(status=500), Failure(drop=True)])
@pytest.mark.parametrize("only_rows", [False, True])
def test_a_server_that_fails_costs_a_report_and_the_next_push_goes_on(
    server: WandbServer, store: Path, failure: Failure, only_rows: bool
) -> None:
    record(store)
    server.fail = lambda request: failure if request.has_history or not only_rows else None
    report = push(store)
    assert report.outcome == ("unconfirmed" if only_rows else "failed")
    server.fail = None
    assert push(store).outcome == "sent"
    assert_complete(server, 10)
    assert server.runs["r"].state == "finished"


def test_rows_that_the_server_lost_are_missed_and_sent_again(
    server: WandbServer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "_CONFIRM_SECONDS", 0.5)
    record(store)

    def lose(request: Request) -> None:
        run = server.runs.get("r")
        if request.operation == "Run" and run and run.state == "finished":
            del run.history[7:]

    server.fail = lose
    report = push(store)
    assert (report.outcome, report.rows) == ("unconfirmed", 7)
    assert "still lacks 3 rows" in report.message
    server.fail = None
    assert push(store).outcome == "sent"
    run = server.runs["r"]
    assert [row.get("tracklayer/step", row["_step"]) for row in run.history] == list(range(10))
    assert sent_lines(server) == [*range(10), 7, 8, 9]
    assert run.summary["i"] == 9


def test_a_table_whose_artifact_did_not_arrive_is_missed_and_sent_again(
    server: WandbServer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "_CONFIRM_SECONDS", 0.0)
    with tracklayer.init("p", dir=store, backend="sqlite", id="r") as run:
        run.log({"cells": tracklayer.Table(columns=["a"], data=[[1]])})
    server.fail = lambda request: Failure(403) if request.operation == "CommitArtifact" else None
    report = push(store)
    assert (report.outcome, "run_table/run-r-cells" in report.message) == ("unconfirmed", True)
    server.fail = None
    assert push(store).outcome == "sent"
    assert [made.name for made in server.runs["r"].artifacts] == ["run-r-cells"]
    assert len(server.runs["r"].history) == 1


def test_a_run_that_made_what_is_there_already_is_shown_as_its_maker_by_the_push_after_one_cut_off(
    server: WandbServer, store: Path, tmp_path: Path
) -> None:
    (tmp_path / "w.bin").write_text("the same")
    for run_id in ("first", "second"):
        with tracklayer.init("p", dir=store, backend="sqlite", id=run_id) as run:
            run.log({"i": 0})
            run.log_artifact(tmp_path / "w.bin", name="shared", type="model")
    assert push(store, "first").outcome == "sent"
    server.fail = lambda request: Failure(503) if request.operation == "RunOutputArtifacts" else None
    assert push(store, "second").outcome == "unconfirmed"
    assert server.runs["second"].artifacts == []
    server.fail = None
    assert push(store, "second").outcome == "sent"
    assert [made.name for made in server.runs["second"].artifacts] == ["shared"]
    assert_complete(server, 1, "second")


HALF = """
import sys, tracklayer
run = tracklayer.init(project="p", id="r")
for i in range(20):
    run.log({"i": i}, step=i)
    print("line", i, file=sys.stderr)
run.flush()
sys.stdin.readline()
"""


def test_of_a_run_that_was_recorded_live_half_way_what_its_client_told_stays(
    server: WandbServer, machine: Machine
) -> None:
    environment: dict[str, str | None] = {
        "TRACKLAYER_BACKEND": "wandb",
        "TRACKLAYER_CONSOLE": "python",
        "TRACKLAYER_SYSTEM_INTERVAL": "0.2",
        "TRACKLAYER_OMIT": None,
        "WANDB_X_DISABLE_STATS": "false",
    }
    training = machine.start(HALF, **environment)
    with killed_at_the_end(training):
        wait_until(lambda: "r" in server.runs and len(server.runs["r"].console) == 20)
        wait_until(lambda: "e" in server.runs["r"].raw_config["_wandb"]["value"])
        training.process.kill()
        training.process.wait()
    wait_for_orphan("r")
    found = server.runs["r"]
    events = list(found.events)
    told = found.raw_config["_wandb"]["value"]["e"]
    assert push(machine.store).outcome == "sent"
    assert_complete(server, 20)
    assert "wandb-metadata.json" in found.files, "its client had not sent it yet"
    assert found.raw_config["_wandb"]["value"]["e"].items() >= told.items()
    assert [line.split()[-1] for line in found.console] == [str(i) for i in range(20)]
    assert found.events[: len(events)] == events
    times = [row["_timestamp"] for row in found.events]
    assert times == sorted(times)


SHORT = """
import tracklayer
with tracklayer.init(project="p", id="r") as run:
    run.log({"i": 0})
"""


def test_the_api_key_is_nowhere(server: WandbServer, machine: Machine) -> None:
    server.fail = lambda _: Failure(status=401, message="user is not logged in")
    said: list[Ended] = [machine.run(SHORT, TRACKLAYER_BACKEND="wandb")]
    said.append(machine.tracklayer("push", "--all"))
    server.fail = None
    said.append(machine.tracklayer("push", "--all"))
    said.append(machine.tracklayer("backends"))
    assert [ended.code for ended in said] == [0, 1, 0, 0]
    assert not any(API_KEY in ended.stdout + ended.stderr for ended in said)
    written = [path for path in machine.folder.rglob("*") if path.is_file()]
    assert any(path.parent.name == "ledgers" for path in written)
    assert [path for path in written if API_KEY.encode() in path.read_bytes()] == []


# -- replay into anything -------------------------------------------------------------------------


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row with NaN equal to itself."""
    return {k: "NaN" if v != v else v for k, v in row.items()}  # noqa: PLR0124


RECORD = """
import math, pathlib, tracklayer
with tracklayer.init(project="p", id="r", name="a name", config={"a": {"b": [1]}}) as run:
    run.define_metric("loss", summary="min")
    for step in (3, 1, 2):
        run.log({"loss": step * 0.5, "n": step}, step=step)
    run.log({"nan": math.nan, "text": "words", "h": tracklayer.Histogram([1, 2, 2])}, step=4)
    run.summary["best"] = 1
    pathlib.Path("weights.bin").write_bytes(b"weights")
    run.log_artifact("weights.bin", "model", "weights")
"""

REPLAY = """
import sys, tracklayer
reader = tracklayer.open_store().run("r")
copy = tracklayer.init(project="p", id="copy", name="copy", backend=sys.argv[1], dir="copies")
tracklayer.replay(reader, copy)
"""


@pytest.mark.parametrize("backend", ["sqlite", "tensorboard", "wandb"])
def test_a_recorded_run_is_replayed_into_any_backend(
    server: WandbServer, machine: Machine, backend: str
) -> None:
    machine.run(RECORD).well()
    machine.run(REPLAY, backend).well()
    reader, copies = machine.recorded(), machine.folder / "copies"
    histogram = Histogram([1, 2, 2])
    if backend == "sqlite":
        copy = tracklayer.open_store(copies).run("copy")
        assert [plain(row.values) for row in copy.rows()] == [plain(row.values) for row in reader.rows()]
        assert [(r.step, r.time) for r in copy.rows()] == [(r.step, r.time) for r in reader.rows()]
        assert (copy.config, copy.rules) == (reader.config, reader.rules)
        assert plain(copy.summary) == plain(reader.summary)
        assert copy.summary["loss"] == {"min": 0.5}
        (artifact,) = copy.artifacts()
        assert Path(artifact.files[0].source).read_bytes() == b"weights"
        assert copy.info.state == "finished"
        *_, last = copy.rows()
        assert (last.values["text"], last.values["h"]) == (Text("words"), histogram)
    elif backend == "tensorboard":
        shown = tensorboard_oracle.read(copies / "tensorboard" / "p" / "copy")
        assert shown.steps("loss") == [(1, 0.5), (2, 1.0), (3, 1.5)]
        times = {point.step: point.wall_time for point in shown.scalars["n"]}
        assert times == {row.step: row.time for row in reader.rows() if "n" in row.values}
        assert math.isnan(shown.scalars["nan"][0].value)
        assert shown.text("text") == "words"
        assert shown.histograms["h"][0].count == 3
        assert shown.json("tracklayer/config") == {"a": {"b": [1]}}
    else:
        run = server.runs["copy"]
        assert column(run, "loss") == {1: 0.5, 2: 1.0, 3: 1.5}
        times = {row["_step"]: row["_timestamp"] for row in run.history}
        assert times == {row.step: row.time for row in reader.rows()}
        assert column(run, "text") == {4: "words"}
        assert column(run, "h")[4]["values"] == list(histogram.bins.counts)
        assert (run.config, run.state) == ({"a": {"b": [1]}}, "finished")
        assert (run.summary["loss"], run.summary["best"]) == ({"min": 0.5}, 1)
        assert run.artifacts[0].files == {"weights.bin": b"weights"}
