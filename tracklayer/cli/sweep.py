"""`tracklayer sweep`: create one, and what can be done with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import click

from tracklayer.cli import output, sweep_show
from tracklayer.cli.finding import find_sweep
from tracklayer.cli.informing import informed
from tracklayer.cli.options import dir_option
from tracklayer.sweeps import RETRIES

if TYPE_CHECKING:
    from tracklayer.sweeps.study import State

_CREATE: Final = "create"


@final
class _CreatesByDefault(click.Group):
    """A group whose first word may be a file: that is then what `create` is given, with its options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command's name before a word that is none, and before an option of `create`."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            self._check(args[0])
            args = [_CREATE, *args]
        return super().parse_args(ctx, args)

    def _check(self, word: str) -> None:
        """Refuse a command that is misspelled, or an option, as it is in W&B's command line."""
        if word.removeprefix("--") in self.commands:
            msg = f"{word} is a command here: `tracklayer sweep {word[2:]} SWEEP`"
            raise click.UsageError(msg)
        if not word.startswith("-") and not Path(word).exists():
            from tracklayer.naming import did_you_mean

            if meant := did_you_mean(word, list(self.commands)):
                msg = f"{word!r} is no command, and no file{meant}"
                raise click.UsageError(msg)


@click.group(
    "sweep",
    cls=_CreatesByDefault,
    options_metavar="",
    subcommand_metavar="FILE [OPTIONS] | COMMAND SWEEP [OPTIONS]",
)
def command() -> None:
    """Create a sweep of a configuration file, or look after one.

    `tracklayer sweep FILE` is short for `tracklayer sweep create FILE`; a file that is called as one of
    the commands is ./show.  SWEEP is a sweep's id, the beginning of one that no other sweep's id has, or
    PROJECT/ID.
    """


@command.command(_CREATE)
@click.argument("file")
@click.option("--project", metavar="P", help="The project of its runs, instead of the file's.")
@click.option("--entity", metavar="E", help="W&B's user or team, instead of the file's.")
@click.option("--seed", type=int, metavar="N", help="Make it repeatable, where one agent works on it.")
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=RETRIES,
    show_default=True,
    metavar="N",
    help="How often a trial is tried again whose process died.",
)
@click.option(
    "--prior-run",
    "-R",
    "prior_runs",
    multiple=True,
    metavar="RUN",
    help="A recorded run that counts as a trial; may be given several times.",
)
@dir_option
def create(
    *,
    file: str,
    project: str | None,
    entity: str | None,
    seed: int | None,
    retries: int,
    prior_runs: tuple[str, ...],
    folder: Path | None,
) -> None:
    """Create a sweep of FILE, and print its id.

    FILE is W&B's configuration of a sweep, in YAML or JSON.  Only the id is printed on stdout, as in
    `tracklayer agent $(tracklayer sweep sweep.yaml)`.  With W&B as the backend, it is a sweep of W&B's
    server.
    """
    from tracklayer.sweeps.creating import sweep

    with informed():
        sweep_id = sweep(file, entity, project, prior_runs, seed=seed, retries=retries, dir=folder)
    output.echo(sweep_id)


@command.command("pause")
@click.argument("ref", metavar="SWEEP")
@dir_option
def pause(*, ref: str, folder: Path | None) -> None:
    """Let agents begin no trials until it is resumed.

    Trials that run go on to their end, and the agents wait.
    """
    _set_state(folder, ref, "paused", "agents begin no trials until it is resumed")


@command.command("resume")
@click.argument("ref", metavar="SWEEP")
@dir_option
def resume(*, ref: str, folder: Path | None) -> None:
    """Let agents begin trials again.

    Those of a sweep that was stopped have ended: start new ones.
    """
    _set_state(folder, ref, "running", "agents begin trials")


@command.command("stop")
@click.argument("ref", metavar="SWEEP")
@dir_option
def stop(*, ref: str, folder: Path | None) -> None:
    """Let agents begin no more trials, and end.

    Trials that run go on to their end.
    """
    _set_state(folder, ref, "stopped", "its agents end once their trials have")


command.add_command(sweep_show.command)


def _set_state(folder: Path | None, ref: str, state: State, meaning: str) -> None:
    sweep = find_sweep(folder, ref)
    sweep.set_state(state)
    output.echo(f"{output.safe(sweep.id)} is {state}: {meaning}")
