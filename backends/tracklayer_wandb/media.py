"""Media as the client's own objects, so that W&B's pages show them as if the client had made them.

The client gets files as they were recorded.  What it would know of the raw data alone is set on its objects:
that, and a type's name, is all that reaches below its public interface here (wandb 0.31).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from os import fdopen
from tempfile import TemporaryDirectory, mkstemp
from typing import Any, Final, final

import wandb
from wandb.data_types import BatchableMedia
from wandb.plot import CustomChart

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

_REFUSALS: Final = (wandb.Error, ImportError, OSError, TypeError, ValueError)
"""What the client raises on values and keys that it does not take, and where a package is missing."""
_SHOWN_KEY: Final = 80


@contextmanager
def wandb_media(key: str, value: Media) -> Generator[Any]:
    """Give the client's object for a value, or a list of them, to be logged in the block.

    Logging moves or copies their files; what is left of them is removed.

    Raises:
        UnsupportedValueError: the client does not take the value, or its key, which becomes a file name.
    """
    try:
        with TemporaryDirectory(prefix="tracklayer-wandb-") as folder:
            yield _made(value, folder)
    except BackendLostError:
        raise
    except _REFUSALS as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)  # without long paths
        msg = f"the {value.kind} {key if len(key) <= _SHOWN_KEY else key[:_SHOWN_KEY] + '…'!r}: {reason}"
        raise UnsupportedValueError(msg) from error


def summary_entry(key: str, logged: Any, run: Any, step: int) -> tuple[str, Any]:
    """Return the summary's entry, as JSON data, for what was logged."""
    if isinstance(logged, CustomChart):
        return logged.spec.table_key, logged.table.to_json(run)
    if not isinstance(logged, list):
        return key, logged.to_json(run)
    taken: list[Any] = [item for item in logged if item.is_bound()]  # it takes only so many
    if isinstance(taken[0], BatchableMedia):
        return key, taken[0].seq_to_json(taken, run, key, step)
    return key, [item.to_json(run) for item in taken]


def charts_by_table(charts: Iterable[str]) -> dict[str, str]:
    """Return the keys of charts by those of the tables that stand for them in a run's history."""
    return {f"{section}{key}_table": key for key in charts for section in ("", "Custom Chart Tables/")}


@final
class Figure:
    """What the client takes for a figure of plotly: it knows them by their type's full name alone.

    So plotly need not be there, and has no chance to change the figure.
    """

    __module__ = "plotly.recorded"

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    def to_plotly_json(self) -> dict[str, Any]:
        """Return the figure as JSON data."""
        return self._data


def _made(value: Media, folder: str) -> Any:
    match value:
        case Image() | Audio() | Video() | Object3D():
            made = _made_of_file(value, folder)
            made._is_tmp = True  # noqa: SLF001 - as of raw data: so it moves the file, and names it by content
        case Html():
            made = wandb.Html(value.text(), inject=False, data_is_not_path=True)
        case Plotly():
            made = wandb.Plotly(Figure(value.figure()))
        case Table():
            made = _table(value, folder)
        case Chart():
            made = wandb.plot_table(
                value.spec, _table(value.table, folder), value.fields, value.strings, value.split_table
            )
        case MediaList():
            made = [_made(item, folder) for item in value.items]
        case _:
            msg = f"a {value.kind} is nothing that it knows"
            raise TypeError(msg)
    return made


def _made_of_file(value: Image | Audio | Video | Object3D, folder: str) -> Any:
    handle, path = mkstemp(suffix=f".{value.format}", dir=folder)
    with fdopen(handle, "wb") as file:
        file.write(value.file())
    match value:
        case Image():
            return wandb.Image(
                path,
                caption=value.caption,
                grouping=value.grouping,
                classes=value.classes,
                boxes=value.boxes,
                masks=value.masks,
            )
        case Audio():
            audio = wandb.Audio(path, sample_rate=value.sample_rate, caption=value.caption)
            audio._duration = value.duration  # noqa: SLF001 - of files, it does not look
            return audio
        case Video():
            video = wandb.Video(path, caption=value.caption)
            video._width, video._height = value.width, value.height  # noqa: SLF001 - of files, it does not look
            return video
        case Object3D():
            return wandb.Object3D(path, caption=value.caption)


def _table(value: Table, folder: str) -> wandb.Table:
    options = {name: value.encoded.data[name] for name in ("optional", "allow_mixed_types", "log_mode")}
    rows = [[_made(cell, folder) if isinstance(cell, Media) else cell for cell in row] for row in value.data]
    return wandb.Table(columns=value.columns, data=rows, **options)
