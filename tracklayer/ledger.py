"""The push ledger: what each target has confirmed of a run, and what was being sent when a push was cut off.

A small JSON file a run, beside the run's file and never in it, because another machine may be writing that
one.  It is replaced by rename.  Lost or not copied along, it costs a look at the server, nothing else.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast, final

from tracklayer.errors import RunInUseError
from tracklayer.naming import file_name


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """A push that began, and did not come to its end.

    Attributes:
        lines, last_step, through, rows: what the target had then; see `tracklayer.planning.Base`.
        upto: the highest step that was to be sent.
        digest: the run's, through that step; empty where the rows to send followed from a look at all those
            that the target had.
        is_whole: all that was logged at `through` or below it was there.
        host, pid: the process that sent.
        at: when it began, in Unix seconds.
        scratch: the folder that it used.
        mark: of a copy that was about to be moved into its place: what it would look like there.
    """

    lines: int = 0
    last_step: int = -1
    through: int = -1
    rows: int = 0
    upto: int = -1
    digest: str = ""
    is_whole: bool = True
    host: str = ""
    pid: int = 0
    at: float = 0.0
    scratch: str = ""
    mark: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a target has confirmed of a run.

    Attributes:
        revision: the run's, when all of it that can be sent was there; empty if there is more to send.
        labels: a word for the artifacts that the run made, and their aliases.
        through: the highest step that is there.
        digest: the run's, through that step; empty where something at or below it still is to be sent.
        lines, last_step: the rows and the highest step of the target's history; -1 lines where that is not
            known, as in entries of earlier versions.
        rows: the steps that are there.
        late, repeated: the rows that came late; and those of which the target keeps an earlier value.
        waiting: the rows that are not sent before the run has gone on, or has ended.
        state: the run's, as it was told.
        url: where people see it.
        confirmed_at: Unix seconds; 0 where nothing was confirmed.
        mark: of a copy: what it looks like in its place, so that changes are noticed.
        sending: the push that was cut off.
    """

    revision: str = ""
    labels: str = ""
    through: int = -1
    digest: str = ""
    lines: int = -1
    last_step: int = -1
    rows: int = 0
    late: int = 0
    repeated: int = 0
    waiting: int = 0
    state: str = ""
    url: str = ""
    confirmed_at: float = 0.0
    mark: str = ""
    sending: Sending | None = None


@final
class Ledger:
    """What the targets of one run's pushes have confirmed."""

    def __init__(self, store: Path, run_id: str) -> None:
        self._run_id = run_id
        self._path = store / "ledgers" / f"{file_name(run_id)}.json"

    @contextmanager
    def locked(self, seconds: float) -> Generator[None]:
        """Be the one process that pushes this run; a process that is killed is none any more.

        Args:
            seconds: how long to wait for another one.

        Raises:
            RunInUseError: another process pushes it.
            OSError: the store cannot be written.
        """
        from filelock import FileLock, Timeout

        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._path.with_suffix(".lock"), timeout=seconds)
        try:
            lock.acquire()
        except Timeout as error:
            msg = f"another push of run {self._run_id!r} is at work"
            raise RunInUseError(msg) from error
        try:
            yield
        finally:
            lock.release()

    def entry(self, target: str) -> Entry:
        """Return what a target has confirmed."""
        return self.targets().get(target, Entry())

    def record(self, target: str, entry: Entry) -> None:
        """Record what a target has confirmed, and what is being sent.

        Raises:
            OSError: the store cannot be written.
        """
        entries = {**self._read(), target: _told(entry)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{self._path.name}-", dir=self._path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(entries, file, indent=1)
            Path(name).replace(self._path)
        finally:
            Path(name).unlink(missing_ok=True)

    def targets(self) -> dict[str, Entry]:
        """Return every target's entry."""
        return {target: _entry(data) for target, data in self._read().items()}

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}  # none yet, or torn by another program: the server knows
        return cast("dict[str, Any]", entries) if isinstance(entries, dict) else {}


def _told(record: Entry | Sending) -> dict[str, Any]:
    """Return a record as JSON data, without what is as it is by default."""
    told = {field.name: getattr(record, field.name) for field in fields(record)}
    told = {name: value for name, value in told.items() if value != getattr(type(record)(), name)}
    return {name: _told(value) if isinstance(value, Sending) else value for name, value in told.items()}


def _entry(data: object) -> Entry:
    told = _mapping(data)
    sending = told.get("sending")
    return Entry(
        **_known(Entry(), told),
        sending=None if sending is None else Sending(**_known(Sending(), _mapping(sending))),
    )


def _mapping(data: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", data) if isinstance(data, Mapping) else {}


def _known(default: Entry | Sending, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of a record, as far as its types are right: other versions wrote it, maybe."""
    return {
        field.name: told[field.name]
        for field in fields(default)
        if field.name in told and type(told[field.name]) is type(getattr(default, field.name))
    }
