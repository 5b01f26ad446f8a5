"""Content-addressed files: a file's content lies once in the store, by its SHA-256.

Content is written to the side and moved into place, so a kill leaves a whole file or none.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final, final

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
            OSError: the file cannot be read, or the store cannot be written.
        """
        digest, size = hashlib.sha256(), 0
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".incoming-", dir=self._folder)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as target, source.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    size += target.write(chunk)
            final_path = self.path(digest.hexdigest())
            if not final_path.exists():
                final_path.parent.mkdir(exist_ok=True)
                temporary.replace(final_path)
        finally:
            temporary.unlink(missing_ok=True)
        return digest.hexdigest(), size
