"""Charts: the same tables as wandb's own functions make, on scikit-learn's definitions."""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import wandb
import wandb.plot
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.exceptions import UndefinedMetricWarning

from tracklayer import plot
from tracklayer.contents import Content
from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.media.chart import Chart
from tracklayer.media.table import Table
from tracklayer.values import value_from_json

FUNCTIONS = (
    "line",
    "scatter",
    "bar",
    "histogram",
    "line_series",
    "confusion_matrix",
    "roc_curve",
    "pr_curve",
    "plot_table",
)
COLUMNS = ["step", "loss", "run"]
ROWS = [[0, 1.0, "a"], [1, 0.5, "a"], [0, 2.0, "b"], [1, float("inf"), "b"]]


def labels(count: int, classes: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, classes, count)


def labels_of_prime_counts(*counts: int) -> NDArray[np.int64]:
    """Return labels of which no part is a round fraction: there, wandb's precisions are too low."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


def scores(y_true: NDArray[Any], classes: int, seed: int = 1) -> NDArray[np.float64]:
    """Return probabilities that know something of the labels; many of them are equal."""
    logits = np.random.default_rng(seed).normal(size=(len(y_true), classes))
    logits[np.arange(len(y_true)), y_true] += 1
    exponents = np.exp(logits)
    return (exponents / exponents.sum(axis=1, keepdims=True)).round(2)


def read_back(chart: Chart) -> Chart:
    encoded = json.loads(json.dumps(chart.to_json()))
    contents = chart.encoded.contents

    def content(sha256: str, size: int) -> Content:
        return Content(sha256, size, contents[sha256].read)

    value = value_from_json("chart", encoded, content)
    assert isinstance(value, Chart)
    return value


def assert_same(chart: Chart, expected: Any) -> None:
    """Compare a chart with wandb's: the cells, as their JSON has them, and all that is sent beside them."""
    for one in (chart, read_back(chart)):
        assert one.table.columns == expected.table.columns
        assert json.dumps(one.table.data) == json.dumps(expected.table.data, default=lambda cell: cell.item())
        assert one.spec == expected.spec.spec_name
        assert one.fields == expected.spec.fields
        assert one.strings == expected.spec.string_fields
        assert one.split_table == expected.spec.split_table


def points(chart: Chart, name: Any) -> NDArray[np.float64]:
    return np.array([row[1:] for row in chart.table.data if row[0] == name])


# -- the same as wandb's --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_arguments_are_wandbs(name: str) -> None:
    ours = inspect.signature(getattr(plot, name)).parameters
    theirs = inspect.signature(getattr(wandb.plot, name)).parameters
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("line", {"x": "step", "y": "loss"}),
        ("line", {"x": "step", "y": "loss", "stroke": "run", "title": "Loss", "split_table": True}),
        ("scatter", {"x": "step", "y": "loss", "title": "Loss"}),
        ("bar", {"label": "run", "value": "loss"}),
        ("histogram", {"value": "loss", "title": "Losses"}),
    ],
)
def test_charts_of_a_table_are_wandbs(name: str, arguments: dict[str, Any]) -> None:
    chart = getattr(plot, name)(Table(COLUMNS, ROWS), **arguments)
    assert_same(chart, getattr(wandb.plot, name)(wandb.Table(COLUMNS, ROWS), **arguments))
    assert chart.title == arguments.get("title", "")


def test_a_chart_by_a_specification_of_ones_own_is_wandbs() -> None:
    fields, strings = {"x": "step", "y": "loss", "colour": "run"}, {"title": "Loss", "size": 3}
    chart = plot.plot_table("me/mine", Table(COLUMNS, ROWS), fields, strings)
    assert_same(chart, wandb.plot_table("me/mine", wandb.Table(COLUMNS, ROWS), fields, strings))
    assert plot.plot_table("me/mine", Table(COLUMNS, ROWS), fields).strings == {}


