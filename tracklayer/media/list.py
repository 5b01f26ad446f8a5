"""Lists of media: what is logged under one key at one step, to be shown side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, cast, final

from tracklayer.contents import Content, Encoded
from tracklayer.errors import UnsupportedValueError
from tracklayer.media.base import KINDS, Media, Source, embed, embedded

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LISTED: Final = KINDS - {"list", "table", "chart"}
_Part: TypeAlias = tuple[type[Media], Source | Encoded]


@final
class MediaList(Media):
    """Media of one kind, such as images, under one key; a list of them that is logged becomes one.

    Args:
        items: one or more, in the order in which they are shown; of any kind but tables, charts and lists.

    Raises:
        UnsupportedValueError: there are none, or not all are media of one such kind.
    """

    __slots__ = ()
    kind: ClassVar[str] = "list"

    def __init__(self, items: Sequence[Media]) -> None:
        if not items:
            msg = "an empty list; there is nothing to log"
            raise UnsupportedValueError(msg)
        kinds = sorted({item.kind if isinstance(item, Media) else type(item).__name__ for item in items})  # pyright: ignore[reportUnnecessaryIsInstance] - anything may be given
        if len(kinds) > 1:
            msg = f"a list of {' and '.join(kinds)}; its items must all be of one kind"
            raise UnsupportedValueError(msg)
        if kinds[0] not in _LISTED:
            msg = f"a list of {kinds[0]}; log each under its own key"
            raise UnsupportedValueError(msg)
        # their sources, not the items: those may be encoded at any time, and a list must not change by that
        super().__init__(_Items(tuple((type(item), item._source or item.encoded) for item in items)))  # noqa: SLF001 - of its own base

    @property
    def items(self) -> tuple[Media, ...]:
        """The items, in their order."""
        source = self._source  # read once: it goes when it is encoded, maybe on another thread
        if source is not None:
            return tuple(maker.of(part) for maker, part in cast("_Items", source).parts)
        encoded = self.encoded
        return tuple(embedded(data, encoded.contents) for data in encoded.data["items"])

    @property
    def item_kind(self) -> str:
        """The kind of the items."""
        source = self._source
        if source is not None:
            return cast("_Items", source).parts[0][0].kind
        return str(self.encoded.data["items"][0]["_kind"])


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Items:
    """What a list is made of: the items' classes, each with its source or what that was encoded to."""

    parts: tuple[_Part, ...]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for _, part in self.parts)

    def arrays(self) -> Sequence[Any]:
        return [array for _, part in self.parts for array in _arrays(part)]

    def landed(self, hosts: Sequence[NDArray[Any]], /) -> _Items:
        landed: list[_Part] = []
        start = 0
        for maker, part in self.parts:
            end = start + len(_arrays(part))
            landed.append((maker, part if isinstance(part, Encoded) else part.landed(hosts[start:end])))
            start = end
        return _Items(tuple(landed))

    def encoded(self) -> Encoded:
        contents: dict[str, Content] = {}
        items = [embed(maker.of(part), contents) for maker, part in self.parts]
        return Encoded({"items": items}, contents)


def _arrays(part: Source | Encoded) -> Sequence[Any]:
    return () if isinstance(part, Encoded) else part.arrays()
