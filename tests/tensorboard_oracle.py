"""What TensorBoard itself shows of a log folder: read with its own loaders and plugins.

Nothing of tracklayer is used here.  TensorFlow is not needed: TensorBoard brings a stand-in.
"""

from __future__ import annotations

import json
import logging
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple, TypeAlias, final

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of the html5lib that TensorBoard ships
    from google.protobuf import json_format
    from tensorboard import plugin_util
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.data import server_ingester
    from tensorboard.data.provider import RunTagFilter
    from tensorboard.plugins.audio.audio_plugin import AudioPlugin
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.distribution.compressor import compress_histogram
    from tensorboard.plugins.hparams import api_pb2, get_experiment, list_session_groups
    from tensorboard.plugins.hparams.backend_context import Context
    from tensorboard.plugins.image.images_plugin import ImagesPlugin
    from tensorboard.plugins.text.text_plugin import text_array_to_html
    from tensorboard.util import grpc_util
    from werkzeug.test import Client

NoDataServerError = server_ingester.NoDataServerError
"""Raised by `data_server` where the default loader has no binary for this platform."""

_ALL = 10**9  # points a series: no sampling
_EXPERIMENT = ""
_PATIENCE = 20.0  # seconds for the data server to start and to load
_PLUGINS = ("scalars", "histograms", "text", "hparams")
_BLOB_PLUGINS = ("images", "audio")


class Point(NamedTuple):
    """A scalar or a text at a step; `wall_time` is Unix seconds."""

    step: int
    wall_time: float
    value: Any


class HistogramPoint(NamedTuple):
    """A histogram at a step: its buckets as (left, right, count)."""

    step: int
    wall_time: float
    buckets: list[tuple[float, float, float]]

    @property
    def count(self) -> float:
        """The number of elements."""
        return sum(count for _, _, count in self.buckets)

    @property
    def percentiles(self) -> list[tuple[float, float]]:
        """What the Distributions tab draws: (basis point, value)."""
        return [(float(point), float(value)) for point, value in compress_histogram(self.buckets)]


class File(NamedTuple):
    """What a browser gets for one picture or sound."""

    content_type: str
    content: bytes


class Files(NamedTuple):
    """The pictures or sounds of a step: the samples that TensorBoard shows beside each other."""

    step: int
    wall_time: float
    samples: list[File]
    size: tuple[int, int] | None
    """The width and height of the pictures."""


@final
@dataclass(frozen=True)
class Session:
    """A row of the HParams table.  `status` is TensorBoard's, such as `"SUCCESS"`."""

    hparams: Mapping[str, bool | float | str]
    metrics: Mapping[str, float]
    status: str


@final
@dataclass(frozen=True)
class Shown:
    """What a loader shows of one TensorBoard run, all by tag."""

    scalars: Mapping[str, list[Point]]
    histograms: Mapping[str, list[HistogramPoint]]
    texts: Mapping[str, list[Point]]
    images: Mapping[str, list[Files]]
    sounds: Mapping[str, list[Files]]
    session: Session | None

    def steps(self, tag: str) -> list[tuple[int, float]]:
        """Return a scalar's (step, value) pairs."""
        return [(point.step, point.value) for point in self.scalars[tag]]

    def text(self, tag: str) -> str:
        """Return the newest text of a tag."""
        return str(self.texts[tag][-1].value)

    def json(self, tag: str) -> Any:
        """Return the data in the newest text of a tag that shows a block of JSON."""
        return json.loads(self.text(tag).removeprefix("```json\n").removesuffix("\n```"))


Loader: TypeAlias = Callable[[Path], dict[str, Shown]]


def read(folder: Path) -> Shown:
    """Return what the Python loader shows of one run's folder."""
    # from outside: the HParams plugin finds no metrics in a run that is the log folder itself
    return python_loader(folder.parent)[folder.name]


def scalars(folder: Path) -> dict[str, list[Point]]:
    """Return the scalars of one run's folder by tag, as the Python loader shows them."""
    return dict(read(folder).scalars)


