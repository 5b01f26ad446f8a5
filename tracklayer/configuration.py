"""The run's `config` and `summary`, and how what users put there becomes JSON-like data."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, NoReturn, cast, final

from tracklayer import reporting
from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.media.base import Media
from tracklayer.values import Histogram

_MAX_ARRAY: Final = 1000  # elements; a larger one is no setting, nor a result in one number
_MAX_WORDS: Final = 200  # characters
_LITTLE_IS_LEFT: Final = (" at 0x", "...", "\n")  # of an object without a `__str__`, of a large one


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


def checked_mapping(source: Any, what: str = "config") -> Mapping[str, Any]:
    """Return the mapping view of what is given as a config, or as what is named.

    Raises:
        UsageError: it has none.
    """
    view = as_mapping(source)
    if view is None:
        msg = f"{what} takes a mapping, dataclass or namespace, not {type(source).__name__}"
        if isinstance(source, (str, os.PathLike)):
            msg += "; read the file, and give what it holds"
        raise UsageError(msg)
    return view


def plain(value: Any, path: str, strange: list[str]) -> Any:  # noqa: PLR0911 - one return a kind of value
    """Return JSON-like data for a value; `strange` collects the paths of which little is left.

    Numbers, strings, lists, None and anything with a mapping view stay what they are; tuples and sets become
    lists; numpy and jax numbers become Python's, and arrays of up to 1000 elements lists, which waits for
    their device.  Members of an enum are stored by name, paths and dates as they are written, classes and
    functions by their full name.  Anything else is stored as its `str()`.

    Raises:
        UnsupportedValueError: media and histograms, which are logged.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, (Histogram, Media)):
        msg = f"{path!r}: a {type(value).__name__} is logged, with `run.log`; here belongs plain data"
        raise UnsupportedValueError(msg)
    if isinstance(value, AbstractSet):
        return plain(sorted(cast("Iterable[Any]", value), key=repr), path, strange)
    if isinstance(value, list) or (isinstance(value, tuple) and not hasattr(value, "_asdict")):  # pyright: ignore[reportUnknownArgumentType] - see below
        items = cast("Sequence[Any]", value)
        return [plain(item, f"{path}[{i}]", strange) for i, item in enumerate(items)]
    numbers = _numbers(value)
    if numbers is not None:
        return numbers
    mapping = as_mapping(value)
    if mapping is not None:
        return {str(k): plain(v, f"{path}.{k}" if path else str(k), strange) for k, v in mapping.items()}
    words = _in_words(value)
    if len(words) > _MAX_WORDS or any(mark in words for mark in _LITTLE_IS_LEFT):
        strange.append(path)
    return words


def laid_over(
    config: Mapping[str, Any], values: Mapping[str, Any], replaced: list[str], path: str = ""
) -> dict[str, Any]:
    """Return a config with values laid over it, nested ones too; `replaced` collects the paths of others."""
    result = dict(config)
    for key, value in values.items():
        old = result.get(key)
        inner = as_mapping(old) if isinstance(value, Mapping) else None
        if inner is not None:
            result[key] = laid_over(inner, cast("Mapping[str, Any]", value), replaced, f"{path}{key}.")
        else:
            if key in result and plain(old, key, []) != value:
                replaced.append(path + key)
            result[key] = value
    return result


def _numbers(value: Any) -> Any:
    """Return the number in a numpy or jax scalar, or those in an array as nested lists; None for others."""
    numpy = sys.modules.get("numpy")
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if numpy is None or not isinstance(shape, tuple) or dtype is None:
        return None
    if math.prod(cast("tuple[int, ...]", shape)) > _MAX_ARRAY:
        return None
    try:
        array = numpy.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # traced, deleted, on another library's device
        return None
    if array.dtype.type.__module__ == "ml_dtypes":  # bfloat16, int4, …
        array = array.astype("int64" if "int" in array.dtype.name else "float64")
    return array.tolist() if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8 else None


