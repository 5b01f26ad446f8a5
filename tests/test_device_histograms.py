"""Histograms that are counted where the array is: against numpy's, in and out of jit, on many devices."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

import tracklayer
from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.jax import counting
from tracklayer.jax.histogramming import TreeHistograms, histograms
from tracklayer.jax.measuring import stats
from tracklayer.values import Bins, Histogram, bin_range

pytestmark = pytest.mark.slow  # each dtype and shape is compiled

RANDOM = np.random.default_rng(0)
TINY = np.float32(1e-45)  # the smallest that float32 holds


def special(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


CASES: dict[str, NDArray[Any]] = {
    "normal": RANDOM.normal(size=(30, 40)).astype(np.float32),
    "uniform": RANDOM.uniform(-1, 3, size=1000).astype(np.float32),
    "large enough not to be flattened": RANDOM.normal(size=(300, 500)).astype(np.float32),
    "the same in three dimensions": RANDOM.normal(size=(3, 100, 500)).astype(np.float32),
    "as wide as float32 is": RANDOM.uniform(-3.4e38, 3.4e38, size=1000).astype(np.float32),
    "the largest alone": special(3.4028235e38, 3.4028235e38),
    "about 1e-38": (RANDOM.normal(size=1000) * 1e-38).astype(np.float32),
    "subnormal": (RANDOM.normal(size=1000) * 1e-41).astype(np.float32),
    "the smallest and zero": special(0, TINY, TINY, -TINY),
    "one subnormal among zeros": special(0, 0, 0, 1e-40),
    "an outlier": np.append(RANDOM.normal(size=999) * 1e-3, -1e6).astype(np.float32),
    "far from zero": (RANDOM.normal(size=1000) + 1e6).astype(np.float32),
    "far below zero": (RANDOM.normal(size=1000) - 1e6).astype(np.float32),
    "neighbours": special(1, np.nextafter(np.float32(1), np.float32(2))),
    "constant": np.full(10, 7, np.float32),
    "zero": np.zeros(10, np.float32),
    "negative zero": special(-0.0, 0.0),
    "a tiny constant": np.full(10, 1e-40, np.float32),
    "a huge constant": np.full(10, -3e38, np.float32),
    "a scalar": np.float32(2.5).reshape(()),
    "empty": np.zeros((0, 3), np.float32),
    "no integers": np.zeros(0, np.int32),
    "only NaN": special(math.nan, math.nan),
    "only infinities": special(math.inf, -math.inf, -math.inf),
    "all sorts": special(1, math.nan, math.inf, -1, -math.inf, math.inf, 0.5, math.nan, math.nan),
    "NaN among many": np.where(RANDOM.random((300, 500)) < 0.1, np.nan, 1.5).astype(np.float32),
    "bfloat16": RANDOM.normal(size=1000).astype(ml_dtypes.bfloat16),
    "bfloat16, subnormal": (RANDOM.normal(size=1000) * 1e-39).astype(ml_dtypes.bfloat16),
    "float16": np.append(RANDOM.normal(size=1000), [np.inf, np.nan]).astype(np.float16),
    "float16, subnormal": (RANDOM.normal(size=1000) * 1e-6).astype(np.float16),
    "float8": np.append(RANDOM.normal(size=1000), np.nan).astype(ml_dtypes.float8_e4m3fn),
    "float8 with infinity": np.append(RANDOM.normal(size=1000), -np.inf).astype(ml_dtypes.float8_e5m2),
    "bool": RANDOM.random(1000) < 0.3,
    "int4": RANDOM.integers(-8, 8, size=100).astype(ml_dtypes.int4),
    "uint4": RANDOM.integers(0, 16, size=100).astype(ml_dtypes.uint4),
    "int8": RANDOM.integers(-128, 128, size=1000).astype(np.int8),
    "uint8": np.arange(256, dtype=np.uint8),
    "int16": RANDOM.integers(-(2**15), 2**15, size=1000).astype(np.int16),
    "int32": np.append(RANDOM.integers(-(2**31), 2**31, size=1000), [-(2**31), 2**31 - 1]).astype(np.int32),
    "negative int32": RANDOM.integers(-(2**31), -(2**30), size=1000).astype(np.int32),
    "uint32": np.append(RANDOM.integers(2**31, 2**32, size=1000), 2**32 - 1).astype(np.uint32),
    "large int32, close together": (2**30 + RANDOM.integers(0, 9, size=1000)).astype(np.int32),
    "a constant integer": np.full(5, -3, np.int8),
    "tokens": RANDOM.integers(0, 50257, size=(300, 500)).astype(np.int32),
}


def assert_as_by_numpy(bins: Bins, array: NDArray[Any], closeness: float = 2.0**-22) -> None:
    """Compare, but for elements that are closer to an edge than such a part of the range."""
    values = array.astype(np.float64).reshape(-1)
    finite = np.sort(values[np.isfinite(values)])
    low, high = (finite[0], finite[-1]) if finite.size else (math.nan, math.nan)
    edges = np.linspace(*bin_range(float(low), float(high), len(bins.counts)), len(bins.counts) + 1)
    assert bins.edges == tuple(edges)
    assert bins.count == finite.size
    assert bins.nan_count == np.isnan(values).sum()
    assert bins.positive_infinity_count == np.isposinf(values).sum()
    assert bins.negative_infinity_count == np.isneginf(values).sum()
    assert np.array_equal([bins.minimum, bins.maximum], [low, high], equal_nan=True)
    below = np.cumsum(bins.counts)[:-1]
    near = closeness * (high - low) if finite.size else 0.0
    assert (np.searchsorted(finite, edges[1:-1] - near) <= below).all()
    assert (below <= np.searchsorted(finite, edges[1:-1] + near, side="right")).all()
    assert bins.total == pytest.approx(finite.sum(), rel=1e-6, abs=1e-6 * np.abs(finite).sum())
    assert bins.sum_of_squares == pytest.approx(np.square(finite).sum(), rel=2e-6, abs=0)


@pytest.fixture(scope="module")
def counted() -> TreeHistograms:
    return histograms({name: jnp.asarray(array) for name, array in CASES.items()})


@pytest.mark.parametrize("name", CASES)
def test_a_histogram_is_as_numpy_counts_it(counted: TreeHistograms, name: str) -> None:
    assert_as_by_numpy(counted[name].bins, CASES[name])


@pytest.mark.parametrize(
    "name", ["constant", "a huge constant", "empty", "only NaN", "bool", "uint8", "int4"]
)
def test_these_are_equal_to_those_of_numpy_arrays(counted: TreeHistograms, name: str) -> None:
    assert counted[name] == Histogram(CASES[name])


@pytest.mark.parametrize("num_bins", [1, 7, 512])
@pytest.mark.parametrize("name", ["large enough not to be flattened", "all sorts"])
def test_an_array_alone_has_as_many_bins_as_are_asked_for(name: str, num_bins: int) -> None:
    assert_as_by_numpy(Histogram(jnp.asarray(CASES[name]), num_bins=num_bins).bins, CASES[name])


@pytest.mark.parametrize("num_bins", [10, 64])
def test_small_integers_are_counted_where_they_belong(num_bins: int) -> None:
    widths = [1, 3, 7, 10, 41, 64, 82, 99, 133, 205, 244, 255]
    ranges = [(low, width) for width in widths for low in (0, -70, 1000)]
    for dtype in (np.float32, np.int32):
        arrays = [jnp.asarray(low + np.arange(256) % (width + 1), dtype) for low, width in ranges]
        found = histograms(arrays, num_bins=num_bins)
        for (_, width), histogram in zip(ranges, found.values(), strict=True):
            places = np.minimum(np.arange(256) % (width + 1) * num_bins // width, num_bins - 1)
            assert histogram.bins.counts == tuple(np.bincount(places, minlength=num_bins))


def test_counts_are_exact_beyond_what_float32_can_count() -> None:
    size = 2**24 + 5
    bins = Histogram(jnp.ones(size, np.float32).at[-1].set(3), num_bins=4).bins
    assert bins.counts == (size - 1, 0, 0, 1)
    assert bins.total == bins.sum_of_squares - 6 == size + 2


def test_sums_of_many_elements_do_not_drift() -> None:
    array = np.random.default_rng(1).uniform(0.1, 0.2, size=40_000_000).astype(np.float32)
    bins = Histogram(jnp.asarray(array)).bins
    assert bins.count == array.size
    assert bins.total == pytest.approx(array.sum(dtype=np.float64), rel=1e-7)
    assert bins.sum_of_squares == pytest.approx(np.square(array, dtype=np.float64).sum(), rel=1e-7)


def test_other_devices_count_by_comparison_what_a_cpu_scatters() -> None:
    indices = jnp.asarray(RANDOM.integers(0, 68, size=(5, 30, 40)), np.int32)
    length = 67  # an index of 67 is not to be counted
    by_scatter = counting._tally_by_scatter(indices, length)
    by_comparison = counting._tally_by_comparison(indices, length)
    assert by_scatter.shape == (5, 67)
    assert np.array_equal(by_scatter, by_comparison)


# -- the caller ---------------------------------------------------------------------------------------


@contextmanager
def compilations() -> Iterator[list[str]]:
    """Collect what jax compiles."""
    compiled: list[str] = []

    def note(event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def test_what_was_compiled_serves_for_all_of_the_same_shape() -> None:
    def measure(number: float) -> list[Bins]:
        array = jnp.full((11, 13), number, np.float32)
        return [Histogram(array).bins, *(h.bins for h in histograms({str(number): array}).values())]

    with compilations() as compiled:
        measure(0.0)
    assert compiled
    with compilations() as compiled:
        measure(1.0)
    assert not compiled


def test_the_caller_does_not_wait_for_the_array() -> None:
    @jax.jit
    def slow(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 60, lambda _, y: jnp.tanh(y @ y), x)

    for _ in range(2):  # the first time it is compiled
        array = slow(jnp.eye(700))
        one, many = Histogram(array), histograms([array])
        was_ready = array.is_ready()
        assert one.bins.counts == many["0"].bins.counts == Histogram(np.asarray(array)).bins.counts
    assert not was_ready


def test_the_next_step_may_donate_the_array() -> None:
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    found: list[Histogram] = []
    array = jnp.arange(100_000, dtype=np.float32)
    for _ in range(5):
        before = array
        found += [Histogram(array), histograms({"x": array})["x"]]
        array = step(array)
        assert before.is_deleted()
    for index, histogram in enumerate(found):
        assert_as_by_numpy(histogram.bins, np.arange(100_000) + index // 2)


def test_an_array_that_was_donated_before_is_refused() -> None:
    array = jnp.arange(50_000.0)
    Histogram(array)
    array.delete()
    with pytest.raises(UnsupportedValueError, match="deleted before it was logged"):
        Histogram(array)


@pytest.mark.parametrize(
    ("array", "dtype"), [(jnp.ones(3, np.complex64), "complex64"), (jax.random.key(0), "key")]
)
def test_what_is_no_real_number_is_refused(array: jax.Array, dtype: str) -> None:
    with pytest.raises(UnsupportedValueError, match=f"real numbers, not dtype {dtype}"):
        Histogram(array)


def test_a_tree_of_histograms_leaves_out_what_has_none() -> None:
    tree = {
        "array": jnp.ones(3),
        "numpy": np.ones((2, 2)),
        "number": 3,
        "truth": True,
        "complex": jnp.ones(2, np.complex64),
        "key": jax.random.key(0),
        "text": "x",
        "texts": np.array(["x"]),
        "times": np.array([3], "m8[s]"),
        "long": np.ones(2, np.longdouble),
        "nothing": None,
        "shape": jax.ShapeDtypeStruct((3,), np.float32),
    }
    assert {name: h.bins.count for name, h in histograms(tree).items()} == {
        "array": 3,
        "number": 1,
        "numpy": 4,
        "truth": 1,
    }
    assert not histograms({})
    with pytest.raises(UsageError, match="num_bins must be from 1 to 512, not 0"):
        histograms(tree, num_bins=0)


def test_numpy_arrays_in_a_tree_are_counted_as_they_are_at_the_call() -> None:
    original = np.linspace(0, 1, 1_000_000) * 1e-9 + 1  # too close together for float32
    memory = np.empty(original.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64  # where jax would use numpy's memory, rather than copy it
    array = memory[start : start + original.nbytes].view(np.float64)
    array[:] = original
    found = histograms({"x": array})["x"]
    array[:] = 0
    assert_as_by_numpy(found.bins, original, closeness=2.0**-51)


def test_nan_is_counted_under_jax_debug_nans() -> None:
    array = jnp.asarray(CASES["all sorts"])
    with jax.debug_nans(True):
        assert Histogram(array).bins.nan_count == 3
        assert histograms({"x": array})["x"].bins.nan_count == 3
        assert jax.jit(Histogram)(array).bins.nan_count == 3


def test_a_program_that_is_debugged_without_jit_is_counted_by_jitted_functions() -> None:
    with jax.disable_jit():
        assert Histogram(jnp.arange(19.0)) == Histogram(np.arange(19.0))


def test_arrays_of_64_bits_are_counted_as_such() -> None:
    cases = {
        "float64": RANDOM.normal(size=1000) * 1e150,
        "narrow float64": RANDOM.normal(size=1000) * 1e-12 + 1,
        "too narrow for its bins": np.array([1, 1 + 2**-52, 1 + 2**-51]),
        "subnormal": RANDOM.normal(size=1000) * 1e-310,
        "int64": RANDOM.integers(-(2**63), 2**63, size=1000),
        "large int64": 2**62 + RANDOM.integers(0, 2**20, size=1000),
        "uint64": np.array([0, 2**64 - 1], np.uint64),
        "float32": RANDOM.normal(size=1000).astype(np.float32),
    }
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(array) for name, array in cases.items()}
        assert arrays["uint64"].dtype == np.uint64
        many = histograms(arrays)
        jitted = jax.jit(histograms)(arrays)
        alone = Histogram(arrays["int64"])
    outside = histograms(arrays)
    for name, array in cases.items():
        closeness = 2.0**-22 if name == "float32" else 2.0**-51
        for found in (many, jitted, outside):
            assert_as_by_numpy(found[name].bins, array, closeness)
    assert_as_by_numpy(alone.bins, cases["int64"], 2.0**-51)
    # numpy, too, has these three at the centre of wider bins
    assert (
        many["too narrow for its bins"].bins.edges == Histogram(cases["too narrow for its bins"]).bins.edges
    )
    assert many["uint64"].bins.maximum == 2.0**64


# -- inside jit ---------------------------------------------------------------------------------------


def test_a_jitted_function_may_return_histograms() -> None:
    @jax.jit
    def step(x: jax.Array) -> Any:
        gradients = {"w": x * 2, "b": x.sum()}
        return Histogram(x, num_bins=8), histograms(gradients, num_bins=8)

    array = jnp.arange(10.0)
    one, many = step(array)
    assert one == Histogram(np.arange(10.0), num_bins=8)
    assert dict(many) == {
        "b": Histogram([45.0], num_bins=8),
        "w": Histogram(np.arange(10.0) * 2, num_bins=8),
    }


def test_where_there_is_one_device_traced_arrays_are_flattened_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    tree = {name: jnp.asarray(CASES[name]) for name in ("normal", "uniform", "all sorts", "empty", "bool")}
    for name, histogram in jax.jit(histograms)(tree).items():
        assert_as_by_numpy(histogram.bins, CASES[name])


def test_a_traced_histogram_has_no_bins_yet() -> None:
    with pytest.raises(UnsupportedValueError, match="traced has no bins yet: return it"):
        jax.jit(lambda x: Histogram(x).bins.count)(jnp.ones(3))


def test_scan_and_vmap_stack_histograms() -> None:
    def step(carry: jax.Array, x: jax.Array) -> Any:
        return carry + 1, {"h": Histogram(x * carry, num_bins=4), "t": histograms({"a": x, "b": carry}, 4)}

    arrays = jnp.arange(12.0).reshape(3, 4)
    _, stacked = jax.jit(lambda xs: jax.lax.scan(step, 1.0, xs))(arrays)
    mapped = jax.vmap(lambda x: Histogram(x, num_bins=4))(arrays)
    for index, array in enumerate(np.arange(12.0).reshape(3, 4)):
        (words,), (mapped_words,) = stacked["h"].arrays(), mapped.arrays()
        expected = Histogram(array * (1 + index), num_bins=4)
        assert stacked["h"].landed([np.asarray(words)[index]]) == expected
        assert jax.tree.map(lambda leaf, i=index: leaf[i], stacked["h"]) == expected
        assert mapped.landed([np.asarray(mapped_words)[index]]) == Histogram(array, num_bins=4)
        row = stacked["t"].landed([np.asarray(stacked["t"].arrays()[0])[index]])
        assert row == {"a": Histogram(array, num_bins=4), "b": Histogram([1.0 + index], num_bins=4)}
    with pytest.raises(UsageError, match=re.escape("stacked histograms here, of shape (3,)")):
        stacked["h"].bins  # noqa: B018 - raises
    with pytest.raises(UsageError, match="log_series"):
        stacked["t"]["a"].bins  # noqa: B018 - raises


def test_a_loss_may_count_what_it_is_differentiated_by() -> None:
    def loss(w: jax.Array) -> Any:
        return jnp.sum(w**2), (Histogram(w), histograms({"w": w}))

    array = jnp.arange(4.0)
    for grad in (jax.grad(loss, has_aux=True), jax.jit(jax.grad(loss, has_aux=True))):
        gradient, (one, many) = grad(array)
        assert np.array_equal(gradient, array * 2)
        assert one == many["w"] == Histogram(np.arange(4.0))


def test_arrays_that_are_there_are_counted_while_something_else_is_traced() -> None:
    array = jnp.arange(23.0)
    found: list[Any] = []

    @jax.jit
    def traced(x: jax.Array) -> jax.Array:
        found.append(Histogram(array).bins)
        found.append(histograms({"x": array, "n": np.arange(23.0)})["n"].bins)
        return x

    traced(jnp.ones(2))
    assert found == [Histogram(np.arange(23.0)).bins] * 2


def test_histograms_are_trees_to_jax() -> None:
    counted = Histogram(jnp.arange(5.0))
    given = Histogram([1.0, 2.0])
    again, constant = jax.jit(lambda pair: pair)((counted, given))
    assert (again, constant) == (counted, given)
    assert jax.tree.leaves(given) == []
    assert jax.device_get(counted) == jax.tree.map(np.asarray, counted) == counted
    assert jax.tree.leaves(jax.tree.map(lambda _: "anything", counted)) == ["anything"]
    many = histograms({"a": jnp.arange(5.0), "b": jnp.ones(3)})
    assert jax.device_get(many) == many
    assert jax.tree.map(lambda x: x, many["a"]) == counted  # a row of the matrix, alone
    with pytest.raises(KeyError, match="'c'"):
        many["c"]


# -- several devices ----------------------------------------------------------------------------------


def mesh_of(kind: AxisType) -> Mesh:
    return jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))


LAYOUTS = [("x", "y"), (None, ("x", "y")), (None, None)]


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sharded_arrays_are_counted_where_they_are(kind: AxisType) -> None:
    mesh = mesh_of(kind)
    array = RANDOM.normal(size=(400, 512)).astype(np.float32)
    array[3, 5] = np.nan
    small = np.arange(64, dtype=np.int32)
    tree = {
        str(layout): jax.device_put(array, NamedSharding(mesh, PartitionSpec(*layout))) for layout in LAYOUTS
    }
    tree["small"] = jax.device_put(small, NamedSharding(mesh, PartitionSpec("x")))
    tree["elsewhere"] = jax.device_put(small, jax.devices()[5])
    sharded = {name: leaf for name, leaf in tree.items() if name != "elsewhere"}
    with jax.set_mesh(jax.make_mesh((8,), ("other",), axis_types=(kind,))):
        found = [histograms(tree)]
    with jax.set_mesh(mesh):
        found += [histograms(tree), jax.jit(histograms)(sharded)]
    found += [jax.jit(histograms)({"small": tree["small"]})]
    for many in found:
        for name, histogram in many.items():
            assert_as_by_numpy(histogram.bins, small if name in {"small", "elsewhere"} else array)
        assert [leaf.sharding.num_devices for leaf in found[0].arrays()] == [1]
    assert_as_by_numpy(Histogram(tree["('x', 'y')"]).bins, array)


def collected_elements(program: str) -> int:
    """Return the most elements that any collective operation of a compiled program moves."""
    shapes = re.findall(
        r"= \(?(?:\w+\[([\d,]*)\]\S*(?:, )?)+\)? (?:all-gather|all-reduce|all-to-all|collective-permute)",
        program,
    )
    return max((math.prod(int(n) for n in shape.split(",") if n) for shape in shapes), default=0)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("function", [Histogram, histograms, stats])
def test_only_bins_travel_between_devices(kind: AxisType, function: Callable[[Any], Any]) -> None:
    mesh = mesh_of(kind)
    large = jax.device_put(jnp.ones((400, 512)), NamedSharding(mesh, PartitionSpec("x", "y")))
    flat = jax.device_put(jnp.ones(64_000), NamedSharding(mesh, PartitionSpec(("x", "y"))))
    for array in (large, flat):
        program = jax.jit(function).lower(array).compile().as_text() or ""
        assert 0 < collected_elements(program) <= 80


def test_a_shard_may_be_counted_alone() -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("x")

    @jax.jit
    @jax.shard_map(mesh=mesh, in_specs=spec, out_specs=spec)
    def each(x: jax.Array) -> Any:
        return jax.tree.map(lambda words: words[None], (Histogram(x), histograms({"x": x})))

    one, many = each(jnp.arange(32.0))
    for index in range(8):
        expected = Histogram(np.arange(4.0) + 4 * index)
        assert jax.tree.map(lambda words, i=index: words[i], one) == expected
        assert jax.tree.map(lambda words, i=index: words[i], many)["x"] == expected


# -- on the host, and into a run ----------------------------------------------------------------------


@pytest.mark.parametrize("values", [[1e308, -1.7e308, 0], [1e308] * 3, [-1e308, -1.5e308]])
def test_numbers_beyond_all_bins_are_counted_in_the_last_ones(values: list[float]) -> None:
    bins = Histogram(values, num_bins=4).bins
    assert bins.count == len(values)
    assert np.isfinite(bins.edges).all()
    assert (bins.minimum, bins.maximum) == (min(values), max(values))


def test_a_histogram_says_what_it_holds() -> None:
    assert Histogram(np.zeros(1000)).nbytes == 8000
    assert Histogram(jnp.zeros(100_000)).nbytes == 4 * (64 + 7)
    assert 0 < Histogram(np_histogram=([1], [0, 1])).nbytes < 1000


def test_histograms_are_logged_under_any_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    array = jnp.arange(6.0)
    with tracklayer.init(dir=tmp_path / "store", backend="sqlite", id="r") as run:
        run.log(
            {"h": Histogram(array), "grads": histograms({"layers": [array, array * 2]}), "loss": array[1]}
        )
        run.log({"host": jax.device_get(histograms({"w": array}))})
        run.log_series({"h": jax.lax.map(Histogram, jnp.stack([array, array + 1]))}, steps=[7, 8])
    rows = {row.step: row.values for row in tracklayer.open_store(tmp_path / "store").run("r").rows()}
    assert rows == {
        0: {
            "h": Histogram(np.arange(6.0)),
            "grads/layers.0": Histogram(np.arange(6.0)),
            "grads/layers.1": Histogram(np.arange(6.0) * 2),
            "loss": 1.0,
        },
        1: {"host/w": Histogram(np.arange(6.0))},
        7: {"h": Histogram(np.arange(6.0))},
        8: {"h": Histogram(np.arange(1.0, 7.0))},
    }
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
