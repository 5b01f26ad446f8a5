"""What the SQLite store keeps is what its readers give: while it is written, after a crash, in any order."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
from sqlalchemy import Connection

import tracklayer
from tracklayer.errors import (
    CorruptRunError,
    RunExistsError,
    RunInUseError,
    RunNotFoundError,
    StoreError,
    StoreTooNewError,
    UsageError,
)
from tracklayer.front import ActiveRun
from tracklayer.protocol import Run, RunInfo, Status
from tracklayer.reading import RunReader
from tracklayer.recovering import recover
from tracklayer.settings import Settings
from tracklayer.spill import Call, Spill
from tracklayer.surroundings import ConsoleLine, SystemRow
from tracklayer.values import Histogram, Text
from tracklayer_sqlite import backend, connecting, lease, recording, schema, starting
from tracklayer_sqlite.connecting import on_network
from tracklayer_sqlite.recording import SQLiteRun

NAN, INFINITY = float("nan"), float("inf")
WAIT = 30.0


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "store"
    monkeypatch.setenv("TRACKLAYER_DIR", str(folder))
    return folder


@pytest.fixture
def folding_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_FOLD_EVERY", 2)


def begun(store: Path, run_id: str = "r", resume: Any = None, **fields: Any) -> Run:
    """Open a run of the backend itself, without a queue: the test says when it commits."""
    info = RunInfo(run_id, "p", fields.pop("name", ""), created_at=1000.0, **fields)
    return backend.open(info, resume, Settings(("sqlite",), store))


def reader_of(store: Path, run_id: str = "r") -> RunReader:
    reader = tracklayer.open_store(store).find(run_id)
    assert reader is not None
    return reader


def points(reader: RunReader, key: str) -> list[tuple[int, Any]]:
    metric = reader.metric(key)
    return list(zip(metric.step.tolist(), metric.value.tolist(), strict=True))


def same(a: object, b: object) -> bool:
    """Compare with NaN equal to itself, and numbers with their types."""
    return repr(a) == repr(b)


# -- metrics ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unfolded", [True, False])
def test_integers_are_exact_to_int64(store: Path, unfolded: bool) -> None:
    run = begun(store)
    numbers = [2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 0, 1]
    for step, number in enumerate(numbers):
        run.log({"n": number}, step=step, time=1.0)
        run.commit()
    if not unfolded:
        run.finish(Status())
    metric = reader_of(store).metric("n")
    assert metric.value.dtype == np.int64
    assert metric.step.dtype == np.int64
    assert metric.time.dtype == np.float64
    assert metric.value.tolist() == numbers
    if unfolded:
        run.finish(Status())


def test_integers_beyond_int64_are_kept_as_the_nearest_double(store: Path) -> None:
    with tracklayer.init(id="r") as run:
        run.log({"n": 2**63, "x": 1}, step=0)
        run.log({"n": -(2**70), "x": 2}, step=1)
        run.log({"n": 10**400, "x": 3}, step=2)
        run.log({"n": -(10**400), "x": 4}, step=3)
    assert points(reader_of(store), "n") == [(0, 2.0**63), (1, -(2.0**70)), (2, INFINITY), (3, -INFINITY)]
    assert points(reader_of(store), "x") == [(0, 1), (1, 2), (2, 3), (3, 4)]


@pytest.mark.usefixtures("folding_often")
def test_nan_and_the_infinities_are_values(store: Path) -> None:
    run = begun(store)
    numbers = [0.5, NAN, INFINITY, -INFINITY, NAN, -0.0, 5e-324, 1.7976931348623157e308]
    for step, number in enumerate(numbers):
        run.log({"x": number}, step=step, time=1.0)
        run.commit()
        assert same(reader_of(store).metric("x").value.tolist(), numbers[: step + 1])
    run.finish(Status())
    metric = reader_of(store).metric("x")
    assert metric.value.dtype == np.float64
    assert same(metric.value.tolist(), numbers)
    assert same([row.values["x"] for row in reader_of(store).rows()], numbers)


def test_bools_are_integers_and_mixed_numbers_doubles(store: Path) -> None:
    run = begun(store)
    for step, (a, b, c) in enumerate([(True, 1, 2), (False, 0.5, NAN)]):
        run.log({"bool": a, "mixed": b, "nan": c}, step=step, time=1.0)
    run.finish(Status())
    reader = reader_of(store)
    assert reader.metric("bool").value.dtype == np.int64
    assert reader.metric("bool").value.tolist() == [1, 0]
    assert reader.metric("mixed").value.dtype == np.float64
    assert reader.metric("mixed").value.tolist() == [1.0, 0.5]
    assert same(reader.metric("nan").value.tolist(), [2.0, NAN])


@pytest.mark.slow
@pytest.mark.parametrize("fold_every", [1, 2, 3, 10_000])
def test_late_rows_and_repeated_steps_before_and_after_folding(
    store: Path, monkeypatch: pytest.MonkeyPatch, fold_every: int
) -> None:
    monkeypatch.setattr(recording, "_FOLD_EVERY", fold_every)
    chance = random.Random(fold_every)
    run = begun(store)
    expected: dict[int, tuple[float, int]] = {}
    for number in range(300):
        step = chance.choice([number, chance.randrange(0, 100)])
        run.log({"x": number}, step=step, time=float(number))
        expected[step] = (float(number), number)
        if chance.random() < 0.1:
            run.commit()
            assert points(reader_of(store), "x") != []
    run.commit()
    for _ in range(2):
        metric = reader_of(store).metric("x")
        assert metric.step.tolist() == sorted(expected)
        assert metric.value.tolist() == [expected[step][1] for step in sorted(expected)]
        assert metric.time.tolist() == [expected[step][0] for step in sorted(expected)]
        rows = list(reader_of(store).rows())
        assert [row.step for row in rows] == sorted(expected)
        assert [row.values["x"] for row in rows] == [expected[s][1] for s in sorted(expected)]
        assert reader_of(store).last_step == max(expected)
        if not run._has_ended:  # type: ignore[attr-defined] # the SQLite backend's
            run.finish(Status())


def test_a_burst_of_points_does_not_lose_to_older_ones(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_BURST", 5)
    run = begun(store)
    run.log({"x": -1}, step=3, time=1.0)
    run.commit()
    for repeated in range(2):
        for step in range(20):
            run.log({"x": step + repeated}, step=step, time=2.0)
    run.commit()
    assert points(reader_of(store), "x") == [(step, step + 1) for step in range(20)]
    run.log({"x": -2}, step=3, time=3.0)
    run.finish(Status())
    assert points(reader_of(store), "x")[3] == (3, -2)


def test_a_step_may_be_the_greatest_that_there_is(store: Path) -> None:
    with tracklayer.init(id="r") as run:
        run.log({"x": 1}, step=2**63 - 1)
        run.log({"x": 2}, step=0)
    assert points(reader_of(store), "x") == [(0, 2), (2**63 - 1, 1)]
    assert reader_of(store).last_step == 2**63 - 1


KEYS = [
    "loss",
    "a/b/c",
    "with space",
    "été 🙂",
    "k" * 5000,
    "",
    "/",
    "a\nb",
    "nul\0nul",
    "'; DROP TABLE points; --",
    "%s ? :x",
    "LOSS",
]


def test_any_string_is_a_key(store: Path) -> None:
    with tracklayer.init(id="r") as run:
        run.log({key: i for i, key in enumerate(KEYS)}, step=0)
        run.log({key: Text(key) for key in KEYS if key != "loss"}, step=1)
    reader = reader_of(store)
    assert reader.keys() == KEYS
    for i, key in enumerate(KEYS):
        assert points(reader, key) == [(0, i)]
    assert reader.summary == {key: i for i, key in enumerate(KEYS)}


def test_a_key_that_is_no_unicode_neither_stops_the_run_nor_its_resumption(store: Path) -> None:
    for attempt in range(3):
        with tracklayer.init(id="r", resume="allow") as run:
            run.log({"half \ud83d": attempt, "half \\ud83d": -attempt, "x": attempt}, step=attempt)
            run.log({"t \ud83d": "text \ud83d"}, step=attempt)
            run.config["c \ud83d"] = "\ud83d"
            run.summary["s \ud83d"] = "\ud83d"
    assert reader_of(store).info.state == "finished"
    assert points(reader_of(store), "x") == [(0, 0), (1, 1), (2, 2)]
    assert len(reader_of(store).keys()) == 3


def test_an_unknown_metric_names_close_ones(store: Path) -> None:
    with tracklayer.init(id="r") as run:
        run.log({"train/loss": 1.0})
    with pytest.raises(LookupError, match=r"no metric 'train/los'; did you mean 'train/loss'"):
        reader_of(store).metric("train/los")


# -- rows ---------------------------------------------------------------------------------------------


def test_calls_are_one_a_step_and_time_and_rows_one_a_step(store: Path) -> None:
    run = begun(store)
    run.log({"a": 1, "b": 1}, step=0, time=1.0)
    run.log({"b": 2, "c": 2}, step=0, time=2.0)
    run.log({"h": Histogram([1.0, 2.0]), "t": Text("é")}, step=1, time=3.0)
    run.log({"a": 3}, step=5, time=0.5)
    run.commit()
    for _ in range(2):
        calls = [tuple(call) for call in reader_of(store).calls()]
        assert calls == [
            (0, 1.0, {"a": 1}),
            (0, 2.0, {"b": 2, "c": 2}),
            (1, 3.0, {"h": Histogram([1.0, 2.0]), "t": Text("é")}),
            (5, 0.5, {"a": 3}),
        ]
        rows = [tuple(row) for row in reader_of(store).rows()]
        assert rows[0] == (0, 2.0, {"a": 1, "b": 2, "c": 2})
        assert rows[1:] == calls[2:]
        if not run._has_ended:  # type: ignore[attr-defined] # the SQLite backend's
            run.finish(Status())


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("after", [0, 4, 5, 7, 100])
def test_what_follows_a_step_is_what_a_whole_reading_has_behind_it(
    store: Path, folded: bool, after: int
) -> None:
    run = begun(store)
    for step in (5, 0, 7, 3, 5, 9):
        run.log({"a": step, f"only/{step}": 1.0, "t": Text(f"{step}")}, step=step, time=1.0 + step)
        run.commit()
    run.log({"a": -7}, step=7, time=0.5)  # before what it replaces: the newest counts, whatever its time
    run.commit()
    if folded:
        run.finish(Status())
    reader = reader_of(store)
    assert list(reader.calls(after)) == [call for call in reader.calls() if call.step > after]
    assert list(reader.rows(after)) == [row for row in reader.rows() if row.step > after]
    assert {call.step for call in reader.calls(after)} == {step for step in (0, 3, 5, 7, 9) if step > after}


# -- digests ------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Run], None]] = {
    "a late point": lambda run: run.log({"late": 1.0}, step=3, time=9.0),
    "a late point of a known key": lambda run: run.log({"odd": 1.0}, step=4, time=9.0),
    "a value logged again": lambda run: run.log({"a": 4.5}, step=4, time=9.0),
    "the same value at another time": lambda run: run.log({"a": 4.0}, step=4, time=4.000001),
    "another value at the same time": lambda run: run.log({"a": 4.0 + 1e-9}, step=4, time=4.0),
    "NaN at the same time": lambda run: run.log({"a": NAN}, step=4, time=4.0),
    "an object logged again": lambda run: run.log({"t": Text("4!")}, step=4, time=4.0),
    "a late object": lambda run: run.log({"t2": Text("")}, step=5, time=9.0),
}


@pytest.fixture
def ten_steps(store: Path) -> Run:
    """A run with a row at each of the steps 0 to 9, half of them folded."""
    run = begun(store)
    for step in range(10):
        odd = {"odd": -INFINITY} if step % 2 else {}
        run.log({"a": float(step), "n": 2**62 + step, "t": Text(str(step)), **odd}, step=step, time=step)
        if step == 5:
            run.commit()
            run._fold()  # type: ignore[attr-defined] # the SQLite backend's
    run.commit()
    return run


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_digest_changes_with_what_is_logged_at_its_steps_and_not_with_what_follows(
    store: Path, ten_steps: Run, change: Callable[[Run], None]
) -> None:
    reader = reader_of(store)
    before = [reader.digest(through) for through in range(10)]
    assert len(set(before)) == 10
    change(ten_steps)
    ten_steps.commit()
    after = [reader.digest(through) for through in range(10)]
    first = next(step for step in range(10) if before[step] != after[step])
    assert first in {3, 4, 5}
    assert all(b == a for b, a in zip(before[:first], after[:first], strict=True))
    assert all(b != a for b, a in zip(before[first:], after[first:], strict=True))
    ten_steps.finish(Status())
    assert [reader.digest(through) for through in range(10)] == after  # whatever is folded


def test_new_steps_keys_and_times_above_it_leave_a_digest_as_it_was(store: Path, ten_steps: Run) -> None:
    before = reader_of(store).digest(9)
    for step in range(10, 200):
        ten_steps.log({"a": step, "new": step, "t": Text("x")}, step=step, time=step)
        ten_steps.commit()
    assert reader_of(store).digest(9) == before
    ten_steps.finish(Status())
    assert reader_of(store).digest(9) == before
    assert reader_of(store).digest(-1) == reader_of(store).digest(-1) != before


# -- what the processes were, printed and measured ----------------------------------------------------


def surrounded(run: Run, lines: int, rows: int, start: float) -> None:
    """Record something of each."""
    assert isinstance(run, SQLiteRun)
    run.record_environment({"host": f"host of {start}", "packages": {"jax": "1"}})
    run.log_console([ConsoleLine(start + i, "stdout", f"{start} {i}") for i in range(lines)])
    for i in range(rows):
        run.log_system(SystemRow(start + i, {"cpu": float(i), "gpu.0.temp": NAN}))
    run.commit()


def test_a_resumed_run_goes_on_with_its_lines_and_measurements_and_has_an_environment_a_segment(
    store: Path,
) -> None:
    run = begun(store)
    surrounded(run, 2500, 3, 100.0)
    run.record_environment({"code": "code:v0", "packages": {}})  # type: ignore[attr-defined] # as above
    run.finish(Status("failed", 1))
    run = begun(store, resume="must")
    surrounded(run, 2, 2500, 5000.0)
    reader = reader_of(store)
    assert reader.environments() == {
        1: {"host": "host of 100.0", "packages": {}, "code": "code:v0"},
        2: {"host": "host of 5000.0", "packages": {"jax": "1"}},
    }
    lines = list(reader.console())
    assert lines == [ConsoleLine(100.0 + i, "stdout", f"100.0 {i}") for i in range(2500)] + [
        ConsoleLine(5000.0 + i, "stdout", f"5000.0 {i}") for i in range(2)
    ]
    rows = list(reader.system_metrics())
    assert [row.time for row in rows] == [100.0, 101.0, 102.0, *(5000.0 + i for i in range(2500))]
    assert rows[2].values["cpu"] == 2.0
    assert math.isnan(rows[2].values["gpu.0.temp"])
    for after in (0, 1, 999, 1000, 1001, 2500, 2502, 9999):
        assert list(reader.console(after)) == lines[after:]
        assert [row.time for row in reader.system_metrics(after)] == [row.time for row in rows[after:]]
    run.finish(Status())


@pytest.mark.parametrize(
    "record",
    [
        lambda run: run.record_environment({"code": "c:v0"}),
        lambda run: run.log_console([ConsoleLine(1.0, "stderr", "")]),
        lambda run: run.log_system(SystemRow(1.0, {"cpu": 1.0})),
    ],
    ids=["environment", "console", "system"],
)
def test_the_revision_changes_with_what_a_process_is_prints_and_measures(
    store: Path, record: Callable[[Any], None]
) -> None:
    run = begun(store)
    surrounded(run, 1, 1, 100.0)
    reader = reader_of(store)
    before = reader.revision
    assert reader.revision == before
    record(run)
    run.commit()
    assert reader.revision != before
    run.finish(Status())


def test_a_run_of_before_there_were_environments_takes_them_when_continued(store: Path) -> None:
    begun(store).finish(Status("failed", 1))
    file = sqlite3.connect(store / "runs" / "r.sqlite")
    file.executescript(
        "DROP TABLE environments; DROP TABLE system_metrics; CREATE TABLE system_metrics (seq INTEGER PRIMARY"
        " KEY, run INTEGER NOT NULL, key TEXT NOT NULL, time DOUBLE NOT NULL, value); CREATE INDEX"
        " system_metrics_by_key ON system_metrics (run, key, time); UPDATE schema_version SET version = 3"
    )
    file.close()
    reader = reader_of(store)
    assert (reader.environments(), list(reader.console()), list(reader.system_metrics())) == ({}, [], [])
    continued = begun(store, resume="must")
    surrounded(continued, 1, 1, 100.0)
    continued.finish(Status())
    assert list(reader.environments()) == [2]
    assert (len(list(reader.console())), len(list(reader.system_metrics()))) == (1, 1)


def test_what_is_recovered_twice_is_recorded_once(store: Path, tmp_path: Path) -> None:
    run = begun(store)
    surrounded(run, 2, 2, 100.0)
    run.finish(Status("failed", 1))
    lines = [ConsoleLine(101.0 + i, "stdout", f"100.0 {1 + i}") for i in range(2)]
    rows = [SystemRow(101.0 + i, {"cpu": 1.0}) for i in range(2)]
    for _ in range(2):
        spill = Spill(run.info)
        spill.write(Call("record_environment", {"host": "h"}))
        spill.write(Call("log_console", lines))
        for row in rows:
            spill.write(Call("log_system", row))
        spill.close()
        recover([spill.path], backend, Settings(("sqlite",), store))
    reader = reader_of(store)
    assert [line.text for line in reader.console()] == ["100.0 0", "100.0 1", "100.0 2"]
    assert [row.time for row in reader.system_metrics()] == [100.0, 101.0, 102.0]
    assert reader.environments()[2] == {"host": "h"}


def test_an_object_that_is_logged_again_replaces_the_older_one(store: Path) -> None:
    with tracklayer.init(id="r") as run:
        run.log({"t": "first"}, step=1)
        run.flush()
        run.log({"t": "second"}, step=1)
    assert [row.values for row in reader_of(store).rows()] == [{"t": Text("second")}]


def test_times_are_those_of_the_log_calls(store: Path) -> None:
    before = time.time()
    with tracklayer.init(id="r") as run:
        for step in range(5):
            run.log({"x": step}, step=step)
            time.sleep(0.02)
        run.log({"x": 0}, step=9, time=1_700_000_000.123456)
    times = reader_of(store).metric("x").time.tolist()
    assert times[5] == 1_700_000_000.123456
    assert before <= times[0] < times[1] < times[2] < times[3] < times[4] <= time.time()
    assert times[4] - times[0] >= 0.08


# -- live reading -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("folding_often")
def test_a_live_run_is_read_while_it_is_written(store: Path) -> None:
    """Every reading sees a whole state: all keys of a row, no step missing, nothing older than before."""
    run = tracklayer.init(id="r")
    stop, seen, errors = threading.Event(), [0], list[BaseException]()

    def read() -> None:
        try:
            while not stop.is_set():
                reader = reader_of(store)
                assert reader.info.state == "running"
                if not reader.keys():
                    continue
                metric = reader.metric("x")
                assert metric.step.tolist() == list(range(len(metric)))
                assert metric.value.tolist() == metric.step.tolist()
                assert len(metric) >= seen[-1]
                rows = list(reader.rows())
                assert all(row.values == {"x": row.step, "y": -row.step} for row in rows)
                assert [row.step for row in rows] == list(range(len(rows)))
                assert len(rows) >= len(metric)
                last = reader.summary
                assert last["x"] == -last["y"] >= len(rows) - 1
                seen.append(len(metric))
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    step, end = 0, time.monotonic() + 2
    while time.monotonic() < end and not errors:
        run.log({"x": step, "y": -step}, step=step)
        step += 1
        time.sleep(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    run.finish()
    assert not errors, errors
    assert len(set(seen)) > 5
    assert len(reader_of(store).metric("x")) == step


@pytest.mark.slow
def test_another_process_reads_a_live_run(store: Path) -> None:
    run = tracklayer.init(id="r")
    script = """
