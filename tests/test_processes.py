"""Several processes of one program: two real ones, which find each other on loopback."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import pytest

import tracklayer
from machine import Machine
from tracklayer import agreeing
from tracklayer.errors import UsageError
from tracklayer.reading import RunReader

pytestmark = pytest.mark.slow  # two processes start, and wait for one another

PROGRAM = """
import json, logging, os, sys, time, traceback
address, index = sys.argv[1], int(sys.argv[2])
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # where Gloo talks
import jax
jax.distributed.initialize(address, num_processes=2, process_id=index)
import jax.numpy as jnp
import numpy as np
from dataclasses import asdict, replace
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import tracklayer
from tracklayer import lifecycle, starting

class Warnings(logging.Handler):
    def emit(self, record):
        warnings.append(record.getMessage())

logging.getLogger("tracklayer").addHandler(Warnings())
warnings = []
for line in sys.stdin:
    number, body, os.environ["TRACKLAYER_DIR"], os.environ["WANDB_PROJECT"] = json.loads(line)
    warnings.clear()
    answer, scope = {"number": number, "error": None}, dict(globals())
    try:
        exec(body, scope)
        answer |= {"said": scope.get("said"), "warnings": warnings}
    except BaseException as error:
        answer |= {"error": type(error).__name__, "message": str(error), "trace": traceback.format_exc()}
    print(json.dumps(answer), file=answers, flush=True)
"""


@final
class Pair:
    """Two processes that do what they are told."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.store = folder / "store"
        self.project = "p"
        self._told = [0, 0]
        self.stderr = [folder / f"stderr-{index}" for index in (0, 1)]
        devices = "--xla_force_host_platform_device_count=2"
        machine = Machine(folder / "machine", JAX_PLATFORMS="cpu", XLA_FLAGS=devices)
        environment = {k: v for k, v in machine.environment.items() if v is not None}
        self.processes: list[subprocess.Popen[str]] = []
        for index in (0, 1):
            with self.stderr[index].open("w") as stderr:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-c", PROGRAM, address, str(index)],
                        env=environment,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=stderr,
                        text=True,
                    )
                )

    def tell(self, index: int, body: str, *, store: Path | None = None) -> None:
        """Have a process run some lines."""
        stdin = self.processes[index].stdin
        assert stdin is not None
        self._told[index] += 1
        message = [self._told[index], textwrap.dedent(body), str(store or self.store), self.project]
        print(json.dumps(message), file=stdin, flush=True)

    def hear(self, index: int) -> Any:
        """Wait for what a process has to say, which is `said` in those lines."""
        answer = self._answer(index)
        assert answer["error"] is None, answer["trace"]
        return answer["said"]

    def hear_warnings(self, index: int) -> list[str]:
        """Wait for the end of those lines; return what was warned of."""
        answer = self._answer(index)
        assert answer["error"] is None, answer["trace"]
        return list(answer["warnings"])

    def hear_error(self, index: int) -> tuple[str, str]:
        """Wait for the error that those lines raise; return its name and message."""
        answer = self._answer(index)
        assert answer["error"] is not None, answer["said"]
        return answer["error"], answer["message"]

    def both(self, body: str) -> tuple[Any, Any]:
        """Have both run the same lines."""
        self.tell(0, body)
        self.tell(1, body)
        return self.hear(0), self.hear(1)

    def runs(self) -> list[RunReader]:
        return tracklayer.open_store(self.store).runs()

    def _answer(self, index: int) -> Any:
        stdout = self.processes[index].stdout
        assert stdout is not None
        while True:
            line = stdout.readline()
            assert line, self.stderr[index].read_text()
            answer = json.loads(line)
            if answer["number"] == self._told[index]:  # not what a test before gave up waiting for
                return answer


@contextmanager
def two_processes(folder: Path) -> Iterator[Pair]:
    pair = Pair(folder)
    try:
        pair.both("jax.devices()")  # here JAX itself waits for the other
        yield pair
    finally:
        for process in pair.processes:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with two_processes(tmp_path_factory.mktemp("pair")) as pair:
        yield pair


