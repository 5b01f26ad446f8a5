"""What an error is on the command line: one line on stderr, and an exit code."""

from __future__ import annotations

import re
from typing import Final

import click

from tracklayer.cli.output import printable
from tracklayer.errors import (
    AmbiguousArtifactError,
    AmbiguousRunError,
    ArtifactNotFoundError,
    RunNotFoundError,
    StoreError,
    SweepNotFoundError,
    UsageError,
)

FAILED: Final = 1
NOT_UNDERSTOOD: Final = 2
NOT_FOUND: Final = 3
UNREADABLE: Final = 4

_NOT_FOUND: Final = (
    RunNotFoundError,
    AmbiguousRunError,
    ArtifactNotFoundError,
    AmbiguousArtifactError,
    SweepNotFoundError,
)
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/@\s]+@")


def exit_code(error: Exception) -> int:
    """Return what the program exits with."""
    if isinstance(error, UsageError):
        return NOT_UNDERSTOOD
    if isinstance(error, _NOT_FOUND):
        return NOT_FOUND
    return UNREADABLE if isinstance(error, StoreError) else FAILED


def one_line(text: str) -> str:
    """Return a message as one printable line, without the passwords that a URL may hold."""
    return printable(without_credentials(" ".join(text.splitlines())))


def without_credentials(text: str) -> str:
    """Return text without the user names and passwords of the URLs in it."""
    return _CREDENTIALS.sub("", text)


def describe(error: Exception) -> str:
    """Return what happened, in one line."""
    if isinstance(error, OSError) and error.strerror:
        about = "" if error.filename is None else f"{error.filename}: "
        return one_line(f"{about}{error.strerror}")
    return one_line(str(error) or type(error).__name__)


def tell(error: Exception) -> None:
    """Print an error on stderr."""
    tell_line(describe(error))


def tell_line(message: str) -> None:
    """Print a message on stderr, marked as ours."""
    click.echo(f"tracklayer: {message}", err=True)  # stderr escapes what its encoding lacks
