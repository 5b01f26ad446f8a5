"""What TensorBoard shows, as its protocol buffers: the only module that knows tensorboardX.

tensorboardX has no types, so that a message is `Any` here.  A point is a `Summary.Value`: a tag and
what it has at a step.  Formats: event.proto and summary.proto in tensorboard/compat/proto,
tensorboard/plugins/hparams/plugin_data.proto, and, for pictures and sounds, summary_v2.py and
plugin_data.proto in tensorboard/plugins/image and audio.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, TypeAlias, final

from tracklayer.values import Bins, Histogram, Scalar, Text

if TYPE_CHECKING:
    from tracklayer.protocol import State

# by name, which leaves them Any for both type checkers, with or without tensorboardX installed
_events: Any = import_module("tensorboardX.proto.event_pb2")
_summaries: Any = import_module("tensorboardX.proto.summary_pb2")
_tensors: Any = import_module("tensorboardX.proto.tensor_pb2")
_shapes: Any = import_module("tensorboardX.proto.tensor_shape_pb2")
_types: Any = import_module("tensorboardX.proto.types_pb2")
_hparams: Any = import_module("tensorboardX.proto.plugin_hparams_pb2")
_api: Any = import_module("tensorboardX.proto.api_pb2")
_messages: Any = import_module("google.protobuf.message")

Point: TypeAlias = Any
HPARAMS_PREFIX: Final = "_hparams_/"
"""The tags that tell of the run to TensorBoard's HParams table."""
_ENDS: Final[Mapping[State, str]] = {
    "finished": "STATUS_SUCCESS",
    "failed": "STATUS_FAILURE",
    "crashed": "STATUS_FAILURE",
}
_AUDIO_WAV: Final = b"\x10\x0b"
"""An `AudioPluginData` whose encoding, field 2, is WAV, 11; tensorboardX does not have the message."""


@final
@dataclass(frozen=True, slots=True)
class Pictures:
    """What a tag has at a step: one or more files that a browser shows.

    Attributes:
        files: their bytes; TensorBoard tells the format by them.
        width: of the first, in pixels.
        height: of the first, in pixels.
    """

    kind: ClassVar[str] = "image"
    files: Sequence[bytes]
    width: int
    height: int


@final
@dataclass(frozen=True, slots=True)
class Sounds:
    """What a tag has at a step: one or more files that a browser plays.

    Attributes:
        files: their bytes.
        are_wav: whether all are; what else there is, the browser has to find out.
    """

    kind: ClassVar[str] = "audio"
    files: Sequence[bytes]
    are_wav: bool


Shown: TypeAlias = Scalar | Text | Histogram | Pictures | Sounds
"""What TensorBoard has a place for; each kind has a plugin of its own."""


class Event(NamedTuple):
    """An event that was read back; at a `restart`, TensorBoard drops what is at later steps."""

    step: int
    time: float
    restart: bool
    points: list[Point]


def point(tag: str, shown: Shown) -> Point:
    """Return what shows a value of any kind."""
    match shown:
        case Text():
            return text(tag, shown.text)
        case Histogram():
            return _histogram(tag, shown.bins)
        case Pictures():
            return _pictures(tag, shown)
        case Sounds():
            return _sounds(tag, shown)
        case int() | float():
            return scalar(tag, shown)


def tag_for(key: str, shown: Shown, kinds: dict[str, str]) -> str:
    """Return a key's tag, given and keeping the kind that each tag has."""
    kind = "scalar" if isinstance(shown, (int, float)) else shown.kind
    if kinds.setdefault(key, kind) == kind:
        return key
    return f"{key} ({kind})"


def scalar(tag: str, number: float) -> Point:
    """Return what shows a number, as float32."""
    try:
        shown = float(number)
    except OverflowError:  # an int may be larger than any float
        shown = math.inf if number > 0 else -math.inf
    return _summaries.Summary.Value(tag=_clean(tag), simple_value=shown)


def text(tag: str, content: str) -> Point:
    """Return what shows Markdown."""
    return _plugin_point(tag, "text", _strings([_clean(content).encode()], ()))


def json_text(tag: str, data: object) -> Point:
    """Return what shows data, as a block of JSON."""
    return text(tag, f"```json\n{as_json(data)}\n```")


def as_json(data: object) -> str:
    """Return JSON for people; what JSON does not know becomes its `str`."""
    return json.dumps(data, indent=2, ensure_ascii=False, default=str)


def session_start(config: Mapping[str, Any], time: float) -> Point:
    """Return the mark that makes a run one of the HParams table, with its config, flattened."""
    info = _hparams.SessionStartInfo(start_time_secs=time)
    for name, value in flatten(config):
        _set_hparam(info.hparams[_clean(name)], value)
    return _hparams_point("session_start_info", info)


