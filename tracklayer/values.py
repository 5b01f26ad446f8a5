"""What can be logged: plain data, independent of any backend.

A scalar is a Python number.  Every other kind is a class with a `kind`, the name by which a backend says
that it accepts it: text and histograms here, those that take files in `tracklayer.media`.  Adding a kind is
one class (with its JSON form) and one arm in each backend that can show it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeAlias, cast, final

from tracklayer.contents import Content, Encoded
from tracklayer.errors import CorruptRunError, UnsupportedValueError, UsageError
from tracklayer.media.base import KINDS, Media, media_class

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Scalar: TypeAlias = bool | int | float
"""A Python number.  NaN and the infinities are values like any other."""

SCALAR_TYPES: Final[frozenset[type]] = frozenset({bool, int, float})
MAX_BINS: Final = 512
"""The most bins that W&B shows; `Histogram` takes no more."""


class OnDevice(Protocol):
    """What was computed on a device and is still there: a value, or many by their keys.

    `log` fetches its arrays together with everything else of the row that is on a device.
    """

    def arrays(self) -> Sequence[Any]:
        """Return the jax arrays that it is made of; none, once it is on the host."""
        ...

    def landed(self, hosts: Sequence[NDArray[Any]]) -> Value | Mapping[str, Value]:
        """Return the value, or values by relative keys, that the arrays, now numpy's, stand for."""
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


class BinSource(Protocol):
    """Where a `Histogram` has its bins from, when it is asked for them."""

    @property
    def nbytes(self) -> int:
        """What it holds in memory, in bytes."""
        ...

    def arrays(self) -> Sequence[Any]:
        """Return the jax arrays that it needs; none, if all is on the host."""
        ...

    def landed(self, hosts: Sequence[NDArray[Any]], /) -> BinSource:
        """Return the same source, given those arrays as numpy's."""
        ...

    def bins(self) -> Bins:
        """Return the bins; wait for what is still computed."""
        ...


@final
class Histogram:
    """A distribution: of an array's elements, or given by its counts and edges.

    The elements of a jax array are counted on its devices, from which only the bins come back; inside a
    jitted function too, which may return the histogram (`tracklayer.jax` must have been imported).  There, an
    element that is closer to an edge than 2^-22 of the range may be counted on either side of it.

    Args:
        sequence: numbers of any shape and dtype (numpy, jax, nested lists).  The content is that at the
            call; the bins are computed later, off the training thread, over the finite elements.
        np_histogram: `(counts, edges)` as `numpy.histogram` returns them, in place of `sequence`; the
            moments are then those of the bin centres.
        num_bins: 1 to 512, equal in width.

    Raises:
        UsageError: neither or both of the inputs, a bad number of bins, or edges that do not ascend.
        UnsupportedValueError: `sequence` is not made of real numbers, or is a jax array that was deleted
            or whose content is spread over several processes.
    """

    __slots__ = ("_bins", "_num_bins", "_source")
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
        check_num_bins(num_bins)
        self._num_bins = num_bins
        self._source: BinSource | None = None
        self._bins: Bins | None = None
        if np_histogram is not None:
            self._bins = _bins_from_counts(*np_histogram)
            self._num_bins = len(self._bins.counts)
        elif (array := _jax_array(sequence)) is not None:
            from tracklayer.jax.histogramming import counted

            self._source = counted(array, num_bins)
        else:
            self._source = _Elements(_real_numbers(sequence), num_bins)

    @property
    def bins(self) -> Bins:
        """The bins, computed when first asked for.

        Raises:
            UnsupportedValueError: it is traced.
            UsageError: `scan` or `vmap` has stacked it: it is many histograms.
        """
        source = self._source  # read first: it goes only when the bins are there, for another queue's thread
        bins = self._bins
        if bins is None:
            bins = self._bins = cast("BinSource", source).bins()
            if isinstance(source, _Elements):
                self._source = None  # the copy may be large, and is not needed again
        return bins

    @property
    def source(self) -> BinSource | None:
        """Where the bins come from; None where they are known."""
        return self._source

    @property
    def nbytes(self) -> int:
        """What it holds in memory, in bytes."""
        source = self._source
        return 16 * self._num_bins if source is None else source.nbytes

    def arrays(self) -> Sequence[Any]:
        """Return the jax arrays that the bins are computed from, as `OnDevice` says."""
        source = self._source
        return () if source is None else source.arrays()

    def landed(self, hosts: Sequence[NDArray[Any]]) -> Histogram:
        """Return the histogram on the host, as `OnDevice` says."""
        source = self._source
        return self if source is None else Histogram.from_source(source.landed(hosts), self._num_bins)

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
        histogram = cls.from_source(None, len(bins.counts))
        histogram._bins = bins  # noqa: SLF001 - its own
        return histogram

    @classmethod
    def from_source(cls, source: BinSource | None, num_bins: int) -> Histogram:
        """Return a histogram with the bins that a source has, or will have."""
        histogram = cls.__new__(cls)
        histogram._num_bins, histogram._source, histogram._bins = num_bins, source, None  # noqa: SLF001 - its own
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


