"""`Version`: one version of an artifact; and what stands in the files of a catalog.

A version's file is one JSON object: the fields of `Version` and the format's number; `files` is the SHA-256
of the list of files.  That list is content like any other: JSON lines, one a file, sorted by path.  What is
read is checked before anything else sees it: no damaged or forged file names a place outside its folder.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeVar, cast, final

from tracklayer.artifacts.records import ArtifactFile, files_digest
from tracklayer.errors import CorruptArtifactError, StoreTooNewError, UsageError
from tracklayer.naming import check_artifact_name, check_project, is_inner_path

FORMAT: Final = 1
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")


@final
@dataclass(frozen=True, slots=True)
class Version:
    """One version of an artifact; it never changes.

    Attributes:
        project: where the name is one artifact's.
        name: of the artifact.
        type: such as `"model"`.
        number: 0 for the first; a number is never used again.
        digest: of the files: see `records.files_digest`.
        created_at: when it was logged, in Unix seconds.
        description: free text.
        metadata: JSON data.
        run_id: the run that made it, if a run did.
        size: of all files, in bytes.
        file_count: how many files there are.
        manifest: the SHA-256 of the list of files.
    """

    project: str
    name: str
    type: str
    number: int
    digest: str
    created_at: float
    description: str | None
    metadata: Mapping[str, Any] = field(hash=False)
    run_id: str | None
    size: int
    file_count: int
    manifest: str

    @property
    def label(self) -> str:
        """Its name and number: `name:v3`."""
        return f"{self.name}:v{self.number}"


@final
class Alias(NamedTuple):
    """What an alias names.

    Attributes:
        alias: itself, such as `best`.
        version: the number of the version.
        after: of `latest`, the highest number when it was set: a version above is `latest` in its place.
    """

    alias: str
    version: int
    after: int


def version_data(version: Version) -> bytes:
    """Return the content of a version's file.

    Raises:
        UsageError: the metadata is no JSON data.
    """
    fields = {
        "format": FORMAT,
        "project": version.project,
        "name": version.name,
        "type": version.type,
        "version": version.number,
        "digest": version.digest,
        "description": version.description,
        "metadata": dict(version.metadata),
        "created_at": version.created_at,
        "run": version.run_id,
        "size": version.size,
        "file_count": version.file_count,
        "files": version.manifest,
    }
    try:
        return f"{json.dumps(fields, indent=1)}\n".encode()
    except (TypeError, ValueError) as error:
        msg = f"artifact {version.name!r}: its metadata is no JSON data: {error}"
        raise UsageError(msg) from error


def read_version(data: bytes, place: str) -> Version:
    """Return what a version's file says; `place` is where it lies, for messages.

    Raises:
        CorruptArtifactError: it is damaged.
        StoreTooNewError: a newer tracklayer wrote it.
    """
    fields = _object(data, place)
    try:
        return Version(
            project=check_project(_get(fields, "project", str)),
            name=check_artifact_name(_get(fields, "name", str)),
            type=_get(fields, "type", str),
            number=_count(fields, "version"),
            digest=_sha256(fields, "digest"),
            created_at=_time(fields, "created_at"),
            description=_optional(fields, "description"),
            metadata=cast("dict[str, Any]", _get(fields, "metadata", dict)),
            run_id=_optional(fields, "run"),
            size=_count(fields, "size"),
            file_count=_count(fields, "file_count"),
            manifest=_sha256(fields, "files"),
        )
    except (ValueError, OverflowError) as error:
        raise damaged(place, str(error)) from error


def files_data(files: Sequence[ArtifactFile]) -> bytes:
    """Return the content of a list of files.

    Raises:
        UsageError: a path leaves the artifact, or two files have the same.
    """
    paths = sorted(file.path for file in files)
    wrong = [path for path in paths if not is_inner_path(path)]
    wrong += [path for path, following in pairwise(paths) if path == following]
    if wrong:
        msg = f"{wrong[0]!r:.160} is no path inside an artifact, or the path of two files"
        raise UsageError(msg)
    return b"".join(map(_line, sorted(files, key=lambda file: file.path)))


def read_files(data: bytes, version: Version, place: Callable[[str], str]) -> tuple[ArtifactFile, ...]:
    """Return a version's files, of which `place` tells where the content with a SHA-256 lies.

    Raises:
        CorruptArtifactError: the list is damaged, or is not that of the version.
    """
    try:
        files = tuple(_file(json.loads(line), place) for line in data.splitlines())
    except (ValueError, RecursionError) as error:
        raise damaged(place(version.manifest), f"the files of {version.label}: {error}") from error
    if len({file.path for file in files}) < len(files) or files_digest(files) != version.digest:
        raise damaged(place(version.manifest), f"these are not the files of {version.label}")
    return files


def small_data(**fields: float | str) -> bytes:
    """Return the content of an alias, a use or a deletion."""
    return f"{json.dumps({'format': FORMAT, **fields})}\n".encode()


def read_alias(data: bytes, place: str) -> Alias:
    """Return what an alias's file says.

    Raises:
        CorruptArtifactError: it is damaged.
        StoreTooNewError: a newer tracklayer wrote it.
    """
    fields = _object(data, place)
    try:
        version = _count(fields, "version")
        after = _count(fields, "after") if "after" in fields else version
        return Alias(_get(fields, "alias", str), version, after)
    except ValueError as error:
        raise damaged(place, str(error)) from error


def read_noted(data: bytes, place: str) -> tuple[float, str]:
    """Return when a version was used first, in Unix seconds, and by which run, from the file that says so.

    Raises:
        CorruptArtifactError: it is damaged.
        StoreTooNewError: a newer tracklayer wrote it.
    """
    fields = _object(data, place)
    try:
        return _time(fields, "time"), _get(fields, "run", str)
    except (ValueError, OverflowError) as error:
        raise damaged(place, str(error)) from error


def damaged(place: str, what: str) -> CorruptArtifactError:
    """Return the error about a damaged file of the catalog."""
    return CorruptArtifactError(f"{place} is damaged: {what}; put it back from a copy, or delete it")


def _object(data: bytes, place: str) -> dict[str, Any]:
    try:
        fields: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise damaged(place, str(error)) from error
    if not isinstance(fields, dict):
        raise damaged(place, "it is no JSON object")
    fields = cast("dict[str, Any]", fields)
    written_by = fields.get("format")
    if not isinstance(written_by, int):
        raise damaged(place, f"'format' is {written_by!r:.60}")
    if written_by > FORMAT:
        msg = f"{place} was written by a newer tracklayer, in format {written_by}: update this one"
        raise StoreTooNewError(msg)
    return fields


def _line(file: ArtifactFile) -> bytes:
    fields: dict[str, Any] = {"path": file.path, "sha256": file.sha256, "size": file.size}
    if file.reference is not None:
        fields |= {"reference": file.reference, "checksum": file.checksum}
    return f"{json.dumps(fields)}\n".encode()


def _file(fields: object, place: Callable[[str], str]) -> ArtifactFile:
    if not isinstance(fields, dict):
        msg = f"{fields!r:.60} is no JSON object"
        raise ValueError(msg)  # noqa: TRY004 - what is read is wrong, not a caller
    fields = cast("dict[str, Any]", fields)
    path, reference = _get(fields, "path", str), _optional(fields, "reference")
    if not is_inner_path(path):
        msg = f"{path!r:.160} is no path inside an artifact"
        raise ValueError(msg)
    sha256 = "" if reference is not None and fields.get("sha256") == "" else _sha256(fields, "sha256")
    source = place(sha256) if reference is None else reference
    return ArtifactFile(
        path, sha256, _count(fields, "size"), source, reference, _optional(fields, "checksum")
    )


def _get(fields: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
    value = fields.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        msg = f"{key!r} is {value!r:.60}"
        raise ValueError(msg)  # noqa: TRY004 - as above
    return value


def _optional(fields: Mapping[str, Any], key: str) -> str | None:
    return None if fields.get(key) is None else _get(fields, key, str)


def _count(fields: Mapping[str, Any], key: str) -> int:
    value = _get(fields, key, int)
    if value < 0:
        msg = f"{key!r} is {value}"
        raise ValueError(msg)
    return value


def _time(fields: Mapping[str, Any], key: str) -> float:
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        msg = f"{key!r} is {value!r:.60}"
        raise ValueError(msg)
    return float(value)


def _sha256(fields: Mapping[str, Any], key: str) -> str:
    value = _get(fields, key, str)
    if not _SHA256.fullmatch(value):
        msg = f"{key!r} is {value!r:.80}, which is no SHA-256"
        raise ValueError(msg)
    return value
