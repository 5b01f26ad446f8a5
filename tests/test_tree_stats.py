"""Figures of trees: against numpy and Optax, of Flax's modules and states, in and out of jit."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from typing import Any, NamedTuple, final

import flax.core
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from numpy.typing import NDArray

import tracklayer
from tracklayer.errors import UnsupportedValueError
from tracklayer.jax.histogramming import histograms
from tracklayer.jax.measuring import FIGURES, TreeStats, measured_as, stats
from tracklayer.jax.trees import leaves

pytestmark = pytest.mark.slow  # each dtype and shape is compiled

RANDOM = np.random.default_rng(0)

CASES: dict[str, NDArray[Any]] = {
    "normal": RANDOM.normal(size=(30, 40)).astype(np.float32),
    "large": RANDOM.normal(size=(300, 500)).astype(np.float32),
    "half zeros": np.where(RANDOM.random((300, 500)) < 0.5, 0, 1).astype(np.float32),
    "squares overflow": np.full((3, 3), 3e37, np.float32),
    "squares underflow": np.full(100, 1e-30, np.float32),
    "subnormal": np.full(10, 1e-40, np.float32),
    "zero": np.array([0.0, -0.0], np.float32),
    "a scalar": np.array(-2.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "with NaN": np.array([1, math.nan, math.inf, 0], np.float32),
    "with infinity": np.array([1, -math.inf, 0, 0], np.float32),
    "bfloat16": RANDOM.normal(size=500).astype(ml_dtypes.bfloat16),
    "float16": np.full(1000, 60000, np.float16),
    "float8": RANDOM.normal(size=500).astype(ml_dtypes.float8_e4m3fn),
    "complex": np.array([3 + 4j, 0, -5j], np.complex64),
    "bool": RANDOM.random(100) < 0.2,
    "int8": np.array([-128, 0, 127], np.int8),
    "int4": np.array([-8, 0, 7], ml_dtypes.int4),
    "uint32": np.array([2**32 - 1, 0], np.uint32),
}


def by_numpy(*arrays: NDArray[Any]) -> dict[str, float]:
    """Return the figures of arrays together."""
    parts = [abs(a) if a.dtype.kind == "c" else a for a in arrays]
    values = np.concatenate([part.astype(np.float64).reshape(-1) for part in parts])
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.float64(values.size)
        return {
            "norm": float(np.sqrt(np.square(values).sum())),
            "max": float(np.abs(values).max(initial=0)),
            "mean": float(values.sum() / size),
            "zero_fraction": float((values == 0).sum() / size),
            "nonfinite": int((~np.isfinite(values)).sum()),
        }


def as_numbers(found: TreeStats) -> dict[str, Any]:
    return found.landed([np.asarray(array) for array in found.arrays()])


def assert_close(found: float, expected: float, figure: str, array: NDArray[Any]) -> None:
    # a device may take a result that is smaller than 1.2e-38 for zero; the largest magnitude is an element
    slack = 0.0 if figure == "max" else 2e-38
    if figure == "mean" and np.isfinite(expected):
        slack += 1e-6 * by_numpy(abs(array.astype(float)))["mean"]
    assert found == pytest.approx(expected, rel=1e-6, abs=slack, nan_ok=True), figure


@pytest.mark.parametrize("name", CASES)
def test_the_figures_of_an_array_are_as_numpy_has_them(name: str, measured: TreeStats) -> None:
    numbers, expected = as_numbers(measured), by_numpy(CASES[name])
    for figure in FIGURES:
        assert_close(numbers[f"{name}/{figure}"], expected[figure], figure, np.abs(CASES[name]))


@pytest.fixture(scope="module")
def measured() -> TreeStats:
    return stats({name: jnp.asarray(array) for name, array in CASES.items()})


def test_those_of_a_tree_are_of_its_floating_point_arrays_together() -> None:
    finite = {name: array for name, array in CASES.items() if not name.startswith("with")}
    numbers = as_numbers(stats(finite))
    floats = [array for array in finite.values() if jnp.issubdtype(array.dtype, np.inexact)]
    expected = by_numpy(*floats)
    assert {figure: numbers[figure] for figure in FIGURES} == pytest.approx(expected, rel=1e-6)
    integers = {"a": np.arange(4), "b": np.ones(2, bool)}
    assert float(stats(integers)["norm"]) == pytest.approx(4.0)
    assert np.isnan(as_numbers(stats(CASES))["norm"])
    assert as_numbers(stats(CASES))["nonfinite"] == 3
    assert as_numbers(stats({})) == pytest.approx(
        {"norm": 0, "max": 0, "mean": math.nan, "zero_fraction": math.nan, "nonfinite": 0}, nan_ok=True
    )


def test_the_norm_is_the_global_norm_of_optax() -> None:
    tree = {"a": RANDOM.normal(size=(100, 700)).astype(np.float32), "b": [jnp.arange(5.0), jnp.float32(2)]}
    assert float(stats(tree)["norm"]) == pytest.approx(float(optax.tree.norm(tree)), rel=1e-6)


def test_means_of_many_elements_do_not_drift() -> None:
    found = stats([jnp.full(2**24 + 5, 0.1, np.float32)])
    assert float(found["mean"]) == pytest.approx(np.float32(0.1), rel=1e-6)
    assert float(found["0"]["norm"]) == pytest.approx(np.float32(0.1) * math.sqrt(2**24 + 5), rel=1e-6)


def test_a_figure_is_a_jax_scalar_of_its_own() -> None:
    found = stats({"layers": [jnp.array([3.0, 4.0]), jnp.zeros(2)]})
    assert list(found) == [*FIGURES, "layers.0", "layers.1"]
    assert len(found) == 7
    assert {name: float(value) for name, value in found["layers.0"].items()} == by_numpy(np.array([3.0, 4.0]))
    assert isinstance(found["norm"], jax.Array)
    assert found["norm"].shape == ()
    assert found["norm"].dtype == np.float32
    assert found["nonfinite"].dtype == np.uint32
    for mapping, key in ((found, "layers.2"), (found["layers.0"], "norms")):
        with pytest.raises(KeyError, match=key):
            mapping[key]


def test_nan_is_counted_under_jax_debug_nans() -> None:
    array = jnp.array([1, math.nan, math.inf])
    with jax.debug_nans(True):
        for found in (stats({"x": array}), jax.jit(stats)({"x": array})):
            assert as_numbers(found)["x/nonfinite"] == 2
            assert math.isnan(as_numbers(found)["norm"])
            assert np.isnan(found["norm"])
            assert np.isnan(found["x"]["mean"])


def test_arrays_of_64_bits_are_measured_as_such() -> None:
    tree = {
        "wide": RANDOM.normal(size=1000) * 1e150,
        "complex": np.array([3e150 + 4e150j]),
        "integers": np.array([2**62, -(2**62), 2**53 + 1]),
        "narrow": RANDOM.normal(size=1000).astype(np.float32),
    }
    outside = stats(tree)
    with jax.enable_x64(True):
        arrays = jax.tree.map(jnp.asarray, tree)
        for found in (stats(arrays), jax.jit(stats)(arrays), outside):
            numbers = as_numbers(found)
            for name in ("wide", "complex", "integers"):
                expected = pytest.approx(by_numpy(tree[name]), rel=1e-13)
                assert {figure: numbers[f"{name}/{figure}"] for figure in FIGURES} == expected
            assert numbers["narrow/norm"] == pytest.approx(by_numpy(tree["narrow"])["norm"], rel=1e-6)
            assert found["norm"].dtype == np.float64
    assert outside["norm"].dtype == np.float64  # numpy's float64, in a program that has none
    assert float(outside["complex"]["norm"]) == pytest.approx(5e150, rel=1e-15)


def test_what_is_no_number_is_left_out() -> None:
    tree = {
        "key": jax.random.key(0),
        "text": "x",
        "texts": np.array(["x"]),
        "times": np.array([3], "M8[s]"),
        "nothing": None,
        "function": len,
        "no gradient": np.zeros(3, jax.dtypes.float0),
        "number": 2.0,
    }
    assert list(stats(tree)) == [*FIGURES, "number"]


# -- names --------------------------------------------------------------------------------------------


@final
class Pair(NamedTuple):
    first: Any
    second: Any


@final
@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Average:
    value: Any
    count: Any


@final
class Unhashable(dict[str, Any]):
    """A tree that says of itself what cannot be hashed."""


jax.tree_util.register_pytree_node(
    Unhashable,
    lambda tree: (tuple(tree.values()), list(tree)),
    lambda _, leaves: Unhashable(enumerate(leaves)),
)


def names(tree: Any) -> list[str]:
    return list(leaves(tree, measured_as)[0])


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"a": {"b": 1.0}, "c": [2.0, (3.0,)]}, ["a.b", "c.0", "c.1.0"]),
        (Pair({"x": 1.0}, 2.0), ["first.x", "second"]),
        ({"ema": Average(1.0, 2)}, ["ema.value", "ema.count"]),
        ({0: 1.0, 1: 2.0}, ["0", "1"]),
        (flax.core.freeze({"params": {"Dense_0": {"kernel": 1.0}}}), ["params.Dense_0.kernel"]),
        ({"w": nn.Partitioned(jnp.ones(2), (None,))}, ["w"]),
        (nnx.Param(jnp.ones(2)), ["value"]),
        (jnp.ones(2), ["value"]),
        ([nnx.Param({"a": jnp.ones(2), "b": jnp.ones(3)})], ["0.a", "0.b"]),
        ({"a.b": 1.0, "a": {"b": 2.0}}, ["a.b", "a.b#2"]),
        (Unhashable(x=1.0, y=2.0), ["0", "1"]),
        ({}, []),
    ],
)
def test_an_array_goes_by_its_path(tree: Any, expected: list[str]) -> None:
    assert names(tree) == expected
    assert names(tree) == expected  # from memory


def test_an_array_is_not_taken_for_a_figure_of_the_tree() -> None:
    found = stats({"mean": jnp.array([3.0]), "var": jnp.array([4.0])})
    assert list(found) == [*FIGURES, "mean#2", "var"]
    assert float(found["mean"]) == 3.5
    assert float(found["mean#2"]["mean"]) == 3.0


@final
class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 2, (3, 3), rngs=rngs)
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs) for _ in range(2)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)


def test_flax_nnx_is_understood_as_module_state_and_gradients() -> None:
    model = Model(nnx.Rngs(0))
    parameters = ["conv.bias", "conv.kernel"]
    parameters += [f"layers.{i}.{name}" for i in range(2) for name in ("bias", "kernel")]
    everything = sorted([*parameters, "dropout.rngs.count"])
    assert names(model) == names(nnx.state(model)) == names(nnx.to_pure_dict(nnx.state(model))) == everything
    assert names(nnx.state(model, nnx.Param)) == parameters

    @nnx.jit
    def step(model: Model, x: jax.Array) -> Any:
        gradients = nnx.grad(lambda model: jnp.sum(model.layers[0](x) ** 2))(model)
        return gradients, stats(gradients), histograms(gradients)

    gradients, figures, bins = step(model, jnp.ones((4, 2)))
    assert list(figures)[len(FIGURES) :] == list(bins) == parameters
    assert float(figures["norm"]) == pytest.approx(float(optax.tree.norm(gradients)))
    assert float(figures["layers.1.kernel"]["zero_fraction"]) == 1.0
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    assert "opt_state.0.mu.layers.1.kernel" in names(optimizer)
    # the count of random numbers, an integer, is no parameter
    assert float(stats(model)["norm"]) == float(stats(nnx.state(model, nnx.Param))["norm"])


def test_flax_linen_and_optax_are_understood() -> None:
    variables = nn.Dense(3).init(jax.random.key(0), jnp.ones((1, 2)))
    assert names(variables) == ["params.bias", "params.kernel"]
    state = optax.adam(1e-3).init(variables)
    assert names(state)[:3] == ["0.count", "0.mu.params.bias", "0.mu.params.kernel"]


# -- jit, scan, vmap ----------------------------------------------------------------------------------


def test_figures_may_be_used_inside_jit() -> None:
    @jax.jit
    def clipped(gradients: Any) -> Any:
        norm = stats(gradients)["norm"]
        return jax.tree.map(lambda g: g / jnp.maximum(norm, 1), gradients), stats(gradients)["a"]["nonfinite"]

    gradients, nonfinite = clipped({"a": jnp.array([3.0, 4.0]), "b": jnp.array([math.nan])})
    assert np.isnan(gradients["a"]).all()
    assert int(nonfinite) == 0
    gradients, _ = clipped({"a": jnp.array([3.0, 4.0])})
    assert np.allclose(gradients["a"], [0.6, 0.8])


def test_scan_and_vmap_stack_figures() -> None:
    def body(carry: jax.Array, x: jax.Array) -> Any:
        return carry, stats({"w": x * carry})

    arrays = jnp.array([[3.0, 4.0], [0.0, 5.0]])
    _, scanned = jax.lax.scan(body, jnp.float32(2), arrays)
    mapped = jax.vmap(lambda x: stats({"w": x * 2}))(arrays)
    for stacked in (scanned, mapped):
        assert stacked["w"]["norm"].tolist() == [10.0, 10.0]
        assert stacked["zero_fraction"].tolist() == [0.0, 0.5]
        rows = [stacked.landed([words]) for words in np.asarray(stacked.arrays()[0])]
        assert [row["w/max"] for row in rows] == [8.0, 10.0]


def test_a_loss_may_measure_what_it_is_differentiated_by() -> None:
    def loss(w: jax.Array) -> Any:
        figures = stats(w)
        return jnp.sum(w**2) + figures["norm"], figures

    gradient, figures = jax.grad(loss, has_aux=True)(jnp.zeros(3))
    assert gradient.tolist() == [0, 0, 0]  # the figures are not differentiated: no division by zero
    assert float(figures["norm"]) == 0


def test_figures_are_trees_to_jax() -> None:
    found = stats({"w": jnp.array([3.0, 4.0])})
    assert float(jax.device_get(found)["w"]["norm"]) == 5
    assert as_numbers(jax.device_get(found)) == as_numbers(jax.jit(lambda tree: tree)(found))


# -- devices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_arrays_may_be_spread_over_devices(kind: AxisType) -> None:
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))
    host = {
        "both": RANDOM.normal(size=(400, 512)).astype(np.float32),
        "columns": RANDOM.normal(size=(3, 64)).astype(np.float32),
        "copied": RANDOM.normal(size=5).astype(np.float32),
    }
    layouts = {"both": ("x", "y"), "columns": (None, ("x", "y")), "copied": ()}
    tree = {
        name: jax.device_put(host[name], NamedSharding(mesh, PartitionSpec(*layout)))
        for name, layout in layouts.items()
    }
    elsewhere = tree | {"elsewhere": jax.device_put(host["copied"], jax.devices()[5])}
    jitted = jax.jit(stats)
    with jax.set_mesh(jax.make_mesh((8,), ("other",), axis_types=(kind,))):
        found = [stats(elsewhere)]
    with jax.set_mesh(mesh):
        found += [stats(tree), jitted(tree)]
    found += [jitted(tree)]
    for index, figures in enumerate(found):
        numbers = as_numbers(figures)
        arrays = [*host.values(), *([host["copied"]] if index == 0 else [])]
        assert numbers["norm"] == pytest.approx(by_numpy(*arrays)["norm"], rel=1e-6)
        assert numbers["mean"] == pytest.approx(by_numpy(*arrays)["mean"], abs=1e-6)
        for name, array in host.items():
            assert numbers[f"{name}/norm"] == pytest.approx(by_numpy(array)["norm"], rel=1e-6)
    assert found[0].arrays()[0].sharding.num_devices == 1


def test_an_array_that_was_donated_before_is_refused() -> None:
    array = jnp.ones(33)
    array.delete()
    with pytest.raises(UnsupportedValueError, match="deleted before it was logged"):
        stats({"x": array})


def test_figures_are_logged_under_any_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree = {"w": jnp.array([3.0, 4.0, 0.0, math.nan])[:3]}
    with tracklayer.init(dir=tmp_path / "store", backend="sqlite", id="r") as run:
        run.log({"loss": 1.0, "train": {"grads": stats(tree)}})
        run.log({"one": stats(tree)["w"]["norm"], "w": stats(tree)["w"]})
        run.log_series({"g": jax.lax.map(stats, jnp.array([[3.0], [-7.0]]))}, steps=[5, 6])
    rows = {row.step: row.values for row in tracklayer.open_store(tmp_path / "store").run("r").rows()}
    figures = {"norm": 5.0, "max": 4.0, "mean": 7 / 3, "zero_fraction": 1 / 3, "nonfinite": 0}
    expected = {f"train/grads/{prefix}{name}": v for prefix in ("", "w/") for name, v in figures.items()}
    assert rows[0] == pytest.approx({"loss": 1.0, **expected})
    assert rows[1] == pytest.approx({"one": 5.0, **{f"w/{name}": v for name, v in figures.items()}})
    assert [rows[step]["g/value/mean"] for step in (5, 6)] == [3.0, -7.0]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
