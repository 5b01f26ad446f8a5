"""The queue in front of each backend, against small runs that behave as backends do on a bad day."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tracklayer import queue as queue_module
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.errors import BackendLostError, CorruptRunError, StoreError
from tracklayer.fanout import FanOut
from tracklayer.protocol import MetricRule, RunInfo, Status
from tracklayer.queue import Queue, row_size
from tracklayer.spill import Call, Spill, read_spill, spilled_run
from tracklayer.surroundings import ConsoleLine, Environment, SystemRow
from tracklayer.values import Histogram, Text, Value

WAIT = 30.0  # seconds that a busy machine may take for anything
INFO = RunInfo("r", "p", "n")
ARTIFACT = LoggedArtifact(
    name="model",
    type="weights",
    files=(
        ArtifactFile("a/b.bin", "ab" * 32, 12, "/store/blobs/ab"),
        ArtifactFile("far", "", 0, "s3://bucket/far", reference="s3://bucket/far", checksum="an etag"),
    ),
    description="é\n",
    metadata={"nested": {"list": [1, None, 0.5]}},
    time=1_700_000_000.25,
    project="p",
    version=3,
    aliases=("best", "stable"),
)
"""One that has everything that an artifact can have."""


class FakeRun:
    """A run that keeps what it gets, durable at `commit`, and fails on demand."""

    info = INFO

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.durable: list[tuple[Any, ...]] = []
        self.batches: list[int] = []
        self.ended: Status | None = None
        self.outage: Exception | None = None
        self.refuses: Callable[[Mapping[str, Value]], Exception | None] = lambda values: None
        self.gate = threading.Event()
        self.gate.set()

    def log(self, values: Mapping[str, Value], *, step: int, time: float) -> None:
        self.gate.wait(WAIT)
        error = self.refuses(values)
        if error is not None:
            raise error
        self.calls.append(("log", step, dict(values)))

    def update_config(self, config: Mapping[str, Any]) -> None:
        self.calls.append(("config", dict(config)))

    def update_summary(self, summary: Mapping[str, Any]) -> None:
        self.calls.append(("summary", dict(summary)))

    def log_artifact(self, artifact: Any) -> None:
        self.calls.append(("artifact", artifact))

    def commit(self) -> None:
        self.gate.wait(WAIT)
        if self.outage is not None:
            raise self.outage
        if self.calls:
            self.batches.append(len(self.calls))
        self.durable += self.calls
        self.calls = []

    def finish(self, status: Status) -> None:
        self.commit()
        self.ended = status

    @property
    def steps(self) -> list[int]:
        return [call[1] for call in self.durable if call[0] == "log"]


class RunWithRules(FakeRun):
    """One that takes metric rules."""

    def define_metric(self, rule: MetricRule) -> None:
        self.calls.append(("rule", rule.pattern))


class RunWithUses(FakeRun):
    """One that takes what the run used."""

    def use_artifact(self, artifact: LoggedArtifact) -> None:
        self.calls.append(("use", artifact))


class RunWithSurroundings(FakeRun):
    """One that takes what its process is, prints and measures."""

    def record_environment(self, environment: Environment) -> None:
        self.calls.append(("environment", dict(environment)))

    def log_console(self, lines: Sequence[ConsoleLine]) -> None:
        self.gate.wait(WAIT)
        self.calls.append(("console", *lines))

    def log_system(self, row: SystemRow) -> None:
        self.calls.append(("system", row))

    @property
    def lines(self) -> list[str]:
        return [line.text for call in self.durable if call[0] == "console" for line in call[1:]]


class RunOfManyRows(FakeRun):
    """One that takes many rows at once."""

    def log_rows(self, rows: Sequence[tuple[int, float, Mapping[str, Value]]]) -> None:
        for step, moment, values in rows:
            self.log(values, step=step, time=moment)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where spills go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "_PATIENCE", 0.3)


@pytest.fixture
def queue_for(temporary: Path) -> Iterator[Callable[..., Queue]]:
    """Make queues, and end them with the test."""
    made: list[tuple[Queue, FakeRun]] = []

    def make(run: FakeRun, **options: Any) -> Queue:
        options = {"commit_interval": 0.02, "finish_timeout": WAIT} | options
        queue = Queue("fake", INFO, lambda: run, **options)
        assert queue.wait_open(WAIT) is None
        made.append((queue, run))
        return queue

    yield make
    for queue, run in made:
        run.gate.set()
        run.outage = None
        queue.finish(Status())
        queue._thread.join(WAIT)  # it may have something to say yet, which is not the next test's


def log(queue: Queue, *steps: int, **values: Value) -> None:
    for step in steps:
        queue.log(values or {"x": step}, step=step, time=float(step))


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def spills(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


# -- order, batches, waiting --------------------------------------------------------------------------


def test_calls_of_all_kinds_arrive_in_their_order(queue_for: Callable[..., Queue]) -> None:
    run = RunWithRules()
    queue = queue_for(run)
    queue.update_config({"a": 1})
    log(queue, 0, 1)
    queue.log({"t": Text("hello")}, step=1, time=0.0)
    queue.define_metric(MetricRule("x"))
    log(queue, 2)
    queue.update_summary({"s": 1})
    log(queue, 0)
    assert queue.flush(WAIT)
    assert run.durable == [
        ("config", {"a": 1}),
        ("log", 0, {"x": 0}),
        ("log", 1, {"x": 1}),
        ("log", 1, {"t": Text("hello")}),
        ("rule", "x"),
        ("log", 2, {"x": 2}),
        ("summary", {"s": 1}),
        ("log", 0, {"x": 0}),
    ]


def test_what_a_run_made_and_used_is_handed_on_but_uses_not_to_a_run_without_them(
    queue_for: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    runs = [RunWithUses(), FakeRun()]
    fan_out = FanOut([queue_for(run) for run in runs])
    fan_out.use_artifact(ARTIFACT)
    fan_out.log_artifact(ARTIFACT)
    fan_out.finish(Status())
    assert runs[0].durable == [("use", ARTIFACT), ("artifact", ARTIFACT)]
    assert runs[1].durable == [("artifact", ARTIFACT)]
    assert warnings(caplog) == []


def test_a_fan_out_over_backends_themselves_hands_uses_to_those_that_take_them() -> None:
    runs = [FakeRun(), RunWithUses()]
    FanOut(runs).use_artifact(ARTIFACT)
    assert [run.calls for run in runs] == [[], [("use", ARTIFACT)]]


def line(text: str) -> ConsoleLine:
    return ConsoleLine(1.5, "stdout", text)


SYSTEM_ROW = SystemRow(2.5, {"cpu": 12.5, "gpu.0.temp": float("inf")})


def test_a_fan_out_hands_what_a_process_is_prints_and_measures_to_those_that_take_it(
    queue_for: Callable[..., Queue],
) -> None:
    taking, other = RunWithSurroundings(), FakeRun()
    everywhere = FanOut([queue_for(taking), queue_for(other), RunWithSurroundings(), FakeRun()])
    everywhere.record_environment({"host": "h"})
    everywhere.log_console([line("one"), line("two")])
    everywhere.log_system(SYSTEM_ROW)
    everywhere.commit()
    expected = [("environment", {"host": "h"}), ("console", line("one"), line("two")), ("system", SYSTEM_ROW)]
    assert taking.durable == expected
    assert other.durable == []


def test_lines_of_the_console_wait_for_nobody_and_leave_half_of_the_room_to_rows(
    queue_for: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    run = RunWithSurroundings()
    run.gate.clear()
    queue = queue_for(run, limit_bytes=400_000)
    begin = time.monotonic()
    for number in range(300):
        queue.log_console([line(f"{number} {'x' * 1000}")])
    log(queue, *range(400))  # for which there is room: nobody waits, and nothing spills
    queue.log_console([line("too late")])
    assert time.monotonic() - begin < 5
    run.gate.set()
    assert queue.flush(WAIT)
    assert run.steps == list(range(400))
    assert 100 < len(run.lines) < 200
    assert run.lines == [f"{number} {'x' * 1000}" for number in range(len(run.lines))]
    assert warnings(caplog) == ["tracklayer: fake leaves out lines of the console: they come too fast"]
    for _ in range(20):  # what is recorded makes room again
        queue.log_console([line("y" * 20_000)])
        assert queue.flush(WAIT)
    assert run.lines[-20:] == ["y" * 20_000] * 20


def test_lines_of_the_console_do_not_wait_behind_a_call_that_waits_for_room(
    queue_for: Callable[..., Queue],
) -> None:
    run = RunWithSurroundings()
    run.gate.clear()
    queue = queue_for(run, limit_bytes=100_000)
    waiting = threading.Thread(target=log, args=(queue, *range(400)))
    waiting.start()
    until(lambda: len(queue.items) + len(queue._in_flight) >= queue._capacity())
    begin = time.monotonic()
    queue.log_console([line("one")])
    assert time.monotonic() - begin < 1
    run.gate.set()
    waiting.join(WAIT)
    assert queue.flush(WAIT)
    assert run.steps == list(range(400))
    assert run.lines == []


def test_what_a_process_is_prints_and_measures_passes_through_a_rescue(
    queue_for: Callable[..., Queue], temporary: Path
) -> None:
    run = RunWithSurroundings()
    queue = queue_for(run, finish_timeout=0.2)
    run.outage = StoreError("disk full")
    queue.record_environment({"args": ["é", "\ud800"], "git": {"dirty": True}})
    queue.log_console([line("one\ud800"), line("")])
    queue.log_system(SYSTEM_ROW)
    queue.finish(Status())
    (file,) = spills(temporary)
    assert [item[:2] for item in read_spill(file)] == [
        ("record_environment", {"args": ["é", "\ud800"], "git": {"dirty": True}}),
        ("log_console", [line("one\ud800"), line("")]),
        ("log_system", SYSTEM_ROW),
        ("finish", Status()),
    ]


def test_a_run_without_rules_is_not_handed_any(queue_for: Callable[..., Queue]) -> None:
    run = FakeRun()
    queue = queue_for(run)
    queue.define_metric(MetricRule("x"))
    assert queue.flush(WAIT)
    assert run.durable == []
    assert queue.lost == 0


def test_what_waits_is_committed_in_batches(queue_for: Callable[..., Queue]) -> None:
    run = FakeRun()
    queue = queue_for(run, commit_interval=WAIT)
    log(queue, *range(1000))
    assert queue.flush(WAIT)
    assert run.batches == [1000]


def test_a_long_backlog_is_committed_in_pieces(
    queue_for: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "_BATCH", 100)
    run = FakeRun()
    queue = queue_for(run, commit_interval=WAIT)
    log(queue, *range(250))
    assert queue.flush(WAIT)
    assert run.batches == [100, 100, 50]
    assert run.steps == list(range(250))


def test_without_a_flush_rows_are_committed_after_the_interval(
    queue_for: Callable[..., Queue],
) -> None:
    run = FakeRun()
    queue = queue_for(run)
    log(queue, 1)
    until(lambda: run.steps == [1])


def test_commit_is_called_now_and_then_in_silence(
    queue_for: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "_IDLE_COMMIT", 0.05)
    commits: list[float] = []

    class Beating(FakeRun):
        def commit(self) -> None:
            commits.append(time.monotonic())

    queue_for(Beating())
    until(lambda: len(commits) > 3)


def test_flush_waits_until_what_was_logged_is_durable(queue_for: Callable[..., Queue]) -> None:
    run = FakeRun()
    queue = queue_for(run, commit_interval=WAIT)
    for step in range(50):
        log(queue, step)
        assert queue.flush(WAIT)
        assert run.steps == list(range(step + 1))


def test_flush_gives_up_after_its_time(queue_for: Callable[..., Queue]) -> None:
    run = FakeRun()
    queue = queue_for(run)
    run.gate.clear()
    log(queue, 1)
    begin = time.monotonic()
    assert not queue.flush(0.2)
    assert 0.15 < time.monotonic() - begin < 5
    run.gate.set()
    assert queue.flush(WAIT)


def test_flush_keeps_to_its_time_at_the_bound_too(queue_for: Callable[..., Queue], temporary: Path) -> None:
    run = FakeRun()
    queue = queue_for(run, limit_bytes=10 * row_size({"x": 1}))
    run.gate.clear()
    log(queue, *range(10))
    begin = time.monotonic()
    assert not queue.flush(0.1)  # and it takes no row's place
    assert time.monotonic() - begin < 5
    assert spills(temporary) == []
    run.gate.set()
    assert queue.flush(WAIT)
    assert run.steps == list(range(10))


def test_finish_waits_until_everything_is_recorded(queue_for: Callable[..., Queue]) -> None:
    class Slow(FakeRun):
        def commit(self) -> None:
            time.sleep(0.05)
            super().commit()

    run = Slow()
    queue = queue_for(run)
    log(queue, *range(100))
    queue.finish(Status("failed", 3))
    assert run.steps == list(range(100))
    assert run.ended == Status("failed", 3)
    assert not queue.usable
    assert not queue.flush(WAIT)


def test_rows_that_come_after_finish_are_counted_not_recorded(
    queue_for: Callable[..., Queue],
) -> None:
    run = FakeRun()
    queue = queue_for(run)
    queue.finish(Status())
    log(queue, 1, 2)
    assert run.steps == []
    assert queue.lost == 2


def test_a_second_finish_waits_for_the_end_of_the_first(queue_for: Callable[..., Queue]) -> None:
    run = FakeRun()
    queue = queue_for(run)
    run.gate.clear()
    log(queue, 1)
    ends: list[int] = []
    threads = [threading.Thread(target=lambda: (queue.finish(Status()), ends.append(1))) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert ends == []
    run.gate.set()
    for thread in threads:
        thread.join(WAIT)
    assert ends == [1, 1, 1]
    assert run.steps == [1]


def test_a_slow_or_hung_run_delays_no_other(queue_for: Callable[..., Queue]) -> None:
    hung, good = FakeRun(), FakeRun()
    hung.gate.clear()
    queues = [queue_for(hung), queue_for(good)]
    fan_out = FanOut(queues)
    begin = time.monotonic()
    for step in range(1000):
        fan_out.log({"x": step}, step=step, time=0.0)
    assert time.monotonic() - begin < 5
    assert queues[1].flush(WAIT)
    assert good.steps == list(range(1000))
    hung.gate.set()
    assert queues[0].flush(WAIT)
    assert hung.steps == list(range(1000))


def test_an_error_of_opening_is_handed_to_who_waits() -> None:
    error = StoreError("no such disk")

    def fails() -> FakeRun:
        raise error

    queue = Queue("fake", INFO, fails)
    assert queue.wait_open(WAIT) is error
    assert not queue.usable
    log(queue, 1)
    queue.finish(Status())
    assert queue.lost == 1


def test_a_backend_that_opens_late_gets_what_came_meanwhile() -> None:
    opens, run = threading.Event(), FakeRun()

    def late() -> FakeRun:
        opens.wait(WAIT)
        return run

    queue = Queue("fake", INFO, late, commit_interval=0.02)
    with pytest.raises(TimeoutError, match="fake did not answer"):
        queue.wait_open(0.05)
    log(queue, 1, 2)
    opens.set()
    queue.finish(Status())
    assert run.steps == [1, 2]


def test_a_backend_that_fails_late_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    opens = threading.Event()

    def late() -> FakeRun:
        opens.wait(WAIT)
        msg = "no permission"
        raise StoreError(msg)

    queue = Queue("fake", INFO, late)
    with pytest.raises(TimeoutError):
        queue.wait_open(0.05)
    log(queue, 1, 2)
    opens.set()
    until(lambda: not queue.usable and warnings(caplog))
    assert "fake is lost: it did not start: no permission" in warnings(caplog)[0]
    assert queue.lost == 2


# -- errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [FakeRun, RunOfManyRows])
def test_a_row_that_the_run_refuses_costs_no_other(
    queue_for: Callable[..., Queue], caplog: pytest.LogCaptureFixture, make: type[FakeRun]
) -> None:
    run = make()
    run.refuses = lambda values: ValueError("odd") if values["x"] in {3, 5} else None
    queue = queue_for(run)
    log(queue, *range(8))
    assert queue.flush(WAIT)
    assert sorted(set(run.steps)) == [0, 1, 2, 4, 6, 7]
    assert [step for step in run.steps if step > 5] == [6, 7]
    assert queue.lost == 2
    assert warnings(caplog) == ["tracklayer: fake refused a call: ValueError('odd')"]


@pytest.mark.slow
def test_an_outage_loses_nothing_and_is_reported_once_and_again_when_it_ends(
    queue_for: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    run = FakeRun()
    queue = queue_for(run)
    for number in range(2):
        log(queue, *range(number * 100, number * 100 + 50))
        run.outage = StoreError("disk full")
        log(queue, *range(number * 100 + 50, number * 100 + 100))
        assert not queue.flush(0.3)
        run.outage = None
        assert queue.flush(WAIT)
    assert run.steps == list(range(200))
    assert queue.lost == 0
    reports = warnings(caplog)
    assert len(reports) == 4
    assert all("fake cannot record now: disk full" in report for report in reports[::2])
    assert all("fake records again; run r missed nothing" in report for report in reports[1::2])


def test_a_run_that_is_lost_for_good_is_reported_once_and_counted(
    queue_for: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    run = FakeRun()
    queue = queue_for(run, remedy="`tracklayer push r` sends the rest")
    log(queue, 0)
    assert queue.flush(WAIT)
    run.outage = BackendLostError("its process died")
    log(queue, 1, 2, 3)
    until(lambda: not queue.usable)
    log(queue, 4, 5)
    assert not queue.flush(WAIT)
    queue.finish(Status())
    assert run.steps == [0]
    assert queue.lost == 5
    assert warnings(caplog) == [
        "tracklayer: fake is lost: its process died. Training goes on; `tracklayer push r` sends the rest"
    ]


def test_a_row_may_lose_the_backend_too(queue_for: Callable[..., Queue]) -> None:
    run = FakeRun()
    run.refuses = lambda values: BackendLostError("gone")
    queue = queue_for(run)
    log(queue, 1)
    until(lambda: not queue.usable)
    assert queue.lost == 1


def test_kinds_that_a_backend_cannot_show_are_left_out_and_named_once(
    queue_for: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    run = FakeRun()
    queue = queue_for(run, kinds=frozenset({"scalar"}))
    for step in range(3):
        values = {"x": step, "t": Text("a"), "h": Histogram([1.0]), "t2": Text("b")}
        queue.log(values, step=step, time=0.0)
    queue.log({"only": Text("a")}, step=3, time=0.0)
    assert queue.flush(WAIT)
    assert run.durable == [("log", step, {"x": step}) for step in range(3)]
    assert warnings(caplog) == [
        "tracklayer: fake cannot show values of kind text, such as 't'",
        "tracklayer: fake cannot show values of kind histogram, such as 'h'",
    ]


class OnItsWay:
    """A value that is fetched later."""

    nbytes = 100

    def __init__(self, value: float | Exception) -> None:
        self._value = value

    def resolve(self) -> float:
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


def test_what_cannot_be_fetched_from_a_device_costs_this_value_only(
    queue_for: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    run = FakeRun()
    queue = queue_for(run)
    values: Any = {"a": OnItsWay(1.5), "b": OnItsWay(RuntimeError("device is gone")), "c": 2}
    queue.log(values, step=0, time=0.0)
    queue.log(values, step=1, time=0.0)
    assert queue.flush(WAIT)
    assert run.durable == [("log", 0, {"a": 1.5, "c": 2}), ("log", 1, {"a": 1.5, "c": 2})]
    assert len(warnings(caplog)) == 1
    assert "'b' could not be fetched: device is gone" in warnings(caplog)[0]


def test_an_observer_that_fails_costs_no_row(
    queue_for: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    def observe(rows: Sequence[Any]) -> None:
        raise KeyError(rows[0])

    run = FakeRun()
    queue = queue_for(run, observe=observe)
    log(queue, 1, 2)
    assert queue.flush(WAIT)
    assert run.steps == [1, 2]
    assert len(warnings(caplog)) == 1


# -- the bound ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_is_bounded_and_the_caller_waits_while_the_run_gets_on(
    queue_for: Callable[..., Queue],
) -> None:
    class Slow(FakeRun):
        def log(self, values: Mapping[str, Value], *, step: int, time: float) -> None:
            super().log(values, step=step, time=time)
            waiting.append(len(queue.items))
            threading.Event().wait(0.0002)

    waiting: list[int] = []
    run = Slow()
    queue = queue_for(run, limit_bytes=50 * row_size({"x": 1}))
    log(queue, *range(2000))
    assert queue.flush(WAIT)
    assert run.steps == list(range(2000))
    assert max(waiting) <= 51
    assert queue.lost == 0


@pytest.mark.usefixtures("impatient")
def test_at_the_bound_of_a_hung_run_rows_spill_and_are_brought_in_in_order(
    queue_for: Callable[..., Queue], temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunWithRules()
    queue = queue_for(run, limit_bytes=20 * row_size({"x": 1}))
    log(queue, 0)
    assert queue.flush(WAIT)
    run.gate.clear()
    begin = time.monotonic()
    log(queue, *range(1, 300))
    queue.update_config({"a": [1, None]})
    queue.define_metric(MetricRule("x", ("min",), goal="minimize"))
    queue.use_artifact(ARTIFACT)  # which this run does not take, and is not told
    queue.update_summary({"s": float("nan")})
    log(queue, *range(300, 500))
    assert 0.2 < time.monotonic() - begin < 10  # the patience, once
    assert len(spills(temporary)) == 1
    assert len(queue.items) < 30
    run.gate.set()
    assert queue.flush(WAIT)
    log(queue, 500)
    assert queue.flush(WAIT)
    assert run.steps == list(range(501))
    others = [call[0] for call in run.durable if call[0] != "log"]
    assert others == ["config", "rule", "summary"]
    assert run.durable.index(("config", {"a": [1, None]})) == 300
    assert spills(temporary) == []
    assert queue.lost == 0
    reports = warnings(caplog)
    assert len(reports) == 2
    assert "fake has taken nothing for" in reports[0]
    assert "records again; run r missed nothing" in reports[1]


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_second_outage_spills_and_is_reported_again(
    queue_for: Callable[..., Queue], temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = FakeRun()
    queue = queue_for(run, limit_bytes=20 * row_size({"x": 1}))
    for first in (0, 100, 200):
        run.gate.clear()
        log(queue, *range(first, first + 100))
        assert len(spills(temporary)) == 1
        run.gate.set()
        assert queue.flush(WAIT)
        assert spills(temporary) == []
    assert run.steps == list(range(300))
    assert sum("rows go to" in report for report in warnings(caplog)) == 3


@pytest.mark.usefixtures("impatient")
def test_patience_is_for_the_whole_outage_not_for_each_call(
    queue_for: Callable[..., Queue],
) -> None:
    run = FakeRun()
    queue = queue_for(run, limit_bytes=5 * row_size({"x": 1}))
    run.outage = StoreError("disk full")
    begin = time.monotonic()
    threads = [threading.Thread(target=log, args=(queue, *range(100))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begin < 5
    run.outage = None
    assert queue.flush(WAIT)
    assert sorted(run.steps) == sorted(list(range(100)) * 4)


@pytest.mark.usefixtures("impatient")
def test_values_of_every_kind_come_back_from_a_spill(
    queue_for: Callable[..., Queue], temporary: Path
) -> None:
    run = FakeRun()
    queue = queue_for(run, limit_bytes=1)
    run.gate.clear()
    infinity, nan = float("inf"), float("nan")
    values: dict[str, Any] = {
        "a": nan, "b": infinity, "c": -infinity, "d": True, "e": 2**53 + 1, "f": -(2**70), "g": 0.1,
        "t": Text("é\n\0 \ud800"), "h": Histogram([1.0, nan, infinity, 2.0]), 'k\n"é': 1,
        "device": OnItsWay(0.5),
    }  # fmt: skip
    log(queue, 0)  # one always may wait
    queue.log(values, step=2**63 - 1, time=1_700_000_000.123456)
    assert len(spills(temporary)) == 1
    run.gate.set()
    assert queue.flush(WAIT)
    (_, step, got) = run.durable[1]
    assert step == 2**63 - 1
    assert got.pop("a") != got.get("a")
    expected = {**values, "device": 0.5}
    del expected["a"]
    assert got == expected
    assert type(got["d"]) is bool


@pytest.mark.usefixtures("impatient")
def test_spilled_values_that_the_backend_cannot_show_are_left_out_as_ever(
    queue_for: Callable[..., Queue],
) -> None:
    run = FakeRun()
    queue = queue_for(run, limit_bytes=1, kinds=frozenset({"scalar"}))
    run.gate.clear()
    queue.log({"x": 1, "t": Text("a")}, step=0, time=0.0)
    run.gate.set()
    assert queue.flush(WAIT)
    assert run.durable == [("log", 0, {"x": 1})]


@pytest.mark.usefixtures("impatient")
def test_what_passes_through_a_spill_is_observed_once(queue_for: Callable[..., Queue]) -> None:
    seen: list[int] = []
    run = FakeRun()
    queue = queue_for(
        run, limit_bytes=5 * row_size({"x": 1}), observe=lambda rows: seen.extend(row[0] for row in rows)
    )
    run.gate.clear()
    log(queue, *range(50))
    queue.log({"t": Text("a")}, step=50, time=0.0)
    run.gate.set()
    assert queue.flush(WAIT)
    assert seen == list(range(51))


@pytest.fixture
def no_room() -> Iterator[Callable[[bool], None]]:
    """Let files of this process not grow beyond 4 kB, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(is_full: bool) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096 if is_full else soft, hard))

    yield full
    full(False)


