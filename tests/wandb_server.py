"""A W&B server small enough to read, on loopback, for the real wandb client to talk to.

It keeps what it is sent and answers what the client asks. That protocol is undocumented: what
stands here was observed on wandb 0.31.0, and an operation not known here is answered with status
400 and stays visible in `requests`. Tests read the outcome from `WandbServer.runs`, and make the
network bad with `WandbServer.fail`, `stop` and `start`.
"""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import gzip
import hashlib
import itertools
import json
import math
import re
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from pathlib import Path

Json: TypeAlias = Any
Variables: TypeAlias = dict[str, Json]
Row: TypeAlias = dict[str, Json]

DEFAULT_ENTITY: Final = "tester"
"""The user whom every API key logs in, and the entity of a client that names none."""

API_KEY: Final = "0123456789abcdef" * 2 + "01234567"
"""Forty characters that the client takes for a key. The server asks only that some key is there."""


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@final
@dataclass(frozen=True)
class Request:
    """One request as it came, before anything was decided about it."""

    time: float
    """Unix seconds."""
    method: str
    path: str
    operation: str | None
    """The GraphQL operation's name; None for anything but `/graphql`."""
    body: Json
    """Parsed JSON; for an upload the bytes themselves; None when empty."""

    @property
    def variables(self) -> Variables:
        """The GraphQL variables; empty for anything but `/graphql`."""
        return {} if self.operation is None else self.body.get("variables") or {}


@final
@dataclass(frozen=True)
class Failure:
    """What happens to a request instead of a proper answer, which with `delay` alone comes late."""

    status: int | None = None
    """The HTTP status. 200 makes it a GraphQL error, which W&B uses too."""
    message: str = "the test asked for this failure"
    retry_after: float | None = None
    """Seconds, sent as the `Retry-After` header."""
    drop: bool = False
    """Close the connection without an answer."""
    delay: float = 0.0
    """Seconds to wait first."""
    carried_out: bool = False
    """Do what was asked all the same: only the answer is lost, so a naive client sends twice."""


FailRule: TypeAlias = Callable[[Request], Failure | None]


@final
@dataclass
class ServedArtifact:
    """One version of an artifact."""

    id: str
    entity: str
    project: str
    type: str
    name: str
    """The collection's name, without a version."""
    digest: str
    description: str | None
    metadata: dict[str, Json]
    requested_aliases: list[str]
    created_by: str | None
    """The run that asked for it first."""
    version: int | None = None
    """None until committed, so that an abandoned upload uses up no version."""
    aliases: list[str] = field(default_factory=list[str])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """By path, once committed."""
    manifest: dict[str, Json] = field(default_factory=dict[str, Json])
    """As uploaded; `contents` lists references too, which have no file here."""
    used_by: list[str] = field(default_factory=list[str])
    """Ids of the runs that declared it as their input."""
    created_at: str = field(default_factory=_now)


@final
@dataclass
class ServedRun:
    """One run as the server has it now."""

    entity: str
    project: str
    id: str
    storage_id: str
    name: str = ""
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    tags: list[str] = field(default_factory=list[str])
    raw_config: dict[str, Json] = field(default_factory=dict[str, Json])
    """As sent: `{"key": {"value": …}}`, with the client's own `_wandb` beside the user's keys."""
    history: list[Row] = field(default_factory=list[Row])
    """In line order. A line that was never sent shows as an empty row."""
    history_ranges: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    events: list[Row] = field(default_factory=list[Row])
    """System metrics, in line order."""
    console: list[str] = field(default_factory=list[str])
    summary: dict[str, Json] = field(default_factory=dict[str, Json])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    artifacts: list[ServedArtifact] = field(default_factory=list[ServedArtifact])
    """What the run logged, once committed."""
    state: str = "running"
    """Then "finished" or "failed", by the exit code; "crashed" only when a test sets it."""
    exit_code: int | None = None
    program: str | None = None
    host: str | None = None
    commit: str | None = None
    sweep: str | None = None
    created_at: str = field(default_factory=_now)
    heartbeat_at: str = field(default_factory=_now)

    @property
    def config(self) -> dict[str, Json]:
        """What the user passed: plain and nested, without the client's own `_wandb`."""
        return {key: item["value"] for key, item in self.raw_config.items() if key != "_wandb"}


