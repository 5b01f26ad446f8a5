"""The transaction log of a recorded run, and what `wandb sync` makes of it on the server."""

from __future__ import annotations

import json
import math
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

import tracklayer
from machine import Machine
from program import cli
from tracklayer.delivery import Received
from tracklayer.protocol import MetricRule, RunInfo, Status
from tracklayer.reading import RunReader
from tracklayer.registry import load, open_store
from tracklayer.replaying import deliver
from tracklayer.settings import Settings
from tracklayer.surroundings import ConsoleLine, SystemRow
from tracklayer.values import Histogram, Text, Value
from tracklayer_wandb.environment_record import writer_id
from tracklayer_wandb.history import RowRecords, scalar_text
from tracklayer_wandb.log_run import LogRun
from tracklayer_wandb.messages import pb
from tracklayer_wandb.transaction_log import TransactionLog
from wandb_server import ServedRun, WandbServer

INFO = RunInfo(
    "r",
    "p",
    "a name",
    entity="tester",
    group="g",
    job_type="train",
    tags=("x", "y"),
    notes="some notes",
    created_at=1_750_000_000.123456,
)


@pytest.fixture(autouse=True)
def client_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client keep its own files away from those of the user."""
    for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR", "DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "client" / name))


def read_log(content: bytes) -> list[Any]:
    """Read the records that stand whole in a log: another implementation of its format."""
    assert content[:7] == b":W&B\xe1\xbe\x00"
    records: list[Any] = []
    at = 7
    part: bytes | None = None
    while len(content) - at >= 7:
        if 32_768 - at % 32_768 < 7:
            at += 32_768 - at % 32_768
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, at)
        chunk = content[at + 7 : at + 7 + length]
        if len(chunk) < length:
            break
        assert crc32(bytes([kind]) + chunk) == checksum
        assert (part is None) == (kind in {1, 2})
        part = (part or b"") + chunk
        if kind in {1, 4}:
            records.append(part)
            part = None
        at += 7 + length
    return records


def records_of(log: LogRun) -> list[Any]:
    return [pb.Record.FromString(record) for record in read_log(log.path.read_bytes())]


# -- the file ---------------------------------------------------------------------------------------


def test_records_of_any_length_are_read_back(tmp_path: Path) -> None:
    chance = random.Random(3)
    lengths = [1, 7, 32_746, 32_747, 32_754, 32_755, 32_761, 32_768, 100_000, 3 * 32_761]
    lengths += [chance.choice((chance.randrange(1, 60), chance.randrange(1, 70_000))) for _ in range(400)]
    records = [chance.randbytes(length) for length in lengths]
    log = TransactionLog(tmp_path / "log")
    for record in records:
        log.add(record)
    log.close()
    assert read_log((tmp_path / "log").read_bytes()) == records


@pytest.mark.parametrize("left", range(12))
def test_a_record_may_begin_anywhere_near_the_end_of_a_block(tmp_path: Path, left: int) -> None:
    records = [b"a" * (32_768 - 7 - 7 - left), b"b" * 50, b"c" * 40_000]
    log = TransactionLog(tmp_path / "log")
    for record in records:
        log.add(record)
    log.close()
    assert read_log((tmp_path / "log").read_bytes()) == records


def test_what_is_flushed_can_be_read_while_the_file_grows(tmp_path: Path) -> None:
    log = TransactionLog(tmp_path / "log")
    log.add(b"one")
    log.flush()
    log.add(b"two")
    assert read_log((tmp_path / "log").read_bytes()) == [b"one"]
    log.add(b"x" * 300_000)  # no more than that is kept back
    assert len(read_log((tmp_path / "log").read_bytes())) == 3
    log.close()


def test_a_log_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    TransactionLog(tmp_path / "log").close()
    with pytest.raises(FileExistsError):
        TransactionLog(tmp_path / "log")


# -- rows -------------------------------------------------------------------------------------------


def test_rows_are_built_as_protobuf_would() -> None:
    row = {
        "_step": b"3",
        "": b"1",
        "loss": b"0.25",
        "ключ/a.b": b"NaN",
        "k" * 600: b"-Infinity",
        "text": json.dumps("x" * 500).encode(),
        "long": json.dumps("y" * 70_000).encode(),
    }
    rows = RowRecords()
    for _ in range(2):  # the second time, what is known of the keys is used
        (history,) = [pb.Record.FromString(rows.record(row)).history]
        assert {item.nested_key[0]: item.value_json.encode() for item in history.item} == row
        assert pb.Record.FromString(rows.record(row)).SerializeToString() == rows.record(row)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, b"0.1"),
        (1e22, b"1e+22"),
        (5e-324, b"5e-324"),
        (math.nan, b"NaN"),
        (math.inf, b"Infinity"),
        (-math.inf, b"-Infinity"),
        (2**63 - 1, b"9223372036854775807"),
        (-(2**63), b"-9223372036854775808"),
        (2**63, b"9.223372036854776e+18"),
        (10**400, b"Infinity"),
        (-(10**400), b"-Infinity"),
        (True, b"true"),
        (False, b"false"),
        ("text", None),
    ],
)
def test_scalars_are_json_as_the_client_has_it(value: object, text: bytes | None) -> None:
    assert scalar_text(value) == text


# -- what is recorded, and what the log says of it ----------------------------------------------------


def record(
    store: Path, rows: Mapping[int, Mapping[str, Value]], *, info: RunInfo = INFO, **rest: Any
) -> RunReader:
    """Record a run, or a further segment of it, in one go; its rows are a second apart."""
    store.mkdir(exist_ok=True)
    settings = Settings(backends=("sqlite",), dir=store)
    is_there = any((store / "runs").glob(f"{info.id}*")) if (store / "runs").exists() else False
    run: Any = load("sqlite").open(info, "must" if is_there else None, settings)
    for rule in rest.get("rules", ()):
        run.define_metric(rule)
    if "environment" in rest:
        run.record_environment(rest["environment"])
    run.update_config(rest.get("config", {}))
    for step, values in rows.items():
        run.log(values, step=step, time=info.created_at + step)
    run.log_console(rest.get("console", []))
    for row in rest.get("system", ()):
        run.log_system(row)
    run.update_summary(rest.get("summary", {}))
    run.finish(rest.get("status", Status()))
    reader = open_store(store).find(info.id)
    assert reader is not None
    return reader


def written(reader: RunReader, folder: Path, found: Received | None = None, **options: Any) -> LogRun:
    """Write a run's log, whole."""
    log = LogRun(reader, INFO, found, folder, **options)
    deliver(reader, log)
    return log


