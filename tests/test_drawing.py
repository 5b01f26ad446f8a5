"""Charts that are drawn show the numbers of their tables."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from matplotlib.backends import backend_agg
from PIL import Image

from tracklayer import plot
from tracklayer.drawing import draw_chart
from tracklayer.errors import UnsupportedValueError
from tracklayer.media.chart import Chart
from tracklayer.media.table import Table

LABELS = [0, 0, 1, 1, 2, 2]
SCORES = [
    [0.8, 0.1, 0.1],
    [0.4, 0.5, 0.1],
    [0.1, 0.7, 0.2],
    [0.3, 0.4, 0.3],
    [0.1, 0.1, 0.8],
    [0.2, 0.5, 0.3],
]
NAMES = ["cat", "dog", "bird"]
POINTS = Table(["x", "y", "name"], [[2, 1.5, "a"], [0, 1.0, "b"], [1, 0.5, "a"], [0, 2.0, "a"]])

CHARTS: dict[str, Callable[[], Chart]] = {
    "line": lambda: plot.line(POINTS, "x", "y", stroke="name", title="a line"),
    "line series": lambda: plot.line_series([0, 1], [[1, 2], [2, 1]], keys=["up", "down"], xname="epoch"),
    "scatter": lambda: plot.scatter(POINTS, "x", "y", title="dots"),
    "bar": lambda: plot.bar(POINTS, "name", "y", title="bars"),
    "histogram": lambda: plot.histogram(POINTS, "y", title="counts"),
    "confusion matrix": lambda: plot.confusion_matrix(y_true=LABELS, probs=SCORES, class_names=NAMES),
    "ROC curve": lambda: plot.roc_curve(LABELS, SCORES, labels=NAMES),
    "PR curve": lambda: plot.pr_curve(LABELS, SCORES, labels=NAMES),
}


@pytest.fixture
def axes_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Chart], Any]:
    """Draw a chart; return matplotlib's axes, as they were when the picture was made."""
    figures: list[Any] = []

    class Canvas(backend_agg.FigureCanvasAgg):
        def __init__(self, figure: Any) -> None:
            super().__init__(figure)
            figures.append(figure)

    monkeypatch.setattr(backend_agg, "FigureCanvasAgg", Canvas)

    def drawn(chart: Chart) -> Any:
        assert draw_chart(chart)
        (axes,) = figures.pop().axes
        return axes

    return drawn


def lines(axes: Any) -> list[list[tuple[float, float]]]:
    """Return the points of each line."""
    return [[(float(x), float(y)) for x, y in line.get_xydata()] for line in axes.get_lines()]


def legend(axes: Any) -> list[str]:
    """Return the legend's names."""
    return [text.get_text() for text in axes.get_legend().get_texts()]


def labels(axes: Any) -> tuple[str, str, str]:
    """Return the title, and the labels of x and y."""
    return axes.get_title(), axes.get_xlabel(), axes.get_ylabel()


def ticks(axis: Any) -> list[str]:
    """Return the names beside an axis."""
    return [text.get_text() for text in axis.get_ticklabels()]


@pytest.mark.slow
@pytest.mark.parametrize("make", CHARTS.values(), ids=CHARTS.keys())
def test_every_chart_of_plot_is_drawn_as_a_picture(make: Callable[[], Chart]) -> None:
    chart = make()
    file = draw_chart(chart)
    picture = Image.open(BytesIO(file))
    assert (picture.format, picture.size) == ("PNG", (640, 480))
    assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 20
    assert draw_chart(Chart.of(chart.encoded)) == file


def test_a_line_goes_from_left_to_right_for_each_group(axes_of: Callable[[Chart], Any]) -> None:
    axes = axes_of(CHARTS["line"]())
    assert lines(axes) == [[(0, 2.0), (1, 0.5), (2, 1.5)], [(0, 1.0)]]
    assert legend(axes) == ["a", "b"]
    assert axes.get_lines()[1].get_marker() == "o"
    assert labels(axes) == ("a line", "x", "y")


def test_a_line_without_groups_is_one_line(axes_of: Callable[[Chart], Any]) -> None:
    axes = axes_of(plot.line(Table(["x", "y"], [[1, 1.0], [0, 0.5]]), "x", "y"))
    assert lines(axes) == [[(0, 0.5), (1, 1.0)]]
    assert axes.get_legend() is None


