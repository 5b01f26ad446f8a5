"""`tracklayer artifact verify`: whether what is stored is what was stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tracklayer.cli import failures, output
from tracklayer.cli.finding import catalog_of, find_version
from tracklayer.cli.options import artifact_options
from tracklayer.errors import CorruptArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracklayer.artifacts.blobs import Blobs
    from tracklayer.artifacts.catalog import Catalog, Version


@click.command("verify")
@click.argument("ref", required=False, metavar="[NAME:V]")
@click.option("--all", "everything", is_flag=True, help="Verify every version of every artifact.")
@artifact_options
@click.pass_context
def command(
    context: click.Context,
    *,
    ref: str | None,
    everything: bool,
    project: str | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Say whether a version is what was stored.

    Its files are read where they are stored, and compared with their hashes; with --all, those of all
    versions, and what several have in common once.  References, whose content is elsewhere, are not
    read.  The exit code is 0 only if everything is intact.
    """
    if everything == (ref is not None):
        msg = "name a version to verify (`tracklayer artifacts` lists what there is), or pass --all"
        raise click.UsageError(msg)
    from tracklayer.registry import open_store

    catalog = catalog_of(open_store(folder))
    versions = _every(catalog, project) if ref is None else [find_version(catalog, ref, project)]
    contents = _Contents(catalog.blobs)
    found: list[dict[str, Any]] = []
    for version in versions:
        found.append(_verified(catalog, version, contents))
        if not as_json:
            _print(found[-1])
    if as_json:
        output.print_json({"location": catalog.location.url, "versions": found})
    elif not found:
        output.echo(f"no artifacts in {output.printable(catalog.location.url)}")
    if ref is None:
        for _ in catalog.all():  # raises for what `versions` leaves out: a version whose own file is damaged
            pass
    if any(version["damaged"] for version in found):
        context.exit(failures.UNREADABLE)


class _Contents:
    """What was found of each content."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._problems: dict[str, str | None] = {}

    def problem(self, sha256: str) -> str | None:
        """Return what is wrong with a content; None if it is what was stored."""
        if sha256 not in self._problems:
            try:
                self._blobs.check(sha256)
            except CorruptArtifactError as error:
                self._problems[sha256] = failures.describe(error)
            else:
                self._problems[sha256] = None
        return self._problems[sha256]


def _every(catalog: Catalog, project: str | None) -> Iterator[Version]:
    for collection in catalog.collections(project):
        yield from catalog.versions(collection.project, collection.name)


def _verified(catalog: Catalog, version: Version, contents: _Contents) -> dict[str, Any]:
    try:
        files = catalog.files(version)
    except CorruptArtifactError as error:
        damaged, references = [{"path": None, "error": failures.describe(error)}], 0
    else:
        stored = [file for file in files if file.reference is None]
        damaged = [
            {"path": file.path, "error": problem}
            for file in stored
            if (problem := contents.problem(file.sha256)) is not None
        ]
        references = len(files) - len(stored)
    return {
        "version": f"{version.project}/{version.label}",
        "files": version.file_count,
        "references": references,
        "size": version.size,
        "damaged": damaged,
    }


def _print(version: dict[str, Any]) -> None:
    files, size = output.counted(version["files"], "file"), output.counted(version["size"], "byte")
    unread = f", of which {version['references']} elsewhere were not read" if version["references"] else ""
    state = f"{len(version['damaged'])} damaged" if version["damaged"] else "intact"
    output.echo(output.printable(f"{version['version']}: {files}{unread}, {size}: {state}"))
    for file in version["damaged"]:
        where = version["version"] if file["path"] is None else f"{version['version']}/{file['path']}"
        failures.tell_line(f"{output.printable(where)}: {file['error']}")