def rows_of(log: LogRun) -> list[dict[str, Any]]:
    histories = [one.history for one in records_of(log) if one.HasField("history")]
    return [{item.nested_key[0]: json.loads(item.value_json) for item in one.item} for one in histories]


def summary_of(log: LogRun) -> dict[str, Any]:
    (found,) = [one.summary for one in records_of(log) if one.HasField("summary")]
    return {item.key: json.loads(item.value_json) for item in found.update}


def received(**fields: Any) -> Received:
    return Received(**{"state": "running", "is_ours": True, "line_count": 3, "last_step": 2, **fields})


def test_the_record_of_a_run_says_what_it_is(tmp_path: Path) -> None:
    environment = {
        "host": "node7",
        "program": "train.py",
        "python": "3.12.1",
        "git": {"commit": "c" * 40, "remote": "https://example.com/x.git"},
    }
    reader = record(tmp_path / "store", {0: {"a": 1}}, environment=environment)
    log = written(reader, tmp_path / "log")
    header, run, *_ = records_of(log)
    assert header.HasField("header")
    run = run.run
    assert (run.run_id, run.entity, run.project, run.display_name) == ("r", "tester", "p", "a name")
    assert (run.run_group, run.job_type, list(run.tags), run.notes) == (
        "g",
        "train",
        ["x", "y"],
        "some notes",
    )
    assert (run.host, run.git.commit, run.git.remote_url) == ("node7", "c" * 40, "https://example.com/x.git")
    assert run.start_time.ToNanoseconds() == pytest.approx(INFO.created_at * 1e9, abs=1e3)
    assert not run.resume
    assert log.program == "train.py"
    assert written(reader, tmp_path / "again", received()).path.name == "run-r.wandb"
    assert pb.Record.FromString(read_log((tmp_path / "again/run-r.wandb").read_bytes())[1]).run.resume


