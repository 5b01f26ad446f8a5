"""`init`: from arguments and environment to a run that records."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from time import time as now
from typing import Any, Final, Never, cast

from tracklayer import arguments, lifecycle, naming, registry, reporting
from tracklayer.agreeing import Agreement
from tracklayer.alerts.rules import RuleWatch
from tracklayer.artifacts.locations import locate
from tracklayer.configuration import laid_over
from tracklayer.errors import (
    BackendUnavailableError,
    RunExistsError,
    RunInUseError,
    RunNotFoundError,
    TracklayerError,
    UsageError,
)
from tracklayer.front import ActiveRun
from tracklayer.porting import refuse
from tracklayer.protocol import Backend, Resume, Run, RunInfo, Status
from tracklayer.queue import Queue
from tracklayer.reading import RunReader
from tracklayer.rows import ReadyRow
from tracklayer.settings import (
    DEFAULT_PROJECT,
    LOCAL_BACKEND,
    NO_BACKEND,
    Settings,
    read_settings,
    wandb_default,
)
from tracklayer.summaries import MetricSummaries
from tracklayer.sweeps.current import Trial, current_trial, settled
from tracklayer.watching import NonFiniteWatch

_RESUMES: Final = (None, "allow", "must", "never", "auto")
_REINITS: Final = (None, "default", "finish_previous", "return_previous", "create_new")
_NOTHING_TO_KEEP: Final = 1.0
"""Seconds that `finish` waits for a device, for the summary's sake, in a process that does not record."""
# errors of the call itself: whoever made it is there to mend it, and nothing is recorded yet
_CALL_ERRORS: Final = (UsageError, RunExistsError, RunInUseError, RunNotFoundError)


