"""The catalog of a location: which versions an artifact has, what they are called, and who used them.

Whoever creates a version's file first has its number, so that any number of processes, on any number of
hosts, count together without a lock.  An alias is a file that is replaced in one step.  `latest` is the
highest version that lives and needs no file but in one case: where older content was logged again, its file
names that version, until a version above those of that moment is made.  What lies where is told in `entries`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, final

from tracklayer.artifacts.blobs import Blobs
from tracklayer.artifacts.claims import claimed
from tracklayer.artifacts.entries import (
    Entries,
    Numbers,
    Relation,
    alias_file,
    artifact_folder,
    folder_of,
    pin_file,
    run_file,
    tombstone,
    version_file,
)
from tracklayer.artifacts.locations import Location
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.artifacts.versions import (
    Alias,
    Version,
    damaged,
    files_data,
    read_files,
    read_version,
    small_data,
    version_data,
)
from tracklayer.errors import (
    AmbiguousArtifactError,
    ArtifactNotFoundError,
    CorruptArtifactError,
    UsageError,
)
from tracklayer.naming import (
    check_alias,
    check_artifact_name,
    check_artifact_type,
    check_project,
    did_you_mean,
    version_number,
)

__all__ = ["Catalog", "Collection", "Version"]

_LATEST: Final = "latest"
_SHOWN: Final = 5  # of the versions, aliases or names that a message lists


@final
@dataclass(frozen=True, slots=True)
class Collection:
    """An artifact of a project, of which at least one version lives.

    Attributes:
        project: where the name is this artifact's.
        name: of the artifact.
        type: such as `"model"`.
        latest: the version that `latest` names.
        count: how many versions live.
    """

    project: str
    name: str
    type: str
    latest: Version
    count: int


@final
class Catalog:
    """The versions of all artifacts in a location; any number of processes may use it at once.

    Files of it that are damaged, or of a newer tracklayer, are left out of what is listed, with a warning;
    asking for such a version raises.  Every method raises `StoreError` where the location cannot be read or
    written.

    Attributes:
        location: where all of it lies.
        blobs: the contents.
    """

    def __init__(self, location: Location) -> None:
        self.location: Final = location
        self.blobs: Final = Blobs(location)
        self._entries = Entries(location)

    def publish(self, artifact: LoggedArtifact, run_id: str | None) -> Version:
        """Make a version of an artifact whose contents are in the location and claimed.

        Files that a version has already, each copied or referred to as here, make no new one: that version
        becomes `latest` again, and its description and metadata stay.  The artifact's aliases name the
        version from now on.

        Raises:
            UsageError: a project, name, type or alias that W&B refuses; the name is that of an artifact of
                another type; metadata that is no JSON data.
        """
        for alias in artifact.aliases:
            check_alias(alias)
        listing = files_data(artifact.files)
        draft = Version(
            project=check_project(artifact.project),
            name=check_artifact_name(artifact.name),
            type=check_artifact_type(artifact.type, artifact.name),
            number=0,
            digest=artifact.digest,
            created_at=artifact.time,
            description=artifact.description,
            metadata=artifact.metadata,
            run_id=run_id,
            size=sum(file.size for file in artifact.files),
            file_count=len(artifact.files),
            manifest=hashlib.sha256(listing).hexdigest(),
        )
        with claimed(self.location, [draft.manifest]):
            self.blobs.add_bytes(listing)
            while True:
                version = self._published(draft)
                if run_id is not None and run_id != version.run_id:
                    self._note("makes", version, run_id)
                for alias in artifact.aliases:
                    if alias != _LATEST:
                        self._point(version, alias)
                if self._lives(version):  # else it was deleted meanwhile, and its aliases name nothing
                    return version

    def find(self, ref: str, project: str | None = None) -> Version:
        """Return the version that a reference names.

        Args:
            ref: `name`, which means `name:latest`, `name:v3` or `name:alias`; before it there may stand a
                project, `project/name:v3`, and before that an entity, which W&B writes and which means
                nothing here.
            project: where to look if the reference names none; None stands for the one project that has an
                artifact of that name.

        Raises:
            UsageError: no reference has this form.
            ArtifactNotFoundError: there is none; the message lists what there is.
            AmbiguousArtifactError: several projects have an artifact of that name.
            CorruptArtifactError: its file is damaged.
            StoreTooNewError: a newer tracklayer wrote its file.
        """
        path, colon, wanted = ref.partition(":")
        *places, name = path.split("/")
        if not name or len(places) > 2 or not all(places) or (colon and not wanted):
            msg = f"{ref!r} names no artifact: write 'name', 'name:v3', 'name:alias' or 'project/name:alias'"
            raise UsageError(msg)
        project = places[-1] if places else project
        wanted = wanted or _LATEST
        if project is not None:
            folders = [artifact_folder(project, name)]
        else:
            folders = self._entries.folders_named(name)
        if len(folders) > 1:
            projects = _some([each.project for each in self.collections() if each.name == name])
            msg = f"the projects {projects} have an artifact {name!r}: say which, as in 'project/{name}'"
            raise AmbiguousArtifactError(msg)
        for folder in folders:
            if (version := self._wanted(folder, wanted)) is not None:
                return version
        raise self._not_found(folders, project, name, wanted)

    def get(self, project: str, name: str, number: int) -> Version:
        """Return a version by its number.

        Raises:
            ArtifactNotFoundError: there is none; the message lists what there is.
            CorruptArtifactError: its file is damaged.
            StoreTooNewError: a newer tracklayer wrote its file.
        """
        folder = artifact_folder(project, name)
        version = self._living(folder, number)
        if version is None:
            raise self._not_found([folder], project, name, f"v{number}")
        return version

    def collections(self, project: str | None = None) -> list[Collection]:
        """Return the artifacts of one project or of all, by project and name."""
        found: list[Collection] = []
        for folder in self._entries.folders(project):
            named = None
            with self._entries.leaving_out():
                named = self._entries.alias(folder, _LATEST)
            numbers = self._entries.numbers(folder)
            latest = self._latest(folder, numbers, named)
            if latest is not None:
                count = len(numbers.living)
                found.append(Collection(latest.project, latest.name, latest.type, latest, count))
        return sorted(found, key=lambda collection: (collection.project, collection.name))

    def versions(self, project: str, name: str) -> list[Version]:
        """Return the versions of an artifact that live, oldest first; none if there is no such artifact."""
        folder = artifact_folder(project, name)
        living = self._entries.numbers(folder).living
        self._entries.read_ahead(folder, living)
        return list(self._entries.versions(folder, living))

    def all(self) -> Iterator[Version]:
        """Yield every version that lives.  None is left out.

        Raises:
            CorruptArtifactError: a version's file is damaged.
            StoreTooNewError: a newer tracklayer wrote a version's file.
        """
        for folder in self._entries.folders(None):
            living = self._entries.numbers(folder).living
            self._entries.read_ahead(folder, living)
            for number in living:
                version = self._entries.version(folder, number)
                if version is None:
                    raise damaged(self.location.place(version_file(folder, number)), "it is empty")
                yield version

    def files(self, version: Version) -> tuple[ArtifactFile, ...]:
        """Return a version's files, in the order of their paths.

        Raises:
            CorruptArtifactError: the list of them is damaged or gone.
        """
        return read_files(self.blobs.read(version.manifest), version, self.blobs.place)

    def logged(self, version: Version) -> LoggedArtifact:
        """Return a version as backends take it, with its files and its aliases but `latest`.

        Raises:
            CorruptArtifactError: the list of its files is damaged or gone.
        """
        return LoggedArtifact(
            name=version.name,
            type=version.type,
            files=self.files(version),
            description=version.description,
            metadata=version.metadata,
            time=version.created_at,
            project=version.project,
            version=version.number,
            aliases=tuple(alias for alias in self.aliases_of(version) if alias != _LATEST),
        )

    def aliases(self, project: str, name: str) -> dict[str, int]:
        """Return which version each alias names, by number, `latest` first; empty if no version lives."""
        return self._aliases(artifact_folder(project, name))

    def aliases_of(self, version: Version) -> tuple[str, ...]:
        """Return the aliases that name a version, `latest` first."""
        found = self.aliases(version.project, version.name)
        return tuple(alias for alias, number in found.items() if number == version.number)

    def was_deleted(self, project: str, name: str, number: int) -> bool:
        """Say whether there was a version of this number, and is no more."""
        living, following = self._entries.numbers(artifact_folder(project, name))
        return number < following and number not in living

    def set_alias(self, version: Version, alias: str) -> None:
        """Let an alias name this version, and no other any more.

        Raises:
            UsageError: an alias that W&B refuses.
            ArtifactNotFoundError: the version was deleted.
        """
        check_alias(alias)
        self._check_lives(version)
        if alias == _LATEST:
            self._make_latest(version)
        else:
            self._point(version, alias)

    def remove_alias(self, version: Version, alias: str) -> None:
        """Let an alias that names this version name none; one that names another stays.

        Raises:
            UsageError: `latest`, which some version always is.
        """
        if alias == _LATEST:
            msg = f"{version.label}: 'latest' cannot be removed; it moves when another version is logged"
            raise UsageError(msg)
        found = self._entries.alias(folder_of(version), alias)
        if found is not None and found.version == version.number:
            self.location.delete(alias_file(folder_of(version), alias))

    def pin(self, version: Version) -> None:
        """Keep a version from being deleted.

        Raises:
            ArtifactNotFoundError: it was deleted.
        """
        # First the pin, then the look for a tombstone; `delete` does both the other way round.  So of two at
        # once, one sees the other at least, and never do both succeed.  The pin stays even where the version
        # is gone: others may have pinned it meanwhile, and rely on it.
        self.location.create(pin_file(version), b"pinned\n")
        self._check_lives(version)

    def unpin(self, version: Version) -> None:
        """Let a version be deleted again."""
        self.location.delete(pin_file(version))

    def is_pinned(self, version: Version) -> bool:
        """Say whether a version is kept from being deleted."""
        return self.location.has(pin_file(version))

    def pinned(self, project: str, name: str) -> frozenset[int]:
        """Return the numbers of an artifact's versions that are kept from being deleted."""
        return self._entries.pins(artifact_folder(project, name))

    def check_deletable(self, version: Version, *, delete_aliases: bool = False) -> None:
        """Make sure that `delete` may delete a version.

        Raises:
            UsageError: it is pinned, or has aliases other than `latest`, which may not go with it.
        """
        self._check_unpinned(version)
        aliases = [repr(alias) for alias in self.aliases_of(version) if alias != _LATEST]
        if aliases and not delete_aliases:
            msg = f"{version.label} goes by {_some(aliases)}: move that first, or delete it with its aliases"
            msg += " (`--with-aliases`, `delete_aliases=True`)"
            raise UsageError(msg)

    def delete(self, version: Version, *, delete_aliases: bool = False) -> None:
        """Delete a version; what nothing else needs of its contents goes with the next collection.

        Args:
            version: which one; one that was deleted already stays so.
            delete_aliases: whether it may have aliases, which name nothing then.

        Raises:
            UsageError: it is pinned, or has aliases other than `latest`.
        """
        self.check_deletable(version, delete_aliases=delete_aliases)
        contents = [version.manifest]
        with suppress(CorruptArtifactError):  # what cannot be read may be deleted
            contents += [file.sha256 for file in self.files(version) if file.reference is None]
        with claimed(self.location, contents):  # no collection takes them while it may still be taken back
            if self.location.create(tombstone(version), small_data(deleted_at=time.time())):
                try:
                    self._check_unpinned(version)  # again: see `pin`
                except UsageError:
                    self.location.delete(tombstone(version))
                    raise

    def note_use(self, version: Version, run_id: str) -> None:
        """Note that a run used a version; the first time is the one that counts."""
        self._note("uses", version, run_id)

    def users(self, version: Version) -> list[str]:
        """Return the ids of the runs that used a version, in the order in which they first did."""
        return [run_id for _, run_id in sorted(self._entries.runs("uses", version))]

    def makers(self, version: Version) -> list[str]:
        """Return the ids of the runs that logged what a version has, first the one that made it."""
        others = [run_id for _, run_id in sorted(self._entries.runs("makes", version))]
        return others if version.run_id is None else [version.run_id, *others]

    def _published(self, draft: Version) -> Version:
        """Return the version that has the draft's files, made if there is none; it is `latest` then."""
        folder = folder_of(draft)
        living, number = self._entries.numbers(folder)
        self._entries.read_ahead(folder, living)
        others = self._entries.versions(folder, living)
        while True:
            for other in others:
                if other.type != draft.type:
                    msg = f"artifact {draft.name!r} of project {draft.project!r} is of type {other.type!r}; "
                    msg += f"take another name for one of type {draft.type!r}"
                    raise UsageError(msg)
                if other.manifest == draft.manifest:  # a copy has the digest of a reference to the same
                    self._make_latest(other)
                    return other
            file = version_file(folder, number)
            data = version_data(replace(draft, number=number))
            made = read_version(data, self.location.place(file))  # what could not be read is not written
            if self.location.create(file, data):
                return made
            others = self._entries.versions(folder, [number])  # somebody was faster: is it the same content?
            number += 1

    def _note(self, relation: Relation, version: Version, run_id: str) -> None:
        data = small_data(run=run_id, time=time.time())
        self.location.create(run_file(relation, version, run_id), data)

    def _make_latest(self, version: Version) -> None:
        folder = folder_of(version)
        newest = self._entries.numbers(folder).following - 1
        if version.number != newest or self.location.has(alias_file(folder, _LATEST)):
            self._point(version, _LATEST, after=newest)

    def _point(self, version: Version, alias: str, **more: int) -> None:
        data = small_data(alias=alias, version=version.number, **more)
        self.location.replace(alias_file(folder_of(version), alias), data)

    def _wanted(self, folder: str, wanted: str) -> Version | None:
        """Return the version that a number or an alias names; None if there is none that lives."""
        number = version_number(wanted)
        if number is not None:
            return self._living(folder, number)
        named = self._entries.alias(folder, wanted)
        if wanted != _LATEST:
            return None if named is None else self._living(folder, named.version)
        numbers = self._entries.numbers(folder)  # after the alias, whose version it must show
        for number in _latest_first(numbers, named):
            if (version := self._living(folder, number)) is not None:  # else it was deleted just now
                return version
        return None

    def _latest(self, folder: str, numbers: Numbers, named: Alias | None) -> Version | None:
        """Return the version that is `latest` of those that can be read, given what the alias says."""
        return next(self._entries.versions(folder, _latest_first(numbers, named)), None)

    def _living(self, folder: str, number: int) -> Version | None:
        version = self._entries.version(folder, number)
        return version if version is not None and self._lives(version) else None

    def _lives(self, version: Version) -> bool:
        return not self.location.has(tombstone(version))

    def _check_unpinned(self, version: Version) -> None:
        if self.is_pinned(version):
            msg = f"{version.label} is pinned: unpin it first"
            raise UsageError(msg)

    def _check_lives(self, version: Version) -> None:
        if not self._lives(version):
            msg = f"{version.label} of project {version.project!r} was deleted"
            raise ArtifactNotFoundError(msg)

    def _aliases(self, folder: str) -> dict[str, int]:
        named = {alias.alias: alias for alias in self._entries.aliases(folder)}
        numbers = self._entries.numbers(folder)
        latest, living = self._latest(folder, numbers, named.pop(_LATEST, None)), set(numbers.living)
        if latest is None:
            return {}
        others = {alias: found.version for alias, found in sorted(named.items()) if found.version in living}
        return {_LATEST: latest.number, **others}

    def _not_found(
        self, folders: Sequence[str], project: str | None, name: str, wanted: str
    ) -> ArtifactNotFoundError:
        """Return the error about what is not there, which lists what is."""
        for folder in folders:
            if living := self._entries.numbers(folder).living:
                versions = _some([f"v{number}" for number in reversed(living)])
                aliases = list(self._aliases(folder))
                msg = f"artifact {name!r} has no version or alias {wanted!r}{did_you_mean(wanted, aliases)}"
                return ArtifactNotFoundError(f"{msg}; there are {versions}, and {_some(aliases)}")
        everything = self.collections()
        known = sorted({each.name for each in everything if project in {None, each.project}})
        elsewhere = [each.project for each in everything if each.name == name]
        msg = f"there is no artifact {name!r}{'' if project is None else f' in project {project!r}'}"
        if elsewhere:
            msg += f", but in {_some(elsewhere)}: write 'project/{name}'"
        else:
            msg += did_you_mean(name, known) or (f"; there are {_some(known)}" if known else "")
        return ArtifactNotFoundError(msg)


def _latest_first(numbers: Numbers, named: Alias | None) -> list[int]:
    """Return the versions that live: the one that is `latest`, given what the alias says, then the newest."""
    newest_first = numbers.living[::-1]
    if named is None or named.version not in numbers.living or named.after + 1 < numbers.following:
        return newest_first
    return [named.version, *newest_first]  # its content was logged again


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
