"""`Artifact`: a named set of files, before and after it is logged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Never, final

from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.errors import UsageError
from tracklayer.porting import refuse, tells_what_is_absent

if TYPE_CHECKING:
    from tracklayer.artifacts.blobs import BlobFolder

_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,128}")  # W&B's rule for artifact names
_TYPE: Final = re.compile(r"[^/:]{1,128}")


@final
@tells_what_is_absent("Artifact")
class Artifact:
    """A named set of files, to be filled and then logged with `run.log_artifact`.

    Args:
        name: letters, digits, `-`, `_` and `.`, at most 128 of them.
        type: what it is, such as `"model"` or `"dataset"`.
        description: free text.
        metadata: JSON-like data.
        others: wandb's further arguments; what they ask for is refused.

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
        if not _NAME.fullmatch(name):
            msg = f"artifact name {name!r}: use up to 128 letters, digits, '-', '_' and '.'"
            raise UsageError(msg)
        if not _TYPE.fullmatch(type):
            msg = f"artifact type {type!r}: use 1 to 128 characters, without '/' and ':'"
            raise UsageError(msg)
        self.name = name
        self.type = type
        self.description = description
        self.metadata: dict[str, Any] = dict(metadata or {})
        self._files: dict[str, Path] = {}

    def add_file(self, local_path: str | Path, name: str | None = None) -> None:
        """Add one file, under its own name or `name`; its content is read when it is logged.

        Raises:
            FileNotFoundError: there is no such file.
            UsageError: the path in the artifact leaves it, or is taken.
        """
        source = Path(local_path).absolute()
        if not source.is_file():
            msg = f"artifact {self.name!r}: there is no file {local_path}"
            raise FileNotFoundError(msg)
        path = _inner_path(name or source.name, self.name)
        if self._files.get(path, source) != source:
            msg = f"artifact {self.name!r} has a file {path!r} already"
            raise UsageError(msg)
        self._files[path] = source

    def add_dir(self, local_path: str | Path, name: str | None = None) -> None:
        """Add every file below a folder; symbolic links are followed to files inside it only.

        Raises:
            NotADirectoryError: there is no such folder.
            UsageError: a link leads out of the folder.
        """
        root = Path(local_path).absolute()
        if not root.is_dir():
            msg = f"artifact {self.name!r}: there is no folder {local_path}"
            raise NotADirectoryError(msg)
        for source in sorted(root.rglob("*")):
            if source.is_file():
                if not source.resolve().is_relative_to(root.resolve()):
                    msg = f"artifact {self.name!r}: {source} leads out of {local_path}"
                    raise UsageError(msg)
                inner = source.relative_to(root).as_posix()
                self.add_file(source, f"{name}/{inner}" if name else inner)

    def store(self, blobs: BlobFolder, time: float) -> LoggedArtifact:
        """Copy the files' content into a store; what comes back does not change any more."""
        files: list[ArtifactFile] = []
        for path, source in sorted(self._files.items()):
            sha256, size = blobs.add(source)
            files.append(ArtifactFile(path, sha256, size, str(blobs.path(sha256))))
        return LoggedArtifact(self.name, self.type, tuple(files), self.description, dict(self.metadata), time)


def _inner_path(name: str, artifact: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]:
        msg = f"artifact {artifact!r}: {name!r} is no path inside it"
        raise UsageError(msg)
    return path.as_posix()