@pytest.mark.parametrize(
    "arguments",
    [
        {"xs": [0, 1, 2], "ys": [[1, 2, 3], [0.5, 0.25, 0.125]]},
        {"xs": [[0, 1], [5, 6, 7]], "ys": [[1, 2], [3, 4, 5]], "keys": ["short", "long"], "title": "T"},
        {"xs": ["a", "b"], "ys": [[1, 2]], "xname": "letter", "split_table": True},
        {"xs": np.arange(4), "ys": np.ones((3, 4), np.float32)},
        {"xs": [np.arange(2), np.arange(3)], "ys": [np.zeros(2), np.ones(3)]},
    ],
)
def test_line_series_are_wandbs(arguments: dict[str, Any]) -> None:
    assert_same(plot.line_series(**arguments), wandb.plot.line_series(**arguments))


@pytest.mark.parametrize("with_names", [False, True])
def test_a_confusion_matrix_is_wandbs(with_names: bool) -> None:
    y_true, preds = labels(500, 4), labels(500, 4, seed=1)
    arguments: dict[str, Any] = {"title": "Who is who"}
    if with_names:
        arguments["class_names"] = ["ant", "bee", "cat", "dog", "eel"]  # one that nothing is
    expected = wandb.plot.confusion_matrix(y_true=y_true.tolist(), preds=preds.tolist(), **arguments)
    assert_same(plot.confusion_matrix(y_true=y_true, preds=preds, **arguments), expected)


def test_a_confusion_matrix_of_scores_is_wandbs() -> None:
    y_true = labels(200, 3)
    probs = scores(y_true, 3)
    assert_same(
        plot.confusion_matrix(probs, y_true), wandb.plot.confusion_matrix(probs.tolist(), y_true.tolist())
    )


@pytest.mark.parametrize("name", ["roc_curve", "pr_curve"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"labels": ["ant", "bee", "cat"], "title": "Curves", "split_table": True},
        {"classes_to_plot": [0, 2, 7]},
    ],
)
def test_curves_are_wandbs(name: str, arguments: dict[str, Any]) -> None:
    y_true = labels_of_prime_counts(97, 101, 103)
    probas = scores(y_true, 3)
    expected = getattr(wandb.plot, name)(y_true, probas, **arguments)
    assert_same(getattr(plot, name)(y_true, probas, **arguments), expected)
    assert_same(getattr(plot, name)(y_true.tolist(), probas.tolist(), **arguments), expected)


@pytest.mark.parametrize("name", ["roc_curve", "pr_curve"])
def test_curves_of_classes_with_names_are_wandbs(name: str) -> None:
    y_true = labels_of_prime_counts(97, 101, 103)
    named = np.array(["ant", "bee", "cat"])[y_true]
    probas = scores(y_true, 3)
    assert_same(getattr(plot, name)(named, probas), getattr(wandb.plot, name)(named, probas))


@pytest.mark.slow
def test_more_points_than_wandb_draws_are_thinned_as_there() -> None:
    y_true = labels_of_prime_counts(6659, 6661, 6673)
    probas = np.random.default_rng(0).random((len(y_true), 3))
    roc = plot.roc_curve(y_true, probas)
    assert len(roc.table.data) == 10_000
    assert_same(roc, wandb.plot.roc_curve(y_true, probas))
    precision = plot.pr_curve(y_true, probas, interp_size=5001)
    assert len(precision.table.data) == 10_000
    assert_same(precision, wandb.plot.pr_curve(y_true, probas, interp_size=5001))


# -- scikit-learn's definitions -------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 5])
def test_the_counts_are_scikit_learns(classes: int) -> None:
    y_true, preds = labels(1000, classes), labels(1000, classes, seed=1)
    chart = plot.confusion_matrix(y_true=y_true, preds=preds, class_names=[f"c{i}" for i in range(classes)])
    counts = np.array(chart.table.get_column("nPredictions")).reshape(classes, classes)
    assert np.array_equal(counts, metrics.confusion_matrix(y_true, preds))
    assert chart.table.get_column("Actual")[: classes + 1] == ["c0"] * classes + ["c1"]
    assert chart.table.get_column("Predicted")[: classes + 1] == [*(f"c{i}" for i in range(classes)), "c0"]


def test_classes_without_names_are_those_there_are_in_order() -> None:
    y_true, preds = ["dog", "ant", "dog", "cat"], ["dog", "bee", "ant", "cat"]
    chart = plot.confusion_matrix(y_true=y_true, preds=preds)
    counts = np.array(chart.table.get_column("nPredictions")).reshape(4, 4)
    assert np.array_equal(counts, metrics.confusion_matrix(y_true, preds))
    assert chart.table.get_column("Predicted")[:4] == ["Class_1", "Class_2", "Class_3", "Class_4"]


