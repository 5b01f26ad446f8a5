"""Rows of a run's history as the client's records, built byte by byte.

An object of protobuf's for each value would take several times as long.  The messages are `Record`,
`HistoryRecord` and `HistoryItem` of `wandb.proto.wandb_internal_pb2`; values are JSON, with `NaN` and
`Infinity` in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, final

_KEY, _VALUE = b"\x12", b"\x82\x01"  # of an item: fields 2, `nested_key`, and 16; `key` cannot be empty
_ITEM: Final = b"\x0a"  # of a row: field 1
_HISTORY: Final = b"\x12"  # of a record: field 2
_SHORT: Final = 32  # bytes; a scalar is no longer than that
_MIN_INT, _MAX_INT = -(2**63), 2**63 - 1


@final
class RowRecords:
    """Makes records of rows, given the JSON text of each of their values."""

    def __init__(self) -> None:
        self._heads: dict[str, list[bytes]] = {}
        """By key and length of the value: what stands before the value."""

    def record(self, row: Mapping[str, bytes]) -> bytes:
        """Return the serialized record of a row."""
        parts: list[bytes] = []
        known = self._heads
        for key, text in row.items():
            try:
                parts.append(known[key][len(text)])
            except KeyError:
                known[key] = [_head(key, length) for length in range(_SHORT)]
                parts.append(_head(key, len(text)))
            except IndexError:
                parts.append(_head(key, len(text)))
            parts.append(text)
        body = b"".join(parts)
        return b"".join((_HISTORY, _varint(len(body)), body))


def scalar_text(value: object) -> bytes | None:
    """Return a scalar as JSON; None for what is no scalar.

    An integer that int64 does not hold is a float, as the client makes it.
    """
    encode = _ENCODERS.get(type(value))
    return None if encode is None else encode(value)


def _float_text(value: float) -> bytes:
    if math.isfinite(value):
        return repr(value).encode()
    return b"NaN" if math.isnan(value) else b"Infinity" if value > 0 else b"-Infinity"


def _int_text(value: int) -> bytes:
    if _MIN_INT <= value <= _MAX_INT:
        return b"%d" % value
    try:
        return _float_text(float(value))
    except OverflowError:
        return b"Infinity" if value > 0 else b"-Infinity"


def _bool_text(value: bool) -> bytes:  # noqa: FBT001 - it is the value
    return b"true" if value else b"false"


_ENCODERS: Final[Mapping[type, Callable[[Any], bytes]]] = {
    float: _float_text,
    int: _int_text,
    bool: _bool_text,
}


def _head(key: str, length: int) -> bytes:
    """Return an item up to a value of that length."""
    name = key.encode(errors="replace")
    start = b"".join((_KEY, _varint(len(name)), name, _VALUE, _varint(length)))
    return b"".join((_ITEM, _varint(len(start) + length), start))


def _varint(number: int) -> bytes:
    """Return a number as protobuf has it: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
