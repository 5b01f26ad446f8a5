"""Sweeps with no server: the trials of one are claimed, by any number of agents, from a file in the store.

A sweep is an ordinary Optuna study in `<store>/sweeps/<id>.journal`, and each trial an ordinary run.
`creating` makes a sweep of W&B's configuration (`configuration`, `parameters`), `agents` works on its trials,
calling a function (`calling`) or running a program (`programs`).  Which trial is whose is settled in
`claiming`, by `leases` that say which agents live.  `trial` ties a trial to the run that `init` opens in it
(`current`).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from tracklayer.errors import BackendUnavailableError

RETRIES: Final = 3
"""How often a trial is tried again whose process died, where nothing else is said."""
_ENGINE: Final = {"optuna": "optuna", "pyyaml": "yaml", "scipy": "scipy"}
"""The distributions of the extra `sweeps`, and the modules that they bring."""


def require_engine() -> None:
    """Make sure that what sweeps need is installed, without importing it.

    Raises:
        BackendUnavailableError: it is not.
    """
    missing = [name for name, module in _ENGINE.items() if find_spec(module) is None]
    if missing:
        msg = f"sweeps need {' and '.join(missing)}: pip install 'tracklayer[sweeps]'"
        raise BackendUnavailableError(msg)
