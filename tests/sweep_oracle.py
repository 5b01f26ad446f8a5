"""A sweep's trials as Optuna itself reads them from the sweep's file, without the code that is tested."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend


def trials(store: Path, sweep: str) -> list[optuna.trial.FrozenTrial]:
    """Return the trials, in order."""
    journal = JournalFileBackend(str(store / "sweeps" / f"{sweep}.journal"))
    storage = optuna.storages.JournalStorage(journal)
    (study,) = storage.get_all_studies()
    return storage.get_all_trials(study._study_id)


def outcomes(store: Path, sweep: str, parameter: str = "x") -> dict[object, list[object]]:
    """Return how the trials ended, in order, by the value of a parameter."""
    ended: dict[object, list[object]] = {}
    for trial in trials(store, sweep):
        value = trial.user_attrs["parameters"][parameter]
        ended.setdefault(value, []).append(trial.user_attrs.get("outcome", trial.state.name))
    return ended
