"""Agents: they claim one trial after the other of a sweep, and work on it, until there is none left."""

from __future__ import annotations

import signal
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Never, TypeAlias, final

from tracklayer import lifecycle, reporting
from tracklayer.errors import SweepNotFoundError, TrialPruned, UsageError
from tracklayer.porting import refuse
from tracklayer.settings import read_settings
from tracklayer.sweeps import require_engine
from tracklayer.sweeps.creating import hosted_sweeps

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from optuna.trial import FrozenTrial

    from tracklayer.sweeps.claiming import ClaimedTrial, Nothing
    from tracklayer.sweeps.leases import Lease
    from tracklayer.sweeps.study import SweepStudy

Reason: TypeAlias = Literal["count", "done", "stopped", "failing"]

_POLL: Final = 1.0
"""Seconds after which a sweep that has nothing to try just now is looked at again."""
_FIRST: Final = 3
"""So many trials at the start, all failed, are the program's fault and not the parameters'."""
_GRACE: Final = 30.0
"""Seconds that programs have to finish their runs, once the agent was told to end."""


@final
@dataclass(frozen=True, slots=True)
class AgentReport:
    """What an agent did.

    Attributes:
        done: how many trials came to their end.
        pruned: how many ended early, for they did badly.
        failed: how many failed.
        died: how many were cut off from outside, and are tried again.
        reason: why it ended: it worked on as many trials as it was to; the sweep has nothing more to try; it
            was stopped; or the agent's first trials all failed.
    """

    done: int
    pruned: int
    failed: int
    died: int
    reason: Reason

    def __str__(self) -> str:
        """Say it in a few words."""
        counts = (f"{getattr(self, word)} {word}" for word in ("done", "pruned", "failed", "died"))
        return ", ".join(count for count in counts if not count.startswith("0 ")) or "no trials"


def agent(
    sweep_id: str,
    function: Callable[[], object] | None = None,
    entity: str | None = None,
    project: str | None = None,
    count: int | None = None,
    *,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 - the name that `init` shows
    **others: Never,
) -> None:
    """Work on trials of a sweep, one after the other, until it has nothing more to try.

    Any number of agents may do so at once, on all machines that see the store.  In a trial, `init` finds the
    parameters in `config`.  A run that the function leaves open is finished.  An exception makes the trial
    fail, and the next one follows; when the first three fail, the agent ends.  `sys.exit` ends a trial, and
    Ctrl-C the agent: that trial is tried again by the next one.

    Where the chosen backend is W&B's, it is a sweep of W&B's server.

    Args:
        sweep_id: what `sweep` returned; also as `"project/id"` or `"entity/project/id"`.
        function: is called for each trial, in this thread; without one, the sweep's `program` is run.
        entity: the sweep's, to be sure that it is the one that is meant.
        project: likewise.
        count: how many trials this agent works on; by default, all that there are.
        dir: the store's folder; `TRACKLAYER_DIR`, else `.tracklayer`.
        others: wandb's further arguments; what they ask for is refused, with what to do instead.

    Raises:
        UsageError: an argument that cannot be right; or no function is given, and the sweep's program is not
            here.
        SweepNotFoundError: there is no such sweep.
        BackendUnavailableError: what sweeps need is not installed.
        StoreError: the store cannot be read or written.
    """
    refuse("agent", others)
    check_count(count)
    settings = read_settings(dir=dir)
    service = hosted_sweeps(settings)
    if service is not None:
        called = function and lifecycle.finishing_runs()(function)
        with lifecycle.finishing_on_signals():  # the client calls the function in a thread of its own
            service.agent(sweep_id, called, project, entity, count)
        return
    found = find_sweep(settings.dir, sweep_id, entity, project)
    if function is None:
        work_programs(found, count)
    else:
        called = function
        work(found, lambda claimed, _: call(called, claimed), count)


def find_sweep(store: Path, sweep_id: str, entity: str | None, project: str | None) -> SweepStudy:
    """Return the sweep of a store that an agent is to work on.

    Raises:
        SweepNotFoundError: there is none of that id, or it is of another project or entity.
        BackendUnavailableError: what sweeps need is not installed.
        StoreError: it cannot be read.
    """
    require_engine()
    from tracklayer.sweeps.study import open_sweep

    found = open_sweep(store, sweep_id)
    for given, own, what in ((project, found.project, "project"), (entity, found.entity, "entity")):
        if given and own and given != own:
            msg = f"sweep {found.id} is of {what} {own!r}, not {given!r}"
            raise SweepNotFoundError(msg)
    return found


