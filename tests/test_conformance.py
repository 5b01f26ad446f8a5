"""Every backend passes the shipped conformance suite, read back by means that are not its own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import tensorboard_oracle
from tracklayer.protocol import RunInfo
from tracklayer.testing import BackendConformance, Point, Recorded
from tracklayer.testing.recorded import one_a_step
from wandb_server import WandbServer


class TestSQLite(BackendConformance):
    """Read back with SQL as anybody would write it."""

    backend_name = "sqlite"

    def read_back(self, folder: Path, info: RunInfo) -> Recorded:
        file = sqlite3.connect(folder / "runs" / f"{info.id}.sqlite")
        scalars: dict[str, list[Point]] = {}
        for key, step, time, value in file.execute(
            "SELECT key, step, time, value FROM (SELECT key_id, step, time, value, 0 AS seq FROM points"
            " UNION ALL SELECT key_id, step, time, value, seq FROM new_points) JOIN keys USING (key_id)"
            " ORDER BY key, step, seq"
        ):
            number = float("nan") if value is None else value
            scalars.setdefault(key, []).append(Point(step, time, number))
        objects: dict[str, dict[str, list[Point]]] = {"text": {}, "histogram": {}}
        for key, step, time, kind, data in file.execute(
            "SELECT key, step, time, kind, data FROM objects JOIN keys USING (key_id) ORDER BY step"
        ):
            value = json.loads(data)
            shown = value["text"] if kind == "text" else (value["counts"], value["edges"])
            objects[kind].setdefault(key, []).append(Point(step, time, shown))
        artifacts: dict[str, dict[str, bytes]] = {}
        references: dict[str, dict[str, str]] = {}
        for name, path, sha256, reference in file.execute(
            "SELECT name, path, sha256, reference FROM artifacts JOIN artifact_files USING (artifact)"
            " WHERE NOT used"
        ):
            if reference is None:
                content = (folder / "blobs" / sha256[:2] / sha256).read_bytes()
                artifacts.setdefault(name, {})[path] = content
            else:
                references.setdefault(name, {})[path] = reference
        versions = file.execute("SELECT name, aliases FROM artifacts WHERE NOT used").fetchall()
        uses = file.execute("SELECT name || ':v' || version FROM artifacts WHERE used ORDER BY artifact")
        (state,) = file.execute("SELECT state FROM segments ORDER BY segment DESC").fetchone()
        environment = file.execute("SELECT data FROM environments ORDER BY segment DESC").fetchone()
        system: dict[str, list[tuple[float, float]]] = {}
        for key, time, value in file.execute("SELECT key, time, value FROM system_metrics ORDER BY time"):
            system.setdefault(key, []).append((time, value))
        recorded = Recorded(
            environment=json.loads(environment[0]) if environment else None,
            console=[text for (text,) in file.execute("SELECT text FROM console ORDER BY line")],
            system_metrics=system,
            scalars={key: one_a_step(points) for key, points in scalars.items()},
            texts=objects["text"],
            histograms=objects["histogram"],
            config={k: json.loads(v) for k, v in file.execute("SELECT key, value FROM config")},
            summary={k: json.loads(v) for k, v in file.execute("SELECT key, value FROM summary")},
            state=state,
            artifacts=artifacts,
            references=references,
            aliases={name: set(json.loads(aliases)) for name, aliases in versions},
            uses=[label for (label,) in uses],
        )
        file.close()
        return recorded


class TestTensorBoard(BackendConformance):
    """Read back with TensorBoard's own reader."""

    backend_name = "tensorboard"

    def read_back(self, folder: Path, info: RunInfo) -> Recorded:
        shown = tensorboard_oracle.read(folder / "tensorboard" / info.project / info.id)
        ours = {tag.removeprefix("tracklayer/") for tag in shown.texts if tag.startswith("tracklayer/")}
        artifacts = [shown.json(f"tracklayer/{tag}") for tag in sorted(ours) if tag.startswith("artifacts/")]
        uses = [shown.json(f"tracklayer/{tag}") for tag in sorted(ours) if tag.startswith("used_artifacts/")]
        system = {tag: points for tag, points in shown.scalars.items() if tag.startswith("system/")}
        return Recorded(
            environment=shown.json("tracklayer/environment") if "environment" in ours else None,
            system_metrics={
                tag.removeprefix("system/"): [(point.wall_time, point.value) for point in points]
                for tag, points in system.items()
            },
            scalars=_latest(
                {tag: points for tag, points in shown.scalars.items() if tag not in system},
                lambda value: value,
            ),
            texts=_latest(shown.texts, str),
            histograms={
                tag: [Point(p.step, p.wall_time, _counts_and_edges(p.buckets)) for p in points]
                for tag, points in shown.histograms.items()
            },
            config=shown.json("tracklayer/config") if "config" in ours else None,
            summary=shown.json("tracklayer/summary") if "summary" in ours else None,
            state=_end(shown),
            artifacts=None,  # noted as text, without their content
            references={a["name"]: _references(a["files"]) for a in artifacts},
            aliases={a["name"]: set(a["aliases"]) for a in artifacts},
            uses=[f"{used['name']}:{used['version']}" for used in uses],
            relative_error=1e-6,  # of float32
            largest_integer=2**24,
        )


