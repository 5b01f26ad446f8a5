"""Figures of a whole tree of arrays and of each of them: norm, largest magnitude, mean, zeros, NaN."""

# jax's own types are partial
# mypy: disable-error-code=no-any-return
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, final

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tracklayer.jax.leafwise import describe, on_device
from tracklayer.jax.packing import is_real
from tracklayer.jax.scaling import (
    DOUBLE,
    SINGLE,
    Format,
    bits_of,
    exponent,
    format_of,
    magnitude,
    power,
    scaled,
    working_dtype,
)
from tracklayer.jax.trees import leaves
from tracklayer.values import Scalar

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIGURES: Final = ("norm", "max", "mean", "zero_fraction", "nonfinite")
"""What `stats` finds, of the tree and of each array: four floating-point numbers and a count."""


def stats(tree: Any) -> TreeStats:
    """Return figures of a tree and of each of its arrays: a mapping that `log` takes as it is.

    - `norm`: the square root of the sum of squares, which is Optax's global norm, but does not overflow on
      the way.
    - `max`: the largest magnitude.
    - `mean`: the mean; NaN where there are no elements.
    - `zero_fraction`: which part of the elements is exactly zero, as the gradients of dead units are; NaN
      where there are no elements.
    - `nonfinite`: how many elements are NaN or infinite; norm, max and mean are then NaN or infinite too.

    `stats(tree)["norm"]` is that of the tree and `stats(tree)["layers.0.kernel"]["norm"]` that of an array,
    each a jax scalar.  The tree's own figures are those of its floating-point and complex arrays, if it has
    any: a step counter is no parameter.  All is computed on the devices, in one call and without waiting;
    inside a jitted function it is a part of that, and is not differentiated.

    Args:
        tree: a Flax NNX module or state, a Linen dict, an Optax state, any pytree of jax or numpy arrays and
            numbers.  Of complex arrays the magnitudes are described.  What is not of numbers is left out:
            random keys, strings.

    Raises:
        UnsupportedValueError: an array was deleted, or its content is spread over several processes.
    """
    names, arrays = leaves(tree, measured_as, FIGURES)
    wide = any(measured_as(array.dtype) == "float64" for array in arrays)
    return TreeStats(describe(arrays, Measuring(wide)), names)


@final
class TreeStats(Mapping[str, Any]):
    """The figures of a tree, and mappings with those of each of its arrays; made by `stats`."""

    __slots__ = ("_names", "_words")

    def __init__(self, words: Any, names: Sequence[str]) -> None:
        self._words = words  # a matrix with a row for the tree and one for each array, or several, stacked
        self._names = names

    def __getitem__(self, name: str) -> Any:
        if name in FIGURES:
            return _figure(self._words, 0, FIGURES.index(name))
        try:
            return ArrayStats(self._words, 1 + self._names.index(name))
        except ValueError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        yield from FIGURES
        yield from self._names

    def __len__(self) -> int:
        return len(FIGURES) + len(self._names)

    def __repr__(self) -> str:
        """Show the size, not the content."""
        return f"TreeStats({len(self._names)} arrays)"

    def arrays(self) -> tuple[jax.Array]:
        """Return the jax array that is to be brought to the host for `landed`."""
        return (on_device(self._words),)

    def landed(self, hosts: Sequence[NDArray[Any]]) -> dict[str, Scalar]:
        """Return the figures as `norm`, …, `layers.0.kernel/norm`, …, given that array on the host."""
        words = hosts[0]
        layout = _format_in(words)
        numbers = np.ascontiguousarray(words[:, :-1]).view(layout.dtype).tolist()
        counts = words[:, -1].tolist()
        prefixes = ["", *[f"{name}/" for name in self._names]]
        return {
            prefix + figure: value
            for prefix, row, count in zip(prefixes, numbers, counts, strict=True)
            for figure, value in zip(FIGURES, [*row, count], strict=True)
        }

    def tree_flatten(self) -> tuple[tuple[Any], Any]:
        """Take it apart for jax."""
        return (self._words,), self._names

    @classmethod
    def tree_unflatten(cls, names: Any, words: Iterable[Any]) -> TreeStats:
        """Put it together again, with whatever jax has put in the place of its array."""
        return cls(next(iter(words)), names)


@final
class ArrayStats(Mapping[str, jax.Array]):
    """The figures of one array of a tree."""

    __slots__ = ("_row", "_words")

    def __init__(self, words: Any, row: int) -> None:
        self._words = words
        self._row = row

    def __getitem__(self, name: str) -> jax.Array:
        if name not in FIGURES:
            raise KeyError(name)
        return _figure(self._words, self._row, FIGURES.index(name))

    def __iter__(self) -> Iterator[str]:
        return iter(FIGURES)

    def __len__(self) -> int:
        return len(FIGURES)


