"""Many trials of a sweep in one jitted call: each is a run of its own, and equal to the same trial alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optuna.trial import FrozenTrial
from sklearn.datasets import load_digits

import tracklayer
from tracklayer.errors import SweepNotFoundError, UnsupportedValueError, UsageError
from tracklayer.reading import RunReader
from tracklayer.sweeps.study import open_sweep

DIGITS = load_digits(n_class=2)
IMAGES, LABELS = DIGITS.data[:100].astype("float32") / 16, DIGITS.target[:100].astype("float32")
PARAMETERS = {
    "optimizer": {
        "parameters": {
            "rate": {"distribution": "log_uniform_values", "min": 1e-2, "max": 1.0},
            "decay": {"values": [0, 0.01, 1]},
        }
    },
    "seed": {"min": 0, "max": 1000},
    "steps": {"value": 20},
    "start": {"value": "random"},
}
SWEEP = {"method": "random", "metric": {"name": "train/loss"}, "parameters": PARAMETERS}


def regress(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Tell noughts from ones by logistic regression."""
    assert parameters["start"] == "random"

    def loss(weights: jax.Array) -> jax.Array:
        logits = IMAGES @ weights
        decay = parameters["optimizer"]["decay"] * (weights**2).sum()
        return (jnp.logaddexp(0, logits) - LABELS * logits).mean() + decay

    def step(weights: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(weights)
        return weights - parameters["optimizer"]["rate"] * gradient, value

    start = jax.random.normal(jax.random.key(parameters["seed"]), (64,))
    weights, losses = jax.lax.scan(step, start, length=parameters["steps"])
    accuracy = ((IMAGES @ weights > 0) == LABELS).mean()
    return {"train": {"loss": losses}, "norm": losses[::5], "accuracy": accuracy}


def slope(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"loss": 2.0 * parameters["x"]}


def created(store: Path, method: str = "random", **entries: Any) -> str:
    """Create a sweep of one parameter, `x`, from 0 to 1, unless another is given."""
    config = {
        "method": method,
        "metric": {"name": "loss"},
        "parameters": {"x": {"min": 0.0, "max": 1.0}},
        **entries,
    }
    return tracklayer.sweep(config, project="vmapped", seed=0)


def runs_of(sweep: str) -> list[RunReader]:
    return tracklayer.open_store().runs(project="vmapped", group=sweep)


def trials_of(store: Path, sweep: str) -> list[FrozenTrial]:
    return open_sweep(store, sweep).study.trials


@jax.jit
def alone(rate: jax.Array, decay: jax.Array, seed: jax.Array) -> dict[str, Any]:
    """Train with parameters of one trial in a program of its own."""
    return regress(
        {"optimizer": {"rate": rate, "decay": decay}, "seed": seed, "steps": 20, "start": "random"}
    )


@pytest.mark.slow
def test_each_trial_is_a_run_as_if_it_had_been_made_alone(store: Path) -> None:
    sweep = created(store, **SWEEP)
    tracklayer.jax.agent(sweep, regress, width=4, count=4)
    runs = runs_of(sweep)
    assert len(runs) == len({run.config["optimizer"]["rate"] for run in runs}) == 4
    for run in runs:
        assert run.info.state == "finished"
        assert (run.config["steps"], run.config["start"]) == (20, "random")
        rate, decay = run.config["optimizer"]["rate"], run.config["optimizer"]["decay"]
        expected = alone(jnp.float32(rate), jnp.float32(decay), jnp.int32(run.config["seed"]))
        for key, values, steps in (
            ("train/loss", expected["train"]["loss"], range(20)),
            ("norm", expected["norm"], range(4)),
            ("accuracy", expected["accuracy"][None], [19]),
        ):
            metric = run.metric(key)
            assert metric.step.tolist() == list(steps)
            np.testing.assert_allclose(metric.value, values, rtol=1e-4)


@pytest.mark.slow
def test_the_study_has_each_trials_parameters_its_run_and_its_best_value(store: Path) -> None:
    sweep = created(store, **SWEEP)
    tracklayer.jax.agent(sweep, regress, width=2, count=2)
    runs = {run.id: run for run in runs_of(sweep)}
    for trial in trials_of(store, sweep):
        run = runs.pop(trial.user_attrs["run"])
        assert trial.user_attrs["outcome"] == "finished"
        assert trial.user_attrs["parameters"] == run.config
        assert trial.value == run.metric("train/loss").value.min()
    assert not runs


def test_several_batches_are_compiled_once_and_the_last_is_filled_up(store: Path) -> None:
    traces: list[Any] = []

    def traced(parameters: Mapping[str, Any]) -> dict[str, Any]:
        traces.append(parameters)
        return slope(parameters)

    sweep = created(store, run_cap=7)
    tracklayer.jax.agent(sweep, traced, width=3)
    assert len(traces) == 1
    runs = runs_of(sweep)
    assert len(runs) == len({run.config["x"] for run in runs}) == 7
    for run in runs:
        assert run.metric("loss").value == pytest.approx(2 * run.config["x"])


def test_a_grid_is_done_to_the_end_and_no_further(store: Path) -> None:
    parameters = {"x": {"values": [1, 2, 3]}, "y": {"values": [False, True]}}
    sweep = created(store, "grid", parameters=parameters)
    tracklayer.jax.agent(sweep, lambda given: {"loss": jnp.where(given["y"], given["x"], -given["x"])})
    assert sorted(run.metric("loss").value.item() for run in runs_of(sweep)) == [-3, -2, -1, 1, 2, 3]


def test_count_is_how_many_trials_it_works_on(store: Path) -> None:
    sweep = created(store)
    tracklayer.jax.agent(sweep, slope, width=2, count=3)
    assert len(runs_of(sweep)) == len(trials_of(store, sweep)) == 3


def test_a_parameter_is_of_one_dtype_whatever_a_batch_has_of_it(store: Path) -> None:
    dtypes: list[Any] = []

    def train(parameters: Mapping[str, jax.Array]) -> dict[str, Any]:
        dtypes.append({name: str(value.dtype) for name, value in parameters.items()})
        return {"loss": parameters["mixed"]}

    parameters: dict[str, Any] = {
        "mixed": {"values": [1, 2.5]},
        "whole": {"min": 1, "max": 9},
        "rounded": {"distribution": "q_uniform", "min": 0, "max": 8, "q": 2},
        "normal": {"distribution": "normal", "mu": 0, "sigma": 1},
        "likely": {"values": [1, 2], "probabilities": [0.9, 0.1]},
        "flag": {"values": [True, False]},
    }
    sweep = created(store, parameters=parameters)
    tracklayer.jax.agent(sweep, train, width=1, count=3)
    assert dtypes == [
        {
            "mixed": "float32",
            "whole": "int32",
            "rounded": "int32",
            "normal": "float32",
            "likely": "int32",
            "flag": "bool",
        }
    ]


@pytest.mark.slow
def test_bayes_chooses_a_batch_by_those_before_it(store: Path) -> None:
    sweep = created(store, "bayes", parameters={"x": {"min": -1.0, "max": 1.0}})
    tracklayer.jax.agent(sweep, lambda given: {"loss": (given["x"] - 0.3) ** 2}, width=10, count=40)
    off = [abs(trial.params["x"] - 0.3) for trial in trials_of(store, sweep)]
    assert len(off) == 40
    assert np.median(off[-10:]) < np.median(off[:10]) / 2


def test_no_trial_is_stopped_early_for_all_of_it_was_done(store: Path) -> None:
    def series(parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {"loss": jnp.arange(8.0) + parameters["x"]}

    sweep = created(store, early_terminate={"type": "hyperband", "min_iter": 1, "eta": 2})
    tracklayer.jax.agent(sweep, series, width=4, count=8)
    assert {trial.user_attrs["outcome"] for trial in trials_of(store, sweep)} == {"finished"}
    assert {len(run.metric("loss")) for run in runs_of(sweep)} == {8}


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"values": ["adam", "sgd"]}, r"parameters\.x: 'adam' is no number.*constant.*tracklayer\.agent"),
        ({"values": [1, None]}, r"parameters\.x: None is no number"),
        ({"min": 0, "max": 2**31}, r"parameters\.x: 2147483648 is beyond int32"),
    ],
)
def test_a_parameter_that_no_array_holds_is_refused(store: Path, parameter: Any, message: str) -> None:
    sweep = created(store, parameters={"x": parameter})
    with pytest.raises(UsageError, match=message):
        tracklayer.jax.agent(sweep, slope)
    assert trials_of(store, sweep) == []


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        ({"accuracy": 1.0}, UsageError, "returns no 'loss', the sweep's metric, but accuracy"),
        ({"loss": np.zeros((2, 3))}, UnsupportedValueError, r"'loss': .*\(steps,\), and not \(2, 3\)"),
        (1.0, UnsupportedValueError, "returns a float; it is to return its metrics by their keys"),
        ({"loss": "low"}, TypeError, "low"),
    ],
)
def test_a_function_that_returns_no_metrics_costs_no_trial(
    store: Path, returned: Any, error: type[Exception], message: str
) -> None:
    sweep = created(store)
    with pytest.raises(error, match=message):
        tracklayer.jax.agent(sweep, lambda _: returned)
    assert trials_of(store, sweep) == []


