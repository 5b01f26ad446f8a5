"""`run.save`: files that belong to a run, found by a pattern and kept as one artifact."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from glob import escape, glob
from pathlib import Path
from time import time as now
from typing import TYPE_CHECKING, Final, final

from tracklayer import reporting
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.errors import StoreError, UsageError

if TYPE_CHECKING:
    from tracklayer.artifacts.blobs import BlobFolder

_POLICIES: Final = ("live", "now", "end")
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_.\-]+")


def matching_files(
    pattern: str | os.PathLike[str],
    base_path: str | os.PathLike[str] | None = None,
    *,
    is_glob: bool = True,
) -> dict[str, Path]:
    """Return the files that a pattern matches now, by their paths below the base path.

    A folder stands for the files in it.  The base path is by default the current folder; of an absolute
    pattern, the folder above the one that it names, as W&B has it.

    Raises:
        UsageError: what is matched does not lie below the base path.
    """
    absolute = Path(os.path.abspath(pattern))  # noqa: PTH100 - without following links
    if base_path is not None:
        base = Path(os.path.abspath(base_path))  # noqa: PTH100 - likewise
    else:
        base = absolute.parent.parent if Path(pattern).is_absolute() else Path.cwd()
    if not absolute.is_relative_to(base):
        msg = f"save: {pattern} does not lie below {base}; give a base_path that it lies below"
        raise UsageError(msg)
    found = map(Path, sorted(glob(str(absolute) if is_glob else escape(str(absolute)))))  # noqa: PTH207 - of an absolute pattern
    files = [file for path in found for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return {file.relative_to(base).as_posix(): file for file in files if file.is_file()}


@final
class SavedFiles:
    """The files that a run saved so far, which are one artifact."""

    def __init__(self, run_id: str, blobs: BlobFolder) -> None:
        self._name = f"run-{_NO_NAME.sub('-', run_id)[:100]}-files"
        self._blobs = blobs
        self._kept: dict[str, ArtifactFile] = {}
        self._at_end: dict[str, Path] = {}
        self._states: dict[str, tuple[Path, int, int]] = {}
        """Of what is kept: its file, and that file's size and time of change."""

    def keep(self, files: Mapping[str, Path], policy: str) -> LoggedArtifact | None:
        """Take files in; return the artifact if it has changed.

        Args:
            files: by their paths in the artifact.
            policy: `"now"` keeps what they hold; `"end"` what they hold at the end; `"live"` both.

        Raises:
            UsageError: there is no such policy.
            StoreError: the store cannot take them.
            OSError: a file cannot be read.
        """
        if policy not in _POLICIES:
            msg = f"save: policy {policy!r} is none of {', '.join(_POLICIES)}"
            raise UsageError(msg)
        changed = False
        for path, file in files.items():
            self._at_end.pop(path, None)
            if policy != "now":
                self._at_end[path] = file
            if policy != "end":
                changed = self._take(path, file) or changed
        return self._artifact() if changed else None

    def keep_at_end(self) -> LoggedArtifact | None:
        """Take in what was to be taken in at the end; return the artifact if it has changed.

        Raises:
            StoreError: the store cannot take them.
        """
        changed = False
        for path, file in self._at_end.items():
            try:
                changed = self._take(path, file) or changed
            except OSError as error:
                if isinstance(error, StoreError):
                    raise
                kept = "what it held is kept" if path in self._kept else "it is not recorded"
                reporting.warn(f"save: {file} cannot be read any more ({error.strerror}): {kept}")
        self._at_end.clear()
        return self._artifact() if changed else None

    def _take(self, path: str, file: Path) -> bool:
        """Keep what a file holds; say whether that is new."""
        found = file.stat()
        state = (file, found.st_size, found.st_mtime_ns)
        before = self._kept.get(path)
        if self._states.get(path) != state:  # else it is as it was, and may be large
            sha256, size = self._blobs.add(file)
            self._kept[path] = ArtifactFile(path, sha256, size, str(self._blobs.path(sha256)))
            self._states[path] = state
        return self._kept[path] != before

    def _artifact(self) -> LoggedArtifact:
        return LoggedArtifact(self._name, "files", tuple(self._kept.values()), time=now())
