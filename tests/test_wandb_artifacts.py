"""Artifacts on the W&B server: the client's own, those recorded live, and those that were pushed."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, final

import pytest

from machine import Machine, Started, killed_at_the_end, wait_until
from wandb_server import Failure, Request, ServedArtifact, WandbServer

pytestmark = pytest.mark.slow


@pytest.fixture
def machine(tmp_path: Path, server: WandbServer) -> Machine:
    return Machine(tmp_path, server, TRACKLAYER_BACKEND="sqlite")


def push(machine: Machine, *arguments: str, **environment: str) -> list[dict[str, Any]]:
    """Push, and return what it says of each run."""
    done = machine.tracklayer("push", *(arguments or ("--all",)), "--json", **environment)
    assert done.stdout, done.stderr
    return list(json.loads(done.stdout)["runs"])


def outcomes(reports: list[dict[str, Any]]) -> dict[str, str]:
    return {report["run_id"]: report["outcome"] for report in reports}


def writes(requests: list[Request]) -> list[str]:
    """What of these requests changes something."""
    asking = {"Viewer", "GetDefaultEntity", "ServerFeaturesQuery", "ArtifactType", "ProjectArtifacts"}
    return [
        request.operation or request.path
        for request in requests
        if request.operation not in asking and not (request.operation or "").startswith("Run")
    ]


def version(server: WandbServer, name: str, number: int = 0) -> ServedArtifact:
    (found,) = [one for one in server.artifacts if (one.name, one.version) == (name, number)]
    return found


def uploads(request: Request) -> bool:
    return request.method == "PUT" and request.path.startswith("/storage/blob/")


# -- three ways to the server ---------------------------------------------------------------------


@final
class Bucket(BaseHTTPRequestHandler):
    """Serves one file, and tells its content apart by an ETag."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("ETag", '"one-of-a-kind"')
        self.send_header("Content-Length", "9")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"elsewhere")

    do_HEAD = do_GET  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


TRAIN = """
import pathlib
import {module} as tracker

def dataset(text, **about):
    made = tracker.Artifact("data", "dataset", **about)
    pathlib.Path("a.txt").write_text(text)
    made.add_file("a.txt", "sub/a.txt")
    pathlib.Path("more").mkdir(exist_ok=True)
    pathlib.Path("more/b.txt").write_text("the same in each")
    made.add_dir("more", name="dir")
    with made.new_file("c.txt") as file:
        file.write("made on the way")
    made.add_reference("{bucket}/x.bin", "elsewhere")
    made.add_reference("{bucket}/x.bin", "unread", checksum=False)
    return made

with tracker.init(project="p", id="maker") as run:
    about = dict(description="two files", metadata={{"rows": 2, "of": {{"each": [1, 2.5, None, "ключ"]}}}})
    run.log_artifact(dataset("one", **about), aliases=["raw", "first"]).wait()
    run.log_artifact(dataset("two"), aliases=["raw"]).wait()
with tracker.init(project="p", id="again") as run:
    run.log_artifact(dataset("one"), aliases=["again"]).wait()
with tracker.init(project="p", id="user") as run:
    folder = run.use_artifact("data:first").download("downloaded")
    assert pathlib.Path(folder, "sub", "a.txt").read_text() == "one"
    run.use_artifact("data:raw")
    model = tracker.Artifact("model", "model")
    model.add_file("a.txt")
    run.log_artifact(model).wait()
    run.use_artifact(model)
    pathlib.Path("weights").mkdir(exist_ok=True)
    pathlib.Path("weights/w.bin").write_bytes(bytes(range(256)))
    run.log_model("weights", "trained", aliases=["good"])
"""