def test_a_late_row_goes_to_the_step_after_the_last(tmp_path: Path) -> None:
    reader = record(tmp_path / "store", {0: {"a": 1}})
    log = LogRun(reader, INFO, received(), tmp_path / "log")
    log.log({"a": 5}, step=7, time=10.0)
    log.log({"a": 1}, step=1, time=11.0)
    log.log({"a": 2}, step=7, time=12.0)
    log.finish(Status())
    steps = [(row["_step"], row.get("tracklayer/step"), row["a"]) for row in rows_of(log)]
    assert steps == [(7, None, 5), (8, 1, 1), (9, 7, 2)]
    (metric,) = [one.metric for one in records_of(log) if one.HasField("metric")]
    assert (metric.name, metric.options.hidden, metric.summary.none) == ("tracklayer/step", True, True)
    assert log.delivered.last_step == 9
    assert log.delivered.lines == 3


def test_the_runtime_leaves_out_the_time_between_segments(tmp_path: Path) -> None:
    record(tmp_path / "store", {0: {"a": 1}})
    reader = record(tmp_path / "store", {1: {"a": 2}})
    first, second = reader.segments
    log = LogRun(reader, INFO, None, tmp_path / "log")
    log.log({"a": 1}, step=0, time=first.started_at - 5)
    log.log({"a": 1}, step=1, time=first.started_at + 0.001)
    log.log({"a": 1}, step=2, time=second.started_at + 100.0)
    log.finish(Status())
    assert first.ended_at is not None
    before = first.ended_at - first.started_at
    assert [row["_runtime"] for row in rows_of(log)] == pytest.approx([0.0, 0.001, before + 100.0], abs=1e-6)
    (end,) = [one.exit for one in records_of(log) if one.HasField("exit")]
    assert end.runtime == int(before + 100.0) == summary_of(log)["_wandb"]["runtime"]


def test_a_step_metric_stands_in_each_row_also_where_it_was_sent_before(tmp_path: Path) -> None:
    rules = [MetricRule("val/*", ("min",), "epoch"), MetricRule("loss")]
    rows = {0: {"epoch": 0.5}, 1: {"val/a": 1}, 2: {"val/a": 2, "epoch": 2}, 3: {"val/b": 3}, 4: {"loss": 1}}
    reader = record(tmp_path / "store", rows, rules=rules)
    assert [row.get("epoch") for row in rows_of(written(reader, tmp_path / "log"))] == [0.5, 0.5, 2, 2, None]
    rest = LogRun(reader, INFO, received(last_step=2), tmp_path / "rest")
    for rule in rules:
        rest.define_metric(rule)
    for row in reader.rows(after=2):
        rest.log(row.values, step=row.step, time=row.time)
    rest.finish(Status())
    assert [row.get("epoch") for row in rows_of(rest)] == [2, None]


def test_a_value_that_makes_a_row_too_long_is_refused_by_name(tmp_path: Path) -> None:
    reader = record(tmp_path / "store", {0: {"a": 1}})
    log = LogRun(reader, INFO, None, tmp_path / "log")
    log.log({"a": 1, "huge": Text("x" * 11_000_000), "text": Text("y")}, step=4, time=1.0)
    log.finish(Status())
    (row,) = rows_of(log)
    assert (row["a"], row["text"], "huge" in row) == (1, "y", False)
    (refused,) = log.delivered.refused
    assert "'huge' at step 4" in refused
    assert "huge" not in summary_of(log)


