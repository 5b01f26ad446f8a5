"""Contents by their SHA-256: each lies once in a location, however often it is logged.

Content is written to the side and moved into place, so that a kill leaves a whole file or none.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from io import BufferedWriter, BytesIO
from pathlib import Path
from typing import BinaryIO, Final, final

from tracklayer.artifacts.claims import staged
from tracklayer.artifacts.locations import Location
from tracklayer.artifacts.reflink import reflink
from tracklayer.errors import CorruptArtifactError, StoreError

_FOLDER: Final = "blobs"
_SHA256: Final = re.compile("[0-9a-f]{64}")
_CHUNK: Final = 1 << 20


def blob_name(sha256: str) -> str:
    """Return the name in a location of the content with this hash."""
    return f"{_FOLDER}/{sha256[:2]}/{sha256}"


@final
class Blobs:
    """The contents in a location."""

    def __init__(self, location: Location) -> None:
        self._location = location

    def place(self, sha256: str) -> str:
        """Return the absolute path or URL of a content, whether it is there or not."""
        return self._location.place(blob_name(sha256))

    def has(self, sha256: str) -> bool:
        """Say whether a content is there."""
        return self._location.has(blob_name(sha256))

    def add(self, source: Path) -> tuple[str, int]:
        """Copy a file in; return the SHA-256 of its content in hex, and its size in bytes.

        Raises:
            StoreError: the location cannot be written.
            OSError: the file cannot be read.
        """
        with source.open("rb") as file:
            return self._add(file)

    def add_bytes(self, data: bytes) -> tuple[str, int]:
        """Write content in; return as `add` does.

        Raises:
            StoreError: the location cannot be written.
        """
        return self._add(BytesIO(data))

    def open(self, sha256: str) -> BinaryIO:
        """Open a content to read it; it is not checked.

        Raises:
            CorruptArtifactError: it is gone.
        """
        try:
            return self._location.open(blob_name(sha256))
        except FileNotFoundError as error:
            msg = f"{self.place(sha256)} is gone"
            raise CorruptArtifactError(msg) from error

    def read(self, sha256: str) -> bytes:
        """Return a content.

        Raises:
            CorruptArtifactError: it is gone, or is not what was stored.
        """
        with self.open(sha256) as file, self._reading(sha256):
            data = file.read()
        self._check(sha256, hashlib.sha256(data).hexdigest())
        return data

    def fetch(self, sha256: str, target: Path) -> None:
        """Copy a content to a file, which is there only once the copy was checked.

        Raises:
            CorruptArtifactError: the content is gone, or is not what was stored.
            OSError: the file cannot be written.
        """
        temporary = target.parent / f".{secrets.token_hex(8)}"
        try:
            with self.open(sha256) as file:
                if self._location.folder is not None and reflink(file.fileno(), temporary):
                    with temporary.open("rb") as clone, self._reading(sha256):
                        self._check(sha256, sha256_of(clone))
                else:
                    with temporary.open("xb") as copy:
                        self._check(sha256, self._copied(sha256, file, copy))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def check(self, sha256: str) -> None:
        """Read a content to see that it is what was stored.

        Raises:
            CorruptArtifactError: it is gone, or is not what was stored.
        """
        with self.open(sha256) as file, self._reading(sha256):
            found = sha256_of(file)
        self._check(sha256, found)

    def all(self) -> Iterator[tuple[str, int]]:
        """Give the SHA-256 and the size in bytes of all contents."""
        for folder in self._location.names(_FOLDER):
            for name, size in self._location.sizes(f"{_FOLDER}/{folder}").items():
                if _SHA256.fullmatch(name) and name.startswith(folder):  # else it is somebody else's
                    yield name, size

    def delete(self, sha256: str) -> None:
        """Remove a content, if it is there."""
        self._location.delete(blob_name(sha256))

    def _add(self, file: BinaryIO) -> tuple[str, int]:
        with staged(self._location) as folder:
            temporary = folder / "content"
            sha256, size = copied(file, temporary, sync=self._location.folder is not None)
            if not self.has(sha256):
                self._location.move_in(temporary, blob_name(sha256))
                self._location.settle([blob_name(sha256).rpartition("/")[0]])
        return sha256, size

    def _copied(self, sha256: str, file: BinaryIO, copy: BufferedWriter) -> str:
        digest = hashlib.sha256()
        while chunk := self._chunk(sha256, file):
            digest.update(chunk)
            copy.write(chunk)
        return digest.hexdigest()

    def _chunk(self, sha256: str, file: BinaryIO) -> bytes:
        with self._reading(sha256):
            return file.read(_CHUNK)

    def _check(self, sha256: str, found: str) -> None:
        if found != sha256:
            msg = f"{self.place(sha256)} is damaged: its content is not what was stored"
            raise CorruptArtifactError(msg)

    @contextmanager
    def _reading(self, sha256: str) -> Generator[None]:
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            msg = f"cannot read {self.place(sha256)}: {error.strerror}"
            raise StoreError(msg) from error


def _ignore(_: int) -> None:
    """Count nothing."""


def sha256_of(file: BinaryIO, count: Callable[[int], None] = _ignore) -> str:
    """Return the SHA-256, in hex, of the rest of a file; `count` is told how many bytes were read."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        count(len(chunk))
    return digest.hexdigest()


def copied(
    file: BinaryIO, target: Path, *, sync: bool, count: Callable[[int], None] = _ignore
) -> tuple[str, int]:
    """Copy the rest of a file to a new one; return its SHA-256 in hex, and its size in bytes.

    Args:
        file: open for reading.
        target: where nothing is yet.
        sync: whether to wait until the copy would outlast a power cut.
        count: is told how many bytes were read, chunk by chunk.

    Raises:
        StoreError: the copy cannot be written.
        OSError: the file cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with _written(target) as copy:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            with writing(target):
                size += copy.write(chunk)
            count(len(chunk))
        if sync:
            with writing(target):
                copy.flush()
                os.fsync(copy.fileno())
    return digest.hexdigest(), size


@contextmanager
def writing(target: Path) -> Generator[None]:
    """Have what goes wrong in the block be trouble with the location, not with the caller's files.

    Raises:
        StoreError: instead of any other `OSError`.
    """
    try:
        yield
    except OSError as error:
        msg = f"cannot write {target}: {error.strerror}"
        raise StoreError(msg) from error


@contextmanager
def _written(target: Path) -> Generator[BufferedWriter]:
    with writing(target):
        file = target.open("xb")
    try:
        yield file
    finally:
        with writing(target):
            file.close()
