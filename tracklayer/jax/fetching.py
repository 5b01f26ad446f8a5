"""Taking arrays off their devices: one small dispatch and one transfer a call, and no wait on an accelerator.

At the call, one compiled function packs the arrays into a new one, and its transfer to the host is started;
whoever needs the values reads them when they are there.  The new buffer is ours: a step that donates the
logged arrays takes nothing away.

What is compiled depends on dtypes and shapes, never on names, and the number of scalars is rounded up to a
power of two: a program compiles a handful of variants, 50 ms each.
"""

# jax's own types are partial
# mypy: disable-error-code="attr-defined, no-untyped-call, no-any-return"
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import operator
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, final

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding

from tracklayer.errors import UnsupportedValueError
from tracklayer.jax.compiling import compiled
from tracklayer.jax.packing import Group, is_real, pack, unpack
from tracklayer.values import python_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracklayer.rows import Shipment
    from tracklayer.values import Scalar

_RECENT: Final = 100
_LARGE: Final = 100_000  # bytes: too much to be kept for a failure
_PYTHONS_SHARE: Final = 150  # bytes that an array takes beside its content
_MOST: Final = 512  # arrays in one program: more take seconds to compile
_MAX_KEPT: Final = 1024  # a program with ever new shapes or names must not fill the memory with plans
_T = TypeVar("_T")


def fetch(arrays: Sequence[jax.Array], scalars: int, names: tuple[str, ...] = ()) -> Shipment:
    """Start to fetch arrays: one dispatch and one transfer for each set of devices that they live on.

    The content is that at the call, whatever is done with the arrays afterwards.

    Args:
        arrays: of real numbers.
        scalars: how many, from the first, must be scalars, of shape () or with one element.
        names: what the caller calls them, if it is likely to come with such arrays again.

    Raises:
        UnsupportedValueError: one is traced, is of another dtype or no scalar, was deleted (its buffer was
            donated before this call), or is spread over several processes.
    """
    dispatch = _usual.get(names)
    if dispatch is not None:
        try:
            return dispatch.start(arrays)
        except (TypeError, ValueError):  # other dtypes, shapes or places than the last time
            _usual.pop(names, None)
    local_arrays = [local(array) for array in arrays]
    key = (scalars, *[(array.aval, array.sharding) for array in local_arrays])
    plan = _plans.get(key)
    if plan is None:
        for array in local_arrays[:scalars]:
            check_scalar(array)
        for array in local_arrays[scalars:]:
            check_array(array)
        plan = _kept(_plans, key, _planned(local_arrays))
    if names and isinstance(plan, _Packing) and all(map(operator.is_, arrays, local_arrays)):
        _kept(_usual, names, plan)
    return plan.start(local_arrays)


def check_scalar(array: jax.Array) -> None:
    """Say whether an array can be logged as a scalar.

    Raises:
        UnsupportedValueError: it is traced, holds several elements, or no real number.
    """
    check_array(array)
    if array.size != 1:
        msg = (
            f"an array of shape {array.shape} is no scalar; log tracklayer.Histogram(array), one of its "
            "elements, or with log_series one element a step"
        )
        raise UnsupportedValueError(msg)


def check_array(array: jax.Array) -> None:
    """Say whether an array holds real numbers, and holds them now.

    Raises:
        UnsupportedValueError: it is traced, or its dtype is not one of real numbers.
    """
    if isinstance(array, jax.core.Tracer):
        msg = (
            "it is traced: inside jit there is no value to log yet. Return it from the jitted function "
            "and log it outside, or use tracklayer.jax.log inside"
        )
        raise UnsupportedValueError(msg)
    if not is_real(array.dtype):
        msg = f"cannot log numbers of dtype {array.dtype}"
        raise UnsupportedValueError(msg)


@final
class _Words:
    """Arrays of one device on their way, as words."""

    __slots__ = ("_blocks", "_numbers", "_originals", "_packing", "_words")

    def __init__(self, packing: _Packing, words: jax.Array, originals: Sequence[jax.Array]) -> None:
        self._packing = packing
        self._words = words
        self._originals = originals
        self._blocks: list[NDArray[Any]] | None = None
        self._numbers: Sequence[Scalar] | None = None

    # several queues may come at once: each then finds the same, so nothing is locked

    @property
    def nbytes(self) -> int:
        return self._packing.nbytes

    def is_ready(self) -> bool:
        return self._words.is_ready()

    def numbers(self, count: int) -> Sequence[Scalar]:
        numbers = self._numbers
        if numbers is None:
            numbers = self._numbers = self._packing.numbers(np.asarray(self._words))
        return numbers[:count]

    def array(self, index: int) -> NDArray[Any]:
        group, row = self._packing.places[index]
        if self._blocks is None:
            originals = self._originals
            try:
                self._blocks = unpack(self._words, self._packing.groups)
            except RuntimeError:  # what one of them was computed by failed, and that fails all
                if not originals or originals[index].is_deleted():
                    raise
                return np.asarray(originals[index])
        return self._blocks[group][row]

    def forget_originals(self) -> None:
        """Let go of the arrays that were packed, without which a failure of one is one of all."""
        self._originals = ()


