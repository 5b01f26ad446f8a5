"""Tables: what their cells hold, what is refused, and how they come back."""

from __future__ import annotations

import enum
import json
import math
import time
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import wandb
from flax import nnx
from numpy.typing import NDArray

import tracklayer
from tracklayer import plot
from tracklayer.contents import Content
from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.media.audio import Audio
from tracklayer.media.base import Media
from tracklayer.media.chart import Chart
from tracklayer.media.html import Html
from tracklayer.media.image import Image
from tracklayer.media.table import Table
from tracklayer.values import value_from_json

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


class Colour(enum.IntEnum):
    RED = 1


def read_back(value: Media) -> Table:
    """Return what a store would, of the JSON and the files that it was given."""
    contents = value.encoded.contents

    def content(sha256: str, size: int) -> Content:
        assert contents[sha256].size == size
        return Content(sha256, size, contents[sha256].read)

    table = value_from_json(value.kind, json.loads(json.dumps(value.to_json())), content)
    assert isinstance(table, Table)
    return table


def cell_read_back(cell: Any) -> Any:
    return read_back(Table(["x"], [[cell]])).data[0][0]


# -- how it is made -------------------------------------------------------------------------------------


def test_rows_and_columns_come_back() -> None:
    table = Table(columns=["step", "name"], data=[[0, "a"]])
    table.add_data(1, "b")
    table.add_column("loss", [0.5, None], optional=True)
    for found in (table, table.snapshot(), read_back(table)):
        assert found.columns == ["step", "name", "loss"]
        assert found.data == [[0, "a", 0.5], [1, "b", None]]
        assert list(found.iterrows()) == [(0, [0, "a", 0.5]), (1, [1, "b", None])]
        assert found.get_column("name") == ["a", "b"]
        assert found.get_column("step", convert_to="numpy").tolist() == [0, 1]
        assert found.get_dataframe().equals(pd.DataFrame(table.data, columns=table.columns))
    assert dict(table.encoded.data) == {
        "file": table.encoded.data["file"],
        "columns": ["step", "name", "loss"],
        "rows": 2,
        "optional": [True, True, True],
        "allow_mixed_types": False,
        "log_mode": "IMMUTABLE",
    }


def rows_in_other_types() -> list[Any]:
    rows = [[0, 1.5], [1, 2.5]]
    return [
        rows,
        [tuple(row) for row in rows],
        tuple(rows),
        [np.array(row) for row in rows],
        [jnp.array(row) for row in rows],
        np.array(rows),
        np.array(rows, np.float32),
        np.array(rows, object),
        jnp.array(rows).astype("bfloat16").__array__(),
        pd.DataFrame(rows, columns=["a", "b"]),
        zip([0, 1], [1.5, 2.5], strict=True),
    ]


@pytest.mark.parametrize("data", rows_in_other_types(), ids=lambda data: type(data).__name__)
def test_rows_may_be_of_any_sequence(data: Any) -> None:
    assert read_back(Table(columns=["a", "b"], data=data)).data == [[0, 1.5], [1, 2.5]]


def test_rows_is_an_older_name_for_data() -> None:
    assert Table(["a"], rows=[[1]]) == Table(["a"], data=[[1]])


def test_columns_are_wandbs_unless_they_are_given() -> None:
    assert Table().columns == wandb.Table().columns
    assert Table(data=[[1, 2, 3]]).columns == wandb.Table().columns
    assert Table(columns=[]).columns == []
    assert Table(columns=("a", 1)).columns == ["a", 1]


def test_columns_may_share_a_name_as_with_wandb() -> None:
    table = Table(["a", "a"], [[1, "x"]])
    assert read_back(table).data == [[1, "x"]]
    assert table.get_column("a") == wandb.Table(["a", "a"], [[1, "x"]]).get_column("a") == [1]
    assert Table(dataframe=pd.DataFrame([[1, "x"]], columns=["a", "a"])).data == [[1, "x"]]


