"""Alerts of a run, and the rules by which `run.alert_when` raises them.

A rule raises an alert when it comes to hold:

    from tracklayer.alerts import NoImprovement, NoRows, NotFinite

    run.alert_when(NotFinite("train/loss"), NoRows(minutes=10), level="ERROR")
    run.alert_when(NoImprovement("val/loss", steps=5000))

Where else alerts go than to the run's record and stderr: see `tracklayer.alerts.sending`.
"""

from tracklayer.alerts.alert import Alert, AlertLevel
from tracklayer.alerts.rules import NoImprovement, NoRows, NotFinite, Rule

__all__ = ["Alert", "AlertLevel", "NoImprovement", "NoRows", "NotFinite", "Rule"]
