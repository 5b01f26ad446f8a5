"""What logging from JAX costs the training loop, as ratios within one run against the bare loop and peers.

    python benchmarks/jax_logging.py          # all of it, about six minutes
    python benchmarks/jax_logging.py steps    # one of: steps donated histogram series inside

Machines are shared and noisy: loops with and without logging are interleaved, and the median of their ratios
counts.  Loop time is what is judged: far ahead of the device, any dispatch waits for the backlog.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import tracklayer

Log = Callable[[dict[str, Any], int], object]
State = tuple[jax.Array, jax.Array]


def show(name: str, figure: str, note: str = "") -> None:
    print(f"  {name:<44} {figure:>26}  {note}", flush=True)


# -- the loop around a jitted step -----------------------------------------------------------------


@partial(jax.jit, static_argnums=1, donate_argnums=0)
def train_step(state: State, rounds: int) -> tuple[State, dict[str, jax.Array]]:
    """A step of adjustable length, which donates its state and returns five scalars."""
    weights, count = state
    moved = jax.lax.fori_loop(0, rounds, lambda _, w: jnp.tanh(w @ w), weights)
    metrics = {
        "loss": moved.mean(),
        "accuracy": (moved > 0).mean(),
        "grad_norm": jnp.linalg.norm(moved - weights),
        "param_norm": jnp.linalg.norm(moved),
        "count": count,
    }
    return (moved, count + 1), metrics


def start() -> State:
    return jax.random.normal(jax.random.key(0), (64, 64)) / 8, jnp.int32(0)


def loop(steps: int, rounds: int, log: Log | None, first: int = 0) -> float:
    """Run a training loop; return its seconds a step."""
    state, _ = train_step(start(), rounds)
    jax.block_until_ready(state)
    begin = time.perf_counter()
    for step in range(first, first + steps):
        state, metrics = train_step(state, rounds)
        if log is not None:
            log(metrics, step)
    jax.block_until_ready(state)
    return (time.perf_counter() - begin) / steps


def rounds_for(seconds: float) -> int:
    """Return how long the step's inner loop must be."""
    few, many = (statistics.median(loop(100, n, None) for _ in range(5)) for n in (10, 110))
    return max(1, round((seconds - few) / ((many - few) / 100)) + 10)


def steps() -> None:
    """Loop time with five device scalars logged every step, over that of the bare loop."""
    print("loop time with 5 device scalars logged every step / without (median of interleaved pairs)")
    for seconds, target in ((0.005, "target <= 1.02"), (0.0002, "target <= 1.15")):
        for name in PEERS:
            if name != "tracklayer" and importlib.util.find_spec(name) is None:
                continue
            # each in a process of its own: what a peer leaves running is not to slow the next
            subprocess.run([sys.executable, __file__, "-steps", name, str(seconds), target], check=True)


def steps_of(name: str, seconds: float, target: str) -> None:
    rounds = rounds_for(seconds)
    count = max(50, round(1.0 / seconds))
    bare: list[float] = []
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as folder, PEERS[name](Path(folder)) as log:
        loop(50, rounds, log)
        slow = loop(20, rounds, log, first=50) > seconds * 20
        count, pairs = (count // 10, 5) if slow else (count, 15)
        for number in range(pairs):
            without = loop(count, rounds, None)
            ratios.append(loop(count, rounds, log, first=100 + number * count) / without)
            bare.append(without)
    figure = f"x {statistics.median(ratios):.3f}"
    note = f"of a step of {statistics.median(bare) * 1000:.2f} ms"
    show(name, figure, f"{note}; {target}" if name == "tracklayer" else note)


@contextmanager
def our_log(folder: Path) -> Iterator[Log]:
    with tracklayer.init(dir=folder / "store", backend="sqlite") as run:
        yield run.log


@contextmanager
def tensorboardx_log(folder: Path) -> Iterator[Log]:
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:

        def log(values: dict[str, Any], step: int) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, step)

        yield log


@contextmanager
def wandb_log(folder: Path) -> Iterator[Log]:
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    with wandb.init(mode="offline", dir=folder) as run:
        yield lambda values, step: run.log(values, step=step)


@contextmanager
def trackio_log(folder: Path) -> Iterator[Log]:
    os.environ.update(TRACKIO_DIR=str(folder), GRADIO_ANALYTICS_ENABLED="False")
    import trackio

    with redirect_stdout(StringIO()):
        run = trackio.init(project="benchmark", embed=False)
    # it leaves out what is a jax array, with a warning: so it is given numbers
    yield lambda values, step: run.log({key: float(value) for key, value in values.items()}, step=step)


PEERS: dict[str, Callable[[Path], Any]] = {
    "tracklayer": our_log,
    "wandb": wandb_log,
    "tensorboardX": tensorboardx_log,
    "trackio": trackio_log,
}


# -- donation --------------------------------------------------------------------------------------


