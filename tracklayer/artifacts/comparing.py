"""What differs between two versions, of one artifact or of two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from tracklayer.artifacts.catalog import Catalog
    from tracklayer.artifacts.versions import Version


@final
@dataclass(frozen=True, slots=True)
class ChangedFile:
    """A file that both versions have, with different content.

    Attributes:
        path: in the artifact.
        size_before: in bytes.
        size_after: in bytes.
    """

    path: str
    size_before: int
    size_after: int


@final
@dataclass(frozen=True, slots=True)
class ArtifactDiff:
    """What it takes to get from one version to another.

    Attributes:
        added: the paths of files that only the other has, sorted.
        removed: the paths of files that only the one has, sorted.
        changed: the files whose content differs, or where it is, by path.
        metadata_added: the entries that only the other's metadata has.
        metadata_removed: the entries that only the one's metadata has.
        metadata_changed: by key, the value before and the value after.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[ChangedFile, ...] = ()
    metadata_added: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    metadata_removed: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    metadata_changed: Mapping[str, tuple[Any, Any]] = field(
        default_factory=dict[str, tuple[Any, Any]], hash=False
    )

    def __bool__(self) -> bool:
        """Say whether anything differs."""
        return self != ArtifactDiff()


def compare(one: Version, other: Version, catalog: Catalog) -> ArtifactDiff:
    """Return what it takes to get from one version to another.

    Raises:
        CorruptArtifactError: the list of files of one of them is damaged or gone.
    """
    before = {file.path: file for file in catalog.files(one)}
    after = {file.path: file for file in catalog.files(other)}
    had, has = one.metadata, other.metadata
    return ArtifactDiff(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple(
            ChangedFile(path, before[path].size, after[path].size)
            for path in sorted(before.keys() & after.keys())
            if before[path] != after[path]
        ),
        metadata_added={key: has[key] for key in sorted(has.keys() - had.keys())},
        metadata_removed={key: had[key] for key in sorted(had.keys() - has.keys())},
        metadata_changed={
            key: (had[key], has[key])
            for key in sorted(had.keys() & has.keys())
            if _json(had[key]) != _json(has[key])
        },
    )


def _json(value: object) -> str:  # in which NaN equals itself, and True is not 1
    return json.dumps(value, sort_keys=True)