import sys, time, tracklayer
reader, sizes = tracklayer.open_store().run("r"), []
while len(set(sizes)) < 5:
    sizes.append(len(reader.metric("x")))
    time.sleep(0.02)
print(sizes == sorted(sizes), reader.info.state)
"""
    run.log({"x": 0}, step=0)
    run.flush()
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    step, end = 1, time.monotonic() + WAIT
    while process.poll() is None and time.monotonic() < end:
        run.log({"x": step}, step=step)
        step += 1
        time.sleep(0.001)
    out, _ = process.communicate()
    run.finish()
    assert out.split() == ["True", "running"]
    assert len(reader_of(store).metric("x")) == step


@pytest.mark.slow
@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_slow_reader_stalls_no_writer(store: Path, monkeypatch: pytest.MonkeyPatch, journal: str) -> None:
    monkeypatch.setattr(starting, "on_network", lambda path: journal == "DELETE")
    monkeypatch.setattr(recording, "_NETWORK_INTERVAL", 0.05)
    run = tracklayer.init(id="r")
    for step in range(1000):
        run.log({"x": step, "t": "text"}, step=step)
    assert run.flush()
    slow = reader_of(store).calls()
    next(slow)
    begin = time.monotonic()
    for step in range(1000, 1010):
        run.log({"x": step}, step=step)
        assert run.flush(WAIT)
    assert time.monotonic() - begin < 4.0  # SQLite's own patience with a lock is 5 s
    assert len(list(slow)) == 999  # what was there when it began
    run.finish()
    assert sorted(file.name for file in (store / "runs").iterdir()) == ["r.sqlite"]
    assert reader_of(store).info.state == "finished"


def test_finish_leaves_one_file_that_stands_for_itself(store: Path, tmp_path: Path) -> None:
    with tracklayer.init(id="r") as run:
        run.log({"x": 1})
    assert [file.name for file in (store / "runs").iterdir()] == ["r.sqlite"]
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes((store / "runs" / "r.sqlite").read_bytes())
    file = sqlite3.connect(copy)
    assert file.execute("SELECT key, step, value FROM metrics").fetchall() == [("x", 0, 1.0)]
    assert file.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    file.close()


def test_a_run_that_was_read_while_it_finished_can_be_read_and_resumed(store: Path) -> None:
    run = tracklayer.init(id="r")
    run.log({"x": 1})
    run.flush()
    held = sqlite3.connect(store / "runs" / "r.sqlite")
    held.execute("BEGIN")
    held.execute("SELECT count(*) FROM new_points").fetchall()
    run.finish()
    assert reader_of(store).info.state == "finished"
    assert points(reader_of(store), "x") == [(0, 1)]
    held.close()
    assert points(reader_of(store), "x") == [(0, 1)]
    with tracklayer.init(id="r", resume="must") as run:
        run.log({"x": 2})
    assert points(reader_of(store), "x") == [(0, 1), (1, 2)]
    assert [file.name for file in (store / "runs").iterdir()] == ["r.sqlite"]


# -- crashed ------------------------------------------------------------------------------------------


def crash(store: Path, run_id: str = "r", then: str = "") -> None:
    """Record 100 rows of a run in a process, and kill that."""
    script = f"""
