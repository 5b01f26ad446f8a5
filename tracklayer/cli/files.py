"""Values as files: which there are, and what is in each."""

from __future__ import annotations

import csv
import io
import json
import re
from contextlib import suppress
from datetime import date
from itertools import count
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from tracklayer.cli import output
from tracklayer.contents import Encoded
from tracklayer.errors import UnsupportedValueError
from tracklayer.media.base import Media, embedded
from tracklayer.naming import file_name
from tracklayer.values import Histogram, Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tracklayer.media.chart import Chart
    from tracklayer.media.table import Table

_LONGEST_PATH: Final = 100
_ENDING: Final = re.compile(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20})?")
_ENDINGS: Final[Mapping[str, str]] = {"html": "html", "plotly": "plotly.json"}
"""Of the kinds that do not say theirs."""
_FACTS: Final = ("caption", "grouping", "classes", "boxes")


class File(NamedTuple):
    """A file's name, and what reads its content."""

    name: str
    read: Callable[[], bytes]


def folder_of(key: str) -> PurePath:
    """Return the folder that stands for a key: a relative path that no other key has, and no way out.

    `train/images` stands for itself; a key with other characters, or a long one, is one folder that
    `file_name` names.  None has a dot, which every file has: a file never stands in a folder's way.
    """
    parts = key.split("/")
    if len(key) <= _LONGEST_PATH and all(file_name(part) == part for part in parts):
        return PurePath(*parts)
    return PurePath(file_name(key))


def files_of(value: Text | Histogram | Media, stem: str) -> Iterator[File]:
    """Yield the files that a value is written out as; their names begin with the stem.

    Raises:
        CorruptRunError: a table, whose content names further files, is not what was recorded.
    """
    if isinstance(value, Text):
        yield _text(f"{stem}.txt", value.text)
    elif isinstance(value, Histogram):
        yield _json(stem, value.to_json())
    elif value.kind == "list":
        for number, item in enumerate(value.encoded.data["items"]):
            yield from files_of(embedded(item, value.encoded.contents), f"{stem}_{number}")
    elif value.kind == "table":
        yield from _table(cast("Table", value), stem)
    elif value.kind == "chart":
        yield from _chart(cast("Chart", value), stem)
    else:
        yield from _single(value.kind, value.encoded, stem)


def _single(kind: str, encoded: Encoded, stem: str) -> Iterator[File]:
    """Yield a value's one file, those of its masks, and one of what is told of it, if anything is."""
    data, contents = encoded.data, encoded.contents
    ending = data.get("format") or _ENDINGS[kind]
    if not _ENDING.fullmatch(ending):  # of a path, it may be anything
        ending = "bin"
    yield File(f"{stem}.{ending}", contents[data["file"]].read)
    facts = {name: data[name] for name in _FACTS if data.get(name) not in (None, {})}
    recorded: Mapping[str, Mapping[str, Any]] = data.get("masks") or {}
    masks: dict[str, Any] = {}
    for number, (name, mask) in enumerate(recorded.items()):
        file = File(f"{stem}_mask_{number}.png", contents[mask["file"]].read)
        masks[name] = {**mask, "file": file.name}
        yield file
    if masks:
        facts["masks"] = masks
    if facts:
        yield _json(stem, facts)


def _table(table: Table, stem: str) -> Iterator[File]:
    """Yield the files of a table's media, and the table as CSV, in which their names stand for them."""
    numbers = count()
    files: list[File] = []

    def written(cell: Any) -> str:
        if isinstance(cell, date):
            return cell.isoformat()
        first, *others = files_of(cell, f"{stem}_{next(numbers)}")
        files.extend((first, *others))
        return first.name

    def text(cell: Any) -> str:
        if cell is None:
            return ""
        if isinstance(cell, (str, date, Media)):
            return cell if isinstance(cell, str) else written(cell)
        return json.dumps(cell, ensure_ascii=False, default=written)

    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(table.columns)
    writer.writerows([text(cell) for cell in row] for row in table.data)
    yield from files
    yield _text(f"{stem}.csv", lines.getvalue())


def _chart(chart: Chart, stem: str) -> Iterator[File]:
    """Yield a chart's table, what it shows of it, and a picture of it, if one can be drawn here."""
    from tracklayer.drawing import draw_chart
    from tracklayer.media.table import Table

    data, contents = chart.encoded.data, chart.encoded.contents
    yield from _table(Table.of(Encoded(data["table"], contents)), stem)
    yield _json(stem, {name: data[name] for name in ("spec", "fields", "strings")})
    with suppress(UnsupportedValueError):  # W&B alone knows how, or there is no matplotlib
        picture = draw_chart(chart)
        yield File(f"{stem}.png", lambda: picture)


def _json(stem: str, data: Mapping[str, Any]) -> File:
    text = json.dumps(output.strict(data), ensure_ascii=False, allow_nan=False)
    return _text(f"{stem}.json", f"{text}\n")


def _text(name: str, text: str) -> File:
    return File(name, lambda: text.encode("utf-8", "backslashreplace"))  # half a surrogate pair is no UTF-8
