"""A run's transaction log, sent by the installed client while it is written.

What stands here is what `wandb sync --live` does (wandb 0.31), in this process and for one log, so that
several can be sent at once by the one process that the client has.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, final

from wandb.sdk import wandb_setup
from wandb.sdk.lib import wbauth

from tracklayer.errors import BackendLostError
from tracklayer_wandb.asking import LineCount
from tracklayer_wandb.client import (
    bounded_retries,
    end_client_in_time,
    forget_dead_client,
    has_let_go,
    is_death,
    kill_client,
)
from tracklayer_wandb.explaining import explained
from tracklayer_wandb.login import credentials

_ANSWER_SECONDS: Final = 30.0  # within which a client's process that is well answers
_STALL_SECONDS: Final = 300.0  # without any progress; the client's own retries take less
_POLL_SECONDS: Final = 1.0
_WORD_SECONDS: Final = 0.2  # until the client heard that it is to stop
_WARNING: Final = 30
_DONE: Final = "Finished syncing"
_FATAL: Final = "Fatal error while uploading"
"""What the client says when it stops sending rows, and goes on reading."""
_SAID_TWICE: Final = ("api: HTTP error", "runsync:", "runreader:")
"""How those errors in the client's own log begin which it tells of elsewhere, too."""
_MAX_PROBLEMS: Final = 20


