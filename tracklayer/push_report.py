"""What a push is told and tells: where a run goes, how far it is, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, final

from tracklayer.settings import wandb_default

if TYPE_CHECKING:
    from tracklayer.delivery import Delivery
    from tracklayer.protocol import RunInfo

Outcome = Literal["sent", "unchanged", "would send", "unconfirmed", "busy", "failed"]
OK_OUTCOMES: Final[frozenset[Outcome]] = frozenset({"sent", "unchanged", "would send"})
LOCK_SECONDS: Final = 60.0
"""How long to wait for another push of the same run."""
PUSH_SECONDS: Final = 3600.0
"""How long a push of one run may take: the rows may be many, and nobody's training waits."""


@final
@dataclass(frozen=True, slots=True)
class PushReport:
    """What became of one run's push.

    Attributes:
        run_id: the run.
        outcome: in a word or two.
        rows: how many were sent, or would be.
        total: the rows in the run.
        message: for people.
        url: where people see the run.
        late: of the rows sent, those that came after rows of higher steps were sent.
        repeated: rows of which the server keeps the first values, though they were logged again.
        waiting: rows that wait for the run to go on, or to end.
        bytes: of the files that were sent, or would be.
    """

    run_id: str
    outcome: Outcome
    rows: int
    total: int
    message: str
    url: str | None = None
    late: int = 0
    repeated: int = 0
    waiting: int = 0
    bytes: int = 0


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Where on the server a run goes, where that is not where it says by itself."""

    entity: str | None = None
    project: str | None = None
    run_id: str | None = None

    def of(self, info: RunInfo) -> RunInfo:
        """Return what a run is there."""
        return replace(
            info,
            entity=self.entity or info.entity or wandb_default("entity"),
            project=self.project or info.project,
            id=self.run_id or info.id,
        )


@final
class Progress:
    """How far a push is; another thread may look at it."""

    def __init__(self) -> None:
        self.rows = 0
        """Handed over so far."""
        self.bytes = 0
        """Of the files of these."""
        self.share = 0.0
        """Of all rows to send."""
        self.delivery: Delivery | None = None

    @property
    def sent(self) -> int:
        """The rows that the server is known to have received."""
        return 0 if self.delivery is None else self.delivery.sent_lines

    @property
    def total(self) -> int | None:
        """About how many rows there are to send; None where that is not known yet."""
        return round(self.rows / self.share) if self.share else None
