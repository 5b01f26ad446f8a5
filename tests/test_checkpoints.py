"""`save_checkpoint` and `restore_checkpoint`: states of Flax, Optax and JAX as versions of an artifact."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import tracklayer
from machine import Machine, killed_at_the_end, wait_until
from tracklayer.artifacts.artifact import Artifact
from tracklayer.errors import (
    ArtifactNotFoundError,
    CorruptArtifactError,
    NoActiveRunError,
    RunFinishedError,
    StoreTooNewError,
    UnsupportedValueError,
    UsageError,
)
from tracklayer.front import ActiveRun
from tracklayer.jax import restore_checkpoint, save_checkpoint

STRUCTURE = "tracklayer-structure.json"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "store"
    monkeypatch.setenv("TRACKLAYER_DIR", str(folder))
    yield folder
    with suppress(NoActiveRunError):
        tracklayer.finish()


@pytest.fixture
def run() -> ActiveRun:
    return tracklayer.init(id="r", project="digits")


class Net(nnx.Module):
    def __init__(self, width: int = 16, *, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(4, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(width, 2, rngs=rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layers[0](self.dropout(nnx.relu(self.norm(self.first(x)))))


def spread(array: Any, *axes: str | None) -> jax.Array:
    """Return an array on eight devices."""
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("x", "y"))
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*axes)))


def everything() -> dict[str, Any]:
    """Return a state with a leaf of every kind."""
    return {
        "spread": spread(jnp.arange(64.0).reshape(8, 8), "x", "y"),
        "everywhere": spread(jnp.arange(3)),
        "half": jnp.linspace(0, 1, 5, dtype=jnp.bfloat16),
        "quarter": jnp.ones(3, jnp.float8_e4m3fn),
        "bits": jnp.array([1, -2], jnp.int4),
        "complex": jnp.array([1 + 2j]),
        "nan": jnp.array([jnp.nan, -jnp.inf]),
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(3, impl="rbg"), 4),
        "numpy": np.arange(3, dtype=np.int64),
        "scalar": np.float64(1.1),
        "count": 2**40,
        "rate": 0.1,
        "done": True,
        "name": "Größe",
        "nested": [{"a": jnp.zeros(2)}, (jnp.ones(()), None, {})],
        "epochs": {5: jnp.ones(1)},
        "optimizer": optax.adam(1e-3).init({"w": jnp.ones(2)}),
    }


def assert_same(found: Any, expected: Any) -> None:
    """Demand the same tree, of the same types, dtypes, places and values."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if isinstance(b, jax.Array):
            assert (a.dtype, a.sharding) == (b.dtype, b.sharding)
            if jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
                np.testing.assert_array_equal(jax.random.key_data(a), jax.random.key_data(b))
                continue
        elif not isinstance(b, np.generic):
            assert type(a) is type(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), strict=True)


def contents(store: Path) -> int:
    """Return how many bytes the store has of artifacts."""
    return sum(file.stat().st_size for file in (store / "blobs").rglob("*") if file.is_file())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# -- what comes back -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_state_comes_back_as_it_was(run: ActiveRun) -> None:
    state = everything()
    saved = save_checkpoint(state, step=3, metadata={"accuracy": 0.5}, aliases="best").wait()
    assert (saved.name, saved.type, saved.aliases) == ("checkpoint:v0", "checkpoint", ["latest", "best"])
    assert saved.metadata == {"accuracy": 0.5, "step": 3}
    assert_same(restore_checkpoint("checkpoint:best", state), state)


@pytest.mark.slow
def test_arrays_that_have_files_of_their_own_come_back_as_well(run: ActiveRun) -> None:
    state = everything() | {"large": spread(jnp.arange(2.0**22), "x")}
    saved = save_checkpoint(state).wait()
    assert "large/0" in {file.path for file in saved.files()}
    assert_same(restore_checkpoint(saved, state), state)


