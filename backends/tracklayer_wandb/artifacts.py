"""Artifacts as W&B has them: versions of collections, told apart by W&B's digest of their content.

W&B counts versions by itself, so that a version may have another number there than here.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import wandb
from wandb.errors import CommError
from wandb.sdk.artifacts._internal_artifact import InternalArtifact
from wandb.sdk.artifacts.artifact_manifest_entry import ArtifactManifestEntry
from wandb.sdk.lib.paths import LogicalPath
from wandb.sdk.lib.service.service_connection import (  # pyright: ignore[reportMissingTypeStubs] - a folder without __init__
    WandbApiFailedError,
)

from tracklayer.artifacts.blobs import Blobs, blob_name
from tracklayer.errors import BackendUnavailableError, CorruptArtifactError, UnsupportedValueError
from tracklayer_wandb.login import api_url

if TYPE_CHECKING:
    from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact

API_SECONDS: Final = 20  # for each answer of the server
_CHUNK: Final = 1 << 20
CODE: Final = "code_path"
_KNOWN_FILES: Final = 100_000  # whose MD5 is kept: a push needs it several times
_NONE_THERE: Final = ("could not find", "unable to parse 'artifacts' response")
"""What the client says, in lower case, of a collection, type or project that the server does not have."""
_MAYBE_LATER: Final = frozenset({408, 429})
"""The statuses among the 4xx with which a server does not say no."""

_md5s: dict[tuple[str, str], str] = {}
"""By where a content lies and its SHA-256."""

Fetch: TypeAlias = "Callable[[ArtifactFile], Path]"
"""What returns a file of this machine with the content of an artifact's file."""


@contextmanager
def fetching() -> Generator[Fetch]:
    """Give what fetches files that are not on this machine, each once; its copies go with the block."""
    with TemporaryDirectory(prefix="tracklayer-wandb-") as folder:
        yield partial(_local, Path(folder))


def as_wandb(artifact: LoggedArtifact, fetch: Fetch) -> wandb.Artifact:
    """Return the W&B artifact with these files.

    Files of this machine are not copied, since they stay; others are fetched, and the client removes its
    copies when they are uploaded.  A reference becomes what the client's `add_reference` would make of it,
    without a look at what it refers to.

    Raises:
        CorruptArtifactError: the content of a file is gone, or is not what was stored.
        ValueError: W&B does not take the name or the type.
    """
    made = _draft(artifact, artifact.description, artifact.metadata)
    for file in artifact.files:
        if file.reference is None and _is_url(file.source):
            made.add_file(str(fetch(file)), name=file.path, skip_cache=True, policy="mutable")
        else:
            made.manifest.add_entry(_entry(file, fetch))
    return made


def _draft(
    artifact: LoggedArtifact, description: str | None = None, metadata: Mapping[str, Any] | None = None
) -> wandb.Artifact:
    # the name `source-…` is that of what the client's own `log_code` makes, and of nothing else
    kind = InternalArtifact if artifact.type == "code" else wandb.Artifact
    return kind(artifact.name, artifact.type, description, dict(metadata or {}))


def shows_code(artifact: LoggedArtifact) -> bool:
    """Say whether W&B is to show an artifact as the run's code: its config's hidden `CODE` names that one."""
    return artifact.type == "code"


def digest_of(artifact: LoggedArtifact, fetch: Fetch) -> str:
    """Return W&B's digest of an artifact's content.

    Raises:
        CorruptArtifactError: the content of a file is gone, or is not what was stored.
        ValueError: W&B does not take the name or the type.
    """
    manifest = _draft(artifact).manifest
    for file in artifact.files:
        manifest.add_entry(_entry(file, fetch))
    return manifest.digest()


@final
class Collections:
    """The committed versions of the artifacts of an entity, each collection asked for once."""

    def __init__(self, api: wandb.Api, entity: str) -> None:
        self._api = api
        self._entity = entity
        self._versions = cache(self._asked)

    def find(self, artifact: LoggedArtifact, project: str, fetch: Fetch) -> wandb.Artifact | None:
        """Return the version with the same content; `project` is that of an artifact which names none.

        Raises:
            CorruptArtifactError, ValueError: as `digest_of`.
            CommError, WandbApiFailedError: the server does not answer, or with an error.
        """
        place = f"{self._entity}/{artifact.project or project}/{artifact.name}"
        return self._versions(artifact.type, place).get(digest_of(artifact, fetch))

    def has(self, kind: str, name: str, digest: str, project: str) -> bool:
        """Say whether there is a version with a content, by W&B's digest of it."""
        return digest in self._versions(kind, f"{self._entity}/{project}/{name}")

    def _asked(self, kind: str, place: str) -> Mapping[str, wandb.Artifact]:
        try:
            versions = list(self._api.artifacts(kind, place))
        except (CommError, ValueError) as error:
            if any(words in str(error).lower() for words in _NONE_THERE):
                return {}
            raise  # else an older version would be logged again, and become `latest`
        return {version.digest: version for version in versions if version.state == "COMMITTED"}


