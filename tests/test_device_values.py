"""Values on a device: `log` never waits for them, and they arrive as they were at the call."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import tracklayer
from machine import Machine
from tracklayer import ActiveRun
from tracklayer.jax import fetching

DTYPES = [
    "bool", "int2", "int4", "uint4", "int8", "uint8", "int16", "uint16", "int32", "uint32",
    "bfloat16", "float16", "float32", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn",
]  # fmt: skip
WIDE_DTYPES = ["int64", "uint64", "float64"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[ActiveRun]:
    with tracklayer.init(dir=tmp_path, backend="sqlite") as run:
        yield run


def recorded(run: ActiveRun) -> dict[str, list[Any]]:
    """Finish a run; return the values of each key in order of steps."""
    run.finish()
    found: dict[str, list[Any]] = {}
    for row in tracklayer.open_store(run.dir).run(run.id).rows():
        for key, value in row.values.items():
            found.setdefault(key, []).append(value)
    return found


@jax.jit
def in_flight(x: jax.Array) -> jax.Array:
    """Return x, once a computation of about 0.2 s is done: what depends on it is not run at the call."""
    weights = jax.lax.fori_loop(0, 3000, lambda _, w: jnp.tanh(w @ w), jnp.full((128, 128), x))
    return x + 0 * weights.sum()


class Gate:
    """A computation that ends when it is told to."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def closed(self) -> jax.Array:
        """Return 1.0, which is computed once the gate is open."""

        def wait(x: Any) -> Any:
            assert self._event.wait(30)
            return np.asarray(x)

        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.jit(lambda x: jax.pure_callback(wait, shape, x))(in_flight(jnp.float32(1)))

    def open(self) -> None:
        self._event.set()


def test_log_does_not_wait_for_the_device(run: ActiveRun) -> None:
    gate = Gate()
    value = gate.closed()
    for step in range(3):
        run.log({"slow": value, "doubled": value * 2, "here": step}, step=step)
    run.log_series({"series": jnp.full(3, value)}, steps=range(3))
    assert not value.is_ready()
    gate.open()
    assert recorded(run) == {
        "slow": [1.0] * 3,
        "doubled": [2.0] * 3,
        "here": [0, 1, 2],
        "series": [1.0] * 3,
    }


def test_what_came_before_a_slow_value_is_durable_while_it_is_computed(run: ActiveRun) -> None:
    gate = Gate()
    run.log({"before": 1.0, "ready": jnp.float32(2)}, step=0)
    run.log({"slow": gate.closed()}, step=1)
    assert not run.flush(0.5)  # it says that not all is there
    rows = list(tracklayer.open_store(run.dir).run(run.id).rows())
    gate.open()
    assert [row.values for row in rows] == [{"before": 1.0, "ready": 2.0}]
    assert run.flush()


@pytest.mark.slow
def test_finish_waits_for_the_device_however_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracklayer.settings._FINISH_TIMEOUT", 0.3)
    monkeypatch.setenv("TRACKLAYER_FINISH_TIMEOUT", "0.3")
    gate = Gate()
    run = tracklayer.init(dir=tmp_path)
    run.log({"slow": gate.closed()})
    threading.Timer(1.5, gate.open).start()
    assert recorded(run) == {"slow": [1.0]}