def test_a_line_series_has_its_keys_and_its_x(axes_of: Callable[[Chart], Any]) -> None:
    axes = axes_of(CHARTS["line series"]())
    assert lines(axes) == [[(0, 1), (1, 2)], [(0, 2), (1, 1)]]
    assert legend(axes) == ["up", "down"]
    assert labels(axes) == ("", "epoch", "")


@pytest.mark.parametrize(
    ("kind", "title", "x", "y"),
    [
        ("ROC curve", "ROC Curve", "False positive rate", "True positive rate"),
        ("PR curve", "Precision-Recall Curve", "Recall", "Precision"),
    ],
)
def test_a_curve_of_scores_is_that_of_its_table(
    axes_of: Callable[[Chart], Any], kind: str, title: str, x: str, y: str
) -> None:
    chart = CHARTS[kind]()
    axes = axes_of(chart)
    assert labels(axes) == (title, x, y)
    assert legend(axes) == NAMES
    columns = [chart.table.get_column(chart.fields[field]) for field in ("class", "x", "y")]
    expected = [
        sorted((a, b) for name, a, b in zip(*columns, strict=True) if name == wanted) for wanted in NAMES
    ]
    assert [sorted(points) for points in lines(axes)] == expected


def test_a_scatter_has_its_points(axes_of: Callable[[Chart], Any]) -> None:
    axes = axes_of(CHARTS["scatter"]())
    (points,) = axes.collections
    assert points.get_offsets().tolist() == [[2, 1.5], [0, 1.0], [1, 0.5], [0, 2.0]]
    assert labels(axes) == ("dots", "x", "y")


def test_bars_stand_below_each_other_in_the_order_of_rows(axes_of: Callable[[Chart], Any]) -> None:
    axes = axes_of(CHARTS["bar"]())
    assert [bar.get_width() for bar in axes.patches] == [1.5, 1.0, 0.5, 2.0]
    assert ticks(axes.yaxis) == ["a", "b", "a", "a"]
    assert axes.yaxis_inverted()
    assert labels(axes) == ("bars", "y", "name")


def test_a_histogram_counts(axes_of: Callable[[Chart], Any]) -> None:
    values = np.random.default_rng(0).normal(size=500)
    axes = axes_of(plot.histogram(Table(["v"], [[float(value)] for value in values]), "v"))
    (stairs,) = axes.patches
    counts, edges, _ = stairs.get_data()
    expected, expected_edges = np.histogram(values, bins=30)
    assert list(counts) == expected.tolist()
    assert edges == pytest.approx(expected_edges)


def test_a_confusion_matrix_has_what_is_actual_in_rows(axes_of: Callable[[Chart], Any]) -> None:
    axes = axes_of(plot.confusion_matrix(y_true=[0, 0, 0, 1], preds=[1, 1, 0, 1], class_names=["no", "yes"]))
    (image,) = axes.images
    assert image.get_array().tolist() == [[1, 2], [0, 1]]
    assert [text.get_text() for text in axes.texts] == ["1", "2", "0", "1"]
    assert ticks(axes.xaxis) == ticks(axes.yaxis) == ["no", "yes"]
    assert labels(axes)[1:] == ("Predicted", "Actual")


# -- awkward content ------------------------------------------------------------------------------

FIELDS: dict[str, dict[str, str]] = {
    "wandb/line/v0": {"x": "n", "y": "n", "stroke": "s"},
    "wandb/scatter/v0": {"x": "n", "y": "n"},
    "wandb/bar/v0": {"label": "s", "value": "n"},
    "wandb/histogram/v0": {"value": "n"},
    "wandb/confusion_matrix/v1": {"Actual": "s", "Predicted": "s", "nPredictions": "n"},
}
LARGEST = sys.float_info.max
AWKWARD: dict[str, list[list[Any]]] = {
    "nothing": [],
    "none that is finite": [[math.nan, "a"], [None, "b"], [math.inf, "c"]],
    "huge and not finite": [[LARGEST, "a"], [-LARGEST, "b"], [1e-320, "c"], [math.nan, "d"], [-math.inf, ""]],
    "zeros": [[0, "a"], [0, "a"]],
    "strange names": [[True, "$a$ \\foo"], [2.5, "_b"], [3, ""], [4, "x" * 300], [5, "two\nlines\t"], [6, 1]],
    "many names": [[number, f"name {number}"] for number in range(300)],
}


