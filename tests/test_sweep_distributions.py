"""Each of W&B's distributions against its definition, drawn as a sweep of method random draws it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from scipy import stats

from tracklayer.sweeps.configuration import SweepConfig, read_config

pytestmark = pytest.mark.slow

DRAWS = 2000
UNLIKELY = 0.001
"""Of what is drawn by the definition, with the fixed seed, no test gives a smaller p-value."""

E = math.e
CONTINUOUS: dict[str, tuple[dict[str, Any], Any]] = {
    "uniform": ({"min": -1.0, "max": 3.0}, stats.uniform(-1, 4)),
    "log_uniform": ({"min": -7, "max": -2}, stats.loguniform(E**-7, E**-2)),
    "log_uniform_values": ({"min": 1e-4, "max": 1e-1}, stats.loguniform(1e-4, 1e-1)),
    "normal": ({"mu": 3, "sigma": 0.5}, stats.norm(3, 0.5)),
    "log_normal": ({"mu": -1, "sigma": 2}, stats.lognorm(2, scale=E**-1)),
    "beta": ({"a": 2, "b": 0.5}, stats.beta(2, 0.5)),
}
"""W&B's keys, and what scipy says of the distribution."""
ROUNDED: dict[str, tuple[dict[str, Any], Any]] = {
    "q_uniform": ({"min": 0.3, "max": 5.2, "q": 1}, stats.uniform(0.3, 4.9)),
    "q_log_uniform": ({"min": 0, "max": 4, "q": 4}, stats.loguniform(1, E**4)),
    "q_log_uniform_values": ({"min": 16, "max": 128, "q": 16}, stats.loguniform(16, 128)),
    "q_normal": ({"mu": 3, "sigma": 5, "q": 2}, stats.norm(3, 5)),
    "q_log_normal": ({"mu": 1, "sigma": 0.7, "q": 1.5}, stats.lognorm(0.7, scale=E)),
    "q_beta": ({"a": 2, "b": 3, "q": 0.125}, stats.beta(2, 3)),
}
INVERSE: dict[str, tuple[dict[str, Any], Any]] = {
    "inv_log_uniform": ({"min": 2, "max": 5}, stats.uniform(2, 3)),
    "inv_log_uniform_values": ({"min": 0.01, "max": 3}, stats.uniform(-math.log(3), math.log(300))),
}
"""W&B's keys, and what scipy says of log(1/X)."""
DISCRETE: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "int_uniform": ({"min": -2, "max": 7}, {str(number): 0.1 for number in range(-2, 8)}),
    "categorical": (
        {"values": [1, True, "1", None, [1]]},
        dict.fromkeys(("1", "True", "'1'", "None", "[1]"), 0.2),
    ),
    "categorical_w_probabilities": (
        {"values": ["a", "b", [64, 64], {"deep": 2}], "probabilities": [0.1, 0.0, 0.6, 0.3]},
        {"'a'": 0.1, "[64, 64]": 0.6, "{'deep': 2}": 0.3},
    ),
}
"""W&B's keys, and how often each value comes, by its `repr`."""


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Any]]:
    """What 2,000 trials of a random sweep got, by the distribution of the parameter."""
    given = {
        kind: {"distribution": kind, **keys}
        for kind, (keys, _) in {**CONTINUOUS, **ROUNDED, **INVERSE, **DISCRETE}.items()
    }
    config = read_config({"method": "random", "parameters": given})
    trials = draw(config, DRAWS)
    return {kind: [trial[kind] for trial in trials] for kind in given}


def draw(config: SweepConfig, count: int) -> list[dict[str, Any]]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=7))
    space = {parameter.name: parameter.distribution() for parameter in config.parameters}
    found = {name: distribution for name, distribution in space.items() if distribution is not None}
    return [config.nested(study.ask(found).params) for _ in range(count)]


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_what_is_drawn_follows_the_distribution(drawn: Mapping[str, list[Any]], kind: str) -> None:
    assert {type(value) for value in drawn[kind]} == {float}
    assert stats.kstest(drawn[kind], CONTINUOUS[kind][1].cdf).pvalue > UNLIKELY


@pytest.mark.parametrize("kind", INVERSE)
def test_the_logarithm_of_the_inverse_is_uniform(drawn: Mapping[str, list[Any]], kind: str) -> None:
    assert stats.kstest(-np.log(drawn[kind]), INVERSE[kind][1].cdf).pvalue > UNLIKELY


