"""What differs between two runs: their config, code and environment; and their summaries, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from tracklayer.environment.git import file_of, split_diff

if TYPE_CHECKING:
    from tracklayer.reading import RunReader
    from tracklayer.surroundings import Environment

Pairs: TypeAlias = dict[str, dict[str, Any]]
"""By key, `first` and `second`: what each run has; one that has nothing is absent."""

_OF_CODE: Final = ("program", "args", "code")
_OF_ONE_PROCESS: Final = frozenset(
    {
        *("started_at", "pid", "cwd", "slurm", "kubernetes", "preempted_by"),
        *("git", "diff", "diff_truncated", "diff_without", "untracked", "untracked_code", *_OF_CODE),
    }
)
"""What is of the code, or says nothing about how a process computes."""


def compare_runs(first: RunReader, second: RunReader) -> dict[str, Any]:
    """Return what differs between two runs, as JSON data.

    `config`, `environment`, `metrics` and the `facts` of `code` map keys, with dots where they are nested,
    to the values that the two have; `metrics` are the whole summaries.  The `files` of `code` are those that
    were changed after the commit in the `first` alone, in the `second` alone, or in both but not alike
    (`differs`); where both runs have a snapshot of their code, those that differ between the snapshots.
    """
    was, now = _last(first), _last(second)
    return {
        "first": {"id": first.id, "name": first.info.name},
        "second": {"id": second.id, "name": second.info.name},
        "config": _differing(_flat(first.config), _flat(second.config)),
        "code": {
            "facts": _differing(_facts_of_code(was), _facts_of_code(now)),
            "files": _differing_files(first, second, was, now),
        },
        "environment": _differing(_facts_of_machine(was), _facts_of_machine(now)),
        "metrics": _side_by_side(_flat(first.summary), _flat(second.summary)),
    }


def _last(run: RunReader) -> Environment:
    """Return what the run's last process was, of those that said it."""
    known = run.environments()
    return known[max(known)] if known else {}


def _facts_of_code(environment: Environment) -> dict[str, Any]:
    git = {name: value for name, value in environment.get("git", {}).items() if name != "root"}
    return git | {name: environment[name] for name in _OF_CODE if name in environment}


def _facts_of_machine(environment: Environment) -> dict[str, Any]:
    return _flat({name: value for name, value in environment.items() if name not in _OF_ONE_PROCESS})


def _differing_files(
    first: RunReader, second: RunReader, was: Environment, now: Environment
) -> dict[str, Literal["first", "second", "differs"]]:
    snapshots = [_files_of_snapshot(first, was), _files_of_snapshot(second, now)]
    before, after = snapshots if all(snapshots) else [_files_of_diff(was), _files_of_diff(now)]
    return {
        path: "differs" if path in before and path in after else "first" if path in before else "second"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    }


def _files_of_snapshot(run: RunReader, environment: Environment) -> dict[str, str]:
    label = environment.get("code")
    return {
        file.path: file.digest
        for artifact in run.artifacts()
        if artifact.label == label
        for file in artifact.files
    }


def _files_of_diff(environment: Environment) -> dict[str, str]:
    texts = (environment.get("diff", ""), environment.get("untracked_code", ""))
    return {file_of(part): part for text in texts for part in split_diff(text)}


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested data as one mapping, its keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(cast("Mapping[str, Any]", value), f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> Pairs:
    both = _side_by_side(first, second)
    return {key: pair for key, pair in both.items() if not _is_same(pair)}


def _side_by_side(first: Mapping[str, Any], second: Mapping[str, Any]) -> Pairs:
    return {
        key: {name: run[key] for name, run in (("first", first), ("second", second)) if key in run}
        for key in dict.fromkeys([*first, *second])
    }


def _is_same(pair: Mapping[str, Any]) -> bool:
    if len(pair) < 2:
        return False
    first, second = pair["first"], pair["second"]
    return bool(first == second) or (first != first and second != second)  # noqa: PLR0124 - NaN, which equals nothing
