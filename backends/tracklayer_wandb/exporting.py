"""A recorded run as a folder that `wandb sync` takes on a machine without tracklayer."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tracklayer.errors import UsageError
from tracklayer_wandb.log_run import LogRun
from tracklayer_wandb.login import quiet_client

if TYPE_CHECKING:
    from pathlib import Path

    from tracklayer.protocol import RunInfo
    from tracklayer.reading import RunReader


def export(reader: RunReader, info: RunInfo, folder: Path) -> tuple[LogRun, str]:
    """Return what writes a run to a folder of its own, as the client calls it, and how that is sent.

    The client looks for the contents of artifacts below its working folder: the command goes there.

    Args:
        reader: the recorded run.
        info: what it is to be on the server.
        folder: where its folder is to be.

    Raises:
        UsageError: nothing says whose the run is to be; `wandb sync` would lose its artifacts without a word.
        OSError: the folder cannot be written.
    """
    if not info.entity:
        msg = "nothing says whose the run is to be on W&B: give --to ENTITY/PROJECT"
        raise UsageError(msg)
    quiet_client()
    started = datetime.fromtimestamp(info.created_at, UTC)
    own = folder / f"offline-run-{started:%Y%m%d_%H%M%S}-{info.id}"
    log = LogRun(reader, info, None, own, portable=True)
    return log, f"cd {shlex.quote(str(own))} && wandb sync ."