def test_media_whose_file_is_gone_leave_the_rest_of_their_row(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (700, 600, 3), np.uint8)
    reader = record(tmp_path / "store", {0: {"a": 1, "noise": tracklayer.Image(noise)}})
    shutil.rmtree(tmp_path / "store" / "blobs")
    log = written(reader, tmp_path / "log")
    assert [(row["a"], "noise" in row) for row in rows_of(log)] == [(1, False)]
    (refused,) = log.delivered.refused
    assert "the image 'noise'" in refused


def test_the_summary_holds_the_last_of_what_is_no_scalar(tmp_path: Path) -> None:
    rules = [MetricRule("loss", ("min", "last")), MetricRule("hidden", ("none",))]
    image = tracklayer.Image(np.zeros((2, 3), np.uint8))
    rows: dict[int, dict[str, Value]] = {
        0: {"loss": 1.0, "h": Histogram([1, 2, 3], num_bins=2), "hidden": Text("x")},
        1: {"loss": 3.0, "h": Histogram([1, 1, 5], num_bins=2), "image": image, "t": Text("text")},
        2: {"nan": math.nan},
    }
    reader = record(tmp_path / "store", rows, rules=rules, summary={"best": {"of": 1}})
    server = {"kept": [1], "hidden": "old", "loss": {"min": 5}, "_wandb": {"runtime": 3, "other": 1}}
    log = LogRun(reader, INFO, received(summary=server, last_step=-1), tmp_path / "log")
    deliver(reader, log)
    summary = summary_of(log)
    assert summary["loss"] == {"min": 1, "last": 3}
    assert summary["h"] == {"_type": "histogram", "values": [2, 1], "bins": [1, 3, 5]}
    assert (summary["image"]["_type"], summary["image"]["width"], summary["t"]) == ("image-file", 3, "text")
    assert (summary["best"], summary["kept"], summary["_wandb"]["other"]) == ({"of": 1}, [1], 1)
    assert math.isnan(summary["nan"])
    assert "hidden" not in summary
    assert (summary["_step"], summary["_timestamp"]) == (2, INFO.created_at + 2)


def test_a_late_row_does_not_replace_what_the_summary_shows(tmp_path: Path) -> None:
    reader = record(tmp_path / "store", {0: {"a": 1}})
    log = LogRun(reader, INFO, received(summary={"t": "newest"}, last_step=5), tmp_path / "log")
    log.log({"t": Text("older"), "u": Text("only")}, step=1, time=1.0)
    log.finish(Status())
    assert (summary_of(log)["t"], summary_of(log)["u"]) == ("newest", "only")


@pytest.mark.parametrize(
    ("status", "code", "goes_on"),
    [
        (Status("finished"), 0, False),
        (Status("failed", 3), 3, False),
        (Status("crashed"), 1, False),
        (Status("running"), 0, True),
    ],
)
def test_the_end_of_a_run_is_recorded(tmp_path: Path, status: Status, code: int, goes_on: bool) -> None:
    reader = record(tmp_path / "store", {0: {"a": 1}})
    log = LogRun(reader, INFO, None, tmp_path / "log")
    log.finish(status)
    *_, last = records_of(log)
    assert (last.exit.exit_code, last.exit.not_complete) == (code, goes_on)


def test_a_log_that_is_given_up_has_an_end_for_the_client_to_find(tmp_path: Path) -> None:
    reader = record(tmp_path / "store", {0: {"a": 1}})
    log = LogRun(reader, INFO, None, tmp_path / "log")
    log.log({"a": 1}, step=0, time=1.0)
    log.abandon()
    *_, last = records_of(log)
    assert last.exit.not_complete