def init(
    project: str | None = None,
    *,
    entity: str | None = None,
    name: str | None = None,
    config: Any = None,
    config_exclude_keys: Collection[str] | None = None,
    config_include_keys: Collection[str] | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: Iterable[str] | str | None = None,
    notes: str | None = None,
    id: str | None = None,  # noqa: A002 - W&B's name for it
    resume: str | bool | None = None,
    mode: str | None = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 - W&B's name for it
    backend: str | Iterable[str] | None = None,
    reinit: str | bool | None = None,
    settings: arguments.Settings | Mapping[str, Any] | None = None,
    save_code: bool | None = None,
    per_process: bool = False,
    **others: Never,
) -> ActiveRun:
    """Start a run, or continue one, and make it the current run.

    Where `jax.distributed` is initialized, each process calls it: process 0 records, and the others get a
    run with the same id that does as much and records nothing.  No process waits for another, but for
    what process 0 finds to resume, for 18 s at most.

    In a trial of a sweep, the run is of the sweep's project, entity and store, unless those are given, and of
    the group that its id names.  The first run is the trial's own: what it logs of the sweep's metric, and
    how it ends, is what the sweep goes by.  Others belong to the group, and are of no account to the sweep.

    Args:
        project: what groups runs; `"uncategorized"` by default.
        entity: W&B's user or team.
        name: for people; the id by default.
        config: hyperparameters: a mapping, dataclass or namespace, nested as it is.  In a trial of a sweep,
            its parameters win over these, nested ones too, and over what `run.config` is told later.
        config_exclude_keys: what of the config is left out.
        config_include_keys: what alone of it is taken.
        group: what groups runs within a project.
        job_type: what a run of a group does, such as `"train"`.
        tags: each 1 to 64 characters.
        notes: free text.
        id: what names the run for ever; random by default.
        resume: `"allow"` continues the run `id` if it is recorded, `"must"` demands that, `"never"` that
            it is new, which is also the default; `"auto"` (or True) continues the newest run of this
            project, name, group and job type that failed or crashed, else starts one.  In a trial of a
            sweep that is the run of the trial's last attempt, if its process died.
        mode: W&B's: `"online"`, `"offline"`, `"disabled"`.
        dir: the store's folder; `TRACKLAYER_DIR`, else `.tracklayer`.
        backend: where to record: names, as a list or with commas; `TRACKLAYER_BACKEND`, else `sqlite`.
        reinit: when a run is open: `"finish_previous"` (the default, also True), `"return_previous"`
            (also False), or `"create_new"`, beside it and without becoming the current run.
        settings: W&B's object with some of this, over which the other arguments win.
        save_code: whether the program and its local imports are recorded as an artifact; what
            `TRACKLAYER_SAVE_CODE` says, else not.
        per_process: each process records a run of its own: `<id>-<index>`, named `<name>-<index>` if a
            name is given, all in one group, which is called by the shared id if it is given no name.  A
            program of one process has one such run, with index 0, so that it is the same on a laptop.
        others: wandb's further arguments; what they ask for is refused, with what to do instead.

    Raises:
        UsageError: an argument or a setting that cannot be right.
        RunExistsError: the id is recorded, and `resume` does not allow to continue it.
        RunNotFoundError: nothing to resume, with `resume="must"`.
        RunInUseError: another live process records this run.
        TrialLostError: this process's trial of a sweep is tried again by another one.
        BackendUnavailableError: no backend can record; or a hosted one cannot, with
            `TRACKLAYER_FALLBACK=error`.
        StoreError: the store cannot be written.
    """
    refuse("init", others)
    told = arguments.Settings.of(settings)
    default = told.default
    recording = told.applied_to(
        read_settings(backend=backend, dir=dir or told.root_dir, mode=mode or told.mode)
    )
    if save_code is not None:
        recording = replace(recording, save_code=save_code)
    trial = current_trial(recording.backends)
    if trial.store is not None and not (dir or told.root_dir):
        recording = replace(recording, dir=trial.store)
    locate(
        recording.artifacts, recording.dir
    )  # one that cannot be is to be mended before anything is recorded
    id, project, entity = settled(trial, id, project, entity)  # noqa: A001 - see above
    # a server that hands out a trial again wants it continued
    resuming = _checked_resume(resume or default("resume", trial.run_id and "allow"))
    reinit = _checked_reinit(told.reinit if reinit is None else reinit)
    if tags is None:
        tags = told.run_tags if told.run_tags is not None else (wandb_default("tags") or "").split(",")
    run_id = id or default("id")
    if trial.sweep_id is not None and resuming == "auto" and not run_id:
        run_id = trial.previous_run  # and no other trial's
        resuming = "allow" if run_id else None
    info = RunInfo(
        id=naming.check_run_id(run_id) if run_id else naming.new_run_id(),
        project=naming.check_project(project or default("project", trial.project) or DEFAULT_PROJECT),
        name=naming.check_name("name", name or default("name")) or "",
        entity=naming.check_name("entity", entity or default("entity", trial.entity)),
        group=naming.check_name("group", group or default("group", trial.group)),
        job_type=naming.check_name("job type", job_type or default("job_type")),
        tags=naming.check_tags([tags] if isinstance(tags, str) else [t for t in tags if t != ""]),
        notes=default("notes") if notes is None else notes,
        created_at=now(),
    )
    config = arguments.chosen_config(config, config_include_keys, config_exclude_keys)
    previous = lifecycle.open_run()
    if previous is not None and reinit == "return_previous":
        return previous
    agreement = Agreement(info, resuming, has_id=run_id is not None, per_process=per_process)
    if previous is not None and reinit != "create_new":
        reporting.warn(
            f"init: run {previous.id} was still open, and is finished now; for a run within a run, "
            'pass reinit="create_new"'
        )
        previous.finish()
    run = _open_here(recording, agreement, resuming, trial)
    lifecycle.opened(run, current=reinit != "create_new")
    run.config.update(laid_over(config, trial.parameters, []))
    run.config.hold(trial.parameters)
    run.start_observing()
    return run


def _open_here(settings: Settings, agreement: Agreement, resume: str | None, trial: Trial) -> ActiveRun:
    """Open the run of this process: process 0 decides, the others follow."""
    if agreement.index == 0:
        try:
            opening = _Opening(settings, agreement, trial)
            run = opening.open(resume)
            agreement.tell(run.info, opening.continued)
        except Exception as error:
            agreement.tell_failure(error)
            raise
        return run
    for name in settings.backends:
        with suppress(BackendUnavailableError):
            registry.load(name)  # an unknown one is an error in every process
    # process 0 may take its time to come to it, and as much to open
    outcome = agreement.outcome(2 * settings.start_timeout)
    if agreement.records:
        return _Opening(settings, agreement, trial).open(resume)
    settings = replace(settings, backends=(NO_BACKEND,), finish_timeout=_NOTHING_TO_KEEP)
    run = _Opening(settings, agreement, trial).open(None)
    if outcome is not None:
        run.config.restore(outcome.config)
        run.summary.restore(outcome.summary)
        if outcome.last_step >= 0:
            run.log(outcome.metrics, step=outcome.last_step, commit=True)
    return run


