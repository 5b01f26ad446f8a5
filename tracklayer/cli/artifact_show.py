"""`tracklayer artifact show`: all that is known of one version, and what it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from tracklayer.cli import output
from tracklayer.cli.finding import catalog_of, find_version
from tracklayer.cli.lineage import Lineage, run_entries
from tracklayer.cli.options import artifact_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tracklayer.artifacts.catalog import Version
    from tracklayer.artifacts.records import ArtifactFile

_FILES: Final = 20


@click.command("show")
@click.argument("ref", metavar="NAME[:V]")
@click.option("--files", "all_files", is_flag=True, help=f"List every file, not the first {_FILES} only.")
@artifact_options
def command(*, ref: str, all_files: bool, folder: Path | None, project: str | None, as_json: bool) -> None:
    """Show a version: its files, and its lineage.

    The lineage is a tree: above, the run that made the version, what that run used, and so on back;
    below, the runs that used the version, what they made, and so on.  Without :V, the latest version
    is shown, and all versions are listed.
    """
    from tracklayer.registry import open_store

    store = open_store(folder)
    catalog = catalog_of(store)
    version = find_version(catalog, ref, project)
    aliases = catalog.aliases(version.project, version.name)
    pinned = catalog.pinned(version.project, version.name)
    described = {
        **entry(version, aliases, pinned),
        "location": catalog.location.url,
        "digest": version.digest,
        "description": version.description,
        "metadata": dict(version.metadata),
        "files": [file_entry(file) for file in catalog.files(version)],
    }
    if ":" not in ref:
        versions = catalog.versions(version.project, version.name)
        described["versions"] = [entry(other, aliases, pinned) for other in versions]
    lineage = Lineage(catalog, store, version)
    if as_json:
        described["lineage"] = {
            "before": run_entries(lineage.before()),
            "after": run_entries(lineage.after()),
        }
        output.print_json(described)
        return
    _print(described, all_files=all_files)
    output.heading("lineage")
    output.tree(lineage.tree())


def entry(version: Version, aliases: Mapping[str, int], pinned: frozenset[int]) -> dict[str, Any]:
    """Describe a version, but for what is in it; `aliases` and `pinned` are those of its artifact."""
    return {
        "name": version.name,
        "project": version.project,
        "type": version.type,
        "version": f"v{version.number}",
        "aliases": [alias for alias, number in aliases.items() if number == version.number],
        "pinned": version.number in pinned,
        "size": version.size,
        "file_count": version.file_count,
        "created_at": version.created_at,
        "run": version.run_id,
    }


def file_entry(file: ArtifactFile) -> dict[str, Any]:
    """Describe a file of an artifact."""
    return {
        "path": file.path,
        "size": file.size,
        "sha256": file.sha256 or None,
        "source": file.source,
        "reference": file.reference,
        "checksum": file.checksum,
    }


def _print(version: dict[str, Any], *, all_files: bool) -> None:
    pairs = [
        ("artifact", f"{version['name']}:{version['version']}"),
        ("type", version["type"]),
        ("project", version["project"]),
        ("aliases", ", ".join(version["aliases"])),
        ("pinned", "yes" if version["pinned"] else ""),
        ("description", version["description"] or ""),
        ("files", str(version["file_count"])),
        ("bytes", str(version["size"])),
        ("digest", version["digest"]),
        ("created", output.moment(version["created_at"])),
        ("run", version["run"] or ""),
        ("location", version["location"]),
    ]
    output.fields([(name, value) for name, value in pairs if value])
    if version["metadata"]:
        output.heading("metadata")
        output.nested(version["metadata"])
    if version["files"]:
        _print_files(version["files"], len(version["files"]) if all_files else _FILES)
    if "versions" in version:
        _print_versions(version["versions"])


def _print_files(files: Sequence[dict[str, Any]], shown: int) -> None:
    hint = f": {shown} of {len(files)}; --files lists all" if shown < len(files) else ""
    output.heading(f"files{hint}")
    output.table(
        ("path", "bytes", "sha256 or reference"),
        [
            (file["path"], str(file["size"]), file["reference"] or file["sha256"] or "")
            for file in files[:shown]
        ],
        numbers=("bytes",),
    )


def _print_versions(versions: Sequence[dict[str, Any]]) -> None:
    output.heading("versions")
    output.table(
        ("version", "aliases", "pinned", "files", "bytes", "created", "run"),
        [
            (
                version["version"],
                ", ".join(version["aliases"]),
                "yes" if version["pinned"] else "",
                str(version["file_count"]),
                str(version["size"]),
                output.moment(version["created_at"]),
                version["run"] or "",
            )
            for version in versions
        ],
        numbers=("files", "bytes"),
    )
