"""`tracklayer diff`: what differs between two recorded runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from program import cli, read_json
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.protocol import RunInfo, Status
from tracklayer.settings import Settings
from tracklayer_sqlite import backend

CHANGE = "diff --git a/{0} b/{0}\n--- a/{0}\n+++ b/{0}\n@@ -1 +1 @@\n-1\n+{1}\n"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRACKLAYER_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


def record(
    store: Path,
    run_id: str,
    *environments: dict[str, Any],
    config: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    files: dict[str, str] | None = None,
) -> None:
    """Record a run whose processes, one after the other, were what is given."""
    for environment in environments or ({},):
        info = RunInfo(run_id, "p", f"name of {run_id}", created_at=1.0)
        run: Any = backend.open(info, "allow", Settings(("sqlite",), store))
        if environment:
            run.record_environment(environment)
        run.update_config(config or {})
        if metrics:
            run.log(metrics, step=0, time=1.0)
        if files:
            kept = tuple(ArtifactFile(path, "", 0, uri, uri) for path, uri in files.items())
            run.log_artifact(LoggedArtifact("source-p-t", "code", kept, project="p", version=0))
        run.finish(Status())


def test_what_is_nested_differs_by_its_own_key(store: Path) -> None:
    record(store, "a", config={"model": {"layers": 2, "size": 8}, "lr": 0.1, "old": 1, "list": [1, 2]})
    record(store, "b", config={"model": {"layers": 3, "size": 8}, "lr": 0.1, "list": [1], "new": None})
    assert read_json("diff", "a", "b")["config"] == {
        "model.layers": {"first": 2, "second": 3},
        "old": {"first": 1},
        "list": {"first": [1, 2], "second": [1]},
        "new": {"second": None},
    }


def test_code_differs_by_its_commit_and_the_files_changed_after_it(store: Path) -> None:
    git = {"commit": "1" * 40, "branch": "main", "root": "/here", "dirty": True}
    both = CHANGE.format("same.py", 2)
    first = both + CHANGE.format("a.py", 2) + CHANGE.format("c.py", 2)
    second = both + CHANGE.format("b.py", 2) + CHANGE.format("c.py", 3)
    record(store, "a", {"git": git, "diff": first, "args": ["--x", "1"], "program": "t.py"})
    record(
        store, "b", {"git": git | {"commit": "2" * 40, "root": "/there"}, "diff": second, "program": "t.py"}
    )
    assert read_json("diff", "a", "b")["code"] == {
        "facts": {
            "commit": {"first": "1" * 40, "second": "2" * 40},
            "args": {"first": ["--x", "1"]},
        },
        "files": {"a.py": "first", "b.py": "second", "c.py": "differs"},
    }


def test_where_both_have_a_snapshot_files_differ_by_that(store: Path) -> None:
    environment = {"code": "source-p-t:v0", "diff": CHANGE.format("a.py", 2)}
    record(store, "a", environment, files={"t.py": "x://1", "own.py": "x://1", "same.py": "x://1"})
    environment = {"code": "source-p-t:v1", "diff": CHANGE.format("b.py", 2)}
    record(store, "b", environment, files={"t.py": "x://2", "same.py": "x://1"})
    assert read_json("diff", "a", "b")["code"]["files"] == {"own.py": "first", "t.py": "differs"}


def test_machines_and_packages_differ_where_they_do(store: Path) -> None:
    same = {"python": "3.12.1", "packages": {"numpy": "2.0", "jax": "0.8"}}
    first = {
        **same,
        "pid": 1,
        "started_at": 1.0,
        "cwd": "/a",
        "jax": {"devices": [{"kind": "cpu", "count": 1}]},
    }
    second = {**same, "pid": 2, "packages": {"numpy": "2.0", "jax": "0.9"}, "slurm": {"job_id": "7"}}
    record(store, "a", {"host": "left behind"}, first)
    record(store, "b", second)
    assert read_json("diff", "a", "b")["environment"] == {
        "packages.jax": {"first": "0.8", "second": "0.9"},
        "jax.devices": {"first": [{"kind": "cpu", "count": 1}]},
    }


def test_metrics_stand_side_by_side_whether_or_not_they_differ(store: Path) -> None:
    record(store, "a", metrics={"loss": 0.5, "steps": 3, "nan": float("nan")})
    record(store, "b", metrics={"loss": 0.5, "acc": 0.9, "nan": float("nan")})
    found = read_json("diff", "a", "b")
    assert found["metrics"] == {
        "loss": {"first": 0.5, "second": 0.5},
        "steps": {"first": 3},
        "nan": {"first": "NaN", "second": "NaN"},
        "acc": {"second": 0.9},
    }
    assert (found["first"], found["second"]["name"]) == ({"id": "a", "name": "name of a"}, "name of b")


def test_a_run_does_not_differ_from_itself(store: Path) -> None:
    record(store, "a", {"python": "3.12", "diff": CHANGE.format("a.py", 2)}, config={"x": float("nan")})
    found = read_json("diff", "a", "a")
    assert (found["config"], found["environment"], found["code"]) == ({}, {}, {"facts": {}, "files": {}})
    assert cli("diff", "a", "a").stdout.splitlines()[2:] == ["", "config, code and environment are the same"]


def test_people_get_a_table_for_each_of_it(store: Path) -> None:
    record(
        store,
        "a",
        {"python": "3.11", "diff": CHANGE.format("a.py", 2)},
        config={"lr": 0.1},
        metrics={"l": 1.0},
    )
    record(store, "b", {"python": "3.12"}, config={"lr": "x\n"}, metrics={"l": 2.0})
    assert [" ".join(line.split()) for line in cli("diff", "a", "b").stdout.splitlines()] == [
        "first a (name of a)", "second b (name of b)", "",
        "config", "key a b", "lr 0.1 x\\n", "",
        "files of code", "path change", "a.py only in the first", "",
        "environment", "key a b", "python 3.11 3.12", "",
        "metrics", "key a b", "l 1.0 2.0",
    ]  # fmt: skip


def test_a_run_that_is_not_there_is_told(store: Path) -> None:
    record(store, "a")
    assert "no run 'b'" in cli("diff", "a", "b", expect=3).stderr
