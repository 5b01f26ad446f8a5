"""Logging from inside `jit`, `scan` and their kind, for what cannot be returned.

A tap is a callback in the compiled program: one, however many lanes a `vmap` makes of it, with all values
and the step in one array of words.  On the host nothing here calls jax, which could wait for the very
thread that it is called on, and nothing raises, which would end the program.
"""

# jax's own types are partial
# mypy: disable-error-code="no-untyped-call"
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from time import time as now
from typing import TYPE_CHECKING, Any, Final, final

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

from tracklayer.errors import (
    NoActiveRunError,
    RunFinishedError,
    TrialPruned,
    UnsupportedValueError,
    UsageError,
)
from tracklayer.front import ActiveRun
from tracklayer.jax.packing import Group, is_real, pack, unpack
from tracklayer.jax.waiting import taps
from tracklayer.lifecycle import open_run
from tracklayer.seeds import seed_key
from tracklayer.values import python_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracklayer.values import Scalar

_ARRAYS: Final[Any] = (jax.Array, np.generic, np.ndarray)


def log(run: ActiveRun | None, values: Mapping[str, Any], *, step: Any, every: int = 1) -> None:
    """Record scalars from inside `jit`, `scan`, `cond`, `while_loop`, `grad`, `checkpoint` or `vmap`.

    What can be returned is better returned, and logged outside: a tap costs about a tenth of a millisecond
    each time that it fires.  What `every` holds back costs next to nothing.

    Rows go to `run` while it is open, then to the run that is current when the program runs: a function
    compiled under one run logs into the next.  What cannot be recorded is reported and counted, and never
    raised into the program.  A program that computes a step twice, as `checkpoint` may, records it once:
    at the same step the last value stays.

    Under `vmap`, a value that differs between the lanes is a seed series: `loss/seed_0`, `loss/seed_1`, …
    Some things cannot be known inside a program, and are recorded as they come:

    - Under `vmap`, a `cond` whose predicate differs between the lanes runs both branches for all of them,
      and so do their taps.
    - Under `vmap`, a `while_loop` goes on until the last lane is done; a lane that was done earlier records
      one trip too many, which it makes over and over.
    - In `shard_map` and `pmap` a tap fires once on each device.  Of values that differ at the same step,
      any may come last: reduce them first (`psum`, `pmean`).
    - Under `grad` there are no tangents: a row that holds one, in a rule of `custom_jvp`, is not recorded.

    Args:
        run: an open run, or None for whichever is current.
        values: real numbers, traced or not, by key; nested mappings become `a/b` keys.
        step: an integer, traced or not.  Under `vmap` each lane may have its own.
        every: record only the steps that are multiples of it.

    Raises:
        UnsupportedValueError: a key, a value, the step or the run is of a type that cannot be logged here.
        UsageError: `every` is less than 1.
    """
    if run is not None and not isinstance(run, ActiveRun):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
        msg = f"run is a {type(run).__name__}: give the run that tracklayer.init returned, or None"
        raise UnsupportedValueError(msg)
    if not isinstance(values, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
        msg = f"log takes a mapping of keys to values, not a {type(values).__name__}"
        raise UnsupportedValueError(msg)
    every, at = _checked_every(every), _checked_step(step)
    constants: dict[str, Scalar] = {}
    traced: dict[str, jax.Array] = {}
    for key, value in _flatten(values, ""):
        constants.pop(key, None)
        traced.pop(key, None)
        checked = _checked_value(key, value)
        if isinstance(checked, jax.Array):
            traced[key] = checked
        else:
            constants[key] = checked
    arrays, known = list(traced.values()), None
    if isinstance(at, jax.Array):
        arrays.append(at)
    else:
        known = at
    if (traced or constants) and (known is None or known % every == 0):
        taps.exist = True
        laned = (False,) * len(arrays)
        _tap_p.bind(*arrays, tap=_Tap(run, every, constants, tuple(traced), known, laned))


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Tap:
    """What is known when the program is compiled.

    Attributes:
        run: where rows go, if it was said.
        every: the steps that are recorded.
        constants: the values that are not traced.
        keys: the keys of the traced values, in their order.
        step: the step, if it is not traced; else it is the last of the arrays.
        laned: for each array, whether it differs between the lanes of a `vmap`.  The arrays have one axis
            for each `vmap`, of length 1 where they do not differ along it.
    """

    run: ActiveRun | None
    every: int
    constants: dict[str, Scalar]
    keys: tuple[str, ...]
    step: int | None
    laned: tuple[bool, ...]

    def names(self, arrays: Sequence[jax.Array]) -> list[list[str]]:
        """Return for each value the key of each lane, or its one key."""
        return [
            [seed_key(key, lane) for lane in range(array.size)] if laned else [key]
            for key, array, laned in zip(self.keys, arrays, self.laned, strict=False)  # maybe with a step
        ]

    def record(self, arrays: list[NDArray[Any]], names: list[list[str]]) -> None:
        """Record what came from the device."""
        for step, row in self._rows(arrays, names):
            with taps.counting_losses(), suppress(TrialPruned):  # the row is recorded
                self._log(row, step)

    def _log(self, row: dict[str, Any], step: int) -> None:
        if self.run is not None:
            try:
                self.run.log(row, step=step, time=now())
            except RunFinishedError:
                pass
            else:
                return
        run = open_run()
        if run is None:
            msg = "no run is open when the program runs"
            raise NoActiveRunError(msg)
        run.log(row, step=step, time=now())

    def _rows(
        self, arrays: list[NDArray[Any]], names: list[list[str]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        steps = arrays.pop() if self.step is None else np.array(self.step)
        # a predicate that differs between lanes, or between devices, does not hold anything back
        rows = {at: dict(self.constants) for at in python_numbers(steps) if at % self.every == 0}
        for keys, array in zip(names, arrays, strict=True):
            numbers = python_numbers(array)
            if len(rows) == steps.size == 1:
                for row in rows.values():
                    row.update(zip(keys, numbers, strict=True))
                continue
            lanes = np.arange(array.size).reshape(array.shape)
            for lane, at in np.broadcast(lanes, steps):
                if at in rows:
                    rows[at][keys[lane]] = numbers[lane]
        for at, row in rows.items():
            yield int(at), row


# The primitive: a callback whose batching rule keeps the lanes together.  `jax.custom_batching.custom_vmap`
# would do it, too, but before JAX 0.9 it hides effects, and a callback without them is dropped.


def _fire(*arrays: jax.Array, tap: _Tap) -> tuple[()]:
    """What a tap is in a program: one callback with everything, where a step is due."""
    groups = [Group(array.dtype, array.shape, 1) for array in arrays]
    names = tap.names(arrays)

    def receive(words: Any) -> None:
        with taps.counting_losses():
            tap.record([block[0] for block in unpack(words, groups)], names)

    def send(*arrays: jax.Array) -> None:
        words = pack([_gathered(array) for array in arrays]) if arrays else jnp.zeros(0, np.uint32)
        jax.debug.callback(receive, words)

    def hold_back(*arrays: jax.Array) -> None:
        del arrays

    if tap.every == 1 or tap.step is not None:
        send(*arrays)
    else:
        steps = arrays[-1]
        every = min(tap.every, int(jnp.iinfo(steps.dtype).max))  # the host looks again
        jax.lax.cond(jnp.any(steps % every == 0), send, hold_back, *arrays)
    return ()


def _fire_now(*arrays: jax.Array, tap: _Tap) -> tuple[()]:
    """What a tap is outside of programs."""
    with taps.counting_losses():
        tap.record([np.asarray(array) for array in arrays], tap.names(arrays))
    return ()


def _abstract(*avals: Any, tap: _Tap) -> tuple[list[Any], Any]:
    del avals, tap
    return [], _effects()


def _batched(arrays: Sequence[jax.Array], axes: Sequence[int | None], *, tap: _Tap) -> tuple[Any, Any]:
    spread = [
        array[None] if axis is None else jnp.moveaxis(array, axis, 0)
        for array, axis in zip(arrays, axes, strict=True)
    ]
    laned = tuple(laned or axis is not None for laned, axis in zip(tap.laned, axes, strict=True))
    _tap_p.bind(*spread, tap=replace(tap, laned=laned))
    return [], []


def _differentiated(primals: Sequence[Any], tangents: Sequence[Any], *, tap: _Tap) -> tuple[Any, Any]:
    del tangents
    _tap_p.bind(*primals, tap=tap)
    return [], []


def _transposed(cotangents: Any, *arrays: Any, tap: _Tap) -> list[None]:
    """Drop a row of tangents: in reverse mode they have no values."""
    del cotangents, tap
    return [None] * len(arrays)


@functools.cache
def _effects() -> Any:
    """Return the effects for which JAX keeps a callback whose result nobody uses."""
    return jax.make_jaxpr(lambda: jax.debug.callback(lambda: None))().effects


_tap_p: Final = Primitive("tracklayer_tap")
_tap_p.multiple_results = True
_tap_p.def_impl(_fire_now)
_tap_p.def_effectful_abstract_eval(_abstract)
batching.primitive_batchers[_tap_p] = _batched
ad.primitive_jvps[_tap_p] = _differentiated
ad.primitive_transposes[_tap_p] = _transposed
mlir.register_lowering(_tap_p, mlir.lower_fun(_fire, multiple_results=True), cacheable=False)


def _gathered(array: jax.Array) -> jax.Array:
    """Undo an explicit sharding: arrays of different ones cannot be put into one."""
    sharding: Any = jax.typeof(array).sharding
    if all(axis is None for axis in sharding.spec):
        return array
    whole: jax.Array = jax.sharding.reshard(array, NamedSharding(sharding.mesh, PartitionSpec()))
    return whole


# What `log` is given, checked and made plain.


def _flatten(values: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if not isinstance(key, str):
            msg = f"key {key!r} is of type {type(key).__name__}, and must be a string"
            raise UnsupportedValueError(msg)
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}/")  # pyright: ignore[reportUnknownArgumentType] - anything may be logged
        else:
            yield prefix + key, value


def _checked_value(key: str, value: Any) -> Scalar | jax.Array:
    """Return the Python number that a value is, or an array of shape ()."""
    value = _unwrapped(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    if not isinstance(value, _ARRAYS):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        msg = f"{key!r}: cannot log a {kind} from inside a program: real numbers only; log others outside"
        raise UnsupportedValueError(msg)
    if not is_real(value.dtype):
        msg = f"{key!r}: cannot log numbers of dtype {value.dtype}"
        raise UnsupportedValueError(msg)
    if value.size != 1:
        msg = (
            f"{key!r}: an array of shape {value.shape} is no scalar; log its mean or one of its elements, "
            "or return it from the program and log tracklayer.Histogram(array) outside"
        )
        raise UnsupportedValueError(msg)
    return _scalar(value) if isinstance(value, jax.Array) else python_numbers(np.asarray(value))[0]


def _checked_step(step: Any) -> int | jax.Array:
    """Return the Python number that a step is, or an array of shape () and of 32 bits or more."""
    step = _unwrapped(step)
    if isinstance(step, jax.Array):
        if jnp.issubdtype(step.dtype, np.integer) and step.size == 1:
            scalar = _scalar(step)
            return scalar if scalar.dtype.itemsize >= 4 else scalar.astype(np.int32)
    elif _is_integer(step):
        return operator.index(step)
    msg = f"step {step!r} must be an integer, traced or not"
    raise UnsupportedValueError(msg)


def _checked_every(every: Any) -> int:
    if not _is_integer(every):
        msg = f"every {every!r} must be an integer that is known when the program is compiled"
        raise UnsupportedValueError(msg)
    if every < 1:
        msg = f"every {every} must be at least 1"
        raise UsageError(msg)
    return operator.index(every)


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _unwrapped(value: Any) -> Any:
    """Return the array in a variable of Flax's, and anything else as it is."""
    if isinstance(value, _ARRAYS) or not hasattr(value, "__jax_array__"):
        return value
    return value.__jax_array__()


def _scalar(array: jax.Array) -> jax.Array:
    return array.reshape(()) if array.ndim else array