Value: TypeAlias = Scalar | Text | Histogram | Media
"""Anything that a backend may be handed."""

ALL_KINDS: Final[frozenset[str]] = frozenset({"scalar", Text.kind, Histogram.kind, *KINDS})
"""The names of all kinds of value."""


def kind_of(value: Value) -> str:
    """Return the name of the value's kind, such as `"scalar"` or `"text"`; of a list, that of its items."""
    if isinstance(value, Media):
        return value.item_kind
    return "scalar" if isinstance(value, (int, float)) else value.kind


def python_numbers(array: NDArray[Any]) -> list[Scalar]:
    """Return an array's elements as Python numbers, each with the value that it has in its own dtype."""
    flat = array.reshape(-1)
    if flat.dtype.kind not in "biuf" or flat.dtype.itemsize > 8:  # bfloat16, int4, …; float128
        flat = flat.astype("int64" if "int" in flat.dtype.name else "float64")
    return flat.tolist()


def value_from_json(
    kind: str, data: Mapping[str, Any], content: Callable[[str, int], Content]
) -> Text | Histogram | Media:
    """Rebuild a value from its kind, its JSON data, and its files by their SHA-256 and size.

    Raises:
        CorruptRunError: the data is not of that kind.
    """
    try:
        if kind == Text.kind:
            return Text.from_json(data)
        if kind == Histogram.kind:
            return Histogram.from_json(data)
        return media_class(kind).of(Encoded.from_json(data, content))
    except (KeyError, TypeError, ValueError) as error:
        msg = f"recorded data is no {kind}: {error}"
        raise CorruptRunError(msg) from error


def _identity(bins: Bins) -> tuple[object, ...]:
    """Return the bins with NaN equal to itself."""
    return tuple("nan" if isinstance(v, float) and math.isnan(v) else v for v in asdict(bins).values())


def check_num_bins(num_bins: int) -> None:
    """Say whether a histogram can have so many bins.

    Raises:
        UsageError: it cannot.
    """
    if not 1 <= num_bins <= MAX_BINS:
        msg = f"num_bins must be from 1 to {MAX_BINS}, not {num_bins}"
        raise UsageError(msg)


def bin_range(low: float, high: float, num_bins: int) -> tuple[float, float]:
    """Return the outer edges of the bins for elements from `low` to `high`; NaN where there are none.

    They are `low` and `high` themselves where `num_bins` distinct float64 edges fit between these, and
    their difference is finite.
    """
    if math.isnan(low):
        return 0.0, 1.0
    limit = 8e307  # numpy subtracts the ends: the width must not overflow
    low, high = (min(max(end, -limit), limit) for end in (low, high))
    spacing = max(math.ulp(low), math.ulp(high)) * num_bins * 2
    if high - low < spacing:
        middle = low + (high - low) / 2
        half = max(0.5, spacing) if low == high else spacing
        return middle - half, middle + half
    return low, high


def _jax_array(sequence: Any) -> Any:
    jax = sys.modules.get("jax")
    if jax is None:
        return None
    if not isinstance(sequence, jax.Array) and hasattr(sequence, "__jax_array__"):  # a variable of Flax's
        sequence = sequence.__jax_array__()
    return sequence if isinstance(sequence, jax.Array) else None


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


@final
class _Elements:
    """Elements that are on the host, and have still to be counted."""

    __slots__ = ("_array", "_num_bins")

    def __init__(self, array: NDArray[Any], num_bins: int) -> None:
        self._array = array
        self._num_bins = num_bins

    @property
    def nbytes(self) -> int:
        return self._array.nbytes

    def arrays(self) -> Sequence[Any]:
        return ()

    def landed(self, _hosts: Sequence[NDArray[Any]], /) -> _Elements:
        return self

    def bins(self) -> Bins:
        return _bins_from_array(self._array, self._num_bins)


def _bins_from_array(array: NDArray[Any], num_bins: int) -> Bins:
    import numpy as np

    values: NDArray[np.float64] = array.astype(np.float64, copy=False)
    finite = np.isfinite(values)
    nans = int(np.isnan(values).sum())
    positive = int(np.isposinf(values).sum())
    negative = values.size - int(finite.sum()) - nans - positive
    if not finite.all():
        values = values[finite]
    low = float(values.min()) if values.size else math.nan
    high = float(values.max()) if values.size else math.nan
    first, last = bin_range(low, high, num_bins)
    within = values if first <= low and high <= last else np.clip(values, first, last)
    counts, edges = np.histogram(within, bins=num_bins, range=(first, last))
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
