"""`tracklayer artifact get`: a version's files, as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from tracklayer.cli import output
from tracklayer.cli.finding import catalog_of, find_version
from tracklayer.cli.options import artifact_options

_NAMED: Final = 5
"""How many files a message names."""


@click.command("get")
@click.argument("ref", metavar="NAME:V")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder to write to; it is made if it is not there.",
)
@artifact_options
def command(*, ref: str, out: Path, project: str | None, folder: Path | None, as_json: bool) -> None:
    """Write a version's files to a folder.

    Each is compared with its hash, references with what they were when they were added.  No file is
    overwritten: one that is there with the same content is left; if one has other content, nothing is
    written.
    """
    from tracklayer.artifacts.downloading import is_there, put_files
    from tracklayer.registry import open_store

    catalog = catalog_of(open_store(folder))
    version = find_version(catalog, ref, project)
    files = catalog.files(version)
    there = {file.path: file for file in files if os.path.lexists(out / file.path)}
    others = [path for path, file in there.items() if not is_there(file, out / path)]
    if others:
        named = ", ".join(map(repr, others[:_NAMED])) + (" and others" if len(others) > _NAMED else "")
        msg = f"nothing is written: {out} has {named} already, with other content; choose another folder"
        raise FileExistsError(msg)
    put_files(version.label, files, catalog.blobs, out)
    if as_json:
        output.print_json(
            {
                "version": f"{version.project}/{version.label}",
                "out": str(out.absolute()),
                "files": [
                    {"path": file.path, "size": file.size, "written": file.path not in there}
                    for file in files
                ],
            }
        )
        return
    count = f"{output.counted(len(files), 'file')}, {output.counted(version.size, 'byte')}"
    left = f"; {len(there)} there already" if there else ""
    output.echo(output.printable(f"{version.label}: {count}, in {out}{left}"))