@pytest.fixture
def pair(processes: Pair, tmp_path: Path) -> Pair:
    """Two processes, which start once for all tests, with a store and a project for each."""
    processes.store = tmp_path / "store"
    processes.project = tmp_path.name
    processes.both("while lifecycle.open_run(): tracklayer.finish()")
    return processes


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- one run -------------------------------------------------------------------------------------------


def test_the_processes_have_one_run_and_the_first_records_it(pair: Pair) -> None:
    zero, one = pair.both("""
        with tracklayer.init(name="n", group="g", tags=["t"], config={"rate": 0.5}) as run:
            for step in range(3):
                run.log({"process": index}, step=step)
            said = [run.id, run.name, run.project, run.info.group, run.info.tags, run.resumed, run.dir]
    """)
    assert zero == one
    (run,) = pair.runs()
    assert [run.id, run.info.name, run.info.project] == zero[:3]
    assert (run.info.state, run.config) == ("finished", {"rate": 0.5})
    assert [row.values for row in run.rows()] == [{"process": 0}] * 3


@pytest.mark.parametrize("late", [0, 1])
def test_neither_process_waits_for_the_other(pair: Pair, late: int) -> None:
    body = """
        began = time.time()
        with tracklayer.init() as run:
            run.log({"x": 1.0})
            run.summary["y"] = 2
            seen = dict(run.summary)
            flushed = run.flush()
        said = run.id, began, time.time(), seen, flushed
    """
    pair.tell(1 - late, body)
    pair.tell(late, "time.sleep(1.5)\n" + textwrap.dedent(body))
    early, later = pair.hear(1 - late), pair.hear(late)
    assert early[0] == later[0]
    assert early[2] < later[1], "the early one was done before the late one began"
    assert early[3:] == later[3:] == [{"x": 1.0, "y": 2}, True]


def test_each_further_run_has_an_id_of_its_own(pair: Pair) -> None:
    pair.tell(0, "tracklayer.init().finish()")
    pair.tell(1, "said = [tracklayer.init(name=str(time.time())).id for _ in range(3)]")
    assert pair.hear(0) is None
    ids = pair.hear(1)
    pair.tell(0, "said = [tracklayer.init(name=str(time.time())).id for _ in range(2)]")
    assert ids[1:] == pair.hear(0)
    assert len(set(ids)) == 3


def test_a_process_that_never_calls_init_keeps_nobody_waiting(pair: Pair) -> None:
    body = """
        with tracklayer.init(name="alone") as run:
            run.log({"x": 1})
            run.flush()
    """
    pair.tell(1, body)
    assert pair.hear_warnings(1) == []
    assert not pair.store.exists(), "only process 0 records"
    pair.tell(0, body)
    assert pair.hear_warnings(0) == []
    assert [run.info.state for run in pair.runs()] == ["finished"]


def test_a_process_that_does_not_record_writes_nothing_and_does_all_the_rest(pair: Pair) -> None:
    elsewhere = pair.store.with_name("elsewhere")
    pair.tell(
        1,
        """
        temporary = os.environ["TMPDIR"]
        before = os.listdir(temporary)
        run = tracklayer.init(id="r", backend="wandb,tensorboard,sqlite", config={"a": 1})
        run.define_metric("loss", summary="min")
        for step in range(5):
            run.log({"loss": jnp.float32(5 - step), "h": tracklayer.Histogram(np.arange(3.0))})
        run.log_artifact("checkpoint-that-process-0-wrote-on-its-own-disk")
        run.log_artifact(tracklayer.Artifact("weights", "model"))
        run.config["b"] = 2
        run.summary["best"] = 3
        said = dict(run.config), dict(run.summary), run.step, run.flush(), run.url
        run.finish()
        assert os.listdir(temporary) == before
        assert not warnings, warnings
        """,
        store=elsewhere,
    )
    assert pair.hear(1) == [{"a": 1, "b": 2}, {"loss": {"min": 1.0}, "best": 3}, 5, True, None]
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("resume='maybe'", "resume='maybe'"),
        ("backend='sqlight'", "unknown backend 'sqlight'"),
        ("backend='sqlight', resume='auto'", "unknown backend 'sqlight'"),
        ("project='a/b'", "project 'a/b' contains"),
        ("config=3", "config takes a mapping"),
        ("id='a' * 127, per_process=True", "has 129 characters"),
    ],
)
def test_an_argument_that_cannot_be_right_is_an_error_in_each(
    pair: Pair, arguments: str, message: str
) -> None:
    for index in (0, 1):
        pair.tell(index, f"tracklayer.init({arguments})")
    for index in (0, 1):
        name, said = pair.hear_error(index)
        assert name in {"UsageError", "UnknownBackendError"}
        assert message in said
    assert not pair.store.exists()


