"""What a run was and measured, recorded offline and pushed, is what the live client sends of it."""

from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path

import pytest

from machine import Machine
from wandb_server import ServedRun, WandbServer

pytestmark = pytest.mark.slow

TRAIN = """
import importlib, os, sys, time
tracker = importlib.import_module(os.environ["TRACKER"])
options = {"settings": tracker.Settings(disable_code=False)} if tracker.__name__ == "wandb" else {}
with tracker.init(project="p", id=tracker.__name__, **options) as run:
    begin = time.time()
    for step in range(4):
        run.log({"loss": 1.0 / (step + 1)})
        print("step", step)
        print("\\rhalf", end="")
        print("\\rwhole of", step)
        sys.stderr.write("trouble\\n")
        time.sleep(0.4)
"""
EVERYTHING = {
    "WANDB_SAVE_CODE": "true",  # with which alone the client sends the changes
    "WANDB_DISABLE_GIT": None,
    "WANDB_X_DISABLE_STATS": None,
    "WANDB_X_SAVE_REQUIREMENTS": None,
    "WANDB_X_STATS_SAMPLING_INTERVAL": "0.3",
    "TRACKLAYER_OMIT": None,
    "TRACKLAYER_CONSOLE": None,
    "TRACKLAYER_SYSTEM_INTERVAL": "0.3",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[ServedRun, ServedRun]:
    """The run that the client made, and the one that was pushed, of the same program in one repository."""
    with WandbServer() as server:
        machine = Machine(tmp_path_factory.mktemp("both"), server, **EVERYTHING)
        make_dirty(machine.folder)
        started = [machine.start(TRAIN, "--lr", "0.1", TRACKER=name) for name in ("wandb", "tracklayer")]
        assert [process.end().code for process in started] == [0, 0]
        assert [run.id for run in server.runs.values()] == ["wandb"]
        assert machine.push("tracklayer")["outcome"] == "sent"
        return server.runs["wandb"], server.runs["tracklayer"]


def make_dirty(folder: Path) -> None:
    """Make a repository in which a file was changed, one taken away, one added, and one is new."""
    (folder / ".gitignore").write_text("*\n!*.py\n")
    (folder / "changed.py").write_text("".join(f"line {number}\n" for number in range(30)))
    (folder / "gone.py").write_text("gone\n")
    (folder / "empty.py").touch()
    (folder / "train.py").write_text("# to come\n")
    author = ("-c", "user.name=n", "-c", "user.email=n@localhost")
    for command in (("init", "-q", "-b", "main"), ("add", "."), (*author, "commit", "-qm", "first")):
        subprocess.run(["git", *command], cwd=folder, check=True)
    changed = folder / "changed.py"
    changed.write_text(changed.read_text().replace("line 3\n", "größer\n").removesuffix("\n"))
    (folder / "gone.py").unlink()
    (folder / "added.py").write_text("x = 1\n")
    (folder / "nobody_knows.py").write_text("x = 2\n")
    subprocess.run(["git", "add", "added.py"], cwd=folder, check=True)


def test_the_uncommitted_changes_are_the_same(runs: tuple[ServedRun, ServedRun]) -> None:
    theirs, ours = runs
    assert "größer".encode() in theirs.files["diff.patch"]
    assert ours.files["diff.patch"] == theirs.files["diff.patch"]


def test_the_packages_are_the_same(runs: tuple[ServedRun, ServedRun]) -> None:
    theirs, ours = (sorted(run.files["requirements.txt"].decode().splitlines()) for run in runs)
    assert ours == theirs
    assert any(line.startswith("jax==") for line in ours)


def test_the_console_is_the_same_line_by_line(runs: tuple[ServedRun, ServedRun]) -> None:
    theirs, ours = (
        [line.split(" ", 2 if line.startswith("ERROR") else 1)[-1] for line in run.console] for run in runs
    )
    own = [line for line in ours if "tracklayer:" not in line]
    assert sorted(own) == sorted(line for line in theirs if "wandb:" not in line)
    assert [line.rstrip("\n") for line in own if "whole" in line] == [f"whole of {step}" for step in range(4)]


def test_the_machine_is_measured_at_the_same_pace_with_like_values(
    runs: tuple[ServedRun, ServedRun],
) -> None:
    theirs, ours = (run.events for run in runs)
    assert len(ours) >= 4
    assert abs(len(ours) - len(theirs)) <= 3
    for rows, run in ((theirs, runs[0]), (ours, runs[1])):
        times = [row["_timestamp"] for row in rows]
        assert times == sorted(times)
        began = min(row["_timestamp"] for row in run.history)
        assert began - 5 < times[0] <= times[-1] < began + 60, dt.datetime.fromtimestamp(began, tz=dt.UTC)
    for key in ("system.memory_percent", "system.proc.memory.rssMB", "system.disk./.usagePercent"):
        of_both = [[row[key] for row in rows if key in row] for rows in (theirs, ours)]
        assert max(of_both[1]) == pytest.approx(max(of_both[0]), rel=0.5), key
