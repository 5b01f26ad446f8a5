"""`tracklayer.jax.log`: what a compiled program logs while it runs, by what JAX makes of the program."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import tracklayer
from machine import Machine
from tracklayer.errors import NoActiveRunError, UnsupportedValueError, UsageError
from tracklayer.front import ActiveRun
from tracklayer.jax import log, waiting
from tracklayer.values import Histogram

Rows = dict[int, dict[str, Any]]
Series = list[tuple[int, Any]]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "store"
    monkeypatch.setenv("TRACKLAYER_DIR", str(folder))
    yield folder
    with suppress(NoActiveRunError):
        tracklayer.finish()
    waiting.taps.tell_losses()  # what the next test loses is reported anew


@pytest.fixture
def run() -> ActiveRun:
    return tracklayer.init(id="r")


def rows(run: ActiveRun) -> Rows:
    """Finish, and read the run back."""
    run.finish()
    return {row.step: row.values for row in tracklayer.open_store(run.dir).run(run.id).rows()}


def series(run: ActiveRun, key: str) -> Series:
    run.finish()
    metric = tracklayer.open_store(run.dir).run(run.id).metric(key)
    return list(zip(metric.step.tolist(), metric.value.tolist(), strict=True))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def doubling(run: ActiveRun | None, every: int = 1) -> Callable[[Any], Any]:
    """Return a function that doubles a number five times, and logs it before each."""

    def body(x: Any, step: Any) -> tuple[Any, None]:
        log(run, {"x": x}, step=step, every=every)
        return x * 2, None

    return lambda x: jax.lax.scan(body, x, jnp.arange(5))[0]


def slow(run: ActiveRun, rows: int = 10, seconds: float = 0.02) -> Callable[[Any], Any]:
    """Return a program that takes its time for each of its rows, and is compiled."""

    def body(x: Any, step: Any) -> tuple[Any, None]:
        jax.debug.callback(lambda _: time.sleep(seconds), x)
        log(run, {"x": x}, step=step)
        return x + 1, None

    program = jax.jit(lambda x: jax.lax.scan(body, x, jnp.arange(rows))[0])
    program(jnp.float32(-1000)).block_until_ready()  # of its rows, none stays
    run.flush()
    return program


def pending(value: float = 0.0) -> jax.Array:
    """Return a number that takes a while, so that a program with it goes on behind the caller's back."""
    return _pending(value, jnp.ones((400, 400)))


@jax.jit
def _pending(value: Any, square: Any) -> Any:
    return value + 0 * jax.lax.fori_loop(0, 100, lambda _, y: jnp.sin(y @ y), square).sum()


# -- one program --------------------------------------------------------------------------------------


def test_a_jitted_function_logs_what_it_does_not_return(run: ActiveRun) -> None:
    @jax.jit
    def step(x: Any, i: Any) -> None:
        log(run, {"loss": x * 2, "train": {"lr": 0.1, "epoch": np.int64(3)}, "count": i}, step=i)

    for i in range(3):
        step(0.25, i)
    assert rows(run) == {
        i: {"loss": 0.5, "train/lr": 0.1, "train/epoch": 3, "count": i}  # 0.1 never was a float32
        for i in range(3)
    }


def test_a_program_with_nothing_but_known_values_logs_each_time_that_it_runs(run: ActiveRun) -> None:
    @jax.jit
    def program() -> None:
        log(run, {"x": 1}, step=3)

    program()
    assert series(run, "x") == [(3, 1)]


def test_each_step_of_a_scan_is_there(run: ActiveRun) -> None:
    jax.jit(doubling(run))(1.0)
    assert series(run, "x") == [(0, 1), (1, 2), (2, 4), (3, 8), (4, 16)]


def test_every_keeps_the_steps_that_are_multiples(run: ActiveRun) -> None:
    jax.jit(doubling(run, every=2))(1.0)
    assert series(run, "x") == [(0, 1), (2, 4), (4, 16)]


def test_every_may_be_larger_than_any_step(run: ActiveRun) -> None:
    step = jax.jit(lambda i: log(run, {"x": i}, step=i.astype(jnp.int8), every=1_000_000))
    for i in (0, 100, 127):
        step(i)
    assert series(run, "x") == [(0, 0)]


def test_every_holds_for_a_step_that_is_known(run: ActiveRun) -> None:
    for i in range(4):
        jax.jit(lambda x, i=i: log(run, {"x": x}, step=i, every=2))(1.0)
    assert series(run, "x") == [(0, 1), (2, 1)]