@final
class _RefusedError(Exception):
    """The server's considered no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@final
class Store:
    """All that the server remembers; knows nothing of HTTP. Called under the server's lock."""

    def __init__(self, url: str) -> None:
        """`url` is the server's own, for the links in its answers."""
        self.runs: dict[tuple[str, str, str], ServedRun] = {}
        """By (entity, project, id)."""
        self.artifacts: dict[str, ServedArtifact] = {}
        self._url = url
        self._deleted: set[tuple[str, str, str]] = set()
        self._blobs: dict[str, bytes] = {}
        self._artifact_of_client: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._operations: Mapping[str, Callable[[Variables], Json]] = {
            "Viewer": _viewer,
            "GetDefaultEntity": _viewer,
            "ArtifactType": lambda _: {"project": {"artifact": None}},
            "ServerFeaturesQuery": lambda _: {"serverInfo": {"features": []}},
            "OrganizationCoreWeaveOrganizationID": lambda _: {"entity": None},
            "UpsertBucket": self._upsert_bucket,
            "RunResumeStatus": self._resume_status,
            "CreateRunFiles": self._create_run_files,
            "Run": self._about_run(lambda run, _: _run_node(run)),
            "RunState": self._about_run(lambda run, _: _run_node(run)),
            "RunHistoryKeys": self._about_run(lambda run, _: _run_node(run)),
            "RunFiles": self._about_run(self._run_files),
            "RunFullHistory": self._about_run(_full_history),
            "RunSampledHistory": self._about_run(lambda run, v: _sampled_history(run, v["specs"])),
            "SampledHistoryPage": self._about_run(
                lambda run, v: _sampled_history(run, [v["spec"]])
            ),
            "RunParquetHistory": self._about_run(_parquet_history),
            "HistoryPage": self._about_run(_history_page),
            "RunOutputArtifacts": self._about_run(lambda run, v: _artifact_page(run.artifacts, v)),
            "RunInputArtifacts": self._about_run(
                lambda run, v: _artifact_page(self._inputs(run), v)
            ),
            "Runs": self._list_runs,
            "CreateArtifact": self._create_artifact,
            "CreateArtifactManifest": self._create_manifest,
            "CreateArtifactFiles": self._create_artifact_files,
            "CommitArtifact": self._commit_artifact,
            "UseArtifact": self._use_artifact,
            "ClientIDMapping": lambda v: {
                "clientIDMapping": {"serverID": self._artifact_of_client[v["clientID"]]}
            },
            "ArtifactByID": lambda v: {"artifact": _artifact_node(self.artifacts[v["id"]])},
            "ArtifactMembershipByName": self._artifact_by_name,
            "FetchArtifactManifest": self._fetch_manifest,
            "GetArtifactMembershipFileUrls": self._artifact_file_urls,
        }

    def graphql(self, operation: str, variables: Variables) -> Json:
        """The answer. Its data may hold more than was asked for, which the client ignores."""
        if operation not in self._operations:
            raise _RefusedError(400, f"the test server does not know the operation {operation!r}")
        return {"data": self._operations[operation](variables)}

    def find(self, run_id: str) -> ServedRun:
        """The run of that id in whichever project; KeyError when there is none."""
        return {run.id: run for run in self.runs.values()}[run_id]

    def delete(self, run: ServedRun) -> None:
        """Forget a run for good: W&B never gives its id out again."""
        key = (run.entity, run.project, run.id)
        del self.runs[key]
        self._deleted.add(key)

    def receive_stream(self, path: str, body: dict[str, Json]) -> Json:
        """Take in one `file_stream` request: lines at offsets, the summary, and the end."""
        entity, project, run_id = (unquote(part) for part in path.split("/")[2:5])
        run = self.runs.get((entity, project, run_id))
        if run is None:
            raise _RefusedError(404, f"run {entity}/{project}/{run_id} not found")
        run.heartbeat_at = _now()
        files: dict[str, Json] = body.get("files") or {}
        for name, chunk in files.items():
            offset, lines = int(chunk["offset"]), list[str](chunk["content"])
            if name == "wandb-summary.json":
                run.summary = json.loads(lines[-1])
            elif name == "wandb-history.jsonl":
                run.history_ranges.append((offset, len(lines)))
                _place(run.history, offset, map(json.loads, lines), blank={})
            elif name == "wandb-events.jsonl":
                _place(run.events, offset, map(json.loads, lines), blank={})
            elif name == "output.log":
                _place(run.console, offset, lines, blank="")
        if body.get("complete"):
            run.exit_code = int(body.get("exitcode") or 0)
            run.state = "failed" if run.exit_code else "finished"
        return {"exitcode": None, "limits": {}}

    def receive_file(self, path: str, content: bytes) -> None:
        """Take in an upload to a URL that an earlier answer gave out."""
        kind, *rest = (unquote(part) for part in path.removeprefix("/storage/").split("/"))
        if kind == "run":
            self.runs[rest[0], rest[1], rest[2]].files[rest[3]] = content
        elif kind == "manifest":
            self.artifacts[rest[0]].manifest = json.loads(content)
        else:
            self._blobs[rest[0]] = content

    def send_file(self, path: str) -> bytes:
        """The content behind a download URL; KeyError when there is none."""
        kind, *rest = (unquote(part) for part in path.removeprefix("/storage/").split("/"))
        if kind == "run":
            return self.runs[rest[0], rest[1], rest[2]].files[rest[3]]
        return (
            json.dumps(self.artifacts[rest[0]].manifest).encode()
            if kind == "manifest"
            else self._blobs[rest[0]]
        )

    def _run(self, v: Variables) -> ServedRun | None:
        run_id = v.get("run") or v.get("runName") or v.get("name")
        return self.runs.get(
            (v.get("entity") or DEFAULT_ENTITY, v.get("project") or "uncategorized", str(run_id))
        )

    def _about_run(
        self, answer: Callable[[ServedRun, Variables], Json]
    ) -> Callable[[Variables], Json]:
        """A query about one run; as on W&B, a run that is not there is null and no error."""

        def query(v: Variables) -> Json:
            run = self._run(v)
            return {"project": {"internalId": "1", "run": None if run is None else answer(run, v)}}

        return query

    def _upsert_bucket(self, v: Variables) -> Json:
        key = (
            str(v.get("entity") or DEFAULT_ENTITY),
            str(v.get("project") or "uncategorized"),
            str(v.get("name")),
        )
        inserted = False
        if v.get("name") is None:  # the public API edits a run, which does not start it again
            run = next(run for run in self.runs.values() if run.storage_id == v["id"])
        elif key in self._deleted:
            raise _RefusedError(
                409, f"run {'/'.join(key)} was previously created and deleted; try a new run name"
            )
        else:
            inserted = key not in self.runs
            run = self.runs.setdefault(
                key, ServedRun(*key, storage_id=f"run-{next(self._numbers)}", name=key[2])
            )
            run.state, run.exit_code = "running", None
        for variable, attribute in _RUN_VARIABLES.items():
            if v.get(variable) is not None:
                setattr(run, attribute, v[variable])
        if v.get("config"):
            run.raw_config = json.loads(v["config"])
        if v.get("summaryMetrics"):
            run.summary = json.loads(v["summaryMetrics"])
        return {"upsertBucket": {"bucket": _run_node(run), "inserted": inserted}}

    def _resume_status(self, v: Variables) -> Json:
        run = self._run(v)
        entity = {"id": "entity-1", "name": v.get("entity") or DEFAULT_ENTITY}
        bucket = None if run is None else _run_node(run)
        return {
            "model": {
                "id": "project-1",
                "name": v.get("project"),
                "entity": entity,
                "bucket": bucket,
            }
        }

    def _create_run_files(self, v: Variables) -> Json:
        run = self._run(v)
        if run is None:
            raise _RefusedError(404, f"run {v['run']} not found")
        files = [
            {"name": name, "uploadUrl": self._file_url("run", *_key(run), name)}
            for name in v["files"]
        ]
        return {
            "createRunFiles": {
                "runID": run.storage_id,
                "uploadHeaders": list[str](),
                "files": files,
            }
        }

    def _run_files(self, run: ServedRun, v: Variables) -> Json:
        pattern = (v.get("pattern") or "%").replace("%", "*")
        names = [name for name in v.get("fileNames") or run.files if name in run.files]
        nodes = [
            self._file_node(name, run.files[name], "run", *_key(run), name)
            for name in names
            if fnmatch.fnmatchcase(name, pattern)
        ]
        return {
            "fileCount": len(run.files),
            "files": _page(nodes, v.get("fileCursor"), v.get("fileLimit")),
        }

    def _list_runs(self, v: Variables) -> Json:
        filters: dict[str, Json] = json.loads(v.get("filters") or "{}")
        nodes = [
            _run_node(run)
            for run in self.runs.values()
            if _key(run)[:2] == (v["entity"], v["project"])
        ]
        if not nodes:  # a project begins with its first run
            return {"project": None}
        nodes = [
            node
            for node in nodes
            if all(_matches(node, name, wanted) for name, wanted in filters.items())
        ]
        if v.get("order") == "-created_at":
            nodes.reverse()
        page = {"runCount": len(nodes), "runs": _page(nodes, v.get("cursor"), v.get("perPage"))}
        return {"project": {"internalId": "1", "readOnly": False, **page}}

    def _inputs(self, run: ServedRun) -> list[ServedArtifact]:
        return [artifact for artifact in self.artifacts.values() if run.id in artifact.used_by]

    def _versions(self, entity: str, project: str, name: str) -> list[ServedArtifact]:
        """The committed versions of one collection, by number."""
        place = (entity, project, name)
        found = {
            one.version: one
            for one in self.artifacts.values()
            if (one.entity, one.project, one.name) == place
        }
        return [
            found[number] for number in itertools.takewhile(found.__contains__, itertools.count())
        ]

    def _create_artifact(self, v: Variables) -> Json:
        given: Variables = v.get("input") or v
        entity, project, kind = (
            str(given[key]) for key in ("entityName", "projectName", "artifactTypeName")
        )
        name = str(given.get("artifactCollectionName") or given["artifactCollectionNames"][0])
        wanted: list[Json] = given.get("aliases") or []
        aliases = [str(item["alias"]) for item in wanted]
        versions = self._versions(entity, project, name)
        artifact = next((one for one in versions if one.digest == given["digest"]), None)
        if artifact is None:
            place = (f"artifact-{next(self._numbers)}", entity, project, kind, name)
            about = (
                given["digest"],
                given.get("description"),
                json.loads(given.get("metadata") or "{}"),
            )
            artifact = self.artifacts[place[0]] = ServedArtifact(
                *place, *about, aliases, given.get("runName")
            )
        else:
            self._publish(artifact, aliases, given.get("runName"))
        self._artifact_of_client[str(given.get("clientID"))] = artifact.id
        latest = {"id": versions[-1].id, "versionIndex": versions[-1].version} if versions else None
        sequence = {"id": f"sequence-{name}", "latestArtifact": latest}
        node = {
            "id": artifact.id,
            "state": _artifact_node(artifact)["state"],
            "artifactSequence": sequence,
        }
        return {"createArtifact": {"artifact": node}}

    def _publish(
        self, artifact: ServedArtifact, aliases: Iterable[str], run_id: str | None
    ) -> None:
        """Credit the run, and move aliases: each points at one version of a collection."""
        for alias in aliases:
            for other in self._versions(artifact.entity, artifact.project, artifact.name):
                other.aliases = [name for name in other.aliases if name != alias]
            artifact.aliases.append(alias)
        run = self.runs.get((artifact.entity, artifact.project, str(run_id)))
        if run is not None and artifact not in run.artifacts:
            run.artifacts.append(artifact)

    def _create_manifest(self, v: Variables) -> Json:
        url = self._file_url("manifest", v["artifactID"])
        file = {"id": f"file-{v['artifactID']}", "uploadUrl": url, "uploadHeaders": list[str]()}
        return {
            "createArtifactManifest": {
                "artifactManifest": {"id": f"manifest-{v['artifactID']}", "file": file}
            }
        }

    def _create_artifact_files(self, v: Variables) -> Json:
        edges: list[Json] = []
        for spec in v["input"]["artifactFiles"]:
            blob = _blob_name(spec["md5"])
            url = None if blob in self._blobs else self._file_url("blob", blob)
            upload = {"uploadUrl": url, "uploadHeaders": list[str](), "uploadMultipartUrls": None}
            edges.append(
                {"node": {"storagePath": blob, "artifact": {"id": spec["artifactID"]}, **upload}}
            )
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _commit_artifact(self, v: Variables) -> Json:
        artifact = self.artifacts[v["artifactID"]]
        if artifact.version is None:
            contents: dict[str, Json] = artifact.manifest["contents"]
            held = {path: entry for path, entry in contents.items() if "ref" not in entry}
            artifact.files = {
                path: self._blobs[_blob_name(entry["digest"])] for path, entry in held.items()
            }
            artifact.version = len(self._versions(artifact.entity, artifact.project, artifact.name))
            self._publish(
                artifact,
                dict.fromkeys(["latest", *artifact.requested_aliases]),
                artifact.created_by,
            )
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}

    def _use_artifact(self, v: Variables) -> Json:
        given: Variables = v.get("input") or v
        artifact = self.artifacts[given["artifactID"]]
        artifact.used_by = [*dict.fromkeys([*artifact.used_by, str(given["runName"])])]
        return {"useArtifact": {"artifact": _artifact_node(artifact)}}

    def _artifact_by_name(self, v: Variables) -> Json:
        name, _, version = str(v["name"]).partition(":")
        member = None
        for artifact in self._versions(v["entity"], v["project"], name):
            if version in (f"v{artifact.version}", *artifact.aliases):
                node = _artifact_node(artifact)
                shared = {key: node[key] for key in ("id", "versionIndex", "createdAt", "aliases")}
                member = {
                    **shared,
                    "artifact": node,
                    "artifactCollection": node["artifactSequence"],
                }
        return {"project": {"artifactCollectionMembership": member}}

    def _fetch_manifest(self, v: Variables) -> Json:
        return {
            "artifact": {
                "currentManifest": {"file": {"directUrl": self._file_url("manifest", v["id"])}}
            }
        }

    def _artifact_file_urls(self, v: Variables) -> Json:
        versions = self._versions(v["entity"], v["project"], v["collection"])
        artifact = next(one for one in versions if v["alias"] in (f"v{one.version}", *one.aliases))
        blobs = {
            path: _blob_name(artifact.manifest["contents"][path]["digest"])
            for path in artifact.files
        }
        nodes = [
            self._file_node(path, self._blobs[blob], "blob", blob) for path, blob in blobs.items()
        ]
        member = {"files": _page(nodes, v.get("cursor"), v.get("perPage"))}
        return {
            "project": {
                "artifactCollection": {
                    "__typename": "ArtifactSequence",
                    "artifactMembership": member,
                }
            }
        }

    def _file_url(self, *parts: str) -> str:
        return "/".join([self._url, "storage", *(quote(part, safe="") for part in parts)])

    def _file_node(self, name: str, content: bytes, *place: str) -> Json:
        md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        node = {
            "__typename": "File",
            "id": name,
            "name": name,
            "sizeBytes": len(content),
            "md5": md5,
            "mimetype": "",
        }
        return {
            **node,
            "updatedAt": _now(),
            "url": self._file_url(*place),
            "directUrl": self._file_url(*place),
        }


