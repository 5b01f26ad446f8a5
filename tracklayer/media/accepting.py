"""What can be logged as it is, without being wrapped: media, lists of them, and other libraries' figures."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from tracklayer.errors import UnsupportedValueError
from tracklayer.media.base import Media


def media_of(value: Any) -> Media | None:
    """Return the media that a value is, or becomes, as it is now; None if it is of another kind.

    Figures of matplotlib and pictures of Pillow become an `Image`, figures of plotly a `Plotly`, data frames
    of pandas a `Table`, and lists of media a list.

    Raises:
        UnsupportedValueError: a list or a figure that cannot be logged.
    """
    if isinstance(value, Media):
        snapshot = getattr(value, "snapshot", None)  # of what can still be changed
        return value if snapshot is None else snapshot()
    if isinstance(value, (list, tuple)):
        return _list(value)  # pyright: ignore[reportUnknownArgumentType] - anything may be logged
    module = value.__name__ if isinstance(value, ModuleType) else type(value).__module__
    match module.partition(".")[0]:
        case "matplotlib" | "PIL":
            from tracklayer.media.image import Image

            return Image(value)
        case "plotly":
            from tracklayer.media.plotly import Plotly

            return Plotly(value)
        case "pandas" if type(value).__name__ == "DataFrame":
            from tracklayer.media.table import Table

            return Table(dataframe=value)
        case _:
            return None


def _list(values: Sequence[Any]) -> Media | None:
    from tracklayer.media.list import MediaList

    if not values:
        msg = "an empty list: there is nothing to log"
        raise UnsupportedValueError(msg)
    found = [media_of(value) for value in values]
    if all(media is None for media in found):
        return None
    return MediaList([value if media is None else media for value, media in zip(values, found, strict=True)])