def test_a_cond_logs_the_branch_that_it_takes(run: ActiveRun) -> None:
    @jax.jit
    def choose(x: Any, step: Any) -> Any:
        def yes(x: Any) -> Any:
            log(run, {"yes": x}, step=step)
            return x

        def no(x: Any) -> Any:
            log(run, {"no": x}, step=step)
            return -x

        return jax.lax.cond(x > 0, yes, no, x)

    choose(1.0, 0)
    choose(-1.0, 1)
    assert rows(run) == {0: {"yes": 1}, 1: {"no": -1}}


def test_a_while_loop_logs_each_trip(run: ActiveRun) -> None:
    def body(state: tuple[Any, Any]) -> tuple[Any, Any]:
        log(run, {"x": state[1]}, step=state[0], every=2)
        return state[0] + 1, state[1] * 3

    jax.jit(lambda n: jax.lax.while_loop(lambda state: state[0] < n, body, (0, 1)))(5)
    assert series(run, "x") == [(0, 1), (2, 9), (4, 81)]


def test_a_fori_loop_logs_each_trip_also_where_it_is_differentiated(run: ActiveRun) -> None:
    def body(i: Any, x: Any) -> Any:
        log(run, {"x": x}, step=i)
        return x * 2

    assert jax.grad(lambda x: jax.lax.fori_loop(0, 3, body, x))(1.0) == 8
    assert series(run, "x") == [(0, 1), (1, 2), (2, 4)]


def test_at_the_same_step_the_last_value_stays(run: ActiveRun) -> None:
    epoch = jax.jit(doubling(run))
    epoch(1.0).block_until_ready()
    run.flush()
    epoch(3.0)
    assert series(run, "x") == [(0, 3), (1, 6), (2, 12), (3, 24), (4, 48)]


def test_a_donated_buffer_was_read_before(run: ActiveRun) -> None:
    @jax.jit(donate_argnums=0)
    def step(x: Any, i: Any) -> Any:
        log(run, {"x": x}, step=i)
        return x + 1

    x = jnp.float32(0)
    for i in range(20):
        x = step(x, i)
    assert series(run, "x") == [(i, i) for i in range(20)]


def test_each_dtype_arrives_with_its_own_value(run: ActiveRun) -> None:
    kinds = {"bfloat16": 3.140625, "float16": 0.5, "int8": -3, "uint32": 2**32 - 1, "bool": True, "int4": -5}

    @jax.jit
    def program() -> None:
        log(run, {kind: jnp.array(value, kind) for kind, value in kinds.items()}, step=jnp.uint32(2**32 - 1))

    program()
    assert rows(run) == {2**32 - 1: kinds}


def test_what_is_no_number_is_logged_as_what_it_is_also_where_jax_looks_for_it(run: ActiveRun) -> None:
    nan, infinity = jnp.float32(np.nan), jnp.float32(-np.inf)
    with jax.debug_nans(True), jax.debug_infs(True):
        jax.jit(lambda x, y: log(run, {"nan": x, "infinity": y}, step=0))(nan, infinity)
    values = rows(run)[0]
    assert math.isnan(values["nan"])
    assert values["infinity"] == -math.inf


def test_outside_of_jit_it_logs_too(run: ActiveRun) -> None:
    for i in range(4):
        log(run, {"x": jnp.float32(i), "y": jnp.ones((1, 1))}, step=jnp.int32(i), every=2)
    with jax.disable_jit():
        doubling(run)(1.0)
    assert rows(run) == {0: {"x": 1, "y": 1}, 1: {"x": 2}, 2: {"x": 4, "y": 1}, 3: {"x": 8}, 4: {"x": 16}}


@pytest.mark.slow
def test_a_row_has_the_time_at_which_the_program_logged_it(run: ActiveRun) -> None:
    program = slow(run, rows=3, seconds=0.1)
    before = time.time()
    program(0.0).block_until_ready()
    run.finish()
    first, _, third = tracklayer.open_store(run.dir).run("r").metric("x").time
    assert before < first < third - 0.09 < time.time() - 0.09


# -- derivatives --------------------------------------------------------------------------------------