@final
@dataclass(frozen=True, slots=True)
class Measuring:
    """Finds the figures of arrays, and of all of them: a `leafwise.Description`."""

    wide: bool
    """Whether the figures are in float64, which takes two words each."""

    @property
    def width(self) -> int:
        """The words of a row."""
        return 9 if self.wide else 5

    def rows(self, stack: jax.Array, sizes: Any) -> jax.Array:
        """Return the words of each array along the first axis, of whose elements the first `sizes` count."""
        return self._words(*_measured(stack, sizes))

    def whole(self, rows: jax.Array, shapes: Sequence[Any], /) -> jax.Array:
        """Return the rows, after one for those of floating-point arrays together."""
        is_parameter = np.array([jnp.issubdtype(shape.dtype, np.inexact) for shape in shapes], bool)
        sizes = np.array([shape.size for shape in shapes], np.float64)
        members = np.flatnonzero((is_parameter | ~is_parameter.any()) & (sizes > 0))
        norms, maxima, means, zeros = self._numbers(rows[members])
        largest = jnp.max(norms, initial=0)
        unit = jnp.where((largest > 0) & (largest < jnp.inf), largest, 1)
        weights = (sizes[members] / sizes[members].sum()).astype(norms.dtype)
        total = [
            jnp.sqrt(jnp.sum(jnp.square(norms / unit))) * unit,
            jnp.max(maxima, initial=0),
            jnp.sum(means * weights) if members.size else norms.dtype.type(np.nan),
            jnp.sum(zeros * weights) if members.size else norms.dtype.type(np.nan),
        ]
        nonfinite = jnp.sum(rows[members, -1], dtype=np.uint32)
        own = self._words([jnp.reshape(number, 1) for number in total], jnp.reshape(nonfinite, 1))
        return jnp.concatenate([own, rows])

    def _words(self, numbers: Sequence[jax.Array], nonfinite: jax.Array) -> jax.Array:
        layout = DOUBLE if self.wide else SINGLE
        columns = jnp.stack([lax.convert_element_type(number, layout.dtype) for number in numbers], axis=1)
        words = lax.bitcast_convert_type(columns, np.uint32).reshape(len(columns), self.width - 1)
        return jnp.concatenate([words, nonfinite[:, None]], axis=1)

    def _numbers(self, rows: jax.Array) -> list[jax.Array]:
        return [_float_at(rows, column) for column in range(4)]


@cache
def measured_as(dtype: Any) -> str | None:
    """Return the floating-point dtype in which arrays of a dtype are measured; None for what has no size."""
    if jnp.issubdtype(dtype, np.complexfloating):
        dtype = np.finfo(dtype).dtype
    return format_of(working_dtype(dtype).name).dtype.name if is_real(dtype) else None


def _measured(stack: jax.Array, own: Any) -> tuple[list[jax.Array], jax.Array]:
    """Return each row's norm, largest magnitude, mean and fraction of zeros, and how many are not finite."""
    if jnp.issubdtype(stack.dtype, np.complexfloating):
        stack = lax.abs(stack)
    if not jnp.issubdtype(stack.dtype, np.floating):
        stack = lax.convert_element_type(stack, format_of(working_dtype(stack.dtype)).dtype)
    bits = bits_of(stack)
    layout = format_of(bits.dtype)
    axes = tuple(range(1, bits.ndim))
    sizes = magnitude(bits)
    zero = bits.dtype.type(0)

    def combine(a: Any, b: Any) -> Any:
        return lax.max(a[0], b[0]), lax.add(a[1], b[1]), lax.add(a[2], b[2])

    is_zero, is_nonfinite = (sizes == 0).astype(np.uint32), (sizes >= layout.infinity).astype(np.uint32)
    nothing = (zero, np.uint32(0), np.uint32(0))
    largest, zeros, nonfinite = lax.reduce((sizes, is_zero, is_nonfinite), nothing, combine, axes)
    k = exponent(largest, layout)
    numbers = scaled(bits, k.reshape(k.shape + (1,) * len(axes)), layout)
    back = power(-k, layout)
    there = math.prod(stack.shape[1:])
    if own is not None:  # the others are zeros
        zeros -= (there - own).astype(np.uint32)
    count = layout.dtype.type(there) if own is None else own.astype(layout.dtype)
    norm = jnp.sqrt(jnp.sum(numbers * numbers, axes)) * back
    mean = jnp.sum(numbers, axes) / count * back
    zero_fraction = zeros.astype(layout.dtype) / count
    return [norm, lax.bitcast_convert_type(largest, layout.dtype), mean, zero_fraction], nonfinite


def _format_in(words: Any) -> Format:
    return DOUBLE if words.shape[-1] == Measuring(wide=True).width else SINGLE


def _float_at(words: jax.Array, column: int) -> jax.Array:
    layout = _format_in(words)
    if layout is SINGLE:
        return lax.bitcast_convert_type(words[..., column], layout.dtype)
    return lax.bitcast_convert_type(words[..., 2 * column : 2 * column + 2], layout.dtype)


def _figure(words: Any, row: int, column: int) -> jax.Array:
    # NaN is an answer, and float64 may be one in a program that has none
    wide = jax.enable_x64(True) if _format_in(words) is DOUBLE else nullcontext()  # noqa: FBT003 - jax's way
    with wide, jax.debug_nans(False):  # noqa: FBT003 - jax's way
        return _taken(words, row, column)


@partial(jax.jit, static_argnums=2)
def _taken(words: Any, row: Any, column: int) -> jax.Array:
    own = lax.dynamic_index_in_dim(words, row, words.ndim - 2, keepdims=False)
    return own[..., -1] if column == len(FIGURES) - 1 else _float_at(own, column)


jax.tree_util.register_pytree_node_class(TreeStats)
