"""W&B's filters and orders of runs, over those of a store.

The operators are MongoDB's, as far as wandb's documentation of `Api.runs` names them; as there, a comparison
with a list holds if it holds for one of its items, and `$ne` and `$nin` hold if it holds for none.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from tracklayer.errors import UsageError

_Run = TypeVar("_Run")

_FIELDS: Final[Mapping[str, str]] = {
    "name": "id",  # W&B's name for it
    "display_name": "name",
    "displayName": "name",
    "project": "project",
    "entity": "entity",
    "state": "state",
    "group": "group",
    "job_type": "job_type",
    "jobType": "job_type",
    "tags": "tags",
    "notes": "notes",
    "created_at": "created_at",
    "createdAt": "created_at",
}
"""The attributes of a run, by W&B's names for its fields."""
_NESTED: Final[Mapping[str, str]] = {"config": "config", "summary_metrics": "summary"}
_ABSENT: Final = object()


def matches(run: object, filters: Mapping[str, Any]) -> bool:
    """Say whether a run, as `Api` has it, is one that the filters describe.

    Raises:
        UsageError: a field or an operator that is not known here, or an operator's value that makes no sense.
    """
    for name, wanted in filters.items():
        if name in _COMBINED:
            holds = _COMBINED[name]([matches(run, part) for part in _listed(name, wanted)])
        else:
            holds = _holds(_field(run, name), wanted)
        if not holds:
            return False
    return True


def in_order(runs: Sequence[_Run], order: str) -> list[_Run]:
    """Return runs by a field: descending if `order` begins with `-`; those without it come last.

    Raises:
        UsageError: there is no such field.
    """
    name = order.removeprefix("-").removeprefix("+")
    found = [(_sortable(_field(run, name)), run) for run in runs]
    present = [(value, run) for value, run in found if value is not None]
    present.sort(key=lambda item: item[0])
    if order.startswith("-"):
        present.reverse()
    return [*(run for _, run in present), *(run for value, run in found if value is None)]


def _sortable(value: Any) -> tuple[bool, Any] | None:
    """Return what sorts numbers before words; None for what is neither."""
    if isinstance(value, (int, float)) and not math.isnan(value):
        return False, value
    return (True, value) if isinstance(value, str) else None


def _field(run: object, name: str) -> Any:
    first, _, rest = name.partition(".")
    if first in _NESTED and rest:
        entries = getattr(run, _NESTED[first])
        value = within(entries, rest, _ABSENT)
        return within(entries, rest.removesuffix(".value"), _ABSENT) if value is _ABSENT else value
    if name not in _FIELDS:
        known = ", ".join([*_FIELDS, *(f"{nested}.*" for nested in _NESTED)])
        msg = f"runs have no field {name!r} here; there are {known}"
        raise UsageError(msg)
    value = getattr(run, _FIELDS[name])
    return _ABSENT if value is None else value


def within(entries: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """Return what a path with dots leads to; a key may have dots itself."""
    if path in entries:
        return entries[path]
    for dot in re.finditer(re.escape("."), path):
        inner = entries.get(path[: dot.start()])
        if isinstance(inner, Mapping):
            value = within(cast("Mapping[str, Any]", inner), path[dot.end() :], _ABSENT)
            if value is not _ABSENT:
                return value
    return default


def _holds(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        conditions = cast("Mapping[str, Any]", wanted)
        if any(name.startswith("$") for name in conditions):
            return all(_compare(name, value, operand) for name, operand in conditions.items())
    return _compare("$eq", value, wanted)


def _compare(name: str, value: Any, operand: Any) -> bool:
    if name == "$exists":
        return (value is not _ABSENT) == bool(operand)
    if name in _NEGATED:
        return not _compare(_NEGATED[name], value, operand)
    if name not in _COMPARED:
        known = ", ".join([*_COMBINED, *_COMPARED, *_NEGATED, "$exists"])
        msg = f"filters have no operator {name!r} here; there are {known}"
        raise UsageError(msg)
    value = None if value is _ABSENT else value
    items: Sequence[Any] = [value, *value] if isinstance(value, (list, tuple)) else [value]
    return any(_COMPARED[name](item, operand) for item in items)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def holds(value: Any, operand: Any) -> bool:
        return any(
            isinstance(value, kind) and isinstance(operand, kind) and compare(value, operand)
            for kind in (float | int, str)
        )

    return holds


def _is_among(value: Any, operand: Any) -> bool:
    return value in _listed("$in", operand)


def _is_found(value: Any, pattern: Any) -> bool:
    try:
        found = re.compile(pattern)
    except (re.error, TypeError) as error:
        msg = f"filters: $regex: {pattern!r} is no regular expression: {error}"
        raise UsageError(msg) from error
    return isinstance(value, str) and found.search(value) is not None


def _listed(name: str, operand: Any) -> Sequence[Any]:
    if not isinstance(operand, (list, tuple)):
        msg = f"filters: {name} takes a list, not {operand!r}"
        raise UsageError(msg)
    return operand  # pyright: ignore[reportUnknownVariableType] - of anything


_COMBINED: Final[Mapping[str, Callable[[Sequence[bool]], bool]]] = {
    "$and": all,
    "$or": any,
    "$nor": lambda parts: not any(parts),
}
_COMPARED: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$eq": operator.eq,
    "$gt": _ordered(operator.gt),
    "$gte": _ordered(operator.ge),
    "$lt": _ordered(operator.lt),
    "$lte": _ordered(operator.le),
    "$in": _is_among,
    "$regex": _is_found,
}
_NEGATED: Final[Mapping[str, str]] = {"$ne": "$eq", "$nin": "$in"}
