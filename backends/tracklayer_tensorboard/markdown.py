"""Tables as Markdown, as TensorBoard's Text tab reads it: Python-Markdown with its tables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_ROWS: Final = 100
MAX_COLUMNS: Final = 20
MAX_CELL: Final = 200
"""Characters."""

_SPECIAL: Final = re.compile(r"[\\`*_\[\]|]")  # within a line


def table(columns: Sequence[object], rows: Sequence[Sequence[Any]], text: Callable[[Any], str] = str) -> str:
    """Return a table of what `text` makes of the cells, as it is: nothing in a cell is taken for Markdown.

    It is cut to what a page can show; below it stands how much was left out.
    """
    header = [_cell(str(column)) for column in columns[:MAX_COLUMNS]]
    body = [[_cell(text(cell)) for cell in row[:MAX_COLUMNS]] for row in rows[:MAX_ROWS]]
    lines = [_line(row) for row in (header, ["---"] * len(header), *body)]
    for what, count in (("rows", len(rows) - MAX_ROWS), ("columns", len(columns) - MAX_COLUMNS)):
        if count > 0:
            lines += ["", f"{what} not shown: {count}"]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    cut = text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"
    plain = _SPECIAL.sub(r"\\\g<0>", cut.replace("&", "&amp;").replace("<", "&lt;"))
    return "<br>".join(plain.splitlines())
