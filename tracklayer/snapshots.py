"""Turning what a caller logs into what the queue may keep.

Runs once a call, before the fan-out, for every call that is not plain Python numbers: nested mappings
become `a/b` keys, numpy numbers become Python's, arrays that may change are copied, figures and their like
become media, and everything that is on a device starts its way to the host, in one dispatch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

from tracklayer.errors import UnsupportedValueError
from tracklayer.media.accepting import media_of
from tracklayer.media.base import Media
from tracklayer.media.pixels import is_jax_array
from tracklayer.rows import Arriving, Landing, MediaValues, RichValues, Shipment
from tracklayer.values import SCALAR_TYPES, Histogram, Text, python_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracklayer.values import OnDevice

_VALUE_TYPES: Final = (Text, Histogram)
_array_types: set[type] = set()
"""The types of jax arrays that were met, traced ones apart."""


def snapshot(
    values: Mapping[str, Any],
) -> tuple[dict[str, Any] | RichValues, UnsupportedValueError | None]:
    """Return what of a row can be logged, and the error about the rest of it."""
    simple: dict[str, Any] = {}
    scalars: dict[str, Any] = {}
    if _is_simple(values, "", simple, scalars):  # a short way for what is logged each step
        if not scalars:
            return simple, None
        from tracklayer.jax.fetching import fetch

        names = tuple(scalars)
        with suppress(UnsupportedValueError):  # the long way says what is wrong with which
            return RichValues(simple, names, fetch(list(scalars.values()), len(names), names)), None
    row = _Row()
    row.take(values, "")
    here, departure = row.here, row.departure
    if not (departure.scalars or departure.others or row.media):
        plain = SCALAR_TYPES.issuperset(map(type, here.values()))
        return (here if plain else RichValues(here)), problem(row.refused)
    shipment, arriving = departure.start(row.refused)
    for key, arrays in arriving.items():
        value = row.on_device[key]
        (row.media if isinstance(value, Media) else here)[key] = Landing(value, arrays)
    media = MediaValues(row.media, shipment) if row.media else None
    return RichValues(here, tuple(departure.scalars), shipment, media), problem(row.refused)


def _is_simple(values: Mapping[Any, Any], prefix: str, here: dict[str, Any], scalars: dict[str, Any]) -> bool:
    """Sort values, if all are Python numbers and jax arrays under keys that are strings; else stop."""
    for name, value in values.items():
        kind = value.__class__
        if name.__class__ is not str:
            return False
        if kind in _array_types:
            scalars[prefix + name] = value
        elif kind in SCALAR_TYPES:
            here[prefix + name] = value
        elif kind is not dict or not _is_simple(value, f"{prefix}{name}/", here, scalars):
            return False
    return True


def problem(refused: Sequence[str]) -> UnsupportedValueError | None:
    """Return the error about what was refused, if anything was."""
    if not refused:
        return None
    return UnsupportedValueError("; ".join(refused) + ". The rest is recorded")


@final
class Departure:
    """What is to leave its device: collected, then sent on its way in one dispatch."""

    def __init__(self) -> None:
        self.scalars: dict[str, Any] = {}
        """jax arrays of one element."""
        self.others: dict[str, Sequence[Any]] = {}
        """jax arrays of any shape; several may belong to one key."""

    def start(self, refused: list[str]) -> tuple[Shipment | None, dict[str, list[Arriving]]]:
        """Send all that can be sent; return it, and where in it the others are."""
        places: dict[int, int] = {}  # the same array is sent once, however many keys share it
        arrays = list(self.scalars.values())
        for others in self.others.values():
            for array in others:
                if places.setdefault(id(array), len(arrays)) == len(arrays):
                    arrays.append(array)
        if not arrays:
            return None, {}
        from tracklayer.jax.fetching import fetch  # jax, which is there if there are arrays of it

        try:
            shipment = fetch(arrays, len(self.scalars))
        except UnsupportedValueError:
            if self._leave_out_what_cannot_go(refused):
                return self.start(refused)
            raise
        arriving = {
            key: [Arriving(shipment, places[id(array)]) for array in others]
            for key, others in self.others.items()
        }
        return shipment, arriving

    def _leave_out_what_cannot_go(self, refused: list[str]) -> bool:
        from tracklayer.jax.fetching import fetch

        before = len(refused)
        for key, arrays in [*((key, [a]) for key, a in self.scalars.items()), *self.others.items()]:
            try:
                fetch(arrays, int(key in self.scalars))
            except UnsupportedValueError as error:
                refused.append(f"{key!r}: {error}")
                self.scalars.pop(key, None)
                self.others.pop(key, None)
        return len(refused) > before


@final
class _Row:
    """The values of a row, sorted: what is here, and what is on a device."""

    def __init__(self) -> None:
        self.here: dict[str, Any] = {}
        self.departure = Departure()
        self.on_device: dict[str, OnDevice] = {}
        self.media: dict[str, Any] = {}
        """Those that have to be encoded."""
        self.refused: list[str] = []

    def take(self, values: Mapping[Any, Any], prefix: str) -> None:
        """Sort values, under keys that begin with the prefix."""
        here = self.here
        for name, value in values.items():
            if not isinstance(name, str):
                self.refused.append(f"key {name!r} is of type {type(name).__name__}, and must be a string")
            elif value.__class__ in SCALAR_TYPES:
                here[prefix + name] = value
            elif is_branch(value):
                self.take(value, f"{prefix}{name}/")
            else:
                try:
                    self._take_any(prefix + name, value)
                except UnsupportedValueError as error:
                    self.refused.append(f"{prefix + name!r}: {error}")

    def _take_any(self, key: str, value: Any) -> None:
        value = media_of(value) or value
        if is_jax_array(value):
            from tracklayer.jax.fetching import check_scalar

            check_scalar(value)
            _array_types.add(value.__class__)
            self.departure.scalars[key] = value
        elif isinstance(value, type):
            self.here[key] = _loggable(value)  # which refuses it
        elif hasattr(value, "landed") and (arrays := value.arrays()):
            self.on_device[key] = value
            self.departure.others[key] = arrays
        elif isinstance(value, Media):
            (self.here if value.is_here else self.media)[key] = value
        elif hasattr(value, "__jax_array__"):  # a variable of Flax's
            self._take_any(key, value.__jax_array__())
        else:
            self.here[key] = _loggable(value)


def is_branch(value: Any) -> bool:
    """Say whether a value is a mapping whose entries are logged, each under its own key."""
    return isinstance(value, Mapping) and not hasattr(value, "landed")  # pyright: ignore[reportUnknownArgumentType] - anything may be logged


def real_numbers(array: NDArray[Any]) -> NDArray[Any]:
    """Return a numpy array of real numbers as it is.

    Raises:
        UnsupportedValueError: it is of another dtype.
    """
    dtype = array.dtype
    if dtype.kind not in "biuf" and dtype.type.__module__ != "ml_dtypes":  # bfloat16 and relatives
        msg = f"cannot log numbers of dtype {dtype}"
        raise UnsupportedValueError(msg)
    return array


def _loggable(value: Any) -> Any:
    if isinstance(value, _VALUE_TYPES):
        return value
    if isinstance(value, str):
        return Text(str(value))
    if isinstance(value, (int, float)):  # IntEnum, float64, …
        return int(value) if isinstance(value, int) else float(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        array = numpy.asarray(value)
        if array.size != 1:
            msg = (
                f"an array of shape {array.shape} is no scalar; log tracklayer.Histogram(array), "
                "tracklayer.Image(array), one of its elements, or with log_series one element a step"
            )
            raise UnsupportedValueError(msg)
        return python_numbers(real_numbers(array))[0]
    if isinstance(value, type):
        msg = f"cannot log the class {value.__qualname__} itself; log one of its instances"
        raise UnsupportedValueError(msg)
    msg = (
        f"cannot log a {type(value).__module__}.{type(value).__qualname__}; log a number, a string, "
        "tracklayer.Histogram, Image, Table or another of its kinds, or with log_series one number a step"
    )
    raise UnsupportedValueError(msg)
