"""What an artifact is filled with before it is logged: files of this machine, and references."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, final

from tracklayer.artifacts.records import ArtifactFile
from tracklayer.artifacts.references import refer
from tracklayer.artifacts.walking import files_below
from tracklayer.errors import UsageError
from tracklayer.naming import is_inner_path


@final
class Draft:
    """The files of an artifact that is being filled.

    Attributes:
        files: by their paths in the artifact.  They are read when the artifact is logged.
        references: likewise.
    """

    def __init__(self, name: str) -> None:
        self.files: dict[str, Path] = {}
        self.references: dict[str, ArtifactFile] = {}
        self._name = name
        self._made: Path | None = None
        """A folder with what `new_file` made."""
        self._open: list[str] = []
        """What `new_file` has not made yet."""

    def add_file(self, local_path: str | os.PathLike[str], name: str | None, *, overwrite: bool) -> None:
        """Add one file: see `Artifact.add_file`."""
        source = Path(local_path).absolute()
        if not source.is_file():
            msg = f"artifact {self._name!r}: there is no file {os.fspath(local_path)}"
            raise FileNotFoundError(msg)
        self._put(self._inner(name or source.name), source, overwrite=overwrite)

    def add_dir(self, local_path: str | os.PathLike[str], name: str | None, *, overwrite: bool) -> None:
        """Add a folder's files: see `Artifact.add_dir`."""
        folder = Path(local_path).absolute()
        if not folder.is_dir():
            msg = f"artifact {self._name!r}: there is no folder {os.fspath(local_path)}"
            raise NotADirectoryError(msg)
        for source in files_below(folder):
            inner = source.relative_to(folder).as_posix()
            self._put(self._inner(f"{name}/{inner}" if name else inner), source, overwrite=overwrite)

    def add_reference(
        self, uri: str, name: str | None, *, checksum: bool, max_objects: int | None
    ) -> list[ArtifactFile]:
        """Add what a URI stands for: see `Artifact.add_reference`."""
        name = None if name is None else self._inner(name)
        references = refer(uri, name, checksum=checksum, max_objects=max_objects)
        added = {path: replace(one, path=path) for one in references for path in [self._inner(one.path)]}
        for path, reference in added.items():
            if path in self.files or self.references.get(path, reference) != reference:
                raise self._taken(path)
        self.references |= added
        return list(added.values())

    @contextmanager
    def new_file(self, name: str, mode: str, encoding: str | None) -> Generator[IO[Any]]:
        """Open a file that is added when it is closed: see `Artifact.new_file`."""
        path = self._inner(name)
        if mode.strip("bt+") not in {"x", "w"}:
            msg = f"new_file: mode {mode!r} does not write a new file; use 'x' or 'w', 'xb' or 'wb'"
            raise UsageError(msg)
        overwrite = "w" in mode
        if not overwrite and (path in self.files or path in self.references):
            raise self._taken(path)
        self._open.append(path)
        try:
            with tempfile.NamedTemporaryFile(
                mode.replace("x", "w"),
                encoding=encoding or (None if "b" in mode else "utf-8"),
                dir=self._folder(),
                suffix=PurePosixPath(path).suffix,
                delete=False,
            ) as file:
                yield file
        finally:
            self._open.remove(path)
        self._put(path, Path(file.name), overwrite=overwrite)

    def remove(self, path: str) -> None:
        """Take out a file, or a folder: see `Artifact.remove`."""
        path = PurePosixPath(path).as_posix()
        found = [p for p in (*self.files, *self.references) if p == path or p.startswith(f"{path}/")]
        if not found:
            msg = f"artifact {self._name!r} has no file or folder {path!r}"
            raise FileNotFoundError(msg)
        for one in found:
            self.files.pop(one, None)
            self.references.pop(one, None)

    def check(self) -> None:
        """Make sure that the paths can stand in one folder, and that the files are there.

        Raises:
            UsageError: a path is both that of a file and that of a folder, or a `new_file` is still open.
            FileNotFoundError: a file is gone.
        """
        if self._open:
            msg = f"artifact {self._name!r}: new_file({self._open[0]!r}) is still open; log it after that"
            raise UsageError(msg)
        paths = self.files.keys() | self.references.keys()
        for path in paths:
            for folder in map(str, PurePosixPath(path).parents):
                if folder in paths:
                    msg = f"artifact {self._name!r} has a file {folder!r}, which is a folder to {path!r}"
                    raise UsageError(msg)
        for path, source in self.files.items():
            if not source.is_file():
                msg = (
                    f"artifact {self._name!r}: {source}, added as {path!r}, is gone; a file has to stay "
                    "until log_artifact returns"
                )
                raise FileNotFoundError(msg)

    def close(self) -> None:
        """Remove what `new_file` made."""
        if self._made is not None:
            _remove(self._made, os.getpid())

    def _put(self, path: str, source: Path, *, overwrite: bool) -> None:
        taken = path in self.references or self.files.get(path, source) != source
        if taken and not overwrite:
            raise self._taken(path)
        self.references.pop(path, None)
        self.files[path] = source

    def _inner(self, name: str) -> str:
        path = PurePosixPath(name.replace("\\", "/")).as_posix()
        if not is_inner_path(path):
            msg = f"artifact {self._name!r}: {name!r} is no path inside it"
            raise UsageError(msg)
        return path

    def _taken(self, path: str) -> UsageError:
        return UsageError(
            f"artifact {self._name!r} has a file {path!r} already; give another name, or overwrite=True"
        )

    def _folder(self) -> Path:
        if self._made is None:
            self._made = Path(tempfile.mkdtemp(prefix="tracklayer-"))
            weakref.finalize(self, _remove, self._made, os.getpid())
        return self._made


def _remove(folder: Path, owner: int) -> None:
    """Remove a folder, unless this is a forked child of the process that made it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
