"""Whole series: the values of many steps that a caller logs at once, such as `lax.scan` returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.media.base import Media
from tracklayer.media.pixels import is_jax_array
from tracklayer.rows import Landing, Series
from tracklayer.snapshots import Departure, is_branch, problem, real_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracklayer.values import OnDevice

_STEPS = "steps\0"  # the steps' own place beside the columns, where no key can be


def series(values: Mapping[str, Any], steps: Any) -> tuple[Series, UnsupportedValueError | None]:
    """Return what of many rows can be logged, and the error about the rest.

    Args:
        values: by key, arrays of shape (steps,) or (steps, seeds), or stacked values.
        steps: integers of shape (steps,), or None.

    Raises:
        UnsupportedValueError: the steps are not integers.
        UsageError: a step is negative.
    """
    columns = _Columns()
    if steps is not None:
        columns.take_steps(steps)
    columns.take(values, "")
    shipment, arriving = columns.departure.start(columns.refused)
    found = columns.here
    for key, arrays in arriving.items():
        value = columns.on_device.get(key)
        found[key] = arrays[0] if value is None else Landing(value, arrays)
    at = found.pop(_STEPS, None)
    if steps is not None and at is None:
        raise UnsupportedValueError(columns.refused[-1])
    return Series(found, at, columns.count or 0, shipment), problem(columns.refused)


@final
class _Columns:
    """The values of many rows by key: what is here, and what is on a device."""

    def __init__(self) -> None:
        self.here: dict[str, Any] = {}
        self.departure = Departure()
        self.on_device: dict[str, OnDevice] = {}
        self.refused: list[str] = []
        self.count: int | None = None
        """How many steps there are, once that is known."""

    def take_steps(self, steps: Any) -> None:
        if is_jax_array(steps):
            from tracklayer.jax.fetching import check_array

            check_array(steps)
            self.departure.others[_STEPS] = [steps]
            array = steps
        else:
            array = _copied(steps)
            if not array.size:
                array = array.astype("int64")
        if array.ndim != 1 or array.dtype.kind not in "iu":
            msg = f"steps are integers of shape (steps,), and not {array.dtype} of shape {array.shape}"
            raise UnsupportedValueError(msg)
        if array is not steps:
            if array.size and not 0 <= int(array.min()) <= int(array.max()) < 1 << 63:
                msg = f"steps are from 0 to 2^63 - 1, and these are from {array.min()} to {array.max()}"
                raise UsageError(msg)
            self.here[_STEPS] = array.astype("int64")
        self.count = len(array)

    def take(self, values: Mapping[Any, Any], prefix: str) -> None:
        for name, value in values.items():
            if not isinstance(name, str):
                self.refused.append(f"key {name!r} is of type {type(name).__name__}, and must be a string")
            elif is_branch(value):
                self.take(value, f"{prefix}{name}/")
            else:
                try:
                    self._take_column(prefix + name, value)
                except UnsupportedValueError as error:
                    self.refused.append(f"{prefix + name!r}: {error}")

    def _take_column(self, key: str, value: Any) -> None:
        if isinstance(value, Media):
            msg = f"{value!r} is no series; log the one of each step with `log`"
            raise UnsupportedValueError(msg)
        if hasattr(value, "landed"):
            arrays = value.arrays()
            self._check_length(arrays[0] if arrays else None)
            self.on_device[key] = value
            self.departure.others[key] = arrays
            return
        if hasattr(value, "__jax_array__") and not is_jax_array(value):  # a variable of Flax's
            value = value.__jax_array__()
        if not is_jax_array(value):
            value = _copied(value)
        if value.ndim > 2:
            msg = (
                f"an array of shape {value.shape} is no series of scalars: after its axis of steps it may "
                "have one of seeds, and no more"
            )
            raise UnsupportedValueError(msg)
        self._check_length(value)
        if is_jax_array(value):
            from tracklayer.jax.fetching import check_array

            check_array(value)
            self.departure.others[key] = [value]
        else:
            self.here[key] = value

    def _check_length(self, array: Any) -> None:
        if array is None or not array.ndim:
            msg = "it has no axis of steps; `log` takes it"
            raise UnsupportedValueError(msg)
        if self.count is None:
            self.count = array.shape[0]
        if array.shape[0] != self.count:
            msg = f"it has {array.shape[0]} steps, and there are {self.count}"
            raise UnsupportedValueError(msg)


def _copied(value: Any) -> NDArray[Any]:
    import numpy as np

    try:
        array = np.array(value)
    except ValueError as error:  # lists of different lengths
        msg = f"it is no array: {error}"
        raise UnsupportedValueError(msg) from error
    return real_numbers(array)
