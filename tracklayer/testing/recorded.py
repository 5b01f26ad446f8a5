"""What an oracle reads back from a backend, in the suite's terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final


class Point(NamedTuple):
    """A value at its own step; `time` is Unix seconds."""

    step: int
    time: float
    value: Any


@final
@dataclass(frozen=True, slots=True)
class Recorded:
    """One run as an oracle found it; None stands for what the backend cannot show.

    Attributes:
        scalars: by key, steps ascending, one point a step.
        texts: likewise, of strings.
        histograms: likewise, of (counts, edges).
        config: nested.
        summary: what was set by hand, among whatever else stands there.
        state: `"finished"`, `"failed"`, …
        artifacts: by name, the content of each file by its path; references apart.
        references: by name, the URI of each reference by its path.
        aliases: by name, those of the version; whether `latest` is among them makes no difference.
        uses: the artifacts that the run used, each as `name:v3`.
        environment: what the last process of the run was.
        console: the lines that it printed.
        system_metrics: by key, the Unix seconds and the value of each measurement.
        relative_error: of floats; 0 where they come back exactly.
        largest_integer: up to which integers come back exactly.
        live: whether this was to be read before the run was finished.
    """

    scalars: dict[str, list[Point]]
    texts: dict[str, list[Point]] | None = None
    histograms: dict[str, list[Point]] | None = None
    config: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None
    state: str | None = None
    artifacts: dict[str, dict[str, bytes]] | None = None
    references: dict[str, dict[str, str]] | None = None
    aliases: dict[str, set[str]] | None = None
    uses: list[str] | None = None
    environment: dict[str, Any] | None = None
    console: list[str] | None = None
    system_metrics: dict[str, list[tuple[float, float]]] | None = None
    relative_error: float = 0.0
    largest_integer: int = 2**63 - 1
    live: bool = True


def one_a_step(points: Sequence[Point]) -> list[Point]:
    """Return the last point of each step, steps ascending."""
    return [point for _, point in sorted({point.step: point for point in points}.items())]
