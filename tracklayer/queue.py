"""The queue in front of each backend: order, batching, back-pressure, outages and fork, once for all.

A queue is a `Run`.  `log` appends to a deque and returns; the queue's own thread hands the calls to the
backend's run, in order, and commits after each batch.  What waits is bounded in bytes.
"""

from __future__ import annotations

import json
import shlex
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, final

from tracklayer import reporting
from tracklayer.bell import Bell
from tracklayer.errors import BackendLostError, StoreError, TracklayerError
from tracklayer.forking import ForkGate, tell_children
from tracklayer.protocol import (
    CanBeAbandoned,
    ChoosesCommitInterval,
    MetricRule,
    PreparesMedia,
    Run,
    RunInfo,
    Status,
    TakesAlerts,
    TakesConsole,
    TakesEnvironment,
    TakesPreemption,
    TakesRows,
    TakesSystemMetrics,
)
from tracklayer.rows import QueuedRow, ReadyRow, RichValues, Series
from tracklayer.spill import Call, Spill, read_spill
from tracklayer.values import ALL_KINDS, SCALAR_TYPES, Value, kind_of

if TYPE_CHECKING:
    from tracklayer.alerts.alert import Alert
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.surroundings import ConsoleLine, Environment, SystemRow

_ROW_BYTES: Final = 370  # a dict, a tuple and a step of about this size wait for each row
_VALUE_BYTES: Final = 60
_LINE_BYTES: Final = 160
"""What a line of the console holds beside its text."""
LARGE_ROW: Final = 8000
"""Bytes from which a row is counted by itself: it is to come through `put`."""
_BATCH: Final = 20_000  # calls between two commits, at most
_DEVICE_POLL: Final = 0.002  # seconds between looks at a device, while somebody waits for what it computes
_IDLE_COMMIT: Final = 10.0  # seconds: a backend may keep a lease alive in `commit`
_PATIENCE: Final = 10.0  # seconds that callers wait at the bound, in all, in an outage
_CLOSED: Final = "_closed"
_OUTAGE: Final = frozenset({"outage", "spill", "full"})
"""What is reported again in the next outage."""


