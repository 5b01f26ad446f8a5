"""Questions to the W&B server, through the client's own process: one public `Api` for all of them.

Each new `wandb.Api` keeps resources of that process until it ends.  What reaches below its public interface
here is the way to ask a question of one's own (wandb 0.31).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, final

import wandb
from wandb.proto import wandb_api_pb2
from wandb.sdk import wandb_setup
from wandb.sdk.lib.service.service_connection import (  # pyright: ignore[reportMissingTypeStubs] - a folder without __init__
    WandbApiFailedError,
)

from tracklayer.errors import BackendUnavailableError, TracklayerError
from tracklayer_wandb.artifacts import API_SECONDS
from tracklayer_wandb.client import end_client_in_time, forget_dead_client, is_death, overridden
from tracklayer_wandb.explaining import explained
from tracklayer_wandb.login import api_url

if TYPE_CHECKING:
    from tracklayer.protocol import RunInfo

_BOUNDS: Final = {
    "x_graphql_retry_max": 3,
    "x_file_transfer_retry_max": 3,
    "x_graphql_retry_wait_min_seconds": 1.0,
    "x_graphql_retry_wait_max_seconds": 4.0,
}
"""So that the client says within `API_SECONDS` what the trouble is, instead of nothing."""
_LINES: Final = """
query Run($entity: String!, $project: String!, $name: String!) {
    project(name: $project, entityName: $entity) { run(name: $name) { historyLineCount } }
}
"""

_PROTO: Any = wandb_api_pb2  # its messages are made when it is imported

_starting = threading.Lock()


def api() -> wandb.Api:
    """Return this process's `wandb.Api`; any thread may use it."""
    with _starting:
        return _api_of(wandb_setup.singleton())


def ask(query: str, **variables: Any) -> Any:
    """Return the data of a GraphQL answer."""
    return _service().execute_graphql(query, variables)


def ask_about(query: str, info: RunInfo, **variables: Any) -> Any:
    """Return the data of a GraphQL answer about one run; None where the server has no such run."""
    return _run_in(ask(query, entity=entity_of(info), project=info.project, name=info.id, **variables))


@final
class LineCount:
    """How many rows the server has of a run, to be asked on the client's own loop."""

    def __init__(self, info: RunInfo) -> None:
        place = {"entity": entity_of(info), "project": info.project, "name": info.id}
        self._service = _service()
        self._request = _PROTO.ApiRequest()
        self._request.graphql_request.query = _LINES
        self._request.graphql_request.variables_json = json.dumps(place)

    async def ask(self) -> int:
        """Return the count; 0 where there is no such run."""
        handle = await self._service.send_api_request_async(self._request)
        answer = await handle.wait_async(timeout=API_SECONDS)
        run = _run_in(json.loads(answer.graphql_response.data_json or "{}"))
        return 0 if run is None else int(run["historyLineCount"] or 0)


def entity_of(info: RunInfo) -> str:
    """Return a run's entity, which is the user's own by default."""
    return info.entity or str(api().default_entity)


@contextmanager
def asking() -> Generator[None]:
    """Turn what the client raises while it asks into `BackendUnavailableError`, with what to do."""
    client = wandb_setup.singleton()
    try:
        yield
    except TracklayerError:
        raise
    except Exception as error:  # some of the client's errors are of no class of its own
        if is_death(error):
            forget_dead_client(client)
            msg = "the wandb client's process is gone; push again"
            raise BackendUnavailableError(msg) from error
        said = explained(str(error).strip() or type(error).__name__, http_status(error))
        msg = f"cannot ask {api_url()}: {said}"
        raise BackendUnavailableError(msg) from error
    finally:
        end_client_in_time()


def http_status(error: BaseException) -> int:
    """Return the HTTP status for which the client raised an error; 0 where there is none."""
    answer: Any = getattr(_cause(error), "response", None)
    return 0 if answer is None else int(getattr(answer, "http_status", 0))


@lru_cache(maxsize=1)
def _api_of(client: Any) -> wandb.Api:
    """Return the public API of one life of the client's process."""
    with overridden(client.settings, _BOUNDS):
        return wandb.Api(timeout=API_SECONDS)


def _service() -> Any:
    public: Any = api()
    return public._service_api  # noqa: SLF001 - the one way to a question of one's own


def _run_in(data: Mapping[str, Any]) -> Any:
    """Return the run of an answer; None where there is no such project or run."""
    project: Any = data.get("project")
    return None if project is None else project.get("run")


def _cause(error: BaseException) -> BaseException:
    """Return the client's own error, which some of its others wrap."""
    while not isinstance(error, WandbApiFailedError):
        inner = getattr(error, "exc", None) or error.__cause__
        if not isinstance(inner, BaseException):
            return error
        error = inner
    return error
