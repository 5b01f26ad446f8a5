"""Where artifacts lie: a folder, or whatever an fsspec URL names.

Names in a location are relative paths with `/`.  Each file appears whole or not at all, and none whose name
is to be created or replaced is empty.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol, final

from tracklayer.errors import StoreError, UsageError


class Location(Protocol):
    """Named files.  Methods raise `StoreError` where the location cannot be read or written."""

    @property
    def url(self) -> str:
        """The absolute path or URL, without credentials."""
        ...

    @property
    def folder(self) -> Path | None:
        """The folder, where it is one on this machine's file systems."""
        ...

    def place(self, name: str) -> str:
        """Return the absolute path or URL of a file, whether it is there or not."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if there is no such file."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open a file to read it.

        Raises:
            FileNotFoundError: there is no such file.
        """
        ...

    def has(self, name: str) -> bool:
        """Say whether a file is there."""
        ...

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes; None if there is no such file."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that is not there, in one step that only one of several processes can do.

        Returns:
            Whether this one did it; False if the file is there.
        """
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Write a file, in one step that no reader sees half done."""
        ...

    def move_in(self, source: Path, name: str) -> None:
        """Make a file of this machine a file of the location, in one step; where it lay, it may be gone then.

        A file that is there already has the same content, and may stay.
        """
        ...

    def settle(self, folders: Iterable[str]) -> None:
        """Wait until what was moved into folders would outlast a power cut; its content was synced before."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names, sorted, of what lies directly in a folder; none if there is no such folder."""
        ...

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes in bytes, by name, of the files directly in a folder."""
        ...

    def staging(self) -> Path:
        """Return a folder of this machine, made if need be, from which `move_in` is cheap."""
        ...


def locate(url: str | None, store: Path) -> Location:
    """Return the location that a folder or an fsspec URL names; without one, the store's folder.

    Raises:
        UsageError: a URL that holds credentials, or that no installed file system is for.
    """
    if url is None:
        return FolderLocation(store)
    if url.startswith("~"):
        url = os.path.expanduser(url)  # noqa: PTH111 - it is a string, and stays one
    path = local_path(url)
    if path is not None:
        return FolderLocation(path)
    from tracklayer.artifacts.remote import remote_location

    return remote_location(url)


def local_path(uri: str) -> Path | None:
    """Return the absolute path that a `file://` URI, or a bare path, names; None for a URI of another scheme.

    Raises:
        UsageError: it names a file of another machine.
    """
    if "://" not in uri:
        return Path(uri).absolute()
    if not uri.lower().startswith("file://"):
        return None
    host, _, path = uri[len("file://") :].partition("/")
    if host.lower() not in {"", "localhost"}:
        msg = f"{uri!r} names a file of {host!r}; one of this machine is file:///path"
        raise UsageError(msg)
    from urllib.request import url2pathname  # it imports much

    return Path(url2pathname(f"/{path}"))


@final
class FolderLocation:
    """A folder, on a local or a network file system.

    Exclusive creation is a hard link, which NFS, too, makes in one step.  A file system without them opens a
    file exclusively and replaces it then by one with content; until then it is empty, and reads as not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def url(self) -> str:
        """The absolute path."""
        return str(self._folder)

    @property
    def folder(self) -> Path:
        """The folder."""
        return self._folder

    def place(self, name: str) -> str:
        """Return the absolute path of a file."""
        return f"{self._folder}{os.sep}{name.replace('/', os.sep)}"  # ten times as fast as with paths

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if there is no such file."""
        with self._errors("read"):
            try:
                return (self._folder / name).read_bytes() or None
            except (FileNotFoundError, NotADirectoryError):
                return None

    def open(self, name: str) -> BinaryIO:
        """Open a file to read it."""
        try:
            return (self._folder / name).open("rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            msg = self._said("read", error)
            raise StoreError(msg) from error

    def has(self, name: str) -> bool:
        """Say whether a file is there."""
        return self.size(name) is not None

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes; None if there is no such file."""
        with self._errors("read"):
            try:
                found = (self._folder / name).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that is not there; say whether this process did it."""
        target = self._folder / name
        with self._errors("write"), self._written(target, data) as temporary:
            was_free = _link(temporary, target)
            _sync_folder(target.parent)
            return was_free

    def replace(self, name: str, data: bytes) -> None:
        """Write a file, in one step that no reader sees half done."""
        target = self._folder / name
        with self._errors("write"), self._written(target, data) as temporary:
            temporary.replace(target)
            _sync_folder(target.parent)

    def move_in(self, source: Path, name: str) -> None:
        """Make a file a file of the location; it must lie in `staging()`, or on the same file system."""
        target = self._folder / name
        with self._errors("write"):
            try:
                source.replace(target)
            except FileNotFoundError:
                target.parent.mkdir(parents=True, exist_ok=True)
                source.replace(target)
            except PermissionError:
                if not target.exists():  # Windows replaces no file that is being read
                    raise

    def settle(self, folders: Iterable[str]) -> None:
        """Wait until what was moved into folders would outlast a power cut."""
        for folder in set(folders):
            _sync_folder(self._folder / folder)

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._errors("write"), suppress(FileNotFoundError, NotADirectoryError):
            (self._folder / name).unlink()

    def names(self, folder: str) -> list[str]:
        """Return the names, sorted, of what lies directly in a folder; none if there is no such folder."""
        with self._errors("read"):
            try:
                return sorted(name for name in os.listdir(self._folder / folder) if not name.startswith("."))  # noqa: PTH208 - names do
            except (FileNotFoundError, NotADirectoryError):
                return []

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes in bytes, by name, of the files directly in a folder."""
        found: dict[str, int] = {}
        for name in self.names(folder):
            size = self.size(f"{folder}/{name}")
            if size is not None:
                found[name] = size
        return found

    def staging(self) -> Path:
        """Return a folder on the same file system."""
        folder = self._folder / "incoming"
        with self._errors("write"):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def _written(self, target: Path, data: bytes) -> Generator[Path]:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:  # not `tempfile`, whose files nobody else may read
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _errors(self, what: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            msg = self._said(what, error)
            raise StoreError(msg) from error

    def _said(self, what: str, error: OSError) -> str:
        return f"cannot {what} {error.filename or self._folder}: {error.strerror}"


def _link(source: Path, target: Path) -> bool:
    """Give a file a name that is not taken; say whether that was so."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        try:
            target.open("xb").close()
        except FileExistsError:
            return False
        source.replace(target)
    return True


def _sync_folder(folder: Path) -> None:
    """Have what was made or renamed in a folder outlast a power cut, as its content does."""
    if sys.platform != "win32":  # which cannot open a folder
        with suppress(OSError):  # a file system that does not sync folders
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