def missing_artifacts(
    collections: Collections, artifacts: Sequence[LoggedArtifact], project: str
) -> tuple[LoggedArtifact, ...]:
    """Return the artifacts that the project does not have, committed, with the same content and the aliases.

    Whose outputs they are is not asked for: of runs that log the same content, W&B may show the first alone
    (wandb issue 5359).
    """

    def is_missing(artifact: LoggedArtifact) -> bool:
        found = _found(collections, artifact, project)
        return found is None or bool(_lacking_aliases(found, artifact))

    return tuple(artifact for artifact in artifacts if is_missing(artifact))


def part_name(record: Any) -> str:
    """Return the name in `Delivered.parts` of an artifact to which rows refer, given its `ArtifactRecord`."""
    return f"{record.type}/{record.name}/{record.digest}"


def missing_parts(collections: Collections, names: Sequence[str], project: str) -> tuple[str, ...]:
    """Return those of such names of which the project has no committed version."""
    parts = {name: name.split("/") for name in names}  # none of the three may hold a slash
    return tuple(
        name for name, (kind, of, digest) in parts.items() if not collections.has(kind, of, digest, project)
    )


def missing_uses(
    collections: Collections, run: Any, artifacts: Sequence[LoggedArtifact]
) -> tuple[LoggedArtifact, ...]:
    """Return the artifacts that a run of the public API does not show as used."""
    if not artifacts:
        return ()
    used = {version.id for version in run.used_artifacts()}

    def is_missing(artifact: LoggedArtifact) -> bool:
        found = _found(collections, artifact, run.project)
        return found is None or found.id not in used

    return tuple(artifact for artifact in artifacts if is_missing(artifact))


@final
class ArtifactSender:
    """What a run makes and uses while it is recorded, handed to the client."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, artifact: LoggedArtifact) -> None:
        """Log an artifact as what the run made; its content is uploaded in the background.

        Raises:
            UnsupportedValueError: the client or the server does not take it.
            CorruptArtifactError: the content of a file is gone, or is not what was stored.
            BackendUnavailableError: the server does not answer.
        """
        with _refused_by_name(artifact), fetching() as fetch:
            self._run.log_artifact(as_wandb(artifact, fetch), aliases=list(artifact.aliases))

    def use(self, artifact: LoggedArtifact) -> None:
        """Show an artifact as what the run used; if its project does not have it, it gets it as an input.

        Raises:
            UnsupportedValueError: the server does not have it, and it belongs to another project; or the
                client or the server does not take it.
            CorruptArtifactError: the content of a file is gone, or is not what was stored.
            BackendUnavailableError: the server does not say what it has.
        """
        run = self._run
        with _refused_by_name(artifact), fetching() as fetch:
            found = Collections(self._api, run.entity).find(artifact, run.project, fetch)
            if found is None:
                _log_as_input(run, artifact, fetch)
            else:
                self._api.run(f"{run.entity}/{run.project}/{run.id}").use_artifact(found)

    @cached_property
    def _api(self) -> wandb.Api:
        return wandb.Api(timeout=API_SECONDS)


@final
class ArtifactLog:
    """What a run makes and uses, written to its log as far as the server does not have it.

    What the server has is not sent again, and an older version does not become `latest`, as it would if the
    client logged it again: the run is only shown as its maker or user, by `later`.

    Attributes:
        later: what is to be done when the server has the log, since the run may not be there before.
    """

    def __init__(self, run: Any, api: wandb.Api | None) -> None:
        self.later: list[Callable[[], object]] = []
        self._run = run
        self._api = api
        self._collections = None if api is None else Collections(api, run.entity)

    def log(self, artifact: LoggedArtifact, fetch: Fetch) -> None:
        """Log an artifact as what the run made.

        Raises:
            UnsupportedValueError, CorruptArtifactError, BackendUnavailableError: as `ArtifactSender.log`.
        """
        with _refused_by_name(artifact):
            found = self._find(artifact, fetch)
            if found is None:
                self._run.log_artifact(as_wandb(artifact, fetch), aliases=list(artifact.aliases))
            else:
                self.later.append(partial(self._show_made, found, artifact))

    def use(self, artifact: LoggedArtifact, fetch: Fetch) -> None:
        """Show an artifact as what the run used; if its project does not have it, it gets it as an input.

        Raises:
            UnsupportedValueError, CorruptArtifactError, BackendUnavailableError: as `ArtifactSender.use`.
        """
        with _refused_by_name(artifact):
            found = self._find(artifact, fetch)
            if found is None:
                _log_as_input(self._run, artifact, fetch)
            else:
                self.later.append(partial(self._show_used, found, artifact))

    def _find(self, artifact: LoggedArtifact, fetch: Fetch) -> wandb.Artifact | None:
        if self._collections is None:
            return None
        return self._collections.find(artifact, self._run.project, fetch)

    def _show_made(self, found: wandb.Artifact, artifact: LoggedArtifact) -> None:
        with _refused_by_name(artifact):
            if found.id not in self._made:
                self._recorded.log_artifact(found, aliases=artifact.aliases)
            elif lacking := _lacking_aliases(found, artifact):
                self._recorded.log_artifact(found, aliases=lacking)

    def _show_used(self, found: wandb.Artifact, artifact: LoggedArtifact) -> None:
        with _refused_by_name(artifact):
            if found.id not in self._used:
                self._recorded.use_artifact(found)

    @cached_property
    def _recorded(self) -> Any:
        """The run as the public API has it."""
        api: Any = self._api
        return api.run(f"{self._run.entity}/{self._run.project}/{self._run.id}")

    @cached_property
    def _made(self) -> set[str | None]:
        return {version.id for version in self._recorded.logged_artifacts()}

    @cached_property
    def _used(self) -> set[str | None]:
        return {version.id for version in self._recorded.used_artifacts()}


def _log_as_input(run: Any, artifact: LoggedArtifact, fetch: Fetch) -> None:
    """Log an artifact, which the project does not have yet, as what the run used."""
    if artifact.project not in {"", run.project}:
        msg = f"project {artifact.project!r} does not have it; push a run that made it first"
        raise ValueError(msg)
    run._log_artifact(  # noqa: SLF001 - as its `use_artifact` does, which waits for the upload
        as_wandb(artifact, fetch),
        aliases=list(artifact.aliases),
        is_user_created=True,
        use_after_commit=True,
    )


@contextmanager
def _refused_by_name(artifact: LoggedArtifact) -> Generator[None]:
    """Turn what the client raises on an artifact that is not taken into `UnsupportedValueError`.

    Trouble on the way to the server is no refusal, but `BackendUnavailableError`.
    """
    try:
        yield
    except (wandb.Error, WandbApiFailedError, TypeError, ValueError) as error:
        if _is_trouble(error):
            msg = f"cannot ask {api_url()} about the artifact {artifact.label!r}: {error}"
            raise BackendUnavailableError(msg) from error
        msg = f"the artifact {artifact.label!r}: {error}"
        raise UnsupportedValueError(msg) from error


def _is_trouble(error: Exception) -> bool:
    """Say whether the server did not answer, or failed: else it said no, or the client did."""
    cause = error.exc if isinstance(error, CommError) else error
    if not isinstance(cause, WandbApiFailedError):
        return cause is None or isinstance(cause, OSError)
    answer: Any = getattr(cause, "response", None)
    status = 0 if answer is None else answer.http_status
    return status // 100 != 4 or status in _MAYBE_LATER


def _lacking_aliases(found: wandb.Artifact, artifact: LoggedArtifact) -> set[str]:
    """Return the aliases that a version does not have; `latest` is W&B's own to move."""
    return {*artifact.aliases} - {*found.aliases, "latest"}


