"""Push: a recorded run becomes a run of a hosted backend, each of its rows once, whatever happens on the way.

The server is asked what it has, and only what it lacks is sent.  Success is what it says it has, read back
afterwards; never an exit code.  `tracklayer.ledger` keeps what was confirmed, and what was being sent, so
that as little as possible has to be asked.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, final

from tracklayer.artifacts.catalog import Catalog
from tracklayer.artifacts.describing import artifacts_now, named
from tracklayer.artifacts.locations import locate
from tracklayer.choosing import Chooser, console_sent, system_sent
from tracklayer.confirming import Expected
from tracklayer.delivery import Question
from tracklayer.errors import (
    BackendLostError,
    BackendUnavailableError,
    RunExistsError,
    RunInUseError,
    TracklayerError,
)
from tracklayer.ledger import Entry, Ledger, Sending
from tracklayer.planning import file_bytes
from tracklayer.protocol import Status
from tracklayer.push_report import LOCK_SECONDS, PUSH_SECONDS, Outcome, Place, Progress, PushReport
from tracklayer.replaying import deliver
from tracklayer.settings import Settings, artifacts_url

if TYPE_CHECKING:
    from pathlib import Path

    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.choosing import Choice
    from tracklayer.delivery import Delivered, Received
    from tracklayer.planning import Plan, PlannedRow
    from tracklayer.protocol import Backend, RunInfo
    from tracklayer.reading import RunReader

_CONFIRM_SECONDS: Final = 30.0  # a server may take a moment to count what it was just sent
_STILL_SECONDS: Final = 10.0  # a client that outlived its process goes on sending for less
_LOOK_SECONDS: Final = 2.0


def push(
    reader: RunReader,
    backend: Backend,
    store: Path,
    *,
    place: Place | None = None,
    dry_run: bool = False,
    force: bool = False,
    seconds: float = PUSH_SECONDS,
    progress: Progress | None = None,
) -> PushReport:
    """Send what the server does not have yet, and read back that it has it.

    Args:
        reader: the run.
        backend: a hosted backend.
        store: the run's store, where the ledger lies.
        place: where it goes there, if not where it says by itself.
        dry_run: only say what would be sent.
        force: send it even where a run of that id is there that is not this one.
        seconds: how long it may take.
        progress: is told how far it is.

    Returns:
        What happened; an error of ours, of the system or of the network is a report, not an exception.
    """
    deadline = time.monotonic() + seconds
    ledger = Ledger(store, reader.id)
    try:
        with nullcontext() if dry_run else ledger.locked(min(LOCK_SECONDS, seconds)):
            pushing = _Push(
                reader, backend, store, ledger, place or Place(), deadline, progress or Progress()
            )
            return pushing.run(dry_run=dry_run, force=force)
    except RunInUseError as error:
        return PushReport(reader.id, "busy", 0, 0, str(error))
    except (TracklayerError, OSError) as error:
        return PushReport(reader.id, "failed", 0, 0, str(error) or type(error).__name__)


def target_of(backend: Backend, info: RunInfo, run_id: str) -> str:
    """Return the name under which the ledger of a run keeps a target.

    Args:
        backend: a hosted one.
        info: what the run is there.
        run_id: what it is here.
    """
    server = backend.server() if backend.server else ""
    name = f"{backend.name}:{server}/{info.entity or ''}/{info.project}"
    return name if info.id == run_id else f"{name}/{info.id}"


@final
class _Push:
    """One run's push: of what it holds now.  What is logged meanwhile is for the next one."""

    def __init__(
        self,
        reader: RunReader,
        backend: Backend,
        store: Path,
        ledger: Ledger,
        place: Place,
        deadline: float,
        progress: Progress,
    ) -> None:
        ask_rows = backend.received_rows
        if backend.received is None or ask_rows is None or backend.deliver is None:
            msg = f"backend {backend.name!r} has no server to push to"
            raise BackendUnavailableError(msg)
        self._ask_server, self._deliver_to = backend.received, backend.deliver
        self._name = backend.name
        self._store = store
        self._reader = reader
        self._deadline = deadline
        self._progress = progress
        self._revision = reader.revision  # before all else: what is logged from now on changes it
        self._info = place.of(reader.info)
        self._is_running = self._info.state == "running"
        self._chooser = Chooser(reader, lambda: ask_rows(self._info), is_running=self._is_running)
        self._artifacts = artifacts_now(reader, Catalog(locate(artifacts_url(), store)))
        self._ledger = ledger
        self._target = target_of(backend, self._info, reader.id)
        self._entry = ledger.entry(self._target)
        self._expected = Expected(self._info.state, {}, {}, self._artifacts.made, self._artifacts.used)

    def run(self, *, dry_run: bool, force: bool) -> PushReport:
        """Push, unless all of it was confirmed before."""
        if self._is_confirmed():
            return self._unchanged("sent before")
        found = self._found(force=force)
        if found is not None and not force and self._is_live_there(found):
            return self._unchanged("it is recorded there live, as it seems; push it once it has ended", found)
        self._expected = replace(self._expected, config=self._reader.config, summary=self._reader.summary)
        choice = self._chooser.choose(self._entry, found)
        if dry_run:
            return self._would_send(choice.plan, found)
        gone: list[str] = []
        if not self._has_all(found, choice.plan):
            try:
                delivered, gone = self._send(choice, found)
            except BackendLostError as error:
                sent = self._progress.sent
                for _ in choice.plan:
                    """It counts what there is, of which only a part was gone through."""
                return self._report("unconfirmed", choice.plan, sent, f"{error}; push again", found)
            lines = found.line_count if found else 0
            self._expected = replace(self._expected, lines=lines, delivered=delivered)
            found = self._read_back(delivered)
        lacking = self._expected.lacking(found)
        if found is None or lacking:
            return self._unconfirmed(choice.plan, [*lacking, *gone], found)
        return self._confirmed(choice, found, gone)

    # -- before ----------------------------------------------------------------------------------------

    def _is_confirmed(self) -> bool:
        entry = self._entry
        now = (self._revision, self._artifacts.labels)
        return entry.lines >= 0 and entry.sending is None and (entry.revision, entry.labels) == now

    def _found(self, *, force: bool) -> Received | None:
        """Ask the server what it has, once nobody is sending any more.

        Raises:
            RunExistsError: it has another run of this id.
        """
        found, sending = self._ask(ends=True), self._entry.sending
        is_known = self._entry.confirmed_at > 0 or sending is not None
        if found is not None and not (found.is_ours or is_known or force):
            msg = (
                f"a run {self._info.id!r} that is not this one is there already ({found.url}): choose "
                "another id with --id, another project with --to, or merge the two with --force"
            )
            raise RunExistsError(msg)
        if sending is None or sending.host == socket.gethostname():
            return found
        return self._still(found)

    def _still(self, found: Received | None) -> Received | None:
        """Wait until what another host may still be sending has arrived."""
        since = time.monotonic()
        while time.monotonic() < min(since + _STILL_SECONDS, self._deadline):
            time.sleep(_LOOK_SECONDS)
            before, found = found, self._ask(ends=True)
            if (before and before.line_count) != (found and found.line_count):
                since = time.monotonic()
        return found

    def _is_live_there(self, found: Received) -> bool:
        """Say whether the run's own client seems to be sending it: not all that is there came from here."""
        if not self._is_running or found.state != "running":
            return False
        return self._entry.sending is None and self._entry.lines != found.line_count

    def _ask(self, **more: Any) -> Received | None:
        return self._ask_server(self._info, Question(self._artifacts.made, self._artifacts.used, **more))

    def _has_all(self, found: Received | None, plan: Plan) -> bool:
        """Say whether a server, of which nothing was known, turns out to have everything."""
        if found is None or self._entry.lines >= 0 or self._entry.sending is not None:
            return False
        console = self._reader.console(after=console_sent(self._reader, found))
        system = self._reader.system_metrics(after=system_sent(self._reader, found))
        has_more = any(next(iter(rows), None) is not None for rows in (plan, console, system))
        return not has_more and not self._expected.lacking(found)

    def _would_send(self, plan: Plan, found: Received | None) -> PushReport:
        """Count what would be sent."""
        for _ in self._watched(plan):
            """The plan and the progress count."""
        made = self._missing_artifacts(found)
        lacking = [f"artifacts {named(made)}"] if made and found is None else []
        lacking += self._expected.lacking(found)
        if not lacking and not plan.sent:
            lacking = ["nothing" if self._entry.lines < 0 else "what else has changed"]
        return self._report("would send", plan, plan.sent, ", ".join(lacking), found)

    # -- sending ---------------------------------------------------------------------------------------

    def _send(self, choice: Choice, found: Received | None) -> tuple[Delivered, list[str]]:
        """Have the backend deliver what is lacking; return what it sent, and what it could not be given."""
        info, expected = self._info, self._expected
        self._ledger.record(self._target, replace(self._entry, sending=_sending(choice)))
        settings = Settings(
            backends=(self._name,), dir=self._store, finish_timeout=self._left(), replaying=True
        )
        if found is not None:  # a server may be slow to tell its last step; its rows say more
            found = replace(found, last_step=max(found.last_step, choice.known_step))
        delivery = self._deliver_to(self._reader, info, found, settings)
        self._progress.delivery = delivery
        try:
            gone = deliver(
                self._reader,
                delivery,
                rows=self._watched(choice.plan),
                config=expected.config,
                summary=expected.summary,
                artifacts=self._artifacts_to_send(found),
                uses=expected.used if found is None else found.missing_uses,
                console_after=console_sent(self._reader, found) if found else 0,
                system_after=system_sent(self._reader, found) if found else 0,
                status=Status(info.state, info.exit_code or 0),
            )
        except BaseException:
            delivery.abandon()
            raise
        return delivery.delivered, gone

    def _artifacts_to_send(self, found: Received | None) -> Sequence[LoggedArtifact]:
        """Return what the server lacks; all that the run made, if it made more since it was confirmed.

        A content may be there because another run made it: of those, too, the server is to hear of this one.
        """
        missing = self._missing_artifacts(found)
        return missing if self._entry.labels == self._artifacts.labels else self._artifacts.made

    def _missing_artifacts(self, found: Received | None) -> Sequence[LoggedArtifact]:
        made = self._artifacts.made if found is None else found.missing_artifacts
        self._progress.bytes += sum(file.size for artifact in made for file in artifact.files)
        return made

    def _watched(self, plan: Plan) -> Iterator[PlannedRow]:
        """Go through the plan, and tell how far it is."""
        progress, before = self._progress, plan.base.top
        for planned in plan:
            if not planned.is_there:
                progress.rows += 1
                progress.bytes += file_bytes(planned.row)
                progress.share = min(1.0, (planned.row.step - before) / max(1, plan.upto - before))
            yield planned
        progress.share = 1.0

    def _read_back(self, delivered: Delivered) -> Received | None:
        """Ask until the server shows everything, or time is up."""
        deadline, pause = min(self._deadline, time.monotonic() + _CONFIRM_SECONDS), 0.2
        while True:
            found = self._ask(files=delivered.files, parts=delivered.parts)
            if not self._expected.lacking(found) or time.monotonic() + pause > deadline:
                return found
            time.sleep(pause)
            pause *= 2

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    # -- afterwards ------------------------------------------------------------------------------------

    def _confirmed(self, choice: Choice, found: Received, gone: list[str]) -> PushReport:
        plan, before, delivered = choice.plan, self._entry, self._expected.delivered
        entry = Entry(
            revision="" if choice.is_brief else self._revision,
            labels=self._artifacts.labels,
            through=plan.upto,
            digest=choice.digest if choice.is_whole and not plan.late_waiting else "",
            lines=found.line_count,
            last_step=found.last_step,
            rows=plan.rows,
            late=before.late + plan.late,
            repeated=plan.repeated if choice.is_compared else before.repeated,
            waiting=plan.waiting,
            state=self._info.state,
            url=found.url or "",
            confirmed_at=time.time(),
        )
        self._ledger.record(self._target, entry)
        refused = [*(delivered.refused if delivered else ()), *gone]
        remarks = {
            f"{plan.late} rows came late, and have their steps under tracklayer/step": plan.late,
            f"{plan.repeated} rows were logged again, and keep their first values there": plan.repeated,
            f"{plan.waiting} rows wait for the run to go on or to end": plan.waiting,
            "what came late waits for the run's end": not choice.is_whole,
            f"not all of it can be there: {_first_of(refused)}": refused,
            f"without what was deleted here: {named(self._artifacts.deleted)}": self._artifacts.deleted,
        }
        message = "; ".join(
            [
                "confirmed by the server" if delivered else "the server had everything",
                *(remark for remark, applies in remarks.items() if applies),
            ]
        )
        return self._report("sent", plan, delivered.lines if delivered else 0, message, found)

    def _unconfirmed(self, plan: Plan, lacking: list[str], found: Received | None) -> PushReport:
        delivered, rows = self._expected.delivered, 0
        message = f"the server still lacks {', '.join(lacking)}; push again"
        if delivered is not None:
            arrived = (found.line_count if found else 0) - (self._expected.lines or 0)
            rows = min(delivered.lines, max(0, arrived))
            if delivered.problems:
                message = f"{message}; its client says: {_first_of(delivered.problems)}"
        return self._report("unconfirmed", plan, rows, message, found)

    def _unchanged(self, message: str, found: Received | None = None) -> PushReport:
        entry = self._entry
        url = (found.url if found else None) or entry.url or None
        total = entry.rows + entry.waiting
        return PushReport(self._reader.id, "unchanged", 0, total, message, url, waiting=entry.waiting)

    def _report(
        self, outcome: Outcome, plan: Plan, rows: int, message: str, found: Received | None
    ) -> PushReport:
        return PushReport(
            self._reader.id,
            outcome,
            rows,
            plan.rows + plan.waiting,
            message,
            found.url if found else None,
            plan.late,
            plan.repeated,
            plan.waiting,
            self._progress.bytes,
        )


def _sending(choice: Choice) -> Sending:
    base = choice.plan.base
    return Sending(
        lines=base.lines,
        last_step=base.last_step,
        through=base.through,
        rows=base.rows,
        upto=choice.plan.upto,
        digest="" if choice.is_compared else choice.digest,
        is_whole=choice.is_whole,
        host=socket.gethostname(),
        pid=os.getpid(),
        at=time.time(),
    )


def _first_of(problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"{problems[0]}{more}" if problems else ""
