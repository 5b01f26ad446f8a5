"""`tracklayer show`: all that is known of one run, but for its rows; and what its metrics look like."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from tracklayer.cli import media, output
from tracklayer.cli.artifact_show import file_entry
from tracklayer.cli.finding import find_keys, find_run
from tracklayer.cli.options import dir_option, json_option
from tracklayer.cli.runs import pushed, pushes, run_seconds
from tracklayer.seeds import split_seed

if TYPE_CHECKING:
    from pathlib import Path

    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.reading import RunReader

_CURVES: Final = 6
_JAX_PACKAGES: Final = ("jax", "jaxlib", "flax", "optax")


@click.command("show")
@click.argument("ref", metavar="RUN")
@click.option(
    "-k",
    "--metric",
    "wanted",
    multiple=True,
    metavar="KEY",
    help="Draw this metric's curve; a pattern, such as 'val/*', draws all that match.",
)
@dir_option
@json_option
def command(*, ref: str, wanted: tuple[str, ...], folder: Path | None, as_json: bool) -> None:
    """Show a run.

    What it is and ran on, its config, summary, segments, metrics, media and artifacts; all but its
    rows.

    On a terminal, six metrics are drawn: those that define_metric has a summary or a goal for, and
    then the first that were logged.  With --metric, those that it names are drawn, wherever the
    output goes.  A column of a curve shows the smallest and the largest value in it, however many
    there are.
    """
    if as_json and wanted:
        msg = "--json draws nothing; leave out --metric"
        raise click.UsageError(msg)
    from tracklayer.registry import open_store

    store = open_store(folder)
    reader = find_run(store, ref)
    info = reader.info
    metrics: list[dict[str, Any]] = []
    for key in reader.keys():  # noqa: SIM118 - a reader is no mapping
        metric = reader.metric(key)
        if len(metric):
            last = {"last_step": metric.step[-1].item(), "last": metric.value[-1].item()}
            metrics.append({"key": key, "points": len(metric), **last})
    described = {
        **asdict(info),
        "store": str(store.path),
        "steps": reader.last_step + 1,
        "duration_seconds": run_seconds(reader, info),
        "config": reader.config,
        "summary": reader.summary,
        "metric_rules": [asdict(rule) for rule in reader.rules.values()],
        "segments": _segments(reader),
        "console_lines": sum(1 for _ in reader.console()),
        "system_rows": sum(1 for _ in reader.system_metrics()),
        "metrics": metrics,
        "seed_metrics": _seed_metrics(reader, metrics),
        "media": media.listing(reader),
        "artifacts": [_artifact(artifact) for artifact in reader.artifacts()],
        "used_artifacts": [_artifact(artifact) for artifact in reader.used_artifacts()],
        "pushes": pushes(reader, store),
    }
    if as_json:
        output.print_json(described)
    else:
        curves = _to_draw(reader, described, wanted) if wanted or output.is_terminal() else []
        _print(described, reader, curves)


def _segments(reader: RunReader) -> list[dict[str, Any]]:
    environments = reader.environments()
    return [
        {**asdict(segment), "environment": environments.get(segment.number)} for segment in reader.segments
    ]


def _artifact(artifact: LoggedArtifact) -> dict[str, Any]:
    return {
        **asdict(artifact),
        "label": artifact.label,
        "size": sum(file.size for file in artifact.files),
        "files": [file_entry(file) for file in artifact.files],
    }


def _to_draw(reader: RunReader, run: dict[str, Any], wanted: tuple[str, ...]) -> list[str]:
    """Return the metrics whose curves are drawn: those that are wanted, or else the first that matter."""
    if wanted:
        # one seed is drawn apart from the others only where it is named
        known = dict.fromkeys([*_series(run), *(m["key"] for m in run["metrics"] if m["key"] in wanted)])
        return find_keys(list(known), wanted, f"run {run['id']} has no metric")
    from tracklayer.protocol import rule_for

    rules = reader.rules

    def is_defined(key: str) -> bool:
        rule = rule_for(key, rules)
        return rule is not None and bool(rule.summary or rule.goal)

    lines = [key for key, points in _series(run).items() if points > 1]
    return sorted(lines, key=is_defined, reverse=True)[:_CURVES]


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


def _series(run: dict[str, Any]) -> dict[str, int]:
    """Return the number of points of each metric, the seeds of one taken together."""
    seeds = {metric["key"]: metric["points"] for metric in run["seed_metrics"]}
    points: dict[str, int] = {}
    for metric in run["metrics"]:
        part = split_seed(metric["key"])
        if part and part[0] in seeds:
            points[part[0]] = seeds[part[0]]
        else:
            points[metric["key"]] = metric["points"]
    return points


def _print(run: dict[str, Any], reader: RunReader, curves: list[str]) -> None:
    _print_info(run)
    for name in ("config", "summary"):
        if run[name]:
            output.heading(name)
            output.nested(run[name])
    environment = run["segments"][-1]["environment"]
    if environment:
        output.heading("environment")
        output.fields(_environment(environment))
    output.heading("segments")
    output.table(
        ("number", "state", "host", "pid", "started", "ended", "commit"),
        [
            (
                str(segment["number"]),
                segment["state"],
                segment["host"],
                str(segment["pid"]),
                output.moment(segment["started_at"]),
                output.moment(segment["ended_at"]),
                _commit(segment["environment"] or {}),
            )
            for segment in run["segments"]
        ],
        numbers=("number", "pid"),
    )
    if run["metrics"]:
        output.heading("metrics")
        output.table(("key", "points", "last step", "last value"), _metric_rows(run), numbers=("points",))
    if curves:
        _print_curves(reader, curves, len(_series(run)))
    if run["media"]:
        _print_media(run["media"])
    for title, artifacts in (("artifacts made", run["artifacts"]), ("artifacts used", run["used_artifacts"])):
        if artifacts:
            _print_artifacts(title, artifacts)


def _environment(environment: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what tells most of the last segment's process, as far as it is known."""
    git: dict[str, Any] = environment.get("git", {})
    jax: dict[str, Any] = environment.get("jax", {})
    versions = [f"{name} {jax[name]}" for name in _JAX_PACKAGES if name in jax]
    devices = [f"{device['count']} x {device['kind']}" for device in jax.get("devices", ())]
    call = [environment["program"], *environment.get("args", ())] if "program" in environment else []
    pairs = [
        ("commit", " ".join(part for part in (_commit(environment), git.get("branch")) if part)),
        ("program", shlex.join(call)),
        ("folder", environment.get("cwd", "")),
        ("host", environment.get("host", "")),
        ("python", environment.get("python", "")),
        ("jax", ", ".join(versions)),
        ("devices", ", ".join(devices or environment.get("gpus", ()))),
        ("processes", str(jax.get("process_count", ""))),
        ("ended by", environment.get("preempted_by", "")),
    ]
    return [(name, value) for name, value in pairs if value]


