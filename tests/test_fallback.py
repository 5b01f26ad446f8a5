"""When W&B, or another backend, is not there: training goes on, nothing is lost, one line says so.

The wandb client and the processes are real; what fails is the server, the package or the client.
"""

from __future__ import annotations

import os
import pty
import site
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

import tensorboard_oracle
from machine import Ended, Machine, Started, killed_at_the_end, wait_until
from wandb_server import Failure, ServedRun, WandbServer

Fault: TypeAlias = Callable[[WandbServer, Machine], None]
MidFault: TypeAlias = Callable[[WandbServer, Started], None]

STEPS = 100
START = 10.0  # seconds
PAUSE = 0.5  # seconds that no `log` call takes, on a machine that does other things too

TRAIN = """
import json, sys, time
import tracklayer

began = time.monotonic()
run = tracklayer.init(project="p", id="r", config={"lr": 0.1})
start, slowest = time.monotonic() - began, 0.0
for step in range(100):
    if step == 50:
        print("half", flush=True)
        sys.stdin.readline()
    before = time.monotonic()
    run.log({"loss": 1 / (step + 1), "i": step}, step=step)
    slowest = max(slowest, time.monotonic() - before)
    time.sleep(0.002)
print(json.dumps({"start": start, "slowest": slowest}), flush=True)
"""


@pytest.fixture
def machine(tmp_path: Path, server: WandbServer) -> Machine:
    return Machine(tmp_path, server, TRACKLAYER_BACKEND="wandb", TRACKLAYER_FINISH_TIMEOUT="2")


def assert_training_went_on(ended: Ended) -> None:
    assert ended.code == 0, ended.stderr
    assert ended.said["start"] < START
    assert ended.said["slowest"] < PAUSE
    assert ended.seconds < 2 + 3, "the end waits no longer than for TRACKLAYER_FINISH_TIMEOUT"


def the_line(ended: Ended) -> str:
    """The one line that tells of it."""
    (line,) = ended.complaints
    assert line.startswith("tracklayer: wandb ")
    assert "`tracklayer push r`" in line
    return line


def assert_recorded(machine: Machine) -> None:
    reader = machine.recorded()
    assert reader.info.state == "finished"
    assert reader.config == {"lr": 0.1}
    assert reader.metric("i").step.tolist() == list(range(STEPS))
    assert reader.metric("i").value.tolist() == list(range(STEPS))
    assert len(reader.metric("loss")) == STEPS


def assert_pushed(machine: Machine, server: WandbServer) -> None:
    """Push, and demand that each row is on the server, and was sent once."""
    pushed = machine.push("r", WANDB_API_KEY=server.environment(machine.folder / "home")["WANDB_API_KEY"])
    assert (pushed["outcome"], pushed["code"], pushed["stderr"]) == ("sent", 0, "")
    assert pushed["total"] == STEPS
    assert_delivered(server.runs["r"])


def assert_delivered(run: ServedRun) -> None:
    assert [row["_step"] for row in run.history] == list(range(STEPS))
    assert [row["i"] for row in run.history] == list(range(STEPS))
    sent = [line for start, count in run.history_ranges for line in range(start, start + count)]
    assert sorted(sent) == list(range(STEPS)), "no line is sent twice, none is left out"
    assert run.summary["i"] == STEPS - 1
    assert (run.state, run.config) == ("finished", {"lr": 0.1})


# -- at the start ----------------------------------------------------------------------------------


def no_key(server: WandbServer, machine: Machine) -> None:
    machine.environment.pop("WANDB_API_KEY")


def no_package(server: WandbServer, machine: Machine) -> None:
    """Install all but wandb into a folder, and let the script see nothing else."""
    folder = machine.folder / "site-packages"
    folder.mkdir()
    for entry in filter(Path.is_dir, map(Path, site.getsitepackages())):  # Debian's Python names one more
        for installed in entry.iterdir():
            if not installed.name.startswith("wandb"):
                (folder / installed.name).symlink_to(installed)
    (machine.folder / "wandb").mkdir()  # the client's folder of runs, which is no package
    sources = Path(__file__).parent.parent
    path = os.pathsep.join(map(str, (folder, sources, sources / "backends")))
    machine.environment |= {"PYTHONPATH": path, "PYTHONNOUSERSITE": "1"}


def nobody_listens(server: WandbServer, machine: Machine) -> None:
    server.stop()


def nobody_answers(server: WandbServer, machine: Machine) -> None:
    server.fail = lambda _: Failure(delay=60, drop=True)


def unauthorized(server: WandbServer, machine: Machine) -> None:
    server.fail = lambda _: Failure(status=401, message="user is not logged in")


def server_error(server: WandbServer, machine: Machine) -> None:
    server.fail = lambda _: Failure(status=500, message="the database is away")