DERIVATIVES: dict[str, Callable[[Callable[[Any], Any]], Any]] = {
    "grad": lambda f: jax.grad(f)(1.0),
    "jit of grad": lambda f: jax.jit(jax.grad(f))(1.0),
    "grad of jit": lambda f: jax.grad(jax.jit(f))(1.0),
    "value_and_grad": lambda f: jax.jit(jax.value_and_grad(f))(1.0),
    "vjp": lambda f: jax.vjp(f, 1.0)[1](1.0),
    "jvp": lambda f: jax.jit(lambda x: jax.jvp(f, (x,), (1.0,)))(1.0),
    "linearize": lambda f: jax.linearize(f, 1.0)[1](1.0),
    "jacfwd": lambda f: jax.jacfwd(lambda v: f(v[0]))(jnp.ones(3)),
    "jacrev": lambda f: jax.jacrev(lambda v: f(v[0]) * v)(jnp.ones(3)),
    "hessian": lambda f: jax.jit(jax.hessian(f))(1.0),
}


@pytest.mark.parametrize("derive", DERIVATIVES.values(), ids=DERIVATIVES)
def test_a_derivative_logs_what_the_function_would(run: ActiveRun, derive: Callable[..., Any]) -> None:
    derive(doubling(run, every=2))
    assert rows(run) == {0: {"x": 1}, 2: {"x": 4}, 4: {"x": 16}}


