"""Media in TensorBoard: what its own plugins serve a browser, from either of its loaders."""

from __future__ import annotations

import logging
import math
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

import tensorboard_oracle as oracle
import tracklayer
from tensorboard_oracle import File, Files, Shown
from tracklayer.media.audio import Audio
from tracklayer.media.chart import Chart
from tracklayer.media.html import Html
from tracklayer.media.image import Image
from tracklayer.media.list import MediaList
from tracklayer.media.table import Table
from tracklayer.media.video import Video
from tracklayer.protocol import Resume, Run, RunInfo, Status
from tracklayer.settings import Settings
from tracklayer_tensorboard import backend, event_file, markdown, mending

START = 1_700_000_000.0
RED = np.full((4, 6, 3), (255, 0, 0), np.uint8)
GREEN = np.full((4, 6, 3), (0, 255, 0), np.uint8)
TONE = np.sin(np.arange(800) / 5).astype(np.float32)


def opened(store: Path, run_id: str = "run", resume: Resume | None = None) -> Run:
    """Open a run of a store."""
    info = RunInfo(run_id, "demo", name=run_id, created_at=START)
    return backend.open(info, resume, Settings(("tensorboard",), store))


def folder(store: Path, run_id: str = "run") -> Path:
    """Return where a run's event files are."""
    return store / "tensorboard" / "demo" / run_id


def read(store: Path) -> Shown:
    """Return what the Python loader shows of the run."""
    return oracle.read(folder(store))


def log(run: Run, key: str, values: dict[int, Any]) -> None:
    """Log one key at some steps, in the order given, a second a step."""
    for step, value in values.items():
        run.log({key: value}, step=step, time=START + step)


def files(values: list[Files]) -> dict[int, list[bytes]]:
    """Return the files of each step."""
    return {files.step: [sample.content for sample in files.samples] for files in values}


def python(code: str, *arguments: object) -> str:
    """Run a script to its end; return what it printed."""
    script = "import sys\n" + textwrap.dedent(code)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def noise(seed: int, side: int = 64) -> Image:
    """Return a picture that cannot be made small."""
    return Image(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


# -- what both of TensorBoard's loaders show ------------------------------------------------------

Scenario = Callable[[Path, str], None]
SCENARIOS: dict[str, Scenario] = {}


def scenario(write: Scenario) -> Scenario:
    """Make a function one of those whose runs are read with either loader."""
    SCENARIOS[write.__name__] = write
    return write


@pytest.fixture(scope="module", params=["python_loader", "data_server"])
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Shown]:
    """What TensorBoard shows of each scenario: with its Python loader, and with its default one."""
    store = tmp_path_factory.mktemp("store")
    for name, write in SCENARIOS.items():
        write(store, name)
    try:
        runs = getattr(oracle, request.param)(store / "tensorboard")
    except oracle.NoDataServerError:
        pytest.skip("TensorBoard has no data server for this platform")
    return lambda name: runs[f"demo/{name}"]


IMAGES = {step: Image(np.full((3, 5, 3), step * 9, np.uint8)) for step in range(4)}


@scenario
def images(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, "loss", {step: float(step) for step in range(4)})
    log(run, "eval/sample", IMAGES)
    run.finish(Status())


def test_images_are_shown_at_their_steps_as_the_files_that_they_are(shown: Callable[[str], Shown]) -> None:
    assert shown("images").images == {
        "eval/sample": [
            Files(step, START + step, [File("image/png", image.file())], (5, 3))
            for step, image in IMAGES.items()
        ]
    }
    assert shown("images").steps("loss") == [(step, step) for step in range(4)]


@scenario
def formats(store: Path, name: str) -> None:
    run = opened(store, name)
    for ending in ("png", "jpg", "bmp"):
        log(run, ending, {0: Image(RED, file_type=ending)})
    for ending in ("gif", "tiff", "webp"):
        path = store / f"picture.{ending.upper()}"
        PillowImage.fromarray(RED).save(path)
        log(run, ending, {0: Image(path)})
        path.unlink()
    run.finish(Status())


