"""What W&B gets of media, live and pushed: what the wandb client itself sends, given the same raw data."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machine import Machine, killed_at_the_end
from wandb_server import ServedRun, WandbServer

pytestmark = pytest.mark.slow


@pytest.fixture
def machine(tmp_path: Path, server: WandbServer) -> Machine:
    return Machine(tmp_path / "machine", server, TRACKLAYER_BACKEND="wandb")


# -- the same script, with wandb and with tracklayer ----------------------------------------------

RECORD = """
import datetime, math, pathlib
import jax.numpy as jnp
import matplotlib as mpl
mpl.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
import plotly.graph_objects as go
import soundfile

rgb = (np.arange(6 * 5 * 3) * 7 % 256).astype(np.uint8).reshape(6, 5, 3)
grey, rgba = rgb[..., 0], np.dstack([rgb, 255 - rgb[..., :1]])
labels = rgb[..., 1] % 3
names = {0: "sky", 1: "cat", 2: "dog"}
box = {
    "position": {"minX": 0.1, "maxX": 0.5, "minY": 0.2, "maxY": 0.6},
    "class_id": 1, "box_caption": "a cat", "scores": {"accuracy": 0.75, "loss": 2},
}
pixel_box = {"position": {"middle": [2, 3], "width": 2, "height": 4}, "domain": "pixel", "class_id": 2}
boxes = {"seen": {"box_data": [box, pixel_box], "class_labels": names}, "bare": {"box_data": [box]}}
masks = {"true": {"mask_data": labels, "class_labels": names}}
tone = np.sin(np.arange(800) / 10)
frames = (np.arange(4 * 3 * 8 * 6) % 256).astype(np.uint8).reshape(4, 3, 8, 6)
points = np.arange(12.0).reshape(4, 3) / 8
bars = go.Figure(go.Bar(x=["a", "b"], y=[1, 2]))
truth = [0, 1, 2, 2, 1, 0, 1, 2, 0, 1]
probabilities = (np.arange(30).reshape(10, 3) * 7 % 10 + 1) / 10.0
frame = pd.DataFrame({"n": [1, 2], "f": [0.5, math.nan], "s": ["a", None]})
start = datetime.datetime(2024, 5, 6, 7, 8, 9)

PIL.Image.fromarray(rgb).save("photo.jpg")
PIL.Image.fromarray(rgb).save("moving.gif")
soundfile.write("tone.flac", tone, 8000)
pathlib.Path("page.html").write_text("<html><body>a page</body></html>")
pathlib.Path("mesh.obj").write_text("v 0 0 0\\nv 1 0 0\\nv 0 1 0\\nf 1 2 3\\n")
figure, axes = plt.subplots(figsize=(2, 1))
axes.plot([1, 3, 2])


def table():
    return w.Table(columns=["x", "y"], data=[[0, 0.5], [1, 1.5], [2, -1.0]])


def cells(image, samples, video):
    return [
        w.Image(image, caption="cell", boxes=boxes), w.Audio(samples, 8000), w.Video(video, format="gif"),
        w.Html(f"<p>{samples[1]}</p>"), w.Object3D(points * samples[1]), w.Plotly(bars), "text",
    ]


