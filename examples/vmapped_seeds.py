"""Several seeds train at once under `vmap`: each is a series of its own, and together they are a band.

The same small network as in scan_epoch.py, from eight initialisations and in eight orders of the data.

    python examples/vmapped_seeds.py
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tracklayer

CONFIG = {"seeds": 8, "steps": 400, "batch_size": 64, "hidden": 64, "learning_rate": 3e-3}

Params = dict[str, jax.Array]


def initial(key: jax.Array) -> Params:
    first, second = jax.random.split(key)
    hidden = CONFIG["hidden"]
    return {
        "hidden": jax.random.normal(first, (64, hidden)) / 8,
        "out": jax.random.normal(second, (hidden, 10)) / hidden**0.5,
    }


def loss_and_accuracy(params: Params, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = jax.nn.relu(images @ params["hidden"]) @ params["out"]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits.argmax(-1) == labels).mean()


def train(
    key: jax.Array, images: jax.Array, labels: jax.Array, val_x: jax.Array, val_y: jax.Array
) -> dict[str, jax.Array]:
    """Train from one seed; return each metric with an axis of steps."""
    optimizer = optax.adam(CONFIG["learning_rate"])
    start, key = jax.random.split(key)
    params = initial(start)

    def step(
        carry: tuple[Params, optax.OptState], key: jax.Array
    ) -> tuple[tuple[Params, optax.OptState], dict[str, jax.Array]]:
        params, state = carry
        batch = jax.random.choice(key, len(images), (CONFIG["batch_size"],))
        grad = jax.value_and_grad(loss_and_accuracy, has_aux=True)
        (loss, _), grads = grad(params, images[batch], labels[batch])
        updates, state = optimizer.update(grads, state)
        params = optax.apply_updates(params, updates)
        return (params, state), {"loss": loss, "accuracy": loss_and_accuracy(params, val_x, val_y)[1]}

    _, metrics = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, CONFIG["steps"]))
    return metrics


def main() -> None:
    digits = load_digits()
    train_x, val_x, train_y, val_y = map(
        jnp.asarray,
        train_test_split(digits.data.astype("float32") / 16, digits.target, test_size=0.2, random_state=0),
    )
    with tracklayer.init(project="seeds", config=CONFIG, tags=["example"]) as run:
        keys = jax.random.split(jax.random.key(0), CONFIG["seeds"])
        # one program for all seeds; out_axes=1 puts their axis behind that of the steps
        metrics = jax.jit(jax.vmap(train, in_axes=(0, None, None, None, None), out_axes=1))(
            keys, train_x, train_y, val_x, val_y
        )
        run.log_series(metrics)

    # tracklayer.open_store().run(run.id).metric("accuracy").value is the same array, at any later time
    accuracy = np.asarray(metrics["accuracy"])  # (steps, seeds)
    mean, spread = accuracy.mean(axis=1), accuracy.std(axis=1)
    print(f"run {run.id}: validation accuracy over {CONFIG['seeds']} seeds, mean and one standard deviation")
    for at in [*range(0, len(accuracy), 25), len(accuracy) - 1]:
        low, middle, high = (
            round(60 * level) for level in (mean[at] - spread[at], mean[at], mean[at] + spread[at])
        )
        band = "".join("o" if x == middle else "-" if low <= x <= high else " " for x in range(61))
        print(f"step {at:4}  {band}  {mean[at]:.3f} ± {spread[at]:.3f}")


if __name__ == "__main__":
    main()
