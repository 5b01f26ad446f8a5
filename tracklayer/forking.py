"""What must know that it woke up in a forked child, and what a fork had better wait for.

A child inherits open runs, queues and connections, but no thread and no right to write.  Each of them
registers here, and is told once, in the child.

A child that opens a run of its own needs SQLite, whose locks are in the child as they were at the fork.  One
that another thread held just then is held there for ever: seen once in 60 forks that met a commit.
"""

from __future__ import annotations

import os
import threading
import weakref
from time import monotonic
from types import TracebackType
from typing import Final, Protocol, final

_PATIENCE: Final = 0.5
"""Seconds that a fork waits for those at work, in all: one that hangs must not hang the program."""


class SurvivesFork(Protocol):
    """Something that a forked child must not use as it is."""

    def after_fork_in_child(self) -> None:
        """Become harmless: take no lock, write nothing, wait for nothing."""
        ...


_registered: weakref.WeakSet[SurvivesFork] = weakref.WeakSet()


def tell_children(instance: SurvivesFork) -> None:
    """Have `instance.after_fork_in_child` called in every child forked while it lives."""
    _registered.add(instance)


@final
class ForkGate:
    """Held by a thread at work; a fork waits for it, for a short while."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # who is at work may fork
        _gates.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def shut(self, timeout: float) -> bool:
        """Keep everybody from work, once nobody is at it; say whether that came in time."""
        return self._lock.acquire(timeout=max(0.0, timeout))

    def open(self) -> None:
        """Let them work again."""
        self._lock.release()


_gates: weakref.WeakSet[ForkGate] = weakref.WeakSet()


class _Shut(threading.local):
    """The gates that a thread shut for its fork."""

    def __init__(self) -> None:
        self.gates: list[ForkGate] = []


_shut = _Shut()


def _before() -> None:
    deadline = monotonic() + _PATIENCE
    _shut.gates = [gate for gate in list(_gates) if gate.shut(deadline - monotonic())]


def _in_parent() -> None:
    for gate in _shut.gates:
        gate.open()
    _shut.gates = []


def _in_child() -> None:
    _in_parent()
    _gates.clear()  # nobody here is at work behind them
    for instance in list(_registered):
        instance.after_fork_in_child()
    _registered.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
