"""TFRecords: how event files hold one event after the other.

Each is its length as a little-endian uint64, the masked CRC-32C of that, the data, and the masked
CRC-32C of the data (tensorflow/core/lib/io/record_writer.h).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MASK_DELTA: Final = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h
_LENGTH: Final = struct.Struct("<Q")
_CHECKSUM_BYTES: Final = 4


def framed(event: bytes) -> bytes:
    """Return the record of a serialized event."""
    length = _LENGTH.pack(len(event))
    return b"".join((length, _checksum(length), event, _checksum(event)))


def read_records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield a file's serialized events, each with its offset, up to a torn record.

    Checksums are not looked at.
    """
    most = path.stat().st_size  # a damaged length must not make this ask for any memory
    start = _LENGTH.size + _CHECKSUM_BYTES
    with path.open("rb") as file:
        while len(header := file.read(_LENGTH.size + _CHECKSUM_BYTES)) > _LENGTH.size:
            size: int = _LENGTH.unpack_from(header)[0]
            content = file.read(min(size + _CHECKSUM_BYTES, most))
            if len(content) != size + _CHECKSUM_BYTES:
                return
            yield start, content[:size]
            start += len(content) + len(header)


def _checksum(data: bytes) -> bytes:
    """Return the masked checksum as it stands in the file."""
    plain = crc32c(data)
    masked = ((plain >> 15 | plain << 17) + _MASK_DELTA) & 0xFFFFFFFF
    return masked.to_bytes(_CHECKSUM_BYTES, "little")
