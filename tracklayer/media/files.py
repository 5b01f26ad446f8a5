"""What the kinds of one file each have in common: files that are read, and files made of an array."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast, final

from tracklayer.contents import Content, Encoded
from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.media.base import Media
from tracklayer.media.pixels import array_snapshot, is_jax_array

if TYPE_CHECKING:
    from numpy.typing import NDArray


@final
@dataclass(frozen=True, slots=True)
class File:
    """A source that is a file's bytes already, and what is known beside them."""

    content: bytes
    fields: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """The size of the file, in bytes."""
        return len(self.content)

    def arrays(self) -> tuple[()]:
        """Return none: all is on the host."""
        return ()

    def landed(self, _hosts: object, /) -> File:
        """Return itself."""
        return self

    def encoded(self) -> Encoded:
        """Return the file under its hash."""
        content = Content.of(self.content)
        return Encoded({"file": content.sha256, **self.fields}, {content.sha256: content})


@final
@dataclass(frozen=True, slots=True, eq=False)
class ArrayFile:
    """A source that is an array, of which `write` makes a file, and what is known beside it."""

    array: Any
    fields: Mapping[str, Any]
    write: Callable[[NDArray[Any]], bytes]

    @property
    def nbytes(self) -> int:
        """The size of the array, in bytes."""
        return int(self.array.nbytes)

    def arrays(self) -> tuple[Any, ...]:
        """Return the array, if it is jax's."""
        return (self.array,) if is_jax_array(self.array) else ()

    def landed(self, hosts: Any, /) -> ArrayFile:
        """Return the same with an array of numpy's."""
        return ArrayFile(hosts[0], self.fields, self.write)

    def encoded(self) -> Encoded:
        """Make the file.

        Raises:
            UnsupportedValueError: `write` cannot make one of this array.
        """
        import numpy as np

        return File(self.write(np.asarray(self.array)), self.fields).encoded()


def known(media: Media) -> Mapping[str, Any]:
    """Return what is known of a value of one file, which is not encoded for it."""
    source = media._source  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - it is not to be encoded for this
    return source.fields if isinstance(source, (File, ArrayFile)) else media.encoded.data


def array_of(data: Any, what: str) -> Any:
    """Return an array with the content of now: a copy, numpy's, or a jax array itself, which never changes.

    Raises:
        UnsupportedValueError: the data is no array of real numbers; `what` says what takes which.
    """
    if isinstance(data, (list, tuple)):
        import numpy as np

        try:
            data = np.array(cast("list[Any]", data))
        except ValueError as error:  # lists of unequal lengths
            msg = f"{what}: {error}"
            raise UnsupportedValueError(msg) from error
    array = array_snapshot(data)
    if array is None:
        msg = f"{what}, not {type(data).__name__}"
        raise UnsupportedValueError(msg)
    return array


def checked_caption(caption: str | None) -> str | None:
    """Return a caption.

    Raises:
        UsageError: it is no string.
    """
    if caption is None or isinstance(caption, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may err
        return caption
    msg = f"caption must be of type str, not {type(caption).__name__}"
    raise UsageError(msg)


def read_path(path: str | PathLike[str], endings: tuple[str, ...], what: str) -> tuple[bytes, str]:
    """Return a file's content and its ending: one of `endings`, which are in lower case, without the dot.

    Raises:
        FileNotFoundError: there is no such file.
        UnsupportedValueError: it has another ending.
    """
    ending = ending_of(path, endings)
    if ending is None:
        msg = f"{what} takes files that end in {listed(endings)}, not {str(path)!r}"
        raise UnsupportedValueError(msg)
    return Path(path).read_bytes(), ending


def ending_of(path: str | PathLike[str], endings: tuple[str, ...]) -> str | None:
    """Return which of the endings a path has, if any."""
    name = Path(path).name.lower()
    return next((ending for ending in endings if name.endswith(f".{ending}")), None)


def listed(endings: tuple[str, ...]) -> str:
    """Return endings as a message shows them."""
    return ", ".join(f".{ending}" for ending in endings)


def read_stream(stream: IO[str] | IO[bytes]) -> bytes:
    """Return all that is in a file object, from its beginning if it can go back; text as UTF-8."""
    if stream.seekable():
        stream.seek(0)
    content = stream.read()
    return content.encode() if isinstance(content, str) else content


def require(package: str, what: str) -> None:
    """Say whether a package of the extra `media` is there, without importing it.

    Raises:
        UnsupportedValueError: it is not installed.
    """
    if find_spec(package) is None:
        msg = f"{what} needs {package}, which is not installed: pip install 'tracklayer[media]'"
        raise UnsupportedValueError(msg)