@final
class _Copies:
    """Arrays that are spread over several devices on their way, each by itself."""

    __slots__ = ("_copies",)

    def __init__(self, copies: Sequence[jax.Array]) -> None:
        self._copies = copies

    @property
    def nbytes(self) -> int:
        return sum(_PYTHONS_SHARE + copy.nbytes for copy in self._copies)

    def is_ready(self) -> bool:
        return all(copy.is_ready() for copy in self._copies)

    def numbers(self, count: int) -> list[Scalar]:
        return [python_numbers(self.array(index))[0] for index in range(count)]

    def array(self, index: int) -> NDArray[Any]:
        return np.asarray(self._copies[index])


@final
class _Convoy:
    """Arrays of several places on their way."""

    __slots__ = ("_places", "_shipments")

    def __init__(self, shipments: Sequence[Shipment], places: Sequence[tuple[int, int]]) -> None:
        self._shipments = shipments
        self._places = places

    @property
    def nbytes(self) -> int:
        return sum(shipment.nbytes for shipment in self._shipments)

    def is_ready(self) -> bool:
        return all(shipment.is_ready() for shipment in self._shipments)

    def numbers(self, count: int) -> list[Scalar]:
        return [python_numbers(self.array(index))[0] for index in range(count)]

    def array(self, index: int) -> NDArray[Any]:
        shipment, own_index = self._places[index]
        return self._shipments[shipment].array(own_index)


class _Plan(Protocol):
    """How arrays of certain dtypes, shapes and places are fetched."""

    def start(self, arrays: Sequence[jax.Array]) -> Shipment:
        """Send them on their way."""
        ...


def _planned(arrays: Sequence[jax.Array]) -> _Plan:
    places: dict[Sharding, list[int]] = {}
    for index, array in enumerate(arrays):
        places.setdefault(array.sharding, []).append(index)
    if len(places) == 1:
        (place,) = places
        if len(arrays) > _MOST:
            starts = range(0, len(arrays), _MOST)
            return _Splitting(arrays, [list(range(len(arrays)))[start : start + _MOST] for start in starts])
        # what is spread over several devices is copied as it is: packing would gather it on each of them
        return _Packing(arrays) if isinstance(place, SingleDeviceSharding) else _Copying(arrays)
    return _Splitting(arrays, list(places.values()))


@final
class _Packing:
    """How arrays of one device are fetched: as words, in groups of the same dtype and shape."""

    def __init__(self, arrays: Sequence[jax.Array]) -> None:
        alike: dict[Any, list[int]] = {}
        for index, array in enumerate(arrays):
            alike.setdefault((array.size != 1, array.dtype.name, array.shape), []).append(index)
        order: list[int] = []
        flags: list[int] = []
        groups: list[Group] = []
        found: dict[int, tuple[int, int]] = {}
        numbered: dict[int, int] = {}
        for (is_larger, _, shape), members in sorted(alike.items(), key=lambda entry: entry[0]):
            found.update((index, (len(groups), row)) for row, index in enumerate(members))
            if not is_larger:  # the first groups; their numbers come in the order of the arguments
                numbered.update((index, len(order) + row) for row, index in enumerate(members))
            length = len(members) if is_larger else 1 << (len(members) - 1).bit_length()
            dtype = arrays[members[0]].dtype
            if dtype == np.bool_:
                flags += range(len(order), len(order) + length)
            order += members + members[:1] * (length - len(members))
            groups.append(Group(dtype, shape, length))
        self.groups = tuple(groups)
        self.places = [found[index] for index in range(len(arrays))]
        """The group and the row where each array is."""
        self.nbytes = sum(_PYTHONS_SHARE + array.nbytes for array in arrays)
        (place,) = {array.sharding for array in arrays}
        (device,) = place.device_set
        self._order = order if order != list(range(len(arrays))) else None
        positions = [numbered[index] for index in sorted(numbered)]
        self._positions = positions if positions != list(range(len(positions))) else None
        self._flags = flags
        self._struct = struct.Struct("<" + "".join(group.format for group in groups))
        self._pack = _executable(self.groups, place)
        self._is_on_host = device.platform == "cpu"

    def start(self, arrays: Sequence[jax.Array]) -> _Words:
        ordered = arrays if self._order is None else [arrays[index] for index in self._order]
        words = _called(self._pack, ordered)
        if not self._is_on_host:  # there numpy reads it in place
            words.copy_to_host_async()
        if self.nbytes > _LARGE:
            return _Words(self, words, ())
        made = _Words(self, words, arrays)
        _recent.append(made)
        if len(_recent) > _RECENT:
            with suppress(IndexError):  # several threads may come to this
                _recent.popleft().forget_originals()
        return made

    def numbers(self, words: NDArray[np.uint32]) -> Sequence[Scalar]:
        """Return the scalars in the words as Python numbers, in the order of the arrays."""
        numbers: Sequence[Scalar] = self._struct.unpack(words.data)
        if self._flags:
            numbers = list(numbers)
            for position in self._flags:
                numbers[position] = bool(numbers[position])
        return numbers if self._positions is None else [numbers[position] for position in self._positions]


