"""What can be logged: plain data, independent of any backend.

A scalar is a Python number.  Every other kind is a final class of this module with a `kind`, the name
by which a backend says that it accepts it.  Adding a kind is one class here (with its JSON form) and
one arm in each backend that can show it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeAlias, cast, final, runtime_checkable

from tracklayer.errors import CorruptRunError, UnsupportedValueError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Scalar: TypeAlias = bool | int | float
"""A Python number.  NaN and the infinities are values like any other."""

SCALAR_TYPES: Final[frozenset[type]] = frozenset({bool, int, float})
MAX_BINS: Final = 512
"""The most bins that W&B shows; `Histogram` takes no more."""


@runtime_checkable
class Deferred(Protocol):
    """A value that is not on the host yet.

    The queue resolves it on its own thread, before a backend sees the row.
    """

    def resolve(self) -> Scalar:
        """Wait for the value and return it as a Python number."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text; a `str` that is logged becomes one."""

    kind: ClassVar[str] = "text"
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON data."""
        return {"text": self.text}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Text:
        """Rebuild the value that `to_json` described."""
        return cls(str(data["text"]))


@final
@dataclass(frozen=True, slots=True)
class Bins:
    """A histogram's bins and moments; non-finite elements are counted apart.

    `counts` has n entries and `edges` n + 1, ascending.  The moments are those of the finite elements:
    NaN for `minimum` and `maximum` where there are none.
    """

    counts: tuple[int | float, ...]
    edges: tuple[float, ...]
    minimum: float
    maximum: float
    total: float
    sum_of_squares: float
    nan_count: int = 0
    positive_infinity_count: int = 0
    negative_infinity_count: int = 0

    @property
    def count(self) -> int | float:
        """The number of finite elements."""
        return sum(self.counts)


@final
class Histogram:
    """A distribution: of an array's elements, or given by its counts and edges.

    Args:
        sequence: numbers of any shape and dtype (numpy, jax, nested lists).  The content is that at the
            call; the bins are computed later, off the training thread, over the finite elements.
        np_histogram: `(counts, edges)` as `numpy.histogram` returns them, in place of `sequence`; the
            moments are then those of the bin centres.
        num_bins: 1 to 512, equal in width.

    Raises:
        UsageError: neither or both of the inputs, a bad number of bins, or edges that do not ascend.
        UnsupportedValueError: `sequence` is not made of real numbers.
    """

    __slots__ = ("__dict__", "_num_bins", "_source")
    kind: ClassVar[str] = "histogram"

    def __init__(
        self,
        sequence: ArrayLike | None = None,
        np_histogram: tuple[ArrayLike, ArrayLike] | None = None,
        num_bins: int = 64,
    ) -> None:
        if (sequence is None) == (np_histogram is None):
            msg = "Histogram takes either numbers or np_histogram=(counts, edges)"
            raise UsageError(msg)
        if not 1 <= num_bins <= MAX_BINS:
            msg = f"num_bins must be from 1 to {MAX_BINS}, not {num_bins}"
            raise UsageError(msg)
        self._num_bins = num_bins
        self._source: Any = None
        if np_histogram is not None:
            self.__dict__["bins"] = _bins_from_counts(*np_histogram)
        elif hasattr(sequence, "copy_to_host_async"):
            from tracklayer.jax import snapshot

            self._source = snapshot(cast("Any", sequence))
        else:
            self._source = _real_numbers(sequence)

    @cached_property
    def bins(self) -> Bins:
        """The bins, computed when first asked for."""
        source = self._source
        bins = _bins_from_array(_real_numbers(source), self._num_bins)
        self._source = None  # the copy may be large, and is not needed again
        return bins

    def to_json(self) -> dict[str, Any]:
        """Return the bins as JSON data."""
        return asdict(self.bins)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Histogram:
        """Rebuild the value that `to_json` described."""
        fields = dict(data)
        fields["counts"], fields["edges"] = tuple(fields["counts"]), tuple(fields["edges"])
        return cls.from_bins(Bins(**fields))

    @classmethod
    def from_bins(cls, bins: Bins) -> Histogram:
        """Return the histogram with exactly these bins."""
        histogram = cls.__new__(cls)
        histogram._num_bins, histogram._source = len(bins.counts), None  # noqa: SLF001 - its own
        histogram.__dict__["bins"] = bins
        return histogram

    def __eq__(self, other: object) -> bool:
        """Two histograms are equal when their bins are."""
        return isinstance(other, Histogram) and _identity(self.bins) == _identity(other.bins)

    def __hash__(self) -> int:
        """Agree with `__eq__`."""
        return hash(self.bins.counts)

    def __repr__(self) -> str:
        """Show the size, not the content."""
        return f"Histogram(num_bins={self._num_bins})"


Value: TypeAlias = Scalar | Text | Histogram
"""Anything that a backend may be handed."""

KINDS: Final[Mapping[str, type[Text | Histogram]]] = {
    Text.kind: Text,
    Histogram.kind: Histogram,
}
ALL_KINDS: Final[frozenset[str]] = frozenset({"scalar", *KINDS})


def kind_of(value: Value) -> str:
    """Return the name of the value's kind, such as `"scalar"` or `"text"`."""
    return "scalar" if isinstance(value, (int, float)) else value.kind


