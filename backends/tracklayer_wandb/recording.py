"""Recording into Weights & Biases through its public client.

W&B's steps cannot go back: the client drops a call with a lower step.  Such late rows are kept, and sent
at the end, one a step above the highest, with their true step beside them under `tracklayer/step`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, final

import wandb

from tracklayer.errors import (
    BackendLostError,
    BackendUnavailableError,
    RunExistsError,
    RunNotFoundError,
    UnsupportedValueError,
)
from tracklayer.protocol import MetricRule, Resume, RunInfo, Status
from tracklayer.values import Histogram, Text, Value
from tracklayer_wandb.client import forget_failed_start, kill_client, lost_when_client_dies
from tracklayer_wandb.login import quiet_client

if TYPE_CHECKING:
    from tracklayer.artifacts import LoggedArtifact
    from tracklayer.settings import Settings

TRUE_STEP: Final = "tracklayer/step"
"""The key that holds a late row's own step."""
_INIT_SECONDS: Final = 6.0  # with the client's import and start, `init` is done in less than 9
_MAX_LATE_ROWS: Final = 100_000  # what more there is, a push sends


def open_run(info: RunInfo, resume: Resume | None, settings: Settings) -> WandbRun:
    """Start or continue a run on the W&B server.

    Raises:
        RunExistsError, RunNotFoundError: as `resume` demands.
        BackendUnavailableError: the server does not answer, or refuses.
    """
    options: dict[str, Any] = {
        "silent": True,
        "init_timeout": _INIT_SECONDS,
        "finish_timeout": max(0.1, settings.finish_timeout - 1),
        "finish_timeout_raises": True,
    }
    if settings.replaying:  # what the client would find out here is not the run's
        options |= {
            "console": "off",
            "disable_code": True,
            "disable_git": True,
            "x_disable_meta": True,
            "x_disable_stats": True,
            "x_save_requirements": False,
            "x_update_finish_state": info.state != "running",
        }
    quiet_client()
    try:
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
            resume=resume or "never",
            mode="online",
            reinit="create_new",
            settings=wandb.Settings(**options),
        )
    except Exception as error:  # some of the client's errors are of no class of its own
        forget_failed_start()
        message = _first_line(error)
        if isinstance(error, wandb.errors.UsageError):
            if resume == "must":
                raise RunNotFoundError(message) from error
            if resume in {None, "never"} and info.id in message:
                raise RunExistsError(message) from error
        raise BackendUnavailableError(message) from error
    found = replace(info, entity=run.entity, url=run.url, resumed=run.resumed)
    return WandbRun(run, found, replaying=settings.replaying)


@final
class WandbRun:
    """A run of the W&B client."""

    def __init__(self, run: wandb.Run, info: RunInfo, *, replaying: bool) -> None:
        self.info = info
        self._run = run
        self._replaying = replaying
        self._first_step = self._step = run.starting_step
        self._late: list[tuple[int, float, Mapping[str, Value]]] = []
        self._latest: dict[str, Value] = {}
        self._ruled: list[MetricRule] = []

    def log(self, values: Mapping[str, Value], *, step: int, time: float) -> None:
        """Send a row, or keep it for the end where the client would drop it."""
        if step >= self._step:
            self._step = step
            self._latest.update(values)
            self._send(values, step, time)
        elif step < self._first_step and not self._replaying:
            # of a step that an earlier segment may have sent: W&B keeps the first value, and a push,
            # which asks the server, sends what is really missing
            return
        elif len(self._late) >= _MAX_LATE_ROWS:
            msg = f"more than {_MAX_LATE_ROWS} rows came late; `tracklayer push` sends the rest"
            raise UnsupportedValueError(msg)
        else:
            self._late.append((step, time, values))

    def _send(
        self, values: Mapping[str, Value], step: int, time: float, *, complete: bool | None = None
    ) -> None:
        row = {key: _shown(value) for key, value in values.items()}
        row["_timestamp"] = time
        with lost_when_client_dies():
            self._run.log(row, step=step, commit=complete)

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Merge entries into the W&B config."""
        with lost_when_client_dies():
            self._run.config.update(dict(config), allow_val_change=True)

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        """Set entries of the W&B summary."""
        with lost_when_client_dies():
            self._run.summary.update(dict(summary))

    def define_metric(self, rule: MetricRule) -> None:
        """Apply a rule; its goal is not known to the client, and stays in the local record."""
        self._ruled.append(rule)
        with lost_when_client_dies():
            self._run.define_metric(
                rule.pattern,
                step_metric=rule.step_metric,
                summary=",".join(rule.summary) or None,
            )

    def log_artifact(self, artifact: LoggedArtifact) -> None:
        """Log the files as a W&B artifact."""
        sent = wandb.Artifact(
            artifact.name,
            type=artifact.type,
            description=artifact.description,
            metadata=dict(artifact.metadata),
        )
        for file in artifact.files:
            sent.add_file(str(file.source), name=file.path, policy="immutable", skip_cache=True)
        with lost_when_client_dies():
            self._run.log_artifact(sent)

    def commit(self) -> None:
        """Leave it to the client, which sends when it sees fit."""

    def finish(self, status: Status) -> None:
        """Send the late rows, and wait until the server has everything.

        Raises:
            BackendLostError: it had not in time; what is missing is left to a push.
        """
        self._send_late()
        exit_code = status.exit_code or int(status.state in {"failed", "crashed"})
        try:
            with lost_when_client_dies():
                self._run.finish(exit_code=exit_code)
        except TimeoutError as error:
            msg = "its server did not confirm the whole run in time"
            raise BackendLostError(msg) from error

    def abandon(self) -> None:
        """Let go of a client that hangs: its process is killed, so that nothing waits for it."""
        kill_client()

    def _send_late(self) -> None:
        """Append the late rows, without letting them decide the summary's last values."""
        if not self._late:
            return
        with lost_when_client_dies():
            self._run.define_metric(TRUE_STEP, summary="none", hidden=True)
        overwritten: dict[str, Value] = {}
        for step, time, values in sorted(self._late, key=lambda row: row[:2]):
            self._step += 1
            self._send({**values, TRUE_STEP: step}, self._step, time, complete=True)
            overwritten.update({k: self._latest[k] for k in values if k in self._latest})
        for key, value in overwritten.items():
            if not any(rule.summary and rule.matches(key) for rule in self._ruled):
                with lost_when_client_dies():
                    self._run.summary[key] = _shown(value)
        self._late.clear()


def _shown(value: Value) -> Any:
    """Return what the client takes for a value."""
    if isinstance(value, Histogram):
        return wandb.Histogram(np_histogram=(list(value.bins.counts), list(value.bins.edges)))
    if isinstance(value, Text):
        return value.text
    return value


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
