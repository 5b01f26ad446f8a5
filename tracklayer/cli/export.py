"""`tracklayer export`: a run's file, whole."""

from __future__ import annotations

from pathlib import Path

import click

from tracklayer.cli import output
from tracklayer.cli.finding import catalog_of, find_run
from tracklayer.cli.options import dir_option


@click.command("export")
@click.argument("ref", metavar="RUN")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file to write; it must not be there yet.",
)
@dir_option
def command(*, ref: str, out: Path, folder: Path | None) -> None:
    """Copy a run's file, whole.

    Also while the run is live or after a crash, when a plain copy would lack what still stands in
    its side files.  Media above 1 MiB, and files of artifacts, stay where they are stored; the command
    says how many there are.
    """
    from tracklayer.registry import open_store

    store = open_store(folder)
    run = find_run(store, ref)
    if not out.absolute().parent.is_dir():
        msg = f"cannot write {out}: there is no folder {out.absolute().parent}"
        raise FileNotFoundError(msg)
    store.export(run.id, out)
    output.echo(f"run {run.id} is in {output.printable(str(out))}")
    made = [file for artifact in run.artifacts() for file in artifact.files if file.reference is None]
    left = run.contents() | {file.sha256: file.size for file in made}
    if left:
        files = "1 file" if len(left) == 1 else f"{len(left)} files"
        where = output.printable(catalog_of(store).location.url)
        output.echo(f"{files} of it, {sum(left.values())} bytes, stay in the store {where}")
