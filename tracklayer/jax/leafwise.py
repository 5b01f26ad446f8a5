"""Describing many arrays in one call, where they are: a row of words for each.

What is asked of each array is a `Description`; this module sees to it that the devices answer in one jitted
call, whatever surrounds it: arrays spread over devices, another mesh in force, a trace in progress, or the
arrays themselves traced.  Only the rows leave the devices.
"""

# jax's own types are partial
# mypy: disable-error-code="no-untyped-call, no-any-return"
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from tracklayer.errors import UnsupportedValueError
from tracklayer.jax.compiling import compiled
from tracklayer.jax.fetching import local

if TYPE_CHECKING:
    from numpy.typing import NDArray

# each stack costs 0.2 s to compile (one more of the same shape and dtype, 0.04 s), and is a copy to run
_FLATTENED_SIZE: Final = 1 << 16
"""Up to this size, arrays of different shapes are flattened and padded so that they can be stacked."""
_STACK_SIZE: Final = 1 << 20
"""The most elements of a stack of several arrays."""
_MAX_PLANS: Final = 1024  # a program with ever new shapes must not fill the memory with plans


class Description(Hashable, Protocol):
    """What is to be found out about arrays.  Equal descriptions share what was compiled for them."""

    @property
    def width(self) -> int:
        """How many words a row has."""
        ...

    def rows(self, stack: jax.Array, sizes: NDArray[np.int32] | None) -> jax.Array:
        """Return a row of uint32 for each of the arrays along the first axis: (n, *shape) to (n, width).

        `sizes`, if given, says how many of an array's elements are its own: the first ones, of shape
        (n, padded size).  The others are zeros.
        """
        ...

    def whole(self, rows: jax.Array, shapes: Sequence[Any], /) -> jax.Array:
        """Return the answer, given the rows of all arrays, and what has their shapes and dtypes."""
        ...


def describe(arrays: Sequence[jax.Array], description: Description) -> jax.Array:
    """Return the description of arrays, as an array on one device; traced, where one of them is.

    Never waits, but for arrays on several CPU devices (see `fetching.local`).  The arrays' content is that
    at the call, whatever is done with them afterwards.

    Raises:
        UnsupportedValueError: one was deleted (its buffer was donated before this call), or its content is
            spread over several processes.
    """
    if any(isinstance(array, jax.core.Tracer) for array in arrays):
        return _traced(arrays, description)
    arrays = [local(array) for array in arrays]
    key = (description, tuple([(array.aval, array.sharding) for array in arrays]))
    plan = _plans.get(key)
    if plan is None:
        if len(_plans) >= _MAX_PLANS:
            _plans.clear()
        plan = _plans[key] = _Plan(arrays, description)
    try:
        if not jax.config.jax_disable_jit:  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
            return plan.run(arrays)
        with jax.disable_jit(False):  # noqa: FBT003 - jax's way; it is to debug the caller's functions, not ours
            return plan.run(arrays)
    except RuntimeError as error:
        msg = f"the array was deleted before it was logged: {error}"
        raise UnsupportedValueError(msg) from error


def on_device(answer: Any) -> jax.Array:
    """Return an answer as a jax array again, where jax or its user has put numpy's in its place."""
    return answer if isinstance(answer, jax.Array) else jnp.asarray(answer)


@final
class _Plan:
    """The compiled calls that describe arrays of certain dtypes, shapes and places."""

    def __init__(self, arrays: Sequence[jax.Array], description: Description) -> None:
        self._description = description
        self._shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays]
        places: dict[Any, list[int]] = {}
        for index, array in enumerate(arrays):
            places.setdefault(_place(array.sharding), []).append(index)
        self._members = list(places.values()) or [[]]
        function = _described if len(self._members) == 1 else _rows
        self._calls: list[Callable[..., jax.Array]] = []
        for members in self._members:
            own = [arrays[index] for index in members]
            is_flat = all(array.sharding.__class__ is SingleDeviceSharding for array in own)
            self._calls.append(_compiled(partial(function, description=description, is_flat=is_flat), own))
        self._join: Callable[..., jax.Array] | None = None

    def run(self, arrays: Sequence[jax.Array]) -> jax.Array:
        parts = [
            _on_one_device(call(*[arrays[index] for index in members]))
            for call, members in zip(self._calls, self._members, strict=True)
        ]
        return parts[0] if len(parts) == 1 else self._joined(parts)

    def _joined(self, parts: list[jax.Array]) -> jax.Array:
        """Bring the rows of several places together, in the order of the arrays."""
        with jax.ensure_compile_time_eval():  # a trace in progress is not to see this
            parts = [jax.device_put(part, parts[0].sharding) for part in parts]
        if self._join is None:
            order = np.argsort(np.concatenate(self._members))

            def join(*parts: jax.Array) -> jax.Array:
                return self._description.whole(jnp.concatenate(parts)[order], self._shapes)

            self._join = _compiled(join, parts)
        return self._join(*parts)


