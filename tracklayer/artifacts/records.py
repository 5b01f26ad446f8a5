"""What an artifact is, once it is logged: plain data, which backends take and readers give."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final


@final
@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """One file of an artifact, or a reference to one elsewhere.

    Attributes:
        path: in the artifact, with `/`.
        sha256: of its content, in hex; empty for a reference whose content was not read.
        size: of its content in bytes; of a reference 0 where it is not known.
        source: where the content lies: an absolute path, or an fsspec URL; of a reference its URI.
        reference: the URI of a reference, whose content is not copied.
        checksum: of a reference: what its server says of the content, such as an ETag; of a file of this
            machine its MD5 in base 64, as W&B has it.
    """

    path: str
    sha256: str
    size: int
    source: str
    reference: str | None = None
    checksum: str | None = None

    @property
    def digest(self) -> str:
        """What tells its content apart: the SHA-256, else the checksum, else the URI."""
        return self.sha256 or self.checksum or self.reference or ""


@final
@dataclass(frozen=True, slots=True)
class LoggedArtifact:
    """An artifact as it was at the call that logged or used it.

    Attributes:
        name: letters, digits, `-`, `_` and `.`.
        type: such as `"model"`.
        files: in the order of their paths.
        description: free text.
        metadata: JSON data.
        time: of the call, in Unix seconds.
        project: where its versions are counted; empty where that is not known.
        version: its number there; None where it has none.
        aliases: given at the call, without `latest`.
    """

    name: str
    type: str
    files: tuple[ArtifactFile, ...]
    description: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    time: float = 0.0
    project: str = ""
    version: int | None = None
    aliases: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The digest of its files: see `files_digest`."""
        return files_digest(self.files)

    @property
    def label(self) -> str:
        """Its name, with its version if it has one: `name:v3`."""
        return self.name if self.version is None else f"{self.name}:v{self.version}"


def files_digest(files: Sequence[ArtifactFile]) -> str:
    """Return the SHA-256, in hex, of the lines `<path>:<digest>` of all files, sorted by path.

    W&B's digest of an artifact has this form, over MD5 sums.  Type, metadata and description do not count.
    """
    whole = hashlib.sha256(b"tracklayer-artifact-v1\n")
    for file in sorted(files, key=lambda file: file.path):
        whole.update(f"{file.path}:{file.digest}\n".encode())
    return whole.hexdigest()
