"""Media as the client's own objects, so that W&B's pages show them as if the client had made them.

The client gets files as they were recorded.  What it would know of the raw data alone is set on its objects:
that, and the name of a type, is all that reaches below its public interface here (wandb 0.31).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from os import fdopen
from tempfile import TemporaryDirectory, mkstemp
from typing import Any, Final, final
from warnings import catch_warnings

import wandb
from wandb.plot.custom_chart import CustomChart

from tracklayer.errors import BackendLostError, UnsupportedValueError
from tracklayer.media.audio import Audio
from tracklayer.media.base import Media
from tracklayer.media.chart import Chart
from tracklayer.media.html import Html
from tracklayer.media.image import Image
from tracklayer.media.list import MediaList
from tracklayer.media.object3d import Object3D
from tracklayer.media.plotly import Plotly
from tracklayer.media.table import Table
from tracklayer.media.video import Video
from tracklayer_wandb.client import lost_when_client_dies

_REFUSALS: Final = (wandb.Error, ImportError, OSError, TypeError, ValueError)
"""What the client raises on values and keys that it does not take, and where a package is missing."""
_LONGEST_NAME: Final = 200  # bytes, of the 255 of a file's name: the client puts more behind a key
_SHOWN_KEY: Final = 80


def log_media(run: Any, key: str, value: Media, *, step: int, stamp: Mapping[str, Any]) -> dict[str, Any]:
    """Log a value, and the stamp of its row; return the summary's entry for it, as JSON data.

    Its files are the client's when this returns.

    Raises:
        UnsupportedValueError: the client does not take the value, or does not take it under this key.
        BackendLostError: the client's process is gone.
    """
    try:
        with lost_when_client_dies(), TemporaryDirectory(prefix="tracklayer-wandb-") as folder:
            made = _made(value, folder)
            if isinstance(value, (Table, Chart)):  # logging them does more
                run.log({key: made, **stamp}, step=step)
                return _table_entry(key, made, run)
            if isinstance(value, MediaList):
                entry = {key: _list_in_row(value.item_kind, made, key, run, step)}
            else:
                entry = {key: _in_row(made, key, run, step)}
            run.log({**entry, **stamp}, step=step)
            return entry
    except BackendLostError:
        raise
    except _REFUSALS as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)  # without long paths
        name = key if len(key) <= _SHOWN_KEY else f"{key[:_SHOWN_KEY]}…"
        msg = f"the {value.kind} {name!r}: {reason}"
        raise UnsupportedValueError(msg) from error


def charts_by_table(charts: Iterable[str]) -> dict[str, str]:
    """Return the keys of charts by those of the tables that stand for them in a run's history."""
    return {f"{section}{key}_table": key for key in charts for section in ("", "Custom Chart Tables/")}


@final
class Figure:
    """What the client takes for a figure of plotly, since it goes by the full name of the type.

    So the figure stays as it was recorded, and plotly need not be there.
    """

    __module__ = "plotly.recorded"

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    def to_plotly_json(self) -> dict[str, Any]:
        """Return the figure as JSON data."""
        return self._data


def _table_entry(key: str, made: wandb.Table | CustomChart, run: Any) -> dict[str, Any]:
    if isinstance(made, CustomChart):
        return {made.spec.table_key: made.table.to_json(run)}
    return {key: made.to_json(run)}


def _in_row(made: Any, key: str, run: Any, step: int) -> Any:
    """Hand an object's file to the run, and return what stands for it in a row.

    The client would do so when the object is logged, but with no other name for the file than the key.
    """
    made.bind_to_run(run, _file_key(key), step)
    return made.to_json(run)


def _list_in_row(kind: str, items: list[Any], key: str, run: Any, step: int) -> Any:
    """Do the same for a list of objects."""
    shown = [_in_row(item, key, run, step) for item in items]
    first = items[0]
    if kind == "plotly":  # of which the client makes no more
        return shown
    if kind != "image":
        return first.seq_to_json(items, run, key, step)
    # as `seq_to_json`, which opens every image again, and speaks up where they are not all of one size
    layers = {
        "captions": first.all_captions(items),
        "all_masks": first.all_masks(items, run, key, step),
        "all_boxes": first.all_boxes(items, run, key, step),
    }
    return {
        "_type": "images/separated",
        "count": len(items),
        "filenames": [image["path"] for image in shown],
        **{name: shown[0][name] for name in ("format", "width", "height")},
        **{name: layer for name, layer in layers.items() if layer},
    }


def _file_key(key: str) -> str:
    """Return a key, or what stands for it in the names of files, where it cannot be a part of one."""
    is_long = any(len(part.encode()) > _LONGEST_NAME for part in key.split("/"))
    return hashlib.sha256(key.encode()).hexdigest() if is_long or "\0" in key else key


def _made(value: Media, folder: str) -> Any:
    """Return the client's object for a value, or a list of them; `folder` is for their files."""
    match value:
        case Image() | Audio() | Video() | Object3D():
            made = _made_of_file(value, folder)
            made._is_tmp = True  # noqa: SLF001 - so it moves the file, and names it as that of raw data
        case Html():
            made = wandb.Html(value.text(), inject=False, data_is_not_path=True)
        case Plotly():
            made = wandb.Plotly(Figure(value.figure()))
        case Table():
            made = _table(value, folder)
        case Chart():
            table = _table(value.table, folder)
            made = wandb.plot_table(value.spec, table, {**value.fields}, {**value.strings}, value.split_table)
        case MediaList():
            made = [_made(item, folder) for item in value.items]
        case _:
            msg = f"wandb has no {value.kind}"
            raise TypeError(msg)
    return made


def _made_of_file(value: Image | Audio | Video | Object3D, folder: str) -> Any:
    handle, path = mkstemp(suffix=f".{value.format}", dir=folder)
    with fdopen(handle, "wb") as file:
        file.write(value.file())
    match value:
        case Image():
            return _image(value, path)
        case Audio():
            audio: Any = wandb.Audio(path, sample_rate=value.sample_rate, caption=value.caption)
            audio._duration = value.duration  # noqa: SLF001 - it does not look into files
            return audio
        case Video():
            video: Any = wandb.Video(path, caption=value.caption)
            video._width, video._height = value.width, value.height  # noqa: SLF001 - it does not look into files
            return video
        case Object3D():
            return wandb.Object3D(path, caption=value.caption)


def _image(value: Image, path: str) -> wandb.Image:
    from PIL.Image import MAX_IMAGE_PIXELS, DecompressionBombError, DecompressionBombWarning

    is_large = MAX_IMAGE_PIXELS is not None and value.width * value.height > MAX_IMAGE_PIXELS
    quiet = catch_warnings(action="ignore", category=DecompressionBombWarning) if is_large else nullcontext()
    try:
        with quiet:  # it is no bomb: it was logged as it is
            return wandb.Image(
                path,
                caption=value.caption,
                grouping=value.grouping,
                classes=value.classes,
                boxes=value.boxes,
                masks=value.masks,
            )
    except DecompressionBombError as error:
        raise ValueError(str(error)) from error


def _table(value: Table, folder: str) -> wandb.Table:
    columns: list[Any] = value.columns
    if len(set(map(type, columns))) > 1:  # it sorts them
        columns = [str(name) for name in columns]
    rows: list[Iterable[Any]] = [
        [_made(cell, folder) if isinstance(cell, Media) else cell for cell in row] for row in value.data
    ]
    options = {name: value.encoded.data[name] for name in ("optional", "allow_mixed_types", "log_mode")}
    return wandb.Table(columns, rows, **options)