def donated() -> None:
    """100,000 steps whose logged scalars are part of a state that the very next step donates."""
    print("100,000 steps that donate what they log: values that are there, and right")
    count = 100_000

    @partial(jax.jit, donate_argnums=0)
    def step_of(state: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"count": state["count"] + 1, "half": state["half"] + 0.5}

    state = {"count": jnp.int32(0), "half": jnp.float32(0.0)}
    with tempfile.TemporaryDirectory() as folder:
        with tracklayer.init(dir=folder, backend="sqlite") as run:
            begin = time.perf_counter()
            for step in range(count):
                run.log(state, step=step)
                state = step_of(state)
            seconds = time.perf_counter() - begin
        reader = tracklayer.open_store(folder).run(run.id)
        counts, halves = reader.metric("count").value, reader.metric("half").value
        right = int((counts == np.arange(count)).sum() + (halves == np.arange(count) / 2).sum())
    show("tracklayer", f"{right} of {2 * count} right", f"{seconds / count * 1e6:.0f} us a step in all")


# -- histograms ------------------------------------------------------------------------------------


def histogram() -> None:
    """A histogram of 1,000,000 float32 on the device: the caller's time, and the whole."""
    print("histogram of 1,000,000 float32, 64 bins")
    array = jax.random.normal(jax.random.key(0), (1000, 1000))
    host = np.asarray(array)
    jax.block_until_ready(array)
    bare = jax.jit(jnp.sum)
    jax.block_until_ready(bare(array))
    calls: list[float] = []
    bares: list[float] = []
    wholes: list[float] = []
    numpys: list[float] = []
    for _ in range(30):
        begin = time.perf_counter()
        made = tracklayer.Histogram(array)
        calls.append(time.perf_counter() - begin)
        _ = made.bins
        wholes.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        np.histogram(host, bins=64)
        numpys.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        total = bare(array)
        bares.append(time.perf_counter() - begin)
        jax.block_until_ready(total)
    whole, beside = statistics.median(wholes), statistics.median(numpys)
    show("the caller's time", f"{statistics.median(calls) * 1000:.3f} ms", "target < 0.2 ms")
    show("the caller's time of a bare jitted sum", f"{statistics.median(bares) * 1000:.3f} ms")
    show("the whole, moments and non-finite apart", f"{whole * 1000:.2f} ms", f"x {whole / beside:.2f}")
    show("np.histogram alone", f"{beside * 1000:.2f} ms")


# -- whole series ----------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=1)
def epoch(weights: jax.Array, length: int) -> tuple[jax.Array, dict[str, jax.Array]]:
    def step(weights: jax.Array, _: None) -> tuple[jax.Array, dict[str, jax.Array]]:
        moved = jnp.tanh(weights @ weights)
        return moved, {"loss": moved.mean(), "norm": jnp.linalg.norm(moved)}

    return jax.lax.scan(step, weights, None, length=length)


def series() -> None:
    """`scan` of 10,000 steps whose series are logged, over the bare scan."""
    print("scan of 10,000 steps, 2 series returned: time over the bare scan")
    length = 10_000
    weights = jax.random.normal(jax.random.key(0), (32, 32)) / 6
    jax.block_until_ready(epoch(weights, length))

    def timed(log: Callable[[dict[str, jax.Array]], object] | None) -> float:
        begin = time.perf_counter()
        moved, metrics = epoch(weights, length)
        if log is not None:
            log(metrics)
        jax.block_until_ready((moved, metrics))
        return time.perf_counter() - begin

    with tempfile.TemporaryDirectory() as folder, tracklayer.init(dir=folder, backend="sqlite") as run:
        timed(run.log_series)
        run.flush()
        bare: list[float] = []
        over: list[float] = []
        for _ in range(20):
            without = timed(None)
            over.append((timed(run.log_series) - without) / length)
            bare.append(without / length)
            run.flush(60)
    a_step = statistics.median(over) * 1e6
    show("log_series", f"{a_step:+.3f} us a step", f"bare: {statistics.median(bare) * 1e6:.2f}; target < 1")


# -- inside jit ------------------------------------------------------------------------------------


def inside() -> None:
    """The tap inside a scan of 10,000 steps, over the bare scan."""
    print("a tap inside a scan of 10,000 steps: time over the bare scan")
    length = 10_000

    def timed(every: int | None) -> Callable[[], float]:
        @jax.jit
        def run_epoch(weights: jax.Array) -> jax.Array:
            def step(weights: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
                moved = jnp.tanh(weights @ weights)
                if every is not None:
                    tracklayer.jax.log(None, {"loss": moved.mean()}, step=number, every=every)
                return moved, None

            return jax.lax.scan(step, weights, jnp.arange(length))[0]

        weights = jax.random.normal(jax.random.key(0), (32, 32)) / 6
        jax.block_until_ready(run_epoch(weights))

        def measure() -> float:
            begin = time.perf_counter()
            jax.block_until_ready(run_epoch(weights))
            jax.effects_barrier()
            return time.perf_counter() - begin

        return measure

    with tempfile.TemporaryDirectory() as folder, tracklayer.init(dir=folder, backend="sqlite"):
        bare, each, seldom = timed(None), timed(1), timed(100)
        triples = [(bare(), each(), seldom()) for _ in range(7)]
    for name, column in (("every step", 1), ("every 100th step", 2)):
        over = statistics.median(t[column] - t[0] for t in triples) / length
        show(name, f"{over * 1e6:+.2f} us a step")


BENCHMARKS = {
    "steps": steps,
    "donated": donated,
    "histogram": histogram,
    "series": series,
    "inside": inside,
}


def main() -> None:
    if sys.argv[1:2] == ["-steps"]:
        steps_of(sys.argv[2], float(sys.argv[3]), sys.argv[4])
        return
    for name in sys.argv[1:] or BENCHMARKS:
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
