"""Turning what a caller logs into what the queue may keep.

Runs once a call, before the fan-out, for every call that is not plain Python numbers: nested mappings
become `a/b` keys, numpy numbers become Python's, arrays that may change are copied, device scalars are
fetched later.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tracklayer.errors import UnsupportedValueError
from tracklayer.values import KINDS, SCALAR_TYPES, Deferred, RichValues, Text

_VALUE_TYPES: Final = tuple(KINDS.values())


def snapshot(
    values: Mapping[str, Any],
) -> tuple[dict[str, Any], UnsupportedValueError | None]:
    """Return what of a row can be logged, and the error about the rest of it."""
    taken: dict[str, Any] = {}
    refused: list[str] = []
    on_device: list[str] = []
    for key, value in _flatten(values, "", refused):
        try:
            taken[key] = _loggable(value)
        except UnsupportedValueError as error:
            refused.append(f"{key!r}: {error}")
            continue
        if taken[key] is value and _is_jax_array(value):
            on_device.append(key)
    if on_device:
        _take_off_device(taken, on_device, refused)
    plain = SCALAR_TYPES.issuperset(map(type, taken.values()))
    problem = None
    if refused:
        problem = UnsupportedValueError("; ".join(refused) + ". The rest of the row is recorded")
    return (taken if plain else RichValues(taken)), problem


def _take_off_device(taken: dict[str, Any], keys: list[str], refused: list[str]) -> None:
    """Replace the jax arrays of a row by scalars that are fetched later, all in one dispatch."""
    from tracklayer.jax import device_scalars

    try:
        taken.update(zip(keys, device_scalars([taken[key] for key in keys]), strict=True))
    except UnsupportedValueError as error:
        if len(keys) == 1:
            refused.append(f"{keys[0]!r}: {error}")
            del taken[keys[0]]
        else:
            for key in keys:
                _take_off_device(taken, [key], refused)


def _is_jax_array(value: Any) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.Array)


def _flatten(values: Mapping[Any, Any], prefix: str, refused: list[str]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if not isinstance(key, str):
            refused.append(f"key {key!r} is of type {type(key).__name__}, and must be a string")
        elif isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}/", refused)  # pyright: ignore[reportUnknownArgumentType] - anything may be logged
        else:
            yield prefix + key, value


def _loggable(value: Any) -> Any:
    if value.__class__ in SCALAR_TYPES or isinstance(value, (*_VALUE_TYPES, Deferred)):
        return value
    if isinstance(value, str):
        return Text(str(value))
    if isinstance(value, (int, float)):  # IntEnum, float64, …
        return int(value) if isinstance(value, int) else float(value)
    if _is_jax_array(value):
        from tracklayer.jax import check_scalar

        check_scalar(value)
        return value
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        return _numpy_scalar(value)
    msg = f"cannot log a {type(value).__module__}.{type(value).__qualname__}"
    raise UnsupportedValueError(msg)


def _numpy_scalar(value: Any) -> bool | int | float:
    if value.size != 1:
        msg = (
            f"an array of shape {value.shape} is no scalar; log tracklayer.Histogram(array), or one "
            "of its elements"
        )
        raise UnsupportedValueError(msg)
    number = value.item()
    if isinstance(number, (bool, int, float)):
        return number
    if value.dtype.kind in "Vf":  # bfloat16 and relatives; float128
        return float(number)
    msg = f"cannot log a number of dtype {value.dtype}"
    raise UnsupportedValueError(msg)
