"""Pixels: which arrays are pictures, how their numbers become levels, and what Pillow makes of them."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracklayer.errors import UnsupportedValueError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as PILImage

_BLOCK: Final = 1_000_000  # elements that are float64 at a time: a picture may have 300 million


def is_jax_array(value: Any) -> bool:
    """Say whether a value is a jax array; traced ones are."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.Array)


def array_snapshot(value: Any) -> Any:
    """Return an array as it is now: a jax array itself, a copy of any other; None if it is no array.

    Raises:
        UnsupportedValueError: it is traced, or is not made of real numbers.
    """
    if is_jax_array(value):
        if isinstance(value, sys.modules["jax"].core.Tracer):
            msg = (
                "it is traced: inside jit there is no value to show yet. Return the array from the jitted "
                "function and log it outside"
            )
            raise UnsupportedValueError(msg)
        return _of_real_numbers(value)
    if hasattr(value, "__jax_array__"):  # a variable of Flax's
        return array_snapshot(value.__jax_array__())
    if not hasattr(value, "__array__"):
        return None
    import numpy as np

    return np.array(_of_real_numbers(np.asarray(value)), order="C")


def _of_real_numbers(array: Any) -> Any:
    dtype = array.dtype
    # bfloat16 and its relatives are of numpy kind "V"; a jax array of keys has no kind at all
    if getattr(dtype, "kind", None) not in {"b", "i", "u", "f"} and dtype.type.__module__ != "ml_dtypes":
        msg = f"an array of dtype {dtype}; its elements must be real numbers"
        raise UnsupportedValueError(msg)
    return array


def is_integral(dtype: np.dtype[Any]) -> bool:
    """Say whether a dtype is one of integers: those of ml_dtypes, such as int4, are; bool is not."""
    return "int" in dtype.name


def picture_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape, (h, w), (h, w, 3) or (h, w, 4), in which an array is a picture.

    (h, w, 1) is grey.  Where the shape is no picture's, dimensions of 1 are left out.

    Raises:
        UnsupportedValueError: it is not one even then.
    """
    kept = shape
    while len(kept) > 3 and kept[0] == 1:
        kept = kept[1:]
    for candidate in (kept, tuple(length for length in kept if length != 1)):
        if 0 not in candidate and (
            len(candidate) == 2 or (len(candidate) == 3 and candidate[-1] in {1, 3, 4})
        ):
            return candidate[:2] if candidate[2:] == (1,) else candidate
    if 0 in shape:
        reason = "is empty"
    elif len(kept) == 3 and kept[0] in {3, 4}:
        reason = "has its channels first; transpose it so that they are last: numpy.moveaxis(array, -3, -1)"
    elif len(kept) == 4:
        reason = "is no picture; log a batch as a list, [tracklayer.Image(one) for one in array]"
    else:
        reason = "is no picture; it must be (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)"
    msg = f"an array of shape {shape} {reason}"
    raise UnsupportedValueError(msg)


def levels(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an array's elements as levels of 0 to 255, scaled as `tracklayer.Image` says.

    uint8 is returned as it is; for others, little more than the result is held in memory.
    """
    import numpy as np

    if array.dtype == np.uint8:
        return array
    low, high = _black_and_white(array)
    if math.isinf(255 * (high - low)):  # only float64 reaches so far
        return levels(array / 1024)
    result = np.empty(array.shape, np.uint8)
    flat = result.reshape(-1)
    for start, block in _blocks(array):
        np.clip(block, low, high, out=block)
        np.subtract(block, low, out=block)
        np.multiply(block, 255, out=block)
        np.divide(block, high - low, out=block)
        np.rint(block, out=block)
        flat[start : start + block.size] = np.nan_to_num(block, copy=False, nan=0)
    return result


