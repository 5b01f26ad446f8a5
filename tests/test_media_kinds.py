"""Audio, Video, Html, Plotly and Object3D: the files that wandb makes, of what was there at the call."""

from __future__ import annotations

import io
import json
import math
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import pytest
import soundfile
import wandb
from flax import nnx
from imageio_ffmpeg import count_frames_and_secs, get_ffmpeg_exe
from matplotlib.figure import Figure
from PIL import Image as Pillow

import tracklayer.media.files
from tracklayer.contents import Content
from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.media.audio import Audio
from tracklayer.media.base import Media
from tracklayer.media.html import Html
from tracklayer.media.object3d import Object3D
from tracklayer.media.plotly import Plotly
from tracklayer.media.video import Video
from tracklayer.values import value_from_json

mpl.use("Agg")
OneFile = Audio | Video | Html | Plotly | Object3D


@pytest.fixture(autouse=True)
def _quiet_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")  # no spinner


def wandbs(value: Any) -> bytes:
    """Return the file that a value of wandb's made."""
    return Path(value._path).read_bytes()


def noise(*shape: int, dtype: str = "float64") -> Any:
    """Return amplitudes, all over their range; a few of floats are too loud."""
    rng = np.random.default_rng(0)
    if dtype.startswith("int"):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype=dtype)
    return rng.uniform(-1.1, 1.1, shape).astype(dtype)


def frames(*shape: int) -> Any:
    """Return uint8 frames of gradients that move: (…, t, c, h, w)."""
    *batch, t, c, h, w = shape
    grid = np.indices((*batch, t, c, h, w)).astype(np.int64)
    *which, time, channel, y, x = grid
    return ((x * 3 + y * (channel + 1) + time * 11 + sum(which) * 40) % 256).astype(np.uint8)


