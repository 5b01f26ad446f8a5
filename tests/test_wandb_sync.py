"""Runs on their way to the W&B server: the real client sends their logs, and things go wrong."""

from __future__ import annotations

import contextlib
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

import tracklayer
import tracklayer_wandb
from machine import Machine, killed_at_the_end, wait_until
from tracklayer.delivery import Question, Received
from tracklayer.errors import BackendLostError, BackendUnavailableError
from tracklayer.protocol import RunInfo, Status
from tracklayer.settings import Settings
from tracklayer.surroundings import ConsoleLine, SystemRow
from tracklayer_wandb import backend
from tracklayer_wandb.explaining import explained
from wandb_server import API_KEY, Failure, Request, WandbServer

if TYPE_CHECKING:
    from tracklayer.delivery import Delivery
    from tracklayer.reading import RunReader

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WandbServer]:
    """A server, and this process as its client: it gives up after one repetition."""
    import wandb

    home = tmp_path_factory.mktemp("home")
    temporary = home / "temporary"
    temporary.mkdir()
    with WandbServer() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment(home).items():
            patch.setenv(name, "1" if name.endswith("RETRY_MAX") else value)
        patch.setattr(tempfile, "tempdir", str(temporary))
        wandb.teardown()
        yield server
        wandb.teardown()
        assert list(temporary.glob("tracklayer-*")) == []


@pytest.fixture
def server(listening: WandbServer) -> Iterator[WandbServer]:
    yield listening
    listening.fail = listening.body_limit = None
    for run_id in listening.runs:
        listening.delete(run_id)
    listening.store.forgive()


def record(folder: Path, rows: int = 3, run_id: str = "r") -> RunReader:
    with tracklayer.init(project="p", id=run_id, dir=folder, backend="sqlite", config={"lr": 0.1}) as run:
        for step in range(rows):
            run.log({"loss": 1 / (step + 1), "i": step})
    found = tracklayer.open_store(folder).find(run_id)
    assert found is not None
    return found


@pytest.fixture
def recorded(tmp_path: Path) -> RunReader:
    return record(tmp_path)


def begin(reader: RunReader, found: Received | None = None, seconds: float = 60.0) -> Delivery:
    assert backend.deliver is not None
    settings = Settings(backends=("wandb",), dir=Path(), finish_timeout=seconds)
    return backend.deliver(reader, reader.info, found, settings)


def send(reader: RunReader, found: Received | None = None, state: Any = "finished") -> Delivery:
    """Deliver all rows above those that the server has."""
    with giving_up(begin(reader, found)) as delivery:
        delivery.update_config(reader.config)
        for row in reader.rows(after=found.last_step if found else None):
            delivery.log(row.values, step=row.step, time=row.time)
        delivery.update_summary(reader.summary)
        delivery.finish(Status(state))
    return delivery


@contextlib.contextmanager
def giving_up(delivery: Delivery) -> Iterator[Delivery]:
    try:
        yield delivery
    except BaseException:
        delivery.abandon()
        raise


def ask(info: RunInfo, question: Question | None = None) -> Received | None:
    assert backend.received is not None
    return backend.received(info, question or Question())


def known(info: RunInfo, question: Question | None = None) -> Received:
    found = ask(info, question)
    assert found is not None
    return found


def clients() -> list[psutil.Process]:
    return [
        one
        for one in psutil.Process().children()
        if "wandb-core" in one.name() and one.status() != psutil.STATUS_ZOMBIE
    ]


def at(what: str) -> Callable[[Request], bool]:
    """Say what a request is: the beginning of a run, its rows, or an upload of a file."""
    return {
        "beginning": lambda r: r.operation == "UpsertBucket",
        "rows": lambda r: r.is_stream,
        "files": lambda r: r.method == "PUT",
        "questions": lambda r: r.operation == "Run",
    }[what]


