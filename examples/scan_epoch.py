"""An epoch is one `lax.scan`, and its metrics are logged as whole series: nothing is added to a step.

A small network learns scikit-learn's 1,797 handwritten digits.

    python examples/scan_epoch.py
    TRACKLAYER_BACKEND=tensorboard python examples/scan_epoch.py
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tracklayer

CONFIG = {"seed": 0, "epochs": 20, "batch_size": 64, "hidden": 128, "learning_rate": 3e-3}


class MLP(nnx.Module):
    """One hidden layer: images (batch, 64) to logits (batch, 10)."""

    def __init__(self, hidden: int, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(64, hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.out(nnx.relu(self.hidden(images)))


def loss_and_accuracy(model: MLP, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = model(images)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits.argmax(-1) == labels).mean()


@nnx.jit(static_argnames="batch_size")
def train_epoch(
    model: MLP,
    optimizer: nnx.Optimizer[MLP],
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    batch_size: int,
) -> dict[str, Any]:
    """Train on all batches, shuffled; return each metric with an axis of steps."""
    steps = len(images) // batch_size
    order = jax.random.permutation(key, len(images))[: steps * batch_size].reshape(steps, batch_size)

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    def train_step(
        carry: tuple[MLP, nnx.Optimizer[MLP]], batch: jax.Array
    ) -> tuple[tuple[MLP, nnx.Optimizer[MLP]], dict[str, Any]]:
        model, optimizer = carry
        grad = nnx.value_and_grad(loss_and_accuracy, has_aux=True)
        (loss, accuracy), grads = grad(model, images[batch], labels[batch])
        optimizer.update(model, grads)
        metrics = {
            "loss": loss,
            "accuracy": accuracy,
            "optimizer": tracklayer.jax.optimizer_metrics(optimizer),
            "grads": tracklayer.jax.stats(grads),
        }
        return (model, optimizer), metrics

    _, metrics = train_step((model, optimizer), order)
    return metrics


evaluate = nnx.jit(loss_and_accuracy)


def main() -> None:
    digits = load_digits()
    train_x, val_x, train_y, val_y = map(
        jnp.asarray,
        train_test_split(
            digits.data.astype("float32") / 16,
            digits.target,
            test_size=0.2,
            random_state=CONFIG["seed"],
            stratify=digits.target,
        ),
    )
    model = MLP(CONFIG["hidden"], nnx.Rngs(CONFIG["seed"]))
    optimizer = nnx.Optimizer(
        model,
        tracklayer.jax.monitor(optax.adam(CONFIG["learning_rate"]), CONFIG["learning_rate"]),
        wrt=nnx.Param,
    )
    with tracklayer.init(project="scan", config=CONFIG, tags=["example"]) as run:
        run.define_metric("val/accuracy", summary="max", goal="maximize")
        for epoch in range(CONFIG["epochs"]):
            key = jax.random.fold_in(jax.random.key(CONFIG["seed"]), epoch)
            metrics = train_epoch(model, optimizer, train_x, train_y, key, CONFIG["batch_size"])
            run.log_series({"train": metrics})
            loss, accuracy = evaluate(model, val_x, val_y)
            run.log(
                {
                    "epoch": epoch,
                    "val": {"loss": loss, "accuracy": accuracy},
                    "weights": tracklayer.jax.histograms(nnx.state(model, nnx.Param)),
                },
                step=run.step - 1,
            )
        print(f"run {run.id}: validation accuracy {accuracy:.1%} after {run.step} steps")


if __name__ == "__main__":
    main()