def shown(server: WandbServer) -> dict[str, Any]:
    """What the server has of all artifacts, and of what each run made."""
    artifacts = {
        f"{one.name}:v{one.version}": {
            "type": one.type,
            "digest": one.digest,
            "files": one.files,
            "references": {
                path: (entry["ref"], entry["digest"], entry.get("size", 0))
                for path, entry in one.manifest["contents"].items()
                if "ref" in entry
            },
            "aliases": sorted(one.aliases),
            "about": (one.description, one.metadata),
            "created_by": one.created_by,
            "used_by": one.used_by,
        }
        for one in server.artifacts
    }
    made = {
        run.id: sorted(f"{one.name}:v{one.version}" for one in run.artifacts) for run in server.runs.values()
    }
    return {"artifacts": artifacts, "made": made}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as serving:
        threading.Thread(target=serving.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/bucket"
        serving.shutdown()


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory, bucket: str) -> Iterator[dict[str, Any]]:
    """The same script with the client alone, recorded live, and recorded offline and pushed."""
    folder = tmp_path_factory.mktemp("ways")
    with WandbServer() as one, WandbServer() as other, WandbServer() as third:
        servers = {"wandb": one, "live": other, "pushed": third}
        backends = {"wandb": "sqlite", "live": "wandb", "pushed": "sqlite"}
        machines = {
            way: Machine(folder / way, servers[way], TRACKLAYER_BACKEND=backend, WANDB_SILENT="true")
            for way, backend in backends.items()
        }
        for way, machine in machines.items():
            machine.run(
                TRAIN.format(module="wandb" if way == "wandb" else "tracklayer", bucket=bucket)
            ).well()
        assert third.requests == []
        reports = push(machines["pushed"])
        assert outcomes(reports) == {"maker": "sent", "again": "sent", "user": "sent"}
        yield {"servers": servers, "machines": machines, "bucket": bucket}


def test_artifacts_are_the_same_on_the_server_whichever_way_they_came(ways: dict[str, Any]) -> None:
    wandb, live, pushed = (shown(ways["servers"][way]) for way in ("wandb", "live", "pushed"))
    assert live == wandb
    assert pushed == wandb


def test_what_the_server_has_is_what_was_logged(ways: dict[str, Any]) -> None:
    found = shown(ways["servers"]["pushed"])
    first, second = found["artifacts"]["data:v0"], found["artifacts"]["data:v1"]
    assert first["files"] == {
        "sub/a.txt": b"one",
        "dir/b.txt": b"the same in each",
        "c.txt": b"made on the way",
    }
    uri = f"{ways['bucket']}/x.bin"
    assert first["references"] == {"elsewhere": (uri, "one-of-a-kind", 9), "unread": (uri, uri, 0)}
    assert first["about"] == ("two files", {"rows": 2, "of": {"each": [1, 2.5, None, "ключ"]}})
    assert (first["aliases"], second["aliases"]) == (["again", "first", "latest"], ["raw"])
    assert (first["created_by"], first["used_by"]) == ("maker", ["user"])
    assert found["artifacts"]["trained:v0"]["aliases"] == ["good", "latest"]
    assert found["made"] == {
        "maker": ["data:v0", "data:v1"],
        "again": ["data:v0"],
        "user": ["model:v0", "trained:v0"],
    }


def test_a_second_push_writes_nothing(ways: dict[str, Any]) -> None:
    server, machine = ways["servers"]["pushed"], ways["machines"]["pushed"]
    before, requests = shown(server), len(server.requests)
    assert set(outcomes(push(machine)).values()) == {"unchanged"}
    assert len(server.requests) == requests
    shutil.rmtree(machine.store / "ledgers")
    assert set(outcomes(push(machine)).values()) == {"sent"}
    assert writes(server.requests[requests:]) == []
    assert shown(server) == before


def test_a_push_of_what_was_recorded_live_writes_nothing(ways: dict[str, Any]) -> None:
    server, machine = ways["servers"]["live"], ways["machines"]["live"]
    requests = len(server.requests)
    assert set(outcomes(push(machine)).values()) == {"sent"}
    assert writes(server.requests[requests:]) == []


READ = """
import json, wandb
api = wandb.Api()
data = api.artifact("p/data:first")
print(json.dumps({
    "logged by": data.logged_by().id,
    "used by": [run.id for run in data.used_by()],
    "versions": sorted(one.version for one in api.artifacts("dataset", "p/data")),
    "used": sorted(one.name for one in api.run("p/user").used_artifacts()),
    "logged": sorted(one.name for one in api.run("p/user").logged_artifacts()),
    "read": open(data.download("read") + "/sub/a.txt").read(),
}))
"""


