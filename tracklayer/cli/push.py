"""`tracklayer push`: recorded runs to the hosted backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import click

from tracklayer.cli import failures, output
from tracklayer.cli.finding import find_run
from tracklayer.cli.options import dir_option, json_option
from tracklayer.errors import StoreError, TracklayerError

if TYPE_CHECKING:
    from pathlib import Path

    from tracklayer.pushing import PushReport
    from tracklayer.reading import RunReader, Store

_Screen: TypeAlias = tuple[Callable[[str, int], None], Callable[[str], None]]
"""What is told a run's id and the number of its rows that are sent, and what prints a line."""


@click.command("push")
@click.argument("refs", nargs=-1, metavar="[RUN]...")
@click.option("--all", "everything", is_flag=True, help="Push every recorded run.")
@click.option("--project", metavar="P", help="Only the runs of this project.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@dir_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    refs: tuple[str, ...],
    everything: bool,
    project: str | None,
    dry_run: bool,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Send recorded runs to Weights & Biases.

    Only what its server does not have yet is sent, and then read back.  A run that fails does not
    stop the others.  The exit code is 0 only if all of them arrived, or were there already.
    """
    if everything == bool(refs):
        if everything:
            msg = "name the runs to push, or pass --all, not both"
        else:
            msg = "name the runs to push (`tracklayer runs` lists them), or pass --all for each"
        raise click.UsageError(msg)
    from tracklayer import pushing, registry, settings

    store = registry.open_store(folder)
    backend = registry.load(settings.ONLINE_BACKEND)
    readers, errors = _chosen(store, refs, project)
    reports: list[PushReport] = []
    with _progress(len(readers), shown=output.is_terminal() and not as_json) as (advance, say):
        for reader in readers:
            advance(reader.id, 0)
            try:
                report = pushing.push(
                    reader,
                    backend,
                    store.path,
                    dry_run=dry_run,
                    progress=partial(advance, reader.id),
                )
            except (TracklayerError, OSError) as failure:
                report = pushing.PushReport(reader.id, "failed", 0, 0, failures.describe(failure))
            message = failures.one_line(report.message)
            reports.append(replace(report, message=message))
            if not as_json:
                say(_line(reports[-1]))
    if as_json:
        output.print_json(
            {
                "store": str(store.path),
                "dry_run": dry_run,
                "runs": [asdict(report) for report in reports],
                "errors": [failures.describe(error) for error in errors],
            }
        )
    else:
        output.echo(_total(store, reports))
    if not all(report.outcome in pushing.OK_OUTCOMES for report in reports):
        context.exit(failures.FAILED)
    context.exit(max(map(failures.exit_code, errors), default=0))


def _chosen(
    store: Store, refs: tuple[str, ...], project: str | None
) -> tuple[list[RunReader], list[Exception]]:
    """Return the runs to push, oldest first or as they were named, and why others cannot be."""
    errors: list[Exception] = []
    if refs:
        named: dict[str, RunReader] = {}
        for ref in refs:
            try:
                reader = find_run(store, ref, project)
                named.setdefault(reader.id, reader)
            except (TracklayerError, OSError) as failure:
                errors.append(failure)
        readers = list(named.values())
    else:
        readers = store.runs(project=project)
        errors.extend(_named(run.path.name, run.error) for run in store.unreadable())
    for error in errors:
        failures.tell(error)
    return readers, errors


def _named(file: str, error: StoreError) -> StoreError:
    described = failures.describe(error)
    return error if file in described else StoreError(f"{file}: {described}")


def _line(report: PushReport) -> str:
    rows = f"{report.run_id}: {report.outcome}, {report.rows} of {report.total} rows"
    return "; ".join(text for text in (rows, report.message, report.url) if text)


def _total(store: Store, reports: list[PushReport]) -> str:
    if not reports:
        return f"nothing to push in {output.printable(str(store.path))}"
    counts = Counter[str](report.outcome for report in reports)
    runs = "1 run" if len(reports) == 1 else f"{len(reports)} runs"
    return f"{runs}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


@contextmanager
def _progress(runs: int, *, shown: bool) -> Generator[_Screen]:
    """Show a progress bar, or none; give what moves it, and what prints a line meanwhile."""
    if not shown or not runs:
        yield (lambda _run, _rows: None), output.echo
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=output.console(), transient=True) as bar:
        task = bar.add_task("", total=runs)
        seen: list[str] = []

        def advance(run_id: str, rows: int) -> None:
            if run_id not in seen:
                seen.append(run_id)
            text = f"{output.printable(run_id)}: {rows:,} rows"
            bar.update(task, completed=len(seen) - 1, description=text)

        def say(line: str) -> None:
            bar.console.print(line, soft_wrap=True)
            bar.update(task, completed=len(seen))

        yield advance, say
