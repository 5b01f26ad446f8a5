"""What the W&B server receives of a live run, from the real client in the user's own process."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machine import Ended, Machine
from tracklayer.environment import PARTS
from wandb_server import ServedRun, WandbServer

pytestmark = pytest.mark.slow


@pytest.fixture
def machine(tmp_path: Path, server: WandbServer) -> Machine:
    return Machine(tmp_path, server, TRACKLAYER_BACKEND="wandb")


def column(run: ServedRun, key: str) -> dict[int, Any]:
    """The values of a key by W&B's step."""
    return {row["_step"]: row[key] for row in run.history if key in row}


# -- a run with everything ------------------------------------------------------------------------

TRAIN = """
import json, math, pathlib, time
import numpy as np
import tracklayer

run = tracklayer.init(
    project="p", id="r", name="a name", group="g", job_type="train", tags=["x", "y"],
    notes="some notes", config={"lr": 0.1, "model": {"depth": 2, "sizes": [1, 2]}, "none": None},
)
run.define_metric("loss", summary="min")
run.define_metric("acc", summary=["max", "last"])
run.define_metric("val/*", step_metric="epoch")
run.define_metric("hidden", summary="none")
calls = []
for step, loss in enumerate([3.5, 1.5, 2.5]):
    before = time.time()
    run.log({"loss": loss, "acc": -step, "hidden": 1, "val": {"a": step}, "epoch": step // 2})
    calls.append([before, time.time()])
    time.sleep(0.3)
run.log({
    "nan": math.nan, "up": math.inf, "down": -math.inf, "big": 2**53 + 1, "flag": True,
    "array": np.float32(0.5), "text": "some words", "100% ключ.x": 1,
    "h": tracklayer.Histogram(np_histogram=([1, 0, 4], [0.0, 0.5, 1.0, 2.0])),
}, step=10)
run.config["later"] = {"a": 1}
run.summary["best"] = {"score": 7}
pathlib.Path("weights.bin").write_bytes(bytes(range(256)))
run.log_artifact("weights.bin", name="model", type="weights")
print(json.dumps({"calls": calls, "url": run.url}))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ended, WandbServer]]:
    with WandbServer() as server:
        machine = Machine(tmp_path_factory.mktemp("x") / "y", server, TRACKLAYER_BACKEND="wandb")
        yield machine.run(TRAIN), server


@pytest.fixture
def run(trained: tuple[Ended, WandbServer]) -> ServedRun:
    return trained[1].runs["r"]


def test_a_run_that_goes_well_says_nothing(trained: tuple[Ended, WandbServer]) -> None:
    trained[0].well()


def test_the_url_is_known_while_it_runs(trained: tuple[Ended, WandbServer]) -> None:
    assert trained[0].said["url"] == f"{trained[1].url}/tester/p/runs/r"


def test_a_run_is_called_what_it_was_called(run: ServedRun) -> None:
    assert (run.name, run.project, run.group, run.job_type) == ("a name", "p", "g", "train")
    assert (run.tags, run.notes) == (["x", "y"], "some notes")
    assert (run.state, run.exit_code) == ("finished", 0)


def test_config_stays_nested(run: ServedRun) -> None:
    assert run.config == {
        "lr": 0.1,
        "model": {"depth": 2, "sizes": [1, 2]},
        "none": None,
        "later": {"a": 1},
    }


def test_scalars_arrive_at_their_steps(run: ServedRun) -> None:
    assert [row["_step"] for row in run.history] == [0, 1, 2, 10]
    assert column(run, "loss") == {0: 3.5, 1: 1.5, 2: 2.5}
    assert column(run, "val/a") == {0: 0, 1: 1, 2: 2}
    assert column(run, "array") == {10: 0.5}
    assert column(run, "big") == {10: 2**53 + 1}
    assert column(run, "flag") == {10: True}
    assert column(run, "100% ключ.x") == {10: 1}


def test_nan_and_infinities_arrive(run: ServedRun) -> None:
    last = run.history[-1]
    assert math.isnan(last["nan"])
    assert (last["up"], last["down"]) == (math.inf, -math.inf)


def test_text_and_histograms_arrive(run: ServedRun) -> None:
    last = run.history[-1]
    assert last["text"] == "some words"
    assert last["h"] == {"_type": "histogram", "values": [1, 0, 4], "bins": [0.0, 0.5, 1.0, 2.0]}


def test_each_row_has_the_time_of_its_own_call(run: ServedRun, trained: tuple[Ended, WandbServer]) -> None:
    for row, (before, after) in zip(run.history, trained[0].said["calls"], strict=False):
        assert before <= row["_timestamp"] <= after


def test_the_summary_follows_the_rules(run: ServedRun) -> None:
    assert run.summary["loss"] == {"min": 1.5}
    assert run.summary["acc"] == {"max": 0, "last": -2}
    assert run.summary["best"] == {"score": 7}
    assert run.summary["epoch"] == 1
    assert "hidden" not in run.summary


def test_the_step_metric_is_known(run: ServedRun) -> None:
    rules = run.raw_config["_wandb"]["value"]["m"]
    names = [value for rule in rules for value in rule.values() if isinstance(value, str)]
    assert {"loss", "acc", "hidden", "epoch"} <= set(names)
    assert any(name.startswith("val/") for name in names)


def test_an_artifact_arrives_with_its_content(trained: tuple[Ended, WandbServer]) -> None:
    (artifact,) = trained[1].artifacts
    assert (artifact.name, artifact.type, artifact.created_by) == ("model", "weights", "r")
    assert artifact.files == {"weights.bin": bytes(range(256))}


def test_the_run_bears_its_mark(run: ServedRun) -> None:
    mark = run.raw_config["_wandb"]["value"]["tracklayer"]
    assert abs(mark["created_at"] - time.time()) < 1000


LEAVING_OUT = """
import time, tracklayer
with tracklayer.init(project="p", id="r") as run:
    print("spoken")
    run.log({"a": 1})
    time.sleep(0.5)