@pytest.mark.parametrize(
    ("key", "content_type"),
    [
        ("png", "image/png"),
        ("jpg", "image/jpeg"),
        ("bmp", "image/bmp"),
        ("gif", "image/gif"),
        ("tiff", "image/png"),
        ("webp", "image/png"),
    ],
)
def test_an_image_is_of_a_format_that_tensorboard_tells_browsers_of(
    shown: Callable[[str], Shown], key: str, content_type: str
) -> None:
    ((sample,),) = (files.samples for files in shown("formats").images[key])
    assert sample.content_type == content_type
    picture = PillowImage.open(BytesIO(sample.content)).convert("RGB")
    assert np.abs(np.asarray(picture).astype(int) - RED).max() <= 4


LIST = MediaList([Image(RED, caption="a red one"), Image(GREEN), Image(RED, caption="again\nred | blue")])


@scenario
def lists(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, "batch", {2: LIST, 5: MediaList([Image(GREEN)])})
    log(run, "tones", {2: MediaList([Audio(TONE, 8000), Audio(-TONE, 8000)])})
    run.finish(Status())


def test_a_list_is_several_samples_of_one_step(shown: Callable[[str], Shown]) -> None:
    red, green = Image(RED).file(), Image(GREEN).file()
    assert files(shown("lists").images["batch"]) == {2: [red, green, red], 5: [green]}
    (tones,) = shown("lists").sounds["tones"]
    assert [sample.content for sample in tones.samples] == [
        Audio(samples, 8000).file() for samples in (TONE, -TONE)
    ]


def test_the_captions_of_a_list_are_told_by_the_samples_numbers(shown: Callable[[str], Shown]) -> None:
    (caption,) = shown("lists").texts["batch/caption"]
    assert caption.step == 2
    assert cells(caption.value) == [["sample", "caption"], ["1", "a red one"], ["3", "again\nred | blue"]]


@scenario
def captions(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, "digit", {0: Image(RED, caption="a **7**"), 1: Image(RED), 2: Image(RED, caption="a 9")})
    run.finish(Status())


def test_a_caption_is_a_text_beside_its_image(shown: Callable[[str], Shown]) -> None:
    points = shown("captions").texts["digit/caption"]
    assert [(point.step, point.value) for point in points] == [(0, "a **7**"), (2, "a 9")]


@scenario
def sounds(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, "tone", {1: Audio(TONE, 8000, caption="a tone"), 2: Audio(TONE / 2, 8000)})
    path = store / "call.mp3"
    path.write_bytes(b"ID3 as if")
    log(run, "call", {1: Audio(path)})
    path.unlink()
    run.finish(Status())


def test_sounds_are_played_as_the_files_that_they_are(shown: Callable[[str], Shown]) -> None:
    run = shown("sounds")
    assert run.sounds == {
        "tone": [
            Files(1, START + 1, [File("audio/wav", Audio(TONE, 8000).file())], None),
            Files(2, START + 2, [File("audio/wav", Audio(TONE / 2, 8000).file())], None),
        ],
        "call": [Files(1, START + 1, [File("application/octet-stream", b"ID3 as if")], None)],
    }
    assert run.text("tone/caption") == "a tone"


CLIP = Video(np.random.default_rng(0).integers(0, 256, (3, 3, 8, 16), dtype=np.uint8), format="gif")


@scenario
def videos(store: Path, name: str) -> None:
    run = opened(store, name)
    path = store / "clip.gif"
    path.write_bytes(CLIP.file())
    log(run, "clip", {3: CLIP, 4: Video(str(path))})
    path.unlink()
    run.finish(Status())


def test_a_gif_is_shown_among_the_images(shown: Callable[[str], Shown]) -> None:
    expected = [File("image/gif", CLIP.file())]
    assert shown("videos").images["clip"] == [Files(s, START + s, expected, (16, 8)) for s in (3, 4)]


CURVE = Chart(Table(["x", "y"], [[0, 1.0], [1, 0.5]]), "wandb/line/v0", {"x": "x", "y": "y"})
FOREIGN = Chart(Table(["x"], [[3]]), "somebody/violin", {"x": "x"})


@scenario
def charts(store: Path, name: str) -> None:
    run = opened(store, name)
    run.log({"curve": CURVE, "violin": FOREIGN}, step=1, time=START)
    run.finish(Status())