def _found(collections: Collections, artifact: LoggedArtifact, project: str) -> wandb.Artifact | None:
    try:
        with fetching() as fetch:
            return collections.find(artifact, project, fetch)
    except (CorruptArtifactError, ValueError):
        return None  # logging it says why it cannot be there


def _entry(file: ArtifactFile, fetch: Fetch) -> ArtifactManifestEntry:
    if file.reference is not None:
        return ArtifactManifestEntry(
            path=LogicalPath(file.path),
            # what a server said, such as an ETag, comes first: by that the client tells whether it changed
            digest=file.checksum or file.sha256 or file.reference,
            ref=file.reference,
            size=file.size or None,
        )
    local = None if _is_url(file.source) else file.source
    return ArtifactManifestEntry(
        path=LogicalPath(file.path),
        digest=_md5(file, fetch),
        size=file.size,
        local_path=local,
        skip_cache=True,
    )


def _md5(file: ArtifactFile, fetch: Fetch) -> str:
    """Return the MD5 of a content, in base64 as W&B writes it, when its SHA-256 is what it should be."""
    key = file.source, file.sha256
    if key not in _md5s:
        if len(_md5s) >= _KNOWN_FILES:
            _md5s.pop(next(iter(_md5s)), None)
        _md5s[key] = _hashed(file, fetch(file))
    return _md5s[key]


def _hashed(file: ArtifactFile, local: Path) -> str:
    md5, found = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    try:
        with local.open("rb") as content:
            while chunk := content.read(_CHUNK):
                md5.update(chunk)
                found.update(chunk)
    except FileNotFoundError as error:
        msg = f"{file.source} is gone"
        raise CorruptArtifactError(msg) from error
    if found.hexdigest() != file.sha256:
        msg = f"{file.source} is not what was stored there"
        raise CorruptArtifactError(msg)
    return base64.b64encode(md5.digest()).decode()


def _local(folder: Path, file: ArtifactFile) -> Path:
    """Return a file of this machine with a file's content, fetched to a folder if need be."""
    if not _is_url(file.source):
        return Path(file.source)
    copy = folder / file.sha256
    if not copy.exists():
        _blobs(file.source.removesuffix(f"/{blob_name(file.sha256)}")).fetch(file.sha256, copy)
    return copy


@cache
def _blobs(url: str) -> Blobs:
    """Return the contents at a location's URL, with one connection for all of them."""
    from tracklayer.artifacts.remote import remote_location  # imports fsspec

    return Blobs(remote_location(url))


def _is_url(source: str) -> bool:
    return "://" in source
