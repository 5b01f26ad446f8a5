"""`tracklayer push`: recorded runs to the hosted backend, or to another place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final, TypeAlias, get_args

import click

from tracklayer.cli import failures, output
from tracklayer.cli.finding import find_run
from tracklayer.cli.options import dir_option, json_option
from tracklayer.errors import StoreError, TracklayerError
from tracklayer.protocol import State

if TYPE_CHECKING:
    from pathlib import Path

    from tracklayer.cli.transfers import Screen
    from tracklayer.push_report import Progress, PushReport
    from tracklayer.reading import RunReader, Store

PushOne: TypeAlias = "Callable[[RunReader, Progress], PushReport]"
_SECONDS: Final = click.FloatRange(min=0, min_open=True)


@click.command("push")
@click.argument("refs", nargs=-1, metavar="[RUN]...")
@click.option("--all", "everything", is_flag=True, help="Push every recorded run.")
@click.option("--project", metavar="P", help="Only the runs of this project.")
@click.option("--group", metavar="G", help="Only the runs of this group.")
@click.option("--state", type=click.Choice(get_args(State)), help="Only the runs in this state.")
@click.option(
    "--to",
    metavar="PLACE",
    help="Where to, instead of its own project: ENTITY/PROJECT, or a folder, as in tensorboard:logs.",
)
@click.option("--id", "run_id", metavar="ID", help="What the one run that is named is to be called there.")
@click.option(
    "--force",
    is_flag=True,
    help="Also where a run of that id is there that is not this one: merge them, or replace a folder's.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--follow", is_flag=True, help="Again and again, until interrupted; new runs, too.")
@click.option(
    "--every", type=_SECONDS, default=30.0, show_default=True, help="Seconds between rounds of --follow."
)
@click.option(
    "--jobs", type=click.IntRange(min=1), default=4, show_default=True, help="Runs that are pushed at a time."
)
@click.option(
    "--timeout",
    type=_SECONDS,
    default=3600.0,
    show_default=True,
    help="Seconds that one run's push may take.",
)
@dir_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    refs: tuple[str, ...],
    everything: bool,
    project: str | None,
    group: str | None,
    state: str | None,
    to: str | None,
    run_id: str | None,
    force: bool,
    dry_run: bool,
    follow: bool,
    every: float,
    jobs: int,
    timeout: float,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Send recorded runs to Weights & Biases, or to another place.

    Only what its server does not have yet is sent, and then read back.  A run that fails does not
    stop the others.  The exit code is 0 only if all of them arrived, or were there already.

    With --follow, runs that still train are sent as far as they are, and show as running until they end.
    Ctrl-C ends it after the pushes at work; a second one ends these, too.  With --json, it prints a line a
    push.
    """
    _check_choice(refs, everything=everything, run_id=run_id)
    if follow and dry_run:
        msg = "--follow sends, and --dry-run does not: pass one of them"
        raise click.UsageError(msg)
    from tracklayer import registry
    from tracklayer.cli.targets import pusher

    store = registry.open_store(folder)
    push_one = pusher(to, run_id, store.path, seconds=timeout, dry_run=dry_run, force=force)

    def choose() -> tuple[list[RunReader], list[Exception]]:
        return _chosen(store, refs, project, group, state)

    if follow:
        from tracklayer.cli.following import follow as go_on

        context.exit(go_on(choose, push_one, every, jobs, lambda report: _say(report, as_json=as_json)))
    readers, errors = choose()
    for error in errors:
        failures.tell(error)
    reports = _push(readers, push_one, jobs, as_json=as_json)
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
    context.exit(_exit_code(reports, errors))


def _check_choice(refs: Sequence[str], *, everything: bool, run_id: str | None) -> None:
    if everything == bool(refs):
        if everything:
            msg = "name the runs to push, or pass --all, not both"
        else:
            msg = "name the runs to push (`tracklayer runs` lists them), or pass --all for each"
        raise click.UsageError(msg)
    if run_id is not None and len(refs) != 1:
        msg = "--id is what one run is to be called: name that run"
        raise click.UsageError(msg)


