"""The Weights & Biases backend: the public wandb client, live, and what its server says it has.

Importing this package costs next to nothing; wandb is imported when it is used.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from tracklayer.errors import BackendUnavailableError
from tracklayer.protocol import Backend, Received, Resume, RunInfo

if TYPE_CHECKING:
    from tracklayer.settings import Settings
    from tracklayer_wandb.recording import WandbRun


def _check() -> None:
    if find_spec("wandb") is None:
        msg = "the package wandb is missing: pip install 'tracklayer[wandb]'"
        raise BackendUnavailableError(msg)
    from tracklayer_wandb.login import check_login  # noqa: PLC0415 - imports wandb

    check_login()


def _open(info: RunInfo, resume: Resume | None, settings: Settings) -> WandbRun:
    from tracklayer_wandb.recording import open_run  # noqa: PLC0415 - imports wandb

    return open_run(info, resume, settings)


def _received(info: RunInfo) -> Received | None:
    from tracklayer_wandb.reading_back import received  # noqa: PLC0415 - imports wandb

    return received(info)


backend = Backend(
    name="wandb",
    summary="Weights & Biases, live, with a local record beside it",
    open=_open,
    check=_check,
    hosted=True,
    received=_received,
)