@final
class Sync:
    """One operation of the client: from the beginning of a log until its exit record is sent.

    Its methods are for one thread; several of these may be at work in one process.

    Attributes:
        lines: the rows that the server has of the run, as it said last; None before that.

    Args:
        log: the `.wandb` file, with the folder `files` beside it; the client's own log goes there, too.
        program: the program that the server is told.
        timeout: seconds that `wait` takes at most.
        count: asks for the rows that the server has.
    """

    def __init__(self, log: Path, *, program: str | None, timeout: float, count: LineCount) -> None:
        self._log = log
        self._timeout = timeout
        self._count = count
        self._client: Any = wandb_setup.singleton()
        self._settings = _settings(self._client.settings, log.parent, program)
        self._handle: Any = None
        self._abandoned = False
        self._done: Future[None] = Future()
        self._ended = threading.Event()
        self._said: dict[str, int] = {}  # the client's messages, and the severity of each
        self._retrying = ""
        self._progress: object = None
        self._moved_at = monotonic()
        self.lines: int | None = None

    def start(self) -> None:
        """Begin to send what the log holds, and what is added to it.

        Raises:
            BackendLostError: the client's process is gone, or cannot be started.
        """
        self._done.add_done_callback(lambda _: self._ended.set())
        try:
            service = self._client.ensure_service()
            end_client_in_time()
            self._client.asyncer.run_soon(lambda: self._operate(service), daemon=True)
        except Exception as error:  # whatever keeps a process from being started
            raise self._lost(error) from error

    def check(self) -> None:
        """Look whether the client still sends.

        Raises:
            BackendLostError: it does not; the message says why.
        """
        if self._ended.is_set():
            error = self._done.exception()
            raise self._refused() if error is None else self._lost(error)
        if self._has_said(_FATAL):
            raise self._refused()

    def wait(self) -> None:
        """Wait until all is sent, once the log has its exit record.

        Raises:
            BackendLostError: it was not, or not in time; the message says why.
        """
        self._moved_at = monotonic()
        deadline = self._moved_at + self._timeout
        while not self._ended.wait(_POLL_SECONDS):
            self.check()
            now = monotonic()
            if now > deadline:
                raise self._late(self._timeout)
            if now - self._moved_at > _STALL_SECONDS:
                raise self._late(_STALL_SECONDS, " without progress")
        if self._done.exception() is not None or self._has_said(_FATAL) or not self._has_said(_DONE):
            self.check()

    def abandon(self) -> None:
        """Have the client stop; when this returns, it sends nothing more.

        Where it does not let go of the log in time, its process is killed, and all else that it sends fails.
        """
        self._abandoned = True
        if self._handle is not None:
            with suppress(Exception):  # of a client that is gone
                self._handle.cancel()
            sleep(_WORD_SECONDS)
        if not has_let_go(self._log):
            kill_client()

    @property
    def problems(self) -> tuple[str, ...]:
        """What the client warned of, and what it lost without saying so but in its own log."""
        return tuple(dict.fromkeys(map(explained, self._troubles())))[:_MAX_PROBLEMS]

    def _troubles(self) -> list[str]:
        warned = [
            text for text, severity in self._said.items() if severity >= _WARNING and _FATAL not in text
        ]
        return [*warned, *self._logged()]

    async def _operate(self, service: Any) -> None:
        try:
            await self._send(service)
        except BaseException as error:  # who waits must hear of it, whatever it is
            self._done.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._done.set_result(None)

    async def _send(self, service: Any) -> None:
        begun = await service.init_sync(
            {self._log},
            self._settings,
            cwd=None,
            live=True,
            entity="",
            project="",
            run_id="",
            job_type="",
            tag_replacements={},
        )
        operation = (await begun.wait_async(timeout=_ANSWER_SECONDS)).id
        if self._abandoned:
            return
        self._handle = await service.sync(operation, parallelism=1)
        sending = asyncio.ensure_future(self._handle.wait_async(timeout=None))
        watching = asyncio.ensure_future(self._watch(service, operation, sending))
        try:
            await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                watching.result()  # the client does not answer
            self._hear(sending.result().messages)
        finally:
            sending.cancel()
            watching.cancel()

    async def _watch(self, service: Any, operation: str, sending: asyncio.Future[Any]) -> None:
        while not sending.done():  # a cancellation may get lost in the client's code
            status = await (await service.sync_status(operation)).wait_async(timeout=_ANSWER_SECONDS)
            self._hear(status.new_messages)
            operations = [one for stats in status.stats for one in stats.operations]
            self._retrying = next((one.error_status for one in operations if one.error_status), "")
            with suppress(Exception):  # a progress bar's alone
                self.lines = await self._count.ask()
            progress = self.lines, [(one.desc, one.progress) for one in operations]
            if progress != self._progress:
                self._progress, self._moved_at = progress, monotonic()
            await asyncio.sleep(_POLL_SECONDS)

    def _hear(self, messages: Iterable[Any]) -> None:
        for message in messages:
            text = message.content
            if text.startswith("["):  # the run's path, in brackets
                text = text.partition("] ")[2] or text
            self._said = {**self._said, text: int(message.severity)}

    def _has_said(self, words: str) -> bool:
        return any(words in text for text in self._said)

    def _logged(self) -> Iterator[str]:
        """Yield the errors in the client's own log."""
        for path in sorted(self._log.parent.glob("wandb/logs/debug-sync*.log")):
            for line in path.read_text(errors="replace").splitlines():
                with suppress(ValueError):  # a line that is not whole
                    entry = json.loads(line)
                    text = str(entry.get("msg", ""))
                    if str(entry.get("level", "")).startswith("ERROR") and not text.startswith(_SAID_TWICE):
                        yield " ".join(str(part) for part in (text, entry.get("error")) if part)

    def _why(self) -> str:
        """Return what the client gives as the reason, as far as it gives one."""
        reason = self._retrying or next(reversed(self._troubles()), "")
        return f": {explained(reason)}" if reason else ""

    def _lost(self, error: BaseException) -> BackendLostError:
        if is_death(error) or isinstance(error, asyncio.CancelledError):
            forget_dead_client(self._client)
            return BackendLostError("the wandb client's process is gone; push again")
        if isinstance(error, TimeoutError):
            return BackendLostError("the wandb client's process does not answer; push again")
        return BackendLostError(f"the wandb client: {explained(str(error) or type(error).__name__)}")

    def _refused(self) -> BackendLostError:
        return BackendLostError(f"the wandb client could not send the run{self._why()}")

    def _late(self, seconds: float, how: str = "") -> BackendLostError:
        limit = f"{seconds:g} s{how}"
        return BackendLostError(
            f"the wandb client did not send the whole run in {limit}{self._why()}; push again"
        )


def _settings(global_settings: Any, folder: Path, program: str | None) -> Any:
    """Return the settings of one operation."""
    settings = global_settings.model_copy()
    wbauth.set_auth_settings(settings, credentials())
    settings.mode = "online"
    settings.console = "wrap"  # else what the log holds of it is left out
    settings.program = program or ""
    settings.root_dir = str(folder)  # where the client's own log goes
    if settings.x_file_stream_transmit_interval is None:
        settings.x_file_stream_transmit_interval = 1.0
    for name, value in bounded_retries().items():
        setattr(settings, name, value)
    return settings
