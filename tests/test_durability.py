"""What a run that was accepted survives: real processes that are killed, interrupted, forked and starved."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

import tracklayer
from machine import QUICK_RECORD
from tracklayer.reading import RunReader

WAIT = 60.0  # seconds that a busy machine may take for anything
PREAMBLE = """
import os, signal, sys, time
import tracklayer
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # else ignored where these tests run under nohup
def say(*words):
    print(*words, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


class Training:
    """A training script in a process of its own."""

    def __init__(self, store: Path, body: str, **options: Any) -> None:
        script = PREAMBLE + textwrap.dedent(body)
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TRACKLAYER_", "WANDB_"))
        }
        environment |= {**QUICK_RECORD, "TRACKLAYER_DIR": str(store), "PYTHONWARNINGS": "error"}
        environment |= options.pop("env", {})
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )
        self.errors = ""

    def _stream(self, stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream

    def hear(self) -> str:
        """Wait for a line that the script says."""
        line = self._stream(self.process.stdout).readline().strip()
        if not line:
            pytest.fail(f"the script said nothing, but on stderr: {self.end()[1]}")
        return line

    def tell(self, line: str) -> None:
        """Say a line to the script's standard input."""
        print(line, file=self._stream(self.process.stdin), flush=True)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill the script and what it forked, which may hold its output open."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and what came on stderr."""
        try:
            _, self.errors = self.process.communicate(timeout=WAIT)
        except subprocess.TimeoutExpired:
            self.kill()
            _, errors = self.process.communicate()
            pytest.fail(f"the script hangs; on stderr: {errors}")
        return self.process.returncode, self.errors


@pytest.fixture
def train(store: Path) -> Iterator[Any]:
    """Start training scripts that do not outlive the test."""
    started: list[Training] = []

    def start(body: str, *, where: Path = store, **options: Any) -> Training:
        started.append(Training(where, body, **options))
        return started[-1]

    yield start
    for training in started:
        training.kill()
        training.process.communicate()


def recorded(store: Path, run_id: str = "r") -> RunReader:
    reader = tracklayer.open_store(store).find(run_id)
    assert reader is not None
    return reader


def steps(store: Path, key: str = "x", run_id: str = "r") -> list[int]:
    return recorded(store, run_id).metric(key).step.tolist()


def assert_whole(store: Path, run_id: str = "r") -> None:
    """Let SQLite itself look through the file."""
    file = sqlite3.connect(store / "runs" / f"{run_id}.sqlite")
    try:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        file.close()


# -- kill -9 ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_kill_9_keeps_all_but_the_last_moment(store: Path, train: Any) -> None:
    training = train(
        """
        run = tracklayer.init(id="r")
        for step in range(10**9):
            run.log({"x": step}, step=step)
            if step == 100:
                say("training")
            time.sleep(0.001)
        """
    )
    training.hear()
    time.sleep(1.5)
    killed_at = time.time()
    training.send(signal.SIGKILL)
    training.end()
    metric = recorded(store).metric("x")
    assert metric.step.tolist() == list(range(len(metric)))
    assert metric.value.tolist() == list(range(len(metric)))
    assert metric.time[-1] > killed_at - 1.0  # 0.1 s, on a machine that does nothing else
    assert recorded(store).info.state == "crashed"


@pytest.mark.slow
def test_a_row_just_before_a_long_silence_survives_kill_9(store: Path, train: Any) -> None:
    training = train(
        """
        run = tracklayer.init(id="r")
        run.log({"x": 1.0}, step=7)
        say("silent")
        time.sleep(1000)
        """
    )
    training.hear()
    time.sleep(1.0)
    training.send(signal.SIGKILL)
    training.end()
    assert steps(store) == [7]


def test_a_killed_run_is_crashed_at_once_and_says_since_when(store: Path, train: Any) -> None:
    training = train(
        """
        run = tracklayer.init(id="r", project="p")
        run.log({"x": 1.0}, step=0)
        run.flush()
        say("running")
        time.sleep(1000)
        """
    )
    training.hear()
    assert recorded(store).info.state == "running"
    training.send(signal.SIGKILL)
    training.end()
    runs = tracklayer.open_store(store).runs(project="p", state="crashed")
    assert [run.id for run in runs] == ["r"]
    assert runs[0].info.finished_at is not None
    assert runs[0].segments[0].pid == training.process.pid


@pytest.mark.slow
def test_a_killed_run_is_resumed_from_an_earlier_step_any_number_of_times(store: Path, train: Any) -> None:
    for first, value, last in ((0, 0.0, 100), (60, 1.0, 120), (90, 2.0, 150)):
        training = train(
            f"""
            run = tracklayer.init(id="r", resume="allow", config={{"attempt": {value}}})
            for step in range({first}, {last}):
                run.log({{"x": {value}, "only/{first}": step}}, step=step)
            run.flush()
            say("logged")
            time.sleep(1000)
            """
        )
        training.hear()
        training.send(signal.SIGKILL)
        training.end()
        assert recorded(store).info.state == "crashed"
    metric = recorded(store).metric("x")
    assert metric.step.tolist() == list(range(150))
    assert metric.value.tolist() == [0.0] * 60 + [1.0] * 30 + [2.0] * 60
    assert steps(store, "only/0") == list(range(100))
    assert [segment.state for segment in recorded(store).segments] == ["crashed"] * 3
    assert recorded(store).config == {"attempt": 2.0}
    assert_whole(store)


@pytest.mark.slow
def test_auto_resume_takes_the_run_that_crashed(store: Path, train: Any) -> None:
    first = train(
        """
        run = tracklayer.init(project="p", name="n", resume="auto")
        run.log({"x": 1}, step=10)
        run.flush()
        say(run.id)
        time.sleep(1000)
        """
    )
    run_id = first.hear()
    first.send(signal.SIGKILL)
    first.end()
    second = train(
        """
        run = tracklayer.init(project="p", name="n", resume="auto")
        say(run.id, run.resumed, run.step)
        """
    )
    assert second.hear() == f"{run_id} True 11"
    assert second.end()[0] == 0
    third = train('say(tracklayer.init(project="p", name="n", resume="auto").id)')
    assert third.hear() != run_id  # it finished


@pytest.mark.slow
def test_each_task_of_a_preempted_job_array_resumes_a_run_of_its_own(store: Path, train: Any) -> None:
    body = """
        sys.stdin.readline()
        run = tracklayer.init(project="p", resume="auto")
        say(run.id, run.resumed)
        sys.stdin.readline()
        """
    found: list[set[str]] = []
    for _ in range(2):
        tasks = [train(body) for _ in range(4)]
        for task in tasks:
            task.tell("go")
        answers = [task.hear().split() for task in tasks]
        found.append({run_id for run_id, _ in answers})
        assert len(found[-1]) == 4
        for task in tasks:
            task.send(signal.SIGKILL)
            task.end()
    assert {resumed for _, resumed in answers} == {"True"}
    assert found[0] == found[1]


# -- ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "exit_status", "state", "exit_code"),
    [
        ("pass", 0, "finished", 0),
        pytest.param("run.finish()", 0, "finished", 0, marks=pytest.mark.slow),
        ("run.finish(exit_code)", 0, "failed", 5),
        ("raise ValueError('diverged')", 1, "failed", 1),
        pytest.param("sys.exit()", 0, "finished", 0, marks=pytest.mark.slow),
        ("sys.exit(3)", 3, "failed", 3),
        pytest.param("sys.exit('no data')", 1, "failed", 1, marks=pytest.mark.slow),
        pytest.param("raise KeyboardInterrupt", -signal.SIGINT, "failed", 130, marks=pytest.mark.slow),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(100)", -signal.SIGINT, "failed", 130),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(100)", -signal.SIGTERM, "failed", 143),
        pytest.param(
            "os.kill(os.getpid(), signal.SIGHUP); time.sleep(100)",
            -signal.SIGHUP,
            "failed",
            129,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_row_survives_any_end_and_the_state_tells_how_it_was(
    store: Path, train: Any, end: str, exit_status: int, state: str, exit_code: int
) -> None:
    training = train(
        f"""
        exit_code = 5
        run = tracklayer.init(id="r")
        for step in range(2000):
            run.log({{"x": step}}, step=step)
        run.summary["best"] = 1
        {end}
        """
    )
    assert training.end()[0] == exit_status, training.errors
    assert steps(store) == list(range(2000))
    info = recorded(store).info
    assert (info.state, info.exit_code) == (state, exit_code)
    assert recorded(store).summary == {"x": 1999, "best": 1}
    assert sorted(file.name for file in (store / "runs").iterdir()) == ["r.sqlite"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "exit_status", "state", "exit_code"),
    [
        ("pass", 0, "finished", 0),
        ("raise ValueError('diverged')", 1, "failed", 1),
        ("sys.exit(0)", 0, "finished", 0),
        ("sys.exit(4)", 4, "failed", 4),
        ("raise KeyboardInterrupt", -signal.SIGINT, "failed", 130),
    ],
)
def test_a_with_block_ends_the_run_as_it_ends(
    store: Path, train: Any, end: str, exit_status: int, state: str, exit_code: int
) -> None:
    training = train(
        f"""
        with tracklayer.init(id="r") as run:
            run.log({{"x": 1}})
            {end}
        """
    )
    assert training.end()[0] == exit_status
    info = recorded(store).info
    assert (info.state, info.exit_code) == (state, exit_code)


@pytest.mark.slow
def test_the_exit_code_of_a_run_that_is_over_is_not_that_of_the_next(store: Path, train: Any) -> None:
    training = train(
        """
        try:
            with tracklayer.init(id="first"):
                sys.exit(3)
        except SystemExit:
            pass
        tracklayer.init(id="r")
        """
    )
    assert training.end()[0] == 0
    assert recorded(store).info.state == "finished"


@pytest.mark.slow
def test_nothing_is_lost_when_the_interpreter_exits_right_after_100_000_calls(
    store: Path, train: Any
) -> None:
    training = train(
        """
        run = tracklayer.init(id="r")
        for step in range(100_000):
            run.log({"x": step, "y": 0.5}, step=step)
        """
    )
    assert training.end() == (0, "")
    assert steps(store) == list(range(100_000))
    assert steps(store, "y") == list(range(100_000))


def test_where_sigint_would_kill_at_once_the_run_is_finished_first(store: Path, train: Any) -> None:
    training = train(
        """
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as graphical toolkits ask for it
        run = tracklayer.init(id="r")
        run.log({"x": 1})
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(100)
        """
    )
    assert training.end()[0] == -signal.SIGINT
    assert steps(store) == [0]
    assert recorded(store).info.state == "failed"


SLOW_COMMITS = """
from tracklayer_sqlite.recording import SQLiteRun
commit = SQLiteRun.commit
def slow_commit(self):
    if self._rows:
        time.sleep(0.5)
    commit(self)
SQLiteRun.commit = slow_commit
import tracklayer.queue
tracklayer.queue._BATCH = 200
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_finish_waits_for_a_slow_disk_loses_nothing(
    store: Path, train: Any, number: signal.Signals
) -> None:
    training = train(
        SLOW_COMMITS
        + """
with tracklayer.init(id="r") as run:
    for step in range(1000):
        run.log({"x": step}, step=step)
    say("finishing")
"""
    )
    training.hear()
    time.sleep(0.7)
    training.send(number)
    assert training.end()[0] == -number
    assert steps(store) == list(range(1000))
    assert recorded(store).info.state == "finished"  # the block had ended well


# -- the program's own signal handlers ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "order"),
    [
        (signal.SIGTERM, "before"),
        (signal.SIGINT, "after"),
        pytest.param(signal.SIGINT, "before", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "after", marks=pytest.mark.slow),
    ],
)
def test_a_programs_own_signal_handler_is_called_whenever_it_was_installed(
    store: Path, train: Any, number: signal.Signals, order: str
) -> None:
    install = f"signal.signal({int(number)}, handler)"
    training = train(
        f"""
        def handler(number, frame):
            say("handled", number)
            sys.exit(9)
        {install if order == "before" else ""}
        run = tracklayer.init(id="r")
        {install if order == "after" else ""}
        run.log({{"x": 1}})
        say("running")
        time.sleep(100)
        """
    )
    training.hear()
    training.send(number)
    assert training.hear() == f"handled {int(number)}"
    assert training.end()[0] == 9
    assert steps(store) == [0]
    info = recorded(store).info
    assert (info.state, info.exit_code) == ("failed", 9)


@pytest.mark.slow
def test_a_programs_own_handler_may_go_on_and_log_a_checkpoint(store: Path, train: Any) -> None:
    training = train(
        """
        def handler(number, frame):
            run.log({"checkpoint": 1}, step=run.step)
            run.flush()
            say("saved")
        signal.signal(signal.SIGTERM, handler)
        run = tracklayer.init(id="r")
        say("running")
        for step in range(3000):
            run.log({"x": step}, step=step)
            time.sleep(0.0005)
        """
    )
    training.hear()
    for _ in range(5):
        time.sleep(0.1)
        training.send(signal.SIGTERM)
        assert training.hear() == "saved"
    assert training.end() == (0, "")
    assert steps(store) == list(range(3000))
    assert len(steps(store, "checkpoint")) == 5
    assert recorded(store).info.state == "finished"


@pytest.mark.slow
def test_a_handler_that_calls_the_one_before_it_ends_the_process_as_ever(store: Path, train: Any) -> None:
    training = train(
        """
        run = tracklayer.init(id="r")
        def handler(number, frame):
            run.log({"last": 1})
            previous(number, frame)
        previous = signal.signal(signal.SIGTERM, handler)
        say("running")
        time.sleep(100)
        """
    )
    training.hear()
    training.send(signal.SIGTERM)
    assert training.end()[0] == -signal.SIGTERM
    assert steps(store, "last") == [0]


def test_no_handler_and_no_hook_stays_behind_when_the_run_is_finished(train: Any) -> None:
    training = train(
        """
        before = signal.getsignal(signal.SIGTERM), sys.exit
        run = tracklayer.init()
        during = signal.getsignal(signal.SIGTERM), sys.exit
        run.finish()
        assert before == (signal.getsignal(signal.SIGTERM), sys.exit)
        assert not set(before) & set(during)
        """
    )
    assert training.end() == (0, "")


# -- fork ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("leave", ["os._exit(0)", "sys.exit(0)", "raise SystemExit"])
def test_a_forked_child_neither_writes_nor_hangs_nor_corrupts(store: Path, train: Any, leave: str) -> None:
    training = train(
        f"""
        import gc
        run = tracklayer.init(id="r")
        children = []
        for step in range(4000):
            run.log({{"x": step}}, step=step)
            if step % 400 == 200:
                child = os.fork()
                if child == 0:
                    for i in range(1000):
                        run.log({{"x": -1, "child": i}}, step=i)
                    run.config["child"] = 1
                    run.summary["child"] = dict(run.summary)
                    run.flush()
                    tracklayer.log({{"x": -1}})
                    tracklayer.finish()
                    del run
                    gc.collect()
                    {leave}
                children.append(child)
                time.sleep(0.05)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        run.finish()
        """
    )
    status, errors = training.end()
    assert status == 0, errors
    assert recorded(store).keys() == ["x"]
    assert recorded(store).metric("x").value.tolist() == list(range(4000))
    assert recorded(store).config == {}
    assert recorded(store).explicit_summary == {}
    assert recorded(store).info.state == "finished"
    assert errors.count("belongs to the parent process") == 10
    assert_whole(store)


@pytest.mark.slow
def test_a_fork_after_a_run_was_finished_leaves_the_open_one_alone(store: Path, train: Any) -> None:
    training = train(
        """
        finished = tracklayer.init(id="before")
        finished.finish()
        run = tracklayer.init(id="r")
        child = os.fork()
        if child == 0:
            run.log({"x": 1})
            run.flush()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """
    )
    status, errors = training.end()
    assert status == 0
    assert errors.count("\n") == 1
    assert recorded(store).keys() == []


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("leave", "exit_status", "state", "exit_code"),
    [
        ("return", 0, "finished", 0),
        ("sys.exit(3)", 3, "failed", 3),
        ("raise ValueError", 1, "failed", 1),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, "failed", 143),
    ],
)
def test_a_child_of_multiprocessing_has_runs_of_its_own_that_are_complete(
    store: Path,
    tmp_path: Path,
    train: Any,
    method: str,
    leave: str,
    exit_status: int,
    state: str,
    exit_code: int,
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        PREAMBLE
        + textwrap.dedent(
            f"""
            import multiprocessing
            def work():
                run = tracklayer.init(id="child")
                for step in range(2000):
                    run.log({{"x": step}}, step=step)
                {leave}
            if __name__ == "__main__":
                run = tracklayer.init(id="r")
                run.log({{"x": 1}})
                child = multiprocessing.get_context("{method}").Process(target=work)
                child.start()
                run.log({{"x": 2}})
                child.join()
                assert child.exitcode == {exit_status}, child.exitcode
            """
        )
    )
    training = train(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")
    assert training.end()[0] == 0, training.errors
    assert steps(store, run_id="child") == list(range(2000))
    if method == "fork" and leave.startswith("raise") and sys.version_info >= (3, 13):
        return  # since then such a child tells nobody that it ended in an exception: use `with`
    info = recorded(store, "child").info
    assert (info.state, info.exit_code) == (state, exit_code)
    assert steps(store) == [0, 1]
    assert recorded(store).info.state == "finished"


@pytest.mark.slow
def test_a_pool_of_forked_workers_goes_about_its_work(store: Path, train: Any) -> None:
    training = train(
        """
        import multiprocessing
        def work(i):
            tracklayer.log({"worker": i})
            return i
        run = tracklayer.init(id="r")
        with multiprocessing.get_context("fork").Pool(4) as pool:
            for step in range(50):
                run.log({"x": sum(pool.map(work, range(8)))}, step=step)
        """
    )
    assert training.end()[0] == 0, training.errors
    assert recorded(store).metric("x").value.tolist() == [28] * 50
    assert recorded(store).keys() == ["x"]


@pytest.mark.slow
def test_children_forked_in_the_middle_of_commits_open_runs_of_their_own(store: Path, train: Any) -> None:
    """SQLite's own locks, held at the fork by the thread that commits, would stay held in the child."""
    training = train(
        """
        import logging
        logging.disable(logging.CRITICAL)
        run = tracklayer.init(id="r")
        step = 0
        for number in range(150):
            for step in range(step, step + 3000):
                run.log({"x": step, "y": 0.5, "z": 1.0}, step=step)
            child = os.fork()
            if child == 0:
                with tracklayer.init(id=f"child{number}") as own:
                    own.log({"x": number})
                os._exit(0)
            end = time.monotonic() + 30
            while not os.waitpid(child, os.WNOHANG)[0]:
                if time.monotonic() > end:
                    os.kill(child, signal.SIGKILL)
                    sys.exit(f"child {number} hangs")
                time.sleep(0.002)
        """
    )
    assert training.end()[0] == 0, training.errors
    runs = tracklayer.open_store(store).runs(state="finished")
    assert len(runs) == 151


@pytest.mark.slow
def test_a_child_that_resumes_its_parents_run_is_refused(store: Path, train: Any) -> None:
    training = train(
        """
        run = tracklayer.init(id="r")
        child = os.fork()
        if child == 0:
            try:
                tracklayer.init(id="r", resume="allow")
            except tracklayer.errors.RunInUseError as error:
                say(error)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        run.log({"x": 1})
        """
    )
    assert f"process {training.process.pid} on host {socket.gethostname()}" in training.hear()
    assert training.end()[0] == 0
    assert steps(store) == [0]


# -- threads ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_rows_of_many_threads_all_arrive(store: Path, train: Any) -> None:
    training = train(
        """
        import threading
        run = tracklayer.init(id="r")
        def work(name):
            for step in range(5000):
                run.log({name: step}, step=step)
        threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """
    )
    assert training.end() == (0, "")
    for i in range(8):
        assert recorded(store).metric(f"t{i}").value.tolist() == list(range(5000))


# -- disks --------------------------------------------------------------------------------------------

FILL = """
import tracklayer.queue
tracklayer.queue._PATIENCE = 0.5
run = tracklayer.init(id="r", config={"a": 1})
step = 0
def train(seconds, pause=0.001):
    global step
    end = time.monotonic() + seconds
    slowest = 0.0
    while time.monotonic() < end:
        begin = time.perf_counter()
        run.log({"x": step, "y": 0.5, "z": -step}, step=step)
        slowest = max(slowest, time.perf_counter() - begin)
        step += 1
        time.sleep(pause)
    return slowest
"""


@pytest.mark.slow
def test_training_goes_on_while_the_disk_is_full_and_recording_when_there_is_room(
    store: Path, train: Any
) -> None:
    training = train(
        FILL
        + """
import resource
train(0.3)
run.flush()
size = max(os.path.getsize(f) for f in (run.dir + "/runs/r.sqlite", run.dir + "/runs/r.sqlite-wal"))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))  # no file grows any more
say(train(1.5))
say(run.flush(0.1))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
train(0.3)
say(run.flush(30), step)
"""
    )
    assert float(training.hear()) < 5.0
    assert training.hear() == "False"
    flushed, count = training.hear().split()
    status, errors = training.end()
    assert status == 0
    assert flushed == "True"
    assert steps(store) == list(range(int(count)))
    assert recorded(store).metric("z").value.tolist() == [-i for i in range(int(count))]
    assert recorded(store).info.state == "finished"
    assert errors.count("cannot record now") == errors.count("records again") == 1
    assert "missed nothing" in errors
    assert_whole(store)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tracklayer-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs to be allowed to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_really_full_is_left_and_found_again_while_rows_spill(
    small_disk: Path, train: Any
) -> None:
    training = train(
        FILL
        + """
run._queues[0]._limit = 2_000_000; run._queues[0]._set_room()
filler = open(run.dir + "/filler", "wb", buffering=0)
try:
    while True:
        filler.write(bytes(4096))
except OSError as error:
    say(error.strerror)
slowest = train(4, pause=0.0001)
say(slowest)
filler.truncate(0)
train(0.5)
say(run.flush(60), step)
""",
        where=small_disk,
    )
    assert training.hear() == os.strerror(28)
    assert float(training.hear()) < 5.0
    flushed, count = training.hear().split()
    status, errors = training.end()
    assert status == 0
    assert flushed == "True"
    assert errors.count("rows go to") == 1
    assert errors.count("records again") == 1
    assert "lost" not in errors
    assert steps(small_disk) == list(range(int(count)))
    assert_whole(small_disk)


@pytest.mark.slow
def test_what_a_full_disk_did_not_take_until_the_end_is_rescued_and_recovered(
    store: Path, tmp_path: Path, train: Any
) -> None:
    spills = tmp_path / "spills"
    spills.mkdir()
    training = train(
        FILL
        + """
train(0.3)
run.flush()
import resource
from tracklayer_sqlite.recording import SQLiteRun
from tracklayer.errors import StoreError
def full(self):
    if self._rows or self._statements:
        raise StoreError("database or disk is full")
SQLiteRun.commit = full
run._queues[0]._finish_timeout = 1.0
train(0.3)
run.summary["best"] = 3
say(step)
""",
        env={"TMPDIR": str(spills)},
    )
    count = int(training.hear())
    status, errors = training.end()
    assert status == 0
    (file,) = spills.iterdir()
    assert f"`tracklayer recover {file}`" in errors
    assert len(steps(store)) < count
    done = subprocess.run(
        [sys.executable, "-m", "tracklayer", "recover", str(file)],
        env={**os.environ, "TRACKLAYER_DIR": str(store)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert steps(store) == list(range(count))
    assert recorded(store).explicit_summary == {"best": 3}
    assert recorded(store).info.state == "finished"


@pytest.mark.slow
def test_a_store_that_is_deleted_in_mid_run_is_reported_and_training_goes_on(store: Path, train: Any) -> None:
    training = train(
        """
        import shutil
        run = tracklayer.init(id="r")
        run.log({"x": 1}, step=0)
        run.flush()
        shutil.rmtree(run.dir)
        for step in range(1, 1000):
            run.log({"x": 1}, step=step)
        """
    )
    status, errors = training.end()
    assert status == 0
    assert errors.count("was moved or deleted") == 1
    assert "Traceback" not in errors
    assert not store.exists()


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that any user can enter."""
    with tempfile.TemporaryDirectory(prefix="tracklayer-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


# root may write anywhere: all that is imported later is loaded first, because Python's own folder may be
# root's
AS_ORDINARY_USER = """
import tempfile
with tempfile.TemporaryDirectory() as warm:
    with tracklayer.init(dir=warm) as run:
        run.log({"x": 1})
    reader = tracklayer.open_store(warm).run(run.id)
    reader.metric("x"), reader.summary
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""


@pytest.mark.slow
def test_a_store_that_cannot_be_written_is_refused_with_a_word_about_what_to_do(
    shared_folder: Path, train: Any
) -> None:
    shared_folder.chmod(0o555)
    training = train(
        AS_ORDINARY_USER
        + """
try:
    tracklayer.init(id="r")
except tracklayer.errors.StoreError as error:
    say(error)
""",
        where=shared_folder / "store",
    )
    message = training.hear()
    assert training.end() == (0, "")
    assert str(shared_folder) in message
    assert "TRACKLAYER_DIR" in message


@pytest.mark.slow
def test_a_crashed_run_in_a_folder_that_is_only_readable_is_read_whole(
    shared_folder: Path, train: Any
) -> None:
    store = shared_folder / "store"
    training = train(
        """
        run = tracklayer.init(id="r")
        for step in range(1000):
            run.log({"x": step}, step=step)
        run.flush()
        say("logged")
        time.sleep(100)
        """,
        where=store,
    )
    training.hear()
    training.send(signal.SIGKILL)
    training.end()
    assert (store / "runs" / "r.sqlite-wal").exists()
    before = sorted(file.name for file in (store / "runs").iterdir())
    for folder in (store, store / "runs"):
        folder.chmod(0o555)
    reading = train(
        AS_ORDINARY_USER
        + """
reader = tracklayer.open_store().run("r")
say(reader.info.state, len(reader.metric("x")), reader.summary)
""",
        where=store,
    )
    assert reading.hear() == "crashed 1000 {'x': 999}"
    assert reading.end() == (0, "")
    assert sorted(file.name for file in (store / "runs").iterdir()) == before


@pytest.mark.slow
def test_a_finished_run_is_read_from_a_folder_that_is_only_readable(shared_folder: Path, train: Any) -> None:
    store = shared_folder / "store"
    writing = train('tracklayer.init(id="r").log({"x": 1.5})', where=store)
    assert writing.end() == (0, "")
    for folder in (store, store / "runs"):
        folder.chmod(0o555)
    reading = train(AS_ORDINARY_USER + 'say(tracklayer.open_store().run("r").summary)', where=store)
    assert reading.hear() == "{'x': 1.5}"


# -- several processes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "resume", [None, "allow", *(pytest.param(r, marks=pytest.mark.slow) for r in ("must", "auto"))]
)
def test_a_second_live_process_is_refused_naming_host_and_process(
    store: Path, train: Any, resume: str | None
) -> None:
    first = train(
        """
        run = tracklayer.init(id="r")
        run.log({"x": 1})
        say("running")
        sys.stdin.readline()
        run.log({"x": 2})
        """
    )
    first.hear()
    second = train(
        f"""
        try:
            tracklayer.init(id="r", resume={resume!r})
        except tracklayer.errors.RunInUseError as error:
            say(error)
        """
    )
    message = second.hear()
    assert f"process {first.process.pid}" in message
    assert f"host {socket.gethostname()}" in message
    assert second.end() == (0, "")
    first.tell("go on")
    assert first.end() == (0, "")
    assert recorded(store).metric("x").value.tolist() == [1, 2]
    assert len(recorded(store).segments) == 1


@pytest.mark.slow
def test_of_many_processes_that_start_one_run_at_once_one_records_it(store: Path, train: Any) -> None:
    body = """
        sys.stdin.readline()
        try:
            run = tracklayer.init(id="r", resume="allow")
        except tracklayer.errors.RunInUseError:
            say("refused")
        else:
            say("recording")
        sys.stdin.readline()
        """
    tasks = [train(body) for _ in range(5)]
    for task in tasks:
        task.tell("go")
    assert sorted(task.hear() for task in tasks) == ["recording"] + ["refused"] * 4
    for task in tasks:
        task.tell("end")
        assert task.end() == (0, "")
    assert recorded(store).info.state == "finished"


@pytest.mark.slow
def test_a_job_array_creates_its_runs_in_one_store_at_once(store: Path, train: Any) -> None:
    body = """
        sys.stdin.readline()
        for number in range(5):
            with tracklayer.init(project="array", group="g", config={"seed": number}) as run:
                for step in range(200):
                    run.log({"x": step}, step=step)
        """
    tasks = [train(body) for _ in range(6)]
    for task in tasks:
        task.tell("go")
    for task in tasks:
        assert task.end() == (0, "")
    runs = tracklayer.open_store(store).runs(project="array", group="g", state="finished")
    assert len(runs) == 30
    assert all(len(run.metric("x")) == 200 for run in runs)
    assert tracklayer.open_store(store).unreadable() == []
    assert len(list((store / "runs").iterdir())) == 30  # one inode a run
    assert (store / ".gitignore").read_text() == "*\n"


@pytest.mark.slow
def test_a_run_that_another_process_took_over_is_left_to_it(store: Path, train: Any) -> None:
    training = train(
        """
        run = tracklayer.init(id="r")
        run.log({"x": 1}, step=0)
        run.flush()
        say("running")
        sys.stdin.readline()
        run.log({"x": 2}, step=1)
        """
    )
    training.hear()
    # as another host finds it that has not seen a heartbeat for long
    file = sqlite3.connect(store / "runs" / "r.sqlite")
    file.execute("UPDATE segments SET state = 'crashed'")
    file.commit()
    file.close()
    training.tell("go on")
    status, errors = training.end()
    assert status == 0
    assert errors.count("was taken over by another process") == 1
    assert recorded(store).info.state == "crashed"
