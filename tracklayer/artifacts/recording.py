"""What a run does with artifacts: it logs them as versions in its project, and uses those that are there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from time import time as now
from typing import TYPE_CHECKING, Any, final

from tracklayer import reporting
from tracklayer.artifacts.artifact import Artifact, artifact_of
from tracklayer.artifacts.catalog import Catalog, Version
from tracklayer.artifacts.claims import claimed, staged
from tracklayer.artifacts.locations import locate
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.artifacts.storing import stored
from tracklayer.artifacts.walking import files_below
from tracklayer.configuration import plain
from tracklayer.errors import CorruptArtifactError, StoreError, UsageError
from tracklayer.lifecycle import shut_down_first
from tracklayer.naming import check_alias
from tracklayer.protocol import Run, RunInfo, TakesUses
from tracklayer.registry import open_store
from tracklayer.saving import SavedFiles
from tracklayer.settings import NO_BACKEND

if TYPE_CHECKING:
    from tracklayer.reading import RunReader
    from tracklayer.settings import Settings


@final
class RunArtifacts:
    """The artifacts of one run.

    Where nothing is recorded nothing is stored either: what is logged there counts as version 0, so that code
    that reads it goes on.

    Args:
        info: what the run is.
        settings: where artifacts lie.
        sink: takes note of what is logged and used.
    """

    def __init__(self, info: RunInfo, settings: Settings, sink: Run) -> None:
        self._info = info
        self._settings = settings
        self._sink = sink
        self._records = settings.backends != (NO_BACKEND,)
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None
        """The last of what the thread was given to store."""
        self._holding = ExitStack()
        self._held: set[str] = set()

    # -- what the run makes -----------------------------------------------------------------------

    def log(
        self, artifact: Artifact | LoggedArtifact, aliases: Iterable[str] | str | None, *, wait: bool
    ) -> Artifact:
        """Make a version of an artifact, or find the one with its content: see `ActiveRun.log_artifact`."""
        names = _checked(aliases)
        if isinstance(artifact, LoggedArtifact):  # as a replay passes it on
            logged = replace(artifact, aliases=tuple(dict.fromkeys((*artifact.aliases, *names))))
            if self._records:
                self._sink.log_artifact(logged)
            return _pretended(logged)
        if not self._records:
            if artifact.is_draft():
                _pretend(artifact, self._info.project, names)
            return artifact
        if wait or artifact.is_being_stored():
            self._wait()  # versions are counted in the order of the calls
        if not artifact.is_draft():
            with self._reported(artifact):
                self._log_again(artifact, names)
        elif wait:
            with self._reported(artifact):
                self._prepared(artifact, names)()
        else:
            self._meanwhile(artifact, self._prepared(artifact, names))
        return artifact

    def log_written(
        self,
        artifact: Artifact,
        aliases: Iterable[str] | str | None,
        write: Callable[[Path], Callable[[], None]],
    ) -> None:
        """Make a version of an artifact whose files are being written: see `ActiveRun.log_written`."""
        names = _checked(aliases)
        if not self._records:
            _pretend(artifact, self._info.project, names)
            return
        self._wait()
        with self._reported(artifact), ExitStack() as opened:
            folder = opened.enter_context(staged(self._catalog.location)) / "files"
            finish = write(folder)

            def written() -> dict[str, Path]:
                finish()
                return {file.relative_to(folder).as_posix(): file for file in files_below(folder)}

            store = self._prepared(artifact, names, written)
            staging = opened.pop_all()

            def store_and_clean() -> None:
                with staging:
                    store()

            self._meanwhile(artifact, store_and_clean)

    def made_of(self, path: str | os.PathLike[str], name: str | None, type: str) -> Artifact:  # noqa: A002 - W&B's name for it
        """Return an artifact that holds a file, the files of a folder, or a reference to a URI."""
        where = os.fspath(path)
        made = Artifact(name or f"run-{self._info.id}-{Path(where).absolute().name}", type)
        if not self._records:  # what another process has need not be here at all
            return made
        if "://" in where:
            made.add_reference(where)
        elif Path(where).is_dir():
            made.add_dir(where)
        else:
            made.add_file(where)
        return made

    def save(self, files: Mapping[str, Path], policy: str) -> None:
        """Keep files, by their paths, that belong to the run: see `ActiveRun.save`."""
        if self._records:
            self._log_files(self._saved.kept(files, policy))

    # -- what the run uses ------------------------------------------------------------------------

    def use(
        self,
        artifact_or_name: Artifact | LoggedArtifact | str,
        type: str | None,  # noqa: A002 - W&B's name for it
        aliases: Iterable[str] | str | None,
    ) -> Artifact:
        """Return a version, and take note that the run used it: see `ActiveRun.use_artifact`."""
        names = _checked(aliases)
        if isinstance(artifact_or_name, LoggedArtifact):  # as a replay passes it on
            self._tell_use(artifact_or_name)
            return _pretended(artifact_or_name)
        self._wait()
        if isinstance(artifact_or_name, str):
            version = self._catalog.find(artifact_or_name, self._info.project)
            artifact = artifact_of(version, self._catalog, self._find_run)
        else:
            artifact = artifact_or_name
        if type not in {None, artifact.type}:
            msg = f"use_artifact: {artifact.name} is of type {artifact.type!r}, not of type {type!r}"
            raise UsageError(msg)
        if artifact.is_draft():
            self.log(artifact, None, wait=True)
        if self._records and not artifact.is_draft():  # else the store could not take it
            self._note_use(artifact, names)
        return artifact

    def model(self, artifact: Artifact) -> str:
        """Download a model; return its folder, or its only file: see `ActiveRun.use_model`."""
        if "model" not in artifact.type.lower():  # W&B's rule
            msg = f"use_model: {artifact.name} is of type {artifact.type!r}: use_artifact takes any"
            raise UsageError(msg)
        return artifact.file() if artifact.file_count == 1 else artifact.download()

    # -- ending -----------------------------------------------------------------------------------

    def finish(self) -> None:
        """Wait for what is being stored, and keep the files that are to be kept at the end."""
        if self._thread is not None:
            self._thread.shutdown()
        if self._records and "_saved" in self.__dict__:
            try:
                self._log_files(self._saved.kept_at_end())
            except Exception as error:  # noqa: BLE001 - whatever it is, the end of the run comes after it
                reporting.warn(f"files of run {self._info.id} are not recorded as they are now: {error}")
        self._holding.close()

    def after_fork_in_child(self) -> None:
        """Record nothing here: the run is the parent's."""
        self._records = False
        self._thread = self._last = None
        self._lock, self._holding = threading.Lock(), ExitStack()

    # -- how --------------------------------------------------------------------------------------

    @cached_property
    def _catalog(self) -> Catalog:
        return Catalog(locate(self._settings.artifacts, self._settings.dir))

    @cached_property
    def _saved(self) -> SavedFiles:
        return SavedFiles(self._info.id, self._catalog)

    def _prepared(
        self,
        artifact: Artifact,
        aliases: tuple[str, ...],
        written: Callable[[], Mapping[str, Path]] = dict[str, Path],
    ) -> Callable[[], None]:
        """Return what stores an artifact as it is now, with further files that are there by then."""
        draft = artifact.draft
        draft.check()
        sources, references = dict(draft.files), tuple(draft.references.values())
        logged = LoggedArtifact(
            name=artifact.name,
            type=artifact.type,
            files=(),
            description=artifact.description,
            metadata=_plain_metadata(artifact),
            time=now(),
            project=self._info.project,
            aliases=aliases,
        )

        def store() -> None:
            known, progress = self._newest_files(logged.name), f"storing artifact {logged.name}"
            location, whole = self._catalog.location, {**sources, **written()}
            with stored(whole, location, known=known, progress=progress) as files:
                in_order = sorted((*files, *references), key=lambda file: file.path)
                version = self._publish(replace(logged, files=tuple(in_order)))
            artifact.stored_as(version, self._catalog, self._find_run)

        return store

    def _meanwhile(self, artifact: Artifact, store: Callable[[], None]) -> None:
        """Store an artifact on the thread."""
        with self._lock:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "tracklayer-artifacts")
                shut_down_first(self._thread)
            try:
                stored = self._last = self._thread.submit(store)
            except RuntimeError:  # the interpreter ends, and the thread did: what logs this now waits for it
                stored = self._last = Future()
                _outcome(stored, store)
        artifact.storing(stored)
        stored.add_done_callback(partial(self._report_failure, artifact.name))

    @contextmanager
    def _reported(self, artifact: Artifact) -> Generator[None]:
        """Report what the store cannot take; as with rows, a full disk does not end the training."""
        try:
            yield
        except StoreError as error:
            if artifact.is_draft():
                artifact.storing(_failed(error))
            self._report(artifact.name, error)

    def _log_again(self, artifact: Artifact, aliases: tuple[str, ...]) -> None:
        """Make the version of a stored artifact one that this run logged, too."""
        version, files = artifact.stored_version, tuple(artifact.files())
        if version.project != self._info.project:
            msg = f"artifact {artifact.qualified_name} is another project's: log a new one with its files"
            raise UsageError(msg)
        with claimed(self._catalog.location, [file.sha256 for file in files if file.reference is None]):
            self._catalog.get(version.project, version.name, version.number)  # it may have been deleted
            self._publish(replace(_logged_now(version, files), aliases=aliases))

    def _publish(self, artifact: LoggedArtifact) -> Version:
        version = self._catalog.publish(artifact, self._info.id)
        logged = replace(artifact, description=version.description, metadata=version.metadata)
        self._sink.log_artifact(replace(logged, version=version.number))
        return version

    def _log_files(self, keeping: AbstractContextManager[LoggedArtifact | None]) -> None:
        try:
            with keeping as artifact:
                if artifact is not None:
                    self._publish(replace(artifact, project=self._info.project))
        except StoreError as error:  # as with artifacts
            reporting.warn(f"files of run {self._info.id} are not recorded: {error}")

    def _newest_files(self, name: str) -> dict[str, ArtifactFile]:
        """Return the files of the newest version, which often are mostly those of the next one."""
        versions = self._catalog.versions(self._info.project, name)
        try:
            return {file.path: file for file in self._catalog.files(versions[-1])} if versions else {}
        except CorruptArtifactError:  # no reason not to make the next one
            return {}

    def _note_use(self, artifact: Artifact, aliases: tuple[str, ...]) -> None:
        version, files = artifact.stored_version, tuple(artifact.files())
        try:
            if version.manifest not in self._held:  # what is deleted meanwhile is not collected
                contents = [version.manifest, *(file.sha256 for file in files if file.reference is None)]
                self._holding.enter_context(claimed(self._catalog.location, contents))
                self._held.add(version.manifest)
            self._catalog.get(version.project, version.name, version.number)  # it may have been deleted
            for alias in aliases:
                self._catalog.set_alias(version, alias)
            self._catalog.note_use(version, self._info.id)
        except StoreError as error:  # such as artifacts that may only be read here
            reporting.warn(f"that run {self._info.id} used artifact {version.label} is not noted: {error}")
        self._tell_use(_logged_now(version, files))

    def _tell_use(self, artifact: LoggedArtifact) -> None:
        if self._records and isinstance(self._sink, TakesUses):
            self._sink.use_artifact(artifact)

    def _find_run(self, run_id: str) -> RunReader | None:
        return open_store(self._settings.dir).find(run_id)

    def _wait(self) -> None:
        if self._last is not None:
            wait_for([self._last])

    def _report(self, name: str, error: BaseException) -> None:
        reporting.warn(f"artifact {name!r} of run {self._info.id} is not recorded: {error}")

    def _report_failure(self, name: str, outcome: Future[None]) -> None:
        error = outcome.exception()
        if error is not None:
            self._report(name, error)


