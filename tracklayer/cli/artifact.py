"""`tracklayer artifact`: what can be done with one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from tracklayer.cli import artifact_diff, artifact_get, artifact_show, artifact_verify, output
from tracklayer.cli.finding import catalog_of, find_version
from tracklayer.cli.options import artifact_options
from tracklayer.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tracklayer.artifacts.catalog import Catalog, Version


@click.group("artifact")
def command() -> None:
    """Look at one artifact, or change it.

    NAME:V is an artifact's name with a version (v3) or an alias (best, latest); the name alone means
    the latest version.  It may begin with the project, as in digits/my-model:best.
    """


@command.command("alias")
@click.argument("ref", metavar="NAME:V")
@click.argument("alias")
@click.option("--remove", is_flag=True, help="Take the alias away instead.")
@artifact_options
def alias(
    *, ref: str, alias: str, remove: bool, project: str | None, folder: Path | None, as_json: bool
) -> None:
    """Give a version an alias, which then names no other.

    An alias moves from one version to another in one step.  `latest` moves by itself.
    """
    catalog, version = _found(folder, ref, project)
    before = catalog.aliases(version.project, version.name).get(alias)
    if remove:
        if before != version.number:
            msg = f"{version.label} has no alias {alias!r}"
            raise UsageError(msg)
        catalog.remove_alias(version, alias)
        _tell(catalog, version, f"is not {alias} any more", as_json=as_json)
    else:
        catalog.set_alias(version, alias)
        moved = "" if before in {None, version.number} else f"; v{before} was"
        _tell(catalog, version, f"is {alias}{moved}", as_json=as_json)


@command.command("pin")
@click.argument("ref", metavar="NAME:V")
@artifact_options
def pin(*, ref: str, project: str | None, folder: Path | None, as_json: bool) -> None:
    """Keep a version from being deleted."""
    catalog, version = _found(folder, ref, project)
    catalog.pin(version)
    _tell(catalog, version, "is pinned", as_json=as_json)


@command.command("unpin")
@click.argument("ref", metavar="NAME:V")
@artifact_options
def unpin(*, ref: str, project: str | None, folder: Path | None, as_json: bool) -> None:
    """Let a pinned version be deleted again."""
    catalog, version = _found(folder, ref, project)
    catalog.unpin(version)
    _tell(catalog, version, "is not pinned", as_json=as_json)


@command.command("delete")
@click.argument("ref", metavar="NAME:V")
@click.option("--with-aliases", is_flag=True, help="Delete it even if it has aliases, and these with it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@artifact_options
def delete(
    *,
    ref: str,
    with_aliases: bool,
    yes: bool,
    project: str | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Delete a version.

    Its number is never given again.  What no other version has in common with it is freed by the next
    `tracklayer gc`.  A pinned version is not deleted, nor one with aliases other than latest unless
    --with-aliases is given.
    """
    if ":" not in ref:
        msg = f"which version? {ref}:latest, or {ref}:vN (`tracklayer artifact show {ref}` lists them)"
        raise click.UsageError(msg)
    catalog, version = _found(folder, ref, project)
    catalog.check_deletable(version, delete_aliases=with_aliases)
    if not yes:
        if as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            msg = "without a terminal to ask on, pass --yes"
            raise click.UsageError(msg)
        click.confirm(_question(catalog, version), abort=True, err=True)
    catalog.delete(version, delete_aliases=with_aliases)
    if as_json:
        output.print_json({"deleted": f"{version.project}/{version.label}"})
    else:
        output.echo(f"{version.label} is deleted")


for _module in (artifact_show, artifact_get, artifact_diff, artifact_verify):
    command.add_command(_module.command)


def _tell(catalog: Catalog, version: Version, what: str, *, as_json: bool) -> None:
    """Say what became of a version, or print what it is now."""
    if as_json:
        aliases = catalog.aliases(version.project, version.name)
        pinned = catalog.pinned(version.project, version.name)
        output.print_json(artifact_show.entry(version, aliases, pinned))
    else:
        output.echo(output.printable(f"{version.label} {what}"))


def _question(catalog: Catalog, version: Version) -> str:
    users = len(catalog.users(version))
    facts = [
        output.counted(version.file_count, "file"),
        output.counted(version.size, "byte"),
        *catalog.aliases_of(version),
        *([f"used by {output.counted(users, 'run')}"] if users else []),
    ]
    return output.safe(f"Delete {version.label} ({', '.join(facts)})?")


def _found(folder: Path | None, ref: str, project: str | None) -> tuple[Catalog, Version]:
    from tracklayer.registry import open_store

    catalog = catalog_of(open_store(folder))
    return catalog, find_version(catalog, ref, project)
