"""What must know that it woke up in a forked child.

A child inherits open runs, queues and connections, but no thread and no right to write.  Each of them
registers here, and is told once, in the child.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class SurvivesFork(Protocol):
    """Something that a forked child must not use as it is."""

    def after_fork_in_child(self) -> None:
        """Become harmless: take no lock, write nothing, wait for nothing."""
        ...


_registered: weakref.WeakSet[SurvivesFork] = weakref.WeakSet()


def tell_children(instance: SurvivesFork) -> None:
    """Have `instance.after_fork_in_child` called in every child forked while it lives."""
    _registered.add(instance)


def _in_child() -> None:
    for instance in list(_registered):
        instance.after_fork_in_child()
    _registered.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
