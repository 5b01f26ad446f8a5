"""A run and a server in memory: what the core of push is tried against, without a store and a network."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tracklayer.delivery import Delivered, Question, Received, ReceivedRow
from tracklayer.errors import BackendLostError
from tracklayer.protocol import Backend, MetricRule, RunInfo, Status
from tracklayer.reading import Row
from tracklayer.values import Text

if TYPE_CHECKING:
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.settings import Settings
    from tracklayer.surroundings import ConsoleLine, Environment, SystemRow
    from tracklayer.values import Value


@dataclass
class MemoryRun:
    """A recorded run: a `RunReader` as far as push looks at it, which may go on."""

    info: RunInfo = field(default_factory=lambda: RunInfo("r", "p", "r", created_at=1.5, state="finished"))
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    summary: dict[str, Any] = field(default_factory=dict[str, Any])
    rules: dict[str, MetricRule] = field(default_factory=dict[str, MetricRule])
    points: dict[int, dict[str, tuple[float, Value]]] = field(default_factory=dict)
    lines: list[ConsoleLine] = field(default_factory=list)
    system: list[SystemRow] = field(default_factory=list)
    changes: int = 0
    looks: int = 0
    """How often rows were read."""

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def explicit_summary(self) -> dict[str, Any]:
        return self.summary

    @property
    def last_step(self) -> int:
        return max(self.points, default=-1)

    @property
    def revision(self) -> str:
        return f"{self.changes} {self.info.state} {self.config} {self.summary}"

    def log(self, step: int, time: float = 100.0, **values: Value) -> None:
        """Log values, with or without keys of before."""
        self.changes += 1
        for key, value in values.items():
            self.points.setdefault(step, {})[key] = (time + self.changes / 1e6, value)

    def become(self, state: Any) -> None:
        self.info = replace(self.info, state=state, exit_code=None if state == "running" else 0)

    def rows(self, after: int | None = None) -> Iterator[Row]:
        self.looks += 1
        for step in sorted(self.points):
            if after is None or step > after:
                point = self.points[step]
                time = max(time for time, _ in point.values())
                yield Row(step, time, {key: value for key, (_, value) in point.items()})

    calls = rows

    def digest(self, through: int) -> str:
        return repr([(step, sorted(p.items())) for step, p in sorted(self.points.items()) if step <= through])

    def environments(self) -> dict[int, Environment]:
        return {1: {"program": "train.py"}}

    def console(self, after: int = 0) -> Iterator[ConsoleLine]:
        return iter(self.lines[after:])

    def system_metrics(self, after: int = 0) -> Iterator[SystemRow]:
        return iter(self.system[after:])

    def artifacts(self) -> list[LoggedArtifact]:
        return []

    used_artifacts = artifacts


@dataclass
class Line:
    """A line of a server's history: its own step, and the one that it was logged at."""

    step: int
    true_step: int
    values: dict[str, Any]


@dataclass
class HostedRun:
    """A run as a server keeps it."""

    created_at: float
    state: str = "running"
    history: list[Line] = field(default_factory=list[Line])
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    summary: dict[str, Any] = field(default_factory=dict[str, Any])
    console: list[ConsoleLine] = field(default_factory=list)
    system: list[SystemRow] = field(default_factory=list)
    files: set[str] = field(default_factory=set[str])
    completed: list[int] = field(default_factory=list[int])
    """The steps whose files were completed."""

    @property
    def last_step(self) -> int:
        return max((line.step for line in self.history), default=-1)

    def cells(self) -> dict[tuple[int, str], list[Any]]:
        """The values by the step that they were logged at, and key."""
        found: dict[tuple[int, str], list[Any]] = {}
        for line in self.history:
            for key, value in line.values.items():
                found.setdefault((line.true_step, key), []).append(value)
        return found


