"""What a run's process and machine say, beside what it logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

Stream: TypeAlias = Literal["stdout", "stderr"]

Environment: TypeAlias = Mapping[str, Any]
"""What one process of a run was: its program, its code, its packages, its machine; JSON data.

See `tracklayer.environment` for the entries.
"""


class ConsoleLine(NamedTuple):
    """A line that a process of the run printed, without its line end, as it stood on the screen at last.

    `time` is that of its last character, in Unix seconds.
    """

    time: float
    stream: Stream
    text: str


class SystemRow(NamedTuple):
    """What was measured on a machine at one moment; `time` is Unix seconds.

    Keys are W&B's, without its `system.` before them, such as `cpu` in percent or `proc.memory.rssMB`.
    """

    time: float
    values: Mapping[str, float]