POLICIES: dict[str, Any] = {
    "no policy": None,
    "everything": jax.checkpoint_policies.everything_saveable,
    "nothing": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_checkpoint_changes_nothing(run: ActiveRun, policy: Any) -> None:
    def body(x: Any, step: Any) -> tuple[Any, None]:
        log(run, {"x": x}, step=step, every=2)
        return jnp.sin(x) * 0 + x * 2, None

    def whole(x: Any) -> Any:
        return jax.lax.scan(jax.checkpoint(body, policy=policy), x, jnp.arange(5))[0]

    jax.jit(jax.grad(jax.checkpoint(whole, policy=policy)))(1.0)
    assert series(run, "x") == [(0, 1), (2, 4), (4, 16)]


def test_the_rules_of_a_custom_derivative_log(run: ActiveRun) -> None:
    @jax.custom_vjp
    def triple(x: Any) -> Any:
        return x * 3

    def forward(x: Any) -> tuple[Any, Any]:
        log(run, {"forward": x}, step=0)
        return x * 3, x

    def backward(x: Any, cotangent: Any) -> tuple[Any]:
        log(run, {"backward": cotangent, "residual": x}, step=0)
        return (cotangent * 3,)

    triple.defvjp(forward, backward)
    jax.jit(jax.vmap(jax.grad(lambda x: triple(x) * 2)))(jnp.array([5.0, 6.0]))
    assert rows(run) == {
        0: {
            "forward/seed_0": 5,
            "forward/seed_1": 6,
            "backward": 2,
            "residual/seed_0": 5,
            "residual/seed_1": 6,
        }
    }


def test_a_row_with_a_tangent_is_there_forwards_and_not_backwards(run: ActiveRun) -> None:
    @jax.custom_jvp
    def triple(x: Any) -> Any:
        return x * 3

    @triple.defjvp
    def rule(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
        (x,), (tangent,) = primals, tangents
        log(run, {"x": x, "tangent": tangent}, step=0)
        log(run, {"x alone": x}, step=0)
        return x * 3, tangent * 3

    assert jax.jit(jax.grad(triple))(5.0) == 3
    run.flush()
    reader = tracklayer.open_store(run.dir).run("r")
    assert reader.keys() == ["x alone"]
    jax.jvp(triple, (5.0,), (7.0,))
    assert rows(run) == {0: {"x": 5, "tangent": 7, "x alone": 5}}


# -- lanes --------------------------------------------------------------------------------------------

ORDERS: dict[str, Callable[[Callable[[Any], Any], Any], Any]] = {
    "vmap of scan": lambda f, x: jax.vmap(f)(x),
    "vmap of jit": lambda f, x: jax.vmap(jax.jit(f))(x),
    "jit of vmap": lambda f, x: jax.jit(jax.vmap(f))(x),
    "vmap of grad": lambda f, x: jax.vmap(jax.grad(f))(x),
    "grad of vmap": lambda f, x: jax.jit(jax.grad(lambda x: jax.vmap(f)(x).sum()))(x),
    "vmap of grad of checkpoint": lambda f, x: jax.jit(jax.vmap(jax.grad(jax.checkpoint(f))))(x),
    "grad of checkpoint of vmap": lambda f, x: jax.jit(
        jax.grad(lambda x: jax.checkpoint(jax.vmap(f))(x).sum())
    )(x),
}


@pytest.mark.parametrize("transform", ORDERS.values(), ids=ORDERS)
def test_a_value_that_differs_between_lanes_is_a_seed_series(
    run: ActiveRun, transform: Callable[..., Any]
) -> None:
    transform(doubling(run, every=2), jnp.array([1.0, 3.0]))
    assert rows(run) == {
        0: {"x/seed_0": 1, "x/seed_1": 3},
        2: {"x/seed_0": 4, "x/seed_1": 12},
        4: {"x/seed_0": 16, "x/seed_1": 48},
    }


def test_a_scan_of_a_vmap_is_the_same_as_a_vmap_of_a_scan(run: ActiveRun) -> None:
    def lane(x: Any, step: Any) -> Any:
        log(run, {"x": x}, step=step)
        return x * 2

    def body(xs: Any, step: Any) -> tuple[Any, None]:
        return jax.vmap(lane, in_axes=(0, None))(xs, step), None

    jax.jit(lambda xs: jax.lax.scan(body, xs, jnp.arange(2)))(jnp.array([1.0, 3.0]))
    assert rows(run) == {0: {"x/seed_0": 1, "x/seed_1": 3}, 1: {"x/seed_0": 2, "x/seed_1": 6}}


def test_all_lanes_come_from_one_callback(run: ActiveRun) -> None:
    jax.jit(jax.vmap(doubling(run)))(jnp.arange(50.0))
    run.finish()
    calls = list(tracklayer.open_store(run.dir).run("r").calls())
    assert [(call.step, len(call.values)) for call in calls] == [(i, 50) for i in range(5)]


def test_what_is_the_same_in_all_lanes_is_recorded_once(run: ActiveRun) -> None:
    @jax.vmap
    def lane(x: Any) -> None:
        log(run, {"x": x, "lr": jnp.float32(0.5), "epoch": 1}, step=0)

    lane(jnp.array([1.0, 2.0]))
    assert rows(run) == {0: {"x/seed_0": 1, "x/seed_1": 2, "lr": 0.5, "epoch": 1}}


def test_one_lane_is_a_seed_series_too(run: ActiveRun) -> None:
    jax.vmap(lambda x: log(run, {"x": x}, step=0))(jnp.ones(1))
    assert rows(run) == {0: {"x/seed_0": 1}}


def test_nested_lanes_count_on_with_the_inner_ones_first(run: ActiveRun) -> None:
    @jax.jit
    def program(outer: Any, inner: Any) -> None:
        def lane(a: Any, b: Any) -> None:
            log(run, {"outer": a, "inner": b, "both": 10 * a + b}, step=0)

        jax.vmap(jax.vmap(lane, in_axes=(None, 0)), in_axes=(0, None))(outer, inner)

    program(jnp.array([1, 2]), jnp.array([5, 6, 7]))
    expected = {"outer/seed_0": 1, "outer/seed_1": 2, "inner/seed_0": 5, "inner/seed_1": 6, "inner/seed_2": 7}
    both = {f"both/seed_{i}": value for i, value in enumerate([15, 16, 17, 25, 26, 27])}
    assert rows(run) == {0: expected | both}


def test_lanes_may_be_at_steps_of_their_own_and_every_holds_for_each(run: ActiveRun) -> None:
    @jax.jit
    @jax.vmap
    def lane(x: Any, step: Any) -> None:
        log(run, {"x": x, "lr": jnp.float32(0.5)}, step=step, every=2)

    lane(jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([0, 1, 2, 2]))
    assert rows(run) == {0: {"x/seed_0": 1, "lr": 0.5}, 2: {"x/seed_2": 3, "x/seed_3": 4, "lr": 0.5}}


def test_nested_lanes_with_steps_of_their_own(run: ActiveRun) -> None:
    def lane(x: Any, y: Any, step: Any) -> None:
        log(run, {"x": x, "y": y}, step=step)

    inner = jax.vmap(lane, in_axes=(None, 0, None))
    jax.jit(jax.vmap(inner, in_axes=(0, None, 0)))(jnp.array([1, 2]), jnp.array([8, 9]), jnp.array([10, 20]))
    both = {"y/seed_0": 8, "y/seed_1": 9}
    assert rows(run) == {10: {"x/seed_0": 1} | both, 20: {"x/seed_1": 2} | both}


def test_every_holds_where_both_branches_of_a_cond_run(run: ActiveRun) -> None:
    @jax.vmap
    def lane(x: Any, step: Any) -> None:
        jax.lax.cond(x > 0, lambda: log(run, {"x": x}, step=step, every=2), lambda: None)

    jax.jit(lane)(jnp.array([1.0, -1.0, 3.0]), jnp.array([1, 2, 4]))
    assert rows(run) == {2: {"x/seed_1": -1}, 4: {"x/seed_2": 3}}  # of seed 1, as documented: see below


def test_a_cond_on_which_the_lanes_differ_logs_both_branches_as_documented(run: ActiveRun) -> None:
    @jax.vmap
    def lane(x: Any) -> None:
        jax.lax.cond(x > 0, lambda: log(run, {"yes": x}, step=0), lambda: log(run, {"no": x}, step=0))

    jax.jit(lane)(jnp.array([1.0, -1.0]))
    assert rows(run) == {0: {"yes/seed_0": 1, "yes/seed_1": -1, "no/seed_0": 1, "no/seed_1": -1}}


def test_a_cond_on_which_the_lanes_agree_logs_one_branch(run: ActiveRun) -> None:
    def lane(go: Any, x: Any) -> None:
        jax.lax.cond(go, lambda: log(run, {"yes": x}, step=0), lambda: log(run, {"no": x}, step=0))

    jax.jit(jax.vmap(lane, in_axes=(None, 0)))(True, jnp.array([1.0, -1.0]))
    assert rows(run) == {0: {"yes/seed_0": 1, "yes/seed_1": -1}}


def test_a_lane_that_is_done_early_records_one_trip_too_many_as_documented(run: ActiveRun) -> None:
    @jax.jit
    @jax.vmap
    def lane(trips: Any) -> Any:
        def body(state: tuple[Any, Any]) -> tuple[Any, Any]:
            log(run, {"x": state[1]}, step=state[0])
            return state[0] + 1, state[1] * 3

        return jax.lax.while_loop(lambda state: state[0] < trips, body, (0, 1))

    assert lane(jnp.array([2, 4]))[1].tolist() == [9, 81]
    run.finish()
    assert series(run, "x/seed_0") == [(0, 1), (1, 3), (2, 9)]
    assert series(run, "x/seed_1") == [(0, 1), (1, 3), (2, 9), (3, 27)]


# -- Flax ---------------------------------------------------------------------------------------------


def test_a_flax_training_step_logs_from_within(run: ActiveRun) -> None:
    class Model(nnx.Module):
        def __init__(self) -> None:
            self.weight = nnx.Param(jnp.float32(2))
            self.step = nnx.Variable(jnp.int32(0))

    @nnx.jit
    def train(model: Model) -> None:
        @nnx.remat
        def loss(model: Model) -> Any:
            log(run, {"weight": model.weight}, step=model.step)
            return model.weight[...] ** 2

        gradient = nnx.grad(loss)(model)
        log(run, {"gradient": gradient["weight"]}, step=model.step)
        model.weight[...] = model.weight[...] / 2
        model.step[...] = model.step[...] + 1

    model = Model()
    for _ in range(3):
        train(model)
    assert rows(run) == {i: {"weight": 2 / 2**i, "gradient": 4 / 2**i} for i in range(3)}


def test_flax_models_in_lanes_and_layers(run: ActiveRun) -> None:
    class Layer(nnx.Module):
        def __init__(self, factor: Any) -> None:
            self.factor = nnx.Param(factor)

    layers = nnx.vmap(Layer)(jnp.array([2.0, 3.0]))

    @nnx.jit
    @nnx.vmap
    def lane(layer: Layer) -> None:
        log(run, {"lane": layer.factor}, step=0)

    @nnx.jit
    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def stack(x: Any, layer: Layer) -> Any:
        log(run, {"layer": layer.factor}, step=x)
        return x + 1

    lane(layers)
    stack(jnp.int32(5), layers)
    assert rows(run) == {0: {"lane/seed_0": 2, "lane/seed_1": 3}, 5: {"layer": 2}, 6: {"layer": 3}}


# -- several devices ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_on_several_devices(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", XLA_FLAGS="--xla_force_host_platform_device_count=8")
    ended = machine.run(
        """
        import json, warnings
        from collections import Counter
        import jax, jax.numpy as jnp
        from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
        import tracklayer
        from tracklayer.front import ActiveRun
        from tracklayer.jax import log

        logged = Counter()
        really = ActiveRun.log

        def counting(run, values, **arguments):
            logged.update(list(values))
            really(run, values, **arguments)

        ActiveRun.log = counting
        run = tracklayer.init(id="r")
        for kind in AxisType.Auto, AxisType.Explicit:
            mesh = jax.make_mesh((8,), ("d",), axis_types=(kind,))
            xs = jax.device_put(jnp.arange(16.0), NamedSharding(mesh, P("d")))

            @jax.jit
            def whole(xs):
                def body(xs, i):
                    log(run, {f"{kind.name}/sum": xs.sum(), f"{kind.name}/max": xs.max()}, step=i, every=2)
                    return xs + 1, None
                return jax.lax.scan(body, xs, jnp.arange(3))[0]

            @jax.jit
            @jax.vmap
            def lane(x):
                values = {f"{kind.name}/lane": x, f"{kind.name}/constant": jnp.int32(7)}
                log(run, values, step=jnp.int32(0), every=2)

            whole(xs)
            with jax.set_mesh(mesh):
                whole(xs)
            lane(xs)

        def parts(x):
            i = jax.lax.axis_index("d")
            log(run, {"part": x.mean()}, step=jnp.int32(0))
            log(run, {"own step": x.mean()}, step=i, every=2)
            log(run, {"reduced": jax.lax.pmean(x.mean(), "d")}, step=jnp.int32(0))
            return x

        jax.jit(jax.shard_map(parts, mesh=mesh, in_specs=P("d"), out_specs=P("d")))(xs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is no more than jit now
            pmap = jax.pmap(lambda x: (log(run, {"pmap": jax.lax.psum(x, "d")}, step=0), x)[1], axis_name="d")
        pmap(jnp.arange(8.0))
        run.finish()
        print(json.dumps(logged))
        """
    )
    fired, recorded = ended.said, machine.recorded()

    def values(key: str) -> Series:
        metric = recorded.metric(key)
        return list(zip(metric.step.tolist(), metric.value.tolist(), strict=True))

    for kind in ("Auto", "Explicit"):
        assert values(f"{kind}/sum") == [(0, 120), (2, 152)]
        assert values(f"{kind}/max") == [(0, 15), (2, 17)]
        assert [values(f"{kind}/lane/seed_{i}") for i in range(16)] == [[(0, i)] for i in range(16)]
        assert values(f"{kind}/constant") == [(0, 7)]
        assert fired[f"{kind}/sum"] == 4  # two programs, two steps
        assert fired[f"{kind}/constant"] == 1
    # as documented: in shard_map each device logs; its own step is its own row, and else any comes last
    assert fired["part"] == fired["reduced"] == fired["pmap"] == 8
    assert fired["own step"] == 4
    assert values("part")[0][1] in {0.5 + 2 * i for i in range(8)}
    assert values("own step") == [(i, 0.5 + 2 * i) for i in (0, 2, 4, 6)]
    assert values("reduced") == [(0, 7.5)]
    assert values("pmap") == [(0, 28)]


# -- which run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [True, False])
def test_a_function_compiled_under_one_run_logs_into_the_next(given: bool) -> None:
    first = tracklayer.init(id="first")
    compiled = jax.jit(doubling(first if given else None))
    compiled(1.0)
    first.finish()
    second = tracklayer.init(id="second")
    compiled(3.0)
    assert series(first, "x") == [(0, 1), (1, 2), (2, 4), (3, 8), (4, 16)]
    assert series(second, "x") == [(0, 3), (1, 6), (2, 12), (3, 24), (4, 48)]


def test_a_run_that_was_named_gets_its_rows_while_it_is_open() -> None:
    current = tracklayer.init(id="current")
    other = tracklayer.init(id="other", reinit="create_new")
    to_other = jax.jit(lambda i: log(other, {"for other": i}, step=i))
    to_current = jax.jit(lambda i: log(None, {"for current": i}, step=i))
    to_other(0)
    to_current(0)
    other.finish()
    to_other(1)
    assert rows(other) == {0: {"for other": 0}}
    assert rows(current) == {0: {"for current": 0}, 1: {"for other": 1}}


def test_without_an_open_run_the_program_runs_and_it_is_said_once(
    run: ActiveRun, caplog: pytest.LogCaptureFixture
) -> None:
    compiled = jax.jit(doubling(run))
    run.finish()
    assert compiled(1.0) == 32
    jax.effects_barrier()  # type: ignore[no-untyped-call] # jax's own types are partial
    (said,) = warnings(caplog)
    assert "no run is open" in said
    tracklayer.init(id="next").finish()
    assert "5 rows of tracklayer.jax.log were not recorded" in warnings(caplog)[1]
    tracklayer.init(id="another").finish()
    assert len(warnings(caplog)) == 2


# -- mistakes and failures ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"x": jnp.ones(3)}, "'x'.*(3,).*Histogram"),
        ({"a": {"b": jnp.ones(3)}}, "'a/b'"),
        ({"x": "text"}, "builtins.str"),
        ({"x": None}, "NoneType"),
        ({"x": Histogram([1.0])}, "Histogram.*outside"),
        ({"x": 1j}, "complex"),
        ({"x": jnp.complex64(1)}, "complex64"),
        ({"x": jax.random.key(0)}, "key<fry>"),
        ({1: 2}, "key 1"),
        ([("x", 1)], "mapping"),
    ],
)
def test_what_cannot_be_logged_is_a_type_error_where_it_is_written(
    run: ActiveRun, values: Any, hint: str
) -> None:
    with pytest.raises(UnsupportedValueError, match=hint):
        jax.jit(lambda: log(run, values, step=0))()


