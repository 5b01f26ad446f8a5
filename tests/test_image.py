"""Images and lists of them: what they take, what they are encoded to, and that W&B makes the same of it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import PIL.Image
import pytest
import wandb
from flax import nnx
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.media.base import Media
from tracklayer.media.html import Html
from tracklayer.media.image import Image
from tracklayer.media.list import MediaList
from tracklayer.values import Histogram, kind_of, value_from_json

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (20, 30, 3), np.uint8)
GREY = RANDOM.integers(0, 256, (20, 30), np.uint8)
RGBA = RANDOM.integers(0, 256, (20, 30, 4), np.uint8)
SHAPES = {
    "grey": GREY,
    "grey with a channel": GREY[:, :, None],
    "RGB": RGB,
    "RGBA": RGBA,
    "a batch of one": RGB[None],
    "channels first, of one": GREY[None],
}
NAN, INF = math.nan, math.inf


def of_wandb(*arguments: Any, **options: Any) -> bytes:
    path: str = wandb.Image(*arguments, **options)._path
    return Path(path).read_bytes()


def recorded(value: Media) -> Media:
    """Return a value as it comes back from where it was recorded."""
    contents = value.encoded.contents
    back = value_from_json(value.kind, value.to_json(), lambda sha256, _: contents[sha256])
    assert isinstance(back, Media)
    return back


def levels_of(*elements: Any, dtype: Any = None) -> list[int]:
    """Return what a grey image shows of these elements."""
    levels: list[int] = Image(np.array([elements], dtype)).array()[0].tolist()
    return levels


# what W&B makes of the same


@pytest.mark.filterwarnings("ignore:JPEG format does not support transparency")
@pytest.mark.parametrize("file_type", [None, "png", "jpg", "jpeg", "bmp"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_uint8_array_is_encoded_as_by_wandb(shape: str, file_type: str | None) -> None:
    image = Image(SHAPES[shape], file_type=file_type)
    assert image.file() == of_wandb(SHAPES[shape], file_type=file_type)
    assert image.format == (file_type or "png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("shape", ["grey", "RGB", "RGBA"])
def test_a_mode_is_converted_to_as_by_wandb(shape: str, mode: str) -> None:
    image = Image(SHAPES[shape], mode=mode)
    assert image.file() == of_wandb(SHAPES[shape], mode=mode)
    assert image.pil().mode == mode


def pictures() -> dict[str, PIL.Image.Image]:
    jpeg = BytesIO()
    PIL.Image.fromarray(RGB).save(jpeg, "JPEG", dpi=(72, 72), comment="made in a test")
    with_palette = PIL.Image.fromarray(RGB).quantize(16)
    with_palette.info["transparency"] = 3
    return {
        "RGB": PIL.Image.fromarray(RGB),
        "grey and alpha": PIL.Image.fromarray(RGBA).convert("LA"),
        "black and white": PIL.Image.fromarray(GREY).convert("1"),
        "with a palette": with_palette,
        "16 bits": PIL.Image.fromarray((GREY * 257.0).astype(np.uint16)),
        "a JPEG": PIL.Image.open(jpeg),
    }


@pytest.mark.parametrize("name", pictures())
def test_a_picture_of_pillow_is_encoded_as_by_wandb(name: str) -> None:
    assert Image(pictures()[name]).file() == of_wandb(pictures()[name])


@pytest.fixture
def figure() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 4, 2])
    return figure


def test_a_figure_is_encoded_as_by_wandb(figure: Figure) -> None:
    expected = of_wandb(figure)
    assert Image(figure).file() == expected
    assert Image(figure.axes[0]).file() == expected
    assert Image(figure.axes[0].lines[0]).file() == expected
    assert (Image(figure).width, Image(figure).height) == (200, 100)


def test_pyplot_stands_for_its_current_figure() -> None:
    plt.figure(figsize=(3, 1))
    plt.plot([1, 2])
    image = Image(plt)
    expected = of_wandb(plt)
    plt.close()
    assert image.file() == expected
    with pytest.raises(UnsupportedValueError, match="no open figure"):
        Image(plt)
    assert not plt.get_fignums()


def test_a_file_is_kept_as_it_is_as_by_wandb(tmp_path: Path) -> None:
    path = tmp_path / "cat.JPG"
    PIL.Image.fromarray(RGB).save(path)
    for image in (Image(path), Image(str(path))):
        assert image.file() == path.read_bytes() == of_wandb(str(path))
        assert (image.format, image.width, image.height) == ("JPG", 30, 20)
    assert wandb.Image(str(path)).format == "JPG"


def test_masks_are_encoded_as_by_wandb() -> None:
    labels = RANDOM.integers(0, 256, (20, 30))
    masks = {"truth": {"mask_data": labels, "class_labels": {0: "sky", 1: "sea"}}}
    image = Image(RGB, masks=masks)
    theirs = wandb.Image(RGB, masks=masks)._masks["truth"]._path
    assert image.content(image.encoded.data["masks"]["truth"]["file"]) == Path(theirs).read_bytes()


# what numbers become


def test_levels_stay_what_they_are() -> None:
    assert levels_of(0, 100, 255, dtype=np.uint8) == [0, 100, 255]
    assert levels_of(0, 100, 255, dtype=np.int64) == [0, 100, 255]
    assert levels_of(0, 1, dtype=np.int32) == [0, 1]
    assert levels_of(0, 7, dtype=ml_dtypes.int4) == [0, 7]


def test_truth_is_white() -> None:
    assert levels_of(False, True) == [0, 255]


def test_fractions_are_of_white() -> None:
    assert levels_of(0.0, 0.1, 0.25, 0.5, 1.0) == [0, 26, 64, 128, 255]  # 25.5, 63.75 and 127.5, rounded
    assert levels_of(0.25, 0.5) == [64, 128]
    assert levels_of(1.0, 1.0) == [255, 255]


def test_other_ranges_are_spread_from_black_to_white() -> None:
    assert levels_of(-1.0, -0.5, 0.0, 1.0) == [0, 64, 128, 255]
    assert levels_of(0.0, 51.0, 510.0) == [0, 26, 255]
    assert levels_of(0, 51, 510) == [0, 26, 255]
    assert levels_of(-1, 0, 1) == [0, 128, 255]
    assert levels_of(-8, 0, 7, dtype=ml_dtypes.int4) == [0, 136, 255]
    assert levels_of(0, 2**64 - 1, dtype=np.uint64) == [0, 255]


def test_what_does_not_vary_is_black() -> None:
    assert levels_of(7.0, 7.0) == [0, 0]
    assert levels_of(-3, -3) == [0, 0]
    assert levels_of(1e308, 1e308) == [0, 0]


def test_nan_is_black_and_the_infinities_are_the_ends() -> None:
    assert levels_of(0.0, NAN, 0.5, INF, -INF, 1.0) == [0, 0, 128, 255, 0, 255]
    assert levels_of(-1.0, NAN, 1.0, INF, -INF) == [0, 0, 255, 255, 0]
    assert levels_of(NAN, INF, -INF) == [0, 255, 0]
    assert levels_of(7.0, NAN, INF, -INF) == [0, 0, 255, 0]


def test_no_range_is_too_wide_or_too_narrow() -> None:
    assert levels_of(-1.7e308, 0.0, 1.7e308) == [0, 128, 255]
    assert levels_of(-5e-324, 0.0) == [0, 255]
    assert levels_of(1e16, 1e16 + 2) == [0, 255]


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "longdouble", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]
)
def test_floats_of_all_sizes_are_numbers_like_any_other(dtype: Any) -> None:
    assert levels_of(-1, 0, NAN, 1, dtype=dtype) == [0, 128, 0, 255]


def test_a_large_image_is_scaled_as_one() -> None:
    array = RANDOM.normal(size=(1100, 1000, 3)).astype(np.float32)  # several blocks
    low, high = array.min().astype(float), array.max().astype(float)
    assert np.array_equal(Image(array).array(), np.rint((array - low) * 255 / (high - low)))


@pytest.mark.slow
def test_100_megapixels_are_kept() -> None:
    array = np.zeros((10_000, 10_000, 3), np.uint8)
    array[5000:, 5000:] = 200
    image = Image(array)
    assert (image.width, image.height) == (10_000, 10_000)
    back = recorded(image)
    assert isinstance(back, Image)
    assert np.array_equal(back.array()[4990:5010, 4990:5010], array[4990:5010, 4990:5010])
    assert back.encoded.nbytes < 3_000_000


# what arrays are pictures


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((), r"shape \(\) is no picture"),
        ((5,), r"shape \(5,\) is no picture; it must be \(h, w\)"),
        ((20, 30, 2), r"\(20, 30, 2\) is no picture"),
        ((0, 30), r"\(0, 30\) is empty"),
        ((20, 0, 3), r"\(20, 0, 3\) is empty"),
        ((3, 20, 30), r"\(3, 20, 30\) has its channels first; transpose it"),
        ((1, 4, 20, 30), r"\(1, 4, 20, 30\) has its channels first; transpose it"),
        ((8, 20, 30, 3), r"\(8, 20, 30, 3\) is no picture; log a batch as a list"),
        ((2, 8, 20, 30, 3), r"is no picture; it must be"),
    ],
)
@pytest.mark.parametrize("module", [np, jnp])
def test_other_shapes_are_refused(module: Any, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UnsupportedValueError, match=message):
        Image(module.zeros(shape, np.uint8))


def test_a_small_picture_keeps_its_channels() -> None:
    assert Image(RGB[:1, :1]).array().shape == (1, 1, 3)
    assert Image(RGB[:, :1]).array().shape == (20, 1, 3)
    assert Image(RGB[None, :1]).array().shape == (1, 30, 3)


@pytest.mark.parametrize("dtype", [complex, object, str, "datetime64[s]", [("a", int)]])
def test_other_dtypes_are_refused(dtype: Any) -> None:
    with pytest.raises(UnsupportedValueError, match="dtype .*real numbers"):
        Image(np.zeros((2, 3), dtype))


@pytest.mark.parametrize("value", [[[1, 2], [3, 4]], 5, None, b"x", sys, Histogram([1.0])])
def test_other_types_are_refused(value: Any) -> None:
    with pytest.raises(UnsupportedValueError, match=rf"{type(value).__qualname__} is no picture; .* takes"):
        Image(value)


# what comes from jax


def test_an_array_of_jax_is_encoded_as_numpys() -> None:
    for array in SHAPES.values():
        assert Image(jnp.asarray(array)) == Image(array)
    assert Image(nnx.Param(jnp.asarray(RGB))) == Image(RGB)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.int4, jnp.bool_, jnp.int32])
def test_what_jit_returns_lands_and_is_encoded(dtype: Any) -> None:
    array = jax.jit(lambda: (jnp.arange(24).reshape(4, 6) - 8).astype(dtype))()
    image = Image(array)
    assert image.arrays()[0] is array
    host = np.asarray(array)
    landed = image.landed([host])
    assert landed.arrays() == []
    assert landed == Image(host) == image


def test_masks_of_jax_land_behind_the_picture() -> None:
    labels = jnp.asarray(GREY.astype(np.int32))
    masks = {"a": {"mask_data": labels % 3}, "b": {"mask_data": GREY}, "c": {"mask_data": labels}}
    image = Image(jnp.asarray(RGB), caption="x", masks=masks)
    hosts = [np.asarray(array) for array in image.arrays()]
    assert [host.shape for host in hosts] == [(20, 30, 3), (20, 30), (20, 30)]
    landed = image.landed(hosts)
    assert landed.caption == "x"
    assert landed == Image(RGB, caption="x", masks={**masks, "a": {"mask_data": GREY % 3}})
    of_masks = Image(RGB, masks={"c": {"mask_data": labels}})
    assert np.array_equal(of_masks.landed([GREY]).masks["c"]["mask_data"], GREY)


def test_a_traced_array_is_refused() -> None:
    @jax.jit
    def function(array: jax.Array) -> jax.Array:
        with pytest.raises(UnsupportedValueError, match="traced: inside jit"):
            Image(array)
        return array

    function(jnp.asarray(GREY))


def test_keys_and_complex_arrays_of_jax_are_refused() -> None:
    with pytest.raises(UnsupportedValueError, match="real numbers"):
        Image(jax.random.split(jax.random.key(0), (2, 3)))
    with pytest.raises(UnsupportedValueError, match="dtype complex64"):
        Image(jnp.zeros((2, 3), complex))


# the content is that at the call


def test_what_becomes_of_the_input_changes_nothing(tmp_path: Path, figure: Figure) -> None:
    path, mask_path = tmp_path / "a.png", tmp_path / "m.png"
    PIL.Image.fromarray(RGB).save(path)
    PIL.Image.fromarray(GREY).save(mask_path)
    array, labels, picture = RGB.copy(), GREY.astype(int), PIL.Image.fromarray(RGB)
    boxes: dict[str, Any] = {"b": {"box_data": [corners()], "class_labels": {1: "cat"}}}
    masks = {"m": {"mask_data": labels}, "p": {"path": str(mask_path)}}
    classes = [{"id": 1, "name": "cat"}]

    def images() -> list[Image]:
        sources = (array, array[::-1, ::2], picture, path, figure)
        return [Image(source, boxes=boxes, masks=masks, classes=classes) for source in sources]

    before, expected = images(), [image.to_json() for image in images()]
    array[:], labels[:] = 0, 0
    picture.putpixel((0, 0), (1, 2, 3))
    picture.paste((0, 0, 0), (0, 0, 30, 20))
    path.unlink()
    mask_path.unlink()
    figure.clear()
    boxes["b"]["box_data"][0]["position"]["minX"] = 0.3
    boxes["b"]["class_labels"][1] = classes[0]["name"] = "dog"
    assert [image.to_json() for image in before] == expected


def test_nothing_is_encoded_at_the_call() -> None:
    image = Image(RGB, caption="a cat", grouping=2, classes=[], boxes={"b": {"box_data": [corners()]}})
    assert image.caption == "a cat"
    assert image.grouping == 2
    assert image.boxes == {"b": {"box_data": [corners()]}}
    assert image.nbytes == RGB.nbytes
    assert not image.is_here
    assert image.width == 30
    assert image.is_here


# files


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
        Image(tmp_path / "nothing.png")
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
        Image(GREY, masks={"m": {"path": str(tmp_path / "nothing.png")}})


@pytest.mark.parametrize("content", [b"", b"This is no image.", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.png"
    path.write_bytes(content)
    with pytest.raises(UnsupportedValueError, match=rf"text\.png' is no image: .*{len(content)} bytes"):
        Image(path)


def test_a_damaged_file_cannot_be_encoded(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    PIL.Image.fromarray(RGB).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    image = Image(path)
    with pytest.raises(UnsupportedValueError, match="PNG file .1000 bytes. is damaged"):
        image.encoded  # noqa: B018 - encodes it


@pytest.mark.parametrize("pillow_format", ["WEBP", "TGA"])
def test_a_file_without_an_ending_gets_its_formats(tmp_path: Path, pillow_format: str) -> None:
    path = tmp_path / "picture"
    PIL.Image.fromarray(RGB).save(path, pillow_format, lossless=True)
    image = Image(path)
    assert image.format == pillow_format.lower()
    assert np.array_equal(image.array(), RGB)


def test_a_file_is_converted_only_if_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "cat.bmp"
    PIL.Image.fromarray(RGB).save(path)
    assert Image(path).file() == path.read_bytes()
    assert Image(path, file_type="jpg").file() == Image(RGB, file_type="jpg").file()
    assert Image(path, mode="L") == Image(PIL.Image.open(path), mode="L")


# formats


@pytest.mark.parametrize("file_type", ["png", "jpg", "bmp"])
@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]
)
def test_a_picture_of_any_mode_can_be_encoded(mode: str, file_type: str) -> None:
    levels = np.linspace(0, 255, 600).astype(np.uint8).reshape(20, 30)
    grey = PIL.Image.fromarray(levels)
    picture = {
        "F": PIL.Image.fromarray(levels / np.float32(255)),
        "I": PIL.Image.fromarray(levels.astype(np.int32)),
        "I;16": PIL.Image.fromarray(levels.astype(np.uint16)),
    }.get(mode) or (grey.convert("LA").convert(mode) if mode == "PA" else grey.convert("RGB").convert(mode))
    image = Image(picture, file_type=file_type)
    array = image.array()
    assert array.dtype == np.uint8
    assert array.shape[:2] == (20, 30)
    if mode not in {"1", "P", "PA"}:
        shown = array if array.ndim == 2 else array[:, :, 0]
        assert np.abs(shown.astype(int) - levels).max() < 10


def test_jpg_leaves_out_transparency() -> None:
    for image in (Image(RGBA, file_type="jpg"), Image(PIL.Image.fromarray(RGBA), file_type="jpg")):
        assert image == Image(RGBA[:, :, :3].copy(), file_type="jpg")


def test_what_a_format_cannot_hold_is_said_when_it_is_encoded() -> None:
    with pytest.raises(UnsupportedValueError, match="70000x1 pixels of mode L as JPEG"):
        Image(np.zeros((1, 70_000), np.uint8), file_type="jpg").file()
    with pytest.raises(UnsupportedValueError, match="mode LAB as one of mode L: "):
        Image(PIL.Image.new("LAB", (2, 2)), mode="L").file()


def test_an_empty_picture_is_refused() -> None:
    with pytest.raises(UnsupportedValueError, match="0x5 pixels is empty"):
        Image(PIL.Image.new("L", (0, 5)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"file_type": "gif"}, "file_type must be one of png, jpg, jpeg, bmp, not 'gif'"),
        ({"mode": "XYZ"}, "mode must be one of 1, L, .* for png, not 'XYZ'"),
        ({"mode": "RGBA", "file_type": "jpg"}, "for jpg, not 'RGBA'"),
        ({"caption": 5}, "caption must be of type str, not int"),
        ({"grouping": "a"}, "grouping must be of type int, not str"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Image(RGB, **options)


@pytest.mark.parametrize("array", [GREY, RGB, RGBA], ids=["grey", "RGB", "RGBA"])
@pytest.mark.parametrize(
    ("file_type", "mode"),
    [
        *(("png", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *(("jpg", mode) for mode in ("1", "L", "RGB", "CMYK", "YCbCr")),
        *(("bmp", mode) for mode in ("1", "L", "P", "RGB", "RGBA")),
    ],
)
def test_every_mode_that_is_offered_can_be_had(array: NDArray[Any], file_type: str, mode: str) -> None:
    assert Image(array, mode=mode, file_type=file_type).pil().size == (30, 20)


def test_without_pillow_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image(RGB)
    image.file()
    monkeypatch.setitem(sys.modules, "PIL", None)
    for use in (lambda: Image(RGB), image.pil, lambda: image.masks):
        with pytest.raises(UnsupportedValueError, match=r"pip install 'tracklayer\[media\]'"):
            use()
    assert image.file()


# what goes with it


def corners(**more: Any) -> dict[str, Any]:
    return {"position": {"minX": 0.1, "maxX": 0.2, "minY": 0.3, "maxY": 0.4}, "class_id": 1, **more}


BOXES: dict[str, Any] = {
    "predictions": {
        "box_data": [
            corners(box_caption="a cat", scores={"sure": 0.5, "n": 3}),
            {"position": {"middle": [15, 2.5], "width": 6, "height": 5}, "domain": "pixel", "class_id": 3},
            {"position": {"minX": 0, "maxX": 1, "minY": 0, "maxY": 1}, "domain": None},
        ],
        "class_labels": {1: "cat", 3: "dog"},
    },
    "truth": {"box_data": [corners(), corners(class_id=7)]},
    "none": {"box_data": []},
}


def test_all_that_was_given_comes_back_from_the_record() -> None:
    labels = GREY.astype(np.int64)
    classes = [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]
    image = Image(
        RGB,
        caption="a “cat”",
        grouping=4,
        classes=classes,
        boxes=BOXES,
        masks={"m": {"mask_data": labels, "class_labels": {0: "sky"}}, "n": {"mask_data": labels % 2}},
    )
    wandb.Image(RGB, classes=classes, boxes=BOXES)  # it takes the same
    for seen in (image, recorded(image)):
        assert isinstance(seen, Image)
        assert (seen.caption, seen.grouping, seen.classes) == ("a “cat”", 4, classes)
        assert (seen.format, seen.width, seen.height) == ("png", 30, 20)
        assert seen.boxes == BOXES
        assert seen.masks.keys() == {"m", "n"}
        assert seen.masks["m"]["class_labels"] == {0: "sky"}
        assert seen.masks["n"]["class_labels"] == {0: "class_0", 1: "class_1"}
        assert np.array_equal(seen.masks["m"]["mask_data"], GREY)
        assert np.array_equal(seen.array(), RGB)
        assert seen.pil().mode == "RGB"
        again = Image(seen.pil(), None, seen.caption, seen.grouping, seen.classes, seen.boxes, seen.masks)
        assert again == image


def test_without_options_there_is_nothing() -> None:
    image = Image(RGB)
    assert (image.caption, image.grouping, image.classes) == (None, None, None)
    assert (image.boxes, image.masks) == ({}, {})
    assert image.encoded.data == {
        "file": next(iter(image.encoded.contents)),
        "format": "png",
        "width": 30,
        "height": 20,
        "caption": None,
        "grouping": None,
        "classes": None,
        "boxes": {},
        "masks": {},
    }


def test_numbers_of_numpy_are_numbers() -> None:
    box = {
        "position": {"middle": np.array([0.5, 0.25]), "width": np.float32(0.5), "height": np.int64(1)},
        "class_id": np.int64(2),
        "scores": {"sure": np.float64(0.5)},
    }
    image = Image(RGB, boxes={"b": {"box_data": [box], "class_labels": {np.int32(2): "cat"}}})
    assert image.boxes["b"] == {
        "box_data": [
            {
                "position": {"middle": [0.5, 0.25], "width": 0.5, "height": 1},
                "class_id": 2,
                "scores": {"sure": 0.5},
            }
        ],
        "class_labels": {2: "cat"},
    }
    assert recorded(image) == image


def without(field: str) -> dict[str, Any]:
    box = corners()
    del box["position"][field]
    return box


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("box", "must be a dict with position, not box"),
        ({"class_id": 1}, "must be a dict with 'position'"),
        (without("minX"), "must be a dict of minX, maxX, minY and maxY, or of middle"),
        ({"position": {"middle": 1, "width": 1, "height": 1}}, r"\['middle'\] must be \[x, y\], not 1"),
        ({"position": {"middle": [1], "width": 1, "height": 1}}, r"must be \[x, y\], not \[1\]"),
        ({"position": {"middle": [1, 2], "width": "1", "height": 1}}, r"\['width'\] must be a number, not 1"),
        ({"position": {"middle": [1, NAN], "width": 1, "height": 1}}, "must be finite, not nan"),
        (corners(class_id=1.5), r"\['class_id'\] must be an integer, not 1.5"),
        (corners(box_caption=5), r"\['box_caption'\] must be a string, not 5"),
        (corners(scores=[1]), r"\['scores'\] must be a dict whose keys are strings, not \[1\]"),
        (corners(scores={1: 1}), "must be a dict whose keys are strings"),
        (corners(scores={"a": "b"}), r"\['scores'\]\['a'\] must be a number, not b"),
        (corners(domain="pixels"), "must be 'pixel', or None for fractions of the image, not pixels"),
        (corners(caption="cat"), "with nothing but position, class_id, box_caption, scores, domain, not"),
    ],
)
def test_a_box_that_is_none_is_refused(box: Any, message: str) -> None:
    with pytest.raises(UnsupportedValueError, match=r"^boxes\['b'\]\['box_data'\]\[1\].*" + message):
        Image(RGB, boxes={"b": {"box_data": [corners(), box]}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": [corners()]}, "boxes must be a dict"),
        ({"boxes": {1: {"box_data": []}}}, "boxes must be a dict whose keys are strings"),
        ({"boxes": {"b": [corners()]}}, r"boxes\['b'\] must be a dict with box_data"),
        ({"boxes": {"b": {"class_labels": {}}}}, r"boxes\['b'\] must be a dict with 'box_data'"),
        ({"boxes": {"b": {"box_data": corners()}}}, r"\['box_data'\] must be a list of boxes"),
        (
            {"boxes": {"b": {"box_data": [], "class_labels": {"1": "a"}}}},
            r"'class_labels'\] must be an integer",
        ),
        ({"boxes": {"b": {"box_data": [], "class_labels": {1: 2}}}}, r"'class_labels'\] must be a string"),
        ({"boxes": {"b": {"box_data": [], "class_labels": ["a"]}}}, "must be a dict of integers to names"),
        ({"masks": [GREY]}, "masks must be a dict"),
        ({"masks": {"m": GREY}}, r"masks\['m'\] must be a dict with mask_data, path, class_labels"),
        ({"masks": {"m": {}}}, "with either mask_data or path"),
        ({"masks": {"m": {"mask_data": GREY, "path": "x.png"}}}, "with either mask_data or path"),
        ({"masks": {"m": {"mask_data": [[1]]}}}, r"\['mask_data'\] must be an array, not \[\[1\]\]"),
        ({"masks": {"m": {"mask_data": RGB}}}, r"of integers and of shape \(h, w\), not of uint8 and shape"),
        ({"masks": {"m": {"mask_data": GREY[:0]}}}, r"not of uint8 and shape \(0, 30\)"),
        ({"masks": {"m": {"mask_data": GREY / 255}}}, "of integers .*, not of float64"),
        ({"masks": {"m": {"mask_data": jnp.zeros((2, 2))}}}, "of integers .*, not of float32"),
        ({"masks": {"m": {"mask_data": np.array([[-1, 3]])}}}, "of labels from 0 to 255, not -1 to 3"),
        ({"masks": {"m": {"mask_data": np.array([[256]])}}}, "of labels from 0 to 255, not 256 to 256"),
        ({"masks": {"m": {"mask_data": GREY, "class_labels": {"a": "b"}}}}, "must be an integer, not a"),
        ({"masks": {"m": {"mask_data": GREY, "labels": {}}}}, "nothing but mask_data, path, class_labels"),
        ({"classes": [{"id": 1}]}, r"classes\[0\] must be a dict with 'name'"),
        ({"classes": [{"id": "1", "name": "cat"}]}, r"classes\[0\] must be an integer"),
    ],
)
def test_overlays_that_are_none_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedValueError, match=message):
        Image(RGB, **options)


def test_labels_of_jax_are_checked_when_they_are_there() -> None:
    image = Image(RGB, masks={"m": {"mask_data": jnp.array([[300]])}})
    with pytest.raises(UnsupportedValueError, match="of labels from 0 to 255, not 300 to 300"):
        image.encoded  # noqa: B018 - encodes it


def test_a_mask_may_be_a_png(tmp_path: Path) -> None:
    for mode in ("L", "P"):
        picture = PIL.Image.fromarray(GREY % 5)
        if mode == "P":
            picture.putpalette(RANDOM.integers(0, 256, 768).tolist())
        picture.save(tmp_path / "m.png")
        image = recorded(Image(RGB, masks={"m": {"path": tmp_path / "m.png", "class_labels": {2: "cat"}}}))
        assert isinstance(image, Image)
        assert image.pil().mode == "RGB"
        assert np.array_equal(image.masks["m"]["mask_data"], GREY % 5)
        assert image.masks["m"]["class_labels"] == {2: "cat"}
    assert image.content(image.encoded.data["masks"]["m"]["file"]) == (tmp_path / "m.png").read_bytes()
    unnamed = Image(RGB, masks={"m": {"path": str(tmp_path / "m.png")}})
    assert unnamed.masks["m"].keys() == {"mask_data"}


@pytest.mark.parametrize(("array", "ending"), [(GREY, "bmp"), (RGB, "png")])
def test_another_file_is_no_mask(tmp_path: Path, array: NDArray[Any], ending: str) -> None:
    path = tmp_path / f"m.{ending}"
    PIL.Image.fromarray(array).save(path)
    with pytest.raises(UnsupportedValueError, match=r"\['path'\] must be a PNG with one label a pixel"):
        Image(RGB, masks={"m": {"path": str(path)}})


# an image of an image


@pytest.mark.parametrize("make", [lambda image: image, recorded], ids=["new", "recorded"])
def test_an_image_of_an_image_is_the_same_picture(make: Callable[[Media], Media]) -> None:
    first = make(Image(RGB, caption="a", grouping=1, classes=[{"id": 1, "name": "b"}], boxes=BOXES))
    same, other = Image(first), Image(first, caption="c", grouping=2, boxes={"b": BOXES["truth"]})
    assert same.file() == other.file() == Image(RGB).file()
    assert (same.caption, same.grouping, same.classes) == ("a", 1, [{"id": 1, "name": "b"}])
    assert (other.caption, other.grouping, other.classes) == ("c", 2, same.classes)
    assert same.boxes == {}
    assert other.boxes.keys() == {"b"}
    assert Image(first, mode="L").file() == Image(RGB, mode="L").file()
    assert Image(first, file_type="jpg").format == "jpg"


def test_an_image_of_an_image_keeps_its_format() -> None:
    first = Image(RGB, mode="L", file_type="jpg")
    assert Image(first).file() == first.file()
    assert Image(first, file_type="png").array().ndim == 2
    with pytest.raises(UsageError, match="for bmp"):
        Image(Image(RGB, mode="LA"), file_type="bmp")


# lists


def test_a_list_keeps_its_items_in_order() -> None:
    images = [Image(RGB, caption="a"), Image(GREY, caption="b"), Image(RGB, caption="a")]
    listed = MediaList(images)
    assert listed.nbytes == sum(image.nbytes for image in images)
    assert (listed.item_kind, kind_of(listed)) == ("image", "image")
    assert [item.caption for item in listed.items if isinstance(item, Image)] == ["a", "b", "a"]
    assert not listed.is_here
    assert len(listed.encoded.contents) == 2
    for seen in (listed, recorded(listed)):
        assert isinstance(seen, MediaList)
        assert seen.item_kind == "image"
        assert [item.caption for item in seen.items if isinstance(item, Image)] == ["a", "b", "a"]
        assert [item.encoded.data for item in seen.items] == [image.encoded.data for image in images]
        assert [item.file() for item in seen.items if isinstance(item, Image)] == [i.file() for i in images]


def test_a_list_lands_whatever_becomes_of_its_items() -> None:
    images = [
        Image(RGB),
        Image(jnp.asarray(RGB), masks={"m": {"mask_data": jnp.asarray(GREY)}}),
        Image(jnp.asarray(GREY)),
    ]
    listed = MediaList(images)
    hosts = [np.asarray(array) for array in listed.arrays()]
    assert len(hosts) == 3
    images[1].file()  # it is encoded now
    listed.items[2].encoded  # noqa: B018 - and so is this
    landed = listed.landed(hosts)
    assert landed.arrays() == []
    assert landed == MediaList([Image(RGB), images[1], Image(GREY)]) == listed
    assert MediaList([recorded(images[0]), images[2]]).landed([GREY]).items[1] == Image(GREY)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(UnsupportedValueError, match="an empty list; there is nothing to log"):
        MediaList([])


def test_a_mixed_list_is_refused() -> None:
    with pytest.raises(UnsupportedValueError, match="a list of html and image; its items must all be of one"):
        MediaList([Image(RGB), Html("<b>bold</b>")])
    with pytest.raises(UnsupportedValueError, match="a list of float and image"):
        MediaList([Image(RGB), 1.5])  # type: ignore[list-item]


def test_a_list_of_what_cannot_be_listed_is_refused() -> None:
    with pytest.raises(UnsupportedValueError, match="a list of list; log each under its own key"):
        MediaList([MediaList([Image(RGB)])])
    with pytest.raises(UnsupportedValueError, match="a list of int; log each under its own key"):
        MediaList([1, 2])  # type: ignore[list-item]
