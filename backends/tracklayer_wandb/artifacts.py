"""Artifacts as W&B has them, told apart by the digest that the client computes of their content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import wandb
from wandb.errors import CommError

if TYPE_CHECKING:
    from tracklayer.artifacts.records import LoggedArtifact


def as_wandb(artifact: LoggedArtifact) -> wandb.Artifact:
    """Return the W&B artifact with these files; they are not copied, since their content stays."""
    made = wandb.Artifact(
        artifact.name,
        type=artifact.type,
        description=artifact.description,
        metadata=dict(artifact.metadata),
    )
    for file in artifact.files:
        made.add_file(file.source, name=file.path, policy="immutable", skip_cache=True)
    return made


def missing_artifacts(
    api: wandb.Api, run: Any, artifacts: Sequence[LoggedArtifact]
) -> tuple[LoggedArtifact, ...]:
    """Return the artifacts that the server does not have, committed, with the same content.

    W&B makes no new version of content that is there, whoever logged it: so the project is asked,
    too.
    """
    if not artifacts:
        return ()
    own = {made.digest for made in run.logged_artifacts() if made.state == "COMMITTED"}
    place = f"{run.entity}/{run.project}"
    return tuple(
        artifact
        for artifact in artifacts
        if (digest := as_wandb(artifact).digest) not in own
        and digest not in _digests(api, f"{place}/{artifact.name}", artifact.type)
    )


def _digests(api: wandb.Api, name: str, kind: str) -> set[str]:
    try:
        return {made.digest for made in api.artifacts(kind, name) if made.state == "COMMITTED"}
    except (CommError, ValueError):
        return set()  # there is no such collection