@pytest.mark.parametrize("way", ["live", "pushed"])
def test_the_public_api_reads_them(ways: dict[str, Any], way: str) -> None:
    assert ways["machines"][way].run(READ).said == {
        "logged by": "maker",
        "used by": ["user"],
        "versions": ["v0", "v1"],
        "used": ["data:v0", "data:v1", "model:v0"],
        "logged": ["model:v0", "trained:v0"],
        "read": "one",
    }


# -- what changes between pushes ------------------------------------------------------------------

SESSION = """
import json, pathlib, sys
from click.testing import CliRunner
import tracklayer
from tracklayer import pushing
from tracklayer.cli import main

def make(run_id, content, *aliases):
    with tracklayer.init(project="p", id=run_id) as run:
        run.log({"i": 1})
        pathlib.Path("w.bin").write_text(content)
        artifact = tracklayer.Artifact("model", "model")
        artifact.add_file("w.bin")
        run.log_artifact(artifact, aliases=list(aliases))

def use(ref, project):
    with tracklayer.init(project=project, id="user") as run:
        run.log({"i": 1})
        run.use_artifact(ref)

def name(ref, alias):
    version = tracklayer.open_store().artifact(ref)
    version.aliases.append(alias)
    version.save()

def delete(ref):
    tracklayer.open_store().artifact(ref).delete()
    assert CliRunner().invoke(main, ["gc"]).exit_code == 0

def push(*arguments):
    done = CliRunner().invoke(main, ["push", *(arguments or ["--all"]), "--json"], catch_exceptions=False)
    return json.loads(done.stdout)["runs"]

pushing._CONFIRM_SECONDS = 0.5
for line in sys.stdin:
    call, *arguments = json.loads(line)
    print(json.dumps(globals()[call](*arguments)), flush=True)
"""


@final
class Session:
    """A process that does what it is told, one call of `SESSION` after the other."""

    def __init__(self, started: Started) -> None:
        self._started = started

    def __call__(self, *call: str) -> Any:
        self._started.tell(json.dumps(call))
        return json.loads(self._started.hear())

    def push(self, *runs: str) -> dict[str, str]:
        """Push, and return what became of each run."""
        return outcomes(self("push", *runs))


@pytest.fixture
def session(machine: Machine) -> Iterator[Session]:
    started = machine.start(SESSION)
    with killed_at_the_end(started):
        yield Session(started)


def test_an_alias_that_moves_is_sent_by_the_next_push(server: WandbServer, session: Session) -> None:
    session("make", "one", "1", "best", "old")
    session("make", "two", "2", "best")
    assert session.push("two", "one") == {"two": "sent", "one": "sent"}
    older, newer = version(server, "model", 1), version(server, "model", 0)
    assert (older.files, newer.files) == ({"w.bin": b"1"}, {"w.bin": b"2"}), "it counts by itself"
    assert {*older.aliases} == {"old", "latest"}
    assert newer.aliases == ["best"], "an alias goes with the version that it names now"

    session("name", "model:v0", "best")
    session("name", "model:v1", "new")
    assert session.push("two", "one") == {"two": "sent", "one": "sent"}
    assert {*older.aliases} == {"old", "latest", "best"}
    assert newer.aliases == ["new"]
    assert server.artifacts == [newer, older]
    assert session.push() == {"one": "unchanged", "two": "unchanged"}


def test_an_alias_does_not_make_an_older_version_the_latest(server: WandbServer, session: Session) -> None:
    session("make", "one", "1")
    session("make", "two", "2")
    session.push()
    session("name", "model:v0", "best")
    assert session.push() == {"one": "sent", "two": "unchanged"}
    assert version(server, "model", 0).aliases == ["best"]
    assert version(server, "model", 1).aliases == ["latest"]


def test_an_input_whose_maker_was_not_pushed_comes_with_the_run_that_used_it(
    server: WandbServer, session: Session
) -> None:
    session("make", "maker", "1", "best")
    session("use", "model:best", "p")
    assert session.push("user") == {"user": "sent"}
    only = version(server, "model")
    assert (only.files, only.used_by, only.created_by) == ({"w.bin": b"1"}, ["user"], None)
    assert {*only.aliases} == {"best", "latest"}

    assert session.push() == {"maker": "sent", "user": "unchanged"}
    assert server.artifacts == [only]
    assert server.runs["maker"].artifacts == [only]
    assert server.runs["user"].artifacts == []


