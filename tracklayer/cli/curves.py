"""Curves of metrics, drawn in characters: braille dots, or ASCII where the output has no others."""

from __future__ import annotations

import math
import textwrap
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tracklayer.cli.output import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from tracklayer.reading import Metric

CHARACTERS: Final = "⣿┤│└─…"
"""A sample of what curves are drawn with, but for ASCII."""

_HEIGHT: Final = 5
_NARROWEST: Final = 36
"""Curves stand side by side where each has so many characters."""
_WIDEST: Final = 76
_GAP: Final = 4
_DOTS_ACROSS: Final = 2  # of a braille character
_DOTS_DOWN: Final = 4
_NO_DOTS: Final = "\u2800"
_DOTTED: Final = 3  # columns of dots from one dot of a dotted line to the next
_UPPER_DOTS: Final = 0b00011011  # in a braille character's code: those of its upper two rows
_LOWER_DOTS: Final = 0b11100100
_TO_ASCII: Final[Mapping[int, str]] = {
    **{
        ord(_NO_DOTS) + dots: " '.:"[bool(dots & _UPPER_DOTS) + 2 * bool(dots & _LOWER_DOTS)]
        for dots in range(256)
    },
    **{ord(char): plain for char, plain in zip("┤│└─…", "||+-~", strict=True)},
}


class _Columns(NamedTuple):
    """A series as it is seen in a few columns of dots: what is in each, and whether it goes on from the last.

    The first, last, smallest and largest value of a column are all that a line through all of its points
    shows: U. Jugel et al., "M4: A Visualization-Oriented Time Series Data Aggregation", VLDB 2014.
    """

    place: NDArray[np.int64]
    first: NDArray[Any]
    last: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]
    goes_on: NDArray[np.bool_]