"""


def test_what_is_not_to_be_recorded_is_not_recorded_there_either(
    server: WandbServer, machine: Machine
) -> None:
    machine.run(LEAVING_OUT, TRACKLAYER_OMIT=",".join(PARTS)).well()
    run = server.runs["r"]
    assert (run.host, run.program, run.commit, run.console, run.events) == (None, None, None, [], [])
    assert not {"wandb-metadata.json", "requirements.txt", "output.log"} & run.files.keys()


# -- late rows ------------------------------------------------------------------------------------

LATE = """
import tracklayer

with tracklayer.init(project="p", id="r") as run:
    run.define_metric("loss", summary=["min", "last"])
    for step in range(5):
        run.log({"loss": 10 - step, "a": step}, step=step * 10)
    run.log({"loss": 3, "late": 2}, step=15)
    run.log({"a": -1, "late": 1}, step=5)
    run.log({"zero": 1}, step=0)
    run.log({"loss": 20, "a": 5}, step=50)
"""


def test_late_rows_are_sent_at_the_end_beside_their_true_step(server: WandbServer, machine: Machine) -> None:
    machine.run(LATE).well()
    run = server.runs["r"]
    assert [row["_step"] for row in run.history] == [0, 10, 20, 30, 40, 50, 51, 52, 53]
    assert column(run, "tracklayer/step") == {51: 0, 52: 5, 53: 15}
    assert column(run, "zero") == {51: 1}
    assert column(run, "late") == {52: 1, 53: 2}
    assert column(run, "a") == {0: 0, 10: 1, 20: 2, 30: 3, 40: 4, 50: 5, 52: -1}
    assert column(run, "loss") == {0: 10, 10: 9, 20: 8, 30: 7, 40: 6, 50: 20, 53: 3}
    shown = {key: value for key, value in run.summary.items() if not key.startswith("_")}
    assert shown == {"a": 5, "loss": {"min": 3, "last": 20}, "late": 2, "zero": 1}
    assert shown == machine.recorded().summary


def test_late_rows_that_arrived_are_not_pushed_again(server: WandbServer, machine: Machine) -> None:
    machine.run(LATE).well()
    before = server.history_ranges("r")
    pushed = machine.push("r")
    assert (pushed["outcome"], pushed["rows"], pushed["total"]) == ("sent", 0, 8)
    assert server.history_ranges("r") == before


def test_a_summary_entry_set_by_hand_wins_over_later_rows(server: WandbServer, machine: Machine) -> None:
    machine.run(
        """
        import tracklayer
        with tracklayer.init(project="p", id="r") as run:
            run.log({"a": 1, "b": 1}, step=1)
            run.summary["a"] = 100
            run.log({"a": 2, "b": 2}, step=2)
            run.log({"a": 3, "b": 3}, step=0)
        """
    ).well()
    assert (server.runs["r"].summary["a"], server.runs["r"].summary["b"]) == (100, 2)
    assert machine.recorded().summary == {"a": 100, "b": 2}


# -- how a run goes on, and ends ------------------------------------------------------------------

SEGMENT = """
import sys, tracklayer
with tracklayer.init(project="p", id="r", resume=sys.argv[1], config={sys.argv[1]: 1}) as run:
    for i in range(3):
        run.log({"i": run.step})
    print(run.resumed, run.step)