def test_a_chart_is_drawn(shown: Callable[[str], Shown]) -> None:
    ((step, _, ((content_type, _),), size),) = shown("charts").images["curve"]
    assert (step, content_type, size) == (1, "image/png", (640, 480))


def test_a_chart_that_cannot_be_drawn_is_shown_as_its_table(shown: Callable[[str], Shown]) -> None:
    run = shown("charts")
    assert "violin" not in run.images
    assert cells(run.text("violin")) == [["x"], ["3"]]


@scenario
def kinds(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, "x", {0: Image(RED), 1: 0.5, 2: CLIP, 3: Audio(TONE, 8000), 4: Table(["a"], [[1]])})
    run.finish(Status())


def test_a_tag_holds_one_of_tensorboards_kinds(shown: Callable[[str], Shown]) -> None:
    run = shown("kinds")
    assert list(files(run.images["x"])) == [0, 2]
    assert run.steps("x (scalar)") == [(1, 0.5)]
    assert list(files(run.sounds["x (audio)"])) == [3]
    assert [point.step for point in run.texts["x (text)"]] == [4]


KEYS = ("with space", "w[0]", "été 損失 🙂", "k" * 600, "../up")


@scenario
def keys(store: Path, name: str) -> None:
    run = opened(store, name)
    run.log(dict.fromkeys(KEYS, Image(RED)), step=0, time=START)
    run.finish(Status())


def test_a_key_is_a_tag_whatever_it_contains(shown: Callable[[str], Shown]) -> None:
    assert set(shown("keys").images) == set(KEYS)


# -- steps that go back ---------------------------------------------------------------------------


@scenario
def images_logged_late(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, "loss", {step: float(step) for step in range(10)})
    log(run, "sample", {2: noise(2), 4: noise(4)})
    run.commit()
    run.finish(Status())


def test_images_behind_other_tags_are_in_order(shown: Callable[[str], Shown]) -> None:
    run = shown("images_logged_late")
    assert files(run.images["sample"]) == {2: [noise(2).file()], 4: [noise(4).file()]}
    assert run.steps("loss") == [(step, step) for step in range(10)]


def test_images_behind_other_tags_need_no_mending(tmp_path: Path) -> None:
    images_logged_late(tmp_path, "run")
    assert not list(folder(tmp_path).glob("*.mended"))


@scenario
def disorder(store: Path, name: str) -> None:
    run = opened(store, name)
    log(run, "sample", {0: noise(0), 5: noise(5), 9: noise(9)})
    log(run, "tone", {step: Audio(TONE / (1 + step), 8000) for step in (1, 6)})
    run.commit()  # and killed
    run = opened(store, name, "must")
    log(run, "sample", {5: noise(55, 200), 7: MediaList([noise(7), noise(77)])})
    log(run, "loss", {3: 0.3, 2: 0.2})
    run.finish(Status())


def test_mended_images_and_sounds_are_those_logged_last(shown: Callable[[str], Shown]) -> None:
    run = shown("disorder")
    assert files(run.images["sample"]) == {
        0: [noise(0).file()],
        5: [noise(55, 200).file()],
        7: [noise(7).file(), noise(77).file()],
        9: [noise(9).file()],
    }
    assert files(run.sounds["tone"]) == {step: [Audio(TONE / (1 + step), 8000).file()] for step in (1, 6)}
    assert [step for step, _ in run.steps("loss")] == [2, 3]


@pytest.mark.slow
def test_mending_holds_one_row_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(bytes(4_000_000))
    code = """
        from pathlib import Path
        from resource import RUSAGE_SELF, getrusage
        from tracklayer.media.audio import Audio
        from tracklayer.protocol import RunInfo, Status
        from tracklayer.settings import Settings
        from tracklayer_tensorboard import backend
        store = Path(sys.argv[1])
        run = backend.open(RunInfo("run", "demo", "run"), None, Settings(("tensorboard",), store))
        for step in (*range(20), 0):
            run.log({"long": Audio(store / "long.wav")}, step=step, time=0.0)
            run.commit()
        before = getrusage(RUSAGE_SELF).ru_maxrss
        run.finish(Status())
        print(getrusage(RUSAGE_SELF).ru_maxrss - before)
    """
    grown = int(python(code, tmp_path))
    (mended,) = folder(tmp_path).glob("*.mended")
    assert mended.stat().st_size > 80_000_000
    assert grown < 25_000  # KiB


