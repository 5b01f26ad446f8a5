"""`tracklayer export`: a run's file, whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tracklayer.artifacts.blobs import BlobFolder
from tracklayer.cli import media, output
from tracklayer.cli.finding import find_run
from tracklayer.cli.options import dir_option

if TYPE_CHECKING:
    from tracklayer.reading import RunReader


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
    its side files.  Media above 1 MiB and the files of artifacts stay in the store's folder blobs; the
    command says how many there are.
    """
    from tracklayer.registry import open_store

    store = open_store(folder)
    run = find_run(store, ref)
    if not out.absolute().parent.is_dir():
        msg = f"cannot write {out}: there is no folder {out.absolute().parent}"
        raise FileNotFoundError(msg)
    store.export(run.id, out)
    output.echo(f"run {run.id} is in {output.printable(str(out))}")
    blobs = BlobFolder(store.path)
    left = [size for sha256, size in _sizes(run).items() if blobs.path(sha256).exists()]
    if left:
        files = "1 file" if len(left) == 1 else f"{len(left)} files"
        where = output.printable(str(store.path))
        output.echo(f"{files} of it, {sum(left)} bytes, stay in the store {where}")


def _sizes(run: RunReader) -> dict[str, int]:
    """Return the size of each file of media and artifacts, in bytes, by SHA-256."""
    files = (file for artifact in run.artifacts() for file in artifact.files)
    return {**media.sizes(run.media()), **{file.sha256: file.size for file in files}}
