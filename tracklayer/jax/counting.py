"""Counting arrays' elements into bins on their devices: only bins and moments cross over.

What a device computes of an array is a row of 32-bit words: the counts of the bins, of NaN and of the two
infinities; the least and the greatest finite element, as their bits; the sum and the sum of squares of the
finite elements' distances from that one of them (or zero) which is nearest to zero.  Distances, so that the
moments keep their precision where all elements are close together; in units of a power of two, so that they
neither overflow nor underflow.  The host makes `Bins` of it in float64.
"""

# jax's own types are partial
# mypy: disable-error-code=no-any-return
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, final

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tracklayer.jax.packing import is_real
from tracklayer.jax.scaling import (
    bits_of,
    exponent,
    format_of,
    magnitude,
    ordered,
    scaled,
    working_dtype,
)
from tracklayer.values import Bins, bin_range

if TYPE_CHECKING:
    from numpy.typing import NDArray

_APART: Final = 3  # NaN, infinity, minus infinity: each is counted like a bin of its own


@cache
def counted_as(dtype: Any) -> str | None:
    """Return the dtype as which elements of a dtype are counted; None where they are no real numbers."""
    return working_dtype(dtype).name if is_real(dtype) else None


@final
@dataclass(frozen=True, slots=True)
class Counting:
    """Counts arrays of real numbers: a `leafwise.Description`."""

    num_bins: int
    wide: bool
    """Whether one of the arrays is of 64 bits: all rows are then as long as its own."""
    single: bool = False
    """Whether the answer is the only array's row, rather than a matrix of one."""

    @property
    def width(self) -> int:
        """The words of a row: counts, two bounds and two sums."""
        return self.num_bins + _APART + (8 if self.wide else 4)

    def rows(self, stack: jax.Array, sizes: Any) -> jax.Array:
        """Return the words of each array along the first axis, of whose elements the first `sizes` count."""
        own = None
        if sizes is not None:
            own = lax.broadcasted_iota(np.int32, stack.shape, 1) < sizes[:, None]
        words = _counted(stack, own, self.num_bins)
        return jnp.pad(words, ((0, 0), (0, self.width - words.shape[1])))

    def whole(self, rows: jax.Array, _shapes: Sequence[Any], /) -> jax.Array:
        """Return the rows."""
        return rows[0] if self.single else rows


def decoded(words: NDArray[Any], num_bins: int, dtype: np.dtype[Any]) -> Bins:
    """Return the bins that a row of words stands for, given the dtype from `counted_as`."""
    counts, rest = words[:num_bins].astype(np.int64), np.ascontiguousarray(words[num_bins:])
    each = dtype.itemsize // 4
    apart = rest[:_APART].tolist()
    bounds, sums = rest[_APART : _APART + 4 * each].reshape(2, -1)
    layout = format_of(dtype)
    count = int(counts.sum())
    low, high = bounds.view(dtype).tolist() if count else (math.nan, math.nan)
    first, last = bin_range(float(low), float(high), num_bins)
    edges = np.linspace(first, last, num_bins + 1)
    if count and (first, last) != (low, high):  # what was counted between closer edges
        share = (np.arange(num_bins) + 0.5) / num_bins
        centres = np.clip(low * (1 - share) + high * share, first, last)
        counts = np.histogram(centres, num_bins, (first, last), weights=counts)[0].astype(np.int64)
    total = squares = 0.0
    if count:
        largest = (bounds.view(layout.integer) & np.iinfo(layout.integer).max).max()
        unit = 2.0 ** -int(exponent(largest, layout)) if dtype.kind == "f" else 1.0
        distance, square = sums.view(layout.dtype).tolist()
        origin = min(max(low, 0), high)
        total = count * origin + distance * unit
        squares = count * origin * origin + 2 * origin * distance * unit + square * unit * unit
    return Bins(
        counts=tuple(counts.tolist()),
        edges=tuple(edges.tolist()),
        minimum=float(low),
        maximum=float(high),
        total=float(total),
        sum_of_squares=float(squares),
        nan_count=apart[0],
        positive_infinity_count=apart[1],
        negative_infinity_count=apart[2],
    )


def _counted(stack: jax.Array, own: jax.Array | None, num_bins: int) -> jax.Array:
    dtype = working_dtype(stack.dtype)
    if dtype.kind == "f":
        return _counted_floats(bits_of(stack), own, num_bins)
    return _counted_integers(lax.convert_element_type(stack, dtype), own, num_bins)