values = {
    "image_grey": w.Image(grey),
    "image_thin": w.Image(grey[:, :, None]),
    "image_rgb": w.Image(rgb),
    "image_rgba": w.Image(rgba),
    "image_pil": w.Image(PIL.Image.fromarray(rgb)),
    "image_jax": w.Image(rgb if w.__name__ == "wandb" else jnp.asarray(rgb)),
    "image_figure": w.Image(figure),
    "image_path": w.Image("photo.jpg"),
    "image_jpg": w.Image(rgb, file_type="jpg"),
    "image_mode": w.Image(rgb, mode="L"),
    "image_caption": w.Image(rgb, caption="two\\nlines, ключ", grouping=3),
    "image_classes": w.Image(rgb, classes=[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]),
    "image_boxes": w.Image(rgb, boxes=boxes),
    "image_masks": w.Image(rgb, masks={**masks, "bare": {"mask_data": labels}}),
    "images": [w.Image(rgb, caption="one"), w.Image(255 - rgb), w.Image(rgb, caption="again")],
    "images_bare": [w.Image(rgb), w.Image(rgb)],
    "images_overlaid": [w.Image(rgb, boxes=boxes), w.Image(rgb, masks=masks), w.Image(rgb)],
    "histogram": w.Histogram([0.0, 1.0, 1.0, 5.0], num_bins=4),
    "histogram_of_bins": w.Histogram(np_histogram=([1, 0, 4], [0.0, 0.5, 1.0, 2.0])),
    "audio": w.Audio(tone, sample_rate=8000, caption="a tone"),
    "audio_path": w.Audio("tone.flac", caption="a file"),
    "audios": [w.Audio(tone, sample_rate=8000), w.Audio(tone[:400], sample_rate=16000, caption="short")],
    "audios_path": [w.Audio("tone.flac"), w.Audio("tone.flac", sample_rate=8000)],
    "video": w.Video(frames, fps=5, format="gif", caption="moving"),
    "video_batch": w.Video(np.stack([frames, frames, 255 - frames]), format="gif"),
    "video_path": w.Video("moving.gif"),
    "video_mp4": w.Video(np.tile(frames, (1, 1, 4, 4)), fps=4, format="mp4"),
    "videos": [w.Video(frames, format="gif"), w.Video(frames[:2], format="gif")],
    "html": w.Html("<p>Grüße</p>"),
    "html_bare": w.Html("<p>Grüße</p>", inject=False),
    "html_path": w.Html("page.html"),
    "htmls": [w.Html("<p>1</p>"), w.Html("<p>2</p>")],
    "plotly": w.Plotly(go.Figure(go.Scatter(x=[1, 2], y=np.array([0.5, 1.0])), {"title": "ключ"})),
    "plotly_itself": bars,
    "plotlies": [w.Plotly(bars), w.Plotly(go.Figure(go.Bar(y=[2])))],
    "points": w.Object3D(points, caption="a cloud"),
    "points_colored": w.Object3D(np.hstack([points, points * 8])),
    "mesh_path": w.Object3D("mesh.obj"),
    "clouds": [w.Object3D(points), w.Object3D(points * 2)],
    "table": w.Table(columns=["n", "f", "s", "b"], data=[[1, 0.1, "a", True], [2, 1e300, "ü", False]]),
    "table_gaps": w.Table(columns=["f", "s", "n"], data=[[math.nan, None, 1], [math.inf, "", None]]),
    "table_empty": w.Table(columns=["a", "b"]),
    "table_numbered": w.Table(columns=[0, 1], data=[[1, 2]]),
    "table_frame": w.Table(dataframe=frame),
    "table_array": w.Table(columns=["a", "b"], data=np.arange(4.0).reshape(2, 2)),
    "table_mixed": w.Table(columns=["any"], data=[[1], ["a"]], allow_mixed_types=True),
    "table_strict": w.Table(columns=["n", "s"], data=[[1, "a"]], optional=[False, True], log_mode="MUTABLE"),
    "table_lists": w.Table(columns=["l", "d"], data=[[[1, 2], {"a": 1}], [[3, 4], {"a": 2}]]),
    "table_times": w.Table(columns=["t", "d"], data=[[start, start.date()], [None, None]]),
    "table_media": w.Table(
        columns=["i", "a", "v", "h", "o", "p", "t"],
        data=[cells(rgb, tone, frames), cells(grey, tone[9:], frames[:2]), [None] * 7],
    ),
    "chart_line": w.plot.line(table(), "x", "y", title="a line"),
    "chart_split": w.plot.line(table(), "x", "y", split_table=True),
    "chart_scatter": w.plot.scatter(table(), "x", "y", title="points"),
    "chart_bar": w.plot.bar(w.Table(columns=["l", "v"], data=[["a", 1], ["b", 2]]), "l", "v"),
    "chart_histogram": w.plot.histogram(table(), "y", title="bins"),
    "chart_line_series": w.plot.line_series([0, 1, 2], [[1, 2, 3], [3, 2, 1]], ["up", "down"], "t", "epoch"),
    "chart_confusion": w.plot.confusion_matrix(None, truth, truth[::-1], ["a", "b", "c"]),
    "chart_roc": w.plot.roc_curve(truth, probabilities, labels=["a", "b", "c"]),
    "chart_pr": w.plot.pr_curve(truth, probabilities, labels=["a", "b", "c"]),
    "deep/key[0] ключ/image": w.Image(rgb),
    "deep/key[0] ключ/table": table(),
    "deep/key[0] ключ/chart": w.plot.line(table(), "x", "y"),
}
with w.init(project="p", id="r", settings=w.Settings(init_timeout=60)) as run:
    run.log({"before": 1})
    run.log({"loss": 0.5, **values})
    run.log({"loss": 0.25, "image_rgb": w.Image(255 - rgb), "table": w.Table(columns=["n"], data=[[3]])})
