"""The seam: what a backend implements, and all that the rest of tracklayer knows of it.

`Run` is implemented by every backend, by the queue in front of each, by the fan-out over several and
by the null run.  What only some can take is a small capability protocol of its own, asked for with
`isinstance`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, final, runtime_checkable

from tracklayer.values import ALL_KINDS, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracklayer.alerts.alert import Alert
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.delivery import Delivery, Question, Received, ReceivedRow
    from tracklayer.reading import RunReader, Store
    from tracklayer.settings import Settings
    from tracklayer.surroundings import ConsoleLine, Environment, SystemRow

State: TypeAlias = Literal["running", "finished", "failed", "crashed"]
Resume: TypeAlias = Literal["allow", "must", "never"]


@final
@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a run is, apart from what it logged.  Times are Unix seconds."""

    id: str
    project: str
    name: str
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None
    created_at: float = 0.0
    state: State = "running"
    exit_code: int | None = None
    finished_at: float | None = None
    resumed: bool = False
    url: str | None = None


@final
@dataclass(frozen=True, slots=True)
class Status:
    """How a run ended."""

    state: State = "finished"
    exit_code: int = 0


@final
@dataclass(frozen=True, slots=True)
class MetricRule:
    """How a metric is summarised and drawn, as W&B's `define_metric` has it.

    `pattern` is a key, or a prefix followed by `*`.  `summary` holds any of `"min"`, `"max"`, `"mean"`,
    `"last"`; `("none",)` keeps the metric out of the summary, and an empty one leaves the default, the
    last value.
    """

    pattern: str
    summary: tuple[str, ...] = ()
    step_metric: str | None = None
    goal: Literal["minimize", "maximize"] | None = None

    def matches(self, key: str) -> bool:
        """Say whether the rule is about this key."""
        if self.pattern.endswith("*"):
            return key.startswith(self.pattern[:-1])
        return key == self.pattern


def rule_for(key: str, rules: Mapping[str, MetricRule]) -> MetricRule | None:
    """Return the rule that decides about a key: its own, else that with the longest prefix."""
    own = rules.get(key)
    if own is not None:
        return own
    matching = [rule for rule in rules.values() if rule.matches(key)]
    return max(matching, key=lambda rule: len(rule.pattern), default=None)


class Run(Protocol):
    """Where one run's record goes.  Called from one thread, in order.

    A method may raise: the queue reports it once, counts it, and goes on with the next call.  An error
    of `commit` is different: nothing is given up, and the same `commit` is called again later, until it
    succeeds or raises `BackendLostError`.
    """

    @property
    def info(self) -> RunInfo:
        """What this run is, as this backend knows it."""
        ...

    def log(self, values: Mapping[str, Value], /, *, step: int, time: float) -> None:
        """Record values at a step (any order); `time` is Unix seconds.

        A (key, step) that is logged again replaces the older value.
        """
        ...

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Merge JSON-like data into the config; top-level keys are replaced whole."""
        ...

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        """Set summary entries, which then win over what follows from the metrics."""
        ...

    def log_artifact(self, artifact: LoggedArtifact, /) -> object:
        """Record an artifact and its files; what is returned is not looked at."""
        ...

    def commit(self) -> None:
        """Make what came so far durable.  Called after each batch, and every few seconds in silence."""
        ...

    def finish(self, status: Status, /) -> None:
        """Commit, record how the run ended, and let go of all resources.

        `Status("running")` lets go without an end: the run was only copied this far.
        """
        ...


@runtime_checkable
class TakesMetricRules(Protocol):
    """A run whose backend summarises metrics by rules."""

    def define_metric(self, rule: MetricRule, /) -> None:
        """Apply a rule from now on; one with the same pattern is replaced."""
        ...


@runtime_checkable
class TakesUses(Protocol):
    """A run whose backend shows which artifacts it used."""

    def use_artifact(self, artifact: LoggedArtifact, /) -> object:
        """Record that the run used this version; what is returned is not looked at."""
        ...


@runtime_checkable
class TakesEnvironment(Protocol):
    """A run whose backend keeps what its process was."""

    def record_environment(self, environment: Environment, /) -> None:
        """Record entries of what this process is; called soon after the start, and again with later ones.

        An entry that is recorded again is replaced whole.
        """
        ...


@runtime_checkable
class TakesConsole(Protocol):
    """A run whose backend keeps what its process printed."""

    def log_console(self, lines: Sequence[ConsoleLine], /) -> None:
        """Record lines, in the order in which they ended."""
        ...


@runtime_checkable
class TakesSystemMetrics(Protocol):
    """A run whose backend keeps what was measured on its machine."""

    def log_system(self, row: SystemRow, /) -> None:
        """Record what was measured at one moment."""
        ...


@runtime_checkable
class TakesAlerts(Protocol):
    """A run whose backend tells people of alerts."""

    def alert(self, alert: Alert, /) -> None:
        """Tell an alert; its text is also logged, under `alert/<title>`."""
        ...


@runtime_checkable
class TakesPreemption(Protocol):
    """A run whose backend tells a process that was preempted from one that failed."""

    def mark_preempting(self, by: str, /) -> None:
        """Show that the process is about to be ended from outside, as `by` announces."""
        ...


@runtime_checkable
class TakesRows(Protocol):
    """A run that is faster when it is handed many rows at once."""

    def log_rows(self, rows: Sequence[tuple[int, float, Mapping[str, Value]]]) -> None:
        """Record rows (step, Unix seconds, values) that hold nothing but scalars."""
        ...


@runtime_checkable
class PreparesMedia(Protocol):
    """A run whose backend makes something else of media, such as a picture of a chart."""

    def prepare(self, values: Mapping[str, Value], /) -> None:
        """Do for media what takes long, before `log` gets the same objects; called from another thread."""
        ...


@runtime_checkable
class CanBeAbandoned(Protocol):
    """A run that holds on to something, such as a client's process, for which exit would wait."""

    def abandon(self) -> None:
        """Let go at once; called from another thread, while a call of this run hangs."""
        ...


