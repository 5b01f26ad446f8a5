"""A user's machine: scripts and commands run there, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, final

import psutil
import pytest

import tracklayer
from tracklayer.environment import PARTS

if TYPE_CHECKING:
    from tracklayer.reading import RunReader
    from wandb_server import WandbServer

WAIT = 120.0
"""Seconds after which a process counts as hung."""

# what the client would look for on its host takes time and shows nothing here
_QUICK_CLIENT = {
    "WANDB_X_DISABLE_STATS": "true",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_X_SAVE_REQUIREMENTS": "false",
}
QUICK_RECORD = {
    "TRACKLAYER_CONSOLE": "off",
    "TRACKLAYER_SYSTEM_INTERVAL": "0",
    "TRACKLAYER_OMIT": ",".join(sorted(PARTS - {"program", "host"})),
}
"""So little is recorded of what a process is, prints and measures, but where that is what is tested."""


@final
@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    """From its start, or since it was last told something."""

    @property
    def said(self) -> Any:
        """The last line of standard output, as JSON."""
        assert self.stdout, self.stderr
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def complaints(self) -> list[str]:
        """The lines of stderr."""
        return self.stderr.splitlines()

    def well(self) -> Ended:
        """Demand that it went well, without a word on stderr."""
        assert (self.code, self.stderr) == (0, ""), f"{self.code}: {self.stderr}\n{self.stdout}"
        return self


@final
class Started:
    """A process that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._since = time.monotonic()

    def hear(self) -> str:
        """Wait for a line of its standard output."""
        line = _stream(self.process.stdout).readline().strip()
        if not line:
            pytest.fail(f"it said nothing, but on stderr: {self.end().stderr}")
        return line

    def tell(self, line: str = "go on") -> None:
        """Give it a line of standard input."""
        self._since = time.monotonic()
        print(line, file=_stream(self.process.stdin), flush=True)

    def client(self) -> psutil.Process:
        """Return the wandb client's own process."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        (found,) = [child for child in children if "wandb-core" in child.name()]
        return found

    def end(self) -> Ended:
        """Wait for its end."""
        try:
            stdout, stderr = self.process.communicate(timeout=WAIT)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it hangs; {self._last_words()}")
        # what these tests log is NaN now and then, which is reported, as it should be
        said = [line for line in (stderr or "").splitlines(keepends=True) if "not finite" not in line]
        return Ended(self.process.returncode, stdout, "".join(said), time.monotonic() - self._since)

    def _last_words(self) -> str:
        """Kill it, and return what it said, with where its threads are."""
        children = [child.name() for child in psutil.Process(self.process.pid).children(recursive=True)]
        for number in (signal.SIGABRT, signal.SIGKILL):
            self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                stdout, stderr = self.process.communicate(timeout=10)
                return f"its children: {children}; on stdout: {stdout}; on stderr: {stderr}"
        return f"its children, which keep its streams: {children}"


@final
class Machine:
    """A home, a store, and an environment.

    Args:
        folder: an empty one, for all of it.
        server: the W&B server that the environment names.
        environment: variables beside those that the machine needs; None takes one away.
    """

    def __init__(self, folder: Path, server: WandbServer | None = None, **environment: str | None) -> None:
        self.folder = folder
        self.store = folder / "store"
        (folder / "temporary").mkdir(parents=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "TRACKLAYER_"))}
        self.environment: dict[str, str | None] = {
            **kept,
            **_QUICK_CLIENT,
            **QUICK_RECORD,
            "PYTHONFAULTHANDLER": "1",
            **(server.environment(folder / "home") if server else {}),
            "TRACKLAYER_DIR": str(self.store),
            "TMPDIR": str(folder / "temporary"),
            **environment,
        }

    def start(
        self,
        script: str,
        *arguments: str,
        python: Sequence[str] = (),
        stdin: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        **environment: str | None,
    ) -> Started:
        """Start a Python script."""
        (self.folder / "train.py").write_text(textwrap.dedent(script))
        command = [*python, "train.py", *arguments]
        return self._start(command, environment, stdin=stdin, stderr=stderr)

    def run(self, script: str, *arguments: str, **environment: str | None) -> Ended:
        """Run a Python script to its end."""
        (self.folder / "train.py").write_text(textwrap.dedent(script))
        return self._start(["train.py", *arguments], environment).end()

    def tracklayer(self, *arguments: str, **environment: str | None) -> Ended:
        """Run the command line to its end."""
        return self._start(["-m", "tracklayer", *arguments], environment).end()

    def push(self, *arguments: str, **environment: str | None) -> Any:
        """Push, and return what it says as JSON of the one run, and the exit code."""
        done = self.tracklayer("push", *(arguments or ("--all",)), "--json", **environment)
        assert done.stdout, done.stderr
        (run,) = json.loads(done.stdout)["runs"]
        return {**run, "code": done.code, "stderr": done.stderr}

    def recorded(self, run_id: str = "r") -> RunReader:
        """Return what the store has of a run."""
        found = tracklayer.open_store(self.store).find(run_id)
        assert found is not None
        return found

    def _start(
        self,
        command: list[str],
        environment: Mapping[str, str | None],
        *,
        stdin: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> Started:
        given = {**self.environment, **environment}
        process = subprocess.Popen(
            [sys.executable, *command],
            env={name: value for name, value in given.items() if value is not None},
            cwd=self.folder,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        return Started(process)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def killed_at_the_end(*started: Started) -> Iterator[None]:
    """Let no process outlive a test that fails."""
    try:
        yield
    finally:
        for one in started:
            if one.process.poll() is None:
                one.process.kill()
            one.process.communicate()


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
