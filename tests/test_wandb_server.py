"""The W&B test server holds up against the real client: other tests may believe what it says."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from wandb_server import API_KEY, DEFAULT_ENTITY, Failure, Request, WandbServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMIT = 60
"""Seconds after which a client counts as hung."""

pytestmark = pytest.mark.slow  # the real client, and its waits


def environment(server: WandbServer, home: Path) -> dict[str, str]:
    """This process's environment without its own W&B settings, and with the server's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    quick = {
        "WANDB_X_DISABLE_STATS": "true",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_X_SAVE_REQUIREMENTS": "false",
    }
    return {**kept, **quick, **server.environment(home)}


def client(server: WandbServer, home: Path, code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a W&B client of the server; `settings` are environment variables."""
    script = "import json, math, wandb\n" + textwrap.dedent(code)
    command = [sys.executable, "-c", script]
    return shell(server, home, command, **settings)


def shell(
    server: WandbServer, home: Path, command: list[str], **settings: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**environment(server, home), **settings},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> Any:
    """What a client that succeeded printed as JSON."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def steps(rows: list[dict[str, Any]]) -> list[int]:
    return [row["_step"] for row in rows]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def post(server: WandbServer, path: str, body: object, *, key: bool = True) -> Any:
    """One bare HTTP request, for what the real client never does."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Basic {API_KEY}"} if key else {})
    data = json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, headers)
    with urllib.request.urlopen(request, timeout=LIMIT) as answer:
        return json.load(answer)


def test_an_online_run_arrives_as_it_was_logged(server: WandbServer, tmp_path: Path) -> None:
    done = client(
        server,
        tmp_path,
        """
        run = wandb.init(
            project="p", id="r", name="a name", group="g", job_type="train", tags=["x", "y"],
            notes="some notes", config={"lr": 0.1, "model": {"depth": 2}},
        )
        run.define_metric("epoch")
        run.define_metric("val/*", step_metric="epoch")
        run.define_metric("loss", summary="min")
        run.log({"loss": 3.0, "epoch": 0, "val/a": math.nan})
        run.log({"loss": 1.0, "epoch": 1, "val/a": math.inf})
        run.log({"loss": 2.0, "h": wandb.Histogram([1, 2, 3])})
        run.summary["best"] = {"score": 7}
        print("spoken")
        run.finish()
        """,
        WANDB_X_DISABLE_STATS="false",
    )
    assert done.returncode == 0, done.stderr
    run = server.runs["r"]
    assert (run.entity, run.project, run.name, run.group) == (DEFAULT_ENTITY, "p", "a name", "g")
    assert (run.job_type, run.tags, run.notes) == ("train", ["x", "y"], "some notes")
    assert (run.state, run.exit_code) == ("finished", 0)
    assert run.config == {"lr": 0.1, "model": {"depth": 2}}
    assert steps(run.history) == [0, 1, 2]
    assert [row["loss"] for row in run.history] == [3, 1, 2]
    assert math.isnan(run.history[0]["val/a"])
    assert run.history[1]["val/a"] == math.inf
    assert run.history[2]["h"]["_type"] == "histogram"
    assert sum(run.history[2]["h"]["values"]) == 3
    assert run.summary["loss"] == {"min": 1}
    assert run.summary["best"] == {"score": 7}
    assert any("spoken" in line for line in run.console)
    assert json.loads(run.files["wandb-summary.json"])["epoch"] == 1
    defined = run.raw_config["_wandb"]["value"]["m"]
    assert {"val/*", "loss", "epoch"} <= {str(value) for metric in defined for value in metric.values()}


def test_a_run_that_exits_with_an_error_is_failed(server: WandbServer, tmp_path: Path) -> None:
    client(server, tmp_path, "import sys; wandb.init(project='p', id='r').log({'a': 1}); sys.exit(3)")
    assert (server.runs["r"].state, server.runs["r"].exit_code) == ("failed", 3)


def test_a_resumed_run_continues_at_the_next_step(server: WandbServer, tmp_path: Path) -> None:
    first = """
        run = wandb.init(project="p", id="r", config={"a": 1}, resume="allow")
        for i in range(3):
            run.log({"loss": math.nan})
        run.finish()
        """
    second = """
        run = wandb.init(project="p", id="r", resume="must", config={"b": 2})
        print(json.dumps([run.starting_step, run.resumed, run.summary.get("_step")]))
        run.log({"loss": 5})
        run.finish()
        """
    assert client(server, tmp_path, first).returncode == 0
    assert said(client(server, tmp_path, second, WANDB_CONSOLE="off", WANDB_SILENT="true")) == [
        3,
        True,
        2,
    ]
    run = server.runs["r"]
    assert steps(run.history) == [0, 1, 2, 3]
    assert run.config == {"a": 1, "b": 2}
    assert server.history_ranges("r") == [(0, 3), (3, 1)]
    assert run.state == "finished"


def test_a_finished_run_is_running_again_once_it_is_resumed(server: WandbServer, tmp_path: Path) -> None:
    client(server, tmp_path, "wandb.init(project='p', id='r').finish()")
    assert server.runs["r"].state == "finished"
    client(server, tmp_path, "wandb.init(project='p', id='r', resume='must'); import os; os._exit(1)")
    assert server.runs["r"].state == "running"


@pytest.mark.parametrize(("resume", "exists"), [("must", False), ("never", True)])
def test_resume_is_refused(server: WandbServer, tmp_path: Path, resume: str, *, exists: bool) -> None:
    if exists:
        client(server, tmp_path, "wandb.init(project='p', id='r').finish()")
    done = client(server, tmp_path, f"wandb.init(project='p', id='r', resume={resume!r})")
    assert done.returncode == 1
    assert "UsageError" in done.stderr


def test_an_offline_run_arrives_by_sync(server: WandbServer, tmp_path: Path) -> None:
    code = """
        run = wandb.init(project="p", id="r", name="n", config={"a": 1})
        for i in range(200):
            run.log({"i": i, "x": math.inf})
        run.finish()
        """
    assert client(server, tmp_path, code, WANDB_MODE="offline").returncode == 0
    assert server.requests == []
    (folder,) = (tmp_path / "dir" / "wandb").glob("offline-run-*")
    sync = [sys.executable, "-m", "wandb", "sync", str(folder)]
    assert shell(server, tmp_path, sync).returncode == 0
    run = server.runs["r"]
    assert [row["i"] for row in run.history] == list(range(200))
    assert (run.state, run.name, run.config) == ("finished", "n", {"a": 1})

    assert shell(server, tmp_path, [*sync, "--include-synced"]).returncode == 0
    assert len(run.history) == 400, "the client appends from the line count that it is told"
    assert sum(count for _, count in server.history_ranges("r")) == 400


def test_the_public_api_reads_a_run_back(server: WandbServer, tmp_path: Path) -> None:
    written = """
        run = wandb.init(
            project="p", id="r", name="n", group="g", job_type="j", tags=["t"], notes="o",
            config={"a": {"b": 1}},
        )
        for i in range(2500):
            run.log({"i": i} | ({"bad": math.nan} if i == 7 else {}))
        run.finish()
        """
    read = """
        api = wandb.Api()
        run = api.run("tester/p/r")
        rows = list(run.scan_history())
        print(json.dumps({
            "about": [run.name, run.state, run.group, run.job_type, run.tags, run.notes],
            "config": run.config,
            "last": run.lastHistoryStep,
            "summary": run.summary["i"],
            "steps": [row["_step"] for row in rows],
            "bad": math.isnan(rows[7]["bad"]),
            "keys": [row["i"] for row in run.scan_history(keys=["i"])],
            "some": [row["bad"] for row in run.scan_history(keys=["bad"])],
            "files": sorted(file.name for file in run.files()),
            "runs": [one.id for one in api.runs("tester/p")],
            "none": len(api.runs("tester/p", filters={"state": {"$in": ["failed"]}})),
        }))
        """
    assert client(server, tmp_path, written).returncode == 0
    found = said(client(server, tmp_path, read))
    assert found["about"] == ["n", "finished", "g", "j", ["t"], "o"]
    assert found["config"] == {"a": {"b": 1}}
    assert found["last"] == 2499
    assert found["summary"] == 2499
    assert found["steps"] == list(range(2500))
    assert found["keys"] == list(range(2500))
    assert found["bad"]
    assert found["some"] == ["NaN"]
    assert {"wandb-summary.json", "config.yaml", "wandb-metadata.json"} <= set(found["files"])
    assert (found["runs"], found["none"]) == (["r"], 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("run('tester/p/none')", "Could not find run"),
        ("runs('tester/p')[0]", "Could not find project"),
    ],
    ids=["run", "project"],
)
def test_the_public_api_says_what_is_missing(
    server: WandbServer, tmp_path: Path, call: str, message: str
) -> None:
    done = client(server, tmp_path, f"wandb.Api().{call}")
    assert done.returncode == 1
    assert message in done.stderr


def test_artifacts_have_versions_and_aliases_that_move(server: WandbServer, tmp_path: Path) -> None:
    written = """
        from pathlib import Path
        run = wandb.init(project="p", id="r")
        versions = []
        for content, alias in [("one", "first"), ("two", "good"), ("one", "again")]:
            Path("weights.bin").write_text(content)
            artifact = wandb.Artifact("model", "weights", description="d", metadata={"loss": 1})
            artifact.add_file("weights.bin", "sub/weights.bin")
            artifact.add_reference("http://127.0.0.1:9/x", "elsewhere", checksum=False)
            versions.append(run.log_artifact(artifact, aliases=[alias]).wait().version)
        print(json.dumps(versions))
        run.use_artifact("model:good").download("got")
        run.finish()
        """
    read = """
        run = wandb.Api().run("tester/p/r")
        made = [[a.name, a.type, a.description, a.metadata] for a in run.logged_artifacts()]
        print(json.dumps([made, [one.name for one in run.used_artifacts()]]))
        """
    assert said(client(server, tmp_path, written, WANDB_CONSOLE="off", WANDB_SILENT="true")) == [
        "v0",
        "v1",
        "v0",
    ]
    first, second = server.artifacts
    assert (first.name, first.type, first.description, first.metadata) == (
        "model",
        "weights",
        "d",
        {"loss": 1},
    )
    assert (first.version, first.files) == (0, {"sub/weights.bin": b"one"})
    assert (second.version, second.files) == (1, {"sub/weights.bin": b"two"})
    assert (sorted(first.aliases), second.aliases) == (["again", "first", "latest"], ["good"])
    assert second.manifest["contents"]["elsewhere"]["ref"] == "http://127.0.0.1:9/x"
    assert server.runs["r"].artifacts == [first, second]
    assert second.used_by == ["r"]
    assert (tmp_path / "got" / "sub" / "weights.bin").read_bytes() == b"two"
    logged, used = said(client(server, tmp_path, read))
    assert logged == [
        ["model:v0", "weights", "d", {"loss": 1}],
        ["model:v1", "weights", "d", {"loss": 1}],
    ]
    assert used == ["model:v1"]


def test_the_public_api_knows_who_made_and_who_used_an_artifact(server: WandbServer, tmp_path: Path) -> None:
    code = """
        from pathlib import Path

        def artifact(name, content):
            Path("weights.bin").write_text(content)
            made = wandb.Artifact(name, "weights")
            made.add_file("weights.bin")
            return made

        for run_id in ("first", "second"):
            with wandb.init(project="p", id=run_id) as run:
                run.log_artifact(artifact("model", "the same in both")).wait()
        with wandb.init(project="p", id="user") as run:
            run.use_artifact("model:latest")
            run.use_artifact(artifact("data", "not logged by any run"))
        api = wandb.Api()
        makers = [api.run(f"p/{run_id}") for run_id in ("first", "second")]
        model, data = api.artifact("p/model:latest"), api.artifact("p/data:v0")
        print(json.dumps({
            "made": [[one.name for one in run.logged_artifacts()] for run in makers],
            "by": [model.logged_by().id, data.logged_by()],
            "used": sorted(one.name for one in api.run("p/user").used_artifacts()),
            "used by": [[run.id for run in one.used_by()] for one in (model, data)],
            "versions": [one.name for one in api.artifacts("weights", "p/model")],
        }))
        """
    done = client(server, tmp_path, code, WANDB_CONSOLE="off", WANDB_SILENT="true")
    assert said(done) == {
        "made": [["model:v0"], ["model:v0"]],
        "by": ["first", None],
        "used": ["data:v0", "model:v0"],
        "used by": [["user"], ["user"]],
        "versions": ["model:v0"],
    }


def test_an_artifact_keeps_its_type(server: WandbServer, tmp_path: Path) -> None:
    code = """
        run = wandb.init(project="p", id="r")
        run.log_artifact(wandb.Artifact("model", "weights")).wait()
        try:
            run.log_artifact(wandb.Artifact("model", "dataset"))
        except ValueError as error:
            print(json.dumps(str(error)))
        run.finish()
        """
    refused = said(client(server, tmp_path, code, WANDB_CONSOLE="off", WANDB_SILENT="true"))
    assert "already exists with type 'weights'" in refused
    assert [one.type for one in server.artifacts] == ["weights"]


def test_a_run_outlives_a_server_that_goes_away_and_comes_back(server: WandbServer, tmp_path: Path) -> None:
    code = """
        import wandb
        run = wandb.init(project="p", id="r")
        for i in range(50):
            run.log({"i": i})
        print("half", flush=True)
        input()
        for i in range(50, 100):
            run.log({"i": i})
        run.finish()
        """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment(server, tmp_path) | {"WANDB_X_FILE_STREAM_RETRY_MAX": "60"},
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        wait_until(lambda: bool(server.runs["r"].history))
        server.stop()
        before = len(server.requests)
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(1.5)
        assert len(server.requests) == before
        server.start()
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    assert [row["i"] for row in server.runs["r"].history] == list(range(100))
    assert sum(count for _, count in server.history_ranges("r")) == 100
    assert server.runs["r"].state == "finished"


def test_the_server_keeps_its_port_and_its_memory_while_it_is_away(server: WandbServer) -> None:
    body = {
        "operationName": "UpsertBucket",
        "query": "",
        "variables": {"name": "r", "project": "p"},
    }
    post(server, "/graphql", body)
    for _ in range(3):
        server.stop()
        with pytest.raises(urllib.error.URLError, match="refused"):
            post(server, "/graphql", body)
        server.start()
    assert post(server, "/graphql", body)["data"]["upsertBucket"]["inserted"] is False


def test_a_request_without_a_key_is_unauthorized_and_changes_nothing(server: WandbServer) -> None:
    body = {
        "operationName": "UpsertBucket",
        "query": "",
        "variables": {"name": "r", "project": "p"},
    }
    with pytest.raises(urllib.error.HTTPError, match="401"):
        post(server, "/graphql", body, key=False)
    assert server.runs == {}
    assert [request.operation for request in server.requests] == ["UpsertBucket"]


def test_an_unknown_operation_is_refused_and_stays_visible(server: WandbServer) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        post(server, "/graphql", {"query": "query Novelty($a: Int) { b }", "variables": {"a": 1}})
    (request,) = server.requests
    assert (request.operation, request.variables) == ("Novelty", {"a": 1})


def test_a_line_that_was_never_sent_shows_as_an_empty_row(server: WandbServer) -> None:
    post(
        server,
        "/graphql",
        {"operationName": "UpsertBucket", "query": "", "variables": {"name": "r", "project": "p"}},
    )
    lines = {"wandb-history.jsonl": {"offset": 2, "content": ['{"a": NaN}']}}
    post(server, f"/files/{DEFAULT_ENTITY}/p/r/file_stream", {"files": lines})
    assert server.runs["r"].history[:2] == [{}, {}]
    assert math.isnan(server.runs["r"].history[2]["a"])
    assert server.history_ranges("r") == [(2, 1)]


UPSERT = {"operationName": "UpsertBucket", "query": "", "variables": {"name": "r", "project": "p"}}


def test_a_body_over_the_limit_is_refused_and_changes_nothing(server: WandbServer) -> None:
    server.body_limit = len(json.dumps(UPSERT)) - 1
    with pytest.raises(urllib.error.HTTPError, match="413"):
        post(server, "/graphql", UPSERT)
    assert server.runs == {}
    server.body_limit += 1
    post(server, "/graphql", UPSERT)
    assert list(server.runs) == ["r"]


def test_an_answer_is_cut_or_late_after_what_was_asked_was_done(server: WandbServer) -> None:
    server.fail = lambda _: Failure(cut=True)
    with pytest.raises(http.client.IncompleteRead):
        post(server, "/graphql", UPSERT)
    assert list(server.runs) == ["r"]
    server.delete("r")
    server.store.forgive()
    server.fail = lambda _: Failure(answer_delay=0.3)
    started = time.monotonic()
    answering = threading.Thread(target=post, args=(server, "/graphql", UPSERT))
    answering.start()
    wait_until(lambda: "r" in server.runs)
    assert time.monotonic() - started < 0.3
    answering.join()
    assert time.monotonic() - started >= 0.3


def test_a_file_that_was_announced_and_never_came_is_listed_empty(server: WandbServer) -> None:
    post(server, "/graphql", UPSERT)
    place = {"entity": DEFAULT_ENTITY, "project": "p"}
    created = {"query": "mutation CreateRunFiles {x}", "variables": {**place, "run": "r", "files": ["a.png"]}}
    post(server, "/graphql", created)
    asked = {"query": "query RunFiles {x}", "variables": {**place, "name": "r"}}
    (edge,) = post(server, "/graphql", asked)["data"]["project"]["run"]["files"]["edges"]
    assert (edge["node"]["name"], edge["node"]["sizeBytes"]) == ("a.png", 0)


def test_a_collection_that_is_not_there_has_no_versions(server: WandbServer, tmp_path: Path) -> None:
    code = "wandb.init(project='p', id='r').finish(); list(wandb.Api().artifacts('weights', 'p/model'))"
    done = client(server, tmp_path, code)
    assert done.returncode == 1
    assert "Unable to parse" in done.stderr


def test_a_defect_of_the_server_fails_the_test() -> None:
    body = {"operationName": "CommitArtifact", "query": "", "variables": {"artifactID": "?"}}
    with (
        pytest.raises(AssertionError, match="KeyError"),
        WandbServer() as server,
        contextlib.suppress(urllib.error.HTTPError),
    ):
        post(server, "/graphql", body)


@pytest.mark.slow  # the client tries 409 again until its retries are used up
def test_a_deleted_run_is_refused(server: WandbServer, tmp_path: Path) -> None:
    code = "wandb.init(project='p', id='r').finish()"
    client(server, tmp_path, code)
    server.delete("r")
    done = client(server, tmp_path, code, WANDB_X_GRAPHQL_RETRY_MAX="1")
    assert done.returncode == 1
    assert "previously created and deleted" in done.stderr
    assert server.runs == {}


LOG_TEN: str = """
    run = wandb.init(project="p", id="r")
    for i in range(10):
        run.log({"i": i})
    run.finish()
    """


def failing(server: WandbServer, what: str, failure: Failure) -> list[Request]:
    """Let the first UpsertBucket, or upload of "history", fail; returns all such that came."""
    came = list[Request]()

    def rule(request: Request) -> Failure | None:
        if what != ("history" if request.has_history else request.operation):
            return None
        came.append(request)
        return failure if len(came) == 1 else None

    server.fail = rule
    return came


def test_a_client_that_is_not_logged_in_is_told_so(server: WandbServer, tmp_path: Path) -> None:
    server.fail = lambda _: Failure(status=401, message="user is not logged in")
    done = client(server, tmp_path, LOG_TEN)
    assert done.returncode == 1
    assert "CommError: user is not logged in" in done.stderr
    assert server.runs == {}


def test_a_client_sees_a_graphql_error(server: WandbServer, tmp_path: Path) -> None:
    failing(server, "UpsertBucket", Failure(status=200, message="no such entity"))
    done = client(server, tmp_path, LOG_TEN)
    assert done.returncode == 1
    assert "no such entity" in done.stderr


@pytest.mark.parametrize(
    ("what", "failure"),
    [
        ("history", Failure(status=500)),
        ("history", Failure(drop=True)),
        ("UpsertBucket", Failure(status=429, retry_after=1.5)),
    ],
    ids=["error", "drop", "too many"],
)
def test_a_client_gets_over_a_failure_that_passes(
    server: WandbServer, tmp_path: Path, what: str, failure: Failure
) -> None:
    came = failing(server, what, failure)
    done = client(server, tmp_path, LOG_TEN)
    assert done.returncode == 0, done.stderr
    assert [row["i"] for row in server.runs["r"].history] == list(range(10))
    assert server.history_ranges("r") == [(0, 10)]
    assert came[0].body == came[1].body
    assert came[1].time - came[0].time >= (failure.retry_after or 0)


def test_a_lost_answer_makes_the_client_send_the_same_lines_again(
    server: WandbServer, tmp_path: Path
) -> None:
    came = failing(server, "history", Failure(drop=True, carried_out=True))
    assert client(server, tmp_path, LOG_TEN).returncode == 0
    assert came[0].body == came[1].body
    assert server.history_ranges("r") == [(0, 10), (0, 10)]
    assert [row["i"] for row in server.runs["r"].history] == list(range(10))


def test_a_client_waits_for_a_late_answer(server: WandbServer, tmp_path: Path) -> None:
    came = failing(server, "history", Failure(delay=1.5))
    started = time.time()
    assert client(server, tmp_path, LOG_TEN).returncode == 0
    assert time.time() - started > 1.5
    assert len(came) == 1
    assert steps(server.runs["r"].history) == list(range(10))


def test_a_client_writes_nowhere_but_under_its_home(server: WandbServer, tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = """if True:
        import wandb
        run = wandb.init(project="p", id="r")
        run.log_artifact(wandb.Artifact("a", "b")).wait().download()
        """
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(server, home),
        cwd=elsewhere,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(elsewhere.iterdir()) == []
    assert list((home / "dir" / "wandb").glob("run-*-r"))
