"""Reading recorded runs: what a store's reader offers, to people and to `replay`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, final

from tracklayer.errors import AmbiguousRunError, RunNotFoundError, StoreError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tracklayer.artifacts.artifact import Artifact
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.media.base import Media
    from tracklayer.protocol import MetricRule, RunInfo, State
    from tracklayer.surroundings import ConsoleLine, Environment, SystemRow
    from tracklayer.values import Histogram, Text, Value


class Row(NamedTuple):
    """The values at one step; `time` is Unix seconds."""

    step: int
    time: float
    values: dict[str, Value]


class MediaPoint(NamedTuple):
    """What is no scalar, at one step; `time` is Unix seconds.  Files are read when they are asked for."""

    key: str
    step: int
    time: float
    value: Text | Histogram | Media


@final
@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One scalar's series, one point a step, steps ascending.

    `step` is int64 of shape (n,), `time` float64 in Unix seconds, `value` int64 where every value is an
    integer and float64 otherwise.  Where a series was logged for each of several seeds, `value` is of shape
    (n, seeds): NaN where a seed has no value at a step.
    """

    key: str
    step: NDArray[np.int64]
    time: NDArray[np.float64]
    value: NDArray[np.int64] | NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.step)


@final
@dataclass(frozen=True, slots=True)
class Segment:
    """One process's stretch of a run.  Times are Unix seconds."""

    number: int
    host: str
    pid: int
    started_at: float
    heartbeat_at: float
    ended_at: float | None
    state: State


class RunReader(Protocol):
    """A recorded run.  Reading one that is still written is safe; each call sees what is there then."""

    @property
    def id(self) -> str:
        """The run's id."""
        ...

    @property
    def info(self) -> RunInfo:
        """What the run is, and its state now."""
        ...

    @property
    def config(self) -> dict[str, Any]:
        """The config, nested as it was given."""
        ...

    @property
    def summary(self) -> dict[str, Any]:
        """The metrics by their rules (the last value by default), and what was set by hand."""
        ...

    @property
    def explicit_summary(self) -> dict[str, Any]:
        """The part of the summary that was set by hand."""
        ...

    @property
    def rules(self) -> dict[str, MetricRule]:
        """The metric rules, by pattern."""
        ...

    @property
    def segments(self) -> list[Segment]:
        """The processes that recorded the run, in order."""
        ...

    @property
    def last_step(self) -> int:
        """The highest step that was logged; -1 for none."""
        ...

    @property
    def revision(self) -> str:
        """A word that changes whenever anything that a push would send has changed."""
        ...

    def keys(self) -> list[str]:
        """Return every logged key, of any kind, in the order of first appearance."""
        ...

    def metric(self, key: str) -> Metric:
        """Return a scalar's series, or those of all seeds where there is one for each.

        Raises:
            LookupError: nothing was logged under that key; the message lists close ones.
        """
        ...

    def media(self, key: str | None = None) -> Iterator[MediaPoint]:
        """Yield what is no scalar, of one key or of all, in the order of steps.

        Raises:
            LookupError: nothing was logged under that key; the message lists close ones.
        """
        ...

    def calls(self, after: int | None = None) -> Iterator[Row]:
        """Yield what was logged, one row a step and time, in that order: what a replay needs.

        Args:
            after: leave out this step and those below it.
        """
        ...

    def rows(self, after: int | None = None) -> Iterator[Row]:
        """Yield one row a step, in order; its time is that of the step's last call.

        Args:
            after: leave out this step and those below it.
        """
        ...

    def digest(self, through: int) -> str:
        """Return a word that changes when anything is logged at this step or one below it, again or anew."""
        ...

    def environments(self) -> dict[int, Environment]:
        """Return what the processes that recorded the run were, by the number of the segment."""
        ...

    def console(self, after: int = 0) -> Iterator[ConsoleLine]:
        """Yield what the run's processes printed, in order, without the first so many lines."""
        ...

    def system_metrics(self, after: int = 0) -> Iterator[SystemRow]:
        """Yield what was measured on the run's machines, in order, without the first so many rows."""
        ...

    def artifacts(self) -> list[LoggedArtifact]:
        """Return the artifacts that the run made, in order."""
        ...

    def used_artifacts(self) -> list[LoggedArtifact]:
        """Return the artifacts that the run used, in order."""
        ...

    def contents(self) -> dict[str, int]:
        """Return the sizes, in bytes by SHA-256, of the contents outside its file that the run needs.

        These are the files of its media, and of its artifacts that have no version; as long as it runs, of
        all its artifacts.
        """
        ...