def wrong_key(server: WandbServer, machine: Machine) -> None:
    machine.environment["WANDB_API_KEY"] = "short"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (no_package, "pip install 'tracklayer[wandb]'"),
        (no_key, "no API key for http://127.0.0.1"),
        (wrong_key, "API key must have 40+ characters"),
        (nobody_listens, "connection refused"),
        (nobody_answers, "giving up"),
        (unauthorized, "user is not logged in"),
        (server_error, "giving up"),
    ],
)
def test_a_failure_at_the_start_costs_one_line_and_a_push_makes_it_good(
    server: WandbServer, machine: Machine, fault: Fault, reason: str
) -> None:
    before = dict(machine.environment)
    fault(server, machine)
    python = ("-S",) if fault is no_package else ()
    lenient = machine.start(TRAIN, python=python)
    strict = machine.start(
        TRAIN,
        python=python,
        TRACKLAYER_FALLBACK="error",
        TRACKLAYER_DIR=str(machine.folder / "other"),
    )
    with killed_at_the_end(lenient, strict):
        lenient.hear()
        lenient.tell()
        ended = lenient.end()
        assert_training_went_on(ended)
        assert reason in the_line(ended)
        assert_recorded(machine)

        refused = strict.end()
        assert refused.code == 1
        assert refused.complaints[-1].startswith("tracklayer.errors.BackendUnavailableError: wandb ")
        assert reason in refused.complaints[-1]
        assert refused.stdout == ""

    server.fail = None
    server.start()
    machine.environment = before
    assert_pushed(machine, server)


@pytest.mark.slow
def test_nobody_is_asked_for_a_key_on_a_terminal(machine: Machine) -> None:
    machine.environment.pop("WANDB_API_KEY")
    controller, terminal = pty.openpty()
    with os.fdopen(controller, "rb", buffering=0) as screen:
        started = machine.start(
            TRAIN.replace("sys.stdin.readline()", "pass"), stdin=terminal, stderr=terminal
        )
        os.close(terminal)
        with killed_at_the_end(started):
            ended = started.end()
        shown = screen.read(10_000).decode()
    assert ended.code == 0
    (line,) = shown.splitlines()
    assert line.startswith("tracklayer: wandb is not recording: no API key")
    assert_recorded(machine)


# -- in the middle ---------------------------------------------------------------------------------


def goes_away(server: WandbServer, started: Started) -> None:
    server.stop()


def answers_401(server: WandbServer, started: Started) -> None:
    server.fail = lambda _: Failure(status=401, message="user is not logged in")


def answers_500(server: WandbServer, started: Started) -> None:
    server.fail = lambda _: Failure(status=500)


def client_is_killed(server: WandbServer, started: Started) -> None:
    started.client().kill()


def client_is_frozen(server: WandbServer, started: Started) -> None:
    started.client().suspend()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (goes_away, "did not confirm the whole run in time"),
        (answers_401, "does not show that the run ended"),
        (answers_500, "did not confirm the whole run in time"),
        (client_is_killed, "the wandb client's process is gone"),
        (client_is_frozen, "did not get all of the run"),
    ],
)
def test_a_failure_in_mid_run_costs_one_line_and_a_push_makes_it_good(
    server: WandbServer, machine: Machine, fault: MidFault, reason: str
) -> None:
    started = machine.start(TRAIN)
    with killed_at_the_end(started):
        started.hear()
        wait_until(lambda: server.runs["r"].history)
        fault(server, started)
        started.tell()
        ended = started.end()
    assert_training_went_on(ended)
    assert reason in the_line(ended)
    assert_recorded(machine)
    assert len(server.runs["r"].history) < STEPS
    server.fail = None
    server.start()
    assert_pushed(machine, server)


@pytest.mark.slow
def test_a_server_that_comes_back_in_time_costs_nothing(server: WandbServer, machine: Machine) -> None:
    started = machine.start(TRAIN, TRACKLAYER_FINISH_TIMEOUT="30")
    with killed_at_the_end(started):
        started.hear()
        wait_until(lambda: server.runs["r"].history)
        server.stop()
        started.tell()
        server.start()
        started.end().well()
    assert_delivered(server.runs["r"])


@pytest.mark.slow
def test_a_client_that_does_not_end_does_not_keep_the_process(server: WandbServer, machine: Machine) -> None:
    started = machine.start("""
        import sys, tracklayer
        with tracklayer.init(project="p", id="r") as run:
            run.log({"i": 1})
        print("finished", flush=True)
        sys.stdin.readline()
        """)
    with killed_at_the_end(started):
        assert started.hear() == "finished"
        started.client().suspend()
        started.tell()
        ended = started.end().well()
    assert ended.seconds < 30
    assert server.runs["r"].state == "finished"


# -- other backends beside it ----------------------------------------------------------------------

