"""A small CNN learns to read handwritten digits; tracklayer records how.

1,797 real images of 8x8 pixels that ship inside scikit-learn.  Where the record goes is a setting:

    python examples/digits.py
    TRACKLAYER_BACKEND=tensorboard python examples/digits.py
    TRACKLAYER_BACKEND=sqlite,tensorboard,wandb python examples/digits.py
"""

from __future__ import annotations

from typing import IO

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tracklayer

CONFIG = {
    "seed": 0,
    "epochs": 15,
    "batch_size": 64,
    "optimizer": {"name": "adamw", "learning_rate": 3e-3, "weight_decay": 1e-4},
    "model": {"channels": [16, 32], "hidden": 64},
}


class CNN(nnx.Module):
    """Two convolutions and two dense layers: images (batch, 8, 8, 1) to logits (batch, 10)."""

    def __init__(self, channels: list[int], hidden: int, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, channels[0], kernel_size=(3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(channels[0], channels[1], kernel_size=(3, 3), rngs=rngs)
        self.dense1 = nnx.Linear(4 * 4 * channels[1], hidden, rngs=rngs)
        self.dense2 = nnx.Linear(hidden, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.relu(self.conv1(images))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), window_shape=(2, 2), strides=(2, 2))
        x = nnx.relu(self.dense1(x.reshape(x.shape[0], -1)))
        return self.dense2(x)


def loss_and_accuracy(model: CNN, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = model(images)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits.argmax(-1) == labels).mean()


@nnx.jit
def train_step(
    model: CNN, optimizer: nnx.Optimizer[CNN], images: jax.Array, labels: jax.Array
) -> dict[str, jax.Array]:
    grad = nnx.value_and_grad(loss_and_accuracy, has_aux=True)
    (loss, accuracy), grads = grad(model, images, labels)
    optimizer.update(model, grads)
    return {
        "loss": loss,
        "accuracy": accuracy,
        "grad_norm": optax.tree.norm(grads),
        "param_norm": optax.tree.norm(nnx.state(model, nnx.Param)),
    }


evaluate = nnx.jit(loss_and_accuracy)
predict = nnx.jit(lambda model, images: model(images).argmax(-1))


def save_weights(model: CNN, file: IO[bytes]) -> None:
    weights = nnx.to_flat_state(nnx.state(model, nnx.Param))
    np.savez(file, **{".".join(map(str, p)): np.asarray(w.get_value()) for p, w in weights})


def main() -> None:
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[..., None]
    train_x, val_x, train_y, val_y = train_test_split(
        images, digits.target, test_size=0.2, random_state=CONFIG["seed"], stratify=digits.target
    )
    val_x, val_y = jnp.asarray(val_x), jnp.asarray(val_y)

    with tracklayer.init(project="digits", config=CONFIG, tags=["example"]) as run:
        run.define_metric("val/accuracy", summary="max", goal="maximize")
        run.define_metric("val/loss", summary="min", goal="minimize")

        steps = CONFIG["epochs"] * (len(train_x) // CONFIG["batch_size"])
        schedule = optax.cosine_decay_schedule(CONFIG["optimizer"]["learning_rate"], steps)
        model = CNN(**CONFIG["model"], rngs=nnx.Rngs(CONFIG["seed"]))
        optimizer = nnx.Optimizer(
            model,
            optax.adamw(schedule, weight_decay=CONFIG["optimizer"]["weight_decay"]),
            wrt=nnx.Param,
        )
        shuffle = np.random.default_rng(CONFIG["seed"])
        step, best = 0, 0.0
        for epoch in range(CONFIG["epochs"]):
            order = shuffle.permutation(len(train_x))
            for start in range(0, len(order) - CONFIG["batch_size"] + 1, CONFIG["batch_size"]):
                batch = order[start : start + CONFIG["batch_size"]]
                metrics = train_step(
                    model, optimizer, jnp.asarray(train_x[batch]), jnp.asarray(train_y[batch])
                )
                run.log({"train": metrics, "learning_rate": schedule(step)}, step=step)
                step += 1
            loss, accuracy = evaluate(model, val_x, val_y)
            run.log(
                {
                    "epoch": epoch,
                    "val": {"loss": loss, "accuracy": accuracy},
                    "weights": tracklayer.jax.histograms(nnx.state(model, nnx.Param)),
                },
                step=step - 1,
            )
            best = max(best, float(accuracy))
        run.summary["best_val_accuracy"] = best

        taken_for = np.asarray(predict(model, val_x))
        mistakes = [
            tracklayer.Image(val_x[i], caption=f"a {val_y[i]} taken for a {taken_for[i]}")
            for i in np.flatnonzero(taken_for != val_y)
        ]
        confusion = tracklayer.plot.confusion_matrix(
            y_true=val_y, preds=taken_for, class_names=[str(digit) for digit in range(10)]
        )
        run.log({"val/mistakes": mistakes, "val/confusion": confusion}, step=step - 1)

        artifact = tracklayer.Artifact("digits-cnn", type="model", metadata={"accuracy": best})
        with artifact.new_file("weights.npz", "xb") as file:
            save_weights(model, file)
        run.log_artifact(artifact)

        print(f"run {run.id}: best validation accuracy {best:.1%} after {step} steps; {artifact.name}")


if __name__ == "__main__":
    main()
