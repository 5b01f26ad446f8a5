"""Watching for the first value that is not finite: once it is there, all that follows is lost time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast, final

from tracklayer import reporting
from tracklayer.rows import ReadyRow
from tracklayer.values import Histogram, Value

_SHOWN = 8


class NonFinite(NamedTuple):
    """The first row with values that are NaN or infinite: its step, and those values by key, as text."""

    step: int
    values: Mapping[str, str]


@final
class NonFiniteWatch:
    """Takes note of the first row that is not finite; fed by a queue, on its thread.

    Nothing waits for it: what is on a device is looked at when it has come to the host anyway.
    """

    def __init__(self) -> None:
        self.found: NonFinite | None = None
        self._run_id: str | None = None

    def tell(self, run_id: str) -> None:
        """Say on stderr, once, what is found from now on."""
        self._run_id = run_id

    def add_rows(self, rows: Sequence[ReadyRow]) -> None:
        """Look at rows: (step, Unix seconds, values)."""
        if self.found is not None:
            return
        for step, _, values in rows:
            strange = strange_values(values)
            if strange:
                self.found = NonFinite(step, strange)
                if self._run_id is not None:
                    self._say(self._run_id, self.found)
                return

    @staticmethod
    def _say(run_id: str, found: NonFinite) -> None:
        named = [f"{key} is {text}" for key, text in list(found.values.items())[:_SHOWN]]
        if len(found.values) > _SHOWN:
            named.append(f"and {len(found.values) - _SHOWN} more")
        reporting.warn(
            f"run {run_id}, step {found.step}: the first values that are not finite: {', '.join(named)}"
        )


def strange_values(values: Mapping[str, Value]) -> dict[str, str]:
    """Return what is NaN or infinite among a row's values, by key, as text."""
    if _is_finite(values):
        return {}
    return {key: text for key, value in values.items() if (text := _strange(value))}


def _is_finite(values: Mapping[str, Value]) -> bool:
    """Say whether all are finite numbers; a False may be wrong."""
    try:
        total: float = sum(cast("Iterable[float]", values.values()))  # what is no number raises
        return math.isfinite(total)
    except (TypeError, OverflowError):
        return False


def _strange(value: Value) -> str:
    """Say what is not finite about a value; nothing, if all is."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else str(value)
    if not isinstance(value, Histogram):
        return ""
    bins = value.bins
    counts = {
        "nan": bins.nan_count,
        "inf": bins.positive_infinity_count,
        "-inf": bins.negative_infinity_count,
    }
    return ", ".join(f"{count} x {name}" for name, count in counts.items() if count)
