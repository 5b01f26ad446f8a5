"""The alerts of a run: recorded, said on stderr, shown by W&B, and sent where the user wants them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final, final

from tracklayer import reporting
from tracklayer.alerts.alert import Alert, AlertLevel, checked_level, new_alert
from tracklayer.alerts.rules import NoImprovement, NoRows, NotFinite, Rule, RuleWatch
from tracklayer.alerts.sending import TIME_LIMIT, AlertSender
from tracklayer.bell import Bell
from tracklayer.errors import UsageError

if TYPE_CHECKING:
    from datetime import timedelta

    from tracklayer.protocol import RunInfo

_LONGEST_WAIT: Final = 3600.0  # seconds; a lock takes no infinity
_MAX_UNSENT: Final = 1000


@final
class Alerts:
    """Raises a run's alerts: those of its program, and those of the rules it was given.

    What may take long, and what is judged by the clock, is done on a thread of its own, which is started
    when there is something to do.

    Args:
        info: says what the run is now.
        record: records an alert in the run; called from any thread.
        show: hands an alert to the backends that show alerts; likewise.
        sender: sends alerts elsewhere.
        rules: judges rows, and is shown them by the run's first queue.
    """

    def __init__(
        self,
        info: Callable[[], RunInfo],
        record: Callable[[Alert], None],
        show: Callable[[Alert], None],
        sender: AlertSender,
        rules: RuleWatch,
    ) -> None:
        self._info = info
        self._record = record
        self._show = show
        self._sender = sender
        self._rules = rules
        self._levels: dict[Rule, tuple[AlertLevel, float | timedelta | None]] = {}
        self._told: dict[str, float] = {}
        self._unsent: deque[Alert] = deque()
        self._lock = threading.RLock()
        self._bell = Bell()
        self._is_ending = False
        self._thread: threading.Thread | None = None
        rules.wake = self._bell.ring

    def alert(
        self,
        title: str,
        text: str,
        level: AlertLevel | str | None = None,
        wait_duration: float | timedelta | None = None,
    ) -> None:
        """Record an alert; tell it, unless one of that title was told just now.

        Raises:
            UsageError: there is no such level.
        """
        alert = new_alert(title, text, level, wait_duration)
        self._record(alert)
        if self._is_due(alert):
            self._tell(alert)

    def watch(
        self, rule: Rule, level: AlertLevel | str, wait_duration: float | timedelta | None = None
    ) -> None:
        """Raise an alert whenever a rule comes to hold, unless its last was told just now.

        Raises:
            UsageError: it is no rule, or there is no such level.
        """
        if not isinstance(rule, (NotFinite, NoImprovement, NoRows)):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
            msg = f"alert_when: {rule!r} is no rule; see tracklayer.alerts for those there are"
            raise UsageError(msg)
        self._levels[rule] = checked_level(rule.title, level), wait_duration
        self._rules.add(rule)
        self._start()
        self._bell.ring()  # it may be the first that goes by the clock

    def finish(self, flush: Callable[[float], object]) -> None:
        """Judge the last rows, and send what was not sent yet; wait for both, but not for long.

        Args:
            flush: waits for so many seconds, at most, until all rows were judged.
        """
        if self._rules.is_needed:
            flush(TIME_LIMIT)
        thread = self._thread
        if thread is None:
            return
        self._is_ending = True
        self._bell.ring()
        thread.join(TIME_LIMIT)
        if thread.is_alive() and self._unsent:
            reporting.warn(f"{len(self._unsent)} of the run's alerts were not sent within {TIME_LIMIT:g} s")

    def _is_due(self, alert: Alert) -> bool:
        """Say whether an alert is to be told; if so, take note of it."""
        now = monotonic()
        with self._lock:
            if now - self._told.get(alert.title, -float("inf")) < alert.wait_duration:
                return False
            self._told[alert.title] = now
            return True

    def _tell(self, alert: Alert) -> None:
        reporting.warn(f"alert {alert.title!r}, {alert}")
        self._show(alert)
        if not self._sender.is_needed:
            return
        if len(self._unsent) >= _MAX_UNSENT:
            reporting.warn(f"alert {alert.title!r} is not sent: {_MAX_UNSENT} others wait for that")
            return
        self._unsent.append(alert)
        self._start()
        self._bell.ring()

    # -- the thread of its own --------------------------------------------------------------------

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._work, name="tracklayer-alerts", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the interpreter is going down and starts no threads any more
                reporting.warn(f"alerts are not sent: {error}")
            else:
                self._thread = thread

    def _work(self) -> None:
        while True:
            self._bell.wait(min(self._rules.seconds_to_next(), _LONGEST_WAIT))
            is_ending = self._is_ending  # what came before that is still done
            for rule, text in self._rules.raised():
                level, wait_duration = self._levels[rule]
                alert = new_alert(rule.title, text, level, wait_duration)
                if self._is_due(alert):
                    self._record(alert)
                    self._tell(alert)
            while self._unsent:
                self._sender.send(self._unsent[0], self._info())
                self._unsent.popleft()
            if is_ending:
                return
