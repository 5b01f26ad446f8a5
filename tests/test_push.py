"""`tracklayer push`: recorded runs become the W&B runs that they would have been."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tensorboard_oracle
import tracklayer
from machine import Ended, Machine, killed_at_the_end
from tracklayer import pushing, registry
from tracklayer.artifacts.locations import FolderLocation
from tracklayer.artifacts.records import LoggedArtifact
from tracklayer.protocol import RunInfo
from tracklayer.values import Histogram, Text
from wandb_server import API_KEY, Failure, Request, ServedRun, WandbServer

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path, server: WandbServer) -> Machine:
    return Machine(tmp_path, server, TRACKLAYER_BACKEND="sqlite")


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


SHORT = """
import os, sys, tracklayer
for name in sys.argv[1].split(","):
    with tracklayer.init(project="p", id=name, resume="allow") as run:
        for _ in range(10):
            run.log({"i": run.step})
        run.config["run"] = name
"""

# -- pushed is as recorded live -------------------------------------------------------------------

TRAIN = """
import json, math, pathlib, sys, time
import tracklayer

run = tracklayer.init(
    project="p", id="r", name="a name", group="g", job_type="train", tags=["x", "y"],
    notes="some notes", config={"lr": 0.1, "model": {"depth": 2, "sizes": [1, 2]}, "none": None},
)
run.define_metric("loss", summary=["min", "max", "mean", "last"])
run.define_metric("val/*", step_metric="epoch", summary="last")
run.define_metric("hidden", summary="none")
calls = []
for step, loss in enumerate([3.5, 1.5, 2.5, 4.5]):
    before = time.time()
    run.log({"loss": loss, "hidden": 1, "val": {"a": step}, "epoch": step // 2}, step=step * 3)
    calls.append([before, time.time()])
    time.sleep(0.2)
run.log({"nan": math.nan, "up": math.inf, "big": 2**53 + 1, "flag": True, "ключ": "слово"}, step=10)
run.log({"h": tracklayer.Histogram([0.0, 1.0, 1.0, 5.0], num_bins=4), "tiny": 1e-30}, step=10)
run.config["later"] = {"a": 1}
run.summary["best"] = {"score": 7}
run.summary["epoch"] = 100
weights = tracklayer.Artifact("model", "weights", description="d", metadata={"acc": 0.9})
pathlib.Path("weights.bin").write_bytes(bytes(range(256)) * 100)
weights.add_file("weights.bin", "sub/weights.bin")
run.log_artifact(weights)
print(json.dumps(calls))
sys.exit(3)
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The same script, recorded live, and recorded offline and pushed."""
    folder = tmp_path_factory.mktemp("both")
    with WandbServer() as one, WandbServer() as other:
        live = Machine(folder / "live", one, TRACKLAYER_BACKEND="wandb")
        offline = Machine(folder / "offline", other, TRACKLAYER_BACKEND="sqlite")
        started = {"live": live.start(TRAIN), "pushed": offline.start(TRAIN)}
        ended = {way: process.end() for way, process in started.items()}
        assert [(e.code, e.stderr) for e in ended.values()] == [(3, "")] * 2
        assert other.requests == []
        yield {
            "report": offline.push("r"),
            "live": one.runs["r"],
            "pushed": other.runs["r"],
            "ended": ended,
            "server": other,
        }


def without(row: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A row with NaN equal to itself."""
    return {k: "NaN" if v != v else v for k, v in row.items() if k not in keys}  # noqa: PLR0124


def test_what_was_pushed_is_reported(both: dict[str, Any]) -> None:
    report = both["report"]
    assert (report["outcome"], report["code"], report["stderr"]) == ("sent", 0, "")
    assert (report["rows"], report["total"]) == (5, 5)
    assert report["url"] == f"{both['server'].url}/tester/p/runs/r"


def test_a_pushed_run_is_called_as_live(both: dict[str, Any]) -> None:
    live, pushed = (
        (r.name, r.project, r.group, r.job_type, r.tags, r.notes, r.state, r.exit_code)
        for r in (both["live"], both["pushed"])
    )
    assert pushed == live
    assert pushed[-2:] == ("failed", 3)


def test_a_pushed_config_is_as_live(both: dict[str, Any]) -> None:
    assert both["pushed"].config == both["live"].config
    assert both["pushed"].config["later"] == {"a": 1}


def test_a_pushed_summary_is_as_live(both: dict[str, Any]) -> None:
    # the client's own: how long the sending process ran, and when this run's calls were
    differing = ("_runtime", "_wandb", "_timestamp")
    pushed = without(both["pushed"].summary, *differing)
    assert pushed == without(both["live"].summary, *differing)
    assert pushed["loss"] == {"min": 1.5, "max": 4.5, "mean": 3, "last": 4.5}
    assert (pushed["val/a"], pushed["epoch"]) == ({"last": 3}, 100)


def test_pushed_rows_are_as_live(both: dict[str, Any]) -> None:
    # the client's own: how long the sending process ran; and when the calls were, looked at below
    differing = ("_runtime", "_timestamp")
    live, pushed = (
        [without(row, *differing) for row in run.history] for run in (both["live"], both["pushed"])
    )
    assert pushed == live
    assert [row["_step"] for row in pushed] == [0, 3, 6, 9, 10]
    assert pushed[-1]["nan"] == "NaN"
    assert pushed[-1]["h"]["values"] == [3, 0, 0, 1]


def test_pushed_rows_have_the_times_of_their_calls(both: dict[str, Any]) -> None:
    for way in ("live", "pushed"):
        calls = both["ended"][way].said
        for row, (before, after) in zip(both[way].history, calls, strict=False):
            assert before <= row["_timestamp"] <= after


def test_a_pushed_artifact_is_as_live(both: dict[str, Any]) -> None:
    ((live,), (pushed,)) = (both["live"].artifacts, both["pushed"].artifacts)
    assert pushed.files == live.files == {"sub/weights.bin": bytes(range(256)) * 100}
    assert (pushed.name, pushed.type, pushed.digest) == (live.name, live.type, live.digest)
    assert (pushed.description, pushed.metadata) == ("d", {"acc": 0.9})


def test_what_the_pushing_machine_is_and_does_is_not_the_runs(both: dict[str, Any]) -> None:
    pushed = both["pushed"]
    assert pushed.events == []
    assert pushed.console == []
    assert not {"wandb-metadata.json", "requirements.txt", "output.log"} & set(pushed.files)


def test_pushed_late_rows_land_on_their_own_steps(server: WandbServer, machine: Machine) -> None:
    machine.run(
        """
        import tracklayer
        with tracklayer.init(project="p", id="r") as run:
            for step in (30, 10, 20, 10, 0):
                run.log({"a": step, "n": run.step}, step=step)
            run.log({"a": -10}, step=10)
            run.log({"b": 1}, step=20)
        """
    ).well()
    assert machine.push("r")["outcome"] == "sent"
    run = server.runs["r"]
    assert [row["_step"] for row in run.history] == [0, 10, 20, 30]
    assert column(run, "a") == {0: 0, 10: -10, 20: 20, 30: 30}
    assert column(run, "b") == {20: 1}
    assert all("tracklayer/step" not in row for row in run.history)
    assert (run.summary["a"], run.summary["b"]) == (30, 1)


# -- once, and only once --------------------------------------------------------------------------


def test_a_run_that_was_pushed_is_not_sent_again(server: WandbServer, machine: Machine) -> None:
    machine.run(SHORT, "r").well()
    would = machine.push("r", "--dry-run")
    assert (would["outcome"], would["rows"], would["code"]) == ("would send", 10, 0)
    assert writes(server.requests) == []
    assert server.runs == {}

    assert machine.push("r")["outcome"] == "sent"
    assert_complete(server, 10)
    assert not list((machine.folder / "temporary").glob("tracklayer-push-*"))
    assert not (machine.store / "wandb").exists()

    before = len(server.requests)
    again = machine.push("r")
    assert (again["outcome"], again["rows"], again["total"]) == ("unchanged", 0, 10)
    assert len(server.requests) == before

    shutil.rmtree(machine.store / "ledgers")
    unsure = machine.push("r")
    assert (unsure["outcome"], unsure["rows"]) == ("sent", 0)
    assert writes(server.requests[before:]) == []
    assert_complete(server, 10)


def test_another_server_has_its_own_entry_in_the_ledger(server: WandbServer, machine: Machine) -> None:
    machine.run(SHORT, "r").well()
    assert machine.push("r")["outcome"] == "sent"
    with WandbServer() as other:
        assert machine.push("r", WANDB_BASE_URL=other.url)["outcome"] == "sent"
        assert_complete(other, 10)
    assert machine.push("r")["outcome"] == "unchanged"


def test_new_rows_are_sent_by_the_next_push(server: WandbServer, machine: Machine) -> None:
    machine.run(SHORT, "r").well()
    assert machine.push("r")["outcome"] == "sent"
    machine.run(SHORT, "r").well()
    later = machine.push("r")
    assert (later["outcome"], later["rows"], later["total"]) == ("sent", 10, 20)
    assert_complete(server, 20)
    assert server.runs["r"].state == "finished"


def test_a_changed_summary_and_config_are_sent_by_the_next_push(
    server: WandbServer, machine: Machine
) -> None:
    change = """
        import sys, tracklayer
        with tracklayer.init(project="p", id="r", resume="must") as run:
            run.summary["note"] = run.config["note"] = sys.argv[1]
        """
    machine.run(SHORT, "r").well()
    assert machine.push("r")["outcome"] == "sent"
    for note in ("with its ledger", "without"):
        machine.run(change, note).well()
        assert machine.push("r")["outcome"] == "sent"
        run = server.runs["r"]
        assert (run.summary["note"], run.summary["i"]) == (note, 9)
        assert run.config == {"run": "r", "note": note}
        shutil.rmtree(machine.store / "ledgers")
    assert_complete(server, 10)


LIVE = """
import sys, time, tracklayer
run = tracklayer.init(project="p", id="r")
for i in range(50):
    run.log({"i": i}, step=i)
run.flush()
print("half", flush=True)
i = 50
while not sys.stdin.closed and i < 150:
    run.log({"i": i}, step=i)
    time.sleep(0.02)
    i += 1
sys.stdin.readline()
"""


def test_a_run_that_goes_on_is_pushed_so_far_and_later_whole(server: WandbServer, machine: Machine) -> None:
    training = machine.start(LIVE)
    with killed_at_the_end(training):
        training.hear()
        first = machine.push("r")
        assert (first["outcome"], first["stderr"]) == ("sent", "")
        assert first["total"] >= 50
        assert server.runs["r"].state == "running"
        assert len(server.runs["r"].history) >= first["total"]
        training.tell()
        training.end().well()
    assert machine.push("r")["outcome"] == "sent"
    assert_complete(server, 150)
    assert (server.runs["r"].state, server.runs["r"].summary["i"]) == ("finished", 149)


def test_a_run_that_is_recorded_live_is_left_to_its_own_client(server: WandbServer, machine: Machine) -> None:
    training = machine.start(LIVE, TRACKLAYER_BACKEND="wandb")
    with killed_at_the_end(training):
        training.hear()
        pushed = machine.push("r")
        assert (pushed["outcome"], pushed["rows"], pushed["code"]) == ("unchanged", 0, 0)
        assert "once it has ended" in pushed["message"]
        training.tell()
        training.end().well()
    assert (machine.push("r")["outcome"], machine.push("r")["outcome"]) == ("sent", "unchanged")
    assert_complete(server, 150)


def test_a_killed_run_can_be_pushed(server: WandbServer, machine: Machine) -> None:
    training = machine.start(LIVE)
    with killed_at_the_end(training):
        training.hear()
        training.process.send_signal(signal.SIGKILL)
    assert machine.recorded().info.state == "crashed"
    pushed = machine.push("r")
    assert pushed["outcome"] == "sent"
    assert_complete(server, pushed["total"])
    assert server.runs["r"].state == "failed"
    assert machine.push("r")["outcome"] == "unchanged"


def test_a_login_node_may_be_set_to_offline(server: WandbServer, machine: Machine) -> None:
    machine.run(SHORT, "r").well()
    assert machine.push("r", WANDB_MODE="offline")["outcome"] == "sent"
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

    def received(info: RunInfo, made: Sequence[LoggedArtifact], used: Sequence[LoggedArtifact]) -> None:
        asked.append(made)

    backend = replace(registry.load("sqlite"), received=received)
    report = pushing.push(reader, backend, tmp_path / "store", dry_run=True)
    assert (report.outcome, [made.label for made in asked[0]]) == ("would send", ["model:v3"])
    versions = {Path(name).stem for name in read if "/versions/" in name}
    assert versions == {"v3", "v11"}, "its own, and the newest, which `latest` names"


# -- a server that fails --------------------------------------------------------------------------


def everything(request: Request) -> bool:
    return True


def rows(request: Request) -> bool:
    return request.has_history


@pytest.mark.parametrize(
    ("what", "failures"),
    [
        (
            everything,
            [
                (Failure(status=401, message="not logged in"), "failed: .*not logged in"),
                (Failure(status=500, message="no database"), "failed: .*500"),
                (Failure(drop=True), "failed: .*http://127.0.0.1"),
            ],
        ),
        (
            rows,
            [
                (Failure(status=401), "unconfirmed: .*lacks 10 rows"),
                (Failure(status=500), "unconfirmed: .*lacks 10 rows"),
            ],
        ),
    ],
)
def test_a_server_that_fails_is_named_and_the_next_push_goes_on(
    server: WandbServer,
    machine: Machine,
    what: Callable[[Request], bool],
    failures: list[tuple[Failure, str]],
) -> None:
    machine.run(SHORT, "r").well()
    for service in ("GRAPHQL", "FILE_STREAM"):
        machine.environment[f"WANDB_X_{service}_RETRY_MAX"] = "1"
    for failure, said in failures:

        def fail(request: Request, failure: Failure = failure) -> Failure | None:
            return failure if what(request) else None

        server.fail = fail
        (pushed,) = push_impatiently(machine, "r")
        assert re.match(said, f"{pushed['outcome']}: {pushed['message']}")
    server.fail = None
    assert machine.push("r")["outcome"] == "sent"
    assert_complete(server, 10)
    assert server.runs["r"].state == "finished"


IMPATIENT = """
import sys
from tracklayer import pushing
from tracklayer.cli import main
pushing._CONFIRM_SECONDS = 0.5
main(["push", *sys.argv[1:], "--json"])
"""


def push_impatiently(machine: Machine, *arguments: str) -> list[dict[str, Any]]:
    """Push without waiting long for a server that may just be slow."""
    ended = machine.run(IMPATIENT, *arguments)
    assert (ended.code, ended.stderr) == (1, ""), ended.stderr
    return list(json.loads(ended.stdout)["runs"])


def test_rows_that_the_server_lost_are_missed_and_sent_again(server: WandbServer, machine: Machine) -> None:
    machine.run(SHORT, "r").well()

    def lose(request: Request) -> None:
        run = server.runs.get("r")
        if request.operation == "Run" and run and run.state == "finished":
            del run.history[7:]

    server.fail = lose
    (pushed,) = push_impatiently(machine, "r")
    assert (pushed["outcome"], pushed["rows"]) == ("unconfirmed", 7)
    assert "still lacks 3 rows" in pushed["message"]
    server.fail = None
    assert machine.push("r")["outcome"] == "sent"
    run = server.runs["r"]
    assert [row.get("tracklayer/step", row["_step"]) for row in run.history] == list(range(10))
    assert [row["_step"] for row in run.history] == [*range(7), 10, 11, 12]
    assert server.history_ranges("r") == [(0, 10), (7, 3)]
    assert run.summary["i"] == 9


def test_a_run_that_fails_stops_no_other(server: WandbServer, machine: Machine) -> None:
    machine.run(SHORT, "bad,good").well()

    def fail(request: Request) -> Failure | None:
        return Failure(status=403, message="not yours") if "bad" in str(request) else None

    server.fail = fail
    bad, good = push_impatiently(machine, "--all")
    assert (bad["run_id"], bad["outcome"]) == ("bad", "failed")
    assert "not yours" in bad["message"]
    assert (good["run_id"], good["outcome"]) == ("good", "sent")
    assert_complete(server, 10, "good")
    server.fail = None
    done = machine.tracklayer("push", "--all").well()
    assert "1 sent" in done.stdout
    assert "1 unchanged" in done.stdout
    assert_complete(server, 10, "bad")


def test_the_api_key_is_nowhere(server: WandbServer, machine: Machine) -> None:
    server.fail = lambda _: Failure(status=401, message="user is not logged in")
    said: list[Ended] = [machine.run(SHORT, "r", TRACKLAYER_BACKEND="wandb")]
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
        assert [without(row.values) for row in copy.rows()] == [without(row.values) for row in reader.rows()]
        assert [(r.step, r.time) for r in copy.rows()] == [(r.step, r.time) for r in reader.rows()]
        assert (copy.config, copy.rules) == (reader.config, reader.rules)
        assert without(copy.summary) == without(reader.summary)
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
        assert server.artifacts[0].files == {"weights.bin": b"weights"}