@dataclass
class MemoryServer:
    """A hosted backend that lives in this process."""

    runs: dict[str, HostedRun] = field(default_factory=dict[str, HostedRun])
    questions: list[str] = field(default_factory=list[str])
    scans: int = 0
    """How often all rows of a run were read."""
    away: set[str] = field(default_factory=set[str])
    """Ids of runs that it fails on."""
    lines_until_cut: int | None = None
    cut: Callable[[], BaseException] = lambda: BackendLostError("the client is gone")
    takes: Callable[[Any], bool] = lambda value: True
    asked: Callable[[RunInfo], object] = lambda info: None
    environment: Any = field(default_factory=lambda: {"program": "train.py"})
    """What each process of a run must have been; None for anything."""

    def backend(self, **changes: Any) -> Backend:
        return replace(
            Backend(
                "elsewhere",
                "for tests",
                self._open,
                hosted=True,
                received=self.received,
                received_rows=self.received_rows,
                deliver=self.deliver,
            ),
            **changes,
        )

    def _open(self, *_: object) -> Any:
        raise AssertionError

    def received(self, info: RunInfo, question: Question) -> Received | None:
        self.questions.append(info.id)
        self.asked(info)
        if info.id in self.away:
            msg = "https://user:password@host is\nnot reachable"
            raise ConnectionError(msg)
        run = self.runs.get(info.id)
        if run is None:
            return None
        return Received(
            state=run.state,  # type: ignore[arg-type]
            is_ours=run.created_at == info.created_at,
            line_count=len(run.history),
            last_step=run.last_step,
            console_lines=len(run.console),
            system_rows=len(run.system),
            url=f"http://x/{info.id}",
            config=run.config,
            summary=run.summary,
            missing_files=tuple(name for name in question.files if name not in run.files),
        )

    def received_rows(self, info: RunInfo) -> Iterator[ReceivedRow]:
        self.scans += 1
        for line in self.runs[info.id].history:
            yield ReceivedRow(line.true_step, line.values)

    def deliver(
        self, reader: MemoryRun, info: RunInfo, found: Received | None, settings: Settings
    ) -> MemoryDelivery:
        return MemoryDelivery(self, info, found)


@dataclass
class MemoryDelivery:
    """A `Delivery` that keeps the rules of its contract, and demands them of its caller."""

    server: MemoryServer
    info: RunInfo
    found: Received | None
    sent_lines: int = 0
    is_late: bool = False
    is_over: bool = False
    refused: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        assert (self.found is None) == (self.info.id not in self.server.runs)
        self.run = self.server.runs.setdefault(self.info.id, HostedRun(self.info.created_at))
        self.run.state = "running"
        self.last_step = -1 if self.found is None else self.found.last_step
        self.first = len(self.run.history)

    def log(self, values: Mapping[str, Value], /, *, step: int, time: float) -> None:
        assert values
        assert not self.is_over
        assert step > self.last_step or not self._is_in_order(step), "rows come ascending, then late ones"
        taken = {key: as_json(value) for key, value in values.items() if self.server.takes(value)}
        self.refused += [f"{key} at {step}" for key in values.keys() - taken.keys()]
        if self.server.lines_until_cut == 0:
            raise self.server.cut()
        self.is_late = self.is_late or step <= self.last_step
        self.last_step = self.last_step + 1 if self.is_late else step
        self.run.history.append(Line(self.last_step, step, taken))
        self.sent_lines += 1
        if self.server.lines_until_cut is not None:
            self.server.lines_until_cut -= 1

    def _is_in_order(self, step: int) -> bool:
        """Say whether a row that is not above the last should have come before it."""
        base = -1 if self.found is None else self.found.last_step
        return not self.is_late and base < step

    def complete(self, values: Mapping[str, Value], /, *, step: int, time: float) -> None:
        assert not self.is_over
        self.run.completed.append(step)

    def update_config(self, config: Mapping[str, Any]) -> None:
        self.run.config = json.loads(json.dumps(config))

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        self.run.summary = json.loads(json.dumps(summary))

    def define_metric(self, rule: MetricRule, /) -> None:
        """Take a rule."""

    def log_artifact(self, artifact: LoggedArtifact, /) -> None:
        raise AssertionError

    use_artifact = log_artifact

    def record_environment(self, environment: Environment, /) -> None:
        assert self.server.environment is None or environment == self.server.environment

    def log_console(self, lines: Sequence[ConsoleLine], /) -> None:
        self.run.console += lines

    def log_system(self, row: SystemRow, /) -> None:
        self.run.system.append(row)

    def commit(self) -> None:
        """Have nothing to do."""

    def finish(self, status: Status, /) -> None:
        if self.server.lines_until_cut == 0:
            raise self.server.cut()
        self.run.state = status.state
        self.is_over = True

    def abandon(self) -> None:
        self.is_over = True

    @property
    def delivered(self) -> Delivered:
        assert self.is_over
        return Delivered(
            lines=self.sent_lines,
            last_step=self.last_step,
            console_lines=len(self.run.console),
            system_rows=len(self.run.system),
            refused=tuple(self.refused),
        )


def as_json(value: Value) -> Any:
    """Return what a server makes of a value."""
    if isinstance(value, Text):
        return value.text
    if isinstance(value, (int, float)):
        return "NaN" if math.isnan(value) else value
    return {"_type": value.kind}
