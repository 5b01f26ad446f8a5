"""Trials of push: runs are recorded, pushed while things go wrong at chosen instants, and compared.

    python tests/push_trials.py --trials 300             # seeds 0, 1, …; about half an hour on two cores
    python tests/push_trials.py --only 17 --keep         # repeat one, and keep its folder

A trial is drawn by its seed: some runs, and pushes into which faults strike, each at the n-th request of some
phase of a push.  Then quiet pushes follow until one says that all is sent, and the server must have what was
recorded, every row, file and version once.  What still is chance is how far the processes are when a fault
strikes; so a trial that failed may pass when it is repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

import tracklayer
from push_oracle import Truth, differences
from push_recording import Plan, Recorder, draw_plan
from tracklayer.naming import file_name
from wandb_server import Failure, Request, WandbServer

WAIT: Final = 150.0
"""Seconds after which a push counts as hung; a client whose server is away gives up long before."""
QUIET_PUSHES: Final = 4
_PACKAGE: Final = Path(tracklayer.__file__).parent
_DONE: Final = frozenset({"sent", "unchanged"})

_PHASES: Final[dict[str, Callable[[Request], bool]]] = {
    "asking": lambda r: r.operation in {"Run", "RunState", "Viewer", "RunResumeStatus"},
    "beginning": lambda r: r.operation == "UpsertBucket",
    "rows": lambda r: r.has_history,
    "end": lambda r: bool(r.is_stream and r.body and r.body.get("complete")),
    "files": lambda r: r.operation == "CreateRunFiles" or (r.method == "PUT" and "/storage/run/" in r.path),
    "artifacts": lambda r: "Artifact" in (r.operation or "") or "/storage/blob/" in r.path,
}
"""The phases of a push, by a request that belongs to each."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong during a push, at its n-th request of some phase."""

    name: str
    phase: str
    nth: int
    seconds: float
    """Before a kill, of an outage, or of a delay."""
    times: int
    """Requests in a row, of any kind, that fail."""

    def __str__(self) -> str:
        return f"{self.name} at {self.phase} {self.nth} ({self.seconds:.2f} s, {self.times} times)"


_KILLS: Final[dict[str, tuple[bool, bool]]] = {
    "push killed": (True, False),
    "client killed": (False, True),
    "both killed": (True, True),
    "both killed, a request on its way": (True, True),
}
"""Whether the pushing process is killed, and whether its client is."""
_REFUSALS: Final[dict[str, Failure]] = {
    "error 500": Failure(500),
    "error 503": Failure(503),
    "error 429": Failure(429),
    "error 429, retry after": Failure(429, retry_after=1),
    "connection cut": Failure(drop=True),
    "answer lost": Failure(drop=True, carried_out=True),
    "answer cut": Failure(cut=True),
}
_SIGNALS: Final = {"terminated": signal.SIGTERM, "interrupted": signal.SIGINT}
_FAULTS: Final = (
    *(name for name in _KILLS for _ in range(3)),
    *_REFUSALS,
    *_SIGNALS,
    *(["server restarted"] * 2),
    "slow request",
    "slow answer",
    "second push",
)


def draw_fault(dice: random.Random, plans: Sequence[Plan]) -> Fault:
    """Draw a fault that can come in pushes of these runs."""
    phases = [*_PHASES, "rows", "rows"]
    if not any(phase.artifacts for plan in plans for phase in plan.phases):
        phases.remove("artifacts")
    if not any(phase.prints or phase.has_media for plan in plans for phase in plan.phases):
        phases.remove("files")
    return Fault(
        dice.choice(_FAULTS),
        dice.choice(phases),
        dice.choice([1, 1, 1, 2, 3]),
        dice.choice([0.0, 0.01, 0.1, 0.5, 1.2]),
        dice.choice([1, 1, 2, 4]),
    )


