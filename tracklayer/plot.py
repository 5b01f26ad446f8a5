"""Charts, with the signatures, tables and specifications of `wandb.plot`, on scikit-learn's definitions.

`line`, `scatter`, `bar` and `histogram` draw a `Table`.  The others make their table of lists or of arrays,
numpy's or jax's; they compute it on the host, at the call, and wait for what is still on a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.media.chart import Chart
from tracklayer.media.table import Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

_MAX_ROWS: Final = 10_000
"""What W&B's client writes of a table that is drawn (`wandb.Table.MAX_ROWS`); it leaves out the rest."""
_DECIMALS: Final = 3
"""Of the points of curves, as `wandb.plot` rounds them."""


def plot_table(
    vega_spec_name: str,
    data_table: Table,
    fields: Mapping[str, Any],
    string_fields: Mapping[str, Any] | None = None,
    split_table: bool = False,  # noqa: FBT001, FBT002 - W&B's signature
) -> Chart:
    """Return the chart that one of W&B's Vega-Lite specifications makes of a table.

    Args:
        vega_spec_name: the name of the specification.
        data_table: at most 10,000 rows, which is what W&B draws.  The content is that at the call.
        fields: by field of the specification, the name of a column.
        string_fields: by string of the specification, what it says.
        split_table: whether W&B shows the table in the section "Custom Chart Tables".

    Raises:
        UsageError: an argument is of another type, or the table has more rows.
    """
    chart = Chart(data_table, vega_spec_name, fields, string_fields, split_table=split_table)
    _check_length(len(data_table.data))
    return chart


def line(
    table: Table,
    x: str,
    y: str,
    stroke: str | None = None,
    title: str = "",
    split_table: bool = False,  # noqa: FBT001, FBT002 - W&B's signature
) -> Chart:
    """Return a chart of lines.

    Args:
        table: as of `plot_table`.
        x: the column of the values across.
        y: the column of the values up.
        stroke: the column that says which line a row belongs to; without it, there is one.
        title: what stands above it.
        split_table: as of `plot_table`.

    Raises:
        UsageError: there is no such column, or as of `plot_table`.
    """
    return _of_columns("wandb/line/v0", table, {"x": x, "y": y, "stroke": stroke}, title, split_table)


def scatter(
    table: Table,
    x: str,
    y: str,
    title: str = "",
    split_table: bool = False,  # noqa: FBT001, FBT002 - W&B's signature
) -> Chart:
    """Return a chart of points; the arguments and errors are those of `line`."""
    return _of_columns("wandb/scatter/v0", table, {"x": x, "y": y}, title, split_table)


def bar(
    table: Table,
    label: str,
    value: str,
    title: str = "",
    split_table: bool = False,  # noqa: FBT001, FBT002 - W&B's signature
) -> Chart:
    """Return a chart of bars, one a row.

    Args:
        table: as of `plot_table`.
        label: the column of the bars' names.
        value: the column of their lengths.
        title: what stands above it.
        split_table: as of `plot_table`.

    Raises:
        UsageError: there is no such column, or as of `plot_table`.
    """
    return _of_columns("wandb/bar/v0", table, {"label": label, "value": value}, title, split_table)


def histogram(
    table: Table,
    value: str,
    title: str = "",
    split_table: bool = False,  # noqa: FBT001, FBT002 - W&B's signature
) -> Chart:
    """Return a histogram of a column's numbers, whose bins whoever draws it chooses.

    For more than 10,000 numbers, log a `tracklayer.Histogram`, of which only the bins are kept.

    Args:
        table: as of `plot_table`.
        value: the column.
        title: what stands above it.
        split_table: as of `plot_table`.

    Raises:
        UsageError: there is no such column, or as of `plot_table`.
    """
    return _of_columns("wandb/histogram/v0", table, {"value": value}, title, split_table)