@final
class _Copying:
    """How arrays that are spread over the same devices are fetched: as copies."""

    def __init__(self, arrays: Sequence[jax.Array]) -> None:
        groups = tuple(Group(array.dtype, array.shape, 1) for array in arrays)
        self._copy = _executable(groups, arrays[0].sharding)

    def start(self, arrays: Sequence[jax.Array]) -> _Copies:
        copies = _called(self._copy, arrays)
        for copy in copies:
            copy.copy_to_host_async()
        return _Copies(copies)


@final
class _Splitting:
    """How arrays of several places are fetched: those of each place by themselves."""

    def __init__(self, arrays: Sequence[jax.Array], members: Sequence[Sequence[int]]) -> None:
        self._members = members
        self._plans = [_planned([arrays[index] for index in own]) for own in members]
        found = {index: (place, row) for place, own in enumerate(members) for row, index in enumerate(own)}
        self._places = [found[index] for index in range(len(arrays))]

    def start(self, arrays: Sequence[jax.Array]) -> _Convoy:
        parts = zip(self._plans, self._members, strict=True)
        return _Convoy([plan.start([arrays[index] for index in own]) for plan, own in parts], self._places)


def _called(executable: Callable[..., Any], arrays: Sequence[jax.Array]) -> Any:
    try:
        return executable(*arrays)
    except RuntimeError as error:
        msg = f"the array was deleted before it was logged: {error}"
        raise UnsupportedValueError(msg) from error
    except ValueError:
        if not jax.config.jax_disable_jit:
            raise
        with jax.disable_jit(False):  # noqa: FBT003 - jax's way; it is to debug the caller's functions, not ours
            return executable(*arrays)


def _executable(groups: tuple[Group, ...], place: Sharding) -> Callable[..., Any]:
    """Return the compiled function that packs, or copies, arrays in the order of their groups."""
    key = (groups, place)
    known = _executables.get(key)
    if known is not None:
        return known
    arguments = [
        jax.ShapeDtypeStruct(group.shape, group.dtype, sharding=place)
        for group in groups
        for _ in range(group.length)
    ]
    function = _packed if isinstance(place, SingleDeviceSharding) else _copied
    return _kept(_executables, key, compiled(function, arguments))


def _kept(cache: dict[Any, _T], key: Any, value: _T) -> _T:
    if len(cache) >= _MAX_KEPT:
        cache.clear()
    cache[key] = value
    return value


def _packed(*arrays: jax.Array) -> jax.Array:
    return pack(arrays)


def _copied(*arrays: jax.Array) -> list[jax.Array]:
    return [jnp.copy(array) for array in arrays]


_plans: dict[Any, _Plan] = {}
"""By the dtypes, shapes and places of arrays."""
_usual: dict[tuple[str, ...], _Packing] = {}
"""How the arrays with these names were fetched the last time: a guess that the executable checks."""
_executables: dict[Any, Callable[..., Any]] = {}
_recent: deque[_Words] = deque()
"""Those that still have the arrays that were packed.

Whoever drops an array lets other threads go first for a moment.  On a queue's thread, that would make it and
the loop that it serves take turns at each array: so the loop drops them, as it would without us.
"""


def local(array: jax.Array) -> jax.Array:
    """Return an array as this process can read it: one copy, where each device has one.

    On several CPU devices, it waits until that is computed.  There, JAX runs whatever a program dispatches in
    one pool with as many threads as the machine has cores, and the parts of a collective block theirs until
    all of them have one: anything that comes between two such programs, even an array that is kept, can leave
    them waiting for ever.  A loop that waits for each value never gets there.

    Raises:
        UnsupportedValueError: it is spread over several processes, or none of it is in this one.
    """
    if array.sharding.__class__ is SingleDeviceSharding or isinstance(array, jax.core.Tracer):
        return array
    if array.is_fully_replicated and array.addressable_shards:
        return _awaited_on_cpus(array, array.addressable_shards[0].data)
    if not array.is_fully_addressable:
        msg = (
            "its content is spread over several processes, and no call of ours waits for the others: reduce "
            "it inside the jitted function that every process runs, and log what that returns"
        )
        raise UnsupportedValueError(msg)
    return _awaited_on_cpus(array, array)


def _awaited_on_cpus(array: jax.Array, part: jax.Array) -> jax.Array:
    devices = array.sharding.device_set
    if len(devices) > 1 and next(iter(devices)).platform == "cpu":
        with suppress(RuntimeError):  # it was deleted, or failed: whoever reads it says so
            part.block_until_ready()
    return part
