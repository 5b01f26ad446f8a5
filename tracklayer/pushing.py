"""Push: the replay of a recorded run into a hosted backend, with a ledger of what it confirmed.

The server is read first, and only what it does not have is sent.  Success is what the server says
it has, read back afterwards; never an exit code.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast, final

from tracklayer.artifacts.catalog import Catalog, Version
from tracklayer.artifacts.locations import locate
from tracklayer.errors import (
    ArtifactNotFoundError,
    BackendUnavailableError,
    CorruptArtifactError,
    StoreTooNewError,
    TracklayerError,
)
from tracklayer.ledger import Ledger
from tracklayer.protocol import CanBeAbandoned, Received, Resume, RunInfo
from tracklayer.reading import Row, RunReader
from tracklayer.replaying import replay
from tracklayer.settings import Settings, artifacts_url

if TYPE_CHECKING:
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.protocol import Backend

Outcome = Literal["sent", "unchanged", "would send", "unconfirmed", "failed"]
OK_OUTCOMES: Final[frozenset[Outcome]] = frozenset({"sent", "unchanged", "would send"})
_CONFIRM_SECONDS: Final = 30.0  # a server may take a moment to count what it was just sent
_FINISH_SECONDS: Final = 3600.0  # of a push: the rows may be many, and nobody's training waits


@final
@dataclass(frozen=True, slots=True)
class PushReport:
    """What became of one run's push: `rows` were sent (or would be), of `total` in the run."""

    run_id: str
    outcome: Outcome
    rows: int
    total: int
    message: str
    url: str | None = None


def push(
    reader: RunReader,
    backend: Backend,
    store: Path,
    *,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
) -> PushReport:
    """Send what the server does not have yet, and read back that it has it.

    Args:
        reader: the run.
        backend: a hosted backend.
        store: the run's store, where the ledger lies.
        dry_run: only say what would be sent.
        progress: told the number of rows sent so far.

    Returns:
        What happened; an error of ours or of the network is a report, not an exception.
    """
    try:
        return _Push(reader, backend, store).run(dry_run=dry_run, progress=progress)
    except (TracklayerError, OSError) as error:
        return PushReport(reader.id, "failed", 0, 0, str(error))
    except Exception as error:  # noqa: BLE001 - a backend's code may raise anything; other runs wait
        return PushReport(reader.id, "failed", 0, 0, repr(error))


def target_of(backend: Backend, info: RunInfo) -> str:
    """Return the name under which the ledger keeps a target."""
    server = backend.server() if backend.server else ""
    return f"{backend.name}:{server}/{info.entity or ''}/{info.project}"