import os, signal, tracklayer
run = tracklayer.init(id={run_id!r}, config={{"a": 1}})
for step in range(100):
    run.log({{"x": step, "t": "text"}}, step=step)
run.flush()
{then}
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "TRACKLAYER_DIR": str(store)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_crashed_run_is_read_whole(store: Path) -> None:
    crash(store)
    for _ in range(2):
        reader = reader_of(store)
        assert reader.info.state == "crashed"
        assert reader.config == {"a": 1}
        assert len(reader.metric("x")) == 100
        assert len(list(reader.rows())) == 100


NETWORK = """
from tracklayer_sqlite import recording, starting
starting.on_network = lambda path: True
recording._NETWORK_INTERVAL = 0.05
"""


@pytest.mark.slow
@pytest.mark.parametrize("writable", [True, False])
def test_a_transaction_that_was_killed_half_way_is_taken_back_by_the_next_reader(
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    writable: bool,
) -> None:
    """In the journal mode of network file systems, where the file itself is written to."""
    script = f"""
import os, signal, tracklayer
{NETWORK}
run = tracklayer.init(id="r")
run.log({{"x": 1}}, step=0)
run.flush()
from tracklayer_sqlite.recording import SQLiteRun
write = SQLiteRun._write_keys
def killed(self):
    connection = self._connection
    connection.exec_driver_sql("PRAGMA cache_size = 1")  # so that pages are written before the commit
    connection.exec_driver_sql("PRAGMA cache_spill = 1")
    for step in range(20000):
        connection.exec_driver_sql("INSERT INTO new_points VALUES (NULL, 1, 1, 5, 0, 0)")
    assert os.path.exists(self._path.with_name("r.sqlite-journal"))
    os.kill(os.getpid(), signal.SIGKILL)
SQLiteRun._write_keys = killed
run.log({{"x": 2}}, step=1)
run.flush()
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, env={**os.environ})
    assert done.returncode == -signal.SIGKILL
    assert (store / "runs" / "r.sqlite-journal").stat().st_size > 0
    if not writable:
        from tracklayer_sqlite import opening

        monkeypatch.setattr(opening, "is_writable", lambda folder: False)
    assert points(reader_of(store), "x") == [(0, 1)]
    assert reader_of(store).info.state == "crashed"
    assert (store / "runs" / "r.sqlite-journal").exists() is not writable


@pytest.mark.slow
def test_where_nothing_may_be_written_a_live_run_is_read_from_a_copy_of_one_moment(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read in another process: this one must not open the file that it records."""
    monkeypatch.setattr(starting, "_WAL_PAGES", 5)  # begins its log anew again and again
    monkeypatch.setattr(recording, "_FOLD_EVERY", 3)
    run = tracklayer.init(id="r")
    run.log({"x": 0, "y": 0}, step=0)
    run.flush()
    script = """
import tracklayer, tracklayer_sqlite.opening as module
module.is_writable = lambda folder: False
module._COPIES = 1000
sizes = []
while len(set(sizes)) < 20:
    reader = tracklayer.open_store().run("r")
    metric, other = reader.metric("x"), reader.metric("y")
    assert metric.value.tolist() == list(range(len(metric))) == metric.step.tolist()
    assert other.value.tolist() == list(range(len(other)))
    sizes.append(len(metric))
assert sizes == sorted(sizes)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    step, end = 1, time.monotonic() + 2 * WAIT
    while process.poll() is None and time.monotonic() < end:
        run.log({"x": step, "y": step}, step=step)
        step += 1
        if step % 20 == 0:
            run.flush()
        time.sleep(0.0005)
    _, errors = process.communicate()
    run.finish()
    assert process.returncode == 0, errors


def test_a_lease_of_another_host_ends_when_its_heartbeat_stops(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(store)
    run.commit()
    monkeypatch.setattr(lease.socket, "gethostname", lambda: "elsewhere")
    assert reader_of(store).info.state == "running"
    with pytest.raises(RunInUseError, match=f"process {os.getpid()} on host"):
        begun(store, resume="allow")
    monkeypatch.setattr(lease, "STALE_SECONDS", -1.0)
    assert reader_of(store).info.state == "crashed"
    other = begun(store, resume="allow")
    other.finish(Status())
    assert [segment.state for segment in reader_of(store).segments] == ["crashed", "finished"]
    assert reader_of(store).segments[1].host == "elsewhere"


def test_a_process_id_that_is_used_again_is_not_the_process_that_crashed(store: Path) -> None:
    run = begun(store)
    run.commit()
    file = sqlite3.connect(store / "runs" / "r.sqlite")
    file.execute("UPDATE segments SET process_started_at = process_started_at - 1000")
    file.commit()
    file.close()
    assert reader_of(store).info.state == "crashed"


# -- damaged files ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A finished run's file."""
    folder = tmp_path_factory.mktemp("whole")
    with tracklayer.init(id="damaged", dir=folder, config={"a": 1}) as run:
        for step in range(2000):
            run.log({"x": step, "y": 0.5, "t": "text" * 10}, step=step)
    return (folder / "runs" / "damaged.sqlite").read_bytes()


