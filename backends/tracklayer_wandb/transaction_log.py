"""The file in which the client keeps a run until it is sent, and from which `wandb sync` sends it.

Its layout is that of LevelDB's log (https://github.com/google/leveldb/blob/main/doc/log_format.md), behind a
header of seven bytes and with zlib's CRC-32, as wandb 0.31 reads it.  What it holds is a sequence of the
protobuf messages `Record` of `wandb.proto.wandb_internal_pb2`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, final
from zlib import crc32

if TYPE_CHECKING:
    from pathlib import Path

_FILE_HEADER: Final = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
_BLOCK: Final = 32_768
"""Bytes; blocks begin at multiples of it, so that the first one holds the file's header, too."""
_CHUNK_HEADER: Final = struct.Struct("<IHB")
"""CRC-32 of kind and content, length of the content, kind."""
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_CRC_OF_KIND: Final = {kind: crc32(bytes([kind])) for kind in (_FULL, _FIRST, _MIDDLE, _LAST)}
_BATCH: Final = 1 << 18  # bytes; a reader that follows the file finds whole chunks


@final
class TransactionLog:
    """A new file of that format; another process may read it while it grows.

    Raises:
        OSError: the file cannot be written, or is there already.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._waiting: list[bytes] = [_FILE_HEADER]
        self._length = len(_FILE_HEADER)
        self._written = 0

    def add(self, record: bytes) -> None:
        """Append a serialized `Record`."""
        left = _BLOCK - self._length % _BLOCK - _CHUNK_HEADER.size
        if len(record) <= left:  # nearly always
            self._add_chunk(_FULL, record)
        else:
            self._add_in_parts(record, left)
        if self._length - self._written >= _BATCH:
            self.flush()

    def _add_in_parts(self, record: bytes, left: int) -> None:
        kind, start = _FIRST, 0
        while True:
            if left < 0:  # no room for a header
                self._append(bytes(left + _CHUNK_HEADER.size))
                left = _BLOCK - _CHUNK_HEADER.size
            end = start + left
            if end >= len(record):
                self._add_chunk(_FULL if kind == _FIRST else _LAST, record[start:])
                return
            self._add_chunk(kind, record[start:end])
            kind, start = _MIDDLE, end
            left = _BLOCK - self._length % _BLOCK - _CHUNK_HEADER.size

    def _add_chunk(self, kind: int, content: bytes) -> None:
        header = _CHUNK_HEADER.pack(crc32(content, _CRC_OF_KIND[kind]), len(content), kind)
        self._append(header)
        self._append(content)

    def _append(self, content: bytes) -> None:
        self._waiting.append(content)
        self._length += len(content)

    def flush(self) -> None:
        """Write what was added so far."""
        content = memoryview(b"".join(self._waiting))
        self._waiting.clear()
        self._written = self._length
        while content:
            content = content[self._file.write(content) :]

    def close(self) -> None:
        """Write what is left, and close the file."""
        if not self._file.closed:
            try:
                self.flush()
            finally:
                self._file.close()