_RUN_VARIABLES: Final = {
    "displayName": "name",
    "display_name": "name",
    "groupName": "group",
    "jobType": "job_type",
} | {name: name for name in ("notes", "tags", "commit", "host", "program", "sweep")}
"""Variables of UpsertBucket, and the attribute of `ServedRun` that each sets."""


def _key(run: ServedRun) -> tuple[str, str, str]:
    return (run.entity, run.project, run.id)


def _place(lines: list[Any], offset: int, content: Iterable[Any], *, blank: Any) -> None:
    """Write lines over what was at their offset, as W&B does; `history_ranges` shows overlaps."""
    lines.extend([blank] * (offset - len(lines)))
    new = list(content)
    lines[offset : offset + len(new)] = new


def _blob_name(digest: str) -> str:
    """A manifest's base64 MD5 in hexadecimal, which is safe in a URL."""
    return base64.b64decode(digest).hex()


def _page(nodes: Sequence[Json], cursor: str | None, size: int | None) -> Json:
    """One page of a Relay connection; a cursor is the index of the node after it."""
    start = int(cursor or 0)
    stop = min(len(nodes), start + (size or 50))
    edges = [{"node": nodes[at], "cursor": str(at + 1)} for at in range(start, stop)]
    info = {"__typename": "PageInfo", "endCursor": str(stop), "hasNextPage": stop < len(nodes)}
    return {"edges": edges, "pageInfo": info}


