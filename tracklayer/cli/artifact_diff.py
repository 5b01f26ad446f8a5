"""`tracklayer artifact diff`: what differs between two versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tracklayer.cli import output
from tracklayer.cli.finding import catalog_of, find_version
from tracklayer.cli.options import artifact_options

if TYPE_CHECKING:
    from pathlib import Path


@click.command("diff")
@click.argument("ref", metavar="NAME:V1")
@click.argument("other", metavar="V2")
@artifact_options
def command(*, ref: str, other: str, project: str | None, folder: Path | None, as_json: bool) -> None:
    """Say what differs between two versions: files and metadata.

    V2 is another version or alias of the same artifact (v4, best), or NAME:V2 of any.
    """
    from tracklayer.artifacts.comparing import compare
    from tracklayer.registry import open_store

    catalog = catalog_of(open_store(folder))
    old = find_version(catalog, ref, project)
    new = find_version(catalog, other if ":" in other else f"{old.name}:{other}", project or old.project)
    found = compare(old, new, catalog)
    before, after = ({file.path: file.size for file in catalog.files(version)} for version in (old, new))
    changes = {
        "added": found.added,
        "removed": found.removed,
        "changed": [file.path for file in found.changed],
    }
    described = {
        "before": f"{old.project}/{old.label}",
        "after": f"{new.project}/{new.label}",
        "files": [
            {
                "path": path,
                "change": change,
                "size_before": before.get(path),
                "size_after": after.get(path),
            }
            for change, paths in changes.items()
            for path in paths
        ],
        "metadata": {
            **{key: {"after": value} for key, value in found.metadata_added.items()},
            **{key: {"before": value} for key, value in found.metadata_removed.items()},
            **{key: {"before": was, "after": now} for key, (was, now) in found.metadata_changed.items()},
        },
    }
    if as_json:
        output.print_json(described)
    else:
        _print(described)


def _print(found: dict[str, Any]) -> None:
    files, metadata = found["files"], found["metadata"]
    if not files and not metadata:
        output.echo(
            output.printable(f"{found['before']} and {found['after']} have the same files and metadata")
        )
        return
    output.echo(output.printable(f"from {found['before']} to {found['after']}"))
    if files:
        output.heading("files")
        output.table(
            ("change", "path", "bytes before", "bytes after"),
            [
                (file["change"], file["path"], _size(file["size_before"]), _size(file["size_after"]))
                for file in files
            ],
            numbers=("bytes before", "bytes after"),
        )
    if metadata:
        output.heading("metadata")
        output.table(
            ("key", "before", "after"),
            [
                (key, *(output.plain_value(values.get(when, "")) for when in ("before", "after")))
                for key, values in metadata.items()
            ],
        )


def _size(size: int | None) -> str:
    return "" if size is None else str(size)