def fail(server: WandbServer, what: str, failure: Failure, times: int = 10**9) -> list[Request]:
    """Let the first requests of a kind fail; return those that did."""
    failed = list[Request]()

    def rule(request: Request) -> Failure | None:
        if not at(what)(request) or len(failed) >= times:
            return None
        failed.append(request)
        return failure

    server.fail = rule
    return failed


# -- sending --------------------------------------------------------------------------------------


def test_what_is_written_is_on_its_way_before_the_end(server: WandbServer, recorded: RunReader) -> None:
    with giving_up(begin(recorded)) as delivery:
        (first, *others) = recorded.rows()
        delivery.log(first.values, step=first.step, time=first.time)
        delivery.commit()
        wait_until(lambda: "r" in server.runs and server.runs["r"].history)
        wait_until(lambda: delivery.sent_lines == 1)
        assert server.runs["r"].state == "running"
        for row in others:
            delivery.log(row.values, step=row.step, time=row.time)
        delivery.finish(Status())
    run = server.runs["r"]
    assert ([row["i"] for row in run.history], run.state) == ([0, 1, 2], "finished")
    assert (delivery.delivered.lines, delivery.delivered.last_step) == (3, 2)
    assert delivery.delivered.problems == ()


def test_several_runs_are_sent_at_once_by_one_client(server: WandbServer, tmp_path: Path) -> None:
    readers = [record(tmp_path, 20, f"r{number}") for number in range(6)]
    started = time.monotonic()
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(send, readers))
    assert time.monotonic() - started < 15
    assert [[row["i"] for row in server.runs[f"r{n}"].history] for n in range(6)] == [list(range(20))] * 6
    assert len(clients()) == 1


def test_a_run_that_goes_on_stays_running_and_then_ends(server: WandbServer, recorded: RunReader) -> None:
    send(recorded, state="running")
    found = known(recorded.info)
    assert (found.state, found.line_count, found.last_step) == ("running", 3, 2)
    send(recorded, found, state="failed")
    assert server.runs["r"].state == "failed"
    assert sum(count for _, count in server.history_ranges("r")) == 3


def test_console_text_that_goes_on_is_whole_in_the_file(server: WandbServer, tmp_path: Path) -> None:
    class Printed:
        """A reader of a run that also printed."""

        def __init__(self, reader: RunReader, lines: list[ConsoleLine]) -> None:
            self._reader, self._lines = reader, lines

        def __getattr__(self, name: str) -> Any:
            return getattr(self._reader, name)

        def console(self, after: int = 0) -> Iterator[ConsoleLine]:
            return iter(self._lines[after:])

    lines = [
        ConsoleLine(1.0, "stdout", "one"),
        ConsoleLine(2.0, "stderr", "two"),
        ConsoleLine(3.0, "stdout", "ünü"),
    ]
    reader: Any = Printed(record(tmp_path), lines)
    for end in (2, 3):
        found = ask(reader.info)
        with giving_up(begin(reader, found)) as delivery:
            delivery.log_console(lines[found.console_lines if found else 0 : end])
            delivery.log_system(SystemRow(time.time(), {"cpu": 5.0}))
            delivery.finish(Status("running"))
    found = known(reader.info)
    assert (found.console_lines, found.system_rows) == (3, 2)
    assert server.runs["r"].files["output.log"].decode() == "one\ntwo\nünü\n"


# -- giving up ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["beginning", "rows", "files"])
def test_when_a_push_gave_up_nothing_more_is_sent(server: WandbServer, tmp_path: Path, what: str) -> None:
    reader = record(tmp_path, 500)
    held = fail(server, what, Failure(500))
    with giving_up(begin(reader, seconds=0.1)) as delivery:
        for row in reader.rows():
            delivery.log(row.values, step=row.step, time=row.time)
        delivery.commit()
        if what == "files":
            with pytest.raises(BackendLostError, match="in 0.1 s"):
                delivery.finish(Status())
        wait_until(lambda: held)
        delivery.abandon()
    before = len(server.requests)
    time.sleep(1.5)
    assert [request.operation or request.path for request in server.requests[before:]] == []
    assert len(clients()) == 1