def _matches(node: Mapping[str, Json], name: str, wanted: Json) -> bool:
    """One item of `filters`: a field's equality or `$in`. All else is refused, not ignored."""
    if name not in node or not (isinstance(wanted, str) or list(wanted) == ["$in"]):
        raise _RefusedError(400, f"the test server does not understand the filter {name}: {wanted}")
    return node[name] in ([wanted] if isinstance(wanted, str) else wanted["$in"])


def _viewer(_: Variables) -> Json:
    teams = {"edges": [{"node": {"name": DEFAULT_ENTITY}}]}
    names = {
        "id": "user-1",
        "entity": DEFAULT_ENTITY,
        "username": DEFAULT_ENTITY,
        "email": "tester@localhost",
    }
    return {"viewer": {**names, "flags": "{}", "admin": False, "teams": teams}}


def _run_node(run: ServedRun) -> Json:
    telemetry: dict[str, Json] = run.raw_config.get("_wandb", {}).get("value", {})
    counts = Counter(itertools.chain.from_iterable(run.history))
    keys = {
        key: {"typeCounts": [{"type": "number", "count": count}]} for key, count in counts.items()
    }
    last_step = max((row.get("_step", 0) for row in run.history), default=-1)
    names = {
        "id": run.storage_id,
        "name": run.id,
        "displayName": run.name,
        "group": run.group,
        "jobType": run.job_type,
    }
    labels = {
        "tags": run.tags,
        "notes": run.notes,
        "description": None,
        "sweepName": run.sweep,
        "commit": run.commit,
    }
    times = {
        "state": run.state,
        "createdAt": run.created_at,
        "heartbeatAt": run.heartbeat_at,
        "readOnly": False,
    }
    project = {
        "id": "project-1",
        "name": run.project,
        "entity": {"id": "entity-1", "name": run.entity},
    }
    lines: dict[str, Sequence[Json]] = {
        "history": run.history,
        "events": run.events,
        "log": run.console,
    }
    return {
        **(names | labels | times),
        **{f"{name}LineCount": len(content) for name, content in lines.items()},
        **{
            f"{name}Tail": json.dumps([json.dumps(row) for row in content[-1:]])
            for name, content in lines.items()
        },
        "projectId": "1",
        "project": project,
        "user": _viewer({})["viewer"],
        "config": json.dumps(run.raw_config),
        "wandbConfig": json.dumps({"t": telemetry.get("t", {})}),
        "summaryMetrics": json.dumps(run.summary),
        "systemMetrics": json.dumps(run.events[-1] if run.events else {}),
        "historyKeys": {"lastStep": last_step, "sets": [], "keys": keys},
    }