@pytest.mark.parametrize("step", [1.0, True, "1", None, jnp.float32(1), jnp.ones(2, int), jnp.array(True)])
def test_a_step_that_is_no_integer_is_a_type_error(run: ActiveRun, step: Any) -> None:
    with pytest.raises(UnsupportedValueError, match="must be an integer"):
        jax.jit(lambda: log(run, {"x": 1}, step=step))()


def test_every_is_known_and_at_least_one(run: ActiveRun) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        log(run, {"x": 1}, step=0, every=0)
    with pytest.raises(UnsupportedValueError, match="when the program is compiled"):
        jax.jit(lambda n: log(run, {"x": 1}, step=0, every=n))(2)


def test_what_is_no_run_is_a_type_error() -> None:
    with pytest.raises(UnsupportedValueError, match="run is a dict"):
        log({"x": 1}, {"x": 1}, step=0)  # type: ignore[arg-type] # the mistake


def test_a_row_of_nothing_is_nothing(run: ActiveRun) -> None:
    jax.jit(lambda i: log(run, {}, step=i))(0)
    assert rows(run) == {}


def test_logging_a_tracer_the_ordinary_way_points_here(run: ActiveRun) -> None:
    with pytest.raises(UnsupportedValueError, match=r"tracklayer\.jax\.log"):
        jax.jit(lambda x: run.log({"x": x}, step=0))(1.0)


