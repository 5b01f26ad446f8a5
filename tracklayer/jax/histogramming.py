"""Histograms of jax arrays, and of whole trees of them.

Counts are exact to 2^32 elements.  The bins are equal in width from the least to the greatest element; an
element closer to an edge than 2^-22 of that range (2^-51 for float64) may be counted on either side of it.
Small integers, of whatever dtype, are counted where they belong.  The moments are right to about 1e-6 of
themselves.
"""

# jax's own types are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import jax
import jax.core
import numpy as np

from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.jax.counting import Counting, counted_as, decoded
from tracklayer.jax.leafwise import describe, on_device
from tracklayer.jax.trees import leaves
from tracklayer.values import Bins, Histogram, check_num_bins

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WIDE: Final = frozenset({"float64", "int64", "uint64"})


def histograms(tree: Any, num_bins: int = 64) -> TreeHistograms:
    """Return a histogram of each array of a tree: a mapping that `log` takes as it is.

    They are counted on the devices, in one call and without waiting; only the bins cross over.  Works inside
    a jitted function too, which may return it.

    Args:
        tree: a Flax NNX module or state, a Linen dict, an Optax state, any pytree of jax or numpy arrays and
            numbers.  What is not of real numbers is left out: random keys, complex arrays, strings.
        num_bins: 1 to 512, equal in width from the least to the greatest element.

    Raises:
        UsageError: a bad number of bins.
        UnsupportedValueError: an array was deleted, or its content is spread over several processes.
    """
    check_num_bins(num_bins)
    names, arrays = leaves(tree, counted_as)
    dtypes = tuple([counted_as(array.dtype) or "" for array in arrays])
    words = describe(arrays, Counting(num_bins, wide=not _WIDE.isdisjoint(dtypes)))
    return TreeHistograms(words, names, dtypes, num_bins)


@final
class TreeHistograms(Mapping[str, Histogram]):
    """The histograms of a tree's arrays, by their names; made by `histograms`."""

    __slots__ = ("_dtypes", "_names", "_num_bins", "_words")

    def __init__(self, words: Any, names: Sequence[str], dtypes: Sequence[str], num_bins: int) -> None:
        self._words = words  # a matrix with a row for each, or several that scan or vmap has stacked
        self._names = names
        self._dtypes = dtypes
        self._num_bins = num_bins

    def __getitem__(self, name: str) -> Histogram:
        try:
            row = self._names.index(name)
        except ValueError:
            raise KeyError(name) from None
        return self._histogram(self._words, row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        """Show the size, not the content."""
        return f"TreeHistograms({len(self)} arrays, num_bins={self._num_bins})"

    def arrays(self) -> tuple[jax.Array]:
        """Return the jax array that is to be brought to the host for `landed`."""
        return (on_device(self._words),)

    def landed(self, hosts: Sequence[NDArray[Any]]) -> dict[str, Histogram]:
        """Return the histograms by name, given the array on the host."""
        return {name: self._histogram(hosts[0], row) for row, name in enumerate(self._names)}

    def _histogram(self, words: Any, row: int) -> Histogram:
        source = CountedBins(words, self._num_bins, self._dtypes[row], row)
        return Histogram.from_source(source, self._num_bins)

    def tree_flatten(self) -> tuple[tuple[Any], Any]:
        """Take it apart for jax."""
        return (self._words,), (self._names, self._dtypes, self._num_bins)

    @classmethod
    def tree_unflatten(cls, known: Any, words: Iterable[Any]) -> TreeHistograms:
        """Put it together again, with whatever jax has put in the place of its array."""
        names, dtypes, num_bins = known
        return cls(next(iter(words)), names, dtypes, num_bins)


@final
@dataclass(frozen=True, slots=True)
class CountedBins:
    """Bins that a device has counted, or is counting: where a `Histogram` of a jax array has them from."""

    words: Any
    """A row of words, or several that are rows of a matrix; an array of jax's or numpy's, or traced."""
    num_bins: int
    dtype: str
    """As which the elements were counted."""
    row: int | None = None
    """Which row of the matrix, where there is one."""

    @property
    def nbytes(self) -> int:
        """What it holds in memory, in bytes."""
        return int(self.words.nbytes)

    def arrays(self) -> tuple[jax.Array]:
        """Return the jax array that is to be brought to the host for `landed`."""
        return (on_device(self.words),)

    def landed(self, hosts: Sequence[NDArray[Any]], /) -> CountedBins:
        """Return the same bins, given that array on the host."""
        return CountedBins(hosts[0], self.num_bins, self.dtype, self.row)

    def own_words(self) -> Any:
        """Return the row of words (or several, stacked) of these bins alone."""
        return self.words if self.row is None else self.words[..., self.row, :]

    def bins(self) -> Bins:
        """Wait for the counts; return the bins.

        Raises:
            UnsupportedValueError: they are traced.
            UsageError: they are those of several histograms.
        """
        if isinstance(self.words, jax.core.Tracer):
            msg = "a histogram that is traced has no bins yet: return it from the jitted function"
            raise UnsupportedValueError(msg)
        words = np.asarray(self.words)
        if self.row is not None:
            words = words[..., self.row, :]
        if words.ndim != 1:
            msg = (
                f"scan or vmap has stacked histograms here, of shape {words.shape[:-1]}: give them to "
                "log_series, or take one with jax.tree.map(lambda array: array[0], histogram)"
            )
            raise UsageError(msg)
        return decoded(words, self.num_bins, np.dtype(self.dtype))


def counted(array: jax.Array, num_bins: int) -> CountedBins:
    """Start to count an array's elements, on its device; it may be traced.

    Raises:
        UnsupportedValueError: it is not of real numbers, was deleted, or is spread over several processes.
    """
    dtype = counted_as(array.dtype)
    if dtype is None:
        msg = f"Histogram takes real numbers, not dtype {array.dtype}"
        raise UnsupportedValueError(msg)
    words = describe([array], Counting(num_bins, wide=dtype in _WIDE, single=True))
    return CountedBins(words, num_bins, dtype)


def _flatten(histogram: Histogram) -> tuple[tuple[Any, ...], Any]:
    source = histogram.source
    if isinstance(source, CountedBins):
        return (source.own_words(),), (source.num_bins, source.dtype)
    return (), histogram  # a constant to jax, which compares it by its bins


def _unflatten(known: Any, words: Iterable[Any]) -> Histogram:
    if isinstance(known, Histogram):
        return known
    num_bins, dtype = known
    # jax puts all sorts of things in the place of arrays: nothing may be asked of them here
    return Histogram.from_source(CountedBins(next(iter(words)), num_bins, dtype), num_bins)


jax.tree_util.register_pytree_node(Histogram, _flatten, _unflatten)
jax.tree_util.register_pytree_node_class(TreeHistograms)
