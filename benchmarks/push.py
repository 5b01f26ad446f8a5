"""What a push costs, beside `wandb sync` of what wandb itself recorded offline; and what bounds it.

    python benchmarks/push.py          # all of it, about four minutes
    python benchmarks/push.py rate     # one of: rate memory

The same rows are recorded by tracklayer and by wandb.  Both are sent to the tests' server, which runs in a
process of its own, by whole programs, start included, which take turns; medians are taken, and the ratios
count.  That server is near and quick: over a network, either takes longer.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

KEYS = 10
ROWS = 100_000
ROUNDS = 5
SERVER = """
import json, pathlib, resource, sys
sys.path.insert(0, sys.argv[1])
from wandb_server import WandbServer

with WandbServer() as server:
    print(json.dumps(server.environment(pathlib.Path(sys.argv[2]))), flush=True)
    for line in sys.stdin:
        (run,) = server.runs.values()
        last, used = run.history[-1]["m9"], resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps([len(run.history), last, run.state, used.ru_utime + used.ru_stime]), flush=True)
"""
OURS = """
import sys, tracklayer
with tracklayer.init(project="p", id="r", dir=sys.argv[1], backend="sqlite") as run:
    for i in range(int(sys.argv[2])):
        run.log({f"m{k}": i * 0.37 + k for k in range(int(sys.argv[3]))}, step=i)
"""
THEIRS = """
import sys, wandb
with wandb.init(project="p", id="r", dir=sys.argv[1], mode="offline") as run:
    for i in range(int(sys.argv[2])):
        run.log({f"m{k}": i * 0.37 + k for k in range(int(sys.argv[3]))}, step=i)
