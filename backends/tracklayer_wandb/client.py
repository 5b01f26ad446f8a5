"""The client's own process: what to do when it dies, hangs, or keeps a failed start in mind.

Its public interface has no word for these, so what stands here reaches below it (wandb 0.31).
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil
import wandb
from wandb.sdk import wandb_setup
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

from tracklayer.errors import BackendLostError

_DEAD = (ConnectionError, HandleAbandonedError, MailboxClosedError)
_RETRIES: Final = 8  # with the client's growing pauses, about four minutes
_END_SECONDS: Final = 10.0  # for the client's process to end, when all that it was given is sent


@contextmanager
def lost_when_client_dies() -> Generator[None]:
    """Turn what the client raises when its process is gone into `BackendLostError`."""
    try:
        yield
    except _DEAD as error:
        _tear_down()
        msg = f"the wandb client's process is gone ({error or type(error).__name__})"
        raise BackendLostError(msg) from error


def bounded_retries() -> dict[str, int]:
    """Return settings with which the client gives up in minutes, unless the user set others."""
    settings = wandb_setup.singleton().settings
    names = [f"x_{part}_retry_max" for part in ("graphql", "file_stream", "file_transfer")]
    return {name: _RETRIES for name in names if getattr(settings, name) is None}


def forget_failed_start() -> None:
    """Let the client forget a run that it could not start: it would call its id taken."""
    if wandb_setup.singleton().most_recent_active_run is None:
        _tear_down()


def end_client_in_time() -> None:
    """See to it that the end of this process does not wait without end for the client's.

    To be called whenever the client was used: what is registered last runs first.
    """
    atexit.unregister(_end_client)
    atexit.register(_end_client)


def wait_for_orphan(run_id: str) -> None:
    """Wait for a client whose own process was killed while it sent this run: it goes on for some seconds."""
    orphans = [one for one in psutil.process_iter(["name", "cmdline", "status"]) if _is_orphan(one, run_id)]
    psutil.wait_procs(orphans, timeout=_END_SECONDS)


def kill_client() -> None:
    """Kill the client's process, which serves all runs of this one."""
    _killer()()
    _tear_down()


def _is_orphan(process: psutil.Process, run_id: str) -> bool:
    found = process.info
    words: list[str] = found["cmdline"] or []  # None where it is another user's
    if "wandb-core" not in (found["name"] or "") or "--pid" not in words or "--detached" in words:
        return False
    if psutil.pid_exists(int(words[words.index("--pid") + 1])) or found["status"] == psutil.STATUS_STOPPED:
        return False
    with suppress(psutil.Error):
        return any(Path(file.path).name == f"run-{run_id}.wandb" for file in process.open_files())
    return False


def _end_client() -> None:
    if wandb_setup.singleton().most_recent_active_run is not None:
        return  # a run of the user's own, which the client finishes
    # by another thread: the client waits in the kernel
    ending = threading.Thread(target=_tear_down, name="tracklayer-wandb-end", daemon=True)
    kill = _killer()
    ending.start()
    ending.join(_END_SECONDS)
    if ending.is_alive():
        kill()
        ending.join(_END_SECONDS)


def _killer() -> Callable[[], None]:
    """Return what kills the client's process; a teardown makes the client forget it."""
    connection: Any = getattr(wandb_setup.singleton(), "_connection", None)
    process: Any = getattr(getattr(connection, "_proc", None), "_process", None)
    return (lambda: None) if process is None else process.kill


def _tear_down() -> None:
    """Take back the client's exit hook, which would wait for a process that is gone."""
    # it says that the process is gone, or ends this one with its exit code, after it did its work
    with suppress(*_DEAD, SystemExit):
        wandb.teardown()
