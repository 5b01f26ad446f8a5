"""Alerts: rules on what is logged, and where alerts go: the record, W&B, a command, a web address."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, final

import jax.numpy as jnp
import numpy as np
import pytest

import tracklayer
from machine import Machine, wait_until
from tracklayer import ActiveRun, Histogram, Text, alerting
from tracklayer.alerts import Alert, AlertLevel, NoImprovement, NoRows, NotFinite, Rule, sending
from tracklayer.alerts.rules import RuleWatch
from tracklayer.errors import UsageError
from tracklayer.protocol import RunInfo
from tracklayer.settings import read_settings
from tracklayer.spill import Call, Spill, read_spill
from wandb_server import WandbServer

SECRET = "T0PSECRET"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("TRACKLAYER_ALERT"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], ActiveRun]]:
    """Start a run; called after a test has set its environment."""
    runs: list[ActiveRun] = []

    def start() -> ActiveRun:
        runs.append(tracklayer.init(dir=tmp_path / "store", backend="sqlite", reinit="create_new"))
        return runs[-1]

    yield start
    for run in runs:
        run.finish()


def alerts(run: ActiveRun) -> list[tuple[int, str, str]]:
    """Return the step, title and text of each alert in the record."""
    reader = tracklayer.open_store(run.dir).find(run.id)
    assert reader is not None
    return [
        (point.step, point.key.removeprefix("alert/"), point.value.text)
        for point in reader.media()
        if isinstance(point.value, Text)
    ]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage().removeprefix("tracklayer: ") for record in caplog.records]
    return [line for line in lines if "the first values that are not finite" not in line]


def judged(*rules: Rule, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what rules say of rows, whose steps count up from 0."""
    watch = RuleWatch()
    for rule in rules:
        watch.add(rule)
    watch.add_rows([(step, 0.0, dict(values)) for step, values in enumerate(rows)])
    return [text for _, text in watch.raised()]


# -- rules ------------------------------------------------------------------------------------------------


def test_not_finite_comes_to_hold_at_the_first_such_value_and_again_after_a_finite_one() -> None:
    losses = [1.0, math.nan, math.inf, 2.0, -math.inf]
    rows = [{"loss": loss, "other": math.nan} for loss in losses]
    assert judged(NotFinite("loss"), rows=rows) == ["step 1: loss is nan", "step 4: loss is -inf"]


def test_not_finite_takes_a_prefix_and_by_default_all_keys() -> None:
    rows: list[dict[str, Any]] = [
        {"train/a": math.nan, "val/a": 1.0},
        {"train/a": math.nan, "train/b": math.inf},
        {"val/weights": Histogram(np.array([1.0, np.nan]))},
    ]
    assert judged(NotFinite("train/*"), rows=rows) == ["step 0: train/a is nan", "step 1: train/b is inf"]
    assert judged(NotFinite(), rows=rows)[2:] == ["step 2: val/weights is 1 x nan"]


def test_many_values_that_are_not_finite_are_counted() -> None:
    (text,) = judged(NotFinite(), rows=[{f"k{n}": math.nan for n in range(20)}])
    assert text.count("is nan") == 8
    assert text.endswith(" and 12 more")


@pytest.mark.parametrize(("goal", "sign"), [("minimize", 1), ("maximize", -1)])
def test_no_improvement_counts_the_steps_since_the_best(goal: Any, sign: int) -> None:
    values = [5.0, 4.0, 4.5, 4.0, math.nan, 4.1, 3.0, 3.1, 3.2, 3.3, 3.4]
    rule = NoImprovement("val", steps=3, goal=goal)
    texts = judged(rule, rows=[{"val": sign * value} for value in values])
    assert texts == [
        f"step 4: val is nan; its best, {sign * 4}, was at step 1",
        f"step 9: val is {sign * 3.3}; its best, {sign * 3}, was at step 6",
    ]


def test_no_improvement_looks_only_at_rows_that_have_the_metric() -> None:
    rows = [{"val": 1.0}, *[{"train": 1.0}] * 50, {"val": Text("none")}, {"val": 0.5}]
    assert judged(NoImprovement("val", steps=10), rows=rows) == []


def test_a_metric_that_never_was_finite_has_no_best() -> None:
    rows = [{"val": math.nan}] * 4
    expected = "step 2: val is nan; it has not been finite since step 0"
    assert judged(NoImprovement("val", steps=2), rows=rows) == [expected]


