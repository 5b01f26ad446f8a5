"""`tracklayer agent`: work on a sweep's trials, by running its program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracklayer.cli import failures
from tracklayer.cli.finding import server_has_sweeps
from tracklayer.cli.informing import informed
from tracklayer.cli.options import dir_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command("agent")
@click.argument("ref", metavar="SWEEP")
@click.option(
    "--count", type=click.IntRange(min=1), metavar="N", help="Work on N trials; by default, on all there are."
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="K",
    help="Trials that are worked on at a time.",
)
@click.option("--project", metavar="P", help="The sweep's project, to be sure that it is the one meant.")
@click.option("--entity", metavar="E", help="The sweep's entity, likewise.")
@dir_option
@click.pass_context
def command(
    context: click.Context,
    *,
    ref: str,
    count: int | None,
    jobs: int,
    project: str | None,
    entity: str | None,
    folder: Path | None,
) -> None:
    """Run a sweep's program, trial after trial.

    It ends when the sweep has no more.  Start it where the program lies; as many agents as you like, on
    all machines that see the store.  What it does is told on stderr.  SWEEP is a sweep's id, the beginning
    of one that no other sweep's id has, or PROJECT/ID.

    A program finds the number of its job, from 0 on, in TRACKLAYER_JOB: with several GPUs, have the
    sweep's command set CUDA_VISIBLE_DEVICES=${envvar:TRACKLAYER_JOB} behind ${env}.

    Ctrl-C and SIGTERM are passed on to the programs, whose trials are then tried again by the next agent.

    The exit code is 1 if the first three trials failed, and the agent gave up.
    """
    from tracklayer.settings import store_folder
    from tracklayer.sweeps.agents import agent, find_sweep, work_programs

    with informed():
        if server_has_sweeps(folder):
            if jobs > 1:
                msg = "--jobs: an agent of W&B's works on one trial at a time; start several agents"
                raise click.UsageError(msg)
            agent(ref, None, entity, project, count, dir=folder)
            return
        report = work_programs(find_sweep(store_folder(folder), ref, entity, project), count, jobs)
    if report.reason == "failing":
        context.exit(failures.FAILED)