def _counted_floats(bits: jax.Array, own: jax.Array | None, num_bins: int) -> jax.Array:
    layout = format_of(bits.dtype)
    size = magnitude(bits)
    finite = size < layout.infinity if own is None else (size < layout.infinity) & own
    low, high = map(ordered, _extremes(ordered(bits), finite))
    k = exponent(jnp.maximum(magnitude(low), magnitude(high)), layout)
    numbers = scaled(bits, _across(k, bits), layout)
    least, greatest = scaled(low, k, layout), scaled(high, k, layout)
    origin = jnp.clip(0, least, greatest)
    indices = _indices(numbers - _across(least, bits), _across(greatest - least, bits), num_bins)
    apart = jnp.where(size > layout.infinity, num_bins, jnp.where(bits > 0, num_bins + 1, num_bins + 2))
    indices = jnp.where(finite, indices, apart.astype(np.int32))
    distances = jnp.where(finite, numbers - _across(origin, bits), 0)
    return _words(_tally(indices, own, num_bins + _APART), low, high, distances)


def _counted_integers(numbers: jax.Array, own: jax.Array | None, num_bins: int) -> jax.Array:
    unsigned = np.dtype(f"u{numbers.dtype.itemsize}")
    float_ = format_of(numbers.dtype).dtype

    def distance(greater: jax.Array, less: jax.Array) -> jax.Array:  # which may not fit in a signed integer
        return (greater.astype(unsigned) - less.astype(unsigned)).astype(float_)

    low, high = _extremes(numbers, own)
    origin = _across(jnp.clip(numbers.dtype.type(0), low, high), numbers)
    from_low = distance(numbers, _across(low, numbers))
    indices = _indices(from_low, _across(distance(high, low), numbers), num_bins)
    distances = jnp.where(numbers >= origin, distance(numbers, origin), -distance(origin, numbers))
    distances = distances if own is None else jnp.where(own, distances, 0)
    return _words(_tally(indices, own, num_bins + _APART), low, high, distances)


def _extremes(numbers: jax.Array, among: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Return each row's least and greatest of integers; the type's limits, reversed, where there are none."""
    limits = np.iinfo(numbers.dtype)
    most, least = numbers.dtype.type(limits.max), numbers.dtype.type(limits.min)
    low = numbers if among is None else jnp.where(among, numbers, most)
    high = numbers if among is None else jnp.where(among, numbers, least)

    def both(a: Any, b: Any) -> Any:
        return lax.min(a[0], b[0]), lax.max(a[1], b[1])

    # one pass for both: XLA's CPU code takes nine times as long for two
    return lax.reduce((low, high), (most, least), both, _each_row(numbers))


def _indices(offsets: jax.Array, width: jax.Array, num_bins: int) -> jax.Array:
    """Return the bins of elements, given their distances from the first edge, and the last edge's."""
    width = jnp.where(width > 0, width, 1)
    index = jnp.floor(offsets * (num_bins / width))
    # what lies on an edge may have been rounded down; these products are exact for small integers
    index += jnp.where(offsets * num_bins >= (index + 1) * width, 1, 0)
    return jnp.clip(index.astype(np.int32), 0, num_bins - 1)


def _tally(indices: jax.Array, own: jax.Array | None, length: int) -> jax.Array:
    """Count, for each row, how often each index occurs among its own: (n, ...) to (n, length)."""
    if own is not None:
        indices = jnp.where(own, indices, length)
    return lax.platform_dependent(
        indices,
        cpu=partial(_tally_by_scatter, length=length),
        # elements of one bin would queue up for the same word of memory on a GPU; a TPU scatters one by one
        default=partial(_tally_by_comparison, length=length),
    )


def _tally_by_scatter(indices: jax.Array, length: int) -> jax.Array:
    rows, places = indices.shape[0], length + 1  # the last one is for what is not counted
    first = lax.broadcasted_iota(np.int32, indices.shape, 0) * places
    counts = jnp.zeros(rows * places, np.uint32)
    counts = counts.at[first + indices].add(np.uint32(1), mode="promise_in_bounds")
    return counts.reshape(rows, places)[:, :length]


def _tally_by_comparison(indices: jax.Array, length: int) -> jax.Array:
    wanted = lax.broadcasted_iota(np.int32, (1, length) + (1,) * (indices.ndim - 1), 1)
    same = indices[:, None] == wanted
    return jnp.sum(same, axis=tuple(range(2, same.ndim)), dtype=np.uint32)


def _words(counts: jax.Array, low: jax.Array, high: jax.Array, distances: jax.Array) -> jax.Array:
    axes = _each_row(distances)
    total = jnp.sum(distances, axes, dtype=distances.dtype)
    squares = jnp.sum(distances * distances, axes, dtype=distances.dtype)
    columns = [counts]
    for value in (low, high, total, squares):
        word = lax.bitcast_convert_type(value, np.uint32)  # two each for 64 bits, the lower first
        columns.append(word.reshape(len(counts), -1))
    return jnp.concatenate(columns, axis=1)


def _each_row(array: jax.Array) -> tuple[int, ...]:
    return tuple(range(1, array.ndim))


def _across(row_values: jax.Array, like: jax.Array) -> jax.Array:
    """Return one value a row so that it meets each element of its row."""
    return row_values.reshape(row_values.shape + (1,) * (like.ndim - 1))
