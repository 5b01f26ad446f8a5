"""Taking arrays off their devices: one small dispatch and one transfer a call, and never a wait.

At the call, one jitted function copies the arrays' bits into one new array of 32-bit words, and its
transfer to the host is started; whoever needs the values reads them when they are there.  The new buffer
is ours: a step that donates the logged arrays takes nothing away.

Words, and not numbers, so that values of every dtype travel together and arrive as they were, NaN under
`jax_debug_nans` included.  What is compiled depends on dtypes and shapes, never on names, and the number of
scalars is rounded up to a power of two: a program compiles a handful of variants, 50 ms each.
"""

# jax's own types are partial
# mypy: disable-error-code="attr-defined, no-untyped-call, no-any-return"
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding

from tracklayer.errors import UnsupportedValueError
from tracklayer.jax.compiling import compiled
from tracklayer.values import python_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracklayer.values import Scalar

_WORD: Final = 4  # bytes
_STRUCT_CODES: Final = {"i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f4": "f", "f8": "d"}
_MAX_PLANS: Final = 1024  # a program with ever new shapes must not fill the memory with plans


@final
@dataclass(frozen=True, slots=True)
class Group:
    """Arrays of one dtype and shape, side by side in the words.

    Attributes:
        dtype: theirs.
        shape: that of each.
        length: how many there are, padding included.
        word_count: how many words they take.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    length: int
    word_count: int = field(init=False)
    _carrier: np.dtype[Any] = field(init=False)

    def __post_init__(self) -> None:
        """Work out once what every `unpack` needs."""
        carrier = _carrier(self.dtype)
        object.__setattr__(self, "_carrier", carrier)
        object.__setattr__(
            self, "word_count", self.length * math.prod(self.shape) * carrier.itemsize // _WORD
        )

    @property
    def is_scalar(self) -> bool:
        """Whether each of the arrays has one element."""
        return math.prod(self.shape) == 1

    @property
    def format(self) -> str:
        """The words in the notation of `struct`: scalars by their type, anything else skipped."""
        code = _STRUCT_CODES[self._carrier.str[1:]]
        return f"{self.length}{code}" if self.is_scalar else f"{self.word_count * _WORD}x"

    def unpack(self, words: NDArray[np.uint32]) -> NDArray[Any]:
        """Return their values, of shape (length, *shape) and of their own dtype."""
        values = words.view(self._carrier).reshape(self.length, *self.shape)
        return values.astype(self.dtype, copy=False)


@final
class Shipment:
    """Arrays on their way to the host, in the order in which `fetch` was given them."""

    __slots__ = ("_plan", "_transfers")

    def __init__(self, plan: _Plan, transfers: list[_Transfer]) -> None:
        self._plan = plan
        self._transfers = transfers

    @property
    def nbytes(self) -> int:
        """About what it holds in memory, in bytes."""
        return self._plan.nbytes

    def is_ready(self) -> bool:
        """Say whether all is computed."""
        return all(transfer.is_ready() for transfer in self._transfers)

    def numbers(self, count: int) -> list[Scalar]:
        """Wait; return the first `count` arrays, all scalars, as the Python numbers that they are.

        Raises:
            RuntimeError: the computation of one failed; `array` gets the others.
        """
        found = [number for transfer in self._transfers for number in transfer.numbers()]
        positions = self._plan.positions
        return found[:count] if positions is None else [found[p] for p in positions[:count]]

    def array(self, index: int) -> NDArray[Any]:
        """Wait for one; return it with its own shape and dtype.

        Raises:
            RuntimeError: its computation failed.
        """
        transfer, group, row = self._plan.places[index]
        return self._transfers[transfer].array(group, row)


def fetch(arrays: Sequence[jax.Array], scalars: int) -> Shipment:
    """Start to fetch arrays: one dispatch and one transfer for each set of devices that they live on.

    The content is that at the call, whatever is done with the arrays afterwards.

    Args:
        arrays: of real numbers.
        scalars: how many, from the first, must be scalars, of shape () or with one element.

    Raises:
        UnsupportedValueError: one is traced, is of another dtype or no scalar, was deleted (its buffer was
            donated before this call), or is spread over several processes.
    """
    key: list[Any] = [scalars]
    for array in arrays:
        place = array.sharding
        if place.__class__ is not SingleDeviceSharding:
            arrays = [_local(array) for array in arrays]
            key = [scalars, *[part for array in arrays for part in (array.aval, array.sharding)]]
            break
        key.append(array.aval)
        key.append(place)
    known = tuple(key)
    plan = _plans.get(known)
    if plan is None:
        for array in arrays[:scalars]:
            check_scalar(array)
        for array in arrays[scalars:]:
            check_array(array)
        if len(_plans) >= _MAX_PLANS:
            _plans.clear()
        plan = _plans[known] = _Plan(arrays)
    return plan.start(arrays)


def pack(arrays: Sequence[jax.Array]) -> jax.Array:
    """Return the bits of arrays, one after the other, as uint32 of shape (words,); may be traced.

    `Group.unpack` takes them apart again.
    """
    return jnp.concatenate([_words(array) for array in arrays])


def unpack(words: Any, groups: Sequence[Group]) -> list[NDArray[Any]]:
    """Take apart what `pack` put together: return each group's values, of shape (length, *shape)."""
    words = np.asarray(words)
    blocks: list[NDArray[Any]] = []
    start = 0
    for group in groups:
        stop = start + group.word_count
        blocks.append(group.unpack(words[start:stop]))
        start = stop
    return blocks


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