def test_a_value_that_the_next_step_donates_is_kept(run: ActiveRun) -> None:
    @partial(jax.jit, donate_argnums=0)
    def train_step(state: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"count": state["count"] + 1, "half": state["half"] + 0.5}

    state = {"count": jnp.int32(0), "half": jnp.float32(0)}
    for step in range(300):
        run.log({"state": state}, step=step)
        state = train_step(state)
    found = recorded(run)
    assert found["state/count"] == list(range(300))
    assert found["state/half"] == [step / 2 for step in range(300)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_dtype_reads_back_with_its_own_value(run: ActiveRun, dtype: str) -> None:
    is_integer = jnp.issubdtype(dtype, jnp.integer)
    if is_integer:
        limits = jnp.iinfo(dtype)
        numbers = [int(limits.min), int(limits.max), 0]
    else:
        numbers = [False, True] if dtype == "bool" else [0.5, -1.5, 3.0]
    arrays = [jnp.array(number, dtype) for number in numbers]
    for step, array in enumerate(arrays):
        run.log({"x": array, "with": {"others": jnp.float32(step)}}, step=step)
    found = recorded(run)["x"]
    assert found == numbers
    assert {type(value) for value in found} == {int if is_integer or dtype == "bool" else float}


def test_wide_numbers_are_exact_under_x64(run: ActiveRun) -> None:
    with jax.enable_x64(True):
        values = {
            "int64": jnp.array(2**62 + 3, jnp.int64),
            "float64": jnp.array(np.pi, jnp.float64),
            "narrow": jnp.float32(0.1),
        }
    run.log(values, step=0)
    assert recorded(run) == {"int64": [2**62 + 3], "float64": [np.pi], "narrow": [float(np.float32(0.1))]}


def test_any_mix_of_numbers_makes_one_row(run: ActiveRun) -> None:
    row = {
        "device": jnp.float32(1.5),
        "one element": jnp.array([[2.5]]),
        "numpy": np.float64(3.5),
        "python": 4,
        "flag": True,
        "nested": {"device": jnp.int32(5), "variable": nnx.Param(jnp.float32(6.5))},
    }
    run.log(row)
    (found,) = tracklayer.open_store(run.dir).run(run.id).rows() if run.flush() else ()
    assert found.values == {
        "device": 1.5,
        "one element": 2.5,
        "numpy": 3.5,
        "python": 4,
        "flag": True,
        "nested/device": 5,
        "nested/variable": 6.5,
    }


def test_nan_is_a_value_under_debug_nans(run: ActiveRun) -> None:
    nan, ready = jnp.float32(np.nan), jnp.float32(1)
    with jax.debug_nans(True):
        run.log({"nan": nan, "ready": ready})
    found = recorded(run)
    assert np.isnan(found["nan"][0])
    assert found["ready"] == [1.0]


def compiled() -> int:
    return len(fetching._executables)


def test_other_keys_and_other_counts_compile_few_variants(run: ActiveRun) -> None:
    values = [jnp.float32(number) for number in range(16)]
    fetching._executables.clear()
    fetching._plans.clear()
    for count in range(1, 17):
        run.log({f"{count} of {number}": values[number] for number in range(count)})
    assert compiled() == 5  # 1, 2, 4, 8, 16
    for count in range(16, 0, -1):
        run.log({f"{number} again": value for number, value in enumerate(values[:count])})
    assert compiled() == 5


def test_weak_types_and_order_compile_nothing_new(run: ActiveRun) -> None:
    weak, strong, whole = jnp.asarray(1.0) * 2, jnp.float32(1), jnp.int32(1)
    run.log({"a": strong, "b": whole})
    before = compiled()
    run.log({"a": whole, "b": strong})
    run.log({"a": weak, "b": whole})
    assert compiled() == before


def test_the_same_keys_may_come_with_other_arrays(run: ActiveRun) -> None:
    everywhere = NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec())
    for value in (
        jnp.float32(1.5),
        jnp.int32(2),
        jnp.array([3.5]),
        jax.device_put(jnp.float32(4.5), jax.devices()[5]),
        jax.device_put(jnp.float32(5.5), everywhere),
        jnp.array(True),
        6.5,
        jnp.float32(7.5),
    ):
        run.log({"x": value, "y": jnp.float32(0)})
    assert recorded(run)["x"] == [1.5, 2, 3.5, 4.5, 5.5, 1, 6.5, 7.5]


def test_disabled_jit_changes_nothing(run: ActiveRun) -> None:
    with jax.disable_jit():
        for step in range(3):
            run.log({"x": jnp.float32(step), "n": jnp.int32(step)})
    assert recorded(run) == {"x": [0.0, 1.0, 2.0], "n": [0, 1, 2]}


def test_scalars_of_several_devices_are_fetched(run: ActiveRun) -> None:
    mesh = jax.make_mesh((8,), ("data",))
    everywhere = jax.device_put(jnp.float32(1), NamedSharding(mesh, PartitionSpec()))
    spread = jax.device_put(jnp.arange(16.0), NamedSharding(mesh, PartitionSpec("data")))
    row = {
        "everywhere": everywhere,
        "third": jax.device_put(jnp.float32(3), jax.devices()[3]),
        "default": jnp.float32(0),
        "reduced": jax.jit(jnp.sum)(spread),
    }
    run.log(row)
    with jax.set_mesh(mesh):
        run.log(row)
    assert recorded(run) == {
        "everywhere": [1.0] * 2,
        "third": [3.0] * 2,
        "default": [0.0] * 2,
        "reduced": [120.0] * 2,
    }


def test_a_replicated_scalar_that_is_donated_is_kept(run: ActiveRun) -> None:
    mesh = jax.make_mesh((8,), ("data",))
    count = jax.device_put(jnp.int32(0), NamedSharding(mesh, PartitionSpec()))
    train_step = jax.jit(lambda count: count + 1, donate_argnums=0)
    for step in range(100):
        run.log({"count": count}, step=step)
        count = train_step(count)
    assert recorded(run)["count"] == list(range(100))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 8])