def check_count(count: int | None) -> None:
    """Make sure that a number of trials makes sense.

    Raises:
        UsageError: it does not.
    """
    if count is not None and count < 1:
        msg = f"count={count}: an agent works on at least one trial; leave it out for all that there are"
        raise UsageError(msg)


def work(
    sweep: SweepStudy, run_trial: Callable[[ClaimedTrial, Lease], object], count: int | None = None
) -> AgentReport:
    """Work on trials of a sweep in this thread, until there is none left.

    Args:
        sweep: the sweep.
        run_trial: does the work of one trial, and sees to its end; what it raises ends the agent.
        count: how many trials; by default, all that there are.

    Raises:
        StoreError: the store cannot be read or written.
    """
    from tracklayer.sweeps.leases import Lease

    with Lease(sweep.agents) as lease:
        working = _Agent(sweep, lease, count)
        working.work(sweep, run_trial)
        return working.report()


def work_programs(sweep: SweepStudy, count: int | None = None, jobs: int = 1) -> AgentReport:
    """Run the program of a sweep, for as many trials at once as there are jobs, until there is none left.

    Each is told its job, from 0 on, by the variable `TRACKLAYER_JOB`, which a command may name: with several
    GPUs, `CUDA_VISIBLE_DEVICES=${envvar:TRACKLAYER_JOB}` after `${env}` gives each one of its own.  Ctrl-C
    and SIGTERM are passed on to the programs, which have 30 s to finish their runs.

    Raises:
        UsageError: the program is not here.
        OSError: it cannot be started; or the store cannot be read or written.
    """
    from tracklayer.sweeps.leases import Lease
    from tracklayer.sweeps.programs import Children, check_program
    from tracklayer.sweeps.study import open_sweep

    check_program(sweep.config)
    children = Children()
    with Lease(sweep.agents) as lease:
        working = _Agent(sweep, lease, count)

        def do_job(job: int) -> None:
            own = open_sweep(sweep.store, sweep.id) if job else sweep  # a study is one thread's
            working.work(own, lambda claimed, lease: children.run(claimed, lease, job))

        with ThreadPoolExecutor(jobs, "tracklayer-job") as threads, _ended_by_signals():
            futures = [threads.submit(do_job, job) for job in range(jobs)]
            try:
                _wait(futures)
            except (KeyboardInterrupt, SystemExit) as error:
                working.end()
                children.signal(signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
                try:
                    wait(futures, _GRACE)
                finally:  # also when Ctrl-C comes once more
                    children.signal(getattr(signal, "SIGKILL", signal.SIGTERM))
                raise
            finally:
                working.end()
            for future in futures:
                future.result()
        return working.report()


def _wait(futures: list[Future[None]]) -> None:
    """Wait for the end of all, or the failure of one; a wait without an end hears no Ctrl-C on Windows."""
    while True:
        ended, others = wait(futures, 1.0, FIRST_EXCEPTION)
        if not others or any(future.exception() for future in ended):
            return


@contextmanager
def _ended_by_signals() -> Generator[None]:
    """Have SIGTERM and SIGHUP raise `SystemExit`, where they would end the process at once."""

    def end(number: int, frame: object) -> Never:
        del frame
        raise SystemExit(128 + number)

    replaced: list[int] = []
    if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
        numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
        replaced = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in replaced:
            signal.signal(number, end)
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


def call(function: Callable[[], object], claimed: ClaimedTrial) -> None:
    """Call a function that trains with a trial's parameters, and see to the end of its runs and of the trial.

    Raises:
        BaseException: what is meant to end the process, such as `KeyboardInterrupt`.
    """
    from tracklayer.sweeps.current import working_on
    from tracklayer.sweeps.trial import LocalTrial

    opened_before = lifecycle.open_runs()
    error: BaseException | None = None
    with working_on(LocalTrial(claimed)):
        try:
            function()
        except BaseException as raised:  # noqa: BLE001 - the runs end first, whatever it is
            error = raised
        if isinstance(error, Exception) and not isinstance(error, TrialPruned):
            trace = error.__traceback__ and error.__traceback__.tb_next  # the function's own
            traceback.print_exception(type(error), error, trace)
        code = lifecycle.exit_code_of(error)
        for run in lifecycle.open_runs():
            if run not in opened_before:
                run.finish(code)
    if error is not None and (
        lifecycle.ended_by_signal(code) or not isinstance(error, Exception | SystemExit)
    ):
        claimed.end("died")
        raise error
    # the end of its run told that of the trial, but where there was no run, or it was cut off from outside
    had_run = "run" in _recorded(claimed).user_attrs
    if claimed.end("died" if had_run else "failed") and error is None and not had_run:
        reporting.warn(f"{_name(claimed)}: the function recorded no run: it is to call tracklayer.init")


@final
class _Agent:
    """What the threads of an agent have in common."""

    def __init__(self, sweep: SweepStudy, lease: Lease, count: int | None) -> None:
        self._sweep = sweep
        self._lease = lease
        self._left = count
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._is_told_of_pause = False
        self._reason: Reason = "done"
        self._ended: Counter[str] = Counter()

    def end(self) -> None:
        """Claim no more trials."""
        self._ending.set()

    def work(self, sweep: SweepStudy, run_trial: Callable[[ClaimedTrial, Lease], object]) -> None:
        """Work on trials, in this thread; `sweep` is a view of the sweep that no other thread uses."""
        from tracklayer.sweeps.claiming import Nothing, claim

        while self._takes_one():
            claimed = claim(sweep, self._lease)
            if isinstance(claimed, Nothing):
                self._takes_none()
                if not self._goes_on(claimed):
                    return
                self._ending.wait(_POLL)
                continue
            self._is_told_of_pause = False
            reporting.inform(f"{_name(claimed)}: {claimed.parameters}")
            run_trial(claimed, self._lease)
            self._count(claimed)

    def report(self) -> AgentReport:
        """Return what was done, and say it."""
        ended = self._ended
        report = AgentReport(ended["finished"], ended["pruned"], ended["failed"], ended["died"], self._reason)
        reporting.inform(f"agent of sweep {self._sweep.id}: {report}{self._best()}")
        return report

    def _takes_one(self) -> bool:
        with self._lock:
            if self._ending.is_set():
                return False
            if self._left == 0:
                self._reason = "count"
                return False
            if self._left is not None:
                self._left -= 1
            return True

    def _takes_none(self) -> None:
        with self._lock:
            if self._left is not None:
                self._left += 1

    def _goes_on(self, nothing: Nothing) -> bool:
        from tracklayer.sweeps.claiming import Nothing

        if nothing is Nothing.PAUSED and not self._is_told_of_pause:
            self._is_told_of_pause = True
            reporting.warn(f"sweep {self._sweep.id} is paused: this agent waits until it is resumed")
        if nothing is Nothing.STOPPED:
            self._reason = "stopped"
        return nothing in {Nothing.PAUSED, Nothing.WAIT}

    def _count(self, claimed: ClaimedTrial) -> None:
        outcome = str(_recorded(claimed).user_attrs["outcome"])
        with self._lock:
            self._ended[outcome] += 1
            bad = self._ended["failed"] + self._ended["died"]
            if bad == self._ended.total() == _FIRST:
                self._reason = "failing"
                self._ending.set()
                reporting.warn(
                    f"agent of sweep {self._sweep.id}: its first {_FIRST} trials failed, and it ends: mend "
                    "the program, and start the agent again"
                )

    def _best(self) -> str:
        metric = self._sweep.config.metric
        if metric is None or not any(trial.values for trial in self._sweep.study.get_trials(deepcopy=False)):
            return ""
        best = self._sweep.study.best_trial
        return f"; best {metric.name} so far: {best.value:.6g}, by trial {best.number}"


def _recorded(claimed: ClaimedTrial) -> FrozenTrial:
    """Return what the sweep's file says of a trial."""
    return claimed.sweep.study.get_trials(deepcopy=False)[claimed.number]


def _name(claimed: ClaimedTrial) -> str:
    return f"trial {claimed.number} of sweep {claimed.sweep.id}"
