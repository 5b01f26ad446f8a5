"""`tracklayer runs`: what is recorded."""

from __future__ import annotations

from dataclasses import asdict
from time import time as now
from typing import TYPE_CHECKING, Any, get_args

import click

from tracklayer.cli import failures, output
from tracklayer.cli.options import dir_option, json_option
from tracklayer.errors import RunNotFoundError, StoreError
from tracklayer.protocol import State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tracklayer.protocol import RunInfo
    from tracklayer.reading import RunReader, Store


@click.command("runs")
@click.option("--project", metavar="P", help="Only the runs of this project.")
@click.option("--group", metavar="G", help="Only the runs of this group.")
@click.option("--state", type=click.Choice(get_args(State)), help="Only the runs in this state.")
@dir_option
@json_option
def command(
    *,
    project: str | None,
    group: str | None,
    state: str | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """List the recorded runs, newest last.

    A run whose file cannot be read is listed with the reason, whatever was asked for: what it is
    cannot be known.
    """
    from tracklayer.registry import open_store

    store = open_store(folder)
    found: list[dict[str, Any]] = []
    unreadable: dict[str, str] = {run.path.name: failures.describe(run.error) for run in store.unreadable()}
    for reader in store.runs(project=project, group=group, state=state):
        try:
            found.append(_entry(reader, store))
        except StoreError as error:
            unreadable[reader.id] = failures.describe(error)
        except RunNotFoundError:
            continue  # it went away since the store was listed
    if as_json:
        listed = [{"file": file, "error": why} for file, why in unreadable.items()]
        output.print_json({"store": str(store.path), "runs": found, "unreadable": listed})
    else:
        _print(store, found, unreadable)


def run_seconds(reader: RunReader, info: RunInfo) -> float:
    """Return how many seconds a run's processes worked on it, without the pauses between them."""
    if not info.resumed:
        return (now() if info.finished_at is None else info.finished_at) - info.created_at
    return sum(
        (now() if segment.ended_at is None else segment.ended_at) - segment.started_at
        for segment in reader.segments
    )


def pushes(reader: RunReader, store: Store) -> list[dict[str, Any]]:
    """Return what each target of a push has confirmed, and whether that is all there is by now.

    The state is `"pushed"`; `"partly"`, up to the step `through` of those up to `last_step`; or `"changed"`
    since all of it was pushed.
    """
    from tracklayer.ledger import Ledger

    entries = Ledger(store.path, reader.id).targets()
    revision, last_step = (reader.revision, reader.last_step) if entries else ("", -1)
    found: list[dict[str, Any]] = []
    for target, entry in entries.items():
        is_current = entry.revision == revision and entry.sending is None
        is_partial = entry.through < last_step or not entry.confirmed_at
        found.append(
            {
                "target": target,
                "state": "partly" if is_partial else "pushed" if is_current else "changed",
                "up_to_date": is_current and not is_partial,
                "through": entry.through,
                "last_step": last_step,
                "rows": entry.rows,
                "late": entry.late,
                "repeated": entry.repeated,
                "waiting": entry.waiting,
                "confirmed_at": entry.confirmed_at or None,
                "url": entry.url or None,
            }
        )
    return found


def pushed(confirmed: Sequence[dict[str, Any]]) -> str:
    """Return whether a run was pushed, or how far, in a word or two; of several targets, to the best."""
    if not confirmed:
        return "no"
    best = max(confirmed, key=lambda push: (push["up_to_date"], push["through"]))
    if best["state"] == "partly":
        return f"{100 * (best['through'] + 1) // max(1, best['last_step'] + 1)} %"
    return "yes" if best["state"] == "pushed" else "changed since"


def _entry(reader: RunReader, store: Store) -> dict[str, Any]:
    info, last_step = reader.info, reader.last_step
    return {
        **asdict(info),
        "steps": last_step + 1,
        "duration_seconds": run_seconds(reader, info),
        "pushes": pushes(reader, store),
    }


def _print(store: Store, found: Sequence[dict[str, Any]], unreadable: dict[str, str]) -> None:
    if found:
        output.table(
            ("id", "name", "project", "state", "steps", "created", "duration", "pushed"),
            [
                (
                    run["id"],
                    run["name"],
                    run["project"],
                    run["state"],
                    str(run["steps"]) if run["steps"] else output.NOTHING,
                    output.moment(run["created_at"]),
                    output.duration(run["duration_seconds"]),
                    pushed(run["pushes"]),
                )
                for run in found
            ],
            numbers=("steps", "duration"),
        )
    elif not unreadable:
        output.echo(f"no runs in {output.printable(str(store.path))}")
    if unreadable:
        output.heading(f"cannot be read: {len(unreadable)}")
        output.table(("file", "reason"), list(unreadable.items()))