@final
class Queue:
    """A bounded queue, and the one thread that calls its backend.

    Args:
        name: the backend's name, for messages.
        info: the run's info until the backend's own is there.
        open_run: starts the backend's run; called on the queue's thread.
        kinds: the kinds of value that the backend shows; others are left out, and named once.
        observe: shown the rows, on the queue's thread.
        remedy: what the user can do about what this backend missed, for messages.
        in_order: rows are to be put in the order of their steps, media that are not encoded yet included.
        hosted: the backend is somebody else's server, and a local record stands beside it: never make
            the caller wait for it, and leave what it cannot take to a push.
        commit_interval: seconds between batches.
        limit_bytes: about the most memory to hold.
        finish_timeout: seconds that `finish` waits; for a local backend, since the last progress.
        comes_last: it is to be finished when the others of the run have been.
    """

    def __init__(
        self,
        name: str,
        info: RunInfo,
        open_run: Callable[[], Run],
        *,
        kinds: frozenset[str] = ALL_KINDS,
        observe: Callable[[Sequence[ReadyRow]], None] | None = None,
        remedy: str = "",
        in_order: bool = False,
        hosted: bool = False,
        commit_interval: float = 0.1,
        limit_bytes: int = 256_000_000,
        finish_timeout: float = 30.0,
        comes_last: bool = False,
    ) -> None:
        self.name = name
        self.info = info
        self.in_order = in_order
        self.comes_last = comes_last
        self.lost = 0
        """Calls that are recorded nowhere by this backend."""
        self._open_run = open_run
        self._kinds = kinds
        self._observe = observe
        self._remedy = remedy
        self._hosted = hosted
        self._interval = commit_interval
        self._limit = limit_bytes
        self._finish_timeout = finish_timeout
        self.items: deque[QueuedRow | Call] = deque()
        """What waits.  As long as there are fewer than `room`, a plain row may be appended directly."""
        self.room = 0
        self._takes = True
        self._in_flight: list[QueuedRow | Call] = []
        self._row_bytes = _ROW_BYTES
        """The most that a row was found to hold, large ones apart: each is taken to hold as much."""
        self._large_in = self._large_out = 0
        """The bytes of all that is counted by itself, that came and that are recorded."""
        self._counting = threading.RLock()  # which nobody holds while waiting, as one may the other
        self._wake = Bell()
        self._opened = Bell()
        self._open_error: BaseException | None = None
        self._lock = threading.RLock()
        self._at_work = ForkGate()
        self._spill: Spill | None = None
        self._returning: Spill | None = None
        """What was spilled and is being brought in."""
        self._outage_since: float | None = None
        self._commits = 0
        self._missed_at = -1
        self._awaits_device = False
        """What waits is still computed: that is no outage of the backend's."""
        self._flushing: list[Bell] = []
        """The callers that wait for what waits."""
        self._reported: set[str] = set()
        self._usable = True
        self._is_late = False
        self._is_closing = False
        self._finished = Bell()
        self._run: Run | None = None
        self._set_room()
        tell_children(self)
        self._thread = threading.Thread(target=self._work, name=f"tracklayer-{name}", daemon=True)
        self._thread.start()

    # -- the caller's side ------------------------------------------------------------------------

    def wait_open(self, timeout: float) -> BaseException | None:
        """Wait for the backend to open; return what it raised.

        Raises:
            TimeoutError: it is still opening; calls wait for it meanwhile.
        """
        if not self._opened.wait(timeout):
            self._is_late = True
            if not self._opened.wait(0):  # else it came before it could see that it is late
                msg = f"{self.name} did not answer within {timeout:.0f} s"
                raise TimeoutError(msg)
        return self._open_error

    @property
    def usable(self) -> bool:
        """Whether the backend takes calls, as far as is known."""
        return self._usable

    def put(self, row: QueuedRow) -> None:
        """Take a row; its values are the queue's own from now on.

        They are plain scalars in a dict, or what `tracklayer.rows` has for anything else.
        """
        size = row_size(row[2])
        if size > LARGE_ROW:
            self._count(size)
        elif size > self._row_bytes:
            self._row_bytes = size
            self._set_room()
        if len(self.items) < self.room:
            self.items.append(row)
        else:
            self._make_room(row)

    def log(self, values: Mapping[str, Value], *, step: int, time: float) -> None:
        """Take a row."""
        self.put((step, time, dict(values) if _is_plain(values) else RichValues(values)))

    def prepare(self, values: Mapping[str, Value]) -> None:
        """Have the backend do for media what takes long, on the thread that calls."""
        run = self._run
        if not (self._takes and isinstance(run, PreparesMedia)):
            return  # what is spilled comes back as other objects
        try:
            run.prepare({key: value for key, value in values.items() if kind_of(value) in self._kinds})
        except Exception as error:  # noqa: BLE001 - `log` does it again, and is refused alone
            self._report("prepare", f"{self.name} cannot show {', '.join(map(repr, values))}: {error!r}")

    def hold(self, size: int) -> None:
        """Count so many bytes to which media of a row that waits were encoded."""
        self._count(size)

    def update_config(self, config: Mapping[str, Any]) -> None:
        """Take a piece of config."""
        self._call("update_config", dict(config))

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        """Take summary entries."""
        self._call("update_summary", dict(summary))

    def define_metric(self, rule: MetricRule) -> None:
        """Take a metric rule; a backend without rules does not see it."""
        self._call("define_metric", rule)

    def log_artifact(self, artifact: LoggedArtifact) -> None:
        """Take an artifact, whose files are the store's already."""
        self._call("log_artifact", artifact)

    def use_artifact(self, artifact: LoggedArtifact) -> None:
        """Take the use of an artifact; a backend without uses does not see it."""
        self._call("use_artifact", artifact)

    def alert(self, alert: Alert) -> None:
        """Take an alert, where the backend tells people of alerts, or is still to open."""
        if self._run is None or isinstance(self._run, TakesAlerts):
            self._call("alert", alert)

    def mark_preempting(self, by: str) -> None:
        """Take the word that the process is about to be ended, where the backend shows that."""
        if self.takes(TakesPreemption):
            self._call("mark_preempting", by)

    def takes(self, capability: type) -> bool:
        """Say whether the backend has this capability, as far as is known."""
        return self._usable and (self._run is None or isinstance(self._run, capability))

    def record_environment(self, environment: Environment) -> None:
        """Take entries of the environment."""
        if self.takes(TakesEnvironment):
            self._call("record_environment", dict(environment), len(json.dumps(environment)))

    def log_system(self, row: SystemRow) -> None:
        """Take a row of system metrics."""
        if self.takes(TakesSystemMetrics):
            self._call("log_system", row, _ROW_BYTES + _VALUE_BYTES * len(row.values))

    def log_console(self, lines: Sequence[ConsoleLine]) -> None:
        """Take lines, as long as half of the queue is free; never wait.

        So neither the program that prints nor its rows suffer from what it prints.
        """
        if not self.takes(TakesConsole) or self._is_closing:
            return
        size = sum(_LINE_BYTES + len(line.text) for line in lines)
        if self._free_bytes() - size < self._limit // 2:
            self._report("console", f"{self.name} leaves out lines of the console: they come too fast")
            return
        self._count(size)
        # past what is spilled, which has no lines
        self.items.append(Call("log_console", tuple(lines), size))

    def commit(self) -> None:
        """Wait until what came so far is durable, or cannot be made so now."""
        self.flush(_PATIENCE)

    def flush(self, timeout: float) -> bool:
        """Wait until what came so far is durable; say whether it is.

        A backend that was lost has nothing to wait for.
        """
        if not self._usable or self._is_closing:
            return False
        done = Bell()
        self._flushing.append(done)
        self.items.append(Call("_flushed", done))  # behind what is spilled, too: that comes in before it
        self._wake.ring()
        deadline = monotonic() + timeout
        try:
            while self._usable:
                if done.wait(min(0.2, deadline - monotonic())):
                    return True
                if monotonic() >= deadline:
                    return False
            return done.wait(0)
        finally:
            self._flushing.remove(done)

    def catch_up(self, timeout: float) -> bool:
        """Flush, but wait no more than once while the backend does not get on."""
        if self._outage_since is not None or self._missed_at == self._commits:
            return False
        caught_up = self.flush(timeout)
        self._missed_at = -1 if caught_up else self._commits
        return caught_up

    def finish(self, status: Status) -> None:
        """Commit everything, finish the backend's run, and end the thread.

        What cannot be recorded within the time limit is written to the temporary folder, or left to a
        push where the backend is hosted; either is reported.  Another call, as from a signal handler
        that interrupted the first, waits for the same end.
        """
        with self._lock:  # behind what is spilled, in its order
            if not self._is_closing:
                self._is_closing = True
                self._take_no_more()
                self.items.append(Call(_CLOSED, status))
        self._wake.ring()
        progress, deadline = self._commits, monotonic() + self._finish_timeout
        while self._usable:
            if self._finished.wait(min(0.2, deadline - monotonic())):
                break
            if not self._hosted and (self._awaits_device or self._commits != progress):
                progress, deadline = self._commits, monotonic() + self._finish_timeout
            if monotonic() >= deadline:
                self._give_up()
        if self.lost and self._remedy:
            self._report("lost", f"{self.name} did not get all of the run; {self._remedy}")

    def after_fork_in_child(self) -> None:
        """Take nothing any more: the thread is in the parent, and so is the right to write."""
        self._usable = False
        self._take_no_more()
        self._lock = threading.RLock()
        self._counting = threading.RLock()
        self._spill = self._returning = None

    def _call(self, method: str, argument: object, size: int = 0) -> None:
        call = Call(method, argument, size)
        if size:
            self._count(size)
        if len(self.items) < self.room:
            self.items.append(call)
        else:
            self._make_room(call)

    def _refuse(self, item: QueuedRow | Call) -> None:
        del item
        self.lost += 1

    # -- back-pressure ----------------------------------------------------------------------------

    def _count(self, size: int) -> None:
        """Count bytes of an item that comes, or is on disk after all."""
        with self._counting:
            self._large_in += size
        self._set_room()

    def _free_bytes(self) -> int:
        waiting = len(self.items) + len(self._in_flight)
        return self._limit - self._large_in + self._large_out - waiting * self._row_bytes

    def _set_room(self) -> None:
        if self._takes:
            self.room = self._capacity() - len(self._in_flight)
        if not self._takes:  # another thread may have said so meanwhile
            self.room = 0

    def _capacity(self) -> int:
        """Return how many calls may wait, those just being recorded included; one always may."""
        return max(1, (self._limit - self._large_in + self._large_out) // self._row_bytes)

    def _is_full(self) -> bool:
        return len(self.items) + len(self._in_flight) >= self._capacity()

    def _take_no_more(self) -> None:
        """Have every call go through `_make_room`."""
        self._takes = False
        self.room = 0

    def _make_room(self, item: QueuedRow | Call) -> None:
        """Place an item for which there is no room: wait, then spill, then count it as lost."""
        if self._hosted and self._usable and not self._is_closing:
            if not self._is_full():
                self.items.append(item)
                return
            self._lose("holds more than it can send")
        if not self._usable or self._is_closing:
            self._refuse(item)
            return
        with self._lock:
            if self._spill is None:
                if self._room_came():
                    self.items.append(item)
                    return
                if self._spill is None:  # a signal handler that logs may have come to this meanwhile
                    self._open_spill()
            self._write_spill(item)

    def _room_came(self) -> bool:
        """Wait for room as long as the backend gets on, but no longer than patience without it."""
        self._wake.ring()
        progress = self._commits
        waited_since = self._outage_since or monotonic()
        while self._usable and self._is_full():
            if self._spill is not None:
                return False
            if self._commits != progress or self._awaits_device:
                progress, waited_since = self._commits, monotonic()
            elif monotonic() - waited_since > _PATIENCE:
                self._outage_since = waited_since
                return False
            sleep(0.005)
        return True

    def _open_spill(self) -> None:
        try:
            self._spill = Spill(self.info)
        except OSError as error:
            self._report("spill", f"cannot write to the temporary folder either: {error}")
            return
        self._report(
            "spill",
            f"{self.name} has taken nothing for {_PATIENCE:.0f} s: rows go to {self._spill.path} "
            "until it does again",
        )
        self._take_no_more()  # whatever comes now goes behind what is spilled
        self.items.append(Call("_unspill", self._spill))

    def _write_spill(self, item: QueuedRow | Call) -> None:
        self._count(-_counted(item))  # it is not in memory
        if self._spill is None:
            self._refuse(item)
            return
        try:
            kept = self._kept_in(self._spill, item)
        except OSError as error:
            kept = False
            self._report("full", f"rows are being lost: the temporary folder is full, too: {error}")
        if not kept:
            self._refuse(item)

    def _give_up(self) -> None:
        """Leave the backend behind: the program is to go on, or to end."""
        self._usable = False
        if self._hosted:
            self.lost += len(self.items) + len(self._in_flight) or 1
            if isinstance(self._run, CanBeAbandoned):
                self._run.abandon()
            return
        with self._lock:
            before, after = self._returning, self._spill
            left = [*self._in_flight, *self.items]
        files = [before.path] if before else []
        waiting = sum(not _is_internal(item) for item in left)
        kept, trouble = 0, ""
        try:
            with closing(Spill(self.info)) as rescue:
                files.append(rescue.path)
                for item in left:
                    if isinstance(item, Call) and item.method == _CLOSED:
                        rescue.write(Call("finish", item.argument))
                    elif not _is_internal(item) and self._kept_in(rescue, item):
                        kept += 1
        except OSError as error:
            trouble = f" {waiting - kept} calls are lost: {error}."
        self.lost += waiting - kept
        if after:
            after.close()
            files.append(after.path)
        kept += sum(spill.count for spill in (before, after) if spill)
        self._report(
            "gave up",
            f"{self.name} took nothing for {self._finish_timeout:.0f} s.{trouble} {kept} calls are "
            f"kept: `tracklayer recover {shlex.join(map(str, files))}` records them",
        )

    def _kept_in(self, spill: Spill, item: QueuedRow | Call) -> bool:
        """Write a call to a file; say whether it is there.

        Raises:
            OSError: the temporary folder is full.
        """
        try:
            for part in [item] if isinstance(item, Call) else self._rows(item):
                spill.write(part)
        except Exception as error:
            if isinstance(error, OSError) and not isinstance(error, StoreError):
                raise  # it is the folder; a `StoreError` is about what the call holds
            detail = f"{self.name} has no room, and a call cannot be kept in a file: {error!r}"
            self._report(f"unkept {type(error).__name__}", detail)
            return False
        return True

    # -- the queue's own thread -------------------------------------------------------------------

    def _work(self) -> None:
        try:
            with self._at_work:
                self._run = run = self._open_run()
            self.info = run.info
            if isinstance(run, ChoosesCommitInterval):
                self._interval = run.commit_interval
        except BaseException as error:  # noqa: BLE001 - `init` raises it, or reports it
            self._usable = False
            self._take_no_more()
            self.lost += len(self.items)
            self.items.clear()
            self._reported.add("lost")
            self._open_error = error
            self._opened.ring()
            if self._is_late and not self._hosted:  # nobody waits for the error any more
                self._report("gone", f"{self.name} is lost: it did not start: {error}")
            return
        self._opened.ring()
        last_commit = monotonic()
        try:
            while True:
                self._wake.wait(self._interval)
                if self.items or monotonic() - last_commit > _IDLE_COMMIT:
                    last_commit = monotonic()
                    if self._drain(run):
                        return
        except BackendLostError as error:
            self._lose(str(error))
        except Exception as error:  # noqa: BLE001 - a thread that dies without a word loses rows
            self._lose(repr(error))

    def _drain(self, run: Run) -> bool:
        """Hand over what waits, batch by batch; say whether the run is finished."""
        while True:
            with self._at_work:
                ends = self._hand_over(run)
            if self._in_flight or not self._awaits_device:
                self._until_it_works(run.commit)
            self._large_out += sum(map(_counted, self._in_flight))
            self._in_flight = []
            self._set_room()
            if ends is not None and self._settle(run, ends):
                return True
            if not self.items:
                return False
            if self._awaits_device:
                if not (self._flushing or self._is_closing):
                    return False  # it comes with the next batch
                sleep(_DEVICE_POLL)

    def _hand_over(self, run: Run) -> Call | None:
        """Pass on one batch; return the call of the queue's own that ends it, if one does."""
        batch = self._in_flight = []
        self._take_batch(batch)
        plain: list[ReadyRow] = []
        for position, item in enumerate(batch):
            if isinstance(item, Call):
                self._log_rows(run, plain)
                plain = []
                if _is_internal(item):
                    self.items.extendleft(reversed(batch[position + 1 :]))
                    del batch[position + 1 :]
                    return item
                self._attempt(run, item)
            elif isinstance(item[2], dict):
                plain.append(item)  # type: ignore[arg-type] # see the line above
            else:
                for row in self._rows(item):
                    if _is_plain(row[2]):
                        plain.append(row)
                    else:
                        self._log_rows(run, plain)
                        plain = []
                        self._attempt(run, row)
                    if len(plain) >= _BATCH:  # a series may be of any length
                        self._log_rows(run, plain)
                        plain = []
        self._log_rows(run, plain)
        return None

    def _take_batch(self, batch: list[QueuedRow | Call]) -> None:
        """Move what waits into a list, up to a row that is still computed on a device."""
        items = self.items
        self._awaits_device = False
        with suppress(IndexError):  # `_lose` empties it, where a caller finds out
            for _ in range(min(len(items), _BATCH)):
                if not _is_there(items[0]):
                    self._awaits_device = True
                    return
                batch.append(items.popleft())

    def _rows(self, item: QueuedRow) -> Iterable[ReadyRow]:
        """Return the rows that an item comes to; what cannot be told is left out, and reported."""
        step, time, values = item
        return ((step, time, values),) if isinstance(values, dict) else values.rows(step, time, self._report)

    def _log_rows(self, run: Run, rows: list[ReadyRow]) -> None:
        """Pass on rows of plain scalars."""
        if not rows:
            return
        self._show_observer(rows)
        if not isinstance(run, TakesRows):
            for row in rows:
                self._attempt(run, row)
            return
        try:
            run.log_rows(rows)
        except BackendLostError:
            raise
        except Exception:  # noqa: BLE001 - tracking never brings training down
            for row in rows:  # one by one: the others are kept, and what came twice counts once
                self._attempt(run, row)

    def _attempt(self, run: Run, item: ReadyRow | Call) -> None:
        """Pass on one call; what the backend refuses is counted and reported."""
        try:
            if isinstance(item, Call):
                item.apply(run)
                return
            step, time, values = item
            if not _is_plain(values):
                values = self._showable(values)
                self._show_observer([(step, time, values)])
            if values:
                run.log(values, step=step, time=time)
        except BackendLostError:
            raise
        except Exception as error:  # noqa: BLE001 - tracking never brings training down
            self._refused_by_backend(error)

    def _show_observer(self, rows: list[ReadyRow]) -> None:
        if self._observe is None:
            return
        try:
            self._observe(rows)
        except Exception as error:  # noqa: BLE001 - a summary must not cost the rows
            self._report("observer", f"the live summary is not complete: {error!r}")

    def _settle(self, run: Run, call: Call) -> bool:
        """Answer a call of the queue's own, now that all before it is durable."""
        if call.method == "_unspill":
            self._bring_in(run, call.argument)
        elif call.method == "_flushed":
            call.argument.ring()
        else:
            self._until_it_works(lambda: run.finish(call.argument))
            self._usable = False
            self._finished.ring()
            return True
        return False

    def _bring_in(self, run: Run, spill: Spill) -> None:
        """Pass on what was spilled."""
        with self._lock:
            self._returning = spill
            if self._spill is spill:
                self._spill = None
                self._takes = not self._is_closing
                self._set_room()
            spill.close()
        done, trouble = 0, "it is torn"
        try:
            for item in read_spill(spill.path):
                if not isinstance(item, Call) and _is_plain(item[2]):
                    self._show_observer([item])
                with self._at_work:
                    self._attempt(run, item)
                done += 1
                if done % _BATCH == 0:
                    self._until_it_works(run.commit)
        except BackendLostError:
            raise
        except OSError as error:
            trouble = str(error)
        self._until_it_works(run.commit)
        self._returning = None
        if done == spill.count:
            spill.remove()
        else:
            missing = spill.count - done
            self.lost += missing
            self._report("unread", f"{missing} calls in {spill.path} cannot be read: {trouble}")

    def _until_it_works(self, attempt: Callable[[], None]) -> None:
        pause = 0.05
        while True:
            try:
                with self._at_work:
                    attempt()
            except BackendLostError:
                raise
            except Exception as error:  # noqa: BLE001 - an outage: reported once, tried until it ends
                if self._outage_since is None:
                    self._outage_since = monotonic()
                self._report(
                    "outage",
                    f"{self.name} cannot record now: {error}. Training goes on; what is logged is kept "
                    "and recorded when it can be",
                )
                sleep(pause)
                pause = min(1.0, pause * 2)
            else:
                break
        self._commits += 1
        self._outage_since = None
        if not self._reported.isdisjoint(_OUTAGE):
            self._reported -= _OUTAGE
            missed = f"{self.lost} calls" if self.lost else "nothing"
            reporting.warn(f"{self.name} records again; run {self.info.id} missed {missed}")

    def _showable(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Leave out what this backend cannot show."""
        shown: dict[str, Value] = {}
        for key, value in values.items():
            if kind_of(value) in self._kinds:
                shown[key] = value
            else:
                kind = kind_of(value)
                self._report(
                    f"kind {kind}", f"{self.name} cannot show values of kind {kind}, such as {key!r}"
                )
        return shown

    def _refused_by_backend(self, error: Exception) -> None:
        self.lost += 1
        detail = str(error) if isinstance(error, TracklayerError) else repr(error)
        self._report(f"refused {type(error).__name__}", f"{self.name} refused a call: {detail}")

    def _lose(self, reason: str) -> None:
        """Send nothing more: the backend is gone."""
        if not self._usable:
            return  # it was given up, which whoever did so reports
        self._usable = False
        self._take_no_more()
        with self._lock:
            spills = [spill for spill in (self._returning, self._spill) if spill]
            left = [*self._in_flight, *self.items]
        self.lost += sum(not _is_internal(item) for item in left)
        self.items.clear()
        self._in_flight = []
        self._reported.add("lost")  # `finish` need not repeat the remedy
        remedy = f"; {self._remedy}" if self._remedy else ""
        if spills:
            files = shlex.join(str(spill.path) for spill in spills)
            remedy += f"; `tracklayer recover {files}` records what was spilled"
        for spill in spills:
            spill.close()
        self._report("gone", f"{self.name} is lost: {reason}. Training goes on{remedy}")

    def _report(self, about: str, message: str) -> None:
        """Say something once."""
        if about not in self._reported:
            self._reported.add(about)
            reporting.warn(message)


def row_size(values: dict[str, Any] | RichValues | Series) -> int:
    """Return about how many bytes a waiting row holds, media that are not encoded yet apart."""
    return _ROW_BYTES + (_VALUE_BYTES * len(values) if isinstance(values, dict) else values.size)


def _counted(item: QueuedRow | Call) -> int:
    """Return how many bytes were counted for an item by itself: a call, a large row, or encoded media."""
    if isinstance(item, Call):
        return item.size
    size = row_size(item[2])
    media = item[2].media if isinstance(item[2], RichValues) else None
    return (size if size > LARGE_ROW else 0) + (0 if media is None else media.encoded_size)


def _is_there(item: QueuedRow | Call) -> bool:
    """Say whether an item can be handed over without waiting for a device."""
    return isinstance(item, Call) or isinstance(item[2], dict) or item[2].is_ready()


def _is_internal(item: QueuedRow | Call) -> bool:
    return isinstance(item, Call) and item.method[0] == "_"


def _is_plain(values: Mapping[str, Value]) -> bool:
    return SCALAR_TYPES.issuperset(map(type, values.values()))