def _described(*arrays: jax.Array, description: Description, is_flat: bool) -> jax.Array:
    return description.whole(_rows(*arrays, description=description, is_flat=is_flat), arrays)


def _rows(*arrays: jax.Array, description: Description, is_flat: bool) -> jax.Array:
    """Return a row for each array; those that are alike are done together.

    `is_flat` says that none is spread over several devices: to flatten one that is would gather it.
    """
    alike: dict[Any, list[int]] = {}
    for index, array in enumerate(arrays):
        shape: tuple[int, ...] = array.shape
        if is_flat and array.size <= _FLATTENED_SIZE:
            shape = (_padded(array.size),)
        alike.setdefault((shape, array.dtype), []).append(index)
    order: list[int] = []
    rows = [jnp.zeros((0, description.width), np.uint32)]
    for (shape, _), members in alike.items():
        together = max(1, _STACK_SIZE // max(1, math.prod(shape)))
        for start in range(0, len(members), together):
            stack, sizes = _stacked([arrays[i] for i in members[start : start + together]], shape)
            rows.append(_rows_of_stack(description, stack, sizes))
        order += members
    joined = jnp.concatenate(rows)
    return joined if order == sorted(order) else joined[np.argsort(order)]


def _padded(size: int) -> int:
    """Return a size for which others are rounded up to the same: a power of 4."""
    return 1 << 2 * max(2, -(-(size - 1).bit_length() // 2))


def _stacked(arrays: Sequence[jax.Array], shape: tuple[int, ...]) -> tuple[jax.Array, Any]:
    if all(array.shape == shape for array in arrays):
        return jnp.stack(arrays), None
    parts: list[Any] = []
    for array in arrays:
        parts += [array.reshape(-1), np.zeros(math.prod(shape) - array.size, array.dtype)]
    sizes = np.array([array.size for array in arrays], np.int32)
    return jnp.concatenate(parts).reshape(-1, *shape), sizes


@partial(jax.jit, static_argnums=0)  # of its own, so that stacks of the same shape are traced once
def _rows_of_stack(description: Description, stack: jax.Array, sizes: Any) -> jax.Array:
    return description.rows(stack, sizes)


_described_in_trace = jax.jit(_described, static_argnames=("description", "is_flat"))


def _traced(arrays: Sequence[jax.Array], description: Description) -> jax.Array:
    """Describe arrays as part of the caller's own computation."""
    for array in arrays:
        mesh = jax.typeof(array).sharding.mesh
        if AxisType.Explicit in mesh.axis_types:
            # how it is spread over the devices to be counted is the compiler's business, no part of a type
            function = partial(_described, description=description, is_flat=False)
            with jax.sharding.use_abstract_mesh(mesh):
                settled: Any = jax.sharding.auto_axes(function, out_sharding=PartitionSpec())
                return settled(*arrays)
    return _described_in_trace(*arrays, description=description, is_flat=jax.device_count() == 1)


def _compiled(function: Callable[..., jax.Array], arrays: Sequence[jax.Array]) -> Callable[..., jax.Array]:
    """Compile a function for arrays such as these, with an answer that each device has."""
    shapes = [
        jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=_settled(array.sharding)) for array in arrays
    ]
    place = shapes[0].sharding if shapes else None
    everywhere = NamedSharding(place.mesh, PartitionSpec()) if isinstance(place, NamedSharding) else None
    return compiled(function, shapes, everywhere)


def _place(sharding: Sharding) -> Any:
    """Return what arrays have in common that one call can take."""
    settled = _settled(sharding)
    return settled.mesh if isinstance(settled, NamedSharding) else settled


def _settled(sharding: Sharding) -> Sharding:
    """Return the sharding with its mesh's axes left to the compiler."""
    if not isinstance(sharding, NamedSharding) or not isinstance(sharding.mesh, Mesh):
        return sharding
    mesh = Mesh(sharding.mesh.devices, sharding.mesh.axis_names)
    return NamedSharding(mesh, sharding.spec, memory_kind=sharding.memory_kind)


def _on_one_device(array: jax.Array) -> jax.Array:
    if array.sharding.__class__ is SingleDeviceSharding:
        return array
    return array.addressable_shards[0].data


_plans: dict[Any, _Plan] = {}
