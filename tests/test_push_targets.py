"""`tracklayer push --to BACKEND:FOLDER`: the same run in TensorBoard's files, or in another store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tensorboard_oracle
import tracklayer
from program import cli, read_json
from tracklayer import copying
from tracklayer.surroundings import ConsoleLine, SystemRow


def record(store: Path, rows: int = 3, *, artifact: bool = False, **arguments: Any) -> None:
    """Record rows of a run, or more of them."""
    arguments = {"project": "p", "id": "r", "resume": "allow", "config": {"lr": 0.1}, **arguments}
    with tracklayer.init(dir=store, backend="sqlite", **arguments) as run:
        run.define_metric("a", summary="min")
        for _ in range(rows):
            run.log({"a": 10 - run.step, "h": tracklayer.Histogram([1, 2])})
        run.summary["note"] = "words"
        if artifact:
            Path("weights.bin").write_bytes(b"weights")
            made = tracklayer.Artifact("model", "weights")
            made.add_file("weights.bin")
            run.log_artifact(made, aliases=["best"])


def push(*arguments: str, expect: int = 0) -> dict[str, Any]:
    (report,) = read_json("push", "r", *arguments, expect=expect)["runs"]
    return dict(report)


def left_aside(folder: Path) -> list[Path]:
    return list(folder.glob(".tracklayer-push-*"))


def test_another_store_gets_all_of_a_run(store: Path, tmp_path: Path) -> None:
    record(store, artifact=True, name="a name", group="g", tags=["x"])
    reader = tracklayer.open_store(store).run("r")
    assert push("--to", "sqlite:other")["outcome"] == "sent"
    copy = tracklayer.open_store(tmp_path / "other").run("r")
    assert list(copy.calls()) == list(reader.calls())
    assert (copy.config, copy.summary, copy.rules) == (reader.config, reader.summary, reader.rules)
    ours, theirs = reader.info, copy.info
    assert (theirs.name, theirs.group, theirs.tags, theirs.state) == ("a name", "g", ("x",), "finished")
    assert theirs.created_at == ours.created_at
    (artifact,) = copy.artifacts()
    assert Path(artifact.files[0].source).read_bytes() == b"weights"
    assert tracklayer.open_store(tmp_path / "other").artifact("model:best").version == "v0"
    assert left_aside(tmp_path / "other") == []
    assert (tmp_path / "other" / ".gitignore").exists()


def test_another_store_gets_what_the_process_was_printed_and_measured(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(store)
    reader = type(tracklayer.open_store(store).run("r"))
    lines = [ConsoleLine(5.0 + i, "stdout", f"line {i}") for i in range(2500)]
    rows = [SystemRow(6.0, {"cpu": 50.0}), SystemRow(16.0, {"cpu": 60.0, "memory": 1.0})]
    with monkeypatch.context() as patch:
        patch.setattr(reader, "environments", lambda self: {1: {"program": "train.py", "host": "node7"}})
        patch.setattr(reader, "console", lambda self, after=0: iter(lines[after:]))
        patch.setattr(reader, "system_metrics", lambda self, after=0: iter(rows[after:]))
        push("--to", "sqlite:other")
    copy = tracklayer.open_store(tmp_path / "other").run("r")
    assert copy.environments() == {1: {"program": "train.py", "host": "node7"}}
    assert list(copy.console()) == lines
    assert list(copy.system_metrics()) == rows


@pytest.mark.slow
def test_a_repeated_push_replaces_what_changed_and_only_that(store: Path, tmp_path: Path) -> None:
    record(store)
    file = tmp_path / "other" / "runs" / "r.sqlite"
    assert push("--to", "sqlite:other")["url"] == str(file)
    first = file.stat()
    assert push("--to", "sqlite:other")["outcome"] == "unchanged"
    assert file.stat() == first
    record(store, 2)
    again = push("--to", "sqlite:other")
    assert (again["outcome"], again["rows"]) == ("sent", 5)
    assert tracklayer.open_store(tmp_path / "other").run("r").last_step == 4
    file.unlink()
    assert push("--to", "sqlite:other")["outcome"] == "sent"
    assert "  yes" in cli("runs").stdout


def test_tensorboard_gets_a_run_in_the_files_of_one_push_alone(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    record(store)
    folder = tmp_path / "logs" / "tensorboard" / "p" / "r"
    for rows in (0, 2):
        record(store, rows)
        assert push("--to", "tensorboard:logs")["outcome"] == "sent"
        shown = tensorboard_oracle.read(folder)
        assert shown.steps("a") == [(step, 10.0 - step) for step in range(3 + rows)]
        assert len(shown.histograms["h"]) == 3 + rows
    assert left_aside(tmp_path / "logs") == []
    assert push("--to", "tensorboard:logs")["outcome"] == "unchanged"


def test_tensorboard_files_may_lie_in_the_runs_own_store(store: Path) -> None:
    pytest.importorskip("tensorboardX")
    record(store)
    assert push("--to", f"tensorboard:{store}")["outcome"] == "sent"
    assert tensorboard_oracle.read(store / "tensorboard" / "p" / "r").steps("a")[0] == (0, 10.0)
    assert tracklayer.open_store(store).run("r").last_step == 2


def test_a_run_there_that_is_not_from_here_is_replaced_with_force_only(store: Path, tmp_path: Path) -> None:
    record(store)
    other = tmp_path / "other"
    record(other, 7)
    report = push("--to", f"sqlite:{other}", expect=1)
    assert (report["outcome"], "--force" in report["message"]) == ("failed", True)
    assert push("--to", f"sqlite:{other}", "--dry-run", expect=1)["outcome"] == "failed"
    assert tracklayer.open_store(other).run("r").last_step == 6
    assert push("--to", f"sqlite:{other}", "--force")["outcome"] == "sent"
    assert tracklayer.open_store(other).run("r").last_step == 2


def test_a_copy_that_went_on_there_is_not_overwritten(store: Path, tmp_path: Path) -> None:
    record(store)
    push("--to", "sqlite:other")
    record(tmp_path / "other", 4)
    record(store, 1)
    assert "changed since" in push("--to", "sqlite:other", expect=1)["message"]
    assert tracklayer.open_store(tmp_path / "other").run("r").last_step == 6


def test_a_run_is_not_copied_onto_itself(store: Path) -> None:
    record(store)
    assert "own store" in push("--to", f"sqlite:{store}", expect=1)["message"]
    assert push("--to", f"sqlite:{store}", "--id", "copy")["outcome"] == "sent"
    assert {run.id for run in tracklayer.open_store(store).runs()} == {"r", "copy"}


def test_a_dry_run_makes_nothing(store: Path, tmp_path: Path) -> None:
    record(store)
    report = push("--to", "sqlite:other", "--dry-run")
    assert (report["outcome"], report["rows"]) == ("would send", 3)
    assert not (tmp_path / "other").exists()


KILLED = """
import os, sys
from tracklayer import copying
from tracklayer.cli import main
where = sys.argv[1]
exchange, mark = copying._exchange, copying._mark

