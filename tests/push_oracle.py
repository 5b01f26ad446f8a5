"""What a server must have of a run after its pushes, worked out from what the run was told to log.

An oracle of its own: nothing here comes from the code that pushes.  Console lines and system metrics, whose
number is chance, are read from the run's file by plain SQL.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from push_recording import Made, Plan, Rich, pixels, sound

if TYPE_CHECKING:
    from wandb_server import ServedArtifact, ServedRun, WandbServer

TRUE_STEP: Final = "tracklayer/step"
_STAMPS: Final = frozenset({"_step", "_timestamp", "_runtime", TRUE_STEP})
_CLOCK: Final = 0.002  # seconds by which times may differ: the client rounds some
_START: Final = 10.0  # seconds before its first call that a run began, at most
_ENDS: Final = {"finished": ("finished", 0), "failed": ("failed", 3), "killed": ("failed", 1)}


@dataclass
class Truth:
    """What is known of a run: its plan, when it logged, and what of it a server confirmed when."""

    plan: Plan
    spans: dict[int, list[tuple[float, float]]]
    """When each step was logged."""
    sendable: dict[tuple[int, str], list[Any]] = field(default_factory=dict[tuple[int, str], list[Any]])
    """By step and key: the values that a push may have found, until one said that all was sent."""
    _confirmed: set[tuple[int, str]] = field(default_factory=set[tuple[int, str]])
    phases: int = 0
    is_whole: bool = True
    """Whether nothing was pushed before all was recorded."""

    @property
    def files_too_many(self) -> int:
        """How many files may be there that nothing names.

        A client that is killed live has sent files and not their row; and of a value that was logged again
        after it was sent, the new files come, too, while its row stays as it is.
        """
        if self.plan.is_live:
            return sys.maxsize
        logged = Counter(
            (call.step, key)
            for phase in self.plan.phases
            for call in phase.calls
            for key, value in call.values.items()
            if isinstance(value, Rich)
        )
        return 0 if self.is_whole else 2 * sum(count - 1 for count in logged.values())  # a list has two

    def recorded(self, phase: int) -> None:
        """Take note of another phase, after which pushes come."""
        self.phases += 1
        self.is_whole = self.phases == 1 and not self.plan.is_live
        for place, value in self.plan.latest(phase).items():
            if place not in self._confirmed:
                self.sendable.setdefault(place, []).append(value)
        if self.plan.is_live:  # whose client sends what comes, as it comes
            for call in itertools.chain.from_iterable(one.calls for one in self.plan.phases[: phase + 1]):
                for key, value in call.values.items():
                    self.sendable[call.step, key].append(value)

    def confirmed(self) -> None:
        """Take note that a push said that all was sent: from now on, first values are kept."""
        self._confirmed |= self.sendable.keys()


def differences(server: WandbServer, truth: Truth, file: Path, *, lost_answers: int) -> Iterator[str]:
    """Yield what a server has otherwise than the record, or not once.

    Args:
        server: what has been pushed to.
        truth: what was recorded.
        file: the run's file.
        lost_answers: how many requests may have been carried out while the client could not know: it is
            right to send those again, as they were.
    """
    run = server.runs.get(truth.plan.id)
    if run is None:
        yield "the server does not have the run"
        return
    yield from _ranges(run, lost_answers)
    yield from _attributes(run, truth)
    yield from _rows(run, truth)
    yield from _summary(run, truth)
    yield from _files(run, truth)
    yield from _artifacts(server, run, truth)
    if not truth.plan.is_live:  # else the client did that, in its own way
        yield from _observed(run, file)


def _ranges(run: ServedRun, lost_answers: int) -> Iterator[str]:
    times = Counter(run.history_ranges)
    again = sum(times.values()) - len(times)
    if again > lost_answers:
        ranges = run.history_ranges
        yield f"{again} uploads of rows came again, where {lost_answers} answers were lost: {ranges}"
    end = 0
    for start, count in sorted(times):
        if start != end:
            yield f"uploads of rows overlap or leave a gap at line {end}: {run.history_ranges}"
            return
        end = start + count
    if end != len(run.history):
        yield f"{len(run.history)} rows, and uploads of {end}"


def _attributes(run: ServedRun, truth: Truth) -> Iterator[str]:
    wanted = {name: value or None for name, value in truth.plan.attributes.items()}
    found = {name: getattr(run, name) or None for name in wanted}
    wanted["tags"] = list(truth.plan.attributes["tags"]) or None
    yield from _compare("attributes", found, wanted)
    yield from _compare("end", (run.state, run.exit_code), _ENDS[truth.plan.phases[-1].ending])
    config: dict[str, Any] = {}
    for phase in truth.plan.phases:
        config |= phase.config
    yield from _compare("config", run.config, config)


def _rows(run: ServedRun, truth: Truth) -> Iterator[str]:
    steps = [row.get("_step", -1) for row in run.history]
    if any(one >= other for one, other in itertools.pairwise(steps)):
        yield f"steps do not ascend: {steps}"
    if truth.is_whole and len(steps) != len({step for step, _ in truth.sendable}):
        yield f"{len(steps)} rows, not one a step"
    seen: dict[tuple[int, str], int] = {}
    copied = {rule["step_metric"] for rule in truth.plan.rules.values() if "step_metric" in rule}
    for line, row in enumerate(run.history):
        yield from _stamps(line, row, truth)
        for key in row.keys() - _STAMPS:
            place = (row.get(TRUE_STEP, row.get("_step")), key)
            what = f"{key!r} of step {place[0]}"
            if place in seen:
                yield f"{what} is in line {seen[place]} and in line {line}"
            elif place in truth.sendable:
                seen[place] = line
                if not any(_is_value(row[key], value, run) for value in truth.sendable[place]):
                    yield f"{what} is {row[key]!r}, not {truth.sendable[place]}"
            elif key not in copied:
                yield f"{what} was never logged: {row[key]!r}"
    missing = sorted(truth.sendable.keys() - seen.keys())
    if missing:
        yield f"{len(missing)} values are missing, the first of which are {missing[:5]}"


def _stamps(line: int, row: Mapping[str, Any], truth: Truth) -> Iterator[str]:
    """Compare a row's step and times with when it was logged."""
    if TRUE_STEP in row and truth.is_whole:
        yield f"line {line} is late, though nothing was sent before it was logged: {row}"
    step, time = row.get(TRUE_STEP, row.get("_step")), row.get("_timestamp", 0)
    spans = truth.spans.get(step, [])
    if not any(a - _CLOCK <= time <= b + _CLOCK for a, b in spans):
        yield f"line {line} has the time {time}, and step {step} was logged at {spans}"
    since = min(a for spans in truth.spans.values() for a, _ in spans)
    if not -_CLOCK <= row.get("_runtime", -1) <= time - since + _START:
        yield f"line {line} has the runtime {row.get('_runtime')}, {time - since} s after the first call"


