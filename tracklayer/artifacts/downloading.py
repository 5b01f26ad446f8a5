"""A version's files in a folder: copied out of the store, each checked; and compared with what lies there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from tracklayer.artifacts.blobs import Blobs
from tracklayer.artifacts.records import ArtifactFile
from tracklayer.artifacts.references import fetch, sha256_of_file
from tracklayer.errors import CorruptArtifactError, UsageError

_THREADS: Final = 8
_NAMED: Final = 10
"""How many files a message names."""


@final
@dataclass(frozen=True, slots=True)
class ArtifactEntry:
    """One file of a stored artifact, as `Artifact.get_entry` finds it.

    Attributes:
        file: its path, content and size.
    """

    file: ArtifactFile
    _put: Callable[[Sequence[ArtifactFile], str | os.PathLike[str] | None], str] = field(repr=False)

    @property
    def path(self) -> str:
        """Its path in the artifact."""
        return self.file.path

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.file.size

    @property
    def digest(self) -> str:
        """What tells its content apart: the SHA-256 in hex, or what stands for it."""
        return self.file.digest

    @property
    def ref(self) -> str | None:
        """The URI, if it is a reference."""
        return self.file.reference

    def download(self, root: str | os.PathLike[str] | None = None) -> str:
        """Copy it into a folder as `Artifact.download` does; return where it lies."""
        return str(Path(self._put([self.file], root), self.path))


def put_files(label: str, files: Sequence[ArtifactFile], blobs: Blobs, root: Path) -> None:
    """Copy files into a folder, and nothing outside it; those that are there with the right content stay.

    Raises:
        CorruptArtifactError: content is gone, or not what was stored; the message names the file.
        UsageError: a link in the folder leads out of it.
        OSError: the folder cannot be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    real = os.path.realpath(root)

    def put(file: ArtifactFile) -> None:
        target = root / file.path
        if not Path(os.path.realpath(target.parent)).is_relative_to(real):
            msg = f"{target.parent} is a link that leads out of {root}: remove it, or choose another folder"
            raise UsageError(msg)
        if is_there(file, target):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if file.reference is None:
                blobs.fetch(file.sha256, target)
            else:
                fetch(file, target)
        except CorruptArtifactError as error:
            msg = f"artifact {label}, file {file.path!r}: {error}"
            raise CorruptArtifactError(msg) from error

    with ThreadPoolExecutor(min(_THREADS, len(files)) or 1) as pool:
        for _ in pool.map(put, files):
            pass  # but raise what went wrong


def is_there(file: ArtifactFile, path: Path) -> bool:
    """Say whether a path is, and does not lead to, a file with the right content; not if none is known."""
    return bool(file.sha256) and not path.is_symlink() and _is(file, path)


def check_stored(label: str, files: Sequence[ArtifactFile], blobs: Blobs) -> None:
    """Make sure that the store has the content of files; that of references is not its own.

    Raises:
        CorruptArtifactError: it has not; the message names the files.
    """
    wrong: list[str] = []
    for file in files:
        if file.reference is None:
            try:
                blobs.check(file.sha256)
            except CorruptArtifactError as error:
                wrong.append(f"{file.path!r} ({error})")
    if wrong:
        msg = f"artifact {label} is damaged: {_some(wrong)}"
        raise CorruptArtifactError(msg)


def check_folder(label: str, files: Sequence[ArtifactFile], root: Path) -> None:
    """Make sure that a folder holds files, and no others.

    Raises:
        CorruptArtifactError: it does not; the message names the files.
        OSError: a file cannot be read.
    """
    known = {file.path: file for file in files}
    wrong = [
        f"{path!r} {'differs' if (root / path).exists() else 'is missing'}"
        for path, file in known.items()
        if not _is(file, root / path)
    ]
    for folder, _, names in os.walk(root):
        inner = (Path(folder, name).relative_to(root).as_posix() for name in names)
        wrong += [f"{path!r} is none of its files" for path in sorted(inner) if path not in known]
    if wrong:
        msg = f"{root} is not what artifact {label} holds: {_some(wrong)}"
        raise CorruptArtifactError(msg)


def _is(file: ArtifactFile, path: Path) -> bool:
    """Say whether a path holds the content of a file, as far as that is known without asking a server."""
    if not path.is_file():
        return False
    if not file.sha256:
        return file.size in {0, path.stat().st_size}
    return path.stat().st_size == file.size and sha256_of_file(path) == file.sha256


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return ", ".join(items[:_NAMED]) + more
