"""`tracklayer logs`: what a run's processes printed."""

from __future__ import annotations

import json
from collections import deque
from contextlib import suppress
from datetime import datetime
from itertools import islice
from time import sleep
from typing import TYPE_CHECKING, Final, get_args

import click

from tracklayer.cli import output
from tracklayer.cli.finding import find_run
from tracklayer.cli.options import dir_option
from tracklayer.surroundings import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tracklayer.reading import RunReader
    from tracklayer.surroundings import ConsoleLine

_INTERVAL: Final = 0.5
"""Seconds between looks at a run that goes on."""
_PAGE: Final = 1000


@click.command("logs")
@click.argument("ref", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends, or you interrupt it.")
@click.option("--stream", type=click.Choice(get_args(Stream)), help="Only what was printed there.")
@click.option("--times", is_flag=True, help="Put before each line when it was printed.")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines so far.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line: time, stream, text.")
@dir_option
def command(
    *,
    ref: str,
    follow: bool,
    stream: Stream | None,
    times: bool,
    tail: int | None,
    as_json: bool,
    folder: Path | None,
) -> None:
    """Print what a run printed.

    These are the lines of its stdout and stderr as they stood on the screen at last: of a progress
    bar, its last state.  What would steer a terminal is escaped.  Times are local; in JSON, Unix
    seconds.
    """
    from tracklayer.registry import open_store

    reader = find_run(open_store(folder), ref)
    shown = _as_json if as_json else _with_time if times else _as_text

    def show(lines: Iterable[ConsoleLine]) -> None:
        wanted = (shown(line) for line in lines if stream in {None, line.stream})
        while page := list(islice(wanted, _PAGE)):
            output.echo("\n".join(page))

    with suppress(KeyboardInterrupt):
        count = _show_so_far(reader, stream, tail, show)
        while follow:
            ended = reader.info.state != "running"  # before the look at what it printed last
            fresh = list(reader.console(after=count))
            show(fresh)
            count += len(fresh)
            if ended:
                return
            sleep(_INTERVAL)


def _show_so_far(
    reader: RunReader, stream: Stream | None, tail: int | None, show: Callable[[Iterable[ConsoleLine]], None]
) -> int:
    """Show what there is, or the end of it; return how many lines there are."""
    count = 0

    def counted() -> Iterator[ConsoleLine]:
        nonlocal count
        for line in reader.console():
            count += 1
            yield line

    lines: Iterable[ConsoleLine] = counted()
    if tail is not None:
        lines = deque((line for line in lines if stream in {None, line.stream}), maxlen=tail)
    show(lines)
    return count


def _as_text(line: ConsoleLine) -> str:
    return "\t".join(map(output.printable, line.text.split("\t")))


def _with_time(line: ConsoleLine) -> str:
    moment = datetime.fromtimestamp(line.time).astimezone()
    return f"{moment.isoformat(' ', 'milliseconds')}  {_as_text(line)}"


def _as_json(line: ConsoleLine) -> str:
    return json.dumps(output.strict(line._asdict()))
