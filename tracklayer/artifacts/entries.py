"""Where a catalog's files lie in a location, and how they are read.

    artifacts/<project>/<name>/versions/v3.json         what the version is; never changed
    artifacts/<project>/<name>/versions/v3.deleted      the version is no more; its number is not used again
    artifacts/<project>/<name>/aliases/<alias>.json     which version goes by the alias; replaced in one step
    artifacts/<project>/<name>/pins/v3                  the version must not be deleted
    artifacts/<project>/<name>/uses/v3/<run id>.json    that the run used the version
    artifacts/<project>/<name>/makes/v3/<run id>.json   that the run, too, logged what the version has

Project, name, alias and run id are spelled by `naming.file_name`; what they truly are stands in the files,
whose content `versions` tells.  One listing of `versions/` says which versions live; and since their files
never change, each is read once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final, Literal, NamedTuple, TypeAlias, final

from tracklayer.artifacts.locations import Location
from tracklayer.artifacts.versions import Alias, Version, damaged, read_alias, read_noted, read_version
from tracklayer.errors import CorruptArtifactError, StoreTooNewError
from tracklayer.naming import file_name, version_number
from tracklayer.reporting import warn

Relation: TypeAlias = Literal["makes", "uses"]
_THREADS: Final = 16


@final
class Numbers(NamedTuple):
    """Which versions of an artifact live, ascending, and which number the next one gets."""

    living: list[int]
    following: int


def artifact_folder(project: str, name: str) -> str:
    """Return the folder of an artifact."""
    return f"artifacts/{file_name(project)}/{file_name(name)}"


def folder_of(version: Version) -> str:
    """Return the folder of a version's artifact."""
    return artifact_folder(version.project, version.name)


def version_file(folder: str, number: int) -> str:
    """Return the file of a version."""
    return f"{folder}/versions/v{number}.json"


def tombstone(version: Version) -> str:
    """Return the file that says that a version was deleted."""
    return f"{folder_of(version)}/versions/v{version.number}.deleted"


def alias_file(folder: str, alias: str) -> str:
    """Return the file of an alias."""
    return f"{folder}/aliases/{file_name(alias)}.json"


def pin_file(version: Version) -> str:
    """Return the file that keeps a version from being deleted."""
    return f"{folder_of(version)}/pins/v{version.number}"


def run_file(relation: Relation, version: Version, run_id: str) -> str:
    """Return the file that says that a run used a version, or logged its content once more."""
    return f"{_runs(relation, version)}/{file_name(run_id)}.json"


@final
class Entries:
    """Reads what a catalog consists of.

    What lists several leaves out files that are damaged or of a newer tracklayer, and warns of each once;
    what reads one raises `CorruptArtifactError` or `StoreTooNewError`.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._read: dict[str, Version] = {}  # by file
        self._reported: set[str] = set()

    def folders(self, project: str | None) -> Iterator[str]:
        """Yield the folders of the artifacts of a project, or of all."""
        projects = self._location.names("artifacts") if project is None else [file_name(project)]
        for folder in projects:
            for name in self._location.names(f"artifacts/{folder}"):
                yield f"artifacts/{folder}/{name}"

    def folders_named(self, name: str) -> list[str]:
        """Return the folders of the artifacts of a name of which a version lives, one a project."""
        projects = self._location.names("artifacts")
        folders = [f"artifacts/{project}/{file_name(name)}" for project in projects]
        return [folder for folder in folders if self.numbers(folder).living]

    def numbers(self, folder: str) -> Numbers:
        """Return which versions of an artifact there are."""
        made: set[int] = set()
        deleted: set[int] = set()
        for file in self._location.names(f"{folder}/versions"):
            stem, _, ending = file.partition(".")
            number = version_number(stem)
            if number is not None:
                (deleted if ending == "deleted" else made).add(number)
        return Numbers(sorted(made - deleted), max(made, default=-1) + 1)

    def version(self, folder: str, number: int) -> Version | None:
        """Return what a version's file says, also of a deleted version; None if there is no such file."""
        file = version_file(folder, number)
        version = self._read.get(file)
        if version is None:
            data = self._location.read(file)
            if data is None:
                return None
            version = read_version(data, self._location.place(file))
            if version_file(folder_of(version), version.number) != file:
                raise damaged(self._location.place(file), f"it is {version.label} of {version.project!r}")
            self._read[file] = version
        return version

    def versions(self, folder: str, numbers: Iterable[int]) -> Iterator[Version]:
        """Yield those of the versions that can be read."""
        for number in numbers:
            with self.leaving_out():
                if (version := self.version(folder, number)) is not None:
                    yield version

    def read_ahead(self, folder: str, numbers: Iterable[int]) -> None:
        """Read versions' files that were not read yet, many at once: each may be a network's round trip."""

        def read(number: int) -> None:
            with suppress(CorruptArtifactError, StoreTooNewError):  # whoever wants this one meets it again
                self.version(folder, number)

        unread = [number for number in numbers if version_file(folder, number) not in self._read]
        if len(unread) > 1:
            with ThreadPoolExecutor(min(_THREADS, len(unread))) as pool:
                try:
                    reading = pool.map(read, unread)
                except RuntimeError:  # no thread starts while the interpreter ends: each is read when wanted
                    return
                deque(reading, maxlen=0)

    def alias(self, folder: str, alias: str) -> Alias | None:
        """Return what an alias's file says; None if there is none."""
        return self._alias(folder, alias_file(folder, alias))

    def aliases(self, folder: str) -> Iterator[Alias]:
        """Yield what those of an artifact's alias files say that can be read."""
        for name in self._location.names(f"{folder}/aliases"):
            with self.leaving_out():
                if (alias := self._alias(folder, f"{folder}/aliases/{name}")) is not None:
                    yield alias

    def pins(self, folder: str) -> frozenset[int]:
        """Return the numbers of an artifact's versions that have pins."""
        numbers = map(version_number, self._location.names(f"{folder}/pins"))
        return frozenset(number for number in numbers if number is not None)

    def runs(self, relation: Relation, version: Version) -> Iterator[tuple[float, str]]:
        """Yield when a version was first used, or made once more, in Unix seconds, and by which run."""
        folder = _runs(relation, version)
        for name in self._location.names(folder):
            with self.leaving_out():
                if (data := self._location.read(f"{folder}/{name}")) is not None:
                    yield read_noted(data, self._location.place(f"{folder}/{name}"))

    @contextmanager
    def leaving_out(self) -> Generator[None]:
        """Leave out what is damaged or too new, with a warning, once for each file."""
        try:
            yield
        except (CorruptArtifactError, StoreTooNewError) as error:
            if str(error) not in self._reported:
                self._reported.add(str(error))
                warn(f"left out: {error}")

    def _alias(self, folder: str, file: str) -> Alias | None:
        data = self._location.read(file)
        if data is None:
            return None
        alias = read_alias(data, self._location.place(file))
        if alias_file(folder, alias.alias) != file:
            raise damaged(self._location.place(file), f"it is the alias {alias.alias!r}")
        return alias


def _runs(relation: Relation, version: Version) -> str:
    return f"{folder_of(version)}/{relation}/v{version.number}"
