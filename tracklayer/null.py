"""The null run: takes everything and keeps nothing (the backend `disabled`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from tracklayer.protocol import Backend, Resume, RunInfo, Status

if TYPE_CHECKING:
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.settings import Settings
    from tracklayer.values import Value


@final
class NullRun:
    """A run that goes nowhere."""

    def __init__(self, info: RunInfo) -> None:
        self.info = info

    def log(self, values: Mapping[str, Value], *, step: int, time: float) -> None:
        """Keep nothing."""

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        """Keep nothing."""

    def log_artifact(self, artifact: LoggedArtifact) -> None:
        """Keep nothing."""

    def use_artifact(self, artifact: LoggedArtifact) -> None:
        """Keep nothing."""

    def commit(self) -> None:
        """Keep nothing."""

    def finish(self, status: Status) -> None:
        """Keep nothing."""


def _open(info: RunInfo, resume: Resume | None, settings: Settings) -> NullRun:  # noqa: ARG001 - the signature of every backend
    return NullRun(info)


backend = Backend(name="disabled", summary="records nothing", open=_open)
