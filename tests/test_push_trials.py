"""Push under faults: some of the trials of `push_trials.py`; and that their oracle sees what is wrong."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from push_oracle import Truth, differences
from push_recording import Call, Made, Phase, Plan, Recorder, Rich
from push_trials import run_push, run_trials, summary_of
from wandb_server import ServedRun, WandbServer

pytestmark = pytest.mark.slow

TRIALS = range(12)


@pytest.mark.timeout(600)
def test_whatever_strikes_the_server_ends_up_with_what_was_recorded_once() -> None:
    reports = list(run_trials(TRIALS, jobs=2))
    failed = [str(report) for report in reports if report.problems]
    assert not failed, "\n".join([*failed, summary_of(reports)])
    struck = sum((report.struck for report in reports), Counter[str]())
    assert struck.total() >= len(TRIALS), f"too few faults struck: {struck}"
    assert any("killed" in name for name in struck)


# -- the oracle --------------------------------------------------------------------------------------------


RICH = {
    "text": "words",
    "image": Rich("image", 1),
    "images": Rich("images", [2, 3]),
    "audio": Rich("audio", 4),
    "html": Rich("html", "<p>page</p>"),
    "table": Rich("table", [["a", 1]]),
    "histogram": Rich("histogram", [1, 2, 2]),
}
PHASE = Phase(
    calls=[*(Call(step, {"a": step + 0.5, "ruled": step}) for step in range(20)), Call(20, RICH)],
    config={"lr": 0.1},
    summary={"best": 7},
    artifacts=[Made("model", {"x.txt": "content"}, ("best",))],
    uses=["model"],
    prints=["a line", "line 1"],
)
ATTRIBUTES: dict[str, Any] = {"name": "n", "group": "g", "job_type": None, "tags": ("x",), "notes": None}


@dataclass
class Pushed:
    """A run that was pushed, without a fault."""

    server: WandbServer
    truth: Truth
    file: Path

    def differences(self) -> list[str]:
        return list(differences(self.server, self.truth, self.file, lost_answers=0))


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    folder = tmp_path_factory.mktemp("oracle")
    plan = Plan("r", ATTRIBUTES, {"ruled": {"summary": "max"}}, [PHASE], measures_system=True)
    recorder = Recorder(plan, folder / "store")
    recorder.record()
    truth = Truth(plan, recorder.spans)
    truth.recorded(0)
    with WandbServer() as server:
        assert run_push(folder, server) == {"sent"}
        yield Pushed(server, truth, folder / "store" / "runs" / "r.sqlite")


def test_the_oracle_is_content_with_a_run_that_arrived(pushed: Pushed) -> None:
    assert pushed.differences() == []


def first_file(run: ServedRun, kind: str) -> str:
    return next(name for name in run.files if name.startswith(f"media/{kind}"))


def spoil_file(run: ServedRun) -> None:
    run.files[first_file(run, "audio")] += b"more"


def lose_use(run: ServedRun) -> None:
    for artifact in run.artifacts:
        artifact.used_by.clear()


def spoil_artifact(run: ServedRun) -> None:
    for artifact in run.artifacts:
        artifact.files = dict.fromkeys(artifact.files, b"another content")


MISTAKES: dict[str, tuple[Callable[[ServedRun], object], str]] = {
    "a value": (lambda run: run.history[3].update(a=1), "'a' of step 3 is 1"),
    "a key": (lambda run: run.history[3].update(b=1), "'b' of step 3 was never logged"),
    "a missing value": (lambda run: run.history[3].pop("a"), "1 values are missing"),
    "a missing row": (lambda run: run.history.pop(), "values are missing"),
    "a row twice": (lambda run: run.history.append(run.history[3]), "'a' of step 3 is in line 3 and in line"),
    "a step": (lambda run: run.history[3].update(_step=2), "steps do not ascend"),
    "a late row": (lambda run: run.history[3].update({"tracklayer/step": 3}), "line 3 is late"),
    "a time": (lambda run: run.history[3].update(_timestamp=0.0), "line 3 has the time 0.0"),
    "a runtime": (lambda run: run.history[3].update(_runtime=-1.0), "line 3 has the runtime -1.0"),
    "an image": (lambda run: run.files.pop(first_file(run, "images")), "is missing"),
    "a sound": (spoil_file, "has another content than is said of it"),
    "a file too many": (lambda run: run.files.update({"media/x.png": b""}), "nothing names the files"),
    "an overlap": (lambda run: run.history_ranges.append((1, 2)), "uploads of rows overlap"),
    "an upload twice": (lambda run: run.history_ranges.append(run.history_ranges[0]), "came again"),
    "a summary": (lambda run: run.summary.update(ruled=3), "the summary's ruled is 3"),
    "a summary's key": (lambda run: run.summary.update(x=3), "the summary has 'x'"),
    "a config": (lambda run: run.raw_config["lr"].update(value=0.2), "config"),
    "a tag": (lambda run: run.tags.append("y"), "attributes"),
    "a state": (lambda run: setattr(run, "state", "running"), "end"),
    "an artifact": (lambda run: run.artifacts.clear(), "is missing, or is not the run's"),
    "an artifact's content": (spoil_artifact, "is missing, or is not the run's"),
    "a use": (lose_use, "the run used an artifact"),
    "a console line": (lambda run: run.console.pop(), "console"),
    "a row of system metrics": (lambda run: run.events.append({}), "rows of system metrics"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_oracle_sees_a_mistake(pushed: Pushed, mistake: str) -> None:
    make, said = MISTAKES[mistake]
    store = pushed.server.store
    kept = store.runs, store.artifacts.by_id
    copied = copy.deepcopy(kept)
    try:
        store.runs, store.artifacts.by_id = copied
        make(pushed.server.runs["r"])
        assert any(said in difference for difference in pushed.differences())
    finally:
        store.runs, store.artifacts.by_id = kept
