"""What a hosted backend does for a push: it says what its server has, and takes what that lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, final

if TYPE_CHECKING:
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.protocol import MetricRule, RunInfo, State, Status
    from tracklayer.surroundings import ConsoleLine, Environment, SystemRow
    from tracklayer.values import Value


@final
@dataclass(frozen=True, slots=True)
class Received:
    """What a server says it has of a run, asked in a few questions that cost the same for any length.

    Attributes:
        state: as the server shows it.
        is_ours: it bears the mark of this very run; what else has its id may be somebody else's.
        line_count: the rows of its history.
        last_step: the highest step of its history; -1 for none.
        console_lines: the lines of its console text.
        system_rows: the rows of its system metrics.
        last_line: the last of those lines, where it was asked for; a push may have changed its time.
        last_system: when the last of those rows was measured, in Unix seconds, where that was asked for.
        url: where people see it.
        config, summary: as the server shows them; None where that is not known.
        missing_artifacts: of those asked for, what it does not have with the same content and aliases.
        missing_uses: of those asked for, what the run did not use to the server's knowledge.
        missing_files, missing_parts: of those asked for, what it does not have.
    """

    state: State
    is_ours: bool
    line_count: int
    last_step: int
    console_lines: int = 0
    system_rows: int = 0
    last_line: ConsoleLine | None = None
    last_system: float | None = None
    url: str | None = None
    config: Mapping[str, Any] | None = None
    summary: Mapping[str, Any] | None = None
    missing_artifacts: tuple[LoggedArtifact, ...] = ()
    missing_uses: tuple[LoggedArtifact, ...] = ()
    missing_files: tuple[str, ...] = ()
    missing_parts: tuple[str, ...] = ()


class ReceivedRow(NamedTuple):
    """A row as a server has it: the step that it was logged at, and JSON data by key."""

    step: int
    values: Mapping[str, Any]


@final
@dataclass(frozen=True, slots=True)
class Question:
    """What to ask a server for, beside the run itself.

    Attributes:
        made, used: artifacts.
        files, parts: names as in `Delivered`.
        ends: the last line of the console's text, and the time of the last row of system metrics.
    """

    made: Sequence[LoggedArtifact] = ()
    used: Sequence[LoggedArtifact] = ()
    files: Sequence[str] = ()
    parts: Sequence[str] = ()
    ends: bool = False


@final
@dataclass(frozen=True, slots=True)
class Delivered:
    """What a delivery sent, so that it can be asked for: a server must have all of it now.

    Attributes:
        lines: rows of the history.
        last_step: the server's step of the last one; that of before where `lines` is 0.
        console_lines, system_rows: how many the server must have in all.
        files: the names of the files that belong to the run itself.
        parts: names for what rows refer to and is kept apart from them, as the contents of tables may be.
        refused: what was not taken there, and why.
        problems: what the client had to say.
    """

    lines: int
    last_step: int
    console_lines: int
    system_rows: int
    files: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Delivery(Protocol):
    """A run that is sent to a server from its record: a `Run` with all that a record may hold.

    Called from one thread.  What raises gives the delivery up: `abandon` is called then, and nothing else.
    """

    @property
    def info(self) -> RunInfo:
        """What this run is, as the server is told."""
        ...

    def log(self, values: Mapping[str, Value], /, *, step: int, time: float) -> None:
        """Send a row that the server lacks, or that part of it which it lacks.

        Rows come with steps above those that the server has, ascending, then late ones in any order.
        What of it the server does not take is left out, and said in `Delivered.refused`; the row itself is
        sent also if nothing is left of it, since a push that was cut off is gone on with by counting them.
        """
        ...

    def complete(self, values: Mapping[str, Value], /, *, step: int, time: float) -> None:
        """Send the files of a row that the server has, as far as it lacks them."""
        ...

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Set the config, whole."""
        ...

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        """Set the summary's entries, whole but for what is no scalar, which follows from the rows."""
        ...

    def define_metric(self, rule: MetricRule, /) -> None:
        """Apply a rule; all come before the rows."""
        ...

    def log_artifact(self, artifact: LoggedArtifact, /) -> object:
        """Send an artifact that the run made."""
        ...

    def use_artifact(self, artifact: LoggedArtifact, /) -> object:
        """Show an artifact as used by the run."""
        ...

    def record_environment(self, environment: Environment, /) -> None:
        """Tell what one process of the run was; called for each, in order."""
        ...

    def log_console(self, lines: Sequence[ConsoleLine], /) -> None:
        """Send lines, in order: those that the server lacks, or all, as it says in `Delivered`."""
        ...

    def log_system(self, row: SystemRow, /) -> None:
        """Send a row of system metrics that the server lacks."""
        ...

    def commit(self) -> None:
        """Have what came so far on its way."""
        ...

    def finish(self, status: Status, /) -> None:
        """Tell how the run ended, or with the state `running` that it goes on, and wait until all is sent.

        Raises:
            BackendLostError: the client did not get it all to the server in time, or says so.
        """
        ...

    def abandon(self) -> None:
        """Stop sending; when this returns, nothing more is on its way."""
        ...

    @property
    def sent_lines(self) -> int:
        """The rows that the server is known to have received so far; for a progress bar."""
        ...

    @property
    def delivered(self) -> Delivered:
        """What was sent; once `finish` returned."""
        ...