def decoded(video: Video, width: int, height: int, folder: Path) -> Any:
    """Return the frames of a video as ffmpeg reads them: (t, h, w, 3)."""
    path = folder / f"clip.{video.format}"
    path.write_bytes(video.file())
    command = [get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def gif_frames(data: bytes) -> Any:
    """Return the frames of a GIF as Pillow reads them: (t, h, w, 3)."""
    with Pillow.open(io.BytesIO(data)) as image:
        pictures: list[Any] = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            pictures.append(np.asarray(image.convert("RGB")))
        return np.stack(pictures)


# --- what they have in common -----------------------------------------------------------------------------


def example(kind: str) -> OneFile:
    """Return a value of a kind, made of data."""
    match kind:
        case "audio":
            return Audio(noise(100, 2), sample_rate=8000, caption="a chord")
        case "video":
            return Video(frames(3, 3, 8, 6), caption="it moves", fps=5)
        case "html":
            return Html("<p>é</p>")
        case "plotly":
            return Plotly(go.Figure(go.Scatter(x=[1, 2], y=[3.0, 4.0])))
        case _:
            return Object3D(noise(5, 3), caption="a cloud")


KINDS = ["audio", "video", "html", "plotly", "object3d"]
PROPERTIES = ["caption", "format", "sample_rate", "duration", "width", "height"]


def properties(value: Media) -> dict[str, Any]:
    return {name: getattr(value, name) for name in PROPERTIES if hasattr(value, name)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_was_recorded_is_as_it_was_made(kind: str) -> None:
    value = example(kind)
    before = properties(value)
    assert not value.is_here  # the properties took no encoding
    contents = value.encoded.contents

    def stored(sha256: str, size: int) -> Content:
        return Content(sha256, size, contents[sha256].read)

    again = value_from_json(kind, json.loads(json.dumps(value.to_json())), stored)
    assert type(again) is type(value)
    assert again == value
    assert properties(cast("Media", again)) == before == properties(value)
    assert cast("OneFile", again).file() == value.file()
    assert contents.keys() == {value.encoded.data["file"]}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_data_makes_the_same_file(kind: str) -> None:
    assert example(kind) == example(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_its_size_in_memory_is_known_before_and_after(kind: str) -> None:
    value = example(kind)
    assert 0 < value.nbytes < 100_000
    assert value.nbytes != 500 + len(value.file())
    assert value.nbytes == 500 + len(value.file())


FROM_ARRAYS: dict[str, tuple[Callable[[Any], OneFile], Any]] = {
    "audio": (lambda data: Audio(data, sample_rate=8000), noise(50, dtype="float32")),
    "video": (Video, frames(2, 3, 8, 6)),
    "object3d": (Object3D, noise(5, 3, dtype="float32")),
}


@pytest.mark.parametrize("kind", FROM_ARRAYS)
def test_an_array_that_changes_after_the_call_changes_nothing(kind: str) -> None:
    make, array = FROM_ARRAYS[kind]
    mine = array.copy()
    value = make(mine)
    mine[...] = 0
    assert value == make(array) != make(mine)


@pytest.mark.parametrize("kind", FROM_ARRAYS)
@pytest.mark.parametrize("wrap", [jnp.asarray, lambda array: nnx.Param(jnp.asarray(array))])
def test_an_array_of_jax_is_fetched_with_the_row(kind: str, wrap: Callable[[Any], Any]) -> None:
    make, array = FROM_ARRAYS[kind]
    value = make(wrap(array))
    (device,) = value.arrays()
    assert isinstance(device, jax.Array)
    landed = value.landed([np.asarray(device)])
    assert not value.is_here
    assert landed.arrays() == ()
    assert properties(landed) == properties(value)
    assert landed == make(array)
    assert value == make(array)  # it fetches by itself, if nobody did
    assert value.arrays() == ()
    assert value.landed([]) is value


@pytest.mark.parametrize("kind", FROM_ARRAYS)
def test_a_traced_array_is_refused(kind: str) -> None:
    make, array = FROM_ARRAYS[kind]
    with pytest.raises(UnsupportedValueError, match="traced"):
        jax.jit(lambda x: make(x).kind)(array)


@pytest.mark.parametrize("kind", FROM_ARRAYS)
@pytest.mark.parametrize(
    "data",
    [
        np.zeros((2, 3, 8, 6), complex),
        np.full((5, 3), "a"),
        np.full((5, 3), None),
        [[1.0], [1.0, 2.0]],
        [[], []],
        np.float32(1),
        object(),
        {"points": []},
        None,
    ],
    ids=["complex", "strings", "objects", "unequal", "empty", "scalar", "object", "dict", "None"],
)
def test_what_is_no_array_of_the_right_shape_and_numbers_is_refused(kind: str, data: Any) -> None:
    with pytest.raises(UnsupportedValueError):
        FROM_ARRAYS[kind][0](data)


PATHS: dict[str, tuple[Callable[[Any], OneFile], str, str]] = {
    "audio": (Audio, "sound.MP3", "mp3"),
    "video": (Video, "clip.webm", "webm"),
    "html": (lambda path: Html(path, inject=False), "page.html", ""),
    "object3d": (Object3D, "cloud.pts.json", "pts.json"),
}


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("path_type", [str, Path])
def test_a_file_is_kept_as_it_was_at_the_call(kind: str, path_type: type[Any], tmp_path: Path) -> None:
    make, name, ending = PATHS[kind]
    path = tmp_path / name
    path.write_bytes(b"\xff\x00 anything")
    value = make(path_type(path))
    path.unlink()
    assert value.file() == b"\xff\x00 anything"
    assert getattr(value, "format", "") == ending
    assert not any(properties(value).get(name) for name in PROPERTIES if name != "format")


@pytest.mark.parametrize("kind", PATHS)
def test_a_file_that_is_missing_is_named(kind: str, tmp_path: Path) -> None:
    make, name, _ = PATHS[kind]
    with pytest.raises(FileNotFoundError, match=name):
        make(str(tmp_path / name))


@pytest.mark.parametrize(
    ("kind", "endings"),
    [("audio", ".wav, .mp3"), ("video", ".gif, .mp4, .webm, .ogg"), ("html", ".html"), ("object3d", ".obj")],
)
def test_a_file_of_another_kind_is_refused_with_the_right_endings(
    kind: str, endings: str, tmp_path: Path
) -> None:
    path = tmp_path / "cat.png"
    path.touch()
    with pytest.raises(UnsupportedValueError, match=rf"{endings}.*cat\.png"):
        PATHS[kind][0](path)


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("soundfile", lambda: Audio([0.0], sample_rate=8000)),
        ("PIL", lambda: Video(frames(1, 3, 2, 2))),
        ("imageio_ffmpeg", lambda: Video(frames(1, 3, 2, 2), format="mp4")),
    ],
)
def test_a_package_that_is_missing_is_named_at_the_call(
    package: str, make: Callable[[], Media], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str) -> Any:
        return None if name == package else find_spec(name)

    monkeypatch.setattr(tracklayer.media.files, "find_spec", found)
    with pytest.raises(UnsupportedValueError, match=rf"{package}.*pip install 'tracklayer\[media\]'"):
        make()


@pytest.mark.parametrize("make", [lambda: Audio([0.0], 8000, 3), lambda: Video(frames(1, 3, 2, 2), 3)])  # type: ignore[arg-type]
def test_a_caption_that_is_no_string_is_refused(make: Callable[[], Media]) -> None:
    with pytest.raises(UsageError, match="caption.*int"):
        make()


# --- Audio ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "samples",
    [
        noise(1000),
        noise(1000, 2),
        noise(1000, dtype="float32"),
        noise(10, 7, dtype="int16"),
        noise(1000, dtype="int32"),
        noise(0),
        noise(100, 2)[::2, ::-1],
        [0.25, -0.5, 1.0],
    ],
    ids=lambda samples: f"{np.asarray(samples).dtype}{np.asarray(samples).shape}",
)
def test_samples_become_the_wav_that_wandb_makes(samples: Any) -> None:
    audio = Audio(samples, sample_rate=16000)
    theirs = wandb.Audio(samples, sample_rate=16000)
    assert audio.file() == wandbs(theirs)
    assert audio.duration == theirs._duration == len(samples) / 16000
    assert (audio.format, audio.sample_rate) == ("wav", 16000)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_small_floats_are_heard_as_what_they_are(dtype: str) -> None:
    samples = jnp.linspace(-1, 1, 20, dtype=dtype)
    assert Audio(samples, sample_rate=8) == Audio(np.asarray(samples, np.float64), sample_rate=8)