def _is_value(found: Any, logged: Any, run: ServedRun) -> bool:
    """Say whether what a row has is what was logged, files included."""
    if not isinstance(logged, Rich):
        return bool(_plain(found) == _plain(logged))
    kind, is_same = _KINDS[logged.kind]
    if not isinstance(found, dict) or found.get("_type") != kind:
        return False
    return is_same(found, logged.source, run.files)


def _is_image(found: Any, seed: int, files: Mapping[str, bytes]) -> bool:
    return _shows(files, found["path"], seed)


def _is_images(found: Any, seeds: list[int], files: Mapping[str, bytes]) -> bool:
    paths = found["filenames"]
    return len(paths) == len(seeds) and all(_shows(files, *pair) for pair in zip(paths, seeds, strict=True))


def _is_audio(found: Any, seed: int, files: Mapping[str, bytes]) -> bool:
    return files.get(found["path"]) == sound(seed)


def _is_html(found: Any, page: str, files: Mapping[str, bytes]) -> bool:
    return page.encode() in files.get(found["path"], b"")


def _is_table(found: Any, rows: list[Any], files: Mapping[str, bytes]) -> bool:
    table = json.loads(files.get(found["path"], b"null"))
    return table is not None and bool(table["data"] == rows)


def _is_histogram(found: Any, values: list[float], _: Mapping[str, bytes]) -> bool:
    edges, counts = found["bins"], found["values"]
    return (edges[0], edges[-1], sum(counts)) == (min(values), max(values), len(values))


_KINDS: Final[dict[str, tuple[str, Callable[[Any, Any, Mapping[str, bytes]], bool]]]] = {
    "image": ("image-file", _is_image),
    "images": ("images/separated", _is_images),
    "audio": ("audio-file", _is_audio),
    "html": ("html-file", _is_html),
    "table": ("table-file", _is_table),
    "histogram": ("histogram", _is_histogram),
}
"""By kind: W&B's name of the type, and what compares content with what it was made from."""


def _shows(files: Mapping[str, bytes], path: str, seed: int) -> bool:
    if path not in files:
        return False
    shown = np.asarray(Image.open(io.BytesIO(files[path])))
    return np.array_equal(shown, np.array(pixels(seed)))


