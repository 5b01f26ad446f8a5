"""Media as what TensorBoard has a place for: pictures, sounds and Markdown."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from tracklayer.drawing import draw_chart
from tracklayer.errors import UnsupportedValueError
from tracklayer.media.audio import Audio
from tracklayer.media.base import Media
from tracklayer.media.chart import Chart
from tracklayer.media.image import Image
from tracklayer.media.list import MediaList
from tracklayer.media.table import Table
from tracklayer.media.video import Video
from tracklayer.values import Text
from tracklayer_tensorboard import markdown
from tracklayer_tensorboard.encoding import Pictures, Shown, Sounds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BROWSERS_FORMATS: Final = frozenset({"png", "jpg", "jpeg", "gif", "bmp"})
"""Those whose type the images plugin tells the browser (tensorboard/util/img_mime_type_detector.py)."""

# where the files have their width and height, in pixels
_PNG_SIZE: Final = struct.Struct(">16x2I")  # https://www.w3.org/TR/png/#11IHDR
_GIF_SIZE: Final = struct.Struct("<6x2H")  # https://www.w3.org/Graphics/GIF/spec-gif89a.txt, section 18


def shown(key: str, media: Media) -> Iterator[tuple[str, Shown]]:
    """Yield what TensorBoard shows of a value of the backend's kinds, and the key of each.

    Raises:
        UnsupportedValueError: it is a video that is no GIF.
        CorruptRunError: the store from which it was read does not have its files any more.
    """
    items = media.items if isinstance(media, MediaList) else (media,)
    yield key, _content(items)
    captions: list[str | None] = [item.encoded.data.get("caption") for item in items]
    if any(captions):
        yield f"{key}/caption", Text(_captions(captions))


def _content(items: Sequence[Media]) -> Shown:
    match items[0]:
        case Chart() as chart:
            return _chart(chart)
        case Table() as table:
            return _table(table)
        case Audio():
            sounds = [item for item in items if isinstance(item, Audio)]
            return Sounds([sound.file() for sound in sounds], all(sound.format == "wav" for sound in sounds))
        case _:
            pictures = [_picture(item) for item in items if isinstance(item, (Image, Video))]
            _, width, height = pictures[0]
            return Pictures([file for file, _, _ in pictures], width, height)


def _picture(media: Image | Video) -> tuple[bytes, int, int]:
    """Return a file that browsers show, its width and its height."""
    if isinstance(media, Image):
        image = media if media.format.lower() in _BROWSERS_FORMATS else Image(media, file_type="png")
        return image.file(), image.width, image.height
    if media.format != "gif":
        msg = f"TensorBoard shows videos that are GIFs, not {media.format}: make it with format='gif'"
        raise UnsupportedValueError(msg)
    file = media.file()
    if len(file) < _GIF_SIZE.size:
        msg = f"the GIF file ({len(file)} bytes) is damaged"
        raise UnsupportedValueError(msg)
    return file, *_GIF_SIZE.unpack_from(file)


def _chart(chart: Chart) -> Pictures | Text:
    """Return a picture of a chart, or its table if it cannot be drawn."""
    try:
        file = draw_chart(chart)
    except UnsupportedValueError:
        return _table(chart.table)
    return Pictures([file], *_PNG_SIZE.unpack_from(file))


def _table(table: Table) -> Text:
    return Text(markdown.table(table.columns, table.data, _text))


def _text(cell: Any) -> str:
    """Return what stands in a table for a cell; of media, the kind and the caption."""
    if isinstance(cell, Media):
        caption: str | None = cell.encoded.data.get("caption")
        return f"{cell.kind}: {caption}" if caption else cell.kind
    return "" if cell is None else str(cell)


def _captions(captions: Sequence[str | None]) -> str:
    """Return the caption of one value, or those of a list by the numbers that TensorBoard gives them."""
    if len(captions) == 1:
        return captions[0] or ""
    rows = [[str(number), caption] for number, caption in enumerate(captions, 1) if caption]
    return markdown.table(("sample", "caption"), rows)
