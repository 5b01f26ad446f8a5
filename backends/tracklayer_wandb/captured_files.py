"""Artifacts as the captured run makes them, so that a push which is repeated makes the same ones again."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from wandb.sdk.artifacts.staging import get_staging_dir

from tracklayer.errors import UnsupportedValueError

if TYPE_CHECKING:
    from tracklayer.protocol import RunInfo


@final
class CapturedArtifacts:
    """Settles the records of artifacts: their ids, and where their contents lie.

    Args:
        info: the run.
        folder: that of the log.
        portable: copy contents there, and refer to them by paths relative to it.
    """

    def __init__(self, info: RunInfo, folder: Path, *, portable: bool) -> None:
        self._run = f"{info.id}\n{info.created_at!r}"
        self._folder = folder
        self._portable = portable

    def settle(self, record: Any, key: str, step: int | None) -> dict[str, str]:
        """Change an `ArtifactRecord` in place; return the ids that were replaced, and by what.

        The client's ids are random.  By them a row refers to the artifact of a table.
        """
        seed = f"{self._run}\n{key}\n{step}\n{record.type}\n{record.name}\n{record.digest}"
        ids = {record.client_id: _stable(seed), record.sequence_client_id: _stable(f"{seed}\nsequence")}
        record.client_id, record.sequence_client_id = ids.values()
        if self._portable and record.manifest.manifest_file_path:
            msg = f"the artifact {record.name!r}: it has too many files to be written beside a log"
            raise UnsupportedValueError(msg)
        for entry in record.manifest.contents:
            if entry.local_path:
                entry.local_path = self._settled(Path(entry.local_path), entry.digest)
        return ids

    def _settled(self, path: Path, digest: str) -> str:
        """Return where a content is to be found."""
        is_copy = path.is_relative_to(
            get_staging_dir()
        )  # of the client's, which would stay when this is killed
        if not (is_copy or self._portable):
            return str(path)
        place = self._folder / "artifacts" / base64.b64decode(digest).hex()
        place.parent.mkdir(exist_ok=True)
        if is_copy:
            shutil.move(path, place)
        elif not place.exists():
            shutil.copyfile(path, place)
        return os.path.relpath(place, self._folder) if self._portable else str(place)


def _stable(seed: str) -> str:
    """Return an id of the form of the client's: 128 digits and small letters."""
    return hashlib.sha512(seed.encode()).hexdigest()
