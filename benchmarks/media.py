"""What logging images costs its caller, and what it does to the scalars beside them.

    python benchmarks/media.py            # all of it, about two minutes
    python benchmarks/media.py caller     # one of: caller beside

Machines are shared and noisy: what is compared is interleaved, medians are taken, and the ratios count.
"""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import tracklayer

Log = Callable[[Any, int], object]
"""Logs a picture, given as an array, at a step."""
CALLS = 200
SHAPE = (256, 256, 3)


def show(name: str, figure: str, ratio: float | None = None, target: str = "") -> None:
    print(f"  {name:<44} {figure:>22} {'' if ratio is None else f'x {ratio:.1f}':>9}  {target}")


def pictures() -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Return pictures that compress as photographs do, more or less: noise on a gradient."""
    noise = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[0]))
    base = np.stack([x, y, (x + y) // 2], axis=-1)
    return [(base + noise.integers(0, 16, SHAPE)).clip(0, 255).astype(np.uint8) for _ in range(20)]


# -- the caller's side of one call ---------------------------------------------------------------------


@contextmanager
def ours(folder: Path) -> Iterator[Log]:
    with tracklayer.init(dir=folder, backend="sqlite") as run:
        yield lambda picture, step: run.log({"picture": tracklayer.Image(picture)}, step=step)


@contextmanager
def of_wandb(folder: Path) -> Iterator[Log]:
    import wandb

    settings = wandb.Settings(x_disable_stats=True, console="off", silent=True)
    run = wandb.init(project="bench", mode="offline", dir=str(folder), settings=settings)
    yield lambda picture, step: run.log({"picture": wandb.Image(picture)}, step=step)
    run.finish()


@contextmanager
def of_trackio(folder: Path) -> Iterator[Log]:
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    trackio.init(project="bench", embed=False)
    yield lambda picture, step: trackio.log({"picture": trackio.Image(picture)}, step=step)
    trackio.finish()


PEERS: dict[str, Callable[[Path], AbstractContextManager[Log]]] = {"wandb": of_wandb, "trackio": of_trackio}


def caller() -> None:
    """200 images of 256 x 256 x 3, at once and 20 ms apart, beside as many bare copies that are kept."""
    shape = " x ".join(map(str, SHAPE))
    for pause, how in [(0.0, "one after the other"), (0.02, "20 ms apart, caches gone cold")]:
        print(f"caller's time of one image of {shape}, {CALLS} of them {how}: median")
        with tempfile.TemporaryDirectory() as folder:
            copies = times_of(kept_copies(), pause)
            show("numpy's copy of the array, kept", f"{copies * 1e3:.3f} ms")
            with ours(Path(folder)) as log:
                mine = times_of(log, pause)
            show("tracklayer", f"{mine * 1e3:.3f} ms", mine / copies, "target < 0.2 ms")
            for name, peer in PEERS.items():
                if importlib.util.find_spec(name) is not None:
                    with peer(Path(folder)) as log:
                        theirs = times_of(log, pause)
                    note = f"x {theirs / mine:.0f} of tracklayer's"
                    show(name, f"{theirs * 1e3:.3f} ms", theirs / copies, note)


def kept_copies() -> Log:
    kept: list[Any] = []
    return lambda picture, _: kept.append(picture.copy())


def times_of(log: Log, pause: float) -> float:
    """Return the median time of a call in seconds."""
    found: list[float] = []
    made = pictures()
    for step in range(CALLS):
        start = time.perf_counter()
        log(made[step % len(made)], step)
        found.append(time.perf_counter() - start)
        time.sleep(pause)
    return statistics.median(found)


# -- scalars beside images -----------------------------------------------------------------------------


def beside() -> None:
    """A scalar every 5 ms for ten seconds, alone and beside 100 images a second."""
    print("how long a scalar takes until another process could read it: median, 99 % and most")
    for name, images in [("alone", 0), ("beside 100 images a second", 100), ("alone, again", 0)]:
        with tempfile.TemporaryDirectory() as folder:
            delays, logged, encoded = delays_beside(Path(folder), images)
        figure = " / ".join(f"{np.percentile(delays, q) * 1e3:.0f}" for q in (50, 99, 100))
        note = f"{logged} images logged, {encoded} of them recorded at the end of the loop" if images else ""
        show(name, f"{figure} ms", None, note or "commits are 100 ms apart")


def delays_beside(folder: Path, images: int) -> tuple[list[float], int, int]:
    """Log for ten seconds; return the delays in seconds, and how many images were logged and recorded."""
    made = pictures()
    logged_at: list[float] = []
    delays: list[float] = []
    with tracklayer.init(id="r", dir=folder, backend="sqlite") as run:
        done = threading.Event()
        watcher = threading.Thread(target=watch, args=(folder, logged_at, delays, done))
        run.log({"loss": 0.0}, step=0)
        logged_at.append(time.time())
        run.flush()
        watcher.start()
        count, start = 0, time.time()
        for step in range(1, 2001):
            logged_at.append(time.time())
            run.log({"loss": 1.0 / step}, step=step)
            if images and time.time() - start >= count / images:
                run.log({"picture": tracklayer.Image(made[count % len(made)])}, step=step)
                count += 1
            time.sleep(max(0.0, start + step * 0.005 - time.time()))
        done.set()
        watcher.join()
        file = sqlite3.connect(folder / "runs" / "r.sqlite")
        recorded = file.execute("SELECT count(*) FROM objects").fetchone()[0]
        file.close()
    return delays, count, recorded


def watch(folder: Path, logged_at: list[float], delays: list[float], done: threading.Event) -> None:
    """Note when each step is there for a reader."""
    file = sqlite3.connect(folder / "runs" / "r.sqlite")
    seen = 0
    while not done.is_set():
        newest = file.execute(
            "SELECT max(step) FROM "
            "(SELECT max(step) AS step FROM points UNION ALL SELECT max(step) FROM new_points)"
        ).fetchone()[0]
        moment = time.time()
        delays.extend(moment - logged_at[step] for step in range(seen + 1, newest + 1))
        seen = newest
        time.sleep(0.003)
    file.close()


BENCHMARKS = {"caller": caller, "beside": beside}


def main() -> None:
    for name in sys.argv[1:] or BENCHMARKS:
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