def line_series(
    xs: Any,
    ys: Any,
    keys: Iterable[str] | None = None,
    title: str = "",
    xname: str = "x",
    split_table: bool = False,  # noqa: FBT001, FBT002 - W&B's signature
) -> Chart:
    """Return a chart of lines that are given by their values.

    Args:
        xs: the values across: one sequence for all lines, or a sequence for each.
        ys: for each line, the values up.
        keys: the lines' names; "line_0", "line_1", … where none are given.
        title: what stands above it.
        xname: what stands beside the values across.
        split_table: as of `plot_table`.

    Raises:
        UsageError: lengths that differ, nothing to draw, or more than 10,000 points in all.
    """
    lines = [_values("each line of ys", values) for values in _values("ys", ys)]
    across = _values("xs", xs)
    if across and _is_sequence(across[0]):
        across = [_values("each line of xs", values) for values in across]
    else:
        across = [across] * len(lines)
    names = [f"line_{index}" for index in range(len(lines))] if keys is None else [*keys]
    if not len(across) == len(lines) == len(names):
        msg = f"line_series of {len(lines)} lines has xs for {len(across)} and keys for {len(names)}"
        raise UsageError(msg)
    for name, x, y in zip(names, across, lines, strict=True):
        if len(x) != len(y):
            msg = f"line_series: line {name!r} has {len(x)} values across and {len(y)} up"
            raise UsageError(msg)
    if not any(lines):
        msg = "line_series has nothing to draw: ys is empty"
        raise UsageError(msg)
    _check_length(sum(map(len, lines)), "line_series")
    rows = [
        [x, name, y]
        for name, xs_of_one, ys_of_one in zip(names, across, lines, strict=True)
        for x, y in zip(xs_of_one, ys_of_one, strict=True)
    ]
    columns = ["step", "lineKey", "lineVal"]
    return plot_table(
        "wandb/lineseries/v0",
        Table(columns, rows),
        {name: name for name in columns},
        {"title": title, "xname": xname},
        split_table,
    )


def confusion_matrix(
    probs: ArrayLike | None = None,
    y_true: ArrayLike | None = None,
    preds: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    title: str = "Confusion Matrix Curve",
    split_table: bool = False,  # noqa: FBT001, FBT002 - W&B's signature
) -> Chart:
    """Return a chart of how many samples of each class were taken for which.

    The counts are those of `sklearn.metrics.confusion_matrix(y_true, preds, labels=…)`, in rows of
    ("Actual", "Predicted", "nPredictions"), which go through the predicted classes of one actual class first.

    Args:
        probs: probabilities or other scores, of shape (samples, classes): the highest of each row is the
            prediction, the first of equal ones.
        y_true: the true labels, of shape (samples,).
        preds: the predicted labels, of shape (samples,), in place of `probs`.
        class_names: the names of the classes, whose labels are then 0, 1, ….  Otherwise the classes are all
            labels that there are, in ascending order, under the names "Class_1", "Class_2", ….
        title: what stands above it.
        split_table: as of `plot_table`.

    Raises:
        UsageError: neither or both of `probs` and `preds`; shapes that do not go together, no samples, scores
            or labels that are not finite, labels that are no classes, or more than 100 classes.
    """
    import numpy as np

    if (probs is None) == (preds is None):
        msg = "confusion_matrix takes y_true and either probs or preds"
        raise UsageError(msg)
    actual = _labels("y_true", y_true)
    predicted = _labels("preds", preds) if probs is None else _scores("probs", probs).argmax(axis=1)
    _check_lengths(y_true=actual, predictions=predicted)
    if class_names is None:
        if (actual.dtype.kind == "U") != (predicted.dtype.kind == "U"):
            msg = "confusion_matrix: one of y_true and the predictions are strings, the other numbers"
            raise UsageError(msg)
        classes: NDArray[Any] = np.unique(np.concatenate([actual, predicted]))
        names: list[Any] = [f"Class_{index + 1}" for index in range(classes.size)]
    else:
        names = [*class_names]
        classes = np.arange(len(names))
        actual, predicted = (
            _positions(what, labels, len(names), "class_names")
            for what, labels in (("y_true", actual), ("the predictions", predicted))
        )
    count = len(names)
    _check_length(count * count, f"a confusion matrix of {count} classes")
    pairs = np.searchsorted(classes, actual) * count + np.searchsorted(classes, predicted)
    counts = np.bincount(pairs, minlength=count * count).astype(np.float64)  # W&B's client writes floats
    columns = ["Actual", "Predicted", "nPredictions"]
    cells = zip([(one, other) for one in names for other in names], counts.tolist(), strict=True)
    return plot_table(
        "wandb/confusion_matrix/v1",
        Table(columns, [[*pair, number] for pair, number in cells]),
        {name: name for name in columns},
        {"title": title},
        split_table,
    )