def test_where_the_first_process_fails_the_other_goes_on_and_another_attempt_is_the_same_run(
    pair: Pair,
) -> None:
    pair.store.touch()  # in the place of a folder
    pair.tell(1, "run = tracklayer.init(); run.log({'x': 1}); run.finish(); said = run.id")
    run_id = pair.hear(1)
    pair.tell(0, "tracklayer.init()")
    assert pair.hear_error(0)[0] == "StoreError"
    pair.store.unlink()
    pair.tell(0, "said = tracklayer.init().id; tracklayer.finish()")
    assert pair.hear(0) == run_id


# -- training ------------------------------------------------------------------------------------------


def test_a_value_that_spans_the_processes_is_logged_by_one_or_each_of_them(pair: Pair) -> None:
    body = """
        mesh = Mesh(jax.devices(), "data")
        parts = NamedSharding(mesh, PartitionSpec("data"))
        numbers = jax.make_array_from_process_local_data(parts, np.arange(4.0) + 10 * index)
        mean = jax.jit(jnp.mean)(numbers)
        assert not mean.is_fully_addressable
        run = tracklayer.init()
        run.log({"mean": mean})
        if index == 0:
            run.log({"mean": mean + 0, "mine": jnp.float32(1)})
            run.flush()
        said = dict(run.summary)
        run.finish()
    """
    assert pair.both(body.replace("mean + 0", "mean")) == ({"mean": 6.5, "mine": 1.0}, {"mean": 6.5})
    (run,) = pair.runs()
    assert [row.values for row in run.rows()] == [{"mean": 6.5}, {"mean": 6.5, "mine": 1.0}]


def test_a_training_loop_over_both_processes_records_the_losses_of_all_data(pair: Pair) -> None:
    zero, one = pair.both("""
        mesh = Mesh(jax.devices(), "data")
        parts, whole = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in [("data",), ()])
        inputs = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
        targets = inputs @ np.array([1.0, -2.0, 0.5], np.float32)
        mine = slice(4 * index, 4 * index + 4)
        x, y = (jax.make_array_from_process_local_data(parts, a[mine]) for a in (inputs, targets))

        def loss(w, x, y):
            return jnp.mean((x @ w - y) ** 2)

        @jax.jit(donate_argnums=0)
        def step(state, x, y):
            value, slope = jax.value_and_grad(loss)(state["w"], x, y)
            return {"w": state["w"] - 0.1 * slope, "n": state["n"] + 1}, value

        state = jax.device_put({"w": np.zeros(3, np.float32), "n": np.int32(0)}, whole)
        with tracklayer.init(config={"rate": 0.1}) as run:
            for at in range(20):
                state, value = step(state, x, y)
                run.log({"loss": value, "n": state["n"]}, step=at)
            last = dict(run.summary)
        w, said_losses = np.zeros(3, np.float32), []
        for _ in range(20):
            said_losses.append(float(np.mean((inputs @ w - targets) ** 2)))
            w = w - 0.1 * 2 * inputs.T @ (inputs @ w - targets) / 8
        said = last, said_losses
    """)
    assert zero == one
    (run,) = pair.runs()
    assert run.metric("loss").value == pytest.approx(zero[1], rel=1e-4)
    assert run.metric("n").value.tolist() == list(range(1, 21))
    assert zero[0] == {"loss": run.metric("loss").value[-1], "n": 20}