def test_a_negative_step_is_reported_and_the_program_goes_on(
    run: ActiveRun, caplog: pytest.LogCaptureFixture
) -> None:
    @jax.jit
    def step(i: Any) -> Any:
        log(run, {"x": i}, step=i)
        return i * 2

    assert [int(step(i)) for i in (-2, -1, 0, 1)] == [-4, -2, 0, 2]
    assert series(run, "x") == [(0, 0), (1, 1)]
    assert len(warnings(caplog)) == 2
    assert "step -2" in warnings(caplog)[0]
    assert "2 rows" in warnings(caplog)[1]


def test_whatever_the_run_raises_never_reaches_the_program(
    run: ActiveRun, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: ActiveRun, *args: Any, **kwargs: Any) -> None:
        msg = "the disk is on fire"
        raise OSError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(ActiveRun, "log", broken)
        assert jax.jit(jax.grad(doubling(run)))(1.0) == 32
        run.flush()
    assert [message for message in warnings(caplog) if "the disk is on fire" in message] == warnings(caplog)
    assert len(warnings(caplog)) == 1


# -- waiting ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("wait", [ActiveRun.flush, ActiveRun.finish])
def test_flush_and_finish_wait_for_what_still_runs(run: ActiveRun, wait: Callable[..., Any]) -> None:
    result = slow(run)(pending())
    assert not result.is_ready()
    wait(run)
    recorded = tracklayer.open_store(run.dir).run("r").metric("x")
    assert recorded.value.tolist() == list(range(10))


