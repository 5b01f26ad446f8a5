"""What a run's processes were, printed and measured: written beside its rows, and read back."""

from __future__ import annotations

import json
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, cast, final

from tracklayer.surroundings import ConsoleLine, Environment, Stream, SystemRow
from tracklayer_sqlite.points import number
from tracklayer_sqlite.schema import RUN, storable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

_PUT_ENVIRONMENT: Final = f"INSERT OR REPLACE INTO environments (run, segment, data) VALUES ({RUN}, ?, ?)"
_ADD_LINE: Final = f"INSERT INTO console (run, line, time, stream, text) VALUES ({RUN}, ?, ?, ?, ?)"
_LINES: Final = "SELECT line, time, stream, text FROM console WHERE line > ? ORDER BY line LIMIT ?"
_METRICS: Final = (
    "SELECT row, time, key, value FROM system_metrics WHERE row > ? AND row <= ? ORDER BY row, key"
)
_PAGE: Final = 1000
_ADD_METRIC: Final = f"INSERT INTO system_metrics (run, row, key, time, value) VALUES ({RUN}, ?, ?, ?, ?)"


@final
class PendingSurroundings:
    """What is kept of them for the next commit of a segment."""

    def __init__(self, connection: Connection, segment: int) -> None:
        self._segment = segment
        self._environment: dict[str, Any] = {}
        self._is_new = False
        self._line = connection.exec_driver_sql("SELECT max(line) FROM console").scalar() or 0
        self._row = connection.exec_driver_sql("SELECT max(row) FROM system_metrics").scalar() or 0
        self._lines: list[tuple[int, float, str, str]] = []
        self._metrics: list[tuple[int, str, float, float]] = []

    def __bool__(self) -> bool:
        """Say whether there is anything to write."""
        return bool(self._is_new or self._lines or self._metrics)

    def set_environment(self, environment: Mapping[str, Any]) -> None:
        """Keep entries; those of before that are not among them stay."""
        self._environment.update(environment)
        self._is_new = True

    def add_lines(self, lines: Sequence[ConsoleLine]) -> None:
        """Keep lines, numbered on from those that are there."""
        first = self._line + 1
        self._line += len(lines)
        self._lines.extend(
            (place, line.time, line.stream, storable(line.text)) for place, line in enumerate(lines, first)
        )

    def add_row(self, row: SystemRow) -> None:
        """Keep a row, numbered on from those that are there."""
        self._row += 1
        self._metrics.extend((self._row, storable(key), row.time, value) for key, value in row.values.items())

    def write(self, connection: Connection) -> None:
        """Write what is kept, within the caller's transaction."""
        if self._is_new:
            connection.exec_driver_sql(_PUT_ENVIRONMENT, (self._segment, json.dumps(self._environment)))
        if self._lines:
            connection.exec_driver_sql(_ADD_LINE, self._lines)
        if self._metrics:
            connection.exec_driver_sql(_ADD_METRIC, self._metrics)

    def clear(self) -> None:
        """Forget what was written."""
        self._is_new = False
        self._lines.clear()
        self._metrics.clear()


def environments(connection: Connection) -> dict[int, Environment]:
    """Return the environments by the numbers of their segments."""
    rows = connection.exec_driver_sql("SELECT segment, data FROM environments ORDER BY segment")
    return {segment: json.loads(data) for segment, data in rows}


def console(connection: Connection, after: int) -> Iterator[ConsoleLine]:
    """Yield the lines behind the first so many; the file is held for one page of them at a time."""
    while page := connection.exec_driver_sql(_LINES, (after, _PAGE)).all():
        for _, time, stream, text in page:
            yield ConsoleLine(time, cast("Stream", stream), text)
        after = page[-1][0]


def system_metrics(connection: Connection, after: int) -> Iterator[SystemRow]:
    """Yield the rows behind the first so many; the file is held for one page of them at a time."""
    while page := connection.exec_driver_sql(_METRICS, (after, after + _PAGE)).all():
        for _, metrics in groupby(page, key=itemgetter(0)):
            row = list(metrics)
            yield SystemRow(row[0][1], {key: number(value) for _, _, key, value in row})
        after += _PAGE