def _black_and_white(array: NDArray[Any]) -> tuple[float, float]:
    """Return which elements become 0 and 255."""
    import numpy as np

    low, high = math.inf, -math.inf
    for _, block in _blocks(array):
        finite = np.isfinite(block)
        low = min(low, float(block.min(initial=math.inf, where=finite)))
        high = max(high, float(block.max(initial=-math.inf, where=finite)))
    white = 255.0 if is_integral(array.dtype) else 1.0
    if low >= 0 and high <= white:  # so they are where nothing is finite
        return 0.0, white
    return low, max(high, math.nextafter(low, math.inf))


def _blocks(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Go through the elements in their order, as float64: it holds those of all smaller dtypes exactly."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield start, flat[start : start + _BLOCK].astype("float64")


def opened(data: bytes) -> PILImage:
    """Return the picture of an image file, not decoded yet.

    `PIL.Image.open` without its limit on pixels, which is there against strangers' files: 100 megapixels of
    one's own are fine.

    Raises:
        UnsupportedValueError: it is of no format that Pillow reads.
    """
    from PIL import Image

    for register in (Image.preinit, Image.init):  # the common formats, then all
        register()
        for name in Image.ID:
            factory, accepts = Image.OPEN[name]
            with suppress(SyntaxError, IndexError, TypeError, struct.error):  # what Pillow takes for "no"
                if accepts is None or accepts(data[:16]) is True:
                    return factory(BytesIO(data), "")
    msg = f"its content ({len(data)} bytes) is of no image format that Pillow reads"
    raise UnsupportedValueError(msg)


def read_image(path: Path) -> tuple[bytes, PILImage]:
    """Return the bytes of an image file, and its picture, not decoded yet.

    Raises:
        FileNotFoundError: there is no such file.
        UnsupportedValueError: it is of no format that Pillow reads.
    """
    data = path.read_bytes()
    try:
        return data, opened(data)
    except UnsupportedValueError as error:
        msg = f"{str(path)!r} is no image: {error}"
        raise UnsupportedValueError(msg) from error


def decoded(data: bytes) -> PILImage:
    """Return the picture of an image file, all of it.

    Raises:
        UnsupportedValueError: it is of no format that Pillow reads, or damaged.
    """
    image = opened(data)
    try:
        image.load()  # pyright: ignore[reportUnknownMemberType] - its type is partial
    except (OSError, SyntaxError, ValueError) as error:
        msg = f"the {image.format} file ({len(data)} bytes) is damaged: {error}"
        raise UnsupportedValueError(msg) from error
    return image


def shown(image: PILImage) -> PILImage:
    """Return a picture as it is shown: of mode L, RGB or RGBA.

    Raises:
        UnsupportedValueError: Pillow cannot convert it.
    """
    if image.mode in {"L", "RGB", "RGBA"}:
        return image
    if image.mode.startswith(("I", "F")):  # numbers of 16 and 32 bits
        import numpy as np
        from PIL import Image

        return Image.fromarray(levels(np.asarray(image)))
    if image.mode == "1":
        return converted(image, "L")
    return converted(image, "RGBA" if image.has_transparency_data else "RGB")


def converted(image: PILImage, mode: str) -> PILImage:
    """Return a picture in another of Pillow's modes.

    Raises:
        UnsupportedValueError: Pillow cannot convert it.
    """
    if image.mode == mode:
        return image
    try:
        return image.convert(mode)
    except ValueError as error:
        msg = f"a picture of mode {image.mode} as one of mode {mode}: {error}"
        raise UnsupportedValueError(msg) from error


def written(image: PILImage, pillow_format: str) -> bytes:
    """Return a picture as a file.

    Raises:
        UnsupportedValueError: the format cannot hold it.
    """
    buffer = BytesIO()
    try:
        image.save(buffer, format=pillow_format, transparency=None)
    except (OSError, ValueError) as error:
        msg = f"{image.width}x{image.height} pixels of mode {image.mode} as {pillow_format}: {error}"
        raise UnsupportedValueError(msg) from error
    return buffer.getvalue()