def test_giving_up_one_run_leaves_the_others_alone(server: WandbServer, tmp_path: Path) -> None:
    first, second = (begin(record(tmp_path, 3, name)) for name in ("one", "two"))
    for delivery in (first, second):
        delivery.log({"a": 1}, step=0, time=time.time())
        delivery.commit()
    first.abandon()
    with giving_up(second):
        second.finish(Status())
    assert (server.runs["two"].state, len(server.runs["two"].history)) == ("finished", 1)


def test_a_client_that_is_killed_ends_the_push_and_not_the_next(
    server: WandbServer, recorded: RunReader
) -> None:
    with giving_up(begin(recorded)) as delivery:
        delivery.log({"a": 1}, step=0, time=time.time())
        delivery.commit()
        wait_until(lambda: "r" in server.runs)
        started = time.monotonic()
        clients()[0].kill()
        with pytest.raises(BackendLostError, match="process is gone; push again"):
            delivery.finish(Status())
        assert time.monotonic() - started < 5
        delivery.abandon()
    found = known(recorded.info)
    send(recorded, found)
    assert server.runs["r"].state == "finished"


def test_a_client_that_hangs_is_noticed_and_killed(
    server: WandbServer, recorded: RunReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracklayer_wandb.syncing._ANSWER_SECONDS", 1.0)
    monkeypatch.setattr("tracklayer_wandb.client._END_SECONDS", 1.0)
    delivery = begin(recorded)
    delivery.log({"a": 1}, step=0, time=time.time())
    delivery.commit()
    wait_until(lambda: "r" in server.runs and server.runs["r"].history)
    (client,) = clients()
    client.suspend()
    with pytest.raises(BackendLostError, match="does not answer"):
        delivery.finish(Status())
    delivery.abandon()
    assert not client.is_running() or client.status() == psutil.STATUS_ZOMBIE
    send(recorded, known(recorded.info))


PUSH = """
import time, tracklayer
from pathlib import Path
from tracklayer.settings import Settings
from tracklayer_wandb import backend

with tracklayer.init(project="p", id="r", backend="sqlite") as run:
    run.log({"a": 1})
reader = tracklayer.open_store().find("r")
delivery = backend.deliver(reader, reader.info, None, Settings(backends=("wandb",), dir=Path()))
delivery.log({"a": 1}, step=0, time=time.time())
delivery.commit()
print("sending", flush=True)
time.sleep(600)
"""


def test_the_client_of_a_killed_push_is_waited_for(server: WandbServer, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "x", server)
    started = machine.start(PUSH)
    with killed_at_the_end(started):
        assert started.hear() == "sending"
        wait_until(lambda: "r" in server.runs)
        client = started.client()
    assert client.is_running()
    assert known(machine.recorded().info).is_ours
    assert not client.is_running() or client.status() == psutil.STATUS_ZOMBIE


def test_what_a_killed_push_left_is_removed_by_the_next(server: WandbServer, recorded: RunReader) -> None:
    host, process = socket.gethostname(), psutil.Process()
    folder = Path(tempfile.gettempdir())
    dead, reused, alive, foreign = (
        folder / f"tracklayer-push-{name}"
        for name in (
            f"{host}-{2**22 + 1}-1.00-a",
            f"{host}-{process.pid}-1.00-b",
            f"{host}-{process.pid}-{process.create_time():.2f}-c",
            "elsewhere-1-1.00-d",
        )
    )
    for one in (dead, reused, alive, foreign):
        one.mkdir()
    begin(recorded).abandon()
    left = set(folder.glob("tracklayer-push-*"))
    alive.rmdir()
    foreign.rmdir()
    assert left == {alive, foreign}


# -- a server that says no ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "failure", "message"),
    [
        ("beginning", Failure(401, "user is not logged in"), "not logged in.*wandb login"),
        ("beginning", Failure(403, "permission denied"), "permission denied.*ask for access"),
        ("beginning", Failure(409, "run p/r was previously created and deleted"), "deleted there.*--id"),
        ("beginning", Failure(drop=True), "EOF.*when the server can be reached"),
        ("rows", Failure(401), "401.*wandb login"),
        ("rows", Failure(413), "413.*takes no such size"),
        ("rows", Failure(429), "429.*fewer requests"),
    ],
)
def test_each_refusal_says_what_to_do(
    server: WandbServer, recorded: RunReader, what: str, failure: Failure, message: str
) -> None:
    fail(server, what, failure)
    with pytest.raises(BackendLostError, match=f"(?s)could not send the run.*{message}"):
        send(recorded)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (Failure(401, "user is not logged in"), "not logged in.*wandb login"),
        (Failure(429), "fewer requests"),
        (Failure(200, "no such thing"), "no such thing"),
    ],
)
def test_each_refusal_of_an_answer_says_what_to_do(
    server: WandbServer, recorded: RunReader, failure: Failure, message: str
) -> None:
    fail(server, "questions", failure)
    with pytest.raises(BackendUnavailableError, match=f"(?s)cannot ask http://127.*{message}"):
        ask(recorded.info)


