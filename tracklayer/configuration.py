"""The run's `config` and `summary`, and how what users put there becomes JSON-like data."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from types import SimpleNamespace
from typing import Any, cast, final

from tracklayer import reporting
from tracklayer.errors import UsageError


def as_mapping(source: Any) -> Mapping[str, Any] | None:  # noqa: PLR0911 - one return a kind of view
    """Return the mapping view of a mapping, dataclass, namespace or the like; None for any other."""
    if isinstance(source, Mapping):
        return source  # pyright: ignore[reportUnknownVariableType] - anything may be given
    if isinstance(source, type):
        return None
    if dataclasses.is_dataclass(source):
        return {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
    if isinstance(source, (argparse.Namespace, SimpleNamespace)):
        return vars(source)
    if hasattr(source, "keys") and hasattr(source, "__getitem__"):
        return {key: source[key] for key in source.keys()}  # noqa: SIM118 - keys() is all it promises
    for view in ("flag_values_dict", "model_dump", "to_dict", "_asdict"):  # absl, pydantic, …
        method = getattr(source, view, None)
        if callable(method):
            try:
                result = method()
            except Exception:  # noqa: BLE001 - a stranger's method of that name, which means something else
                return None
            return result if isinstance(result, Mapping) else None  # pyright: ignore[reportUnknownVariableType] - as above
    return None


def checked_mapping(source: Any) -> Mapping[str, Any]:
    """Return the mapping view of what is given as a config.

    Raises:
        UsageError: it has none.
    """
    view = as_mapping(source)
    if view is None:
        msg = f"config takes a mapping, dataclass or namespace, not {type(source).__name__}"
        raise UsageError(msg)
    return view


def plain(value: Any, path: str, strange: list[str]) -> Any:  # noqa: PLR0911 - one return a kind of value
    """Return JSON-like data for a value; `strange` collects the paths that were stored as `str()`.

    Numbers, strings, lists, None and anything with a mapping view stay what they are; tuples become
    lists; numpy and jax numbers become Python's.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, list) or (isinstance(value, tuple) and not hasattr(value, "_asdict")):  # pyright: ignore[reportUnknownArgumentType] - see below
        items = cast("Sequence[Any]", value)
        return [plain(item, f"{path}[{i}]", strange) for i, item in enumerate(items)]
    number = _number(value)
    if number is not None:
        return number
    mapping = as_mapping(value)
    if mapping is not None:
        return {str(k): plain(v, f"{path}.{k}" if path else str(k), strange) for k, v in mapping.items()}
    strange.append(path)
    try:
        return str(cast("object", value))
    except Exception:  # noqa: BLE001 - a stranger's `__str__` must not cost the run
        return object.__repr__(cast("object", value))


def _number(value: Any) -> bool | int | float | None:
    """Return the number in a numpy or jax scalar."""
    numpy = sys.modules.get("numpy")
    if numpy is None or getattr(value, "shape", None) != () or not hasattr(value, "dtype"):
        return None
    try:
        number = numpy.asarray(value).item()
    except (TypeError, ValueError):
        return None
    return number if isinstance(number, (bool, int, float)) else None


class _Values(MutableMapping[str, Any]):
    """A mapping that is also reached by attributes, and passes on what changes."""

    _what = "values"

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        object.__setattr__(self, "_data", {})
        object.__setattr__(self, "_send", send)
        object.__setattr__(self, "_named", set[str]())

    def _put(self, values: Mapping[str, Any]) -> None:
        strange: list[str] = []
        data = {str(key): plain(value, str(key), strange) for key, value in values.items()}
        new = [path for path in strange if path not in self._named]
        if new:
            self._named.update(new)
            reporting.warn(f"{self._what} {', '.join(new)}: no plain data, stored as str()")
        self._data.update(data)
        self._send(data)

    def restore(self, recorded: Mapping[str, Any]) -> None:
        """Show what an earlier segment recorded, without recording it again."""
        self._data.update(recorded)

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._put({key: value})

    def __delitem__(self, key: str) -> None:
        msg = f"{self._what} entries are recorded when they are set, and cannot be removed"
        raise UsageError(msg)

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            msg = f"{self._what} has no entry {name!r}"
            raise AttributeError(msg) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._put({name: value})

    def __repr__(self) -> str:
        return repr(dict(self))


@final
class Config(_Values):
    """The run's config: items, attributes and `update`; what changes is recorded at once."""

    _what = "config"

    def update(self, *sources: Any, **values: Any) -> None:
        """Merge in mappings, dataclasses, namespaces, or keywords.

        Raises:
            UsageError: a source has no mapping view.
        """
        merged: dict[str, Any] = {}
        for source in sources:
            merged.update(checked_mapping(source))
        merged.update(values)
        if merged:
            self._put(merged)

    def setdefaults(self, values: Any) -> None:
        """Merge in only what is not set yet."""
        self.update({k: v for k, v in (as_mapping(values) or {}).items() if k not in self})


@final
class Summary(_Values):
    """The run's summary: the metrics by their rules, and what is set by hand, which wins."""

    _what = "summary"

    def __init__(self, send: Callable[[dict[str, Any]], None], metrics: Callable[[], dict[str, Any]]) -> None:
        super().__init__(send)
        object.__setattr__(self, "_metrics", metrics)

    def _all(self) -> dict[str, Any]:
        return {**self._metrics(), **self._data}

    def __getitem__(self, key: str) -> Any:
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def update(self, *sources: Any, **values: Any) -> None:
        """Set several entries."""
        for source in sources:
            self._put(source)
        if values:
            self._put(values)
