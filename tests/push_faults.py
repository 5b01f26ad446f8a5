"""What goes wrong during the pushes of `push_trials.py`: faults, and how they strike a push at work."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from push_recording import Plan
from wandb_server import Failure, Request, WandbServer

WAIT: Final = 150.0
"""Seconds after which a push counts as hung; a client whose server is away gives up long before."""

_PHASES: Final[dict[str, Callable[[Request], bool]]] = {
    "asking": lambda r: r.operation in {"Run", "RunState", "Viewer", "RunResumeStatus"},
    "beginning": lambda r: r.operation == "UpsertBucket",
    "rows": lambda r: r.has_history,
    "end": lambda r: bool(r.is_stream and r.body and r.body.get("complete")),
    "files": lambda r: r.operation == "CreateRunFiles" or (r.method == "PUT" and "/storage/run/" in r.path),
    "artifacts": lambda r: "Artifact" in (r.operation or "") or "/storage/blob/" in r.path,
}
"""The phases of a push, by a request that belongs to each."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong during a push, at its n-th request of some phase."""

    name: str
    phase: str
    nth: int
    seconds: float
    """Before a kill, of an outage, or of a delay."""
    times: int
    """Requests in a row, of any kind, that fail."""

    def __str__(self) -> str:
        return f"{self.name} at {self.phase} {self.nth} ({self.seconds:.2f} s, {self.times} times)"


_KILLS: Final[dict[str, tuple[bool, bool]]] = {
    "push killed": (True, False),
    "client killed": (False, True),
    "both killed": (True, True),
    "both killed, a request on its way": (True, True),
}
"""Whether the pushing process is killed, and whether its client is."""
_REFUSALS: Final[dict[str, Failure]] = {
    "error 500": Failure(500),
    "error 503": Failure(503),
    "error 429": Failure(429),
    "error 429, retry after": Failure(429, retry_after=1),
    "connection cut": Failure(drop=True),
    "answer lost": Failure(drop=True, carried_out=True),
    "answer cut": Failure(cut=True),
}
_SIGNALS: Final = {"terminated": signal.SIGTERM, "interrupted": signal.SIGINT}
_FAULTS: Final = (
    *(name for name in _KILLS for _ in range(3)),
    *_REFUSALS,
    *_SIGNALS,
    *(["server restarted"] * 2),
    "slow request",
    "slow answer",
    "second push",
)


def draw_fault(dice: random.Random, plans: Sequence[Plan]) -> Fault:
    """Draw a fault that can come in pushes of these runs."""
    phases = [*_PHASES, "rows", "rows"]
    if not any(phase.artifacts for plan in plans for phase in plan.phases):
        phases.remove("artifacts")
    if not any(phase.prints or phase.has_media for plan in plans for phase in plan.phases):
        phases.remove("files")
    return Fault(
        dice.choice(_FAULTS),
        dice.choice(phases),
        dice.choice([1, 1, 1, 2, 3]),
        dice.choice([0.0, 0.01, 0.1, 0.5, 1.2]),
        dice.choice([1, 1, 2, 4]),
    )


class Push:
    """A `tracklayer push` of all runs, in a process of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._where = folder, environment
        command = [sys.executable, "-m", "tracklayer", "push", "--all", "--json"]
        self.process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def another(self) -> Push:
        """Start a second push of the same runs."""
        return Push(*self._where)

    def clients(self) -> list[psutil.Process]:
        """Return the wandb clients' own processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in children if "wandb-core" in child.name()]
        return []

    def end(self) -> tuple[list[dict[str, Any]], str]:
        """Wait for its end; return its report of each run, if it was not killed, and its complaints."""
        try:
            out, err = self.process.communicate(timeout=WAIT)
        except subprocess.TimeoutExpired:
            clients = self.clients()
            self.process.send_signal(signal.SIGABRT)  # says where its threads are
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.communicate(timeout=5)
            for one in (self.process, *clients):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            out, err = self.process.communicate()
            msg = f"a push hangs: {out[-2000:]} {err[-6000:]}"
            raise TimeoutError(msg) from None
        with contextlib.suppress(ValueError):
            return list(json.loads(out)["runs"]), err
        return [], err


class Strike:
    """Has a fault strike, once, when its moment comes; called by the server with each request."""

    def __init__(self, fault: Fault, push: Push, server: WandbServer) -> None:
        self.struck = False
        self.lost_answers = 0
        self.others: list[Push] = []
        self._fault = fault
        self._push = push
        self._server = server
        self._seen = 0
        self._left = fault.times
        self._thread: threading.Thread | None = None

    def __call__(self, request: Request) -> Failure | None:
        """Count the request, and say what goes wrong with it."""
        if not self.struck:
            self._seen += _PHASES[self._fault.phase](request)
            if self._seen < self._fault.nth or self._push.process.poll() is not None:
                return None
            self.struck = True
            return self._strike(request)
        if self._left > 0 and self._fault.name in _REFUSALS:
            return self._refuse(request)
        return None

    def end(self) -> None:
        """Wait until what was begun is done."""
        if self._thread is not None:
            self._thread.join()

    def _strike(self, request: Request) -> Failure | None:
        fault = self._fault
        if fault.name in _REFUSALS:
            return self._refuse(request)
        if fault.name == "slow request":
            return Failure(delay=1 + fault.seconds)
        if fault.name == "slow answer":
            return Failure(answer_delay=1 + fault.seconds)
        clients = self._push.clients()
        self._thread = threading.Thread(target=self._act, args=(clients,), daemon=True)
        self._thread.start()
        return Failure(delay=0.8) if "on its way" in fault.name else None

    def _refuse(self, request: Request) -> Failure:
        self._left -= 1
        failure = _REFUSALS[self._fault.name]
        self.lost_answers += request.has_history and (failure.cut or failure.carried_out)
        return failure

    def _act(self, clients: list[psutil.Process]) -> None:
        fault = self._fault
        if fault.name == "server restarted":
            self._server.stop()
            self.lost_answers += 1
            time.sleep(fault.seconds * 2)
            self._server.start()
            return
        time.sleep(min(fault.seconds, 0.5) if "on its way" in fault.name else fault.seconds)
        if fault.name == "second push":
            self.others.append(self._push.another())
            return
        if fault.name in _SIGNALS:
            self._push.process.send_signal(_SIGNALS[fault.name])
            return
        kills_push, kills_client = _KILLS[fault.name]
        if kills_push:
            self._push.process.kill()
        for client in clients if kills_client else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                client.kill()
