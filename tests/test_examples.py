"""The examples: Flax and JAX trained on real images, recorded by each backend with one variable changed."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tensorboard_oracle
import tracklayer
from tracklayer import registry
from tracklayer.media.chart import Chart
from tracklayer.media.list import MediaList
from tracklayer.pushing import push
from wandb_server import WandbServer

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"
TRAIN_KEYS = {"train/loss", "train/accuracy", "train/grad_norm", "train/param_norm", "learning_rate"}
VALIDATION_KEYS = {"epoch", "val/loss", "val/accuracy"}
STEPS = list(range(330))
Series = dict[str, list[tuple[int, float]]]


@pytest.fixture(scope="module")
def server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        yield server


def run_example(name: str, backend: str, folder: Path, server: WandbServer | None = None) -> str:
    """Run an example without a word on stderr; return what it printed."""
    environment = {
        **os.environ,
        **(server.environment(folder / "home") if server else {}),
        "TRACKLAYER_BACKEND": backend,
        "TRACKLAYER_DIR": str(folder / "store"),
    }
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def train(backend: str, folder: Path, server: WandbServer) -> str:
    """Run the main job; return the run's id."""
    printed = run_example("digits.py", backend, folder, server)
    found = re.search(r"run (\w+): best validation accuracy ([\d.]+)%", printed)
    assert found is not None, printed
    assert float(found[2]) >= 97.0
    return found[1]


def in_sqlite(folder: Path, run_id: str) -> Series:
    reader = tracklayer.open_store(folder / "store").run(run_id)
    assert reader.info.state == "finished"
    series: Series = {}
    for key in TRAIN_KEYS | VALIDATION_KEYS:
        metric = reader.metric(key)
        series[key] = list(zip(metric.step.tolist(), metric.value.tolist(), strict=True))
    assert sum(key.startswith("weights/") for key in list(reader.keys())) == 8
    (mistakes,), (confusion,) = reader.media("val/mistakes"), reader.media("val/confusion")
    assert isinstance(mistakes.value, MediaList)
    assert isinstance(confusion.value, Chart)
    wrong = sum(row[2] for row in confusion.value.table.data if row[0] != row[1])
    assert len(mistakes.value.items) == wrong
    assert all("taken for" in item.encoded.data["caption"] for item in mistakes.value.items)
    (artifact,) = reader.artifacts()
    weights = np.load(io.BytesIO(Path(artifact.files[0].source).read_bytes()))
    assert weights["conv1.kernel"].shape == (3, 3, 1, 16)
    assert reader.summary["val/accuracy"]["max"] >= 0.97
    assert reader.config["optimizer"]["name"] == "adamw"
    return series


def in_tensorboard(folder: Path, run_id: str) -> Series:
    shown = tensorboard_oracle.read(folder / "store" / "tensorboard" / "digits" / run_id)
    assert sum(tag.startswith("weights/") for tag in shown.histograms) == 8
    assert {tag: len(steps) for tag, steps in shown.images.items()} == {"val/mistakes": 1, "val/confusion": 1}
    assert shown.session is not None
    assert shown.session.hparams["optimizer/name"] == "adamw"
    return {key: shown.steps(key) for key in TRAIN_KEYS | VALIDATION_KEYS}


def in_wandb(server: WandbServer, run_id: str) -> Series:
    run = server.runs[run_id]
    assert run.state == "finished"
    assert run.config["optimizer"]["name"] == "adamw"
    assert run.summary["val/accuracy"]["max"] >= 0.97
    # the same weights are the same version, whichever of these runs logged them first
    models = [artifact for artifact in server.artifacts if artifact.type == "model"]
    assert [(model.name, model.version) for model in models] == [("digits-cnn", 0)]
    (last,) = [row for row in run.history if "val/mistakes" in row]
    assert last["val/mistakes"]["_type"] == "images/separated"
    assert last["val/confusion_table"]["_type"] == "table-file"
    series: Series = {key: [] for key in TRAIN_KEYS | VALIDATION_KEYS}
    for row in run.history:
        for key in series.keys() & row.keys():
            series[key].append((row["_step"], row[key]))
    return series


