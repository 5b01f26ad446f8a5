"""A sweep with no server: 20 trials of a small CNN on handwritten digits, the poor ones stopped early.

Each trial is an ordinary run, in the sweep's group.  With one variable changed it is a sweep of W&B's.

    python examples/sweep_digits.py
    TRACKLAYER_BACKEND=wandb python examples/sweep_digits.py
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tracklayer

TRIALS = 20
SWEEP = {
    "method": "bayes",
    "metric": {"name": "val/accuracy", "goal": "maximize"},
    "parameters": {
        "seed": {"value": 0},
        "epochs": {"value": 10},
        "batch_size": {"value": 64},
        "channels": {"values": [8, 16]},
        "label_smoothing": {"min": 0.0, "max": 0.2},
        "optimizer": {
            "parameters": {
                "learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
                "weight_decay": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
            }
        },
    },
    # after 3 and 6 epochs, only the better half of the trials that came so far goes on
    "early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 2},
}


class CNN(nnx.Module):
    """Two convolutions and a dense layer: images (batch, 8, 8, 1) to logits (batch, 10)."""

    def __init__(self, channels: int, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, channels, kernel_size=(3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(channels, 2 * channels, kernel_size=(3, 3), rngs=rngs)
        self.out = nnx.Linear(4 * 4 * 2 * channels, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.relu(self.conv1(images))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), window_shape=(2, 2), strides=(2, 2))
        return self.out(x.reshape(x.shape[0], -1))


# The agent makes all trials in this process, and what differs between them reaches the jitted functions as
# arrays: so these are compiled once for each number of channels, and not for each trial.
ADAMW = optax.inject_hyperparams(optax.adamw)(learning_rate=0.0, weight_decay=0.0)


def loss_and_accuracy(
    model: CNN, images: jax.Array, labels: jax.Array, smoothing: jax.Array
) -> tuple[jax.Array, jax.Array]:
    logits = model(images)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, 10), smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean(), (logits.argmax(-1) == labels).mean()


@nnx.jit
def train_step(
    model: CNN, optimizer: nnx.Optimizer[CNN], images: jax.Array, labels: jax.Array, smoothing: jax.Array
) -> dict[str, jax.Array]:
    grad = nnx.value_and_grad(loss_and_accuracy, has_aux=True)
    (loss, accuracy), grads = grad(model, images, labels, smoothing)
    optimizer.update(model, grads)
    return {"loss": loss, "accuracy": accuracy}


evaluate = nnx.jit(loss_and_accuracy)

digits = load_digits()
train_x, val_x, train_y, val_y = train_test_split(
    (digits.images / 16.0).astype(np.float32)[..., None],
    digits.target,
    test_size=0.2,
    random_state=0,
    stratify=digits.target,
)


trials: list[str] = []  # the ids of their runs


def train() -> None:
    """Make one trial: its parameters are in the run's config."""
    with tracklayer.init(tags=["example"]) as run:
        trials.append(run.id)
        config = run.config
        model = CNN(config.channels, nnx.Rngs(config.seed))
        optimizer = nnx.Optimizer(model, ADAMW, wrt=nnx.Param)
        for name, value in config.optimizer.items():
            optimizer.opt_state.hyperparams[name][...] = value
        smoothing = jnp.float32(config.label_smoothing)
        shuffle = np.random.default_rng(config.seed)
        for epoch in range(config.epochs):
            order = shuffle.permutation(len(train_x))
            for start in range(0, len(order) - config.batch_size + 1, config.batch_size):
                batch = order[start : start + config.batch_size]
                metrics = train_step(model, optimizer, train_x[batch], train_y[batch], smoothing)
                run.log({"train": metrics})
            loss, accuracy = evaluate(model, val_x, val_y, jnp.float32(0))
            # a trial that is not worth its time ends here, by tracklayer.errors.TrialPruned
            run.log({"epoch": epoch, "val": {"loss": loss, "accuracy": float(accuracy)}}, step=run.step - 1)


def main() -> None:
    sweep_id = tracklayer.sweep(SWEEP, project="digits-sweep")
    tracklayer.agent(sweep_id, train, count=TRIALS)

    store = tracklayer.open_store()
    runs = [store.run(trial) for trial in trials]
    best = max(runs, key=lambda run: run.metric("val/accuracy").value.max())
    for run in runs:
        accuracy = run.metric("val/accuracy").value
        how = f"{accuracy.max():.1%} after {len(accuracy)} epochs"
        print(f"run {run.id}: {how}{', pruned' if run.summary.get('pruned') else ''}")
    pruned = sum(run.summary.get("pruned", False) for run in runs)
    print(f"sweep {sweep_id}: {len(runs)} trials, {pruned} of them pruned")
    print(f"best: run {best.id}, with {best.config}")


if __name__ == "__main__":
    main()
