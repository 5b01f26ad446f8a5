"""Watched models: what `run.watch` adds to the rows."""

# flax's own types are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.jax.histogramming import histograms

_INSTEAD: Final = "log tracklayer.jax.stats(grads) or tracklayer.jax.histograms(grads), where you have them"


@final
@dataclass(slots=True)
class _Watched:
    model: Any
    prefix: str
    every: int
    calls: int = 0


@final
class WatchedModels:
    """The models that a run watches."""

    def __init__(self) -> None:
        self._watched: list[_Watched] = []

    def __len__(self) -> int:
        return len(self._watched)

    def add(self, models: Any, log: str, log_freq: int, idx: int | None) -> None:
        """Watch models from now on.

        Raises:
            UsageError: something else than parameters is to be logged, or never.
            UnsupportedValueError: a model is no module of Flax NNX.
        """
        if log != "parameters":
            msg = f"watch: log={log!r}, and JAX has no hooks on gradients: {_INSTEAD}"
            raise UsageError(msg)
        if log_freq < 1:
            msg = f"watch: log_freq={log_freq} is less than 1"
            raise UsageError(msg)
        found = list(models) if isinstance(models, (list, tuple)) else [models]
        for model in found:
            if not isinstance(model, _module_types()):
                msg = (
                    f"watch: a {type(model).__name__} is no module of Flax NNX; log "
                    "tracklayer.jax.histograms(params), every so often"
                )
                raise UnsupportedValueError(msg)
        first = len(self._watched) if idx is None else idx
        for number, model in enumerate(found, start=first):
            prefix = f"parameters_{number}" if number else "parameters"
            self._watched.append(_Watched(model, prefix, log_freq))

    def remove(self, models: Any = None) -> None:
        """Watch models no more; all, if none are given."""
        gone = list(models) if isinstance(models, (list, tuple)) else [models]
        self._watched = [
            w for w in self._watched if models is not None and all(w.model is not m for m in gone)
        ]

    def beside(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a row's values, with what is due of the models; what the row has itself wins."""
        from flax import nnx

        due: dict[str, Any] = {}
        for watched in self._watched:
            if watched.calls % watched.every == 0:
                found = histograms(nnx.state(watched.model, nnx.Param))
                due.update({f"{watched.prefix}/{name}": histogram for name, histogram in found.items()})
            watched.calls += 1
        return {**due, **values} if due else values


def _module_types() -> tuple[type, ...]:
    module = getattr(sys.modules.get("flax.nnx"), "Module", None)
    return () if module is None else (module,)
