"""What the TensorBoard backend writes is what TensorBoard shows, in its own loaders and plugins."""

from __future__ import annotations

import errno
import logging
import math
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tensorboard_oracle as oracle
import tracklayer
from tensorboard_oracle import Session, Shown
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.errors import (
    BackendLostError,
    BackendUnavailableError,
    RunExistsError,
    RunFinishedError,
    RunNotFoundError,
    StoreError,
)
from tracklayer.protocol import (
    Resume,
    Run,
    RunInfo,
    Status,
    TakesEnvironment,
    TakesSystemMetrics,
    TakesUses,
)
from tracklayer.settings import Settings
from tracklayer.surroundings import SystemRow
from tracklayer.values import Histogram, Text
from tracklayer_tensorboard import backend, event_file, mending

START = 1_700_000_000.0
KEYS = ("loss", "a/b/c", "with space", "été 損失 🙂", "k" * 600, "", "/", "config", "../up", "a\nb")
NOT_TEXT = "half \ud83d pair"


def info(run_id: str = "run", project: str = "demo", **fields: Any) -> RunInfo:
    """Describe a run."""
    return RunInfo(run_id, project, name=run_id, created_at=START, **fields)


def opened(store: Path, run_id: str = "run", resume: Resume | None = None, **fields: Any) -> Run:
    """Open a run of a store."""
    return backend.open(info(run_id, **fields), resume, Settings(("tensorboard",), store))


def folder(store: Path, run_id: str = "run") -> Path:
    """Return where a run's event files are."""
    return store / "tensorboard" / "demo" / run_id


def log(run: Run, points: dict[int, Any], key: str = "loss") -> None:
    """Log one key at some steps, in the order given, a second a step."""
    for step, value in points.items():
        run.log({key: value}, step=step, time=START + step)


# -- what both of TensorBoard's loaders show ------------------------------------------------------

Scenario = Callable[[Path, str], None]
SCENARIOS: dict[str, Scenario] = {}


def scenario(write: Scenario) -> Scenario:
    """Make a function one of those whose runs are read with either loader."""
    SCENARIOS[write.__name__] = write
    return write


@pytest.fixture(scope="module", params=["python_loader", "data_server"])
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Shown]:
    """What TensorBoard shows of each scenario: with its Python loader, and with its default one."""
    store = tmp_path_factory.mktemp("store")
    for name, write in SCENARIOS.items():
        write(store, name)
    try:
        runs = getattr(oracle, request.param)(store / "tensorboard")
    except oracle.NoDataServerError:
        pytest.skip("TensorBoard has no data server for this platform")
    return lambda name: runs[f"demo/{name}"]


@scenario
def numbers(store: Path, name: str) -> None:
    run = opened(store, name)
    values = {"nan": math.nan, "inf": math.inf, "ninf": -math.inf, "third": 1 / 3, "yes": True}
    integers = {"int": 7, "huge": 10**400, "nhuge": -(10**400), "big": 1 << 80, "double": 1e300}
    run.log({**values, **integers}, step=3, time=START + 0.123456)
    run.finish(Status())


def test_numbers_are_shown_as_float32(shown: Callable[[str], Shown]) -> None:
    values = {tag: points[0].value for tag, points in shown("numbers").scalars.items()}
    assert math.isnan(values.pop("nan"))
    assert values == {
        "inf": math.inf,
        "ninf": -math.inf,
        "third": pytest.approx(1 / 3, rel=1e-7),
        "yes": 1.0,
        "int": 7.0,
        "huge": math.inf,
        "nhuge": -math.inf,
        "big": float(1 << 80),
        "double": math.inf,
    }


def test_a_point_has_its_rows_step_and_time(shown: Callable[[str], Shown]) -> None:
    (point,) = shown("numbers").scalars["int"]
    assert (point.step, point.wall_time) == (3, START + 0.123456)


