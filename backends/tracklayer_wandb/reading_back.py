"""What the W&B server has of a run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from tracklayer.delivery import Question, Received, ReceivedRow
from tracklayer.errors import BackendUnavailableError
from tracklayer.protocol import RunInfo, State
from tracklayer.surroundings import ConsoleLine
from tracklayer_wandb.artifacts import Collections, missing_artifacts, missing_parts, missing_uses
from tracklayer_wandb.asking import api, ask_about, asking, entity_of
from tracklayer_wandb.client import wait_for_orphan
from tracklayer_wandb.login import app_url, check_login
from tracklayer_wandb.media import charts_by_table

if TYPE_CHECKING:
    from collections.abc import Mapping

TRUE_STEP: Final = "tracklayer/step"
"""The key that holds a late row's own step."""
MARK: Final = "tracklayer"
"""The key, below `_wandb` in the config, of what says whose run it is: `{"created_at": Unix seconds}`."""
BLANK: Final = " "
"""What stands for an empty line, which the client counts only if it can show one after it."""

_RUN: Final = """
query Run($entity: String!, $project: String!, $name: String!) {
    project(name: $project, entityName: $entity) {
        run(name: $name) {
            state config summaryMetrics historyKeys historyLineCount logLineCount eventsLineCount
        }
    }
}
"""
_STATE: Final = """
query RunState($entity: String!, $project: String!, $name: String!) {
    project(name: $project, entityName: $entity) { run(name: $name) { state } }
}
"""
_ENDS: Final = """
query RunEnds($entity: String!, $project: String!, $name: String!) {
    project(name: $project, entityName: $entity) {
        run(name: $name) { eventsTail logLines(last: 1) { edges { node { timestamp line } } } }
    }
}
"""
_FILES: Final = """
query RunFiles(
    $entity: String!, $project: String!, $name: String!,
    $fileNames: [String] = [], $fileCursor: String, $fileLimit: Int
) {
    project(name: $project, entityName: $entity) {
        run(name: $name) {
            files(names: $fileNames, after: $fileCursor, first: $fileLimit) {
                edges { node { name sizeBytes } }
                pageInfo { endCursor hasNextPage }
            }
        }
    }
}
"""
_ROWS: Final = """
query HistoryPage(
    $entity: String!, $project: String!, $name: String!, $minStep: Int64!, $maxStep: Int64!, $pageSize: Int!
) {
    project(name: $project, entityName: $entity) {
        run(name: $name) { history(minStep: $minStep, maxStep: $maxStep, samples: $pageSize) }
    }
}
"""
_STAMP: Final = re.compile(r"(?:ERROR )?(\d{4}-\d\d-\d\dT[\d:.]+Z?) ")
_FILES_AT_ONCE: Final = 200
_FILES_IN_PAGE: Final = 1_000
_PAGE_ROWS: Final = 10_000
_SAME_MOMENT: Final = 1e-6  # seconds
_NOTHING: Final = hashlib.sha256(b"").hexdigest()[:20]  # in the name of a medium that is empty
_NOT_LOGGED: Final[frozenset[str]] = frozenset({"_step", "_timestamp", "_runtime", "_wandb", TRUE_STEP})
_STATES: Final[dict[str, State]] = {
    "running": "running",
    "finished": "finished",
    "failed": "failed",
    "crashed": "crashed",
    "killed": "failed",
    "preempted": "failed",
}
_ENDED: Final = _STATES.keys() - {"running"}


def received(info: RunInfo, question: Question) -> Received | None:
    """Ask the server what it has of a run; None if it has no such run.

    A client whose own process was killed while it sent the run is waited for first.

    Raises:
        BackendUnavailableError: no login, no answer, or an answer that says no; or that client goes on.
    """
    check_login()
    wait_for_orphan(info.id)
    with asking():
        run = ask_about(_RUN, info)
        if run is None:
            return None
        entity = entity_of(info)
        config = _parsed(run["config"])
        hidden = _hidden(config)
        collections = Collections(api(), entity)
        place = f"{entity}/{info.project}/{info.id}"
        last_line, last_system = _ends(info) if question.ends else (None, None)
        return Received(
            state=_STATES.get(run["state"], "running"),
            is_ours=_is_marked(hidden, info),
            line_count=run["historyLineCount"] or 0,
            last_step=_last_step(run),
            console_lines=run["logLineCount"] or 0,
            system_rows=run["eventsLineCount"] or 0,
            last_line=last_line,
            last_system=last_system,
            url=_url(entity, info),
            config={key: _value(entry) for key, entry in config.items() if key != "_wandb"},
            summary=_parsed(run["summaryMetrics"]),
            missing_artifacts=missing_artifacts(collections, question.made, info.project),
            missing_uses=missing_uses(collections, api().run(place), question.used) if question.used else (),
            missing_files=_missing_files(info, question.files),
            missing_parts=missing_parts(collections, question.parts, info.project),
        )


