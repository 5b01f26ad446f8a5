"""Mending: what TensorBoard would show out of order or not at all, repeated in order.

Where a step of a tag goes back (a late row, a value logged again, a job resumed from an earlier
checkpoint), TensorBoard's loaders hide points that stand, or show points that do not.  The mended
file is read last.  It begins with marks of a restart at the lowest such step, at which the Python
loader drops all from there on; the data server drops each tag's points from that tag's first step
in the file on.  Then it repeats, in order, the last value of every tag and step from there on.

No other file is changed, and the mended file appears whole or not at all.  A run is left as it is
when another process has written to its folder meanwhile, and when its files are larger than
`LIMIT_BYTES`: reading them would hold up the program's end.  The data server then shows what is
right for a job that goes on from a checkpoint, which is how most large runs come to go back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracklayer_tensorboard.encoding import (
    HPARAMS_PREFIX,
    Event,
    Point,
    file_start,
    parse,
    restart,
    row,
)
from tracklayer_tensorboard.event_file import write_whole
from tracklayer_tensorboard.records import read_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

OWN_PREFIX: Final = "tracklayer/"
"""The tags that tell of the run itself."""
LIMIT_BYTES: Final = 16_000_000
"""Some 500,000 scalars: read twice and written once, five seconds and 300 MB of memory."""

# where a newer value beside an older one does no harm
_LENIENT: Final = (OWN_PREFIX, HPARAMS_PREFIX)


def mend(files: Sequence[Path], target: Path) -> bool:
    """Write the mended file if it is needed; say whether TensorBoard's order is right now.

    Raises:
        OSError: a file could not be read or written; all is as before.
    """
    if sum(path.stat().st_size for path in files) > LIMIT_BYTES:
        return False
    step = _lowest_hidden_step(files)
    if step is not None:
        write_whole(target, _mended(files, step))
    return True


def _events(files: Iterable[Path]) -> Iterator[Event]:
    for path in files:
        for record in read_records(path):
            event = parse(record)
            if event is None:
                break
            yield event


def _lowest_hidden_step(files: Iterable[Path]) -> int | None:
    """Return the lowest step at which a tag's steps went back and were not mended since."""
    latest: dict[str, int] = {}
    lowest: int | None = None
    for event in _events(files):
        if event.restart:
            latest = {tag: min(last, event.step - 1) for tag, last in latest.items()}
            if lowest is not None and event.step <= lowest:
                lowest = None
        for point in event.points:
            tag: str = point.tag
            if event.step > latest.get(tag, event.step - 1):
                latest[tag] = event.step
            elif not tag.startswith(_LENIENT) and (lowest is None or event.step < lowest):
                lowest = event.step
    return lowest


def _mended(files: Iterable[Path], lowest: int) -> Iterator[bytes]:
    standing: dict[str, dict[int, tuple[float, Point]]] = {}
    for event in _events(files):
        if event.step >= lowest:
            for point in event.points:
                standing.setdefault(point.tag, {})[event.step] = event.time, point
    rows: dict[tuple[int, float], list[Point]] = {}
    for series in standing.values():
        for step, (time, point) in series.items():
            rows.setdefault((step, time), []).append(point)
    start = min(time for _, time in rows)
    yield file_start(start)
    yield restart(lowest, start)
    yield restart(lowest, start)
    for step, time in sorted(rows):
        yield row(rows[step, time], step, time)