def session_end(state: State, time: float) -> Point:
    """Return the mark of how a run ended, for the HParams table."""
    status = _api.Status.Value(_ENDS[state])
    info = _hparams.SessionEndInfo(status=status, end_time_secs=time)
    return _hparams_point("session_end_info", info)


def flatten(data: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the entries of nested mappings, with keys `a/b`."""
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}/")  # pyright: ignore[reportUnknownArgumentType] - JSON-like
        else:
            yield f"{prefix}{key}", value


def row(points: Iterable[Point], step: int, time: float) -> bytes:
    """Return the event of points at a step."""
    summary = _summaries.Summary(value=points)
    return _serialized(wall_time=time, step=step, summary=summary)


def file_start(time: float) -> bytes:
    """Return the event that a file begins with."""
    return _serialized(wall_time=time, file_version="brain.Event:2")


def restart(step: int, time: float) -> bytes:
    """Return the event at which the Python loader drops all points from a step on.

    The first in a run does nothing: it is taken for the start, and only others for restarts.
    """
    log = _events.SessionLog(status=_events.SessionLog.START)
    return _serialized(wall_time=time, step=step, session_log=log)


def parse(event: bytes) -> Event | None:
    """Return what a serialized event holds; None if it is damaged."""
    try:
        message = _events.Event.FromString(event)
    except _messages.DecodeError:
        return None
    started = message.session_log.status == _events.SessionLog.START
    return Event(message.step, message.wall_time, started, list(message.summary.value))


def _serialized(**fields: Any) -> bytes:
    data: bytes = _events.Event(**fields).SerializeToString()
    return data


def _histogram(tag: str, bins: Bins) -> Point:
    rows = list(zip(bins.edges, bins.edges[1:], bins.counts, strict=False)) if bins.count else []
    tensor = _tensors.TensorProto(
        dtype=_types.DT_DOUBLE,
        tensor_shape=_shape((len(rows), 3)),
        double_val=[number for row in rows for number in row],
    )
    return _plugin_point(tag, "histograms", tensor)


def _pictures(tag: str, shown: Pictures) -> Point:
    strings = [str(shown.width).encode(), str(shown.height).encode(), *shown.files]
    return _plugin_point(tag, "images", _strings(strings, (len(strings),)))


def _sounds(tag: str, shown: Sounds) -> Point:
    strings = [string for file in shown.files for string in (file, b"")]  # the labels are not shown
    tensor = _strings(strings, (len(shown.files), 2))
    return _plugin_point(tag, "audio", tensor, _AUDIO_WAV if shown.are_wav else b"")


def _set_hparam(hparam: Any, value: Any) -> None:
    """Set a `google.protobuf.Value` to a bool, a number that it can hold, or the value's `str`."""
    if isinstance(value, bool):
        hparam.bool_value = value
    elif isinstance(value, (int, float)) and _is_exact_float(value):
        hparam.number_value = value
    else:
        hparam.string_value = _clean(str(value))


def _is_exact_float(number: float) -> bool:
    """Say whether the HParams table can show a number: it has no NaN, infinity or large int."""
    try:
        return math.isfinite(number) and float(number) == number
    except OverflowError:
        return False


def _hparams_point(field: str, info: Any) -> Point:
    content = _hparams.HParamsPluginData(version=0, **{field: info}).SerializeToString()
    # the plugin reads the metadata only, but the data server leaves out points without a value
    nothing = _tensors.TensorProto(dtype=_types.DT_FLOAT, tensor_shape=_shape((0,)))
    return _plugin_point(HPARAMS_PREFIX + field, "hparams", nothing, content)


def _plugin_point(tag: str, plugin: str, tensor: Any, content: bytes = b"") -> Point:
    data = _summaries.SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    metadata = _summaries.SummaryMetadata(plugin_data=data)
    return _summaries.Summary.Value(tag=_clean(tag), metadata=metadata, tensor=tensor)


def _strings(strings: Sequence[bytes], sizes: Sequence[int]) -> Any:
    return _tensors.TensorProto(dtype=_types.DT_STRING, tensor_shape=_shape(sizes), string_val=strings)


def _shape(sizes: Sequence[int]) -> Any:
    return _shapes.TensorShapeProto(dim=[_shapes.TensorShapeProto.Dim(size=size) for size in sizes])


def _clean(string: str) -> str:
    """Spell out lone surrogates, which UTF-8 cannot hold."""
    return string.encode("utf-8", "backslashreplace").decode()
