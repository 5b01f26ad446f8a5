"""`tracklayer export`: a run's file, whole, or the run as a folder from which another tool sends it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tracklayer.cli import failures, output
from tracklayer.cli.finding import catalog_of, find_run
from tracklayer.cli.options import dir_option
from tracklayer.errors import UsageError

if TYPE_CHECKING:
    from tracklayer.protocol import RunInfo
    from tracklayer.reading import RunReader, Store

_OWN_FORMAT: Final = "file"


@click.command("export")
@click.argument("ref", metavar="RUN")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The file to write, or for other formats the folder; it must not be there yet.",
)
@click.option(
    "--format",
    "backend",
    default=_OWN_FORMAT,
    show_default=True,
    metavar="FORMAT",
    help="`file`: the run's own file; `wandb`: a folder for `wandb sync`.",
)
@click.option(
    "--to",
    metavar="ENTITY/PROJECT",
    help="Where the run is to go, for formats of a server; by default as it was recorded.",
)
@dir_option
def command(*, ref: str, out: Path, backend: str, to: str | None, folder: Path | None) -> None:
    """Copy a run's file, whole, or write the run in another format.

    Also while the run is live or after a crash, when a plain copy would lack what still stands in
    its side files.  Media above 1 MiB, and files of artifacts, stay where they are stored; the command
    says how many there are.

    The folder that `--format wandb` writes holds all of that, too.  Copied to a machine that has wandb,
    and not tracklayer, it is sent from there by the command that is printed.  wandb does not look what
    its server has: sent twice, rows are there twice.  Where there is a network, use `tracklayer push`.
    """
    from tracklayer.registry import open_store

    store = open_store(folder)
    run = find_run(store, ref)
    if not out.absolute().parent.is_dir():
        msg = f"cannot write {out}: there is no folder {out.absolute().parent}"
        raise FileNotFoundError(msg)
    if backend != _OWN_FORMAT:
        _write_folder(store, run, _placed(run.info, to), backend, out.absolute())
        return
    if to is not None:
        msg = "--to is for the formats of servers, such as --format wandb"
        raise UsageError(msg)
    store.export(run.id, out)
    output.echo(f"run {run.id} is in {output.printable(str(out))}")
    made = [file for artifact in run.artifacts() for file in artifact.files if file.reference is None]
    left = run.contents() | {file.sha256: file.size for file in made}
    if left:
        files = "1 file" if len(left) == 1 else f"{len(left)} files"
        where = output.printable(catalog_of(store).location.url)
        output.echo(f"{files} of it, {sum(left.values())} bytes, stay in the store {where}")


def _placed(info: RunInfo, to: str | None) -> RunInfo:
    """Return what a run is to be on a server."""
    from tracklayer.settings import wandb_default

    if to is None:
        return replace(info, entity=info.entity or wandb_default("entity"))
    entity, _, project = to.partition("/")
    if not entity or not project or "/" in project:
        msg = f"--to {to!r}: use ENTITY/PROJECT"
        raise UsageError(msg)
    return replace(info, entity=entity, project=project)


def _write_folder(store: Store, run: RunReader, info: RunInfo, name: str, out: Path) -> None:
    from tracklayer.artifacts.describing import artifacts_now, named
    from tracklayer.registry import load
    from tracklayer.replaying import deliver
    from tracklayer.settings import ONLINE_BACKEND

    backend = load(name)
    if backend.export is None:
        msg = f"--format {name!r}: that backend has no such format; use {_OWN_FORMAT!r} or {ONLINE_BACKEND!r}"
        raise UsageError(msg)
    artifacts = artifacts_now(run, catalog_of(store))
    out.mkdir()
    try:
        delivery, send = backend.export(run, info, out)
        try:
            gone = deliver(run, delivery, artifacts=artifacts.made, uses=artifacts.used)
        except BaseException:
            delivery.abandon()
            raise
    except BaseException:  # a part of a run would pass for all of it
        shutil.rmtree(out, ignore_errors=True)
        raise
    written = delivery.delivered
    lines = output.counted(written.lines, "row")
    output.echo(f"run {run.id}, {lines}, is in {output.printable(str(out))}; to send it:")
    output.echo(f"  {output.printable(send)}")
    if artifacts.deleted:
        gone.append(f"deleted here: {named(artifacts.deleted)}")
    for problem in (*written.refused, *gone):
        failures.tell_line(f"left out: {problem}")
