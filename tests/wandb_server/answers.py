"""The shapes of GraphQL answers.  They may hold more than asked for, which the client ignores."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from wandb_server.records import DEFAULT_ENTITY, Json, RefusedError, Variables

if TYPE_CHECKING:
    from wandb_server.records import ServedArtifact, ServedRun


def page(nodes: Sequence[Json], cursor: str | None, size: int | None) -> Json:
    """Return one page of a Relay connection; a cursor is the index of the node after it."""
    start = int(cursor or 0)
    stop = min(len(nodes), start + (size or 50))
    edges = [{"node": nodes[at], "cursor": str(at + 1)} for at in range(start, stop)]
    info = {"__typename": "PageInfo", "endCursor": str(stop), "hasNextPage": stop < len(nodes)}
    return {"edges": edges, "pageInfo": info}


def matches(node: Mapping[str, Json], name: str, wanted: Json) -> bool:
    """Say whether a field is equal, or `$in`.  Any other filter is refused, not ignored."""
    if name not in node or not (isinstance(wanted, str) or list(wanted) == ["$in"]):
        raise RefusedError(400, f"the test server does not understand the filter {name}: {wanted}")
    return node[name] in ([wanted] if isinstance(wanted, str) else wanted["$in"])


def viewer(_: Variables) -> Json:
    """Return the user."""
    about = {
        "id": "user-1",
        "entity": DEFAULT_ENTITY,
        "username": DEFAULT_ENTITY,
        "email": "tester@localhost",
        "flags": "{}",
        "admin": False,
        "teams": {"edges": [{"node": {"name": DEFAULT_ENTITY}}]},
    }
    return {"viewer": about}


def run_node(run: ServedRun) -> Json:
    """Return a run, without its rows."""
    telemetry: dict[str, Json] = run.raw_config.get("_wandb", {}).get("value", {})
    lines: dict[str, Sequence[Json]] = {
        "history": run.history,
        "events": run.events,
        "log": run.console,
    }
    project = {
        "id": "project-1",
        "name": run.project,
        "entity": {"id": "entity-1", "name": run.entity},
    }
    return {
        "id": run.storage_id,
        "name": run.id,
        "displayName": run.name,
        "group": run.group,
        "jobType": run.job_type,
        "tags": run.tags,
        "notes": run.notes,
        "description": None,
        "sweepName": run.sweep,
        "commit": run.commit,
        "state": run.state,
        "createdAt": run.created_at,
        "heartbeatAt": run.heartbeat_at,
        "readOnly": False,
        **{f"{name}LineCount": len(content) for name, content in lines.items()},
        **{
            f"{name}Tail": json.dumps([json.dumps(row) for row in content[-1:]])
            for name, content in lines.items()
        },
        "projectId": "1",
        "project": project,
        "user": viewer({})["viewer"],
        "config": json.dumps(run.raw_config),
        # without it, the client takes the run for one that a sweep planned and nobody began
        "wandbConfig": json.dumps({"t": telemetry["t"]} if "t" in telemetry else {}),
        "summaryMetrics": json.dumps(run.summary),
        "systemMetrics": json.dumps(run.events[-1] if run.events else {}),
        "historyKeys": {
            "lastStep": run.last_step,
            "sets": [],
            "keys": {
                key: {"typeCounts": [{"type": "number", "count": n}]} for key, n in run.key_counts.items()
            },
        }
        if run.history
        else None,
    }


def run_ends(run: ServedRun, _: Variables) -> Json:
    """Return the last row of system metrics and the last line of the console, which is taken apart."""
    lines = [line.removeprefix("ERROR ").rstrip("\n").partition(" ") for line in run.console[-1:]]
    nodes = [{"timestamp": stamp, "line": text} for stamp, _, text in lines]
    return {
        "eventsTail": json.dumps([json.dumps(row) for row in run.events[-1:]]),
        "logLines": {"edges": [{"node": node} for node in nodes]},
    }


def run_info(run: ServedRun) -> Json:
    """Return what tells a run apart."""
    project = {
        "id": "project-1",
        "internalId": "1",
        "name": run.project,
        "entity": {"name": run.entity},
    }
    return {"__typename": "Run", "id": run.storage_id, "name": run.id, "project": project}


def artifact_node(artifact: ServedArtifact) -> Json:
    """Return a version of an artifact."""
    project = {
        "id": "project-1",
        "internalId": "1",
        "name": artifact.project,
        "entity": {"name": artifact.entity},
    }
    collection = {"__typename": "ArtifactSequence", "name": artifact.name, "project": project}
    alias = {"__typename": "ArtifactAlias", "artifactCollection": collection}
    contents: dict[str, Json] = artifact.manifest.get("contents", {})
    return {
        "__typename": "Artifact",
        "id": artifact.id,
        "artifactType": {"name": artifact.type},
        "artifactSequence": collection,
        "tags": list[str](),
        "description": artifact.description,
        "metadata": json.dumps(artifact.metadata),
        "historyStep": None,
        "digest": artifact.digest,
        "digestAlgorithm": "MANIFEST_MD5",
        "commitHash": artifact.digest,
        "fileCount": len(contents),
        "size": sum(entry.get("size", 0) for entry in contents.values()),
        "createdAt": artifact.created_at,
        "updatedAt": None,
        "ttlDurationSeconds": -2,
        "ttlIsInherited": True,
        "versionIndex": artifact.version,
        "state": "PENDING" if artifact.version is None else "COMMITTED",
        "aliases": [{**alias, "id": name, "alias": name} for name in artifact.aliases],
    }


def artifact_page(artifacts: Sequence[ServedArtifact], v: Variables) -> Json:
    """Return one page of artifacts."""
    nodes = [artifact_node(artifact) for artifact in artifacts]
    shown = page(nodes, v.get("cursor"), v.get("perPage"))
    for edge in shown["edges"]:
        edge["version"] = f"v{edge['node']['versionIndex']}"
    return {"artifacts": {**shown, "totalCount": len(artifacts)}}


def history_page(run: ServedRun, v: Variables) -> Json:
    """Return the rows of a range of steps, no more than asked for."""
    rows = [row for row in run.history if v["minStep"] <= row.get("_step", 0) < v["maxStep"]]
    return {"history": [json.dumps(row) for row in rows[: v["pageSize"]]]}


def parquet_history(run: ServedRun, _: Variables) -> Json:
    """Return no parquet files, which W&B exports late: the client then reads the live history."""
    return {"parquetHistory": {"parquetUrls": list[str](), "liveData": _strict(run.history)}}


def history_of_keys(run: ServedRun, v: Variables) -> Json:
    """Return the rows that have all keys asked for, with these alone; step bounds are inside."""
    spec = json.loads(v["spec"] if "spec" in v else v["specs"][0])
    first, last = spec.get("minStep", 0), spec.get("maxStep", math.inf)
    rows = [
        {key: row[key] for key in spec["keys"]}
        for row in run.history
        if first <= row.get("_step", 0) <= last and row.keys() >= set(spec["keys"])
    ]
    return {"sampledHistory": [_strict(rows[: spec.get("samples")])]}


def _strict(value: Json) -> Json:
    """Outside a JSON string rows must be strict JSON: W&B spells NaN as a string there."""
    return json.loads(json.dumps(value), parse_constant=str)
