"""What training code calls about files: artifacts, models, code, and what it saves."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Never

from tracklayer import reporting
from tracklayer.artifacts.artifact import Artifact
from tracklayer.artifacts.recording import RunArtifacts
from tracklayer.errors import UsageError
from tracklayer.porting import refuse
from tracklayer.saving import matching_files

if TYPE_CHECKING:
    from pathlib import Path

    from tracklayer.artifacts.records import LoggedArtifact


class ArtifactFront(ABC):
    """The part of `ActiveRun` that is about files."""

    _artifacts: RunArtifacts

    @property
    @abstractmethod
    def project(self) -> str:
        """The run's project."""

    @abstractmethod
    def _check_open(self, method: str) -> bool:
        """Say whether calls are recorded; raise after `finish`."""

    def log_artifact(
        self,
        artifact_or_path: Artifact | LoggedArtifact | str | os.PathLike[str],
        name: str | None = None,
        type: str | None = None,  # noqa: A002 - W&B's name for it
        aliases: Iterable[str] | str | None = None,
        *,
        wait: bool = True,
        **others: Never,
    ) -> Artifact:
        """Record a set of files as a version of the project; content that a version has makes no new one.

        When this returns, the content is the store's, and the version is `latest`.  A run that records
        nothing stores nothing, and counts whatever it logs as `v0`.

        Args:
            artifact_or_path: an `Artifact`; or a file, a folder or a URI, which then takes `name` (by default
                `run-<id>-<file name>`) and `type` (by default `"unspecified"`).
            name: see `artifact_or_path`.
            type: see `artifact_or_path`.
            aliases: further names, which from now on name this version and no other.
            wait: False stores on a thread of its own: the files must stay as they are until the artifact's
                `wait()`, or `finish`, has returned.
            others: wandb's further arguments; what they ask for is refused.

        Returns:
            The artifact, which is that version now.

        Raises:
            FileChangedError: a file changed again and again while it was being stored.
            OSError: a file cannot be read.  What the store's disk cannot take is reported.
            UsageError: a name or alias that is not allowed, or the name is that of another type.
        """
        self._check_open("log_artifact")
        refuse("log_artifact", others)
        if isinstance(artifact_or_path, (str, os.PathLike)):
            artifact_or_path = self._artifacts.made_of(artifact_or_path, name, type or "unspecified")
        elif name is not None or type is not None:
            msg = "an artifact has its own name and type; give them with a path only"
            raise UsageError(msg)
        return self._artifacts.log(artifact_or_path, aliases, wait=wait)

    def log_written(
        self,
        artifact: Artifact,
        aliases: Iterable[str] | str | None,
        write: Callable[[Path], Callable[[], None]],
    ) -> None:
        """Record an artifact with files that are still being written, as `log_artifact(…, wait=False)` does.

        Args:
            artifact: a draft, to which they are added.
            aliases: as in `log_artifact`.
            write: is called with a path where nothing is yet, begins to write a folder there, and returns
                what waits until it is whole.  It is not called where nothing is recorded.
        """
        self._check_open("log_written")
        self._artifacts.log_written(artifact, aliases, write)

    def use_artifact(
        self,
        artifact_or_name: Artifact | LoggedArtifact | str,
        type: str | None = None,  # noqa: A002 - W&B's name for it
        aliases: Iterable[str] | str | None = None,
        **others: Never,
    ) -> Artifact:
        """Return a version of an artifact, and take note that the run uses it; `download` has its files.

        Args:
            artifact_or_name: `"name:v3"`, `"name:latest"` or `"name:best"`, of another project with
                `"project/"` before it; or an `Artifact`, which is logged first if it was not.
            type: what it has to be.
            aliases: further names, which from now on name this version and no other.
            others: wandb's further arguments; what they ask for is refused.

        Returns:
            The artifact, which is that version.

        Raises:
            ArtifactNotFoundError: there is no such version; the message lists those there are.
            UsageError: it is of another type, or an alias is not allowed.
        """
        self._check_open("use_artifact")
        refuse("use_artifact", others)
        return self._artifacts.use(artifact_or_name, type, aliases)

    def log_model(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        aliases: Iterable[str] | str | None = None,
    ) -> Artifact:
        """Record a file, a folder or a URI as `log_artifact` does, as an artifact of type `"model"`."""
        return self.log_artifact(path, name, "model", aliases)

    def use_model(self, name: str) -> str:
        """Use a model as `use_artifact` does, and download it; return its folder, or its only file.

        Raises:
            ArtifactNotFoundError: there is no such version; the message lists those there are.
            CorruptArtifactError: its content is gone, or not what was stored.
            UsageError: the word "model" is not part of the artifact's type.
        """
        return self._artifacts.model(self.use_artifact(name))

    def log_code(
        self,
        root: str | os.PathLike[str] | None = ".",
        name: str | None = None,
        include_fn: Callable[[str, str], bool] | Callable[[str], bool] | None = None,
        exclude_fn: Callable[[str, str], bool] | Callable[[str], bool] | None = None,
    ) -> Artifact | None:
        """Record the code below a folder as an artifact of type `"code"`; equal code makes no new version.

        Dotfiles, installed packages, and files whose names tell of secrets are left out; what looks like a
        secret in the others becomes `***`.

        Args:
            root: the folder; None for the program and its local imports alone.
            name: the artifact's; by default `source-<project>-<program>`.
            include_fn: says of a path, or of a path and the root, whether the file is taken; by default those
                of Python's, `requirements*` and `Dockerfile*`.
            exclude_fn: likewise, whether it is left out after all; by default what W&B's client wrote.

        Returns:
            The artifact; None where there is no code.
        """
        if not self._check_open("log_code"):
            return None
        from tracklayer.environment.sources import code_below, imported_code, is_code, is_of_wandb

        if root is None:
            artifact = imported_code(self.project, name)
        else:
            artifact = code_below(root, self.project, name, include_fn or is_code, exclude_fn or is_of_wandb)
        return None if artifact is None else self.log_artifact(artifact)

    def save(
        self,
        glob_str: str | os.PathLike[str],
        base_path: str | os.PathLike[str] | None = None,
        policy: str = "live",
        glob: bool = True,  # noqa: FBT001, FBT002 - W&B's signature
    ) -> list[str]:
        """Keep the files that a pattern matches now, in the run's artifact `run-<id>-files`.

        Args:
            glob_str: a path or a pattern, as `glob` has it; a folder stands for the files in it.
            base_path: the folder from which the files' names count; by default the current one, and of an
                absolute path the one above the folder that it names.
            policy: `"now"` keeps what the files hold at the call, `"end"` what they hold at `finish`, and
                `"live"` both, where that has changed.
            glob: False takes `glob_str` as it is written.

        Returns:
            The files' names in the artifact.

        Raises:
            OSError: a file cannot be read.  What the store's disk cannot take is reported.
            UsageError: a policy that is none, or files that do not lie below `base_path`.
        """
        if not self._check_open("save"):
            return []
        files = matching_files(glob_str, base_path, is_glob=glob)
        if not files:
            reporting.warn(f"save: nothing matches {os.fspath(glob_str)!r}")
        self._artifacts.save(files, policy)
        return list(files)
