"""`tracklayer diff`: what differs between two runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from tracklayer.cli import output
from tracklayer.cli.finding import find_run
from tracklayer.cli.options import dir_option, json_option

if TYPE_CHECKING:
    from pathlib import Path

    from tracklayer.environment.differing import Pairs

_FILES: Final = {"first": "only in the first", "second": "only in the second", "differs": "differs"}


@click.command("diff")
@click.argument("ref", metavar="RUN")
@click.argument("other", metavar="RUN")
@dir_option
@json_option
def command(*, ref: str, other: str, folder: Path | None, as_json: bool) -> None:
    """Say what differs between two runs.

    Their config, code, packages and machine, as far as they differ; and their summaries, side by side.

    Files of code are those whose content was not that of the commit, or, where both runs recorded a
    snapshot of their code, those that differ between the two.
    """
    from tracklayer.environment.differing import compare_runs
    from tracklayer.registry import open_store

    store = open_store(folder)
    found = compare_runs(find_run(store, ref), find_run(store, other))
    if as_json:
        output.print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    first, second = found["first"], found["second"]
    output.fields(
        [("first", f"{first['id']} ({first['name']})"), ("second", f"{second['id']} ({second['name']})")]
    )
    names = (first["id"], second["id"])
    if not any((found["config"], *found["code"].values(), found["environment"])):
        output.echo("\nconfig, code and environment are the same")
    for title, pairs in (
        ("config", found["config"]),
        ("code", found["code"]["facts"]),
        ("environment", found["environment"]),
    ):
        _print_pairs(title, pairs, names)
        if title == "code" and found["code"]["files"]:
            output.heading("files of code")
            output.table(
                ("path", "change"),
                [(path, _FILES[change]) for path, change in found["code"]["files"].items()],
            )
    _print_pairs("metrics", found["metrics"], names)


def _print_pairs(title: str, pairs: Pairs, names: tuple[str, str]) -> None:
    if pairs:
        output.heading(title)
        output.table(
            ("key", *names),
            [(key, _text(pair, "first"), _text(pair, "second")) for key, pair in pairs.items()],
        )


def _text(pair: dict[str, Any], which: str) -> str:
    return output.plain_value(pair[which]) if which in pair else ""
