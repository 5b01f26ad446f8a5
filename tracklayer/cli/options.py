"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_DIR: Final = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The store's folder; by default that of TRACKLAYER_DIR, else .tracklayer.",
)
_JSON: Final = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='Print JSON; NaN and the infinities are the strings "NaN", "Infinity" and "-Infinity".',
)
_PROJECT: Final = click.option(
    "--project",
    metavar="P",
    help="The artifact's project, where several have one of that name.",
)


def dir_option(command: _Command) -> _Command:
    """Add `--dir`, as the argument `folder`."""
    return _DIR(command)


def json_option(command: _Command) -> _Command:
    """Add `--json`, as the argument `as_json`."""
    return _JSON(command)


def artifact_options(command: _Command) -> _Command:
    """Add what every command on one artifact takes: `--project`, `--dir` and `--json`."""
    return _PROJECT(_DIR(_JSON(command)))
