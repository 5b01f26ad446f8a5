"""The sweeps that the server keeps: it hands out points, and tells agents to stop a run or to exit."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Final, final

import yaml

from wandb_server.records import DEFAULT_ENTITY, Json, RefusedError, ServedRun, ServedSweep, Variables

_KNOWN: Final = frozenset(
    {"early_terminate", "method", "metric", "name", "parameters", "program", "project", "run_cap"}
)


@final
class Sweeps:
    """All sweeps, and the agents that work on them."""

    def __init__(self, runs: dict[tuple[str, str, str], ServedRun]) -> None:
        """`runs` gets each run that is handed out, which is pending until a client begins it."""
        self.by_id: dict[str, ServedSweep] = {}
        self._runs = runs
        self._agents: list[ServedSweep] = []
        self.operations: Mapping[str, Callable[[Variables], Json]] = {
            "UpsertSweep": self._create,
            "GetSweepState": self._show,
            "SweepWithRuns": self._show,
            "CreateAgent": self._register,
            "Heartbeat": self._heartbeat,
        }

    def _create(self, v: Variables) -> Json:
        config: Json = yaml.safe_load(v["config"])
        if "method" not in config:
            raise RefusedError(400, "Invalid sweep config: method is required")
        prior: Json = json.loads(v.get("priorRunsFilters") or '{"$or": []}')
        made = ServedSweep(
            entity=v.get("entityName") or DEFAULT_ENTITY,
            project=v.get("projectName") or "uncategorized",
            id=f"sweep{len(self.by_id) + 1}",
            config=config,
            prior_runs=[each["name"] for each in prior["$or"]],
            waiting=list(_points(config["parameters"])) if config["method"] == "grid" else [],
        )
        self.by_id[made.id] = made
        unknown = sorted(config.keys() - _KNOWN)
        violations = [f"Additional properties are not allowed ({name!r} was unexpected)" for name in unknown]
        return {"upsertSweep": {"sweep": _node(made), "configValidationWarnings": violations}}

    def _show(self, v: Variables) -> Json:
        found = self._find(v["entity"], v["project"], v["sweep"])
        return {"project": {"sweep": None if found is None else _node(found)}}

    def _register(self, v: Variables) -> Json:
        found = self._find(v.get("entityName"), v.get("projectName"), v["sweep"])
        if found is None:
            raise RefusedError(404, f"could not find sweep {v['sweep']} during createAgent")
        self._agents.append(found)
        return {"createAgent": {"agent": {"id": str(len(self._agents) - 1)}}}

    def _heartbeat(self, v: Variables) -> Json:
        commands = list(self._commands(self._agents[int(v["id"])], json.loads(v["runState"])))
        return {"agentHeartbeat": {"agent": {"id": v["id"]}, "commands": json.dumps(commands)}}

    def _commands(self, sweep: ServedSweep, running: Mapping[str, Json]) -> Iterator[Json]:
        for run_id in sorted(sweep.stopping & running.keys()):
            yield {"type": "stop", "run_id": run_id}
        if running:
            return
        if not sweep.waiting:
            yield {"type": "exit"}
            return
        args = {name: {"value": value} for name, value in sweep.waiting.pop(0).items()}
        run_id = f"{sweep.id}-{len(sweep.runs)}"
        sweep.runs.append(run_id)
        place = (sweep.entity, sweep.project, run_id)
        self._runs[place] = ServedRun(
            *place, f"run-{run_id}", name=run_id, raw_config=args, state="pending", sweep=sweep.id
        )
        yield {"type": "run", "run_id": run_id, "args": args, "program": sweep.config.get("program")}

    def _find(self, entity: str | None, project: str | None, sweep_id: str) -> ServedSweep | None:
        found = self.by_id.get(sweep_id)
        place = (entity or DEFAULT_ENTITY, project or "uncategorized")
        return found if found is not None and (found.entity, found.project) == place else None


def _node(sweep: ServedSweep) -> Json:
    project = {"id": "project-1", "name": sweep.project, "entity": {"id": "entity-1", "name": sweep.entity}}
    return {
        "id": f"id-of-{sweep.id}",
        "name": sweep.id,
        "project": project,
        "state": "RUNNING" if sweep.waiting else "FINISHED",
        "config": yaml.safe_dump(sweep.config),
        "runs": {"edges": list[Json]()},
    }


def _points(parameters: Mapping[str, Json]) -> Iterator[dict[str, Json]]:
    """Yield the points of a grid."""
    axes = [[(name, value) for value in _values(entry)] for name, entry in parameters.items()]
    return (dict(point) for point in itertools.product(*axes))


def _values(entry: Mapping[str, Json]) -> list[Json]:
    if "parameters" in entry:
        return list(_points(entry["parameters"]))
    return entry["values"] if "values" in entry else [entry["value"]]
