"""Files that belong to a value, such as an image's PNG: known by their SHA-256, wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from tracklayer.errors import CorruptRunError


@final
class Content:
    """A file's bytes, in memory or where a store keeps them.

    Attributes:
        sha256: of the bytes, in hex.
        size: in bytes.
    """

    __slots__ = ("_data", "_load", "sha256", "size")

    def __init__(self, sha256: str, size: int, load: Callable[[], bytes]) -> None:
        """Stand for what `load` returns, which is checked when it is read."""
        self.sha256 = sha256
        self.size = size
        self._load = load
        self._data: bytes | None = None

    @classmethod
    def of(cls, data: bytes) -> Content:
        """Return what holds these bytes."""
        content = cls(hashlib.sha256(data).hexdigest(), len(data), bytes)
        content._data = data
        return content

    @property
    def is_here(self) -> bool:
        """Whether it is in memory, so that reading it cannot fail."""
        return self._data is not None

    @property
    def nbytes(self) -> int:
        """What it holds in memory, in bytes."""
        return 0 if self._data is None else len(self._data)

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            CorruptRunError: what the store has is gone, or is not what was recorded.
        """
        if self._data is not None:
            return self._data
        try:
            data = self._load()
        except (OSError, LookupError, ValueError) as error:  # of a file, or of a spill's text
            msg = f"content {self.sha256[:12]} cannot be read: {error}"
            raise CorruptRunError(msg) from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            msg = f"content {self.sha256[:12]} is not what was recorded: its file is damaged"
            raise CorruptRunError(msg)
        return data


@final
@dataclass(frozen=True, slots=True)
class Encoded:
    """A value as it is kept: JSON data, and the files that the data names by their SHA-256."""

    data: Mapping[str, Any]
    contents: Mapping[str, Content] = field(default_factory=dict[str, Content])

    def to_json(self) -> dict[str, Any]:
        """Return the data, with the files' sizes by SHA-256 under `contents`."""
        return {**self.data, "contents": {sha256: c.size for sha256, c in self.contents.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], content: Callable[[str, int], Content]) -> Encoded:
        """Rebuild what `to_json` described; `content` finds a file by SHA-256 and size."""
        fields = dict(data)
        sizes: Mapping[str, int] = fields.pop("contents")
        return cls(fields, {sha256: content(sha256, size) for sha256, size in sizes.items()})

    @property
    def nbytes(self) -> int:
        """About what it holds in memory, in bytes."""
        return 500 + sum(content.nbytes for content in self.contents.values())