def test_an_input_of_another_project_waits_for_its_maker(server: WandbServer, session: Session) -> None:
    session("make", "maker", "1", "best")
    session("use", "p/model:best", "q")
    (report,) = session("push", "user")
    assert report["outcome"] == "unconfirmed"
    assert "the use of model:v0" in report["message"]
    assert server.artifacts == []
    assert len(server.runs["user"].history) == 1
    assert session.push("maker", "user") == {"maker": "sent", "user": "sent"}
    assert version(server, "model").used_by == ["user"]


def test_a_version_that_was_deleted_with_its_content_is_left_out_and_named(
    server: WandbServer, session: Session
) -> None:
    session("make", "one", "1")
    session("make", "two", "2")
    session("delete", "model:v0")
    one, two = session("push")
    assert (one["outcome"], two["outcome"]) == ("sent", "sent")
    assert "model:v0" in one["message"]
    assert "model" not in two["message"]
    assert [artifact.files for artifact in server.artifacts] == [{"w.bin": b"2"}]
    assert len(server.runs["one"].history) == 1


# -- what goes wrong ------------------------------------------------------------------------------


def test_a_push_that_is_killed_while_it_uploads_goes_on_with_the_next(
    server: WandbServer, machine: Machine
) -> None:
    first = machine.start(SESSION)
    with killed_at_the_end(first):
        Session(first)("make", "r", "1", "best")
        server.fail = lambda request: Failure(delay=1.5) if uploads(request) else None
        first.tell(json.dumps(["push"]))
        wait_until(lambda: any(map(uploads, server.requests)))
        first.process.send_signal(signal.SIGKILL)
    server.fail = None
    assert outcomes(push(machine)) == {"r": "sent"}
    assert version(server, "model").aliases == ["latest", "best"]
    assert [one.name for one in server.artifacts] == ["model"]
    assert server.runs["r"].artifacts == server.artifacts
    assert len(server.runs["r"].history) == 1


def test_an_upload_that_fails_for_good_is_reported(server: WandbServer, machine: Machine) -> None:
    machine.environment["WANDB_X_FILE_TRANSFER_RETRY_MAX"] = "1"
    server.fail = lambda request: Failure(status=403, message="no room") if uploads(request) else None
    started = machine.start(SESSION)
    with killed_at_the_end(started):
        session = Session(started)
        session("make", "r", "1", "best")
        (report,) = session("push")
        assert report["outcome"] == "unconfirmed"
        assert "lacks artifacts model:v0" in report["message"]
        assert server.artifacts == []
        assert len(server.runs["r"].history) == 1
        server.fail = None
        assert session.push() == {"r": "sent"}
    assert [one.files for one in server.artifacts] == [{"w.bin": b"1"}]


def test_a_server_that_does_not_say_what_it_has_is_not_taken_to_have_nothing(
    server: WandbServer, machine: Machine
) -> None:
    machine.environment["WANDB_X_GRAPHQL_RETRY_MAX"] = "1"
    started = machine.start(SESSION)
    with killed_at_the_end(started):
        session = Session(started)
        session("make", "one", "1")
        session("make", "two", "2")
        session.push()
        session("name", "model:v0", "best")
        before = len(server.requests)

        def fail_the_second_time(request: Request) -> Failure | None:
            """First it is asked what there is to send, then what of that it has."""
            asked = [one for one in server.requests[before:] if one.operation == "ProjectArtifacts"]
            is_second = request.operation == "ProjectArtifacts" and len(asked) > 1
            return Failure(status=500) if is_second else None

        server.fail = fail_the_second_time
        (report,) = session("push", "one")
        assert report["outcome"] == "failed"
        assert f"cannot ask {server.url} about the artifact 'model:v0'" in report["message"]
        assert version(server, "model", 0).aliases == []
        assert version(server, "model", 1).aliases == ["latest"]

        server.fail = lambda r: Failure(status=403) if r.operation == "CreateArtifact" else None
        (report,) = session("push", "one")
        assert report["outcome"] == "unconfirmed", "a refusal costs the artifact alone"
        assert "lacks artifacts model:v0" in report["message"]

        server.fail = None
        assert session.push("one") == {"one": "sent"}
    assert version(server, "model", 0).aliases == ["best"]
    assert version(server, "model", 1).aliases == ["latest"]


