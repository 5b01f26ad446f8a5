"""The Weights & Biases backend: the public wandb client, live, and what its server says it has.

Importing this package costs next to nothing; wandb is imported when it is used.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from tracklayer.errors import BackendUnavailableError
from tracklayer.protocol import Backend, Received, Resume, RunInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.settings import Settings
    from tracklayer_wandb.recording import WandbRun


def _check() -> None:
    found = find_spec("wandb")
    if found is None or found.origin is None:  # a folder of runs named wandb is no package
        msg = "the package wandb is missing: pip install 'tracklayer[wandb]'"
        raise BackendUnavailableError(msg)
    from tracklayer_wandb.login import check_login  # imports wandb

    check_login()


def _open(info: RunInfo, resume: Resume | None, settings: Settings) -> WandbRun:
    from tracklayer_wandb.recording import open_run  # imports wandb

    return open_run(info, resume, settings)


def _received(
    info: RunInfo, made: Sequence[LoggedArtifact], used: Sequence[LoggedArtifact]
) -> Received | None:
    from tracklayer_wandb.reading_back import received  # imports wandb

    return received(info, made, used)


def _server() -> str:
    from tracklayer_wandb.login import api_url  # imports wandb

    return api_url()


backend = Backend(
    name="wandb",
    summary="Weights & Biases, live, with a local record beside it",
    open=_open,
    check=_check,
    hosted=True,
    in_order=True,
    received=_received,
    server=_server,
)