def _artifact_node(artifact: ServedArtifact) -> Json:
    project = {
        "id": "project-1",
        "internalId": "1",
        "name": artifact.project,
        "entity": {"name": artifact.entity},
    }
    collection = {"__typename": "ArtifactSequence", "name": artifact.name, "project": project}
    alias = {"__typename": "ArtifactAlias", "artifactCollection": collection}
    names = {
        "__typename": "Artifact",
        "id": artifact.id,
        "artifactType": {"name": artifact.type},
        "tags": list[str](),
    }
    about = {
        "description": artifact.description,
        "metadata": json.dumps(artifact.metadata),
        "historyStep": None,
    }
    digest = {
        "digest": artifact.digest,
        "digestAlgorithm": "MANIFEST_MD5",
        "commitHash": artifact.digest,
    }
    sizes = {"fileCount": len(artifact.files), "size": sum(map(len, artifact.files.values()))}
    times = {
        "createdAt": artifact.created_at,
        "updatedAt": None,
        "ttlDurationSeconds": -2,
        "ttlIsInherited": True,
    }
    return {
        **(names | about | digest | sizes | times),
        "artifactSequence": collection,
        "versionIndex": artifact.version,
        "state": "PENDING" if artifact.version is None else "COMMITTED",
        "aliases": [{**alias, "id": name, "alias": name} for name in artifact.aliases],
    }