"""
KEYS = re.findall(r'^    "([^"]+)": ', RECORD[RECORD.index("\nvalues = ") :], re.MULTILINE)


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Machine, WandbServer]]]:
    """Each way of logging, and what its server got."""
    folder = tmp_path_factory.mktemp("media")
    settled = {"PYTHONHASHSEED": "0"}  # the client writes sets into tables
    with WandbServer() as client, WandbServer() as live, WandbServer() as pushed:
        ways = {
            "client": (Machine(folder / "client", client, **settled), client),
            "live": (Machine(folder / "live", live, TRACKLAYER_BACKEND="wandb", **settled), live),
            "pushed": (Machine(folder / "pushed", pushed, TRACKLAYER_BACKEND="sqlite", **settled), pushed),
        }
        # alone, so that the client starts in time
        ways["live"][0].run(f"import tracklayer as w\n{RECORD}").well()
        client_machine, pushed_machine = ways["client"][0], ways["pushed"][0]
        started = client_machine.start(f"import wandb as w\n{RECORD}")
        with killed_at_the_end(started):
            pushed_machine.run(f"import tracklayer as w\n{RECORD}").well()
            ended = started.end()
        assert ended.code == 0, ended.stderr
        report = ways["pushed"][0].push("r")
        assert (report["outcome"], report["rows"], report["stderr"]) == ("sent", 3, "")
        yield ways


def shown(run: ServedRun, key: str) -> dict[str, Any]:
    """All that a server has of a key, what is random in it apart."""
    keys = {key, f"{key}_table", f"Custom Chart Tables/{key}_table"}
    config = run.raw_config["_wandb"]["value"]
    found = {
        "history": [{name: row[name] for name in keys & row.keys()} for row in run.history],
        "summary": {name: run.summary[name] for name in keys & run.summary.keys()},
        "config": {
            part: {name: item for name, item in config[part].items() if name.split("_wandb_del")[0] == key}
            for part in ("visualize", "bounding_box/class_labels", "mask/class_labels")
        },
        "files": {
            path: hashlib.sha256(content).hexdigest()
            for path, content in run.files.items()
            if any(re.search(rf"/{re.escape(name)}_\d+_\w+\.", path) for name in keys)
        },
        "tables": sorted(
            [artifact.name, artifact.type, artifact.digest, artifact.metadata, files]
            for artifact in run.artifacts
            if not keys.isdisjoint(path.removesuffix(".table.json") for path in artifact.files)
            for files in [{p: [e["digest"], e["size"]] for p, e in artifact.manifest["contents"].items()}]
        ),
    }
    text = re.sub("wandb-client-artifact://[a-z0-9]+", "wandb-client-artifact://…", json.dumps(found))
    if key == "video_mp4":  # which each encodes in its own way
        text = re.sub(r'(?<="size": )\d+', "0", re.sub("[0-9a-f]{64}|[0-9a-f]{20}", "…", text))
    return json.loads(text)


@pytest.mark.parametrize("way", ["live", "pushed"])
@pytest.mark.parametrize("key", KEYS)
def test_a_value_arrives_as_the_client_itself_sends_it(
    ways: dict[str, tuple[Machine, WandbServer]], key: str, way: str
) -> None:
    expected = shown(ways["client"][1].runs["r"], key)
    assert any(expected["history"])
    assert any(expected["summary"])
    assert any(expected["files"]) or key.startswith("histogram")
    assert bool(expected["tables"]) == bool(re.search("table|chart", key))
    assert bool(expected["config"]["visualize"]) == ("chart" in key)
    assert shown(ways[way][1].runs["r"], key) == expected


@pytest.mark.parametrize("way", ["live", "pushed"])
def test_nothing_else_arrives(ways: dict[str, tuple[Machine, WandbServer]], way: str) -> None:
    runs = [server.runs["r"] for _, server in (ways["client"], ways[way])]
    expected, found = ({path for path in run.files if path.startswith("media/")} for run in runs)
    assert {re.sub("_[0-9a-f]{20}", "", path) for path in expected ^ found} == {
        "media/videos/video_mp4_1.mp4"
    }
    assert len(expected) == len(found)
    expected_keys, found_keys = ([row.keys() for row in run.history] for run in runs)
    assert found_keys == expected_keys


@pytest.mark.parametrize("way", ["live", "pushed"])
def test_media_that_arrived_are_not_pushed_again(
    ways: dict[str, tuple[Machine, WandbServer]], way: str
) -> None:
    machine, server = ways[way]
    shutil.rmtree(machine.store / "ledgers", ignore_errors=True)  # so it has to ask
    before = len(server.requests)
    pushed = machine.push("r")
    assert (pushed["outcome"], pushed["rows"], pushed["total"]) == ("sent", 0, 3)
    sent = server.requests[before:]
    assert not [r for r in sent if r.method == "PUT" and ("/media/" in r.path or "/blob/" in r.path)]
    assert not [r for r in sent if r.is_stream and "wandb-history.jsonl" in (r.body or {}).get("files", {})]


def test_no_file_is_left_behind(ways: dict[str, tuple[Machine, WandbServer]]) -> None:
    for way in ("live", "pushed"):
        assert not list(ways[way][0].folder.glob("temporary/tracklayer*"))


# -- what the client does not take, and rows that come late ---------------------------------------

PICTURES = """
import io
import numpy as np
import PIL.Image
import tracklayer
from tracklayer import Image, Object3D, Table

