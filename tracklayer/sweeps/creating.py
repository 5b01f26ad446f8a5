"""`sweep`: from a configuration to a sweep that agents can work on."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklayer import naming, registry, reporting
from tracklayer.errors import UsageError
from tracklayer.settings import DEFAULT_PROJECT, Settings, read_settings, wandb_default
from tracklayer.sweeps import RETRIES, require_engine

if TYPE_CHECKING:
    from tracklayer.protocol import SweepService
    from tracklayer.reading import RunReader
    from tracklayer.sweeps.configuration import Metric
    from tracklayer.sweeps.study import PriorRun


def sweep(
    sweep: Mapping[str, Any] | str | os.PathLike[str] | Callable[[], Mapping[str, Any]],
    entity: str | None = None,
    project: str | None = None,
    prior_runs: Sequence[str] | None = None,
    *,
    seed: int | None = None,
    retries: int = RETRIES,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 - the name that `init` shows
) -> str:
    """Create a sweep, on whose trials `agent` works; return its id.

    Where the chosen backend is W&B's, it is a sweep of W&B's server.

    Args:
        sweep: W&B's configuration: a mapping, the path of a YAML file, or a function that returns a mapping.
        entity: W&B's user or team, of the sweep's runs.
        project: the project of the sweep's runs; else the configuration's, else `WANDB_PROJECT`.
        prior_runs: ids of recorded runs that count as trials, though not for `run_cap`: their config, and the
            best that they logged of the metric.
        seed: makes the sweep repeatable, where one agent works on it.
        retries: how often a trial is tried again whose agent died.
        dir: the store's folder; `TRACKLAYER_DIR`, else `.tracklayer`.

    Raises:
        UsageError: the configuration cannot be right, and the message names the entry; or another argument
            cannot, or W&B has no such thing.
        RunNotFoundError: a prior run is not in the store.
        BackendUnavailableError: what sweeps need is not installed.
        StoreError: the store cannot be written.
    """
    settings = read_settings(dir=dir)
    service = hosted_sweeps(settings)
    if service is None:
        require_engine()
    from tracklayer.sweeps.configuration import read_config

    config = read_config(sweep)
    if service is not None:
        if seed is not None or retries != RETRIES:
            msg = "sweep: a sweep of W&B's server has neither `seed` nor `retries`: leave them out"
            raise UsageError(msg)
        return service().create(config.given, project, entity, prior_runs)
    from tracklayer.sweeps.study import create

    if retries < 0:
        msg = f"retries={retries}: use 0 for trials that are not tried again"
        raise UsageError(msg)
    created = create(
        settings.dir,
        config,
        project=naming.check_project(
            project or config.project or wandb_default("project") or DEFAULT_PROJECT
        ),
        entity=naming.check_name("entity", entity or config.entity or wandb_default("entity")),
        seed=seed,
        retries=retries,
        prior=_prior(settings.dir, prior_runs or (), config.metric),
    )
    for note in config.notes:
        reporting.warn(f"sweep {created.id}: {note}")
    does = f"agent {created.id}` works on it" if config.program else f"sweep show {created.id}` shows it"
    reporting.tell(f"sweep {created.id} is created; `tracklayer {does}")
    return created.id


def hosted_sweeps(settings: Settings) -> Callable[[], SweepService] | None:
    """Return what opens the sweeps of the server that was chosen to record, if one was that has sweeps."""
    if settings.offline:
        return None
    backends = (registry.load(name) for name in settings.backends)
    return next((backend.sweeps for backend in backends if backend.sweeps is not None), None)


def _prior(store: Path, runs: Sequence[str], metric: Metric | None) -> list[PriorRun]:
    """Return what prior runs were, as trials."""
    if not runs:
        return []
    from tracklayer.sweeps.study import PriorRun

    recorded = registry.open_store(store)
    readers = [recorded.run(run) for run in runs]
    return [PriorRun(reader.config, _best(reader, metric), reader.id) for reader in readers]


def _best(reader: RunReader, metric: Metric | None) -> float | None:
    """Return the best finite value that a run logged of the metric, or set in its summary."""
    if metric is None:
        return None
    values: list[Any] = []
    for key in metric.keys:
        values.append(reader.summary.get(key))
        with suppress(LookupError):
            values += reader.metric(key).value.ravel().tolist()
    finite = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    return (min if metric.goal == "minimize" else max)(finite, default=None)