def test_silence_is_judged_by_the_clock_and_not_broken_by_an_alert(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("tracklayer.alerts.rules.monotonic", lambda: clock[0])
    watch = RuleWatch()
    assert watch.seconds_to_next() == math.inf
    watch.add(NoRows(minutes=2))
    clock[0] = 119
    assert (watch.raised(), watch.seconds_to_next()) == ([], 1)
    clock[0] = 120
    assert [text for _, text in watch.raised()] == ["no row for 2 minutes; none came since `alert_when`"]
    watch.add_rows(
        [(7, 0.0, {"alert/no rows": Text("WARN: no row for 2 minutes; none came since `alert_when`")})]
    )
    clock[0] = 1000
    assert (watch.raised(), watch.seconds_to_next()) == ([], math.inf)
    watch.add_rows([(8, 0.0, {"loss": 1.0}), (9, 0.0, {"loss": 1.0})])
    clock[0] = 1120
    assert [text for _, text in watch.raised()] == ["no row for 2 minutes; the last had step 9"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: NoImprovement("val", steps=0),
        lambda: NoImprovement("val", steps=1, goal="best"),  # type: ignore[arg-type]
        lambda: NoRows(minutes=0),
        lambda: NoRows(minutes=math.nan),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: Callable[[], Rule]) -> None:
    with pytest.raises(UsageError, match="give"):
        wrong()


# -- rules of a run ---------------------------------------------------------------------------------------


def test_a_rule_is_judged_on_what_comes_from_a_device_and_recorded_as_an_alert(
    start: Callable[[], ActiveRun], caplog: pytest.LogCaptureFixture
) -> None:
    run = start()
    run.alert_when(NotFinite("loss"), level="ERROR")
    for step in range(20):
        run.log({"loss": jnp.log(jnp.float32(10.0 - step))}, step=step)
    assert run.flush()
    wait_until(lambda: told(caplog))
    run.log({"loss": 1.0}, step=20)
    run.finish()
    title, text = "loss is not finite", "ERROR: step 10: loss is -inf"
    assert told(caplog) == [f"alert {title!r}, {text}"]
    ((step, *recorded),) = alerts(run)
    assert recorded == [title, text]
    assert 10 <= step < 20  # where the run was when the value had come


def test_the_last_rows_are_judged_before_the_end(
    start: Callable[[], ActiveRun], caplog: pytest.LogCaptureFixture
) -> None:
    run = start()
    run.alert_when(NotFinite("loss"), NoImprovement("val", steps=3))
    run.log_series({"val": np.ones(5), "loss": np.array([1, 1, 1, 1, np.nan])})
    run.finish()
    assert told(caplog) == [
        "alert 'val has not improved', WARN: step 3: val is 1; its best, 1, was at step 0",
        "alert 'loss is not finite', WARN: step 4: loss is nan",
    ]
    assert {title for _, title, _ in alerts(run)} == {"val has not improved", "loss is not finite"}


def test_a_run_that_hangs_is_told_of_while_it_does(
    start: Callable[[], ActiveRun], caplog: pytest.LogCaptureFixture
) -> None:
    run = start()
    run.log({"loss": 1.0}, step=41)
    assert run.flush()
    run.alert_when(NoRows(minutes=0.1 / 60))
    wait_until(lambda: told(caplog))
    time.sleep(0.3)
    assert told(caplog) == [
        "alert 'no rows', WARN: no row for 0.00166667 minutes; none came since `alert_when`"
    ]


def test_a_rule_that_comes_to_hold_again_and_again_is_told_and_recorded_once_a_while(
    start: Callable[[], ActiveRun], caplog: pytest.LogCaptureFixture
) -> None:
    run, patient = start(), start()
    run.alert_when(NotFinite("loss"), wait_duration=0)
    patient.alert_when(NotFinite("loss"), wait_duration=3600)
    for step in range(10):
        for each in (run, patient):
            each.log({"loss": math.nan if step % 2 else 1.0}, step=step)
    run.finish()
    patient.finish()
    assert alerts(run)[-1][1:] == ("loss is not finite", "WARN: step 9: loss is nan")
    assert [text for _, _, text in alerts(patient)] == ["WARN: step 1: loss is nan"]
    assert len(told(caplog)) == 6


def test_what_is_no_rule_or_no_level_is_refused(start: Callable[[], ActiveRun]) -> None:
    run = start()
    with pytest.raises(UsageError, match="'loss' is no rule; see tracklayer.alerts"):
        run.alert_when("loss")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="level 'LOUD' is none of INFO, WARN, ERROR"):
        run.alert_when(NotFinite("loss"), level="LOUD")