def test_samples_that_are_no_numbers_are_silence_and_loud_ones_are_clipped() -> None:
    samples = [0.5, math.nan, math.inf, -math.inf, 2, -2]
    heard, rate = soundfile.read(io.BytesIO(Audio(samples, sample_rate=8).file()))
    assert rate == 8
    assert heard == pytest.approx([0.5, 0, 1, -1, 1, -1], abs=1e-4)


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        (np.zeros(4, np.int64), "int64"),
        (np.zeros(4, np.uint8), "uint8"),
        (np.zeros(4, bool), "bool"),
        (jnp.zeros(4, "int8"), "int8"),
        (np.zeros((2, 3, 4)), r"\(2, 3, 4\)"),
        (np.zeros((2, 16000)), r"\(n, channels\).*\(2, 16000\)"),
        (np.zeros((4, 0)), r"\(4, 0\)"),
    ],
)
def test_samples_of_another_shape_or_dtype_are_refused(samples: Any, problem: str) -> None:
    with pytest.raises(UnsupportedValueError, match=problem):
        Audio(samples, sample_rate=8000)


def test_the_sample_rate_of_a_file_is_what_it_is_told_to_be(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(b"RIFF")
    audio = Audio(path, sample_rate=np.int32(8000), caption="noise")  # type: ignore[arg-type]
    assert (audio.sample_rate, audio.duration, audio.caption) == (8000, None, "noise")
    assert type(audio.sample_rate) is int


@pytest.mark.parametrize("sample_rate", [None, 0, -1, 8000.0, 2**31, "8000"])
def test_a_sample_rate_that_cannot_be_is_refused(sample_rate: Any) -> None:
    with pytest.raises(UsageError, match="sample_rate"):
        Audio([0.0], sample_rate=sample_rate)


# --- Video ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "fps"),
    [
        ((5, 3, 16, 20), None),
        ((5, 3, 16, 20), 10),
        ((1, 3, 8, 8), 2),
        ((4, 4, 8, 8), 4),
        ((1, 2, 3, 8, 6), 4),
        ((3, 2, 3, 8, 6), 4),
        ((5, 2, 3, 8, 6), 4),
        ((8, 2, 3, 8, 6), 4),
    ],
)
def test_frames_become_the_gif_that_wandb_makes(shape: tuple[int, ...], fps: int | None) -> None:
    array = frames(*shape)
    video = Video(array, fps=fps)
    theirs = wandb.Video(array, fps=fps, format="gif")
    assert video.file() == wandbs(theirs)
    assert (video.format, video.width, video.height) == ("gif", theirs._width, theirs._height)


