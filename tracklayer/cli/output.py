"""What commands print: tables, nested data and JSON; rich on a terminal, plain everywhere else.

Plain output is never wrapped or shortened, so that `grep`, `awk` and a log file get it whole.  What
is not printable, in a name or a value, is escaped: a run's data must not steer anybody's terminal.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

import click

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.tree import Tree

NOTHING: Final = "-"
_STATE_STYLES: Final[Mapping[str, str]] = {
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "crashed": "red",
    "died": "red",
    "pruned": "yellow",
    "paused": "yellow",
}
_GAP: Final = "  "
_NARROW: Final = 12
"""Columns up to this width, such as ids, are not folded while the others can be."""
_FOLDED: Final = 6
"""The width that is left to the others, at least."""
_UNFOLDED: Final = 10_000
"""More characters than any line of a tree has."""


def is_terminal() -> bool:
    """Say whether a person looks at the output."""
    return sys.stdout.isatty()


def console(width: int | None = None) -> Console:
    """Return rich's console on stdout, as wide as the terminal unless another width is given."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, width=width)


def echo(text: str = "") -> None:
    """Print a line; what the output's encoding lacks is escaped."""
    click.echo(encodable(text))


def encodable(text: str) -> str:
    """Return text in which all that the output's encoding lacks is escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def printable(text: str) -> str:
    """Return text in which all that is not printable, newlines too, is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def safe(text: str) -> str:
    """Return text in which all that is not printable, or that the output's encoding lacks, is escaped."""
    return encodable(printable(text))


def counted(number: int, noun: str) -> str:
    """Return a number of things, such as `1 file` or `2 files`."""
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"


def state_style(state: str | None) -> str:
    """Return rich's style for the state of a run, a trial or a sweep."""
    return _STATE_STYLES.get(state or "", "")


def heading(text: str) -> None:
    """Print the title of what follows, apart from what came before."""
    echo()
    echo(click.style(text, bold=True) if is_terminal() else text)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Collection[str] = ()) -> None:
    """Print rows of cells; `numbers` names the columns that are aligned on the right."""
    cells = [[safe(cell) or NOTHING for cell in row] for row in rows]
    to_the_right = [header in numbers for header in headers]
    if is_terminal():
        _rich_table(headers, cells, to_the_right)
        return
    everything = [list(headers), *cells]
    widths = [max(len(row[i]) for row in everything) for i in range(len(headers))]
    for row in everything:
        aligned = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, to_the_right, strict=True)
        ]
        echo(_GAP.join(aligned).rstrip())


def _rich_table(headers: Sequence[str], rows: Sequence[Sequence[str]], to_the_right: Sequence[bool]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    screen = console()
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    narrow = [width <= _NARROW for width in widths]
    needed = sum(width if short else _FOLDED for width, short in zip(widths, narrow, strict=True))
    fits = needed + len(_GAP) * len(headers) <= screen.width
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for header, right, short in zip(headers, to_the_right, narrow, strict=True):
        side: JustifyMethod = "right" if right else "left"
        drawn.add_column(header, justify=side, overflow="fold", no_wrap=short and fits)
    for row in rows:
        drawn.add_row(
            *(
                Text(cell, style=state_style(cell) if header == "state" else "")
                for header, cell in zip(headers, row, strict=True)
            )
        )
    screen.print(drawn)


def fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        echo(f"{name.ljust(width)}{_GAP}{printable(value) or NOTHING}")


def drawing(lines: Sequence[str]) -> None:
    """Print lines that are drawn in characters; on a terminal that has colours, braille is in one."""
    if not is_terminal():
        for line in lines:
            echo(line)
        return
    from rich.text import Text

    screen = console()
    for line in lines:
        text = Text(encodable(line))
        text.highlight_regex("[\u2801-\u28ff]+", "cyan")
        screen.print(text, soft_wrap=True)


def tree(root: Tree) -> None:
    """Print a tree; its lines are folded on a terminal only."""
    if is_terminal():
        console().print(root)
        return
    for line in console(_UNFOLDED).render_lines(root, pad=False):
        echo("".join(segment.text for segment in line).rstrip())


def nested(data: Mapping[str, Any], indent: int = 1) -> None:
    """Print nested data, a level of indentation for each of its own."""
    for key, value in data.items():
        start = _GAP * indent + printable(str(key)) + ":"
        if isinstance(value, Mapping) and value:
            echo(start)
            nested(cast("Mapping[str, Any]", value), indent + 1)
        else:
            echo(f"{start} {plain_value(value)}")


def plain_value(value: Any) -> str:
    """Return a value as people read it, in one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return printable(text)


def moment(seconds: float | None) -> str:
    """Return a time (Unix seconds) in the local time zone; to the minute, on a terminal."""
    if seconds is None:
        return NOTHING
    try:
        local = datetime.fromtimestamp(seconds).astimezone()
    except (ValueError, OverflowError, OSError):  # no calendar has it
        return str(seconds)
    if is_terminal():
        return local.replace(tzinfo=None).isoformat(" ", "minutes")
    return local.isoformat(" ", "seconds")


def duration(seconds: float) -> str:
    """Return a stretch of time as hours, minutes and seconds."""
    if not math.isfinite(seconds):
        return NOTHING
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def print_json(data: Any) -> None:
    """Print JSON that every parser takes."""
    echo(json.dumps(strict(data), indent=2, allow_nan=False, default=str))


def strict(data: Any) -> Any:
    """Return JSON data without the numbers that JSON has not: they become strings."""
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    if isinstance(data, Mapping):
        entries = cast("Mapping[object, Any]", data)
        return {str(key): strict(value) for key, value in entries.items()}
    if isinstance(data, (list, tuple)):
        return [strict(item) for item in cast("Sequence[Any]", data)]
    return data
