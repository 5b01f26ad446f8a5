"""A recorded run as a transaction log, from which the client makes the run that it would have been live.

Rows, console and system metrics are written as they were recorded, with their own times; the rest is taken
from the client's own code.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, final

import wandb

from tracklayer.delivery import Delivered, Received
from tracklayer.errors import CorruptArtifactError, UnsupportedValueError
from tracklayer.media.base import Media
from tracklayer.protocol import MetricRule, RunInfo, Status, rule_for
from tracklayer.values import Histogram, Text
from tracklayer_wandb.artifacts import CODE, ArtifactLog, fetching, part_name, shows_code
from tracklayer_wandb.captured_files import CapturedArtifacts
from tracklayer_wandb.capturing import CapturedRun
from tracklayer_wandb.environment_record import (
    METADATA,
    began_since,
    environment_files,
    environment_record,
    git_record,
    program_path,
    told_live,
    writer_id,
)
from tracklayer_wandb.history import RowRecords, scalar_text
from tracklayer_wandb.media import log_media
from tracklayer_wandb.messages import pb
from tracklayer_wandb.reading_back import BLANK, MARK, TRUE_STEP
from tracklayer_wandb.run_clock import RunClock
from tracklayer_wandb.step_metrics import StepMetrics
from tracklayer_wandb.transaction_log import TransactionLog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.reading import RunReader
    from tracklayer.surroundings import ConsoleLine, Environment, SystemRow
    from tracklayer.values import Value

_OLDEST_READER: Final = "0.30.0"  # the client that first reads `RunRecord.resume`
_MAX_ROW: Final = 10_000_000  # bytes; the client skips a row of a little more than 10 MiB
_FAILED: Final = frozenset({"failed", "crashed"})


@final
class LogRun:
    """A run that is written to a log, in a folder with the files that the client sends beside it.

    Args:
        reader: the recorded run.
        info: what it is to be on the server.
        found: what the server has of it; None for nothing.
        folder: an empty one.
        kept: what the server has in the config below `_wandb`; what is not written again, it loses.
        has_file: says whether the server has a file of the run, which is then not sent again.
        api: asked for what the server has of artifacts; None where it cannot be asked.
        portable: copy what the log refers to into the folder, and refer to it by relative paths.

    Attributes:
        path: the log.
        program: what the syncing client's settings are to name, since it does not look into the log for that.
        later: what is to be done when the server has all of the log.
    """

    def __init__(
        self,
        reader: RunReader,
        info: RunInfo,
        found: Received | None,
        folder: Path,
        *,
        kept: Mapping[str, Any] | None = None,
        has_file: Callable[[str], bool] = lambda _: False,
        api: wandb.Api | None = None,
        portable: bool = False,
    ) -> None:
        self.info = info
        self.path = folder / f"run-{info.id}.wandb"
        self._reader = reader
        self._found = found
        self._kept = kept or {}
        self._files = folder / "files"
        self._files.mkdir(parents=True)
        self._has_file = has_file
        self._captured = CapturedRun(info, self._files)
        self._captured_artifacts = CapturedArtifacts(info, folder, portable=portable)
        self._artifacts = ArtifactLog(self._captured.run, api)
        self.later = self._artifacts.later
        self._open = ExitStack()
        self._fetch = self._open.enter_context(fetching())
        self._log = TransactionLog(self.path)
        self._rows = RowRecords()
        self._clock = RunClock(reader.segments, info.created_at)
        self._step_metrics = StepMetrics(reader, found.last_step if found else -1)
        self._rules: dict[str, MetricRule] = {}
        self._summary: dict[str, Any] = {}
        self._rich: dict[str, tuple[int, bytes]] = {}
        """What is no scalar, as the summary shows it: its step and its JSON text."""
        self._lines = 0
        self._last_step = found.last_step if found else -1
        self._last_row: tuple[float, float] | None = None
        """When it was logged, and the seconds that the run had run then."""
        self._completed = -1
        self._console_lines = found.console_lines if found else 0
        self._system_rows = found.system_rows if found else 0
        self._environment: Environment = {}
        self._sent_files: list[str] = []
        self._parts: list[str] = []
        self._refused: list[str] = []
        self._defines_true_step = any(one.get("1") == TRUE_STEP for one in self._kept.get("m", ()))
        self._told = told_live(self._kept, writer_id(info))
        environments = list(reader.environments().values())
        self._begin(environments[-1] if environments else {})
        self.program = program_path(environments[-1]) if environments else None

    def _begin(self, environment: Environment) -> None:
        version = pb.VersionInfo(producer=wandb.__version__, min_consumer=_OLDEST_READER)
        self._add(header=pb.HeaderRecord(version_info=version))
        info = self.info
        run: Any = pb.RunRecord(
            run_id=info.id,
            entity=info.entity,
            project=info.project,
            run_group=info.group,
            job_type=info.job_type,
            display_name=info.name,
            notes=info.notes,
            tags=info.tags,
            host=environment.get("host"),
            resume=self._found is not None,
        )
        run.start_time.FromNanoseconds(round(info.created_at * 1e9))
        run.telemetry.cli_version = wandb.__version__
        if python := environment.get("python"):
            run.telemetry.python_version = python
        if git := environment.get("git"):
            run.git.CopyFrom(git_record(git))
        # here, so that the server has it from its first moment on: a push may be killed in the next
        mark = json.dumps({"created_at": info.created_at})
        run.config.update.add(nested_key=["_wandb", MARK], value_json=mark)
        self._add(run=run)
        for key, chart in self._kept.get("visualize", {}).items():
            self._captured.set_hidden_config(("visualize", key), chart)
        for key, told in self._told.items():
            self._captured.set_hidden_config(("e", key), told)
        if CODE in self._kept:
            self._captured.set_hidden_config((CODE,), self._kept[CODE])
        self._pass_on()
        if self._defines_true_step:
            self._define_true_step()

    # -- rows -----------------------------------------------------------------------------------------

    def log(self, values: Mapping[str, Value], *, step: int, time: float) -> None:
        """Write a row; one that is late, at the step after the last, with its true step beside it."""
        is_late = step <= self._last_step
        row: dict[str, bytes] = {}
        for key, value in values.items():
            text = scalar_text(value)
            if text is not None:
                row[key] = text
            else:
                row |= self._rich_texts(key, value, step, is_late=is_late)
        if is_late:
            if not self._defines_true_step:
                self._define_true_step()
            row[TRUE_STEP] = b"%d" % step
            self._last_step += 1
        else:
            self._step_metrics.complete(row)
            self._last_step = step
        runtime = self._clock.at(time)
        row["_step"] = b"%d" % self._last_step
        row["_timestamp"] = repr(time).encode()
        row["_runtime"] = repr(runtime).encode()
        record = self._rows.record(row)
        if len(record) > _MAX_ROW:
            record = self._rows.record(self._fitting(row, step))
        self._log.add(record)
        self._lines += 1
        self._last_row = time, runtime

    def complete(self, values: Mapping[str, Value], *, step: int, time: float) -> None:  # noqa: ARG002 - the protocol's
        """Send the files of a row that the server has, as far as it lacks them; the summary shows it, too."""
        is_late = step <= self._completed
        self._completed = max(step, self._completed)
        for key, value in values.items():
            if scalar_text(value) is None:
                self._rich_texts(key, value, step, is_late=is_late)

    def _rich_texts(self, key: str, value: Value, step: int, *, is_late: bool) -> dict[str, bytes]:
        """Return what stands in a row for what is no scalar."""
        if isinstance(value, Text):
            texts = {key: _json(value.text)}
        elif isinstance(value, Histogram):
            bins = value.bins
            texts = {key: _json({"_type": "histogram", "values": bins.counts, "bins": bins.edges})}
        elif isinstance(value, Media):
            texts = self._media_texts(key, value, step)
        else:
            msg = f"a row cannot hold a {type(value).__name__}"  # `scalar_text` knows the scalars
            raise TypeError(msg)
        for name, text in texts.items():
            # the server does not say of which step its own is: it stays, unless this is surely newer
            is_known = is_late and self._found is not None and name in (self._found.summary or {})
            if not is_known and step >= self._rich.get(name, (step, b""))[0]:
                self._rich[name] = step, text
        return texts

    def _media_texts(self, key: str, value: Media, step: int) -> dict[str, bytes]:
        """Have the client make files and artifacts of a value, and return what stands in a row for it."""
        self._captured.at_step(step)
        try:
            log_media(self._captured.run, key, value, step=step, stamp={})
        except UnsupportedValueError as error:
            self._captured.taken()
            self._refused.append(str(error))
            return {}
        return self._pass_on(key, step)

    def _fitting(self, row: dict[str, bytes], step: int) -> dict[str, bytes]:
        """Return a row without its longest values, so that the client does not skip all of it."""
        row = dict(row)
        while len(self._rows.record(row)) > _MAX_ROW:
            key = max(row, key=lambda name: len(row[name]))
            size = len(row.pop(key))
            self._rich.pop(key, None)
            self._refused.append(
                f"{key!r} at step {step}: {size} bytes of JSON are too long for a row of W&B"
            )
        return row

    # -- what is not in rows --------------------------------------------------------------------------

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Set entries of the config."""
        self._captured.run.config.update(dict(config), allow_val_change=True)
        self._pass_on()

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        """Set entries of the summary; what is no scalar follows from the rows."""
        self._summary.update(summary)

    def define_metric(self, rule: MetricRule) -> None:
        """Apply a rule; its goal is not known to the client."""
        self._rules[rule.pattern] = rule
        self._step_metrics.define(rule)
        summary = ",".join(rule.summary) or None
        self._captured.run.define_metric(rule.pattern, step_metric=rule.step_metric, summary=summary)
        self._pass_on()

    def _define_true_step(self) -> None:
        self._defines_true_step = True
        self._captured.run.define_metric(TRUE_STEP, summary="none", hidden=True)
        self._pass_on()

    def record_environment(self, environment: Environment) -> None:
        """Tell what one process of the run was; W&B keeps the last one.

        What its own client told of the last one, when it recorded that live, is more, and stays.
        """
        self._environment = environment

    def _write_environment(self) -> None:
        self._add(environment=environment_record(self._environment, writer_id(self.info)))
        for name, text in environment_files(self._environment).items():
            (self._files / name).write_text(text, encoding="utf-8")
            self._send_file(pb.FilesItem(path=name, type=pb.FilesItem.WANDB))

    def log_artifact(self, artifact: LoggedArtifact) -> None:
        """Send an artifact that the run made."""
        self._pass_artifact_on(self._artifacts.log, artifact)
        if shows_code(artifact):
            self._captured.set_hidden_config((CODE,), artifact.name)
            self._pass_on()

    def use_artifact(self, artifact: LoggedArtifact) -> None:
        """Show an artifact as used by the run."""
        self._pass_artifact_on(self._artifacts.use, artifact)

    def _pass_artifact_on(self, take: Callable[..., None], artifact: LoggedArtifact) -> None:
        try:
            take(artifact, self._fetch)
        except UnsupportedValueError as error:
            self._refused.append(str(error))
        except CorruptArtifactError as error:
            self._refused.append(f"the artifact {artifact.label!r}: {error}")
        else:
            self._pass_on(artifact.name)

    def log_console(self, lines: Sequence[ConsoleLine]) -> None:
        """Write lines that the server lacks."""
        for line in lines:
            kind = pb.OutputRawRecord.STDERR if line.stream == "stderr" else pb.OutputRawRecord.STDOUT
            record: Any = pb.OutputRawRecord(output_type=kind, line=f"{line.text or BLANK}\n")
            record.timestamp.FromNanoseconds(round(line.time * 1e9))
            self._add(output_raw=record)
        self._console_lines += len(lines)

    def log_system(self, row: SystemRow) -> None:
        """Write a row of system metrics."""
        record: Any = pb.StatsRecord(stats_type=pb.StatsRecord.SYSTEM)
        record.timestamp.FromNanoseconds(round(row.time * 1e9))
        record.item.extend(pb.StatsItem(key=key, value_json=json.dumps(x)) for key, x in row.values.items())
        self._add(stats=record)
        self._system_rows += 1

    # -- the end --------------------------------------------------------------------------------------

    def commit(self) -> None:
        """Have what came so far in the file."""
        self._log.flush()

    def finish(self, status: Status) -> None:
        """Write the summary and how the run ended, and close the log."""
        if self._environment and not self._was_told_live():
            self._write_environment()
        self._write_summary()
        exit_code = status.exit_code or int(status.state in _FAILED)
        self._end(exit_code, is_running=status.state == "running")

    def _was_told_live(self) -> bool:
        segments = self._reader.segments
        is_told = bool(segments) and began_since(self._told, segments[-1].started_at)
        return is_told and self._has_file(METADATA)

    def abandon(self) -> None:
        """Close the log, with an end for which a client that follows it would wait for ever."""
        self._end(0, is_running=True)

    def _end(self, exit_code: int, *, is_running: bool) -> None:
        runtime = int(self._clock.total)
        self._add(exit=pb.RunExitRecord(exit_code=exit_code, runtime=runtime, not_complete=is_running))
        self._log.close()
        self._open.close()

    def _write_summary(self) -> None:
        """Write the whole summary, since that of the server goes."""
        server = dict(self._found.summary or {}) if self._found else {}
        entries = {key: _json(value) for key, value in server.items() if not self._is_hidden(key)}
        entries |= {key: text for key, (_, text) in self._rich.items() if not self._is_hidden(key)}
        entries |= {key: scalar_text(value) or _json(value) for key, value in self._summary.items()}
        if self._last_row is not None:
            time, runtime = self._last_row
            entries |= {"_timestamp": _json(time), "_runtime": _json(runtime)}
            entries["_step"] = _json(self._last_step)
        entries["_wandb"] = _json({**server.get("_wandb", {}), "runtime": int(self._clock.total)})
        items = [pb.SummaryItem(key=key, value_json=text.decode()) for key, text in entries.items()]
        self._add(summary=pb.SummaryRecord(update=items))

    def _is_hidden(self, key: str) -> bool:
        rule = rule_for(key, self._rules)
        return rule is not None and "none" in rule.summary

    @property
    def sent_lines(self) -> int:
        """The rows that were written."""
        return self._lines

    @property
    def delivered(self) -> Delivered:
        """What was written, which the server must have when it has all of the log."""
        return Delivered(
            lines=self._lines,
            last_step=self._last_step,
            console_lines=self._console_lines,
            system_rows=self._system_rows,
            files=tuple(self._sent_files),
            parts=tuple(dict.fromkeys(self._parts)),
            refused=tuple(self._refused),
        )

    # -- records --------------------------------------------------------------------------------------

    def _add(self, **record: Any) -> None:
        self._log.add(pb.Record(**record).SerializeToString())

    def _pass_on(self, key: str = "", step: int | None = None) -> dict[str, bytes]:
        """Write what the captured run would send; return the texts of what it logs, by key."""
        texts: dict[str, str] = {}
        ids: dict[str, str] = {}
        for record in self._captured.taken():
            match record.WhichOneof("record_type"):
                case "artifact":
                    ids |= self._captured_artifacts.settle(record.artifact, key, step)
                    if step is not None:
                        self._parts.append(part_name(record.artifact))
                    self._log.add(record.SerializeToString())
                case "files":
                    for file in record.files.files:
                        if not self._has_file(file.path):
                            self._send_file(file)
                case "request":
                    texts = {item.key: item.value_json for item in record.request.partial_history.item}
                    texts.pop("_timestamp", None)
                case _:
                    self._log.add(record.SerializeToString())
        return {name: _replaced(text, ids).encode() for name, text in texts.items()}

    def _send_file(self, file: Any) -> None:
        self._add(files=pb.FilesRecord(files=[file]))
        self._sent_files.append(file.path)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _replaced(text: str, words: Mapping[str, str]) -> str:
    for old, new in words.items():
        text = text.replace(old, new)
    return text