def test_roc_points_are_scikit_learns() -> None:
    y_true = labels(500, 3)
    probas = scores(y_true, 3)
    chart = plot.roc_curve(y_true, probas, labels=["a", "b", "c"])
    for index, name in enumerate("abc"):
        fpr, tpr, _ = metrics.roc_curve(y_true, probas[:, index], pos_label=index)
        assert np.array_equal(points(chart, name), np.stack([fpr, tpr], axis=1).round(3))


def test_precision_is_the_highest_of_scikit_learns_from_a_recall_on() -> None:
    y_true = labels(500, 3)
    probas = scores(y_true, 3)
    chart = plot.pr_curve(y_true, probas, interp_size=11)
    for index in range(3):
        precision, recall, _ = metrics.precision_recall_curve(y_true, probas[:, index], pos_label=index)
        at = [level / 10 for level in range(10, -1, -1)]
        expected = [precision[recall >= level].max() for level in at]
        assert np.array_equal(points(chart, index), np.stack([expected, at], axis=1).round(3))


def test_a_recall_that_is_reached_exactly_counts() -> None:
    y_true = np.array([1, 1, 1, 0, 1, 1])  # of the class 1, the first 3 of 5 are found without a mistake
    probas = np.stack([np.arange(6), 6.0 - np.arange(6)], axis=1)
    ours = {recall: precision for precision, recall in points(plot.pr_curve(y_true, probas), 1)}
    assert ours[0.6] == 1.0
    # wandb asks for a recall of at least 0.6000000000000001
    theirs = {row[2]: row[1] for row in wandb.plot.pr_curve(y_true, probas).table.data if row[0] == 1}
    assert theirs[0.6] == 0.833


def test_a_class_that_no_sample_is_of_shifts_no_scores() -> None:
    y_true = np.array([0, 2, 0, 2, 2, 0])
    probas = scores(y_true, 3)
    fpr, tpr, _ = metrics.roc_curve(y_true, probas[:, 2], pos_label=2)
    expected = np.stack([fpr, tpr], axis=1).round(3)
    assert np.array_equal(points(plot.roc_curve(y_true, probas), 2), expected)
    assert points(plot.pr_curve(y_true, probas), 1).size == 0
    # wandb takes the second column for the second class that there is
    theirs = wandb.plot.roc_curve(y_true, probas)
    assert not np.array_equal(np.array([row[1:] for row in theirs.table.data if row[0] == 2]), expected)


def test_a_roc_curve_without_negatives_is_undefined_as_scikit_learns() -> None:
    with pytest.warns(UndefinedMetricWarning):
        chart = plot.roc_curve([1, 1, 1], [[0.1], [0.2], [0.3]])
    assert np.isnan(points(chart, 1)[:, 0]).all()


# -- inputs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [list, np.asarray, jnp.asarray, lambda values: jnp.asarray(values).astype("bfloat16"), pd.Series]
)
def test_any_array_of_labels_will_do(kind: Any) -> None:
    y_true, preds = [0, 1, 2, 1], [0, 2, 2, 1]
    probas = jnp.eye(3)[jnp.array(preds)]
    expected = plot.confusion_matrix(y_true=y_true, preds=preds)
    assert plot.confusion_matrix(y_true=kind(y_true), preds=kind(preds)) == expected
    assert plot.confusion_matrix(probas, kind(y_true)) == expected
    names = ["a", "b", "c"]
    assert plot.roc_curve(kind(y_true), probas, names) == plot.roc_curve(y_true, probas.tolist(), names)
    assert plot.pr_curve(kind(y_true), probas.astype("bfloat16"), names) == plot.pr_curve(
        y_true, np.asarray(probas), names
    )


def test_bools_and_strings_of_pandas_are_labels() -> None:
    probas = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    bools = plot.roc_curve([False, True, False, True], probas, labels=["no", "yes"])
    assert bools == plot.roc_curve([0, 1, 0, 1], probas, labels=["no", "yes"])
    strings = plot.roc_curve(pd.Series(["a", "b", "a", "b"]), probas)
    assert set(strings.table.get_column("class")) == {"a", "b"}