def test_a_data_frame_is_a_table() -> None:
    frame = pd.DataFrame(
        {
            "int": [1, 2],
            "nullable": pd.array([1, None], dtype="Int64"),
            "float": np.array([0.1, np.nan], np.float32),
            "text": ["x", None],
            "category": pd.Categorical(["u", "v"]),
            "time": pd.to_datetime(["2024-01-02 03:04:05.678901234", None], utc=True),
            "image": [Image(PIXELS), Image(PIXELS)],
        }
    )
    for table in (Table(dataframe=frame), Table(data=frame), Table(columns=list(frame.columns), data=frame)):
        found = read_back(table)
        assert found.columns == list(frame.columns)
        first, second = found.data
        when = datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
        assert first == [1, 1, np.float32(0.1).item(), "x", "u", when, Image(PIXELS)]
        assert second[:2] == [2, None]
        assert math.isnan(second[2])
        assert second[4:6] == ["v", None]
    assert Table(dataframe=pd.DataFrame({0: [1]})).columns == [0]
    assert Table(dataframe=pd.DataFrame({"a": []})).data == []


def test_a_column_may_be_added_from_arrays_and_series() -> None:
    for column in ([1.0, 2.0], (1.0, 2.0), np.array([1, 2], np.float16), pd.Series([1.0, 2.0])):
        table = Table(["a"], [["x"], ["y"]])
        table.add_column("b", column)
        assert read_back(table).data == [["x", 1.0], ["y", 2.0]]
    table = Table(columns=[])
    table.add_column("images", [Image(PIXELS), Image(PIXELS)])
    table.add_column("vectors", np.eye(2))
    table.add_column("days", np.array(["2024-01-01", "2024-01-02"], "datetime64[ns]"))
    assert read_back(table).data[1] == [Image(PIXELS), [0.0, 1.0], datetime(2024, 1, 2)]  # noqa: DTZ001 - as given


def test_columns_may_be_computed() -> None:
    table = Table(["x", "y"], [[3, 1], [4, 6]])
    table.add_computed_columns(lambda index, row: {"row": index, "sum": row["x"] + row["y"]})
    assert table.columns == ["x", "y", "row", "sum"]
    assert table.data == [[3, 1, 0, 4], [4, 6, 1, 10]]
    with pytest.raises(UsageError, match=r"row 1 has new columns \['b'\], and row 0 has \['a'\]"):
        table.add_computed_columns(lambda index, _: {"ab"[index]: 0})
    Table(["x"]).add_computed_columns(lambda *_: {"y": 1})