def _commit(environment: dict[str, Any]) -> str:
    """Return the commit in short, with a sign if files differed from it."""
    git: dict[str, Any] = environment.get("git", {})
    commit: str = git.get("commit", "")
    return commit[:10] + (" (dirty)" if git.get("dirty") else "")


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


def _print_curves(reader: RunReader, keys: list[str], metrics: int) -> None:
    from tracklayer.cli.curves import CHARACTERS, grid

    hint = f" of {len(keys)} of {metrics} metrics; -k KEY chooses" if len(keys) < metrics else ""
    output.heading(f"curves{hint}")
    drawn = [reader.metric(key) for key in keys]
    output.drawing(grid(drawn, output.console().width, in_ascii=output.encodable(CHARACTERS) != CHARACTERS))


def _print_media(listed: list[dict[str, Any]]) -> None:
    output.heading("media")
    output.table(
        ("key", "kind", "steps", "first", "last", "bytes", "caption"),
        [
            (
                entry["key"],
                ", ".join(entry["kinds"]),
                str(entry["steps"]),
                str(entry["first_step"]),
                str(entry["last_step"]),
                str(entry["bytes"] or ""),
                entry["caption"] or "",
            )
            for entry in listed
        ],
        numbers=("steps", "first", "last", "bytes"),
    )


def _print_artifacts(title: str, artifacts: list[dict[str, Any]]) -> None:
    output.heading(title)
    output.table(
        ("artifact", "type", "aliases", "files", "bytes"),
        [
            (
                artifact["label"],
                artifact["type"],
                ", ".join(artifact["aliases"]),
                str(len(artifact["files"])),
                str(artifact["size"]),
            )
            for artifact in artifacts
        ],
        numbers=("files", "bytes"),
    )
