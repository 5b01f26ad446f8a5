"""Recording a run as event files."""

from __future__ import annotations

from dataclasses import replace
from time import time as now
from typing import TYPE_CHECKING, Any, Final, final

from tracklayer import reporting
from tracklayer.errors import (
    CorruptRunError,
    RunExistsError,
    RunFinishedError,
    RunNotFoundError,
    StoreError,
    TracklayerError,
    UnsupportedValueError,
)
from tracklayer.folders import make_store
from tracklayer.media.base import Media
from tracklayer.naming import file_name
from tracklayer_tensorboard import encoding, media
from tracklayer_tensorboard.event_file import (
    EventLog,
    clear_ends,
    end_file,
    event_files,
    mended_file,
    new_log,
    write_whole,
)
from tracklayer_tensorboard.mending import OWN_PREFIX, mend
from tracklayer_tensorboard.records import read_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
    from tracklayer.protocol import Resume, RunInfo, Status
    from tracklayer.surroundings import Environment, SystemRow
    from tracklayer.values import Value
    from tracklayer_tensorboard.encoding import Point, Shown

_CONFIG: Final = OWN_PREFIX + "config"
_SUMMARY: Final = OWN_PREFIX + "summary"
_ENVIRONMENT: Final = OWN_PREFIX + "environment"
_STATUS: Final = OWN_PREFIX + "status"
_RUN: Final = OWN_PREFIX + "run"
_ARTIFACTS: Final = OWN_PREFIX + "artifacts/"
_USED_ARTIFACTS: Final = OWN_PREFIX + "used_artifacts/"
_SYSTEM: Final = "system/"


def run_folder(store: Path, info: RunInfo) -> Path:
    """Return the folder of a run's event files."""
    return store / "tensorboard" / file_name(info.project) / file_name(info.id)


def open_run(info: RunInfo, resume: Resume | None, store: Path) -> TensorBoardRun:
    """Start a run, or continue one, as `resume` demands.

    Raises:
        RunExistsError: the run has event files, and was not to be continued.
        RunNotFoundError: it has none, and was to be.
        StoreError: the folder cannot be written.
    """
    folder = run_folder(store, info)
    try:
        earlier = event_files(folder)
        _check_resume(info.id, resume, folder, is_recorded=bool(earlier))
        _prepare(store, folder)
        begun = _begun_at(earlier)
        log = new_log(folder, earlier, now())
        return TensorBoardRun(replace(info, state="running", resumed=bool(earlier)), log, begun)
    except TracklayerError:
        raise
    except OSError as error:
        msg = f"cannot write to {folder}: {error.strerror}; choose a store with TRACKLAYER_DIR"
        raise StoreError(msg) from error


def _check_resume(run_id: str, resume: Resume | None, folder: Path, *, is_recorded: bool) -> None:
    if is_recorded and resume in {None, "never"}:
        msg = (
            f"run {run_id!r} is recorded in {folder} already: pass resume='allow' to continue it, "
            "or another id"
        )
        raise RunExistsError(msg)
    if not is_recorded and resume == "must":
        msg = f"resume='must', but there is no run {run_id!r} in {folder}"
        raise RunNotFoundError(msg)


def _begun_at(files: Iterable[Path]) -> float | None:
    """Return when the first of a run's event files was begun, in Unix seconds; None if none can be read."""
    for file in files:
        for _, data in read_records(file):
            event = encoding.parse(data)
            if event is not None:
                return event.time
    return None


def _prepare(store: Path, folder: Path) -> None:
    make_store(store)
    folder.mkdir(parents=True, exist_ok=True)
    clear_ends(folder)