# -- cells ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (None, None),
        (True, True),
        (2**70, 2**70),
        (-0.5, -0.5),
        (float("inf"), float("inf")),
        ("", ""),
        ("naïve 🦊 \ud800", "naïve 🦊 \ud800"),
        (np.bool_(True), True),
        (np.int8(-3), -3),
        (np.float32(0.1), np.float32(0.1).item()),
        (np.longdouble(0.5), 0.5),
        (np.str_("x"), "x"),
        (np.array(3.0), 3.0),
        (Colour.RED, 1),
        (jnp.float32(0.1), np.float32(0.1).item()),
        (jnp.bfloat16(0.5), 0.5),
        (jnp.array(True), True),
        (nnx.Param(jnp.float32(2)), 2.0),
        (date(2024, 2, 29), date(2024, 2, 29)),
        (datetime(2024, 2, 29, 12, 30, 1, 5), datetime(2024, 2, 29, 12, 30, 1, 5)),  # noqa: DTZ001 - as given
        (
            datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=2))),
            datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=2))),
        ),
        (np.datetime64("2024-02-29T12:00", "ns"), datetime(2024, 2, 29, 12)),  # noqa: DTZ001 - as given
        (np.datetime64("NaT"), None),
        (pd.NaT, None),
        (pd.NA, None),
        (pd.Timestamp("2024-02-29T12:00Z"), datetime(2024, 2, 29, 12, tzinfo=UTC)),
        ([1, "a", [None, 2.5]], [1, "a", [None, 2.5]]),
        ((1, np.int64(2), jnp.int32(3)), [1, 2, 3]),
        ({"a": {"b": [1]}, 2: np.float64(3)}, {"a": {"b": [1]}, "2": 3.0}),
        (OrderedDict(a=1), {"a": 1}),
        ({"_kind": "image", "file": "mine"}, {"_kind": "image", "file": "mine"}),
        ({"a": {"_kind": "date", "iso": "no"}}, {"a": {"_kind": "date", "iso": "no"}}),
        (np.arange(6, dtype=np.int16).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        (np.zeros((0, 2)), []),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1, None, "x"], object), [1, None, "x"]),
        (jnp.ones((2, 2), "bfloat16"), [[1.0, 1.0], [1.0, 1.0]]),
        (jnp.arange(3, dtype="int4"), [0, 1, 2]),
        (Image(PIXELS, caption="c"), Image(PIXELS, caption="c")),
        (Html("<p>", inject=False), Html("<p>", inject=False)),
        (Audio(np.zeros(9), sample_rate=8000), Audio(np.zeros(9), sample_rate=8000)),
        ([Image(PIXELS), {"deep": Image(jnp.asarray(PIXELS))}], [Image(PIXELS), {"deep": Image(PIXELS)}]),
    ],
    ids=repr,
)  # fmt: skip
def test_cells_come_back(cell: Any, expected: Any) -> None:
    found = cell_read_back(cell)
    assert found == expected
    assert type(found) is type(expected)


def test_nan_is_kept() -> None:
    for cell in (float("nan"), np.float32("nan"), jnp.nan * jnp.ones(())):
        assert math.isnan(cell_read_back(cell))


def test_media_keep_what_they_know() -> None:
    table = Table(["image", "sound"], [[Image(PIXELS, caption="c"), Audio(np.zeros(8), sample_rate=8000)]])
    image, sound = read_back(table).data[0]
    assert isinstance(image, Image)
    assert image.caption == "c"
    assert np.array_equal(image.array(), PIXELS)
    assert isinstance(sound, Audio)
    assert sound.sample_rate == 8000
    assert len(table.encoded.contents) == 3  # the rows, and a file of each


def test_a_file_that_cells_share_is_there_once() -> None:
    table = Table(["image"], [[Image(PIXELS)] for _ in range(5)])
    assert len(table.encoded.contents) == 2