"""
QUIET = {
    "TRACKLAYER_CONSOLE": "off",
    "TRACKLAYER_SYSTEM_INTERVAL": "0",
    "WANDB_CONSOLE": "off",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "WANDB_X_DISABLE_STATS": "true",
}


@dataclass(frozen=True)
class Cost:
    """What sending a run took; CPU in seconds, memory in MB at its peak."""

    seconds: float
    program_cpu: float
    client_cpu: float
    server_cpu: float
    program_memory: float
    client_memory: float


@contextmanager
def a_server(home: Path) -> Iterator[tuple[dict[str, str], subprocess.Popen[str]]]:
    """Run the tests' server in a process of its own; give the environment that leads there."""
    tests = Path(__file__).parents[1] / "tests"
    command = [sys.executable, "-c", SERVER, str(tests), str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield json.loads(_pipe(process.stdout).readline()), process
        _pipe(process.stdin).close()


def send(command: Sequence[str], folder: Path, rows: int, **settings: str) -> Cost:
    """Run a program that sends the run; demand that all of it arrived."""
    with tempfile.TemporaryDirectory() as home, a_server(Path(home)) as (reach, server):
        reach.pop("WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL")  # as it is by default
        environment = {**os.environ, **reach, **QUIET, "WANDB_DIR": home, **settings}
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        watch = Watch(process.pid)
        said, _ = process.communicate()
        seconds = time.perf_counter() - start
        watch.end()
        print("ask", file=_pipe(server.stdin), flush=True)
        lines, last, state, server_cpu = json.loads(_pipe(server.stdout).readline())
    assert (lines, last, state) == (rows, (rows - 1) * 0.37 + KEYS - 1, "finished"), (
        lines,
        last,
        state,
        said,
    )
    return Cost(
        seconds, watch.cpu[False], watch.cpu[True], server_cpu, watch.memory[False], watch.memory[True]
    )


class Watch:
    """Looks at a program and at the client that it starts, 50 times a second, as long as they are there."""

    def __init__(self, pid: int) -> None:
        self.cpu = {False: 0.0, True: 0.0}
        """Seconds; True is the client."""
        self.memory = {False: 0.0, True: 0.0}
        self._program = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        client: psutil.Process | None = None
        while not self._ended.wait(0.02):
            try:
                if client is None:
                    found = [
                        one for one in self._program.children(recursive=True) if "wandb-core" in one.name()
                    ]
                    client = found[0] if found else None
                self._note(self._program, is_client=False)
                if client is not None:
                    self._note(client, is_client=True)
            except psutil.Error:
                pass  # it ended

    def _note(self, process: psutil.Process, *, is_client: bool) -> None:
        with process.oneshot():
            times, memory = process.cpu_times(), process.memory_info().rss / 1e6
        self.cpu[is_client] = max(self.cpu[is_client], times.user + times.system)
        self.memory[is_client] = max(self.memory[is_client], memory)


def record(folder: Path, rows: int) -> dict[str, list[str]]:
    """Record a run in both ways; return the commands that send it."""
    environment = {**os.environ, **QUIET}
    for name, script in {"ours": OURS, "theirs": THEIRS}.items():
        (folder / name).mkdir()
        command = [sys.executable, "-c", script, str(folder / name), str(rows), str(KEYS)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
    (offline,) = (folder / "theirs").glob("wandb/offline-run-*")
    programs = Path(sys.executable).parent
    return {
        "tracklayer push": [str(programs / "tracklayer"), "push", "r", "--dir", str(folder / "ours")],
        "wandb sync": [str(programs / "wandb"), "sync", str(offline)],
    }


def forget(folder: Path) -> None:
    """Let both forget that they sent it."""
    shutil.rmtree(folder / "ours" / "ledgers", ignore_errors=True)
    for mark in folder.glob("theirs/**/*.synced"):
        mark.unlink()


def rate() -> None:
    """Rows a second."""
    print(f"{ROWS:,} rows of {KEYS} metrics, whole programs: medians of {ROUNDS} rounds, in seconds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = record(folder, ROWS)
        quick = {"WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1"}
        ways: list[tuple[str, str, dict[str, str]]] = [
            ("tracklayer push", "tracklayer push", {}),
            ("wandb sync", "wandb sync", {}),
            ("wandb sync, told to send each second", "wandb sync", quick),
        ]
        costs: dict[str, list[Cost]] = {way: [] for way, _, _ in ways}
        for _ in range(ROUNDS):
            for way, program, settings in ways:
                forget(folder)
                costs[way].append(send(commands[program], folder, ROWS, **settings))
    ours = statistics.median(cost.seconds for cost in costs["tracklayer push"])
    show("", "seconds", "rows/s", "x push", "CPU: program", "client", "server")
    for way, all_of_it in costs.items():
        seconds = statistics.median(cost.seconds for cost in all_of_it)
        cpu = [
            statistics.median(getattr(cost, name) for cost in all_of_it)
            for name in ("program_cpu", "client_cpu", "server_cpu")
        ]
        figures = (f"{seconds:.2f}", f"{ROWS / seconds:,.0f}", f"{seconds / ours:.2f}")
        show(way, *figures, *(f"{used:.2f}" for used in cpu))
    print("  target: wandb sync takes at least 1.3 times as long")


def memory() -> None:
    """Peak memory."""
    print("peak memory in MB: must not grow with the rows")
    show("", "push", "its client", "wandb sync", "its client")
    for rows in (50_000, 100_000, 200_000):
        with tempfile.TemporaryDirectory() as name:
            costs = [send(command, Path(name), rows) for command in record(Path(name), rows).values()]
        figures = [f"{used:.0f}" for cost in costs for used in (cost.program_memory, cost.client_memory)]
        show(f"{rows:,} rows", *figures)


def show(name: str, *figures: str) -> None:
    print(f"  {name:<40}" + "".join(f"{figure:>14}" for figure in figures))


def _pipe(stream: IO[Any] | None) -> IO[Any]:
    assert stream is not None
    return stream


BENCHMARKS = {"rate": rate, "memory": memory}


def main() -> None:
    for name in sys.argv[1:] or BENCHMARKS:
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
