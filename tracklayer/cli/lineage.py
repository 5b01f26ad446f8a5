"""Lineage: what a version of an artifact was made from, and what was made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from tracklayer.cli import output
from tracklayer.errors import ArtifactNotFoundError, RunNotFoundError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.text import Text
    from rich.tree import Tree

    from tracklayer.artifacts.catalog import Catalog, Version
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.reading import Store

_GENERATIONS: Final = 6
"""How many runs a tree shows one below the other: each takes eight characters of the width."""
_RUNS: Final = 20
"""How many runs a tree shows of those that used one version: the newest."""


class Item(NamedTuple):
    """A version of an artifact, as a run tells of it; without a number where it has none."""

    project: str
    name: str
    number: int | None

    @property
    def label(self) -> str:
        """Its name, with its version if it has one."""
        return self.name if self.number is None else f"{self.name}:v{self.number}"


@final
@dataclass(frozen=True, slots=True)
class RunNode:
    """A run, with what it used and made; of one that cannot be read, its id and the reason."""

    id: str
    name: str | None = None
    state: str | None = None
    used: tuple[Item, ...] = ()
    made: tuple[Item, ...] = ()
    problem: str | None = None


class _Side(NamedTuple):
    """One of the two ways from a version: to the runs beside it, and on to what lies behind those."""

    to_run: str
    runs_of: Callable[[Item], list[str]]
    to_item: str
    items_of: Callable[[RunNode], tuple[Item, ...]]


@final
class Lineage:
    """The runs and versions around a version.

    Each run's file is read when the run is come by, once.
    """

    def __init__(self, catalog: Catalog, store: Store, version: Version) -> None:
        self._catalog = catalog
        self._store = store
        self._version = version
        self._run = cache(self._read_run)
        self._found = cache(self._find)
        self._before = _Side("made by", self._makers, "used", _used_by)
        self._after = _Side("used by", self._users, "made", _made_by)

    def before(self) -> list[RunNode]:
        """Return the runs that made the version, those that made what these used, and so on."""
        return self._walk(self._before)

    def after(self) -> list[RunNode]:
        """Return the runs that used the version, those that used what these made, and so on."""
        return self._walk(self._after)

    def tree(self) -> Tree:
        """Return all of it as a tree; what comes again in it is not drawn again, nor what is far away."""
        from rich.text import Text
        from rich.tree import Tree

        start = _item(self._version)
        root = Tree(Text(output.safe(start.label)))
        for side in (self._before, self._after):
            self._grow(root, start, side, {start}, 1)
        return root

    def _walk(self, side: _Side) -> list[RunNode]:
        runs: dict[str, RunNode] = {}
        items = [_item(self._version)]
        seen = set(items)
        for item in items:  # which grows
            for run_id in side.runs_of(item):
                if run_id not in runs:
                    runs[run_id] = self._run(run_id)
                    new = [other for other in side.items_of(runs[run_id]) if other not in seen]
                    seen.update(new)
                    items += new
        return list(runs.values())

    def _grow(self, branch: Tree, item: Item, side: _Side, drawn: set[Item | str], generation: int) -> None:
        from rich.text import Text

        runs = side.runs_of(item)
        shown = runs[-_RUNS:] if generation <= _GENERATIONS else []
        if len(shown) < len(runs):
            more = output.counted(len(runs) - len(shown), "more run")
            branch.add(Text(f"{side.to_run} {more}: see --json"))
        for run_id in shown:
            is_new = run_id not in drawn
            drawn.add(run_id)
            below = branch.add(_run_line(side.to_run, self._run(run_id), is_new=is_new))
            for other in side.items_of(self._run(run_id)) if is_new else ():
                line = output.safe(f"{side.to_item} {self._label(other)}")
                if other in drawn:
                    below.add(Text(f"{line} (above)"))
                else:
                    drawn.add(other)
                    self._grow(below.add(Text(line)), other, side, drawn, generation + 1)

    def _label(self, item: Item) -> str:
        elsewhere = "" if item.project == self._version.project else f"{item.project}/"
        return f"{elsewhere}{item.label}{self._found(item)[1]}"

    def _makers(self, item: Item) -> list[str]:
        version, _ = self._found(item)
        return [] if version is None else self._catalog.makers(version)

    def _users(self, item: Item) -> list[str]:
        version, _ = self._found(item)
        return [] if version is None else self._catalog.users(version)

    def _find(self, item: Item) -> tuple[Version | None, str]:
        """Return a version, or None and what is to be said of it."""
        if item.number is None:
            return None, ""
        try:
            return self._catalog.get(item.project, item.name, item.number), ""
        except ArtifactNotFoundError:
            return None, " (gone)"
        except StoreError:
            return None, " (cannot be read)"

    def _read_run(self, run_id: str) -> RunNode:
        try:
            reader = self._store.find(run_id)
            if reader is None:
                return RunNode(run_id, problem="not in this store")
            info = reader.info

            def items(artifacts: list[LoggedArtifact]) -> tuple[Item, ...]:
                return tuple(
                    dict.fromkeys(Item(a.project or info.project, a.name, a.version) for a in artifacts)
                )

            used, made = items(reader.used_artifacts()), items(reader.artifacts())
        except RunNotFoundError:
            return RunNode(run_id, problem="not in this store")
        except StoreError:
            return RunNode(run_id, problem="cannot be read")
        return RunNode(run_id, info.name, info.state, used, made)


def run_entries(runs: Iterable[RunNode]) -> list[dict[str, Any]]:
    """Return runs as JSON data; versions are `project/name:v3`."""
    return [
        {
            "id": run.id,
            "name": run.name,
            "state": run.state,
            "problem": run.problem,
            "used": [f"{item.project}/{item.label}" for item in run.used],
            "made": [f"{item.project}/{item.label}" for item in run.made],
        }
        for run in runs
    ]


def _used_by(run: RunNode) -> tuple[Item, ...]:
    return run.used


def _made_by(run: RunNode) -> tuple[Item, ...]:
    return run.made


def _item(version: Version) -> Item:
    return Item(version.project, version.name, version.number)


def _run_line(relation: str, run: RunNode, *, is_new: bool) -> Text:
    from rich.text import Text

    name = "" if run.name in {None, run.id} else f"{run.name}, "
    line = Text(output.safe(f"{relation} run {run.id} ({name}"))
    line.append(run.problem or run.state or "", output.state_style(run.state))
    return line.append(")" if is_new else ") (above)")