@scenario
def keys(store: Path, name: str) -> None:
    run = opened(store, name)
    run.update_config({"lr": 0.1})
    run.log({key: number for number, key in enumerate((*KEYS, NOT_TEXT))}, step=0, time=START)
    run.finish(Status())


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_a_tag_whatever_it_contains(shown: Callable[[str], Shown], key: str) -> None:
    assert shown("keys").steps(key) == [(0, KEYS.index(key))]


def test_a_key_that_is_no_unicode_is_spelled_out(shown: Callable[[str], Shown]) -> None:
    assert shown("keys").steps(r"half \ud83d pair") == [(0, len(KEYS))]


@scenario
def a_changing_kind(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, {0: 1.0, 1: Text("one"), 2: 2.0}, key="x")
    run.finish(Status())


def test_a_key_that_changes_its_kind_goes_on_beside(shown: Callable[[str], Shown]) -> None:
    run = shown("a_changing_kind")
    assert run.steps("x") == [(0, 1.0), (2, 2.0)]
    assert run.text("x (text)") == "one"


@scenario
def histograms(store: Path, name: str) -> None:
    run = opened(store, name)
    values = [0.0, 1.0, 1.0, 4.0, math.nan, math.inf]
    counted = Histogram(np_histogram=([1, (1 << 40) + 1], [0.1, 0.2, 0.3]))
    run.log(
        {
            "array": Histogram(values, num_bins=4),
            "counted": counted,
            "empty": Histogram([]),
            "only nan": Histogram([math.nan]),
            "constant": Histogram([5, 5, 5], num_bins=2),
        },
        step=2,
        time=START,
    )
    run.finish(Status())


def test_a_histogram_keeps_edges_and_counts(shown: Callable[[str], Shown]) -> None:
    run = shown("histograms")
    (point,) = run.histograms["array"]
    assert (point.step, point.wall_time, point.count) == (2, START, 4)
    assert point.buckets == [(0, 1, 1), (1, 2, 2), (2, 3, 0), (3, 4, 1)]
    (point,) = run.histograms["counted"]
    assert point.buckets == [(0.1, 0.2, 1), (0.2, 0.3, (1 << 40) + 1)]
    (point,) = run.histograms["constant"]
    assert point.count == 3


@pytest.mark.parametrize("tag", ["empty", "only nan"])
def test_a_histogram_without_finite_elements_is_empty(shown: Callable[[str], Shown], tag: str) -> None:
    (point,) = shown("histograms").histograms[tag]
    assert point.buckets == []
    assert {value for _, value in point.percentiles} == {0.0}


def test_a_histogram_has_a_distribution(shown: Callable[[str], Shown]) -> None:
    values = [value for _, value in shown("histograms").histograms["array"][0].percentiles]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (0.0, 4.0)


@scenario
def texts(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, {0: Text("**bold** été"), 4: Text(""), 5: Text(NOT_TEXT)}, key="sample")
    run.finish(Status())


def test_a_text_is_shown_as_markdown(shown: Callable[[str], Shown]) -> None:
    points = shown("texts").texts["sample"]
    assert [(point.step, point.value) for point in points] == [
        (0, "**bold** été"),
        (4, ""),
        (5, r"half \ud83d pair"),
    ]
    assert oracle.html(points[0].value) == "<p><strong>bold</strong> été</p>"


# -- steps that go back ---------------------------------------------------------------------------


@scenario
def a_late_row(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, {0: 0.0, 1: 1.0, 5: 5.0, 6: 6.0})
    run.log({"loss": 3.0, "other": 33.0}, step=3, time=START + 100)
    log(run, {7: 7.0})
    run.finish(Status())


def test_a_late_row_is_at_its_step_and_hides_nothing(shown: Callable[[str], Shown]) -> None:
    run = shown("a_late_row")
    assert run.steps("loss") == [(0, 0), (1, 1), (3, 3), (5, 5), (6, 6), (7, 7)]
    assert [point.wall_time - START for point in run.scalars["loss"]] == [0, 1, 100, 5, 6, 7]
    assert run.steps("other") == [(3, 33)]


