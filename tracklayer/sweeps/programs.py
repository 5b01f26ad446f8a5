"""Trials of a program: the sweep's command with a trial's parameters in it, as a child process.

The macros of a command are W&B's, as its client fills them in (`wandb.wandb_agent` and
`wandb.sdk.launch.sweeps.utils`, 0.31).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from tracklayer import reporting
from tracklayer.errors import UsageError
from tracklayer.lifecycle import ended_by_signal
from tracklayer.sweeps.current import AGENT, SWEEP, TRIAL

if TYPE_CHECKING:
    from tracklayer.sweeps.claiming import ClaimedTrial
    from tracklayer.sweeps.configuration import SweepConfig
    from tracklayer.sweeps.leases import Lease

_VARIABLE: Final = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
_JSON_FILE: Final = "parameters.json"
_OF_ONE_RUN: Final = ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_ID")
"""W&B's variables that would make something else of a trial's run."""


def command_of(
    config: SweepConfig,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    json_file: str | os.PathLike[str],
) -> list[str]:
    """Return the command of a trial, its macros filled in.

    A list is one argument, and so are nested parameters, as Python writes them: `--layers=[64, 32]`.  A word
    that is a macro of nobody's is left out, and `${envvar:NAME}` of a variable that is not set becomes its
    name: so W&B has it.

    Args:
        config: the sweep's.
        parameters: the trial's, nested.
        environment: where `${envvar:NAME}` finds its values.
        json_file: what `${args_json_file}` stands for.
    """
    flags = [f"{name}={value}" for name, value in parameters.items()]
    macros = {
        "env": ["/usr/bin/env"] if os.name == "posix" else [],
        "interpreter": [sys.executable],
        "program": [config.program] if config.program else [],
        "args": [f"--{flag}" for flag in flags],
        "args_no_hyphens": flags,
        "args_no_equals": [word for name, value in parameters.items() for word in (f"--{name}", str(value))],
        "args_no_boolean_flags": [
            f"--{name}" if value is True else f"--{name}={value}"
            for name, value in parameters.items()
            if value is not False
        ],
        "args_append_hydra": [f"+{flag}" for flag in flags],
        "args_override_hydra": [f"++{flag}" for flag in flags],
        "args_json": [json.dumps(parameters)],
        "args_json_file": [str(json_file)],
    }
    words: list[str] = []
    for given in config.command:
        word = _VARIABLE.sub(lambda found: environment.get(found[1], found[1]), given)
        words += macros.get(word[2:-1], []) if word.startswith("${") and word.endswith("}") else [word]
    return words


def check_program(config: SweepConfig) -> None:
    """Make sure that the command of a sweep can be run here, before a trial is claimed for it.

    Raises:
        UsageError: it names no program, or one that is not here; the message says where it was looked for.
    """
    if "${program}" in config.command:
        if not config.program:
            msg = "the sweep's configuration names no `program`: name it there, or give `agent` a function"
            raise UsageError(msg)
        _check_found(config.program)
    words = command_of(config, {}, os.environ, _JSON_FILE)
    if not words:
        msg = "the sweep's `command` is empty: give it a program"
        raise UsageError(msg)
    _check_found(words[0])


def _check_found(program: str) -> None:
    if not Path(program).is_file() and shutil.which(program) is None:
        where = "" if Path(program).is_absolute() else f" in {Path.cwd()}, nor on the PATH"
        msg = f"the sweep's program {program!r} is not there{where}: start the agent where it lies"
        raise UsageError(msg)


@final
class Children:
    """The child processes of an agent, each with a trial; its threads share one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ending = False

    def run(self, claimed: ClaimedTrial, lease: Lease, job: int) -> None:
        """Run the program of a trial to its end, and make sure that the trial has one, too.

        Args:
            claimed: the trial.
            lease: the agent's.
            job: which of the agent's jobs it is: `TRACKLAYER_JOB` of the program.

        Raises:
            OSError: the program cannot be started.
        """
        environment = _environment(claimed, lease, job)
        with tempfile.TemporaryDirectory(prefix="tracklayer-trial-") as folder:
            json_file = Path(folder) / _JSON_FILE
            json_file.write_text(json.dumps(claimed.parameters), encoding="utf-8")
            command = command_of(claimed.sweep.config, claimed.parameters, environment, json_file)
            process = self._start(command, environment)
            if process is None:
                claimed.end("died")
                return
            try:
                code = process.wait()
            finally:
                with self._lock:
                    self._running.discard(process)
        _end(claimed, code)

    def signal(self, number: int) -> None:
        """Send a signal to the programs, and start none from now on."""
        with self._lock:
            self._ending = True
            for process in self._running:
                with suppress(ProcessLookupError):  # it ended just now
                    if os.name == "posix":
                        os.killpg(process.pid, number)
                    else:
                        process.terminate()

    def _start(self, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._ending:
                return None
            # a group of its own: Ctrl-C reaches it once, by the agent, and also what a script starts in turn
            process = subprocess.Popen(  # noqa: S603 - the command of the sweep's owner, and no shell
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                process_group=0 if os.name == "posix" else None,
            )
            self._running.add(process)
        return process


def _environment(claimed: ClaimedTrial, lease: Lease, job: int) -> dict[str, str]:
    """Return the environment of a trial's program, by which its `init` finds the trial."""
    return {name: value for name, value in os.environ.items() if name not in _OF_ONE_RUN} | {
        "TRACKLAYER_DIR": str(claimed.sweep.store),
        SWEEP: claimed.sweep.id,
        TRIAL: str(claimed.number),
        AGENT: lease.id,
        "TRACKLAYER_JOB": str(job),
    }


def _end(claimed: ClaimedTrial, code: int) -> None:
    """Tell the end of a trial whose program ended, unless its run told it."""
    if code < 0 or ended_by_signal(code):
        if claimed.end("died"):
            reporting.warn(f"{claimed}: its program was ended by signal {-code if code < 0 else code - 128}")
    elif claimed.end("failed"):
        reporting.warn(
            f"{claimed}: its program ended with code {code}, and no run of it told the trial's end: "
            "it is to call tracklayer.init, and to finish that run"
        )