def test_an_error_of_the_program_is_one_of_all_its_trials(store: Path) -> None:
    def break_down(x: Any) -> Any:
        msg = "the data is gone"
        raise OSError(msg)

    def train(parameters: Mapping[str, Any]) -> dict[str, Any]:
        x = parameters["x"]
        return {"loss": jax.pure_callback(break_down, x, x, vmap_method="expand_dims")}

    sweep = created(store)
    with pytest.raises(Exception, match="the data is gone"):
        tracklayer.jax.agent(sweep, train, width=3, count=6)
    assert [trial.user_attrs["outcome"] for trial in trials_of(store, sweep)] == ["failed"] * 3
    assert runs_of(sweep) == []


@pytest.mark.parametrize(("arguments", "message"), [({"width": 0}, "width=0"), ({"count": 0}, "count=0")])
def test_numbers_of_trials_that_make_no_sense_are_refused(
    store: Path, arguments: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        tracklayer.jax.agent(created(store), slope, **arguments)


def test_a_sweep_that_is_not_there_is_named(store: Path) -> None:
    with pytest.raises(SweepNotFoundError, match="nothing"):
        tracklayer.jax.agent("nothing", slope)


def test_a_sweep_of_wandbs_server_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKLAYER_BACKEND", "wandb")
    with pytest.raises(UsageError, match=r"tracklayer\.agent"):
        tracklayer.jax.agent("anything", slope)