@final
class _Push:
    """One run's push: of what it holds now.  What is logged meanwhile is for the next one."""

    def __init__(self, reader: RunReader, backend: Backend, store: Path) -> None:
        if backend.received is None:
            msg = f"backend {backend.name!r} has no server to push to"
            raise BackendUnavailableError(msg)
        backend.check()
        self._reader = reader
        self._backend = backend
        self._ask = backend.received
        revision = reader.revision
        self._info = reader.info
        self._ledger = Ledger(store, reader.id)
        self._target = target_of(backend, self._info)
        self._keys: dict[int, frozenset[str]] = {}
        versions = _Versions(Catalog(locate(artifacts_url(), store)))
        made = [versions.described(artifact) for artifact in reader.artifacts()]
        used = [versions.described(artifact) for artifact in reader.used_artifacts()]
        self._deleted = [artifact for artifact in (*made, *used) if versions.was_deleted(artifact)]
        self._made = [artifact for artifact in made if artifact not in self._deleted]
        self._used = [artifact for artifact in used if artifact not in self._deleted]
        self._revision = _revision(revision, made)

    def run(self, *, dry_run: bool, progress: Callable[[int], None] | None) -> PushReport:
        confirmed = self._ledger.entry(self._target)
        if confirmed.get("revision") == self._revision:
            rows = int(confirmed.get("rows", 0))
            return self._report("unchanged", 0, rows, "sent before", confirmed.get("url"))
        interned: dict[frozenset[str], frozenset[str]] = {}
        for row in self._reader.rows():
            keys = frozenset(row.values)
            self._keys[row.step] = interned.setdefault(keys, keys)
        total = len(self._keys)
        found = self._ask(self._info, self._made, self._used)
        lacking = self._lacking(found)
        changed = bool(confirmed) or (found is not None and self._is_changed(found))
        if dry_run:
            message = self._missing(found) or ("config and summary" if changed else "nothing")
            return self._report("would send", lacking, total, message, found.url if found else None)
        if found is not None and not confirmed and self._info.state == found.state == "running":
            message = "it is recorded there live, as it seems; push it once it has ended"
            return self._report("unchanged", 0, total, message, found.url)
        if self._missing(found) or changed:
            self._send(found, progress)
            found = self._read_back()
        if found is None:
            return self._report("unconfirmed", 0, total, "the server does not show the run")
        missing = self._missing(found)
        if missing:
            sent = lacking - self._lacking(found)
            message = f"the server still lacks {missing}; push again"
            return self._report("unconfirmed", sent, total, message, found.url)
        self._ledger.confirm(
            self._target,
            {
                "revision": self._revision,
                "rows": total,
                "url": found.url,
                "confirmed_at": time.time(),
            },
        )
        message = "confirmed by the server" if lacking or changed else "the server had everything"
        if self._deleted:
            message = f"{message}, but for what was deleted here: {_labels(self._deleted)}"
        return self._report("sent", lacking, total, message, found.url)

    def _send(self, found: Received | None, progress: Callable[[int], None] | None) -> None:
        with tempfile.TemporaryDirectory(prefix="tracklayer-push-", ignore_cleanup_errors=True) as scratch:
            settings = Settings(
                backends=(self._backend.name,),
                dir=Path(scratch),
                finish_timeout=_FINISH_SECONDS,
                replaying=True,
            )
            resume: Resume = "never" if found is None else "must"
            run = self._backend.open(self._info, resume, settings)
            try:
                replay(
                    self._reader,
                    run,
                    missing=lambda row: lacking_of(row, found),
                    artifacts=self._made,
                    uses=self._used,
                    whole_summary=found is not None,
                    progress=progress,
                )
            except BaseException:
                if isinstance(run, CanBeAbandoned):
                    run.abandon()
                raise

    def _read_back(self) -> Received | None:
        """Ask until the server shows everything, or time is up."""
        deadline, pause = time.monotonic() + _CONFIRM_SECONDS, 0.2
        while True:
            found = self._ask(self._info, self._made, self._used)
            if not self._missing(found) or time.monotonic() + pause > deadline:
                return found
            time.sleep(pause)
            pause *= 2

    def _is_changed(self, found: Received) -> bool:
        """Say whether the server shows other config or summary entries.

        That is a reason to send them, and not to doubt that they came: servers write values in
        ways of their own.
        """
        return not (
            (found.config is None or _holds(found.config, self._reader.config))
            and (found.summary is None or _holds(found.summary, self._reader.summary))
        )

    def _lacking(self, found: Received | None) -> int:
        """Return how many rows the server lacks, wholly or in part."""
        if found is None:
            return len(self._keys)
        nothing = frozenset[str]()
        return sum(not keys <= found.keys.get(step, nothing) for step, keys in self._keys.items())

    def _missing(self, found: Received | None) -> str:
        """Say what the server lacks; nothing if it has all."""
        lacking = self._lacking(found)
        parts = [f"{lacking} rows"] if lacking else []
        artifacts = self._made if found is None else found.missing_artifacts
        if artifacts:
            parts.append(f"artifacts {_labels(artifacts)}")
        uses = self._used if found is None else found.missing_uses
        if uses:
            parts.append(f"the use of {_labels(uses)}")
        if found is not None and not _same_end(self._info, found):
            parts.append(f"the state {self._info.state!r} (it shows {found.state!r})")
        return ", ".join(parts) if parts or found else "the run"

    def _report(
        self, outcome: Outcome, rows: int, total: int, message: str, url: str | None = None
    ) -> PushReport:
        return PushReport(self._info.id, outcome, rows, total, message, url)


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


def lacking_of(row: Row, found: Received | None) -> Row | None:
    """Return what of a row the server does not have; None for nothing."""
    if found is None:
        return row
    present = found.keys.get(row.step, frozenset())
    if row.values.keys() <= present:
        return None
    return row._replace(values={k: v for k, v in row.values.items() if k not in present})


def _revision(run: str, made: Sequence[LoggedArtifact]) -> str:
    """Return a word that changes with the run's own, and when an alias of what it made moves.

    `latest` is not among them: a server has its own.
    """
    if not made:
        return run
    aliases = [[one.label, *(name for name in one.aliases if name != "latest")] for one in made]
    return hashlib.sha256(json.dumps([run, aliases]).encode()).hexdigest()[:16]


def _labels(artifacts: Iterable[LoggedArtifact]) -> str:
    return ", ".join(dict.fromkeys(artifact.label for artifact in artifacts))


def _same_end(info: RunInfo, found: Received) -> bool:
    """Say whether the run ended there as it did here; a server may show a failed run as crashed."""
    ill = {"failed", "crashed"}
    return info.state == found.state or (info.state in ill and found.state in ill)


def _holds(theirs: Any, ours: Any) -> bool:
    """Say whether JSON data contains other such data, which it may spell as W&B does."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        entries = cast("Mapping[str, Any]", ours).items()
        return all(key in theirs and _holds(theirs[key], value) for key, value in entries)
    if isinstance(ours, float) and not math.isfinite(ours):
        return theirs is None or str(theirs).lower().startswith(str(ours))
    return bool(theirs == ours)
