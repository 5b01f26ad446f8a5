"""What a push sends: each step's values once, first values kept, whatever cut the pushes before it off."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from push_fakes import HostedRun, Line, MemoryRun, MemoryServer
from tracklayer import pushing
from tracklayer.choosing import console_sent, system_sent
from tracklayer.delivery import Received, ReceivedRow
from tracklayer.errors import BackendLostError
from tracklayer.ledger import Entry, Ledger
from tracklayer.media.image import Image
from tracklayer.planning import Base, Plan, ServerRows, settled
from tracklayer.protocol import MetricRule
from tracklayer.push_report import PushReport
from tracklayer.reading import Row
from tracklayer.surroundings import ConsoleLine, SystemRow
from tracklayer.values import Histogram, Text

NOW = 1000.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "_CONFIRM_SECONDS", 0.0)
    monkeypatch.setattr("time.time", lambda: NOW)


class Machine:
    """A run, its ledger, and a server."""

    def __init__(self, folder: Path) -> None:
        self.run = MemoryRun()
        self.server = MemoryServer()
        self.folder = folder

    @property
    def there(self) -> HostedRun:
        return self.server.runs["r"]

    def push(self, **options: Any) -> PushReport:
        return pushing.push(self.run, self.server.backend(), self.folder, **options)  # type: ignore[arg-type]

    def push_cut(self, after: int) -> PushReport | None:
        """Push, and be cut off when so many rows were received."""
        self.server.lines_until_cut = after
        try:
            return self.push()
        except KeyboardInterrupt:
            return None
        finally:
            self.server.lines_until_cut = None

    def entry(self) -> Entry:
        (entry,) = Ledger(self.folder, "r").targets().values()
        return entry

    def lose_ledger(self) -> None:
        for file in (self.folder / "ledgers").glob("*"):
            file.unlink()

    def steps(self) -> list[tuple[int, int]]:
        """The server's own steps, and those that were logged."""
        return [(line.step, line.true_step) for line in self.there.history]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def own(steps: Iterable[int]) -> list[tuple[int, int]]:
    return [(step, step) for step in steps]


# -- each once, whatever happens ------------------------------------------------------------------


def change(machine: Machine, dice: random.Random) -> None:
    """Let the run go on in some way."""
    run = machine.run
    for _ in range(dice.choice([0, 1, 3, 8])):
        step = dice.choice([run.last_step + 1, run.last_step + dice.randint(1, 5), dice.randint(0, 30)])
        keys = dice.sample(["a", "b", "c"], dice.randint(1, 3))
        time = dice.choice([100.0, 100.0, NOW - 1]) if run.info.state == "running" else 100.0
        run.log(step, time, **{key: float(run.changes) + i for i, key in enumerate(keys)})
    run.become(dice.choice(["running", "finished", "failed"]))


@pytest.mark.parametrize("seed", range(100))
def test_whatever_cuts_pushes_off_each_value_ends_up_there_once(machine: Machine, seed: int) -> None:
    dice = random.Random(seed)
    server, first = machine.server, dict[tuple[int, str], Any]()
    for _ in range(dice.randint(1, 8)):
        change(machine, dice)
        event = dice.choice(["push", "push", "killed", "lost", "no ledger"])
        top = machine.there.last_step if "r" in server.runs else -1
        if event == "no ledger" and machine.run.info.state != "running":
            machine.lose_ledger()
        if event in {"killed", "lost"}:
            server.cut = KeyboardInterrupt if event == "killed" else lambda: BackendLostError("gone")
            machine.push_cut(dice.randint(0, 12))
        else:
            report = machine.push()
            assert report.outcome in {"sent", "unchanged"}, report
        for place, values in machine.there.cells().items() if "r" in server.runs else ():
            if place not in first:
                assert values == [machine.run.points[place[0]][place[1]][1]]
                first[place] = values[0]
                if place[0] > top:
                    assert (place[0], place[0]) in machine.steps() or event == "killed"
    machine.run.become("finished")
    assert machine.push().outcome in {"sent", "unchanged"}
    assert machine.push().outcome == "unchanged"
    there = machine.there
    cells = there.cells()
    assert cells.keys() == {(step, key) for step, point in machine.run.points.items() for key in point}
    assert all(len(values) == 1 for values in cells.values())
    assert {place: cells[place] for place in first} == {place: [value] for place, value in first.items()}
    assert there.state == "finished"
    steps = [line.step for line in there.history]
    assert steps == sorted(set(steps))
    entry = machine.entry()
    assert (entry.rows, entry.through, entry.waiting) == (len(machine.run.points), machine.run.last_step, 0)