PIL.Image.MAX_IMAGE_PIXELS = 1000
small, large, huge = (Image(np.full((side, side), side, np.uint8)) for side in (4, 40, 60))
mesh = Object3D(io.StringIO("v 0 0 0"), file_type="obj")
"""


def test_a_value_that_is_refused_costs_itself_alone(server: WandbServer, machine: Machine) -> None:
    ended = machine.run(
        f"""{PICTURES}
with tracklayer.init(project="p", id="r", settings=tracklayer.Settings(init_timeout=60)) as run:
    run.log({{"a": 1, "huge": huge, "no table": Table(["mesh"], [[mesh]]), "mesh": mesh, "b": 2}})
    run.log({{"x" * 300: Table(["a"], [[1]]), "large": large, "c": 3}})
    run.log({{"d": 4, "numbered": Table(["a", 0], [[1, 2]])}}, step=10)
    run.log({{"huge": huge}}, step=4)
    run.log({{"huge": huge, "e": 5}}, step=5)
"""
    )
    refused, late, incomplete = ended.complaints
    assert re.fullmatch(
        "tracklayer: wandb refused a call: the image 'huge': .* pixels.*; and 1 more", refused
    )
    assert re.fullmatch("tracklayer: wandb refused a call: the image 'huge': .* pixels.*; and 1 more", late)
    assert "`tracklayer push r`" in incomplete
    keys = [{key for key in row if key[0] != "_"} for row in server.runs["r"].history]
    assert keys == [{"a", "b", "mesh"}, {"large", "c"}, {"d", "numbered"}, {"e", "tracklayer/step"}]


def test_no_more_late_media_are_kept_than_fit_into_memory(server: WandbServer, machine: Machine) -> None:
    ended = machine.run(
        f"""{PICTURES}
import tracklayer_wandb.recording
tracklayer_wandb.recording._MAX_LATE_BYTES = 1500  # of which each has about 600
with tracklayer.init(project="p", id="r", settings=tracklayer.Settings(init_timeout=60)) as run:
    run.log({{"a": 1}}, step=10)
    for step in range(4):
        run.log({{"late": small}}, step=step)
    run.log({{"b": 2}}, step=5)
"""
    )
    refused, _ = ended.complaints
    assert "`tracklayer push` sends the rest" in refused
    keys = [{key for key in row if key[0] != "_"} for row in server.runs["r"].history]
    assert keys == [{"a"}, *[{"late", "tracklayer/step"}] * 2, {"b", "tracklayer/step"}]
    pushed = machine.push("r")
    assert (pushed["outcome"], pushed["rows"]) == ("sent", 2)


def test_media_are_kept_under_keys_that_are_no_file_names(server: WandbServer, machine: Machine) -> None:
    keys = ["x" * 600, f"{'ключ ' * 100}/[0]", f"{'a/' * 300}b", "../../a", "/a", "nul\0"]
    machine.run(
        f"""{PICTURES}