@scenario
def ever_earlier_rows(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, {step: float(step) for step in range(7)})
    log(run, {5: 50.0})
    log(run, {2: 20.0})
    run.finish(Status())


def test_rows_that_are_later_and_later_hide_nothing(shown: Callable[[str], Shown]) -> None:
    points = [(0, 0), (1, 1), (2, 20), (3, 3), (4, 4), (5, 50), (6, 6)]
    assert shown("ever_earlier_rows").steps("loss") == points


@scenario
def a_value_again(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, {0: 0.0, 1: 1.0, 2: 2.0})
    log(run, {1: 10.0})
    log(run, {1: 11.0})
    log(run, {2: Text("old"), 3: Text("newer")}, key="t")
    log(run, {2: Text("new")}, key="t")
    run.finish(Status())


def test_a_value_logged_again_replaces_the_older_one(shown: Callable[[str], Shown]) -> None:
    run = shown("a_value_again")
    assert run.steps("loss") == [(0, 0), (1, 11), (2, 2)]
    assert [(p.step, p.value) for p in run.texts["t"]] == [(2, "new"), (3, "newer")]


@scenario
def live(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, {0: 0.0, 1: 1.0})
    log(run, {1: 11.0})
    run.commit()


def test_before_the_end_the_newer_value_is_shown_last(shown: Callable[[str], Shown]) -> None:
    assert shown("live").steps("loss")[-1] == (1, 11)


@scenario
def from_a_checkpoint(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, {step: float(step) for step in range(10)})
    run.log({"eval": 0.8}, step=8, time=START)
    run.commit()  # and killed
    again = opened(store, name, "must")
    log(again, {step: step + 100.0 for step in range(5, 8)})
    again.finish(Status("failed", 1))
    last = opened(store, name, "must")
    log(last, {step: step + 200.0 for step in range(7, 12)})
    last.finish(Status())


def test_a_job_from_an_earlier_checkpoint_replaces_what_it_logs_again(
    shown: Callable[[str], Shown],
) -> None:
    run = shown("from_a_checkpoint")
    kept, again = {s: s for s in range(5)}, {s: s + 100 for s in range(5, 7)}
    assert dict(run.steps("loss")) == {**kept, **again, **{s: s + 200 for s in range(7, 12)}}
    assert len(run.steps("loss")) == 12
    assert run.steps("eval") == [(8, pytest.approx(0.8))]


@scenario
def a_late_evaluation(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, {step: float(step) for step in range(10)})
    log(run, {2: 0.2, 9: 0.9}, key="eval")
    run.finish(Status())
    again = opened(store, name, "must")
    log(again, {5: 0.5}, key="eval")
    again.finish(Status())


def test_a_run_resumed_for_a_late_row_keeps_all_others(shown: Callable[[str], Shown]) -> None:
    run = shown("a_late_evaluation")
    assert run.steps("loss") == [(step, step) for step in range(10)]
    assert [step for step, _ in run.steps("eval")] == [2, 5, 9]


@scenario
def measured_machine(store: Path, name: str) -> None:
    for segment in range(2):
        run = opened(store, name, "allow")
        assert isinstance(run, TakesEnvironment)
        assert isinstance(run, TakesSystemMetrics)
        begin = START + 1000 * segment
        run.record_environment({"host": f"host {segment}", "python": "3.11"})
        run.log({"system/own": 1.0}, step=10**6 * (segment + 1), time=begin)
        for second in (0.0, 10.25, 10.5, 20.0):
            run.log_system(SystemRow(begin + second, {"cpu": second, "gpu.0.temp": math.nan}))
        run.commit()
        run.record_environment({"python": "3.12"})
        run.finish(Status("failed" if segment == 0 else "finished"))


