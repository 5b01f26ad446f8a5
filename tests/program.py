"""The program as a person or a script runs it: what the tests of the command line share."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from machine import WAIT
from tracklayer.cli import main


def cli(*arguments: str | Path, expect: int = 0) -> Result:
    """Run the program; an exception that is not an exit code fails the test."""
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == expect, result.output
    return result


def read_json(*arguments: str | Path, expect: int = 0) -> Any:
    """Run the program; parse its output as a strict parser would."""

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is no JSON")

    return json.loads(cli(*arguments, "--json", expect=expect).stdout, parse_constant=refuse)


def on_a_terminal(*arguments: str, columns: int = 80, program: str | None = None, **environment: str) -> str:
    """Run the program, or a Python program of the test's that knows these tests' folder, on a terminal.

    Returns:
        What it wrote there.
    """
    settings = {"COLUMNS": str(columns), "LINES": "40", "TERM": "xterm-256color", **environment}
    command = ["-m", "tracklayer", *arguments]
    if program is not None:
        command = ["-c", program, str(Path(__file__).parent)]
    return terminal_output(command, env={**os.environ, **settings}).decode()


def terminal_output(command: Sequence[str], **where: Any) -> bytes:
    """Run Python on a terminal of 100 columns, well; return what it wrote there.

    Args:
        command: Python's arguments.
        where: `env` and `cwd`, as `subprocess` takes them.
    """
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (40, 100))
    with subprocess.Popen(
        [sys.executable, *command], stdin=terminal, stdout=terminal, stderr=terminal, **where
    ) as process:
        os.close(terminal)
        written = b""
        with contextlib.suppress(OSError):  # Linux: the terminal is closed
            while chunk := os.read(controller, 65536):
                written += chunk
        os.close(controller)
        assert process.wait(WAIT) == 0, written
    return written