def assert_others_stay_readable(store: Path) -> str:
    """Return the message about the damaged run; its content may also be readable."""
    found = tracklayer.open_store(store)
    assert "good" in [run.id for run in found.runs()]
    unreadable = found.unreadable()
    if not unreadable:
        return ""
    assert [(run.name, run.path.name) for run in unreadable] == [("damaged", "damaged.sqlite")]
    with pytest.raises(StoreError):
        found.run("damaged").info  # noqa: B018 - reads more of it
    assert found.run("good").summary == {"x": 1}
    return str(unreadable[0].error)


@pytest.fixture
def good(store: Path) -> Path:
    """The place of a damaged file, beside a good one."""
    with tracklayer.init(id="good") as run:
        run.log({"x": 1})
    return store / "runs" / "damaged.sqlite"


def test_an_empty_file_is_marked(store: Path, good: Path) -> None:
    good.touch()
    assert "died before it wrote anything" in assert_others_stay_readable(store)


@pytest.mark.parametrize("content", [b"not a database at all" * 100, bytes(8192), b"SQLite format 3\0"])
def test_a_file_that_is_no_run_is_marked(store: Path, good: Path, content: bytes) -> None:
    good.write_bytes(content)
    assert "damaged" in assert_others_stay_readable(store)


def test_a_database_that_is_no_run_is_marked(store: Path, good: Path) -> None:
    file = sqlite3.connect(good)
    file.execute("CREATE TABLE points (a)")
    file.commit()
    file.close()
    assert "holds no run" in assert_others_stay_readable(store)


