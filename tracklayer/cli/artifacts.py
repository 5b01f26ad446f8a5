"""`tracklayer artifacts`: which there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tracklayer.cli import output
from tracklayer.cli.finding import catalog_of
from tracklayer.cli.options import dir_option, json_option

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tracklayer.artifacts.catalog import Catalog, Collection


@click.command("artifacts")
@click.option("--project", metavar="P", help="Only the artifacts of this project.")
@click.option("--type", "kind", metavar="T", help="Only the artifacts of this type, such as model.")
@dir_option
@json_option
def command(*, project: str | None, kind: str | None, folder: Path | None, as_json: bool) -> None:
    """List the artifacts, with what their latest versions are.

    One line each: how many versions there are, the number, size and time of the latest, and the other
    aliases with the versions that they name.
    """
    from tracklayer.registry import open_store

    catalog = catalog_of(open_store(folder))
    found = [
        _entry(catalog, collection)
        for collection in catalog.collections(project)
        if kind in {None, collection.type}
    ]
    if as_json:
        output.print_json({"location": catalog.location.url, "artifacts": found})
    elif found:
        _print(found)
    else:
        output.echo(f"no artifacts in {output.printable(catalog.location.url)}")


def _entry(catalog: Catalog, collection: Collection) -> dict[str, Any]:
    latest = collection.latest
    aliases = catalog.aliases(collection.project, collection.name)
    return {
        "name": collection.name,
        "type": collection.type,
        "project": collection.project,
        "versions": collection.count,
        "latest": f"v{latest.number}",
        "aliases": {alias: f"v{number}" for alias, number in aliases.items() if alias != "latest"},
        "size": latest.size,
        "created_at": latest.created_at,
    }


def _print(found: Sequence[dict[str, Any]]) -> None:
    of_several = len({artifact["project"] for artifact in found}) > 1
    columns = ("name", "type", *(["project"] if of_several else []))
    output.table(
        (*columns, "versions", "latest", "aliases", "bytes", "created"),
        [
            (
                *(artifact[column] for column in columns),
                str(artifact["versions"]),
                artifact["latest"],
                ", ".join(f"{alias} ({version})" for alias, version in artifact["aliases"].items()),
                str(artifact["size"]),
                output.moment(artifact["created_at"]),
            )
            for artifact in found
        ],
        numbers=("versions", "bytes"),
    )
