"""The README's examples run, and what it promises exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tracklayer.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"<!-- example -->\n```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("code", EXAMPLES, ids=[f"example {n}" for n in range(1, len(EXAMPLES) + 1)])
def test_an_example_runs_without_a_word_on_stderr(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


def test_the_training_loop_is_short() -> None:
    assert len([line for line in EXAMPLES[0].splitlines() if line.strip()]) <= 15


def test_every_command_is_named() -> None:
    assert isinstance(main, click.Group)
    for name in main.commands:
        assert f"`tracklayer {name}" in README or f"\ntracklayer {name}" in README


@pytest.mark.parametrize("name", ["main", "test"])
def test_each_of_the_two_commands_is_one_line(name: str) -> None:
    (command,) = re.findall(rf"<!-- {name} command -->\n```sh\n(.*?)\n```", README, re.DOTALL)
    assert command.startswith("python3 -m venv")
    assert "\n" not in command


def test_every_file_that_it_names_is_there() -> None:
    for path in re.findall(r"(?:examples|benchmarks|backends|tests)/[\w/]+\.\w+", README):
        assert (ROOT / path).exists(), path