def test_a_folder_with_a_runs_name_is_marked(store: Path, good: Path) -> None:
    good.mkdir()
    assert assert_others_stay_readable(store)


@pytest.mark.slow
def test_a_truncated_file_is_marked_or_fails_where_it_is_cut(
    store: Path, good: Path, whole_file: bytes
) -> None:
    marked = 0
    for size in range(0, len(whole_file), 4096 * 3):
        good.write_bytes(whole_file[: size + 100])
        marked += bool(assert_others_stay_readable(store))
    assert marked > 3


@pytest.mark.slow
def test_any_damage_is_a_store_error_and_nothing_else(store: Path, good: Path, whole_file: bytes) -> None:
    chance = random.Random(1)
    for _ in range(15):
        damaged = bytearray(whole_file)
        for _ in range(chance.choice([1, 10, 200])):
            damaged[chance.randrange(len(damaged) // chance.choice([1, 1, 10]))] = chance.randrange(256)
        good.write_bytes(damaged)
        assert_others_stay_readable(store)
        reads: list[Callable[[RunReader], object]] = [
            lambda r: r.info,
            lambda r: r.config,
            lambda r: r.summary,
            lambda r: r.segments,
            lambda r: r.keys(),
            lambda r: r.metric("x"),
            lambda r: list(r.rows()),
            lambda r: r.artifacts(),
            lambda r: r.rules,
            lambda r: r.revision,
            lambda r: r.last_step,
        ]
        for read in reads:
            try:
                read(tracklayer.open_store(store).run("damaged"))
            except (StoreError, LookupError):
                continue


def test_a_damaged_run_is_not_resumed(store: Path, good: Path) -> None:
    good.write_bytes(b"not a database at all" * 100)
    with pytest.raises(CorruptRunError):
        tracklayer.init(id="damaged", resume="allow")
    with pytest.raises(RunExistsError):
        tracklayer.init(id="damaged")


def test_a_run_whose_process_died_before_it_wrote_anything_can_be_begun_anew(store: Path, good: Path) -> None:
    good.touch()
    with tracklayer.init(id="damaged", resume="allow") as run:
        run.log({"x": 1})
    assert points(reader_of(store, "damaged"), "x") == [(0, 1)]


# -- versions -----------------------------------------------------------------------------------------


def set_version(file: Path, version: int) -> None:
    connection = sqlite3.connect(file)
    connection.execute("UPDATE schema_version SET version = ?", (version,))
    connection.commit()
    connection.close()


def test_a_newer_version_is_refused_with_a_word_about_upgrading(store: Path, good: Path) -> None:
    del good
    with tracklayer.init(id="damaged"):
        pass
    set_version(store / "runs" / "damaged.sqlite", 99)
    message = assert_others_stay_readable(store)
    assert "newer tracklayer (schema 99" in message
    assert "upgrade tracklayer" in message
    with pytest.raises(StoreTooNewError, match="upgrade"):
        tracklayer.init(id="damaged", resume="allow")
    assert (store / "runs" / "damaged.sqlite").exists()
    assert [file.name for file in (store / "runs").glob("damaged*")] == ["damaged.sqlite"]


def test_an_older_version_is_read_in_a_copy_and_migrated_when_it_is_continued(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracklayer.init(id="r") as run:
        run.log({"x": 1})
    file = store / "runs" / "r.sqlite"

    # a future version: notes moved from the run to a table, as a real migration would do
    def moves_notes(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE notes (run INTEGER NOT NULL, text TEXT)")
        connection.exec_driver_sql("INSERT INTO notes SELECT run, notes FROM runs")

    def upper(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE notes SET text = 'migrated'")

    def notes() -> list[Any]:
        connection = sqlite3.connect(file)
        try:
            return connection.execute("SELECT text FROM notes").fetchall()
        except sqlite3.OperationalError:
            return []
        finally:
            connection.close()

    before = file.read_bytes()
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, moves_notes, upper])
    assert schema.current_version() == 6
    assert points(reader_of(store), "x") == [(0, 1)]
    assert next(iter(reader_of(store).rows())).values == {"x": 1}
    assert file.read_bytes() == before
    with tracklayer.init(id="r", resume="must") as run:
        run.log({"x": 2})
    assert notes() == [("migrated",)]
    assert points(reader_of(store), "x") == [(0, 1), (1, 2)]
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:-1])
    with pytest.raises(StoreTooNewError):
        reader_of(store)


def test_a_run_that_was_recorded_before_there_were_media_takes_them_when_continued(store: Path) -> None:
    with tracklayer.init(id="r") as run:
        run.log({"x": 1, "t": "text"})
    file = sqlite3.connect(store / "runs" / "r.sqlite")
    for table, column in schema._VERSION_COLUMNS:  # which came with the next version
        file.execute(f"ALTER TABLE {table} DROP COLUMN {column.split()[0]}")
    file.execute("DROP TABLE contents")
    file.execute("DROP TABLE environments")
    file.execute("UPDATE schema_version SET version = 1")
    file.commit()
    file.close()
    assert next(reader_of(store).rows()).values == {"x": 1, "t": tracklayer.Text("text")}
    with tracklayer.init(id="r", resume="must") as run:
        run.log({"html": tracklayer.Html("<p>")})
    ((_, step, _, value),) = reader_of(store).media("html")
    assert (step, value) == (1, tracklayer.Html("<p>"))


def test_a_migration_that_fails_leaves_the_old_version(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracklayer.init(id="r") as run:
        run.log({"x": 1})

    def fails(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE half (a)")
        connection.exec_driver_sql("SELECT nonsense")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, fails])
        with pytest.raises(StoreError):
            tracklayer.init(id="r", resume="allow")
    assert points(reader_of(store), "x") == [(0, 1)]
    assert reader_of(store).info.state == "finished"
    with tracklayer.init(id="r", resume="allow") as run:
        run.log({"x": 2})


# -- network file systems -----------------------------------------------------------------------------


class Partition(NamedTuple):
    device: str
    mountpoint: str
    fstype: str
    opts: str


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/me/runs", True),
        ("/home/me/local/runs", False),
        ("/home/mehmet/runs", True),
        ("/homework", False),
        ("/scratch/a", True),
        ("/auto/project/x", True),
        ("/sshfs/x", True),
        ("/tmp/x", False),
        ("/", False),
    ],
)
def test_network_file_systems_are_found_by_the_closest_mount(
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    expected: bool,
) -> None:
    mounts = [
        Partition("/dev/sda", "/", "ext4", ""),
        Partition("server:/home", "/home", "nfs4", ""),
        Partition("/dev/sdb", "/home/me/local", "xfs", ""),
        Partition("mds:/scratch", "/scratch", "Lustre", ""),
        Partition("auto", "/auto/project", "autofs", ""),
        Partition("server:/p", "/auto/project", "nfs", ""),
        Partition("host:", "/sshfs", "fuse.sshfs", ""),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)  # noqa: A006 - its name
    monkeypatch.setattr(Path, "resolve", lambda self: self)
    assert on_network(Path(path)) is expected


