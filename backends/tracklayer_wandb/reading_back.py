"""What the W&B server has of a run, read through the public `wandb.Api`."""

from __future__ import annotations

from typing import Any, Final

import wandb

from tracklayer.errors import BackendUnavailableError
from tracklayer.protocol import Received, RunInfo, State
from tracklayer_wandb.login import api_url, check_login, quiet_client
from tracklayer_wandb.recording import TRUE_STEP

_API_SECONDS: Final = 20
_PAGE_STEPS: Final = 10_000
_MAX_PAGES: Final = 1_000
_OURS: Final[frozenset[str]] = frozenset({"_step", "_timestamp", "_runtime", "_wandb", TRUE_STEP})
_STATES: Final[dict[str, State]] = {
    "running": "running",
    "finished": "finished",
    "failed": "failed",
    "crashed": "crashed",
    "killed": "failed",
}


def received(info: RunInfo) -> Received | None:
    """Ask the server what it has of a run; None if it has no such run.

    Raises:
        BackendUnavailableError: no login, no answer, or an answer that says no.
    """
    check_login()
    quiet_client()
    try:
        api = wandb.Api(timeout=_API_SECONDS)
        entity = info.entity or api.default_entity
        run = api.run(f"{entity}/{info.project}/{info.id}")
    except (wandb.errors.CommError, ValueError) as error:
        if "could not find" in str(error).lower() or "not found" in str(error).lower():
            return None
        msg = f"cannot ask {api_url()}: {error}"
        raise BackendUnavailableError(msg) from error
    keys: dict[int, frozenset[str]] = {}
    interned: dict[frozenset[str], frozenset[str]] = {}
    last, count = -1, 0
    # the client asks for ranges of steps, full or empty: wide ones for high steps
    width = max(_PAGE_STEPS, run.lastHistoryStep // _MAX_PAGES + 1)
    for row in run.scan_history(page_size=width, use_cache=False):
        count += 1
        last = max(last, int(row["_step"]))
        step = int(row.get(TRUE_STEP) or row["_step"])
        present = frozenset(k for k, v in row.items() if v is not None and k not in _OURS)
        present |= keys.get(step, frozenset())
        keys[step] = interned.setdefault(present, present)
    artifacts: Any = run.logged_artifacts()
    return Received(
        state=_STATES.get(run.state, "running"),
        last_step=last,
        line_count=count,
        keys=keys,
        artifacts=frozenset(str(artifact.name).rpartition(":")[0] for artifact in artifacts),
        url=run.url,
    )