def _artifact_page(artifacts: Sequence[ServedArtifact], v: Variables) -> Json:
    page = _page([_artifact_node(one) for one in artifacts], v.get("cursor"), v.get("perPage"))
    return {"artifacts": {**page, "totalCount": len(artifacts)}}


def _full_history(run: ServedRun, v: Variables) -> Json:
    both = {"history": run.history, "events": run.events}
    return {
        name: [json.dumps(row) for row in _sample(rows, v.get("samples"))]
        for name, rows in both.items()
    }


def _history_page(run: ServedRun, v: Variables) -> Json:
    rows = [row for row in run.history if v["minStep"] <= row.get("_step", 0) < v["maxStep"]]
    return {"history": [json.dumps(row) for row in rows[: v["pageSize"]]]}


def _parquet_history(run: ServedRun, _: Variables) -> Json:
    """No parquet files, which W&B exports late: the client then reads all from the live history."""
    return {"parquetHistory": {"parquetUrls": list[str](), "liveData": _strict(run.history)}}


def _sampled_history(run: ServedRun, specs: Iterable[str]) -> Json:
    """For each spec the rows that have all its keys, with these alone; step bounds are inside."""
    samples: list[Json] = []
    for spec in map(json.loads, specs):
        first, last = spec.get("minStep", 0), spec.get("maxStep", math.inf)
        rows = [
            row
            for row in run.history
            if first <= row.get("_step", 0) <= last and row.keys() >= set(spec["keys"])
        ]
        samples.append(
            _strict(
                [
                    {key: row[key] for key in spec["keys"]}
                    for row in _sample(rows, spec.get("samples"))
                ]
            )
        )
    return {"sampledHistory": samples}


