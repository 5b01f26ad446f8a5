"""Recording into Weights & Biases through its public client.

W&B's steps cannot go back: the client drops a call with a lower step.  Such late rows are kept, and
sent at the end, one a step above the highest, with their true step beside them under
`tracklayer/step`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
import wandb
from wandb.errors import UsageError

from tracklayer import reporting
from tracklayer.errors import (
    BackendLostError,
    BackendUnavailableError,
    RunExistsError,
    RunNotFoundError,
    UnsupportedValueError,
)
from tracklayer.media.base import Media
from tracklayer.protocol import MetricRule, Resume, RunInfo, Status
from tracklayer.settings import NO_CODE
from tracklayer.summaries import MetricSummaries
from tracklayer.values import Histogram, Text, Value
from tracklayer_wandb.artifacts import CODE, ArtifactSender, shows_code
from tracklayer_wandb.client import (
    apart_from_sweep,
    end_client_in_time,
    forget_failed_start,
    kill_client,
    lost_when_client_dies,
)
from tracklayer_wandb.login import quiet_client
from tracklayer_wandb.media import log_media
from tracklayer_wandb.reading_back import MARK, TRUE_STEP, shows_end

if TYPE_CHECKING:
    from tracklayer.alerts.alert import Alert
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.settings import Settings

_INIT_SECONDS: Final = 6.0  # with the client's import and start, `init` is done in less than 9
_BEFORE_INIT: Final = 3.0  # seconds that these take at most, of those that a start may take
_META: Final = frozenset({"arguments", "devices", "host", "jobs", "program", "user"})
"""Parts of the environment that the client records together or not at all."""
_MIN_INTERVAL: Final = 0.1  # seconds; the client takes no less
_MAX_TITLE: Final = 63  # characters of an alert's, as the client documents it
_MAX_LATE_ROWS: Final = 100_000  # what more there is, a push sends
_MAX_LATE_BYTES: Final = 256_000_000  # of media, likewise


def open_run(info: RunInfo, resume: Resume | None, settings: Settings) -> WandbRun:
    """Start or continue a run on the W&B server.

    Raises:
        RunExistsError, RunNotFoundError: as `resume` demands.
        BackendUnavailableError: the server does not answer, or refuses.
    """
    options: dict[str, Any] = {
        "silent": True,
        "init_timeout": max(_INIT_SECONDS, settings.start_timeout - _BEFORE_INIT),
        "finish_timeout": max(0.1, settings.finish_timeout - _confirm_seconds(settings)),
        "finish_timeout_raises": True,
        **_left_out(settings),
    }
    quiet_client()
    try:
        with apart_from_sweep(info.id):
            run = wandb.init(
                entity=info.entity,
                project=info.project,
                id=info.id,
                name=info.name,
                group=info.group,
                job_type=info.job_type,
                tags=list(info.tags),
                notes=info.notes,
                dir=str(settings.dir),
                config={"_wandb": {MARK: {"created_at": info.created_at}}},  # hidden
                resume=resume or "never",
                mode="online",
                reinit="create_new",
                settings=wandb.Settings(**options),
            )
    except Exception as error:  # some of the client's errors are of no class of its own
        forget_failed_start()
        message = _first_line(error)
        if isinstance(error, UsageError):
            if resume == "must":
                raise RunNotFoundError(message) from error
            if resume in {None, "never"} and info.id in message:
                raise RunExistsError(message) from error
        raise BackendUnavailableError(message) from error
    end_client_in_time()
    found = replace(info, entity=run.entity, project=run.project, url=run.url, resumed=run.resumed)
    return WandbRun(run, found, settings)


@final
class WandbRun:
    """A run of the W&B client."""

    def __init__(self, run: Any, info: RunInfo, settings: Settings) -> None:
        self.info = info
        self._run = run
        self._artifacts = ArtifactSender(run)
        self._confirm_seconds = _confirm_seconds(settings)
        self._first_step: int = run.starting_step
        self._step = self._first_step - 1  # the highest that the server has or is sent
        self._late: list[tuple[int, float, Mapping[str, Value]]] = []
        self._late_bytes = 0
        self._latest: dict[str, tuple[int, Any]] = {}  # each entry's step, and it as the summary has it
        self._summaries = MetricSummaries()
        self._set_by_hand: dict[str, Any] = {}

    def log(self, values: Mapping[str, Value], *, step: int, time: float) -> None:
        """Send a row, or keep it for the end where the client would drop it.

        Raises:
            UnsupportedValueError: media that the client does not take, when all the rest is sent; or a late
                row too many.
        """
        if step >= max(self._step, self._first_step):
            self._step = step
            self._summaries.add(values, step)
            sent, refused = self._send(values, time)
            self._latest.update((key, (step, value)) for key, value in sent.items())
            if refused:
                raise UnsupportedValueError(_first_of(refused))
        elif step < self._first_step:
            # of a step that an earlier segment may have sent: W&B keeps the first value, and a
            # push, which asks the server, sends what is really missing
            return
        else:
            self._keep(values, step, time)

    def _keep(self, values: Mapping[str, Value], step: int, time: float) -> None:
        size = sum(value.nbytes for value in values.values() if isinstance(value, Media))
        if len(self._late) >= _MAX_LATE_ROWS or self._late_bytes + size > _MAX_LATE_BYTES:
            most = f"{_MAX_LATE_ROWS} rows, or {_MAX_LATE_BYTES // 10**6} MB of media"
            msg = f"more than {most}, came late; `tracklayer push` sends the rest"
            raise UnsupportedValueError(msg)
        self._late_bytes += size
        self._late.append((step, time, values))

    def _send(
        self, values: Mapping[str, Value], time: float, *, true_step: int | None = None
    ) -> tuple[dict[str, Any], list[str]]:
        """Send a row, its media one by one; return what the summary shows of it, and what was refused."""
        is_late = true_step is not None
        stamp = {"_timestamp": time, TRUE_STEP: true_step} if is_late else {"_timestamp": time}
        media = {key: value for key, value in values.items() if isinstance(value, Media)}
        sent = {key: _shown(value) for key, value in values.items() if key not in media}
        refused: list[str] = []
        if sent or not is_late:  # it also tells the client the step, which names the files of tables
            self._log_row({**sent, **stamp}, complete=is_late and not media)
        for key, value in media.items():
            try:
                sent |= log_media(self._run, key, value, step=self._step, stamp=stamp)
            except UnsupportedValueError as error:
                refused.append(str(error))
        if is_late and media and sent:
            self._log_row(stamp, complete=True)
        return sent, refused

    def _log_row(self, row: Mapping[str, Any], *, complete: bool) -> None:
        with lost_when_client_dies():
            self._run.log(row, step=self._step, commit=complete or None)

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Merge entries into the W&B config."""
        with lost_when_client_dies():
            if self._run.sweep_id:  # it locks what it chose, so that what is nested beside that would be lost
                self._run.config.update_locked(dict(config), user="sweep", _allow_val_change=True)
            else:
                self._run.config.update(dict(config), allow_val_change=True)

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        """Set entries of the W&B summary."""
        self._set_by_hand.update(summary)
        with lost_when_client_dies():
            self._run.summary.update(dict(summary))

    def define_metric(self, rule: MetricRule) -> None:
        """Apply a rule; its goal is not known to the client, and stays in the local record."""
        self._summaries.define(rule)
        with lost_when_client_dies():
            self._run.define_metric(
                rule.pattern,
                step_metric=rule.step_metric,
                summary=",".join(rule.summary) or None,
            )

    def alert(self, alert: Alert) -> None:
        """Have W&B tell it to whom it may concern."""
        wait = max(alert.wait_duration, 0.001)  # the client takes 0 for its default
        with lost_when_client_dies():
            self._run.alert(alert.title[:_MAX_TITLE], alert.text, str(alert.level), wait)

    def log_artifact(self, artifact: LoggedArtifact) -> None:
        """Log an artifact with its aliases; see `ArtifactSender.log`."""
        with lost_when_client_dies():
            self._artifacts.log(artifact)
            if shows_code(artifact):
                self._run.config.update({"_wandb": {CODE: artifact.name}}, allow_val_change=True)

    def mark_preempting(self, by: str) -> None:  # noqa: ARG002 - the client takes no reason
        """Have W&B show the run as preempted if it then fails."""
        with lost_when_client_dies():
            self._run.mark_preempting()

    def use_artifact(self, artifact: LoggedArtifact) -> None:
        """Show an artifact as an input of the run; see `ArtifactSender.use`."""
        with lost_when_client_dies():
            self._artifacts.use(artifact)

    def commit(self) -> None:
        """Leave it to the client, which sends when it sees fit."""

    def finish(self, status: Status) -> None:
        """Send the late rows, wait until the server has everything, and ask whether it has.

        Raises:
            BackendLostError: it had not in time; what is missing is left to a push.
        """
        self._send_late()
        if self._set_by_hand:  # rows that came later put their own values there
            self.update_summary(self._set_by_hand)
        exit_code = status.exit_code or int(status.state in {"failed", "crashed"})
        try:
            with lost_when_client_dies():
                self._run.finish(exit_code=exit_code)
        except TimeoutError as error:
            msg = "its server did not confirm the whole run in time"
            raise BackendLostError(msg) from error
        # the client does not say that an upload failed for good
        if not shows_end(self.info, self._confirm_seconds):
            msg = "its server does not show that the run ended"
            raise BackendLostError(msg)

    def abandon(self) -> None:
        """Let go of a client that hangs: its process is killed, so that nothing waits for it."""
        kill_client()

    def _send_late(self) -> None:
        """Append the late rows, without letting them decide the summary's last values."""
        if not self._late:
            return
        with lost_when_client_dies():
            self._run.define_metric(TRUE_STEP, summary="none", hidden=True)
        overwritten: dict[str, Any] = {}
        refused: list[str] = []
        for step, time, values in sorted(self._late, key=lambda row: row[:2]):
            self._step += 1
            self._summaries.add(values, step)
            sent, problems = self._send(values, time, true_step=step)
            refused += problems
            for key in sent.keys() & self._latest.keys():
                self._latest[key] = max((step, sent[key]), self._latest[key], key=itemgetter(0))
                overwritten[key] = self._latest[key][1]
        self._late.clear()
        folded = {k: v for k, v in self._summaries.current().items() if k in overwritten}
        overwritten |= folded
        if self.info.resumed:  # what the client folded over earlier segments, too, is better
            overwritten = {k: v for k, v in overwritten.items() if not isinstance(folded.get(k), dict)}
        with lost_when_client_dies():
            self._run.summary.update(overwritten)
        if refused:  # not raised: the end of the run would be tried again
            reporting.warn(f"wandb refused a call: {_first_of(refused)}")


