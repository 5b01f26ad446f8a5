"""Alerts: what `run.alert` says on stderr, and how often."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from time import monotonic
from typing import final

from tracklayer import reporting
from tracklayer.errors import UsageError
from tracklayer.values import Text


class AlertLevel(StrEnum):
    """How serious an alert is."""

    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


@final
class Alerts:
    """The alerts of one run."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def say(
        self,
        title: str,
        text: str,
        level: AlertLevel | str | None = None,
        wait_duration: float | timedelta | None = None,
    ) -> Text:
        """Say an alert on stderr, unless one of that title was said just now; return what to record.

        Args:
            title: what it is about.
            text: what has happened.
            level: `INFO` by default.
            wait_duration: the seconds for which no other of that title is said; 60 by default.

        Raises:
            UsageError: there is no such level.
        """
        if level is not None and level not in set(AlertLevel):
            msg = f"alert {title!r}: level {level!r} is none of {', '.join(AlertLevel)}"
            raise UsageError(msg)
        recorded = f"{level or AlertLevel.INFO}: {text}"
        wait = 60.0 if wait_duration is None else wait_duration
        seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
        now = monotonic()
        if now - self._said.get(title, -float("inf")) >= seconds:
            self._said[title] = now
            reporting.warn(f"alert {title!r}, {recorded}")
        return Text(recorded)