def test_what_was_measured_stands_at_its_seconds_and_times_in_all_segments(
    shown: Callable[[str], Shown],
) -> None:
    run = shown("measured_machine")
    first = [(0, 0.0), (10, 10.25), (11, 10.5), (20, 20.0)]
    assert run.scalars["system/cpu"] == [
        (begin + step, START + begin + second, second) for begin in (0, 1000) for step, second in first
    ]
    assert len(run.scalars["system/gpu.0.temp"]) == 8
    assert [step for step, _ in run.steps("system/own")] == [10**6, 2 * 10**6]
    assert run.json("tracklayer/environment") == {"host": "host 1", "python": "3.12"}


@scenario
def disorder(store: Path, name: str) -> None:
    for number in range(3):
        run = opened(store, name, "allow")
        for step, key, value in shuffled(number):
            run.log({key: value}, step=step, time=START + step)
        run.finish(Status())


def shuffled(seed: int) -> list[tuple[int, str, float]]:
    """Return points in any order, some of them again."""
    chosen = random.Random(seed)
    return [(chosen.randrange(12), chosen.choice("abc"), float(n)) for n in range(30)]


def test_whatever_the_order_the_last_value_of_each_step_is_shown(
    shown: Callable[[str], Shown],
) -> None:
    last = {(k, s): value for seed in range(3) for s, k, value in shuffled(seed)}
    for key in "abc":
        expected = sorted((step, value) for (k, step), value in last.items() if k == key)
        assert shown("disorder").steps(key) == expected


# -- config, summary, status ----------------------------------------------------------------------


@scenario
def hyperparameters(store: Path, name: str) -> None:
    run = opened(store, name)
    run.update_config({"lr": 0.1, "opt": {"name": "adam", "b": [0.9, 0.99], "none": None}})
    run.update_config({"flag": True, "nan": math.nan, "seed": 10**400, "empty": {}})
    run.log({"loss": 1.0}, step=0, time=START)
    run.commit()
    run.update_config({"lr": 0.2})
    run.update_summary({"best": {"acc": 0.75, "at": 3}, "note": "fine", "ok": True})
    run.log({"loss": 0.5}, step=1, time=START + 1)
    run.finish(Status())


def test_the_config_and_the_metrics_are_in_the_hparams_table(
    shown: Callable[[str], Shown],
) -> None:
    session = shown("hyperparameters").session
    assert session is not None
    assert session.hparams == {
        "lr": 0.1,
        "opt/name": "adam",
        "opt/b": "[0.9, 0.99]",
        "opt/none": "None",
        "flag": True,
        "nan": "nan",
        "seed": str(10**400),
        "empty": "{}",
    }
    assert session.hparams["flag"] is True
    assert session.metrics == {
        "loss": 0.5,
        "tracklayer/summary/best/acc": 0.75,
        "tracklayer/summary/best/at": 3,
    }
    assert session.status == "SUCCESS"


def test_texts_show_config_summary_and_status_as_they_are_now(
    shown: Callable[[str], Shown],
) -> None:
    run = shown("hyperparameters")
    config = run.json("tracklayer/config")
    assert (config["lr"], config["opt"]["b"]) == (0.2, [0.9, 0.99])
    assert run.json("tracklayer/summary") == {
        "best": {"acc": 0.75, "at": 3},
        "note": "fine",
        "ok": True,
    }
    assert run.json("tracklayer/status") == {"state": "finished", "exit_code": 0}
    assert "<code" in oracle.html(run.text("tracklayer/config"))


@scenario
def without_rows(store: Path, name: str) -> None:
    run = opened(store, name, group="g", tags=("x",), notes="why", job_type="train")
    run.update_config({"lr": 0.1})
    run.finish(Status("failed", 3))


def test_a_run_without_rows_is_shown_with_its_config(shown: Callable[[str], Shown]) -> None:
    run = shown("without_rows")
    assert run.session == Session({"lr": 0.1}, {}, "FAILURE")
    assert run.json("tracklayer/status") == {"state": "failed", "exit_code": 3}


def test_a_text_tells_what_the_run_is(shown: Callable[[str], Shown]) -> None:
    assert shown("without_rows").json("tracklayer/run") == {
        "id": "without_rows",
        "name": "without_rows",
        "project": "demo",
        "entity": None,
        "group": "g",
        "job_type": "train",
        "tags": ["x"],
        "notes": "why",
        "created_at": START,
    }


