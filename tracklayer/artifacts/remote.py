"""A location that an fsspec URL names: an object store, such as S3.

Versions are told apart by files that only one process can create, so an object store must create on a
condition.  S3 does (`If-None-Match: *`), as do Google Cloud Storage, Azure and most servers that speak S3.
One that pays no heed to the condition would lose versions without a word; so the first file to be created is
preceded by a race: several threads create one file at once, and exactly one of them must have done it.

Nothing is read from fsspec's caches, which know nothing of what other processes write.
"""

from __future__ import annotations

import io
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, final

from tracklayer.artifacts.credentials import holds_credentials
from tracklayer.artifacts.locations import Location
from tracklayer.errors import StoreError, UsageError

_RACERS: Final = 8
_TRIES: Final = 8
_CONFLICT: Final = "ConditionalRequestConflict"
"""What S3 says (409) while another request creates the same file: to be tried again."""
_READ_AHEAD: Final = 8 << 20
_IN_MEMORY: Final = threading.Lock()
"""Held while a file is created in memory, where fsspec looks first and creates then."""
_ERRORS: Final = (
    ("aiohttp", "ClientError"),
    ("azure.core.exceptions", "AzureError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)
"""What the file systems of S3, Google Cloud Storage and Azure raise beside `OSError`: module and class."""


def remote_location(url: str) -> Location:
    """Return the location that an fsspec URL names.

    Raises:
        UsageError: a URL that holds more than an address, or that no installed file system is for; a file
            system that is no object store.
    """
    scheme = url.partition("://")[0]
    if holds_credentials(url):
        msg = f"the URL {scheme}://… for artifacts holds credentials: give them as its service takes them"
        raise UsageError(msg)
    if "::" in url or "?" in url or "#" in url:
        msg = f"the URL {scheme}://… for artifacts: give an address alone, without '?', '#' and '::'"
        raise UsageError(msg)
    return RemoteLocation(url.rstrip("/"))


@final
class RemoteLocation:
    """A folder of an object store; or of this process's memory, for tests."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pid = os.getpid()
        self._system, self._root = _connected(url)
        self._is_exclusive = url.startswith("memory://")

    @property
    def url(self) -> str:
        """The URL."""
        return self._url

    @property
    def folder(self) -> None:
        """None: it is no folder of this machine."""
        return

    def place(self, name: str) -> str:
        """Return the URL of a file."""
        return f"{self._url}/{name}"

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if there is no such file."""
        with self._errors("read", name):
            try:
                return bytes(self._files.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def open(self, name: str) -> BinaryIO:
        """Open a file to read it."""
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(self.place(name))
        return io.BufferedReader(_Reading(self, name, size), _READ_AHEAD)

    def read_part(self, name: str, start: int, end: int) -> bytes:
        """Return a part of a file that is there."""
        with self._errors("read", name):
            return bytes(self._files.cat_file(self._path(name), start=start, end=end))

    def has(self, name: str) -> bool:
        """Say whether a file is there."""
        return self.size(name) is not None

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes; None if there is no such file."""
        with self._errors("read", name):
            try:
                found = self._files.info(self._path(name))
            except FileNotFoundError:
                return None
        return int(found["size"]) if found["type"] == "file" else None

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that is not there; say whether this process did it."""
        with self._errors("write", name):
            if not self._is_exclusive:
                self._race()
                self._is_exclusive = True
            return self._create(name, data)

    def replace(self, name: str, data: bytes) -> None:
        """Write a file, in one step that no reader sees half done."""
        with self._errors("write", name):
            self._files.pipe_file(self._path(name), data)

    def move_in(self, source: Path, name: str) -> None:
        """Copy a file to the location, where it appears when all of it is there."""
        with self._errors("write", name):
            if self._files.async_impl or _sends_files(type(self._files)):
                self._files.put_file(str(source), self._path(name))
            else:  # such as memory, whose files grow before all eyes
                self._files.pipe_file(self._path(name), source.read_bytes())

    def settle(self, folders: Iterable[str]) -> None:
        """Do nothing: an object store keeps what it took."""

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._errors("write", name):
            self._remove(name)

    def names(self, folder: str) -> list[str]:
        """Return the names, sorted, of what lies directly in a folder; none if there is no such folder."""
        return sorted(self._entries(folder))

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes in bytes, by name, of the files directly in a folder."""
        entries = self._entries(folder).items()
        return {name: int(entry["size"]) for name, entry in entries if entry["type"] == "file"}

    def staging(self) -> Path:
        """Return the folder for temporary files."""
        return Path(tempfile.gettempdir())

    @property
    def _files(self) -> Any:
        """Fsspec's file system: another one in a forked child, which cannot use its parent's."""
        if os.getpid() != self._pid:
            self._pid = os.getpid()
            self._system, self._root = _connected(self._url)
        self._system.invalidate_cache()
        return self._system

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _entries(self, folder: str) -> dict[str, Any]:
        """Return what fsspec says of each entry of a folder, by its name."""
        parent = self._path(folder)
        with self._errors("read", folder):
            try:
                found: list[dict[str, Any]] = self._files.ls(parent, detail=True)
            except FileNotFoundError:
                return {}
        paths = {str(entry["name"]).rstrip("/"): entry for entry in found}
        return {path.rpartition("/")[2]: entry for path, entry in paths.items() if path != parent}

    def _create(self, name: str, data: bytes) -> bool:
        for attempt in range(_TRIES):
            try:
                with _IN_MEMORY if self._url.startswith("memory://") else nullcontext():
                    self._files.pipe_file(self._path(name), data, mode="create")
                return True
            except FileExistsError:
                return False
            except OSError as error:
                if _CONFLICT not in str(error):
                    raise
                time.sleep(0.05 * 2**attempt)
        msg = f"cannot write {self.place(name)}: others keep creating it, and do not end"
        raise StoreError(msg)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def _race(self) -> None:
        """Make sure that of several who create a file one alone is told that it did.

        Raises:
            StoreError: it is not so.
        """
        name = f"incoming/race-{secrets.token_hex(8)}"
        try:
            won = self._winners(name)
        except (NotImplementedError, TypeError):  # it cannot be asked to
            won = 0
        self._remove(name)
        if won != 1:
            msg = (
                f"{self._url} cannot hold artifacts: it does not create a file only where none is "
                f"({won} of {_RACERS} at once did), so that versions could overwrite each other"
            )
            raise StoreError(msg)

    def _winners(self, name: str) -> int:
        contents = [b"%d" % i for i in range(_RACERS)]
        with ThreadPoolExecutor(_RACERS) as pool:
            try:
                return sum(pool.map(self._create, [name] * _RACERS, contents))
            except RuntimeError:  # the interpreter ends, and starts no thread any more
                pass
        self._remove(name)  # by some of them it may have been created
        return sum(map(self._create, [name] * _RACERS, contents))

    @contextmanager
    def _errors(self, what: str, name: str) -> Generator[None]:
        try:
            yield
        except StoreError:
            raise
        except _remote_errors() as error:
            msg = f"cannot {what} {self.place(name)}: {' '.join(str(error).split()) or repr(error)}"
            raise StoreError(msg) from error


@final
class _Reading(io.RawIOBase):
    """A file of a location, read in parts; each reader has its own position."""

    def __init__(self, location: RemoteLocation, name: str, size: int) -> None:
        self._location = location
        self._name = name
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read a part."""
        end = min(self._position + len(buffer), self._size)
        if end == self._position:
            return 0
        part = self._location.read_part(self._name, self._position, end)
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


def _connected(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it."""
    scheme = url.partition("://")[0]
    try:
        fsspec = import_module("fsspec")
        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        msg = f"artifacts at {url} need fsspec and its package for {scheme}:// ({error}): "
        msg += "pip install 'tracklayer[remote]' and that package"
        raise UsageError(msg) from error
    except ValueError as error:
        msg = f"artifacts at {url}: fsspec knows no {scheme}://"
        raise UsageError(msg) from error
    if not _writes_at_once(kind):
        msg = f"artifacts at {url}: {scheme}:// is no object store: mount it, and give the folder"
        raise UsageError(msg)
    system, root = import_module("fsspec.core").url_to_fs(url, skip_instance_cache=True)
    system.dircache.use_listings_cache = False
    return system, root.rstrip("/")


def _writes_at_once(kind: Any) -> bool:
    """Say whether a class of file systems has a way of its own to write a file, not fsspec's in steps."""
    spec, asyn = import_module("fsspec.spec"), import_module("fsspec.asyn")
    if issubclass(kind, asyn.AsyncFileSystem):
        return kind._pipe_file is not asyn.AsyncFileSystem._pipe_file  # noqa: SLF001 - documented
    return kind.pipe_file is not spec.AbstractFileSystem.pipe_file


def _sends_files(kind: Any) -> bool:
    """Say whether a class of file systems has a way of its own to send a file, not fsspec's in steps."""
    return kind.put_file is not import_module("fsspec.spec").AbstractFileSystem.put_file


def _remote_errors() -> tuple[type[Exception], ...]:
    """Return the errors of the file systems that are in use; nobody else's can come up."""
    found = [getattr(sys.modules.get(module), name, None) for module, name in _ERRORS]
    return (OSError, NotImplementedError, *(error for error in found if error is not None))