def _chosen(
    store: Store, refs: tuple[str, ...], project: str | None, group: str | None, state: str | None
) -> tuple[list[RunReader], list[Exception]]:
    """Return the runs to push, oldest first or as they were named, and why others cannot be."""
    errors: list[Exception] = []
    if not refs:
        errors.extend(_named(run.path.name, run.error) for run in store.unreadable())
        return store.runs(project=project, group=group, state=state), errors
    named: dict[str, RunReader] = {}
    for ref in refs:
        try:
            reader = find_run(store, ref, project)
            info = reader.info
        except (TracklayerError, OSError) as failure:
            errors.append(failure)
            continue
        if group in {None, info.group} and state in {None, info.state}:
            named.setdefault(reader.id, reader)
    return list(named.values()), errors


def _named(file: str, error: StoreError) -> StoreError:
    described = failures.describe(error)
    return error if file in described else StoreError(f"{file}: {described}")


def _push(readers: Sequence[RunReader], push_one: PushOne, jobs: int, *, as_json: bool) -> list[PushReport]:
    """Push runs, and show it; return the reports in the order of the runs."""
    from tracklayer.cli.transfers import screen
    from tracklayer.cli.working import work_through

    reports: dict[str, PushReport] = {}
    with screen(len(readers), shown=output.is_terminal() and not as_json) as shown:
        for report in work_through(chains(readers), lambda reader: shown_push(reader, push_one, shown), jobs):
            shown.refresh()
            if report is not None:
                reports[report.run_id] = report
                if not as_json:
                    shown.say(line(report))
    return [reports[reader.id] for reader in readers]


def chains(readers: Sequence[RunReader]) -> list[list[RunReader]]:
    """Return what can be pushed at the same time: each run, but those with artifacts in their order.

    A version gets its number when it is pushed, and a run can only use one that is there.
    """
    if len(readers) < 2:
        return [[reader] for reader in readers]
    ordered: list[RunReader] = []
    alone: list[list[RunReader]] = []
    for reader in readers:
        try:
            has_artifacts = bool(reader.artifacts() or reader.used_artifacts())
        except (TracklayerError, OSError):  # which its push will report
            has_artifacts = False
        if has_artifacts:
            ordered.append(reader)
        else:
            alone.append([reader])
    return [ordered, *alone] if ordered else alone


def shown_push(reader: RunReader, push_one: PushOne, shown: Screen) -> PushReport:
    """Push a run while a screen shows how far it is; return a report whose message is fit to print."""
    from tracklayer.push_report import Progress

    progress = Progress()
    shown.begin(reader.id, progress)
    try:
        report = push_one(reader, progress)
    finally:
        shown.end(reader.id)
    return replace(report, message=failures.one_line(report.message))


def line(report: PushReport) -> str:
    """Return what became of a push, in one line."""
    rows = f"{output.printable(report.run_id)}: {report.outcome}, {report.rows} of {report.total} rows"
    return "; ".join(text for text in (rows, report.message, report.url) if text)


def _say(report: PushReport, *, as_json: bool) -> None:
    output.echo(json.dumps(output.strict(asdict(report))) if as_json else line(report))


def _total(store: Store, reports: Sequence[PushReport]) -> str:
    if not reports:
        return f"nothing to push in {output.printable(str(store.path))}"
    counts = Counter[str](report.outcome for report in reports)
    runs = output.counted(len(reports), "run")
    return f"{runs}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def _exit_code(reports: Sequence[PushReport], errors: Sequence[Exception]) -> int:
    from tracklayer.push_report import OK_OUTCOMES

    if not all(report.outcome in OK_OUTCOMES for report in reports):
        return failures.FAILED
    return max(map(failures.exit_code, errors), default=0)