"""


def test_a_resumed_run_goes_on(server: WandbServer, machine: Machine) -> None:
    assert machine.run(SEGMENT, "allow").well().stdout == "False 3\n"
    assert machine.run(SEGMENT, "must").well().stdout == "True 6\n"
    run = server.runs["r"]
    assert column(run, "i") == {step: step for step in range(6)}
    assert server.history_ranges("r") == [(0, 3), (3, 3)]
    assert run.config == {"allow": 1, "must": 1}
    assert (run.state, run.summary["i"]) == ("finished", 5)


def test_an_id_that_the_server_has_from_elsewhere_is_not_overwritten(
    server: WandbServer, machine: Machine, tmp_path: Path
) -> None:
    machine.run(SEGMENT, "never").well()
    elsewhere = Machine(tmp_path / "elsewhere", server, TRACKLAYER_BACKEND="wandb")
    ended = elsewhere.run(SEGMENT, "never")
    (line,) = ended.complaints
    assert ended.code == 0
    assert re.match("tracklayer: wandb is not recording: .*r.* `tracklayer push r`", line)
    assert server.history_ranges("r") == [(0, 3)]
    assert elsewhere.recorded().metric("i").step.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(3)", 3), ("raise ValueError('too bad')", 1), ("run.finish(4)", 4)],
)
def test_a_run_that_fails_is_failed_there_too(
    server: WandbServer, machine: Machine, end: str, code: int
) -> None:
    ended = machine.run(
        f"""
        import sys, tracklayer
        run = tracklayer.init(project="p", id="r")
        run.log({{"a": 1}})
        {end}
        """
    )
    assert "tracklayer:" not in ended.stderr
    assert "wandb" not in ended.stderr
    assert (server.runs["r"].state, server.runs["r"].exit_code) == ("failed", code)
    assert (machine.recorded().info.state, machine.recorded().info.exit_code) == ("failed", code)


def test_runs_one_after_another_and_one_within_another(server: WandbServer, machine: Machine) -> None:
    machine.run(
        """
        import tracklayer
        with tracklayer.init(project="p", id="one") as run:
            run.log({"a": 1})
        with tracklayer.init(project="p", id="two") as run:
            run.log({"a": 2})
            with tracklayer.init(project="p", id="three", reinit="create_new") as inner:
                inner.log({"a": 3})
            run.log({"a": 4})
        """
    ).well()
    values = {run_id: list(column(run, "a").values()) for run_id, run in server.runs.items()}
    assert values == {"one": [1], "two": [2, 4], "three": [3]}
    assert {run.state for run in server.runs.values()} == {"finished"}


def test_the_client_of_the_users_own_is_left_alone(server: WandbServer, machine: Machine) -> None:
    ended = machine.run(
        """
        import tracklayer, wandb
        theirs = wandb.init(project="p", id="theirs")
        with tracklayer.init(project="p", id="ours") as run:
            run.log({"a": 1})
            theirs.log({"b": 1})
        theirs.log({"b": 2})
        print(wandb.run is theirs)
        theirs.finish()
        """
    )
    assert ended.code == 0
    assert ended.stdout == "True\n"
    assert column(server.runs["ours"], "a") == {0: 1}
    assert column(server.runs["theirs"], "b") == {0: 1, 1: 2}