def test_log_uniform_takes_exponents_of_e_and_log_uniform_values_takes_values(
    drawn: Mapping[str, list[Any]],
) -> None:
    exponents, values = drawn["log_uniform"], drawn["log_uniform_values"]
    assert E**-7 <= min(exponents) < E**-6.9
    assert E**-2.1 < max(exponents) <= E**-2
    assert 1e-4 <= min(values) < 1.1e-4
    assert 0.9e-1 < max(values) <= 1e-1


@pytest.mark.parametrize("kind", ROUNDED)
def test_what_is_rounded_lies_on_its_grid_as_often_as_what_it_is_rounded_from(
    drawn: Mapping[str, list[Any]], kind: str
) -> None:
    keys, whole = ROUNDED[kind]
    q, values = keys["q"], drawn[kind]
    assert {type(value) for value in values} == {type(q)}
    steps = Counter(round(value / q) for value in values)
    assert set(values) == {step * q for step in steps}
    often = range(min(steps), max(steps) + 1)
    shares = {step: whole.cdf((step + 0.5) * q) - whole.cdf((step - 0.5) * q) for step in often}
    assert p_value(steps, shares) > UNLIKELY


@pytest.mark.parametrize("kind", DISCRETE)
def test_each_value_is_drawn_as_often_as_it_is_likely(drawn: Mapping[str, list[Any]], kind: str) -> None:
    shares = DISCRETE[kind][1]
    seen = Counter(map(repr, drawn[kind]))
    assert set(seen) == set(shares)
    assert p_value(seen, shares) > UNLIKELY


def p_value(seen: Mapping[Any, int], shares: Mapping[Any, float]) -> float:
    """Return the p-value of a chi-square test; what is rare is counted as one."""
    counts, expected = [0.0], [0.0]
    for step, share in shares.items():
        if share * DRAWS >= 5:
            counts.append(seen.get(step, 0))
            expected.append(share * DRAWS)
    counts[0], expected[0] = DRAWS - sum(counts), DRAWS - sum(expected)
    if expected[0] < 1:  # nothing is rare
        assert counts[0] <= 5
        counts, expected = counts[1:], [share * sum(counts[1:]) / sum(expected[1:]) for share in expected[1:]]
    return float(stats.chisquare(counts, expected).pvalue)


@pytest.mark.parametrize("kind", [*CONTINUOUS, *ROUNDED, *INVERSE, *DISCRETE])
def test_a_real_value_is_found_again_in_the_study(drawn: Mapping[str, list[Any]], kind: str) -> None:
    keys = {**CONTINUOUS, **ROUNDED, **INVERSE, **DISCRETE}[kind][0]
    (parameter,) = read_config(
        {"method": "random", "parameters": {"x": {"distribution": kind, **keys}}}
    ).parameters
    distribution = parameter.distribution()
    assert distribution is not None
    for value in drawn[kind][:100]:
        internal = parameter.internal(value)
        assert distribution._contains(distribution.to_internal_repr(internal))
        again = parameter.value(internal)
        assert again == value if not isinstance(value, float) else again == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"distribution": "normal", "sigma": 0, "mu": 4}, lambda value: value == 4),
        ({"distribution": "normal"}, lambda value: 8 < abs(value) < 9),
        ({"distribution": "log_normal", "mu": 500, "sigma": 100}, lambda value: 0 < value < math.inf),
        ({"distribution": "q_log_normal", "mu": 900, "q": 1}, lambda value: value == int(math.exp(709))),
        ({"distribution": "beta"}, lambda value: 0 < value < 1),
        ({"distribution": "beta", "a": 0}, lambda value: value == 0),
        ({"distribution": "beta", "b": 0}, lambda value: value == 1),
        ({"values": ["a", "b"], "probabilities": [1, 0]}, lambda value: value == "a"),
        ({"values": ["a", "b"], "probabilities": [0, 1]}, lambda value: value == "b"),
    ],
)
@pytest.mark.parametrize("quantile", [0.0, 1.0])
def test_the_ends_of_a_distribution_are_numbers_too(
    keys: dict[str, Any], expected: Callable[[Any], bool], quantile: float
) -> None:
    (parameter,) = read_config({"method": "random", "parameters": {"x": keys}}).parameters
    value = parameter.value(quantile)
    assert expected(value)
    assert isinstance(value, type(keys.get("q", value)))
