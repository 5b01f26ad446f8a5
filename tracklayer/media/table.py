"""Tables: rows of numbers, strings and media under named columns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Self, cast, final, overload

from tracklayer.errors import UsageError
from tracklayer.media.base import Media
from tracklayer.media.cells import type_of_instances
from tracklayer.media.pixels import is_jax_array
from tracklayer.media.sheet import Sheet, read_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracklayer.contents import Encoded
    from tracklayer.media.base import Source


@final
class Table(Media):
    """Rows under named columns.

    A cell holds None, a number, a string, a date or time (one without a time zone is in UTC, for W&B), an
    array of real numbers, a list or dict of these, or an `Image`, `Audio`, `Video`, `Html`, `Plotly` or
    `Object3D`.  A jax array is fetched when the table is logged, and must not be donated before.  NaN and the
    infinities are kept; pandas' NA and NaT become None.

    A table can be changed at any time.  Each time that it is logged, it is recorded as it is then.

    Args:
        columns: the names, strings or integers; ["Input", "Output", "Expected"] where none are given.
            Two may be the same.
        data: the rows, each with a cell for every column; a numpy array of shape (rows, columns); or a data
            frame of pandas, whose columns are then the table's.
        rows: an older name for `data`.
        dataframe: another name for `data` that is a data frame.
        dtype: the class that the cells of all columns are instances of, such as `float`, `str` or `Image`,
            or a list of one for each column.  Otherwise the first cell of a column that is not empty decides.
            int and float, and numpy's and jax's scalars, are all numbers.
        optional: whether cells may be empty, None or NaN, for all columns or for each in a list.  NaN
            may always be among numbers.
        allow_mixed_types: whether a column may hold cells of several types.
        log_mode: "IMMUTABLE" or "MUTABLE", which are recorded for W&B and mean the same here.  wandb ignores
            an "IMMUTABLE" table that was changed and is logged again.

    Raises:
        UsageError: arguments that do not go together, or a row whose length is not that of the columns.
        UnsupportedValueError: something that a cell, or a cell of that column, cannot hold.
    """

    __slots__ = ("_read",)
    kind = "table"

    def __init__(
        self,
        columns: Sequence[str | int] | None = None,
        data: Any = None,
        rows: Any = None,
        dataframe: Any = None,
        dtype: Any = None,
        optional: bool | Sequence[bool] = True,  # noqa: FBT001, FBT002 - W&B's signature
        allow_mixed_types: bool = False,  # noqa: FBT001, FBT002 - W&B's signature
        log_mode: Literal["IMMUTABLE", "MUTABLE"] = "IMMUTABLE",
    ) -> None:
        if sum(content is not None for content in (data, rows, dataframe)) > 1:
            msg = "Table takes one of data, rows and dataframe"
            raise UsageError(msg)
        content: Any = next((content for content in (data, rows, dataframe) if content is not None), ())
        if _is_frame(content):
            if columns is not None and [*columns] != [*content.columns]:
                msg = (
                    f"the data frame's columns are {[*content.columns]}, not {[*columns]}: leave columns "
                    "out, or give dataframe.set_axis(columns, axis=1)"
                )
                raise UsageError(msg)
            columns = [*content.columns]
        elif dataframe is not None:
            msg = f"dataframe takes a pandas.DataFrame, not a {type(dataframe).__qualname__}"
            raise UsageError(msg)
        names = _names(["Input", "Output", "Expected"] if columns is None else columns)
        if log_mode not in {"IMMUTABLE", "MUTABLE"}:
            msg = (
                f"log_mode must be 'IMMUTABLE' or 'MUTABLE', not {log_mode!r}; in place of 'INCREMENTAL', "
                "log a Table of the new rows each time, or one of all rows"
            )
            raise UsageError(msg)
        sheet = Sheet(
            names,
            _types(dtype, names, allow_mixed_types=allow_mixed_types),
            [bool(each) for each in _for_each_column(optional, names, "optional")],
            allow_mixed_types=allow_mixed_types,
            log_mode=log_mode,
        )
        for row in _rows(content):
            sheet.append(row)
        super().__init__(sheet)
        self._read: list[list[Any]] | None = None

    @classmethod
    def of(cls, source: Source | Encoded) -> Self:
        """Return the table with this source, or as it was recorded."""
        table = super().of(source)
        table._read = None  # noqa: SLF001 - its own
        return table

    @property
    def encoded(self) -> Encoded:
        """What the table is encoded to, as it is now.

        Raises:
            UnsupportedValueError: a cell cannot be encoded.
        """
        return self.snapshot().encoded if self._is_growing else super().encoded

    @property
    def columns(self) -> list[str | int]:
        """The columns' names."""
        sheet = self._sheet
        return [*(self.encoded.data["columns"] if sheet is None else sheet.columns)]

    @property
    def data(self) -> list[list[Any]]:
        """The rows.

        They are the table's own, as wandb's are.  What is written into them, and not given to `add_data` or
        `add_column`, is looked at when the table is encoded: what a cell cannot hold is refused only then.
        """
        sheet = self._sheet
        if sheet is not None:
            return sheet.rows
        if self._read is None:
            self._read = read_rows(self.encoded)
        return self._read

    def add_data(self, *data: Any) -> None:
        """Add a row.

        Args:
            data: a cell for each column.

        Raises:
            UsageError: it has not as many cells as there are columns, or the table was recorded.
            UnsupportedValueError: something that a cell, or a cell of that column, cannot hold.
        """
        self._growing().append(data)

    def add_column(self, name: str, data: Sequence[Any] | NDArray[Any], optional: bool = False) -> None:  # noqa: FBT001, FBT002 - W&B's signature
        """Add a column.

        Args:
            name: not that of another.
            data: a cell for each row; if the table has no columns yet, these make its rows.
            optional: whether cells may be empty.

        Raises:
            UsageError: there is such a column, it is longer or shorter than the others, or the table was
                recorded.
            UnsupportedValueError: something that a cell cannot hold, or of another type than the first.
        """
        sheet = self._growing()
        if name in sheet.columns:
            msg = f"the table has a column {name!r} already"
            raise UsageError(msg)
        (checked,) = _names([name])
        sheet.add_column(checked, _items(data, "add_column"), optional=optional)

    def add_computed_columns(self, fn: Callable[[int, dict[str | int, Any]], Mapping[str, Any]]) -> None:
        """Add columns that are computed from the others.

        Args:
            fn: given a row's index and its cells by column, returns its new cells by new column.

        Raises:
            UsageError: the new columns are not the same for all rows, or are there already.
            UnsupportedValueError: as of `add_column`.
        """
        columns = self.columns
        computed = [fn(index, dict(zip(columns, row, strict=True))) for index, row in self.iterrows()]
        names = [*computed[0]] if computed else []
        for index, cells in enumerate(computed):
            if [*cells] != names:
                msg = f"row {index} has new columns {[*cells]}, and row 0 has {names}"
                raise UsageError(msg)
        for name in names:
            self.add_column(name, [cells[name] for cells in computed])

    @overload
    def get_column(self, name: str | int, convert_to: None = None) -> list[Any]: ...

    @overload
    def get_column(self, name: str | int, convert_to: Literal["numpy"]) -> NDArray[Any]: ...

    def get_column(
        self, name: str | int, convert_to: Literal["numpy"] | None = None
    ) -> list[Any] | NDArray[Any]:
        """Return the cells of a column, of the first one with that name.

        Args:
            name: of the column.
            convert_to: "numpy" for an array of them, of shape (rows,) or, where cells are arrays or lists of
                one shape, (rows, *shape).

        Raises:
            UsageError: there is no such column, or an array of media is asked for.
        """
        columns = self.columns
        if name not in columns:
            msg = f"the table has no column {name!r}; its columns are {columns}"
            raise UsageError(msg)
        position = columns.index(name)
        cells = [row[position] for row in self.data]
        if convert_to is None:
            return cells
        if convert_to != "numpy" or any(isinstance(cell, Media) for cell in cells):
            msg = f"convert_to={convert_to!r}: a column becomes a list or, but for media, an array of 'numpy'"
            raise UsageError(msg)
        import numpy as np

        return np.array(cells)

    def get_dataframe(self) -> Any:
        """Return the rows as a pandas.DataFrame."""
        pandas: Any = import_module("pandas")
        return pandas.DataFrame(self.data, columns=self.columns)

    def iterrows(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield the rows with their numbers, from 0."""
        yield from enumerate(self.data)

    def snapshot(self) -> Table:
        """Return the table as it is now, which does not change any more."""
        return Table.of(self._growing().frozen()) if self._is_growing else self

    @property
    def _sheet(self) -> Sheet | None:
        return cast("Sheet | None", self._source)

    @property
    def _is_growing(self) -> bool:
        sheet = self._sheet  # read once: it goes when the table is encoded, maybe on another thread
        return sheet is not None and not sheet.is_frozen

    def _growing(self) -> Sheet:
        sheet = self._sheet
        if sheet is None or sheet.is_frozen:
            msg = "a table as it was recorded does not change; make a new one of its columns and its data"
            raise UsageError(msg)
        return sheet


def _is_frame(content: Any) -> bool:
    # absent while another thread imports the package, as wandb's client does
    frame = getattr(sys.modules.get("pandas"), "DataFrame", None)
    return frame is not None and isinstance(content, frame)


def _names(columns: Any) -> list[str | int]:
    if isinstance(columns, Sequence) and not isinstance(columns, str):
        names: list[Any] = [*columns]
        if all(isinstance(name, (str, int)) and not isinstance(name, bool) for name in names):
            return [str(name) if isinstance(name, str) else int(name) for name in names]
    msg = f"columns are a list of strings or integers, not {columns!r}"
    raise UsageError(msg)


def _types(dtype: Any, names: Sequence[str | int], *, allow_mixed_types: bool) -> list[str | None]:
    if dtype is None:
        return [None] * len(names)
    if allow_mixed_types:
        msg = "Table takes dtype or allow_mixed_types, not both"
        raise UsageError(msg)
    return [type_of_instances(each) for each in _for_each_column(dtype, names, "dtype")]


def _for_each_column(value: Any, names: Sequence[str | int], what: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        return [value] * len(names)
    values: list[Any] = [*value]
    if len(values) != len(names):
        msg = f"{what} has {len(values)} entries for {len(names)} columns: {names}"
        raise UsageError(msg)
    return values


def _rows(content: Any) -> Iterable[Iterable[Any]]:
    """Return the rows of what may be given as data."""
    if _is_frame(content):  # by position, since columns may share a name
        return zip(*(content.iloc[:, index].tolist() for index in range(content.shape[1])), strict=True)
    rows = _items(content, "data")
    for index, row in enumerate(rows):
        if not _is_list(row):
            msg = f"row {index} is a {type(row).__qualname__}; a row is a list with a cell for each column"
            raise UsageError(msg)
    return rows


def _items(content: Any, what: str) -> list[Any]:
    """Return what is in a list, an array of numpy's or a column of pandas'."""
    if is_jax_array(content):
        msg = f"{what}: an array on a device would have to be waited for; give numpy.asarray(array)"
        raise UsageError(msg)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(content, numpy.ndarray) and content.dtype.kind == "M":
        content = content.astype("datetime64[us]")
    items = content.tolist() if hasattr(content, "tolist") else content
    if not _is_list(items):
        msg = f"{what}: a list or a numpy array is needed, not a {type(content).__qualname__}"
        raise UsageError(msg)
    return [*items]


def _is_list(items: Any) -> bool:
    return isinstance(items, Iterable) and not isinstance(items, (str, bytes, Mapping))
