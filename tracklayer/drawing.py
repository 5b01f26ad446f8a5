"""Charts drawn as pictures, with matplotlib, for those who cannot show them as W&B's pages do."""

from __future__ import annotations

from io import BytesIO
from math import ceil, isfinite, nan
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from tracklayer.errors import UnsupportedValueError
from tracklayer.values import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tracklayer.media.chart import Chart

_INCHES: Final = (6.4, 4.8)
_DOTS_PER_INCH: Final = 100
_HISTOGRAM_BINS: Final = 30
_MOST_PARTS: Final = 1_000  # bars, lines or classes: more are a blur that takes many seconds to draw
_MOST_NAMES: Final = 40  # beside an axis: of more, some are left out evenly
_MOST_IN_LEGEND: Final = 20
_MOST_NUMBERED: Final = 16  # classes of a confusion matrix, whose cells have room for their numbers
_NAME_LENGTH: Final = 20
_TITLE_LENGTH: Final = 80
_LARGEST: Final = 1e300  # matplotlib adds margins, which must not overflow

Axes: TypeAlias = Any  # matplotlib is looked for when a chart is drawn


def draw_chart(chart: Chart) -> bytes:
    """Return a picture of a chart: a PNG of 640 by 480 pixels.

    It shows the charts of `tracklayer.plot`, as far as their numbers are finite.  It may be called on any
    thread: it does not use pyplot, and of what the process shares it reads matplotlib's `rcParams` alone.

    Raises:
        UnsupportedValueError: its specification is known to W&B only, a column that it names is missing or
            not made of numbers, there are more than 1,000 bars, lines or classes, or matplotlib is not
            installed, or cannot draw with these `rcParams`.
    """
    draw = _DRAWN.get(chart.spec)
    if draw is None:
        msg = f"a chart of the specification {chart.spec!r} can be drawn by W&B only"
        raise UnsupportedValueError(msg)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = f"drawing a chart needs matplotlib ({error}): pip install 'tracklayer[plot]'"
        raise UnsupportedValueError(msg) from error
    figure: Any = Figure(_INCHES, _DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(_shown(chart.title, _TITLE_LENGTH))
    draw(axes, _Content(chart))
    picture = BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    try:
        canvas.print_png(picture)
    except (RuntimeError, ValueError) as error:  # as with `text.usetex`, where LaTeX is not there or refuses
        msg = f"matplotlib cannot draw the chart: {error}"
        raise UnsupportedValueError(msg) from error
    return picture.getvalue()


@final
class _Content:
    """What a chart shows: columns of its table, by the fields that name them, and strings."""

    def __init__(self, chart: Chart) -> None:
        self._table = chart.table
        self._fields = chart.fields
        self._strings = chart.strings

    def string(self, name: str) -> str:
        return str(self._strings.get(name) or "")

    def column(self, field: str) -> str:
        """Return the name of a field's column."""
        return str(self._fields.get(field))

    def texts(self, field: str) -> list[str]:
        return [str(cell) for cell in self._cells(field)]

    def groups(self, field: str) -> list[str]:
        """Return each row's group; where the chart does not use this field, they are all of one."""
        return self.texts(field) if self._fields.get(field) is not None else [""] * len(self._table.data)

    def numbers(self, field: str) -> list[float]:
        """Return a column's numbers, NaN in place of those that are not finite.

        Raises:
            UnsupportedValueError: it is made of something else.
        """
        try:
            return [_number(cell) for cell in self._cells(field)]
        except (TypeError, ValueError, OverflowError) as error:
            msg = f"the chart's {field}, column {self.column(field)!r}, is not made of numbers: {error}"
            raise UnsupportedValueError(msg) from error

    def _cells(self, field: str) -> list[Any]:
        column = self._fields.get(field)
        if column not in self._table.columns:
            msg = f"the chart's {field} is to be column {column!r}, which its table does not have"
            raise UnsupportedValueError(msg)
        return self._table.get_column(column)


def _line(axes: Axes, content: _Content) -> None:
    _curves(axes, content, "x", "y", "stroke")
    _set_labels(axes, content.column("x"), content.column("y"))


def _line_series(axes: Axes, content: _Content) -> None:
    _curves(axes, content, "step", "lineVal", "lineKey")
    _set_labels(axes, content.string("xname"), "")


def _area_under_curve(axes: Axes, content: _Content) -> None:
    _curves(axes, content, "x", "y", "class")
    _set_labels(axes, content.string("x-axis-title"), content.string("y-axis-title"))


def _curves(axes: Axes, content: _Content, x: str, y: str, group: str) -> None:
    """Draw a line for each group, from left to right."""
    curves: dict[str, list[tuple[float, float]]] = {}
    rows = zip(content.groups(group), content.numbers(x), content.numbers(y), strict=True)
    for name, across, up in rows:
        if isfinite(across):
            curves.setdefault(name, []).append((across, up))
    _check_count(len(curves), "lines")
    lines: list[Any] = []
    for points in curves.values():
        xs, ys = zip(*sorted(points, key=lambda point: point[0]), strict=True)
        lines += axes.plot(xs, ys, marker="o" if len(points) == 1 else None)  # one point makes no line
    if 1 < len(lines) <= _MOST_IN_LEGEND:
        axes.legend(lines, [_shown(name) for name in curves], loc="upper left", bbox_to_anchor=(1, 1))


def _scatter(axes: Axes, content: _Content) -> None:
    axes.scatter(content.numbers("x"), content.numbers("y"), s=12)
    _set_labels(axes, content.column("x"), content.column("y"))


def _bar(axes: Axes, content: _Content) -> None:
    names = content.texts("label")
    _check_count(len(names), "bars")
    axes.barh(range(len(names)), content.numbers("value"))
    _set_names(axes.set_yticks, names)
    axes.invert_yaxis()  # the first row is the topmost
    _set_labels(axes, content.column("value"), content.column("label"))


def _histogram(axes: Axes, content: _Content) -> None:
    bins = Histogram(content.numbers("value"), num_bins=_HISTOGRAM_BINS).bins
    axes.stairs(bins.counts, bins.edges, fill=True)
    _set_labels(axes, content.column("value"), "count")


def _confusion_matrix(axes: Axes, content: _Content) -> None:
    actual, predicted = content.texts("Actual"), content.texts("Predicted")
    classes = list(dict.fromkeys((*actual, *predicted)))
    _check_count(len(classes), "classes")
    position = {name: number for number, name in enumerate(classes)}
    counts = [[0.0] * len(classes) for _ in classes]
    for name, other, count in zip(actual, predicted, content.numbers("nPredictions"), strict=True):
        counts[position[name]][position[other]] += count
    if classes:
        axes.imshow(counts, cmap="Blues", vmin=0)
    if len(classes) <= _MOST_NUMBERED:
        middle = max(map(max, counts), default=0.0) / 2
        for row, line in enumerate(counts):
            for column, count in enumerate(line):
                colour = "white" if count > middle else "black"
                axes.text(column, row, f"{count:g}", ha="center", va="center", color=colour)
    _set_names(axes.set_xticks, classes, rotation=90)
    _set_names(axes.set_yticks, classes)
    _set_labels(axes, "Predicted", "Actual")


_DRAWN: Final[Mapping[str, Callable[[Axes, _Content], None]]] = {
    "wandb/line/v0": _line,
    "wandb/lineseries/v0": _line_series,
    "wandb/area-under-curve/v0": _area_under_curve,
    "wandb/scatter/v0": _scatter,
    "wandb/bar/v0": _bar,
    "wandb/histogram/v0": _histogram,
    "wandb/confusion_matrix/v1": _confusion_matrix,
}
"""By the specification that W&B's client names in wandb/plot; what these say is on W&B's server."""


def _check_count(count: int, what: str) -> None:
    if count > _MOST_PARTS:
        msg = f"a chart of {count:,} {what} is not drawn; {_MOST_PARTS:,} are the most"
        raise UnsupportedValueError(msg)


def _set_labels(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(_shown(across))
    axes.set_ylabel(_shown(up))


def _set_names(set_ticks: Callable[..., object], names: Sequence[str], **options: Any) -> None:
    every = max(1, ceil(len(names) / _MOST_NAMES))
    set_ticks(range(0, len(names), every), list(map(_shown, names[::every])), **options)


def _number(cell: Any) -> float:
    number = nan if cell is None else float(cell)
    return max(-_LARGEST, min(number, _LARGEST)) if isfinite(number) else nan


def _shown(text: str, longest: int = _NAME_LENGTH) -> str:
    """Return text as it stands on a picture: one short line, in which `$` begins no formula."""
    line = " ".join(text.split())
    cut = line if len(line) <= longest else f"{line[: longest - 1]}…"
    return cut.replace("$", r"\$")
