"""A pushed run is read back as W&B's users read runs: by the public `wandb.Api`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from machine import Machine
from wandb_server import WandbServer

pytestmark = pytest.mark.slow

TRAIN = """
import math, sys
import numpy as np
import tracklayer

with tracklayer.init(
    project="p", id="r", name="a name", group="g", job_type="train", tags=["x", "y"], notes="some notes",
    config={"lr": 0.1, "model": {"depth": 2}},
) as run:
    run.define_metric("loss", summary="min")
    for step in range(50):
        run.log({"loss": abs(30 - step), "n": step}, step=2 * step)
    run.log({"late": 1, "nan": math.nan}, step=11)
    run.log({"image": tracklayer.Image(np.zeros((4, 4, 3), np.uint8))}, step=98)
    run.log({"table": tracklayer.Table(columns=["a", "b"], data=[[1, "x"], [2, "y"]])}, step=98)
    run.summary["best"] = {"score": 7}
    artifact = tracklayer.Artifact("model", "model", metadata={"acc": 0.9})
    with artifact.new_file("weights.txt") as file:
        file.write("0.5")
    run.log_artifact(artifact, aliases=["best"])
    run.use_artifact("model:best")
    print("a line")
"""
READ = """
import io, json, pathlib, sys
import wandb

run = wandb.Api().run("tester/p/r")
(model,) = [one for one in run.logged_artifacts() if one.type == "model"]
(used,) = run.used_artifacts()
(table,) = [one for one in run.logged_artifacts() if one.type == "run_table"]
folder = pathlib.Path("downloaded")
for artifact in (model, table):
    artifact.download(folder)
print(json.dumps({
    "about": [run.name, run.group, run.job_type, run.tags, run.notes, run.state],
    "config": run.config,
    "summary": {key: run.summary[key] for key in ("loss", "n", "best")},
    "last step": run.lastHistoryStep,
    "scanned": [{k: v for k, v in row.items() if v is not None} for row in run.scan_history()],
    "history": run.history(keys=["loss"], pandas=False),
    "files": {file.name: file.size for file in run.files()},
    "log": run.file("output.log").download(root="log").read(),
    "model": [model.name, sorted(model.aliases), model.metadata, (folder / "weights.txt").read_text()],
    "used": used.name,
    "table": json.loads((folder / "table.table.json").read_text())["data"],
    "metadata": run.metadata,
}, default=dict))
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the API says of a run that was recorded offline, and pushed."""
    with WandbServer() as server:
        options = {"TRACKLAYER_CONSOLE": "python", "TRACKLAYER_OMIT": "packages"}
        machine = Machine(
            tmp_path_factory.mktemp("api") / "m", server, TRACKLAYER_BACKEND="sqlite", **options
        )
        machine.run(TRAIN).well()
        assert machine.push("r")["outcome"] == "sent"
        yield machine.run(READ).said


def test_a_run_is_called_what_it_was_called(read: dict[str, Any]) -> None:
    assert read["about"] == ["a name", "g", "train", ["x", "y"], "some notes", "finished"]


def test_config_and_summary_are_what_they_were(read: dict[str, Any]) -> None:
    assert read["config"] == {"lr": 0.1, "model": {"depth": 2}}
    assert read["summary"] == {"loss": {"min": 0}, "n": 49, "best": {"score": 7}}


def test_history_has_each_row_at_its_step(read: dict[str, Any]) -> None:
    rows = {row["_step"]: row for row in read["scanned"]}
    assert len(rows) == len(read["scanned"]) == 51
    assert {step: row["n"] for step, row in rows.items() if "n" in row} == {2 * n: n for n in range(50)}
    assert rows[11]["late"] == 1
    assert str(rows[11]["nan"]).lower() == "nan"
    assert read["last step"] == 98
    assert [row["loss"] for row in read["history"]] == [abs(30 - step) for step in range(50)]


def test_files_are_there(read: dict[str, Any]) -> None:
    images = [name for name in read["files"] if name.startswith("media/images/image_98_")]
    assert len(images) == 1
    assert all(size > 0 for size in read["files"].values())
    assert read["log"].endswith("a line\n")


def test_artifacts_can_be_used(read: dict[str, Any]) -> None:
    assert read["model"] == ["model:v0", ["best", "latest"], {"acc": 0.9}, "0.5"]
    assert read["used"] == "model:v0"
    assert read["table"] == [[1, "x"], [2, "y"]]


def test_metadata_says_where_it_ran(read: dict[str, Any]) -> None:
    assert read["metadata"]["program"].endswith("train.py")
    assert read["metadata"]["python"].split()[-1].count(".") == 2
