"""Doing the same to many runs, several at a time."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def work_through(
    chains: Sequence[Sequence[_Item]], work: Callable[[_Item], _Result], jobs: int, seconds: float = 0.2
) -> Iterator[_Result | None]:
    """Yield what comes of each item, as soon as it does; and None, whenever a moment passes without any.

    An error stops no other item; the first is raised when all are done.  The threads end with the program:
    who interrupts it does not wait for them.

    Args:
        chains: what to work on; they are begun in this order, the items of one each after the other.
        work: called with each, from several threads.
        jobs: how many at a time.
        seconds: the length of a moment.
    """
    todo = deque(chains)
    done: queue.SimpleQueue[tuple[_Result | None, BaseException | None]] = queue.SimpleQueue()

    def go_on() -> None:
        while todo:
            try:
                chain = todo.popleft()
            except IndexError:  # another thread took the last
                return
            for item in chain:
                done.put(_outcome(work, item))

    for number in range(min(jobs, len(chains))):
        threading.Thread(target=go_on, name=f"tracklayer-push-{number}", daemon=True).start()
    errors: list[BaseException] = []
    left = sum(map(len, chains))
    while left:
        try:
            result, error = done.get(timeout=seconds)
        except queue.Empty:
            yield None
            continue
        left -= 1
        if error is None:
            yield result
        else:
            errors.append(error)
    if errors:
        raise errors[0]


def _outcome(work: Callable[[_Item], _Result], item: _Item) -> tuple[_Result | None, BaseException | None]:
    try:
        return work(item), None
    except BaseException as error:  # noqa: BLE001 - raised by the thread that waits, when the others are done
        return None, error