def is_real(dtype: Any) -> bool:
    """Say whether a dtype is one of real numbers or of truth values."""
    return bool(dtype == np.bool_ or jnp.issubdtype(dtype, np.integer) or jnp.issubdtype(dtype, np.floating))


@final
class _Transfer:
    """What one dispatch sent on its way: words of several groups, or a copy of each array."""

    __slots__ = ("_blocks", "_copies", "_dispatch", "_numbers", "_originals")

    def __init__(self, dispatch: _Dispatch, copies: Sequence[jax.Array], originals: list[jax.Array]) -> None:
        self._dispatch = dispatch
        self._copies = copies
        self._originals = originals
        self._blocks: list[NDArray[Any]] | None = None
        self._numbers: Sequence[Scalar] | None = None

    def is_ready(self) -> bool:
        """Say whether it is computed."""
        return all(copy.is_ready() for copy in self._copies)

    # several queues may come at once: each then finds the same, so nothing is locked

    def blocks(self) -> list[NDArray[Any]]:
        """Wait; return each group's values, of shape (length, *shape)."""
        blocks = self._blocks
        if blocks is None:
            if self._dispatch.packs:
                blocks = unpack(self._copies[0], self._dispatch.groups)
            else:
                blocks = [np.asarray(copy)[None] for copy in self._copies]
            self._blocks = blocks
        return blocks

    def numbers(self) -> Sequence[Scalar]:
        """Wait; return the scalars as Python numbers, group by group, padding included."""
        if self._numbers is None:
            dispatch = self._dispatch
            if dispatch.packs:
                self._numbers = dispatch.numbers(np.asarray(self._copies[0]))
            else:
                self._numbers = [n for block in self.blocks() for n in python_numbers(block)]
        return self._numbers

    def array(self, group: int, row: int) -> NDArray[Any]:
        """Wait; return one array."""
        originals = self._originals
        try:
            return self.blocks()[group][row]
        except RuntimeError:  # what one of them was computed by failed, and that fails all
            original = originals[self._dispatch.starts[group] + row]
            if original.is_deleted():
                raise
            return np.asarray(original)


@final
class _Plan:
    """How arrays of certain dtypes, shapes and places are fetched."""

    def __init__(self, arrays: Sequence[jax.Array]) -> None:
        places: dict[Sharding, list[int]] = {}
        for index, array in enumerate(arrays):
            places.setdefault(array.sharding, []).append(index)
        self._dispatches = [_Dispatch(arrays, members, place) for place, members in places.items()]
        found = {
            index: (number, group, row)
            for number, dispatch in enumerate(self._dispatches)
            for index, group, row in dispatch.places
        }
        self.places = [found[index] for index in range(len(arrays))]
        """For each array: the dispatch, the group and the row where it is."""
        starts = np.cumsum([0, *(dispatch.number_count for dispatch in self._dispatches)]).tolist()
        positions = [
            starts[number] + self._dispatches[number].starts[group] + row
            for number, group, row in self.places
            if self._dispatches[number].groups[group].is_scalar
        ]
        self.positions = None if positions == list(range(len(positions))) else positions
        """Where the scalars are among the numbers of all dispatches, unless they are in order."""
        self.nbytes = sum(200 + array.nbytes for array in arrays)  # with what Python needs for it

    def start(self, arrays: Sequence[jax.Array]) -> Shipment:
        return Shipment(self, [dispatch.start(arrays) for dispatch in self._dispatches])


