"""What a sweep costs beyond training, how many claims agents get out of one file, and what bayes is worth.

    python benchmarks/sweeps.py            # all of it, about two minutes
    python benchmarks/sweeps.py overhead   # one of: overhead claims quality

Beside each figure stands the same by bare Optuna, with the same space and a journal file.  Machines are
shared and noisy: what is compared is interleaved, medians are taken, and the ratios count.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import tracklayer
from tracklayer.sweeps.claiming import ClaimedTrial, claim
from tracklayer.sweeps.configuration import read_config
from tracklayer.sweeps.leases import Lease
from tracklayer.sweeps.study import create, open_sweep

NAMES = [f"p{index}" for index in range(6)]
ROWS = 10
"""Logged by each trial."""
TRIALS = 100
BLOCK = 10
"""Trials between the turns of those that are compared."""
AGENTS = 8
CLAIMS = 25
"""Of each agent."""
ROUNDS = 3
SEEDS = 20
BEST_OF = 40


def show(name: str, figure: str, note: str = "") -> None:
    print(f"  {name:<48} {figure:>18}  {note}")


# -- what a trial costs ----------------------------------------------------------------------------


def overhead() -> None:
    """An agent's trials of a function that only logs, beside bare Optuna, and beside runs of no sweep."""
    print(f"overhead a trial: bayes with {len(NAMES)} parameters, {TRIALS} trials, {ROWS} rows each")
    tracklayer.init(project="warm").finish()  # imports, and what a process finds out once
    sweep = tracklayer.sweep(six_parameters("bayes"), project="overhead")
    study = optuna.create_study(
        storage=journal(Path("overhead.journal")), sampler=optuna.samplers.TPESampler()
    )
    found: dict[str, list[float]] = {}
    for _ in range(TRIALS // BLOCK):
        for name, block in {
            "bare": lambda: [losses(dict.fromkeys(NAMES, 0.5)) for _ in range(BLOCK)],
            "agent": lambda: tracklayer.agent(sweep, train, count=BLOCK),
            "Optuna": lambda: study.optimize(objective, n_trials=BLOCK),
            "runs": lambda: [train() for _ in range(BLOCK)],
        }.items():
            found.setdefault(name, []).append(1000 * timed(block) / BLOCK)
    trials = read_trials(sweep)
    assert [trial.user_attrs["outcome"] for trial in trials] == ["finished"] * TRIALS
    bare = statistics.median(found["bare"])
    agent, peer, runs = ([figure - bare for figure in found[name]] for name in ("agent", "Optuna", "runs"))
    show("tracklayer.agent", spread(agent), f"target < 50 ms; the last {BLOCK}: {agent[-1]:.1f} ms")
    show("study.optimize, which records no runs", spread(peer), f"the last {BLOCK}: {peer[-1]:.1f} ms")
    show("init, log, finish, without a sweep", spread(runs))
    beyond = statistics.median(map(lambda a, r: a - r, agent, runs))
    ratio = statistics.median(map(lambda a, r, p: (a - r) / p, agent, runs, peer))
    show("agent without what its runs cost", f"{beyond:.1f} ms", f"x {ratio:.2f} of study.optimize")


def losses(parameters: dict[str, float]) -> list[float]:
    """Train, as it were."""
    loss = sum((value - 0.3) ** 2 for value in parameters.values())
    return [loss + 1 / (step + 1) for step in range(ROWS)]


def train() -> None:
    with tracklayer.init(project="overhead") as run:
        parameters = {name: run.config.get(name, 0.5) for name in NAMES}
        for step, loss in enumerate(losses(parameters)):
            run.log({"loss": loss}, step=step)


def objective(trial: optuna.Trial) -> float:
    return min(losses({name: trial.suggest_float(name, 0.0, 1.0) for name in NAMES}))


# -- many agents -----------------------------------------------------------------------------------


def claims() -> None:
    """Agents that claim a trial and end it, as fast as they can, on one sweep."""
    print(f"trials claimed and ended a second: {AGENTS} processes, random, {len(NAMES)} parameters")
    folder = Path.cwd()
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(ROUNDS):
        sweep = create(folder, read_config(six_parameters("random")), project="claims")
        ours.append(rate(claim_and_end, str(folder), sweep.id))
        trials = read_trials(sweep.id)
        assert len({tuple(trial.params.values()) for trial in trials}) == AGENTS * CLAIMS
        path = f"claims-{number}.journal"
        optuna.create_study(storage=journal(Path(path)), study_name="claims")
        theirs.append(rate(ask_and_tell, path, "claims"))
    show("claim and end", f"{statistics.median(ours):.0f} a second")
    show("study.ask and study.tell", f"{statistics.median(theirs):.0f} a second")
    ratio = statistics.median(map(lambda a, b: a / b, ours, theirs))
    show("", "", f"x {ratio:.2f} of Optuna")


def rate(work: Callable[[Barrier, str, str], None], place: str, name: str) -> float:
    """Return how many trials a second all processes do together, once each is ready."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(AGENTS + 1)
    processes = [context.Process(target=work, args=(ready, place, name)) for _ in range(AGENTS)]
    for process in processes:
        process.start()
    ready.wait()
    start = time.perf_counter()
    ready.wait()
    seconds = time.perf_counter() - start
    for process in processes:
        process.join()
    return AGENTS * CLAIMS / seconds


def claim_and_end(ready: Barrier, store: str, sweep_id: str) -> None:
    sweep = open_sweep(Path(store), sweep_id)
    with Lease(sweep.agents) as lease:
        ready.wait()
        for number in range(CLAIMS):
            claimed = claim(sweep, lease)
            assert isinstance(claimed, ClaimedTrial)
            claimed.end("finished", float(number))
        ready.wait()


def ask_and_tell(ready: Barrier, path: str, name: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {name: optuna.distributions.FloatDistribution(0, 1) for name in NAMES}
    sampler = optuna.samplers.RandomSampler()
    study = optuna.load_study(study_name=name, storage=journal(Path(path)), sampler=sampler)
    ready.wait()
    for number in range(CLAIMS):
        study.tell(study.ask(space), float(number))
    ready.wait()


# -- what bayes finds ------------------------------------------------------------------------------

NOISE = 0.05
TRAINING: dict[str, Any] = {
    "metric": {"name": "loss", "goal": "minimize"},
    "parameters": {
        "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0},
        "dropout": {"min": 0.0, "max": 0.9},
        "width": {"min": 8, "max": 512},
        "optimizer": {"values": ["adam", "sgd", "rmsprop"]},
    },
}


def regret(lr: float, dropout: float, width: int, optimizer: str) -> float:
    """Return how much worse than the best, which is 0, a training would be without noise."""
    return (
        (math.log10(lr) + 2.7) ** 2 / 2
        + 4 * (dropout - 0.3) ** 2
        + ((width - 150) / 150) ** 2 / 2
        + {"adam": 0.0, "sgd": 0.5, "rmsprop": 0.2}[optimizer]
    )


def quality() -> None:
    """Best of 40, by its noisy loss, of bayes and of random: how good it really is, over 20 seeds."""
    from scipy.stats import binomtest, wilcoxon

    print(f"true regret of the best of {BEST_OF}, on a noisy function of 4 parameters, {SEEDS} seeds")
    found = {
        method: np.array([regret_of_best(method, seed) for seed in range(SEEDS)])
        for method in ("bayes", "random")
    }
    print(f"  {'':<12}{'min':>8}{'25 %':>8}{'median':>8}{'75 %':>8}{'max':>8}")
    for method, regrets in found.items():
        quantiles = np.quantile(regrets, [0, 0.25, 0.5, 0.75, 1])
        print(f"  {method:<12}" + "".join(f"{quantile:8.3f}" for quantile in quantiles))
    wins = int((found["bayes"] < found["random"]).sum())
    sign = binomtest(wins, SEEDS, alternative="greater").pvalue
    ranks = wilcoxon(found["bayes"], found["random"], alternative="less").pvalue
    print(
        f"  bayes wins {wins} of {SEEDS}: sign test p = {sign:.2g}, Wilcoxon's signed ranks p = {ranks:.2g}"
    )


def regret_of_best(method: str, seed: int) -> float:
    noise = np.random.default_rng(1000 + seed)
    sweep = create(Path.cwd(), read_config({**TRAINING, "method": method}), project="quality", seed=seed)
    trials: list[tuple[float, float]] = []
    with Lease(sweep.agents) as lease:
        for _ in range(BEST_OF):
            claimed = claim(sweep, lease)
            assert isinstance(claimed, ClaimedTrial)
            true = regret(**claimed.parameters)
            loss = true + noise.normal(0, NOISE)
            claimed.end("finished", loss)
            trials.append((loss, true))
    return min(trials)[1]


# -- all -------------------------------------------------------------------------------------------


def six_parameters(method: str) -> dict[str, Any]:
    return {
        "method": method,
        "metric": {"name": "loss", "goal": "minimize"},
        "parameters": {name: {"min": 0.0, "max": 1.0} for name in NAMES},
    }


def journal(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def read_trials(sweep_id: str) -> list[optuna.trial.FrozenTrial]:
    return open_sweep(Path(os.environ["TRACKLAYER_DIR"]), sweep_id).study.get_trials()


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def spread(milliseconds: list[float]) -> str:
    return f"{statistics.median(milliseconds):.1f} ms (max {max(milliseconds):.1f})"


BENCHMARKS = {"overhead": overhead, "claims": claims, "quality": quality}


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in sys.argv[1:] or BENCHMARKS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TRACKLAYER_DIR"] = folder
            os.chdir(folder)
            BENCHMARKS[name]()
            os.chdir("/")


if __name__ == "__main__":
    main()
