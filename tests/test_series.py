"""Whole series, and series of several seeds: recorded as if logged one by one, read back as given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner
from jax.sharding import NamedSharding, PartitionSpec

import tensorboard_oracle
import tracklayer
from tracklayer import ActiveRun
from tracklayer.cli import main
from tracklayer.jax import fetching
from tracklayer.reading import Row, RunReader
from tracklayer.seeds import seed_key, split_seed


@pytest.fixture
def run(tmp_path: Path) -> Iterator[ActiveRun]:
    with tracklayer.init(dir=tmp_path, backend="sqlite") as run:
        yield run


def reader_of(run: ActiveRun) -> RunReader:
    run.finish()
    return tracklayer.open_store(run.dir).run(run.id)


def rows_of(run: ActiveRun) -> list[Row]:
    return list(reader_of(run).rows())


def in_pairs(rows: list[Row]) -> list[tuple[int, dict[str, Any]]]:
    return [(row.step, row.values) for row in rows]


def test_a_scan_is_recorded_as_if_logged_one_by_one(run: ActiveRun, tmp_path: Path) -> None:
    def step(carry: jax.Array, x: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        carry = carry + x
        return carry, {"sum": carry, "nested": {"count": x.astype(jnp.int32), "even": x % 2 == 0}}

    _, metrics = jax.lax.scan(step, jnp.float32(0), jnp.arange(50.0))
    run.log_series({"train": metrics})
    with tracklayer.init(dir=tmp_path, reinit="create_new") as other:
        for number in range(50):
            other.log({"train": jax.tree.map(lambda leaf, number=number: leaf[number], metrics)})
    assert in_pairs(rows_of(run)) == in_pairs(rows_of(other))


def test_one_dispatch_takes_all_of_it(run: ActiveRun, monkeypatch: pytest.MonkeyPatch) -> None:
    dispatches: list[int] = []
    start = fetching._Packing.start

    def counted(self: Any, arrays: Any) -> Any:
        dispatches.append(len(arrays))
        return start(self, arrays)

    monkeypatch.setattr(fetching._Packing, "start", counted)
    run.log_series({"a": jnp.arange(9.0), "b": jnp.arange(9), "c": jnp.zeros((9, 3), jnp.bfloat16)})
    assert dispatches == [3]
    assert len(rows_of(run)) == 9


def test_a_series_may_be_donated_and_numpy_changed_at_once(run: ActiveRun) -> None:
    on_device, here = jnp.arange(4.0), np.arange(4)
    run.log_series({"device": on_device, "here": here})
    partial(jax.jit, donate_argnums=0)(lambda x: x * 100)(on_device)
    here[:] = 100
    assert in_pairs(rows_of(run)) == [(step, {"device": float(step), "here": step}) for step in range(4)]


def test_steps_count_on_with_or_without_series(run: ActiveRun) -> None:
    run.log({"x": 0})
    run.log_series({"x": [1, 2, 3]})
    run.log({"x": 4})
    assert run.step == 5
    run.log_series({"x": [5, 6]})
    assert [row.values["x"] for row in rows_of(run)] == list(range(7))


@pytest.mark.parametrize("place", [list, np.array, jnp.array, lambda steps: np.array(steps, np.uint16)])
def test_steps_may_be_given_in_any_order(run: ActiveRun, place: Any) -> None:
    run.log_series({"x": [0.0, 1.0, 2.0]}, steps=place([30, 10, 20]))
    assert in_pairs(rows_of(run)) == [(10, {"x": 1.0}), (20, {"x": 2.0}), (30, {"x": 0.0})]


def test_given_steps_move_the_count(run: ActiveRun) -> None:
    run.log_series({"x": [1, 2]}, steps=range(10, 12))
    run.log({"y": 3})
    assert in_pairs(rows_of(run)) == [(10, {"x": 1}), (11, {"x": 2, "y": 3})]


def test_one_time_stands_for_all_rows(run: ActiveRun) -> None:
    run.log_series({"x": [1, 2]}, time=100.0)
    assert [row.time for row in rows_of(run)] == [100.0, 100.0]


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint32", "bfloat16", "float16", "float32"])
def test_a_series_keeps_the_values_of_its_dtype(run: ActiveRun, dtype: str) -> None:
    run.log_series({"device": jnp.array([0, 1], dtype), "here": np.array([0, 1], jnp.dtype(dtype))})
    for row in rows_of(run):
        assert row.values == {"device": row.step, "here": row.step}


def test_an_empty_series_is_nothing(run: ActiveRun) -> None:
    run.log_series({"x": jnp.zeros(0), "y": []})
    run.log_series({"x": []}, steps=[])
    assert run.step == 0
    assert rows_of(run) == []


def test_a_sharded_series_is_gathered(run: ActiveRun) -> None:
    mesh = jax.make_mesh((8,), ("seeds",))
    spread = jax.device_put(jnp.arange(32.0).reshape(4, 8), NamedSharding(mesh, PartitionSpec(None, "seeds")))
    with jax.set_mesh(mesh):
        run.log_series({"x": spread, "steps": jnp.arange(4)})
    np.testing.assert_array_equal(reader_of(run).metric("x").value, np.arange(32).reshape(4, 8))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.0, "it has no axis of steps"),
        (jnp.float32(1), "it has no axis of steps"),
        ([1, 2], "it has 2 steps, and there are 3"),
        (jnp.zeros((3, 2, 2)), r"an array of shape \(3, 2, 2\) is no series of scalars"),
        (["a", "b", "c"], "cannot log numbers of dtype <U1"),
        (jnp.zeros(3, jnp.complex64), "cannot log numbers of dtype complex64"),
        ([[1], [2, 3], [4]], "it is no array"),
        (tracklayer.Histogram([1.0]), "it has no axis of steps"),
    ],
)
def test_what_is_no_series_is_refused_by_name(run: ActiveRun, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"'bad': {message}"):
        run.log_series({"good": [1, 2, 3], "bad": value})
    assert [row.values for row in rows_of(run)] == [{"good": 1}, {"good": 2}, {"good": 3}]


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        ([0.5, 1.5], TypeError, "steps are integers"),
        ([[0, 1]], TypeError, r"steps are integers of shape \(steps,\)"),
        (3, TypeError, r"of shape \(\)"),
        (jnp.zeros(2), TypeError, "and not float32"),
        ([-1, 0], ValueError, "steps are from 0 to 2\\^63 - 1, and these are from -1 to 0"),
    ],
)
def test_steps_that_are_none_are_refused(
    run: ActiveRun, steps: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run.log_series({"x": [1, 2]}, steps=steps)
    assert rows_of(run) == []


def test_negative_steps_on_a_device_are_reported(run: ActiveRun, caplog: pytest.LogCaptureFixture) -> None:
    run.log_series({"x": [1, 2]}, steps=jnp.array([-1, 5]))
    assert in_pairs(rows_of(run)) == [(5, {"x": 2})]
    assert "rows at negative steps, such as -1, are left out" in caplog.text


def test_a_traced_series_points_to_the_tap(run: ActiveRun) -> None:
    with pytest.raises(TypeError, match=r"'x': it is traced.*tracklayer\.jax\.log"):
        jax.jit(lambda x: run.log_series({"x": x}))(jnp.arange(3.0))


@pytest.mark.slow
def test_a_long_series_comes_whole(run: ActiveRun) -> None:
    run.log_series({"x": jnp.arange(50_000)})
    np.testing.assert_array_equal(reader_of(run).metric("x").value, np.arange(50_000))


# -- seeds -----------------------------------------------------------------------------------------


def test_seeds_are_series_of_their_own_and_read_back_together(run: ActiveRun) -> None:
    losses = np.arange(12.0).reshape(4, 3)
    run.log_series({"train": {"loss": jnp.asarray(losses)}, "rate": np.arange(4.0)})
    reader = reader_of(run)
    keys = set(reader.keys())
    assert keys == {"train/loss/seed_0", "train/loss/seed_1", "train/loss/seed_2", "rate"}
    np.testing.assert_array_equal(reader.metric("train/loss/seed_1").value, losses[:, 1])
    together = reader.metric("train/loss")
    np.testing.assert_array_equal(together.value, losses)
    np.testing.assert_array_equal(together.step, np.arange(4))
    assert len(together) == 4


def test_integers_of_all_seeds_stay_integers(run: ActiveRun) -> None:
    run.log_series({"n": np.arange(6).reshape(3, 2)})
    assert reader_of(run).metric("n").value.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_a_seed_that_ended_early_leaves_nan(run: ActiveRun) -> None:
    run.log_series({"loss": np.ones((2, 2))})
    run.log({seed_key("loss", 1): 3.0}, step=5)
    metric = reader_of(run).metric("loss")
    assert metric.step.tolist() == [0, 1, 5]
    np.testing.assert_array_equal(metric.value, [[1, 1], [1, 1], [np.nan, 3]])


def test_a_metric_of_its_own_comes_before_its_seeds(run: ActiveRun) -> None:
    run.log({"loss": 7.0, seed_key("loss", 0): 1.0})
    assert reader_of(run).metric("loss").value.tolist() == [7.0]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("loss/seed_0", ("loss", 0)),
        ("a/b/seed_12", ("a/b", 12)),
        ("loss/seed_01", None),
        ("loss/seed_", None),
        ("seed_1", None),
        ("loss/seed_1/x", None),
    ],
)
def test_a_seeds_key_says_what_it_belongs_to(key: str, expected: tuple[str, int] | None) -> None:
    assert split_seed(key) == expected
    if expected is not None:
        assert seed_key(*expected) == key


def test_show_draws_seeds_together(run: ActiveRun) -> None:
    run.log_series({"loss": np.array([[1.0, 3.0], [2.0, 4.0]]), "rate": [0.5, 0.25]})
    run.finish()
    shown = CliRunner().invoke(main, ["show", run.id, "--dir", run.dir], catch_exceptions=False).output
    assert "loss (2 seeds)" in shown
    assert "3.0 ± 1.0" in shown
    described = json.loads(
        CliRunner().invoke(main, ["show", run.id, "--json", "--dir", run.dir], catch_exceptions=False).output
    )
    assert described["seed_metrics"] == [
        {"key": "loss", "seeds": 2, "points": 2, "last_step": 1, "last_mean": 3.0, "last_std": 1.0}
    ]
    assert [metric["key"] for metric in described["metrics"]] == ["loss/seed_0", "loss/seed_1", "rate"]


def test_tensorboard_gets_each_step_and_seed(tmp_path: Path) -> None:
    with tracklayer.init(project="p", dir=tmp_path, backend="tensorboard") as run:
        run.log_series({"loss": jnp.arange(6.0).reshape(3, 2)}, steps=[5, 6, 7])
    shown = tensorboard_oracle.read(tmp_path / "tensorboard" / "p" / run.id)
    assert shown.steps("loss/seed_1") == [(5, 1.0), (6, 3.0), (7, 5.0)]