# -- what it costs --------------------------------------------------------------------------------


def test_the_rows_of_the_server_are_read_only_where_nothing_else_tells(machine: Machine) -> None:
    for step in range(5):
        machine.run.log(step, a=step)
    machine.push()
    machine.run.log(7, a=7)
    machine.push()
    assert machine.steps() == own([0, 1, 2, 3, 4, 7])
    machine.run.log(9, a=9)
    machine.push_cut(0)
    machine.push()
    assert machine.server.scans == 0
    machine.run.log(3, b=3)
    assert machine.push().late == 1
    assert machine.server.scans == 1
    assert machine.steps()[-1] == (10, 3)


def test_what_was_confirmed_costs_no_question(machine: Machine) -> None:
    machine.run.log(0, a=1)
    assert machine.push().outcome == "sent"
    asked = len(machine.server.questions)
    assert machine.push().outcome == "unchanged"
    assert len(machine.server.questions) == asked


def test_a_push_that_was_cut_off_goes_on_where_it_was(machine: Machine) -> None:
    for step in range(10):
        machine.run.log(step, a=step)
    cut = machine.push_cut(4)
    assert cut is not None
    assert (cut.outcome, cut.rows, cut.total) == ("unconfirmed", 4, 10)
    rest = machine.push()
    assert (rest.outcome, rest.rows, rest.total) == ("sent", 6, 10)
    assert machine.steps() == own(range(10))
    assert machine.server.scans == 0


def test_a_run_that_grew_since_its_push_was_cut_off_is_not_read_back(machine: Machine) -> None:
    for step in range(10):
        machine.run.log(step, a=step)
    machine.push_cut(4)
    machine.run.log(12, a=12)
    assert machine.push().rows == 7
    assert machine.steps() == own([*range(10), 12])
    assert machine.server.scans == 0


def test_rows_that_a_server_lost_are_sent_again_at_their_own_steps(machine: Machine) -> None:
    for step in range(10):
        machine.run.log(step, a=step)
    machine.push_cut(7)
    del machine.there.history[5:]
    assert machine.push().rows == 5
    assert machine.steps() == own(range(10))


def test_a_copy_without_its_ledger_reads_the_server_and_sends_what_lacks(machine: Machine) -> None:
    for step in range(6):
        machine.run.log(step, a=step, b=step)
    machine.push()
    machine.lose_ledger()
    machine.run.log(2, late=True)
    machine.run.log(8, a=8)
    report = machine.push()
    assert (report.rows, report.late, report.total) == (2, 1, 7)
    assert machine.steps() == [*own(range(6)), (8, 8), (9, 2)]
    machine.lose_ledger()
    report = machine.push()
    assert (report.outcome, report.rows, report.message) == ("sent", 0, "the server had everything")


def test_files_of_rows_that_are_there_are_completed_where_that_was_not_confirmed(machine: Machine) -> None:
    import numpy as np

    for step in range(4):
        machine.run.log(step, a=step, image=Image(np.zeros((2, 2), np.uint8)))
    machine.push_cut(3)
    machine.push()
    assert machine.there.completed == [0, 1, 2]
    machine.lose_ledger()
    machine.push()
    assert machine.there.completed == [0, 1, 2, 0, 1, 2, 3]


