"""What the processes of one program (`jax.distributed`) agree on about a run.

Process 0 records it; the others' runs have its id and record nothing.  Nobody waits for anybody, with one
exception: where a run is to be resumed, what process 0 finds decides for all of them, because training
code branches on it.  The others wait for that, for a limited time.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, final

from tracklayer import errors, naming, reporting
from tracklayer.errors import BackendUnavailableError, TracklayerError
from tracklayer.protocol import RunInfo

if TYPE_CHECKING:
    from tracklayer.jax.processes import Board
    from tracklayer.reading import RunReader


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What process 0 found when it opened the run, and where the others' runs therefore begin.

    `summary` is what was set by hand, `metrics` the last values of the others, `last_step` -1 for none.
    """

    info: RunInfo
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    summary: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    last_step: int = -1


@final
class Agreement:
    """What this process and the others agree on about one run.

    Args:
        wanted: the run as it was asked for, with a random id if it was given none.
        resume: what `init` was asked to do if the run is recorded.
        has_id: whether the id was given.
        per_process: each process records a run of its own.

    Attributes:
        index: this process's; process 0 decides, and so does one that is alone.
        info: this process's run, as far as is known.
        has_id: whether its id stands: it was given, or process 0 chooses it.
        records: whether the run goes anywhere.

    Raises:
        UsageError: the id or the name is too long for a run a process.
    """

    def __init__(self, wanted: RunInfo, resume: str | None, *, has_id: bool, per_process: bool) -> None:
        self.index, self._count, self._board = place()
        self.has_id = has_id or self.index > 0
        self.records = self.index == 0 or per_process
        self._wanted = wanted
        self._per_process = per_process
        if per_process:
            naming.check_run_id(f"{wanted.id}-{self._count - 1}")
            naming.check_name("name", f"{wanted.name}-{self._count - 1}")
        self._waits = self._count > 1 and _decides(resume, has_id=has_id, per_process=per_process)
        self._topic, self._key = "", ""
        if self._count > 1 and (self._waits or not has_id):
            wanted = self._shared(has_id=has_id)
        self.info = self._mine(wanted.id)

    def continuing(self, recorded: RunInfo) -> RunInfo | None:
        """Return this process's run if it goes on with one that is recorded; None if it cannot."""
        mine = self._mine(self._shared_id(recorded.id, self.index))
        return mine if mine.id == recorded.id and mine.group in {None, recorded.group} else None

    def tell(self, info: RunInfo, recorded: RunReader | None) -> None:
        """Tell the other processes, if they wait for it, what this one found."""
        if not self._waits or self._board is None:
            return
        outcome = Outcome(info)
        if recorded is not None:
            explicit = recorded.explicit_summary
            metrics = {
                key: value
                for key, value in recorded.summary.items()
                if key not in explicit and isinstance(value, (int, float))
            }
            outcome = Outcome(info, recorded.config, explicit, metrics, recorded.last_step)
        self._board.post(self._key, json.dumps(asdict(outcome)))

    def tell_failure(self, error: Exception) -> None:
        """Tell the other processes, if they wait for it, that the run could not be opened."""
        if self._waits and self._board is not None:
            said = {"error": type(error).__name__, "message": str(error)}
            self._board.post(self._key, json.dumps(said))
        elif self._topic:
            _asked.take_back(self._topic)  # they went on: another attempt is about the same run

    def outcome(self, timeout: float) -> Outcome | None:
        """Wait until process 0 has decided; return None where it has nothing to decide, or is late.

        Raises:
            TracklayerError: it could not open the run: its error, or one of the same kind.
        """
        if not self._waits or self._board is None:
            return None
        text = self._board.read(self._key, timeout)
        if text is None:
            reporting.warn(
                f"init: process 0 has not said within {timeout:.0f} s what it resumes; this process "
                f"({self.index} of {self._count}) goes on as with a new run {self.info.id}, and may differ "
                "from the others in run.step, run.config and run.resumed"
            )
            return None
        said = json.loads(text)
        if "error" in said:
            raise _error_like(said["error"], f"process 0 could not open the run: {said['message']}")
        info = RunInfo(**said.pop("info"))
        outcome = Outcome(replace(info, tags=tuple(info.tags)), **said)
        self.info = self._mine(self._shared_id(outcome.info.id, 0)) if self._per_process else outcome.info
        return outcome

    def _shared(self, *, has_id: bool) -> RunInfo:
        """Find what all processes call the run; whichever comes first chooses."""
        if self._board is None:
            reporting.warn(
                f"init: this is process {self.index} of {self._count}, but jax.distributed is not "
                "initialized, so they cannot tell one another the run's id, nor what is resumed"
            )
            return self._wanted
        kind = [self._wanted.project, self._wanted.group, self._wanted.job_type]
        if self._waits:  # else a name may hold the time of day, and differ
            kind += [self._wanted.name, self._wanted.id if has_id else None]
        self._topic = json.dumps(kind)
        digest = hashlib.sha256(self._topic.encode()).hexdigest()[:16]
        self._key = f"tracklayer/{digest}/{_asked.number(self._topic, self._board)}"
        if has_id:
            return self._wanted
        chosen = self._board.propose(f"{self._key}/id", self._wanted.id)
        if chosen is None:
            reporting.warn(
                f"init: process 0 does not answer; in this process ({self.index} of {self._count}) the run "
                f"is called {self._wanted.id}, which the others do not know"
            )
        return replace(self._wanted, id=chosen or self._wanted.id)

    def _mine(self, shared_id: str) -> RunInfo:
        if not self._per_process:
            return replace(self._wanted, id=shared_id)
        return replace(
            self._wanted,
            id=f"{shared_id}-{self.index}",
            name=self._wanted.name and f"{self._wanted.name}-{self.index}",
            group=self._wanted.group or shared_id,
        )

    def _shared_id(self, run_id: str, index: int) -> str:
        return run_id.removesuffix(f"-{index}") if self._per_process else run_id


@final
class _Asked:
    """How many runs this process asked for, by topic, on one board: the module's one piece of state.

    Every process runs the same program, so the same number means the same run.
    """

    def __init__(self) -> None:
        self._client: object = None
        self._counts = Counter[str]()

    def number(self, topic: str, board: Board) -> int:
        """Count one more."""
        if self._client is not board.client:
            self._client = board.client
            self._counts.clear()
        self._counts[topic] += 1
        return self._counts[topic]

    def take_back(self, topic: str) -> None:
        """Count one less: nothing came of it."""
        self._counts[topic] -= 1


_asked = _Asked()


def _decides(resume: str | None, *, has_id: bool, per_process: bool) -> bool:
    """Say whether what the processes do depends on what process 0 finds recorded."""
    if per_process:  # each finds its own run, as soon as it knows what that is called
        return resume == "auto" and not has_id
    return resume in {"auto", "must"} or (resume == "allow" and has_id)


def place() -> tuple[int, int, Board | None]:
    """Return which process this is, of how many, and where they leave notes for one another."""
    if "jax" not in sys.modules:  # and is not to be imported for this
        return 0, 1, None
    from tracklayer.jax import processes

    return *processes.place(), processes.board()


def _error_like(name: str, message: str) -> TracklayerError:
    kind: type[TracklayerError] = vars(errors).get(name, BackendUnavailableError)
    return kind(message)
