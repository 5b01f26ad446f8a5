"""Push: the replay of a recorded run into a hosted backend, with a ledger of what its server confirmed.

Success is what the server says it has, read back afterwards; never an exit code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, final

from tracklayer.errors import TracklayerError

if TYPE_CHECKING:
    from tracklayer.protocol import Backend
    from tracklayer.reading import RunReader

Outcome = Literal["sent", "unchanged", "would send", "unconfirmed", "failed"]
OK_OUTCOMES: Final[frozenset[Outcome]] = frozenset({"sent", "unchanged", "would send"})


@final
@dataclass(frozen=True, slots=True)
class PushReport:
    """What became of one run's push: `rows` were sent (or would be), of `total` that the run has."""

    run_id: str
    outcome: Outcome
    rows: int
    total: int
    message: str
    url: str | None = None


def push(
    reader: RunReader,
    backend: Backend,
    store: Path,
    *,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
) -> PushReport:
    """Send what the server does not have yet, and read back that it has it.  Never raises our errors."""
    raise NotImplementedError