# -- pushed again -------------------------------------------------------------------------------------


def media_rows() -> dict[int, dict[str, Value]]:
    image = tracklayer.Image(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    table = tracklayer.Table(["x", "y"], [[1, 2], [3, 4]])
    return {
        0: {"table": table, "image": image},
        1: {
            "cells": tracklayer.Table(["x", "i"], [[1, image]]),
            "chart": tracklayer.plot.line(table, "x", "y"),
        },
    }


def test_a_repeated_push_names_the_same_artifacts(tmp_path: Path) -> None:
    reader = record(tmp_path / "store", media_rows())

    def made(folder: str) -> tuple[list[Any], list[Any]]:
        log = written(reader, tmp_path / folder)
        artifacts = [one.artifact for one in records_of(log) if one.HasField("artifact")]
        return [(one.name, one.digest, one.client_id, one.sequence_client_id) for one in artifacts], rows_of(
            log
        )

    first, again = made("first"), made("again")
    assert first == again
    names = {name for name, *_ in first[0]}
    assert names == {"run-r-table", "run-r-cells", "run-r-chart_table"}
    by_name = {name: client_id for name, _, client_id, _ in first[0]}
    assert len(set(by_name.values())) == 3
    assert all(len(client_id) == 128 for client_id in by_name.values())
    assert by_name["run-r-table"] in first[1][0]["table"]["artifact_path"]


def test_rows_that_the_server_has_are_completed_with_the_files_that_it_lacks(tmp_path: Path) -> None:
    reader = record(tmp_path / "store", media_rows())
    whole = written(reader, tmp_path / "whole")
    images = [name for name in whole.delivered.files if name.endswith(".png")]
    log = LogRun(reader, INFO, received(), tmp_path / "log", has_file=images.__contains__)
    for row in reader.rows():
        log.complete(row.values, step=row.step, time=row.time)
    log.finish(Status())
    assert rows_of(log) == []
    assert log.delivered.lines == 0
    assert log.delivered.last_step == 2
    assert set(log.delivered.files) == {*whole.delivered.files} - {*images} != {*whole.delivered.files}
    assert summary_of(log).keys() >= {"table", "image", "cells", "chart_table"}


def test_the_charts_that_the_server_has_are_written_again(tmp_path: Path) -> None:
    reader = record(tmp_path / "store", {0: {"a": 1}})
    kept = {"visualize": {"old chart": {"panel_type": "Vega2"}}, "m": [{"1": "tracklayer/step", "7": [6]}]}
    log = LogRun(reader, INFO, received(), tmp_path / "log", kept=kept)
    log.finish(Status())
    items = [item for one in records_of(log) if one.HasField("config") for item in one.config.update]
    config = {tuple(item.nested_key): json.loads(item.value_json) for item in items}
    assert config == {("_wandb", "visualize", "old chart"): {"panel_type": "Vega2"}}
    assert [one.metric.name for one in records_of(log) if one.HasField("metric")] == ["tracklayer/step"]


@pytest.mark.parametrize("is_newer", [False, True])
def test_what_the_client_told_of_a_process_stays(tmp_path: Path, is_newer: bool) -> None:
    reader = record(tmp_path / "store", {0: {"a": 1}}, environment={"host": "node7", "program": "train.py"})
    start = reader.segments[-1].started_at + (1 if is_newer else -1)
    told = {"startedAt": datetime.fromtimestamp(start, UTC).isoformat(), "writerId": "its own", "disk": {}}
    pushed = {**told, "writerId": writer_id(INFO)}
    options: Any = {"kept": {"e": {"client": told, "push": pushed}}, "has_file": "wandb-metadata.json".__eq__}
    log = written(reader, tmp_path / "log", received(), **options)
    items = [item for one in records_of(log) if one.HasField("config") for item in one.config.update]
    config = {tuple(item.nested_key): json.loads(item.value_json) for item in items}
    assert config == {("_wandb", "e", "client"): told}
    assert any(one.HasField("environment") for one in records_of(log)) is not is_newer


# -- what the server gets of it -------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, server: WandbServer) -> Machine:
    return Machine(tmp_path / "machine", server)


def sync(machine: Machine, folder: Path) -> None:
    """Have the real client send a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--include-online", "."],
        cwd=folder,
        env={name: value for name, value in machine.environment.items() if value is not None},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Finished syncing" in done.stderr, done.stderr


def events_of(run: ServedRun) -> list[tuple[float, dict[str, Any]]]:
    return [
        (row["_timestamp"], {key: value for key, value in row.items() if key.startswith("system.")})
        for row in run.events
    ]


@pytest.mark.slow
def test_the_client_sends_a_log_as_it_was_recorded(
    tmp_path: Path, server: WandbServer, machine: Machine
) -> None:
    values: dict[str, Value] = {
        "float": 0.1,
        "whole": 3.0,
        "int": 2**53 + 1,
        "big": 2**70,
        "nan": math.nan,
        "inf": math.inf,
        "-inf": -math.inf,
        "text": Text("ключ\n<&>"),
        "histogram": Histogram([0, 1, 1, 4], num_bins=2),
        "": 1,
        "a/b.c": 2,
        "k" * 600: 3,
    }
    environment = {
        "started_at": INFO.created_at,
        "host": "node7",
        "user": "me",
        "os": "Linux-6.1",
        "python": "3.12.1",
        "program": "train.py",
        "args": ["--lr", "1"],
        "executable": "/usr/bin/python",
        "cwd": "/work",
        "cpu_count": 4,
        "cpu_count_logical": 8,
        "cpu": "EPYC",
        "memory_bytes": 2**35,
        "gpus": ["H100", "H100"],
        "slurm": {"job_id": "77"},
        "git": {"commit": "c" * 40, "remote": "https://example.com/x.git", "root": "/work"},
        "packages": {"numpy": "2.0", "jax": "0.8"},
        "diff": "diff --git a/x b/x\n",
    }
    reader = record(
        tmp_path / "store",
        {0: values, 5: {"float": 0.2}, **{step: {"chunk": Text("z" * 5_000)} for step in range(6, 20)}},
        environment=environment,
        config={"lr": 1e-3, "nested": {"a": [1, None]}, "nan": math.nan},
        console=[
            ConsoleLine(1.0, "stdout", "hello"),
            ConsoleLine(2.0, "stderr", ""),
            ConsoleLine(3.0, "stderr", "an error"),
            ConsoleLine(4.0, "stdout", ""),
        ],
        system=[SystemRow(1.5, {"cpu": 5.5, "gpu.0.gpu": 7}), SystemRow(2.5, {"cpu": 6.5})],
    )
    log = written(reader, tmp_path / "log")
    sync(machine, tmp_path / "log")
    run = server.runs["r"]
    assert len(run.history) == log.delivered.lines == 16
    row = run.history[0]
    scalars = {key: value for key, value in values.items() if isinstance(value, (int, float))}
    assert {key: row[key] for key in scalars} == pytest.approx(scalars, nan_ok=True, rel=0, abs=0)
    assert row["text"] == "ключ\n<&>"
    assert row["histogram"] == {"_type": "histogram", "values": [3, 1], "bins": [0, 2, 4]}
    assert (row["_step"], row["_timestamp"]) == (0, INFO.created_at)
    assert (run.history[1]["_step"], run.history[1]["_timestamp"]) == (5, INFO.created_at + 5)
    assert (run.name, run.group, run.job_type, run.tags, run.notes) == (
        "a name",
        "g",
        "train",
        ["x", "y"],
        "some notes",
    )
    assert (run.host, run.commit) == ("node7", "c" * 40)
    assert run.config == {"lr": 1e-3, "nested": {"a": [1, None]}, "nan": None}
    assert run.raw_config["_wandb"]["value"]["tracklayer"] == {"created_at": INFO.created_at}
    assert [line.partition(" ")[0] == "ERROR" for line in run.console] == [False, True, True, False]
    assert ["hello" in run.console[0], "an error" in run.console[2]] == [True, True]
    assert len(run.console) == log.delivered.console_lines
    assert events_of(run) == [(1.5, {"system.cpu": 5.5, "system.gpu.0.gpu": 7}), (2.5, {"system.cpu": 6.5})]
    assert len(run.events) == log.delivered.system_rows
    metadata = json.loads(run.files["wandb-metadata.json"])
    assert (metadata["args"], metadata["gpu_count"], metadata["slurm"]) == (
        ["--lr", "1"],
        2,
        {"job_id": "77"},
    )
    assert (metadata["host"], metadata["username"], metadata["codePath"]) == ("node7", "me", "train.py")
    assert metadata["memory"]["total"] == str(2**35)
    assert run.files["requirements.txt"] == b"jax==0.8\nnumpy==2.0\n"
    assert run.files["diff.patch"] == b"diff --git a/x b/x\n"
    assert (run.state, run.exit_code) == ("finished", 0)
    assert set(log.delivered.files) <= run.files.keys()


@pytest.mark.slow
def test_a_run_that_goes_on_is_continued_where_the_server_is(
    tmp_path: Path, server: WandbServer, machine: Machine
) -> None:
    rules = [MetricRule("loss", ("min",))]
    lines = [ConsoleLine(1.0, "stdout", "one"), ConsoleLine(2.0, "stdout", "")]
    first = record(
        tmp_path / "store",
        {0: {"loss": 2.0, "t": Text("kept")}, 1: {"loss": 3.0}},
        rules=rules,
        console=lines,
        system=[SystemRow(1.5, {"cpu": 1.0})],
    )
    log = LogRun(first, INFO, None, tmp_path / "first")
    deliver(first, log, status=Status("running"))
    sync(machine, tmp_path / "first")
    run = server.runs["r"]
    assert (run.state, len(run.console)) == ("running", 2)
    found = received(
        line_count=2,
        last_step=1,
        console_lines=len(run.console),
        system_rows=len(run.events),
        summary=run.summary,
    )
    whole = record(
        tmp_path / "store",
        {2: {"loss": 1.0}},
        console=[ConsoleLine(3.0, "stderr", "two")],
        system=[SystemRow(2.5, {"cpu": 2.0})],
        status=Status("failed", 4),
    )
    log = LogRun(whole, INFO, found, tmp_path / "second")
    for rule in rules:
        log.define_metric(rule)
    for row in whole.rows(after=1):
        log.log(row.values, step=row.step, time=row.time)
    log.log({"loss": 9.0}, step=0, time=5.0)
    log.log_console(list(whole.console(after=2)))
    for system in whole.system_metrics(after=1):
        log.log_system(system)
    log.update_summary(whole.summary)
    log.finish(Status("failed", 4))
    sync(machine, tmp_path / "second")
    run = server.runs["r"]
    assert [(row["_step"], row["loss"], row.get("tracklayer/step")) for row in run.history] == [
        (0, 2, None),
        (1, 3, None),
        (2, 1, None),
        (3, 9, 0),
    ]
    sent = [step for start, count in server.history_ranges("r") for step in range(start, start + count)]
    assert sent == [0, 1, 2, 3]
    assert [line.split()[-1] for line in run.console if line.split()[2:]] == ["two"]
    assert len(run.console) == log.delivered.console_lines == 3
    assert [time for time, _ in events_of(run)] == [1.5, 2.5]
    assert (run.summary["loss"], run.summary["t"]) == ({"min": 1}, "kept")
    assert (run.state, run.exit_code) == ("failed", 4)


# -- export -------------------------------------------------------------------------------------------


def train(store: Path, **options: Any) -> None:
    with tracklayer.init(project="p", id="r", name="trained", dir=store, backend="sqlite", **options) as run:
        run.config.update({"lr": 0.5})
        run.log({"loss": 1.0, "image": tracklayer.Image(np.zeros((4, 4, 3), np.uint8))}, step=0)
        run.log({"loss": 0.5, "table": tracklayer.Table(["x"], [[1]])}, step=3)
        model = tracklayer.Artifact("model", "model")
        with model.new_file("w.bin") as file:
            file.write("weights")
        run.log_artifact(model, aliases=["best"])


@pytest.mark.slow
def test_an_exported_run_is_sent_by_wandb_from_another_place(
    tmp_path: Path, server: WandbServer, machine: Machine
) -> None:
    train(tmp_path / "store")
    out = tmp_path / "exported"
    to = ("--format", "wandb", "--to", "tester/q")
    said = cli("export", "r", "--dir", tmp_path / "store", *to, "--out", out)
    (folder,) = out.iterdir()
    assert said.stdout.splitlines()[-1] == f"  cd {folder} && wandb sync ."
    assert said.stderr == ""
    moved = Path(shutil.move(folder, tmp_path / "elsewhere" / folder.name))
    shutil.rmtree(tmp_path / "store")
    sync(machine, moved)
    run = server.runs["r"]
    assert (run.project, run.name, run.config, run.state) == ("q", "trained", {"lr": 0.5}, "finished")
    assert [(row["_step"], row["loss"]) for row in run.history] == [(0, 1), (3, 0.5)]
    image = run.history[0]["image"]["path"]
    assert run.files[image].startswith(b"\x89PNG")
    assert {one.name: (one.type, sorted(one.aliases)) for one in server.artifacts} == {
        "model": ("model", ["best", "latest"]),
        "run-r-table": ("run_table", ["latest"]),
    }
    (model,) = [one for one in server.artifacts if one.name == "model"]
    assert (model.files, model.created_by) == ({"w.bin": b"weights"}, "r")


def test_an_export_that_cannot_be_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    train(tmp_path / "store")
    out = tmp_path / "exported"

    def refused(*arguments: str, expect: int = 2) -> str:
        return cli("export", "r", "--dir", tmp_path / "store", "--out", out, *arguments, expect=expect).stderr

    assert "--to ENTITY/PROJECT" in refused("--format", "wandb")
    assert "use ENTITY/PROJECT" in refused("--format", "wandb", "--to", "p")
    assert "no such format" in refused("--format", "tensorboard", "--to", "e/p")
    assert "unknown backend" in refused("--format", "nothing", "--to", "e/p")
    assert "--to is for" in refused("--to", "e/p")
    assert not out.exists()
    out.mkdir()
    assert str(out) in refused("--format", "wandb", "--to", "e/p", expect=1)
    assert list(out.iterdir()) == []


def test_an_export_says_what_it_leaves_out(tmp_path: Path) -> None:
    train(tmp_path / "store", entity="tester")
    for content in (tmp_path / "store" / "blobs").rglob("*"):
        if content.is_file():
            content.unlink()
    said = cli("export", "r", "--dir", tmp_path / "store", "--format", "wandb", "--out", tmp_path / "out")
    assert "left out" in said.stderr
    assert "model" in said.stderr
    assert "is gone" in said.stderr


def test_a_run_is_exported_under_the_name_that_the_client_gives_it(tmp_path: Path) -> None:
    from tracklayer_wandb.exporting import export

    reader = record(tmp_path / "store", {0: {"a": 1}})
    log, command = export(reader, replace(INFO, id="x y"), tmp_path / "out")
    log.finish(Status())
    assert log.path == tmp_path / "out" / "offline-run-20250615_150640-x y" / "run-x y.wandb"
    assert command == f"cd '{log.path.parent}' && wandb sync ."