def test_cells_are_those_at_the_call() -> None:
    array, nested = np.zeros(2), {"a": [1]}
    table = Table(["array", "nested"], [[array, nested]])
    array[0], nested["a"][0] = 1.0, 2
    assert read_back(table).data == [[[0.0, 0.0], {"a": [1]}]]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (object(), "cannot hold a builtins.object; it takes None, numbers"),
        (SimpleNamespace(), "types.SimpleNamespace"),
        (1 + 2j, "builtins.complex"),
        (np.complex64(1), "dtype complex64"),
        (np.clongdouble(1), "dtype complex"),
        (jnp.zeros(2, "complex64"), "dtype complex64"),
        (jax.random.key(0), r"dtype key<fry>"),
        (b"bytes", "builtins.bytes"),
        (np.bytes_(b"x"), r"dtype \|S1"),
        (np.zeros(2, [("a", "i4")]), "dtype"),
        ({1, 2}, "builtins.set"),
        (timedelta(1), "datetime.timedelta"),
        (np.timedelta64(1, "s"), "dtype timedelta64"),
        ([1, [object()]], "builtins.object"),
        ({"a": object()}, "builtins.object"),
        ({(1, 2): 3}, "keys of a dict in a cell must be strings or whole numbers, not a tuple"),
        (np.array([1, object()], object), "builtins.object"),
        (Table(["a"]), "tracklayer.media.table.Table"),
        (print, "builtins.builtin_function_or_method"),
        (pd.Series([1]), "Series"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_cell_cannot_hold_is_refused_at_the_call_with_its_place(cell: Any, message: str) -> None:
    place = "row 1, column 'b': .*"
    table = Table(["a", "b"], [[1, None]], allow_mixed_types=True)
    with pytest.raises(UnsupportedValueError, match=place + message):
        table.add_data(2, cell)
    with pytest.raises(UnsupportedValueError, match=place + message):
        Table(["a", "b"], [[1, None], [2, cell]])
    with pytest.raises(UnsupportedValueError, match="row 0, column 'new': .*" + message):
        table.add_column("new", [cell])
    assert table.columns == ["a", "b"]
    assert table.data == [[1, None]]


def test_a_traced_cell_is_refused() -> None:
    table = Table(["loss"])

    @jax.jit
    def step(x: jax.Array) -> jax.Array:
        table.add_data(x)
        return x

    with pytest.raises(UnsupportedValueError, match="row 0, column 'loss': it is traced"):
        step(jnp.ones(()))
    assert table.data == []


# -- types of columns, after wandb's --------------------------------------------------------------------

NUMBERS = [1, 2.5, np.int8(3), np.float32(4), None, float("nan")]


@pytest.mark.parametrize(
    "cells",
    [
        NUMBERS,
        [None, None],
        [float("nan"), "text", None],
        ["a", "b"],
        [True, np.bool_(False)],
        [[1, 2], [1, 2, 3], []],
        [datetime(2024, 1, 1), date(2024, 1, 1), np.datetime64("2024-01-01")],  # noqa: DTZ001 - as given
        [np.zeros(2), [1.0, 2.0]],
    ],
    ids=repr,
)
def test_what_wandb_takes_for_one_type_is_one_here(cells: list[Any]) -> None:
    rows = [[cell] for cell in cells]
    wandb.Table(["a"], rows)  # raises nothing
    assert len(Table(["a"], rows).data) == len(cells)
    table = Table(["b"], [[0]] * len(cells))
    table.add_column("a", cells, optional=True)
    assert len(table.get_column("a")) == len(cells)


@pytest.mark.parametrize(
    ("cells", "types"),
    [
        ([1, "a"], "type string in a column of type number"),
        (["a", 1], "type number in a column of type string"),
        ([1, True], "type boolean in a column of type number"),
        ([None, 1, [1]], "type list in a column of type number"),
        ([{"a": 1}, "a"], "type string in a column of type dict"),
        ([date(2024, 1, 1), "2024-01-01"], "type string in a column of type timestamp"),
    ],
    ids=repr,
)
def test_mixed_types_are_refused_as_by_wandb_unless_they_are_allowed(cells: list[Any], types: str) -> None:
    rows = [[cell] for cell in cells]
    with pytest.raises(TypeError):
        wandb.Table(["a"], rows)
    with pytest.raises(UnsupportedValueError, match=f"row {len(cells) - 1}, column 'a': a cell of {types}"):
        Table(["a"], rows)
    table = Table(["b"], [[0]] * len(cells))
    with pytest.raises(UnsupportedValueError, match=types):
        table.add_column("a", cells, optional=True)
    assert table.columns == ["b"]
    mixed = Table(["a"], rows, allow_mixed_types=True)
    assert read_back(mixed).data == rows
    assert mixed.encoded.data["allow_mixed_types"] is True


def test_kinds_of_media_are_types() -> None:
    table = Table(["media"], [[Image(PIXELS)]])
    with pytest.raises(UnsupportedValueError, match="type html in a column of type image"):
        table.add_data(Html("<p>"))
    table.add_data(None)
    table.add_data(Image(jnp.asarray(PIXELS)))


def test_device_scalars_are_numbers_and_bools() -> None:
    table = Table(["number", "bool"], [[1, True]])
    table.add_data(jnp.float32(1), jnp.array(True))
    with pytest.raises(UnsupportedValueError, match="type list in a column of type number"):
        table.add_data(jnp.zeros(1), None)


def test_a_column_that_is_not_optional_is_filled() -> None:
    for optional in (False, [True, False]):
        table = Table(["a", "b"], [[0, 1]], optional=optional)
        with pytest.raises(
            UnsupportedValueError, match="row 1, column 'b': None in a column that is not optional"
        ):
            table.add_data(0, None)
        table.add_data(0, float("nan"))  # a number, where there are numbers
    with pytest.raises(UnsupportedValueError, match="row 0, column 'a': None"):
        Table(["a"], [[None]], optional=False, allow_mixed_types=True)
    table = Table(["a"], [[1], [2]])
    with pytest.raises(UnsupportedValueError, match="row 1, column 'b': None"):
        table.add_column("b", ["x", None])
    table.add_column("b", ["x", "y"])
    assert table.encoded.data["optional"] == [True, False]
    with pytest.raises(UsageError, match="optional has 1 entries for 2 columns"):
        Table(["a", "b"], optional=[True])


def test_dtype_says_what_a_column_holds() -> None:
    types = [int, np.float32, bool, str, list, dict, datetime, Image]
    cells = [1, 2.5, True, "a", (1,), {"a": 1}, date(2024, 1, 1), Image(PIXELS)]
    columns = [str(index) for index in range(len(types))]
    Table(columns, [cells, [None] * len(types)], dtype=types)
    for index in range(len(types)):
        wrong = [None] * len(types)
        wrong[index] = cells[index - 1] if index != 1 else "a"  # type: ignore[call-overload]
        with pytest.raises(UnsupportedValueError, match=f"row 0, column '{index}'"):
            Table(columns, [wrong], dtype=types)
    assert Table(["a", "b"], [[1, 2]], dtype=float).data == [[1, 2]]


@pytest.mark.parametrize("dtype", [object, "float", 3, Table, Media, complex, [[int]]])
def test_a_dtype_that_no_cell_has_is_refused(dtype: Any) -> None:
    with pytest.raises(UsageError, match="dtype takes a class such as float, str or tracklayer.Image"):
        Table(["a"], dtype=dtype)


# -- bad calls ------------------------------------------------------------------------------------------


def test_a_row_of_another_length_is_refused() -> None:
    message = r"row 1 has 3 cells for 2 columns: \['a', 'b'\]"
    table = Table(["a", "b"], [[1, 2]])
    with pytest.raises(UsageError, match=message):
        table.add_data(1, 2, 3)
    with pytest.raises(UsageError, match=message):
        Table(["a", "b"], [[1, 2], [1, 2, 3]])
    with pytest.raises(UsageError, match="row 0 has 2 cells for 3 columns"):
        Table(["a", "b", "c"], np.zeros((4, 2)))
    with pytest.raises(UsageError, match="column 'c' has 2 cells for 1 rows"):
        table.add_column("c", [1, 2])
    assert table.data == [[1, 2]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": "abc"}, "columns are a list of strings or integers, not 'abc'"),
        ({"columns": {"a": 1}}, "columns are a list"),
        ({"columns": ["a", 1.5]}, "columns are a list"),
        ({"columns": [True]}, "columns are a list"),
        ({"columns": ["a"], "data": "text"}, "data: a list or a numpy array is needed, not a str"),
        ({"columns": ["a"], "data": {"a": [1]}}, "data: a list .* not a dict"),
        ({"columns": ["a"], "data": 3}, "data: a list .* not a int"),
        ({"columns": ["a"], "data": np.array(3)}, "data: a list .* not a ndarray"),
        ({"columns": ["a"], "data": np.zeros(2)}, "row 0 is a float; a row is a list with a cell for each"),
        ({"columns": ["a"], "data": [[1], {"a": 1}]}, "row 1 is a dict"),
        ({"columns": ["a"], "data": ["x"]}, "row 0 is a str"),
        ({"columns": ["a"], "data": jnp.zeros((2, 1))}, r"data: .* give numpy.asarray\(array\)"),
        ({"data": [], "rows": []}, "one of data, rows and dataframe"),
        ({"data": [], "dataframe": pd.DataFrame()}, "one of data, rows and dataframe"),
        ({"dataframe": [[1]]}, "dataframe takes a pandas.DataFrame, not a list"),
        ({"columns": ["b"], "data": pd.DataFrame({"a": [1]})}, r"frame's columns are \['a'\], not \['b'\]"),
        ({"dataframe": pd.DataFrame([[1]], columns=[(1, 2)])}, "columns are a list of strings"),
        ({"log_mode": "INCREMENTAL"}, "in place of 'INCREMENTAL', log a Table of the new rows"),
        ({"log_mode": None}, "log_mode must be 'IMMUTABLE' or 'MUTABLE', not None"),
        ({"dtype": int, "allow_mixed_types": True}, "dtype or allow_mixed_types, not both"),
        ({"dtype": [int]}, "dtype has 1 entries for 3 columns"),
    ],
)
def test_a_bad_call_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Table(**arguments)


