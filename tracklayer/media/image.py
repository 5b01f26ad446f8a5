"""Images: arrays, pictures of Pillow, figures of matplotlib and files, as one kind of value."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast, final

from tracklayer.contents import Content, Encoded
from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.media.base import Media
from tracklayer.media.files import require
from tracklayer.media.overlays import Mask, masks_of, plain_boxes, plain_classes, typed_labels
from tracklayer.media.pixels import (
    array_snapshot,
    converted,
    decoded,
    is_jax_array,
    levels,
    opened,
    picture_shape,
    read_image,
    shown,
    written,
)

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from PIL.Image import Image as PILImage

_PILLOW_FORMATS: Final = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "bmp": "BMP"}
_MODES: Final = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("1", "L", "RGB", "CMYK", "YCbCr"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
}
"""Pillow's modes that each of its formats can hold."""


@final
class Image(Media):
    """A picture, with what is to be shown over it.

    An array is (h, w) or (h, w, 1) for grey, (h, w, 3) for RGB, (h, w, 4) for RGBA; where it is none of
    these, dimensions of 1 are left out.  Its elements become levels from 0 (black) to 255 so:

    - uint8, and integers that are all from 0 to 255, are levels already.
    - False is 0, True is 255.
    - Floats whose finite elements are all from 0 to 1: round(255 x), halves to even.
    - Any other real numbers: round(255 (x - min) / (max - min)), with the smallest and the largest finite
      element of the whole array, channels together; all 0 where these are equal.
    - NaN is 0, -inf is 0, inf is 255.

    The content is that at the call; it is encoded later, off the training thread.  A figure of matplotlib is
    the exception: it is drawn at the call, because matplotlib draws on one thread only, and figures are
    closed as soon as they are logged.

    Args:
        data_or_path: an array (numpy, jax, a variable of Flax's), a picture of Pillow, a figure or axes of
            matplotlib, or `matplotlib.pyplot` for its current figure, an image file, whose bytes are kept
            as they are, or another Image: the same picture with that one's caption, grouping and classes
            where none are given, and without its boxes and masks.
        mode: Pillow's mode to convert the picture to, such as "L", "RGB" or "RGBA".  Given for a file, the
            picture is encoded anew.
        caption: a line of text.
        grouping: a number by which W&B groups images.
        classes: names of what boxes and masks show, each `{"id": int, "name": str}`.
        boxes: sets of bounding boxes by name, each `{"box_data": [box, …], "class_labels": {int: str}}`.
            A box has a `position`, which is either `{"minX", "maxX", "minY", "maxY"}` or
            `{"middle": [x, y], "width", "height"}`, in fractions of the image or, with `domain` "pixel", in
            pixels; and, as one likes, `class_id`, `box_caption` and `scores`, numbers by name.
        masks: sets of labels by name, each `{"mask_data": array, "class_labels": {int: str}}` with integers
            from 0 to 255 of shape (h, w), or with the `path` of a PNG in place of the array.
        file_type: "png" (the default), "jpg", "jpeg" or "bmp".  "jpg" leaves out transparency.  Given for a
            file, the picture is encoded anew.

    Raises:
        UnsupportedValueError: it is no picture: of another type or shape, empty, traced, not of real numbers;
            the classes, boxes or masks are not as above; or Pillow is not installed.
        UsageError: a mode or file type that cannot be, a caption or grouping of another type.
        FileNotFoundError: there is no such file.
    """

    __slots__ = ()
    kind: ClassVar[str] = "image"

    def __init__(
        self,
        data_or_path: Any,
        mode: str | None = None,
        caption: str | None = None,
        grouping: int | None = None,
        classes: Sequence[Mapping[str, Any]] | None = None,
        boxes: Mapping[str, Mapping[str, Any]] | None = None,
        masks: Mapping[str, Mapping[str, Any]] | None = None,
        file_type: str | None = None,
    ) -> None:
        require("PIL", "an image")
        other = isinstance(data_or_path, Image)
        source = data_or_path._as_source() if other else _source_of(data_or_path)  # noqa: SLF001 - of its own class
        given = {
            "caption": _checked("caption", caption, str),
            "grouping": _checked("grouping", grouping, int),
            "classes": None if classes is None else plain_classes(classes),
        }
        metadata = {**source.metadata, **{name: value for name, value in given.items() if value is not None}}
        source = replace(
            source,
            mode=mode or source.mode,
            file_type=file_type or source.file_type,
            metadata={**metadata, "boxes": plain_boxes(boxes or {})},
            masks=masks_of(masks or {}),
        )
        source.check_format()
        super().__init__(source)

    @property
    def caption(self) -> str | None:
        """The line of text."""
        return cast("str | None", self._metadata["caption"])

    @property
    def grouping(self) -> int | None:
        """The number by which W&B groups images."""
        return cast("int | None", self._metadata["grouping"])

    @property
    def classes(self) -> list[dict[str, Any]] | None:
        """The classes, each `{"id": int, "name": str}`."""
        return cast("list[dict[str, Any]] | None", self._metadata["classes"])

    @property
    def boxes(self) -> dict[str, dict[str, Any]]:
        """The sets of bounding boxes by name, as `Image` takes them."""
        found: dict[str, dict[str, Any]] = {}
        for name, boxes in self._metadata["boxes"].items():
            found[name] = {"box_data": boxes["box_data"]}
            if boxes["class_labels"] is not None:
                found[name]["class_labels"] = typed_labels(boxes["class_labels"])
        return found

    @property
    def masks(self) -> dict[str, dict[str, Any]]:
        """The masks by name, as `Image` takes them: `mask_data` is numpy's uint8 of shape (h, w).

        A mask from a file has `class_labels` only if it was given some.
        """
        require("PIL", "a mask")
        import numpy as np

        masks: dict[str, dict[str, Any]] = {}
        for name, mask in self.encoded.data["masks"].items():
            pixels = np.asarray(opened(self.content(mask["file"])))
            masks[name] = {"mask_data": pixels.astype(np.uint8)}
            if mask["class_labels"] is not None:
                masks[name]["class_labels"] = typed_labels(mask["class_labels"])
        return masks

    @property
    def format(self) -> str:
        """The file's ending, such as "png"."""
        return str(self.encoded.data["format"])

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.encoded.data["width"])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.encoded.data["height"])

    def file(self) -> bytes:
        """Return the file's bytes.

        Raises:
            CorruptRunError: the store does not have it any more.
        """
        return self.content(self.encoded.data["file"])

    def pil(self) -> PILImage:
        """Return the picture as Pillow's."""
        require("PIL", "an image")
        return decoded(self.file())

    def array(self) -> NDArray[np.uint8]:
        """Return the picture as levels: (h, w) for grey, (h, w, 3) for RGB, (h, w, 4) for RGBA."""
        import numpy as np

        return np.array(shown(self.pil()))

    @property
    def _metadata(self) -> Mapping[str, Any]:
        source = self._source  # read once: it goes when it is encoded, maybe on another thread
        return self.encoded.data if source is None else cast("_Source", source).metadata

    def _as_source(self) -> _Source:
        """Return what another image of the same picture is made of."""
        source = self._source
        if source is not None:
            return cast("_Source", source)
        data = self.encoded.data
        file = _File(self.file(), data["format"], (data["width"], data["height"]))
        return _Source(file, metadata={name: data[name] for name in _no_metadata()})


