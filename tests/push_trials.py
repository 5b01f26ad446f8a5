"""Trials of push: runs are recorded, pushed while things go wrong at chosen instants, and compared.

    python tests/push_trials.py --trials 300             # seeds 0, 1, …; under an hour on two cores
    python tests/push_trials.py --only 17 --keep         # repeat one, and keep its folder

A trial is drawn by its seed: some runs, and pushes into which faults strike, each at the n-th request of some
phase of a push.  Then quiet pushes follow until one says that all is sent, and the server must have what was
recorded, every row, file and version once.  What still is chance is how far the processes are when a fault
strikes; so a trial that failed may pass when it is repeated.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import tracklayer
from push_faults import Push, Strike, draw_fault
from push_oracle import Truth, differences
from push_recording import Recorder, draw_plan
from tracklayer.naming import file_name
from wandb_server import WandbServer

QUIET_PUSHES: Final = 4
_PACKAGE: Final = Path(tracklayer.__file__).parent
_DONE: Final = frozenset({"sent", "unchanged"})


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