def histograms(folder: Path) -> dict[str, list[HistogramPoint]]:
    """Return the histograms of one run's folder by tag, as the Python loader shows them."""
    return dict(read(folder).histograms)


def texts(folder: Path) -> dict[str, list[Point]]:
    """Return the texts of one run's folder by tag, as the Python loader shows them."""
    return dict(read(folder).texts)


def session(folder: Path) -> Session | None:
    """Return one run's row in the HParams table, if it is there."""
    return read(folder).session


def html(text: str) -> str:
    """Return what the Text tab makes of a text."""
    import numpy as np

    return str(text_array_to_html(np.array(text.encode(), dtype=object), enable_markdown=True))


def python_loader(folder: Path) -> dict[str, Shown]:
    """Return what `tensorboard --load_fast=false` shows below a folder, by run."""
    return watching(folder)()


def watching(folder: Path) -> Callable[[], dict[str, Shown]]:
    """Return the Python loader of a TensorBoard that stays open: each call loads what is new."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of restarts as warnings
    multiplexer = EventMultiplexer(size_guidance={"tensors": 0})
    multiplexer.AddRunsFromDirectory(str(folder))

    def reload() -> dict[str, Shown]:
        multiplexer.Reload()
        return _read_all(MultiplexerDataProvider(multiplexer, str(folder)))

    return reload


def data_server(folder: Path) -> dict[str, Shown]:
    """Return what `tensorboard` shows below a folder by default, by run.

    Raises:
        NoDataServerError: there is no such server for this platform.
    """
    runs = {path.parent for path in folder.rglob("*tfevents*")}
    with _running_data_server(folder) as provider:
        deadline = monotonic() + _PATIENCE
        while len(loaded := _tags_by_run(provider)) < len(runs) and monotonic() < deadline:
            sleep(0.02)
        assert len(loaded) == len(runs), f"the data server loaded {sorted(loaded)} of {runs}"
        return _read_all(provider)


@contextmanager
def _running_data_server(folder: Path) -> Iterator[Any]:
    binary = server_ingester.get_server_binary().path
    with tempfile.TemporaryDirectory() as temporary:
        port_file = Path(temporary) / "port"
        everything = ",".join(f"{plugin}=all" for plugin in (*_PLUGINS, *_BLOB_PLUGINS))
        options = ("--reload=once", "--port=0", f"--samples-per-plugin={everything}")
        with subprocess.Popen(
            [binary, f"--logdir={folder}", f"--port-file={port_file}", *options]
        ) as process:
            try:
                address = f"localhost:{_port(port_file)}"
                credentials = grpc_util.ChannelCredsType.LOCAL
                yield server_ingester.ExistingServerDataIngester(
                    address, channel_creds_type=credentials
                ).data_provider
            finally:
                process.kill()


def _port(file: Path) -> int:
    deadline = monotonic() + _PATIENCE
    while monotonic() < deadline:
        if file.exists() and (content := file.read_text()).endswith("\n"):
            return int(content)
        sleep(0.01)
    msg = "the data server did not start"
    raise TimeoutError(msg)


def _tags_by_run(provider: Any) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    context = RequestContext()
    for plugin in _PLUGINS:
        series = provider.list_scalars if plugin == "scalars" else provider.list_tensors
        for run, tags in series(context, experiment_id=_EXPERIMENT, plugin_name=plugin).items():
            found.setdefault(run, set()).update(tags)
    for plugin in _BLOB_PLUGINS:
        blobs = provider.list_blob_sequences(context, experiment_id=_EXPERIMENT, plugin_name=plugin)
        for run, tags in blobs.items():
            found.setdefault(run, set()).update(tags)
    return found


def _read_all(provider: Any) -> dict[str, Shown]:
    context = RequestContext()

    def series(read: Any, plugin: str) -> Any:
        return read(context, experiment_id=_EXPERIMENT, plugin_name=plugin, downsample=_ALL)

    scalars = series(provider.read_scalars, "scalars")
    histograms = series(provider.read_tensors, "histograms")
    texts = series(provider.read_tensors, "text")
    images = _files(provider, ImagesPlugin, "/images", "/individualImage")
    sounds = _files(provider, AudioPlugin, "/audio", "/individualAudio")
    sessions = _sessions(provider, context)
    return {
        run: Shown(
            {
                tag: [Point(p.step, p.wall_time, p.value) for p in points]
                for tag, points in scalars.get(run, {}).items()
            },
            {
                tag: [
                    HistogramPoint(p.step, p.wall_time, [tuple(b) for b in p.numpy.tolist()]) for p in points
                ]
                for tag, points in histograms.get(run, {}).items()
            },
            {
                tag: [Point(p.step, p.wall_time, p.numpy.item().decode()) for p in points]
                for tag, points in texts.get(run, {}).items()
            },
            images.get(run, {}),
            sounds.get(run, {}),
            sessions.get(run),
        )
        for run in _tags_by_run(provider)
    }


def _files(provider: Any, plugin: Any, list_route: str, file_route: str) -> dict[str, dict[str, list[Files]]]:
    """Return the files of a plugin's tab, by run and tag, as its page gets them."""
    name = plugin.plugin_name
    routes = plugin(TBContext(data_provider=provider, sampling_hints={name: _ALL})).get_plugin_apps()

    def get(route: str, query: Any = None) -> Any:
        response = Client(routes[route]).get(route, query_string=query)
        assert response.status_code == 200, response.text
        return response

    found: dict[str, dict[str, list[Files]]] = {}
    for run, tags in get("/tags").json.items():
        for tag, about in tags.items():
            steps = {
                datum.step: Files(datum.step, datum.wall_time, [], _size(provider, name, datum))
                for datum in _blobs(provider, name, run, tag)
            }
            for sample in range(about["samples"]):
                for shown in get(list_route, {"run": run, "tag": tag, "sample": sample}).json:
                    assert shown["wall_time"] == steps[shown["step"]].wall_time
                    response = get(file_route, shown["query"])
                    steps[shown["step"]].samples.append(File(response.mimetype, response.data))
            found.setdefault(run, {})[tag] = list(steps.values())
    return found


