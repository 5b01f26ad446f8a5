"""`tracklayer reproduce`: what brings back a run's code and packages, and makes its call again."""

from __future__ import annotations

from pathlib import Path

import click

from tracklayer.cli import failures, output
from tracklayer.cli.finding import catalog_of, find_run
from tracklayer.cli.options import dir_option


@click.command("reproduce")
@click.argument("ref", metavar="RUN")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the code, requirements.txt and run.sh to this new folder.",
)
@dir_option
@click.pass_context
def command(context: click.Context, *, ref: str, out: Path | None, folder: Path | None) -> None:
    """Print the commands that run a run again.

    They fetch the commit and apply the changes that were made to it, install the packages in a virtual
    environment, and call the program as it was called: a script for sh.  What is lacking is said at
    its top.

    With --out, the code is brought back: from the repository where the run found it, if it still is on
    this machine, else from its remote, else from the run's snapshot of it.  The program is not run.

    A resumed run is reproduced as its last process ran.
    """
    from tracklayer.environment.recipes import recipe
    from tracklayer.environment.reproducing import check_out, script
    from tracklayer.registry import open_store

    store = open_store(folder)
    run = find_run(store, ref)
    known = run.environments()
    if not known:
        failures.tell_line(f"run {run.id} has no record of its code, its packages and its call")
        context.exit(failures.FAILED)
    wanted = recipe(run, known[max(known)])
    if out is None:
        fetch: list[str] = []
        if wanted.snapshot is not None:
            place = ["--project", wanted.snapshot.project, "--dir", str(store.path)]
            fetch = ["tracklayer", "artifact", "get", wanted.snapshot.label, *place, "--out"]
        printed = script(wanted, fetch)
        output.echo(_harmless(printed) if output.is_terminal() else printed.removesuffix("\n"))
        return
    lacking = check_out(wanted, out, catalog_of(store).blobs)
    has_code = any((out / "code").iterdir())
    what = "the code, requirements.txt and run.sh" if has_code else "requirements.txt and run.sh, but no code"
    output.echo(output.printable(f"run {run.id}: {what} are in {out}"))
    for line in lacking:
        output.echo(output.printable(line))
    if not has_code:
        context.exit(failures.FAILED)


def _harmless(printed: str) -> str:
    """Return a script that does not steer a terminal, whatever was recorded."""
    lines = ("\t".join(map(output.printable, line.split("\t"))) for line in printed.rstrip("\n").split("\n"))
    return "\n".join(lines)
