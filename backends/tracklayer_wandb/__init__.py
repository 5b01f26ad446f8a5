"""The Weights & Biases backend: the public wandb client, live and for pushes, and what its server has.

Importing this package costs next to nothing; wandb is imported when it is used.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from tracklayer import reporting
from tracklayer.errors import BackendUnavailableError
from tracklayer.protocol import Backend, Resume, RunInfo, SweepService

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracklayer.delivery import Delivery, Question, Received, ReceivedRow
    from tracklayer.reading import RunReader
    from tracklayer.settings import Settings
    from tracklayer_wandb.recording import WandbRun

OLDEST: Final = (0, 31)
"""The oldest client that can be used; pyproject.toml says the same."""
NEWEST: Final = (0, 31)
"""The newest client that this was tried with."""


def _check() -> None:
    _check_client()
    from tracklayer_wandb.login import check_login  # imports wandb

    check_login()


def _check_client() -> None:
    """Look whether the client is installed, and is one that can be used; needs no import of it."""
    found = find_spec("wandb")
    if found is None or found.origin is None:  # a folder of runs named wandb is no package
        msg = "the package wandb is missing: pip install 'tracklayer[wandb]'"
        raise BackendUnavailableError(msg)
    try:
        installed = version("wandb")
    except PackageNotFoundError:  # a copy that was never installed; it is taken as it is
        return
    number = tuple(int(part) for part in re.findall(r"\d+", installed)[:2])
    if number < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        msg = f"wandb {installed} is too old: pip install -U 'wandb>={wanted}'"
        raise BackendUnavailableError(msg)
    if number > NEWEST:
        _warn_of_newer(installed)


@cache
def _warn_of_newer(installed: str) -> None:
    known = ".".join(map(str, NEWEST))
    reporting.warn(
        f"wandb {installed} is newer than any that tracklayer was tried with ({known}); if something goes"
        f" wrong with it: pip install 'wandb=={known}.*'"
    )


def _open(info: RunInfo, resume: Resume | None, settings: Settings) -> WandbRun:
    from tracklayer_wandb.recording import open_run  # imports wandb

    return open_run(info, resume, settings)


def _received(info: RunInfo, question: Question) -> Received | None:
    from tracklayer_wandb.reading_back import received  # imports wandb

    return received(info, question)


def _received_rows(info: RunInfo) -> Iterator[ReceivedRow]:
    from tracklayer_wandb.reading_back import received_rows  # imports wandb

    return received_rows(info)


def _deliver(reader: RunReader, info: RunInfo, found: Received | None, settings: Settings) -> Delivery:
    from tracklayer_wandb.delivering import deliver  # imports wandb

    return deliver(reader, info, found, settings)


def _export(reader: RunReader, info: RunInfo, folder: Path) -> tuple[Delivery, str]:
    _check_client()
    from tracklayer_wandb.exporting import export  # imports wandb

    return export(reader, info, folder)


def _server() -> str:
    from tracklayer_wandb.login import api_url  # imports wandb

    return api_url()


def _sweeps() -> SweepService:
    _check()
    from tracklayer_wandb import sweeps  # imports wandb

    return sweeps


backend = Backend(
    name="wandb",
    summary="Weights & Biases, live, with a local record beside it",
    open=_open,
    check=_check,
    hosted=True,
    in_order=True,
    received=_received,
    received_rows=_received_rows,
    deliver=_deliver,
    export=_export,
    server=_server,
    sweeps=_sweeps,
)
