"""`tracklayer backends`: which there are, usable or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tracklayer.cli import failures, output
from tracklayer.cli.options import json_option

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@click.command("backends")
@json_option
def command(*, as_json: bool) -> None:
    """List the installed backends.

    Each is usable here or says why not; the default ones record where `init` names none.
    """
    from tracklayer.registry import registered
    from tracklayer.settings import read_settings

    chosen = read_settings().backends
    points = registered()
    found = [_examine(name, point, default=name in chosen) for name, point in points.items()]
    missing = [name for name in chosen if name not in points]
    if as_json:
        output.print_json({"backends": found, "default": list(chosen), "unknown": missing})
        return
    output.table(
        ("name", "default", "usable", "from", "summary"),
        [
            (
                backend["name"],
                "yes" if backend["default"] else output.NOTHING,
                "yes" if backend["usable"] else "no",
                backend["from"],
                backend["summary"] if backend["usable"] else backend["reason"],
            )
            for backend in found
        ],
    )
    for name in missing:
        output.heading(f"TRACKLAYER_BACKEND names {output.printable(repr(name))}: not installed")


def _examine(name: str, point: EntryPoint, *, default: bool) -> dict[str, Any]:
    from tracklayer.registry import load

    summary, reason = "", None
    try:
        backend = load(name)
        summary = backend.summary
        backend.check()
    except Exception as error:  # noqa: BLE001 - a plug-in's code: whatever it raises is why it is not usable
        reason = failures.describe(error)
    source = "?" if point.dist is None else f"{point.dist.name} {point.dist.version}"
    return {
        "name": name,
        "summary": summary,
        "from": source,
        "entry_point": point.value,
        "usable": reason is None,
        "reason": reason,
        "default": default,
    }