def test_a_process_that_does_not_record_finishes_though_a_value_is_long_in_coming(pair: Pair) -> None:
    # a value of a step that process 0 has not joined; JAX on CPUs waits for that at the step itself
    pair.tell(
        1,
        """
        from tracklayer.null import NullRun

        log, NullRun.log = NullRun.log, lambda *row, **at: time.sleep(3)
        run = tracklayer.init(id="r")
        run.log({"value": 1})
        began = time.time()
        run.finish()
        said = time.time() - began
        NullRun.log = log
        assert not warnings, warnings
        assert not os.listdir(os.environ["TMPDIR"]), "it saves nothing for later, either"
        """,
    )
    assert 0.9 < pair.hear(1) < 2.5


# -- resuming ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ["resume='auto'", "id='r', resume='allow'", "id='r', resume=True"])
def test_what_the_first_process_finds_to_resume_is_what_each_resumes(pair: Pair, arguments: str) -> None:
    body = f"""
        run = tracklayer.init({arguments}, notes=f"of process {{index}}")
        said = run.id, run.resumed, run.step, dict(run.config), dict(run.summary), asdict(run.info)
        run.config.setdefaults({{"seed": 5, "bound": float("inf")}})
        for _ in range(3):
            run.log({{"loss": run.step / 2, "word": "x"}})
        run.summary["best"] = 0.5
        run.finish(1)
    """
    zero, one = pair.both(body)
    assert zero[:5] == one[:5] == [zero[0], False, 0, {}, {}]
    again = pair.both(body)
    assert again[0] == again[1], "to the time at which the run was created"
    config = {"seed": 5, "bound": float("inf")}
    assert again[0][:4] == [zero[0], True, 3, config]
    assert again[0][4] == {"loss": 1.0, "best": 0.5}
    (run,) = pair.runs()
    assert run.metric("loss").value.tolist() == [step / 2 for step in range(6)]
    assert len(run.segments) == 2


def test_an_error_of_the_first_process_on_resuming_is_raised_in_each(pair: Pair) -> None:
    pair.tell(0, "tracklayer.init(id='nobody', resume='must')")
    pair.tell(1, "tracklayer.init(id='nobody', resume='must')")
    name, message = pair.hear_error(0)
    assert name == "RunNotFoundError"
    assert pair.hear_error(1) == (name, f"process 0 could not open the run: {message}")
    pair.store = pair.store.with_name("file")
    pair.store.touch()
    pair.tell(0, "tracklayer.init(resume='auto')")
    pair.tell(1, "tracklayer.init(resume='auto')")
    assert pair.hear_error(0)[0] == pair.hear_error(1)[0] == "StoreError"


def test_a_first_process_that_is_late_is_waited_for_and_not_for_ever(pair: Pair) -> None:
    body = """
        read = starting.read_settings
        starting.read_settings = lambda **given: replace(read(**given), start_timeout=0.5)
        try:
            began = time.time()
            run = tracklayer.init(resume="auto")
            said = run.id, run.resumed, time.time() - began
            run.log({"x": 1})
            run.finish(1)
        finally:
            starting.read_settings = read
    """
    pair.both(body)
    pair.tell(1, body)
    time.sleep(0.6)
    pair.tell(0, body)
    assert pair.hear(0)[:2] == pair.hear(1)[:2], "late, and in time"
    pair.tell(1, body)
    (warning,) = pair.hear_warnings(1)
    assert "process 0 has not said within 1 s what it resumes; this process (1 of 2) goes on" in warning
    pair.tell(0, body)
    assert pair.hear(0)[1]
    pair.tell(1, body)
    said = pair.hear(1)
    assert not said[1]
    assert 0.9 < said[2] < 5


def test_without_resume_nothing_is_waited_for_however_the_run_is_named(pair: Pair) -> None:
    for arguments in ("id='r'", "id='r', resume='never'", "resume='allow'"):
        pair.tell(1, f"at = time.time(); tracklayer.init({arguments}).finish(); said = time.time() - at")
        assert pair.hear(1) < 1.0