@pytest.mark.slow
class TestWandb(BackendConformance):
    """Read back from what the server received from the real client."""

    backend_name = "wandb"
    server: WandbServer

    @pytest.fixture(autouse=True)
    def _server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        _tear_down_client()  # another test may have had it read another environment
        with WandbServer() as server:
            for name, value in server.environment(tmp_path / "home").items():
                monkeypatch.setenv(name, value)
            # how long a start may take is not what these tests are about
            monkeypatch.setattr("tracklayer_wandb.recording._INIT_SECONDS", 60.0)
            self.server = server
            yield
            _tear_down_client()

    def read_back(self, folder: Path, info: RunInfo) -> Recorded:
        run = self.server.runs.get(info.id)
        kinds: dict[str, dict[str, list[Point]]] = {"scalar": {}, "text": {}, "histogram": {}}
        for row in run.history if run else ():
            step = row.get("tracklayer/step", row["_step"])
            for key, value in row.items():
                if key.startswith("_") or key == "tracklayer/step":
                    continue
                kind, shown = _kind(value)
                kinds[kind].setdefault(key, []).append(Point(step, row["_timestamp"], shown))
        made = [a for a in self.server.artifacts if a.created_by == info.id]
        used = [a for a in self.server.artifacts if info.id in a.used_by]
        references = {
            a.name: {p: e["ref"] for p, e in a.manifest["contents"].items() if "ref" in e} for a in made
        }
        return Recorded(
            scalars=_sorted(kinds["scalar"]),
            texts=_sorted(kinds["text"]),
            histograms=_sorted(kinds["histogram"]),
            config=run.config if run else None,
            summary=dict(run.summary) if run else None,
            state=run.state if run else None,
            artifacts={a.name: dict(a.files) for a in made},
            references=references,
            aliases={a.name: set(a.aliases) for a in made},
            uses=[f"{a.name}:v{a.version}" for a in used],
            live=False,  # a row is sent when a higher step comes
        )


class TestAFourthBackend(BackendConformance):
    """An installed plug-in that the core has never heard of."""

    backend_name = "jsonl"

    @pytest.fixture(autouse=True)
    def _installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(Path(__file__).parent / "plugin")

    def read_back(self, folder: Path, info: RunInfo) -> Recorded:
        kinds: dict[str, dict[str, list[Point]]] = {"scalar": {}, "text": {}, "histogram": {}}
        config: dict[str, Any] = {}
        summary: dict[str, Any] = {}
        artifacts: dict[str, dict[str, bytes]] = {}
        references: dict[str, dict[str, str]] = {}
        aliases: dict[str, set[str]] = {}
        state = None
        for line in (folder / f"{info.id}.jsonl").read_text().splitlines():
            call = json.loads(line)
            match call["call"]:
                case "log":
                    for key, value in call["values"].items():
                        kind, shown = _kind(value)
                        point = Point(call["step"], call["time"], shown)
                        kinds[kind].setdefault(key, []).append(point)
                case "config":
                    config.update(call["values"])
                case "summary":
                    summary.update(call["values"])
                case "artifact":
                    name, files = call["name"], call["files"]
                    references[name] = {path: data for path, data in files.items() if "://" in data}
                    files = {path: data for path, data in files.items() if "://" not in data}
                    artifacts[name] = {path: bytes.fromhex(data) for path, data in files.items()}
                    aliases[name] = set(call["aliases"])
                case _:
                    state = call["state"]
        scalars, texts, histograms = map(_sorted, kinds.values())
        return Recorded(scalars, texts, histograms, config, summary, state, artifacts, references, aliases)


def _end(shown: tensorboard_oracle.Shown) -> str | None:
    text = shown.text("tracklayer/status") if "tracklayer/status" in shown.texts else ""
    return next((state for state in ("finished", "failed", "crashed") if state in text), None)


def _references(files: list[dict[str, Any]]) -> dict[str, str]:
    return {file["path"]: file["reference"] for file in files if "reference" in file}


def _latest(series: Mapping[str, Any], shown: Callable[[Any], Any]) -> dict[str, list[Point]]:
    """Return the series of users' keys, one point a step."""
    return {
        tag: one_a_step([Point(p.step, p.wall_time, shown(p.value)) for p in points])
        for tag, points in series.items()
        if not tag.startswith("tracklayer/")
    }


def _counts_and_edges(buckets: list[tuple[float, float, float]]) -> tuple[list[float], list[float]]:
    edges = [left for left, _, _ in buckets] + [buckets[-1][1]] if buckets else []
    return [count for _, _, count in buckets], edges


def _kind(value: Any) -> tuple[str, Any]:
    """Tell a JSON value's kind, and show it as the suite does."""
    if isinstance(value, str):
        return "text", value
    if not isinstance(value, dict):
        return "scalar", value
    if "text" in value:
        return "text", value["text"]
    counts = value["counts"] if "counts" in value else value["values"]
    return "histogram", (counts, value["edges"] if "edges" in value else value["bins"])


def _sorted(points: dict[str, list[Point]]) -> dict[str, list[Point]]:
    return {key: one_a_step(series) for key, series in points.items()}


def _tear_down_client() -> None:
    """End the client's session, so that the next test's begins with its own environment."""
    import wandb

    wandb.teardown()


def test_the_fourth_backend_is_at_most_60_lines() -> None:
    source = Path(__file__).parent / "plugin" / "tracklayer_jsonl.py"
    assert len(source.read_text().splitlines()) <= 60
