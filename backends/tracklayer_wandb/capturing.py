"""A run of the client without its process: what it would tell that process is taken here.

So a log holds media, tables, charts, rules, config and artifacts just as the client makes them.  This reaches
below its public interface (wandb 0.31).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import wandb
from wandb.sdk.interface.interface_queue import InterfaceQueue

if TYPE_CHECKING:
    from pathlib import Path

    from tracklayer.protocol import RunInfo


@final
class CapturedRun:
    """A `wandb.Run` whose records are taken one call after the other.

    Attributes:
        run: the run; its files go to the folder that was given.
    """

    def __init__(self, info: RunInfo, files: Path) -> None:
        settings = wandb.Settings(
            mode="offline",
            entity=info.entity,
            project=info.project,
            run_id=info.id,
            console="off",
            silent=True,
            x_files_dir=str(files),
        )
        self._records = _Records()
        self.run: Any = wandb.Run(settings)
        self.run._set_backend(self._records)  # noqa: SLF001 - where `wandb.init` puts its own

    def at_step(self, step: int) -> None:
        """Name the files of tables by this step, as those of other media."""
        self.run._local_step = step  # noqa: SLF001 - its own counts calls

    def set_hidden_config(self, path: tuple[str, ...], value: Any) -> None:
        """Set an entry of the config that W&B's pages do not show."""
        self.run._config_callback(key=("_wandb", *path), val=value)  # noqa: SLF001 - as it does for charts

    def taken(self) -> list[Any]:
        """Return the records since the last call, without those about how the client is used."""
        taken, self._records.taken = self._records.taken, []
        return [record for record in taken if not record.HasField("telemetry")]


@final
class _Records(InterfaceQueue):
    """What stands for the connection to the client's process."""

    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType] - of queues that are not there
        self.taken: list[Any] = []

    def _publish(self, record: Any, *, nowait: bool = False) -> None:  # noqa: ARG002 - nothing waits here
        self.taken.append(record)
