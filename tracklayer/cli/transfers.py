"""The progress of pushes on a terminal: a bar for those that are done, and a line for each at work."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, final

from tracklayer.cli import output

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from tracklayer.push_report import Progress


class Screen(Protocol):
    """What shows pushes."""

    def begin(self, run_id: str, progress: Progress) -> None:
        """Show a push, from now on; called from its own thread."""
        ...

    def end(self, run_id: str) -> None:
        """Show it no more; called from its own thread."""
        ...

    def refresh(self) -> None:
        """Look how far each is."""
        ...

    def say(self, line: str) -> None:
        """Print a line."""
        ...


@contextmanager
def screen(runs: int, *, shown: bool) -> Generator[Screen]:
    """Show bars, or none."""
    if not shown or not runs:
        yield NoBars()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Progress(*columns, console=output.console(), transient=True) as bars:
        yield _Bars(bars, runs)


@final
class NoBars:
    """No terminal, or nothing to show there."""

    def begin(self, run_id: str, progress: Progress) -> None:
        """Show nothing."""

    def end(self, run_id: str) -> None:
        """Show nothing."""

    def refresh(self) -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Print a line."""
        output.echo(line)


@final
class _Bars:
    """A bar of runs, and one of rows for each push at work."""

    def __init__(self, bars: Bars, runs: int) -> None:
        self._bars = bars
        self._runs = runs
        self._done = 0
        self._lock = threading.Lock()
        self._at_work: dict[str, tuple[TaskID, Progress]] = {}
        self._whole = bars.add_task("runs", total=runs, amount=f"0 of {runs}")

    def begin(self, run_id: str, progress: Progress) -> None:
        """Show a push, from now on."""
        task = self._bars.add_task(output.printable(run_id), total=None, amount="")
        with self._lock:
            self._at_work[run_id] = task, progress

    def end(self, run_id: str) -> None:
        """Show it no more."""
        with self._lock:
            task, _ = self._at_work.pop(run_id)
            self._bars.remove_task(task)
            self._done += 1

    def refresh(self) -> None:
        """Look how far each is."""
        with self._lock:  # so that none of them is taken away meanwhile
            self._bars.update(self._whole, completed=self._done, amount=f"{self._done} of {self._runs}")
            for task, progress in self._at_work.values():
                total, sent = progress.total, progress.sent
                self._bars.update(task, total=total, completed=sent)
                speed = next(one.speed for one in self._bars.tasks if one.id == task)
                self._bars.update(task, amount=_amount(sent, total, progress.bytes, speed))

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(line, soft_wrap=True, markup=False, highlight=False)


def _amount(sent: int, total: int | None, size: int, speed: float | None) -> str:
    from rich.filesize import decimal

    parts = [f"{sent:,} rows" if total is None else f"{sent:,} of {total:,} rows"]
    if speed:
        parts.append(f"{speed:,.0f} rows/s")
    if size:
        parts.append(f"{decimal(size)} of files")
    return ", ".join(parts)