def _blobs(provider: Any, plugin: str, run: str, tag: str) -> Any:
    only = RunTagFilter(runs=[run], tags=[tag])
    read = provider.read_blob_sequences(
        RequestContext(), experiment_id=_EXPERIMENT, plugin_name=plugin, downsample=_ALL, run_tag_filter=only
    )
    return read[run][tag]


def _size(provider: Any, plugin: str, datum: Any) -> tuple[int, int] | None:
    if plugin != "images":
        return None
    width, height = (provider.read_blob(RequestContext(), blob_key=v.blob_key) for v in datum.values[:2])
    return int(width), int(height)


def _sessions(provider: Any, context: RequestContext) -> dict[str, Session]:
    """Return the HParams table's rows, by run, as its page gets them."""
    backend = Context(TBContext(data_provider=provider))
    every_status = [value.number for value in api_pb2.Status.DESCRIPTOR.values]
    request = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=every_status, start_index=0, slice_size=10_000
    )
    tags = backend.hparams_metadata(context, _EXPERIMENT)
    if not any(tags.values()):
        return {}
    groups = list_session_groups.Handler(context, backend, _EXPERIMENT, request).run()
    experiment = get_experiment.Handler(context, backend, _EXPERIMENT, api_pb2.GetExperimentRequest()).run()
    for response in (groups, experiment):
        plugin_util.proto_to_json(response)  # it fails on what the page cannot take, such as NaN
    return {
        one.name: Session(
            {name: json_format.MessageToDict(value) for name, value in group.hparams.items()},
            {metric.name.tag: metric.value for metric in one.metric_values},
            api_pb2.Status.Name(one.status).removeprefix("STATUS_"),
        )
        for group in groups.session_groups
        for one in group.sessions
    }