def roc_curve(
    y_true: ArrayLike,
    y_probas: ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    classes_to_plot: Sequence[Any] | None = None,
    title: str = "ROC Curve",
    split_table: bool = False,  # noqa: FBT001, FBT002 - W&B's signature
) -> Chart:
    """Return a chart of the receiver operating characteristic of each class against all others.

    The points are those of `sklearn.metrics.roc_curve`, in rows of ("class", "fpr", "tpr"), rounded to three
    decimals.  Of more than 10,000, as many are drawn by `sklearn.utils.resample`, in proportion to the
    classes, and sorted by fpr, tpr and class.

    Args:
        y_true: the true labels, of shape (samples,): numbers or strings.
        y_probas: probabilities or other scores, of shape (samples, classes), in the ascending order of the
            labels in `y_true`.  If it has more columns than there are labels, these must be numbers from 0,
            and each stands for the column of that number.
        labels: the names of the classes, whose labels are then 0, 1, ….
        classes_to_plot: the labels of which curves are wanted; those that `y_true` lacks have none.
        title: what stands above it.
        split_table: as of `plot_table`.

    Raises:
        UsageError: shapes that do not go together, no samples, scores or labels that are not finite, labels
            that have no name, or none of the classes to plot.
        UnsupportedValueError: scikit-learn is not installed.
    """
    metrics = _sklearn("metrics", "roc_curve")
    curves = [
        (name, *metrics.roc_curve(is_positive, scores)[:2])
        for name, is_positive, scores in _one_against_others(y_true, y_probas, labels, classes_to_plot)
    ]
    return plot_table(
        "wandb/area-under-curve/v0",
        _table_of_curves(["class", "fpr", "tpr"], curves),
        {"x": "fpr", "y": "tpr", "class": "class"},
        {"title": title, "x-axis-title": "False positive rate", "y-axis-title": "True positive rate"},
        split_table,
    )