@pytest.mark.parametrize("rows", AWKWARD.values(), ids=AWKWARD.keys())
@pytest.mark.parametrize("spec", FIELDS)
def test_awkward_content_is_drawn(spec: str, rows: list[list[Any]]) -> None:
    table = Table(["n", "s"], rows, allow_mixed_types=True)
    strings = {"title": "100 $ and $\\frac", "xname": "_x", "x-axis-title": "y" * 500}
    assert draw_chart(Chart(table, spec, FIELDS[spec], strings)).startswith(b"\x89PNG")


def test_names_are_shortened_and_are_no_formulas(axes_of: Callable[[Chart], Any]) -> None:
    table = Table(["n", "s"], [[1, "$a$ or $b$"], [2, "_long " * 20], [3, "_long " * 30]])
    axes = axes_of(plot.bar(table, "s", "n"))
    assert ticks(axes.yaxis) == [r"\$a\$ or \$b\$", *["_long _long _long _…"] * 2]
    assert len(axes.patches) == 3


@pytest.mark.parametrize("spec", ["wandb/bar/v0", "wandb/confusion_matrix/v1"])
def test_of_many_names_some_are_left_out(axes_of: Callable[[Chart], Any], spec: str) -> None:
    table = Table(["n", "s"], AWKWARD["many names"])
    shown = ticks(axes_of(Chart(table, spec, FIELDS[spec])).yaxis)
    assert shown == [f"name {number}" for number in range(0, 300, 8)]


# -- what cannot be drawn -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "fields", "message"),
    [
        ("somebody/violin", {"x": "n"}, "'somebody/violin' can be drawn by W&B only"),
        ("wandb/scatter/v0", {"x": "n", "y": "m"}, "y is to be column 'm', which its table does not have"),
        ("wandb/scatter/v0", {"x": "n"}, "y is to be column None"),
        ("wandb/scatter/v0", {"x": "n", "y": "s"}, "y, column 's', is not made of numbers: .*'a'"),
        ("wandb/scatter/v0", {"x": "n", "y": "d"}, "y, column 'd', is not made of numbers"),
        ("wandb/scatter/v0", {"x": "n", "y": "i"}, "y, column 'i', is not made of numbers: int too large"),
    ],
)
def test_what_cannot_be_drawn_is_refused(spec: str, fields: dict[str, str], message: str) -> None:
    table = Table(["n", "s", "d", "i"], [[1, "a", {"b": 2}, 10**400]])
    with pytest.raises(UnsupportedValueError, match=message):
        draw_chart(Chart(table, spec, fields))


@pytest.mark.parametrize(
    ("spec", "what"),
    [("wandb/bar/v0", "bars"), ("wandb/line/v0", "lines"), ("wandb/confusion_matrix/v1", "classes")],
)
def test_what_would_be_a_blur_is_refused(spec: str, what: str) -> None:
    table = Table(["n", "s"], [[number, str(number)] for number in range(1_001)])
    with pytest.raises(UnsupportedValueError, match=f"1,001 {what} is not drawn"):
        draw_chart(Chart(table, spec, FIELDS[spec]))


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UnsupportedValueError, match="pip install 'tracklayer\\[plot\\]'"):
        draw_chart(CHARTS["line"]())


@pytest.mark.skipif(shutil.which("latex") is not None, reason="LaTeX may draw it")
def test_a_style_that_cannot_be_had_is_refused() -> None:
    import matplotlib as mpl

    with mpl.rc_context({"text.usetex": True}), pytest.raises(UnsupportedValueError, match="latex"):
        draw_chart(CHARTS["line"]())


# -- matplotlib's state ---------------------------------------------------------------------------


@pytest.mark.slow
def test_pyplot_is_not_loaded() -> None:
    code = (
        "import sys\n"
        "from tracklayer.drawing import draw_chart\n"
        "from tracklayer.media.chart import Chart\n"
        "from tracklayer.media.table import Table\n"
        "assert 'matplotlib' not in sys.modules\n"
        "draw_chart(Chart(Table(['n'], [[1]]), 'wandb/histogram/v0', {'value': 'n'}))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_threads_draw_beside_each_other_and_beside_pyplot() -> None:
    from matplotlib import pyplot as plt

    charts = [make() for make in list(CHARTS.values())[:4]]
    expected = [draw_chart(chart) for chart in charts]
    figure, axes = plt.subplots()
    with ThreadPoolExecutor(4) as threads:
        drawn = threads.map(draw_chart, charts * 2)
        axes.plot([0, 1], [1, 0])
        figure.canvas.draw()
        assert list(drawn) == expected * 2
    assert plt.get_fignums() == [figure.number]
    assert plt.gca() is axes
    plt.close(figure)