def test_what_a_server_does_not_take_is_said_and_not_tried_for_ever(machine: Machine) -> None:
    machine.server.takes = lambda value: value != -1
    for step, value in enumerate([1, -1, 2]):
        machine.run.log(step, a=value)
    report = machine.push()
    assert (report.outcome, report.rows) == ("sent", 3), "a row of which nothing is left is a row"
    assert "a at 1" in report.message
    assert machine.push().outcome == "unchanged"


@pytest.mark.parametrize("after", range(5))
def test_rows_of_which_nothing_is_taken_are_counted_where_a_push_was_cut_off(
    machine: Machine, after: int
) -> None:
    machine.server.takes = lambda value: value != -1
    for step, value in enumerate([1, -1, -1, 2, 3]):
        machine.run.log(step, a=value)
    machine.push_cut(after)
    assert machine.push().outcome == "sent"
    assert [line.step for line in machine.there.history] == [0, 1, 2, 3, 4]


# -- late and repeated ----------------------------------------------------------------------------


def test_a_value_that_is_logged_again_keeps_its_first_there_and_is_counted(machine: Machine) -> None:
    for step in range(5):
        machine.run.log(step, a=step, b=math.nan, t=Text("x"), h=Histogram([1, 2]))
    machine.push()
    for step in (1, 2):
        machine.run.log(step, a=-step, b=math.nan)
    report = machine.push()
    assert (report.outcome, report.rows, report.repeated) == ("sent", 0, 2)
    assert "2 rows were logged again" in report.message
    assert machine.there.cells()[1, "a"] == [1]
    assert machine.entry().repeated == 2
    assert machine.push().outcome == "unchanged"


def test_a_step_metric_that_the_client_adds_to_a_row_is_no_other_value(machine: Machine) -> None:
    machine.run.rules = {"a": MetricRule("a", step_metric="epoch")}
    machine.run.log(0, a=1, epoch=0)
    machine.run.log(1, a=2)
    machine.push()
    machine.there.history[1].values["epoch"] = 0
    machine.lose_ledger()
    assert machine.push().repeated == 0


def test_rows_behind_late_ones_that_took_their_steps_are_late_too(machine: Machine) -> None:
    machine.run.log(5, a=5)
    machine.push()
    machine.run.log(1, a=1)
    machine.run.log(2, a=2)
    machine.push()
    assert machine.steps() == [(5, 5), (6, 1), (7, 2)]
    for step in (6, 7, 8):
        machine.run.log(step, a=step)
    assert machine.push().late == 2
    assert machine.steps() == [(5, 5), (6, 1), (7, 2), (8, 8), (9, 6), (10, 7)]


def test_a_cut_among_late_rows_is_not_taken_for_one_among_new_ones(machine: Machine) -> None:
    machine.run.log(5, a=5)
    machine.push()
    for step in (1, 2, 3):
        machine.run.log(step, a=step)
    machine.push()
    for step in (6, 7, 8, 9):  # all but the last are late: their steps are taken
        machine.run.log(step, a=step)
    machine.push_cut(2)
    assert machine.steps()[-2:] == [(9, 9), (10, 6)]
    machine.run.log(10, a=10)  # what the server calls 10 is step 6
    machine.push()
    assert sorted(true for _, true in machine.steps()) == [1, 2, 3, 5, 6, 7, 8, 9, 10]


# -- running runs ---------------------------------------------------------------------------------