def pr_curve(
    y_true: ArrayLike | None = None,
    y_probas: ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    classes_to_plot: Sequence[Any] | None = None,
    interp_size: int = 21,
    title: str = "Precision-Recall Curve",
    split_table: bool = False,  # noqa: FBT001, FBT002 - W&B's signature
) -> Chart:
    """Return a chart of the interpolated precision of each class against all others.

    At a recall r, that is the highest precision of `sklearn.metrics.precision_recall_curve` at any recall
    from r on (C. D. Manning et al., "Introduction to Information Retrieval", 2008, section 8.4).  The rows
    are ("class", "precision", "recall"), in the descending order of the recall, and rounded to three
    decimals.  Of more than 10,000, as many are drawn as `roc_curve` says, and sorted by precision, recall and
    class.

    Args:
        y_true: as of `roc_curve`.
        y_probas: as of `roc_curve`.
        labels: as of `roc_curve`.
        classes_to_plot: as of `roc_curve`.
        interp_size: at how many recalls, equally spaced from 0 to 1.
        title: what stands above it.
        split_table: as of `plot_table`.

    Raises:
        UsageError: as of `roc_curve`, or `interp_size` is less than 1.
        UnsupportedValueError: scikit-learn is not installed.
    """
    import numpy as np

    if interp_size < 1:
        msg = f"pr_curve: interp_size must be 1 or more, not {interp_size}"
        raise UsageError(msg)
    metrics = _sklearn("metrics", "pr_curve")
    # not numpy.linspace: a recall of 3/5 is to be at 0.6, not below 0.6000000000000001
    at = np.arange(interp_size)[::-1] / max(interp_size - 1, 1)
    curves: list[tuple[Any, NDArray[Any], NDArray[Any]]] = []
    for name, is_positive, scores in _one_against_others(y_true, y_probas, labels, classes_to_plot):
        precision, recall, _ = metrics.precision_recall_curve(is_positive, scores)
        highest = np.maximum.accumulate(precision)  # recall descends
        curves.append((name, highest[::-1][np.searchsorted(recall[::-1], at)], at))
    return plot_table(
        "wandb/area-under-curve/v0",
        _table_of_curves(["class", "precision", "recall"], curves),
        {"x": "recall", "y": "precision", "class": "class"},
        {"title": title, "x-axis-title": "Recall", "y-axis-title": "Precision"},
        split_table,
    )


def _of_columns(
    spec: str,
    table: Table,
    columns: Mapping[str, str | None],
    title: str,
    split_table: bool,  # noqa: FBT001 - as above
) -> Chart:
    chart = plot_table(spec, table, columns, {"title": title}, split_table)
    for field, column in columns.items():
        if column not in chart.table.columns and (field, column) != ("stroke", None):
            msg = f"{field}: the table has no column {column!r}; its columns are {chart.table.columns}"
            raise UsageError(msg)
    return chart


def _one_against_others(
    y_true: Any, y_probas: Any, labels: Sequence[str] | None, classes_to_plot: Any
) -> Iterator[tuple[Any, NDArray[np.bool_], NDArray[np.float64]]]:
    """Yield, for each class to plot, its name, which samples are of it, and its scores."""
    import numpy as np

    actual, scores = _labels("y_true", y_true), _scores("y_probas", y_probas)
    _check_lengths(y_true=actual, y_probas=scores)
    classes: NDArray[Any] = np.unique(actual)
    columns: NDArray[Any] = np.arange(classes.size)
    if scores.shape[1] != classes.size:
        columns = _positions("y_true", classes, scores.shape[1], "y_probas' columns")
    names = classes.tolist()
    if labels is not None:
        names = [labels[position] for position in _positions("y_true", classes, len(labels), "labels")]
    wanted = np.isin(classes, classes if classes_to_plot is None else np.asarray(classes_to_plot))
    if not wanted.any():
        msg = f"none of classes_to_plot {classes_to_plot!r} is in y_true, which has {classes.tolist()}"
        raise UsageError(msg)
    for index in np.flatnonzero(wanted):
        yield names[index], actual == classes[index], scores[:, columns[index]]


def _table_of_curves(
    columns: list[str | int], curves: Sequence[tuple[Any, NDArray[Any], NDArray[Any]]]
) -> Table:
    """Return the points of curves, each a class's name and the values of the other two columns."""
    import numpy as np

    classes = np.repeat([name for name, _, _ in curves], [len(points) for _, points, _ in curves])
    first, second = (np.concatenate([curve[part] for curve in curves]).round(_DECIMALS) for part in (1, 2))
    if classes.size > _MAX_ROWS:
        kept = _sklearn("utils", "a curve").resample(
            np.arange(classes.size), replace=False, n_samples=_MAX_ROWS, random_state=42, stratify=classes
        )
        kept = kept[np.lexsort((classes[kept], second[kept], first[kept]))]
        classes, first, second = classes[kept], first[kept], second[kept]
    return Table(columns, [*zip(classes.tolist(), first.tolist(), second.tolist(), strict=True)])