@pytest.mark.usefixtures("impatient")
def test_with_the_temporary_folder_full_too_rows_are_counted_as_lost_and_that_is_reported_once(
    queue_for: Callable[..., Queue],
    temporary: Path,
    no_room: Callable[[bool], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = FakeRun()
    queue = queue_for(run, limit_bytes=5 * row_size({"x": 1}))
    run.gate.clear()
    no_room(True)
    log(queue, *range(1000))
    no_room(False)
    log(queue, *range(1000, 1010))  # there is room again: these are kept
    assert 0 < queue.lost < 1000
    run.gate.set()
    assert queue.flush(WAIT)
    assert len(run.steps) + queue.lost == 1010
    kept = 1000 - queue.lost
    assert run.steps == [*range(kept), *range(1000, 1010)]
    assert spills(temporary) == []
    reports = warnings(caplog)
    assert len(reports) == 3
    assert "rows are being lost" in reports[1]
    assert f"missed {queue.lost} calls" in reports[2]


@pytest.mark.usefixtures("impatient")
def test_without_a_temporary_folder_rows_are_counted_as_lost(
    queue_for: Callable[..., Queue], temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    temporary.rmdir()
    run = FakeRun()
    queue = queue_for(run, limit_bytes=5 * row_size({"x": 1}))
    run.gate.clear()
    begin = time.monotonic()
    log(queue, *range(500))
    assert time.monotonic() - begin < 10
    run.gate.set()
    assert queue.flush(WAIT)
    log(queue, 500)
    assert queue.flush(WAIT)
    assert len(run.steps) + queue.lost == 501
    assert run.steps[-1] == 500
    assert sum("cannot write to the temporary folder either" in w for w in warnings(caplog)) == 1


@pytest.mark.usefixtures("impatient")
def test_what_json_cannot_hold_is_counted_when_it_would_spill(
    queue_for: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    run = FakeRun()
    queue = queue_for(run, limit_bytes=1)
    run.gate.clear()
    log(queue, 7)  # one always may wait
    queue.update_config({"a": object()})
    queue.log({"x": 10**5000}, step=0, time=0.0)
    queue.log({"x": 1}, step=1, time=0.0)
    assert queue.lost == 2
    run.gate.set()
    assert queue.flush(WAIT)
    assert run.steps == [7, 1]
    assert sum("cannot be kept in a file" in report for report in warnings(caplog)) == 2


@pytest.mark.usefixtures("impatient")
def test_a_spill_that_was_damaged_meanwhile_costs_what_it_held_and_not_the_backend(
    queue_for: Callable[..., Queue], temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = FakeRun()
    queue = queue_for(run, limit_bytes=1)
    run.gate.clear()
    log(queue, *range(10))
    (file,) = spills(temporary)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:6], b"\xff\x00nonsense\n"]))
    run.gate.set()
    assert queue.flush(WAIT)
    log(queue, 10)
    assert queue.flush(WAIT)
    assert run.steps == [0, 1, 2, 3, 4, 5, 10]  # the first did not have to spill
    assert queue.lost == 4
    assert queue.usable
    assert any(f"4 calls in {file} cannot be read" in report for report in warnings(caplog))


# -- ending in an outage ------------------------------------------------------------------------------


def rescued(report: str) -> list[Path]:
    command = report.split("`")[1].split()
    assert command[:2] == ["tracklayer", "recover"]
    return [Path(word) for word in command[2:]]


def test_finish_in_an_outage_rescues_the_rows_to_a_file_that_the_report_names(
    queue_for: Callable[..., Queue], temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = FakeRun()
    queue = queue_for(run, finish_timeout=0.5)
    run.outage = StoreError("disk full")
    queue.update_config({"a": 1})
    log(queue, *range(100))
    begin = time.monotonic()
    queue.finish(Status("failed", 3))
    assert time.monotonic() - begin < 10
    files = rescued(warnings(caplog)[-1])
    assert files == spills(temporary)
    (file,) = files
    assert spilled_run(file).id == "r"
    items: list[Any] = list(read_spill(file))
    assert items[0] == Call("update_config", {"a": 1})
    assert [item[0] for item in items[1:-1]] == list(range(100))
    assert items[-1] == Call("finish", Status("failed", 3))
    assert "101 calls are kept" in warnings(caplog)[-1]
    assert queue.lost == 0


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_finish_in_an_outage_names_the_spill_and_the_rescue_oldest_first(
    queue_for: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    run = FakeRun()
    queue = queue_for(run, finish_timeout=0.5, limit_bytes=10 * row_size({"x": 1}))
    run.outage = StoreError("disk full")
    log(queue, *range(50))
    queue.finish(Status())
    files = rescued(warnings(caplog)[-1])
    assert len(files) == 2
    items = [item for file in files for item in read_spill(file)]
    assert [item[0] for item in items if item[0] != "finish"] == list(range(50))
    assert "50 calls are kept" in warnings(caplog)[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_finish_in_an_outage_that_came_while_a_spill_was_brought_in_names_that_spill(
    queue_for: Callable[..., Queue],
    temporary: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue_module, "_BATCH", 10)
    run = FakeRun()
    queue = queue_for(run, finish_timeout=0.5, limit_bytes=10 * row_size({"x": 1}))
    run.gate.clear()
    log(queue, *range(100))
    (spill,) = spills(temporary)

    def full_from_60(values: Mapping[str, Value]) -> None:
        if values["x"] == 60:
            run.outage = StoreError("disk full")

    run.refuses = full_from_60
    run.gate.set()
    until(lambda: run.outage is not None)
    log(queue, 100)
    queue.finish(Status())
    files = rescued(warnings(caplog)[-1])
    assert files[0] == spill
    items = [item for file in files for item in read_spill(file)]
    left = [item[0] for item in items if item[0] != "finish"]
    assert set(run.steps) | set(left) == set(range(101))
    assert left == sorted(left)


@pytest.mark.slow
def test_finish_waits_for_a_local_run_as_long_as_it_gets_on(
    queue_for: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "_BATCH", 10)

    class Slow(FakeRun):
        def commit(self) -> None:
            time.sleep(0.06)
            super().commit()

    run = Slow()
    queue = queue_for(run, finish_timeout=0.4)
    log(queue, *range(100))
    queue.finish(Status())
    assert run.steps == list(range(100))
    assert run.ended == Status()


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_bringing_in_a_long_spill_is_getting_on(
    queue_for: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "_BATCH", 10)

    class Slow(FakeRun):
        def commit(self) -> None:
            time.sleep(0.06)
            super().commit()

    run = Slow()
    queue = queue_for(run, finish_timeout=0.4, limit_bytes=1)
    run.gate.clear()
    log(queue, *range(100))
    run.gate.set()
    queue.finish(Status())
    assert run.steps == list(range(100))
    assert run.ended == Status()


def test_finish_waits_for_a_hosted_run_no_longer_than_its_time(
    queue_for: Callable[..., Queue], temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = FakeRun()
    queue = queue_for(run, hosted=True, finish_timeout=0.3, remedy="`tracklayer push r` sends the rest")
    run.gate.clear()
    log(queue, *range(10))
    begin = time.monotonic()
    queue.finish(Status())
    assert time.monotonic() - begin < 10
    assert spills(temporary) == []  # the local record has them
    assert warnings(caplog) == [
        "tracklayer: fake did not get all of the run; `tracklayer push r` sends the rest"
    ]


def test_a_hosted_run_that_falls_behind_is_left_without_a_wait(
    queue_for: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    run = FakeRun()
    queue = queue_for(run, hosted=True, limit_bytes=10 * row_size({"x": 1}), remedy="push it")
    run.gate.clear()
    begin = time.monotonic()
    log(queue, *range(1000))
    assert time.monotonic() - begin < 5
    assert not queue.usable
    assert len(warnings(caplog)) == 1
    assert "holds more than it can send" in warnings(caplog)[0]
    run.gate.set()
    queue.finish(Status())
    assert len(warnings(caplog)) == 1


# -- threads, signals, forks --------------------------------------------------------------------------


def test_calls_from_many_threads_are_all_kept_each_threads_in_order(
    queue_for: Callable[..., Queue],
) -> None:
    run = FakeRun()
    queue = queue_for(run, limit_bytes=1000 * row_size({"x": 1}))

    def work(name: str) -> None:
        for step in range(5000):
            queue.put((step, 0.0, {name: step}))

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert queue.flush(WAIT)
    for i in range(8):
        assert [call[1] for call in run.durable if f"t{i}" in call[2]] == list(range(5000))


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_threads_that_log_through_an_outage_lose_nothing(
    queue_for: Callable[..., Queue], temporary: Path
) -> None:
    run = FakeRun()
    queue = queue_for(run, limit_bytes=100 * row_size({"x": 1}))
    stop = threading.Event()
    counts = [0] * 4

    def work(number: int) -> None:
        while not stop.is_set():
            log(queue, counts[number], **{f"t{number}": counts[number]})
            counts[number] += 1
            time.sleep(0.0001)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        run.gate.clear()
        until(lambda: spills(temporary))
        time.sleep(0.1)
        run.gate.set()
        until(lambda: not spills(temporary))
    stop.set()
    for thread in threads:
        thread.join()
    assert queue.flush(WAIT)
    assert queue.lost == 0
    for i in range(4):
        logged = [call[1] for call in run.durable if f"t{i}" in call[2]]
        assert sorted(logged) == list(range(counts[i]))


@contextmanager
def handling(handler: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Have a handler for a signal that is sent by what this yields.  SIGALRM is pytest-timeout's."""
    before = signal.signal(signal.SIGUSR1, lambda *_: handler())
    try:
        yield lambda: os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [256_000_000, 20_000])
def test_a_signal_handler_that_logs_and_flushes_does_not_deadlock(
    queue_for: Callable[..., Queue], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "_PATIENCE", 0.05)

    class Halting(FakeRun):
        def commit(self) -> None:
            time.sleep(0.05 if limit == 20_000 else 0)  # longer than it takes to come to the bound
            super().commit()

    run = Halting()
    queue = queue_for(run, limit_bytes=limit)
    interrupts = 0
    ready = threading.Event()

    def handler() -> None:
        nonlocal interrupts
        log(queue, interrupts, handler=1)
        queue.flush(0.01)
        interrupts += 1
        ready.set()

    def interrupt(send: Callable[[], None]) -> None:
        while not done.wait(0.05):
            ready.clear()
            send()
            ready.wait(WAIT)

    done = threading.Event()
    with handling(handler) as send:
        sender = threading.Thread(target=interrupt, args=(send,))
        sender.start()
        count, end = 0, time.monotonic() + 1.0
        while time.monotonic() < end or interrupts <= 5:  # on a busy machine, these come slowly
            log(queue, count)
            count += 1
            if count % 1000 == 0:
                queue.flush(0.05)
        done.set()
        sender.join()
    assert queue.flush(WAIT)
    rows = [call for call in run.durable if "x" in call[2]]
    assert sorted(call[1] for call in rows) == list(range(count))
    assert len(run.durable) - len(rows) == interrupts
    assert queue.lost == 0


def test_finish_in_a_signal_handler_that_interrupts_finish_waits_for_the_end(
    queue_for: Callable[..., Queue],
) -> None:
    run = FakeRun()
    queue = queue_for(run)
    run.gate.clear()
    log(queue, 1)
    ended: list[object] = []

    def handler() -> None:
        opening = threading.Timer(0.2, run.gate.set)
        opening.start()
        queue.finish(Status())
        ended.append(run.ended)
        opening.join()

    with handling(handler) as send:
        sender = threading.Timer(0.1, send)
        sender.start()
        queue.finish(Status("failed", 1))
        sender.join()
    assert ended == [Status("failed", 1)]
    assert run.steps == [1]


def test_a_forked_child_takes_nothing_and_waits_for_nothing(
    queue_for: Callable[..., Queue],
) -> None:
    run = FakeRun()
    queue = queue_for(run)
    run.gate.clear()
    log(queue, 1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            begin = time.monotonic()
            log(queue, 2)
            queue.update_config({"a": 1})
            flushed = queue.flush(WAIT)
            queue.finish(Status())
            status = 0 if not flushed and time.monotonic() - begin < 5 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    run.gate.set()
    assert queue.flush(WAIT)
    assert run.steps == [1]
    assert queue.lost == 0


# -- the spill's own file -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "hello", "{}", "[]\n", '["run"]\n', '["nonsense", 1]\n', "\xff\n"])
def test_a_file_that_is_no_spill_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "file.jsonl"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptRunError, match=r"file\.jsonl"):
        spilled_run(file)


@pytest.mark.usefixtures("temporary")
def test_artifacts_come_back_from_a_spill_whole() -> None:
    spill = Spill(INFO)
    calls = [Call("use_artifact", ARTIFACT), Call("log_artifact", ARTIFACT)]
    for call in calls:
        spill.write(call)
    spill.close()
    assert list(read_spill(spill.path)) == calls


@pytest.mark.usefixtures("temporary")
def test_a_spill_from_before_artifacts_had_versions_is_read() -> None:
    spill = Spill(INFO)
    spill.close()
    file = {"path": "a", "sha256": "ab" * 32, "size": 1, "source": "/a"}
    made = {"name": "n", "type": "t", "files": [file], "description": None, "metadata": {}, "time": 1.5}
    with spill.path.open("a") as lines:
        lines.write(json.dumps(["log_artifact", made]) + "\n")
    expected = LoggedArtifact("n", "t", (ArtifactFile("a", "ab" * 32, 1, "/a"),), time=1.5)
    assert list(read_spill(spill.path)) == [Call("log_artifact", expected)]


def test_rows_of_many_keys_give_their_room_back(queue_for: Callable[..., Queue]) -> None:
    run = FakeRun()
    queue = queue_for(run)
    before = queue.room
    for step in range(300):
        queue.log({f"k{number}": 1.0 for number in range(500)}, step=step, time=0.0)
    assert queue.flush(WAIT)
    assert len(run.durable) == 300
    assert queue.room == before
