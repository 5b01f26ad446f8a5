"""What users of W&B know how to do, with one import changed: each part trains something small and real.

Every test runs with each backend, and looks at what that recorded with means that are not its own.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.datasets import load_digits

import tensorboard_oracle
import tracklayer as wandb
from wandb_server import WandbServer

mpl.use("Agg")
pytestmark = pytest.mark.slow

CLASSES = [str(digit) for digit in range(10)]


# -- what each backend recorded ------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Seen:
    """A run as it was recorded: scalars in the order of steps, and the kinds of the other keys."""

    scalars: dict[str, list[float]]
    kinds: dict[str, str]
    config: dict[str, Any]
    summary: dict[str, Any]
    state: str | None


def seen_in_sqlite(store: Path, run_id: str) -> Seen:
    file = sqlite3.connect(store / "runs" / f"{run_id}.sqlite")
    scalars: dict[str, list[float]] = {}
    for key, value in file.execute("SELECT key, value FROM points JOIN keys USING (key_id) ORDER BY step"):
        scalars.setdefault(key, []).append(value)
    kinds = dict(file.execute("SELECT key, kind FROM objects JOIN keys USING (key_id)"))
    config = {key: json.loads(value) for key, value in file.execute("SELECT key, value FROM config")}
    summary = {key: json.loads(value) for key, value in file.execute("SELECT key, value FROM summary")}
    (state,) = file.execute("SELECT state FROM segments ORDER BY segment DESC").fetchone()
    file.close()
    return Seen(scalars, kinds, config, summary, state)


def seen_in_tensorboard(store: Path, run_id: str) -> Seen:
    (folder,) = (store / "tensorboard").glob(f"*/{run_id}")
    shown = tensorboard_oracle.read(folder)

    def own(tags: Any) -> list[str]:
        return [tag for tag in tags if not tag.startswith("tracklayer/")]

    scalars = {tag: [point.value for point in shown.scalars[tag]] for tag in own(shown.scalars)}
    kinds = dict.fromkeys(own(shown.histograms), "histogram")
    kinds |= dict.fromkeys(own(shown.texts), "text")
    kinds |= dict.fromkeys(own(shown.images), "image")
    config = shown.json("tracklayer/config") if "tracklayer/config" in shown.texts else {}
    summary = shown.json("tracklayer/summary") if "tracklayer/summary" in shown.texts else {}
    end = shown.text("tracklayer/status") if "tracklayer/status" in shown.texts else ""
    state = next((state for state in ("finished", "failed", "crashed") if state in end), None)
    return Seen(scalars, kinds, config, summary, state)


def seen_on_wandb(server: WandbServer, run_id: str) -> Seen:
    run = server.runs[run_id]
    scalars: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for row in run.history:
        for key, value in row.items():
            if isinstance(value, dict):
                kinds[key] = value["_type"]
            elif not key.startswith("_") and not isinstance(value, str):
                scalars.setdefault(key, []).append(value)
    return Seen(scalars, kinds, run.config, dict(run.summary), run.state)


See = Callable[[str], Seen]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WandbServer]:
    import wandb as client

    client.teardown()  # another module's tests may have had it read another environment
    with WandbServer() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment(tmp_path_factory.mktemp("home")).items():
            patch.setenv(name, value)
        patch.setattr("tracklayer_wandb.recording._INIT_SECONDS", 60.0)
        yield server
        client.teardown()


@pytest.fixture(params=["sqlite", "tensorboard", "wandb"])
def see(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[See]:
    """Choose the backend, by the environment alone; return what looks at what it recorded."""
    backend = request.param
    store = tmp_path / "store"
    monkeypatch.setenv("TRACKLAYER_DIR", str(store))
    monkeypatch.setenv("TRACKLAYER_BACKEND", backend)
    monkeypatch.chdir(tmp_path)
    if backend == "wandb":
        served: WandbServer = request.getfixturevalue("server")
        yield lambda run_id: seen_on_wandb(served, run_id)
    else:
        look = seen_in_sqlite if backend == "sqlite" else seen_in_tensorboard
        yield lambda run_id: look(store, run_id)
    if wandb.run is not None:
        wandb.finish()


# -- what is trained -----------------------------------------------------------------------------------


class CNN(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, features: int = 8) -> None:
        self.conv = nnx.Conv(1, features, kernel_size=(3, 3), rngs=rngs)
        self.dense = nnx.Linear(4 * 4 * features, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.max_pool(nnx.relu(self.conv(images)), window_shape=(2, 2), strides=(2, 2))
        return self.dense(x.reshape(x.shape[0], -1))


def batches(size: int = 128) -> list[dict[str, jax.Array]]:
    digits = load_digits()
    images = jnp.asarray(digits.images / 16.0, jnp.float32)[..., None]
    labels = jax.nn.one_hot(digits.target, 10)
    return [
        {"images": images[start : start + size], "labels": labels[start : start + size]}
        for start in range(0, 1024, size)
    ]


def loss_fn(model: CNN, batch: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
    logits = model(batch["images"])
    loss = optax.softmax_cross_entropy(logits, batch["labels"]).mean()
    return loss, {"accuracy": (logits.argmax(-1) == batch["labels"].argmax(-1)).mean()}


@nnx.jit
def train_step(
    model: CNN, optimizer: nnx.Optimizer[CNN], batch: dict[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array], Any]:
    (loss, metrics), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model, batch)
    optimizer.update(model, grads)
    return loss, metrics, grads


evaluate = nnx.jit(loss_fn)


@pytest.fixture(scope="module")
def data() -> tuple[list[dict[str, jax.Array]], dict[str, jax.Array]]:
    found = batches()
    return found[:-1], found[-1]


def new_model(learning_rate: float = 1e-2, seed: int = 0) -> tuple[CNN, nnx.Optimizer[CNN]]:
    model = CNN(rngs=nnx.Rngs(params=seed))
    return model, nnx.Optimizer(model, optax.adam(learning_rate), wrt=nnx.Param)


def trained(data: Any) -> CNN:
    model, optimizer = new_model()
    for batch in data[0]:
        train_step(model, optimizer, batch)
    return model


def run_id() -> str:
    assert wandb.run is not None
    return wandb.run.id


# -- the parts -----------------------------------------------------------------------------------------


def test_logging_in_asks_for_nothing(see: See) -> None:
    wandb.login()
    with wandb.init(project="p") as run:
        run.log({"x": 1})
    assert see(run.id).scalars == {"x": [1]}


def test_a_minimal_run(see: See, data: Any) -> None:
    wandb.init(
        project="digits",
        name="baseline-run",
        config={"learning_rate": 1e-2, "batch_size": 128, "epochs": 2, "architecture": "CNN"},
    )
    model, optimizer = new_model(wandb.config.learning_rate)
    for epoch in range(wandb.config.epochs):
        for batch in data[0]:
            loss, metrics, _ = train_step(model, optimizer, batch)
            wandb.log({"train/loss": loss, "train/accuracy": metrics["accuracy"]})
        val_loss, val_metrics = evaluate(model, data[1])
        wandb.log({"val/loss": val_loss, "val/accuracy": val_metrics["accuracy"], "epoch": epoch})
    this = run_id()
    wandb.finish()
    assert wandb.run is None
    seen = see(this)
    assert [len(seen.scalars[key]) for key in ("train/loss", "train/accuracy", "val/loss", "epoch")] == [
        14,
        14,
        2,
        2,
    ]
    assert seen.scalars["train/loss"][-1] < seen.scalars["train/loss"][0] / 1.5
    assert seen.scalars["epoch"] == [0, 1]
    assert seen.scalars["val/loss"][-1] == pytest.approx(float(val_loss), rel=1e-6)
    assert {key: seen.config[key] for key in ("learning_rate", "epochs", "architecture")} == {
        "learning_rate": 1e-2,
        "epochs": 2,
        "architecture": "CNN",
    }
    assert seen.state == "finished"


def test_metrics_of_optimisation_and_of_epochs(see: See, data: Any) -> None:
    run = wandb.init(project="digits")
    model, optimizer = new_model()
    schedule = optax.cosine_decay_schedule(1e-2, 10)
    best = 0.0
    for step, batch in enumerate(data[0][:3]):
        loss, metrics, grads = train_step(model, optimizer, batch)
        wandb.log(
            {
                "train/loss": loss,
                "train/perplexity": jnp.exp(loss),
                "train/learning_rate": schedule(step),
                "train/gradient_norm": optax.tree.norm(grads),
                "train/accuracy": metrics["accuracy"],
                "train/images_per_second": 128 / 0.01,
                "step": step,
            }
        )
    val_loss, val_metrics = evaluate(model, data[1])
    best = max(best, float(val_metrics["accuracy"]))
    wandb.log({"val/loss": val_loss, "val/best_accuracy": best, "epoch": 0, "epoch_time": 0.25})
    wandb.finish()
    seen = see(run.id)
    losses = np.array(seen.scalars["train/loss"])
    assert seen.scalars["train/perplexity"] == pytest.approx(np.exp(losses), rel=1e-5)
    assert seen.scalars["step"] == [0, 1, 2]
    assert seen.scalars["train/learning_rate"][0] == pytest.approx(1e-2)
    assert seen.scalars["val/best_accuracy"] == pytest.approx([best])


def test_statistics_of_gradients_and_parameters(see: See, data: Any) -> None:
    run = wandb.init(project="digits")
    model, optimizer = new_model()
    norms = []
    for batch in data[0][:3]:
        _, _, grads = train_step(model, optimizer, batch)
        for name, tree in [("gradients", grads), ("parameters", nnx.state(model))]:
            leaves = jax.tree_util.tree_leaves(tree)
            norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in leaves))
            norms.append(float(norm))
            wandb.log(
                {
                    f"{name}/norm": norm,
                    f"{name}/max": max(jnp.max(jnp.abs(leaf)) for leaf in leaves),
                    f"{name}/mean": jnp.mean(jnp.array([jnp.mean(leaf) for leaf in leaves])),
                }
            )
    wandb.finish()
    seen = see(run.id)
    assert seen.scalars["gradients/norm"] == pytest.approx(norms[::2], rel=1e-6)
    assert seen.scalars["parameters/norm"] == pytest.approx(norms[1::2], rel=1e-6)
    assert len(seen.scalars["gradients/max"]) == len(seen.scalars["parameters/mean"]) == 3


def test_a_confusion_matrix_as_a_figure(see: See, data: Any) -> None:
    import matplotlib.pyplot as plt
    import seaborn as sns
    from sklearn.metrics import confusion_matrix

    run = wandb.init(project="digits")
    model = trained(data)
    all_preds: list[Any] = []
    all_targets: list[Any] = []
    all_preds.extend(jnp.argmax(model(data[1]["images"]), axis=-1))
    all_targets.extend(jnp.argmax(data[1]["labels"], axis=-1))
    matrix = confusion_matrix([int(t) for t in all_targets], [int(p) for p in all_preds])
    figure, ax = plt.subplots(figsize=(4, 4))
    sns.heatmap(matrix, annot=True, fmt="d", cmap="Blues", xticklabels=CLASSES, yticklabels=CLASSES)
    ax.set_ylabel("True label")
    wandb.log({"confusion_matrix": wandb.Image(figure)})
    plt.close()
    wandb.log(
        {"chart": wandb.plot.confusion_matrix(y_true=all_targets, preds=all_preds, class_names=CLASSES)}
    )
    wandb.finish()
    kinds = see(run.id).kinds
    assert kinds["confusion_matrix"] in {"image", "image-file"}
    assert {"chart": "chart", "chart_table": "table-file"}.items() & kinds.items() or kinds[
        "chart"
    ] == "image"


def test_predictions_as_images(see: See, data: Any) -> None:
    run = wandb.init(project="digits")
    model = trained(data)
    images, labels = data[1]["images"][:8], data[1]["labels"][:8].argmax(-1)
    logits = model(images)
    preds, probs = jnp.argmax(logits, axis=-1), jax.nn.softmax(logits, axis=-1)
    pictures = [
        wandb.Image(image, caption=f"True: {label}, Pred: {pred} ({prob[pred]:.2f})")
        for image, label, pred, prob in zip(images, labels, preds, probs, strict=True)
    ]
    wandb.log({"predictions": pictures})
    wandb.finish()
    assert see(run.id).kinds["predictions"] in {"list", "image", "images/separated"}


def test_histograms_of_weights(see: See, data: Any) -> None:
    run = wandb.init(project="digits")
    model = trained(data)
    names = []
    for path, param in jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param)):
        name = ".".join(str(part.key) for part in path if hasattr(part, "key"))
        if "kernel" in name:
            names.append(f"weights/{name}")
            wandb.log({names[-1]: wandb.Histogram(param)})
    wandb.finish()
    assert names
    assert see(run.id).kinds == dict.fromkeys(names, "histogram")


def test_a_table_of_predictions(see: See, data: Any) -> None:
    run = wandb.init(project="digits")
    model = trained(data)
    table = wandb.Table(columns=["image", "label", "prediction"])
    predictions = jnp.argmax(model(data[1]["images"][:4]), axis=-1)
    for image, label, prediction in zip(data[1]["images"], data[1]["labels"], predictions, strict=False):
        table.add_data(wandb.Image(image), int(label.argmax()), prediction)
    wandb.log({"table": table})
    wandb.finish()
    assert see(run.id).kinds["table"] in {"table", "text", "table-file"}


def test_a_model_as_an_artifact(see: See, data: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    run = wandb.init(project="digits")
    model = trained(data)
    weights = nnx.to_flat_state(nnx.state(model, nnx.Param))
    np.savez(tmp_path / "model.npz", **{".".join(map(str, p)): np.asarray(w.get_value()) for p, w in weights})
    (tmp_path / "config.json").write_text("{}")
    artifact = wandb.Artifact(
        name="digits-cnn",
        type="model",
        description="a CNN trained on digits",
        metadata={"accuracy": 0.9, "architecture": "CNN"},
    )
    artifact.add_file("model.npz")
    artifact.add_file("config.json")
    wandb.log_artifact(artifact)
    wandb.finish()
    assert see(run.id).state == "finished"

    later = wandb.init(project="digits")
    artifact = later.use_artifact("digits-cnn:latest")
    artifact_dir = artifact.download()
    loaded = np.load(f"{artifact_dir}/model.npz")
    assert all(np.array_equal(loaded[".".join(map(str, p))], w.get_value()) for p, w in weights)
    assert (artifact.version, artifact.metadata["architecture"]) == ("v0", "CNN")
    assert wandb.use_artifact("digits-cnn:v0", type="model").digest == artifact.digest
    wandb.finish()
    backend = os.environ["TRACKLAYER_BACKEND"]
    if backend != "tensorboard":  # which has no store of runs
        (maker,) = wandb.open_store().artifact("digits-cnn").logged_by()
        assert maker.id == run.id
        assert [user.id for user in artifact.used_by()] == [later.id]
    if backend == "wandb":
        (made,) = [a for a in request.getfixturevalue("server").artifacts if a.created_by == run.id]
        assert (made.name, made.used_by) == ("digits-cnn", [later.id])


@pytest.mark.usefixtures("store")
def test_a_sweep_needs_no_server() -> None:
    tried: list[float] = []

    def main() -> None:
        with wandb.init(project="my-first-sweep") as run:
            score = run.config.x**3 + run.config["y"]
            tried.append(score)
            run.log({"score": score})

    sweep_configuration = {
        "method": "random",
        "metric": {"goal": "minimize", "name": "score"},
        "parameters": {"x": {"max": 0.1, "min": 0.01}, "y": {"values": [1, 3, 7]}},
    }
    sweep_id = wandb.sweep(sweep=sweep_configuration, project="my-first-sweep")
    wandb.agent(sweep_id, function=main, count=3)
    runs = wandb.Api().runs("my-first-sweep", filters={"group": sweep_id})
    assert [run.summary["score"] for run in runs] == tried
    assert len(tried) == 3


def test_all_that_reproduces_a_run_goes_into_the_config(see: See) -> None:
    config = {
        "architecture": "ResNet-18",
        "weight_decay": 1e-4,
        "lr_schedule": "cosine",
        "dataset": "digits",
        "seed": 42,
        "jax_version": jax.__version__,
        "device": jax.devices()[0],
    }
    run = wandb.init(project="my-project", config=config)
    wandb.log({"x": 1})
    wandb.finish()
    seen = see(run.id).config
    assert {key: seen[key] for key in config if key != "device"} == {
        key: value for key, value in config.items() if key != "device"
    }
    assert "CPU" in str(seen["device"]).upper()


def test_the_offline_mode_needs_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TRACKLAYER_DIR", str(tmp_path / "store"))
    monkeypatch.setenv("TRACKLAYER_BACKEND", "wandb")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = wandb.init(project="my-project")
    wandb.log({"loss": 0.5})
    wandb.finish()
    assert seen_in_sqlite(tmp_path / "store", run.id).scalars == {"loss": [0.5]}
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_early_stopping(see: See, data: Any) -> None:
    run = wandb.init(project="digits")
    model, optimizer = new_model()
    best_val_loss, patience, waited, stopped = float("inf"), 2, 0, None
    for epoch in range(30):
        batch = data[0][epoch] if epoch < 3 else data[0][0] | {"labels": -data[0][0]["labels"]}
        train_step(model, optimizer, batch)  # after three epochs, it learns to be wrong
        val_loss = evaluate(model, data[1])[0]
        wandb.log({"val/loss": val_loss})
        if val_loss < best_val_loss:
            best_val_loss, waited = val_loss, 0
            wandb.log({"val/best_loss": best_val_loss})
        else:
            waited += 1
        if waited >= patience:
            stopped = epoch
            break
    wandb.run.summary["best_val_loss"] = best_val_loss
    wandb.finish()
    seen = see(run.id)
    assert stopped is not None
    assert len(seen.scalars["val/loss"]) == stopped + 1
    assert seen.summary["best_val_loss"] == pytest.approx(min(seen.scalars["val/loss"]))


def test_runs_of_several_seeds(see: See, data: Any) -> None:
    ids = []
    for seed in [42, 123, 456]:
        run = wandb.init(project="comparison", name=f"seed-{seed}", config={"seed": seed})
        model, optimizer = new_model(seed=seed)
        for batch in data[0][:2]:
            train_step(model, optimizer, batch)
        wandb.log({"final_val_accuracy": evaluate(model, data[1])[1]["accuracy"]})
        wandb.finish()
        ids.append(run.id)
    found = [see(this) for this in ids]
    assert [one.config["seed"] for one in found] == [42, 123, 456]
    assert all(0 <= one.scalars["final_val_accuracy"][0] <= 1 for one in found)
    assert len({one.scalars["final_val_accuracy"][0] for one in found}) > 1
    if os.environ["TRACKLAYER_BACKEND"] == "sqlite":
        runs = wandb.Api().runs("comparison")
        assert sorted(run.config["seed"] for run in runs) == [42, 123, 456]
        assert sorted(run.name for run in runs) == ["seed-123", "seed-42", "seed-456"]


def test_values_for_debugging(see: See, data: Any) -> None:
    run = wandb.init(project="digits")
    model, optimizer = new_model()
    loss, _, grads = train_step(model, optimizer, data[0][0])
    grad_norm = optax.tree.norm(grads)
    wandb.log(
        {
            "debug/loss": loss,
            "debug/loss_is_nan": jnp.isnan(loss),
            "debug/loss_is_inf": jnp.isinf(loss),
            "debug/grad_norm_too_large": grad_norm > 10,
            "debug/batch_mean": data[0][0]["images"].mean(),
            "debug/batch_std": np.asarray(data[0][0]["images"]).std(),
        }
    )
    wandb.finish()
    seen = see(run.id).scalars
    assert [seen[f"debug/{name}"] for name in ("loss_is_nan", "loss_is_inf")] == [[0], [0]]
    assert seen["debug/grad_norm_too_large"] == [int(grad_norm > 10)]
    assert seen["debug/batch_mean"] == pytest.approx([float(data[0][0]["images"].mean())])
    assert seen["debug/loss"] == pytest.approx([float(loss)])