def _in_words(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return value.name
    name = getattr(value, "__qualname__", None)  # of a class or a function
    if isinstance(name, str):
        return f"{value.__module__}.{name}"
    try:
        return value.isoformat() if hasattr(value, "isoformat") else str(value)
    except Exception:  # noqa: BLE001 - a stranger's `__str__` must not cost the run
        return object.__repr__(value)


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

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __repr__(self) -> str:
        return repr(dict(self))


@final
class Config(_Values):
    """The run's config: items, attributes and `update`; what changes is recorded at once."""

    _what = "config"

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(send)
        object.__setattr__(self, "_held", {})

    def hold(self, values: Mapping[str, Any]) -> None:
        """Have values that are set stay, nested ones too, whatever is said later: a trial's parameters."""
        object.__setattr__(self, "_held", values)

    def _put(self, values: Mapping[str, Any]) -> None:
        replaced: list[str] = []
        held = {key: value for key, value in self._held.items() if key in values}
        super()._put(laid_over(values, held, replaced))
        new = [path for path in replaced if path not in self._named]
        if new:
            self._named.update(new)
            reporting.warn(f"config {', '.join(new)}: a parameter of the sweep, which stays as it is")

    def update(self, *sources: Any, allow_val_change: bool | None = None, **values: Any) -> None:
        """Merge in mappings, dataclasses, namespaces, or keywords.

        Args:
            sources: what is merged in, in this order.
            allow_val_change: False refuses to change what is set already.
            values: further entries.

        Raises:
            UsageError: a source has no mapping view, or an entry may not be changed.
        """
        merged: dict[str, Any] = {}
        for source in sources:
            merged.update(checked_mapping(source))
        merged.update(values)
        if allow_val_change is False:
            changed = [k for k, v in merged.items() if k in self and plain(v, k, []) != self[k]]
            if changed:
                msg = f"config {', '.join(changed)}: set to another value already, and allow_val_change=False"
                raise UsageError(msg)
        if merged:
            self._put(merged)

    def setdefaults(self, values: Any) -> None:
        """Merge in only what is not set yet.

        Raises:
            UsageError: there is no mapping view.
        """
        self.update({k: v for k, v in checked_mapping(values).items() if k not in self})

    def as_dict(self) -> dict[str, Any]:
        """Return a copy."""
        return dict(self)


@final
class Summary(_Values):
    """The run's summary: the metrics by their rules, and what is set by hand, which wins.

    What is nested is reached the same way: `summary["best"]["loss"] = 1` sets the entry `best`.
    """

    _what = "summary"

    def __init__(self, send: Callable[[dict[str, Any]], None], metrics: Callable[[], dict[str, Any]]) -> None:
        super().__init__(send)
        object.__setattr__(self, "_metrics", metrics)

    def _all(self) -> dict[str, Any]:
        return {**self._metrics(), **self._data}

    def __getitem__(self, key: str) -> Any:
        return _within(self, key, self._all()[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def update(self, *sources: Any, **values: Any) -> None:
        """Set several entries.

        Raises:
            UsageError: a source has no mapping view.
        """
        for source in sources:
            self._put(checked_mapping(source, "summary"))
        if values:
            self._put(values)


@final
class _Nested(dict[str, Any]):
    """What is nested in a summary: a dict, a change of which sets the entry that it is nested in."""

    __slots__ = ("_send",)
    _send: Callable[[dict[str, Any]], None]

    def __init__(self, values: Mapping[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
        object.__setattr__(self, "_send", send)
        super().__init__({key: _within(self, key, value) for key, value in values.items()})

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            msg = f"summary has no entry {name!r} here"
            raise AttributeError(msg) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def update(self, *sources: Any, **values: Any) -> None:
        """Set several entries."""
        for source in (*sources, values):
            self._send({**self, **dict(source)})
            super().update(source)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return an entry, which is set if it is not there."""
        if key not in self:
            self[key] = default
        return self[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # a copy is a plain dict

    def _cannot_remove(self, *_: object) -> NoReturn:
        msg = "summary entries are recorded when they are set, and cannot be removed"
        raise UsageError(msg)

    __delitem__ = __delattr__ = clear = pop = popitem = _cannot_remove


def _within(parent: Summary | _Nested, key: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return _Nested(cast("dict[str, Any]", value), partial(parent.__setitem__, key))
