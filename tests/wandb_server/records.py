"""What the server is sent and what it remembers, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, final

Json: TypeAlias = Any
Variables: TypeAlias = dict[str, Json]
Row: TypeAlias = dict[str, Json]

DEFAULT_ENTITY: Final = "tester"
"""The user whom every API key logs in, and the entity of a client that names none."""

API_KEY: Final = "0123456789abcdef" * 2 + "01234567"
"""Forty characters that the client takes for a key.  The server asks that some key is there."""


def timestamp() -> str:
    """Return the time now, as W&B writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@final
@dataclass(frozen=True)
class Request:
    """One request as it came, before anything was decided about it."""

    time: float
    """Unix seconds."""
    method: str
    path: str
    operation: str | None
    """The GraphQL operation's name; None for anything but `/graphql`."""
    body: Json
    """Parsed JSON; for an upload the bytes themselves; None when empty."""
    size: int = 0
    """Bytes of the body, as they came."""

    @property
    def variables(self) -> Variables:
        """The GraphQL variables; empty for anything but `/graphql`."""
        return {} if self.operation is None else self.body.get("variables") or {}

    @property
    def is_stream(self) -> bool:
        """Whether it brings rows, a summary, console lines or the end of a run."""
        return self.path.endswith("/file_stream")

    @property
    def has_history(self) -> bool:
        """Whether it brings rows."""
        body: dict[str, Json] = (self.is_stream and self.body) or {}
        return "wandb-history.jsonl" in body.get("files", {})


@final
@dataclass(frozen=True)
class Failure:
    """What happens to a request instead of a proper answer, which with `delay` alone comes late."""

    status: int | None = None
    """The HTTP status.  200 makes it a GraphQL error, which W&B uses too."""
    message: str = "the test asked for this failure"
    retry_after: float | None = None
    """Seconds, sent as the `Retry-After` header."""
    drop: bool = False
    """Close the connection without an answer."""
    delay: float = 0.0
    """Seconds that the request is on its way: it is carried out then, even if who sent it is gone."""
    carried_out: bool = False
    """Do what was asked all the same: only the answer is lost, so a naive client sends twice."""
    answer_delay: float = 0.0
    """Seconds that the answer is on its way, after what was asked was done."""
    cut: bool = False
    """Close the connection in the middle of the answer."""


FailRule: TypeAlias = Callable[[Request], Failure | None]


class RefusedError(Exception):
    """The server's considered no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@final
@dataclass
class ServedArtifact:
    """One version of an artifact."""

    id: str
    entity: str
    project: str
    type: str
    name: str
    """The collection's name, without a version."""
    digest: str
    description: str | None
    metadata: dict[str, Json]
    requested_aliases: list[str]
    created_by: str | None
    """The run that asked for it first."""
    version: int | None = None
    """None until committed, so that an abandoned upload uses up no version."""
    aliases: list[str] = field(default_factory=list[str])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """By path, once committed."""
    manifest: dict[str, Json] = field(default_factory=dict[str, Json])
    """As uploaded; `contents` lists references too, which have no file here."""
    used_by: list[str] = field(default_factory=list[str])
    """Ids of the runs that declared it as their input."""
    created_at: str = field(default_factory=timestamp)


@final
@dataclass
class ServedSweep:
    """One sweep."""

    entity: str
    project: str
    id: str
    config: Json
    """As sent, read from its YAML."""
    prior_runs: list[str]
    waiting: list[dict[str, Json]]
    """What is still to be handed out: the points of a grid, and for other methods what the test puts here."""
    runs: list[str] = field(default_factory=list[str])
    """Ids of the runs that were handed out, in order."""
    stopping: set[str] = field(default_factory=set[str])
    """Ids of runs that their agent is to stop, at the test's wish."""


@final
@dataclass
class ServedRun:
    """One run as the server has it now."""

    entity: str
    project: str
    id: str
    storage_id: str
    name: str = ""
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    tags: list[str] = field(default_factory=list[str])
    raw_config: dict[str, Json] = field(default_factory=dict[str, Json])
    """As sent: `{"key": {"value": …}}`, with the client's own `_wandb` beside the user's keys."""
    history: list[Row] = field(default_factory=list[Row])
    """In line order.  A line that was never sent shows as an empty row."""
    history_ranges: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """The (offset, count) of each upload of history lines that was carried out."""
    last_step: int = -1
    """The highest of the history."""
    key_counts: Counter[str] = field(default_factory=Counter[str])
    """How often each key came; lines that came again count again."""
    events: list[Row] = field(default_factory=list[Row])
    """System metrics, in line order."""
    console: list[str] = field(default_factory=list[str])
    summary: dict[str, Json] = field(default_factory=dict[str, Json])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    announced: set[str] = field(default_factory=set[str])
    """Files for whose upload an address was asked: until they come, they are listed, with nothing in them."""
    artifacts: list[ServedArtifact] = field(default_factory=list[ServedArtifact])
    """What the run logged, once committed."""
    state: str = "running"
    """Then "finished" or "failed", by the exit code; "crashed" only when a test sets it.  A run of a sweep
    begins as "pending"."""
    exit_code: int | None = None
    program: str | None = None
    host: str | None = None
    commit: str | None = None
    sweep: str | None = None
    created_at: str = field(default_factory=timestamp)
    heartbeat_at: str = field(default_factory=timestamp)

    @property
    def key(self) -> tuple[str, str, str]:
        """Entity, project and id."""
        return self.entity, self.project, self.id

    @property
    def config(self) -> dict[str, Json]:
        """What the user passed: plain and nested, without the client's own `_wandb`."""
        return {key: item["value"] for key, item in self.raw_config.items() if key != "_wandb"}
