"""What bayes is worth: it finds better parameters than chance does, on a function like a model's tuning."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wilcoxon

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "sweeps.py"


@pytest.mark.slow
def test_the_best_of_40_by_bayes_beats_the_best_of_40_by_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = runpy.run_path(str(BENCHMARK))
    monkeypatch.chdir(tmp_path)  # the store
    assert (benchmark["SEEDS"], benchmark["BEST_OF"]) == (20, 40)
    bayes, chance = (
        np.array([benchmark["regret_of_best"](method, seed) for seed in range(20)])
        for method in ("bayes", "random")
    )
    assert np.median(bayes) < np.median(chance) / 2
    assert wilcoxon(bayes, chance, alternative="less").pvalue < 0.01