def _left_out(settings: Settings) -> dict[str, Any]:
    """Return the client's settings by which it leaves out what is not to be recorded."""
    omit = settings.omit
    off = {
        "x_disable_stats": not settings.system_interval,
        "x_disable_meta": bool(omit & _META),
        "disable_git": "git" in omit,
        "disable_code": bool(omit & NO_CODE),
    }
    options: dict[str, Any] = {name: True for name, is_off in off.items() if is_off}
    options |= {name: "" for name in ("host", "program") if name in omit}
    if "packages" in omit:
        options["x_save_requirements"] = False
    if settings.console == "off":
        options["console"] = "off"
    if settings.system_interval:
        options["x_stats_sampling_interval"] = max(_MIN_INTERVAL, settings.system_interval)
    return options


def _confirm_seconds(settings: Settings) -> float:
    """Return how much of the time to finish is kept for asking the server."""
    return max(1.0, settings.finish_timeout / 5)


def _shown(value: Value) -> Any:
    """Return what the client takes for a value."""
    if isinstance(value, Histogram):
        bins = value.bins
        return wandb.Histogram(np_histogram=(np.asarray(bins.counts), np.asarray(bins.edges)))
    if isinstance(value, Text):
        return value.text
    return value


def _first_of(refused: Sequence[str]) -> str:
    return refused[0] if len(refused) == 1 else f"{refused[0]}; and {len(refused) - 1} more"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
