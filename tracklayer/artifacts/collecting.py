"""Collects garbage: contents that nothing needs any more, and what killed processes left behind.

Why content that somebody needs is never taken, whatever others do meanwhile:

- Whoever relies on content that no version names yet claims it first, and looks then whether a collection is
  at work.  A collection says first that it is at work, and reads the claims then.  So one of the two sees the
  other: either the content is kept for its claim, or the other waits until the collection is over, looks then
  which contents are there, and adds those that lack.
- A claim ends when a version's file, or a run's, names the content.  Claims are read before both, so a claim
  that had ended by then left a file that is read afterwards.
- A version that is deleted meanwhile costs nothing: what it needed stays until the next collection.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, final

from tracklayer.artifacts.catalog import Catalog
from tracklayer.artifacts.claims import claimed_contents, collecting, leftovers, remove_leftover
from tracklayer.artifacts.locations import Location
from tracklayer.errors import CorruptArtifactError, StoreError, StoreTooNewError

_THREADS: Final = 16
_HALF_WRITTEN: Final = re.compile(r"\.[0-9a-f]{16}")  # as `FolderLocation` names what it is about to move
_VERSION: Final = re.compile(r"v\d+\.json")
"""Empty where a file system without hard links reserved it, and the content was not to come any more."""
_HALF_WRITTEN_SECONDS: Final = 3600.0  # it takes milliseconds


@final
@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection took, or would take.

    Attributes:
        contents: how many files' contents.
        bytes: how large they are together.
        leftovers: how many claims, folders and half-written files of processes that are no more.
    """

    contents: int
    bytes: int
    leftovers: int


def collect(catalog: Catalog, needed: Iterable[str], *, dry_run: bool) -> Collected:
    """Take the contents that no version, no live process and nothing else needs.

    Args:
        catalog: of the location to collect in.
        needed: the SHA-256 of contents that are needed for other reasons, such as runs' media.  It is
            iterated after the claims were read, and so must look then: give a generator.
        dry_run: whether all stays as it is.

    Raises:
        StoreError: another collection is at work, or what a version needs cannot be read; then no
            content was taken.
    """
    location = catalog.location
    if dry_run:
        garbage, left = _garbage(catalog, claimed_contents(location), needed), _leftovers(location)
        return Collected(len(garbage), sum(garbage.values()), len(left))
    with collecting(location) as collection:

        def remove(sha256: str) -> None:
            collection.check()
            catalog.blobs.delete(sha256)

        left = _leftovers(location)
        for leftover in left:  # before versions are read, of which half of one would be a damaged one
            remove_leftover(location, leftover)
        garbage = _garbage(catalog, collection.claimed, needed)
        with ThreadPoolExecutor(_THREADS) as pool:  # others wait, and each may take a network's round trip
            for _ in pool.map(remove, garbage):
                pass
    return Collected(len(garbage), sum(garbage.values()), len(left))


def _garbage(catalog: Catalog, claimed: frozenset[str], needed: Iterable[str]) -> dict[str, int]:
    """Return the sizes in bytes, by SHA-256, of the contents that nothing needs."""
    kept = claimed.union(_needed_by_versions(catalog), needed)
    return {sha256: size for sha256, size in catalog.blobs.all() if sha256 not in kept}


def _leftovers(location: Location) -> list[Path | str]:
    return [*leftovers(location), *_half_written(location)]


def _needed_by_versions(catalog: Catalog) -> set[str]:
    needed: set[str] = set()
    try:
        versions = list(catalog.all())
        with ThreadPoolExecutor(_THREADS) as pool:  # each list of files may take a network's round trip
            for files in pool.map(catalog.files, versions):
                needed.update(file.sha256 for file in files if file.reference is None)
        needed.update(version.manifest for version in versions)
    except (CorruptArtifactError, StoreTooNewError) as error:
        msg = f"nothing was collected, since what a version needs is not known: {error}"
        raise StoreError(msg) from error
    return needed


def _half_written(location: Location) -> Iterator[str]:
    """Yield the names of files that a process was writing when it was killed."""
    root = location.folder
    if root is not None:
        for path in chain((root / "artifacts").rglob("*"), (root / "claims").glob(".*")):
            is_temporary = _HALF_WRITTEN.fullmatch(path.name) is not None
            if is_temporary or _VERSION.fullmatch(path.name):
                with suppress(FileNotFoundError):  # it is whole now
                    found = path.stat()
                    is_old = time.time() - found.st_mtime > _HALF_WRITTEN_SECONDS
                    if is_old and (is_temporary or not found.st_size):
                        yield path.relative_to(root).as_posix()
