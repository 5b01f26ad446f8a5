"""Content-addressed files: a file's content lies once in the store, by its SHA-256.

Content is written to the side and moved into place, so a kill leaves a whole file or none.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from io import BufferedWriter, BytesIO
from pathlib import Path
from typing import BinaryIO, Final, final

from tracklayer.errors import StoreError

_CHUNK: Final = 1 << 20


@final
class BlobFolder:
    """The folder `blobs/` of a store."""

    def __init__(self, store: Path) -> None:
        self._folder = store / "blobs"

    def path(self, sha256: str) -> Path:
        """Return where the content with this hash lies, or would lie."""
        return self._folder / sha256[:2] / sha256

    def add(self, source: Path) -> tuple[str, int]:
        """Copy a file in; return the SHA-256 of its content in hex, and its size in bytes.

        Raises:
            StoreError: the store cannot be written.
            OSError: the file cannot be read.
        """
        with source.open("rb") as file:
            return self._add(file)

    def add_bytes(self, data: bytes) -> tuple[str, int]:
        """Write content in; return as `add` does.

        Raises:
            StoreError: the store cannot be written.
        """
        return self._add(BytesIO(data))

    def _add(self, file: BinaryIO) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        temporary = self._folder / f".incoming-{secrets.token_hex(8)}"
        try:
            with self._opened(temporary) as target:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    with self._writing():
                        size += target.write(chunk)
            final_path = self.path(digest.hexdigest())
            with self._writing():
                if not final_path.exists():
                    final_path.parent.mkdir(exist_ok=True)
                    temporary.replace(final_path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return digest.hexdigest(), size

    @contextmanager
    def _opened(self, path: Path) -> Generator[BufferedWriter]:
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")  # not `tempfile`, whose files nobody else may read
        try:
            yield file
        finally:
            with self._writing():
                file.close()

    @contextmanager
    def _writing(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            msg = f"cannot write to {self._folder}: {error.strerror}"
            raise StoreError(msg) from error