@scenario
def failed_then_finished(store: Path, name: str) -> None:
    for status in (Status("failed", 1), Status("crashed"), Status()):
        run = opened(store, name, "allow")
        if not run.info.resumed:
            run.update_config({"lr": 0.1})
        log(run, {int(run.info.resumed): 0.0})
        run.finish(status)


def test_a_run_that_failed_and_was_finished_later_is_a_success(
    shown: Callable[[str], Shown],
) -> None:
    session = shown("failed_then_finished").session
    assert session is not None
    assert session.status == "SUCCESS"


@scenario
def copied_this_far(store: Path, name: str) -> None:
    run = opened(store, name)
    run.update_config({"lr": 0.1})
    log(run, {0: 1.0})
    run.finish(Status("running"))


def test_a_run_that_was_only_copied_this_far_has_no_end(shown: Callable[[str], Shown]) -> None:
    run = shown("copied_this_far")
    assert run.session == Session({"lr": 0.1}, {"loss": 1.0}, "UNKNOWN")
    assert "tracklayer/status" not in run.texts
    assert run.steps("loss") == [(0, 1)]


FAR = ArtifactFile("far", "", 5, "s3://b/far", reference="s3://b/far", checksum="etag")
MADE = LoggedArtifact(
    name="model",
    type="weights",
    files=(FAR, ArtifactFile("w/a.bin", "ab" * 32, 12, "elsewhere")),
    description="the best",
    metadata={"acc": 1},
    time=START + 9,
    project="p",
    version=3,
    aliases=("best",),
)
USED = LoggedArtifact("data", "dataset", (FAR,), time=START + 8, project="p", version=0, aliases=("x",))


@scenario
def artifacts(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, {7: 1.0})
    assert isinstance(run, TakesUses)
    run.use_artifact(USED)
    run.log_artifact(MADE)
    run.log_artifact(replace(MADE, name="plain", version=None, aliases=()))
    run.finish(Status())


def test_an_artifact_is_a_text(shown: Callable[[str], Shown]) -> None:
    run = shown("artifacts")
    (point,) = run.texts["tracklayer/artifacts/model"]
    assert (point.step, point.wall_time) == (7, START + 9)
    assert run.json("tracklayer/artifacts/model") == {
        "name": "model",
        "type": "weights",
        "project": "p",
        "version": "v3",
        "digest": MADE.digest,
        "aliases": ["best"],
        "description": "the best",
        "metadata": {"acc": 1},
        "files": [
            {"path": "far", "size": 5, "sha256": "", "reference": "s3://b/far", "checksum": "etag"},
            {"path": "w/a.bin", "size": 12, "sha256": "ab" * 32},
        ],
    }
    without = run.json("tracklayer/artifacts/plain")
    assert (without["version"], without["aliases"]) == (None, [])


def test_what_a_run_used_is_a_text(shown: Callable[[str], Shown]) -> None:
    run = shown("artifacts")
    (point,) = run.texts["tracklayer/used_artifacts/data"]
    assert (point.step, point.wall_time) == (7, START + 8)
    assert run.json("tracklayer/used_artifacts/data") == {
        "name": "data",
        "type": "dataset",
        "project": "p",
        "version": "v0",
        "digest": USED.digest,
    }


# -- starting and continuing ----------------------------------------------------------------------


def test_importing_the_backend_loads_neither_tensorboardx_nor_numpy() -> None:
    code = "import sys, tracklayer_tensorboard as t; t.backend; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"tensorboardX", "numpy", "google.protobuf"} & set(loaded)


