"""Many trials of a sweep in one program: `vmap` over what differs between them, each trial its own run.

The program is compiled before a trial is claimed, for as many trials as there will be at once: a function
that cannot be compiled costs no trial, and a last batch that is smaller is filled up, not compiled anew.
"""

# jax's own types are partial
# mypy: disable-error-code="no-untyped-call"
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from operator import getitem
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.settings import read_settings
from tracklayer.starting import init
from tracklayer.sweeps.agents import check_alone, check_count, find_sweep, work
from tracklayer.sweeps.calling import call
from tracklayer.sweeps.creating import hosted_sweeps

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from tracklayer.sweeps.claiming import ClaimedTrial
    from tracklayer.sweeps.configuration import SweepConfig
    from tracklayer.sweeps.parameters import Parameter

Function: TypeAlias = Callable[[dict[str, Any]], Mapping[str, Any]]
"""What trains: from the parameters of one trial to its metrics."""
Columns: TypeAlias = dict[tuple[str, ...], jax.ShapeDtypeStruct]
"""What differs between the trials of a batch: by a parameter's path, an array with a value for each."""
Program: TypeAlias = Callable[[dict[tuple[str, ...], Any]], dict[str, jax.Array]]
"""The function for a batch: from such arrays to metrics, by their whole keys, of shape (width, ...)."""


def agent(
    sweep_id: str,
    function: Function,
    *,
    width: int = 32,
    count: int | None = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 - the name that `init` shows
) -> None:
    """Work on trials of a sweep, many at once in one jitted call, until it has nothing more to try.

    For models so small that a device has room for many.  Each trial becomes a run in the sweep's group, as
    with `tracklayer.agent`, and agents of both kinds may work on one sweep.  A batch of a `bayes` sweep is
    chosen before any trial of it has ended.  Its trials end together, so `early_terminate` stops none.

    Args:
        sweep_id: what `tracklayer.sweep` returned.
        function: trains with the parameters of one trial, nested as they are in the sweep: scalar arrays, of
            the precision that jax has, and constants as they are given.  It returns its metrics, nested as
            you like, each of shape () or (steps,).  `jax.vmap` and `jax.jit` are applied to it, once.
        width: how many trials run at once.
        count: how many trials this agent works on; by default, all that there are.
        dir: the store's folder; `TRACKLAYER_DIR`, else `.tracklayer`.

    Raises:
        UsageError: a parameter has values that are no numbers; or the function does not return the metric
            of the sweep; or the sweep is one of W&B's server.
        UnsupportedValueError: the function returns something else than metrics of these shapes.
        SweepNotFoundError: there is no such sweep.
        BackendUnavailableError: what sweeps need is not installed.
        StoreError: the store cannot be read or written.
        Exception: what the function raises: before a trial is claimed where it is traced; else the trials
            of its batch have failed.
    """
    check_count(count)
    check_alone()
    if width < 1:
        msg = f"width={width}: at least one trial runs at once"
        raise UsageError(msg)
    settings = read_settings(dir=dir)
    if hosted_sweeps(settings) is not None:
        msg = (
            "trials of W&B's server come one at a time: use tracklayer.agent; or record offline, and "
            "`tracklayer push --group` the runs"
        )
        raise UsageError(msg)
    sweep = find_sweep(settings.dir, sweep_id)
    sweep.prune_nothing()  # when the study hears of a trial, all of it was done
    limits = (width, count, sweep.config.run_cap, sweep.config.points)
    width = min(limit for limit in limits if limit is not None)
    columns = _columns(sweep.config, width)
    program = _compiled(function, sweep.config, columns, width)

    def run(batch: list[ClaimedTrial]) -> None:
        try:
            metrics = jax.device_get(program(_stacked(batch, columns)))
        except Exception:
            for claimed in batch:
                claimed.end("failed")
            raise
        for index, claimed in enumerate(batch):
            call(partial(_record, {key: array[index] for key, array in metrics.items()}), claimed)

    work(sweep, run, count, width)