def die(*_):
    os._exit(9)

def exchange_and_die(*arguments):
    exchange(*arguments)
    die()

def die_between(made, place, old):
    place.rename(old)
    die()

copying._exchange = {"before": die, "after": exchange_and_die, "between": die_between}[where]
main(["push", "r", "--to", sys.argv[2]])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "to", "there"),
    [
        ("before", "sqlite:other", 2),
        ("after", "sqlite:other", 4),
        ("before", "tensorboard:other", 2),
        ("after", "tensorboard:other", 4),
        ("between", "tensorboard:other", None),
    ],
)
def test_a_kill_leaves_the_old_or_the_new_and_the_next_push_puts_it_right(
    store: Path, tmp_path: Path, where: str, to: str, there: int | None
) -> None:
    def last_step() -> int | None:
        if to.startswith("sqlite"):
            return tracklayer.open_store(tmp_path / "other").run("r").last_step
        folder = tmp_path / "other" / "tensorboard" / "p" / "r"
        return tensorboard_oracle.read(folder).steps("a")[-1][0] if folder.exists() else None

    record(store)
    push("--to", to)
    record(store, 2)
    assert subprocess.run([sys.executable, "-c", KILLED, where, to], check=False).returncode == 9
    assert last_step() == there
    assert len(left_aside(tmp_path / "other")) == 1
    assert push("--to", to)["outcome"] == "sent"
    assert last_step() == 4
    assert left_aside(tmp_path / "other") == []


def test_a_full_disk_leaves_the_old_copy(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(store)
    push("--to", "sqlite:other")
    record(store, 2)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copying, "replay", full)
    assert "No space left" in push("--to", "sqlite:other", expect=1)["message"]
    assert tracklayer.open_store(tmp_path / "other").run("r").last_step == 2
    assert left_aside(tmp_path / "other") == []