@final
@dataclass(frozen=True, slots=True)
class _File:
    """An image file: its bytes, its ending, and (width, height)."""

    data: bytes
    format: str
    size: tuple[int, int]


def _no_metadata() -> dict[str, Any]:
    return {"caption": None, "grouping": None, "classes": None, "boxes": {}}


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """What an image is made of.

    Attributes:
        picture: an array of numpy's or jax's, a picture of Pillow's, or a `_File`, which is kept as it is
            where neither a mode nor a file type is given.
        metadata: caption, grouping, classes and boxes, as JSON data.
    """

    picture: Any
    mode: str | None = None
    file_type: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=_no_metadata)
    masks: Mapping[str, Mask] = field(default_factory=dict[str, Mask])

    def check_format(self) -> None:
        """Say whether the file type is known, and can hold the mode.

        Raises:
            UsageError: it is not, or cannot.
        """
        if self.file_type is not None and self.file_type not in _PILLOW_FORMATS:
            msg = f"file_type must be one of {', '.join(_PILLOW_FORMATS)}, not {self.file_type!r}"
            raise UsageError(msg)
        modes = _MODES[self._pillow_format]
        if self.mode is not None and self.mode not in modes:
            msg = f"mode must be one of {', '.join(modes)} for {self._ending}, not {self.mode!r}"
            raise UsageError(msg)

    @property
    def nbytes(self) -> int:
        picture = self.picture
        if isinstance(picture, _File):
            size = len(picture.data)
        else:  # Pillow takes up to four bytes a pixel
            size = picture.nbytes if hasattr(picture, "nbytes") else 4 * picture.width * picture.height
        return size + sum(mask.nbytes for mask in self.masks.values())

    def arrays(self) -> Sequence[Any]:
        parts = (self.picture, *(mask.labels for mask in self.masks.values()))
        return [part for part in parts if is_jax_array(part)]

    def landed(self, hosts: Sequence[NDArray[Any]], /) -> _Source:
        coming = iter(hosts)
        return replace(
            self,
            picture=next(coming) if is_jax_array(self.picture) else self.picture,
            masks={
                name: replace(mask, labels=next(coming)) if is_jax_array(mask.labels) else mask
                for name, mask in self.masks.items()
            },
        )

    def encoded(self) -> Encoded:
        contents: dict[str, Content] = {}

        def kept(data: bytes) -> str:
            content = Content.of(data)
            contents[content.sha256] = content
            return content.sha256

        file = self._file()
        width, height = file.size
        masks: dict[str, Any] = {}
        for name, mask in self.masks.items():
            data, labels = mask.encoded()
            masks[name] = {"file": kept(data), "class_labels": labels}
        fields = {"file": kept(file.data), "format": file.format, "width": width, "height": height}
        return Encoded({**fields, **self.metadata, "masks": masks}, contents)

    @property
    def _ending(self) -> str:
        return self.file_type or "png"

    @property
    def _pillow_format(self) -> str:
        return _PILLOW_FORMATS[self._ending]

    def _file(self) -> _File:
        image = self._image()  # of a file that is kept, too: a damaged one cannot be shown
        if isinstance(self.picture, _File) and self.mode is None and self.file_type is None:
            return self.picture
        if self.mode is not None:
            image = converted(image, self.mode)
        elif image.mode not in _MODES[self._pillow_format]:
            image = shown(image)
            if image.mode == "RGBA":  # of a JPEG
                image = converted(image, "RGB")
        return _File(written(image, self._pillow_format), self._ending, image.size)

    def _image(self) -> PILImage:
        import numpy as np
        import PIL.Image

        picture = self.picture
        if isinstance(picture, _File):
            return decoded(picture.data)
        if isinstance(picture, PIL.Image.Image):
            return picture
        array = np.asarray(picture)
        return PIL.Image.fromarray(levels(array.reshape(picture_shape(array.shape))))


