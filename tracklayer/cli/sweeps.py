"""`tracklayer sweeps`: which there are."""

from __future__ import annotations

from time import time as now
from typing import TYPE_CHECKING, Any

import click

from tracklayer.cli import output
from tracklayer.cli.finding import server_has_sweeps
from tracklayer.cli.options import dir_option, json_option
from tracklayer.cli.sweep_show import counts, goal, head, short

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@click.command("sweeps")
@click.option("--project", metavar="P", help="Only the sweeps of this project.")
@dir_option
@json_option
def command(*, project: str | None, folder: Path | None, as_json: bool) -> None:
    """List the sweeps, newest last.

    One line each: its trials by how they ended, the best value so far, and whether agents find something
    to do.  With --json, an object with `store` and `sweeps`, each of which has the fields of
    `tracklayer sweep show --json` but for `config`, `pruned_at`, `importance` and `trials`.
    """
    from tracklayer.settings import store_folder
    from tracklayer.sweeps import require_engine

    require_engine()
    from tracklayer.sweeps.reading import SweepReader
    from tracklayer.sweeps.study import find_sweeps

    store = store_folder(folder)
    found = [head(SweepReader(sweep)) for sweep in find_sweeps(store) if project in {None, sweep.project}]
    if as_json:
        output.print_json({"store": str(store), "sweeps": found})
    elif found:
        _print(found)
    else:
        elsewhere = "; those of W&B's server are on its pages" if server_has_sweeps(folder) else ""
        output.echo(f"no sweeps in {output.printable(str(store))}{elsewhere}")


def _print(found: Sequence[dict[str, Any]]) -> None:
    output.table(
        ("id", "name", "project", "method", "metric", "trials", "best", "state", "age"),
        [
            (
                sweep["id"],
                sweep["name"] or "",
                sweep["project"],
                sweep["method"],
                goal(sweep["metric"]),
                counts(sweep["outcomes"]),
                short(sweep["best"] and sweep["best"]["value"]),
                sweep["state"],
                output.duration(now() - sweep["created_at"]),
            )
            for sweep in found
        ],
        numbers=("best", "age"),
    )
