"""The end of a run: what is waited for, and in which order its queues finish."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracklayer.protocol import Status
    from tracklayer.queue import Queue


def wait_for_taps(*, at_end: bool = False) -> None:
    """Wait for the programs that this thread started and that log by `tracklayer.jax.log`."""
    waiting = sys.modules.get("tracklayer.jax.waiting")  # else no program can log
    if waiting is not None:
        waiting.wait_for_taps(at_end=at_end)


def finish_queues(queues: Sequence[Queue], status: Status) -> None:
    """Finish the first queue, a local one, and the others side by side, so that none waits for another.

    Those that come last follow, to tell of a run that is recorded.
    """
    _finish_side_by_side([queue for queue in queues if not queue.comes_last], status)
    for queue in queues:
        if queue.comes_last:
            queue.finish(status)


def _finish_side_by_side(queues: Sequence[Queue], status: Status) -> None:
    if len(queues) == 1:
        queues[0].finish(status)
        return
    threads = [threading.Thread(target=queue.finish, args=(status,), daemon=True) for queue in queues[1:]]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:  # the interpreter is going down and starts no threads any more
        threads = [thread for thread in threads if thread.ident is not None]
    started = len(threads)
    queues[0].finish(status)
    for queue in queues[1 + started :]:
        queue.finish(status)
    for thread in threads:
        thread.join()