def test_a_bad_column_is_refused() -> None:
    table = Table(["a"], [[1]])
    for name, message in (("a", "has a column 'a' already"), (None, "columns are a list")):
        with pytest.raises(UsageError, match=message):
            table.add_column(name, [1])  # type: ignore[arg-type]
    for data in ("x", 3, {"a": 1}):
        with pytest.raises(UsageError, match="add_column: a list or a numpy array is needed"):
            table.add_column("b", data)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="add_column: an array on a device"):
        table.add_column("b", jnp.zeros(1))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no column 'b'; its columns are \['a'\]"):
        table.get_column("b")
    with pytest.raises(UsageError, match="convert_to='list'"):
        table.get_column("a", convert_to="list")  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="convert_to='numpy': .* but for media"):
        Table(["a"], [[Image(PIXELS)]]).get_column("a", convert_to="numpy")


# -- changing, logging, devices -------------------------------------------------------------------------


def test_a_snapshot_stays_as_it_was() -> None:
    table = Table(["a"], [[1]], log_mode="MUTABLE")
    before = table.snapshot()
    table.add_data(2)
    table.add_column("b", ["x", "y"])
    table.data[0][0] = 3
    assert before.columns == ["a"]
    assert before.data == [[1]]
    assert read_back(before).data == [[1]]
    assert before.encoded.data["log_mode"] == "MUTABLE"
    assert table.snapshot().data == [[3, "x"], [2, "y"]]
    assert before.snapshot() is before