def test_a_body_that_is_too_large_says_so(server: WandbServer, tmp_path: Path) -> None:
    reader = record(tmp_path, 2000)
    server.body_limit = 20_000
    with pytest.raises(BackendLostError, match=r"413.*administrator"):
        send(reader)


@pytest.mark.parametrize("failure", [Failure(429, retry_after=1), Failure(503)])
def test_trouble_that_passes_is_no_trouble(
    server: WandbServer, recorded: RunReader, failure: Failure
) -> None:
    failed = fail(server, "rows", failure, times=1)
    delivery = send(recorded)
    assert len(failed) == 1
    assert [row["i"] for row in server.runs["r"].history] == [0, 1, 2]
    assert delivery.delivered.problems == ()


@pytest.mark.parametrize("failure", [Failure(drop=True, carried_out=True), Failure(cut=True)])
def test_an_answer_that_is_lost_doubles_nothing(
    server: WandbServer, recorded: RunReader, failure: Failure
) -> None:
    fail(server, "rows", failure, times=1)
    send(recorded)
    assert [row["i"] for row in server.runs["r"].history] == [0, 1, 2]


def test_a_server_that_takes_too_long_is_given_up(server: WandbServer, recorded: RunReader) -> None:
    fail(server, "rows", Failure(answer_delay=4.0))
    delivery = begin(recorded, seconds=1.0)
    delivery.log({"a": 1}, step=0, time=time.time())
    with pytest.raises(BackendLostError, match="did not send the whole run in 1 s.*push again"):
        delivery.finish(Status())
    delivery.abandon()


def test_files_that_the_server_did_not_take_are_named(server: WandbServer, tmp_path: Path) -> None:
    with tracklayer.init(project="p", id="r", dir=tmp_path, backend="sqlite") as run:
        run.log({"x": tracklayer.Image(np.eye(4))})
    reader = tracklayer.open_store(tmp_path).find("r")
    assert reader is not None
    fail(server, "files", Failure(403))
    delivered = send(reader).delivered
    (name,) = delivered.files
    assert any("403" in problem for problem in delivered.problems)
    question = Question(files=delivered.files)
    assert known(reader.info, question).missing_files == (name,)
    server.fail = None
    delivery = begin(reader, known(reader.info))
    (row,) = reader.rows()
    delivery.complete(row.values, step=row.step, time=row.time)
    delivery.finish(Status())
    found = known(reader.info, question)
    assert (found.missing_files, found.line_count) == ((), 1)