def test_no_frame_is_lost() -> None:
    array = frames(30, 3, 8, 8)
    assert len(gif_frames(wandbs(wandb.Video(array, fps=10, format="gif")))) == 28  # wandb's clock is a float
    pictures = gif_frames(Video(array, fps=10).file())
    assert np.array_equal(pictures, array.transpose(0, 2, 3, 1))


def test_one_channel_is_grey_exactly() -> None:
    array = np.stack([np.arange(256, dtype=np.uint8).reshape(1, 16, 16)] * 2)
    array[1] = 255 - array[1]
    pictures = gif_frames(Video(array).file())
    assert np.array_equal(pictures, np.repeat(array.transpose(0, 2, 3, 1), 3, axis=3))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_floats_from_0_to_1_are_scaled_as_an_image_is(dtype: str) -> None:
    array = jnp.linspace(0, 1, 2 * 64, dtype=dtype).reshape(2, 1, 8, 8)
    expected = np.rint(255 * np.asarray(array, np.float64)).astype(np.uint8)
    assert Video(array) == Video(expected)


@pytest.mark.parametrize(
    "shape",
    [
        (8, 3, 16),
        (2, 2, 3, 4, 8, 6),
        (5, 16, 20, 3),
        (5, 2, 16, 20),
        (0, 3, 8, 8),
        (2, 3, 0, 8),
        (0, 2, 3, 8, 8),
    ],
)
def test_frames_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedValueError, match=r"\(t, c, h, w\).*, not \("):
        Video(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf])
def test_frames_a_second_that_cannot_be_are_refused(fps: float) -> None:
    with pytest.raises(UsageError, match="fps"):
        Video(frames(1, 3, 2, 2), fps=fps)


def test_a_format_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match=r"gif, mp4, webm, ogg.*avi"):
        Video(frames(1, 3, 2, 2), format="avi")  # type: ignore[arg-type]


def test_a_video_of_a_file_object_is_kept_as_it_is() -> None:
    stream = io.BytesIO(b"anything")
    stream.seek(3)
    video = Video(stream, format="webm", caption="it moves")
    assert (video.file(), video.format, video.caption, video.width) == (b"anything", "webm", "it moves", None)
    with pytest.raises(UsageError, match="needs format.*gif"):
        Video(stream)


