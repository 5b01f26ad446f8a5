"""`tracklayer gc`: stored content that nothing needs any more."""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING

import click

from tracklayer.cli import failures, output
from tracklayer.cli.finding import catalog_of
from tracklayer.cli.options import dir_option, json_option
from tracklayer.errors import RunNotFoundError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracklayer.reading import Store


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Say what would be freed, and free nothing.")
@dir_option
@json_option
def command(*, dry_run: bool, folder: Path | None, as_json: bool) -> None:
    """Free stored content that nothing needs any more.

    Media above 1 MiB and the files of artifacts are kept once each, by content.  What no version of an
    artifact, no run and no running process needs, stays until this is run, which may be at any time.  While
    a run's file cannot be read, what that run needs is not known, and nothing is freed.
    """
    from tracklayer.artifacts.catalog import Catalog
    from tracklayer.artifacts.collecting import collect
    from tracklayer.artifacts.locations import FolderLocation
    from tracklayer.registry import open_store

    store = open_store(folder)
    stores, catalogs = [store], [catalog_of(store)]
    elsewhere = catalogs[0].location.folder
    if elsewhere != store.path:  # media lie in the store, wherever artifacts are
        catalogs.append(Catalog(FolderLocation(store.path)))
        if elsewhere is not None and (elsewhere / "runs").is_dir():  # it is a store, too, with media
            stores.append(open_store(elsewhere))
    collected = {
        catalog.location.url: collect(catalog, chain.from_iterable(map(_needed, stores)), dry_run=dry_run)
        for catalog in catalogs
        if catalog.location.folder is None or catalog.location.folder.exists()
    }
    if as_json:
        each = {url: asdict(found) for url, found in collected.items()}
        total = {
            what: sum(found[what] for found in each.values()) for what in ("contents", "bytes", "leftovers")
        }
        output.print_json({"dry_run": dry_run, **total, "locations": each})
        return
    for url, found in collected.items():
        what = f"{output.counted(found.contents, 'content')}, {output.counted(found.bytes, 'byte')}"
        left = output.counted(found.leftovers, "leftover")
        done = "would be freed" if dry_run else "freed"
        output.echo(f"{done} in {output.printable(url)}: {what}, and {left} of killed processes")


def _needed(store: Store) -> Iterator[str]:
    """Yield the SHA-256 of all that the store's runs need, but for what versions have.

    Raises:
        StoreError: a run cannot be read.
    """
    for unreadable in store.unreadable():
        if not unreadable.path.exists() or not unreadable.path.stat().st_size:
            continue  # a run that was killed before it wrote anything needs nothing
        msg = (
            f"nothing is freed, since what the run in {unreadable.path} needs is not known "
            f"({failures.describe(unreadable.error)}): put the file back from a copy, or move it away"
        )
        raise StoreError(msg)
    for run in store.runs():
        try:
            yield from run.contents()
        except RunNotFoundError:
            continue  # it was removed meanwhile