@runtime_checkable
class ChoosesCommitInterval(Protocol):
    """A run that is to be committed at another pace than the default."""

    @property
    def commit_interval(self) -> float:
        """Seconds between commits."""
        ...


class SweepService(Protocol):
    """A server that runs sweeps: it chooses the parameters of each trial, and ends those that do badly."""

    def create(
        self,
        config: Mapping[str, Any],
        project: str | None,
        entity: str | None,
        prior_runs: Sequence[str] | None,
    ) -> str:
        """Start a sweep of W&B's configuration and return its id; the server starts from `prior_runs`.

        Raises:
            UsageError: the server refuses the configuration; the message says why.
            BackendUnavailableError: the server does not answer, or this machine cannot use it.
        """
        ...

    def agent(
        self,
        sweep_id: str,
        function: Callable[[], object] | None,
        project: str | None,
        entity: str | None,
        count: int | None,
    ) -> None:
        """Work on trials of a sweep, `count` of them at most, until the server has no more.

        Each calls `function`, or runs the sweep's program where it is None.

        Raises:
            SweepNotFoundError: the server has no such sweep.
            BackendUnavailableError: the server does not answer, or this machine cannot use it.
        """
        ...


def _usable() -> None:
    """Say that nothing is missing."""


@final
@dataclass(frozen=True, slots=True)
class Backend:
    """A place that runs go: what an entry point of the group `tracklayer.backends` names.

    Attributes:
        name: the word in `TRACKLAYER_BACKEND`.
        summary: a line for `tracklayer backends`.
        open: starts or continues the run described by its `RunInfo`.  It raises `RunNotFoundError`,
            `RunExistsError` or `RunInUseError` as `resume` demands (None: the id must be new here), and
            `BackendUnavailableError` where this machine cannot use the backend.
        check: raises `BackendUnavailableError` if `open` is bound to; needs no network.
        kinds: the kinds of value that it can show (see `tracklayer.values`).
        in_order: rows must come in the order of their steps: those behind media wait until these are encoded.
            Elsewhere, media that take their time come later than the rest of their row, in a call of their
            own.
        hosted: it needs a server, so a local record accompanies it, from which `push` completes it.
        open_store: for a backend whose runs can be read back: opens its store.
        place: for a backend that keeps a run in one file or folder of its own: that one, given the store's
            folder.
        received: for a hosted backend: asks the server what it has of a run; None where it has no such run.
        received_rows: for a hosted backend: reads all rows that the server has of a run, in the order of its
            own steps, and pages of bounded size.
        deliver: for a hosted backend: sends a recorded run there, given its reader, what it is to be there,
            and what the server has of it; see `tracklayer.delivery`.
        export: for a backend whose own tools can send a run later: writes one to an empty folder for them,
            and says by which command it is sent.
        server: for a hosted backend: the address of the server that it would talk to.
        sweeps: for a hosted backend: the sweeps of its server; raises `BackendUnavailableError` where `check`
            does.
    """

    name: str
    summary: str
    open: Callable[[RunInfo, Resume | None, Settings], Run]
    check: Callable[[], None] = _usable
    kinds: frozenset[str] = ALL_KINDS
    in_order: bool = False
    hosted: bool = False
    open_store: Callable[[Path], Store] | None = None
    place: Callable[[Path, RunInfo], Path] | None = None
    received: Callable[[RunInfo, Question], Received | None] | None = None
    received_rows: Callable[[RunInfo], Iterator[ReceivedRow]] | None = None
    deliver: Callable[[RunReader, RunInfo, Received | None, Settings], Delivery] | None = None
    export: Callable[[RunReader, RunInfo, Path], tuple[Delivery, str]] | None = None
    server: Callable[[], str] | None = None
    sweeps: Callable[[], SweepService] | None = None
