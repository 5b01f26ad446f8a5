"""Artifacts that come from elsewhere, as in a replay: their contents and versions come into being here."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from tracklayer.artifacts.blobs import Blobs
from tracklayer.artifacts.claims import claimed, staged
from tracklayer.artifacts.records import ArtifactFile
from tracklayer.artifacts.references import fetch
from tracklayer.artifacts.versions import files_data
from tracklayer.errors import ArtifactNotFoundError, CorruptArtifactError

if TYPE_CHECKING:
    from tracklayer.artifacts.catalog import Catalog, Version
    from tracklayer.artifacts.locations import Location
    from tracklayer.artifacts.records import LoggedArtifact


def lies_here(artifact: LoggedArtifact, catalog: Catalog) -> bool:
    """Say whether an artifact comes from this catalog, as far as its files tell: nothing is asked for."""
    copied = [file for file in artifact.files if file.reference is None]
    return bool(copied) and all(file.source == catalog.blobs.place(file.sha256) for file in copied)


def version_here(artifact: LoggedArtifact, number: int, catalog: Catalog, run_id: str | None) -> Version:
    """Return the version that an artifact is in a catalog; one that is not there yet is made.

    Args:
        artifact: as it was logged or used.
        number: of its version where that was.
        catalog: of this store's location.
        run_id: the run that makes a new version, if a run does.

    Raises:
        CorruptArtifactError: content is gone, or is not what was logged.
        StoreError: the location cannot be read or written.
        UsageError: the name belongs to artifacts of another type here.
    """
    try:
        version = catalog.get(artifact.project, artifact.name, number)
    except ArtifactNotFoundError:
        pass
    else:
        if version.manifest == sha256(files_data(artifact.files)).hexdigest():
            return version
    with contents_here(artifact, catalog.location):
        return catalog.publish(artifact, run_id)


@contextmanager
def contents_here(artifact: LoggedArtifact, location: Location) -> Generator[None]:
    """Bring the contents of an artifact to a location; they are claimed there until the block ends.

    Raises:
        CorruptArtifactError: content is gone, or is not what was logged.
        StoreError: the location cannot be written.
    """
    blobs = Blobs(location)
    copied = {file.sha256: file for file in artifact.files if file.reference is None}
    with claimed(location, copied):
        for file in copied.values():
            if not blobs.has(file.sha256):
                _bring(file, location)
        yield


def _bring(file: ArtifactFile, location: Location) -> None:
    """Copy a file's content here, from wherever it lies.

    Raises:
        CorruptArtifactError: it is gone, or is not what was logged.
        StoreError: it cannot be written here.
    """
    blobs = Blobs(location)
    try:
        if "://" in file.source:
            with staged(location) as folder:
                copy = folder / "fetched"
                fetch(ArtifactFile(file.path, "", 0, file.source, reference=file.source), copy)
                found, _ = blobs.add(copy)
        else:
            found, _ = blobs.add(Path(file.source))
    except FileNotFoundError as error:
        msg = f"the content of {file.path!r} is gone: there is no file {file.source}"
        raise CorruptArtifactError(msg) from error
    if found != file.sha256:
        msg = f"the content of {file.path!r} is not what was logged: {file.source} is damaged"
        raise CorruptArtifactError(msg)