def test_options_that_a_file_has_no_use_for_are_named(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.touch()
    for options in ({"fps": 4}, {"format": "gif"}):
        with pytest.warns(UserWarning, match=r"clip\.mp4 is kept as it is"):
            assert Video(path, **cast("Any", options)).format == "mp4"
    with pytest.warns(UserWarning, match="fps"):
        Video(io.BytesIO(b""), fps=4, format="mp4")
    assert Video(path, format="mp4").format == "mp4"


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["mp4", "webm", "ogg"])
@pytest.mark.parametrize("shape", [(6, 3, 32, 48), (5, 1, 21, 35), (3, 2, 3, 16, 16)])
def test_ffmpeg_writes_all_frames(ending: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    array = frames(*shape)
    video = Video(array, fps=7.5, format=ending)
    assert video.width is not None
    assert video.height is not None
    pictures = decoded(video, video.width + video.width % 2, video.height + video.height % 2, tmp_path)
    batch = array.reshape(-1, *array.shape[-4:])
    assert len(pictures) == batch.shape[1]
    expected = batch[0].transpose(0, 2, 3, 1).astype(int)
    found = pictures[:, : expected.shape[1], : expected.shape[2]].astype(int)
    assert np.abs(found - expected).mean() < 16  # its codecs lose some; another frame is 40 off
    beyond = pictures[:, expected.shape[1] - 1 :].astype(
        int
    )  # the last row, and its continuation if there is one
    assert np.abs(beyond - beyond[:, :1]).mean() < 16
    assert Video(array, fps=7.5, format=ending) == video


@pytest.mark.slow
def test_a_video_of_ffmpeg_lasts_as_long_as_it_should(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(Video(frames(12, 3, 16, 16), fps=3, format="mp4").file())
    assert count_frames_and_secs(str(path)) == (12, pytest.approx(4.0))


@pytest.mark.slow
def test_what_ffmpeg_cannot_write_is_said_with_its_words() -> None:
    video = Video(np.zeros((1, 1, 2, 20_000), np.uint8), format="mp4")  # H.264 ends at 16384
    with pytest.raises(UnsupportedValueError, match=r"ffmpeg cannot write this as mp4: .*20000x2"):
        video.file()


# --- Html -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inject", [True, False])
@pytest.mark.parametrize(
    "page",
    [
        "",
        "plain é 中\n",
        " <p>text</p> ",
        "<!doctype html><html><head><title>t</title></head><body><head></body></html>\n",
        "<html><body>x</body></html>",
        '<html lang="en"><body>x</body></html>',
        "<a href='index.html",
    ],
)
def test_a_page_is_the_file_that_wandb_makes(page: str, inject: bool, tmp_path: Path) -> None:
    expected = wandbs(wandb.Html(page, inject=inject))
    html = Html(page, inject=inject)
    assert html.file() == expected
    assert html.text() == expected.decode()
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    for source in (str(path), path, io.StringIO(page), io.BytesIO(page.encode()), path.open("rb")):
        assert Html(source, inject=inject).file() == expected
        if hasattr(source, "read"):
            assert not isinstance(source, (str, Path))
            source.close()


def test_a_string_is_the_page_itself_where_it_is_told_to_be() -> None:
    assert Html("index.html", inject=False, data_is_not_path=True).text() == "index.html"


def test_html_that_is_not_utf_8_or_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedValueError, match="UTF-8"):
        Html(io.BytesIO(b"\xff"))
    with pytest.raises(UnsupportedValueError, match="UTF-8"):
        Html("\udcff")
    with pytest.raises(UnsupportedValueError, match=r"file object, not int"):
        Html(3)  # type: ignore[arg-type]


# --- Plotly -----------------------------------------------------------------------------------------------

FIGURES = {
    "lists": go.Figure(go.Scatter(x=[1, 2, 3], y=[0.5, 1e-7, 1e20], text="é 中")),
    "arrays": go.Figure(go.Scatter(x=np.arange(50), y=np.random.default_rng(0).normal(size=50))),
    "names": go.Figure(go.Bar(x=np.array(["a", "b"], dtype=object), y=[1, 2])),
    "grid": go.Figure(go.Heatmap(z=np.random.default_rng(0).normal(size=(5, 4)))),
    "frames": go.Figure(go.Scatter(x=[1], y=[2]), frames=[go.Frame(data=[go.Scatter(x=[1], y=[3])])]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_plot_is_what_wandb_makes_of_it(name: str) -> None:
    value = Plotly(FIGURES[name])
    theirs = wandbs(wandb.Plotly(FIGURES[name]))
    assert value.figure() == json.loads(theirs)
    if name != "lists":  # they write 1e-7, Python 1e-07
        assert value.file() == theirs


def test_a_figure_that_changes_after_the_call_changes_nothing() -> None:
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))
    value = Plotly(figure)
    figure.data[0].y = [0, 0]
    figure.update_layout(title="later")
    assert value.figure()["data"][0]["y"] == [3, 4]
    assert "title" not in value.figure()["layout"]


def test_nan_in_a_plot_is_a_gap_in_valid_json() -> None:
    value = Plotly(go.Figure(go.Scatter(x=[1, 2], y=[math.nan, math.inf])))
    assert value.figure()["data"][0]["y"] == [None, None]


def mpl_figure() -> Figure:
    figure = Figure()
    figure.subplots().plot([1, 2, 3], [1, 4, 9])
    return figure


@pytest.mark.filterwarnings("ignore::matplotlib.MatplotlibDeprecationWarning")  # of plotly's
def test_a_figure_of_matplotlib_is_converted_as_wandb_converts_it() -> None:
    figure = mpl_figure()
    expected = json.loads(wandbs(wandb.Plotly(figure)))
    value = Plotly(figure)
    assert value.figure() == expected
    assert value.figure()["data"][0]["y"] == [1, 4, 9]
    assert Plotly(figure.axes[0]) == value


@pytest.mark.filterwarnings("ignore::matplotlib.MatplotlibDeprecationWarning")
def test_pyplot_stands_for_its_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = mpl_figure()
    monkeypatch.setattr(plt, "gcf", lambda: figure)
    assert Plotly(plt) == Plotly(figure)


def test_what_plotly_cannot_convert_is_refused_with_what_can_be_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_image = Figure()
    with_image.subplots().imshow(np.zeros((2, 2)))
    with pytest.raises(UnsupportedValueError, match=r"it has images.*tracklayer\.Image\(figure\)"):
        Plotly(with_image)

    def outdated(_figure: Figure) -> None:
        msg = "'XAxis' object has no attribute 'converter'"
        raise AttributeError(msg)

    monkeypatch.setattr("plotly.tools.mpl_to_plotly", outdated)
    with pytest.raises(UnsupportedValueError, match=r"'converter'.*tracklayer\.Image\(figure\)"):
        Plotly(mpl_figure())


@pytest.mark.parametrize("value", [{"data": []}, "figure", None, np.zeros(3), mpl])
def test_what_is_no_figure_is_refused(value: object) -> None:
    with pytest.raises(UnsupportedValueError, match="figure of plotly"):
        Plotly(value)


# --- Object3D ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [3, 4, 6])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int32"])
def test_points_become_the_file_that_wandb_makes(columns: int, dtype: str) -> None:
    points = noise(50, columns, dtype=dtype)
    cloud = Object3D(points)
    assert json.loads(cloud.file()) == json.loads(wandbs(wandb.Object3D(points))) == points.tolist()
    points = points.clip(1e-3)  # below 1e-4 Python writes an exponent, and they do not
    assert Object3D(points).file() == wandbs(wandb.Object3D(points))
    assert Object3D(points.tolist()) == Object3D(points) != cloud
    assert (cloud.format, cloud.caption) == ("pts.json", None)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_points_of_small_floats_are_where_they_are(dtype: str) -> None:
    points = jnp.linspace(-1, 1, 12, dtype=dtype).reshape(4, 3)
    assert json.loads(Object3D(points).file()) == np.asarray(points, np.float64).tolist()


@pytest.mark.parametrize("count", [4_999, 5_000, 12_345])
def test_clouds_of_any_size_are_one_list(count: int) -> None:
    points = noise(count, 3).clip(1e-3)
    assert Object3D(points).file() == wandbs(wandb.Object3D(points))


def test_points_without_a_place_are_left_out() -> None:
    points = [[1.0, 2, 3], [math.nan, 2, 3], [1, math.inf, 3], [4, 5, 6]]
    assert json.loads(Object3D(points).file()) == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("shape", [(3,), (5, 2), (5, 5), (2, 5, 3)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedValueError, match=r"\(n, 3\), \(n, 4\) or \(n, 6\), not \("):
        Object3D(np.zeros(shape))


def test_a_scene_of_wandbs_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedValueError, match=r"lidar/beta.*points"):
        Object3D(cast("Any", {"type": "lidar/beta", "points": np.zeros((1, 3))}))


TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"


def test_a_file_object_is_read_whole(tmp_path: Path) -> None:
    stream = io.StringIO(TRIANGLE)
    stream.read()
    mesh = Object3D(stream, caption="a triangle", file_type="obj")
    assert mesh.file() == wandbs(wandb.Object3D(io.StringIO(TRIANGLE), file_type="obj")) == TRIANGLE.encode()
    assert (mesh.format, mesh.caption) == ("obj", "a triangle")
    assert Object3D(io.BytesIO(b"glTF\x02"), file_type="glb").file() == b"glTF\x02"
    path = tmp_path / "triangle.obj"
    path.write_text(TRIANGLE)
    with path.open() as named:
        assert Object3D(named, caption="a triangle") == mesh
    assert Object3D(path, caption="a triangle", file_type="obj") == mesh


@pytest.mark.parametrize("file_type", [None, "png", ".obj"])
def test_a_file_object_needs_a_type(file_type: str | None) -> None:
    with pytest.raises(UsageError, match=r"file_type.*\.pts\.json"):
        Object3D(io.StringIO(TRIANGLE), file_type=file_type)


def test_a_type_that_contradicts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mesh.stl"
    path.touch()
    with pytest.raises(UsageError, match=r"'obj'.*mesh\.stl"):
        Object3D(path, file_type="obj")
    with pytest.raises(UsageError, match="file_type"):
        Object3D(np.zeros((2, 3)), file_type="pts.json")
