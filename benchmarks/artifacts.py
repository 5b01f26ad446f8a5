"""What storing an artifact costs: how long its caller waits, and how many bytes are on disk afterwards.

    python benchmarks/artifacts.py          # all of it, about a minute
    python benchmarks/artifacts.py large    # one of: large small

Machines are shared and noisy: the trackers and the bare copy take turns, medians are taken, and the ratios
count.  A tracker that is not installed is named and left out.  Wandb is offline, where it keeps a copy in its
data folder until it is synced.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import tracklayer

Log = Callable[[Path], object]
"""Logs the files of a folder as the next version of one artifact, and returns when they are the caller's."""
ROUNDS = 5
MB = 1_000_000


@contextmanager
def ours(folder: Path) -> Iterator[Log]:
    def log(source: Path) -> None:
        artifact = tracklayer.Artifact("model", "model")
        artifact.add_dir(source)
        run.log_artifact(artifact)

    with tracklayer.init(project="bench", dir=folder, backend="sqlite") as run:
        yield log


@contextmanager
def of_wandb(folder: Path) -> Iterator[Log]:
    os.environ.update({f"WANDB_{place}_DIR": str(folder / place) for place in ("CACHE", "DATA", "CONFIG")})
    import wandb

    def log(source: Path) -> None:
        artifact = wandb.Artifact("model", "model")
        artifact.add_dir(str(source))
        run.log_artifact(artifact)

    settings = wandb.Settings(x_disable_stats=True, console="off", silent=True)
    run = wandb.init(project="bench", mode="offline", dir=str(folder), settings=settings)
    yield log
    run.finish()


@contextmanager
def of_trackio(folder: Path) -> Iterator[Log]:
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    def log(source: Path) -> None:
        artifact = trackio.Artifact("model", "model")
        artifact.add_dir(source)
        run.log_artifact(artifact)

    run = trackio.init(project="bench", embed=False)
    yield log
    trackio.finish()


@contextmanager
def of_mlflow(folder: Path) -> Iterator[Log]:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = mlflow.create_experiment("bench", artifact_location=(folder / "artifacts").as_uri())
    versions = iter(range(100))
    with mlflow.start_run(experiment_id=experiment):  # which has no versions: a folder for each
        yield lambda source: mlflow.log_artifacts(str(source), f"model/v{next(versions)}")


@contextmanager
def bare(folder: Path) -> Iterator[Log]:
    versions = iter(range(100))

    def copy(source: Path) -> None:
        target = folder / f"v{next(versions)}"
        os.spawnlp(os.P_WAIT, "cp", "cp", "-r", str(source), str(target))
        for path in sorted(source.iterdir()):
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")

    yield copy


BARE = "cp -r and SHA-256"
TRACKERS: dict[str, Callable[[Path], AbstractContextManager[Log]]] = {
    BARE: bare,
    "tracklayer": ours,
    "wandb": of_wandb,
    "trackio": of_trackio,
    "mlflow": of_mlflow,
}


def compare(count: int, size: int, *, rounds: int) -> None:
    """Log files, change one, and log them again; each time in a process of its own."""
    missing = [name for name in TRACKERS if name != BARE and importlib.util.find_spec(name) is None]
    for name in missing:
        print(f"  {name} is not installed, and left out")
    taken: dict[str, list[tuple[float, float]]] = {}
    stored: dict[str, int] = {}
    for turn in range(rounds):
        for name in (one for one in TRACKERS if one not in missing):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, "--", name, folder, str(count), str(size), str(turn)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                first, again = map(float, done.stdout.splitlines()[-1].split())
                taken.setdefault(name, []).append((first, again))
                stored[name] = bytes_on_disk(Path(folder) / "store")
    alone = statistics.median(map(sum, taken[BARE]))
    show("", "first", "again", "both", f"x {BARE}", "on disk")
    for name, times in taken.items():
        both = statistics.median(map(sum, times))
        one, two = (statistics.median(each) for each in zip(*times, strict=True))
        figures = (f"{one:.2f} s", f"{two:.2f} s", f"{both:.2f} s", f"{both / alone:.2f}")
        show(name, *figures, f"{stored[name] / MB:.1f} MB")


def measure(name: str, folder: Path, count: int, size: int, seed: int) -> None:
    """Do what `compare` compares, once, and print the seconds that the two calls took."""
    source, other = folder / "source", folder / "other"
    fill(source, count, size, seed=seed)
    fill(other, 2, 1000, seed=seed)
    (folder / "store").mkdir()
    with TRACKERS[name](folder / "store") as log:
        log(other)  # what a program pays once, such as imports, is not what is asked here
        os.sync()  # nor what others left to be written
        first = seconds(log, source)
        (source / "0").write_bytes(random.Random(-1 - seed).randbytes(size))
        again = seconds(log, source)
    print(f"\n{first} {again}")


def show(name: str, *figures: str) -> None:
    print(f"  {name:<20}" + "".join(f"{figure:>12}" for figure in figures[:3]), end="")
    print("".join(f"{figure:>21}" for figure in figures[3:]))


def fill(folder: Path, count: int, size: int, *, seed: int) -> None:
    """Write files of random bytes, as weights are to whoever compresses them."""
    chance = random.Random(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / str(number)).write_bytes(chance.randbytes(size))


def seconds(log: Log, source: Path) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    log(source)
    return time.perf_counter() - start


def bytes_on_disk(folder: Path) -> int:
    """Return the room that files take, each counted once however many names it has."""
    found = {path.stat().st_ino: path.stat() for path in folder.rglob("*") if path.is_file()}
    return sum(one.st_blocks * 512 for one in found.values())


def large() -> None:
    """200 MB in 20 files."""
    print("20 files of 10 MB logged, one of them changed, and all logged again")
    print("  targets: at most 211 MB; as fast as the fastest tracker, or 1.3 x the bare copy")
    compare(20, 10 * MB, rounds=ROUNDS)


def small() -> None:
    """20 MB in 20,000 files."""
    print("20,000 files of 1 kB logged, one of them changed, and all logged again")
    compare(20_000, 1000, rounds=1)


BENCHMARKS = {"large": large, "small": small}


def main() -> None:
    if sys.argv[1:2] == ["--"]:
        name, folder, count, size, seed = sys.argv[2:]
        measure(name, Path(folder), int(count), int(size), int(seed))
        return
    for name in sys.argv[1:] or BENCHMARKS:
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