def test_a_loop_of_collectives_on_cpu_devices_is_never_stuck(tmp_path: Path, devices: int) -> None:
    # JAX is, where anything is dispatched between two of its programs
    script = """
        import jax, jax.numpy as jnp, numpy as np, tracklayer
        from functools import partial
        from jax.sharding import NamedSharding, PartitionSpec

        mesh = jax.make_mesh((len(jax.devices()),), ("data",))
        inputs = jax.device_put(np.ones((8, 3), np.float32), NamedSharding(mesh, PartitionSpec("data")))
        weights = jax.device_put(np.zeros(3, np.float32), NamedSharding(mesh, PartitionSpec()))

        @partial(jax.jit, donate_argnums=0)
        def step(weights):
            value, slope = jax.value_and_grad(lambda w: jnp.mean((inputs @ w - 1) ** 2))(weights)
            return weights - 0.1 * slope, value

        with tracklayer.init(id="r") as run:
            for _ in range(1000):
                weights, value = step(weights)
                run.log({"loss": value})
        """
    flags = f"--xla_force_host_platform_device_count={devices}"
    Machine(tmp_path).run(script, JAX_PLATFORMS="cpu", XLA_FLAGS=flags).well()
    assert len(tracklayer.open_store(tmp_path / "store").run("r").metric("loss")) == 1000


def test_a_value_from_outside_is_logged_while_something_is_traced(run: ActiveRun) -> None:
    rate = jnp.float32(0.5)

    @jax.jit
    def traced(x: jax.Array) -> jax.Array:
        run.log({"rate": rate}, step=0)
        return x

    traced(1.0)
    assert recorded(run) == {"rate": [0.5]}


def test_a_traced_value_is_refused_by_name(run: ActiveRun) -> None:
    @jax.jit
    def traced(x: jax.Array) -> jax.Array:
        run.log({"here": 1, "train": {"loss": x}}, step=0)
        return x

    with pytest.raises(TypeError, match=r"'train/loss': it is traced.*tracklayer\.jax\.log") as caught:
        traced(1.0)
    assert "'here'" not in str(caught.value)
    assert recorded(run) == {"here": [1]}


def test_a_deleted_value_costs_itself_only(run: ActiveRun) -> None:
    gone, there = jnp.float32(1) + 1, jnp.float32(3)
    gone.delete()
    with pytest.raises(TypeError, match="'gone': the array was deleted before it was logged") as caught:
        run.log({"gone": gone, "there": there, "here": 4}, step=0)
    assert "'there'" not in str(caught.value)
    assert recorded(run) == {"there": [3.0], "here": [4]}


FAILING = """
import jax, jax.numpy as jnp, tracklayer

def fail(x):
    raise ValueError("no such thing")

@jax.jit
def in_flight(x):
    return jax.lax.fori_loop(0, 3000, lambda _, w: jnp.tanh(w @ w), jnp.full((128, 128), x)).sum()

@jax.jit
def failing(x):
    return jax.pure_callback(fail, jax.ShapeDtypeStruct((), jnp.float32), x)

with tracklayer.init(id="failing") as run:
    failed = failing(in_flight(1.0))
    run.log({"failed": failed, "there": jnp.float32(3), "here": 4}, step=0)
    run.log({"failed": failed, "there": jnp.float32(5)}, step=1)
"""


@pytest.mark.slow
def test_a_failed_computation_costs_its_value_only(tmp_path: Path) -> None:
    # in a process of its own, since JAX reports the failure once more when the process ends
    command = [sys.executable, "-c", FAILING]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    rows = tracklayer.open_store(tmp_path / ".tracklayer").run("failing").rows()
    assert [row.values for row in rows] == [{"there": 3.0, "here": 4}, {"there": 5.0}]
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("tracklayer:")]
    assert "'failed' could not be fetched" in message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (jnp.zeros(3), r"an array of shape \(3,\) is no scalar.*Histogram.*log_series"),
        (jnp.complex64(1), "cannot log numbers of dtype complex64"),
        (jax.random.key(0), "cannot log numbers of dtype key<fry>"),
    ],
)
def test_what_is_no_scalar_is_refused_by_name(run: ActiveRun, value: jax.Array, message: str) -> None:
    with pytest.raises(TypeError, match=f"'x': {message}"):
        run.log({"x": value, "there": jnp.float32(1)}, step=0)
    assert recorded(run) == {"there": [1.0]}


def test_one_snapshot_serves_all_backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dispatches: list[int] = []
    start = fetching._Packing.start

    def counted(self: Any, arrays: Any) -> Any:
        dispatches.append(len(arrays))
        return start(self, arrays)

    monkeypatch.setattr(fetching._Packing, "start", counted)
    with tracklayer.init(dir=tmp_path, backend="sqlite,tensorboard") as run:
        for step in range(10):
            run.log({"a": jnp.float32(step), "b": jnp.int32(step), "c": jnp.bfloat16(step)}, step=step)
    assert dispatches == [3] * 10
    assert recorded(run)["c"] == list(range(10))


def test_rows_that_wait_for_a_device_are_spilled_whole(run: ActiveRun) -> None:
    """What the queue would write to the temporary folder is what the backend would have got."""
    row = (7, 1.0, tracklayer.snapshots.snapshot({"a": jnp.float32(1.5), "b": 2})[0])
    assert list(run._queues[0]._rows(row)) == [(7, 1.0, {"a": 1.5, "b": 2})]