def grid(metrics: Sequence[Metric], width: int, *, in_ascii: bool) -> list[str]:
    """Return the lines of the metrics' curves, side by side as far as the width, in characters, goes."""
    from rich.cells import cell_len

    across = max(1, min(len(metrics), (width + _GAP) // (_NARROWEST + _GAP)))
    each = min(_WIDEST, (width - _GAP * (across - 1)) // across)
    drawn = [_drawn(metric, each) for metric in metrics]
    lines: list[str] = []
    for start in range(0, len(drawn), across):
        if start:
            lines.append("")
        lines += (
            (" " * _GAP).join(part + " " * (each - cell_len(part)) for part in beside).rstrip()
            for beside in zip_longest(*drawn[start : start + across], fillvalue="")
        )
    return [line.translate(_TO_ASCII) for line in lines] if in_ascii else lines


def _drawn(metric: Metric, width: int) -> list[str]:
    """Return the lines of one curve: its key and last value, the curve between its axes, what is not in it.

    Of several seeds, the curve is their mean, between dots at one standard deviation.
    """
    values: NDArray[Any] = metric.value
    edges: list[NDArray[Any]] = []
    notes: list[str] = []
    if values.ndim == 2:
        values, deviation, *edges = _band(metric.value)
        last = _short(deviation[-1].item())
        notes = [f"mean of {metric.value.shape[1]} seeds; dots: one standard deviation, last {last}"]
    notes += _not_finite(metric.step, values)
    ends = _ends([values, *edges])
    return [
        _titled(printable(metric.key), f"  last {_short(values[-1].item())}", width),
        *([] if ends is None else _plotted(metric.step, values, edges, ends, width)),
        *(line for note in notes for line in textwrap.wrap(note, width)),
    ]


def _titled(title: str, last: str, width: int) -> str:
    from rich.cells import cell_len

    room = max(1, width - cell_len(last))
    while cell_len(title) > room:  # the end of a key tells more than its beginning
        title = "…" + title.removeprefix("…")[1:]
    return title + " " * (room - cell_len(title)) + last


def _band(values: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return the mean of the seeds that have a value, their standard deviation, and where that ends."""
    import numpy as np

    there = ~np.isnan(values)
    with np.errstate(all="ignore"):  # where there is no seed, all are NaN; and huge numbers may overflow
        mean = np.where(there, values, 0.0).sum(axis=1) / there.sum(axis=1)
        squares = np.square(np.where(there, values - mean[:, None], 0.0))
        deviation = np.sqrt(squares.sum(axis=1) / there.sum(axis=1))
        return mean, deviation, mean - deviation, mean + deviation


def _ends(series: Sequence[NDArray[Any]]) -> tuple[Any, Any] | None:
    """Return the smallest and the largest finite value of all; None if there is none."""
    import numpy as np

    finite = [values[np.isfinite(values)] for values in series]
    if not any(map(len, finite)):
        return None
    return min(v.min() for v in finite if len(v)).item(), max(v.max() for v in finite if len(v)).item()


def _plotted(
    step: NDArray[np.int64],
    values: NDArray[Any],
    edges: Sequence[NDArray[Any]],
    ends: tuple[Any, Any],
    width: int,
) -> list[str]:
    """Return the lines of a curve between its axes."""
    from plotille import Canvas  # type: ignore[import-untyped]

    labels = _labels(*ends)
    margin = max(map(len, labels))
    across = max(1, width - margin - 2)
    # one unit is one dot: the canvas has nothing to scale
    canvas = Canvas(across, _HEIGHT, 0, 0, _DOTS_ACROSS * across, _DOTS_DOWN * _HEIGHT)
    places = _scaled(step, step[0].item(), step[-1].item(), _DOTS_ACROSS * across)

    def rows(of: NDArray[Any]) -> list[int]:
        found: list[int] = _scaled(of, *ends, _DOTS_DOWN * _HEIGHT).tolist()
        return found

    curve = _columns(places, values)
    before = -1, -1
    for place, first, last, low, high, goes_on in zip(
        curve.place.tolist(), *map(rows, curve[1:5]), curve.goes_on.tolist(), strict=True
    ):
        if goes_on:
            canvas.line(*before, place, first)
        canvas.line(place, low, place, high)
        before = place, last
    for edge in edges:
        dots = _columns(places, edge)
        for place, low, high in zip(dots.place.tolist(), rows(dots.low), rows(dots.high), strict=True):
            if place % _DOTTED == 0:
                canvas.point(place, low)
                canvas.point(place, high)

    lines = canvas.plot("\n").replace(_NO_DOTS, " ").split("\n")
    beside = [f"{label.rjust(margin)} {'┤' if label else '│'}" for label in labels]
    start, end = str(step[0]), str(step[-1])
    return [
        *(label + line for label, line in zip(beside, lines, strict=True)),
        " " * margin + " └" + "─" * across,
        " " * margin + "  " + (start if start == end else f"{start} {end.rjust(across - len(start) - 1)}"),
    ]


def _scaled(values: NDArray[Any], low: float, high: float, dots: int) -> NDArray[np.int64]:
    """Return the dot, from 0 to `dots` - 1, of each value; the middle one where low and high are the same."""
    import numpy as np

    size = float(max(abs(low), abs(high)))  # divided by it first, no difference overflows
    if low == high or high / size == low / size:
        return np.full(len(values), dots // 2)
    part = (values / size - low / size) / (high / size - low / size)
    return np.rint(part * (dots - 1)).astype(np.int64)


def _columns(places: NDArray[np.int64], values: NDArray[Any]) -> _Columns:
    """Return what is seen of a series whose points lie in these columns of dots, ascending."""
    import numpy as np

    finite = np.flatnonzero(np.isfinite(values))
    place, seen = places[finite], values[finite]
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    if not len(starts):
        return _Columns(place, seen, seen, seen, seen, np.empty(0, dtype=np.bool_))
    return _Columns(
        place[starts],
        seen[starts],
        seen[np.append(starts[1:], len(seen)) - 1],
        np.minimum.reduceat(seen, starts),
        np.maximum.reduceat(seen, starts),
        np.diff(finite, prepend=-2)[starts] == 1,  # a value that is not finite leaves a gap
    )


def _not_finite(step: NDArray[np.int64], values: NDArray[Any]) -> list[str]:
    """Say what is not finite, and so not in the curve."""
    import numpy as np

    kinds = (("NaN", np.isnan(values)), ("Infinity", values == math.inf), ("-Infinity", values == -math.inf))
    return [
        f"{name}: {count} of {len(values)} points, from step {step[found.argmax()]}"
        for name, found in kinds
        if (count := int(found.sum()))
    ]


def _labels(low: float, high: float) -> list[str]:
    """Return what stands beside each line of a curve, from the top."""
    labels = [""] * _HEIGHT
    if low == high:
        labels[_HEIGHT // 2] = _short(low)
    else:
        labels[-1], labels[0] = _told_apart(low, high)
    return labels


def _told_apart(low: float, high: float) -> tuple[str, str]:
    """Return two values in as many digits as tell them apart."""
    for digits in (4, 8):
        texts = _short(low, digits), _short(high, digits)
        if texts[0] != texts[1]:
            return texts
    return str(low), str(high)


def _short(value: float, digits: int = 4) -> str:
    """Return a number in so many digits; an integer in all of its own, if they are few."""
    if math.isfinite(value):
        return str(value) if isinstance(value, int) and abs(value) < 10**6 else f"{value:.{digits}g}"
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
