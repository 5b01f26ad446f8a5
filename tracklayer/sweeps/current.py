"""The trial that this process works on, if it does: what `init` asks.

It is one that an agent holds here while it calls a function; else one that the environment names, because an
agent started this program.  In any other process, to find none costs next to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from tracklayer import reporting
from tracklayer.errors import UsageError
from tracklayer.settings import ONLINE_BACKEND, wandb_default
from tracklayer.sweeps import require_engine

if TYPE_CHECKING:
    from tracklayer.protocol import Run, RunInfo
    from tracklayer.reading import RunReader

SWEEP: Final = "TRACKLAYER_SWEEP"
TRIAL: Final = "TRACKLAYER_TRIAL"
AGENT: Final = "TRACKLAYER_AGENT"
"""The variables by which a program knows its trial: the sweep's id, its number, and whose it is."""
_WANDB_SWEEP: Final = "WANDB_SWEEP_ID"
_WANDB_PARAMETERS: Final = "WANDB_SWEEP_PARAM_PATH"


class Watch(Protocol):
    """Finds what is to get all that a run of a trial logs."""

    def __call__(
        self, info: RunInfo, stop: Callable[[str, Exception], None], recorded: RunReader | None
    ) -> Run | None:
        """Return it; None if the run is of no account to the sweep.

        Args:
            info: the run's.
            stop: has the run raise an error when it next logs a key; called from any thread.
            recorded: what earlier segments of the run logged.
        """
        ...


@final
@dataclass(frozen=True, slots=True)
class Trial:
    """A trial of a sweep, as far as its runs are concerned.

    Attributes:
        sweep_id: the sweep's id; None for `NO_TRIAL` alone.
        parameters: what is tried, nested, as plain data.
        project: the project of the sweep's runs, if it is settled.
        entity: the entity of the sweep's runs, likewise.
        run_id: the id of the run, in that project and entity, if the sweep's server has settled it.
        group: the group of the sweep's runs, if they have one.
        store: the store's folder, if it is settled.
        previous_run: the id of the run that an earlier process left unfinished, if its trial is tried again.
        watch: what the sweep hears of its runs by; None where others tell it: W&B's client, or the process
            that was the first to open a run.
    """

    sweep_id: str | None
    parameters: Mapping[str, Any]
    project: str | None = None
    entity: str | None = None
    run_id: str | None = None
    group: str | None = None
    store: Path | None = None
    previous_run: str | None = None
    watch: Watch | None = None


NO_TRIAL: Final = Trial(None, {})
"""What a process works on that works on no trial."""


@final
class _Here:
    """The trial that this process works on, once that is known: the module's one piece of state."""

    trial: Trial = NO_TRIAL


_here: Final = _Here()


@contextmanager
def working_on(trial: Trial) -> Generator[None]:
    """Have `init` open runs of a trial in the block, in whichever thread."""
    before, _here.trial = _here.trial, trial
    try:
        yield
    finally:
        _here.trial = before


def current_trial(backends: Collection[str] = ()) -> Trial:
    """Return the trial that this process works on; `NO_TRIAL` if it does not.

    Args:
        backends: those that a run is to go to; a trial of W&B's server counts only where W&B records.

    Raises:
        TrialLostError: the trial that the environment names is another process's by now.
        SweepNotFoundError: its sweep is not in the store.
        BackendUnavailableError: what sweeps need is not installed.
        StoreError: the store cannot be read or written.
        UsageError: what the environment says of it cannot be right.
    """
    if _here.trial is NO_TRIAL and TRIAL in os.environ:
        require_engine()
        from tracklayer.sweeps.trial import joined

        _here.trial = joined(os.environ)
    if _here.trial is NO_TRIAL and ONLINE_BACKEND in backends and os.environ.get(_WANDB_PARAMETERS):
        return _trial_of_wandb(os.environ.get(_WANDB_SWEEP, ""), os.environ[_WANDB_PARAMETERS])
    return _here.trial


def _trial_of_wandb(sweep_id: str, path: str) -> Trial:
    """Return the trial that an agent of W&B's client started: its parameters are in a file."""
    yaml: Any = import_module("yaml")  # which the client brings; it has no types
    try:
        said = yaml.safe_load(Path(path).read_text("utf-8"))
        parameters = {key: entry["value"] for key, entry in said.items() if key != "wandb_version"}
    except (OSError, yaml.YAMLError, AttributeError, TypeError, KeyError) as error:
        msg = f"{_WANDB_PARAMETERS}={path!r} names no file of a trial's parameters: {error!r}"
        raise UsageError(msg) from error
    project, entity, run_id = (wandb_default(name) for name in ("project", "entity", "id"))
    return Trial(sweep_id, parameters, project, entity, run_id)


def settled(
    trial: Trial, run_id: str | None, project: str | None, entity: str | None
) -> tuple[str | None, str | None, str | None]:
    """Return the id, project and entity of a trial's run: where its server has settled them, these."""
    if trial.run_id is None:
        return run_id, project, entity
    given = {"id": run_id, "project": project, "entity": entity}
    own = {"id": trial.run_id, "project": trial.project, "entity": trial.entity}
    ignored = [
        f"{name}={value!r}" for name, value in given.items() if value and own[name] not in {None, value}
    ]
    if ignored:  # as by W&B's client
        reporting.warn(f"init: {', '.join(ignored)} is ignored: W&B has settled it for the trials of a sweep")
    return trial.run_id, trial.project or project, trial.entity or entity
