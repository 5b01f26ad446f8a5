"""A pushed run is the run that the live client would have made: field by field, all that a server got.

One script is recorded by the plain wandb client, by tracklayer live on W&B, and by tracklayer offline and
then pushed.  What may differ stands in `DIFFERENCES`, each with its reason; everything else is equal.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from machine import Machine
from wandb_server import ServedArtifact, WandbServer

pytestmark = pytest.mark.slow

TRAIN = """
import importlib, math, os, pathlib, sys, time
import numpy as np

wandb = importlib.import_module(os.environ["TRACKER"])
run = wandb.init(
    project="p", id="r", name="a name", group="g", job_type="train", tags=["x", "y"], notes="some notes",
    config={"lr": 0.1, "model": {"depth": 2, "sizes": [1, 2]}, "none": None},
)
run.define_metric("loss", summary="min,max,mean,last")
run.define_metric("val/*", step_metric="epoch")
run.define_metric("hidden", summary="none")
print("training begins")
for step, loss in enumerate([3.5, 1.5, 2.5, 4.5]):
    run.log({"epoch": step // 2, "steps": step}, step=3 * step)
    run.log({"loss": loss, "hidden": 1, "val/a": step}, step=3 * step)
    print(f"step {step}", end="" if step == 1 else "\\n")
    time.sleep(0.3)
run.log({"val/b": 1})
run.log({"nan": math.nan, "up": math.inf, "big": 2**53 + 1, "flag": True, "ключ": "слово", "a.b": 1})
run.log({"h": wandb.Histogram(np_histogram=([1, 0, 4], [0.0, 0.5, 1.0, 2.0])), "deep": {"er": {"x": 3.0}}})
pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
run.log({"image": wandb.Image(pixels, caption="one"), "images": [wandb.Image(pixels), wandb.Image(pixels)]})
run.log({"media/audio": wandb.Audio(np.sin(np.arange(800) / 5), sample_rate=8000)})
run.log({"html": wandb.Html("<p>a page</p>")})
run.log({"table": wandb.Table(columns=["a", "b"], data=[[1, "x"], [2, "y"]])})
points = wandb.Table(columns=["x", "y"], data=[[0, 1], [1, 2]])
run.log({"line": wandb.plot.line(points, "x", "y", title="t")})
run.config.update({"later": {"a": 1}})
run.summary["best"] = {"score": 7}
run.summary["epoch"] = 100
pathlib.Path("weights.bin").write_bytes(bytes(range(256)) * 100)
weights = wandb.Artifact("model", "weights", description="d", metadata={"acc": 0.9})
weights.add_file("weights.bin", "sub/weights.bin")
weights.add_reference("https://example.com/data.csv", checksum=False)
run.log_artifact(weights, aliases=["best"]).wait()
run.use_artifact("model:best")
print("an error", file=sys.stderr)
time.sleep(1)
run.finish(exit_code=3)
"""
WAYS: Final = {
    "plain": {"TRACKER": "wandb"},
    "live": {"TRACKER": "tracklayer", "TRACKLAYER_BACKEND": "wandb"},
    "pushed": {"TRACKER": "tracklayer", "TRACKLAYER_BACKEND": "sqlite"},
}
OBSERVED: Final = {
    "WANDB_X_DISABLE_STATS": None,
    "WANDB_DISABLE_GIT": None,
    "WANDB_X_SAVE_REQUIREMENTS": None,
    "WANDB_X_STATS_SAMPLING_INTERVAL": "0.5",
    "TRACKLAYER_SYSTEM_INTERVAL": "0.5",
    "TRACKLAYER_CONSOLE": "python",
    "TRACKLAYER_OMIT": "",
}


class Difference(NamedTuple):
    """What may differ: the places, by a regular expression that fits them whole, and why."""

    places: str
    reason: str


_ABOUT_THE_RUN: Final = r"(/files/wandb-metadata.json|(/files/config.yaml|/config)/_wandb/value/e/WRITER)"
DIFFERENCES: Final = (
    Difference(r".*/(_timestamp|_runtime|runtime)", "each recording has its own times; see `test_times`"),
    Difference(_ABOUT_THE_RUN + "/startedAt", "likewise"),
    Difference(
        _ABOUT_THE_RUN + "/disk///.*", "how full the disk is; it changes all the time, and is not recorded"
    ),
    Difference(_ABOUT_THE_RUN + "/root", "the folder for W&B's own files: with tracklayer live, the store"),
    Difference(
        _ABOUT_THE_RUN + "/email", "of the account that is logged in, of which a record knows nothing"
    ),
    Difference(
        _ABOUT_THE_RUN + "/username", "on the machine where it ran; the client tells the account alone"
    ),
    Difference(_ABOUT_THE_RUN + "/writerId", "of what is synced later, the client chooses another by itself"),
    Difference(r".*/_wandb/value/t/.*", "W&B's telemetry: packages imported and parts of the client used"),
    Difference(r".*/_wandb/value/tracklayer/created_at", "tells a later push that the run is this one"),
    Difference(r"/files/diff.patch", "uncommitted changes, which the client sends with `save_code` alone"),
    Difference(r"/events/system.disk.(\w+\.)?(in|out)", "of all disks together, as psutil counts"),
    Difference(r"/events/system.network.tcpRetransmits", "psutil does not know it"),
    Difference(r"/events/system.throughput.*", "steps a second, which the client does not measure"),
)


def flat(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of JSON data by their places; NaN is equal to itself."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from flat(f"{place}/{key}", item)
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for number, item in enumerate(value):
            yield from flat(f"{place}/{number}", item)
    elif isinstance(value, float) and not math.isfinite(value):
        yield place, repr(value)
    else:
        yield place, value


def received(server: WandbServer, folder: Path) -> dict[str, Any]:
    """Return all that a server got of its run, by place; what is chance goes by one name everywhere."""
    run = server.runs["r"]
    fields = ("name", "entity", "project", "group", "job_type", "notes", "tags", "host", "program", "commit")
    whole = {
        "run": {name: getattr(run, name) for name in (*fields, "sweep", "state", "exit_code")},
        "config": readable_config(run.raw_config),
        "summary": run.summary,
        "history": {str(row["_step"]): row for row in run.history},
        "lines": len(run.history),
        "events": {key: [] for row in run.events for key in row},
        "console": printed(run.console),
        "files": {name: readable(name, content) for name, content in run.files.items()},
        "artifacts": {one.name: artifact(one) for one in server.artifacts},
    }
    text = json.dumps(whole).replace(str(folder), "FOLDER").replace(server.url, "SERVER")
    for writer in run.raw_config["_wandb"]["value"].get("e", {}):
        text = text.replace(writer, "WRITER")
    names = artifact_names(server)
    text = re.sub(r"wandb-client-artifact://(\w{128})", lambda found: names.get(found[1], "NOWHERE"), text)
    return dict(flat("", json.loads(text)))


def artifact_names(server: WandbServer) -> dict[str, str]:
    """Return the artifacts that the client's random words mean: on W&B, links in tables lead there."""
    names: dict[str, str] = {}
    for request in server.requests:
        if request.operation == "CreateArtifact":
            made = request.variables["input"]
            names[made["clientID"]] = f"ARTIFACT {made['artifactCollectionName']}"
            names[made["sequenceClientID"]] = f"COLLECTION {made['artifactCollectionName']}"
    return names


def artifact(version: ServedArtifact) -> dict[str, Any]:
    """Return what a server has of an artifact."""
    fields = ("name", "type", "version", "digest", "description", "metadata", "used_by", "created_by")
    files = {path: content.hex()[:200] for path, content in version.files.items()}
    aliases = sorted(version.aliases)
    return {name: getattr(version, name) for name in fields} | {"files": files, "aliases": aliases}


def printed(lines: list[str]) -> list[str]:
    """Return console lines without their times, and without what the trackers say."""
    texts = [re.sub(r"^(ERROR )?\d{4}-\d\d-\d\dT\S+ ", r"\1", line.rstrip("\n")) for line in lines]
    return [text for text in texts if "tracklayer: " not in text]


def readable(name: str, content: bytes) -> Any:
    """Return a file's content, parsed where that is possible."""
    if name == "config.yaml":
        return readable_config(yaml.safe_load(content))
    if name.endswith(".json"):
        return json.loads(content)
    if name == "requirements.txt":
        return sorted(content.decode().splitlines())
    if name == "output.log":
        return printed(content.decode().splitlines())
    return content.hex()[:200]


def readable_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config whose metric rules go by the names of the metrics, not by their places in a list."""
    rules = config["_wandb"]["value"].pop("m", [])
    names = [rule.get("1") or rule.get("2") for rule in rules]
    by_name = {
        name: rule | ({"5": names[rule["5"] - 1]} if "5" in rule else {})
        for name, rule in zip(names, rules, strict=True)
    }
    return {**config, "rules": by_name}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """The same script, recorded in each way: what its server got."""
    folder = tmp_path_factory.mktemp("ways")
    servers = {way: WandbServer() for way in WAYS}
    machines: dict[str, Machine] = {}
    for way, server in servers.items():
        server.__enter__()
        machines[way] = Machine(folder / way, server, **OBSERVED, **WAYS[way])
        commit(folder / way)
    started = {way: machine.start(TRAIN, "--rate", "0.1") for way, machine in machines.items()}
    ended = {way: process.end() for way, process in started.items()}
    assert {way: one.code for way, one in ended.items()} == dict.fromkeys(WAYS, 0), ended
    assert servers["pushed"].requests == []
    assert machines["pushed"].push("r")["outcome"] == "sent"
    yield {way: received(server, folder / way) for way, server in servers.items()}
    for server in servers.values():
        server.__exit__(None)


def commit(folder: Path) -> None:
    """Make a folder a git repository, with one commit and a remote."""
    (folder / "train.py").write_text("# to come\n")
    (folder / ".gitignore").write_text("*\n!train.py\n")
    for command in (
        "init -q -b main",
        "remote add origin https://example.com/them/it.git",
        "add train.py",
        "-c user.name=n -c user.email=n@localhost commit -qm first",
    ):
        environment = {
            "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
            "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
        }
        subprocess.run(
            ["git", *command.split()], cwd=folder, check=True, env={"PATH": "/usr/bin:/bin", **environment}
        )


def fits(pattern: str, place: str) -> bool:
    """Say whether a regular expression fits a place whole."""
    return re.fullmatch(pattern, place) is not None


def unexplained(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what differs without a reason."""
    nothing = "(absent)"
    return {
        place: (ours.get(place, nothing), theirs.get(place, nothing))
        for place in {**theirs, **ours}
        if ours.get(place, nothing) != theirs.get(place, nothing)
        and not any(fits(known.places, place) for known in DIFFERENCES)
    }


@pytest.mark.parametrize("way", ["plain", "live"])
def test_a_pushed_run_is_what_was_sent_live(runs: dict[str, dict[str, Any]], way: str) -> None:
    assert unexplained(runs["pushed"], runs[way]) == {}


@pytest.mark.parametrize("way", WAYS)
def test_times(runs: dict[str, dict[str, Any]], way: str) -> None:
    run = runs[way]
    for column in ("_timestamp", "_runtime"):
        times = {
            int(place.split("/")[2]): run[place] for place in run if fits(f"/history/.*/{column}", place)
        }
        assert len(times) == run["/lines"]
        assert list(times.values()) == sorted(times.values())
    assert run["/summary/_timestamp"] == max(
        run[place] for place in run if fits("/history/.*/_timestamp", place)
    )
    (began,) = [run[place] for place in run if fits("/files/wandb-metadata.json/startedAt", place)]
    since = dt.datetime.fromisoformat(began).timestamp()
    for step in (0, 9, 10):
        runtime, time = run[f"/history/{step}/_runtime"], run[f"/history/{step}/_timestamp"]
        assert time - runtime == pytest.approx(since, abs=2)
    assert run["/summary/_wandb/runtime"] == pytest.approx(run["/history/9/_runtime"], abs=5)


def test_each_difference_that_is_allowed_is_there(runs: dict[str, dict[str, Any]]) -> None:
    places = {place for way in runs.values() for place in way}
    for known in DIFFERENCES:
        assert any(fits(known.places, place) for place in places), known