def test_a_run_of_many_points_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mending, "LIMIT_POINTS", 3)
    run = opened(tmp_path)
    log(run, "loss", {0: 0.0, 2: 2.0, 1: 1.0})
    with caplog.at_level(logging.INFO, "tracklayer"):
        run.finish(Status())
    assert not list(folder(tmp_path).glob("*.mended"))
    assert "out of order: it is large" in caplog.text


def test_a_file_that_changes_while_it_is_mended_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = opened(tmp_path)
    log(run, "sample", {1: noise(1), 0: noise(0)})
    run.commit()
    (path,) = folder(tmp_path).iterdir()

    def write_whole(target: Path, events: Iterator[bytes]) -> None:
        first = next(events)
        os.truncate(path, 1_000)
        event_file.write_whole(target, [first, *events])

    monkeypatch.setattr(mending, "write_whole", write_whole)
    run.finish(Status())
    assert "was changed while it was read" in caplog.text
    assert not list(folder(tmp_path).glob("*.mended"))


# -- tables ---------------------------------------------------------------------------------------

NASTY = (
    "a|b",
    r"a\|b",
    "*bold* **bold** _it_ __it__ snake_case_name",
    "`code`",
    "<b>html</b> & &amp; <script>",
    "[link](http://example.org) ![i](x.png) http://example.org",
    "1. one",
    "- item",
    "# head",
    "two\nlines",
    "    four spaces in",
    "---",
    "日本 🙂 é",
    r"c:\temp\new \* \_",
    "x ~~y~~ {z} (w) + . !",
)