def test_an_abstract_state_is_enough(run: ActiveRun) -> None:
    state = {"w": jnp.arange(6.0).reshape(2, 3), "key": jax.random.key(1)}
    save_checkpoint(state)
    assert_same(restore_checkpoint("checkpoint", jax.eval_shape(lambda: state)), state)


@pytest.mark.slow
def test_arrays_go_where_the_wanted_state_has_them(run: ActiveRun) -> None:
    saved = save_checkpoint({"w": jnp.arange(32.0).reshape(8, 4)})
    sharding = spread(jnp.zeros((8, 4)), "y", "x").sharding
    wanted = {"w": jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=sharding)}
    restored = restore_checkpoint(saved, wanted)
    assert restored["w"].sharding == sharding
    np.testing.assert_array_equal(restored["w"], jnp.arange(32.0).reshape(8, 4))


@pytest.mark.slow
def test_without_a_wanted_state_there_are_plain_containers(run: ActiveRun) -> None:
    saved = save_checkpoint(everything()).wait()
    found = restore_checkpoint(saved)
    assert found["nested"] == [{"a": pytest.approx([0, 0])}, [1.0, None, {}]]
    assert (found["count"], found["rate"], found["done"], found["name"]) == (2**40, 0.1, True, "Größe")
    assert isinstance(found["spread"], np.ndarray)
    assert found["half"].dtype == jnp.bfloat16
    assert found["scalar"].dtype == np.float64
    assert found["epochs"]["5"].tolist() == [1.0]
    assert found["optimizer"][0]["mu"]["w"].tolist() == [0.0, 0.0]
    assert jax.random.key_impl(found["keys"]) == "rbg"


@pytest.mark.slow
def test_a_module_and_its_optimizer_are_updated_in_place(run: ActiveRun) -> None:
    def made() -> tuple[Net, nnx.Optimizer[Net]]:
        model = Net(rngs=nnx.Rngs(0))
        return model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    def train(model: Net, optimizer: nnx.Optimizer[Net]) -> list[float]:
        def loss(model: Net) -> jax.Array:
            return (model(jnp.ones((8, 4))) ** 2).mean()

        losses: list[float] = []
        for _ in range(3):
            value, gradients = nnx.value_and_grad(loss)(model)
            optimizer.update(model, gradients)
            losses.append(float(value))
        return losses

    model, optimizer = made()
    train(model, optimizer)
    save_checkpoint({"model": model, "optimizer": optimizer})
    expected = train(model, optimizer)
    fresh, its_optimizer = nnx.eval_shape(made)
    restored = restore_checkpoint("checkpoint", {"model": fresh, "optimizer": its_optimizer})
    assert restored["model"] is fresh
    assert train(fresh, its_optimizer) == expected  # also what the dropout drops


@pytest.mark.slow
def test_a_train_state_of_linen_goes_on_where_it_was(run: ActiveRun) -> None:
    model = nn.Dense(2)

    def fresh() -> TrainState:
        params = model.init(jax.random.key(0), jnp.ones((1, 4)))
        return TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(1e-2))

    @jax.jit
    def step(state: TrainState) -> TrainState:
        def loss(params: Any) -> Any:
            return (state.apply_fn(params, jnp.ones((8, 4))) ** 2).mean()

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    state = step(step(fresh()))  # its step is an array by now, that of a fresh one an int
    save_checkpoint(state)
    restored = restore_checkpoint("checkpoint", fresh())
    assert restored.step == 2
    assert_same(step(restored).params, step(state).params)


@pytest.mark.slow
def test_orbax_alone_can_read_it(run: ActiveRun, tmp_path: Path) -> None:
    model = Net(rngs=nnx.Rngs(0))
    folder = save_checkpoint(model).wait().download(tmp_path / "copy")
    abstract = nnx.state(nnx.eval_shape(lambda: Net(rngs=nnx.Rngs(1))))
    restored = ocp.StandardCheckpointer().restore(Path(folder), abstract)
    assert_same(restored, nnx.state(model))