@pytest.mark.slow
def test_a_next_run_waits_for_the_rows_of_the_one_before() -> None:
    first = tracklayer.init(id="first")
    result = slow(first)(pending())
    assert not result.is_ready()
    second = tracklayer.init(id="second")
    assert series(first, "x") == [(i, i) for i in range(10)]
    assert rows(second) == {}


@pytest.mark.slow
def test_a_program_that_fails_is_reported_once_and_finish_returns(
    run: ActiveRun, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(x: Any) -> Any:
        if x > 0:
            msg = "out of luck"
            raise ValueError(msg)
        return x

    @jax.jit
    def program(x: Any) -> Any:
        x = doubling(run)(x)
        return jax.pure_callback(fail, jax.ShapeDtypeStruct((), jnp.float32), x)

    program(pending()).block_until_ready()
    result = program(pending(1.0))
    assert not result.is_ready()
    run.flush()
    run.flush()
    assert len(series(run, "x")) == 5
    ours = [message for message in warnings(caplog) if message.startswith("tracklayer")]
    assert len(ours) == 1
    assert "a jitted program failed" in ours[0]
    jax.block_until_ready(jax.jit(doubling(None))(1.0))  # JAX forgets the failure with the next program


def test_finish_in_a_callback_does_not_wait_for_its_own_program(run: ActiveRun) -> None:
    @jax.jit
    def program(x: Any) -> Any:
        x = doubling(run)(x)
        jax.lax.cond(x > 0, lambda: jax.debug.callback(run.finish), lambda: None)
        return x

    assert program(pending(1.0)) == 32
    jax.effects_barrier()  # type: ignore[no-untyped-call] # jax's own types are partial
    assert len(series(run, "x")) == 5


def test_taps_and_ordinary_calls_come_together(run: ActiveRun) -> None:
    @jax.jit
    def program(x: Any) -> Any:
        def body(x: Any, step: Any) -> tuple[Any, None]:
            log(run, {"tap": x}, step=step)
            return x + 1, None

        return jax.lax.scan(body, x, jnp.arange(300))[0]

    threads = [threading.Thread(target=lambda: program(0).block_until_ready()) for _ in range(2)]
    for thread in threads:
        thread.start()
    for step in range(1000):
        run.log({"call": step, "late": 1}, step=step)
    for thread in threads:
        thread.join()
    run.finish()
    assert series(run, "tap") == [(i, i) for i in range(300)]
    assert series(run, "call") == [(i, i) for i in range(1000)]


END = """
    import os, signal, threading, time
    import jax, jax.numpy as jnp
    import tracklayer
    from tracklayer.jax import log

    run = tracklayer.init(id="r")
    steps = threading.Semaphore(0)

    def take_time(_):
        steps.release()
        time.sleep(0.03)

    @jax.jit
    def program(x):
        def body(x, step):
            jax.debug.callback(take_time, x)
            log(run, {"x": x}, step=step)
            return x + 1, None
        return jax.lax.scan(body, x, jnp.arange(20))[0]

    @jax.jit
    def pending(value, square):
        return value + 0 * jax.lax.fori_loop(0, 100, lambda _, y: jnp.sin(y @ y), square).sum()

    square = jnp.ones((400, 400))
    program(pending(0.0, square)).block_until_ready()
    result = program(pending(100.0, square))
    assert not result.is_ready()
"""


@pytest.mark.slow
def test_the_end_of_the_process_waits_for_what_still_runs(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    machine.run(END).well()
    assert machine.recorded().info.state == "finished"
    assert machine.recorded().metric("x").value.tolist() == list(range(100, 120))


@pytest.mark.slow
@pytest.mark.parametrize("handler", ["ours", "the program's"])
def test_a_signal_that_meets_a_call_at_work_ends_the_process_all_the_same(
    tmp_path: Path, handler: str
) -> None:
    machine = Machine(tmp_path / "machine")
    ended = machine.run(
        END
        + """
    def handle(number, frame):
        run.finish(143)
        os._exit(143)

    if HANDLER != "ours":
        signal.signal(signal.SIGTERM, handle)
    run.log({"last": 1}, step=1000)
    for _ in range(20 + 5):
        steps.acquire()
    with run._lock:  # as `log` holds it for a moment: a tap, whose steps are late, waits for it
        time.sleep(0.1)
        signal.raise_signal(signal.SIGTERM)
    """.replace("HANDLER", repr(handler))
    )
    assert ended.code in {143, -15}
    assert machine.recorded().info.state == "failed"
    assert len(machine.recorded().metric("last")) == 1


@pytest.mark.slow
def test_a_signal_waits_as_long_as_rows_keep_coming(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    ended = machine.run(
        END
        + """
    for _ in range(20 + 5):
        steps.acquire()
    signal.raise_signal(signal.SIGTERM)
    """
    )
    assert ended.code == -15
    assert machine.recorded().metric("x").value.tolist() == list(range(100, 120))