@dataclass
class Report:
    """What came of a trial."""

    seed: int
    struck: Counter[str] = field(default_factory=Counter[str])
    """How often each fault hit a push that was at work, by name and phase."""
    missed: int = 0
    """Faults whose moment never came."""
    pushes: int = 0
    quiet: int = 0
    """The pushes that it took until all was sent."""
    problems: list[str] = field(default_factory=list[str])
    seconds: float = 0.0

    def __str__(self) -> str:
        """Return it for people, with the command that repeats a trial that failed."""
        verdict = "FAILED" if self.problems else "passed"
        faults = ", ".join(self.struck) or "no fault"
        lines = [f"trial {self.seed}: {verdict} in {self.seconds:.0f} s, {self.pushes} pushes; {faults}"]
        lines += [f"  {problem:.2000}" for problem in self.problems[:10]]
        if self.problems:
            lines.append(f"  repeat it: python tests/push_trials.py --only {self.seed}")
        return "\n".join(lines)


class Push:
    """A `tracklayer push` of all runs, in a process of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._where = folder, environment
        command = [sys.executable, "-m", "tracklayer", "push", "--all", "--json"]
        self.process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def another(self) -> Push:
        """Start a second push of the same runs."""
        return Push(*self._where)

    def clients(self) -> list[psutil.Process]:
        """Return the wandb clients' own processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in children if "wandb-core" in child.name()]
        return []

    def end(self) -> tuple[list[dict[str, Any]], str]:
        """Wait for its end; return its report of each run, if it was not killed, and its complaints."""
        try:
            out, err = self.process.communicate(timeout=WAIT)
        except subprocess.TimeoutExpired:
            clients = self.clients()
            self.process.send_signal(signal.SIGABRT)  # says where its threads are
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.communicate(timeout=5)
            for one in (self.process, *clients):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            out, err = self.process.communicate()
            msg = f"a push hangs: {out[-2000:]} {err[-6000:]}"
            raise TimeoutError(msg) from None
        with contextlib.suppress(ValueError):
            return list(json.loads(out)["runs"]), err
        return [], err


