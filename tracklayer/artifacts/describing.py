"""The artifacts of a run as their versions are described and called now: so others get to see them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, final

from tracklayer.artifacts.catalog import Catalog, Version
from tracklayer.errors import ArtifactNotFoundError, CorruptArtifactError, StoreTooNewError

if TYPE_CHECKING:
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.reading import RunReader


@final
@dataclass(frozen=True, slots=True)
class ArtifactsNow:
    """What a run made and used, and what of it was deleted here since.

    `labels` is a word that changes when an alias of what it made moves.
    """

    made: tuple[LoggedArtifact, ...]
    used: tuple[LoggedArtifact, ...]
    deleted: tuple[LoggedArtifact, ...]
    labels: str


def artifacts_now(reader: RunReader, catalog: Catalog) -> ArtifactsNow:
    """Return the artifacts of a run as their versions are described and called now."""
    versions = _Versions(catalog)
    made = [versions.described(artifact) for artifact in reader.artifacts()]
    used = [versions.described(artifact) for artifact in reader.used_artifacts()]
    deleted = [artifact for artifact in (*made, *used) if versions.was_deleted(artifact)]
    return ArtifactsNow(
        tuple(artifact for artifact in made if artifact not in deleted),
        tuple(artifact for artifact in used if artifact not in deleted),
        tuple(deleted),
        _labels(made),
    )


def named(artifacts: Iterable[LoggedArtifact]) -> str:
    """Return what people call artifacts, with commas."""
    return ", ".join(dict.fromkeys(artifact.label for artifact in artifacts))


@final
class _Versions:
    """The versions of a store's artifacts; what aliases there are of each artifact is read once."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._aliases = cache(catalog.aliases)
        self._living = cache(self._get)

    def described(self, artifact: LoggedArtifact) -> LoggedArtifact:
        """Return an artifact as its version is described and called now, `latest` included.

        What the catalog does not have stays as it was recorded, but for aliases that name other versions now.
        """
        if artifact.version is None:
            return artifact
        version = self._version(artifact)
        aliases = self._aliases(artifact.project, artifact.name)
        if version is None:
            return replace(artifact, aliases=tuple(name for name in artifact.aliases if name not in aliases))
        names = (name for name, number in aliases.items() if number == version.number)
        return replace(
            artifact, description=version.description, metadata=version.metadata, aliases=tuple(names)
        )

    def was_deleted(self, artifact: LoggedArtifact) -> bool:
        """Say whether an artifact's version was deleted, and its content collected."""
        if artifact.version is None or self._version(artifact) is not None:
            return False
        return self._catalog.was_deleted(artifact.project, artifact.name, artifact.version) and not all(
            file.reference is not None or self._catalog.blobs.has(file.sha256) for file in artifact.files
        )

    def _version(self, artifact: LoggedArtifact) -> Version | None:
        place, number = (artifact.project, artifact.name), artifact.version
        if number is None or not self._aliases(*place):  # none of it lives
            return None
        return self._living(*place, number)

    def _get(self, project: str, name: str, number: int) -> Version | None:
        try:
            return self._catalog.get(project, name, number)
        except (ArtifactNotFoundError, CorruptArtifactError, StoreTooNewError):
            return None


def _labels(made: Iterable[LoggedArtifact]) -> str:
    """Return a word for artifacts and their aliases; `latest` is none of them: a server has its own."""
    aliases = [[one.label, *(name for name in one.aliases if name != "latest")] for one in made]
    return hashlib.sha256(json.dumps(aliases).encode()).hexdigest()[:16] if aliases else ""