def test_without_a_list_of_mounts_a_disk_is_taken_to_be_local(
    monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    def forbidden(*, all: bool) -> list[Any]:  # noqa: A002 - its name
        raise PermissionError(all)

    monkeypatch.setattr(psutil, "disk_partitions", forbidden)
    with tracklayer.init(id="r") as run:
        run.log({"x": 1})
    assert points(reader_of(store), "x") == [(0, 1)]


def test_on_a_network_file_system_there_is_no_write_ahead_log(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "on_network", lambda path: True)
    run = tracklayer.init(id="r", config={"a": 1})
    assert run._queues[0]._interval > 1
    for step in range(100):
        run.log({"x": step}, step=step)
    assert run.flush()
    assert {file.name for file in (store / "runs").iterdir()} <= {"r.sqlite", "r.sqlite-journal"}
    assert len(reader_of(store).metric("x")) == 100
    assert run.summary["x"] == 99
    run.finish()
    with tracklayer.init(id="r", resume="must") as run:
        run.log({"x": -1}, step=50)
    assert points(reader_of(store), "x")[50] == (50, -1)
    assert reader_of(store).info.state == "finished"


@pytest.mark.slow
def test_a_crashed_run_that_came_from_a_local_disk_is_continued_on_a_network_one(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash(store)
    monkeypatch.setattr(starting, "on_network", lambda path: True)
    run = tracklayer.init(id="r", resume="must")
    run.log({"x": -1}, step=100)
    assert run.flush()
    assert not (store / "runs" / "r.sqlite-wal").exists()
    assert len(reader_of(store).metric("x")) == 101
    run.finish()


# -- names --------------------------------------------------------------------------------------------

IDS = [
    "abc",
    "ABC",
    "Abc",
    "é",
    "e\u0301",
    "É",
    "con",
    "x" * 128,
    "X" * 128,
    "損失",
    "a b",
    "a.b",
    "a-b",
    "..",
    "a\\b",
    "~",
    "run~1",
]


@pytest.mark.slow
def test_ids_that_differ_in_anything_get_files_that_differ_on_any_file_system(store: Path) -> None:
    for number, run_id in enumerate(IDS):
        with tracklayer.init(id=run_id) as run:
            run.log({"x": number})
    names = [file.name for file in (store / "runs").iterdir()]
    assert len({name.lower() for name in names}) == len(IDS) == len(names)
    assert all(len(name) < 120 and name.isascii() for name in names)
    found = tracklayer.open_store(store)
    assert sorted(run.id for run in found.runs()) == sorted(IDS)
    for number, run_id in enumerate(IDS):
        assert points(reader_of(store, run_id), "x") == [(0, number)]
        assert found.run(run_id).id == run_id


def test_a_run_is_found_by_id_then_name_then_unique_prefix(store: Path) -> None:
    for run_id, name in (("abc1", "first"), ("abc2", "second"), ("first", "third")):
        with tracklayer.init(id=run_id, name=name):
            pass
    found = tracklayer.open_store(store)
    assert found.run("abc1").id == "abc1"
    assert found.run("first").id == "first"
    assert found.run("second").id == "abc2"
    assert found.run("fir").id == "first"
    with pytest.raises(tracklayer.errors.AmbiguousRunError, match="abc1.*abc2"):
        found.run("abc")
    with pytest.raises(RunNotFoundError, match="no run 'z'"):
        found.run("z")
    with pytest.raises(RunNotFoundError):
        found.run("")


def test_runs_are_filtered_and_oldest_first(store: Path) -> None:
    for number, (project, group) in enumerate([("p", "a"), ("p", "b"), ("q", "a"), ("p", None)]):
        run = begun(store, f"r{number}", name=f"n{number}", group=group)
        run.finish(Status())
        if project == "q":
            continue
    found = tracklayer.open_store(store)
    assert [run.id for run in found.runs()] == ["r0", "r1", "r2", "r3"]
    assert [run.id for run in found.runs(project="p", group="a")] == ["r0", "r2"]
    assert found.runs(project="q") == []
    assert found.runs(state="running") == []


def test_the_store_ignores_itself_in_git(store: Path) -> None:
    with tracklayer.init():
        pass
    assert (store / ".gitignore").read_text() == "*\n"
    (store / ".gitignore").write_text("mine\n")
    with tracklayer.init():
        pass
    assert (store / ".gitignore").read_text() == "mine\n"


def test_a_folder_with_other_things_in_it_is_not_hidden_from_git(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    tracklayer.init(dir=tmp_path, backend="sqlite,tensorboard").finish()
    assert not (tmp_path / ".gitignore").exists()


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"):
        tracklayer.init(dir=tmp_path / "file")
    with pytest.raises(StoreError, match="a store is a folder"):
        tracklayer.open_store(tmp_path / "file")


# -- beginning and continuing -------------------------------------------------------------------------


def test_a_resumed_run_keeps_what_it_is_but_for_what_is_given_anew(store: Path) -> None:
    with tracklayer.init(
        "p", id="r", name="n", group="g", job_type="j", tags=["a"], notes="first", entity="e"
    ) as run:
        created = run.info.created_at
    with tracklayer.init(id="r", resume="must", notes="second") as run:
        info = run.info
        assert (info.project, info.name, info.group, info.job_type) == ("p", "n", "g", "j")
        assert (info.tags, info.notes, info.entity) == (("a",), "second", "e")
        assert info.created_at == created
        assert info.resumed
    info = reader_of(store).info
    assert (info.notes, info.created_at, info.resumed) == ("second", created, True)
    with pytest.raises(UsageError, match="is of project 'p', not 'q'"):
        tracklayer.init("q", id="r", resume="must")
    assert reader_of(store).info.state == "finished"
    assert len(reader_of(store).segments) == 2


def test_an_init_that_is_refused_leaves_a_finished_file_as_it_was(store: Path) -> None:
    with tracklayer.init("p", id="r") as run:
        run.log({"x": 1})
    file = store / "runs" / "r.sqlite"
    before = file.read_bytes()
    with pytest.raises(RunExistsError, match="resume='allow'"):
        tracklayer.init("p", id="r")
    with pytest.raises(UsageError):
        tracklayer.init("q", id="r", resume="allow")
    assert file.read_bytes() == before
    assert [file.name for file in (store / "runs").iterdir()] == ["r.sqlite"]


def test_a_second_run_of_the_same_id_in_this_process_is_refused(store: Path) -> None:
    with tracklayer.init(id="r") as run:
        for resume in (None, "allow", "never"):
            with pytest.raises(RunInUseError, match=f"process {os.getpid()} on host"):
                tracklayer.init(id="r", resume=resume, reinit="create_new")
        run.log({"x": 1})
    assert points(reader_of(store), "x") == [(0, 1)]


def test_an_id_can_be_tried_again_when_its_run_could_not_be_started(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(connection: Connection) -> None:
        msg = "disk full"
        raise StoreError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(schema, "create", fails)
        with pytest.raises(StoreError):
            tracklayer.init(id="r")
    with tracklayer.init(id="r") as run:
        run.log({"x": 1})
    assert points(reader_of(store), "x") == [(0, 1)]


def test_a_process_compiles_a_statement_once(store: Path) -> None:
    def recorded(run_id: str) -> int:
        run = begun(store, run_id)
        run.log({"a": 1}, step=0, time=1.0)
        run.update_config({"lr": 1})
        run.finish(Status())
        assert reader_of(store, run_id).config == {"lr": 1}
        return len(connecting._compiled())

    assert recorded("first") == recorded("second") > 0


# -- poison -------------------------------------------------------------------------------------------


def test_no_value_that_log_accepts_stops_the_recording(store: Path) -> None:
    """A call that the database refuses again and again would hold up all that come after it."""
    run = tracklayer.init(id="r", notes="\ud83d", config={"nan": NAN, "half": "\ud83d", "big": 10**400})
    for moment in (NAN, INFINITY, "now", None):
        if moment is not None:
            with pytest.raises(UsageError, match="time"):
                run.log({"x": 0}, step=0, time=moment)  # type: ignore[arg-type] # on purpose
    run.log({"x": 10**400, "t": "\ud83d\0", "h": Histogram([NAN])}, step=0)
    run.summary["s"] = {"a": [NAN, 10**400]}
    artifact = tracklayer.Artifact("a", "type", description="\ud83d", metadata={"n": NAN, "half": "\ud83d"})
    run.log_artifact(artifact)
    run.log({"x": 1}, step=1)
    assert run.flush()
    run.finish(3)
    assert points(reader_of(store), "x") == [(0, INFINITY), (1, 1.0)]
    assert reader_of(store).info.state == "failed"


# -- summaries ----------------------------------------------------------------------------------------

RULES = {"a": "min", "b": "max,last", "c": "mean", "d": "none", "e/*": "min", "f": "last"}
EXPECTED = {
    "a": {"min": 1},
    "b": {"max": 5.5, "last": 2.5},
    "c": {"mean": 3.0},
    "e/x": {"min": -INFINITY},
    "f": {"last": 1},
    "plain": 2.0,
    "nan": NAN,
    "by hand": {"best": 1},
}


def ruled(run: ActiveRun) -> None:
    for pattern, summary in RULES.items():
        run.define_metric(pattern, summary=summary)


def logged(run: ActiveRun) -> None:
    rows: list[tuple[int, dict[str, Any]]] = [
        (1, {"a": 3, "b": 5.5, "c": 1, "d": 1, "e/x": 0.5, "f": False, "plain": 1.0}),
        (5, {"a": 1, "b": 2.5, "c": 5, "d": 1, "e/x": -INFINITY, "f": True, "plain": 2.0, "nan": NAN}),
        (3, {"a": 2, "b": 4.5, "c": 3, "plain": 3.0}),
        (4, {"a": NAN}),
    ]
    for step, values in rows:
        run.log(values, step=step)
    run.summary["by hand"] = {"best": 1}


def assert_agree(run: ActiveRun, store: Path, expected: dict[str, Any]) -> None:
    live = dict(run.summary)
    recorded = reader_of(store).summary
    assert live.keys() == recorded.keys() == expected.keys()
    for key, value in expected.items():
        assert live[key] == pytest.approx(value, nan_ok=True), key
        assert recorded[key] == pytest.approx(value, nan_ok=True), key


@pytest.mark.slow
def test_the_summary_is_the_same_live_read_finished_and_resumed(store: Path) -> None:
    run = tracklayer.init(id="r")
    ruled(run)
    logged(run)
    assert_agree(run, store, EXPECTED)
    run.finish()
    assert_agree(run, store, EXPECTED)
    run = tracklayer.init(id="r", resume="must")
    assert_agree(run, store, EXPECTED)
    # a checkpoint of step 2: what follows is logged again, with other values
    run.log({"a": 10, "b": 10, "plain": -1.0}, step=3)
    run.log({"a": 10, "c": 0}, step=5)
    expected = {**EXPECTED, "a": {"min": 3}, "b": {"max": 10, "last": 2.5}, "c": {"mean": 4 / 3}}
    assert_agree(run, store, expected)
    run.finish()
    assert_agree(run, store, expected)


def test_a_rule_that_comes_after_values_is_over_all_of_them(store: Path) -> None:
    run = tracklayer.init(id="r")
    logged(run)
    run.flush()
    ruled(run)
    assert_agree(run, store, EXPECTED)
    run.log({"a": 0}, step=9)
    assert_agree(run, store, {**EXPECTED, "a": {"min": 0}})
    run.define_metric("a", summary="max")
    assert_agree(run, store, {**EXPECTED, "a": {"max": 3}})
    run.finish()
    assert_agree(run, store, {**EXPECTED, "a": {"max": 3}})


def test_steps_that_are_logged_again_in_one_run_count_once(store: Path) -> None:
    run = tracklayer.init(id="r")
    run.define_metric("x", summary="min,max,mean,last")
    for value in (1.0, 9.0):
        for step in range(3):
            run.log({"x": value + step}, step=step)
    assert_agree(run, store, {"x": {"min": 9.0, "max": 11.0, "mean": 10.0, "last": 11.0}})
    run.finish()


def test_an_integer_larger_than_any_double_does_not_stop_the_summary(store: Path) -> None:
    run = tracklayer.init(id="r")
    run.define_metric("x", summary="mean,max")
    run.log({"x": 0.5})
    run.log({"x": 10**400})
    run.log({"x": 0.5})
    assert run.summary["x"]["mean"] == INFINITY
    run.finish()
    assert reader_of(store).summary["x"]["max"] == INFINITY


def test_rules_are_defined_while_rows_pass(store: Path) -> None:
    run = tracklayer.init(id="r")
    for number in range(300):
        run.define_metric(f"m{number}", summary="max")
        for key in range(number, number + 20):
            run.log({f"m{key}": key}, step=number)
    assert run.summary["m100"] == {"max": 100}
    run.finish()
    assert reader_of(store).summary["m100"] == {"max": 100}
    assert len(reader_of(store).keys()) == 319


@pytest.mark.slow
def test_the_summary_of_a_live_run_with_many_keys_takes_no_time(store: Path) -> None:
    run = begun(store)
    for step in range(2000):
        run.log({f"k{key}": step + key for key in range(100)}, step=step, time=1.0)
        if step % 100 == 0:
            run.commit()
    run.commit()
    begin = time.monotonic()
    summary = reader_of(store).summary
    assert time.monotonic() - begin < 10  # it was minutes
    assert summary == {f"k{key}": 1999 + key for key in range(100)}
    run.finish(Status())


# -- export -------------------------------------------------------------------------------------------


def content(reader: RunReader) -> list[Any]:
    info = replace(reader.info, state="finished", resumed=False, exit_code=None, finished_at=None)
    return [
        json.dumps(asdict(info)),
        [(call.step, call.time, repr(sorted(call.values.items()))) for call in reader.calls()],
        json.dumps(reader.config),
        json.dumps(reader.explicit_summary),
        repr(sorted(reader.summary.items())),
        repr(reader.rules),
        sorted(reader.keys()),
        [
            (a.label, a.type, a.metadata, a.aliases, [Path(f.source).read_bytes() for f in a.files])
            for a in reader.artifacts()
        ],
        [(a.label, a.digest) for a in reader.used_artifacts()],
    ]


def filled(run: ActiveRun, tmp_path: Path) -> None:
    """Log something of everything."""
    run.define_metric("loss", summary="min", goal="minimize", step_metric="epoch")
    run.define_metric("e/*", summary="none")
    run.config.update({"nested": {"a": [1, None, True]}, "nan": NAN})
    for step in range(50):
        run.log({"loss": 1 / (step + 1), "n": 2**53 + step, "e/x": NAN, "b": step % 2 == 0}, step=step)
    run.log({"loss": 0.5, "h": Histogram([1.0, NAN, 2.0]), "t": "é\n"}, step=10)
    run.log({"late": -INFINITY}, step=3)
    run.summary["best"] = {"loss": [1, 2]}
    (tmp_path / "weights").write_bytes(b"\0\1\2")
    artifact = tracklayer.Artifact("weights", "model", "description", {"a": [1]})
    artifact.add_file(tmp_path / "weights")
    run.log_artifact(artifact, aliases=["best"])
    run.use_artifact("weights:best")


def exported(store: Path, tmp_path: Path, name: str) -> RunReader:
    out = tmp_path / name / "runs" / "r.sqlite"
    out.parent.mkdir(parents=True)
    tracklayer.open_store(store).export("r", out)
    (tmp_path / name / "blobs").symlink_to(store / "blobs")
    assert [file.name for file in out.parent.iterdir()] == ["r.sqlite"]
    return reader_of(tmp_path / name)


@pytest.mark.slow
def test_an_export_is_the_run_while_it_is_live_crashed_or_finished(store: Path, tmp_path: Path) -> None:
    run = tracklayer.init(id="r", tags=["a", "é"], notes="n")
    filled(run, tmp_path)
    run.flush()
    assert content(exported(store, tmp_path, "live")) == content(reader_of(store))
    run.finish()
    assert content(exported(store, tmp_path, "finished")) == content(reader_of(store))
    crash(tmp_path / "crashed")
    original = reader_of(tmp_path / "crashed")
    copy = exported(tmp_path / "crashed", tmp_path, "copy")
    assert content(copy) == content(original)
    assert copy.info.state == "crashed"


def test_an_export_overwrites_nothing_and_can_be_read_by_others(store: Path, tmp_path: Path) -> None:
    with tracklayer.init(id="r"):
        pass
    out = tmp_path / "out.sqlite"
    before = os.umask(0o022)
    try:
        tracklayer.open_store(store).export("r", out)
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o777 == (store / "runs" / "r.sqlite").stat().st_mode & 0o777
    with pytest.raises(FileExistsError):
        tracklayer.open_store(store).export("r", out)
    with pytest.raises(RunNotFoundError):
        tracklayer.open_store(store).export("nobody", tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.sqlite", "store"]


# -- replay -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["finished", "failed", "crashed"])
def test_a_replay_into_another_store_is_the_same_run(store: Path, tmp_path: Path, state: str) -> None:
    run = tracklayer.init(id="r", name="n", tags=["a", "é"], notes="n", group="g")
    filled(run, tmp_path)
    run.finish(Status(state, 3 if state == "failed" else 0))  # type: ignore[arg-type] # a parameter
    original = reader_of(store)
    copy = backend.open(
        replace(original.info, state="running"), None, Settings(("sqlite",), tmp_path / "other")
    )
    count = tracklayer.replay(original, copy)
    replayed = reader_of(tmp_path / "other")
    assert count == len(list(original.calls()))
    assert content(replayed) == content(original)
    assert replayed.info.state == original.info.state == state
    assert replayed.info.exit_code == original.info.exit_code
    blobs = [file.source for artifact in replayed.artifacts() for file in artifact.files]
    assert all(Path(blob).is_relative_to(tmp_path / "other") for blob in blobs)


def test_a_replay_through_the_front_is_the_same_run(store: Path, tmp_path: Path) -> None:
    with tracklayer.init(id="r") as run:
        filled(run, tmp_path)
    original = reader_of(store)
    with tracklayer.init(id="r", dir=tmp_path / "other") as copy:
        tracklayer.replay(original, copy)
    replayed = reader_of(tmp_path / "other")
    assert content(replayed)[1:] == content(original)[1:]
    assert same(sorted(copy.summary.items()), sorted(original.summary.items()))


# -- the writer's errors ------------------------------------------------------------------------------


def test_a_commit_that_failed_is_done_whole_by_the_next_one(store: Path) -> None:
    run = begun(store)
    assert isinstance(run, SQLiteRun)
    run.log({"a": 1}, step=0, time=1.0)
    run.commit()
    blocker = sqlite3.connect(store / "runs" / "r.sqlite", isolation_level=None)
    run._connection.exec_driver_sql("PRAGMA busy_timeout = 10")
    for attempt in range(3):
        blocker.execute("BEGIN IMMEDIATE")
        run.log({"a": attempt, f"new{attempt}": attempt, "t": Text("x")}, step=attempt, time=1.0)
        run.update_config({f"c{attempt}": 1})
        with pytest.raises(StoreError, match=r"r\.sqlite: database is locked"):
            run.commit()
        blocker.execute("ROLLBACK")
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        run.finish(Status())
    blocker.execute("ROLLBACK")
    blocker.close()
    run.finish(Status())
    reader = reader_of(store)
    assert points(reader, "a") == [(0, 0), (1, 1), (2, 2)]
    assert points(reader, "new2") == [(2, 2)]
    assert reader.config == {"c0": 1, "c1": 1, "c2": 1}
    assert reader.info.state == "finished"