# -- a run a process -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("", None),
        ("name='n', group='g'", ["n-0", "n-1"]),
        ("id='r', name='n'", ["n-0", "n-1"]),
    ],
)
def test_each_process_may_record_a_run_of_its_own(
    pair: Pair, arguments: str, names: list[str] | None
) -> None:
    zero, one = pair.both(f"""
        with tracklayer.init({arguments}{", " if arguments else ""}per_process=True) as run:
            run.log({{"process": index}})
        said = run.id, run.name, run.info.group
    """)
    runs = sorted(pair.runs(), key=lambda run: run.id)
    assert [[run.id, run.info.name, run.info.group] for run in runs] == [zero, one]
    assert [row.values for run in runs for row in run.rows()] == [{"process": 0}, {"process": 1}]
    shared = zero[0].removesuffix("-0")
    assert one[0] == f"{shared}-1"
    assert [zero[1], one[1]] == (names or [zero[0], one[0]])
    assert zero[2] == one[2] == ("g" if "group" in arguments else shared)


def test_runs_a_process_are_resumed_each_where_it_ended(pair: Pair) -> None:
    body = """
        run = tracklayer.init(resume="auto", per_process=True)
        said = run.id, run.resumed, run.step
        for _ in range(2 + index):
            run.log({"x": 1})
        run.finish(1)
    """
    first, second = pair.both(body), pair.both(body)
    assert [said[0] for said in second] == [said[0] for said in first]
    assert [said[1:] for said in second] == [[True, 2], [True, 3]]
    third = pair.both(body.replace("init(", "init(group='g', "))
    assert [said[1] for said in third] == [False, False]
    assert third[0][0] != first[0][0]
    assert len(pair.runs()) == 4


# -- processes that stop or die ------------------------------------------------------------------------


def test_a_first_process_that_is_stopped_leaves_none_waiting(pair: Pair) -> None:
    body = "run = tracklayer.init()\nrun.log({'x': jnp.float32(1)})\nglobals_run.append(run)"
    pair.both("import builtins; builtins.globals_run = []")
    pair.both(body)
    os.kill(pair.processes[0].pid, signal.SIGSTOP)
    try:
        pair.tell(
            1,
            """
            run = globals_run.pop()
            began = time.time()
            run.log({"x": jnp.float32(2)})
            seen = dict(run.summary), run.flush()
            run.finish()
            said = *seen, time.time() - began
            """,
        )
        values, flushed, seconds = pair.hear(1)
        assert (values, flushed) == ({"x": 2.0}, True)
        assert seconds < 2
        pair.tell(1, "at = time.time(); tracklayer.init().finish(); assert time.time() - at < 5")
        (warning,) = pair.hear_warnings(1)
        assert "process 0 does not answer; in this process (1 of 2) the run is called" in warning
    finally:
        os.kill(pair.processes[0].pid, signal.SIGCONT)
    pair.tell(0, "globals_run.pop().finish()")
    assert pair.hear_warnings(0) == []


def test_a_first_process_that_is_killed_leaves_its_record_and_none_that_hangs(tmp_path: Path) -> None:
    with two_processes(tmp_path) as pair:
        pair.both("import builtins; builtins.run = tracklayer.init(id='r'); run.log({'x': 1}); run.flush()")
        pair.tell(1, "while True: run.log({'x': 1}); time.sleep(0.01)")
        pair.processes[0].kill()
        pair.processes[0].wait(10)
        # JAX itself ends processes whose coordinator died; ours must not stand in its way
        pair.processes[1].wait(20)
        (run,) = pair.runs()
        assert run.info.state == "crashed"
        assert [row.values for row in run.rows()] == [{"x": 1}]


def test_a_forked_child_records_a_run_of_its_own_as_ever(tmp_path: Path) -> None:
    with two_processes(tmp_path) as pair:
        pair.both("said = tracklayer.init('p').id; tracklayer.finish()")
        pair.tell(
            1,
            """
            read, write = os.pipe()
            began = time.time()
            if os.fork() == 0:
                with tracklayer.init("p") as run:
                    run.log({"x": 1})
                os.write(write, run.id.encode())
                os._exit(0)
            said = os.read(read, 100).decode(), time.time() - began
            """,
        )
        run_id, seconds = pair.hear(1)
        assert seconds < 3
        assert [row.values for row in tracklayer.open_store(pair.store).run(run_id).rows()] == [{"x": 1}]


