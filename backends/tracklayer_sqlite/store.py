"""A folder of runs, one file each."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from tracklayer.artifacts.artifact import artifact_of
from tracklayer.artifacts.catalog import Catalog
from tracklayer.artifacts.locations import locate
from tracklayer.errors import RunNotFoundError, StoreError
from tracklayer.folders import move_new
from tracklayer.protocol import RunInfo
from tracklayer.reading import RunReader, UnreadableRun, pick_run
from tracklayer.settings import artifacts_url
from tracklayer_sqlite.opening import connected
from tracklayer_sqlite.reader import SQLiteRunReader
from tracklayer_sqlite.starting import run_path

if TYPE_CHECKING:
    from tracklayer.artifacts.artifact import Artifact


@final
class SQLiteStore:
    """A store: its runs lie in `runs/`; its artifacts beside them, or where `TRACKLAYER_ARTIFACTS` says.

    Raises:
        StoreError: the path is no folder.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_dir():
            msg = f"the store {path} is a file; a store is a folder"
            raise StoreError(msg)
        self.path = path

    def runs(
        self,
        *,
        project: str | None = None,
        group: str | None = None,
        state: str | None = None,
    ) -> list[RunReader]:
        """Return the readable runs, oldest first."""
        found: list[tuple[float, str, RunReader]] = []
        for outcome in self._open_all():
            if isinstance(outcome, UnreadableRun):
                continue
            reader, info = outcome
            if (
                project in {None, info.project}
                and group in {None, info.group}
                and state in {None, info.state}
            ):
                found.append((info.created_at, info.id, reader))
        return [reader for _, _, reader in sorted(found, key=lambda item: item[:2])]

    def run(self, ref: str) -> RunReader:
        """Return the run with this id, unique id prefix, or name.

        Raises:
            RunNotFoundError: there is none.
            AmbiguousRunError: there are several; the message lists them.
            StoreError: its file cannot be read.
        """
        exact = run_path(self.path, ref)
        if exact.exists():
            return SQLiteRunReader(exact, self.path)
        return pick_run(self.runs(), ref, self.path)

    def find(self, run_id: str) -> RunReader | None:
        """Return the run with exactly this id, if it is there."""
        path = run_path(self.path, run_id)
        return SQLiteRunReader(path, self.path) if path.exists() else None

    def artifact(self, ref: str, project: str | None = None) -> Artifact:
        """Return a version of an artifact: `"name"`, `"name:latest"`, `"name:v3"` or `"name:best"`.

        Args:
            ref: may begin with the project, as in `"project/name:best"`.
            project: needed only where several projects have an artifact of that name.

        Raises:
            ArtifactNotFoundError: there is none; the message lists those there are.
            AmbiguousArtifactError: several projects have one.
            StoreError: the place where artifacts lie cannot be read.
        """
        catalog = self._catalog()
        return artifact_of(catalog.find(ref, project), catalog, self.find)

    def artifacts(
        self,
        project: str | None = None,
        name: str | None = None,
        type: str | None = None,  # noqa: A002 - W&B's name for it
    ) -> list[Artifact]:
        """Return every version of every artifact, by project, name and number."""
        catalog = self._catalog()
        found: list[Artifact] = []
        for collection in catalog.collections(project):
            if name in {None, collection.name} and type in {None, collection.type}:
                aliases = catalog.aliases(collection.project, collection.name)  # once, since they move
                for version in catalog.versions(collection.project, collection.name):
                    names = [alias for alias, number in aliases.items() if number == version.number]
                    found.append(artifact_of(version, catalog, self.find, names))
        return found

    def _catalog(self) -> Catalog:
        return Catalog(locate(artifacts_url(), self.path))

    def unreadable(self) -> list[UnreadableRun]:
        """Return the runs that cannot be read."""
        return [outcome for outcome in self._open_all() if isinstance(outcome, UnreadableRun)]

    def export(self, run_id: str, out: Path) -> None:
        """Write a run's file, whole, also while the run is live or after a crash.

        Raises:
            RunNotFoundError: there is no such run.
            FileExistsError: `out` is there already.
        """
        path = run_path(self.path, run_id)
        if not path.exists():
            msg = f"no run {run_id!r} in {self.path}"
            raise RunNotFoundError(msg)
        if out.exists():
            msg = f"{out} is there already"
            raise FileExistsError(msg)
        handle, name = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.parent)
        os.close(handle)
        try:
            _copy_database(path, name)
            shutil.copymode(path, name)
            move_new(Path(name), out)
        finally:
            Path(name).unlink(missing_ok=True)

    def _open_all(self) -> Iterator[tuple[RunReader, RunInfo] | UnreadableRun]:
        for path in self._files():
            try:
                reader = SQLiteRunReader(path, self.path)
                yield reader, reader.info
            except RunNotFoundError:
                continue  # it went away since the folder was listed
            except StoreError as error:
                yield UnreadableRun(path.stem, path, error)

    def _files(self) -> list[Path]:
        folder = self.path / "runs"
        try:  # a glob finds nothing, without a word, where it has no permission
            return sorted(folder / name for name in os.listdir(folder) if name.endswith(".sqlite"))  # noqa: PTH208 - names do
        except FileNotFoundError:
            return []
        except OSError as error:
            msg = f"cannot read the store {self.path}: {error.strerror}"
            raise StoreError(msg) from error


def _copy_database(path: Path, target: str) -> None:
    import sqlite3

    with connected(path) as connection:
        source: Any = connection.connection.dbapi_connection
        copy = sqlite3.connect(target)
        try:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close()