def test_a_table_goes_on_after_it_was_encoded() -> None:
    table = Table(["a"], [[1]])
    first = table.encoded
    assert not table.is_here
    table.add_data(2)
    assert table.encoded.data["rows"] == 2
    assert first.data["rows"] == 1


def test_a_recorded_table_does_not_change() -> None:
    table = Table(["a"], [[1]])
    snapshot = table.snapshot()
    for recorded in (snapshot, read_back(table), Table.of(snapshot.encoded)):
        for change in (
            lambda recorded=recorded: recorded.add_data(1),
            lambda recorded=recorded: recorded.add_column("b", [1]),
            lambda recorded=recorded: recorded.add_computed_columns(lambda *_: {"b": 1}),
        ):
            with pytest.raises(UsageError, match="make a new one of its columns and its data"):
                change()
        assert Table(recorded.columns, recorded.data) == table


def test_rows_may_be_written_directly_and_are_looked_at_later() -> None:
    table = Table(["a", "b"], [[1, "x"]])
    table.data[0][0] = np.float32(2)
    table.data.append([OrderedDict(a=(1,)), np.zeros(2)])
    assert read_back(table).data == [[2.0, "x"], [{"a": [1]}, [0.0, 0.0]]]
    table.data[1][1] = object()
    with pytest.raises(
        UnsupportedValueError, match="row 1, column 'b': a cell cannot hold a builtins.object"
    ):
        table.snapshot().encoded  # noqa: B018 - encodes it
    table.data[1].pop()
    with pytest.raises(UnsupportedValueError, match="row 1 has 1 cells for 2 columns"):
        table.snapshot().encoded  # noqa: B018 - encodes it