def _summary(run: ServedRun, truth: Truth) -> Iterator[str]:
    wanted = _wanted_summary(truth.plan)
    for key, value in wanted.items():
        found = run.summary.get(key)
        if not (_is_value(found, value, run) or _is_close(found, value)):
            yield f"the summary's {key} is {found!r}, not {value!r}"
    for key in sorted(run.summary.keys() - wanted.keys()):
        if not key.startswith("_"):
            yield f"the summary has {key!r}, which was never logged: {run.summary[key]!r}"


def _wanted_summary(plan: Plan) -> dict[str, Any]:
    series: dict[str, list[Any]] = {}
    for (_, key), value in sorted(plan.latest(len(plan.phases)).items(), key=lambda item: item[0][0]):
        series.setdefault(key, []).append(value)
    wanted = {key: values[-1] for key, values in series.items()}
    for key, rule in plan.rules.items():
        if key in series and rule.get("summary") == "none":
            del wanted[key]
        elif key in series and "summary" in rule:
            wanted[key] = {word: _FOLDS[word](series[key]) for word in rule["summary"].split(",")}
    for phase in plan.phases:
        wanted |= phase.summary
    return wanted


_FOLDS: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "min": min,
    "max": max,
    "mean": lambda values: math.fsum(values) / len(values),
    "last": lambda values: values[-1],
}


def _is_close(found: Any, wanted: Any) -> bool:
    """Say whether a nested entry is the same but for how a mean was rounded."""
    if not (isinstance(found, dict) and isinstance(wanted, dict) and found.keys() == wanted.keys()):
        return False
    return all(math.isclose(found[word], wanted[word]) for word in wanted)


def _files(run: ServedRun, truth: Truth) -> Iterator[str]:
    """Compare what rows and summary say of files with the files."""
    named: dict[str, str | None] = {}
    for row in [*run.history, run.summary]:
        for value in row.values():
            if isinstance(value, dict) and "path" in value:
                named[value["path"]] = value.get("sha256")
            elif isinstance(value, dict):
                named |= dict.fromkeys(value.get("filenames", []))
    for path, sha256 in named.items():
        if path not in run.files:
            yield f"the file {path} is missing"
        elif sha256 is not None and hashlib.sha256(run.files[path]).hexdigest() != sha256:
            yield f"the file {path} has another content than is said of it"
    extra = {path for path in run.files if path.startswith("media/")} - named.keys()
    if len(extra) > truth.files_too_many:
        yield f"nothing names the files {sorted(extra)}"


def _artifacts(server: WandbServer, run: ServedRun, truth: Truth) -> Iterator[str]:
    made = [one for phase in truth.plan.phases for one in phase.artifacts]
    versions = [one for one in server.artifacts if one.type == "model"]
    for digest, count in Counter(one.digest for one in versions).items():
        if count > 1:
            yield f"{count} versions have the same content {digest}"
    for one in made:
        if not any(_is_version(version, one) and _made_it(run, version) for version in versions):
            yield f"the artifact {one} is missing, or is not the run's"
    tables = [
        value.source
        for value in truth.plan.latest(len(truth.plan.phases)).values()
        if isinstance(value, Rich) and value.kind == "table"
    ]
    shown = [one for one in run.artifacts if one.type == "run_table"]
    if len({one.digest for one in shown}) != len(shown) or (not shown) != (not tables):
        yield f"{len(shown)} tables among the artifacts, and {len(tables)} were logged"
    if any(phase.uses for phase in truth.plan.phases) and not any(run.id in one.used_by for one in versions):
        yield "the run used an artifact, which the server does not show"


def _made_it(run: ServedRun, version: ServedArtifact) -> bool:
    return any(one is version for one in run.artifacts)


def _is_version(version: ServedArtifact, made: Made) -> bool:
    return version.name == made.name and version.files == {p: text.encode() for p, text in made.files.items()}


def _observed(run: ServedRun, file: Path) -> Iterator[str]:
    with closing(sqlite3.connect(file)) as record:
        printed = [text for (text,) in record.execute("SELECT text FROM console ORDER BY line")]
        (measured,) = record.execute("SELECT count(DISTINCT time) FROM system_metrics").fetchone()
    shown = [line.rstrip("\n").split(" ", 2 if line.startswith("ERROR") else 1)[-1] for line in run.console]
    yield from _compare("console", shown, printed)
    yield from _compare("rows of system metrics", len(run.events), measured)


def _compare(what: str, found: Any, wanted: Any) -> Iterator[str]:
    if _plain(found) != _plain(wanted):
        yield f"{what}: {found!r}, not {wanted!r}"


def _plain(value: Any) -> Any:
    """Return JSON data in which NaN is equal to itself."""
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
