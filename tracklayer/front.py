"""What training code holds: the front that adds comfort to a `Run`.

Auto-steps, nested mappings, `config` and `summary` objects and the context manager live here; the
protocol begins behind it.  The front is a `Run` itself, so that a recorded run can be replayed into it.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from time import monotonic
from time import time as now
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Never, Self, final

from tracklayer import reporting
from tracklayer.alerting import Alerts
from tracklayer.alerts.rules import RuleWatch
from tracklayer.alerts.sending import AlertSender
from tracklayer.artifacts.front import ArtifactFront
from tracklayer.artifacts.recording import RunArtifacts
from tracklayer.configuration import Config, Summary
from tracklayer.encoder import Encoder
from tracklayer.ending import finish_queues, wait_for_taps
from tracklayer.errors import RunFinishedError, StoreError, UnsupportedValueError
from tracklayer.fanout import FanOut
from tracklayer.forking import tell_children
from tracklayer.identity import RunIdentity
from tracklayer.lifecycle import exit_code_of
from tracklayer.observing import Observers
from tracklayer.porting import refuse, tells_what_is_absent
from tracklayer.protocol import MetricRule, Run, RunInfo, Status
from tracklayer.queue import LARGE_ROW, Queue, row_size
from tracklayer.rows import MediaValues, RichValues
from tracklayer.series import series
from tracklayer.settings import NO_BACKEND
from tracklayer.snapshots import snapshot
from tracklayer.steps import checked_step, checked_time
from tracklayer.summaries import MetricSummaries, metric_rule
from tracklayer.values import SCALAR_TYPES, Text
from tracklayer.watching import NonFinite, NonFiniteWatch

if TYPE_CHECKING:
    from datetime import timedelta

    from tracklayer.alerts.alert import Alert, AlertLevel
    from tracklayer.alerts.rules import Rule
    from tracklayer.jax.models import WatchedModels
    from tracklayer.reading import RunReader
    from tracklayer.rows import QueuedRow, Series
    from tracklayer.settings import Settings

_MAX_KEY_SETS: Final = 4096  # a program with ever new keys must not fill the memory with them


@final
class _Gate:
    """Stands for a queue where `log` looks for one that has room.

    Open, it is for several queues, each of which looks for room itself; shut, `log` takes its long way.
    """

    items = ()

    def __init__(self, *, is_open: bool) -> None:
        self.room = int(is_open)


@final
@tells_what_is_absent("Run")
class ActiveRun(RunIdentity, ArtifactFront):
    """A run that is being recorded; made by `tracklayer.init`, not by hand.

    Attributes:
        config: items, attributes and `update`; recorded at once.
        summary: the metrics by their rules, and what is set by hand.
    """

    def __init__(
        self,
        info: RunInfo,
        queues: list[Queue],
        summaries: MetricSummaries,
        settings: Settings,
        on_finish: Callable[[ActiveRun], None],
        recorded: Callable[[], RunReader | None] = lambda: None,
        watch: NonFiniteWatch | None = None,
        rules: RuleWatch | None = None,
        sweep_id: str | None = None,
    ) -> None:
        self._info = info
        self._queues = queues
        self._sink: Run = queues[0] if len(queues) == 1 else FanOut(queues)
        self._put = queues[0].put if len(queues) == 1 else self._put_each
        # with one queue, `log` itself looks whether there is room, and appends to what waits
        self._gate: Queue | _Gate = queues[0] if len(queues) == 1 else _Gate(is_open=True)
        self._append = queues[0].items.append if len(queues) == 1 else self._put_each
        self._is_plain = SCALAR_TYPES.issuperset
        self._keys: object = None
        """The keys of the last row that did not take the short way, and could have."""
        self._key_sets: set[tuple[str, ...]] = set()
        """The keys of all such rows."""
        self._newest: float = -1
        """The highest step so far: above it `log` takes its short way.  Infinite once nothing more is
        recorded."""
        self._closed = -1
        """The last step that a call without a step completed."""
        self._lock = threading.RLock()
        self._stop: tuple[str, Exception] | None = None
        """What `log` raises, and with which key."""
        self._sweep_id = sweep_id
        self._settings = settings
        self._on_finish = on_finish
        self._finished = False
        self._ended = False
        self._status = Status()
        self._inherited = False
        self._summaries = summaries
        self._recorded = recorded
        self._watch = watch or NonFiniteWatch()
        self._encoder = Encoder()
        self.config = Config(self._sink.update_config)
        self.summary = Summary(self._sink.update_summary, self._metric_summaries)
        sender = AlertSender(settings.alert_command, settings.alert_url)
        self._alerts = Alerts(
            lambda: self.info, self._record_alert, self._show_alert, sender, rules or RuleWatch()
        )
        self._artifacts = RunArtifacts(info, settings, self._sink)
        self._watched: WatchedModels | None = None
        self._observers = Observers(
            queues,
            lambda artifact: self._artifacts.log(artifact, None, wait=False),
            info.project,
            settings,
            now(),
            lambda: self.step,
        )
        tell_children(self)

    # -- where it is -------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """The step that `log` uses next when it is given none."""
        newest = self._final_step if self._newest == math.inf else int(self._newest)
        return newest + 1 if newest == self._closed else newest

    @property
    def nonfinite(self) -> NonFinite | None:
        """The first row with values that are NaN or infinite, among those that were recorded so far.

        It is also reported once on stderr.  Asking waits for nothing, so a loop may stop on it.
        """
        return self._watch.found

    # -- logging ----------------------------------------------------------------------------------

    def log(
        self,
        data: Mapping[str, Any],
        step: int | None = None,
        commit: bool | None = None,  # noqa: FBT001 - W&B's signature
        *,
        time: float | None = None,
    ) -> None:
        """Record values at a step; never waits for a disk, a network or a device.

        Images, tables and other media are encoded on a thread of their own: only where 256 MB of them wait
        for that does the call wait for room.

        Args:
            data: numbers, strings, histograms, images, tables and the other kinds of value, by key;
                nested mappings become `a/b` keys.  They are those at the call, whatever becomes of them.
            step: any order is accepted; without it, steps count up by one for each call.
            commit: False keeps the step open, so that a later call without a step adds to it; True
                closes a step that was given.
            time: Unix seconds; by default, now.

        Raises:
            UnsupportedValueError: a key, a value or the step is of a type that cannot be logged; what
                else the row holds is recorded first.
            UsageError: a negative step.
            RunFinishedError: the run was finished.
            TrialPruned: the row holds the metric of a sweep, and the trial is to end early.
        """
        if (
            step.__class__ is int
            and step > self._newest  # pyright: ignore[reportOptionalOperand] - an int: see the line above
            and data.__class__ is dict
            and commit is None
            and time is None
            and (data.keys() == self._keys or tuple(data) in self._key_sets)
            and self._is_plain(map(type, data.values()))
        ):
            gate = self._gate
            if len(gate.items) < gate.room:
                self._newest = step  # pyright: ignore[reportAttributeAccessIssue] - as above
                self._append((step, now(), data.copy()))  # pyright: ignore - an int and a dict: see above
                return
        if self._watched is not None and time is None:  # a row that has its time is a replay's, or a tap's
            data = self._watched.beside(data)
        self._log_any(data, step, commit, now() if time is None else checked_time(time))

    def _log_any(self, values: Mapping[str, Any], step: Any, commit: bool | None, time: float) -> None:  # noqa: FBT001 - what `log` was given
        if not self._check_open("log"):
            return
        if not isinstance(values, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
            msg = f"log takes a mapping of keys to values, not a {type(values).__name__}"
            raise UnsupportedValueError(msg)
        taken, error = snapshot(values)
        if error is None and isinstance(taken, dict) and taken and row_size(taken) <= LARGE_ROW:
            self._keys = taken.keys()
            if len(self._key_sets) < _MAX_KEY_SETS:
                self._key_sets.add(tuple(taken))
        at = self._place(step, commit)
        if isinstance(taken, RichValues) and taken.media is not None:
            self._put_media(at, time, taken, taken.media)
        elif taken:
            self._put((at, time, taken))
        self._raise_stop(taken)
        if error is not None:
            raise error

    def stop_at(self, key: str, error: Exception) -> None:
        """Have every row that holds a key raise from now on, once it is recorded; called from any thread."""
        self._stop = key, error
        self._gate = _Gate(is_open=False)

    def _raise_stop(self, row: dict[str, Any] | RichValues | Series) -> None:
        if self._stop is not None and self._stop[0] in row:
            self.summary["pruned"] = True
            raise self._stop[1].with_traceback(None)  # it may be raised many times

    def _put_media(self, step: int, time: float, row: RichValues, media: MediaValues) -> None:
        """Pass on a row with media: the rest of it at once, but where rows must stay in order."""
        rest = row.without_media()
        for queue in self._queues:
            if rest is not None and not queue.in_order:
                queue.put((step, time, rest))
        if self._settings.backends == (NO_BACKEND,):
            return  # nobody would see them

        def pass_on(encoded: Mapping[str, Any]) -> None:
            for queue in self._queues:
                if queue.in_order:
                    queue.hold(media.encoded_size)
                else:
                    queue.prepare(encoded)
                    queue.put((step, time, RichValues(encoded)))

        self._encoder.put(media, pass_on)
        for queue in self._queues:
            if queue.in_order:  # after the encoder has them: it is waited for with the row
                queue.put((step, time, row))

    def log_series(
        self,
        values: Mapping[str, Any],
        steps: Any = None,
        *,
        time: float | None = None,
    ) -> None:
        """Record the values of many steps at once, such as `lax.scan` returns; waits for nothing.

        Args:
            values: arrays (numpy, jax, lists) of shape (steps,) by key; nested mappings become `a/b` keys.
                Of shape (steps, seeds), they become a series for each seed, `a/seed_0` and so on.
            steps: integers of shape (steps,), in any order; without them, steps count up as in `log`.
                Those that are on a device leave the count for calls without steps as it is.
            time: Unix seconds, of all rows; by default, now.

        Raises:
            UnsupportedValueError: a key, a value or the steps cannot be logged, or are not as many as the
                others; what else there is is recorded first.
            UsageError: a negative step.
            RunFinishedError: the run was finished.
            TrialPruned: the values hold the metric of a sweep, and the trial is to end early.
        """
        if not self._check_open("log_series"):
            return
        if not isinstance(values, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
            msg = f"log_series takes a mapping of keys to arrays, not a {type(values).__name__}"
            raise UnsupportedValueError(msg)
        at_time = now() if time is None else checked_time(time)
        taken, error = series(values, steps)
        with self._lock:
            first = self.step
            if steps is None and taken.count:
                self._newest = self._closed = first + taken.count - 1
            elif taken.last_step is not None:
                self._newest = max(self._newest, taken.last_step)
        if taken.count:
            self._put((first, at_time, taken))
        self._raise_stop(taken)
        if error is not None:
            raise error

    def _put_each(self, row: QueuedRow) -> None:
        for queue in self._queues:
            queue.put(row)

    def _place(self, step: Any, commit: bool | None) -> int:  # noqa: FBT001 - what `log` was given
        """Return the step of a row, and advance as W&B does."""
        with self._lock:
            if step is None:
                at, closes = self.step, commit is not False
            else:
                at, closes = checked_step(step), bool(commit)
            if at >= self._newest:
                self._newest = at
                if closes:
                    self._closed = at
            return at

    def define_metric(
        self,
        name: str | MetricRule,
        step_metric: str | None = None,
        *,
        summary: str | Iterable[str] | None = None,
        goal: str | None = None,
        overwrite: bool | None = None,
        **others: Never,
    ) -> None:
        """Say how metrics are summarised and drawn.

        Args:
            name: a key, or a prefix followed by `*`.
            step_metric: the key that is this metric's x-axis.
            summary: `"min"`, `"max"`, `"mean"`, `"last"`, `"none"`, or several; the summary is then
                nested, `{"loss": {"min": 1}}`.
            goal: `"minimize"` or `"maximize"`.
            overwrite: forget what an earlier rule of this name said, and this one does not.
            others: wandb's further arguments; what they ask for is refused.

        Raises:
            UsageError: a rule that makes no sense.
        """
        if not self._check_open("define_metric"):
            return
        refuse("define_metric", others)
        if isinstance(name, MetricRule):
            rule = name
        else:
            rule = metric_rule(name, summary, step_metric, goal)
            rule = rule if overwrite else self._summaries.completed(rule)
        self._summaries.define(rule)
        for queue in self._queues:
            queue.define_metric(rule)

    def alert(
        self,
        title: str,
        text: str,
        level: AlertLevel | str | None = None,
        wait_duration: float | timedelta | None = None,
    ) -> None:
        """Record a text under `alert/<title>`, and tell it: on stderr, and by W&B where that records.

        It is also given, as JSON on standard input, to the command that `TRACKLAYER_ALERT_COMMAND` names, and
        posted to `TRACKLAYER_ALERT_URL`; see `tracklayer.alerts.sending`.  The call waits for neither.

        Args:
            title: what it is about.
            text: what has happened.
            level: `INFO`, the default, `WARN` or `ERROR`.
            wait_duration: seconds for which no other alert of that title is told, 60 by default; each is
                recorded.

        Raises:
            UsageError: there is no such level.
        """
        if self._check_open("alert") and not self.disabled:
            self._alerts.alert(title, text, level, wait_duration)

    def alert_when(
        self,
        *rules: Rule,
        level: AlertLevel | str = "WARN",
        wait_duration: float | timedelta | None = None,
    ) -> None:
        """Alert, as `alert` does, whenever one of these rules comes to hold; training waits for nothing.

        Args:
            rules: of `tracklayer.alerts`: `NotFinite("train/loss")`, `NoImprovement("val/loss", steps=5000)`,
                `NoRows(minutes=10)`.
            level: `INFO`, `WARN`, the default, or `ERROR`.
            wait_duration: seconds for which a rule that was told is neither told nor recorded again, 60 by
                default.

        Raises:
            UsageError: something is no rule, or there is no such level.
        """
        if self._check_open("alert_when") and not self.disabled:
            for rule in rules:
                self._alerts.watch(rule, level, wait_duration)

    def mark_preempting(self) -> None:
        """Record that the process is about to be ended from outside: its job is preempted.

        W&B, where it records, shows the run as preempted if it then fails.  The signals by which that mostly
        comes are recorded by themselves.
        """
        if self._check_open("mark_preempting"):
            self._observers.record_preemption("mark_preempting")
            for queue in self._queues:
                queue.mark_preempting("mark_preempting")

    def _record_alert(self, alert: Alert) -> None:
        """Record an alert where `log` without a step would; called from any thread."""
        if not self._finished:
            self._put((self.step, alert.time, RichValues({f"alert/{alert.title}": Text(str(alert))})))

    def _show_alert(self, alert: Alert) -> None:
        for queue in self._queues:
            queue.alert(alert)

    def watch(
        self,
        models: Any,
        *,
        log: str = "parameters",
        log_freq: int = 1000,
        idx: int | None = None,
        **others: Never,
    ) -> None:
        """Have every so many calls of `log` add histograms of models' parameters to their row.

        They are counted on the device, without waiting, under `parameters/<path>`; those of further models
        under `parameters_1/<path>`, and so on.  Rows of `log_series`, `tracklayer.jax.log` and replays are
        left as they are.

        Args:
            models: a module of Flax NNX, or several.
            log: only `"parameters"`: gradients are to be handed over, to `tracklayer.jax.stats` or
                `histograms`, and logged.
            log_freq: how many calls of `log` there are from one to the next; the first has them.
            idx: the number of the first model; by default, how many are watched already.
            others: wandb's further arguments; what they ask for is refused.

        Raises:
            UsageError: an argument that cannot be had here.
            UnsupportedValueError: a model is no module of Flax NNX.
        """
        refuse("watch", others)
        if not self._check_open("watch"):
            return
        from tracklayer.jax.models import WatchedModels

        watched = self._watched or WatchedModels()
        watched.add(models, log, log_freq, idx)
        self._watched = watched
        self._is_plain = _never  # each call of `log` takes its long way

    def unwatch(self, models: Any = None) -> None:
        """Watch models no more; all of them, if none are given."""
        if self._watched is not None:
            self._watched.remove(models)
            if not self._watched:
                self._watched = None
                self._is_plain = SCALAR_TYPES.issuperset

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Merge entries into the config."""
        self.config.update(config)

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        """Set summary entries."""
        self.summary.update(summary)

    def _metric_summaries(self) -> dict[str, Any]:
        whole = self._finished or self._queues[0].catch_up(self._settings.start_timeout)
        entries = self._summaries.current()
        if whole and not self._summaries.is_exact and not self._inherited:
            try:
                reader = self._recorded()
                return entries if reader is None else reader.summary
            except StoreError as error:
                reporting.inform(f"run {self.id}: the summary is that of this process: {error}")
        return entries

    # -- ending -----------------------------------------------------------------------------------

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until what was logged so far is durable; say whether it is.

        A backend that was lost, or whose server is away, makes it False; local ones that can record are
        waited for all the same.  So are, however long they take, the programs that this thread started and
        that log by `tracklayer.jax.log`.
        """
        if not self._check_open("flush"):
            return False
        wait_for_taps()
        deadline = monotonic() + timeout
        encoded = self._encoder.flush(timeout)
        flushed = [queue.flush(max(0.0, deadline - monotonic())) for queue in self._queues]
        return encoded and all(flushed)

    def commit(self) -> None:
        """Flush: the protocol's word for it."""
        self.flush()

    def finish(self, exit_code: Status | int | None = None) -> None:
        """Record everything and end the run.

        Waits for the programs that this thread started and that log by `tracklayer.jax.log`.  A second call
        changes nothing.  Where the first was interrupted, by Ctrl-C or a signal, it goes on
        waiting for the end.

        Args:
            exit_code: how it ended; another than 0 means failed.
        """
        if not self._finished and not self._inherited:
            wait_for_taps(at_end=True)
            self._observers.stop()
            self._artifacts.finish()
            self._alerts.finish(self._queues[0].flush)
        if self._inherited:
            self._finished = True
        elif not self._finished:
            if isinstance(exit_code, Status):
                self._status = exit_code
            else:
                code = int(exit_code or 0)
                self._status = Status("failed" if code else "finished", code)
            self._finished = True
            self._stop_taking()
        if not self._ended and not self._inherited:
            self._encoder.finish()
            finish_queues(self._queues, self._status)
            self._ended = True
            self._info = replace(
                self._info,
                state=self._status.state,
                exit_code=self._status.exit_code,
                finished_at=now(),
            )
            self._on_finish(self)

    def __enter__(self) -> Self:
        """Return the run itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the run: as failed after an exception, `sys.exit(0)` apart."""
        self.finish(exit_code_of(error))

    def __repr__(self) -> str:
        """Name the run."""
        return f"<tracklayer run {self.id} ({self.name}) of {self.project}>"

    # -- states in which nothing is recorded ------------------------------------------------------

    def continue_from(self, reader: RunReader) -> None:
        """Go on where earlier segments of the run ended."""
        self.config.restore(reader.config)
        self._summaries.continue_from(reader)
        self.summary.restore(reader.explicit_summary)
        self._newest = self._closed = reader.last_step

    def start_observing(self) -> None:
        """Begin to record what this process is, prints and measures."""
        self._observers.start()

    def record_signal(self, name: str) -> None:
        """Record which signal ends this process, before `finish`."""
        self._observers.record_preemption(name)

    def after_fork_in_child(self) -> None:
        """Record nothing here: the run is the parent's."""
        self._inherited = True
        self._artifacts.after_fork_in_child()
        self._lock = threading.RLock()
        self._stop_taking()

    def _stop_taking(self) -> None:
        if self._newest != math.inf:
            self._final_step, self._newest = int(self._newest), math.inf

    def _check_open(self, method: str) -> bool:
        """Say whether calls are recorded; raise after `finish`, and warn once in a forked child."""
        if self._inherited:
            if not self._finished:
                self._finished = True
                reporting.warn(
                    f"run {self.id} belongs to the parent process: what this forked process "
                    f"({os.getpid()}) logs is not recorded. Call tracklayer.init here for a run of its "
                    "own, in the same group"
                )
            return False
        if self._finished:
            msg = f"{method}: run {self.id} is finished; call tracklayer.init for another one"
            raise RunFinishedError(msg)
        return True


def _never(_: object) -> bool:
    return False