class Trial:
    """One trial, from its seed to its report."""

    def __init__(self, seed: int, folder: Path, server: WandbServer) -> None:
        self.report = Report(seed)
        self._dice = random.Random(seed)
        self._folder = folder
        self._server = server
        self._environment = _environment(folder, server)
        lively = self._dice.random() < 0.4
        phases = self._dice.choice([1, 1, 2, 3])
        count = self._dice.choice([1, 1, 2, 3])
        plans = [draw_plan(self._dice, f"r{n}", phases, lively=lively) for n in range(count)]
        plans[0].is_live = not lively and self._dice.random() < 0.2
        self._recorders = [Recorder(plan, folder / "store", self._environment) for plan in plans]
        self._truths = [Truth(one.plan, one.spans) for one in self._recorders]
        self._between = self._dice.random() < 0.6 or lively
        """Whether pushes come between the phases, too."""
        self._phases = phases
        self._lost_answers = 0

    def run(self) -> Report:
        """Record, push, and compare."""
        start = time.monotonic()
        try:
            for phase in range(self._phases):
                is_last = phase == self._phases - 1
                for recorder in self._recorders:
                    recorder.record()
                if is_last or self._between:
                    for truth in self._truths:
                        truth.recorded(phase)
                    self._assault()
                    if is_last or self._dice.random() < 0.5:
                        self._push_quietly(ends=is_last)
            for truth in self._truths:
                file = self._folder / "store" / "runs" / f"{file_name(truth.plan.id)}.sqlite"
                found = differences(self._server, truth, file, lost_answers=self._lost_answers)
                self.report.problems += [f"run {truth.plan.id}: {problem}" for problem in found]
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed must be told
            self.report.problems.append(f"{type(error).__name__}: {error}")
        finally:
            self._server.fail = None
            for one in self._recorders:
                one.close()
        self.report.seconds = time.monotonic() - start
        return self.report

    def _assault(self) -> None:
        """Push some times while faults strike, until one push says that all is sent."""
        for _ in range(self._dice.choice([1, 1, 2, 3])):
            fault = draw_fault(self._dice, [truth.plan for truth in self._truths])
            self._note(f"fault: {fault}")
            push = self._start_push()
            strike = Strike(fault, push, self._server)
            self._server.fail = strike
            outcomes = self._end(push)
            self._server.fail = None
            strike.end()
            for other in strike.others:
                self.report.pushes += 1
                self._end(other)
            self._lost_answers += strike.lost_answers
            if strike.struck:
                self.report.struck[f"{fault.name} at {fault.phase}"] += 1
            else:
                self.report.missed += 1
            self._note(f"  {'it struck' if strike.struck else 'its moment did not come'}")
            time.sleep(self._dice.choice([0.0, 0.0, 0.5, 2.0]))  # an orphan goes on for a while
            if self._dice.random() < 0.15:
                shutil.rmtree(self._folder / "store" / "ledgers", ignore_errors=True)
                self.report.struck["ledger lost"] += 1
            elif outcomes and outcomes <= _DONE:
                self._confirm()
                return

    def _push_quietly(self, *, ends: bool) -> None:
        """Push until all is sent, and demand that it is, soon; at the end, that nothing more is sent."""
        for _ in range(QUIET_PUSHES):
            self.report.quiet += ends
            push = self._start_push()
            outcomes = self._end(push)
            if push.process.returncode == 0 and outcomes <= _DONE:
                break
        else:
            msg = f"after {QUIET_PUSHES} pushes without a fault, the last says {outcomes}"
            raise AssertionError(msg)
        if not ends:
            self._confirm()
            return
        before = len(self._server.requests)
        outcomes = self._end(self._start_push())
        assert outcomes == {"unchanged"}, f"once all is sent, a push says {outcomes}"
        sent = [one for one in self._server.requests[before:] if one.is_stream or one.method == "PUT"]
        assert not sent, f"once all is sent, a push sends {sent}"

    def _confirm(self) -> None:
        """Take note that a push said that all was sent."""
        for truth in self._truths:
            if truth.plan.phases[truth.phases - 1].ending != "live":  # else some of it waits
                truth.confirmed()

    def _start_push(self) -> Push:
        self.report.pushes += 1
        return Push(self._folder, self._environment)

    def _end(self, push: Push) -> set[str]:
        """Wait for a push; return the outcomes of its runs."""
        runs, said = push.end()
        self._note(f"push: exit code {push.process.returncode}, {runs} {said}")
        if f'File "{_PACKAGE}' in said:
            msg = f"a push raised: {said[-1500:]}"
            raise AssertionError(msg)
        return {run["outcome"] for run in runs}

    def _note(self, line: str) -> None:
        """Write what happened to the trial's log."""
        with (self._folder / "log.txt").open("a", encoding="utf-8") as log:
            print(f"{time.time():.2f} {line}", file=log)


