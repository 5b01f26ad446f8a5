"""Which process of several this is, and the board where they leave notes for one another.

Nothing here initialises JAX's backends: that may wait for the other processes, and
`jax.distributed.initialize` must come before it.  What JAX says of neither in public is read from its
private state, with a way to go on where a later JAX keeps that elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, Final, TypeVar, final

import jax

from tracklayer.forking import tell_children

_ANSWER: Final = 3.0
"""Seconds in which JAX's coordination service answers, or is taken for gone; it takes less than one ms."""
_GLANCE: Final = 0.5
"""Seconds that one look at the board takes at most: signals are handled between two."""

_T = TypeVar("_T")


def place() -> tuple[int, int]:
    """Return this process's index, and how many processes there are; (0, 1) where it is alone.

    A forked child is alone: what it has of its parent's connection leads nowhere.
    """
    if jax.distributed.is_initialized():
        if _is_inherited():
            return 0, 1
        index, count = _coordination("process_id"), _coordination("num_processes")
        if isinstance(index, int) and isinstance(count, int):
            return index, count
    elif not _backends_are_initialized():
        return 0, 1
    return jax.process_index(), jax.process_count()  # pyright: ignore[reportUnknownMemberType] - jax's own types are partial


def board() -> Board | None:
    """Return the board of this program's processes; None where they have none."""
    client = _coordination("client")
    return None if client is None or _is_inherited() else Board(client)


@final
class Board:
    """Notes by key, which any process posts and any reads: the store of JAX's coordination service.

    Its calls come back, whatever became of the other processes: the client's own waits for ever where
    process 0, which is the server, was stopped.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def propose(self, key: str, value: str) -> str | None:
        """Post a note unless there is one; return the one that is there, None without an answer."""
        try:
            _within(_ANSWER, lambda: self.client.key_value_set(key, value))
        except RuntimeError:
            return self.read(key, _ANSWER)  # another process was first
        except TimeoutError:
            return None
        return value

    def post(self, key: str, value: str) -> None:
        """Post a note, in the place of an older one."""
        with suppress(RuntimeError, TimeoutError):  # who waits for it says so
            _within(_ANSWER, lambda: self.client.key_value_set(key, value, allow_overwrite=True))

    def read(self, key: str, timeout: float) -> str | None:
        """Return a note, None if it is not there within some seconds."""
        deadline = monotonic() + timeout
        while True:
            left = min(_GLANCE, deadline - monotonic())
            try:
                return str(self.client.blocking_key_value_get(key, max(1, int(left * 1000))))
            except RuntimeError:
                if monotonic() >= deadline:
                    return None
                sleep(0.01)  # a service that is gone says so at once


def _within(timeout: float, call: Callable[[], _T]) -> _T:
    """Call, and leave it behind where it does not come back.

    Raises:
        TimeoutError: it did not.
    """
    result: Future[_T] = Future()

    def work() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            result.set_exception(error)

    threading.Thread(target=work, name="tracklayer-processes", daemon=True).start()
    return result.result(timeout)


def _coordination(name: str) -> Any:
    """Return a member of what JAX keeps about `jax.distributed`."""
    try:
        from jax._src.distributed import global_state
    except ImportError:
        return None
    return getattr(global_state, name, None)


def _backends_are_initialized() -> bool:
    try:
        from jax._src.xla_bridge import backends_are_initialized
    except ImportError:
        return False
    return bool(backends_are_initialized())


@final
class _Inherited:
    """What a forked child has of its parent's, and must not use."""

    client: object = None

    def after_fork_in_child(self) -> None:
        """The connection's threads are in the parent: whoever calls it here waits for ever."""
        self.client = _coordination("client")


_inherited = _Inherited()
tell_children(_inherited)


def _is_inherited() -> bool:
    return _inherited.client is not None and _inherited.client is _coordination("client")
