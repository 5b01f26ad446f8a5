"""JAX at home: what logs from a device without making it wait.

    import tracklayer.jax

    tracklayer.jax.stats(grads)  # norms, magnitudes, dead units, non-finite values
    tracklayer.jax.histograms(params)  # one for each array
    tracklayer.jax.log(run, {"residual": x}, step=step, every=100)  # inside jit
    tracklayer.jax.monitor(optax.adamw(1e-3))  # an optimizer that measures itself
    tracklayer.jax.save_checkpoint(state, step=step)  # while training goes on
    tracklayer.jax.restore_checkpoint("checkpoint:latest", state)
    tracklayer.jax.agent(sweep_id, train, width=64)  # trials of a sweep, many at once under vmap

The only part of tracklayer that imports jax; `log` of a `jax.Array` comes here by itself.
"""

from tracklayer.jax.checkpoints import restore_checkpoint, save_checkpoint
from tracklayer.jax.histogramming import TreeHistograms, histograms
from tracklayer.jax.measuring import TreeStats, stats
from tracklayer.jax.optimizers import MonitorState, monitor, optimizer_metrics
from tracklayer.jax.sweeping import agent
from tracklayer.jax.tapping import log

__all__ = [
    "MonitorState",
    "TreeHistograms",
    "TreeStats",
    "agent",
    "histograms",
    "log",
    "monitor",
    "optimizer_metrics",
    "restore_checkpoint",
    "save_checkpoint",
    "stats",
]