def test_a_run_that_records_nothing_has_no_rules(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tracklayer.init(mode="disabled", dir=tmp_path) as run:
        run.alert_when(NotFinite())
        run.log({"loss": math.nan})
    assert told(caplog) == []


# -- a command --------------------------------------------------------------------------------------------


def command(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, *arguments: str) -> None:
    script = folder / "a script.py"
    script.write_text(code)
    words = [sys.executable, str(script), *arguments]
    monkeypatch.setenv("TRACKLAYER_ALERT_COMMAND", " ".join(f'"{word}"' for word in words))


APPEND = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"


def test_a_command_is_given_each_alert_as_json_before_finish_returns(
    start: Callable[[], ActiveRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tmp_path, monkeypatch, APPEND, str(tmp_path / "given; $HOME"))
    run = start()
    run.alert("low", "acc is 0.1", "WARN")
    run.alert("low", "acc is 0.2")  # within 60 s: recorded, not told
    run.alert("other", 'wörds\nand "quotes"')
    run.alert_when(NotFinite("loss"), level=AlertLevel.ERROR)
    run.log({"loss": math.nan})
    run.finish()
    given = [json.loads(line) for line in (tmp_path / "given; $HOME").read_text().splitlines()]
    assert [(one["level"], one["title"], one["text"]) for one in given] == [
        ("WARN", "low", "acc is 0.1"),
        ("INFO", "other", 'wörds\nand "quotes"'),
        ("ERROR", "loss is not finite", "step 0: loss is nan"),
    ]
    about = ("id", "name", "project", "entity", "group", "job_type", "url")
    assert given[0]["run"] == {name: getattr(run.info, name) for name in about}
    assert abs(given[0]["time"] - time.time()) < 60


def test_an_alert_waits_for_no_command(
    start: Callable[[], ActiveRun],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sending, "TIME_LIMIT", 0.3)
    command(tmp_path, monkeypatch, "import time; time.sleep(600)", SECRET)
    run = start()
    began = time.monotonic()
    for number in range(3):
        run.alert(f"title {number}", "text")
    assert time.monotonic() - began < 0.2
    run.finish()
    failures = [line for line in told(caplog) if "sent" in line]
    assert failures == [f"an alert was not sent: the command {sys.executable!r} was ended after 0.3 s"]


def test_finish_waits_for_commands_but_not_for_long(
    start: Callable[[], ActiveRun],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sending, "TIME_LIMIT", 0.3)
    monkeypatch.setattr(alerting, "TIME_LIMIT", 0.1)
    command(tmp_path, monkeypatch, "import time; time.sleep(600)")
    run = start()
    run.alert("a", "text")
    run.alert("b", "text")
    run.finish()
    assert told(caplog)[2:] == ["2 of the run's alerts were not sent within 0.1 s"]
    thread = run._alerts._thread
    assert thread is not None
    thread.join(60)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (f"{sys.executable} -c 'raise SystemExit(3)' {SECRET}", "failed with exit code 3"),
        (f"/no/such/program {SECRET}", "cannot be run: No such file or directory"),
    ],
)
def test_a_command_that_fails_is_reported_once_without_its_arguments(
    words: str,
    problem: str,
    start: Callable[[], ActiveRun],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TRACKLAYER_ALERT_COMMAND", words)
    run = start()
    run.alert("a", "text")
    run.alert("b", "text")
    run.finish()
    program = words.split(maxsplit=1)[0]
    assert [line for line in told(caplog) if "not sent" in line] == [
        f"an alert was not sent: the command {program!r} {problem}"
    ]
    assert SECRET not in caplog.text
    assert [title for _, title, _ in alerts(run)] == ["a", "b"]


# -- a web address ----------------------------------------------------------------------------------------


@final
class Web:
    """A web server on loopback, and what was posted to it."""

    def __init__(self) -> None:
        self.status = 200
        self.posts: list[tuple[str, str, Any]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                web.posts.append((self.path, self.headers["Content-Type"], json.loads(body)))
                self.send_response(web.status)
                if web.status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def do_GET(self) -> None:
                web.posts.append((self.path, "GET", None))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def web() -> Iterator[Web]:
    running = Web()
    yield running
    running.close()


def test_a_web_address_gets_each_alert_as_json(
    web: Web, start: Callable[[], ActiveRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKLAYER_ALERT_URL", f"{web.url}/hooks/{SECRET}?token={SECRET}")
    run = start()
    run.alert("low", "acc is 0.1")
    run.finish()
    ((path, kind, body),) = web.posts
    assert (path, kind) == (f"/hooks/{SECRET}?token={SECRET}", "application/json")
    assert (body["title"], body["text"], body["level"]) == ("low", "acc is 0.1", "INFO")
    assert body["run"]["id"] == run.id


@pytest.mark.parametrize("status", [404, 500, 302])
def test_an_address_that_refuses_is_reported_once_and_never_in_full(
    status: int,
    web: Web,
    start: Callable[[], ActiveRun],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    web.status = status
    monkeypatch.setenv("TRACKLAYER_ALERT_URL", f"{web.url}/{SECRET}")
    run = start()
    run.alert("a", "text")
    run.alert("b", "text")
    run.finish()
    assert [path for path, _, _ in web.posts] == [f"/{SECRET}"] * 2  # no redirect is followed
    assert [line for line in told(caplog) if "not sent" in line] == [
        f"an alert was not sent: http://127.0.0.1 answered with status {status}"
    ]
    assert SECRET not in caplog.text


def test_an_address_where_nobody_answers_is_reported_and_never_in_full(
    start: Callable[[], ActiveRun],
    web: Web,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    web.close()
    monkeypatch.setenv("TRACKLAYER_ALERT_URL", f"{web.url}/{SECRET}")
    run = start()
    run.alert("a", "text")
    run.finish()
    web.close = lambda: None  # type: ignore[method-assign]
    (failure,) = [line for line in told(caplog) if "not sent" in line]
    assert failure == "an alert was not sent: http://127.0.0.1: Connection refused"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TRACKLAYER_ALERT_URL", f"file:///etc/{SECRET}"),
        ("TRACKLAYER_ALERT_URL", f"ftp://127.0.0.1/{SECRET}"),
        ("TRACKLAYER_ALERT_URL", f"https://user:{SECRET}@127.0.0.1/"),
        ("TRACKLAYER_ALERT_URL", f"http://[{SECRET}"),
        ("TRACKLAYER_ALERT_URL", SECRET),
        ("TRACKLAYER_ALERT_COMMAND", f"notify '{SECRET}"),
    ],
)
def test_a_setting_that_cannot_be_is_an_error_of_init_that_does_not_repeat_it(
    variable: str, value: str, start: Callable[[], ActiveRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=variable) as caught:
        start()
    assert SECRET not in str(caught.value)


def test_settings_do_not_show_where_alerts_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKLAYER_ALERT_URL", f"https://127.0.0.1/{SECRET}")
    monkeypatch.setenv("TRACKLAYER_ALERT_COMMAND", f"notify {SECRET}")
    settings = read_settings()
    assert settings.alert_command == ("notify", SECRET)
    assert SECRET not in repr(settings)


# -- W&B, and the others ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_w_and_b_tells_an_alert_at_once_and_has_it_as_text(tmp_path: Path) -> None:
    script = """
        import math, tracklayer
        from tracklayer.alerts import NotFinite
        with tracklayer.init(project="p", id="r", backend="wandb") as run:
            run.alert_when(NotFinite("loss"), level="ERROR", wait_duration=5)
            run.alert("low", "acc is 0.1", wait_duration=0)
            run.alert("x" * 100, "a long title")
            run.log({"loss": math.nan})
    """
    with WandbServer() as server:
        Machine(tmp_path, server).run(script)
        sent = [r.body["variables"] for r in server.requests if r.operation == "NotifyScriptableRunAlert"]
        rows = [row for run in server.runs.values() for row in run.history]
    shown = [(one["title"], one["text"], one["severity"], one["waitDuration"]) for one in sent]
    assert sorted(shown) == [
        ("loss is not finite", "step 0: loss is nan", "ERROR", 5000),
        ("low", "acc is 0.1", "INFO", 1),
        ("x" * 63, "a long title", "INFO", 60_000),
    ]
    logged = {key: value for row in rows for key, value in row.items() if key.startswith("alert/")}
    assert logged["alert/low"] == "INFO: acc is 0.1"
    assert logged["alert/loss is not finite"] == "ERROR: step 0: loss is nan"


def test_an_alert_that_was_spilled_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spill = Spill(RunInfo("r", "p", "r"))
    call = Call("alert", Alert("low", "acc is 0.1", AlertLevel.WARN, 60.0, 12.5))
    spill.write(call)
    spill.close()
    (found,) = read_spill(spill.path)
    spill.remove()
    assert found == call
    assert isinstance(found, Call)
    assert found.argument.level is AlertLevel.WARN


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_sends_nothing(
    start: Callable[[], ActiveRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tmp_path, monkeypatch, APPEND, str(tmp_path / "given"))
    run = start()
    run.alert("before", "text")
    child = os.fork()
    if child == 0:
        logging.disable()
        run.alert("in the child", "text")
        run.finish()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    run.finish()
    given = [json.loads(line)["title"] for line in (tmp_path / "given").read_text().splitlines()]
    assert given == ["before"]
