"""`tracklayer show`: all that is known of one run, but for its rows."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tracklayer.cli import output
from tracklayer.cli.finding import find_run
from tracklayer.cli.options import dir_option, json_option
from tracklayer.cli.runs import pushed, pushes, run_seconds
from tracklayer.seeds import split_seed

if TYPE_CHECKING:
    from pathlib import Path

    from tracklayer.reading import RunReader


@click.command("show")
@click.argument("ref", metavar="RUN")
@dir_option
@json_option
def command(*, ref: str, folder: Path | None, as_json: bool) -> None:
    """Show a run.

    What it is, its config, summary, segments, metrics and artifacts; all but its rows.
    """
    from tracklayer.registry import open_store

    store = open_store(folder)
    reader = find_run(store, ref)
    info = reader.info
    metrics: list[dict[str, Any]] = []
    others: list[str] = []
    for key in reader.keys():  # noqa: SIM118 - a reader is no mapping
        metric = reader.metric(key)
        if len(metric):
            last = {"last_step": metric.step[-1].item(), "last": metric.value[-1].item()}
            metrics.append({"key": key, "points": len(metric), **last})
        else:
            others.append(key)
    described = {
        **asdict(info),
        "store": str(store.path),
        "steps": reader.last_step + 1,
        "duration_seconds": run_seconds(reader, info),
        "config": reader.config,
        "summary": reader.summary,
        "metric_rules": [asdict(rule) for rule in reader.rules.values()],
        "segments": [asdict(segment) for segment in reader.segments],
        "metrics": metrics,
        "seed_metrics": _seed_metrics(reader, metrics),
        "other_keys": others,
        "artifacts": [asdict(artifact) for artifact in reader.artifacts()],
        "pushes": pushes(reader, store),
    }
    if as_json:
        output.print_json(described)
    else:
        _print(described)


def _seed_metrics(reader: RunReader, metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Describe each metric that has a series for each of several seeds."""
    import numpy as np

    described: list[dict[str, Any]] = []
    for key in dict.fromkeys(part[0] for metric in metrics if (part := split_seed(metric["key"]))):
        metric = reader.metric(key)
        if metric.value.ndim == 2:
            last = metric.value[-1][~np.isnan(metric.value[-1])]
            described.append(
                {
                    "key": key,
                    "seeds": metric.value.shape[1],
                    "points": len(metric),
                    "last_step": metric.step[-1].item(),
                    "last_mean": last.mean().item(),
                    "last_std": last.std().item(),
                }
            )
    return described


def _print(run: dict[str, Any]) -> None:
    _print_info(run)
    for name in ("config", "summary"):
        if run[name]:
            output.heading(name)
            output.nested(run[name])
    output.heading("segments")
    output.table(
        ("number", "state", "host", "pid", "started", "ended"),
        [
            (
                str(segment["number"]),
                segment["state"],
                segment["host"],
                str(segment["pid"]),
                output.moment(segment["started_at"]),
                output.moment(segment["ended_at"]),
            )
            for segment in run["segments"]
        ],
        numbers=("number", "pid"),
    )
    if run["metrics"]:
        output.heading("metrics")
        output.table(("key", "points", "last step", "last value"), _metric_rows(run), numbers=("points",))
    if run["other_keys"]:
        output.heading("other keys")
        for key in run["other_keys"]:
            output.echo(f"  {output.printable(key)}")
    if run["artifacts"]:
        _print_artifacts(run["artifacts"])


def _metric_rows(run: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each metric, and one for all of its seeds where it has several."""
    seeds = {metric["key"]: metric for metric in run["seed_metrics"]}
    rows: dict[str, tuple[str, ...]] = {}
    for metric in run["metrics"]:
        part = split_seed(metric["key"])
        if part and part[0] in seeds:
            of_seeds = seeds[part[0]]
            band = f"{output.plain_value(of_seeds['last_mean'])} ± {output.plain_value(of_seeds['last_std'])}"
            key = f"{part[0]} ({of_seeds['seeds']} seeds)"
            rows[key] = (key, str(of_seeds["points"]), str(of_seeds["last_step"]), band)
        else:
            last = output.plain_value(metric["last"])
            rows[metric["key"]] = (metric["key"], str(metric["points"]), str(metric["last_step"]), last)
    return list(rows.values())


def _print_info(run: dict[str, Any]) -> None:
    pairs = [
        ("id", run["id"]),
        ("name", run["name"]),
        ("project", run["project"]),
        ("entity", run["entity"] or ""),
        ("group", run["group"] or ""),
        ("job type", run["job_type"] or ""),
        ("tags", ", ".join(run["tags"])),
        ("notes", run["notes"] or ""),
        ("state", run["state"]),
        ("exit code", "" if run["exit_code"] is None else str(run["exit_code"])),
        ("steps", str(run["steps"] or "")),
        ("created", output.moment(run["created_at"])),
        ("duration", output.duration(run["duration_seconds"])),
        ("pushed", pushed(run["pushes"])),
        *(("url", push["url"] or "") for push in run["pushes"]),
        ("store", run["store"]),
    ]
    output.fields([(name, value) for name, value in pairs if value])


def _print_artifacts(artifacts: list[dict[str, Any]]) -> None:
    output.heading("artifacts")
    output.table(
        ("artifact", "type", "file", "bytes", "sha256"),
        [
            (artifact["name"], artifact["type"], file["path"], str(file["size"]), file["sha256"])
            for artifact in artifacts
            for file in artifact["files"] or [{"path": "", "size": "", "sha256": ""}]
        ],
        numbers=("bytes",),
    )