@final
class _Dispatch:
    """The part of a plan that is in one place: a device, or the same set of devices."""

    def __init__(self, arrays: Sequence[jax.Array], indices: list[int], place: Sharding) -> None:
        # what is spread over several devices is copied as it is: packing would gather it on each of them
        self.packs = isinstance(place, SingleDeviceSharding)
        alike: dict[Any, list[int]] = {}
        for index in indices:
            array = arrays[index]
            own = () if self.packs else (index,)
            alike.setdefault((array.size != 1, array.dtype.name, array.shape, own), []).append(index)
        self._order: list[int] = []
        self.places: list[tuple[int, int, int]] = []
        self.starts: list[int] = []
        groups: list[Group] = []
        for _, members in sorted(alike.items(), key=lambda entry: entry[0]):
            array = arrays[members[0]]
            length = len(members)
            if array.size == 1 and self.packs:
                length = 1 << (length - 1).bit_length()
            self.places += [(index, len(groups), row) for row, index in enumerate(members)]
            self.starts.append(len(self._order))
            self._order += members + members[:1] * (length - len(members))
            groups.append(Group(array.dtype, array.shape, length))
        self.groups = tuple(groups)
        self.number_count = sum(group.length for group in self.groups if group.is_scalar)
        self._struct = struct.Struct("<" + "".join(group.format for group in self.groups))
        self._flags = [
            self.starts[number] + row
            for number, group in enumerate(self.groups)
            if group.dtype == np.bool_
            for row in range(group.length)
        ]
        self._copy = _executable(self.groups, place)
        self._is_on_host = all(device.platform == "cpu" for device in place.device_set)

    def numbers(self, words: NDArray[np.uint32]) -> Sequence[Scalar]:
        """Return the scalars in the words, as Python numbers."""
        numbers: Sequence[Scalar] = self._struct.unpack(words.data)
        if self._flags:
            numbers = list(numbers)
            for position in self._flags:
                numbers[position] = bool(numbers[position])
        return numbers

    def start(self, arrays: Sequence[jax.Array]) -> _Transfer:
        ordered = [arrays[index] for index in self._order]
        try:
            copies = self._copy(*ordered)
        except RuntimeError as error:
            msg = f"the array was deleted before it was logged: {error}"
            raise UnsupportedValueError(msg) from error
        if not self._is_on_host:  # where it is, numpy reads it in place
            for copy in copies:
                copy.copy_to_host_async()
        return _Transfer(self, copies, ordered)


def _executable(groups: tuple[Group, ...], place: Sharding) -> Callable[..., list[jax.Array]]:
    """Return the compiled function that copies arrays, in the order of their groups."""
    key = (groups, place)
    known = _executables.get(key)
    if known is None:
        if len(_executables) >= _MAX_PLANS:
            _executables.clear()
        arguments = [
            jax.ShapeDtypeStruct(group.shape, group.dtype, sharding=place)
            for group in groups
            for _ in range(group.length)
        ]
        function = _packed if isinstance(place, SingleDeviceSharding) else _copied
        known = _executables[key] = compiled(function, arguments)
    return known


def _packed(*arrays: jax.Array) -> list[jax.Array]:
    return [pack(arrays)]


def _copied(*arrays: jax.Array) -> list[jax.Array]:
    return [jnp.copy(array) for array in arrays]


_plans: dict[Any, _Plan] = {}
_executables: dict[Any, Callable[..., list[jax.Array]]] = {}


def _local(array: jax.Array) -> jax.Array:
    """Return an array as this process can fetch it: one copy, where each device has one."""
    sharding = array.sharding
    if sharding.__class__ is SingleDeviceSharding:
        return array
    if array.is_fully_replicated:
        shards = array.addressable_shards
        if shards:
            return shards[0].data
        msg = "no device of this process holds it"
        raise UnsupportedValueError(msg)
    if not array.is_fully_addressable:
        msg = (
            "its content is spread over several processes: reduce it, or replicate it, in the jitted "
            "function that every process runs"
        )
        raise UnsupportedValueError(msg)
    return array


def _carrier(dtype: Any) -> np.dtype[Any]:
    """Return the dtype of whole words that holds each of a dtype's values exactly."""
    if dtype == np.bool_:
        return np.dtype(np.uint32)
    if jnp.issubdtype(dtype, np.integer):
        kind = "i" if jnp.issubdtype(dtype, np.signedinteger) else "u"
        return np.dtype(f"{kind}{8 if jnp.iinfo(dtype).bits > 32 else _WORD}")
    return np.dtype(np.float64 if jnp.finfo(dtype).bits > 32 else np.float32)


def _words(array: jax.Array) -> jax.Array:
    exact = jax.lax.convert_element_type(array, _carrier(array.dtype))
    words = jax.lax.bitcast_convert_type(exact, np.uint32)  # two each for 64 bits, the lower first
    return jnp.reshape(words, -1)
