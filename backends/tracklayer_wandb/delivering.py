"""A recorded run on its way to W&B: the client's log, sent by the client while it is written."""

from __future__ import annotations

import shutil
import socket
import tempfile
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import psutil

from tracklayer.delivery import Delivered, Received
from tracklayer.errors import BackendLostError, BackendUnavailableError, UnsupportedValueError
from tracklayer_wandb.asking import LineCount, api, asking, entity_of
from tracklayer_wandb.log_run import LogRun
from tracklayer_wandb.login import check_login
from tracklayer_wandb.reading_back import file_names, hidden_config
from tracklayer_wandb.syncing import Sync

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.protocol import MetricRule, RunInfo, Status
    from tracklayer.reading import RunReader
    from tracklayer.settings import Settings
    from tracklayer.surroundings import ConsoleLine, Environment, SystemRow
    from tracklayer.values import Value

_PREFIX: Final = "tracklayer-push-"
_CONSOLE_FILE: Final = "output.log"


def deliver(reader: RunReader, info: RunInfo, found: Received | None, settings: Settings) -> SentRun:
    """Begin to send a recorded run; nothing is sent before the first `commit`.

    Raises:
        BackendUnavailableError: no login, or the server does not say what else it has of the run.
        OSError: the temporary folder cannot be written.
    """
    check_login()
    _remove_what_the_dead_left()
    with asking():
        info = replace(info, entity=entity_of(info))
        hidden = hidden_config(info) if found else {}
        count = LineCount(info)
    return SentRun(reader, info, found, hidden, count, settings.finish_timeout)


@final
class SentRun:
    """A delivery: a log in a folder of its own, and the client's operation that sends it.

    Args:
        reader: the recorded run.
        info: what it is to be on the server, with an entity.
        found: what the server has of it.
        hidden: what the server has in the config that W&B's pages do not show.
        count: asks for the rows that the server has.
        timeout: seconds that `finish` waits for the client.
    """

    def __init__(
        self,
        reader: RunReader,
        info: RunInfo,
        found: Received | None,
        hidden: Mapping[str, Any],
        count: LineCount,
        timeout: float,
    ) -> None:
        self.info = info
        self._reader = reader
        self._found = found
        self._is_started = False
        self._console_changed = False
        self._problems: list[str] = []
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{socket.gethostname()}-{_owner()}-"))
        try:
            self._log = LogRun(
                reader, info, found, self._folder, kept=hidden, has_file=self._has_file, api=api()
            )
            self._sync = Sync(self._log.path, program=self._log.program, timeout=timeout, count=count)
        except BaseException:
            self._remove()
            raise

    def log(self, values: Mapping[str, Value], *, step: int, time: float) -> None:
        """Send a row."""
        self._log.log(values, step=step, time=time)

    def complete(self, values: Mapping[str, Value], *, step: int, time: float) -> None:
        """Send the files of a row."""
        self._log.complete(values, step=step, time=time)

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Set the config."""
        self._log.update_config(config)

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        """Set the summary."""
        self._log.update_summary(summary)

    def define_metric(self, rule: MetricRule) -> None:
        """Apply a rule."""
        self._log.define_metric(rule)

    def log_artifact(self, artifact: LoggedArtifact) -> None:
        """Send an artifact that the run made, or show it as its own."""
        with asking():
            self._log.log_artifact(artifact)

    def use_artifact(self, artifact: LoggedArtifact) -> None:
        """Show an artifact as used by the run."""
        with asking():
            self._log.use_artifact(artifact)

    def record_environment(self, environment: Environment) -> None:
        """Tell what one process of the run was."""
        self._log.record_environment(environment)

    def log_console(self, lines: Sequence[ConsoleLine]) -> None:
        """Send lines that the server lacks."""
        self._console_changed |= bool(lines)
        self._log.log_console(lines)

    def log_system(self, row: SystemRow) -> None:
        """Send a row of system metrics."""
        self._log.log_system(row)

    def commit(self) -> None:
        """Have what came so far on its way.

        Raises:
            BackendLostError: the client does not send any more; the message says why.
        """
        self._log.commit()
        if self._is_started:
            self._sync.check()
        else:
            self._is_started = True
            self._sync.start()

    def finish(self, status: Status) -> None:
        """Tell how the run ended, or that it goes on, and wait until all is sent.

        Raises:
            BackendLostError: the client did not send it all, or not in time; the message says why.
        """
        self._log.finish(status)
        if not self._is_started:
            self._is_started = True
            self._sync.start()
        self._sync.wait()
        self._problems += self._sync.problems
        self._complete()
        self._remove()

    def abandon(self) -> None:
        """Stop sending; when this returns, nothing more is on its way."""
        if self._is_started:
            self._sync.abandon()
        with suppress(OSError):  # of a full disk: nobody reads the log any more
            self._log.abandon()
        self._remove()

    @property
    def sent_lines(self) -> int:
        """The rows that the server is known to have received; it is asked once a second at most."""
        before = self._found.line_count if self._found else 0
        return max(0, (self._sync.lines or 0) - before)

    @property
    def delivered(self) -> Delivered:
        """What was sent."""
        return replace(self._log.delivered, problems=tuple(self._problems))

    def _complete(self) -> None:
        """Do what the log cannot: it is told to the server when it has the run.

        A push that was killed before is followed by one that does it: its artifacts were not confirmed.
        """
        for step in self._log.later:
            try:
                with asking():
                    step()
            except UnsupportedValueError as error:
                self._problems.append(str(error))
            except BackendUnavailableError as error:  # reading back would not show it
                raise BackendLostError(str(error)) from error
        if self._console_changed and self._found is not None and self._found.console_lines:
            try:
                with asking():
                    self._send_console_file()
            except BackendUnavailableError as error:  # the lines themselves are there
                self._problems.append(str(error))

    def _send_console_file(self) -> None:
        """Send the console's text whole: the client left there what it sent this time alone."""
        path = self._folder / _CONSOLE_FILE
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line.text}\n" for line in self._reader.console())
        run: Any = api().run(f"{self.info.entity}/{self.info.project}/{self.info.id}")
        run.upload_file(str(path), root=str(self._folder))

    @cached_property
    def _files(self) -> frozenset[str]:
        with asking():
            return frozenset(file_names(self.info))

    def _has_file(self, name: str) -> bool:
        return self._found is not None and name in self._files

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _owner() -> str:
    """Return what tells this process from a later one of the same number."""
    process = psutil.Process()
    return f"{process.pid}-{process.create_time():.2f}"


def _remove_what_the_dead_left() -> None:
    """Remove the folders of pushes of this machine whose process was killed."""
    prefix = f"{_PREFIX}{socket.gethostname()}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        words = folder.name.removeprefix(prefix).split("-")
        if not folder.name.startswith(prefix) or len(words) < 2 or not words[0].isdigit():
            continue
        try:
            is_dead = f"{psutil.Process(int(words[0])).create_time():.2f}" != words[1]
        except psutil.NoSuchProcess:
            is_dead = True
        except psutil.Error:  # another user's
            continue
        if is_dead:
            shutil.rmtree(folder, ignore_errors=True)
