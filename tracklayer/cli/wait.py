"""`tracklayer wait`: until something holds for a run."""

from __future__ import annotations

from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, final

import click

from tracklayer.cli import failures, output
from tracklayer.cli.finding import find_run
from tracklayer.cli.options import dir_option
from tracklayer.errors import RunNotFoundError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tracklayer.reading import RunReader, Store

TIMED_OUT: Final = 124
"""The exit code of a wait that was too long; `timeout` of the coreutils has the same."""

_UNREADABLE: Final = 5.0
"""Seconds for which a file that cannot be read may still become a run: it is written just now."""


@click.command("wait")
@click.argument("ref", metavar="RUN")
@click.option("--until", metavar="EXPR", help="What is to hold; by default, that the run has ended.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="S",
    help="Give up after so many seconds. The run may then still be to come.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.01),
    default=1.0,
    show_default=True,
    metavar="S",
    help="The seconds between two looks.",
)
@dir_option
@click.pass_context
def command(
    context: click.Context,
    *,
    ref: str,
    until: str | None,
    timeout: float | None,
    interval: float,
    folder: Path | None,
) -> None:
    """Wait until a run has ended, or something else holds for it.

    EXPR compares the run's state, its step (the highest that was logged), its exit_code or an entry of its
    summary with a value, by == != < <= > >=, and joins comparisons by and, or, not and parentheses:
    "val/accuracy > 0.9 or step >= 10000", "state == finished".  Dots lead into an entry, as in loss.min;
    quotes are for names and words with spaces.  A comparison with what is not there is false.

    Exit codes: 0 it holds; 1 the run ended without; 124 the time was over.
    """
    from tracklayer.conditions import parse_condition
    from tracklayer.registry import open_store

    condition = None if until is None else parse_condition(until)
    deadline = monotonic() + timeout if timeout is not None else None
    reader = _find(open_store(folder), ref, interval, deadline)
    while reader is not None:
        facts = _Facts(reader)
        holds = facts.has_ended if condition is None else condition(facts.lookup)
        if holds or facts.has_ended:
            output.echo(f"{output.safe(reader.id)}: {facts.state}, step {facts.step}")
            context.exit(0 if holds else failures.FAILED)
        if not _pause(interval, deadline):
            break
    waited = f"in {timeout:g} s"
    happened = f"no run {ref!r} came" if reader is None else f"it did not come to hold for run {reader.id}"
    failures.tell_line(failures.one_line(f"{happened} {waited}"))
    context.exit(TIMED_OUT)


@final
class _Facts:
    """What is known of a run at one moment; the summary is read only if it is asked for."""

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader
        info = reader.info  # before all else: what an ended run logged is there by then
        self.state = info.state
        self.has_ended = info.state != "running"
        self.step = reader.last_step
        self._known: dict[str, Any] = {"state": self.state, "step": self.step, "exit_code": info.exit_code}
        self._summary: Mapping[str, Any] | None = None

    def lookup(self, name: str) -> Any:
        """Return what is known under a name."""
        if name in self._known:
            return self._known[name]
        from tracklayer.filtering import within

        if self._summary is None:
            self._summary = self._reader.summary
        return within(self._summary, name)


def _find(store: Store, ref: str, interval: float, deadline: float | None) -> RunReader | None:
    """Return the run, which may still be to come if there is a deadline; None if it has not come by then.

    Raises:
        RunNotFoundError: there is none, and no deadline.
        AmbiguousRunError: there are several.
        StoreError: its file cannot be read.
    """
    unreadable_since: float | None = None
    while True:
        try:
            reader = find_run(store, ref)
            reader.info  # noqa: B018 - whether it can be read
            return reader
        except RunNotFoundError:
            if deadline is None:
                raise
        except StoreError:
            unreadable_since = unreadable_since or monotonic()
            if deadline is None or monotonic() - unreadable_since > _UNREADABLE:
                raise
        if not _pause(interval, deadline):
            return None


def _pause(interval: float, deadline: float | None) -> bool:
    """Wait before the next look; say whether there is to be one."""
    if deadline is None:
        sleep(interval)
        return True
    left = deadline - monotonic()
    sleep(max(0.0, min(interval, left)))
    return left > 0