SICK = """
import time
from tracklayer.protocol import Backend

class SickRun:
    def __init__(self, info):
        self.info = info
    def log(self, values, *, step, time): ...
    def update_config(self, config): ...
    def update_summary(self, summary): ...
    def log_artifact(self, artifact): ...
    def commit(self): ...
    def finish(self, status): ...

def hang(*args, **kwargs):
    time.sleep(3600)

def fail(*args, **kwargs):
    raise RuntimeError("out of order")

def open_run(info, resume, settings):
    return SickRun(info)

{sickness}

backend = Backend(name="sick", summary="does not work", open=open_run)
"""


def install(machine: Machine, sickness: str) -> None:
    """Install a plug-in backend that does not work."""
    folder = machine.folder / "plugin"
    metadata = folder / "tracklayer_sick-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tracklayer-sick\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[tracklayer.backends]\nsick = tracklayer_sick:backend\n")
    (folder / "tracklayer_sick.py").write_text(SICK.replace("{sickness}", sickness))
    machine.environment["PYTHONPATH"] = str(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sickness", "reports"),
    [
        ("open_run = fail", ["sick is not recording"]),
        ("open_run = hang", ["sick has not answered within 9 s", "sick took nothing for 2 s"]),
        ("SickRun.log = fail", ["sick refused a call"]),
        ("SickRun.log = hang", ["sick took nothing for 2 s"]),
        ("SickRun.finish = hang", ["sick took nothing for 2 s"]),
        ("import nowhere", ["sick is not recording"]),
    ],
)
def test_a_backend_that_fails_or_hangs_harms_no_other(
    server: WandbServer, machine: Machine, sickness: str, reports: list[str]
) -> None:
    install(machine, sickness)
    started = machine.start(TRAIN, TRACKLAYER_BACKEND="sqlite,tensorboard,sick,wandb")
    with killed_at_the_end(started):
        started.hear()
        started.tell()
        ended = started.end()
    assert_training_went_on(ended)
    assert len(ended.complaints) == len(reports), ended.stderr
    for line, report in zip(ended.complaints, reports, strict=True):
        assert line.startswith(f"tracklayer: {report}")
    assert_recorded(machine)
    assert_delivered(server.runs["r"])
    shown = tensorboard_oracle.read(machine.store / "tensorboard" / "p" / "r")
    assert [step for step, _ in shown.steps("i")] == list(range(STEPS))


@pytest.mark.slow
def test_wandb_that_is_away_harms_no_other(server: WandbServer, machine: Machine) -> None:
    unauthorized(server, machine)
    started = machine.start(TRAIN, TRACKLAYER_BACKEND="wandb,tensorboard")
    with killed_at_the_end(started):
        started.hear()
        started.tell()
        ended = started.end()
    assert_training_went_on(ended)
    the_line(ended)
    assert_recorded(machine)
    shown = tensorboard_oracle.read(machine.store / "tensorboard" / "p" / "r")
    assert [step for step, _ in shown.steps("i")] == list(range(STEPS))


# -- modes -----------------------------------------------------------------------------------------

SHORT = """
import sys
import tracklayer
with tracklayer.init(project="p", id="r", mode=sys.argv[1] if sys.argv[1:] else None) as run:
    run.log({"a": 1})
print(run.url)
"""


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["offline"], {}),
        ([], {"WANDB_MODE": "offline"}),
        (["offline"], {"TRACKLAYER_BACKEND": "wandb,sqlite"}),
        (["offline"], {"TRACKLAYER_BACKEND": None}),
        ([], {"TRACKLAYER_BACKEND": "sqlite", "WANDB_MODE": "online"}),
        (["online"], {"TRACKLAYER_BACKEND": "sqlite"}),
    ],
)
def test_wandb_is_left_out_when_offline_or_when_the_environment_chose_another(
    server: WandbServer, machine: Machine, arguments: list[str], variables: dict[str, str | None]
) -> None:
    assert machine.run(SHORT, *arguments, **variables).well().stdout == "None\n"
    assert server.requests == []
    assert machine.recorded().metric("a").value.tolist() == [1]


@pytest.mark.parametrize(("arguments", "mode"), [(["disabled"], None), ([], "disabled")])
def test_a_disabled_run_records_nothing_anywhere(
    server: WandbServer, machine: Machine, arguments: list[str], mode: str | None
) -> None:
    machine.run(SHORT, *arguments, WANDB_MODE=mode).well()
    assert server.requests == []
    assert not machine.store.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "mode"), [(["online"], None), ([], "online")])
def test_online_means_wandb_where_the_environment_chose_no_backend(
    server: WandbServer, machine: Machine, arguments: list[str], mode: str | None
) -> None:
    ended = machine.run(SHORT, *arguments, TRACKLAYER_BACKEND=None, WANDB_MODE=mode).well()
    assert ended.stdout == f"{server.url}/tester/p/runs/r\n"
    assert server.runs["r"].summary["a"] == 1