class Strike:
    """Has a fault strike, once, when its moment comes; called by the server with each request."""

    def __init__(self, fault: Fault, push: Push, server: WandbServer) -> None:
        self.struck = False
        self.lost_answers = 0
        self.others: list[Push] = []
        self._fault = fault
        self._push = push
        self._server = server
        self._seen = 0
        self._left = fault.times
        self._thread: threading.Thread | None = None

    def __call__(self, request: Request) -> Failure | None:
        """Count the request, and say what goes wrong with it."""
        if not self.struck:
            self._seen += _PHASES[self._fault.phase](request)
            if self._seen < self._fault.nth or self._push.process.poll() is not None:
                return None
            self.struck = True
            return self._strike(request)
        if self._left > 0 and self._fault.name in _REFUSALS:
            return self._refuse(request)
        return None

    def end(self) -> None:
        """Wait until what was begun is done."""
        if self._thread is not None:
            self._thread.join()

    def _strike(self, request: Request) -> Failure | None:
        fault = self._fault
        if fault.name in _REFUSALS:
            return self._refuse(request)
        if fault.name == "slow request":
            return Failure(delay=1 + fault.seconds)
        if fault.name == "slow answer":
            return Failure(answer_delay=1 + fault.seconds)
        clients = self._push.clients()
        self._thread = threading.Thread(target=self._act, args=(clients,), daemon=True)
        self._thread.start()
        return Failure(delay=0.8) if "on its way" in fault.name else None

    def _refuse(self, request: Request) -> Failure:
        self._left -= 1
        failure = _REFUSALS[self._fault.name]
        self.lost_answers += request.has_history and (failure.cut or failure.carried_out)
        return failure

    def _act(self, clients: list[psutil.Process]) -> None:
        fault = self._fault
        if fault.name == "server restarted":
            self._server.stop()
            self.lost_answers += 1
            time.sleep(fault.seconds * 2)
            self._server.start()
            return
        time.sleep(min(fault.seconds, 0.5) if "on its way" in fault.name else fault.seconds)
        if fault.name == "second push":
            self.others.append(self._push.another())
            return
        if fault.name in _SIGNALS:
            self._push.process.send_signal(_SIGNALS[fault.name])
            return
        kills_push, kills_client = _KILLS[fault.name]
        if kills_push:
            self._push.process.kill()
        for client in clients if kills_client else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                client.kill()


def _environment(folder: Path, server: WandbServer) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "TRACKLAYER_"))
    }
    (folder / "temporary").mkdir(parents=True)
    return {
        **kept,
        **server.environment(folder / "home"),
        "PYTHONFAULTHANDLER": "1",
        "TMPDIR": str(folder / "temporary"),
        "TRACKLAYER_DIR": str(folder / "store"),
    }


def run_push(folder: Path, server: WandbServer) -> set[str]:
    """Push the store in a folder, without a fault; return the outcomes of its runs."""
    reports, _ = Push(folder, _environment(folder, server)).end()
    return {report["outcome"] for report in reports}


def run_trials(seeds: Sequence[int], *, jobs: int, keep: bool = False) -> Iterator[Report]:
    """Run trials, several at a time, and yield what came of each."""

    def run(seed: int) -> Report:
        folder = Path(tempfile.mkdtemp(prefix=f"push-trial-{seed}-"))
        with WandbServer() as server:
            report = Trial(seed, folder, server).run()
        if report.problems:
            report.problems[:0] = [f"its folder is kept: {folder}"]
        elif not keep:
            shutil.rmtree(folder, ignore_errors=True)
        return report

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(run, seeds)


def main() -> None:
    """Run what the command line asks for; the exit code is 1 where a trial failed."""
    parser = argparse.ArgumentParser(description="Trials of push: see the top of this file.")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the first trial")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, help="a single trial")
    parser.add_argument("--keep", action="store_true", help="keep the folders of those that passed, too")
    given = parser.parse_args()
    first = given.seed if given.only is None else given.only
    seeds = range(first, first + (given.trials if given.only is None else 1))
    reports: list[Report] = []
    for report in run_trials(seeds, jobs=given.jobs, keep=given.keep):
        reports.append(report)
        sys.stdout.write(f"{report}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{summary_of(reports)}\n")
    sys.exit(any(report.problems for report in reports))


def summary_of(reports: Sequence[Report]) -> str:
    """Return what all trials came to, and how often each fault struck."""
    struck = sum((report.struck for report in reports), Counter[str]())
    failed = [report.seed for report in reports if report.problems]
    quiet = Counter(report.quiet for report in reports)
    missed, pushes = sum(one.missed for one in reports), sum(one.pushes for one in reports)
    lines = [f"  {name:<45} {count:>4}" for name, count in sorted(struck.items())]
    return "\n".join(
        [
            f"{sum(struck.values())} faults struck, {missed} found no moment:",
            *lines,
            f"quiet pushes until all was sent: {dict(sorted(quiet.items()))}",
            f"{len(reports)} trials, {pushes} pushes, failed: {failed or 'none'}",
        ]
    )


if __name__ == "__main__":
    main()
