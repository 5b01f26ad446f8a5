"""What a server lacks of what was sent to it, by its own account: success is nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, final

from tracklayer.artifacts.describing import named

if TYPE_CHECKING:
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.delivery import Delivered, Received
    from tracklayer.protocol import State

_ILL: frozenset[State] = frozenset({"failed", "crashed"})


@final
@dataclass(frozen=True, slots=True)
class Expected:
    """What a server must have of a run.

    Attributes:
        state: the run's.
        config, summary: the run's.
        made, used: its artifacts.
        lines: the rows of the history before something was sent; None where nothing was.
        delivered: what was sent; None where nothing was.
    """

    state: State
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    made: Sequence[LoggedArtifact] = ()
    used: Sequence[LoggedArtifact] = ()
    lines: int | None = None
    delivered: Delivered | None = None

    def lacking(self, found: Received | None) -> list[str]:
        """Say what the server lacks, or has otherwise; nothing if it has all."""
        if found is None:
            return ["the run"]
        parts = [*self._rows(found), *self._surroundings(found)]
        for what, artifacts in (
            ("artifacts", found.missing_artifacts),
            ("the use of", found.missing_uses),
        ):
            if artifacts:
                parts.append(f"{what} {named(artifacts)}")
        if not same_end(self.state, found.state):
            parts.append(f"the state {self.state!r} (it shows {found.state!r})")
        return parts + self.changed(found)

    def changed(self, found: Received) -> list[str]:
        """Say which of config and summary the server has otherwise."""
        shown = {"config": (found.config, self.config), "summary": (found.summary, self.summary)}
        return [
            f"the {name}'s entry {key!r}"
            for name, (theirs, ours) in shown.items()
            if theirs is not None
            for key in _differing(theirs, ours)
        ]

    def _rows(self, found: Received) -> list[str]:
        delivered = self.delivered
        if delivered is None or self.lines is None:
            return []
        more = self.lines + delivered.lines - found.line_count
        if more:
            return [
                f"{more} rows" if more > 0 else f"an explanation: it has {-more} rows more than were sent"
            ]
        if delivered.last_step != found.last_step:
            return [f"the last step {delivered.last_step} (it shows {found.last_step})"]
        return []

    def _surroundings(self, found: Received) -> list[str]:
        delivered = self.delivered
        if delivered is None:
            return []
        lacking = {
            "console lines": delivered.console_lines - found.console_lines,
            "rows of system metrics": delivered.system_rows - found.system_rows,
        }
        parts = [f"{count} {what}" for what, count in lacking.items() if count > 0]
        for what, names in (("files", found.missing_files), ("parts of rows", found.missing_parts)):
            if names:
                more = ", …" if len(names) > 3 else ""
                parts.append(f"{len(names)} {what}: {', '.join(names[:3])}{more}")
        return parts


def same_end(ours: State, theirs: State) -> bool:
    """Say whether a run ended there as it did here; a server may show a failed run as crashed."""
    return ours == theirs or _ILL.issuperset((ours, theirs))


def _differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values a server has otherwise; those that begin with `_` are the client's own."""
    return [
        key
        for key, value in ours.items()
        if not key.startswith("_") and not (key in theirs and _holds(theirs[key], value))
    ]


def _holds(theirs: Any, ours: Any) -> bool:
    """Say whether JSON data contains other such data, which it may spell as W&B does."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        entries = cast("Mapping[str, Any]", ours).items()
        return all(key in theirs and _holds(theirs[key], value) for key, value in entries)
    if isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)):
        mine, others = cast("Sequence[Any]", ours), cast("Sequence[Any]", theirs)
        return len(mine) == len(others) and all(map(_holds, others, mine))
    if isinstance(ours, float) and not math.isfinite(ours):
        return theirs is None or str(theirs).lower().startswith(str(ours))
    if isinstance(ours, (int, float)) and isinstance(theirs, (int, float)):
        return ours == theirs or _is_close(ours, theirs)
    return bool(theirs == ours)


def _is_close(one: float, other: float) -> bool:
    """Say whether numbers are about the same: integers beyond int64 become floats there."""
    try:
        return math.isclose(one, other, rel_tol=1e-9)
    except OverflowError:  # an integer beyond float64
        return False
