"""What recording costs, as ratios within one run against raw baselines and peers.

    python benchmarks/recording.py            # all of it, about two minutes
    python benchmarks/recording.py caller     # one of: caller ingestion bytes reading importing

Machines are shared and noisy: what is compared is interleaved, medians are taken, and the ratios count.
"""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

import tracklayer

Log = Callable[[dict[str, float], int], object]

POINTS_TABLE = (
    "CREATE TABLE points (run INTEGER, key_id INTEGER, step INTEGER, time REAL, value, "
    "PRIMARY KEY (run, key_id, step)) WITHOUT ROWID"
)


def show(name: str, figure: str, ratio: float | None = None, target: str = "") -> None:
    print(f"  {name:<44} {figure:>22} {'' if ratio is None else f'x {ratio:.2f}':>9}  {target}")


# -- the caller's side of one call -----------------------------------------------------------------


def caller() -> None:
    """log({"a": float, "b": float}, step=i) beside deque.append, peers after it."""
    print("caller's cost of one call with 2 floats: median, and ratio to the deque's")
    with tempfile.TemporaryDirectory() as folder, all_loggers(Path(folder)) as loggers:
        taken = interleaved(loggers, rounds=60, calls=500)
    timer = taken.pop("(the timer itself)")
    base = taken["deque.append"]
    for name, median in taken.items():
        net = (median - timer) / (base - timer)
        target = "target <= 4, aim 3" if name == "tracklayer (sqlite)" else ""
        show(name, f"{median / 1000:.2f} us", median / base, f"net of the timer x {net:.2f}  {target}")


@contextmanager
def all_loggers(folder: Path) -> Iterator[dict[str, Log]]:
    items: deque[object] = deque()
    wall = time.time

    def append(values: dict[str, float], step: int) -> None:
        items.append((step, wall(), dict(values)))

    run = tracklayer.init(dir=folder / "store", backend="sqlite")
    loggers: dict[str, Log] = {
        "(the timer itself)": lambda values, step: None,
        "deque.append": append,
        "tracklayer (sqlite)": lambda values, step: run.log(values, step=step),
    }
    ends: list[Callable[[], object]] = [run.finish]
    if importlib.util.find_spec("tensorboardX"):
        from tensorboardX import SummaryWriter

        writer = SummaryWriter(str(folder / "tensorboard"))
        ends.append(writer.close)

        def to_tensorboard(values: dict[str, float], step: int) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, step)

        loggers["tensorboardX"] = to_tensorboard
    if importlib.util.find_spec("wandb"):
        import wandb

        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
        peer = wandb.init(mode="offline", dir=folder, settings=settings)
        ends.append(peer.finish)
        loggers["wandb (offline)"] = lambda values, step: peer.log(values, step=step)
    try:
        yield loggers
    finally:
        for end in ends:
            end()


def interleaved(loggers: dict[str, Log], rounds: int, calls: int) -> dict[str, float]:
    """Return each logger's median call in ns; the loggers take turns."""
    clock = time.perf_counter_ns
    medians: dict[str, list[float]] = {name: [] for name in loggers}
    step = 0
    for _ in range(rounds):
        for name, log in loggers.items():
            times: list[int] = []
            for _ in range(calls):
                step += 1
                values = {"a": 1.0 * step, "b": 2.0 * step}
                start = clock()
                log(values, step)
                times.append(clock() - start)
            medians[name].append(statistics.median(times))
    # the deque and the timer are called through a function, too: what it costs is theirs alike
    return {name: statistics.median(found) for name, found in medians.items()}


# -- from the first call to the disk ---------------------------------------------------------------


def ingestion() -> None:
    """Rows logged, finished and on the disk, beside executemany into the same table."""
    print("ingestion to disk, finished file: scalars/s, and ratio to raw executemany of ready tuples")
    for keys, rows in ((2, 400_000), (10, 100_000), (100, 10_000)):
        ratios: list[float] = []
        speeds: list[float] = []
        values = [{f"key{k}": step + k * 0.1 for k in range(keys)} for step in range(rows)]
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                raw = raw_ingestion(values, Path(folder))
                ours = timed(lambda: our_ingestion(values, Path(folder)))
            speeds.append(keys * rows / ours)
            ratios.append(raw / ours)
        show(
            f"{keys} keys a row",
            f"{statistics.median(speeds) / 1000:.0f} k/s",
            statistics.median(ratios),
            "target >= 0.6",
        )


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def our_ingestion(values: list[dict[str, float]], folder: Path) -> None:
    run = tracklayer.init(dir=folder / "store", backend="sqlite", reinit="create_new")
    for step, row in enumerate(values):
        run.log(row, step=step)
    run.finish()


