"""Recovering: what a queue had to leave in spill files, recorded in the run that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from tracklayer.artifacts.records import LoggedArtifact
from tracklayer.errors import BackendLostError, BackendUnavailableError, RunNotFoundError, StoreError
from tracklayer.protocol import Status
from tracklayer.reading import as_replayed
from tracklayer.rows import ReadyRow
from tracklayer.spill import Call, read_spill, spilled_run
from tracklayer.surroundings import ConsoleLine, SystemRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tracklayer.protocol import Backend, Run
    from tracklayer.reading import RunReader
    from tracklayer.settings import Settings

_COMMIT_EVERY: Final = 10_000  # calls


@final
@dataclass(frozen=True, slots=True)
class RecoverReport:
    """What became of a run's spill files: how many calls were recorded, and why others were not.

    A call whose values were all logged again since counts as recorded.
    """

    calls: int
    refused: tuple[str, ...]


def recover(
    files: Sequence[Path], backend: Backend, settings: Settings, *, create: bool = False
) -> RecoverReport:
    """Record the calls of one run's spill files, in order, then delete the files.

    A value that was logged again since keeps the newer value.  The run ends as it had ended: as the
    files say, else as it is recorded.  Doing it twice does no harm.  Where the backend refuses a
    call, the others are recorded, and the files are kept.

    Args:
        files: spill files of one and the same run, oldest first.
        backend: one whose runs can be read back.
        settings: name the store.
        create: make the run if the store does not have it.

    Raises:
        CorruptRunError: a file is none of ours; nothing is recorded.
        RunNotFoundError: the store does not have the run.
        RunInUseError: a live process records it.
        StoreError: the store cannot be written; the files are kept.
    """
    info = spilled_run(files[0])
    since, status = _look_through(files)
    if backend.open_store is None:
        msg = f"backend {backend.name!r} keeps nothing that can be read back"
        raise BackendUnavailableError(msg)
    reader = backend.open_store(settings.dir).find(info.id)
    if reader is None and not create:
        msg = (
            f"run {info.id!r} is not in {settings.dir}: name its store with --dir, or make it "
            "there with --create"
        )
        raise RunNotFoundError(msg)
    if reader is not None:
        info = reader.info
    if status is None:
        state = "crashed" if info.state == "running" else info.state
        status = Status(state, info.exit_code or 0)
    recorded = _Recorded(reader, since)
    run = backend.open(as_replayed(info), None if reader is None else "must", settings)
    try:
        report = _record(files, run, recorded)
    except BaseException:
        _let_go(run, status)
        raise
    run.finish(status)
    if not report.refused:
        for file in files:
            file.unlink()
    return report


@final
class _Recorded:
    """What the run has that a spill must not overwrite or repeat."""

    def __init__(self, reader: RunReader | None, since: float) -> None:
        self._times: dict[tuple[str, int], float] = {}
        self._artifacts: set[tuple[str, str, str, float]] = set()
        self._lines: set[ConsoleLine] = set()
        self._measured: set[float] = set()
        if reader is None:
            return
        self._artifacts.update(_identity("log_artifact", made) for made in reader.artifacts())
        self._artifacts.update(_identity("use_artifact", used) for used in reader.used_artifacts())
        for step, time, values in reader.calls():
            if time > since:
                self._times.update(dict.fromkeys(((key, step) for key in values), time))
        self._lines.update(line for line in reader.console() if line.time >= since)
        self._measured.update(row.time for row in reader.system_metrics() if row.time >= since)

    def without_recorded(self, call: Call) -> Call | None:
        """Return what of a call is not recorded already, if anything."""
        what = call.argument
        if call.method == "log_console":
            lines = [line for line in what if line not in self._lines]
            return Call(call.method, lines) if lines else None
        if isinstance(what, LoggedArtifact):
            has = _identity(call.method, what) in self._artifacts
        else:
            has = isinstance(what, SystemRow) and what.time in self._measured
        return None if has else call

    def without_newer(self, row: ReadyRow) -> ReadyRow:
        """Return a row without the values that were logged again since."""
        step, time, values = row
        times = self._times
        return step, time, {k: v for k, v in values.items() if times.get((k, step), time) <= time}


def _identity(method: str, artifact: LoggedArtifact) -> tuple[str, str, str, float]:
    """Return what tells an artifact apart that a run made or used, from others that it made or used."""
    return method, artifact.name, artifact.type, artifact.time


def _look_through(files: Sequence[Path]) -> tuple[float, Status | None]:
    """Read the files whole before anything is recorded; return since when they log, and the end."""
    since, status = float("inf"), None
    for item in _items(files):
        if not isinstance(item, Call):
            since = min(since, item[1])
        elif item.method == "log_console":
            since = min(since, *(line.time for line in item.argument))
        elif item.method == "log_system":
            since = min(since, item.argument.time)
        elif item.method == "finish":
            status = item.argument
    return since, status


def _items(files: Sequence[Path]) -> Iterator[ReadyRow | Call]:
    for file in files:
        yield from read_spill(file)


def _record(files: Sequence[Path], run: Run, recorded: _Recorded) -> RecoverReport:
    calls, refused = 0, list[str]()
    for number, item in enumerate(_items(files), start=1):
        if not (isinstance(item, Call) and item.method == "finish"):
            try:
                _apply(item, run, recorded)
                calls += 1
            except BackendLostError:
                raise
            except Exception as error:  # noqa: BLE001 - what one call is refused for must not cost the others
                refused.append(f"line {number + 1}: {error}")
        if number % _COMMIT_EVERY == 0:
            run.commit()
    run.commit()
    return RecoverReport(calls, tuple(refused))


def _apply(item: ReadyRow | Call, run: Run, recorded: _Recorded) -> None:
    if not isinstance(item, Call):
        step, time, values = recorded.without_newer(item)
        if values:
            run.log(values, step=step, time=time)
    elif (call := recorded.without_recorded(item)) is not None:
        call.apply(run)


def _let_go(run: Run, status: Status) -> None:
    """Try to end the run again, so that its next reader does not find it crashed."""
    try:
        run.finish(status)
    except (StoreError, BackendLostError):
        return  # what stopped the recovery is raised, and says more