def _source_of(data: Any) -> _Source:
    """Return what an image of this is made of, as it is now."""
    import PIL.Image

    if isinstance(data, (str, os.PathLike)):
        path = Path(data)  # pyright: ignore[reportUnknownArgumentType] - of any path
        content, image = read_image(path)
        return _Source(_File(content, path.suffix[1:] or str(image.format).lower(), image.size))
    if isinstance(data, PIL.Image.Image):
        if not data.width * data.height:
            msg = f"a picture of {data.width}x{data.height} pixels is empty"
            raise UnsupportedValueError(msg)
        return _Source(data.copy())
    array = array_snapshot(data)
    if array is not None:
        picture_shape(array.shape)
        return _Source(array)
    figure = _figure_of(data)
    if figure is not None:
        return _Source(_drawn(figure), file_type="png")  # encoded anew, as W&B does: to the same bytes
    msg = (
        f"a {type(data).__module__}.{type(data).__qualname__} is no picture; tracklayer.Image takes a numpy "
        "or jax array, a picture of Pillow, a figure of matplotlib, a path, or an Image"
    )
    raise UnsupportedValueError(msg)


def _figure_of(value: Any) -> Figure | None:
    """Return the figure that a figure, something drawn in one, or pyplot stands for."""
    if isinstance(value, ModuleType) and value.__name__ == "matplotlib.pyplot":
        if not value.get_fignums():
            msg = "pyplot has no open figure; there is nothing to show"
            raise UnsupportedValueError(msg)
        return cast("Figure", value.gcf())
    if "matplotlib.figure" not in sys.modules:
        return None
    from matplotlib.figure import Figure

    figure = value if isinstance(value, Figure) else getattr(value, "figure", None)
    return figure if isinstance(figure, Figure) else None


def _drawn(figure: Figure) -> _File:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")  # pyright: ignore[reportUnknownMemberType] - its type is partial
    data = buffer.getvalue()
    return _File(data, "png", opened(data).size)


def _checked(name: str, value: Any, kind: type[Any]) -> Any:
    if value is not None and not isinstance(value, kind):
        msg = f"{name} must be of type {kind.__name__}, not {type(value).__name__}"
        raise UsageError(msg)
    return None if value is None else kind(value)
