"""The experiment tracker for JAX and Flax: train once, record anywhere, push to W&B later.

    import tracklayer

    with tracklayer.init(project="digits", config={"learning_rate": 1e-3}) as run:
        for step in range(100):
            run.log({"train/loss": 1 / (step + 1)}, step=step)

Where it goes is a setting (`TRACKLAYER_BACKEND`); the default is a SQLite file on this disk.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tracklayer import errors as errors
    from tracklayer import jax as jax
    from tracklayer.artifacts import Artifact
    from tracklayer.configuration import Config, Summary
    from tracklayer.errors import TracklayerError
    from tracklayer.front import ActiveRun
    from tracklayer.protocol import Run
    from tracklayer.registry import open_store
    from tracklayer.replaying import replay
    from tracklayer.starting import init
    from tracklayer.values import Histogram, Text

    config: Config
    run: ActiveRun
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
    "Histogram",
    "Text",
    "Artifact",
    "open_store",
    "replay",
    "Run",
    "ActiveRun",
    "TracklayerError",
]

# imported when first used: `import tracklayer` costs next to nothing
_HOMES: Final[Mapping[str, str]] = {
    "init": "starting",
    "Histogram": "values",
    "Text": "values",
    "Artifact": "artifacts",
    "open_store": "registry",
    "replay": "replaying",
    "Run": "protocol",
    "ActiveRun": "front",
    "TracklayerError": "errors",
}


def log(values: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> None:  # noqa: FBT001 - W&B's signature
    """Record values in the current run; see `ActiveRun.log`."""
    _current().log(values, step, commit)


def finish(exit_code: int | None = None) -> None:
    """Finish the current run; see `ActiveRun.finish`."""
    _current().finish(exit_code)


def define_metric(
    pattern: str,
    *,
    summary: str | Iterable[str] | None = None,
    step_metric: str | None = None,
    goal: str | None = None,
) -> None:
    """Say how metrics of the current run are summarised; see `ActiveRun.define_metric`."""
    _current().define_metric(pattern, summary=summary, step_metric=step_metric, goal=goal)


def log_artifact(artifact: Any, name: str | None = None, type: str | None = None) -> None:  # noqa: A002 - W&B's name for it
    """Record an artifact of the current run; see `ActiveRun.log_artifact`."""
    _current().log_artifact(artifact, name, type)


def _current() -> ActiveRun:
    from tracklayer.lifecycle import current_run

    return current_run()


def __getattr__(name: str) -> Any:
    if name in {"config", "summary"}:
        return getattr(_current(), name)
    if name == "run":
        return _current()
    if name == "jax":  # the submodule, which is imported when somebody wants it
        return import_module("tracklayer.jax")
    if name in _HOMES:
        value = getattr(import_module(f"tracklayer.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    msg = f"module 'tracklayer' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
