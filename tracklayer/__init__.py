"""The experiment tracker for JAX and Flax: train once, record anywhere, push to W&B later.

    import tracklayer

    with tracklayer.init(project="digits", config={"learning_rate": 1e-3}) as run:
        for step in range(100):
            run.log({"train/loss": 1 / (step + 1)}, step=step)

Where it goes is a setting (`TRACKLAYER_BACKEND`); the default is a SQLite file on this disk.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Never

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from datetime import timedelta

    from tracklayer import errors as errors
    from tracklayer import jax as jax
    from tracklayer import plot as plot
    from tracklayer.alerts.alert import AlertLevel
    from tracklayer.arguments import Settings
    from tracklayer.artifacts.artifact import Artifact
    from tracklayer.configuration import Config, Summary
    from tracklayer.credentials import login
    from tracklayer.errors import TracklayerError
    from tracklayer.front import ActiveRun
    from tracklayer.media.audio import Audio
    from tracklayer.media.html import Html
    from tracklayer.media.image import Image
    from tracklayer.media.object3d import Object3D
    from tracklayer.media.plotly import Plotly
    from tracklayer.media.table import Table
    from tracklayer.media.video import Video
    from tracklayer.plot import plot_table
    from tracklayer.protocol import Run
    from tracklayer.querying import Api
    from tracklayer.registry import open_store
    from tracklayer.replaying import replay
    from tracklayer.starting import init
    from tracklayer.sweeps.agents import agent
    from tracklayer.sweeps.creating import sweep
    from tracklayer.values import Histogram, Text

    config: Config
    run: ActiveRun | None
    summary: Summary

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 - in the order in which one meets them
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
]

# imported when first used: `import tracklayer` costs next to nothing
_HOMES: Final[Mapping[str, str]] = {
    "init": "starting",
    "sweep": "sweeps.creating",
    "agent": "sweeps.agents",
    "login": "credentials",
    "Histogram": "values",
    "Text": "values",
    "Image": "media.image",
    "Table": "media.table",
    "Audio": "media.audio",
    "Video": "media.video",
    "Html": "media.html",
    "Plotly": "media.plotly",
    "Object3D": "media.object3d",
    "plot_table": "plot",
    "Artifact": "artifacts.artifact",
    "AlertLevel": "alerts.alert",
    "Settings": "arguments",
    "open_store": "registry",
    "replay": "replaying",
    "Api": "querying",
    "Run": "protocol",
    "ActiveRun": "front",
    "TracklayerError": "errors",
}
_SUBMODULES: Final = frozenset({"errors", "jax", "plot"})


def log(data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> None:  # noqa: FBT001 - W&B's signature
    """Record values in the current run; see `ActiveRun.log`."""
    _current().log(data, step, commit)


def finish(exit_code: int | None = None) -> None:
    """Finish the current run, if one is open; see `ActiveRun.finish`."""
    from tracklayer.lifecycle import open_run

    current = open_run()
    if current is not None:
        current.finish(exit_code)


def define_metric(
    name: str,
    step_metric: str | None = None,
    *,
    summary: str | Iterable[str] | None = None,
    goal: str | None = None,
    overwrite: bool | None = None,
    **others: Never,
) -> None:
    """Say how metrics of the current run are summarised; see `ActiveRun.define_metric`."""
    _current().define_metric(name, step_metric, summary=summary, goal=goal, overwrite=overwrite, **others)


def log_artifact(
    artifact_or_path: Artifact | str | os.PathLike[str],
    name: str | None = None,
    type: str | None = None,  # noqa: A002 - W&B's name for it
    aliases: Iterable[str] | str | None = None,
    *,
    wait: bool = True,
    **others: Never,
) -> Artifact:
    """Record an artifact of the current run; see `ActiveRun.log_artifact`."""
    return _current().log_artifact(artifact_or_path, name, type, aliases, wait=wait, **others)


def use_artifact(
    artifact_or_name: Artifact | str,
    type: str | None = None,  # noqa: A002 - W&B's name for it
    aliases: Iterable[str] | str | None = None,
    **others: Never,
) -> Artifact:
    """Return an artifact that the current run uses; see `ActiveRun.use_artifact`."""
    return _current().use_artifact(artifact_or_name, type, aliases, **others)


def log_model(
    path: str | os.PathLike[str], name: str | None = None, aliases: Iterable[str] | str | None = None
) -> Artifact:
    """Record a model of the current run; see `ActiveRun.log_model`."""
    return _current().log_model(path, name, aliases)


def use_model(name: str) -> str:
    """Download a model that the current run uses; see `ActiveRun.use_model`."""
    return _current().use_model(name)


def save(
    glob_str: str | os.PathLike[str],
    base_path: str | os.PathLike[str] | None = None,
    policy: str = "live",
    glob: bool = True,  # noqa: FBT001, FBT002 - W&B's signature
) -> list[str]:
    """Keep files with the current run; see `ActiveRun.save`."""
    return _current().save(glob_str, base_path, policy, glob)


def alert(
    title: str,
    text: str,
    level: AlertLevel | str | None = None,
    wait_duration: float | timedelta | None = None,
) -> None:
    """Record an alert of the current run, and say it on stderr; see `ActiveRun.alert`."""
    _current().alert(title, text, level, wait_duration)


def mark_preempting() -> None:
    """Record that the process is about to be ended from outside; see `ActiveRun.mark_preempting`."""
    _current().mark_preempting()


def watch(
    models: Any, *, log: str = "parameters", log_freq: int = 1000, idx: int | None = None, **others: Never
) -> None:
    """Log the parameters of Flax models beside the current run's rows; see `ActiveRun.watch`."""
    _current().watch(models, log=log, log_freq=log_freq, idx=idx, **others)


def unwatch(models: Any = None) -> None:
    """Watch models no more; see `ActiveRun.unwatch`."""
    _current().unwatch(models)


def _current() -> ActiveRun:
    from tracklayer.lifecycle import current_run

    return current_run()


def __getattr__(name: str) -> Any:
    if name in {"config", "summary"}:
        return getattr(_current(), name)
    if name == "run":
        from tracklayer.errors import NoActiveRunError

        try:
            return _current()
        except NoActiveRunError:
            return None
    if name in _SUBMODULES:  # which are imported when somebody wants them
        return import_module(f"tracklayer.{name}")
    if name in _HOMES:
        value = getattr(import_module(f"tracklayer.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    from tracklayer.porting import absent

    raise absent("wandb", name) or AttributeError(f"module 'tracklayer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