@final
class TensorBoardRun:
    """A run on its way into one event file, and small ones at its end.

    The package says what TensorBoard shows of it.
    """

    def __init__(self, info: RunInfo, log: EventLog, begun: float | None) -> None:
        """Begin the segment whose event file is `log`; the run began at that Unix second, or now."""
        self.info = info
        self._log = log
        self._sizes_before = _other_sizes(log)
        self._kinds: dict[str, str] = {}
        self._steps: dict[str, int] = {}
        self._in_order = not info.resumed  # earlier segments' files are not read before the end
        self._step = 0
        self._time = info.created_at or now()
        self._begun = self._time if begun is None else begun
        self._has_rows = False
        self._has_started = False
        self._has_ended = False
        self._finished = False
        self._system_step = -1
        self._environment: dict[str, Any] = {}
        self._config: dict[str, Any] = {}
        self._summary: dict[str, Any] = {}
        self._notes: dict[str, bytes] = {}
        self._reported: set[str] = set()
        self._prepared: dict[tuple[str, int], tuple[Value, Iterable[tuple[str, Shown]]]] = {}
        """What shows media that `log` has still to get, by their keys and identities."""
        self._note(encoding.json_text(_RUN, _description(info)))
        log.append(encoding.file_start(now() if info.resumed else self._time))

    def log(self, values: Mapping[str, Value], *, step: int, time: float) -> None:
        """Record values at a step (any order); `time` is Unix seconds.

        Raises:
            RunFinishedError: the run was finished.
        """
        self._check_open()
        points: list[Point] = []
        for key, value in values.items():
            _, prepared = self._prepared.pop((key, id(value)), (value, None))
            for name, shown in self._shown(key, value) if prepared is None else prepared:
                tag = encoding.tag_for(name, shown, self._kinds)
                points.append(encoding.point(tag, shown))
                if step > self._steps.get(tag, step - 1):
                    self._steps[tag] = step
                else:
                    self._in_order = False
        self._log.append(encoding.row(points, step, time))
        self._step, self._time, self._has_rows = max(self._step, step), time, True

    def prepare(self, values: Mapping[str, Value]) -> None:
        """Draw charts and make what else shows media, on the thread that encodes them."""
        for key, value in values.items():
            self._prepared[key, id(value)] = value, self._shown(key, value)

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Merge JSON-like data into the config; top-level keys are replaced whole.

        Raises:
            RunFinishedError: the run was finished.
        """
        self._check_open()
        merged = {**self._config, **config}
        self._note(encoding.json_text(_CONFIG, merged))
        self._config = merged

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        """Set summary entries: a text of all, and a scalar of each number.

        Raises:
            RunFinishedError: the run was finished.
        """
        self._check_open()
        merged = {**self._summary, **summary}
        self._note(encoding.json_text(_SUMMARY, merged))
        self._summary = merged
        for name, value in encoding.flatten(summary):
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._note(encoding.scalar(f"{_SUMMARY}/{name}", value))

    def record_environment(self, environment: Environment) -> None:
        """Show entries of what the process is, as one text with those of before.

        Raises:
            RunFinishedError: the run was finished.
        """
        self._check_open()
        self._environment.update(environment)
        self._note(encoding.json_text(_ENVIRONMENT, self._environment))

    def log_system(self, row: SystemRow) -> None:
        """Show what was measured, as scalars whose steps are the seconds since the run began.

        So they go on in a resumed run, without a look at what is there.

        Raises:
            RunFinishedError: the run was finished.
        """
        self._check_open()
        self._system_step = max(self._system_step + 1, int(row.time - self._begun))
        points = [encoding.scalar(_SYSTEM + key, value) for key, value in row.values.items()]
        self._log.append(encoding.row(points, self._system_step, row.time))

    def log_artifact(self, artifact: LoggedArtifact) -> None:
        """Record what an artifact is and which files it has; their content stays where it lies.

        Raises:
            RunFinishedError: the run was finished.
        """
        description = {
            **_identity(artifact),
            "aliases": artifact.aliases,
            "description": artifact.description,
            "metadata": artifact.metadata,
            "files": [_file(file) for file in artifact.files],
        }
        self._note_artifact(_ARTIFACTS + artifact.name, description, artifact.time)

    def use_artifact(self, artifact: LoggedArtifact) -> None:
        """Record which version of an artifact the run used.

        Raises:
            RunFinishedError: the run was finished.
        """
        self._note_artifact(_USED_ARTIFACTS + artifact.name, _identity(artifact), artifact.time)

    def _note_artifact(self, tag: str, description: Mapping[str, Any], time: float) -> None:
        self._check_open()
        note = encoding.json_text(tag, description)
        self._log.append(encoding.row([note], self._step, time or self._time))

    def commit(self) -> None:
        """Hand what came so far to the operating system.

        Raises:
            OSError: it could not; nothing is given up, and the next call goes on.
            BackendLostError: the event file was shortened by somebody else.
        """
        if self._has_rows:
            self._start_session()
        for event in self._notes.values():
            self._log.append(event)
        self._notes = {}
        self._log.flush()

    def finish(self, status: Status) -> None:
        """Commit, record how the run ended, mend the order of steps, and close the files.

        Raises:
            OSError: the disk did not take it; another call goes on.
            BackendLostError: the event file was shortened by somebody else.
        """
        if self._finished:
            return
        ends = status.state != "running"
        if ends and not self._has_ended:
            self._has_ended = True
            self._start_session()
            how = {"state": status.state, "exit_code": status.exit_code}
            self._note(encoding.json_text(_STATUS, how))
        self.commit()
        if ends and (self._has_started or self.info.resumed):
            self._write_end(status)
        if not self._in_order:
            self._mend()
        self._finished = True
        self._log.close()

    def _shown(self, key: str, value: Value) -> Iterable[tuple[str, Shown]]:
        """Return what shows a value, by key; nothing if TensorBoard cannot, which is said once."""
        if not isinstance(value, Media):
            return ((key, value),)
        try:
            return tuple(media.shown(key, value))
        except (UnsupportedValueError, CorruptRunError) as error:
            reason = str(error)
            if reason not in self._reported:
                self._reported.add(reason)
                reporting.warn(f"tensorboard leaves out {key!r}: {reason}")
            return ()

    def _start_session(self) -> None:
        """Name the hyperparameters, as late as can be: TensorBoard holds on to the first."""
        if self._config and not self._has_started:
            self._has_started = True
            start = encoding.session_start(self._config, self.info.created_at or self._time)
            self._log.append(encoding.row([start], 0, self._time))

    def _write_end(self, status: Status) -> None:
        """Mark the end in a file of its own, which is taken away if the run goes on."""
        end = encoding.session_end(status.state, self._time)
        events = [encoding.file_start(self._time), encoding.row([end], 0, self._time)]
        write_whole(end_file(self._log.path), events)

    def _note(self, point: Point) -> None:
        """Keep what tells of the run itself until the next commit; a newer one takes its place."""
        self._notes[point.tag] = encoding.row([point], self._step, self._time)

    def _mend(self) -> None:
        """Try once; what fails costs the order that TensorBoard shows, not a point."""
        self._in_order = True
        path, run = self._log.path, f"run {self.info.id}"
        files = [file for file in event_files(path.parent) if file != end_file(path)]
        try:
            alone = _other_sizes(self._log) == self._sizes_before
            mended = alone and mend(files, mended_file(path))
        except OSError as error:
            reporting.warn(f"TensorBoard may show steps of {run} out of order: {error}")
        else:
            if not mended:
                why = "is large" if alone else "is being written by another process, too"
                reporting.inform(f"TensorBoard may show steps of {run} out of order: it {why}")

    def _check_open(self) -> None:
        if self._finished:
            msg = f"run {self.info.id} was finished: TensorBoard takes nothing more of it"
            raise RunFinishedError(msg)


def _other_sizes(log: EventLog) -> dict[Path, int]:
    """Return the sizes of the event files that others wrote, to notice one who still does."""
    mine = {log.path, end_file(log.path)}
    return {path: path.stat().st_size for path in event_files(log.path.parent) if path not in mine}


def _description(info: RunInfo) -> dict[str, Any]:
    """Return what the run is, for people; how it ended is told by the status."""
    fields = ("id", "name", "project", "entity", "group", "job_type", "tags", "notes", "created_at")
    return {field: getattr(info, field) for field in fields}


def _identity(artifact: LoggedArtifact) -> dict[str, Any]:
    """Return what tells a version of an artifact apart; one without a number has its digest alone."""
    return {
        "name": artifact.name,
        "type": artifact.type,
        "project": artifact.project,
        "version": None if artifact.version is None else f"v{artifact.version}",
        "digest": artifact.digest,
    }


def _file(file: ArtifactFile) -> dict[str, Any]:
    """Return what a file is; of a reference, also where its content lies, which is not ours."""
    about: dict[str, Any] = {"path": file.path, "size": file.size, "sha256": file.sha256}
    if file.reference is not None:
        about |= {"reference": file.reference, "checksum": file.checksum}
    return about