class _Cells(HTMLParser):
    """The text in the cells of a page's tables, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
            self._in_cell = True
        elif tag == "br":
            self.rows[-1][-1] += "\n"
        else:
            assert not self._in_cell, f"a cell has <{tag}>"

    def handle_endtag(self, tag: str) -> None:
        self._in_cell &= tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def cells(text: str) -> list[list[str]]:
    """Return the cells of the table that the Text tab makes of a text."""
    parser = _Cells()
    parser.feed(oracle.html(text))
    return parser.rows


def test_a_tables_cells_are_shown_as_they_are() -> None:
    rows = [[str(number), text] for number, text in enumerate(NASTY)]
    shown = cells(markdown.table(("#", "a|b *c*"), rows))
    assert shown == [["#", "a|b *c*"], *([number, text.strip()] for number, text in rows)]


def test_a_table_shows_every_kind_of_cell(tmp_path: Path) -> None:
    columns = ["none", "number", "flag", "list", "picture", "captioned"]
    row = [None, 0.1, True, [1, 2], Image(RED), Image(RED, caption="a red|one")]
    run = opened(tmp_path)
    log(run, "table", {4: Table(columns, [row, [*row[:1], math.nan, *row[2:]]])})
    run.finish(Status())
    (point,) = read(tmp_path).texts["table"]
    rest = ["True", "[1, 2]", "image", "image: a red|one"]
    assert point.step == 4
    assert cells(point.value) == [columns, ["", "0.1", *rest], ["", "nan", *rest]]


def test_a_large_table_is_cut_and_says_so() -> None:
    rows = [[f"{row}:{column}" for column in range(23)] for row in range(1_000)]
    text = markdown.table([str(column) for column in range(23)], rows)
    shown = cells(text)
    assert [len(row) for row in shown] == [20] * 101
    assert shown[-1][-1] == "99:19"
    assert "rows not shown: 900" in oracle.html(text)
    assert "columns not shown: 3" in oracle.html(text)


def test_a_long_cell_is_cut() -> None:
    _, (cell,) = cells(markdown.table(["a"], [["*" * 300]]))
    assert cell == "*" * 199 + "…"


def test_a_table_without_rows_shows_its_columns() -> None:
    header, *rest = cells(markdown.table(["a", "b"], []))
    assert header == ["a", "b"]
    assert not any(map("".join, rest))


# -- what cannot be shown -------------------------------------------------------------------------


def test_a_video_that_is_no_gif_is_left_out_and_the_rest_of_its_row_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"as if")
    run = opened(tmp_path)
    for step in range(2):
        run.log({"loss": 0.5, "clip": Video(str(path)), "still": Image(RED)}, step=step, time=START)
    run.finish(Status())
    shown = read(tmp_path)
    assert shown.steps("loss") == [(0, 0.5), (1, 0.5)]
    assert list(shown.images) == ["still"]
    (message,) = caplog.messages
    assert "'clip'" in message
    assert "format='gif'" in message


def test_what_is_damaged_or_gone_is_left_out_and_the_rest_of_its_row_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = tmp_path / "clip.gif"
    clip.write_bytes(b"GIF89a")
    with tracklayer.init(id="lost", backend="sqlite", dir=tmp_path / "other") as recorded:
        recorded.log({"still": noise(0, side=700)})
    shutil.rmtree(tmp_path / "other" / "blobs")
    (point,) = tracklayer.open_store(tmp_path / "other").run("lost").media()
    run = opened(tmp_path)
    row = {"loss": 0.5, "clip": Video(str(clip)), "lost": point.value, "still": Image(RED)}
    run.log(row, step=0, time=START)
    run.finish(Status())
    shown = read(tmp_path)
    assert shown.steps("loss") == [(0, 0.5)]
    assert list(shown.images) == ["still"]
    damaged, gone = caplog.messages
    assert "'clip'" in damaged
    assert "GIF file (6 bytes) is damaged" in damaged
    assert "'lost'" in gone
    assert "cannot be read" in gone


def test_what_tensorboard_has_no_place_for_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tracklayer.init("demo", id="run", dir=tmp_path, backend="tensorboard") as run:
        for _ in range(2):
            run.log({"page": Html("<b>x</b>"), "loss": 1.0, "red": Image(RED)})
    shown = read(tmp_path)
    assert (list(shown.images), shown.steps("loss")) == (["red"], [(0, 1), (1, 1)])
    assert [message for message in caplog.messages if "html" in message] == [caplog.messages[0]]


def test_without_matplotlib_a_chart_is_shown_as_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run = opened(tmp_path)
    log(run, "curve", {0: CURVE})
    run.finish(Status())
    assert cells(read(tmp_path).text("curve")) == [["x", "y"], ["0", "1.0"], ["1", "0.5"]]


def test_opening_a_run_loads_nothing_that_media_take(tmp_path: Path) -> None:
    code = """
        from pathlib import Path
        from tracklayer.protocol import RunInfo
        from tracklayer.settings import Settings
        from tracklayer_tensorboard import backend
        backend.open(RunInfo("run", "demo", "run"), None, Settings(("tensorboard",), Path(sys.argv[1])))
        print(*sys.modules)
    """
    assert not {"PIL", "matplotlib", "soundfile", "jax"} & set(python(code, tmp_path).split())


def test_charts_are_drawn_while_scalars_are_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracklayer import plot
    from tracklayer_tensorboard import media

    may_go, drawn_by, draw = threading.Event(), [], media.draw_chart

    def slow(chart: Any) -> bytes:
        drawn_by.append(threading.current_thread().name)
        assert may_go.wait(30)
        return draw(chart)

    monkeypatch.setattr(media, "draw_chart", slow)
    run = tracklayer.init("p", id="r", dir=tmp_path, backend="tensorboard")
    run.log({"chart": plot.histogram(Table(columns=["a"], data=[[1], [2]]), "a"), "loss": 0.5})
    run.log({"loss": 0.25})
    project = tmp_path / "tensorboard" / "p"
    losses: list[float] = []
    deadline = time.monotonic() + 20
    while len(losses) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        shown = oracle.python_loader(project).get("r")
        losses = [point.value for point in shown.scalars.get("loss", ())] if shown else []
    assert losses == [0.5, 0.25]
    may_go.set()
    run.finish()
    assert drawn_by == ["tracklayer-encoder"]
    assert [point.step for point in oracle.read(project / "r").images["chart"]] == [0]
