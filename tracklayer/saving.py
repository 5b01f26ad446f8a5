"""`run.save`: files that belong to a run, found by a pattern and kept as one artifact."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from glob import escape, glob
from pathlib import Path
from time import time as now
from typing import TYPE_CHECKING, Final, NamedTuple, final

from tracklayer import reporting
from tracklayer.artifacts.claims import claimed
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.artifacts.storing import stored
from tracklayer.errors import UsageError

if TYPE_CHECKING:
    from tracklayer.artifacts.catalog import Catalog

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
    """The files that a run saved so far, which are one artifact; each change makes a version of it."""

    def __init__(self, run_id: str, catalog: Catalog) -> None:
        self._name = f"run-{_NO_NAME.sub('-', run_id)[:100]}-files"
        self._catalog = catalog
        self._kept: dict[str, ArtifactFile] = {}
        self._at_end: dict[str, Path] = {}
        self._states: dict[str, _State] = {}
        """Of what is kept: the files, as they were then."""

    @contextmanager
    def kept(self, files: Mapping[str, Path], policy: str) -> Generator[LoggedArtifact | None]:
        """Take files in; give the artifact to publish, or None if it has not changed.

        Args:
            files: by their paths in the artifact.
            policy: `"now"` keeps what they hold; `"end"` what they hold at the end; `"live"` both.

        Raises:
            UsageError: there is no such policy.
            FileChangedError: a file changed again and again.
            StoreError: the store cannot take them.
            OSError: a file cannot be read.
        """
        if policy not in _POLICIES:
            msg = f"save: policy {policy!r} is none of {', '.join(_POLICIES)}"
            raise UsageError(msg)
        for path, file in files.items():
            self._at_end.pop(path, None)
            if policy != "now":
                self._at_end[path] = file
        with self._taken({} if policy == "end" else files) as artifact:
            yield artifact

    @contextmanager
    def kept_at_end(self) -> Generator[LoggedArtifact | None]:
        """Take in what was to be taken in at the end; give the artifact as `kept` does.

        A file that cannot be read any more is left as it was, with a warning.

        Raises:
            FileChangedError: a file changed again and again.
            StoreError: the store cannot take them.
            OSError: a file cannot be read.
        """
        readable = {path: file for path, file in self._at_end.items() if self._is_readable(path, file)}
        with self._taken(readable) as artifact:
            yield artifact
        self._at_end.clear()

    @contextmanager
    def _taken(self, files: Mapping[str, Path]) -> Generator[LoggedArtifact | None]:
        states = {path: _State.of(file) for path, file in files.items()}
        new = {path: file for path, file in files.items() if self._states.get(path) != states[path]}
        if not new:  # they are as they were, and may be large
            yield None
            return
        location, known = self._catalog.location, self._kept
        with claimed(location, [file.sha256 for file in known.values()]):
            gone = (path for path, file in known.items() if not self._catalog.blobs.has(file.sha256))
            sources = {path: self._states[path].file for path in gone} | new
            with stored(sources, location, known=known, progress="storing the run's files") as contents:
                kept = known | {file.path: file for file in contents}
                yield self._artifact(kept) if kept != known else None
        self._kept, self._states = kept, self._states | states

    def _is_readable(self, path: str, file: Path) -> bool:
        try:
            file.open("rb").close()
        except OSError as error:
            kept = "what it held is kept" if path in self._kept else "it is not recorded"
            reporting.warn(f"save: {file} cannot be read any more ({error.strerror}): {kept}")
            return False
        return True

    def _artifact(self, kept: Mapping[str, ArtifactFile]) -> LoggedArtifact:
        return LoggedArtifact(self._name, "files", tuple(kept[path] for path in sorted(kept)), time=now())


class _State(NamedTuple):
    """What tells without reading it that a file is as it was."""

    file: Path
    size: int
    changed_at: int

    @classmethod
    def of(cls, file: Path) -> _State:
        found = file.stat()
        return cls(file, found.st_size, found.st_mtime_ns)
