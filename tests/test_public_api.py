"""The public names, pinned: adding or removing one is a decision, not an accident."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import tracklayer
from tracklayer import errors, protocol

ROOT = Path(__file__).parents[1]

NAMES = {
    "init",
    "log",
    "finish",
    "run",
    "config",
    "summary",
    "define_metric",
    "log_artifact",
    "use_artifact",
    "log_model",
    "use_model",
    "save",
    "alert",
    "mark_preempting",
    "watch",
    "unwatch",
    "sweep",
    "agent",
    "login",
    "Histogram",
    "Text",
    "Image",
    "Table",
    "Audio",
    "Video",
    "Html",
    "Plotly",
    "Object3D",
    "plot_table",
    "Artifact",
    "AlertLevel",
    "Settings",
    "open_store",
    "replay",
    "Api",
    "Run",
    "ActiveRun",
    "TracklayerError",
}

INIT = [
    "project",
    "entity",
    "name",
    "config",
    "config_exclude_keys",
    "config_include_keys",
    "group",
    "job_type",
    "tags",
    "notes",
    "id",
    "resume",
    "mode",
    "dir",
    "backend",
    "reinit",
    "settings",
    "save_code",
    "per_process",
    "others",
]

RUN_PROTOCOL = {
    "info",
    "log",
    "update_config",
    "update_summary",
    "log_artifact",
    "commit",
    "finish",
}


def test_the_public_names_are_these() -> None:
    assert set(tracklayer.__all__) == NAMES


def test_every_public_name_can_be_reached(tmp_path: Path) -> None:
    with tracklayer.init(backend="disabled", dir=tmp_path):
        assert all(getattr(tracklayer, name) is not None for name in NAMES)


def test_init_takes_these_arguments() -> None:
    assert list(inspect.signature(tracklayer.init).parameters) == INIT


def test_the_run_protocol_has_these_members() -> None:
    assert {name for name in vars(protocol.Run) if not name.startswith("_")} == RUN_PROTOCOL


def test_no_module_shares_the_name_of_a_public_attribute() -> None:
    modules = {module.name for module in pkgutil.iter_modules(tracklayer.__path__)}
    assert not modules & NAMES


def test_the_error_tree_is_drawn_as_it_is() -> None:
    drawn = errors.__doc__ or ""
    for name, error in inspect.getmembers(errors, inspect.isclass):
        assert issubclass(error, errors.TracklayerError)
        assert name in drawn


@pytest.mark.parametrize("name", sorted(NAMES - {"run", "config", "summary"}))
def test_every_public_object_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(getattr(tracklayer, name))


def test_the_names_for_jax_are_these() -> None:
    assert set(tracklayer.jax.__all__) == {
        "MonitorState",
        "TreeHistograms",
        "TreeStats",
        "agent",
        "histograms",
        "log",
        "monitor",
        "optimizer_metrics",
        "restore_checkpoint",
        "save_checkpoint",
        "stats",
    }
    assert all(inspect.getdoc(getattr(tracklayer.jax, name)) for name in tracklayer.jax.__all__)


def test_jax_is_imported_when_it_is_asked_for() -> None:
    code = "import sys, tracklayer; assert 'jax' not in sys.modules; tracklayer.jax.stats"
    subprocess.run([sys.executable, "-c", code], check=True)