def test_cells_of_a_device_land_with_their_row() -> None:
    image = Image(jnp.asarray(PIXELS))
    table = Table(["loss", "image", "more"])
    table.add_data(1.0, None, None)
    table.add_data(jnp.float32(0.5), image, [jnp.arange(2), {"x": jnp.bfloat16(1.5)}])
    snapshot = table.snapshot()
    arrays = snapshot.arrays()
    assert len(arrays) == 4
    assert not Table(["a"], [[1]]).arrays()
    image.encoded  # noqa: B018 - somebody else logs it, too, and it is encoded first
    table.add_data(jnp.float32(0.25), None, None)
    hosts: list[NDArray[Any]] = [np.asarray(array) for array in arrays]
    landed = snapshot.landed(hosts)
    assert not landed.arrays()
    expected = [[1.0, None, None], [0.5, Image(PIXELS), [[0, 1], {"x": 1.5}]]]
    assert read_back(landed).data == expected
    assert read_back(snapshot).data == expected  # which fetches them itself
    assert snapshot.nbytes > PIXELS.nbytes
    live = table.landed([np.asarray(array) for array in table.arrays()])
    assert [row[0] for row in live.data] == [1.0, 0.5, 0.25]


def test_a_logged_table_and_its_chart_are_read_from_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKLAYER_DIR", str(tmp_path / "store"))
    table = Table(["step", "loss", "image"])
    with tracklayer.init(id="r", backend="sqlite") as run:
        for step in range(2):
            table.add_data(step, jnp.float32(0.5) * step, Image(jnp.asarray(PIXELS)))
            run.log(
                {"table": table, "chart": plot.line(table, "step", "loss"), "frame": table.get_dataframe()}
            )
    found = [point.value for point in tracklayer.open_store().run("r").media()]
    rows = [[0, 0.0, Image(PIXELS)], [1, 0.5, Image(PIXELS)]]
    assert [value.data for value in found if isinstance(value, Table)] == [rows[:1]] * 2 + [rows] * 2
    assert [value.table.data for value in found if isinstance(value, Chart)] == [rows[:1], rows]


def test_an_image_that_cannot_be_encoded_says_where_it_is() -> None:
    class Broken:
        nbytes = 0

        def arrays(self) -> tuple[()]:
            return ()

        def landed(self, hosts: Any) -> Broken:
            del hosts
            return self

        def encoded(self) -> Any:
            msg = "it is broken"
            raise UnsupportedValueError(msg)

    table = Table(["image"], [[Image(PIXELS)], [Image.of(Broken())]])
    with pytest.raises(UnsupportedValueError, match="row 1, column 'image': it is broken"):
        table.snapshot().encoded  # noqa: B018 - encodes it


@pytest.mark.slow
def test_two_hundred_thousand_rows_take_linear_time() -> None:
    def seconds(rows: int) -> float:
        cells = [[index, 0.5, "text", None] for index in range(rows)]
        start = time.process_time()
        table = Table(["a", "b", "c", "d"], cells).snapshot()
        table.encoded  # noqa: B018 - encodes it
        elapsed = time.process_time() - start
        assert len(table.data) == rows
        return elapsed

    small = min(seconds(20_000) for _ in range(2))
    assert seconds(200_000) < 40 * small