class _Opening:
    """Opens the chosen backends, and decides what the failure of one means.

    Attributes:
        continued: what the run's earlier segments recorded.
    """

    def __init__(self, settings: Settings, agreement: Agreement, trial: Trial) -> None:
        self.continued: RunReader | None = None
        self._settings = settings
        self._agreement = agreement
        self._trial = trial
        self._info = agreement.info
        self._deadline = monotonic() + settings.start_timeout
        self._summaries = MetricSummaries()
        self._watch = NonFiniteWatch()
        self._rules = RuleWatch()
        self._queues: list[Queue] = []
        self._errors: list[BaseException] = []

    def open(self, resume: str | None) -> ActiveRun:
        backends = self._chosen()
        stores = [backend for backend in backends if backend.open_store]
        try:
            self._open_stores(stores, resume)
            if self._info.resumed or resume == "auto":
                resume = "allow"  # what the store has may not have reached the others
            others = [backend for backend in backends if not backend.open_store]
            started = [(b, self._start(b, cast("Resume | None", resume))) for b in others]
            for backend, queue in started:
                self._wait(backend, queue)
            if not self._queues:
                raise self._errors[0]  # noqa: TRY301 - the queues are finished below, whoever raised
            return self._active(stores)
        except BaseException:
            for queue in self._queues:
                queue.finish(Status("failed", 1))
            raise

    def _open_stores(self, stores: Sequence[Backend], resume: str | None) -> None:
        while True:
            chosen = self._continue_newest(stores) if resume == "auto" else resume
            try:
                for backend in stores:
                    companion = backend.name not in self._settings.backends
                    lenient = "allow" if companion and chosen == "must" else chosen
                    self._wait(backend, self._start(backend, cast("Resume | None", lenient)))
            except RunInUseError:
                if resume != "auto" or self._agreement.has_id:
                    raise
                # another task of a job array continued that run just now: there may be one more
            else:
                return

    def _active(self, stores: Sequence[Backend]) -> ActiveRun:
        self._info = replace(self._info, name=self._info.name or self._info.id)

        def recorded() -> RunReader | None:
            if not stores or stores[0].open_store is None:
                return None
            return stores[0].open_store(self._settings.dir).find(self._info.id)

        if self._settings.backends != (NO_BACKEND,):
            self._watch.tell(self._info.id)
        self.continued = recorded() if self._info.resumed else None

        def stop(key: str, error: Exception) -> None:
            run.stop_at(key, error)

        self._tell_trial(stop)
        run = ActiveRun(
            self._info,
            self._queues,
            self._summaries,
            self._settings,
            lifecycle.finished,
            recorded,
            self._watch,
            self._rules,
            self._trial.sweep_id,
        )
        if self.continued is not None:
            run.continue_from(self.continued)
        return run

    def _tell_trial(self, stop: Callable[[str, Exception], None]) -> None:
        """Have the trial of a sweep get what the run logs, if it is the trial's own."""
        if self._trial.watch is None or self._agreement.index > 0:
            return
        watching = self._trial.watch(self._info, stop, self.continued)
        if watching is None:
            return
        queue = Queue(
            f"sweep {self._trial.sweep_id}",
            self._info,
            lambda: watching,
            remedy="its trial is tried again once this process has ended",
            hosted=True,  # nothing of training is to wait for it
            commit_interval=self._settings.commit_interval,
            limit_bytes=self._settings.queue_bytes,
            finish_timeout=self._settings.finish_timeout,
            comes_last=True,
        )
        self._queues.append(queue)
        with suppress(TimeoutError):  # it opens at once
            queue.wait_open(self._settings.start_timeout)

    def _chosen(self) -> list[Backend]:
        """Return the backends, stores first, with a local record beside hosted ones."""
        backends: list[Backend] = []
        for name in self._settings.backends:
            try:
                backend = registry.load(name)
            except BackendUnavailableError as error:
                self._failed(name, error)
            else:
                if not (self._settings.offline and backend.hosted):
                    backends.append(backend)
        if not any(b.open_store for b in backends) and (not backends or any(b.hosted for b in backends)):
            backends.append(registry.load(LOCAL_BACKEND))
        return sorted(backends, key=lambda backend: (backend.open_store is None, backend.hosted))

    def _continue_newest(self, stores: Sequence[Backend]) -> str | None:
        """Make the newest run that ended badly, and is like this one, the run to open."""
        if self._agreement.has_id or not stores or stores[0].open_store is None:
            return "allow"
        store = stores[0].open_store(self._settings.dir)
        wanted = self._info = self._agreement.info
        for reader in reversed(store.runs(project=wanted.project)):
            info = reader.info
            continuing = self._agreement.continuing(info)
            if (
                continuing is not None
                and info.state in {"crashed", "failed"}
                and wanted.name in {"", info.name}
                and wanted.job_type in {None, info.job_type}
            ):
                self._info = continuing
                return "allow"
        return None

    def _start(self, backend: Backend, resume: Resume | None) -> Queue:
        info = self._info

        def open_run() -> Run:
            backend.check()
            # a store knows the name that a continued run has
            named = info if backend.open_store else replace(info, name=info.name or info.id)
            run = backend.open(named, resume, self._settings)
            lifecycle.exit_before_others()  # a client may just have registered a hook of its own
            return run

        first = not self._queues and not backend.hosted
        queue = Queue(
            backend.name,
            info,
            open_run,
            kinds=backend.kinds,
            observe=self._observe if first else None,
            remedy=f"`tracklayer push {info.id}` sends the rest" if backend.hosted else "",
            # what records nothing has nothing to keep, and waits for no room and no device
            hosted=backend.hosted or not self._agreement.records,
            in_order=backend.in_order,
            commit_interval=self._settings.commit_interval,
            limit_bytes=self._settings.queue_bytes,
            finish_timeout=self._settings.finish_timeout,
        )
        self._queues.append(queue)
        return queue

    def _observe(self, rows: Sequence[ReadyRow]) -> None:
        self._summaries.add_rows(rows)
        self._watch.add_rows(rows)
        self._rules.add_rows(rows)

    def _wait(self, backend: Backend, queue: Queue) -> None:
        try:
            error = queue.wait_open(self._deadline - monotonic())
        except TimeoutError:
            self._late(backend)
            return
        if error is None:
            if backend.open_store is not None:
                self._info = queue.info
            return
        self._queues.remove(queue)
        if isinstance(error, _CALL_ERRORS) and not backend.hosted:
            raise error
        if not isinstance(error, TracklayerError | OSError):
            error = BackendUnavailableError(f"{backend.name} failed to start: {error!r}")
        self._failed(backend.name, error, hosted=backend.hosted)

    def _late(self, backend: Backend) -> None:
        message = f"{backend.name} has not answered within {self._settings.start_timeout:.0f} s"
        if backend.hosted and self._settings.fallback == "error":
            raise BackendUnavailableError(message)
        reporting.warn(f"{message}; training goes on{self._consolation(hosted=backend.hosted)}")

    def _failed(self, name: str, error: BaseException, *, hosted: bool = False) -> None:
        if hosted and self._settings.fallback == "error":
            msg = f"{name} cannot be used ({error}), and TRACKLAYER_FALLBACK=error"
            raise BackendUnavailableError(msg) from error
        self._errors.append(error)
        others = [n for n in self._settings.backends if n != name]
        if hosted or others:
            reporting.warn(f"{name} is not recording: {error}{self._consolation(hosted=hosted)}")

    def _consolation(self, *, hosted: bool) -> str:
        if not hosted:
            return ""
        return (
            f". The run is recorded in {self._settings.dir}; `tracklayer push {self._info.id}` will "
            "send what is missing"
        )


def _checked_resume(resume: str | bool | None) -> str | None:  # noqa: FBT001 - what `init` was given
    chosen = "auto" if resume is True else resume or None
    if chosen not in _RESUMES:
        msg = f"resume={resume!r}: use 'allow', 'must', 'never' or 'auto'"
        raise UsageError(msg)
    return chosen


def _checked_reinit(reinit: str | bool | None) -> str | None:  # noqa: FBT001 - what `init` was given
    words = {True: "finish_previous", False: "return_previous"}
    chosen = words[reinit] if isinstance(reinit, bool) else reinit
    if chosen not in _REINITS:
        msg = f"reinit={reinit!r}: use 'finish_previous', 'return_previous' or 'create_new'"
        raise UsageError(msg)
    return chosen
