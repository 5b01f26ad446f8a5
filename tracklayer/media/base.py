"""What the kinds of media have in common: a snapshot that is encoded when somebody needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self, cast

from tracklayer.contents import Content, Encoded

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS: Final = frozenset({"image", "table", "audio", "video", "html", "plotly", "object3d", "chart", "list"})
"""The names of the kinds; each is a class in the module of that name, imported when it is met."""
_classes: dict[str, type[Media]] = {}


def media_class(kind: str) -> type[Media]:
    """Return the class of a kind.

    Raises:
        KeyError: there is no such kind.
    """
    if kind not in _classes and kind in KINDS:
        import_module(f"tracklayer.media.{kind}")
    return _classes[kind]


class Source(Protocol):
    """What a value was made of, before it is encoded.  It belongs to the value, and never changes."""

    @property
    def nbytes(self) -> int:
        """About what it holds in memory, in bytes."""
        ...

    def arrays(self) -> Sequence[Any]:
        """Return the jax arrays that it needs; none, if all is on the host."""
        ...

    def landed(self, hosts: Sequence[NDArray[Any]], /) -> Source:
        """Return the same source, given those arrays as numpy's."""
        ...

    def encoded(self) -> Encoded:
        """Encode it: the slow part, on the encoder's thread.

        Raises:
            UnsupportedValueError: the content turns out to be nothing that can be shown.
        """
        ...


class Media:
    """A value with files: its source until it is encoded, and then what it was encoded to."""

    __slots__ = ("_encoded", "_source")
    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Make the kind known."""
        _classes[cls.kind] = cls

    def __init__(self, source: Source) -> None:
        self._source: Source | None = source
        self._encoded: Encoded | None = None

    @classmethod
    def of(cls, source: Source | Encoded) -> Self:
        """Return the value with this source, or as it was recorded."""
        value = cls.__new__(cls)
        if isinstance(source, Encoded):
            value._source, value._encoded = None, source  # noqa: SLF001 - its own
        else:
            value._source, value._encoded = source, None  # noqa: SLF001 - its own
        return value

    @property
    def encoded(self) -> Encoded:
        """What it is encoded to, when first asked for.

        Raises:
            UnsupportedValueError: it cannot be.
        """
        source = self._source  # read first: it goes only when the other is there, for another thread
        encoded = self._encoded
        if encoded is None:
            encoded = self._encoded = cast("Source", source).encoded()
            self._source = None  # it may be large, and is not needed again
        return encoded

    @property
    def is_here(self) -> bool:
        """Whether it is encoded, and all of its files are in memory."""
        encoded = self._encoded
        return encoded is not None and all(content.is_here for content in encoded.contents.values())

    @property
    def item_kind(self) -> str:
        """The kind that a backend must be able to show: of a list, that of its items."""
        return self.kind

    @property
    def nbytes(self) -> int:
        """About what it holds in memory, in bytes."""
        source, encoded = self._source, self._encoded
        return cast("Source", source).nbytes if encoded is None else encoded.nbytes

    def arrays(self) -> Sequence[Any]:
        """Return the jax arrays that it is made of, as `OnDevice` says."""
        source = self._source
        return () if source is None else source.arrays()

    def landed(self, hosts: Sequence[NDArray[Any]]) -> Self:
        """Return the value on the host, as `OnDevice` says."""
        source = self._source
        return self if source is None else type(self).of(source.landed(hosts))

    def content(self, sha256: str) -> bytes:
        """Return the bytes of one of its files.

        Raises:
            CorruptRunError: the store does not have it any more.
        """
        return self.encoded.contents[sha256].read()

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` of `tracklayer.values` rebuilds it from, files apart."""
        return self.encoded.to_json()

    def __eq__(self, other: object) -> bool:
        """Two values are equal when they are encoded to the same."""
        return isinstance(other, Media) and other.kind == self.kind and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        """Agree with `__eq__`."""
        return hash((self.kind, *self.encoded.contents))

    def __repr__(self) -> str:
        """Show the kind, not the content."""
        return f"<{type(self).__name__}>"


def embed(value: Media, contents: dict[str, Content]) -> dict[str, Any]:
    """Return a value as data of one that contains it, whose files its own join."""
    encoded = value.encoded
    contents.update(encoded.contents)
    return {"_kind": value.kind, "_files": sorted(encoded.contents), **encoded.data}


def embedded(data: Mapping[str, Any], contents: Mapping[str, Content]) -> Media:
    """Return the value that `embed` described, given the files of the one that contains it.

    Raises:
        KeyError: there is no such kind.
    """
    fields = dict(data)
    kind, own = fields.pop("_kind"), fields.pop("_files")
    return media_class(kind).of(Encoded(fields, {sha256: contents[sha256] for sha256 in own}))
