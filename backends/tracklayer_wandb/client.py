"""The client's own process: what to do when it dies, hangs, or keeps a failed start in mind.

Its public interface has no word for these, so what stands here reaches below it (wandb 0.31).
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from time import monotonic, sleep
from typing import Any, Final

import psutil
import wandb
from wandb.sdk import wandb_setup
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

from tracklayer.errors import BackendLostError, BackendUnavailableError

_DEAD = (ConnectionError, HandleAbandonedError, MailboxClosedError)
"""What the client raises when its process is gone."""
_RETRIES: Final = 8  # with the client's growing pauses, about four minutes
_END_SECONDS: Final = 10.0  # for the client's process to end, when all that it was given is sent


_forgetting = threading.Lock()


@contextmanager
def lost_when_client_dies() -> Generator[None]:
    """Turn what the client raises when its process is gone into `BackendLostError`."""
    client = wandb_setup.singleton()
    try:
        yield
    except _DEAD as error:
        forget_dead_client(client)
        msg = f"the wandb client's process is gone ({error or type(error).__name__})"
        raise BackendLostError(msg) from error


def bounded_retries() -> dict[str, int]:
    """Return settings with which the client gives up in minutes, unless the user set others."""
    settings = wandb_setup.singleton().settings
    names = [f"x_{part}_retry_max" for part in ("graphql", "file_stream", "file_transfer")]
    return {name: _RETRIES for name in names if getattr(settings, name) is None}


@contextmanager
def overridden(settings: Any, values: Mapping[str, Any]) -> Generator[None]:
    """Change settings of the client for a while, unless the user set them."""
    changed = {name: value for name, value in values.items() if getattr(settings, name) is None}
    for name, value in changed.items():
        setattr(settings, name, value)
    try:
        yield
    finally:
        for name in changed:
            setattr(settings, name, None)


@contextmanager
def apart_from_sweep(run_id: str) -> Generator[None]:
    """Let another run than the one of a sweep's trial start as itself: the client takes each for that one."""
    client: Any = wandb_setup.singleton()
    settings = client.settings
    trial = {name: getattr(settings, name) for name in ("sweep_id", "sweep_param_path", "run_id")}
    if not settings.sweep_id or settings.run_id == run_id:
        yield
        return
    client._sweep_config = None  # noqa: SLF001 - what it read for the trial's own run
    for name in trial:
        setattr(settings, name, None)
    try:
        yield
    finally:
        for name, value in trial.items():
            setattr(settings, name, value)


def is_death(error: BaseException) -> bool:
    """Say whether this is what the client raises when its process is gone."""
    return isinstance(error, _DEAD) or "service process is not running" in str(error)


def forget_dead_client(client: Any) -> None:
    """Let go of a process that is gone, unless another thread did, so that a new one can be started."""
    with _forgetting:
        if wandb_setup.singleton() is client:
            process = _process(client)
            _tear_down()
            if process is not None:
                with suppress(TimeoutExpired):
                    process.wait(1.0)  # so that it does not stay in the system's table


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
    """Wait for a client whose own process was killed while it sent this run: it goes on for some seconds.

    Raises:
        BackendUnavailableError: it does not end.
    """
    name = f"run-{run_id}.wandb"
    orphans = [one for one in _clients() if _is_orphan(one) and _has_open(one, name)]
    if left := _left_after_a_while(orphans, lambda one: not _is_dead(one)):
        msg = (
            f"process {left[0].pid}, a wandb client whose own process was killed, still sends this run;"
            " push again when it is gone"
        )
        raise BackendUnavailableError(msg)


def has_let_go(log: Path) -> bool:
    """Say whether, within some seconds, no client has a run's log open any more."""
    folder = log.parent.resolve()
    return not _left_after_a_while(_clients(), lambda one: _has_open(one, log.name, folder))


def kill_client() -> None:
    """Kill the client's process, which serves all runs of this one."""
    client = wandb_setup.singleton()
    _killer()()
    forget_dead_client(client)


def _clients() -> Iterator[psutil.Process]:
    """Yield the processes of clients, of any program of this machine."""
    for process in psutil.process_iter(["name"]):
        if "wandb-core" in (process.info["name"] or ""):
            yield process


def _is_orphan(client: psutil.Process) -> bool:
    with suppress(psutil.Error):
        words = client.cmdline()  # raises where it is another user's
        if "--pid" not in words or "--detached" in words or client.status() == psutil.STATUS_STOPPED:
            return False
        try:
            owner = psutil.Process(int(words[words.index("--pid") + 1]))
        except psutil.NoSuchProcess:
            return True
        # one that is younger has but the number of the client's own
        return _is_dead(owner) or owner.create_time() > client.create_time()
    return False


def _is_dead(process: psutil.Process) -> bool:
    """Say whether a process ended, also where nobody asked how."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _has_open(client: psutil.Process, name: str, folder: Path | None = None) -> bool:
    with suppress(psutil.Error):  # it is gone, or another user's
        paths = [Path(file.path) for file in client.open_files()]
        return any(path.name == name and folder in {None, path.parent} for path in paths)
    return False


def _left_after_a_while(
    clients: Iterable[psutil.Process], is_busy: Callable[[psutil.Process], bool]
) -> list[psutil.Process]:
    """Wait until none is busy any more, and return those that are when the time is up."""
    deadline = monotonic() + _END_SECONDS
    left = [one for one in clients if is_busy(one)]
    while left and monotonic() < deadline:
        sleep(0.02)
        left = [one for one in left if is_busy(one)]
    return left


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
    process = _process(wandb_setup.singleton())
    return (lambda: None) if process is None else process.kill


def _process(client: Any) -> Popen[bytes] | None:
    connection: Any = getattr(client, "_connection", None)
    return getattr(getattr(connection, "_proc", None), "_process", None)


def _tear_down() -> None:
    """Take back the client's exit hook, which would wait for a process that is gone."""
    # it says that the process is gone, or ends this one with its exit code, after it did its work
    with suppress(*_DEAD, SystemExit):
        wandb.teardown()