def raw_ingestion(values: list[dict[str, float]], folder: Path) -> float:
    """The same table and pragmas, batches of 10,000; the seconds do not count making the tuples."""
    tuples = [
        (key, step, float(step), value)
        for step, row in enumerate(values)
        for key, value in enumerate(row.values())
    ]
    start = time.perf_counter()
    file = sqlite3.connect(folder / "raw.sqlite", isolation_level=None)
    file.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {POINTS_TABLE}")
    for first in range(0, len(tuples), 10_000):
        file.execute("BEGIN")
        file.executemany("INSERT INTO points VALUES (1, ?, ?, ?, ?)", tuples[first : first + 10_000])
        file.execute("COMMIT")
    file.close()
    return time.perf_counter() - start


# -- bytes written ---------------------------------------------------------------------------------


def bytes_written() -> None:
    """100 keys, a commit every 0.1 s: what reaches the file system for each scalar."""
    print("bytes handed to the file system for each scalar: 100 keys, 100 rows/s, a commit every 0.1 s")
    keys, seconds = 100, 12
    values = {f"key{k}": 0.1 * k for k in range(keys)}

    def ours(folder: Path, tick: Iterator[int]) -> None:
        with tracklayer.init(dir=folder, backend="sqlite", reinit="create_new") as run:
            for step in tick:
                run.log(values, step=step)

    def clustered(folder: Path, tick: Iterator[int]) -> None:
        file = sqlite3.connect(folder / "raw.sqlite", isolation_level=None)
        file.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {POINTS_TABLE}")
        rows: list[tuple[int, int, float, float]] = []
        for step in tick:
            rows += [(k, step, time.time(), v) for k, v in enumerate(values.values())]
            if step % 10 == 9:
                file.execute("BEGIN")
                file.executemany("INSERT INTO points VALUES (1, ?, ?, ?, ?)", rows)
                file.execute("COMMIT")
                rows.clear()
        file.close()

    figures: dict[str, float] = {}
    for name, action in {"clustered table, raw": clustered, "tracklayer (sqlite)": ours}.items():
        with tempfile.TemporaryDirectory() as folder:
            before = psutil.Process().io_counters().write_chars
            action(Path(folder), paced(seconds * 100, 0.01))
            written = psutil.Process().io_counters().write_chars - before
        figures[name] = written / (seconds * 100 * keys)
        show(name, f"{figures[name]:.0f} B/scalar", figures[name] / figures["clustered table, raw"])


def paced(count: int, pause: float) -> Iterator[int]:
    start = time.perf_counter()
    for step in range(count):
        yield step
        time.sleep(max(0.0, start + (step + 1) * pause - time.perf_counter()))


# -- reading ---------------------------------------------------------------------------------------


def reading() -> None:
    """1,000,000 points of one key, beside np.fromiter over a raw cursor of the same file."""
    print("reading 1,000,000 points of one key into numpy: seconds, and ratio to np.fromiter")
    count = 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        run = tracklayer.init(dir=folder, backend="sqlite", reinit="create_new")
        for step in range(count):
            run.log({"loss": step * 0.5, "other": 1.0}, step=step)
        run.finish()
        reader = tracklayer.open_store(folder).run(run.id)
        path = Path(folder, "runs", f"{run.id}.sqlite")
        kind = np.dtype([("step", "<i8"), ("time", "<f8"), ("value", "<f8")])

        def raw() -> None:
            file = sqlite3.connect(path)
            cursor = file.execute(
                "SELECT step, time, value FROM points WHERE run = 1 AND key_id = 1 ORDER BY step"
            )
            assert len(np.fromiter(cursor, dtype=kind)) == count
            file.close()

        def ours() -> None:
            assert len(reader.metric("loss")) == count

        pairs = [(timed(raw), timed(ours)) for _ in range(5)]
    show("np.fromiter over a raw cursor", f"{statistics.median(p[0] for p in pairs):.2f} s")
    show(
        "reader.metric(key)",
        f"{statistics.median(p[1] for p in pairs):.2f} s",
        statistics.median(ours / raw for raw, ours in pairs),
        "target <= 1.3",
    )


# -- importing -------------------------------------------------------------------------------------


def importing() -> None:
    """`import tracklayer` over a bare interpreter."""
    print("import: milliseconds over a bare interpreter (median of 15, interleaved)")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "0"}

    def start(code: str) -> float:
        command = [sys.executable, "-c", code]
        return timed(lambda: subprocess.run(command, check=True, env=environment))

    start("import tracklayer")  # its bytecode is written
    pairs = [(start("pass"), start("import tracklayer")) for _ in range(15)]
    over = statistics.median(ours - bare for bare, ours in pairs) * 1000
    show("import tracklayer", f"{over:.0f} ms", None, "target <= 40 ms")


BENCHMARKS = {
    "caller": caller,
    "ingestion": ingestion,
    "bytes": bytes_written,
    "reading": reading,
    "importing": importing,
}


def main() -> None:
    for name in sys.argv[1:] or BENCHMARKS:
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
