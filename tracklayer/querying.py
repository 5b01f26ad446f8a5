"""`Api`: W&B's way to read runs back, over the store on this disk.  Tracklayer's own is `open_store`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Never, final

from tracklayer import filtering
from tracklayer.errors import ArtifactNotFoundError, RunNotFoundError, UsageError
from tracklayer.ledger import Ledger
from tracklayer.porting import refuse, tells_what_is_absent
from tracklayer.registry import open_store
from tracklayer.values import Text

if TYPE_CHECKING:
    from pathlib import Path

    from tracklayer.artifacts.artifact import Artifact
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.reading import Row, RunReader, Store


@final
@tells_what_is_absent("Api")
class Api:
    """The runs of a store, as `wandb.Api` has them.

    Args:
        overrides: a `project` and an `entity`, for paths that name none.
        dir: the store's folder; by default that of `TRACKLAYER_DIR`, else `.tracklayer`.
        others: wandb's further arguments, which are refused.

    Raises:
        UsageError: an argument of wandb's that cannot be had here.
        StoreError: there is no store, or it cannot be read.
    """

    def __init__(
        self,
        overrides: Mapping[str, str] | None = None,
        *,
        dir: str | Path | None = None,  # noqa: A002 - as `init` has it
        **others: Never,
    ) -> None:
        refuse("Api", others)
        self._given = dict(overrides or {})
        unknown = self._given.keys() - {"project", "entity"}
        if unknown:
            msg = f"Api: overrides has {', '.join(sorted(unknown))}; a store has a project and an entity only"
            raise UsageError(msg)
        self._store = open_store(dir)

    def runs(
        self,
        path: str | None = None,
        filters: Mapping[str, Any] | None = None,
        order: str = "+created_at",
        **others: Never,
    ) -> list[ApiRun]:
        """Return the runs of a project, or of all.

        Args:
            path: `project` or `entity/project`; a run that was given no entity belongs to any.
            filters: what they must be like, such as `{"config.lr": 0.1, "state": {"$ne": "crashed"}}`.
            order: a field, after `+` or `-`; runs that have it not come last.
            others: wandb's further arguments; what they ask for is refused, but those about how to read.

        Raises:
            UsageError: a field or an operator that is not known here.
        """
        refuse("Api.runs", others)
        entity, project = self._parts(path or "", 2)
        runs = [ApiRun(reader, self._store) for reader in self._store.runs(project=project)]
        return filtering.in_order(
            [
                run
                for run in runs
                if entity in {None, run.entity or entity} and filtering.matches(run, filters or {})
            ],
            order or "+created_at",
        )

    def run(self, path: str) -> ApiRun:
        """Return a run.

        Args:
            path: its id, or a unique beginning of that, or its name; `project/` and `entity/project/` may
                stand before it.

        Raises:
            RunNotFoundError: there is none.
            AmbiguousRunError: there are several; the message lists them.
            StoreError: its file cannot be read.
        """
        entity, project, ref = self._parts(path, 3)
        run = ApiRun(self._store.run(ref or ""), self._store)
        if project not in {None, run.project} or entity not in {None, run.entity or entity}:
            msg = f"run {run.id} is one of {'/'.join(run.path[:-1])}, not of {path.rpartition('/')[0]}"
            raise RunNotFoundError(msg)
        return run

    def artifact(self, name: str, type: str | None = None) -> Artifact:  # noqa: A002 - W&B's name for it
        """Return a version of an artifact.

        Args:
            name: `name:v3` or `name:alias`; `project/` and `entity/project/` may stand before it.
            type: what it has to be.

        Raises:
            ArtifactNotFoundError: there is none; the message lists those there are.
            AmbiguousArtifactError: several projects have an artifact of that name.
            UsageError: it is of another type.
        """
        _, project, ref = self._parts(name, 3)
        artifact = self._store.artifact(ref or "", project)
        if type not in {None, artifact.type}:
            msg = f"artifact {artifact.name} is of type {artifact.type!r}, not of type {type!r}"
            raise UsageError(msg)
        return artifact

    def artifacts(self, type_name: str, name: str, **others: Never) -> list[Artifact]:
        """Return the versions of an artifact, the newest first; none if there is no such artifact.

        Args:
            type_name: what it has to be.
            name: `project/` and `entity/project/` may stand before it.
            others: wandb's further arguments; what they ask for is refused, but those about how to read.
        """
        refuse("Api.artifacts", others)
        _, project, name_alone = self._parts(name, 3)
        return self._store.artifacts(project, name_alone, type_name)[::-1]

    def artifact_exists(self, name: str, type: str | None = None) -> bool:  # noqa: A002 - W&B's name for it
        """Say whether there is a version that goes by this name; see `artifact`."""
        _, project, ref = self._parts(name, 3)
        try:
            return type in {None, self._store.artifact(ref or "", project).type}
        except ArtifactNotFoundError:
            return False

    def artifact_collection_exists(self, name: str, type: str) -> bool:  # noqa: A002 - W&B's name for it
        """Say whether there is an artifact of this name and type, whatever its versions."""
        return bool(self.artifacts(type, name))

    def _parts(self, path: str, count: int) -> list[str | None]:
        parts = [part for part in path.replace("/runs/", "/").split("/") if part]  # as in a URL
        if len(parts) > count:
            msg = f"path {path!r} has {len(parts)} parts, and may have {count}"
            raise UsageError(msg)
        defaults = [self._given.get("entity"), self._given.get("project"), None][:count]
        return [*defaults[: count - len(parts)], *parts]


@final
@tells_what_is_absent("Api.run")
class ApiRun:
    """A recorded run, as `wandb.Api` has it; made by `Api`.  What is asked for is read then."""

    def __init__(self, reader: RunReader, store: Store) -> None:
        self._reader = reader
        self._store = store

    @property
    def id(self) -> str:
        """The run's id."""
        return self._reader.id

    @property
    def name(self) -> str:
        """The run's name."""
        return self._reader.info.name

    @property
    def project(self) -> str:
        """The run's project."""
        return self._reader.info.project

    @property
    def entity(self) -> str | None:
        """W&B's user or team, if one was given."""
        return self._reader.info.entity

    @property
    def path(self) -> list[str]:
        """Entity, project and id; without the entity, if none was given."""
        info = self._reader.info
        return [part for part in (info.entity, info.project, info.id) if part]

    @property
    def group(self) -> str | None:
        """The run's group."""
        return self._reader.info.group

    @property
    def job_type(self) -> str | None:
        """What a run of the group does."""
        return self._reader.info.job_type

    @property
    def tags(self) -> list[str]:
        """The run's tags."""
        return list(self._reader.info.tags)

    @property
    def notes(self) -> str | None:
        """Free text."""
        return self._reader.info.notes

    @property
    def state(self) -> str:
        """`running`, `finished`, `failed` or `crashed`."""
        return self._reader.info.state

    @property
    def created_at(self) -> str:
        """When the run was created, in UTC, as ISO 8601 has it."""
        return datetime.fromtimestamp(self._reader.info.created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def url(self) -> str | None:
        """Where W&B shows the run, if it was pushed."""
        entries = Ledger(self._store.path, self.id).targets().values()
        return next((entry.url for entry in entries if entry.url), None)

    @property
    def config(self) -> dict[str, Any]:
        """A copy of the config."""
        return self._reader.config

    @property
    def summary(self) -> ApiSummary:
        """The summary: the metrics by their rules, and what was set by hand."""
        return ApiSummary(self._reader.summary)

    @property
    def summary_metrics(self) -> dict[str, Any]:
        """A copy of the summary."""
        return self._reader.summary

    @property
    def lastHistoryStep(self) -> int:  # noqa: N802 - W&B's name for it
        """The highest step that was logged; -1 for none."""
        return self._reader.last_step

    def logged_artifacts(self) -> list[Artifact]:
        """Return the versions of artifacts that the run made, in order, but those that were deleted."""
        return self._living(self._reader.artifacts())

    def used_artifacts(self) -> list[Artifact]:
        """Return the versions of artifacts that the run used, in order, but those that were deleted."""
        return self._living(self._reader.used_artifacts())

    def _living(self, logged: Sequence[LoggedArtifact]) -> list[Artifact]:
        living: list[Artifact] = []
        for label, project in dict.fromkeys(
            (one.label, one.project) for one in logged if one.version is not None
        ):
            with suppress(ArtifactNotFoundError):
                living.append(self._store.artifact(label, project))
        return living

    def history(
        self,
        samples: int = 500,
        keys: Sequence[str] | None = None,
        x_axis: str = "_step",
        pandas: bool = True,  # noqa: FBT001, FBT002 - W&B's signature
        **others: Never,
    ) -> Any:
        """Return rows, as `scan_history` yields them; where there are more, `samples` of them, evenly spaced.

        Args:
            samples: the most rows that are returned.
            keys: only rows that have all of them, with these and `x_axis`.
            x_axis: a key that each row is to have.
            pandas: return a `pandas.DataFrame`, else a list of mappings.
            others: wandb's further arguments; what they ask for is refused.

        Raises:
            UsageError: an argument that cannot be right, or pandas is not installed.
        """
        refuse("Api.run.history", others)
        if samples < 1:
            msg = f"history: samples={samples} is less than 1"
            raise UsageError(msg)
        wanted = None if keys is None else list(dict.fromkeys([x_axis, *_checked_keys(keys)]))
        rows = [row for row in self.scan_history(wanted) if x_axis in row]
        if len(rows) > samples:
            rows = [rows[i * (len(rows) - 1) // max(samples - 1, 1)] for i in range(samples)]
        if not pandas:
            return rows
        try:
            frames = import_module("pandas")
        except ImportError as error:
            msg = "history needs pandas: install it, or pass pandas=False"
            raise UsageError(msg) from error
        return frames.DataFrame.from_records(rows)

    def scan_history(
        self,
        keys: Sequence[str] | None = None,
        *,
        min_step: int = 0,
        max_step: int | None = None,
        **others: Never,
    ) -> Iterator[dict[str, Any]]:
        """Yield one row a step, in order.

        A row holds what was logged by key, text as `str` and media as tracklayer's values, and besides
        `_step`, `_timestamp` (Unix seconds) and `_runtime` (seconds since the run was created).

        Args:
            keys: only rows that have all of them, with nothing else.
            min_step: the first step.
            max_step: the step before which it ends.
            others: wandb's further arguments, which say how to read.

        Raises:
            UsageError: an argument that cannot be right.
        """
        refuse("Api.run.scan_history", others)
        wanted = None if keys is None else _checked_keys(keys)
        start = self._reader.info.created_at
        return (
            row if wanted is None else {key: row[key] for key in wanted}
            for row in (_as_wandb(row, start) for row in self._reader.rows())
            if row["_step"] >= min_step
            and (max_step is None or row["_step"] < max_step)
            and (wanted is None or row.keys() >= set(wanted))
        )

    def __repr__(self) -> str:
        """Name the run."""
        return f"<tracklayer recorded run {'/'.join(self.path)} ({self.state})>"


@final
@tells_what_is_absent("Api.run.summary")
class ApiSummary(Mapping[str, Any]):
    """A recorded summary."""

    def __init__(self, entries: dict[str, Any]) -> None:
        self._json_dict = entries  # W&B's own examples of how to export runs reach for it

    def __getitem__(self, key: str) -> Any:
        return self._json_dict[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._json_dict)

    def __len__(self) -> int:
        return len(self._json_dict)

    def __repr__(self) -> str:
        return repr(self._json_dict)


def _as_wandb(row: Row, start: float) -> dict[str, Any]:
    values = {key: v.text if isinstance(v, Text) else v for key, v in row.values.items()}
    return {**values, "_step": row.step, "_timestamp": row.time, "_runtime": row.time - start}


def _checked_keys(keys: Sequence[str]) -> list[str]:
    if isinstance(keys, str) or not all(isinstance(key, str) for key in keys):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
        msg = f"keys={keys!r}: give a list of strings"
        raise UsageError(msg)
    return list(keys)
