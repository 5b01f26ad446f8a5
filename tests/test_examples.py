"""The main job: a Flax model trained on real images, recorded by each backend with one variable changed."""

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
from tracklayer.pushing import push
from wandb_server import WandbServer

pytestmark = pytest.mark.slow

DIGITS = Path(__file__).parents[1] / "examples" / "digits.py"
TRAIN_KEYS = {"train/loss", "train/accuracy", "train/grad_norm", "train/param_norm", "learning_rate"}
VALIDATION_KEYS = {"epoch", "val/loss", "val/accuracy"}
STEPS = list(range(330))
Series = dict[str, list[tuple[int, float]]]


@pytest.fixture(scope="module")
def server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        yield server


def train(backend: str, folder: Path, server: WandbServer) -> str:
    """Run the example; return the run's id."""
    environment = {
        **os.environ,
        **server.environment(folder / "home"),
        "TRACKLAYER_BACKEND": backend,
        "TRACKLAYER_DIR": str(folder / "store"),
    }
    done = subprocess.run(
        [sys.executable, str(DIGITS)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = re.search(r"run (\w+): best validation accuracy ([\d.]+)%", done.stdout)
    assert found is not None, done.stdout
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
    (artifact,) = reader.artifacts()
    weights = np.load(io.BytesIO(artifact.files[0].source.read_bytes()))
    assert weights["conv1.kernel"].shape == (3, 3, 1, 16)
    assert reader.summary["val/accuracy"]["max"] >= 0.97
    assert reader.config["optimizer"]["name"] == "adamw"
    return series


def in_tensorboard(folder: Path, run_id: str) -> Series:
    shown = tensorboard_oracle.read(folder / "store" / "tensorboard" / "digits" / run_id)
    assert sum(tag.startswith("weights/") for tag in shown.histograms) == 8
    assert shown.session is not None
    assert shown.session.hparams["optimizer/name"] == "adamw"
    return {key: shown.steps(key) for key in TRAIN_KEYS | VALIDATION_KEYS}


def in_wandb(server: WandbServer, run_id: str) -> Series:
    run = server.runs[run_id]
    assert run.state == "finished"
    assert run.config["optimizer"]["name"] == "adamw"
    assert run.summary["val/accuracy"]["max"] >= 0.97
    # the same weights are the same version, whichever of these runs logged them first
    assert [(a.name, a.version) for a in server.artifacts] == [("digits-cnn", 0)]
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
