"""Reading a recorded run into any `Run`: the same seam as live logging, from the other side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tracklayer import reporting
from tracklayer.errors import CorruptArtifactError, UnsupportedValueError, UsageError
from tracklayer.planning import PlannedRow
from tracklayer.protocol import (
    Run,
    Status,
    TakesConsole,
    TakesEnvironment,
    TakesMetricRules,
    TakesSystemMetrics,
    TakesUses,
)
from tracklayer.values import ALL_KINDS, kind_of

if TYPE_CHECKING:
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.delivery import Delivery
    from tracklayer.reading import RunReader

_T = TypeVar("_T")
_COMMIT_EVERY: Final = 10_000  # rows
_SEND_EVERY: Final = 1_000  # rows, which a client begins with while the rest is read
_LINES: Final = 1_000  # of console text at once


def replay(
    reader: RunReader,
    run: Run,
    *,
    artifacts: Sequence[LoggedArtifact] | None = None,
    uses: Sequence[LoggedArtifact] | None = None,
    kinds: frozenset[str] = ALL_KINDS,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Record in `run` all that `reader` has, in order of steps, and finish it as it was finished.

    The copy is of one segment; of what the processes were, it has what the last one was.

    Args:
        reader: a recorded run.
        run: any run: a backend's, or what `init` returned.  It keeps its own id and name.
        artifacts: those that the run made and that are to be recorded; by default, all.
        uses: likewise, of those that it used.
        kinds: the kinds of value that are to be recorded (see `tracklayer.values`).
        progress: told the number of rows so far.

    Returns:
        The number of rows recorded.
    """
    run.update_config(reader.config)
    if isinstance(run, TakesMetricRules):
        for rule in reader.rules.values():
            run.define_metric(rule)
    count, refused = _log_rows(reader, run, kinds, progress)
    _record_surroundings(reader, run)
    gone: list[str] = []
    for made in reader.artifacts() if artifacts is None else artifacts:
        _pass_on(made, run.log_artifact, gone)
    if isinstance(run, TakesUses):  # of what it made itself, too
        for used in reader.used_artifacts() if uses is None else uses:
            _pass_on(used, run.use_artifact, gone)
    summary = reader.explicit_summary
    if summary:
        run.update_summary(summary)
    info = reader.info
    run.finish(Status(info.state, info.exit_code or 0))
    if refused:
        reporting.warn(f"{len(refused)} rows of run {reader.id} are not complete there: {refused[0]}")
    if gone:
        reporting.warn(f"{len(gone)} artifacts of run {reader.id} are not there: {gone[0]}")
    return count


def deliver(
    reader: RunReader,
    delivery: Delivery,
    *,
    rows: Iterable[PlannedRow] | None = None,
    config: Mapping[str, Any] | None = None,
    summary: Mapping[str, Any] | None = None,
    artifacts: Sequence[LoggedArtifact] | None = None,
    uses: Sequence[LoggedArtifact] | None = None,
    console_after: int = 0,
    system_after: int = 0,
    status: Status | None = None,
) -> list[str]:
    """Hand a recorded run over to a delivery, and wait until that has sent it.

    Args:
        reader: the run.
        delivery: one that took nothing yet.
        rows: those that the server lacks; by default, all.
        config: by default, as it is.
        summary: by default, as it is.
        artifacts: those of what the run made that the server lacks; by default, all.
        uses: likewise, of those that it used.
        console_after: how many lines, from the first on, the server has.
        system_after: how many rows of system metrics, from the first on, the server has.
        status: how the run ended; by default, as it did.

    Returns:
        What could not be handed over, and why.

    Raises:
        BackendLostError: the delivery could not send it.
    """
    delivery.update_config(reader.config if config is None else config)
    for rule in reader.rules.values():
        delivery.define_metric(rule)
    for _, environment in sorted(reader.environments().items()):
        delivery.record_environment(environment)
    planned = map(PlannedRow, reader.rows()) if rows is None else rows
    for count, ((step, time, values), is_there) in enumerate(planned, 1):
        (delivery.complete if is_there else delivery.log)(values, step=step, time=time)
        if count % _SEND_EVERY == 0:
            delivery.commit()
    for lines in _batches(reader.console(after=console_after)):
        delivery.log_console(lines)
    for row in reader.system_metrics(after=system_after):
        delivery.log_system(row)
    gone: list[str] = []
    for made in reader.artifacts() if artifacts is None else artifacts:
        _pass_on(made, delivery.log_artifact, gone)
    for used in reader.used_artifacts() if uses is None else uses:
        _pass_on(used, delivery.use_artifact, gone)
    delivery.update_summary(reader.summary if summary is None else summary)
    if status is None:
        info = reader.info
        status = Status(info.state, info.exit_code or 0)
    delivery.finish(status)
    return gone


def _record_surroundings(reader: RunReader, run: Run) -> None:
    """Record what the last process was, and what all printed and measured, as far as it is taken there."""
    environments = reader.environments()
    if environments and isinstance(run, TakesEnvironment):  # one process's: those of several do not mix
        run.record_environment(environments[max(environments)])
    if isinstance(run, TakesConsole):
        for lines in _batches(reader.console()):
            run.log_console(lines)
    if isinstance(run, TakesSystemMetrics):
        for row in reader.system_metrics():
            run.log_system(row)


def _batches(items: Iterable[_T]) -> Iterator[list[_T]]:
    source = iter(items)
    while batch := list(islice(source, _LINES)):
        yield batch


def _pass_on(artifact: LoggedArtifact, take: Callable[[LoggedArtifact], object], gone: list[str]) -> None:
    """Have an artifact recorded; one that is gone, or that is not taken there, costs itself alone."""
    try:
        take(artifact)
    except (CorruptArtifactError, FileNotFoundError, UnsupportedValueError, UsageError) as error:
        gone.append(f"{artifact.label}: {error}")


def _log_rows(
    reader: RunReader, run: Run, kinds: frozenset[str], progress: Callable[[int], None] | None
) -> tuple[int, list[str]]:
    """Log the rows, but for values of other kinds; return their number, and what was refused."""
    count = 0
    refused: list[str] = []
    for row in reader.calls():
        values = row.values
        if kinds is not ALL_KINDS:
            values = {key: value for key, value in values.items() if kind_of(value) in kinds}
        if not values:
            continue
        try:
            run.log(values, step=row.step, time=row.time)
        except UnsupportedValueError as error:  # as in front of a queue: it costs itself alone
            refused.append(str(error))
        count += 1
        if count % _COMMIT_EVERY == 0:
            run.commit()
            if progress is not None:
                progress(count)
    return count, refused
