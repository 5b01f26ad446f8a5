"""`tracklayer recover`: what a run had to leave in the temporary folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from tracklayer.cli import failures, output
from tracklayer.cli.options import dir_option
from tracklayer.errors import TracklayerError

_REFUSALS_SHOWN: Final = 5


@click.command("recover")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--create", is_flag=True, help="Make the run if the store does not have it.")
@dir_option
@click.pass_context
def command(context: click.Context, *, files: tuple[Path, ...], create: bool, folder: Path | None) -> None:
    """Record what a full or hung disk did not take.

    While its store took nothing, a run wrote what it logged to files tracklayer-*.jsonl in the
    temporary folder, and said so.  Name them in that order.  A value that was logged again since
    keeps the newer value.  A file is deleted once its content is recorded; the run ends as it had
    ended.
    """
    from tracklayer import recovering, registry, settings

    backend = registry.load(settings.LOCAL_BACKEND)
    chosen = settings.read_settings(backend=settings.LOCAL_BACKEND, dir=folder)
    runs, codes = _by_run(files)
    for run_id, spills in runs.items():
        try:
            report = recovering.recover(spills, backend, chosen, create=create)
        except (TracklayerError, OSError) as error:
            failures.tell(error)
            codes.append(failures.exit_code(error))
            continue
        calls = "1 call" if report.calls == 1 else f"{report.calls} calls"
        output.echo(f"run {run_id}: {calls} recorded in {output.printable(str(chosen.dir))}")
        if report.refused:
            codes.append(failures.FAILED)
            for refusal in report.refused[:_REFUSALS_SHOWN]:
                failures.tell_line(f"run {run_id}: {failures.one_line(refusal)}")
            failures.tell_line(
                f"run {run_id}: {len(report.refused)} calls were refused; kept: " + " ".join(map(str, spills))
            )
    context.exit(max(codes, default=0))


def _by_run(files: tuple[Path, ...]) -> tuple[dict[str, list[Path]], list[int]]:
    """Sort the files by their runs; return also the exit codes for those that cannot be read."""
    from tracklayer.spill import spilled_run

    found: dict[str, list[Path]] = {}
    codes: list[int] = []
    for file in dict.fromkeys(files):
        try:
            found.setdefault(spilled_run(file).id, []).append(file)
        except (TracklayerError, OSError) as error:
            failures.tell(error)
            codes.append(failures.exit_code(error))
    return found, codes
