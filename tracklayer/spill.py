"""Calls written to the local temporary folder, while the place where they belong cannot take them.

The first line says which run it is, then there is one JSON line a call; NaN and the infinities stand
as JavaScript writes them.  Nothing is ever unpickled.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from tracklayer.alerts.alert import Alert, AlertLevel
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.contents import Content
from tracklayer.errors import CorruptRunError
from tracklayer.media.base import Media
from tracklayer.naming import file_name
from tracklayer.protocol import (
    MetricRule,
    RunInfo,
    Status,
    TakesAlerts,
    TakesConsole,
    TakesEnvironment,
    TakesMetricRules,
    TakesPreemption,
    TakesSystemMetrics,
    TakesUses,
)
from tracklayer.rows import ReadyRow
from tracklayer.surroundings import ConsoleLine, SystemRow
from tracklayer.values import Value, value_from_json

if TYPE_CHECKING:
    from tracklayer.protocol import Run

_HEADER: Final = "run"
_CAPABILITIES: Final[Mapping[str, type]] = {
    "alert": TakesAlerts,
    "define_metric": TakesMetricRules,
    "mark_preempting": TakesPreemption,
    "use_artifact": TakesUses,
    "record_environment": TakesEnvironment,
    "log_console": TakesConsole,
    "log_system": TakesSystemMetrics,
}
"""What a run must be to have these methods; all runs have the others."""


class Call(NamedTuple):
    """Any other call of the `Run` protocol that waits in a queue, or its `finish` in a file.

    `size` is about how many bytes it holds, where that may be many.
    """

    method: str
    argument: Any
    size: int = 0

    def apply(self, run: Run) -> None:
        """Make the call; a run that does not have the method gets nothing."""
        capability = _CAPABILITIES.get(self.method)
        if capability is None or isinstance(run, capability):
            getattr(run, self.method)(self.argument)


@final
class Spill:
    """One file of calls, written by whoever logs, then read back once, in order."""

    def __init__(self, run: RunInfo) -> None:
        handle, name = tempfile.mkstemp(prefix=f"tracklayer-{file_name(run.id)}-", suffix=".jsonl")
        self.path = Path(name)
        self.count = 0
        self._size = 0
        # unbuffered: what cannot be written now must not come out later, in the middle of a line
        self._file = os.fdopen(handle, "wb", buffering=0)
        try:
            self._write_line([_HEADER, asdict(run)])
        except OSError:
            self.close()
            self.remove()
            raise

    def write(self, item: ReadyRow | Call) -> None:
        """Append one call, whole or not at all.

        Raises:
            OSError: the temporary folder is full, too.
        """
        self._write_line(_encode(item))
        self.count += 1

    def _write_line(self, data: list[Any]) -> None:
        line = f"{json.dumps(data)}\n".encode()
        written = 0
        try:
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError:
            self._file.seek(self._size)
            self._file.truncate()
            raise
        self._size += written

    def close(self) -> None:
        """Write no more."""
        self._file.close()

    def remove(self) -> None:
        """Delete the file: what it held is recorded."""
        self.path.unlink(missing_ok=True)


def read_spill(path: Path) -> Iterator[ReadyRow | Call]:
    """Yield the calls of a spill file in order; a torn last line is left out.

    Raises:
        CorruptRunError: the file is none of ours.
    """
    for data in _read(path):
        if data[0] != _HEADER:
            with _ours(path):
                item = _decode(data)
            yield item


def spilled_run(path: Path) -> RunInfo:
    """Return what the run is whose calls a spill file holds.

    Raises:
        CorruptRunError: the file is none of ours.
    """
    header = next(_read(path), None)
    with _ours(path):
        if header is None or header[0] != _HEADER:
            msg = "it does not begin with a run"
            raise ValueError(msg)
        known = {field.name for field in fields(RunInfo)}
        found: dict[str, Any] = {k: value for k, value in header[1].items() if k in known}
        found["tags"] = tuple(found["tags"])
        return RunInfo(**found)


def _read(path: Path) -> Iterator[list[Any]]:
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                with _ours(path):
                    data = json.loads(line)
                    if not (isinstance(data, list) and data):
                        msg = "a line is no call"
                        raise ValueError(msg)
                yield data


@contextmanager
def _ours(path: Path) -> Generator[None]:
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        msg = f"{path} is no spill of tracklayer's: {error}"
        raise CorruptRunError(msg) from error


def _encode(item: ReadyRow | Call) -> list[Any]:
    if isinstance(item, Call):
        argument = item.argument
        if isinstance(argument, (Alert, LoggedArtifact, MetricRule, Status)):
            argument = asdict(argument)
        return [item.method, argument]
    step, time, values = item
    encoded = {
        key: value if isinstance(value, (int, float)) else {"kind": value.kind, **value.to_json()}
        for key, value in values.items()
    }
    files = {
        sha256: base64.b64encode(content.read()).decode()
        for value in values.values()
        if isinstance(value, Media)
        for sha256, content in value.encoded.contents.items()
    }
    return ["log", step, time, encoded, files] if files else ["log", step, time, encoded]


def _content(files: Mapping[str, str], sha256: str, size: int) -> Content:
    return Content(sha256, size, lambda: base64.b64decode(files[sha256]))


def _decode(data: list[Any]) -> ReadyRow | Call:
    method = data[0]
    if method == "log":
        return _row(data)
    decode = _ARGUMENTS.get(method)
    if decode is None:
        msg = f"unknown call {method!r}"
        raise ValueError(msg)
    return Call(method, decode(data[1]))


def _row(data: list[Any]) -> ReadyRow:
    values: dict[str, Value] = {}
    contents: dict[str, str] = data[4] if len(data) > 4 else {}
    for key, value in data[3].items():
        if isinstance(value, dict):
            fields: dict[str, Any] = dict(value)  # pyright: ignore[reportUnknownArgumentType] - JSON
            values[key] = value_from_json(fields.pop("kind"), fields, partial(_content, contents))
        else:
            values[key] = value
    return data[1], data[2], values


def _artifact(data: dict[str, Any]) -> LoggedArtifact:
    data["files"] = tuple(ArtifactFile(**file) for file in data["files"])
    data["aliases"] = tuple(data.get("aliases", ()))  # a spill of before there were versions
    return LoggedArtifact(**data)


def _rule(data: dict[str, Any]) -> MetricRule:
    data["summary"] = tuple(data["summary"])
    return MetricRule(**data)


def _alert(data: dict[str, Any]) -> Alert:
    data["level"] = AlertLevel(data["level"])
    return Alert(**data)


_ARGUMENTS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "update_config": dict,
    "update_summary": dict,
    "define_metric": _rule,
    "log_artifact": _artifact,
    "use_artifact": _artifact,
    "alert": _alert,
    "mark_preempting": str,
    "record_environment": dict,
    "log_console": lambda lines: [ConsoleLine(*line) for line in lines],
    "log_system": lambda row: SystemRow(*row),
    "finish": lambda status: Status(**status),
}
"""What makes the argument of a call out of JSON data."""