def test_a_missing_tensorboardx_is_told_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX.proto.event_pb2", None)
    monkeypatch.delitem(sys.modules, "tracklayer_tensorboard.encoding")
    hint = r"pip install 'tracklayer\[tensorboard\]'"
    with pytest.raises(BackendUnavailableError, match=hint):
        backend.check()
    with pytest.raises(BackendUnavailableError, match=hint):
        opened(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("resume", [None, "never", "allow"])
def test_a_new_run_starts(tmp_path: Path, resume: Resume | None) -> None:
    run = opened(tmp_path, resume=resume)
    assert not run.info.resumed
    run.finish(Status())
    assert (tmp_path / ".gitignore").read_text() == "*\n"


def test_a_run_that_is_not_there_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="'run'"):
        opened(tmp_path, resume="must")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("resume", [None, "never"])
def test_a_recorded_run_does_not_start_anew(tmp_path: Path, resume: Resume | None) -> None:
    opened(tmp_path).finish(Status())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunExistsError, match="resume='allow'"):
        opened(tmp_path, resume=resume)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("resume", ["must", "allow"])
def test_a_recorded_run_is_continued(tmp_path: Path, resume: Resume) -> None:
    first = opened(tmp_path)
    log(first, {0: 0.0})
    first.finish(Status())
    second = opened(tmp_path, resume=resume)
    assert second.info.resumed
    assert second.info.state == "running"
    log(second, {1: 1.0})
    second.finish(Status())
    assert oracle.read(folder(tmp_path)).steps("loss") == [(0, 0), (1, 1)]


def test_a_continued_run_is_read_in_order_though_the_clock_went_back(tmp_path: Path) -> None:
    first = folder(tmp_path) / "events.out.tfevents.4000000000.host.1.mended"
    first.parent.mkdir(parents=True)
    first.touch()
    opened(tmp_path, resume="must").finish(Status())
    assert event_file.event_files(folder(tmp_path))[0] == first


def test_projects_and_ids_never_share_a_folder(tmp_path: Path) -> None:
    names = ("demo", "Demo", "de mo", "de-mo", "..", "con", "日本", "x" * 128)
    for name in names:
        for run_id in names:
            opened(tmp_path, run_id, project=name).finish(Status())
    folders = {path.parent for path in tmp_path.rglob("*tfevents*")}
    assert len(folders) == len(names) ** 2
    assert {path.parent.parent for path in folders} == {tmp_path / "tensorboard"}


def test_a_store_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").touch()
    with pytest.raises(StoreError, match="TRACKLAYER_DIR"):
        opened(tmp_path)


def test_a_run_of_the_front_is_shown(tmp_path: Path) -> None:
    with tracklayer.init("demo", id="run", dir=tmp_path, backend="tensorboard") as run:
        run.config.update({"lr": 0.1})
        for step in range(3):
            run.log({"train": {"loss": step / 2}, "note": "hello"}, step=step)
        run.summary["best"] = 1
    shown = oracle.read(folder(tmp_path))
    assert shown.steps("train/loss") == [(0, 0), (1, 0.5), (2, 1)]
    assert shown.text("note") == "hello"
    assert shown.session is not None
    assert shown.session.hparams == {"lr": 0.1}
    assert shown.session.metrics["tracklayer/summary/best"] == 1


# -- durability -----------------------------------------------------------------------------------


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script that has `opened`, `log` and `Status`."""
    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    names = "from test_tensorboard import opened, log, Status\nfrom pathlib import Path\n"
    return subprocess.run(
        [sys.executable, "-c", head + names + textwrap.dedent(code), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def no_space(*_: object) -> None:
    """Fail as a system call on a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.slow