def test_of_a_running_run_the_highest_step_and_late_rows_wait_for_its_end(machine: Machine) -> None:
    machine.run.become("running")
    for step in range(5):
        machine.run.log(step, a=step)
    report = machine.push()
    assert (report.outcome, report.rows, report.total, report.waiting) == ("sent", 4, 5, 1)
    assert machine.there.state == "running"
    assert machine.push().outcome == "unchanged"
    machine.run.log(1, b=1)
    machine.run.log(5, a=5)
    report = machine.push()
    assert (report.rows, machine.steps()) == (1, own(range(5)))
    machine.run.log(6, a=6)
    assert "late" in machine.push().message
    assert machine.server.scans == 0
    machine.run.become("finished")
    report = machine.push()
    assert (report.rows, report.late, report.waiting) == (2, 1, 0)
    assert machine.steps() == [*own(range(7)), (7, 1)]
    assert machine.there.state == "finished"


def test_what_was_logged_a_moment_ago_waits_a_moment(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.run.become("running")
    for step, time in enumerate([100, 100, NOW - 1, NOW - 2, NOW - 1]):
        machine.run.log(step, time, a=step)
    report = machine.push()
    assert (report.rows, report.waiting) == (2, 3)
    monkeypatch.setattr("time.time", lambda: NOW + 10)
    report = machine.push()
    assert (report.rows, report.waiting) == (2, 1)
    assert machine.push().outcome == "unchanged"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([], (-1, 0, False)),
        ([1], (-1, 1, False)),
        ([1, 1, 1], (1, 1, False)),
        ([1, 1, 9], (1, 1, False)),
        ([1, 9, 1], (0, 2, True)),
        ([9, 9, 9], (-1, 3, True)),
    ],
)
def test_which_rows_have_settled(times: list[float], expected: tuple[int, int, bool]) -> None:
    assert settled((Row(step, time, {}) for step, time in enumerate(times)), 5) == expected


# -- whose run it is ------------------------------------------------------------------------------


def test_a_run_there_that_is_not_ours_is_left_alone_without_force(machine: Machine) -> None:
    machine.run.log(0, a=1)
    machine.server.runs["r"] = HostedRun(created_at=77.0, history=[Line(0, 0, {"z": 1})], state="finished")
    report = machine.push()
    assert (report.outcome, machine.steps()) == ("failed", own([0]))
    for way in ("--id", "--to", "--force", "http://x/r"):
        assert way in report.message
    assert machine.push(dry_run=True).outcome == "failed"
    assert machine.push(force=True).outcome == "sent"
    assert machine.there.cells() == {(0, "z"): [1], (0, "a"): [1]}
    machine.run.log(1, a=2)
    assert machine.push().outcome == "sent"


def test_a_run_that_its_own_client_is_sending_is_left_to_it(machine: Machine) -> None:
    machine.run.become("running")
    machine.run.log(0, a=1)
    machine.server.runs["r"] = HostedRun(created_at=1.5, history=[Line(0, 0, {"a": 1})])
    report = machine.push()
    assert (report.outcome, "once it has ended" in report.message) == ("unchanged", True)
    machine.run.become("finished")
    assert machine.push().outcome == "sent"
    assert machine.steps() == own([0])


def test_an_entry_of_an_earlier_version_is_no_more_than_a_reason_to_ask(machine: Machine) -> None:
    machine.run.log(0, a=1)
    machine.push()
    path = machine.folder / "ledgers" / "r.json"
    (target,) = Ledger(machine.folder, "r").targets()
    earlier = {"revision": machine.run.revision, "rows": 1, "url": None, "confirmed_at": 5.0}
    path.write_text(json.dumps({target: earlier}))
    machine.there.created_at = 0.0  # as by a version that left no mark
    report = machine.push()
    assert (report.outcome, report.rows, report.message) == ("sent", 0, "the server had everything")
    assert machine.entry().lines == 1


def test_what_another_host_may_still_be_sending_is_waited_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(6):
        machine.run.log(step, a=step)
    machine.push_cut(2)
    ledger = Ledger(machine.folder, "r")
    ((target, entry),) = ledger.targets().items()
    assert entry.sending is not None
    ledger.record(target, replace(entry, sending=replace(entry.sending, host="another")))
    clock = [0.0]
    arriving = [3, 4]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if arriving:
            step = arriving.pop(0) - 1
            machine.there.history.append(Line(step, step, {"a": step}))

    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.sleep", sleep)
    assert machine.push().rows == 2
    assert clock[0] >= 14
    assert machine.steps() == own(range(6))


