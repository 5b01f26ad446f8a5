"""How long a run had run at a moment, as W&B counts it: `_runtime`."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracklayer.reading import Segment


@final
class RunClock:
    """The seconds that a run had run: over all of its segments, without the pauses between them.

    Attributes:
        total: what it has run until now.
    """

    def __init__(self, segments: Sequence[Segment], created_at: float) -> None:
        self._starts: list[float] = []
        self._before: list[float] = []
        self.total = 0.0
        for segment in segments:
            self._starts.append(segment.started_at)
            self._before.append(self.total)
            end = segment.heartbeat_at if segment.ended_at is None else segment.ended_at
            self.total += max(0.0, end - segment.started_at)
        if not self._starts:
            self._starts, self._before = [created_at], [0.0]

    def at(self, time: float) -> float:
        """Return the seconds at a moment, given in Unix seconds."""
        number = max(0, bisect_right(self._starts, time) - 1)
        seconds = self._before[number] + max(0.0, time - self._starts[number])
        self.total = max(self.total, seconds)  # a crash may come long after the last heartbeat
        return seconds
