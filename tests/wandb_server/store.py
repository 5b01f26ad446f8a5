"""All that the server remembers, and what it answers; knows nothing of HTTP."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, final
from urllib.parse import quote, unquote

from wandb_server import answers
from wandb_server.artifacts import Artifacts, file_node
from wandb_server.records import (
    DEFAULT_ENTITY,
    Json,
    RefusedError,
    ServedRun,
    Variables,
    timestamp,
)
from wandb_server.sweeps import Sweeps

# variables of UpsertBucket, and the attribute of `ServedRun` that each sets
_RUN_VARIABLES: Final = {
    "displayName": "name",
    "display_name": "name",
    "groupName": "group",
    "jobType": "job_type",
} | {name: name for name in ("notes", "tags", "commit", "host", "program", "sweep")}


@final
class Store:
    """The runs and the artifacts.  Called under the server's lock."""

    def __init__(self, url: str) -> None:
        """`url` is the server's own, for the links in its answers."""
        self.runs: dict[tuple[str, str, str], ServedRun] = {}
        """By (entity, project, id)."""
        self._url = url
        self._deleted: set[tuple[str, str, str]] = set()
        self.artifacts: Final = Artifacts(self.runs, self._file_url)
        self.sweeps: Final = Sweeps(self.runs)
        self._operations: Mapping[str, Callable[[Variables], Json]] = {
            **self.artifacts.operations,
            **self.sweeps.operations,
            "Viewer": answers.viewer,
            "GetDefaultEntity": answers.viewer,
            "ServerFeaturesQuery": lambda _: {"serverInfo": {"features": []}},
            "OrganizationCoreWeaveOrganizationID": lambda _: {"entity": None},
            "UpsertBucket": self._upsert_bucket,
            "RunResumeStatus": self._resume_status,
            "CreateRunFiles": self._create_run_files,
            "Run": self._about_run(lambda run, _: answers.run_node(run)),
            "RunEnds": self._about_run(answers.run_ends),
            "RunState": self._about_run(lambda run, _: answers.run_node(run)),
            "RunHistoryKeys": self._about_run(lambda run, _: answers.run_node(run)),
            "RunFiles": self._about_run(self._run_files),
            "RunParquetHistory": self._about_run(answers.parquet_history),
            "HistoryPage": self._about_run(answers.history_page),
            "SampledHistoryPage": self._about_run(answers.history_of_keys),
            "RunSampledHistory": self._about_run(answers.history_of_keys),
            "RunOutputArtifacts": self._about_run(lambda run, v: answers.artifact_page(run.artifacts, v)),
            "RunInputArtifacts": self._about_run(
                lambda run, v: answers.artifact_page(self.artifacts.inputs_of(run), v)
            ),
            "Runs": self._list_runs,
        }

    def graphql(self, operation: str, variables: Variables) -> Json:
        """Return the answer to a query."""
        if operation not in self._operations:
            raise RefusedError(400, f"the test server does not know the operation {operation!r}")
        return {"data": self._operations[operation](variables)}

    def find(self, run_id: str) -> ServedRun:
        """Return the run of that id in whichever project; KeyError when there is none."""
        return {run.id: run for run in self.runs.values()}[run_id]

    def delete(self, run: ServedRun) -> None:
        """Forget a run for good: W&B never gives its id out again."""
        del self.runs[run.key]
        self._deleted.add(run.key)

    def forgive(self) -> None:
        """Give out the ids of deleted runs again, which W&B never does."""
        self._deleted.clear()

    def receive_stream(self, path: str, body: dict[str, Json]) -> Json:
        """Take in one `file_stream` request: lines at offsets, the summary, and the end."""
        entity, project, run_id = (unquote(part) for part in path.split("/")[2:5])
        run = self.runs.get((entity, project, run_id))
        if run is None:
            raise RefusedError(404, f"run {entity}/{project}/{run_id} not found")
        run.heartbeat_at = timestamp()
        files: dict[str, Json] = body.get("files") or {}
        for name, chunk in files.items():
            offset, lines = int(chunk["offset"]), list[str](chunk["content"])
            if name == "wandb-summary.json":
                run.summary = json.loads(lines[-1])
            elif name == "wandb-history.jsonl":
                run.history_ranges.append((offset, len(lines)))
                rows = [json.loads(line) for line in lines]
                _place(run.history, offset, rows, blank={})
                for row in rows:
                    run.last_step = max(run.last_step, row.get("_step", 0))
                    run.key_counts.update(row.keys())
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
        files, name = self._stored(path)
        files[name] = content

    def send_file(self, path: str) -> bytes:
        """Return the content behind a download URL; KeyError when there is none."""
        files, name = self._stored(path)
        return files[name]

    def _stored(self, path: str) -> tuple[dict[str, bytes], str]:
        """Return the folder and the name that a storage URL means."""
        kind, *rest, name = (unquote(part) for part in path.removeprefix("/storage/").split("/"))
        if kind == "run":
            return self.runs[rest[0], rest[1], rest[2]].files, name
        return (self.artifacts.manifests if kind == "manifest" else self.artifacts.blobs), name

    def _file_url(self, *parts: str) -> str:
        return "/".join([self._url, "storage", *(quote(part, safe="") for part in parts)])

    def _run(self, v: Variables) -> ServedRun | None:
        run_id = v.get("run") or v.get("runName") or v.get("name")
        return self.runs.get(
            (v.get("entity") or DEFAULT_ENTITY, v.get("project") or "uncategorized", str(run_id))
        )

    def _about_run(self, answer: Callable[[ServedRun, Variables], Json]) -> Callable[[Variables], Json]:
        """Return a query about one run; as on W&B, one that is not there is null and no error."""

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
            raise RefusedError(
                409, f"run {'/'.join(key)} was previously created and deleted; try a new run name"
            )
        else:
            inserted = key not in self.runs
            number = len(self.runs) + len(self._deleted) + 1
            run = self.runs.setdefault(key, ServedRun(*key, f"run-{number}", name=key[2]))
            run.state, run.exit_code = "running", None
        for variable, attribute in _RUN_VARIABLES.items():
            if v.get(variable) is not None:
                setattr(run, attribute, v[variable])
        if v.get("config"):
            run.raw_config = json.loads(v["config"])
        if v.get("summaryMetrics"):
            run.summary = json.loads(v["summaryMetrics"])
        return {"upsertBucket": {"bucket": answers.run_node(run), "inserted": inserted}}

    def _resume_status(self, v: Variables) -> Json:
        run = self._run(v)
        model = {
            "id": "project-1",
            "name": v.get("project"),
            "entity": {"id": "entity-1", "name": v.get("entity") or DEFAULT_ENTITY},
            "bucket": None if run is None else answers.run_node(run),
        }
        return {"model": model}

    def _create_run_files(self, v: Variables) -> Json:
        run = self._run(v)
        if run is None:
            raise RefusedError(404, f"run {v['run']} not found")
        run.announced.update(v["files"])
        made = {
            "runID": run.storage_id,
            "uploadHeaders": list[str](),
            "files": [
                {"name": name, "uploadUrl": self._file_url("run", *run.key, name)} for name in v["files"]
            ],
        }
        return {"createRunFiles": made}

    def _run_files(self, run: ServedRun, v: Variables) -> Json:
        pattern = (v.get("pattern") or "%").replace("%", "*")
        known = dict.fromkeys([*run.files, *sorted(run.announced)])
        nodes = [
            file_node(name, run.files.get(name, b""), self._file_url("run", *run.key, name))
            for name in v.get("fileNames") or known
            if name in known and fnmatch.fnmatchcase(name, pattern)
        ]
        shown = answers.page(nodes, v.get("fileCursor"), v.get("fileLimit"))
        return {"fileCount": len(known), "files": shown}

    def _list_runs(self, v: Variables) -> Json:
        place = (v["entity"], v["project"])
        nodes = [answers.run_node(run) for run in self.runs.values() if run.key[:2] == place]
        if not nodes:  # a project begins with its first run
            return {"project": None}
        filters: dict[str, Json] = json.loads(v.get("filters") or "{}")
        nodes = [
            node
            for node in nodes
            if all(answers.matches(node, name, wanted) for name, wanted in filters.items())
        ]
        if v.get("order") == "-created_at":
            nodes.reverse()
        shown = answers.page(nodes, v.get("cursor"), v.get("perPage"))
        return {
            "project": {
                "internalId": "1",
                "readOnly": False,
                "runCount": len(nodes),
                "runs": shown,
            }
        }


def _place(lines: list[Any], offset: int, content: Iterable[Any], *, blank: Any) -> None:
    """Write lines over what was at their offset, as W&B does; `history_ranges` shows overlaps."""
    lines.extend([blank] * (offset - len(lines)))
    new = list(content)
    lines[offset : offset + len(new)] = new