def test_line_series_of_a_device_are_those_of_the_host() -> None:
    expected = plot.line_series(np.arange(3), np.ones((2, 3)))
    assert plot.line_series(jnp.arange(3), jnp.ones((2, 3))) == expected
    assert plot.line_series(list(jnp.arange(3)), [list(jnp.ones(3))] * 2) == expected


def test_a_chart_is_of_the_table_at_the_call() -> None:
    table = Table(COLUMNS, ROWS)
    chart = plot.line(table, "step", "loss")
    table.add_data(2, 0.25, "a")
    assert chart.table.data == ROWS
    assert chart.nbytes > 0


def test_what_a_device_has_for_a_chart_comes_with_its_row() -> None:
    losses = jnp.array([1.0, 0.5])
    chart = plot.line(Table(["step", "loss"], [[0, losses[0]], [1, losses[1]]]), "step", "loss")
    arrays = chart.arrays()
    assert [float(array) for array in arrays] == [1.0, 0.5]
    landed = chart.landed([np.asarray(array) for array in arrays])
    assert not landed.arrays()
    assert landed.table.data == [[0, 1.0], [1, 0.5]]
    assert landed == chart


# -- bad input ------------------------------------------------------------------------------------------

EYE = np.eye(3)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("confusion_matrix", {"y_true": [0]}, "either probs or preds"),
        ("confusion_matrix", {"y_true": [0], "probs": [[1.0]], "preds": [0]}, "either probs or preds"),
        ("confusion_matrix", {"preds": [0]}, "y_true is missing"),
        ("confusion_matrix", {"y_true": [], "preds": []}, "y_true is empty"),
        ("confusion_matrix", {"y_true": [0, 1], "preds": [0]}, "2 of y_true, 1 of predictions"),
        ("confusion_matrix", {"y_true": [0, 1], "probs": [0.5, 0.5]}, r"probs .*\(samples, classes\), .*2,"),
        ("confusion_matrix", {"y_true": [[0], [1]], "preds": [0, 1]}, r"y_true .*\(samples,\), .*\(2, 1\)"),
        ("confusion_matrix", {"y_true": [0, 1], "probs": [[1, 0], [1]]}, "probs is no array"),
        ("confusion_matrix", {"y_true": [0], "probs": [["a"]]}, "probs must be numbers"),
        ("confusion_matrix", {"y_true": [0], "probs": [[np.nan, 1]]}, "has 1 scores that are not finite"),
        ("confusion_matrix", {"y_true": [np.nan], "preds": [0.0]}, "y_true has labels that are not finite"),
        ("confusion_matrix", {"y_true": [1j], "preds": [0]}, "y_true must be numbers or strings"),
        ("confusion_matrix", {"y_true": ["a"], "preds": [0]}, "strings, the other numbers"),
        (
            "confusion_matrix",
            {"y_true": [0, 3], "preds": [0, 1], "class_names": ["a", "b"]},
            "class_names are for the labels 0 to 1, but y_true has 3",
        ),
        (
            "confusion_matrix",
            {"y_true": [0, 1], "preds": [-1, 1], "class_names": ["a", "b"]},
            "but the predictions has -1",
        ),
        ("confusion_matrix", {"y_true": [0.5], "preds": [0], "class_names": ["a"]}, "y_true has 0.5"),
        ("confusion_matrix", {"y_true": ["a"], "preds": ["a"], "class_names": ["a"]}, "y_true has 'a'"),
        (
            "confusion_matrix",
            {"y_true": range(101), "preds": range(101)},
            "a confusion matrix of 101 classes has 10,201 rows, and W&B draws 10,000",
        ),
        ("roc_curve", {"y_true": [0, 1, 2]}, "y_probas is missing"),
        ("roc_curve", {"y_true": None, "y_probas": EYE}, "y_true is missing"),
        ("roc_curve", {"y_true": [0, 1], "y_probas": EYE}, "2 of y_true, 3 of y_probas"),
        ("roc_curve", {"y_true": [0, 1, 1], "y_probas": [0.1, 0.2, 0.3]}, "1 - p, p"),
        ("roc_curve", {"y_true": [0, 1, 2], "y_probas": EYE[:, :2]}, "labels 0 to 1, but y_true has 2"),
        ("roc_curve", {"y_true": [1, 2, 3], "y_probas": EYE[:, :2]}, "labels 0 to 1, but y_true has 2"),
        ("roc_curve", {"y_true": ["a", "b", "a"], "y_probas": EYE}, "columns are for .* has 'a'"),
        ("roc_curve", {"y_true": [0, 1, 2], "y_probas": EYE * np.nan}, "9 scores that are not finite"),
        ("roc_curve", {"y_true": [0, 1, 2], "y_probas": EYE, "labels": ["a", "b"]}, "labels are .* has 2"),
        ("roc_curve", {"y_true": [-1, 0, 1], "y_probas": EYE, "labels": ["a", "b", "c"]}, "y_true has -1"),
        ("roc_curve", {"y_true": ["a", "b", "c"], "y_probas": EYE, "labels": ["A", "B", "C"]}, "has 'a'"),
        ("roc_curve", {"y_true": [0, 1, 2], "y_probas": EYE, "classes_to_plot": [5]}, r"\[5\] is in y_true"),
        ("pr_curve", {}, "y_true is missing"),
        ("pr_curve", {"y_true": [0, 1, 2], "y_probas": EYE, "interp_size": 0}, "must be 1 or more"),
        ("line_series", {"xs": [1, 2], "ys": [[1, 2, 3]]}, "'line_0' has 2 values across and 3 up"),
        ("line_series", {"xs": [[1, 2]], "ys": [[1, 2], [1, 2]]}, "of 2 lines has xs for 1 and keys for 2"),
        ("line_series", {"xs": [1], "ys": [[1]], "keys": ["a", "b"]}, "xs for 1 and keys for 2"),
        ("line_series", {"xs": [], "ys": []}, "nothing to draw"),
        ("line_series", {"xs": [], "ys": [[]]}, "nothing to draw"),
        ("line_series", {"xs": [1, 2], "ys": [1, 2]}, "each line of ys must be a sequence, not a int"),
        ("line_series", {"xs": 1, "ys": [[1]]}, "xs must be a sequence, not a int"),
        ("line_series", {"xs": range(6000), "ys": [range(6000)] * 2}, "line_series has 12,000 rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        getattr(plot, name)(**arguments)


def test_a_column_that_is_not_there_is_refused() -> None:
    table = Table(COLUMNS, ROWS)
    for draw in (
        lambda: plot.line(table, "step", "los"),
        lambda: plot.line(table, "step", "loss", "los"),
        lambda: plot.scatter(table, "los", "loss"),
        lambda: plot.bar(table, "los", "loss"),
        lambda: plot.histogram(table, "los"),
    ):
        with pytest.raises(UsageError, match="no column 'los'; its columns are"):
            draw()
    with pytest.raises(UsageError, match="x: the table has no column None"):
        plot.scatter(table, None, "loss")  # type: ignore[arg-type]


def test_what_is_no_table_is_refused() -> None:
    for value in (ROWS, pd.DataFrame(ROWS), None):
        with pytest.raises(UsageError, match="draws a tracklayer.Table, not a"):
            plot.histogram(value, "loss")  # type: ignore[arg-type]


def test_a_table_of_more_rows_than_are_drawn_is_refused() -> None:
    table = Table(["x"], [[1]] * 10_000)
    assert len(plot.histogram(table, "x").table.data) == 10_000
    table.add_data(2)
    with pytest.raises(UsageError, match="has 10,001 rows, and W&B draws 10,000"):
        plot.histogram(table, "x")


def test_fields_and_strings_are_plain() -> None:
    table = Table(COLUMNS, ROWS)
    with pytest.raises(UsageError, match="a chart's fields are strings"):
        plot.plot_table("me/mine", table, {"x": ["step"]})
    with pytest.raises(UsageError, match="a chart's fields are strings"):
        plot.plot_table("me/mine", table, ["step"])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a chart's strings are strings"):
        plot.plot_table("me/mine", table, {}, {"title": table})
    for spec in ("", None):
        with pytest.raises(UsageError, match="specification is a name"):
            plot.plot_table(spec, table, {})  # type: ignore[arg-type]


def test_curves_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    for name in ("roc_curve", "pr_curve"):
        with pytest.raises(UnsupportedValueError, match=r"pip install 'tracklayer\[plot\]'"):
            getattr(plot, name)([0, 1, 2], EYE)
    plot.confusion_matrix(EYE, [0, 1, 2])  # which needs none