def received_rows(info: RunInfo) -> Iterator[ReceivedRow]:
    """Yield all rows that the server has of a run, in the order of its steps, which are not a late row's own.

    Raises:
        BackendUnavailableError: no answer, one that says no, or fewer rows than the server counts.
    """
    with asking():
        run = ask_about(_RUN, info)
    if run is None:
        return
    charts = charts_by_table(_hidden(_parsed(run["config"])).get("visualize", {}))
    count = 0
    for row in _rows(info, _last_step(run)):
        count += 1
        true_step = row.get(TRUE_STEP)
        values = {k: v for k, v in row.items() if v is not None and k not in _NOT_LOGGED}
        values |= {charts[key]: values[key] for key in values.keys() & charts.keys()}
        yield ReceivedRow(int(row.get("_step", 0) if true_step is None else true_step), values)
    if count < (run["historyLineCount"] or 0):
        msg = f"the server counts {run['historyLineCount']} rows and shows {count}; push again later"
        raise BackendUnavailableError(msg)


def hidden_config(info: RunInfo) -> dict[str, Any]:
    """Return what the server has in a run's config that W&B's pages do not show."""
    run = ask_about(_RUN, info)
    return {} if run is None else _hidden(_parsed(run["config"]))


def file_names(info: RunInfo) -> Iterator[str]:
    """Yield the names of the files that the server has of a run."""
    cursor: str | None = None
    while True:
        run = ask_about(_FILES, info, fileCursor=cursor, fileLimit=_FILES_IN_PAGE)
        if run is None:
            return
        yield from _whole_files(run)
        if not run["files"]["pageInfo"]["hasNextPage"]:
            return
        cursor = run["files"]["pageInfo"]["endCursor"]


def shows_end(info: RunInfo, seconds: float) -> bool:
    """Say whether the server tells, within so many seconds, that the run ended.

    It is told so last: then it has all else, too.
    """
    deadline, pause = monotonic() + seconds, 0.1
    try:
        with asking():
            while True:
                run = ask_about(_STATE, info)
                has_ended = run is not None and run["state"] in _ENDED
                if run is None or has_ended or monotonic() + pause > deadline:
                    return has_ended
                sleep(pause)
                pause *= 2
    except BackendUnavailableError:
        return False


def _rows(info: RunInfo, last: int) -> Iterator[dict[str, Any]]:
    """Yield rows in pages: a page is a range of steps, the wider the sparser these are."""
    start, width = 0, _PAGE_ROWS
    while start <= last:
        with asking():
            run = ask_about(_ROWS, info, minStep=start, maxStep=start + width, pageSize=_PAGE_ROWS)
        lines: list[str] = [] if run is None else run["history"]
        if len(lines) >= _PAGE_ROWS and width > _PAGE_ROWS:  # there may be more than it showed
            width = max(_PAGE_ROWS, width // 64)
            continue
        yield from sorted(map(json.loads, lines), key=lambda row: row.get("_step", 0))
        start += width
        if len(lines) < _PAGE_ROWS // 8:
            width *= 8


def _ends(info: RunInfo) -> tuple[ConsoleLine | None, float | None]:
    """Return the last line of the console's text, and the time of the last row of system metrics."""
    run = ask_about(_ENDS, info)
    if run is None:
        return None, None
    lines: list[Any] = run["logLines"]["edges"] if run["logLines"] else []
    events: list[str] = json.loads(run["eventsTail"] or "[]")
    return (
        _line(lines[-1]["node"]) if lines else None,
        json.loads(events[-1]).get("_timestamp") if events else None,
    )


def _line(node: Mapping[str, str | None]) -> ConsoleLine | None:
    """Return a line as it was printed; None where it is not told when."""
    written = node["line"] or ""
    stamp = _STAMP.match(written)  # which the client writes before it, and a server may take off
    time = node["timestamp"] or (stamp and stamp[1])
    if not time:
        return None
    text = written[stamp.end() :] if stamp else written
    moment = datetime.fromisoformat(time)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return ConsoleLine(moment.timestamp(), "stdout", "" if text == BLANK else text)


def _missing_files(info: RunInfo, names: Sequence[str]) -> tuple[str, ...]:
    there: set[str] = set()
    for start in range(0, len(names), _FILES_AT_ONCE):
        some = list(names[start : start + _FILES_AT_ONCE])
        run = ask_about(_FILES, info, fileNames=some, fileLimit=len(some))
        there.update(_whole_files(run) if run else ())
    return tuple(name for name in names if name not in there)


def _whole_files(run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of files, but for those that are empty: such were announced and never came."""
    for edge in run["files"]["edges"]:
        name, size = edge["node"]["name"], int(edge["node"]["sizeBytes"] or 0)
        if size or _NOTHING in name:
            yield name


def _parsed(text: str | None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text or "{}")
    return found


def _value(entry: Any) -> Any:
    """Return a config entry's value, beside which W&B may keep a description."""
    return entry.get("value") if isinstance(entry, dict) else entry  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def _hidden(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the config holds that W&B's pages do not show."""
    return _value(config.get("_wandb", {})) or {}


def _is_marked(hidden: Mapping[str, Any], info: RunInfo) -> bool:
    mark: Mapping[str, Any] = hidden.get(MARK) or {}
    return abs(float(mark.get("created_at", "-inf")) - info.created_at) < _SAME_MOMENT


def _last_step(run: Mapping[str, Any]) -> int:
    keys: Mapping[str, Any] = run["historyKeys"] or {}
    return int(keys.get("lastStep", -1))


def _url(entity: str, info: RunInfo) -> str:
    return "/".join([app_url(), *(quote(part, safe="") for part in (entity, info.project, "runs", info.id))])