def _sample(rows: Sequence[Row], size: int | None) -> Sequence[Row]:
    """At most `size` rows, evenly spread, as W&B thins a long history."""
    size = size or 500
    return rows if len(rows) <= size else [rows[at * len(rows) // size] for at in range(size)]


def _strict(value: Json) -> Json:
    """Outside a JSON string rows must be strict JSON: W&B spells NaN as a string there."""
    return json.loads(json.dumps(value), parse_constant=str)


@final
@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    retry_after: float | None = None


def _error(status: int, message: str, retry_after: float | None = None) -> _Answer:
    return _Answer(
        status, json.dumps({"data": None, "errors": [{"message": message}]}).encode(), retry_after
    )


@final
class WandbServer:
    """The server: a context manager that listens on 127.0.0.1, and keeps its port and its memory.

    Leaving the context raises when the server itself went wrong: its defect must not pass for a
    client's behaviour.
    """

    def __init__(self) -> None:
        """Take a free port, without listening yet."""
        # A socket that is bound and never listens keeps the port while the server is away: no
        # other server gets it, and a client that retries cannot get it as its own source port,
        # which would connect the client to itself.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self.port: Final[int] = self._reservation.getsockname()[1]
        self.url: Final = f"http://127.0.0.1:{self.port}"
        self.fail: FailRule | None = None
        """Asked about each request, one at a time; its `Failure` happens instead of the answer."""
        self.store: Final = Store(self.url)
        self._lock = threading.RLock()
        self._requests: list[Request] = []
        self._errors: list[str] = []
        self._http: _HttpServer | None = None

    def __enter__(self) -> WandbServer:
        """Listen."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop for good; AssertionError when the server itself went wrong."""
        self.stop()
        self._reservation.close()
        if self._errors and kind is None:
            raise AssertionError("the test server failed:\n" + "\n".join(self._errors))

    @property
    def runs(self) -> dict[str, ServedRun]:
        """The runs by id. Where two projects share an id, see `store.runs`."""
        with self._lock:
            return {run.id: run for run in self.store.runs.values()}

    @property
    def artifacts(self) -> list[ServedArtifact]:
        """All committed versions of all runs, in the order in which their uploads began."""
        with self._lock:
            return [one for one in self.store.artifacts.values() if one.version is not None]

    @property
    def requests(self) -> list[Request]:
        """Every request so far, failed ones included."""
        with self._lock:
            return list(self._requests)

    def history_ranges(self, run_id: str) -> list[tuple[int, int]]:
        """The (offset, count) of each upload of history lines that was carried out."""
        with self._lock:
            return list(self.store.find(run_id).history_ranges)

    def delete(self, run_id: str) -> None:
        """Delete a run as a user does in the app; from then on its id is refused."""
        with self._lock:
            self.store.delete(self.store.find(run_id))

    def environment(self, home: Path) -> dict[str, str]:
        """What a client's environment needs to reach this server and write only under `home`.

        Retries are bounded to some seconds: by default a client whose server is gone tries for
        days. Rows are sent each second instead of each 15; here the client takes whole seconds
        alone, and its default for a fraction.
        """
        folders = {
            name: home / name.lower()
            for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR")
        }
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        bounds = {"MAX": "5", "WAIT_MIN_SECONDS": "1", "WAIT_MAX_SECONDS": "1"}
        services = ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")
        return {
            "HOME": str(home),
            "NETRC": str(home / "netrc"),
            "NO_PROXY": "127.0.0.1",
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": API_KEY,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1",
            **{f"WANDB_{name}": str(folder) for name, folder in folders.items()},
            **{
                f"WANDB_X_{part}_RETRY_{name}": bound
                for part in services
                for name, bound in bounds.items()
            },
        }

    def start(self) -> None:
        """Listen again, on the same port and with all that came before, unless it listens now."""
        if self._http is None:
            self._http = _HttpServer(self)
            threading.Thread(
                target=self._http.serve_forever, args=(0.02,), name="wandb-server", daemon=True
            ).start()

    def stop(self) -> None:
        """Go away: refuse connections, cut the open ones, carry out nothing more."""
        if self._http is not None:
            with self._lock:  # a request is carried out before this, or never
                http, self._http = self._http, None
            http.shutdown()
            http.server_close()
            http.cut_connections()

    def receive(self, request: Request, http: _HttpServer, *, authorized: bool) -> _Answer | None:
        """Decide one request; None when its connection is to be dropped."""
        with self._lock:
            self._requests.append(request)
            failure = (self.fail and self.fail(request)) or Failure()
        time.sleep(failure.delay)
        proper = failure.status is None and not failure.drop
        answer = None
        with self._lock:
            if self._http is not http:
                return None
            if proper or failure.carried_out:
                answer = (
                    self._carry_out(request) if authorized else _error(401, "user is not logged in")
                )
        if failure.status is None or failure.drop:
            return None if failure.drop else answer
        return _error(failure.status, failure.message, failure.retry_after)

    def _carry_out(self, request: Request) -> _Answer:
        try:
            if request.operation is not None:
                answer = self.store.graphql(request.operation, request.variables)
            elif request.path.endswith("/file_stream"):
                answer = self.store.receive_stream(request.path, request.body or {})
            elif request.method == "PUT":
                self.store.receive_file(request.path, request.body or b"")
                answer = None
            elif request.path.startswith("/storage/"):
                return _Answer(200, self.store.send_file(request.path))
            else:
                return _error(404, f"the test server has nothing at {request.path}")
        except _RefusedError as refusal:
            return _error(refusal.status, str(refusal))
        except Exception:  # noqa: BLE001 -- whatever it is, `__exit__` raises it
            self._errors.append(f"{request!r:.3000}\n{traceback.format_exc()}")
            return _error(500, "the test server failed")
        return _Answer(200, json.dumps(answer).encode())


@final
class _HttpServer(ThreadingHTTPServer):
    """The listening socket, and the open connections so that they can be cut."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, owner: WandbServer) -> None:
        self.owner: Final = owner
        self.connections: Final[set[socket.socket]] = set()
        super().__init__(("127.0.0.1", owner.port), _Handler)

    def cut_connections(self) -> None:
        for connection in self.connections.copy():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet about connections that break, on purpose; `WandbServer` keeps its own errors."""


@final
class _Handler(BaseHTTPRequestHandler):
    """HTTP alone: reads a request, has it decided, writes the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HttpServer  # pyright: ignore[reportIncompatibleVariableOverride] -- what it is here

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def do_POST(self) -> None:
        body: Json = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if body and self.command == "POST":
            body = json.loads(body)
        operation = None
        if self.path == "/graphql":  # the Python side of the client names it in the query alone
            named = re.findall(r"(?:query|mutation)\s+(\w+)", body["query"])
            operation = body.get("operationName") or named[0]
        request = Request(time.time(), self.command, self.path, operation, body or None)
        # A storage URL is a signed one on W&B: it is its own permission.
        authorized = "Authorization" in self.headers or self.path.startswith("/storage/")
        answer = self.server.owner.receive(request, self.server, authorized=authorized)
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.body)))
        if answer.retry_after is not None:
            self.send_header("Retry-After", f"{answer.retry_after:g}")
        self.end_headers()
        self.wfile.write(answer.body)

    do_PUT = do_GET = do_POST  # noqa: N815 -- the base class's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class's name
        """Quiet: `WandbServer.requests` has them all."""