def join_seeds(key: str, seeds: Mapping[int, Metric]) -> Metric:
    """Return the series of a metric's seeds as one, of shape (n, highest seed + 1)."""
    import numpy as np

    step, place = np.unique(np.concatenate([metric.step for metric in seeds.values()]), return_inverse=True)
    is_whole = len(place) == len(step) * (max(seeds) + 1) and all(
        m.value.dtype == np.int64 for m in seeds.values()
    )
    value: NDArray[Any] = np.full((len(step), max(seeds) + 1), 0 if is_whole else np.nan)
    if is_whole:
        value = value.astype(np.int64)
    time = np.full(len(step), -np.inf)
    start = 0
    for seed, metric in seeds.items():
        rows = place[start : start + len(metric)]
        value[rows, seed] = metric.value
        time[rows] = np.maximum(time[rows], metric.time)
        start += len(metric)
    return Metric(key, step, time, value)


@final
@dataclass(frozen=True, slots=True)
class UnreadableRun:
    """A run whose file cannot be read, and why."""

    name: str
    path: Path
    error: StoreError


class Store(Protocol):
    """A folder of recorded runs."""

    @property
    def path(self) -> Path:
        """The folder."""
        ...

    def runs(
        self,
        *,
        project: str | None = None,
        group: str | None = None,
        state: str | None = None,
    ) -> list[RunReader]:
        """Return the readable runs, oldest first."""
        ...

    def run(self, ref: str) -> RunReader:
        """Return the run with this id, unique id prefix, or name.

        Raises:
            RunNotFoundError: there is none.
            AmbiguousRunError: there are several; the message lists them.
            StoreError: its file cannot be read.
        """
        ...

    def find(self, run_id: str) -> RunReader | None:
        """Return the run with exactly this id, if it is there."""
        ...

    def artifact(self, ref: str, project: str | None = None) -> Artifact:
        """Return a version of an artifact: `"name"`, `"name:latest"`, `"name:v3"` or `"name:best"`.

        Args:
            ref: may begin with the project, as in `"project/name:best"`.
            project: needed only where several projects have an artifact of that name.

        Raises:
            ArtifactNotFoundError: there is none; the message lists those there are.
            AmbiguousArtifactError: several projects have one.
        """
        ...

    def artifacts(
        self,
        project: str | None = None,
        name: str | None = None,
        type: str | None = None,  # noqa: A002 - W&B's name for it
    ) -> list[Artifact]:
        """Return every version of every artifact, by project, name and number."""
        ...

    def unreadable(self) -> list[UnreadableRun]:
        """Return the runs that cannot be read."""
        ...

    def export(self, run_id: str, out: Path) -> None:
        """Write a run's file, whole, also while the run is live or after a crash.

        Raises:
            FileExistsError: `out` is there already.
        """
        ...


def pick_run(runs: Sequence[RunReader], ref: str, where: Path) -> RunReader:
    """Return the run that a person means by an id, a unique prefix of one, or a name.

    Raises:
        RunNotFoundError: none.
        AmbiguousRunError: several.
    """
    for matching in (
        [run for run in runs if run.id == ref],
        [run for run in runs if run.info.name == ref],
        [run for run in runs if ref and run.id.startswith(ref)],
    ):
        if len(matching) == 1:
            return matching[0]
        if matching:
            names = ", ".join(f"{run.id} ({run.info.name})" for run in matching[:10])
            msg = f"{ref!r} may be any of {len(matching)} runs: {names}; give a full id"
            raise AmbiguousRunError(msg)
    msg = f"no run {ref!r} in {where}; `tracklayer runs` lists those there are"
    raise RunNotFoundError(msg)


def as_replayed(info: RunInfo) -> RunInfo:
    """Return the info with which a copy of a run starts its life."""
    return replace(info, state="running", exit_code=None, finished_at=None, resumed=False, url=None)
