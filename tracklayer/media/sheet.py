"""What a table is made of: rows that are checked when they come, and written as JSON later."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any, Final, final

from tracklayer.contents import Content, Encoded
from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.media.cells import PLAIN_TYPES, arrays_in, from_json, landed, taken, to_json, type_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CELL_BYTES: Final = 64
"""About what a cell takes in memory, but for a long string or an array."""
_PLAIN: Final = frozenset(PLAIN_TYPES)
_in_json: Final = json.JSONEncoder(separators=(",", ":")).encode


@final
class Sheet:
    """Columns and rows: the source of a table, which grows until a frozen copy of it is taken.

    Args:
        columns: their names.
        types: what `type_of` says of each column's cells; None where the first one decides.
        optional: whether the cells of each may be empty.
        allow_mixed_types: whether cells of one column may be of several types.
        log_mode: wandb's word for what happens when the table is logged again.

    Attributes:
        rows: each of as many cells as there are columns.
        nbytes: about what it holds in memory, in bytes.
    """

    __slots__ = (
        "_arrays",
        "_has_arrays",
        "_types",
        "allow_mixed_types",
        "columns",
        "log_mode",
        "nbytes",
        "optional",
        "rows",
    )

    def __init__(
        self,
        columns: Sequence[str | int],
        types: Sequence[str | None],
        optional: Sequence[bool],
        *,
        allow_mixed_types: bool,
        log_mode: str,
    ) -> None:
        self.columns = [*columns]
        self.optional = [*optional]
        self.allow_mixed_types = allow_mixed_types
        self.log_mode = log_mode
        self.rows: list[list[Any]] = []
        self.nbytes = 0
        self._types = [*types]
        self._has_arrays = False
        self._arrays: Sequence[Any] | None = None  # known once it does not grow any more

    @property
    def is_frozen(self) -> bool:
        """Whether it does not grow any more."""
        return self._arrays is not None

    def append(self, row: Iterable[Any]) -> None:
        """Add a row.

        Raises:
            UsageError: it has not as many cells as there are columns.
            UnsupportedValueError: one of its cells is of a type that its column cannot hold.
        """
        cells = [*row]
        if len(cells) != len(self.columns):
            raise UsageError(_lengths_differ(len(self.rows), cells, self.columns))
        types, size = self._types, _CELL_BYTES * len(cells)
        for index, cell in enumerate(cells):
            if cell is None and self.optional[index]:
                continue
            found = PLAIN_TYPES.get(cell.__class__)
            if found is None or found != types[index]:
                where = len(self.rows), self.columns[index]
                cells[index], found = self._fitted(cell, where, types[index], optional=self.optional[index])
                size += _size(cells[index])
                if found != types[index]:
                    types = [*types[:index], found, *types[index + 1 :]]
            elif found == "string":
                size += len(cell)  # pyright: ignore[reportArgumentType] - a str
        self.rows.append(cells)
        self.nbytes += size
        self._types = types

    def add_column(self, name: str | int, cells: Sequence[Any], *, optional: bool) -> None:
        """Add a column, with a cell for each row; the first column brings its rows.

        Raises:
            UsageError: it has not as many cells as there are rows.
            UnsupportedValueError: one of its cells cannot be held, or is of another type than those above it.
        """
        if self.columns and len(cells) != len(self.rows):
            msg = f"column {name!r} has {len(cells)} cells for {len(self.rows)} rows"
            raise UsageError(msg)
        kept: list[Any] = []
        known: str | None = None
        for index, cell in enumerate(cells):
            fitted, known = self._fitted(cell, (index, name), known, optional=optional)
            kept.append(fitted)
        if not self.columns:
            self.rows = [[] for _ in kept]
        for row, cell in zip(self.rows, kept, strict=True):
            row.append(cell)
        self.nbytes += sum(_CELL_BYTES + _size(cell) for cell in kept)
        self.columns.append(name)
        self.optional.append(optional)
        self._types.append(known)

    def frozen(self) -> Sheet:
        """Return a copy with the rows of now, which does not grow."""
        return self._with([row.copy() for row in self.rows], self.arrays())

    def arrays(self) -> Sequence[Any]:
        """Return the jax arrays in the cells."""
        if self._arrays is not None:
            return self._arrays
        if not self._has_arrays:
            return ()
        return [array for row in self.rows for cell in row for array in arrays_in(cell)]

    def landed(self, hosts: Sequence[NDArray[Any]], /) -> Sheet:
        """Return a frozen copy with numpy arrays in place of those."""
        found = {id(array): host for array, host in zip(self.arrays(), hosts, strict=True)}
        return self._with([[landed(cell, found) for cell in row] for row in self.rows], ())

    def encoded(self) -> Encoded:
        """Write the rows as JSON, with NaN and the infinities as Python writes them.

        Raises:
            UnsupportedValueError: a cell cannot be encoded; the message says which.
        """
        contents: dict[str, Content] = {}
        # row by row: one call for all of them would keep all other threads waiting
        rows = ",".join([_in_json(self._row_in_json(index, contents)) for index in range(len(self.rows))])
        file = Content.of(f'{{"columns":{_in_json(self.columns)},"data":[{rows}]}}'.encode())
        contents[file.sha256] = file
        data = {
            "file": file.sha256,
            "columns": self.columns,
            "rows": len(self.rows),
            "optional": self.optional,
            "allow_mixed_types": self.allow_mixed_types,
            "log_mode": self.log_mode,
        }
        return Encoded(data, contents)

    def _with(self, rows: list[list[Any]], arrays: Sequence[Any]) -> Sheet:
        sheet = Sheet(
            self.columns,
            self._types,
            self.optional,
            allow_mixed_types=self.allow_mixed_types,
            log_mode=self.log_mode,
        )
        sheet.rows, sheet.nbytes, sheet._arrays = rows, self.nbytes, arrays
        return sheet

    def _fitted(
        self, cell: Any, where: tuple[int, str | int], known: str | None, *, optional: bool
    ) -> tuple[Any, str | None]:
        """Return a cell as it is kept, and the type that its column has from then on."""
        try:
            kept = taken(cell)
        except UnsupportedValueError as error:
            raise _located(error, where) from error
        if not self._has_arrays:
            self._has_arrays = next(arrays_in(kept), None) is not None
        if optional and (kept is None or (kept.__class__ is float and isnan(kept))):
            return kept, known
        found = type_of(kept)
        if found is None:
            problem = "None in a column that is not optional"
            raise _located(problem, where)
        if known not in {None, found}:
            problem = f"a cell of type {found} in a column of type {known}: allow_mixed_types=True takes both"
            raise _located(problem, where)
        return kept, None if self.allow_mixed_types else found

    def _row_in_json(self, index: int, contents: dict[str, Content]) -> list[Any]:
        row = self.rows[index]
        if len(row) != len(self.columns):  # somebody wrote it directly
            raise UnsupportedValueError(_lengths_differ(index, row, self.columns))
        if _PLAIN.issuperset(map(type, row)):
            return row
        cells: list[Any] = []
        for name, cell in zip(self.columns, row, strict=True):
            try:
                cells.append(to_json(taken(cell), contents))  # taken again: it may have been written directly
            except UnsupportedValueError as error:
                raise _located(error, (index, name)) from error
        return cells


def read_rows(encoded: Encoded) -> list[list[Any]]:
    """Return the rows that a sheet was encoded to.

    Raises:
        CorruptRunError: the store does not have them any more.
    """
    contents = encoded.contents
    rows: list[list[Any]] = json.loads(contents[encoded.data["file"]].read())["data"]
    return [row if _PLAIN.issuperset(map(type, row)) else from_json(row, contents) for row in rows]


def _lengths_differ(index: int, row: Sequence[Any], columns: Sequence[str | int]) -> str:
    return f"row {index} has {len(row)} cells for {len(columns)} columns: {columns}"


def _located(problem: object, where: tuple[int, str | int]) -> UnsupportedValueError:
    return UnsupportedValueError(f"row {where[0]}, column {where[1]!r}: {problem}")


def _size(cell: Any) -> int:
    """Return what a cell holds in memory beside itself, in bytes."""
    if isinstance(cell, str):
        return len(cell)
    return int(getattr(cell, "nbytes", 0))