def _columns(config: SweepConfig, width: int) -> Columns:
    """Return what the parameters of a batch are, constants apart.

    Raises:
        UsageError: a parameter has values that no array has.
    """
    varied = (parameter for parameter in config.parameters if parameter.kind != "constant")
    return {parameter.path: jax.ShapeDtypeStruct((width,), _dtype(parameter)) for parameter in varied}


def _dtype(parameter: Parameter) -> np.dtype[Any]:
    """Return the dtype that holds all values which a parameter may have."""
    distribution: Any = parameter.distribution()
    values: Any = getattr(parameter.law, "values", None)
    if values is None:
        values = [parameter.value(end) for end in (distribution.low, distribution.high)]
    where = f"parameters.{'.'.join(parameter.path)}"
    for value in values:
        if not isinstance(value, (bool, int, float)):
            msg = (
                f"{where}: {value!r} is no number, and only numbers differ within one program: make a sweep "
                "for each value, as a constant, or use tracklayer.agent"
            )
            raise UsageError(msg)
    kinds = {type(value) for value in values}
    kind = float if float in kinds else int if int in kinds else bool
    dtype = jax.dtypes.canonicalize_dtype(kind)
    for value in values:
        if kind is int and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
            msg = f"{where}: {value} is beyond {dtype}, which jax takes for an int here"
            raise UsageError(msg)
    return dtype


def _compiled(function: Function, config: SweepConfig, columns: Columns, width: int) -> Program:
    """Compile a function for batches.

    Raises:
        UsageError: it does not return the sweep's metric.
        UnsupportedValueError: it returns what is no metric.
    """
    constants = {p.path: p.value(None) for p in config.parameters if p.kind == "constant"}

    def train(varied: dict[tuple[str, ...], jax.Array]) -> dict[str, jax.Array]:
        return dict(_flat(function(_nested({**constants, **varied}))))

    lowered = jax.jit(jax.vmap(train, axis_size=width)).lower(columns)
    metric = config.metric
    if metric is not None and not set(metric.keys) & set(lowered.out_info):
        msg = (
            f"the function returns no {metric.name!r}, the sweep's metric, but {', '.join(lowered.out_info)}"
        )
        raise UsageError(msg)
    return lowered.compile()


def _stacked(batch: Sequence[ClaimedTrial], columns: Columns) -> dict[tuple[str, ...], NDArray[Any]]:
    """Return the parameters of a batch, the last trial's repeated up to its width."""

    def column(path: tuple[str, ...], like: jax.ShapeDtypeStruct) -> NDArray[Any]:
        values = [reduce(getitem, path, claimed.parameters) for claimed in batch]
        return np.asarray(values + values[-1:] * (like.shape[0] - len(values)), like.dtype)

    return {path: column(path, like) for path, like in columns.items()}


def _record(metrics: Mapping[str, NDArray[Any]]) -> None:
    """Record a trial's run: series row by row, and what has no steps with the last of them."""
    by_length: defaultdict[int, dict[str, NDArray[Any]]] = defaultdict(dict)
    for key, array in metrics.items():
        by_length[len(array) if array.ndim else 0][key] = array
    with init() as run:
        scalars = by_length.pop(0, {})
        for length, series in by_length.items():
            run.log_series(series, steps=np.arange(length))
        if scalars:
            run.log(scalars, step=max(by_length, default=1) - 1)


def _nested(values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for (*names, last), value in values.items():
        reduce(lambda inner, name: inner.setdefault(name, {}), names, nested)[last] = value
    return nested


def _flat(metrics: Any, prefix: str = "") -> Iterator[tuple[str, jax.Array]]:
    """Yield the metrics of one trial by their whole keys.

    Raises:
        UnsupportedValueError: there is something else.
    """
    if isinstance(metrics, Mapping):
        for key, value in metrics.items():
            yield from _flat(value, f"{prefix}/{key}" if prefix else str(key))
        return
    if not prefix:
        msg = f"the function returns a {type(metrics).__name__}; it is to return its metrics by their keys"
        raise UnsupportedValueError(msg)
    array = jnp.asarray(metrics)
    if array.ndim > 1:
        msg = f"{prefix!r}: of one trial, a metric is of shape () or (steps,), and not {array.shape}"
        raise UnsupportedValueError(msg)
    yield prefix, array
