"""`Artifact`: a named, versioned set of files; filled, logged, and found again by name and version."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Never, Self, final

from tracklayer.artifacts.comparing import ArtifactDiff, compare
from tracklayer.artifacts.downloading import ArtifactEntry, check_folder, check_stored, put_files
from tracklayer.artifacts.drafting import Draft
from tracklayer.errors import ArtifactNotFoundError, StoreError, UsageError
from tracklayer.naming import check_alias, check_artifact_name, check_artifact_type, did_you_mean
from tracklayer.porting import refuse, tells_what_is_absent

if TYPE_CHECKING:
    from tracklayer.artifacts.catalog import Catalog, Version
    from tracklayer.artifacts.records import ArtifactFile
    from tracklayer.reading import RunReader


@final
@tells_what_is_absent("Artifact")
class Artifact:
    """A named, versioned set of files: filled and logged with `run.log_artifact`, or found in a store.

    What is made here is a draft.  Once it is logged, it is a version in the project of the run, and does not
    change any more, but for its aliases.

    Args:
        name: letters, digits, `-`, `_` and `.`, at most 128 of them.
        type: what it is, such as `"model"` or `"dataset"`; all versions of a name have one type.
        description: free text.
        metadata: JSON-like data.
        others: wandb's further arguments; what they ask for is refused.

    Attributes:
        type: as given.
        description: as given, until it is logged.
        metadata: likewise.

    Raises:
        UsageError: a name or type that W&B would refuse.
    """

    def __init__(
        self,
        name: str,
        type: str,  # noqa: A002 - W&B's name for it
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **others: Never,
    ) -> None:
        refuse("Artifact", others)
        for attribute in others.keys() & vars(Artifact).keys():
            msg = f"Artifact() got an unexpected keyword argument {attribute!r}"
            raise TypeError(msg)
        self._name = check_artifact_name(name)
        self.type = check_artifact_type(type, name)
        if description is not None and not isinstance(description, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
            msg = f"artifact {name!r}: {description!r} is no description, which is text"
            raise UsageError(msg)
        self.description = description
        self.metadata: dict[str, Any] = dict(metadata or {})
        self._draft = Draft(name)
        self._storing: Future[None] | None = None
        self._process = os.getpid()
        self._stored: _Stored | None = None
        self._aliases: list[str] | None = None
        self._aliases_read: tuple[str, ...] = ()

    # -- filling it -------------------------------------------------------------------------------

    def add_file(
        self,
        local_path: str | os.PathLike[str],
        name: str | None = None,
        *,
        overwrite: bool = False,
        **others: Never,
    ) -> None:
        """Add one file; its content is read when the artifact is logged.

        Args:
            local_path: the file.
            name: its path in the artifact; by default its own name.
            overwrite: take it instead of another that has this path.
            others: wandb's further arguments; what they ask for is refused.

        Raises:
            FileNotFoundError: there is no such file.
            UsageError: the path in the artifact leaves it, or is another file's.
        """
        refuse("Artifact.add_file", others)
        self.draft.add_file(local_path, name, overwrite=overwrite)

    def add_dir(
        self,
        local_path: str | os.PathLike[str],
        name: str | None = None,
        *,
        merge: bool = False,
        **others: Never,
    ) -> None:
        """Add every file below a folder; links are followed to what lies below it, too.

        Args:
            local_path: the folder.
            name: its path in the artifact; by default its files come to the top.
            merge: take its files instead of others that have their paths.
            others: wandb's further arguments; what they ask for is refused.

        Raises:
            NotADirectoryError: there is no such folder.
            FileNotFoundError: a link leads to nothing.
            UsageError: a link leads out of the folder or to a folder above it; a path is another file's.
        """
        refuse("Artifact.add_dir", others)
        self.draft.add_dir(local_path, name, overwrite=merge)

    def add_reference(
        self,
        uri: str | os.PathLike[str],
        name: str | None = None,
        checksum: bool = True,  # noqa: FBT001, FBT002 - W&B's signature
        max_objects: int | None = None,
    ) -> list[ArtifactFile]:
        """Add a file, or a folder's files, by where they are; they are not copied.

        Args:
            uri: `file:///path` or a path of this machine, whose content is read now to tell it apart by its
                SHA-256; or a URI that fsspec knows, whose server is asked for an ETag or the like.
            name: the path in the artifact; by default the file's name, and for a folder the top.
            checksum: False tells the content apart by its URI alone, so that a change goes unnoticed.
            max_objects: the most files that a folder may hold; 10,000 by default.

        Returns:
            What was added.

        Raises:
            FileNotFoundError: there is no such file on this machine.
            UsageError: the URI holds credentials, its server cannot be asked, or there are more files.
        """
        return self.draft.add_reference(os.fspath(uri), name, checksum=checksum, max_objects=max_objects)

    def new_file(
        self, name: str, mode: str = "x", encoding: str | None = None, **others: Never
    ) -> AbstractContextManager[IO[Any]]:
        """Open a new file that is added when the `with` block ends.

        Args:
            name: its path in the artifact.
            mode: `"x"` or `"xb"`, or with `w` instead of `x` to take it instead of another.
            encoding: of text; UTF-8 by default.
            others: wandb's further arguments; what they ask for is refused.

        Raises:
            UsageError: the path leaves the artifact, or is another file's.
        """
        refuse("Artifact.new_file", others)
        return self.draft.new_file(name, mode, encoding)

    def remove(self, item: str | os.PathLike[str] | ArtifactFile) -> None:
        """Take a file, or a folder with all its files, out again.

        Raises:
            FileNotFoundError: there is none.
        """
        self.draft.remove(os.fspath(item) if isinstance(item, (str, os.PathLike)) else item.path)

    # -- what it is -------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name; once it is stored with its version, `name:v3`."""
        return self._name if self._stored is None else self._stored.version.label

    @property
    def project(self) -> str:
        """Where its versions are counted."""
        return self._version.project

    @property
    def qualified_name(self) -> str:
        """The project, the name and the version: `project/name:v3`."""
        return f"{self.project}/{self.name}"

    @property
    def version(self) -> str:
        """The version, such as `v3`."""
        return f"v{self._version.number}"

    @property
    def digest(self) -> str:
        """The SHA-256, in hex, of the paths and the contents of its files."""
        return self._version.digest

    @property
    def created_at(self) -> str:
        """When the version was made, in UTC, as ISO 8601 has it."""
        return datetime.fromtimestamp(self._version.created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def size(self) -> int:
        """The size of all files, in bytes."""
        return self._version.size

    @property
    def file_count(self) -> int:
        """How many files it holds."""
        return self._version.file_count

    @property
    def state(self) -> str:
        """`PENDING` until it is stored, then `COMMITTED`, and `DELETED` after `delete`."""
        if self._stored is None:
            return "PENDING"
        return "DELETED" if self._stored.is_deleted else "COMMITTED"

    def is_draft(self) -> bool:
        """Say whether it is not stored yet."""
        return self._stored is None

    def is_being_stored(self) -> bool:
        """Say whether it was logged with `wait=False`, and is not stored yet."""
        return self._stored is None and self._storing is not None and not self._storing.done()

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until it is stored; return it.

        Args:
            timeout: seconds; by default, as long as it takes.

        Raises:
            UsageError: it was not logged.
            TimeoutError: it is not stored yet.
            Exception: what went wrong while it was being stored.
        """
        if self._stored is None and self._storing is not None:
            if self._process != os.getpid():
                msg = f"artifact {self._name!r} is being stored by the process that logged it: wait there"
                raise UsageError(msg)
            if not wait_for([self._storing], timeout).done:
                msg = f"artifact {self._name!r} is not stored after {timeout} s"
                raise TimeoutError(msg)
            self._storing.result()
        self._check_stored()
        return self

    # -- its files --------------------------------------------------------------------------------

    def files(self) -> list[ArtifactFile]:
        """Return its files, in the order of their paths.

        Raises:
            CorruptArtifactError: the list of them is damaged.
        """
        return list(self._files.values())

    def get_entry(self, name: str | os.PathLike[str]) -> ArtifactEntry:
        """Return one of its files.

        Raises:
            ArtifactNotFoundError: it has no such file.
        """
        path, files = Path(name).as_posix(), self._files
        if path not in files:
            msg = f"artifact {self.name} has no file {path!r}{did_you_mean(path, list(files))}"
            raise ArtifactNotFoundError(msg)
        return ArtifactEntry(files[path], self._put)

    def download(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        path_prefix: str | os.PathLike[str] | None = None,
        **others: Never,
    ) -> str:
        """Copy its files into a folder, and return that; what is there with the right content stays.

        Each content is checked while it is copied, and put in its place in one step.  References are fetched
        from where they are, and checked as well.  Other files in the folder are left alone.

        Args:
            root: the folder; by default `artifacts/name:v3` in the current one.
            path_prefix: only files whose paths begin with it.
            others: wandb's further arguments; what they ask for is refused.

        Raises:
            CorruptArtifactError: content is gone, or not what was stored; the message names the file.
            UsageError: a link in the folder leads out of it.
            OSError: the folder cannot be written.
        """
        refuse("Artifact.download", others)
        prefix = "" if path_prefix is None else Path(path_prefix).as_posix()
        return self._put([file for file in self.files() if file.path.startswith(prefix)], root)

    def path(self, name: str | os.PathLike[str] | None = None) -> Path:
        """Return where its folder, or one of its files, lies after a `download` of as much.

        Raises:
            ArtifactNotFoundError: it has no such file.
            CorruptArtifactError: as with `download`.
        """
        return Path(self.download() if name is None else self.get_entry(name).download())

    def file(self, root: str | os.PathLike[str] | None = None) -> str:
        """Download its only file; return where that lies.

        Raises:
            UsageError: it has not one file, but more or none.
        """
        files = self.files()
        if len(files) != 1:
            msg = f"artifact {self.name} has {len(files)} files: use download(), or path(name)"
            raise UsageError(msg)
        return ArtifactEntry(files[0], self._put).download(root)

    def verify(self, root: str | os.PathLike[str] | None = None) -> None:
        """Make sure that its content is what was stored.

        Args:
            root: a folder that is to hold its files, and no others; by default, it is the store that is
                looked at.

        Raises:
            CorruptArtifactError: it is not; the message names the files.
        """
        if root is None:
            check_stored(self.name, self.files(), self._catalog.blobs)
        else:
            check_folder(self.name, self.files(), Path(root))

    def diff(self, other: Artifact) -> ArtifactDiff:
        """Return what it takes to get from this one to another of the same store: files and metadata."""
        return compare(self._version, other.stored_version, self._catalog)

    # -- what it is called, and who made and used it ----------------------------------------------

    @property
    def aliases(self) -> list[str]:
        """The aliases; what is added or removed here counts after `save`."""
        if self._aliases is None:
            self._aliases_read = self._catalog.aliases_of(self._version)
            self._aliases = list(self._aliases_read)
        return self._aliases

    @aliases.setter
    def aliases(self, aliases: list[str]) -> None:
        self.aliases[:] = aliases

    def save(self) -> None:
        """Let the aliases that were added to `aliases` name it, and those that were removed no more.

        `latest` stays where it is when it is removed: it moves by itself.

        Raises:
            UsageError: an alias that W&B refuses; or description or metadata are others than those that were
                logged, and a version never changes.
        """
        version = self._version
        if self.description != version.description or self.metadata != version.metadata:
            msg = f"artifact {self.name} is stored, and its description and metadata stay: log a new version"
            raise UsageError(msg)
        if self._aliases is None or self._check_stored().catalog is None:
            return
        # what stayed in the list may name another version by now, and goes on to
        added = [check_alias(alias) for alias in self._aliases if alias not in self._aliases_read]
        removed = [alias for alias in self._aliases_read if alias not in {"latest", *self._aliases}]
        for alias in added:
            self._catalog.set_alias(version, alias)
        for alias in removed:
            self._catalog.remove_alias(version, alias)
        self._aliases = None

    def pin(self) -> None:
        """Keep it from being deleted."""
        self._catalog.pin(self._version)

    def unpin(self) -> None:
        """Let it be deleted again."""
        self._catalog.unpin(self._version)

    def delete(self, delete_aliases: bool = False) -> None:  # noqa: FBT001, FBT002 - W&B's signature
        """Delete the version, whose number is not used again; `tracklayer gc` removes what nothing needs.

        Args:
            delete_aliases: delete it together with its aliases.

        Raises:
            UsageError: it is pinned, or it has an alias other than `latest`.
        """
        self._catalog.delete(self._version, delete_aliases=delete_aliases)
        self._check_stored().is_deleted = True

    def logged_by(self) -> list[RunReader]:
        """Return the runs that logged it, first the one that made it; only those that are in the store."""
        return self._runs(self._catalog.makers(self._version))

    def used_by(self) -> list[RunReader]:
        """Return the runs that used it, in order; only those that are in the store."""
        return self._runs(self._catalog.users(self._version))

    def __repr__(self) -> str:
        """Name it."""
        return f"<tracklayer artifact {self.name} ({self.type})>"

    # -- from a draft to a version: what logs it calls these ---------------------------------------

    @property
    def draft(self) -> Draft:
        """What it was filled with.

        Raises:
            UsageError: it is stored, or is being stored, and does not change any more.
        """
        if self._stored is not None or (self._storing is not None and _is_well(self._storing)):
            msg = f"artifact {self.name!r} is logged, and does not change any more: make a new Artifact"
            raise UsageError(msg)
        return self._draft

    @property
    def stored_version(self) -> Version:
        """The version that it is.

        Raises:
            UsageError: it is not stored.
        """
        return self._version

    def storing(self, outcome: Future[None]) -> None:
        """Take note that it is being stored, and where that will be known."""
        self._storing, self._process = outcome, os.getpid()

    def stored_as(
        self,
        version: Version,
        catalog: Catalog | None,
        find_run: Callable[[str], RunReader | None],
        aliases: Sequence[str] | None = None,
    ) -> None:
        """Become a version; without a catalog one that nothing was kept of, as where nothing is recorded."""
        self.type, self.description = version.type, version.description
        self.metadata = deepcopy(dict(version.metadata))
        if catalog is None:
            aliases = ["latest"]
        self._aliases_read = tuple(aliases or ())
        self._aliases = None if aliases is None else list(aliases)
        self._stored = _Stored(version, catalog, find_run)
        self._draft.close()

    def _check_stored(self) -> _Stored:
        if self._stored is not None:
            return self._stored
        if self._storing is None:
            msg = f"artifact {self._name!r} is not stored yet: pass it to run.log_artifact"
        elif _is_well(self._storing):
            msg = f"artifact {self._name!r} is not stored yet: call wait()"
        else:
            error = self._storing.exception()
            msg = f"artifact {self._name!r} is not stored: {error}"
            if isinstance(error, StoreError):
                raise StoreError(msg) from error
        raise UsageError(msg)

    @property
    def _version(self) -> Version:
        return self._check_stored().version

    @property
    def _catalog(self) -> Catalog:
        catalog = self._check_stored().catalog
        if catalog is None:
            msg = f"artifact {self.name} was logged where nothing is recorded, and nothing was kept of it"
            raise UsageError(msg)
        return catalog

    @property
    def _files(self) -> dict[str, ArtifactFile]:
        stored, catalog = self._check_stored(), self._catalog
        if stored.files is None:
            stored.files = {file.path: file for file in catalog.files(stored.version)}
        return stored.files

    def _runs(self, run_ids: Sequence[str]) -> list[RunReader]:
        runs = map(self._check_stored().find_run, run_ids)
        return [run for run in runs if run is not None]

    def _put(self, files: Sequence[ArtifactFile], root: str | os.PathLike[str] | None) -> str:
        if root is None:
            root = Path("artifacts", self.name.replace(":", "-") if os.name == "nt" else self.name)
        put_files(self.name, files, self._catalog.blobs, Path(root))
        return os.fspath(root)


@final
@dataclass(slots=True)
class _Stored:
    version: Version
    catalog: Catalog | None
    find_run: Callable[[str], RunReader | None]
    files: dict[str, ArtifactFile] | None = None  # by path
    is_deleted: bool = False


def artifact_of(
    version: Version,
    catalog: Catalog,
    find_run: Callable[[str], RunReader | None],
    aliases: Sequence[str] | None = None,
) -> Artifact:
    """Return the artifact that a version is.

    Args:
        version: which one.
        catalog: where it is from.
        find_run: finds a recorded run by its id.
        aliases: what it is called, where that was read with other versions'; by default, read when asked for.
    """
    made = Artifact(version.name, version.type, version.description, version.metadata)
    made.stored_as(version, catalog, find_run, aliases)
    return made


def _is_well(storing: Future[None]) -> bool:
    return not storing.done() or storing.exception() is None
