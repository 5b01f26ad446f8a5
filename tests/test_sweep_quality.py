"""What bayes is worth: it finds better parameters than chance does, on a function like a model's tuning."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import wilcoxon

from tracklayer.sweeps.claiming import ClaimedTrial, claim
from tracklayer.sweeps.configuration import read_config
from tracklayer.sweeps.leases import Lease
from tracklayer.sweeps.study import create

SEEDS = range(20)
TRIALS = 40
NOISE = 0.05
CONFIG: dict[str, Any] = {
    "metric": {"name": "loss", "goal": "minimize"},
    "parameters": {
        "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0},
        "dropout": {"min": 0.0, "max": 0.9},
        "width": {"min": 8, "max": 512},
        "optimizer": {"values": ["adam", "sgd", "rmsprop"]},
    },
}


def regret(lr: float, dropout: float, width: int, optimizer: str) -> float:
    """How much worse than the best parameters these are, without noise."""
    return (
        (math.log10(lr) + 2.7) ** 2 / 2
        + 4 * (dropout - 0.3) ** 2
        + ((width - 150) / 150) ** 2 / 2
        + {"adam": 0.0, "sgd": 0.5, "rmsprop": 0.2}[optimizer]
    )


def regret_of_best(store: Path, method: str, seed: int) -> float:
    """The regret of the trial with the lowest noisy loss."""
    noise = np.random.default_rng(1000 + seed)
    sweep = create(store, read_config({**CONFIG, "method": method}), project="p", seed=seed)
    trials: list[tuple[float, float]] = []
    with Lease(sweep.agents) as lease:
        for _ in range(TRIALS):
            claimed = claim(sweep, lease)
            assert isinstance(claimed, ClaimedTrial)
            true = regret(**claimed.parameters)
            loss = true + noise.normal(0, NOISE)
            claimed.end("finished", loss)
            trials.append((loss, true))
    return min(trials)[1]


@pytest.mark.slow
def test_the_best_of_40_by_bayes_beats_the_best_of_40_by_chance(store: Path) -> None:
    bayes, chance = (
        np.array([regret_of_best(store, method, seed) for seed in SEEDS]) for method in ("bayes", "random")
    )
    assert np.median(bayes) < np.median(chance) / 2
    assert wilcoxon(bayes, chance, alternative="less").pvalue < 0.01
