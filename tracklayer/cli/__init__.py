"""The command line: `tracklayer`, one module a command.

The modules import next to nothing at their top: `--help` must not wait for SQLAlchemy, rich or
numpy.
"""

from __future__ import annotations

import errno
from typing import Any, final

import click

from tracklayer import __version__
from tracklayer.cli import (
    agent,
    artifact,
    artifacts,
    backends,
    diff,
    export,
    failures,
    garbage,
    logs,
    media,
    push,
    recover,
    reproduce,
    runs,
    show,
    sweep,
    sweeps,
    wait,
)
from tracklayer.errors import TracklayerError


@final
class _Group(click.Group):
    """A group whose commands' errors are one line on stderr, and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn our errors, and the system's, into an exit code."""
        try:
            return super().invoke(ctx)
        except (TracklayerError, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader, such as `head`, has enough: click ends without a word
            failures.tell(error)
            ctx.exit(failures.exit_code(error))


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 1 failed; 2 the command was not understood; 3 no such run, "
    "artifact or sweep, or several match; 4 the store, a run's file, an artifact or a sweep cannot be read; "
    "124 `wait` took too long.",
)
@click.version_option(__version__, prog_name="tracklayer", help="Show the version and exit.")
def main() -> None:
    """Look at recorded runs and artifacts, run sweeps, and push runs to Weights & Biases.

    RUN is a run's id, the beginning of one that no other run's id has, or a name.  Runs are read
    from the folder that --dir or TRACKLAYER_DIR names, else from .tracklayer here.
    """


for _module in (
    runs,
    show,
    logs,
    media,
    diff,
    reproduce,
    wait,
    artifacts,
    artifact,
    sweeps,
    sweep,
    agent,
    push,
    export,
    garbage,
    recover,
    backends,
):
    main.add_command(_module.command)
