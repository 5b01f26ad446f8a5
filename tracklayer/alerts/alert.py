"""What an alert is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from time import time as now
from typing import Final, final

from tracklayer.errors import UsageError

_WAIT: Final = 60.0


class AlertLevel(StrEnum):
    """How serious an alert is."""

    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


@final
@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        title: what it is about.
        text: what has happened.
        level: how serious it is.
        wait_duration: seconds for which no other alert of that title is told.
        time: when it was raised, in Unix seconds.
    """

    title: str
    text: str
    level: AlertLevel
    wait_duration: float
    time: float

    def __str__(self) -> str:
        """Return the level and the text, as they are recorded."""
        return f"{self.level}: {self.text}"


def new_alert(
    title: str,
    text: str,
    level: AlertLevel | str | None = None,
    wait_duration: float | timedelta | None = None,
) -> Alert:
    """Return an alert of now: `INFO` and 60 s unless they are given.

    Raises:
        UsageError: there is no such level.
    """
    seconds = wait_duration.total_seconds() if isinstance(wait_duration, timedelta) else wait_duration
    return Alert(title, text, checked_level(title, level), _WAIT if seconds is None else seconds, now())


def checked_level(title: str, level: AlertLevel | str | None) -> AlertLevel:
    """Return a level; `INFO` for none.

    Raises:
        UsageError: there is no such level.
    """
    if level is not None and level not in set(AlertLevel):
        msg = f"alert {title!r}: level {level!r} is none of {', '.join(AlertLevel)}"
        raise UsageError(msg)
    return AlertLevel(level or AlertLevel.INFO)