def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    code = """
        import os, signal
        run = opened(Path(sys.argv[1]))
        run.update_config({"lr": 0.1})
        run.update_summary({"best": 1})
        log(run, {0: 0.0, 1: 1.0})
        run.commit()
        log(run, {2: 2.0})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert python(code, tmp_path).returncode == -9
    shown = oracle.read(folder(tmp_path))
    assert shown.steps("loss") == [(0, 0), (1, 1)]
    assert shown.json("tracklayer/summary") == {"best": 1}
    assert shown.session is not None
    assert shown.session.hparams == {"lr": 0.1}


@pytest.mark.slow
def test_a_file_that_may_not_grow_fails_the_commit_and_loses_nothing(tmp_path: Path) -> None:
    code = """
        import resource
        run = opened(Path(sys.argv[1]))
        log(run, {0: 0.0})
        run.commit()
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = next(Path(sys.argv[1]).rglob("*tfevents*")).stat().st_size
        for limit in (size + 100, size + 111, size + 150):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
            for step in range(limit, limit + 10):
                log(run, {step: float(step)})
            for attempt in range(2):
                try:
                    run.commit()
                except OSError as error:
                    print(type(error).__name__, error.errno)
        try:
            run.finish(Status())
        except OSError as error:
            print(type(error).__name__, error.errno)
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        run.finish(Status())
    """
    done = python(code, tmp_path)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"OSError {errno.EFBIG}"] * 7
    steps = [step for step, _ in oracle.read(folder(tmp_path)).steps("loss")]
    assert len(steps) == len(set(steps)) == 31


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk that takes, of each write, the number of bytes last in the list; -1 is all."""
    room = [-1]
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        taken = room[-1]
        if taken < 0:
            return real(descriptor, data)
        real(descriptor, bytes(data[:taken]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)
    return room


@pytest.mark.parametrize("taken", [0, 1, 8, 12, 13, 60, 120])
def test_a_tensorboard_that_saw_a_torn_record_goes_on_when_it_is_whole(
    tmp_path: Path, full_disk: list[int], taken: int
) -> None:
    run = opened(tmp_path)
    log(run, {0: 0.0})
    run.commit()
    reload = oracle.watching(folder(tmp_path))
    assert reload()["."].steps("loss") == [(0, 0)]
    log(run, {1: 1.0, 2: 2.0, 3: 3.0})
    full_disk.append(taken)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            run.commit()
        assert (0, 0) in reload()["."].steps("loss")
    log(run, {4: 4.0})
    full_disk.append(-1)
    run.commit()
    assert reload()["."].steps("loss") == [(step, step) for step in range(5)]
    run.finish(Status())
    assert oracle.read(folder(tmp_path)).steps("loss") == [(step, step) for step in range(5)]


def test_finishing_on_a_full_disk_can_be_done_again(tmp_path: Path, full_disk: list[int]) -> None:
    run = opened(tmp_path)
    run.update_config({"lr": 0.1})
    log(run, {0: 0.0})
    full_disk.append(5)
    with pytest.raises(OSError, match="No space left"):
        run.finish(Status())
    full_disk.append(-1)
    run.finish(Status())
    run.finish(Status("failed", 1))
    shown = oracle.read(folder(tmp_path))
    assert shown.steps("loss") == [(0, 0)]
    assert [point.value for point in shown.texts["tracklayer/status"]] == [shown.text("tracklayer/status")]
    assert shown.session is not None
    assert shown.session.status == "SUCCESS"


def test_a_file_that_something_else_shortened_is_lost(tmp_path: Path, full_disk: list[int]) -> None:
    run = opened(tmp_path)
    log(run, {0: 0.0})
    run.commit()
    (path,) = event_file.event_files(folder(tmp_path))
    os.truncate(path, 3)
    log(run, {1: 1.0})
    full_disk.append(0)
    with pytest.raises(OSError, match="No space left"):
        run.commit()
    full_disk.append(-1)
    with pytest.raises(BackendLostError, match="shortened"):
        run.commit()


def test_a_finished_run_takes_nothing_more(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.finish(Status())
    with pytest.raises(RunFinishedError, match="run"):
        run.log({"loss": 1.0}, step=0, time=START)
    with pytest.raises(RunFinishedError):
        run.update_config({"a": 1})


def test_a_call_that_cannot_be_written_costs_that_call_only(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.update_config({"lr": 0.1})
    circle: dict[str, Any] = {}
    circle["self"] = circle
    with pytest.raises((ValueError, RecursionError)):
        run.update_config(circle)
    with pytest.raises(ValueError, match="range"):
        run.log({"loss": 1.0}, step=1 << 63, time=START)
    log(run, {0: 0.0})
    run.commit()
    run.finish(Status())
    shown = oracle.read(folder(tmp_path))
    assert shown.json("tracklayer/config") == {"lr": 0.1}
    assert shown.steps("loss") == [(0, 0)]


# -- mending --------------------------------------------------------------------------------------


def disordered(store: Path) -> Run:
    """Return an open run whose steps went back."""
    run = opened(store)
    log(run, {0: 0.0, 5: 5.0})
    log(run, {3: 3.0})
    run.commit()
    return run


def names(store: Path) -> set[str]:
    """Return the endings of a run's files."""
    return {path.suffix for path in folder(store).iterdir() if not path.suffix[1:].isdigit()}


def test_a_run_whose_steps_ascend_is_not_repeated(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.update_config({"lr": 1})
    for step in range(3):
        log(run, {step: 1.0})
        run.update_summary({"best": step})
        run.update_summary({"best": step + 1})
        run.commit()
    run.finish(Status())
    again = opened(tmp_path, resume="must")
    again.update_config({"lr": 1})
    log(again, {3: 1.0})
    again.finish(Status())
    assert names(tmp_path) == {".end"}


def test_a_mended_run_needs_no_mending_when_it_goes_on(tmp_path: Path) -> None:
    disordered(tmp_path).finish(Status())
    run = opened(tmp_path, resume="must")
    log(run, {6: 6.0})
    run.finish(Status())
    assert len(list(folder(tmp_path).glob("*.mended"))) == 1
    assert oracle.read(folder(tmp_path)).steps("loss") == [(0, 0), (3, 3), (5, 5), (6, 6)]


def test_a_run_that_another_process_writes_is_left_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = disordered(tmp_path)
    other = opened(tmp_path, resume="allow")
    log(other, {9: 9.0})
    other.commit()
    with caplog.at_level(logging.INFO, "tracklayer"):
        run.finish(Status())
    assert ".mended" not in names(tmp_path)
    assert "another process" in caplog.text
    assert (9, 9) in oracle.read(folder(tmp_path)).steps("loss")
    other.finish(Status())


def test_a_large_run_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mending, "LIMIT_BYTES", 100)
    with caplog.at_level(logging.INFO, "tracklayer"):
        disordered(tmp_path).finish(Status())
    assert ".mended" not in names(tmp_path)
    assert "out of order: it is large" in caplog.text


def test_a_disk_without_room_for_mending_costs_no_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = disordered(tmp_path)

    with monkeypatch.context() as full:
        full.setattr(mending, "write_whole", no_space)
        run.finish(Status())
    assert "out of order" in caplog.text
    assert names(tmp_path) <= {".end"}
    assert sorted(oracle.read(folder(tmp_path)).steps("loss")) == [(0, 0), (3, 3), (5, 5)]


def test_a_file_that_cannot_be_written_whole_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        event_file.write_whole(tmp_path / "events.out.tfevents.1", [b"x" * 100])
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_was_about_to_write_is_cleared_away(tmp_path: Path) -> None:
    opened(tmp_path).finish(Status())
    (folder(tmp_path) / "unfinished.123").write_bytes(b"x")
    opened(tmp_path, resume="must").finish(Status())
    assert not list(folder(tmp_path).glob("unfinished*"))


@pytest.mark.parametrize("torn", [1, 5, 30, 50])
def test_a_torn_segment_is_read_as_far_as_it_is_whole(tmp_path: Path, torn: int) -> None:
    run = opened(tmp_path)
    log(run, {0: 0.0, 1: 1.0})
    run.commit()
    log(run, {2: 2.0})
    run.commit()  # and killed
    (path,) = event_file.event_files(folder(tmp_path))
    os.truncate(path, path.stat().st_size - torn)
    again = opened(tmp_path, resume="must")
    log(again, {1: 11.0})
    again.finish(Status())
    assert oracle.read(folder(tmp_path)).steps("loss") == [(0, 0), (1, 11)]