def test_content_that_is_not_what_was_stored_is_not_sent(
    server: WandbServer, machine: Machine, session: Session
) -> None:
    session("make", "r", "1")
    (artifact,) = machine.recorded().artifacts()
    blob = Path(artifact.files[0].source)
    blob.chmod(0o600)
    blob.write_text("2")
    (report,) = session("push")
    assert report["outcome"] == "unconfirmed"
    assert "lacks artifacts model:v0" in report["message"]
    assert server.artifacts == []
    assert (len(server.runs["r"].history), server.runs["r"].state) == (1, "finished")


# -- where the content lies -----------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["wandb", "sqlite"])
def test_artifacts_may_lie_at_a_url(server: WandbServer, machine: Machine, backend: str) -> None:
    machine.environment |= {
        "TRACKLAYER_ARTIFACTS": (machine.folder / "remote").as_uri(),
        "TRACKLAYER_BACKEND": backend,
    }
    started = machine.start(SESSION)
    with killed_at_the_end(started):
        session = Session(started)
        session("make", "r", "1", "best")
        session("use", "model:best", "p")
        assert session.push() == {"r": "sent", "user": "sent"}
    only = version(server, "model")
    assert (only.files, only.used_by) == ({"w.bin": b"1"}, ["user"])
    assert server.artifacts == [only]
    assert not list((machine.folder / "temporary").glob("tracklayer-wandb-*"))
    assert not [path for path in (machine.folder / "home").rglob("*") if path.is_file() and is_content(path)]


OBJECT_STORE = """
import collections, json, os, pathlib
from click.testing import CliRunner
from fsspec.implementations.memory import MemoryFileSystem
import tracklayer
from tracklayer.artifacts import remote
from tracklayer.cli import main

read, connections = collections.Counter(), []
cat_file, connected = MemoryFileSystem.cat_file, remote._connected

def counted_read(self, path, start=None, end=None, **options):
    content = cat_file(self, path, start=start, end=end, **options)
    read[path.rpartition("/")[2]] += len(content)
    return content

with tracklayer.init(project="p", id="r") as run:
    artifact = tracklayer.Artifact("model", "model")
    for name, content in {"a": "one", "b": "two", "c": "three", "d": "one"}.items():
        pathlib.Path(name).write_text(content)
        artifact.add_file(name)
    run.log_artifact(artifact)
contents = {file.sha256 for file in tracklayer.open_store().run("r").artifacts()[0].files}
MemoryFileSystem.cat_file = counted_read
remote._connected = lambda url: connections.append(url) or connected(url)
done = CliRunner().invoke(main, ["push", "--all"], catch_exceptions=False)
print(json.dumps({
    "code": done.exit_code,
    "read": sum(size for name, size in read.items() if name in contents),
    "connections": len(connections),
}))
"""


def test_each_content_of_an_object_store_is_read_once_and_all_over_one_connection(
    server: WandbServer, machine: Machine
) -> None:
    said = machine.run(OBJECT_STORE, TRACKLAYER_ARTIFACTS="memory://bucket").said
    assert said["code"] == 0
    assert version(server, "model").files == {"a": b"one", "b": b"two", "c": b"three", "d": b"one"}
    assert said["read"] == len("one" + "two" + "three")
    assert said["connections"] < 5, "two of the reader's, the catalog's, the contents': none for each file"
    assert not list((machine.folder / "temporary").glob("tracklayer-wandb-*"))


def is_content(path: Path) -> bool:
    return path.read_bytes() in (b"1", b"big" * 100_000)


def test_content_is_not_copied_for_the_client(server: WandbServer, machine: Machine) -> None:
    machine.run(
        """
        import pathlib, tracklayer
        with tracklayer.init(project="p", id="r") as run:
            pathlib.Path("big.bin").write_bytes(b"big" * 100_000)
            run.log_artifact("big.bin", name="model", type="model")
        """,
        TRACKLAYER_BACKEND="wandb",
    ).well()
    assert version(server, "model").files == {"big.bin": b"big" * 100_000}
    files = [path for path in machine.folder.rglob("*") if path.is_file() and is_content(path)]
    assert sorted(path.relative_to(machine.folder).parts[0] for path in files) == ["big.bin", "store"]
