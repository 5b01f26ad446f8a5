"""What the W&B server has of a run, read through the public `wandb.Api`."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

import wandb
from wandb.errors import CommError

from tracklayer.errors import BackendUnavailableError
from tracklayer.protocol import Received, RunInfo, State
from tracklayer_wandb.artifacts import API_SECONDS, Collections, missing_artifacts, missing_uses
from tracklayer_wandb.client import end_client_in_time, wait_for_orphan
from tracklayer_wandb.login import api_url, check_login
from tracklayer_wandb.media import charts_by_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracklayer.artifacts.records import LoggedArtifact

TRUE_STEP: Final = "tracklayer/step"
"""The key that holds a late row's own step."""
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


def received(
    info: RunInfo, made: Sequence[LoggedArtifact], used: Sequence[LoggedArtifact]
) -> Received | None:
    """Ask the server what it has of a run, and of what it made and used; None if it has no such run.

    Raises:
        BackendUnavailableError: no login, no answer, or an answer that says no.
    """
    check_login()
    wait_for_orphan(info.id)
    try:
        api = wandb.Api(timeout=API_SECONDS)
        run = _find(info, api)
        if run is None:
            return None
        collections = Collections(api, run.entity)
        return replace(
            _received(run),
            missing_artifacts=missing_artifacts(collections, made, run.project),
            missing_uses=missing_uses(collections, run, used),
        )
    except Exception as error:  # some of the client's errors are of no class of its own
        msg = f"cannot ask {api_url()}: {str(error).strip() or type(error).__name__}"
        raise BackendUnavailableError(msg) from error
    finally:
        end_client_in_time()


def shows_end(info: RunInfo, seconds: float) -> bool:
    """Say whether the server tells, within so many seconds, that the run ended.

    It is told so last: then it has all else, too.
    """
    deadline, pause = monotonic() + seconds, 0.1
    try:
        run = _find(info, wandb.Api(timeout=max(1, round(seconds))))
        while run is not None and run.state == "running" and monotonic() + pause < deadline:
            sleep(pause)
            pause *= 2
            run.load(force=True)
    except wandb.Error:
        return False
    return run is not None and run.state != "running"


def _find(info: RunInfo, api: Any) -> Any:
    entity = info.entity or api.default_entity
    try:
        return api.run(f"{entity}/{info.project}/{info.id}")
    except (CommError, ValueError) as error:
        if "could not find" in str(error).lower():
            return None
        raise


def _received(run: Any) -> Received:
    """Return what the server has of a run, but for artifacts."""
    keys: dict[int, frozenset[str]] = {}
    interned: dict[frozenset[str], frozenset[str]] = {}
    last, count = -1, 0
    charts = charts_by_table(run.rawconfig.get("_wandb", {}).get("visualize", {}))
    # the client asks for ranges of steps, full or empty: wide ones for high steps
    width = max(_PAGE_STEPS, run.lastHistoryStep // _MAX_PAGES + 1)
    rows: Iterable[dict[str, Any]] = run.scan_history(page_size=width, use_cache=False)
    for row in rows:
        count += 1
        last = max(last, int(row["_step"]))
        true_step = row.get(TRUE_STEP)
        step = int(row["_step"] if true_step is None else true_step)
        present = frozenset(k for k, v in row.items() if v is not None and k not in _OURS)
        present |= {charts[key] for key in present & charts.keys()} | keys.get(step, frozenset())
        keys[step] = interned.setdefault(present, present)
    return Received(
        state=_STATES.get(run.state, "running"),
        last_step=last,
        line_count=count,
        keys=keys,
        missing_artifacts=(),
        url=run.url,
        config=run.config,
        summary=run.summary_metrics,
    )