# -- what does not fit ---------------------------------------------------------------------------------


def test_what_differs_is_listed(run: ActiveRun) -> None:
    saved = save_checkpoint({"w": jnp.ones((2, 3)), "b": jnp.ones(3), "old": 1})
    wanted = {"w": jnp.ones((2, 4)), "b": jnp.ones(3, jnp.bfloat16), "new": jnp.ones(())}
    with pytest.raises(UsageError) as caught:
        restore_checkpoint(saved, wanted)
    assert str(caught.value).splitlines() == [
        "checkpoint checkpoint:v0 does not fit the state that it is to be restored into:",
        "  old: int in the checkpoint, not wanted",
        "  new: float32[] wanted, not in the checkpoint",
        "  b: float32[3] in the checkpoint, bfloat16[3] wanted",
        "  w: float32[2,3] in the checkpoint, float32[2,4] wanted",
    ]


def test_of_many_differences_the_first_ones_are_listed(run: ActiveRun) -> None:
    saved = save_checkpoint({f"w{index:02}": 0 for index in range(30)})
    with pytest.raises(UsageError, match=r"(?s)w00.*w09: int .*\n  and 21 more$"):
        restore_checkpoint(saved, {"w": 0})


@pytest.mark.slow
def test_a_module_that_does_not_fit_stays_as_it_was(run: ActiveRun) -> None:
    saved = save_checkpoint(nnx.Linear(4, 2, rngs=nnx.Rngs(0)))
    other = nnx.Linear(4, 3, rngs=nnx.Rngs(1))
    before = other.kernel[...]
    with pytest.raises(UsageError, match=r"kernel.value: float32\[4,2\] in the checkpoint, float32\[4,3\]"):
        restore_checkpoint(saved, other)
    assert other.kernel[...] is before


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"f": len}, "'f' of the state: a builtin_function_or_method is no array"),
        ({"x": np.array(["a"])}, "'x' of the state: no array of dtype <U1"),
        ({"x": np.array([None])}, "'x' of the state: no array of dtype object"),
        ({"x": 1 << 70}, "'x' of the state: 1180591620717411303424 does not fit in 64 bits"),
        ({"x": np.zeros((0, 3))}, r"'x' of the state: an array of shape \(0, 3\) has no elements"),
        ({"x": jax.ShapeDtypeStruct((2,), jnp.float32)}, "'x' of the state has no content"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(run: ActiveRun, state: Any, why: str) -> None:
    with pytest.raises(UnsupportedValueError, match=why):
        save_checkpoint(state)


def test_states_that_name_nothing_or_two_things_alike_are_refused(run: ActiveRun) -> None:
    with pytest.raises(UsageError, match="no arrays"):
        save_checkpoint({"nothing": None})
    with pytest.raises(UsageError, match=r"two leaves of the state are called 'a\.b'"):
        save_checkpoint({"a.b": jnp.ones(1), "a": {"b": jnp.zeros(1)}})


def test_an_array_that_was_donated_before_is_refused_by_name(run: ActiveRun) -> None:
    array = jnp.ones(3)
    array.delete()
    with pytest.raises(UnsupportedValueError, match="'x' of the state was deleted"):
        save_checkpoint({"x": array})


def test_inside_jit_it_is_refused(run: ActiveRun) -> None:
    with pytest.raises(UnsupportedValueError, match="save outside of jit"):
        jax.jit(lambda x: save_checkpoint({"x": x}) and x)(jnp.ones(2))


def test_a_step_is_an_integer(run: ActiveRun) -> None:
    with pytest.raises(UnsupportedValueError, match="step 1.5 is a float"):
        save_checkpoint({"x": 1}, step=1.5)  # type: ignore[arg-type]


def test_other_artifacts_are_no_checkpoints(run: ActiveRun, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("data")
    run.log_artifact(tmp_path / "data.txt", name="data")
    with pytest.raises(UsageError, match="data:v0 was not made by save_checkpoint"):
        restore_checkpoint("data")
    with pytest.raises(ArtifactNotFoundError):
        restore_checkpoint("checkpoint:v7")


def test_a_checkpoint_of_a_newer_tracklayer_is_refused(run: ActiveRun) -> None:
    artifact = Artifact("checkpoint", "checkpoint")
    with artifact.new_file(STRUCTURE) as file:
        json.dump({"format": 2, "leaves": {}}, file)
    with pytest.raises(StoreTooNewError, match="update this one"):
        restore_checkpoint(run.log_artifact(artifact), {})


@pytest.mark.slow
def test_content_that_was_damaged_is_not_handed_out(run: ActiveRun) -> None:
    saved = save_checkpoint({"w": jnp.arange(1000.0)}).wait()
    largest = max(saved.files(), key=lambda file: file.size)
    damaged = Path(largest.source)
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptArtifactError, match="checkpoint:v0"):
        restore_checkpoint(saved)


# -- while training goes on ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_content_is_that_at_the_call(run: ActiveRun) -> None:
    array, host = jnp.ones((1000, 1000)), np.ones((1000, 1000))
    artifact = save_checkpoint({"device": array, "host": host})
    jax.jit(lambda x: x * 0, donate_argnums=0)(array).block_until_ready()
    host[:] = 0
    assert array.is_deleted()
    found = restore_checkpoint(artifact)
    assert found["device"].min() == found["host"].min() == 1.0


@pytest.mark.slow
def test_of_saves_in_a_row_each_is_a_version(run: ActiveRun, store: Path) -> None:
    for step in range(5):
        save_checkpoint({"w": jnp.full((500, 500), step)}, step=step)
    run.finish()
    versions = tracklayer.open_store(store).artifacts(name="checkpoint")
    assert [(one.version, one.metadata["step"]) for one in versions] == [(f"v{n}", n) for n in range(5)]
    assert [restore_checkpoint(one)["w"].max() for one in versions] == [0, 1, 2, 3, 4]
    assert list((store / "incoming").iterdir()) == []


@pytest.mark.slow
def test_arrays_that_did_not_change_take_no_space(run: ActiveRun, store: Path) -> None:
    keys = jax.random.split(jax.random.key(0), 8)
    state = {f"layer_{n}": jax.random.normal(key, (512, 512)) for n, key in enumerate(keys)}
    save_checkpoint(state, wait=True)
    once = contents(store)
    changed = {name: value + 1 if name < "layer_4" else value for name, value in state.items()}
    assert save_checkpoint(changed, wait=True).version == "v1"
    assert contents(store) < 1.55 * once


@pytest.mark.slow
def test_states_of_small_arrays_take_few_files(run: ActiveRun) -> None:
    saved = save_checkpoint({f"b{n}": jnp.full(100, n) for n in range(200)}, wait=True)
    assert saved.file_count < 30


@pytest.mark.slow
@pytest.mark.parametrize("names", [("W", "w"), ("a/b", "c"), ("..", "c"), ("_METADATA", "c")])
def test_names_that_are_no_names_of_files_do_no_harm(run: ActiveRun, names: tuple[str, str]) -> None:
    state = {name: jnp.full((512, 512), value) for value, name in enumerate(names)}
    saved = save_checkpoint(state, wait=True)
    assert_same(restore_checkpoint(saved, state), state)


def test_orbax_says_nothing_while_all_goes_well(run: ActiveRun, caplog: pytest.LogCaptureFixture) -> None:
    save_checkpoint({"w": jnp.ones((512, 512))}, wait=True)
    assert warnings(caplog) == []


def test_where_nothing_is_recorded_nothing_is_done(store: Path) -> None:
    with tracklayer.init(mode="disabled") as run:
        artifact = save_checkpoint({"not even looked at": object()}, step=1, wait=True)
        assert (artifact.name, artifact.metadata) == ("checkpoint:v0", {"step": 1})
        assert run.disabled
    assert not (store / "blobs").exists()


def test_a_finished_run_takes_none(run: ActiveRun) -> None:
    run.finish()
    with pytest.raises(RunFinishedError):
        save_checkpoint({"w": 1}, run=run)
    with pytest.raises(NoActiveRunError):
        save_checkpoint({"w": 1})


# -- by name -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_run_that_restores_takes_note_of_it(run: ActiveRun, store: Path) -> None:
    save_checkpoint({"w": 1}, "pretrained")
    with tracklayer.init(id="finetuning", project="digits"):
        restore_checkpoint("pretrained:latest")
    artifact = tracklayer.open_store(store).artifact("pretrained")
    assert [one.info.id for one in artifact.used_by()] == ["finetuning"]


@pytest.mark.slow
def test_no_run_is_needed_to_restore(store: Path) -> None:
    for project in ("first", "second"):
        with tracklayer.init(project=project):
            save_checkpoint({"project": project})
    assert restore_checkpoint("checkpoint:v0", project="second") == {"project": "second"}
    with tracklayer.init(project="first", mode="disabled"):  # as in the processes beside the one that records
        assert restore_checkpoint("checkpoint:v0") == {"project": "first"}


@pytest.mark.slow
def test_checkpoints_may_lie_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKLAYER_ARTIFACTS", "memory://checkpoints")
    state = {"w": jnp.arange(10.0)}
    with tracklayer.init():
        save_checkpoint(state)
        assert_same(restore_checkpoint("checkpoint", state), state)


# -- processes that end --------------------------------------------------------------------------------

DIGITS = """
    import sys
    import jax, optax
    from flax import nnx
    from sklearn.datasets import load_digits
    import tracklayer
    from tracklayer.errors import ArtifactNotFoundError
    from tracklayer.jax import restore_checkpoint, save_checkpoint

    images, labels = load_digits(return_X_y=True)
    images = images / 16

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(64, 1024, rngs=rngs)
            self.last = nnx.Linear(1024, 10, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.relu(self.first(x)))

    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    state = {"model": model, "optimizer": optimizer, "epoch": 0}

    @nnx.jit
    def train(model, optimizer):
        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()
        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    with tracklayer.init(id="r", project="digits", resume="allow") as run:
        try:
            state = restore_checkpoint("checkpoint:latest", state)
        except ArtifactNotFoundError:
            pass
        print("from", state["epoch"], flush=True)
        for epoch in range(state["epoch"], int(sys.argv[1])):
            value = float(train(model, optimizer))
            run.log({"loss": value}, step=epoch)
            state["epoch"] = epoch + 1
            save_checkpoint(state, step=epoch)
            print(epoch, value, flush=True)
"""


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_latest_checkpoint(tmp_path: Path) -> None:
    whole, machine = Machine(tmp_path / "whole"), Machine(tmp_path / "killed")
    expected = whole.run(DIGITS, "12").well().stdout.splitlines()[1:]
    started = machine.start(DIGITS, "100000")
    with killed_at_the_end(started):
        assert started.hear() == "from 0"
        for _ in range(8):
            started.hear()
        started.process.send_signal(signal.SIGKILL)
    versions = tracklayer.open_store(machine.store).artifacts(name="checkpoint")
    assert len(versions) >= 1
    for version in versions:
        version.verify()
        assert restore_checkpoint(version)["epoch"] == version.metadata["step"] + 1
    resumed = machine.run(DIGITS, "12").stdout.splitlines()
    at = versions[-1].metadata["step"] + 1
    assert resumed[0] == f"from {at}"
    assert resumed[1:] == expected[at:]


@pytest.mark.slow
def test_a_kill_while_orbax_writes_leaves_no_version(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    script = """
        import numpy as np, tracklayer
        from tracklayer.jax import save_checkpoint
        run = tracklayer.init(id="r", project="p")
        save_checkpoint({f"w{n}": np.random.default_rng(n).random((2000, 2000)) for n in range(10)})
        print("saving", flush=True)
        input()
    """
    started = machine.start(script)
    with killed_at_the_end(started):
        wait_until(lambda: any(machine.store.glob("incoming/**/*.orbax-checkpoint-tmp/*")))
        started.process.kill()
        started.process.wait()
    assert tracklayer.open_store(machine.store).artifacts() == []
    assert machine.tracklayer("gc").code == 0
    assert [*(machine.store / "incoming").iterdir()] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "end", ["", "raise SystemExit(3)", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"]
)
def test_the_last_checkpoint_is_stored_however_the_program_ends(tmp_path: Path, end: str) -> None:
    machine = Machine(tmp_path)
    script = f"""
        import numpy as np, tracklayer
        from tracklayer.jax import save_checkpoint
        run = tracklayer.init(id="r", project="p")
        save_checkpoint({{f"w{{n}}": np.random.default_rng(n).random((2000, 500)) for n in range(10)}})
        {end}
    """
    ended = machine.run(script)
    assert ended.stderr == ""
    (version,) = tracklayer.open_store(machine.store).artifacts()
    version.verify()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="it takes a limit on the size of files")
def test_a_disk_that_takes_no_more_is_reported_once_and_training_goes_on(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    script = """
        import resource, signal
        import numpy as np, tracklayer
        from tracklayer.jax import save_checkpoint
        run = tracklayer.init(id="r", project="p")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        failed = save_checkpoint({"w": np.random.default_rng(0).random((1000, 1000))})
        try:
            failed.wait()
        except OSError as error:
            print(type(error).__name__)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        save_checkpoint({"w": np.zeros(3)}, step=1)
        run.log({"loss": 1.0}, step=1)
        run.finish()
    """
    ended = machine.run(script)
    assert ended.code == 0, ended.stderr
    assert ended.stdout == "StoreError\n"
    (complaint,) = ended.complaints
    assert "artifact 'checkpoint' of run r is not recorded: Orbax could not write the checkpoint" in complaint
    (version,) = tracklayer.open_store(machine.store).artifacts()
    assert version.metadata == {"step": 1}
    assert machine.recorded().summary["loss"] == 1.0


@pytest.mark.slow
def test_of_several_processes_one_stores_and_all_restore(tmp_path: Path) -> None:
    machine = Machine(tmp_path, JAX_PLATFORMS="cpu", XLA_FLAGS="--xla_force_host_platform_device_count=2")
    script = """
        import os, sys
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # where Gloo talks
        import jax
        jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
        import numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec
        import tracklayer
        from tracklayer.errors import UnsupportedValueError
        from tracklayer.jax import restore_checkpoint, save_checkpoint

        mesh = Mesh(np.array(jax.devices()), "x")
        values = np.arange(8.0, dtype=np.float32)

        def placed(*axes):
            sharding = NamedSharding(mesh, PartitionSpec(*axes))
            return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

        with tracklayer.init(id="r", project="p") as run:
            save_checkpoint({"w": placed()}, wait=True)
            if not run.disabled:
                try:
                    save_checkpoint({"w": placed("x")})
                except UnsupportedValueError as error:
                    print(error, file=answers, flush=True)
            print("saved", file=answers, flush=True)
            sys.stdin.readline()
            restored = restore_checkpoint("checkpoint", {"w": placed("x")})["w"]
            assert restored.sharding == placed("x").sharding
            for shard in restored.addressable_shards:
                np.testing.assert_array_equal(shard.data, values[shard.index])
            print("restored", file=answers, flush=True)
            sys.stdin.readline()
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pair = [machine.start(script, address, str(index)) for index in (0, 1)]
    with killed_at_the_end(*pair):
        assert "'w' of the state is spread over several processes" in pair[0].hear()
        assert [process.hear() for process in pair] == ["saved", "saved"]
        for process in pair:
            process.tell()
        assert [process.hear() for process in pair] == ["restored", "restored"]
        for process in pair:
            process.tell()
        assert [process.end().code for process in pair] == [0, 0]