# -- the parts ------------------------------------------------------------------------------------


def test_what_a_server_has_is_compared_over_all_parts_of_a_row() -> None:
    there = ServerRows(
        [
            ReceivedRow(3, {"a": 1, "n": "NaN", "none": None}),
            ReceivedRow(1, {"a": 2.0, "i": "Infinity"}),
            ReceivedRow(3, {"b": "x", "h": {"_type": "histogram"}}),
        ]
    )
    row = Row(3, 0.0, {"a": 1, "b": Text("x"), "n": math.nan, "h": Histogram([1]), "c": 5})
    assert there.lacking(row) == ({"c": 5}, row.values.keys() - {"c"} and without(row, "c"), False)
    assert there.lacking(Row(1, 0.0, {"a": 2, "i": math.inf}))[2] is False
    assert there.lacking(Row(1, 0.0, {"a": 2, "i": -math.inf}))[2] is True
    assert there.lacking(Row(2, 0.0, {"a": 1})) == ({"a": 1}, {}, False)
    assert there.last_step == 3


def without(row: Row, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in row.values.items() if key not in keys}


def test_a_plan_says_where_the_server_is_after_some_of_its_rows() -> None:
    run = MemoryRun()
    for step in (1, 4, 6, 9):
        run.log(step, a=1)
    plan = Plan(run, Base(last_step=5, through=0), 9)  # type: ignore[arg-type]
    assert [planned.row.step for planned in plan] == [6, 9, 1, 4]
    assert (plan.sent, plan.late, plan.rows) == (4, 2, 4)
    assert [plan.last_step_after(count) for count in range(6)] == [5, 6, 9, 10, 11, None]
    assert [planned.is_there for planned in plan.without(3)] == [True, True, True, False]


# -- what the run's own client had sent ---------------------------------------------------------------


def sees(**fields: Any) -> Received:
    return Received("running", is_ours=True, line_count=0, last_step=-1, **fields)


def printed(*texts: str) -> MemoryRun:
    return MemoryRun(lines=[ConsoleLine(10.0 + at, "stdout", text) for at, text in enumerate(texts)])


def test_of_console_lines_that_were_pushed_their_number_tells_how_many_are_there() -> None:
    run: Any = printed("a", "b", "b", "b")
    assert console_sent(run, sees(console_lines=2)) == 2
    assert console_sent(run, sees(console_lines=2, last_line=ConsoleLine(99.0, "stdout", "b"))) == 2
    assert console_sent(run, sees()) == 0


def test_of_console_lines_that_the_client_cut_otherwise_the_last_one_tells() -> None:
    run: Any = printed("a", "b", "c", "b", "d")
    last = ConsoleLine(12.8, "stdout", "b")  # ours is looked at some moments later
    assert console_sent(run, sees(console_lines=9, last_line=last)) == 4
    assert console_sent(run, sees(console_lines=1, last_line=last)) == 4
    unknown = ConsoleLine(12.1, "stdout", "50 %\r51 %")
    assert console_sent(run, sees(console_lines=1, last_line=unknown)) == 3


def test_of_system_metrics_that_the_client_measured_the_time_of_the_last_tells() -> None:
    run: Any = MemoryRun(system=[SystemRow(time, {"cpu": 1.0}) for time in (10.0, 20.0, 30.0)])
    assert system_sent(run, sees(system_rows=2, last_system=20.0)) == 2
    assert system_sent(run, sees(system_rows=1, last_system=25.0)) == 2
    assert system_sent(run, sees(system_rows=7, last_system=35.0)) == 3
    assert system_sent(run, sees(system_rows=2)) == 2