def check(*recorded: Series) -> None:
    """Assert that all hold the same metrics at the same steps."""
    first = recorded[0]
    assert all([step for step, _ in first[key]] == STEPS for key in TRAIN_KEYS)
    assert all(len(first[key]) == 15 for key in VALIDATION_KEYS)
    for other in recorded[1:]:
        for key, points in first.items():
            assert [step for step, _ in other[key]] == [step for step, _ in points], key
            values = [value for _, value in other[key]]
            assert values == pytest.approx([value for _, value in points], rel=1e-6), key


def test_all_backends_at_once_record_the_same(tmp_path: Path, server: WandbServer) -> None:
    run_id = train("sqlite,tensorboard,wandb", tmp_path, server)
    check(
        in_sqlite(tmp_path, run_id),
        in_tensorboard(tmp_path, run_id),
        in_wandb(server, run_id),
    )


def test_tensorboard_alone_records_it(tmp_path: Path, server: WandbServer) -> None:
    run_id = train("tensorboard", tmp_path, server)
    check(in_tensorboard(tmp_path, run_id))


def test_wandb_alone_records_it_and_leaves_a_local_record(tmp_path: Path, server: WandbServer) -> None:
    run_id = train("wandb", tmp_path, server)
    check(in_wandb(server, run_id), in_sqlite(tmp_path, run_id))


def test_the_offline_run_is_pushed_by_the_real_client(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = train("sqlite", tmp_path, server)
    for name, value in server.environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    store = tracklayer.open_store(tmp_path / "store")
    report = push(store.run(run_id), registry.load("wandb"), store.path)
    assert report.outcome == "sent", report
    check(in_sqlite(tmp_path, run_id), in_wandb(server, run_id))
    assert push(store.run(run_id), registry.load("wandb"), store.path).outcome == "unchanged"


def test_an_epoch_in_one_scan_is_recorded_step_by_step(tmp_path: Path) -> None:
    printed = run_example("scan_epoch.py", "sqlite,tensorboard", tmp_path)
    found = re.search(r"run (\w+): validation accuracy ([\d.]+)% after 440 steps", printed)
    assert found is not None, printed
    assert float(found[2]) >= 96.0
    reader = tracklayer.open_store(tmp_path / "store").run(found[1])
    assert reader.metric("train/loss").step.tolist() == list(range(440))
    norm, inside = reader.metric("train/grads/norm").value, reader.metric("train/optimizer/grad_norm").value
    np.testing.assert_allclose(norm, inside, rtol=1e-5)
    assert reader.metric("val/accuracy").step.tolist() == list(range(21, 440, 22))
    shown = tensorboard_oracle.read(tmp_path / "store" / "tensorboard" / "scan" / found[1])
    assert [step for step, _ in shown.steps("train/loss")] == list(range(440))
    assert sum(tag.startswith("weights/") for tag in shown.histograms) == 4


def test_seeds_that_train_at_once_are_a_band(tmp_path: Path) -> None:
    printed = run_example("vmapped_seeds.py", "sqlite", tmp_path)
    found = re.search(r"run (\w+): validation accuracy over 8 seeds", printed)
    assert found is not None, printed
    accuracy = tracklayer.open_store(tmp_path / "store").run(found[1]).metric("accuracy")
    assert accuracy.value.shape == (400, 8)
    assert (accuracy.value[-1] > 0.93).all()
    assert len(np.unique(accuracy.value[5])) > 1  # the seeds differ
    assert len(printed.splitlines()) == 18


def test_a_sweep_stops_poor_trials_and_finds_a_good_one(tmp_path: Path) -> None:
    printed = run_example("sweep_digits.py", "sqlite", tmp_path)
    found = re.search(r"sweep (\w+): 20 trials, (\d+) of them pruned\nbest: run (\w+)", printed)
    assert found is not None, printed
    store = tracklayer.open_store(tmp_path / "store")
    runs = store.runs(project="digits-sweep", group=found[1])
    assert [run.info.state for run in runs] == ["finished"] * 20
    pruned = [run for run in runs if run.summary.get("pruned")]
    assert 0 < len(pruned) == int(found[2])
    assert all(len(run.metric("val/accuracy")) < 10 for run in pruned)
    best = store.run(found[3])
    assert best.metric("val/accuracy").value.max() >= 0.98
    assert f"learning_rate': {best.config['optimizer']['learning_rate']}" in printed
