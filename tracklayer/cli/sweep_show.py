"""`tracklayer sweep show`: what a sweep has come to."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, cast

import click

from tracklayer.cli import output
from tracklayer.cli.finding import find_sweep
from tracklayer.cli.options import dir_option, json_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tracklayer.sweeps.reading import SweepReader, TrialRecord

_ON_A_SCREEN: Final = 20
"""So many trials are listed on a terminal, where the rest would push what matters out of sight."""


@click.command("show")
@click.argument("ref", metavar="SWEEP")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"List the last N trials only; by default, {_ON_A_SCREEN} on a terminal and all elsewhere.",
)
@dir_option
@json_option
def command(*, ref: str, limit: int | None, folder: Path | None, as_json: bool) -> None:
    """Show a sweep.

    The best trial so far, which parameters mattered, where trials were pruned, and the trials, newest last.
    Importance is Optuna's, of the finished trials (PED-ANOVA); it adds up to 1, and is left out where it
    cannot be told.  A trial whose process is gone has died, also before an agent has found out.

    With --json, an object: `id`, `name`, `method`, `metric` (`name`, `goal`, `target`), `project`, `entity`,
    `seed`, `retries`, `program`, `run_cap`, `state` (running, paused, stopped or finished), `created_at`,
    `file` (the Optuna study), `done` and `total` (trials, retries not counted; null if nothing limits them),
    `outcomes` (the number of trials by outcome), `best` (a trial, or null), `config` (as it was given),
    `pruned_at` (the number of trials by iteration), `importance` (by parameter), and `trials`: each has
    `number`, `outcome` (running, finished, pruned, failed or died), `value`, `iterations`, `run`, `attempt`,
    `retry_of`, `point`, `started_at`, `ended_at`, `seconds` and `parameters`.  Times are Unix seconds.
    """
    sweep = find_sweep(folder, ref)
    from tracklayer.sweeps.reading import SweepReader

    reader = SweepReader(sweep)
    described: dict[str, Any] = {
        **head(reader),
        "config": sweep.config.given,
        "pruned_at": reader.pruned_at,
        "importance": reader.importance(),
        "trials": [_trial(trial) for trial in reader.trials],
    }
    if as_json:
        output.print_json({**described, "trials": _last(described["trials"], limit)})
    else:
        _print(described, _ON_A_SCREEN if limit is None and output.is_terminal() else limit)


def head(reader: SweepReader) -> dict[str, Any]:
    """Return what there is to say of a sweep in a few words, as JSON data."""
    sweep, best = reader.sweep, reader.best
    config = sweep.config
    return {
        "id": sweep.id,
        "name": config.name,
        "method": config.method,
        "metric": None if config.metric is None else asdict(config.metric),
        "project": sweep.project,
        "entity": sweep.entity,
        "seed": sweep.seed,
        "retries": sweep.retries,
        "program": config.program,
        "run_cap": config.run_cap,
        "state": reader.state,
        "created_at": sweep.created_at,
        "file": str(sweep.path),
        "done": reader.done,
        "total": reader.total,
        "outcomes": reader.outcomes,
        "best": None if best is None else _trial(best),
    }


def goal(metric: Mapping[str, Any] | None) -> str:
    """Return what a sweep is after, such as `minimize loss`."""
    if metric is None:
        return ""
    target = "" if metric["target"] is None else f" to {short(metric['target'])}"
    return f"{metric['goal']} {metric['name']}{target}"


def counts(numbers: Mapping[str, int]) -> str:
    """Return numbers of things by what they are, such as `3 finished, 1 running`."""
    return ", ".join(f"{number} {what}" for what, number in numbers.items())


def short(value: Any) -> str:
    """Return a value for a table, numbers in six digits; nothing for None."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else output.plain_value(value)


def _trial(trial: TrialRecord) -> dict[str, Any]:
    return {**asdict(trial), "seconds": trial.seconds}


def _last(trials: Sequence[dict[str, Any]], limit: int | None) -> Sequence[dict[str, Any]]:
    return trials if limit is None else trials[max(len(trials) - limit, 0) :]


def _print(sweep: dict[str, Any], limit: int | None) -> None:
    _print_head(sweep)
    best: dict[str, Any] | None = sweep["best"]
    if best is not None:
        output.heading(f"best so far: {short(best['value'])}, by trial {best['number']}, run {_run(best)}")
        output.nested(best["parameters"])
    if sweep["importance"]:
        output.heading(f"importance, by {output.counted(sweep['outcomes']['finished'], 'finished trial')}")
        rows = [(name, f"{share:.3f}") for name, share in sweep["importance"].items()]
        output.table(("parameter", "importance"), rows, numbers=("importance",))
    trials: list[dict[str, Any]] = sweep["trials"]
    shown = _last(trials, limit)
    if shown:
        of_all = f": the last {len(shown)} of {len(trials)}" if len(shown) < len(trials) else ""
        output.heading(f"trials{of_all}")
        _print_trials(shown)


def _print_head(sweep: dict[str, Any]) -> None:
    done = sweep["done"] if sweep["total"] is None else f"{sweep['done']} of {sweep['total']}"
    pruned = (f"{number} at iteration {iteration}" for iteration, number in sweep["pruned_at"].items())
    pairs = [
        ("id", sweep["id"]),
        ("name", sweep["name"] or ""),
        ("project", sweep["project"]),
        ("entity", sweep["entity"] or ""),
        ("method", sweep["method"]),
        ("metric", goal(sweep["metric"])),
        ("program", sweep["program"] or ""),
        ("seed", short(sweep["seed"])),
        ("retries", str(sweep["retries"])),
        ("state", sweep["state"]),
        ("done", str(done)),
        ("trials", counts(sweep["outcomes"])),
        ("pruned", ", ".join(pruned)),
        ("created", output.moment(sweep["created_at"])),
        ("file", sweep["file"]),
    ]
    output.fields([(name, value) for name, value in pairs if value])


def _print_trials(trials: Sequence[dict[str, Any]]) -> None:
    columns = {
        "trial": [str(trial["number"]) for trial in trials],
        "state": [trial["outcome"] for trial in trials],
        "retry of": ["" if trial["retry_of"] is None else str(trial["retry_of"]) for trial in trials],
        "value": [short(trial["value"]) for trial in trials],
        "iterations": [str(trial["iterations"] or "") for trial in trials],
        "run": [_run(trial) for trial in trials],
        "duration": ["" if (s := trial["seconds"]) is None else output.duration(s) for trial in trials],
        "parameters": [_in_a_line(trial["parameters"]) for trial in trials],
    }
    if not any(columns["retry of"]):
        del columns["retry of"]
    numbers = ("trial", "retry of", "value", "iterations", "duration")
    output.table(tuple(columns), list(zip(*columns.values(), strict=True)), numbers=numbers)


def _in_a_line(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={short(value)}" for name, value in _leaves(parameters))


def _run(trial: Mapping[str, Any]) -> str:
    return trial["run"] or ""


def _leaves(parameters: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Give the parameters by their names, those of nested ones joined by `/`, as in a study."""
    for name, value in parameters.items():
        if isinstance(value, dict) and value:
            yield from _leaves(cast("Mapping[str, Any]", value), f"{path}{name}/")
        else:
            yield path + name, value