with tracklayer.init(project="p", id="r", settings=tracklayer.Settings(init_timeout=60)) as run:
    for key in {keys}:
        run.log({{key: small, f"{{key}} list": [small, large], f"{{key}} number": 1}}, step=0)
"""
    ).well()
    (row,) = server.runs["r"].history
    for key in keys:
        assert row[f"{key} number"] == 1
        for path in [row[key]["path"], *row[f"{key} list"]["filenames"]]:
            assert path in server.runs["r"].files
    assert machine.push("r")["rows"] == 0


def test_late_media_are_sent_at_the_end_and_leave_the_summary_alone(
    server: WandbServer, machine: Machine
) -> None:
    machine.run(
        f"""{PICTURES}
def values(image):
    chart = tracklayer.plot.line(Table(["x", "y"], [[0, image.width]]), "x", "y")
    return {{"i": image, "l": [image], "t": Table(["i"], [[image]]), "c": chart, "text": str(image.width)}}


with tracklayer.init(project="p", id="r", settings=tracklayer.Settings(init_timeout=60)) as run:
    run.log(values(small), step=1)
    run.log(values(large), step=5)
    run.log(values(small), step=3)
    run.log({{"h": tracklayer.Histogram([0.0], num_bins=1), "none": 1}}, step=5)
    run.log({{"late": small}}, step=4)
"""
    ).well()
    run = server.runs["r"]
    assert [(row["_step"], row.get("tracklayer/step")) for row in run.history] == [
        (1, None),
        (5, None),
        (6, 3),
        (7, 4),
    ]
    first, last, late, latest = run.history
    assert late["i"]["sha256"] == first["i"]["sha256"] == latest["late"]["sha256"]
    assert late["t"]["sha256"] == first["t"]["sha256"]
    for key in ("i", "l", "t", "c_table", "text"):
        assert run.summary[key] == last[key] != late[key]
    assert run.summary["late"] == latest["late"]
    pushed = machine.push("r")
    assert (pushed["rows"], pushed["total"], pushed["message"]) == (0, 4, "confirmed by the server")


def test_a_client_that_dies_among_media_is_given_up(server: WandbServer, machine: Machine) -> None:
    started = machine.start(
        f"""{PICTURES}
run = tracklayer.init(project="p", id="r", settings=tracklayer.Settings(init_timeout=60))
run.log({{"small": small}})
print("logged", flush=True)
input()
run.log({{"a": 1, "large": large}})
run.log({{"small": small}})
run.finish()
"""
    )
    with killed_at_the_end(started):
        started.hear()
        started.client().kill()
        started.tell()
        (complaint,) = started.end().complaints
    assert re.match("tracklayer: wandb is lost: .*`tracklayer push r` sends the rest$", complaint)
    pushed = machine.push("r")
    assert (pushed["outcome"], pushed["total"]) == ("sent", 3)
    assert [{key for key in row if key[0] != "_"} for row in server.runs["r"].history] == [
        {"small"},
        {"a", "large"},
        {"small"},
    ]


def test_what_the_client_refuses_costs_itself_alone_in_a_push(server: WandbServer, machine: Machine) -> None:
    machine.run(
        """
        import pathlib
        import tracklayer

        pathlib.Path("mesh.obj").write_text("v 0 0 0\\nv 1 0 0\\nv 0 1 0\\nf 1 2 3\\n")
        with tracklayer.init(project="p", id="r") as run:
            run.log({"x": 1, "meshes": tracklayer.Table(["mesh"], [[tracklayer.Object3D("mesh.obj")]])})
            run.log({"x": 2})
        """,
        TRACKLAYER_BACKEND="sqlite",
    ).well()
    pushed = machine.push("r")
    assert (pushed["outcome"], pushed["code"]) == ("sent", 0)
    assert "not all of it can be there: the table 'meshes'" in pushed["message"]
    assert [row["x"] for row in server.runs["r"].history] == [1, 2]