def value_from_json(kind: str, data: Mapping[str, Any]) -> Text | Histogram:
    """Rebuild a value from its kind and its JSON data.

    Raises:
        CorruptRunError: the data is not of that kind.
    """
    try:
        return KINDS[kind].from_json(data)
    except (KeyError, TypeError, ValueError) as error:
        msg = f"recorded data is no {kind}: {error}"
        raise CorruptRunError(msg) from error


def _identity(bins: Bins) -> tuple[object, ...]:
    """Return the bins with NaN equal to itself."""
    return tuple("nan" if isinstance(v, float) and math.isnan(v) else v for v in asdict(bins).values())


def _real_numbers(sequence: Any) -> NDArray[Any]:
    import numpy as np

    array = np.array(sequence).reshape(-1)
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.kind != "c":
        try:
            # bfloat16 and its relatives are of numpy kind "V"; float64 holds each of their values
            return array.astype(np.float64)
        except (TypeError, ValueError):
            pass
    msg = f"Histogram takes real numbers, not dtype {array.dtype}"
    raise UnsupportedValueError(msg)


def _bins_from_array(array: NDArray[Any], num_bins: int) -> Bins:
    import numpy as np

    values: NDArray[np.float64] = array.astype(np.float64, copy=False)
    finite = np.isfinite(values)
    nans = int(np.isnan(values).sum())
    positive = int(np.isposinf(values).sum())
    negative = values.size - int(finite.sum()) - nans - positive
    if not finite.all():
        values = values[finite]
    if values.size == 0:
        counts, edges = np.zeros(num_bins, np.int64), np.linspace(0.0, 1.0, num_bins + 1)
        low = high = math.nan
    else:
        low, high = float(values.min()), float(values.max())
        counts, edges = np.histogram(values, bins=num_bins, range=_bin_range(low, high, num_bins))
    with np.errstate(over="ignore"):
        total, squares = float(values.sum()), float(np.square(values).sum())
    return Bins(
        counts=tuple(counts.tolist()),
        edges=tuple(edges.tolist()),
        minimum=low,
        maximum=high,
        total=total,
        sum_of_squares=squares,
        nan_count=nans,
        positive_infinity_count=positive,
        negative_infinity_count=negative,
    )


def _bin_range(low: float, high: float, num_bins: int) -> tuple[float, float]:
    """Return a range wide enough for `num_bins` distinct float64 edges, and finite."""
    limit = 8e307  # numpy subtracts the ends: the width must not overflow
    low, high = max(low, -limit), min(high, limit)
    spacing = max(math.ulp(low), math.ulp(high)) * num_bins * 2
    if high - low < spacing:
        middle = low + (high - low) / 2
        half = max(0.5, spacing) if low == high else spacing
        return middle - half, middle + half
    return low, high


def _bins_from_counts(counts: ArrayLike, edges: ArrayLike) -> Bins:
    import numpy as np

    heights, limits = np.asarray(counts), np.asarray(edges, dtype=np.float64)
    if heights.ndim != 1 or limits.shape != (heights.size + 1,) or not heights.size:
        msg = f"np_histogram takes n counts and n + 1 edges, not {heights.shape} and {limits.shape}"
        raise UsageError(msg)
    if heights.size > MAX_BINS:
        msg = f"np_histogram has {heights.size} bins; the most is {MAX_BINS}"
        raise UsageError(msg)
    if not (np.isfinite(limits).all() and (np.diff(limits) > 0).all()):
        msg = "np_histogram's edges must be finite and ascend"
        raise UsageError(msg)
    centres: NDArray[np.float64] = (limits[:-1] + limits[1:]) / 2
    filled = np.nonzero(heights)[0]
    return Bins(
        counts=tuple(heights.tolist()),
        edges=tuple(limits.tolist()),
        minimum=float(limits[filled[0]]) if filled.size else math.nan,
        maximum=float(limits[filled[-1] + 1]) if filled.size else math.nan,
        total=float((heights * centres).sum()),
        sum_of_squares=float((heights * centres * centres).sum()),
    )


@final
class RichValues(dict[str, Any]):
    """A row's values when not all are plain scalars; a plain dict says that all are.

    `size` is about what they hold in memory, in bytes.
    """

    __slots__ = ("size",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.size = sum(getattr(value, "nbytes", 100) for value in values.values())
