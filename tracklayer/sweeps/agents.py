"""Agents: they claim one trial after the other of a sweep, and work on it, until there is none left."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final, Literal, Never, TypeAlias, cast, final

from tracklayer import agreeing, lifecycle, reporting
from tracklayer.errors import StoreError, SweepNotFoundError, UsageError
from tracklayer.porting import refuse
from tracklayer.settings import read_settings
from tracklayer.sweeps import require_engine
from tracklayer.sweeps.calling import call
from tracklayer.sweeps.creating import hosted_sweeps

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from tracklayer.sweeps.claiming import ClaimedTrial, Nothing
    from tracklayer.sweeps.leases import Lease
    from tracklayer.sweeps.study import SweepStudy

Reason: TypeAlias = Literal["count", "done", "stopped", "failing"]

_POLL: Final = 1.0
"""Seconds after which a sweep that has nothing to try just now is looked at again."""
_FIRST: Final = 3
"""So many trials at the start, all failed, are the program's fault and not the parameters'."""
_PATIENCE: Final = 600.0
"""Seconds that an agent waits for a store that fails, such as a full disk, before it ends."""
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
            here; or one is, and this is one of several processes of `jax.distributed`.
        SweepNotFoundError: there is no such sweep.
        BackendUnavailableError: what sweeps need is not installed.
        StoreError: the store cannot be read or written.
    """
    refuse("agent", others)
    check_count(count)
    if not isinstance(cast("object", sweep_id), str):
        msg = f"sweep_id={sweep_id!r}: give the id that `tracklayer.sweep` returned"
        raise UsageError(msg)
    if function is not None:
        if not callable(cast("object", function)):
            msg = f"function={function!r}: give the function itself, which is called for each trial"
            raise UsageError(msg)
        check_alone()
    settings = read_settings(dir=dir)
    service = hosted_sweeps(settings)
    if service is not None:
        called = function and lifecycle.finishing_runs()(function)
        with lifecycle.finishing_on_signals():  # the client calls the function in a thread of its own
            service().agent(sweep_id, called, project, entity, count)
        return
    found = find_sweep(settings.dir, sweep_id, entity, project)
    if function is None:
        work_programs(found, count)
    else:
        called = function
        work(found, lambda batch: call(called, batch[0]), count)


def find_sweep(
    store: Path, sweep_id: str, entity: str | None = None, project: str | None = None
) -> SweepStudy:
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


def check_alone() -> None:
    """Make sure that this process is no part of a program of several (`jax.distributed`).

    Raises:
        UsageError: it is, and each of them would work on a trial of its own.
    """
    index, count, _ = agreeing.place()
    if count > 1:
        msg = (
            f"this is process {index} of {count}, and each would get a trial of its own: name the program in "
            "the sweep's configuration, with a `command` that starts all its processes, and run "
            "`tracklayer agent SWEEP`; their `init` then finds the same trial"
        )
        raise UsageError(msg)


def work(
    sweep: SweepStudy,
    run: Callable[[list[ClaimedTrial]], object],
    count: int | None = None,
    width: int = 1,
) -> AgentReport:
    """Work on trials of a sweep in this thread, until there is none left.

    Args:
        sweep: the sweep.
        run: does the work of a batch of trials, and sees to their ends; what it raises ends the agent.
        count: how many trials; by default, all that there are.
        width: how many are in a batch, as far as there are so many.

    Raises:
        StoreError: the store cannot be read or written.
    """
    from tracklayer.sweeps.leases import Lease

    with Lease(sweep.agents) as lease:
        working = _Agent(sweep, lease, count)
        working.work(sweep, run, width)
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
            working.work(own, lambda batch: children.run(batch[0], lease, job))

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
        self._failing_since: float | None = None
        """When the store began to fail, by `time.monotonic`, if it fails."""
        self._reason: Reason = "done"
        self._ended: Counter[str] = Counter()

    def end(self) -> None:
        """Claim no more trials."""
        self._ending.set()

    def work(self, sweep: SweepStudy, run: Callable[[list[ClaimedTrial]], object], width: int = 1) -> None:
        """Work on trials, in this thread; `sweep` is a view of the sweep that no other thread uses."""
        while batch := self._claim(sweep, width):
            run(batch)
            for claimed in batch:
                self._count(claimed)

    def report(self) -> AgentReport:
        """Return what was done, and say it."""
        ended = self._ended
        report = AgentReport(ended["finished"], ended["pruned"], ended["failed"], ended["died"], self._reason)
        reporting.tell(f"agent of sweep {self._sweep.id}: {report}{self._best()}")
        return report

    def _claim(self, sweep: SweepStudy, width: int) -> list[ClaimedTrial]:
        """Claim as many trials as there are, and wait for the first; none when the agent is to end."""
        from tracklayer.sweeps.claiming import Nothing, claim

        batch: list[ClaimedTrial] = []
        while len(batch) < width and self._takes_one():
            try:
                claimed = claim(sweep, self._lease)
            except StoreError as error:
                self._bear(error)
                claimed = Nothing.WAIT
            else:
                self._failing_since = None
            if not isinstance(claimed, Nothing):
                self._is_told_of_pause = False
                reporting.inform(f"{claimed}: {claimed.parameters}")
                batch.append(claimed)
                continue
            self._takes_none()
            if batch or not self._goes_on(claimed):
                break
            self._ending.wait(_POLL)
        return batch

    def _bear(self, error: StoreError) -> None:
        """Wait with a store that cannot be read or written just now; raise its error when that lasts."""
        if self._failing_since is None:
            self._failing_since = monotonic()
            reporting.warn(f"agent of sweep {self._sweep.id}: {error}; it tries again for {_PATIENCE:.0f} s")
        if monotonic() - self._failing_since > _PATIENCE:
            raise error

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
        outcome = str(claimed.recorded().user_attrs.get("outcome", "died"))  # none where it cannot be told
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
