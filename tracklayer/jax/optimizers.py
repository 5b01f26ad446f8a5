"""What an optimizer does, measured where it is done: gradient and update norms, and the learning rate."""

# jax's own types are partial, and optax brings none
# mypy: disable-error-code="import-untyped"
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from tracklayer.errors import UsageError

if TYPE_CHECKING:
    import optax


class MonitorState(NamedTuple):
    """The state of an optimizer that `monitor` wraps: its own, and what was measured at the last update."""

    inner_state: Any
    count: Any
    metrics: dict[str, Any]


def monitor(
    optimizer: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Wrap an Optax transformation so that it measures what goes in and what comes out.

    The updates are those of `optimizer`, which may be a chain or stand in one.  Its state also holds three
    float32 scalars, computed in the same jitted step as the update itself, which `optimizer_metrics` finds:
    `grad_norm` and `update_norm`, the Euclidean norms over all leaves of what went in and what came out, and
    `learning_rate`, that of this update.

    Args:
        optimizer: any `optax.GradientTransformation`.
        learning_rate: the number or schedule that `optimizer` was given.  Without it, the one of
            `optax.inject_hyperparams` is taken, where there is one; else no learning rate is measured.
    """
    import optax

    inner = optax.with_extra_args_support(optimizer)

    def measured(given: Any, made: Any, state: Any, count: Any) -> dict[str, Any]:
        metrics = {"grad_norm": _norm(given), "update_norm": _norm(made)}
        rate = learning_rate(count) if callable(learning_rate) else learning_rate
        rate = _injected_rate(state) if rate is None else rate
        if rate is not None:
            metrics["learning_rate"] = jnp.asarray(rate, jnp.float32)
        return metrics

    def init(params: Any) -> MonitorState:
        state, count = inner.init(params), jnp.zeros((), jnp.int32)
        return MonitorState(state, count, measured((), (), state, count))

    def update(
        updates: Any, state: MonitorState, params: Any = None, **extra: Any
    ) -> tuple[Any, MonitorState]:
        made, inner_state = inner.update(updates, state.inner_state, params, **extra)
        metrics = measured(updates, made, inner_state, state.count)
        return made, MonitorState(inner_state, state.count + 1, metrics)

    return optax.GradientTransformationExtraArgs(init, cast("Any", update))


def optimizer_metrics(state: Any) -> dict[str, Any]:
    """Return what `monitor` measured at the last update, ready to be logged.

    Args:
        state: an optimizer's state, or what holds one as `opt_state`: an `nnx.Optimizer`, a `TrainState`.

    Returns:
        float32 scalars on the device: `grad_norm`, `update_norm` and, where it is known, `learning_rate`.
        If the state has several monitors, a mapping of such ones by their path in it.

    Raises:
        UsageError: no part of the state is a monitor's.
    """
    state = getattr(state, "opt_state", state)
    found = {
        jax.tree_util.keystr(path, simple=True, separator="."): {
            name: getattr(value, "__jax_array__", lambda value=value: value)()  # a variable of Flax's
            for name, value in leaf.metrics.items()
        }
        for path, leaf in jax.tree_util.tree_leaves_with_path(state, is_leaf=_is_monitor)
        if _is_monitor(leaf)
    }
    if not found:
        msg = "the optimizer is not monitored: wrap it, as in tracklayer.jax.monitor(optax.adamw(1e-3))"
        raise UsageError(msg)
    return next(iter(found.values())) if len(found) == 1 else found


def _is_monitor(node: Any) -> bool:
    return isinstance(node, MonitorState)


def _norm(tree: Any) -> jax.Array:
    """Return the Euclidean norm over all leaves; half precision is added up in float32."""
    import optax

    def widened(leaf: Any) -> Any:
        return leaf.astype(jnp.float32) if leaf.dtype.itemsize < 4 else leaf

    norm = optax.tree.norm(jax.tree.map(widened, tree)) if jax.tree.leaves(tree) else 0.0
    return jnp.asarray(norm, jnp.float32)


def _injected_rate(state: Any) -> Any:
    """Return the learning rate that `optax.inject_hyperparams` keeps in a state; None without one."""
    injected = [
        node.hyperparams["learning_rate"]
        for node in jax.tree.leaves(state, is_leaf=_has_rate)
        if _has_rate(node)
    ]
    return injected[0] if injected else None


def _has_rate(node: Any) -> bool:
    hyperparams = getattr(node, "hyperparams", None)
    return isinstance(hyperparams, dict) and "learning_rate" in hyperparams
