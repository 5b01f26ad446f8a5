"""`show` draws and lists what a run holds, and `media` writes it out: real runs, read from their files."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import random
import re
import sqlite3
import subprocess
import sys
import time
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotille
import pytest
from PIL import Image as PILImage

import tracklayer
from program import cli, on_a_terminal, read_json
from tracklayer.cli.curves import grid
from tracklayer.cli.files import folder_of
from tracklayer.media.audio import Audio
from tracklayer.media.chart import Chart
from tracklayer.media.html import Html
from tracklayer.media.image import Image
from tracklayer.media.list import MediaList
from tracklayer.media.object3d import Object3D
from tracklayer.media.plotly import Plotly
from tracklayer.media.table import Table
from tracklayer.media.video import Video
from tracklayer.reading import Metric

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BRAILLE = re.compile("[\u2801-\u28ff]")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TRACKLAYER_DIR", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)


def record(rows: Mapping[int, Mapping[str, Any]], rules: Sequence[str] = (), run_id: str = "run") -> None:
    """Record a finished run; `rules` are metrics whose smallest value counts."""
    with tracklayer.init(id=run_id, backend="sqlite") as run:
        for key in rules:
            run.define_metric(key, summary="min")
        for step, values in rows.items():
            run.log(values, step=step)


def change(sql: str, *values: Any, run_id: str = "run") -> None:
    """Change a run's file behind the program's back."""
    with contextlib.closing(sqlite3.connect(f"store/runs/{run_id}.sqlite")) as connection, connection:
        assert connection.execute(sql, values).rowcount > 0


def metric(values: Sequence[float] | np.ndarray[Any, Any], steps: Sequence[int] | None = None) -> Metric:
    step = np.arange(len(values)) if steps is None else np.array(steps)
    return Metric("key", step, np.zeros(len(values)), np.array(values))


def section(shown: str, heading: str) -> list[str]:
    """Return the lines of a section of what `show` printed."""
    lines = ESCAPES.sub("", shown).replace("\r", "").split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith(heading))
    later = ("metrics", "curves", "media", "artifacts")
    end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith(later)), len(lines))
    return lines[start:end]


# -- curves: which, and where -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_terminal_shows_the_curves_of_six_metrics_those_with_a_rule_first() -> None:
    keys = [f"m{number}" for number in range(8)]
    once = {0: {"once": 1}}
    record(once | {step: dict.fromkeys(keys, float(step)) for step in (1, 2)}, rules=["m7", "m5"])
    curves = section(on_a_terminal("show", "run"), "curves")
    assert curves[0].startswith("curves of 6 of 9 metrics; -k KEY")
    assert re.findall(r"(\S+) +last", "\n".join(curves)) == ["m5", "m7", "m0", "m1", "m2", "m3"]
    assert all(len(line) <= 80 for line in curves)


def test_where_no_terminal_is_curves_are_drawn_only_if_they_are_asked_for() -> None:
    record({step: {"train/loss": 1.0 / (step + 1), "other": 1.0} for step in range(5)})
    assert cli("show", "run").stdout.isascii()
    drawn = cli("show", "run", "-k", "train/loss").stdout
    assert BRAILLE.search(drawn)
    assert "\x1b" not in drawn
    assert "other " not in "\n".join(section(drawn, "curves"))


@pytest.mark.parametrize(
    ("wanted", "drawn"),
    [
        (["val/*"], ["val/a", "val/b"]),
        (["w[0]"], ["w[0]"]),
        (["val/b", "w?0?"], ["val/b", "w[0]"]),
        (["*"], ["val/a", "val/b", "w[0]", "seeds"]),
        (["seeds/seed_1"], ["seeds/seed_1"]),
    ],
)
def test_curves_are_chosen_by_name_or_by_pattern(wanted: list[str], drawn: list[str]) -> None:
    keys = ("val/a", "val/b", "w[0]", "seeds/seed_0", "seeds/seed_1")
    record({step: dict.fromkeys(keys, 0.5) for step in range(2)})
    options = [part for key in wanted for part in ("-k", key)]
    curves = section(cli("show", "run", *options).stdout, "curves")
    assert re.findall(r"(\S+) +last 0\.5", "\n".join(curves)) == drawn


def test_a_metric_that_is_not_there_is_exit_code_2_and_close_ones_are_named() -> None:
    record({0: {"train/loss": 1.0}})
    result = cli("show", "run", "-k", "train/los", expect=2)
    assert result.stderr == "tracklayer: run run has no metric 'train/los'; did you mean 'train/loss'?\n"
    assert result.stdout == ""


def test_json_is_no_place_for_curves() -> None:
    record({0: {"loss": 1.0}})
    assert "--metric" in cli("show", "run", "--json", "-k", "loss", expect=2).stderr
    assert not BRAILLE.search(cli("show", "run", "--json").stdout)


@pytest.mark.slow
def test_colour_is_left_out_where_it_is_not_wanted() -> None:
    record({step: {"loss": float(step)} for step in range(2)})
    coloured, plain = on_a_terminal("show", "run"), on_a_terminal("show", "run", NO_COLOR="1")
    assert "\x1b[36m" in coloured
    assert "\x1b[36m" not in plain
    assert section(coloured, "curves") == section(plain, "curves")


@pytest.mark.slow
def test_where_there_is_no_unicode_curves_are_ascii() -> None:
    record({step: {"k" * 100: float(step), "λ": 1.0} for step in range(2)})
    shown = on_a_terminal("show", "run", PYTHONIOENCODING="ascii")
    curves = section(shown, "curves")
    assert "\n".join(curves).isascii()
    assert "~kkkkk" in curves[1]
    assert ["'" in line or "." in line for line in curves[2:7]] == [True] * 5


@pytest.mark.parametrize(("columns", "across"), [(40, 1), (76, 2), (116, 3), (20, 1)])
def test_curves_stand_side_by_side_as_far_as_they_fit(
    columns: int, across: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    record({step: {key: float(step) for key in "abcdef"} for step in range(2)})
    monkeypatch.setenv("COLUMNS", str(columns))
    curves = section(cli("show", "run", "-k", "*").stdout, "curves")
    assert curves[1].split() == [word for key in "abcdef"[:across] for word in (key, "last", "1")]
    assert max(map(len, curves[1:])) <= columns


# -- curves: what is in them ------------------------------------------------------------------------


def test_a_curve_lies_between_its_smallest_and_its_largest_value() -> None:
    record({step: {"ramp": step / 4} for step in range(10, 20)})
    assert section(cli("show", "run", "-k", "ramp").stdout, "curves")[1:] == [
        "ramp                                                               last 4.75",
        "4.75 ┤                                                        ⢀⣀⣀⣀⠤⠤⠤⠤⠒⠒⠒⠒⠉⠉",
        "     │                                         ⣀⣀⣀⡠⠤⠤⠤⠔⠒⠒⠒⠊⠉⠉⠉⠁",
        "     │                             ⣀⣀⣀⡠⠤⠤⠒⠒⠊⠉⠉⠉",
        "     │             ⢀⣀⣀⣀⡠⠤⠤⠤⠔⠒⠒⠒⠊⠉⠉⠉",
        " 2.5 ┤⣀⣀⠤⠤⠤⠤⠒⠒⠒⠒⠉⠉⠉⠁",
        "     └──────────────────────────────────────────────────────────────────────",
        "      10                                                                  19",
        "",
    ]


def test_nan_and_infinity_leave_gaps_and_are_named() -> None:
    values = [0.0, 1.0, math.nan, 1.0, 0.0, math.inf, -math.inf, 0.0, math.nan]
    assert grid([metric(values)], 36, in_ascii=False) == [
        "key                         last NaN",
        "1 ┤   ⢠⠃       ⢣",
        "  │  ⢠⠃         ⢣",
        "  │ ⢀⠎          ⠈⢆",
        "  │ ⡜            ⠘⡄",
        "0 ┤⡜              ⠘⡄           ⢀",
        "  └─────────────────────────────────",
        "   0                               8",
        "NaN: 2 of 9 points, from step 2",
        "Infinity: 1 of 9 points, from step 5",
        "-Infinity: 1 of 9 points, from step",
        "6",
    ]


def test_a_metric_without_a_finite_value_has_no_curve() -> None:
    assert grid([metric([math.nan, math.nan])], 40, in_ascii=False) == [
        "key                             last NaN",
        "NaN: 2 of 2 points, from step 0",
    ]


def noise() -> list[float]:
    numbers = random.Random(0)
    values = [math.nan if numbers.random() < 0.01 else numbers.gauss(i / 500, 1) for i in range(3000)]
    values[1234] = 40.0
    return values


@pytest.mark.parametrize(
    "values",
    [noise(), [i * 7 % 1000 for i in range(3000)], [math.sin(i / 300) for i in range(3000)], [0.0, 1.0, 0.5]],
    ids=["noise", "saw", "sine", "few"],
)
def test_thinning_hides_no_point(values: list[float]) -> None:
    """What is drawn of many points is what lines through all of them would be."""
    finite = [value for value in values if not math.isnan(value)]
    lines = grid([metric(values)], 60, in_ascii=False)
    margin, across = lines[1].index("┤") + 1, len(lines[6]) - lines[6].index("─")

    canvas = plotille.Canvas(across, 5, 0, 0, 2 * across, 20)
    low, high = min(finite), max(finite)
    places = [
        None
        if math.isnan(value)
        else (round(step / (len(values) - 1) * (2 * across - 1)), round((value - low) / (high - low) * 19))
        for step, value in enumerate(values)
    ]
    for one, two in pairwise([*places, None]):
        if one:
            canvas.line(*one, *(two or one))
    expected = canvas.plot("\n").replace("\u2800", " ").split("\n")
    assert [line[margin:] for line in lines[1:6]] == [line.rstrip() for line in expected]


def test_a_million_points_are_drawn_in_a_moment() -> None:
    many = metric(np.random.default_rng(0).standard_normal(1_000_000))
    start = time.perf_counter()
    grid([many], 80, in_ascii=False)
    assert time.perf_counter() - start < 2.0


@pytest.mark.parametrize(
    ("values", "steps", "labels"),
    [
        ([3, 3, 3], None, {"3"}),
        ([1.5], None, {"1.5"}),
        ([5e-324, 1e-323], None, {"4.941e-324", "9.881e-324"}),
        ([-1.7e308, 1.7e308], None, {"-1.7e+308", "1.7e+308"}),
        ([1.0, 1.0 + 2**-52], None, {"1.0", "1.0000000000000002"}),
        ([2**62, 2**62 + 1], None, {str(2**62), str(2**62 + 1)}),
        ([-(2**63), 2**63 - 1], None, {"-9.223e+18", "9.223e+18"}),
        ([1, 0], [0, 2**63 - 1], {"0", "1"}),
        ([0.0, -1e-9], None, {"0", "-1e-09"}),
    ],
)
def test_any_numbers_can_be_drawn(values: list[float], steps: list[int] | None, labels: set[str]) -> None:
    lines = grid([metric(values, steps)], 60, in_ascii=False)
    assert {line.split("┤")[0].strip() for line in lines if "┤" in line} == labels
    assert all(BRAILLE.search("".join(lines)) and len(line) <= 60 for line in lines)


def test_numbers_that_do_not_fit_are_whole_all_the_same() -> None:
    steps = [10**17, 2**63 - 1]
    lines = grid([metric([1.0, 1.0 + 2**-52], steps)], 16, in_ascii=False)
    assert lines[1].startswith("1.0000000000000002 ┤")
    assert lines[-1].split() == [str(step) for step in steps]


def test_seeds_are_their_mean_between_dots_at_one_standard_deviation() -> None:
    with tracklayer.init(id="run", backend="sqlite") as run:
        run.log_series({"loss": np.array([[1.0, 3.0], [2.0, 2.0], [0.0, math.nan]])})
    curves = section(cli("show", "run", "-k", "loss").stdout, "curves")
    assert curves[1].split() == ["loss", "last", "0"]
    assert curves[2].startswith("3 ┤⠁")  # 2 + 1, the upper dots' beginning
    assert curves[6].startswith("0 ┤")
    assert curves[9] == "mean of 2 seeds; dots: one standard deviation, last 0"


def test_seeds_that_overflow_or_are_missing_can_be_drawn() -> None:
    values = np.array([[1.7e308, -1.7e308], [math.nan, math.nan], [math.inf, 1.0], [1.0, math.nan]])
    lines = grid([metric(values)], 80, in_ascii=False)
    assert lines[0].split() == ["key", "last", "1"]
    assert "NaN: 1 of 4 points, from step 1" in lines
    assert "Infinity: 1 of 4 points, from step 2" in lines


@pytest.mark.slow
def test_a_key_cannot_steer_the_terminal_through_its_curve() -> None:
    record({step: {"\x1b[2Jkey": 1.0} for step in range(2)})
    assert r"\x1b[2Jkey" in "\n".join(section(cli("show", "run", "-k", "*").stdout, "curves"))
    assert "\x1b[2J" not in on_a_terminal("show", "run")


# -- media: files -----------------------------------------------------------------------------------

PICTURE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def written(folder: str = "out") -> dict[str, bytes]:
    """Return the content of every file below a folder, by its path there."""
    root = Path(folder)
    return {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob("*") if f.is_file()}


def pixels(png: bytes) -> Any:
    return np.asarray(PILImage.open(io.BytesIO(png)))


def test_every_kind_is_written_as_its_own_sort_of_file() -> None:
    sound, frames = np.sin(np.arange(800) / 5), np.zeros((3, 3, 8, 8), dtype=np.uint8)
    plotly = pytest.importorskip("plotly.graph_objects")
    record(
        {
            7: {
                "image": Image(PICTURE),
                "audio": Audio(sound, sample_rate=8000),
                "video": Video(frames, fps=4),
                "html": Html("<b>bold</b>", inject=False),
                "plotly": Plotly(plotly.Figure()),
                "cloud": Object3D(np.zeros((2, 3))),
                "text": "two\nlines",
                "histogram": tracklayer.Histogram(np_histogram=([1, 2], [0.0, 1.0, 2.0])),
            }
        }
    )
    result = cli("media", "run", "--out", "out")
    files = written()
    assert set(files) == {
        "image/7.png", "audio/7.wav", "video/7.gif", "html/7.html", "plotly/7.plotly.json",
        "cloud/7.pts.json", "text/7.txt", "histogram/7.json",
    }  # fmt: skip
    assert (pixels(files["image/7.png"]) == PICTURE).all()
    assert files["audio/7.wav"].startswith(b"RIFF")
    assert files["video/7.gif"].startswith(b"GIF8")
    assert files["html/7.html"] == b"<b>bold</b>"
    assert json.loads(files["plotly/7.plotly.json"])["data"] == []
    assert files["text/7.txt"] == b"two\nlines"
    assert json.loads(files["histogram/7.json"])["counts"] == [1, 2]
    assert result.stdout.endswith(f"\n8 files, {sum(map(len, files.values()))} bytes, in out\n")
    assert re.search(r"^text +1 +9 +out/text$", result.stdout, re.MULTILINE)


def test_a_list_is_a_file_each_and_what_is_told_of_one_stands_beside_it() -> None:
    boxes = {
        "found": {"box_data": [{"position": {"minX": 0, "maxX": 1, "minY": 0, "maxY": 1}, "class_id": 1}]}
    }
    masks = {"truth/1": {"mask_data": np.eye(4, dtype=np.uint8), "class_labels": {1: "cat"}}}
    told = Image(PICTURE, caption="häufig", boxes=boxes, masks=masks)
    record({3: {"images": MediaList([Image(PICTURE), told])}})
    cli("media", "run", "--out", "out")
    files = written()
    assert set(files) == {f"images/3_{name}" for name in ("0.png", "1.png", "1_mask_0.png", "1.json")}
    facts = json.loads(files["images/3_1.json"])
    assert facts["caption"] == "häufig"
    assert facts["boxes"]["found"]["box_data"][0]["class_id"] == 1
    assert facts["masks"] == {"truth/1": {"file": "3_1_mask_0.png", "class_labels": {"1": "cat"}}}
    assert (pixels(files["images/3_1_mask_0.png"]) == np.eye(4)).all()


def test_a_table_is_csv_whose_media_are_files_beside_it() -> None:
    table = Table(columns=["picture", "n", "any"], allow_mixed_types=True)
    table.add_data(Image(PICTURE, caption="first"), 1, 'x,"y"\nz')
    table.add_data(None, math.nan, {"a": [1, True]})
    table.add_data(Image(PICTURE + 1), 2.5, [Image(PICTURE + 2)])
    record({5: {"table": table}})
    cli("media", "run", "table", "--out", "out")
    files = written()
    assert set(files) == {f"table/5{name}" for name in (".csv", "_0.png", "_0.json", "_1.png", "_2.png")}
    rows = list(csv.reader(io.StringIO(files["table/5.csv"].decode(), newline="")))
    assert rows == [
        ["picture", "n", "any"],
        ["5_0.png", "1", 'x,"y"\nz'],
        ["", "NaN", '{"a": [1, true]}'],
        ["5_1.png", "2.5", '["5_2.png"]'],
    ]
    assert json.loads(files["table/5_0.json"]) == {"caption": "first"}
    assert (pixels(files["table/5_2.png"]) == PICTURE + 2).all()


def test_a_chart_is_csv_a_picture_and_what_it_shows() -> None:
    points = Table(columns=["x", "y"], data=[[0, 1.0], [1, 4.0]])
    record({0: {"line": tracklayer.plot.line(points, "x", "y", title="t"), "own": own_chart(points)}})
    cli("media", "run", "--out", "out")
    files = written()
    assert set(files) == {"line/0.csv", "line/0.json", "line/0.png", "own/0.csv", "own/0.json"}
    assert files["line/0.csv"] == b"x,y\r\n0,1.0\r\n1,4.0\r\n"
    assert json.loads(files["line/0.json"])["fields"]["y"] == "y"
    assert pixels(files["line/0.png"]).shape[:2] == (480, 640)


def own_chart(points: Table) -> Chart:
    """Return a chart that W&B alone knows how to draw."""
    return tracklayer.plot_table("somebody/chart/v1", points, {"x": "x"}, {})


def test_only_the_wanted_keys_are_written() -> None:
    record({0: {"val/a": "a", "val/b": "b", "w[0]": "w", "loss": 1.0}})
    cli("media", "run", "val/*", "--out", "some")
    assert set(written("some")) == {"val/a/0.txt", "val/b/0.txt"}
    cli("media", "run", "w[0]", "val/b", "--out", "two")
    assert sorted(written("two").values()) == [b"b", b"w"]


def test_text_that_is_no_unicode_is_written_escaped() -> None:
    record({0: {"text": "a\ud800b", "image": Image(PICTURE, caption="\udc80")}})
    cli("media", "run", "--out", "out")
    assert written()["text/0.txt"] == rb"a\ud800b"
    assert rb"\udc80" in written()["image/0.json"]


def test_what_is_not_there_is_an_error_and_nothing_is_written() -> None:
    record({0: {"val/image": "a", "loss": 1.0}})
    for key in ("val/imag", "loss", ""):
        message = cli("media", "run", "val/image", key, "--out", "out", expect=2).stderr
        assert message.startswith(f"tracklayer: run run has no media {key!r}")
    assert "did you mean 'val/image'?" in cli("media", "run", "val/imag", "--out", "out", expect=2).stderr
    assert "no run" in cli("media", "nobody", "--out", "out", expect=3).stderr
    assert "--out" in cli("media", "run", expect=2).stderr
    assert not Path("out").exists()


def test_a_run_without_media_says_so() -> None:
    record({0: {"loss": 1.0}})
    assert cli("media", "run", "--out", "out").stdout == "run run has no media\n"
    assert not Path("out").exists()


AWKWARD = [
    "..", "../up", "/etc/passwd", "a/../b", "./c", "a//b", "a/", "a", "a/b", "a/0", "0", "con", "CON", "Loss",
    "loss", "lo ss", "w[0]", "损失/∂", "\x1b[2Jx", "new\nline", "back\\slash", "C:x", "~", "k" * 600,
    "k" * 599, "x/" * 299 + "y", unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"), "*",
]  # fmt: skip


def test_any_keys_get_folders_of_their_own_and_none_leads_out() -> None:
    record({0: {key: f"text of {key}" for key in AWKWARD}})
    before = {path for path in Path.cwd().rglob("*") if "store" not in path.parts}
    shown = cli("media", "run", "--out", "deep/out").stdout
    assert "\x1b" not in shown
    assert sorted(written("deep/out").values()) == sorted(f"text of {key}".encode() for key in AWKWARD)
    new = {path for path in Path.cwd().rglob("*") if "store" not in path.parts} - before
    assert all(path.is_relative_to(Path.cwd() / "deep") for path in new)
    for key in AWKWARD:
        assert (Path("deep/out") / folder_of(key) / "0.txt").read_text() == f"text of {key}"


def test_no_two_folders_are_one_where_case_does_not_count() -> None:
    folders = [unicodedata.normalize("NFC", str(folder_of(key)).casefold()) for key in AWKWARD]
    assert len(set(folders)) == len(AWKWARD)
    assert all(len(folder) <= 100 for folder in folders)
    assert str(folder_of("train/images_2")) == "train/images_2"


def test_a_link_does_not_lead_out(tmp_path: Path) -> None:
    record({0: {"val/image": "a"}})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Path("out").mkdir()
    Path("out/val").symlink_to(elsewhere)
    assert "leads out of out" in cli("media", "run", "--out", "out", expect=1).stderr
    Path("out/val").unlink()
    Path("out/val/image").mkdir(parents=True)
    Path("out/val/image/0.txt").symlink_to(elsewhere / "0.txt")
    assert "0.txt is there already" in cli("media", "run", "--out", "out", expect=1).stderr
    assert list(elsewhere.iterdir()) == []


def test_a_recorded_ending_does_not_lead_out_either() -> None:
    record({0: {"image": Image(PICTURE)}})
    change("UPDATE objects SET data = replace(data, '\"png\"', '\"/../../../evil\"')")
    cli("media", "run", "--out", "out")
    assert set(written()) == {"image/0.bin"}


def test_what_is_there_already_is_left_and_never_overwritten() -> None:
    record({step: {"text": f"step {step}"} for step in range(3)})
    cli("media", "run", "--out", "out")
    assert cli("media", "run", "--out", "out").stdout.endswith(
        "\n3 files, 18 bytes, in out; 3 there already\n"
    )
    Path("out/text/0.txt").write_text("mine")
    Path("out/text/1.txt").unlink()
    Path("out/text/1.txt").mkdir()
    Path("out/text/2.txt").unlink()
    result = cli("media", "run", "--out", "out", expect=1)
    assert result.stderr.splitlines() == [
        f"tracklayer: text at step {step}: out/text/{step}.txt is there already, with other content"
        for step in (0, 1)
    ]
    assert result.stdout.endswith("\n1 file, 6 bytes, in out; 2 failed\n")
    assert written() == {"text/0.txt": b"mine", "text/2.txt": b"step 2"}


def test_a_folder_that_cannot_be_written_is_exit_code_1() -> None:
    record({0: {"text": "a"}})
    Path("file").write_text("x")
    for out in ("file", "file/below"):
        message = cli("media", "run", "--out", out, expect=1).stderr
        assert message.startswith("tracklayer: ")
        assert "file" in message
        assert message.count("\n") == 1


def test_damaged_content_is_named_and_the_rest_is_written() -> None:
    table = Table(columns=["picture"], data=[[Image(PICTURE)], [Image(PICTURE + 1)]])
    record({0: {"image": Image(PICTURE + 2)}, 1: {"image": Image(PICTURE + 3)}, 2: {"table": table}})
    images = list(tracklayer.open_store().run("run").media("image"))
    change("UPDATE contents SET content = x'00' WHERE sha256 = ?", images[0].value.encoded.data["file"])
    [whole] = tracklayer.open_store().run("run").media("table")
    cell = next(sha for sha in whole.value.encoded.contents if sha != whole.value.encoded.data["file"])
    change("UPDATE contents SET content = NULL WHERE sha256 = ?", cell)  # as if it lay in a file of its own
    result = cli("media", "run", "--out", "out", expect=1)
    first, second = result.stderr.splitlines()
    assert first.startswith("tracklayer: image at step 0: content ")
    assert "damaged" in first
    assert second.startswith("tracklayer: table at step 2: content ")
    files = written()
    assert len(files) == 3
    assert (pixels(files["image/1.png"]) == PICTURE + 3).all()
    assert files["table/2.csv"] == b"picture\r\n2_0.png\r\n2_1.png\r\n"
    assert result.stdout.endswith("; 2 failed\n")

    change("UPDATE contents SET content = x'00' WHERE sha256 = ?", whole.value.encoded.data["file"])
    again = cli("media", "run", "table", "--out", "again", expect=1)
    assert again.stderr.startswith("tracklayer: table at step 2: content ")
    assert written("again") == {}


@pytest.mark.slow
def test_a_disk_that_is_full_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    record({0: {"text": "x" * 100_000}})
    code = (
        "import resource, signal, sys; from tracklayer.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "main(['media', 'run', '--out', 'out'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "tracklayer: File too large\n"
    assert written() == {}


# -- media: listing ---------------------------------------------------------------------------------


def test_show_lists_media_by_key() -> None:
    same = Image(PICTURE, caption="one [bold]")
    record(
        {
            1: {"val/images": [same, Image(PICTURE + 1)]},
            2: {"val/images": same, "note": "a"},
            9: {"val/images": [same, Image(PICTURE + 1, caption="two\nlines")], "note": "b", "loss": 1.0},
        }
    )
    images, note = read_json("show", "run")["media"]
    size = len(same.file()) + len(Image(PICTURE + 1).file())
    assert images == {
        "key": "val/images",
        "kinds": ["image"],
        "steps": 3,
        "first_step": 1,
        "last_step": 9,
        "bytes": size,
        "caption": "one [bold], two\nlines",
    }
    assert (note["key"], note["kinds"], note["steps"], note["bytes"], note["caption"]) == (
        "note", ["text"], 2, 0, None,
    )  # fmt: skip
    table = section(cli("show", "run").stdout, "media")
    assert table[1].split() == ["key", "kind", "steps", "first", "last", "bytes", "caption"]
    assert table[2].split(maxsplit=6) == [
        "val/images", "image", "3", "1", "9", str(size), r"one [bold], two\nlines",
    ]  # fmt: skip
    assert table[3].split() == ["note", "text", "2", "2", "9", "-", "-"]


def test_listing_reads_no_content() -> None:
    record({0: {"image": Image(PICTURE)}})
    change("UPDATE contents SET content = x'00'")
    assert read_json("show", "run")["media"][0]["bytes"] == len(Image(PICTURE).file())


# -- export: what is not in the file ------------------------------------------------------------------


def test_an_export_says_what_of_the_run_is_not_in_its_file() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)  # above 1 MiB as a PNG
    large, small = Image(noise), Image(noise[:8, :8])
    record({0: {"picture": large, "detail": small}, 1: {"picture": large}})
    said = cli("export", "run", "--out", "out.sqlite").stdout
    assert f"1 file of it, {len(large.file())} bytes, stay in the store" in said
    record({0: {"picture": small}}, run_id="whole")
    assert "stay" not in cli("export", "whole", "--out", "whole.sqlite").stdout