def _outcome(future: Future[None], store: Callable[[], None]) -> None:
    """Do what a thread would have done."""
    try:
        store()
    except Exception as error:  # noqa: BLE001 - whoever waits for it gets it
        future.set_exception(error)
    else:
        future.set_result(None)


def _checked(aliases: Iterable[str] | str | None) -> tuple[str, ...]:
    """Return aliases that W&B takes, each once; `latest`, which moves by itself, is none of them."""
    given = (aliases,) if isinstance(aliases, str) else aliases or ()
    return tuple(dict.fromkeys(check_alias(alias) for alias in given if alias != "latest"))


def _plain_metadata(artifact: Artifact) -> dict[str, Any]:
    strange: list[str] = []
    metadata: dict[str, Any] = plain(artifact.metadata, "", strange)
    if strange:
        what = f"metadata {', '.join(strange)} of artifact {artifact.name!r}"
        reporting.warn(f"{what}: no plain data, stored as str()")
    return metadata


def _logged_now(version: Version, files: tuple[ArtifactFile, ...]) -> LoggedArtifact:
    """Return a version as backends take it, logged or used at this moment."""
    return LoggedArtifact(
        name=version.name,
        type=version.type,
        files=files,
        description=version.description,
        metadata=version.metadata,
        time=now(),
        project=version.project,
        version=version.number,
    )


def _pretended(logged: LoggedArtifact) -> Artifact:
    """Return an artifact that says of itself what a logged one says, and has no files here."""
    made = Artifact(logged.name, logged.type, logged.description, logged.metadata)
    _pretend(made, logged.project, logged.aliases, logged.version or 0)
    return made


def _pretend(artifact: Artifact, project: str, aliases: tuple[str, ...], number: int = 0) -> None:
    """Have an artifact say that it is a version, though there is none here."""
    version = Version(
        project=project,
        name=artifact.name,
        type=artifact.type,
        number=number,
        digest="",
        created_at=now(),
        description=artifact.description,
        metadata=artifact.metadata,
        run_id=None,
        size=0,
        file_count=0,
        manifest="",
    )
    artifact.stored_as(version, None, lambda _: None)
    artifact.aliases = ["latest", *aliases]


def _failed(error: BaseException) -> Future[None]:
    outcome: Future[None] = Future()
    outcome.set_exception(error)
    return outcome
