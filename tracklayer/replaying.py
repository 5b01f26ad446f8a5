"""Reading a recorded run into any `Run`: the same seam as live logging, from the other side."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from tracklayer.protocol import Run, Status, TakesMetricRules

if TYPE_CHECKING:
    from tracklayer.reading import Row, RunReader

_COMMIT_EVERY = 10_000


def replay(
    reader: RunReader,
    run: Run,
    *,
    missing: Callable[[Row], Row | None] | None = None,
    without_artifacts: Collection[str] = (),
    progress: Callable[[int], None] | None = None,
) -> int:
    """Record in `run` all that `reader` has, in order of steps, and finish it as it was finished.

    Args:
        reader: a recorded run.
        run: any run: a backend's, or what `init` returned.  It keeps its own id and name.
        missing: picks from each row what is to be recorded; None leaves it out.  By default, all is.
        without_artifacts: names of artifacts to leave out.
        progress: told the number of rows so far.

    Returns:
        The number of rows recorded.
    """
    run.update_config(reader.config)
    if isinstance(run, TakesMetricRules):
        for rule in reader.rules.values():
            run.define_metric(rule)
    count = 0
    for call in reader.calls():
        row = missing(call) if missing is not None else call
        if row is not None and row.values:
            run.log(row.values, step=row.step, time=row.time)
            count += 1
            if count % _COMMIT_EVERY == 0:
                run.commit()
                if progress is not None:
                    progress(count)
    for artifact in reader.artifacts():
        if artifact.name not in without_artifacts:
            run.log_artifact(artifact)
    explicit = reader.explicit_summary
    if explicit:
        run.update_summary(explicit)
    info = reader.info
    run.finish(Status(info.state, info.exit_code or 0))
    return count