def _labels(what: str, values: Any) -> NDArray[Any]:
    """Return labels as an array of shape (samples,): bools, numbers or strings.

    Raises:
        UsageError: they are none.
    """
    import numpy as np

    array = _array(what, values)
    if array.dtype.kind in "OT":  # of pandas, perhaps
        array = np.array(array.tolist())
    elif array.dtype.kind == "V":  # jax's bfloat16, int4 and relatives
        array = array.astype(np.float64)
    if array.ndim != 1 or array.dtype.kind not in "biufU":
        msg = f"{what} must be numbers or strings of shape (samples,), not {array.dtype} of {array.shape}"
        raise UsageError(msg)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        msg = f"{what} has labels that are not finite"
        raise UsageError(msg)
    return array


def _scores(what: str, values: Any) -> NDArray[np.float64]:
    """Return scores as an array of shape (samples, classes).

    Raises:
        UsageError: they are none.
    """
    import numpy as np

    array = _array(what, values)
    if array.ndim != 2 or array.dtype.kind not in "biufV":
        msg = (
            f"{what} must be numbers of shape (samples, classes), not {array.dtype} of {array.shape}; of two "
            "classes, each has a column: numpy.stack([1 - p, p], axis=1)"
        )
        raise UsageError(msg)
    scores = array.astype(np.float64)
    if not np.isfinite(scores).all():
        msg = f"{what} has {int((~np.isfinite(scores)).sum())} scores that are not finite"
        raise UsageError(msg)
    return scores


def _array(what: str, values: Any) -> NDArray[Any]:
    import numpy as np

    if values is None:
        msg = f"{what} is missing"
        raise UsageError(msg)
    try:
        array: NDArray[Any] = np.asarray(values)
    except ValueError as error:  # lists of unequal lengths
        msg = f"{what} is no array: {error}"
        raise UsageError(msg) from error
    if not array.size:
        msg = f"{what} is empty"
        raise UsageError(msg)
    return array


def _positions(what: str, labels: NDArray[Any], count: int, of: str) -> NDArray[np.int64]:
    """Return labels as integers from 0 to `count` - 1.

    Raises:
        UsageError: one is another.
    """
    import numpy as np

    known = np.zeros(labels.shape, bool) if labels.dtype.kind == "U" else np.isin(labels, np.arange(count))
    if not known.all():
        msg = f"{of} are for the labels 0 to {count - 1}, but {what} has {labels[~known][0].item()!r}"
        raise UsageError(msg)
    return labels.astype(np.int64)


def _values(what: str, values: Any) -> list[Any]:
    """Return what is in a sequence, an array's elements as Python numbers."""
    if not _is_sequence(values):
        msg = f"line_series: {what} must be a sequence, not a {type(values).__qualname__}"
        raise UsageError(msg)
    if hasattr(values, "__array__"):
        import numpy as np

        return [*np.asarray(values)]
    return [*values]


def _is_sequence(values: Any) -> bool:
    if getattr(values, "ndim", 1) == 0:  # jax's scalars have an __iter__
        return False
    return isinstance(values, Iterable) and not isinstance(values, (str, bytes))


def _check_lengths(**arrays: NDArray[Any]) -> None:
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{len(array)} of {name}" for name, array in arrays.items())
        msg = f"as many samples are needed of each, not {lengths}"
        raise UsageError(msg)


def _check_length(rows: int, what: str = "the table") -> None:
    if rows > _MAX_ROWS:
        msg = (
            f"{what} has {rows:,} rows, and W&B draws {_MAX_ROWS:,}: draw fewer, and log a Table to keep all"
        )
        raise UsageError(msg)


def _sklearn(module: str, what: str) -> Any:
    try:
        return import_module(f"sklearn.{module}")
    except ImportError as error:
        msg = f"{what} needs scikit-learn, which is not installed: pip install 'tracklayer[plot]'"
        raise UnsupportedValueError(msg) from error
