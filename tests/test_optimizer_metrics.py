"""`monitor`: gradient and update norms and the learning rate, measured inside the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import tracklayer
from tracklayer.errors import UsageError
from tracklayer.jax.optimizers import monitor, optimizer_metrics

SCHEDULE = optax.linear_schedule(0.1, 0.0, 10)
PARAMS = {"w": jnp.array([3.0, -4.0]), "b": jnp.array(12.0)}


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


@pytest.mark.slow
def test_norms_and_learning_rate_are_those_of_the_last_update() -> None:
    optimizer = monitor(optax.sgd(SCHEDULE), learning_rate=SCHEDULE)
    state = optimizer.init(PARAMS)
    for count in range(3):
        updates, state = jax.jit(optimizer.update)(PARAMS, state)
        rate = 0.1 - 0.01 * count
        assert numbers(optimizer_metrics(state)) == pytest.approx(
            {"grad_norm": 13.0, "update_norm": 13.0 * rate, "learning_rate": rate}
        )
        assert float(optax.tree.norm(updates)) == pytest.approx(13.0 * rate)


@pytest.mark.slow
def test_the_updates_are_those_of_the_optimizer_alone() -> None:
    alone, monitored = optax.adamw(1e-2), monitor(optax.adamw(1e-2), 1e-2)
    state, monitored_state = alone.init(PARAMS), monitored.init(PARAMS)
    for _ in range(3):
        expected, state = alone.update(PARAMS, state, PARAMS)
        updates, monitored_state = monitored.update(PARAMS, monitored_state, PARAMS)
        jax.tree.map(np.testing.assert_array_equal, updates, expected)


@pytest.mark.parametrize(
    "around",
    [
        lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
        lambda tx: optax.apply_if_finite(tx, 3),
        lambda tx: optax.masked(tx, {"w": True, "b": True}),
        lambda tx: optax.partition({"all": tx}, {"w": "all", "b": "all"}),
    ],
    ids=["chain", "apply_if_finite", "masked", "partition"],
)
def test_it_is_found_wherever_it_stands(
    around: Callable[[optax.GradientTransformation], optax.GradientTransformation],
) -> None:
    optimizer = around(monitor(optax.sgd(0.5), 0.5))
    _, state = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
    metrics = numbers(optimizer_metrics(state))
    assert metrics["update_norm"] == pytest.approx(metrics["grad_norm"] / 2)
    assert metrics["learning_rate"] == 0.5


def test_the_rate_of_injected_hyperparameters_needs_no_telling() -> None:
    optimizer = monitor(optax.inject_hyperparams(optax.adam)(learning_rate=SCHEDULE))
    state = optimizer.init(PARAMS)
    for count in range(3):
        _, state = optimizer.update(PARAMS, state)
        assert numbers(optimizer_metrics(state))["learning_rate"] == pytest.approx(0.1 - 0.01 * count)


def test_an_unknown_rate_is_left_out() -> None:
    optimizer = monitor(optax.adam(1e-3))
    state = optimizer.init(PARAMS)
    assert optimizer_metrics(state).keys() == {"grad_norm", "update_norm"}
    assert jax.tree.structure(optimizer.update(PARAMS, state)[1]) == jax.tree.structure(state)


def test_bfloat16_gradients_are_added_up_in_float32() -> None:
    gradients = {"w": jnp.ones(4096, jnp.bfloat16)}
    optimizer = monitor(optax.identity())
    _, state = optimizer.update(gradients, optimizer.init(gradients))
    assert numbers(optimizer_metrics(state))["grad_norm"] == 64.0


def test_two_monitors_are_told_apart() -> None:
    optimizer = optax.chain(monitor(optax.clip_by_global_norm(1.0)), monitor(optax.sgd(0.1), 0.1))
    _, state = optimizer.update(PARAMS, optimizer.init(PARAMS))
    first, second = optimizer_metrics(state).values()
    assert numbers(first) == pytest.approx({"grad_norm": 13.0, "update_norm": 1.0})
    assert numbers(second) == pytest.approx({"grad_norm": 1.0, "update_norm": 0.1, "learning_rate": 0.1})


def test_an_optimizer_that_is_not_monitored_is_named() -> None:
    with pytest.raises(UsageError, match="not monitored: wrap it"):
        optimizer_metrics(optax.adam(1e-3).init(PARAMS))


@pytest.mark.slow
def test_an_nnx_optimizer_is_logged_each_step(tmp_path: Path) -> None:
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, monitor(optax.adam(SCHEDULE), SCHEDULE), wrt=nnx.Param)

    @nnx.jit
    def train_step(model: nnx.Linear, optimizer: nnx.Optimizer[nnx.Linear]) -> dict[str, jax.Array]:
        gradients = nnx.grad(lambda model: (model(jnp.ones((4, 2))) ** 2).mean())(model)
        optimizer.update(model, gradients)
        return {"expected": optax.tree.norm(gradients), "inside": optimizer_metrics(optimizer)["grad_norm"]}

    with tracklayer.init(dir=tmp_path) as run:
        for step in range(5):
            metrics = train_step(model, optimizer)
            run.log({**metrics, "optimizer": optimizer_metrics(optimizer)}, step=step)
    reader = tracklayer.open_store(tmp_path).run(run.id)
    expected = reader.metric("expected").value
    np.testing.assert_allclose(reader.metric("optimizer/grad_norm").value, expected, rtol=1e-6)
    np.testing.assert_allclose(reader.metric("inside").value, expected, rtol=1e-6)
    np.testing.assert_allclose(reader.metric("optimizer/learning_rate").value, [0.1, 0.09, 0.08, 0.07, 0.06])
    assert (reader.metric("optimizer/update_norm").value > 0).all()


@pytest.mark.slow
def test_a_donated_train_state_of_linen_loses_nothing(tmp_path: Path) -> None:
    module = nn.Dense(1)
    params = module.init(jax.random.key(0), jnp.ones((1, 2)))
    state = TrainState.create(apply_fn=module.apply, params=params, tx=monitor(optax.sgd(SCHEDULE), SCHEDULE))

    def train_step(state: TrainState) -> TrainState:
        gradients = jax.grad(lambda p: (state.apply_fn(p, jnp.ones((4, 2))) ** 2).mean())(state.params)
        return state.apply_gradients(grads=gradients)

    jitted = jax.jit(train_step, donate_argnums=0)
    with tracklayer.init(dir=tmp_path) as run:
        for step in range(10):
            state = jitted(state)
            run.log(optimizer_metrics(state), step=step)
    rates = tracklayer.open_store(tmp_path).run(run.id).metric("learning_rate").value
    np.testing.assert_allclose(rates, [0.1 - 0.01 * count for count in range(10)], rtol=1e-5)