# -- one process ---------------------------------------------------------------------------------------


def test_init_leaves_jax_uninitialized_and_what_comes_later_is_several_processes(tmp_path: Path) -> None:
    done = Machine(tmp_path).run(
        """
        import jax, socket, sys
        import tracklayer
        from jax._src.xla_bridge import backends_are_initialized

        with tracklayer.init(id="before") as run:
            run.log({"x": 1})
        assert not backends_are_initialized()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % free.getsockname()[1]
        jax.distributed.initialize(address, num_processes=1, process_id=0)
        with tracklayer.init(id="after") as run:
            run.log({"x": 2})
        assert not backends_are_initialized()
        assert jax.process_count() == 1
        with tracklayer.init(id="at-last") as run:
            run.log({"x": 3})
        jax.distributed.shutdown()
        with tracklayer.init(id="alone-again") as run:
            run.log({"x": 4})
        """,
        JAX_PLATFORMS="cpu",
    )
    assert done.code == 0, done.stderr
    assert len(tracklayer.open_store(tmp_path / "store").runs()) == 4


def test_without_jax_none_of_this_is_imported(tmp_path: Path) -> None:
    Machine(tmp_path).run(
        """
        import sys
        import tracklayer

        with tracklayer.init(per_process=True) as run:
            run.log({"x": 1})
        assert not {"jax", "tracklayer.jax", "tracklayer.jax.processes"} & set(sys.modules)
        """
    ).well()


def test_jax_keeps_its_private_state_where_we_read_it() -> None:
    from jax._src import distributed, xla_bridge

    state = distributed.global_state
    assert (state.process_id, state.num_processes, state.client) == (0, 1, None)
    assert callable(xla_bridge.backends_are_initialized)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TRACKLAYER_DIR", str(tmp_path / "store"))
    yield tmp_path / "store"
    run = tracklayer.lifecycle.open_run()  # type: ignore[attr-defined] # a submodule, imported by now
    if run is not None:
        run.finish()


def test_a_run_a_process_has_the_same_form_where_there_is_but_one(store: Path) -> None:
    with tracklayer.init(id="r", name="n", per_process=True) as run:
        assert (run.id, run.name, run.info.group) == ("r-0", "n-0", "r")
    with tracklayer.init(per_process=True, group="g") as run:
        assert (run.name, run.info.group) == (run.id, "g")
        assert run.id.endswith("-0")
    with pytest.raises(UsageError, match="has 130 characters"):
        tracklayer.init(id="r" * 128, per_process=True)


def test_a_run_a_process_is_resumed_as_such(store: Path) -> None:
    def attempt(project: str = "p", **arguments: Any) -> tuple[str, bool]:
        run = tracklayer.init(project, resume="auto", **arguments)
        run.finish(1)
        return run.id, run.resumed

    attempt()
    first, _ = attempt("q", per_process=True)
    assert attempt("q", per_process=True) == (first, True)
    assert not attempt("p", per_process=True)[1], "that was no run of one process of several"
    assert not attempt("q", per_process=True, group="g")[1]
    assert not attempt("q", per_process=True, name="n")[1]
    assert attempt("q", per_process=True, name="n")[1]


def test_a_previous_run_that_is_asked_for_is_returned_without_a_word_to_others(store: Path) -> None:
    first = tracklayer.init(per_process=True)
    assert tracklayer.init(per_process=True, reinit="return_previous") is first


@pytest.mark.parametrize("resume", [None, "auto"])
def test_processes_that_cannot_talk_say_so_and_still_only_the_first_records(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, resume: str | None
) -> None:
    monkeypatch.setattr(agreeing, "place", lambda: (1, 2, None))
    with tracklayer.init(resume=resume) as run:
        run.log({"x": 1})
    assert len(warnings(caplog)) == 1
    assert "this is process 1 of 2, but jax.distributed is not initialized" in warnings(caplog)[0]
    assert not store.exists()
    with tracklayer.init(id="r"):
        pass
    assert len(warnings(caplog)) == 1, "with an id there is nothing to say"