def test_a_key_is_in_no_message(server: WandbServer, recorded: RunReader) -> None:
    fail(server, "beginning", Failure(403, f"{API_KEY} may not"))
    with pytest.raises(BackendLostError, match=r"\*\*\* may not") as caught:
        send(recorded)
    assert API_KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "status", "message"),
    [
        ("returned error 404: no such entity", 0, "WANDB_BASE_URL"),
        ("while retrying: HTTP 503: away", 0, "push again later"),
        ("conflict", 409, "push again later"),
        ("dial tcp: lookup nowhere.invalid: no such host", 0, "can be reached"),
        ("dial tcp 127.0.0.1:9: connect: connection refused", 0, "can be reached"),
        ("PUT https://store/x?X-Amz-Signature=abc status: 403", 0, "^PUT https://store/x status: 403; "),
        ("https://me:secret@server/ is odd", 0, "^https://server/ is odd$"),
        (f"key {API_KEY} and wandb_v1_abcDEF", 0, r"^key \*\*\* and \*\*\*$"),
        ("something odd", 0, "^something odd$"),
    ],
)
def test_words_are_explained_without_secrets(said: str, status: int, message: str) -> None:
    assert re.search(message, explained(said, status))


# -- reading back ---------------------------------------------------------------------------------


def test_a_run_is_known_by_its_mark(server: WandbServer, recorded: RunReader) -> None:
    assert ask(recorded.info) is None
    send(recorded)
    found = known(recorded.info)
    assert found.is_ours
    assert not known(replace(recorded.info, created_at=recorded.info.created_at + 1e-3)).is_ours
    assert found.config == {"lr": 0.1}
    assert found.summary is not None
    assert found.summary["i"] == 2
    assert found.url == f"{server.url}/tester/p/runs/r"


def test_one_question_tells_of_a_run_of_any_length(server: WandbServer, tmp_path: Path) -> None:
    reader = record(tmp_path, 300)
    send(reader)
    before = len(server.requests)
    found = known(reader.info)
    assert (found.line_count, found.last_step) == (300, 299)
    assert [request.operation for request in server.requests[before:]] == ["Run"]


def test_rows_of_high_steps_are_read_in_few_pages(server: WandbServer, recorded: RunReader) -> None:
    assert backend.received_rows is not None
    send(recorded)
    steps = [0, 1, 5_000_000, *range(9_000_000_000, 9_000_012_000)]
    run = server.runs["r"]
    run.history[:] = [{"_step": step, "s": step} for step in steps]
    run.history.append({"_step": steps[-1] + 1, "tracklayer/step": 7, "late": 1})
    run.last_step = steps[-1] + 1
    before = len(server.requests)
    rows = list(backend.received_rows(recorded.info))
    assert [row.step for row in rows] == [*steps, 7]
    assert [row.values["s"] for row in rows[:-1]] == steps
    assert rows[-1].values == {"late": 1}
    assert len(server.requests) - before < 100


def test_rows_that_a_server_does_not_show_are_missed(server: WandbServer, recorded: RunReader) -> None:
    assert backend.received_rows is not None
    send(recorded)
    server.runs["r"].history[1]["_step"] = 10**6
    with pytest.raises(BackendUnavailableError, match="counts 3 rows and shows 2"):
        list(backend.received_rows(recorded.info))


# -- the client's version -------------------------------------------------------------------------


def test_a_client_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracklayer_wandb, "version", lambda _: "0.19.11")
    with pytest.raises(BackendUnavailableError, match=r"0\.19\.11 is too old: pip install -U 'wandb>="):
        backend.check()


def test_a_client_that_is_newer_than_known_is_warned_of_once(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracklayer_wandb, "version", lambda _: "0.99.1")
    for _ in range(2):
        backend.check()
    (line,) = caplog.messages
    assert re.search(r"wandb 0\.99\.1 is newer", line)


def test_pyproject_says_the_same_of_the_oldest_client() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    oldest = ".".join(map(str, tracklayer_wandb.OLDEST))
    assert f'"wandb>={oldest}"' in text
