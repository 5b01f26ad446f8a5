"""Mending: what TensorBoard would show out of order or not at all, repeated in order.

Where a step of a tag goes back (a late row, a value logged again, a job resumed from an earlier
checkpoint), TensorBoard's loaders hide points that stand, or show points that do not.  The mended
file is read last.  It begins with marks of a restart at the lowest such step, at which the Python
loader drops all from there on; the data server drops each tag's points from that tag's first step
in the file on.  Then it repeats, in order, the last value of every tag and step from there on.

No other file is changed, and the mended file appears whole or not at all.  A run is left as it is
when another process has written to its folder meanwhile, and when it has more than `LIMIT_POINTS` or
`LIMIT_BYTES`: reading it would hold up the program's end.  The data server then shows what is
right for a job that goes on from a checkpoint, which is how most large runs come to go back.

Pictures and sounds make rows large.  They are read one at a time, and again when they are written;
what is kept in between is where they are.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from tracklayer_tensorboard.encoding import HPARAMS_PREFIX, Event, file_start, parse, restart, row
from tracklayer_tensorboard.event_file import write_whole
from tracklayer_tensorboard.records import read_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

OWN_PREFIX: Final = "tracklayer/"
"""The tags that tell of the run itself."""
LIMIT_POINTS: Final = 500_000
"""Each in a row of its own, read three times and written once: ten seconds and 150 MB of memory."""
LIMIT_BYTES: Final = 250_000_000
"""Of large rows: two seconds, and the memory of one row."""

# where a newer value beside an older one does no harm
_LENIENT: Final = (OWN_PREFIX, HPARAMS_PREFIX)


class _Place(NamedTuple):
    """Where an event is; sorted, places are in the order in which TensorBoard is to read them."""

    step: int
    time: float
    path: Path
    offset: int
    size: int


def mend(files: Sequence[Path], target: Path) -> bool:
    """Write the mended file if it is needed; say whether TensorBoard's order is right now.

    Raises:
        OSError: a file could not be read or written; all is as before.
    """
    if sum(path.stat().st_size for path in files) > LIMIT_BYTES:
        return False
    count, step = _lowest_hidden_step(files)
    if count > LIMIT_POINTS:
        return False
    if step is not None:
        write_whole(target, _mended(files, step))
    return True


def _events(files: Iterable[Path]) -> Iterator[tuple[_Place, Event]]:
    for path in files:
        for offset, data in read_records(path):
            event = parse(data)
            if event is None:
                break
            yield _Place(event.step, event.time, path, offset, len(data)), event


def _lowest_hidden_step(files: Iterable[Path]) -> tuple[int, int | None]:
    """Return how many points there are, and the lowest step at which a tag went back, not mended since.

    More points than the limit are not counted.
    """
    count = 0
    latest: dict[str, int] = {}
    lowest: int | None = None
    for _, event in _events(files):
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
        count += len(event.points)
        if count > LIMIT_POINTS:
            break
    return count, lowest


def _mended(files: Iterable[Path], lowest: int) -> Iterator[bytes]:
    standing: dict[str, dict[int, _Place]] = {}
    for place, event in _events(files):
        if event.step >= lowest:
            for point in event.points:
                standing.setdefault(point.tag, {})[event.step] = place
    places = sorted({place for series in standing.values() for place in series.values()})
    start = min(place.time for place in places)
    yield file_start(start)
    yield restart(lowest, start)
    yield restart(lowest, start)
    for place, event in _again(places):
        points = [point for point in event.points if standing[point.tag][event.step] == place]
        yield row(points, event.step, event.time)


def _again(places: Iterable[_Place]) -> Iterator[tuple[_Place, Event]]:
    """Read events that were read before.

    Raises:
        OSError: they are not there any more.
    """
    for path, group in groupby(places, lambda place: place.path):
        with path.open("rb") as file:
            for place in group:
                file.seek(place.offset)
                data = file.read(place.size)
                event = parse(data) if len(data) == place.size else None
                if event is None:
                    msg = f"{path} was changed while it was read"
                    raise OSError(msg)
                yield place, event
