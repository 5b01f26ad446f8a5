"""What W&B gets of media, live and pushed: what the real wandb client sends when it is given the same itself."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from machine import Ended, Machine
from wandb_server import ServedRun, WandbServer

pytestmark = pytest.mark.slow

# -- the same values, logged in three ways --------------------------------------------------------

VALUES = """
import datetime, io, math, pathlib
import jax.numpy as jnp
import matplotlib
matplotlib.use("agg")
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
box = {"position": {"minX": 0.1, "maxX": 0.5, "minY": 0.2, "maxY": 0.6}, "class_id": 1, "box_caption": "a cat",
       "scores": {"accuracy": 0.75, "loss": 2}}
pixel_box = {"position": {"middle": [2, 3], "width": 2, "height": 4}, "domain": "pixel", "class_id": 2}
tone = np.sin(np.arange(800) / 10)
frames = (np.arange(4 * 3 * 8 * 6) % 256).astype(np.uint8).reshape(4, 3, 8, 6)
points = np.arange(12.0).reshape(4, 3) / 8
truth = [0, 1, 2, 2, 1, 0, 1, 2, 0, 1]
probabilities = (np.arange(30).reshape(10, 3) * 7 % 10 + 1) / 10.0

PIL.Image.fromarray(rgb).save("photo.jpg")
PIL.Image.fromarray(labels).save("labels.png")
soundfile.write("tone.flac", tone, 8000)
pathlib.Path("page.html").write_text("<html><body>a page</body></html>")
pathlib.Path("mesh.obj").write_text("v 0 0 0\\nv 1 0 0\\nv 0 1 0\\nf 1 2 3\\n")
PIL.Image.fromarray(rgb).save("moving.gif")


def line():
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.plot([1, 3, 2])
    return figure


def values(w):
    def table():
        return w.Table(columns=["x", "y"], data=[[0, 0.5], [1, 1.5], [2, -1.0]])

    def classified(image):
        return w.Image(image, classes=[{"id": 1, "name": "cat"}], boxes={"seen": {"box_data": [box]}})

    frame = pd.DataFrame({"n": [1, 2], "f": [0.5, math.nan], "s": ["a", "b"]})
    return {
        "image_grey": w.Image(grey),
        "image_rgb": w.Image(rgb),
        "image_rgba": w.Image(rgba),
        "image_thin": w.Image(grey[:, :, None]),
        "image_pil": w.Image(PIL.Image.fromarray(rgb)),
        "image_jax": w.Image(np.asarray(jnp.asarray(rgb)) if w.__name__ == "wandb" else jnp.asarray(rgb)),
        "image_path": w.Image("photo.jpg"),
        "image_caption": w.Image(rgb, caption="two\\nlines, ключ", grouping=3),
        "image_jpg": w.Image(rgb, file_type="jpg"),
        "image_mode": w.Image(rgb, mode="L"),
        "image_classes": w.Image(rgb, classes=[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]),
        "image_boxes": w.Image(rgb, boxes={
            "seen": {"box_data": [box, pixel_box], "class_labels": names}, "bare": {"box_data": [box]}}),
        "image_masks": w.Image(rgb, masks={
            "true": {"mask_data": labels, "class_labels": names}, "bare": {"mask_data": labels}}),
        "image_figure": w.Image(line()),
        "images": [w.Image(rgb, caption="one"), w.Image(255 - rgb), w.Image(rgb, caption="again")],
        "images_bare": [w.Image(rgb), w.Image(rgb)],
        "images_overlaid": [
            w.Image(rgb, boxes={"seen": {"box_data": [box], "class_labels": names}}),
            w.Image(rgb, masks={"true": {"mask_data": labels, "class_labels": names}}),
            w.Image(grey),
        ],
        "histogram": w.Histogram([0.0, 1.0, 1.0, 5.0], num_bins=4),
        "histogram_of_bins": w.Histogram(np_histogram=([1, 0, 4], [0.0, 0.5, 1.0, 2.0])),
        "audio": w.Audio(tone, sample_rate=8000, caption="a tone"),
        "audio_path": w.Audio("tone.flac", caption="a file"),
        "audios": [w.Audio(tone, sample_rate=8000), w.Audio(tone[:400], sample_rate=16000, caption="short")],
        "video": w.Video(frames, fps=5, format="gif", caption="moving"),
        "video_batch": w.Video(np.stack([frames, frames, 255 - frames]), format="gif"),
        "video_path": w.Video("moving.gif"),
        "video_mp4": w.Video(np.tile(frames, (1, 1, 4, 4)), fps=4, format="mp4"),
        "videos": [w.Video(frames, format="gif"), w.Video(frames[:2], format="gif")],
        "html": w.Html("<p>Grüße</p>"),
        "html_bare": w.Html("<p>Grüße</p>", inject=False),
        "html_path": w.Html("page.html"),
        "htmls": [w.Html("<p>1</p>"), w.Html("<p>2</p>")],
        "plotly": w.Plotly(go.Figure(go.Scatter(x=[1, 2, 3], y=np.array([0.5, 1.0, 2.0])), {"title": "a title"})),
        "plotly_itself": go.Figure(go.Bar(x=["a", "b"], y=[1, 2])),
        "plotlies": [w.Plotly(go.Figure(go.Bar(y=[1]))), w.Plotly(go.Figure(go.Bar(y=[2])))],
        "points": w.Object3D(points),
        "points_colored": w.Object3D(np.hstack([points, points * 8])),
        "mesh_path": w.Object3D("mesh.obj"),
        "clouds": [w.Object3D(points), w.Object3D(points * 2)],
        "table": w.Table(columns=["n", "f", "s", "b"], data=[[1, 0.1, "a", True], [2, 1e300, "ü", False]]),
        "table_gaps": w.Table(columns=["f", "s", "n"], data=[[math.nan, None, 1], [0.5, "b", None], [math.inf, "", 2]]),
        "table_empty": w.Table(columns=["a", "b"]),
        "table_frame": w.Table(dataframe=frame),
        "table_array": w.Table(columns=["a", "b"], data=np.arange(4.0).reshape(2, 2)),
        "table_mixed": w.Table(columns=["any"], data=[[1], ["a"]], allow_mixed_types=True),
        "table_lists": w.Table(columns=["l", "d"], data=[[[1, 2], {"a": 1}], [[3, 4], {"a": 2}]]),
        "table_times": w.Table(columns=["t"], data=[[datetime.datetime(2024, 5, 6, 7, 8)], [datetime.datetime(2025, 1, 1)]]),
        "table_media": w.Table(
            columns=["i", "a", "h", "v", "p"],
            data=[
                [w.Image(rgb, caption="cell"), w.Audio(tone, 8000), w.Html("<p>1</p>"), w.Video(frames, format="gif"),
                 w.Object3D(points)],
                [w.Image(grey), w.Audio(tone[:9], 8000), w.Html("<p>2</p>"), w.Video(frames[:2], format="gif"),
                 w.Object3D(points * 2)],
            ]),
        "table_boxes": w.Table(columns=["i"], data=[[classified(rgb)], [classified(grey)]]),
        "chart_line": w.plot.line(table(), "x", "y", title="a line"),
        "chart_split": w.plot.line(table(), "x", "y", split_table=True),
        "chart_scatter": w.plot.scatter(table(), "x", "y", title="points"),
        "chart_bar": w.plot.bar(w.Table(columns=["l", "v"], data=[["a", 1], ["b", 2]]), "l", "v", title="bars"),
        "chart_histogram": w.plot.histogram(table(), "y", title="bins"),
        "chart_line_series": w.plot.line_series(
            xs=[0, 1, 2], ys=[[1, 2, 3], [3, 2, 1]], keys=["up", "down"], title="lines", xname="epoch"),
        "chart_confusion": w.plot.confusion_matrix(y_true=truth, preds=truth[::-1], class_names=["a", "b", "c"]),
        "chart_roc": w.plot.roc_curve(truth, probabilities, labels=["a", "b", "c"]),
        "chart_pr": w.plot.pr_curve(truth, probabilities, labels=["a", "b", "c"]),
        "deep/key[0] ключ/image": w.Image(rgb),
        "deep/key[0] ключ/table": table(),
        "deep/key[0] ключ/chart": w.plot.line(table(), "x", "y"),
    }
