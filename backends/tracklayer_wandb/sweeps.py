"""Sweeps of the W&B server, by the public client: a real W&B sweep, whose trials `init` records.

The client's agent calls the function in a thread of its own, and asks the server for a trial, or whether to
stop one, each 5 s; for about 10 s more it waits when there is none left.  What stands here reaches below its
public interface in one point: who may print (wandb 0.31).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Final

import wandb
from wandb.errors import term
from wandb.sdk import wandb_setup

from tracklayer.errors import BackendUnavailableError, SweepNotFoundError, TracklayerError, UsageError
from tracklayer.settings import DEFAULT_PROJECT, wandb_default
from tracklayer_wandb.asking import api, ask, http_status
from tracklayer_wandb.client import end_client_in_time
from tracklayer_wandb.explaining import without_secrets
from tracklayer_wandb.login import api_url, quiet_client

_wandb: Any = wandb  # what these two take is only partly typed there
_BAD_REQUEST: Final = 400
_STATE: Final = """
query GetSweepState($entity: String, $project: String, $sweep: String!) {
    project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) { state } }
}
"""


def create(
    config: Mapping[str, Any], project: str | None, entity: str | None, prior_runs: Sequence[str] | None
) -> str:
    """Start a sweep on the W&B server and return its id; see `tracklayer.protocol.SweepService`."""
    project = project or config.get("project") or wandb_default("project") or DEFAULT_PROJECT
    with _explained("create a sweep"):
        entity = entity or config.get("entity") or wandb_default("entity") or api().default_entity
        with _client_is_heard(), redirect_stdout(sys.stderr):  # its words are no result
            sweep_id: str = _wandb.sweep(dict(config), entity, project, list(prior_runs or ()))
        return sweep_id


def agent(
    sweep_id: str,
    function: Callable[[], object] | None,
    project: str | None,
    entity: str | None,
    count: int | None,
) -> None:
    """Work on trials of a sweep of the W&B server; see `tracklayer.protocol.SweepService`."""
    *place, name = sweep_id.split("/")
    if len(place) > 2 or not name:
        msg = f"sweep {sweep_id!r}: use an id, 'project/id' or 'entity/project/id'"
        raise UsageError(msg)
    project = (place[-1] if place else project) or wandb_default("project") or DEFAULT_PROJECT
    entity = (place[0] if len(place) == 2 else entity) or wandb_default("entity")
    with _explained(f"work on sweep {name}"):
        entity = entity or str(api().default_entity)
        found = ask(_STATE, entity=entity, project=project, sweep=name)["project"]
        if found is None or found["sweep"] is None:
            msg = f"no sweep {entity}/{project}/{name} at {api_url()}"
            raise SweepNotFoundError(msg)
        with _client_is_heard():
            _wandb.agent(
                name,
                function=function and _heard_after(function),
                entity=entity,
                project=project,
                count=count,
            )


def _heard_after(function: Callable[[], object]) -> Callable[[], None]:
    """Return a function after which the client is heard again: a run keeps it quiet."""

    def trial() -> None:
        try:
            function()
        finally:
            _let_client_speak()

    return trial


@contextmanager
def _client_is_heard() -> Generator[None]:
    """Let the client say on stderr what it does: for a sweep nobody else knows."""
    _let_client_speak()
    try:
        yield
    finally:
        quiet_client()


def _let_client_speak() -> None:
    term.termsetup(wandb_setup.singleton().settings, None)


@contextmanager
def _explained(what: str) -> Generator[None]:
    """Turn what the client raises into an error that says what to do."""
    try:
        yield
    except TracklayerError:
        raise
    except Exception as error:  # some of the client's errors are of no class of its own
        said = without_secrets(" ".join(str(error).split()) or type(error).__name__)
        msg = f"cannot {what} at {api_url()}: {said}"
        if http_status(error) == _BAD_REQUEST or isinstance(getattr(error, "exc", None), ValueError):
            raise UsageError(msg) from error
        msg = f"{msg}; with TRACKLAYER_BACKEND=sqlite, the same program sweeps without a server"
        raise BackendUnavailableError(msg) from error
    finally:
        end_client_in_time()
