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
from typing import Any

import numpy as np
import psutil

import tracklayer

Block = Callable[[range], list[int]]
"""Times one call for each step of a range, in ns."""

POINTS_TABLE = (
    "CREATE TABLE points (run INTEGER, key_id INTEGER, step INTEGER, time REAL, value, "
    "PRIMARY KEY (run, key_id, step)) WITHOUT ROWID"
)


def show(name: str, figure: str, ratio: float | None = None, target: str = "") -> None:
    print(f"  {name:<44} {figure:>22} {'' if ratio is None else f'x {ratio:.2f}':>9}  {target}")


# -- the caller's side of one call -----------------------------------------------------------------


def caller() -> None:
    """log({"a": float, "b": float}, step=i) beside deque.append; then each peer beside it."""
    print("caller's cost of one call with 2 floats: median, and ratio to deque.append in the same stage")
    with tempfile.TemporaryDirectory() as folder:
        for name, peer in PEERS.items():
            if peer is not None and importlib.util.find_spec(name) is None:
                continue
            with (peer or our_log)(Path(folder)) as log:
                timer, base, median = interleaved(block_of(log), rounds=40 if peer else 200)
            note = f"(without the clock's {timer:.0f} ns: x {(median - timer) / (base - timer):.2f})"
            show(name, f"{median / 1000:.2f} us", median / base, note)
            if peer is None:
                show("", "", None, f"deque.append: {base / 1000:.2f} us; target x <= 4, aim 3")


def interleaved(block: Block, rounds: int) -> tuple[float, float, float]:
    """Return the medians of the bare clock, of the deque, and of a logger, in ns."""
    items: deque[object] = deque()
    blocks: list[Block] = [empty_block, lambda steps: deque_block(steps, items), block]
    medians: list[list[float]] = [[], [], []]
    for number in range(rounds):
        for found, timed_block in zip(medians, blocks, strict=True):
            found.append(statistics.median(timed_block(range(number * 500, number * 500 + 500))))
    timer, base, median = map(statistics.median, medians)
    return timer, base, median


def block_of(log: Callable[..., object]) -> Block:
    """Return what times `log(values, step=step)` for each step of a range, in ns."""
    clock = time.perf_counter_ns

    def block(steps: range) -> list[int]:
        times: list[int] = []
        for step in steps:
            values = {"a": 1.0 * step, "b": 2.0 * step}
            start = clock()
            log(values, step=step)
            times.append(clock() - start)
        return times

    return block


def deque_block(steps: range, items: deque[object]) -> list[int]:
    """Time the baseline where it stands, without a function around it."""
    clock = time.perf_counter_ns
    times: list[int] = []
    for step in steps:
        values = {"a": 1.0 * step, "b": 2.0 * step}
        start = clock()
        items.append((step, time.time(), dict(values)))
        times.append(clock() - start)
    return times


def empty_block(steps: range) -> list[int]:
    """Time nothing: what the clock itself costs."""
    clock = time.perf_counter_ns
    times: list[int] = []
    for _ in steps:
        start = clock()
        times.append(clock() - start)
    return times


@contextmanager
def our_log(folder: Path) -> Iterator[Callable[..., object]]:
    with tracklayer.init(dir=folder / "store", backend="sqlite") as run:
        yield run.log


@contextmanager
def tensorboardx_log(folder: Path) -> Iterator[Callable[..., object]]:
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def log(values: dict[str, float], step: int) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, step)

        yield log


@contextmanager
def wandb_log(folder: Path) -> Iterator[Callable[..., object]]:
    import wandb

    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    with wandb.init(mode="offline", dir=folder, settings=settings) as run:
        yield run.log


PEERS: dict[str, Callable[[Path], Any] | None] = {
    "tracklayer": None,
    "tensorboardX": tensorboardx_log,
    "wandb": wandb_log,
}


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
                start = time.perf_counter()
                our_ingestion(values, Path(folder))
                ours = time.perf_counter() - start
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