"""

RECORD = """
with w.init(project="p", id="r") as run:
    run.log({"before": 1})
    run.log({"loss": 0.5, **values(w)})
    run.log({"loss": 0.25, "image_rgb": w.Image(255 - rgb), "table": w.Table(columns=["n"], data=[[3]])})
"""

KEYS = re.findall('^        "([^"]+)":', VALUES, re.MULTILINE)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, WandbServer]]:
    """What each way of logging the values sent."""
    folder = tmp_path_factory.mktemp("media")
    backends = {"wandb": None, "live": "wandb", "pushed": "sqlite"}
    with WandbServer() as client, WandbServer() as live, WandbServer() as pushed:
        servers = {"wandb": client, "live": live, "pushed": pushed}
        machines = {
            way: Machine(folder / way, server, TRACKLAYER_BACKEND=backends[way])
            for way, server in servers.items()
        }
        started = {
            way: machine.start(f"import {'wandb' if way == 'wandb' else 'tracklayer'} as w\n{VALUES}{RECORD}")
            for way, machine in machines.items()
        }
        ended = {way: process.end() for way, process in started.items()}
        assert ended["wandb"].code == 0, ended["wandb"].stderr
        ended["live"].well()
        ended["pushed"].well()
        report = machines["pushed"].push("r")
        assert (report["outcome"], report["rows"], report["stderr"]) == ("sent", 3, "")
        for machine in machines.values():
            assert not [*machine.folder.glob("temporary/tracklayer*")]
        yield servers


def sent(server: WandbServer, key: str) -> dict[str, Any]:
    """All that a server has under a key, random ids apart."""
    run = server.runs["r"]
    keys = {key, f"{key}_table", f"Custom Chart Tables/{key}_table"}
    config = run.raw_config["_wandb"]["value"]
    found = {
        "history": [{k: row[k] for k in keys & row.keys()} for row in run.history],
        "summary": {k: run.summary[k] for k in keys & run.summary.keys()},
        "config": {
            part: {
                name: value
                for name, value in config.get(part, {}).items()
                if name.split("_wandb_delimeter_")[0] == key
            }
            for part in ("visualize", "bounding_box/class_labels", "mask/class_labels")
        },
        "files": {
            path: hashlib.sha256(content).hexdigest()
            for path, content in run.files.items()
            if any(re.search(rf"/{re.escape(k)}_\d+_\w+\.", path) for k in keys)
        },
        "tables": {
            artifact.name: [artifact.type, artifact.metadata, {path: [entry["digest"], entry["size"]] for path, entry in artifact.manifest["contents"].items()}]
            for artifact in run.artifacts
            if any(f"{k}.table.json" in artifact.files for k in keys)
        },
    }
    text = re.sub("wandb-client-artifact://[a-z0-9]+", "wandb-client-artifact://…", json.dumps(found))
    return json.loads(text)


@pytest.mark.parametrize("way", ["live", "pushed"])
@pytest.mark.parametrize("key", KEYS)
def test_media_arrive_as_the_client_sends_them(servers: dict[str, WandbServer], key: str, way: str) -> None:
    expected = sent(servers["wandb"], key)
    assert any(expected["history"]), key
    assert sent(servers[way], key) == expected
