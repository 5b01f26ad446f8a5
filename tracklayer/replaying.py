"""Reading a recorded run into any `Run`: the same seam as live logging, from the other side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tracklayer import reporting
from tracklayer.errors import CorruptArtifactError, UnsupportedValueError, UsageError
from tracklayer.protocol import Run, Status, TakesMetricRules, TakesUses

if TYPE_CHECKING:
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.reading import Row, RunReader

_COMMIT_EVERY = 10_000


def replay(
    reader: RunReader,
    run: Run,
    *,
    missing: Callable[[Row], Row | None] | None = None,
    artifacts: Sequence[LoggedArtifact] | None = None,
    uses: Sequence[LoggedArtifact] | None = None,
    whole_summary: bool = False,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Record in `run` all that `reader` has, in order of steps, and finish it as it was finished.

    Args:
        reader: a recorded run.
        run: any run: a backend's, or what `init` returned.  It keeps its own id and name.
        missing: picks from each row what is to be recorded; None leaves it out.  By default, all is.
        artifacts: those that the run made and that are to be recorded; by default, all.
        uses: likewise, of those that it used.
        whole_summary: record the metrics' summaries as they are, too, since not all rows are.
        progress: told the number of rows so far.

    Returns:
        The number of rows recorded.
    """
    run.update_config(reader.config)
    if isinstance(run, TakesMetricRules):
        for rule in reader.rules.values():
            run.define_metric(rule)
    count, refused = _log_rows(reader, run, missing, progress)
    gone: list[str] = []
    for made in reader.artifacts() if artifacts is None else artifacts:
        _pass_on(made, run.log_artifact, gone)
    if isinstance(run, TakesUses):  # of what it made itself, too
        for used in reader.used_artifacts() if uses is None else uses:
            _pass_on(used, run.use_artifact, gone)
    summary = reader.summary if whole_summary else reader.explicit_summary
    if summary:
        run.update_summary(summary)
    info = reader.info
    run.finish(Status(info.state, info.exit_code or 0))
    if refused:
        reporting.warn(f"{len(refused)} rows of run {reader.id} are not complete there: {refused[0]}")
    if gone:
        reporting.warn(f"{len(gone)} artifacts of run {reader.id} are not there: {gone[0]}")
    return count


def _pass_on(artifact: LoggedArtifact, take: Callable[[LoggedArtifact], object], gone: list[str]) -> None:
    """Have an artifact recorded; one that is gone, or that is not taken there, costs itself alone."""
    try:
        take(artifact)
    except (CorruptArtifactError, FileNotFoundError, UnsupportedValueError, UsageError) as error:
        gone.append(f"{artifact.label}: {error}")


def _log_rows(
    reader: RunReader,
    run: Run,
    missing: Callable[[Row], Row | None] | None,
    progress: Callable[[int], None] | None,
) -> tuple[int, list[str]]:
    """Log the rows that are to be logged; return their number, and what was refused."""
    count = 0
    refused: list[str] = []
    for call in reader.calls():
        row = missing(call) if missing is not None else call
        if row is not None and row.values:
            try:
                run.log(row.values, step=row.step, time=row.time)
            except UnsupportedValueError as error:  # as in front of a queue: it costs itself alone
                refused.append(str(error))
            count += 1
            if count % _COMMIT_EVERY == 0:
                run.commit()
                if progress is not None:
                    progress(count)
    return count, refused
