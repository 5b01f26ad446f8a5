"""What is shown over an image, in W&B's form: classes, bounding boxes and masks, checked and made plain."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

from tracklayer.errors import UnsupportedValueError
from tracklayer.media.pixels import array_snapshot, is_integral, is_jax_array, read_image, written

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CORNERS: Final = {"minX", "maxX", "minY", "maxY"}
_MIDDLE: Final = {"middle", "width", "height"}


def plain_classes(classes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return classes as JSON data.

    Raises:
        UnsupportedValueError: one is not `{"id": int, "name": str}`.
    """
    plain: list[dict[str, Any]] = []
    for place, given in enumerate(classes):
        where = f"classes[{place}]"
        fields = _fields(given, where, needed=("id", "name"))
        plain.append({"id": _integer(fields["id"], where), "name": _text(fields["name"], where)})
    return plain


def plain_boxes(boxes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return sets of bounding boxes as JSON data; what has no class labels gets W&B's, `class_1` and so on.

    Raises:
        UnsupportedValueError: they are not of W&B's form.
    """
    return {name: _box_set(given, where) for name, given, where in _named(boxes, "boxes")}


def _box_set(given: Any, where: str) -> dict[str, Any]:
    fields = _fields(given, where, needed=("box_data",), allowed=("class_labels",))
    data, where_data = fields["box_data"], f"{where}['box_data']"
    if type(data) not in {list, tuple}:
        _refuse(where_data, "a list of boxes", data)
    boxes = [_box(box, f"{where_data}[{place}]") for place, box in enumerate(data)]
    labels = fields.get("class_labels")
    return {"box_data": boxes, "class_labels": None if labels is None else _labels(labels, where)}


def _box(given: Any, where: str) -> dict[str, Any]:
    fields = _fields(given, where, needed=("position",), allowed=tuple(_BOX_FIELDS)[1:])
    return {field: _BOX_FIELDS[field](value, f"{where}[{field!r}]") for field, value in fields.items()}


def _position(given: Any, where: str) -> dict[str, Any]:
    needed = "a dict of minX, maxX, minY and maxY, or of middle, width and height"
    fields = _mapping(given, where, needed)
    if set(fields) not in [_CORNERS, _MIDDLE]:
        _refuse(where, needed, given)
    return {
        field: (_point if field == "middle" else _coordinate)(value, f"{where}[{field!r}]")
        for field, value in fields.items()
    }


def _point(value: Any, where: str) -> list[float]:
    if not hasattr(value, "__len__") or len(value) != 2:
        _refuse(where, "[x, y]", value)
    return [_coordinate(value[0], where), _coordinate(value[1], where)]


def _coordinate(value: Any, where: str) -> float:
    number = _number(value, where)
    if not math.isfinite(number):
        _refuse(where, "finite", value)
    return number


def _scores(given: Any, where: str) -> dict[str, float]:
    return {name: _number(value, there) for name, value, there in _named(given, where)}


def _domain(value: Any, where: str) -> str | None:
    if value is not None and value != "pixel":
        _refuse(where, "'pixel', or None for fractions of the image", value)
    return None if value is None else "pixel"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A label for each pixel.

    Attributes:
        labels: (h, w): numpy's uint8, a jax array of integers, or the bytes of a PNG.
        class_labels: names by label, as JSON data has them.
    """

    labels: Any
    class_labels: Mapping[str, str] | None

    @property
    def nbytes(self) -> int:
        """About what it holds in memory, in bytes."""
        return len(self.labels) if isinstance(self.labels, bytes) else self.labels.nbytes

    def encoded(self) -> tuple[bytes, Mapping[str, str] | None]:
        """Return the PNG, and the class labels; those of an array are W&B's, if it has none.

        Raises:
            UnsupportedValueError: a label of a jax array is not in 0..255.
        """
        if isinstance(self.labels, bytes):
            return self.labels, self.class_labels
        import numpy as np
        from PIL import Image

        array = _bytes_of(np.asarray(self.labels))
        labels = self.class_labels
        if labels is None:
            labels = default_labels(set(np.unique(array).tolist()))
        return written(Image.fromarray(array), "PNG"), labels


def masks_of(masks: Mapping[str, Mapping[str, Any]]) -> dict[str, Mask]:
    """Return masks as they are now.

    Raises:
        UnsupportedValueError: they are not of W&B's form.
        FileNotFoundError: there is no such file.
    """
    return {name: _mask(given, where) for name, given, where in _named(masks, "masks")}


def _mask(given: Any, where: str) -> Mask:
    fields = _fields(given, where, allowed=("mask_data", "path", "class_labels"))
    if ("mask_data" in fields) == ("path" in fields):
        _refuse(where, "a dict with either mask_data or path", given)
    labels = fields.get("class_labels")
    class_labels = None if labels is None else _labels(labels, where)
    if "path" in fields:
        data, image = read_image(Path(fields["path"]))
        if image.format != "PNG" or image.mode not in {"L", "P", "1"}:
            found = f"{image.format} of mode {image.mode}"
            _refuse(f"{where}['path']", "a PNG with one label a pixel, of mode L or P", found)
        return Mask(data, class_labels)
    array = array_snapshot(fields["mask_data"])
    if array is None:
        _refuse(f"{where}['mask_data']", "an array", fields["mask_data"])
    if array.ndim != 2 or not array.size or not (array.dtype == bool or is_integral(array.dtype)):
        found = f"of {array.dtype} and shape {array.shape}"
        _refuse(f"{where}['mask_data']", "of integers and of shape (h, w)", found)
    return Mask(array if is_jax_array(array) else _bytes_of(array), class_labels)


def _bytes_of(labels: NDArray[Any]) -> NDArray[np.uint8]:
    import numpy as np

    if labels.dtype != np.uint8:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high > 255:
            _refuse("a mask", "of labels from 0 to 255", f"{low} to {high}")
    return labels.astype(np.uint8, copy=False)


def default_labels(classes: set[Any]) -> dict[str, str]:
    """Return the names that W&B gives to classes without one."""
    return {str(label): f"class_{label}" for label in sorted(classes - {None})}


def typed_labels(labels: Mapping[str, str]) -> dict[int, str]:
    """Return names by class, as JSON data has them, by integers again."""
    return {int(label): name for label, name in labels.items()}


def _labels(given: Any, where: str) -> dict[str, str]:
    where += "['class_labels']"
    labels = _mapping(given, where, "a dict of integers to names")
    return {str(_integer(label, where)): _text(name, where) for label, name in labels.items()}


def _named(given: Any, where: str) -> list[tuple[str, Any, str]]:
    needed = "a dict whose keys are strings"
    fields = _mapping(given, where, needed)
    if not all(isinstance(name, str) for name in fields):
        _refuse(where, needed, given)
    return [(str(name), value, f"{where}[{name!r}]") for name, value in fields.items()]


def _fields(
    given: Any, where: str, *, needed: tuple[str, ...] = (), allowed: tuple[str, ...] = ()
) -> Mapping[str, Any]:
    fields = _mapping(given, where, f"a dict with {', '.join(needed or allowed)}")
    for field in needed:
        if field not in fields:
            _refuse(where, f"a dict with {field!r}", given)
    for field in fields:
        if field not in (*needed, *allowed):
            _refuse(where, f"a dict with nothing but {', '.join((*needed, *allowed))}", given)
    return fields


def _integer(value: Any, where: str) -> int:
    if not isinstance(value, Integral):
        _refuse(where, "an integer", value)
    return int(value)


def _number(value: Any, where: str) -> float:
    if not isinstance(value, Real):
        _refuse(where, "a number", value)
    return int(value) if isinstance(value, Integral) else float(value)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        _refuse(where, "a string", value)
    return str(value)


def _mapping(given: Any, where: str, needed: str) -> Mapping[Any, Any]:
    if not isinstance(given, Mapping):
        _refuse(where, needed, given)
    return given  # pyright: ignore[reportUnknownVariableType] - it may be anything


def _refuse(where: str, needed: str, found: Any) -> NoReturn:
    shown = found if isinstance(found, str) else repr(found)
    msg = f"{where} must be {needed}, not {shown:.200}"
    raise UnsupportedValueError(msg)


_BOX_FIELDS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "position": _position,
    "class_id": _integer,
    "box_caption": _text,
    "scores": _scores,
    "domain": _domain,
}
