"""What runs of the SQLite backend make and use: recorded, replayed into other stores, kept from `gc`."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tracklayer
from tracklayer.artifacts.catalog import Catalog
from tracklayer.artifacts.collecting import collect
from tracklayer.artifacts.locations import FolderLocation
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact, files_digest
from tracklayer.errors import ArtifactNotFoundError, CorruptArtifactError, StoreError, UsageError
from tracklayer.protocol import RunInfo, Status
from tracklayer.reading import RunReader
from tracklayer.recovering import recover
from tracklayer.settings import Settings
from tracklayer.spill import Call, Spill
from tracklayer_sqlite import backend, schema
from tracklayer_sqlite.recording import SQLiteRun

TIME = 1_700_000_000.25
URI = "s3://no-such-bucket/far"
REFERENCE = ArtifactFile("far", "", 12, URI, reference=URI, checksum="an etag")
PLACES = {"in the store": None, "in a folder": "{}/artifacts", "in memory": "memory://{}"}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TRACKLAYER_ARTIFACTS", raising=False)
    return tmp_path / "store"


def opened(store: Path, run_id: str = "r", resume: Any = None, artifacts: str | None = None) -> SQLiteRun:
    run = backend.open(
        RunInfo(run_id, "p", run_id, created_at=TIME),
        resume,
        Settings(("sqlite",), store, artifacts=artifacts),
    )
    assert isinstance(run, SQLiteRun)
    return run


def finished(run: SQLiteRun, store: Path) -> RunReader:
    run.finish(Status())
    return reader(store, run.info.id)


def reader(store: Path, run_id: str = "r") -> RunReader:
    return tracklayer.open_store(store).run(run_id)


def catalog(store: Path) -> Catalog:
    return Catalog(FolderLocation(store))


def file(folder: Path, path: str, data: bytes) -> ArtifactFile:
    """Write a file that is to become an artifact's."""
    source = folder / "files" / hashlib.sha256(data).hexdigest()
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(data)
    return ArtifactFile(path, source.name, len(data), str(source))


def artifact(folder: Path, data: bytes = b"weights", **fields: Any) -> LoggedArtifact:
    """Return an artifact of a file and a reference, as another store has it: version 4, `best`."""
    made = LoggedArtifact(
        name="model",
        type="weights",
        files=(file(folder, "a/w.bin", data), REFERENCE),
        description="words",
        metadata={"nested": {"list": [1, None, 0.5]}},
        time=TIME,
        project="p",
        version=4,
        aliases=("best",),
    )
    return replace(made, **fields)


def content(made: LoggedArtifact) -> dict[str, bytes]:
    return {f.path: Path(f.source).read_bytes() for f in made.files if f.reference is None}


def collected(store: Path) -> set[str]:
    """Run `gc` on a store; return the contents that are left."""
    found = catalog(store)
    needed = (sha256 for run in tracklayer.open_store(store).runs() for sha256 in run.contents())
    collect(found, needed, dry_run=False)
    return {sha256 for sha256, _ in found.blobs.all()}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- recording --------------------------------------------------------------------------------------


def test_an_artifact_is_read_as_it_was_logged_with_the_number_that_it_has_here(
    store: Path, tmp_path: Path
) -> None:
    made = artifact(tmp_path)
    run = opened(store)
    run.log_artifact(made)
    read = finished(run, store)
    (found,) = read.artifacts()
    places = {f.path: f.source for f in found.files}
    sources = (replace(f, source=places[f.path]) for f in made.files)
    assert found == replace(made, version=0, files=tuple(sources))
    assert content(found) == {"a/w.bin": b"weights"}
    assert places["far"] == URI
    assert Path(places["a/w.bin"]).is_relative_to(store)
    assert read.used_artifacts() == []


def test_what_was_used_is_kept_apart_and_noted_with_the_version(store: Path, tmp_path: Path) -> None:
    maker, user = opened(store, "maker"), opened(store, "user")
    maker.log_artifact(artifact(tmp_path))
    user.use_artifact(artifact(tmp_path, time=TIME + 1))
    maker.finish(Status())
    read = finished(user, store)
    (used,) = read.used_artifacts()
    assert (used.label, used.type, used.project, used.time) == ("model:v0", "weights", "p", TIME + 1)
    assert content(used) == {"a/w.bin": b"weights"}
    assert read.artifacts() == []
    assert catalog(store).users(catalog(store).get("p", "model", 0)) == ["user"]


def test_of_many_uses_of_a_version_the_first_counts(store: Path, tmp_path: Path) -> None:
    run = opened(store)
    for moment in range(3):
        run.use_artifact(artifact(tmp_path, b"one", time=TIME + moment))
        run.use_artifact(artifact(tmp_path, b"two", time=TIME + moment))
    run.finish(Status())
    run = opened(store, resume="must")
    run.use_artifact(artifact(tmp_path, b"one", time=TIME + 9))
    used = finished(run, store).used_artifacts()
    assert [(one.label, one.time) for one in used] == [("model:v0", TIME), ("model:v1", TIME)]


def test_the_version_is_of_the_run_that_made_it_and_a_use_moves_no_alias(store: Path, tmp_path: Path) -> None:
    run = opened(store)
    run.log_artifact(artifact(tmp_path, b"one"))
    run.log_artifact(artifact(tmp_path, b"two"))
    run.use_artifact(artifact(tmp_path, b"one", version=0))
    run.finish(Status())
    here = catalog(store)
    assert [version.run_id for version in here.versions("p", "model")] == ["r", "r"]
    assert here.aliases("p", "model") == {"latest": 1, "best": 1}


def test_a_version_that_is_here_already_is_not_made_again_and_its_source_not_read(
    store: Path, tmp_path: Path
) -> None:
    run = opened(store)
    run.log_artifact(artifact(tmp_path, b"one"))
    again = artifact(tmp_path, b"one", version=0)
    Path(again.files[0].source).unlink()
    run.log_artifact(again)
    assert [made.version for made in finished(run, store).artifacts()] == [0, 0]


def test_an_artifact_without_a_version_gets_none_and_keeps_its_content(store: Path, tmp_path: Path) -> None:
    made = artifact(tmp_path, version=None, aliases=(), project="")
    run = opened(store)
    run.log_artifact(made)
    (found,) = finished(run, store).artifacts()
    assert (found.version, found.label, found.project) == (None, "model", "p")
    assert content(found) == {"a/w.bin": b"weights"}
    assert catalog(store).collections() == []


def test_a_revision_changes_with_what_is_made_and_with_what_is_used(store: Path, tmp_path: Path) -> None:
    run = opened(store)
    run.commit()
    seen = [reader(store).revision]
    for call in (run.log_artifact, run.use_artifact):
        call(artifact(tmp_path))
        run.commit()
        seen.append(reader(store).revision)
    run.finish(Status("running"))
    assert len(set(seen)) == 3


def test_a_commit_that_failed_records_an_artifact_once(store: Path, tmp_path: Path) -> None:
    run = opened(store)
    run.log_artifact(artifact(tmp_path))
    blocker = sqlite3.connect(store / "runs" / "r.sqlite", isolation_level=None)
    run._connection.exec_driver_sql("PRAGMA busy_timeout = 10")
    blocker.execute("BEGIN IMMEDIATE")
    for _ in range(2):
        with pytest.raises(StoreError, match="locked"):
            run.commit()
    blocker.execute("ROLLBACK")
    blocker.close()
    (found,) = finished(run, store).artifacts()
    assert [f.path for f in found.files] == ["a/w.bin", "far"]


def test_a_store_hands_out_its_versions(store: Path, tmp_path: Path) -> None:
    run = opened(store)
    for data in (b"one", b"two"):
        run.log_artifact(artifact(tmp_path, data))
    run.log_artifact(artifact(tmp_path, b"three", name="data", type="dataset"))
    run.finish(Status())
    found = tracklayer.open_store(store)
    assert [one.name for one in found.artifacts()] == ["data:v0", "model:v0", "model:v1"]
    assert [one.name for one in found.artifacts(type="weights")] == ["model:v0", "model:v1"]
    assert [one.name for one in found.artifacts(name="data", project="p")] == ["data:v0"]
    assert found.artifacts(project="nowhere") == []
    assert found.artifact("model:best").version == "v1"
    assert found.artifact("model:v0", project="p").version == "v0"
    assert [made_by.id for made_by in found.artifact("model").logged_by()] == ["r"]
    with pytest.raises(ArtifactNotFoundError, match="v7"):
        found.artifact("model:v7")


# -- replaying --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_a_replay_into_another_store_makes_the_versions_and_notes_the_uses_there(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    if place is not None:
        monkeypatch.setenv("TRACKLAYER_ARTIFACTS", place.format(tmp_path))
    run = opened(store, artifacts=os.environ.get("TRACKLAYER_ARTIFACTS"))
    run.use_artifact(artifact(tmp_path, b"data", name="data", type="dataset"))
    run.log_artifact(artifact(tmp_path, b"one"))
    run.log_artifact(artifact(tmp_path, b"two", aliases=("best", "stable")))
    run.log_artifact(artifact(tmp_path, b"loose", name="loose", version=None, aliases=()))
    original = finished(run, store)
    made, used = original.artifacts(), original.used_artifacts()
    other = tmp_path / "other"
    copy = opened(other)
    tracklayer.replay(original, copy)
    monkeypatch.delenv("TRACKLAYER_ARTIFACTS", raising=False)
    replayed = reader(other)
    assert [without_sources(one) for one in replayed.artifacts()] == [without_sources(one) for one in made]
    assert [content(one)["a/w.bin"] for one in replayed.artifacts()] == [b"one", b"two", b"loose"]
    assert [one.label for one in replayed.used_artifacts()] == [one.label for one in used] == ["data:v0"]
    there = catalog(other)
    assert there.aliases("p", "model") == {"latest": 1, "best": 1, "stable": 1}
    assert there.users(there.find("data")) == ["r"]
    version = there.find("model:v0")
    assert (version.description, version.metadata) == ("words", {"nested": {"list": [1, None, 0.5]}})


def without_sources(made: LoggedArtifact) -> LoggedArtifact:
    return replace(made, files=tuple(replace(f, source="") for f in made.files))


def test_a_replay_takes_the_numbers_that_are_free_there(store: Path, tmp_path: Path) -> None:
    run = opened(store)
    run.log_artifact(artifact(tmp_path, b"mine"))
    original = finished(run, store)
    other = opened(tmp_path / "other", "other")
    other.log_artifact(artifact(tmp_path, b"theirs"))
    other.finish(Status())
    for attempt in ("first", "second"):
        copy = opened(tmp_path / "other", attempt)
        tracklayer.replay(original, copy)
        (made,) = reader(tmp_path / "other", attempt).artifacts()
        assert (made.label, content(made)) == ("model:v1", {"a/w.bin": b"mine"})


def damage(made: LoggedArtifact) -> None:
    Path(made.files[0].source).write_bytes(b"no weights")


def remove(made: LoggedArtifact) -> None:
    Path(made.files[0].source).unlink()


@pytest.mark.parametrize(("harm", "reason"), [(damage, "not what was logged"), (remove, "is gone")])
def test_a_replayed_artifact_whose_content_is_no_more_costs_itself_alone(
    store: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[LoggedArtifact], None],
    reason: str,
) -> None:
    run = opened(store)
    run.log({"x": 1.0}, step=0, time=TIME)
    run.use_artifact(artifact(tmp_path, b"data", name="data"))
    run.log_artifact(artifact(tmp_path, b"one"))
    run.log_artifact(artifact(tmp_path, b"two"))
    original = finished(run, store)
    harm(original.used_artifacts()[0])
    harm(original.artifacts()[0])
    copy = opened(tmp_path / "other")
    tracklayer.replay(original, copy)
    replayed = reader(tmp_path / "other")
    assert [content(made) for made in replayed.artifacts()] == [{"a/w.bin": b"two"}]
    assert replayed.used_artifacts() == []
    assert replayed.last_step == 0
    assert replayed.info.state == "finished"
    (message,) = warnings(caplog)
    assert "2 artifacts of run r are not there: model:v0: " in message
    assert reason in message


def test_a_replayed_artifact_whose_name_is_another_types_there_costs_itself_alone(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = opened(store)
    run.log_artifact(artifact(tmp_path, b"one"))
    run.log_artifact(artifact(tmp_path, b"two", name="other"))
    original = finished(run, store)
    there = opened(tmp_path / "other", "there")
    there.log_artifact(artifact(tmp_path, b"three", type="dataset"))
    there.finish(Status())
    copy = opened(tmp_path / "other")
    tracklayer.replay(original, copy)
    assert [made.name for made in reader(tmp_path / "other").artifacts()] == ["other"]
    (message,) = warnings(caplog)
    assert "dataset" in message


def test_a_replay_records_the_artifacts_and_uses_that_it_is_told_to(store: Path, tmp_path: Path) -> None:
    run = opened(store)
    run.use_artifact(artifact(tmp_path, b"a", name="a"))
    run.use_artifact(artifact(tmp_path, b"b", name="b"))
    run.log_artifact(artifact(tmp_path, b"c", name="c"))
    original = finished(run, store)
    copy = opened(tmp_path / "other")
    tracklayer.replay(original, copy, artifacts=(), uses=original.used_artifacts()[1:])
    replayed = reader(tmp_path / "other")
    assert [used.name for used in replayed.used_artifacts()] == ["b"]
    assert replayed.artifacts() == []


# -- recovering -------------------------------------------------------------------------------------


def test_what_is_recorded_already_is_not_recovered_again(store: Path, tmp_path: Path) -> None:
    run = opened(store)
    run.log_artifact(artifact(tmp_path))
    run.use_artifact(artifact(tmp_path, b"data", name="data"))
    read = finished(run, store)
    (made,), (used,) = read.artifacts(), read.used_artifacts()
    later = replace(made, time=TIME + 1)
    calls = [("log_artifact", made), ("use_artifact", used), ("use_artifact", made), ("log_artifact", later)]
    for _ in range(2):
        spill = Spill(read.info)
        for call in calls:
            spill.write(Call(*call))
        spill.close()
        report = recover([spill.path], backend, Settings(("sqlite",), store))
        assert report.refused == ()
    read = reader(store)
    assert [(one.label, one.time) for one in read.artifacts()] == [("model:v0", TIME), ("model:v0", TIME + 1)]
    assert [one.label for one in read.used_artifacts()] == ["data:v0", "model:v0"]


# -- what gc must leave -----------------------------------------------------------------------------


def test_what_a_live_run_made_and_used_stays_although_its_version_is_deleted(
    store: Path, tmp_path: Path
) -> None:
    made, used = artifact(tmp_path, b"one"), artifact(tmp_path, b"data", name="data")
    loose = artifact(tmp_path, b"loose", name="loose", version=None, aliases=())
    run = opened(store)
    run.use_artifact(used)
    run.log_artifact(made)
    run.log_artifact(loose)
    run.commit()
    for name in ("data", "model"):
        catalog(store).delete(catalog(store).find(name), delete_aliases=True)
    files = {one.files[0].sha256 for one in (made, used, loose)}
    assert files <= collected(store)
    assert reader(store).contents() == {one.files[0].sha256: one.files[0].size for one in (made, used, loose)}
    run.finish(Status())
    assert collected(store) == {loose.files[0].sha256}
    assert reader(store).contents() == {loose.files[0].sha256: 5}


def test_content_that_nothing_names_before_the_commit_is_not_collected(store: Path, tmp_path: Path) -> None:
    loose = artifact(tmp_path, b"loose", version=None, aliases=())
    run = opened(store)
    run.log_artifact(loose)
    assert loose.files[0].sha256 in collected(store)
    run.commit()
    assert list((store / "claims").iterdir()) == []
    assert loose.files[0].sha256 in collected(store)
    run.finish(Status())


def test_large_media_are_not_collected_between_their_writing_and_the_commit(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tracklayer.Html("x" * (1 << 20) + "y")
    (sha256,) = page.encoded.contents
    run = opened(store)
    run.log({"page": page}, step=0, time=TIME)
    write, left = run._write, list[set[str]]()

    def collects_first(*arguments: Any, **others: Any) -> None:
        left.append(collected(store))
        write(*arguments, **others)

    monkeypatch.setattr(run, "_write", collects_first)
    run.commit()
    assert left == [{sha256}]
    assert collected(store) == {sha256}
    read = finished(run, store)
    assert read.contents() == {sha256: page.encoded.contents[sha256].size}
    assert collected(store) == {sha256}
    ((_, _, _, value),) = read.media("page")
    assert value == page


LOGS_MEDIA = """
import sys
from pathlib import Path
import tracklayer
from tracklayer.protocol import RunInfo, Status
from tracklayer.settings import Settings
from tracklayer_sqlite import backend
run = backend.open(RunInfo("r", "p", "r"), None, Settings(("sqlite",), Path(sys.argv[1])))
for step in range(100):
    run.log({"page": tracklayer.Html(f"{step}" + "x" * (1 << 20))}, step=step, time=1.0)
    run.commit()
run.finish(Status())
"""


@pytest.mark.slow
def test_collections_meanwhile_take_none_of_the_media_that_a_process_logs(store: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", LOGS_MEDIA, str(store)]) as process:
        collections = 0
        while process.poll() is None:
            collected(store)
            collections += 1
    assert process.returncode == 0
    assert collections > 3
    assert len(collected(store)) == 100
    for _, step, _, page in reader(store).media("page"):
        assert isinstance(page, tracklayer.Html)
        assert page.text() == tracklayer.Html(f"{step}" + "x" * (1 << 20)).text()


LEAVES_CONTENT = """
import os, sys
from pathlib import Path
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.protocol import RunInfo
from tracklayer.settings import Settings
from tracklayer_sqlite import backend
store, source = map(Path, sys.argv[1:])
run = backend.open(RunInfo("r", "p", "r"), None, Settings(("sqlite",), store))
file = ArtifactFile("a", source.name, source.stat().st_size, str(source))
run.log_artifact(LoggedArtifact("loose", "t", (file,)))
os._exit(9)
"""


@pytest.mark.slow
def test_what_a_killed_process_left_is_collected(store: Path, tmp_path: Path) -> None:
    source = file(tmp_path, "a", b"loose").source
    done = subprocess.run([sys.executable, "-c", LEAVES_CONTENT, str(store), source], check=False)
    assert done.returncode == 9
    assert [sha256 for sha256, _ in catalog(store).blobs.all()] == [Path(source).name]
    assert collected(store) == set()


def test_media_stay_in_the_store_wherever_artifacts_lie(store: Path, tmp_path: Path) -> None:
    page = tracklayer.Html("x" * (2 << 20))
    run = opened(store, artifacts=str(tmp_path / "artifacts"))
    run.log({"page": page}, step=0, time=TIME)
    read = finished(run, store)
    assert collected(tmp_path / "artifacts") == set()  # by somebody who does not know of this store
    ((_, _, _, value),) = read.media("page")
    assert value == page


# -- older versions of the schema -------------------------------------------------------------------


def make_older(store: Path, version: int) -> None:
    """Turn a run's file into one of before there were versions, or media."""
    connection = sqlite3.connect(store / "runs" / "r.sqlite")
    for table, column in schema._VERSION_COLUMNS:
        connection.execute(f"ALTER TABLE {table} DROP COLUMN {column.split()[0]}")
    if version == 1:
        connection.execute("DROP TABLE contents")
    connection.execute("DROP TABLE environments")
    connection.execute("UPDATE schema_version SET version = ?", (version,))
    connection.commit()
    connection.close()


@pytest.mark.parametrize("version", [1, 2])
def test_artifacts_of_before_there_were_versions_are_read_and_continued(
    store: Path, tmp_path: Path, version: int
) -> None:
    files = (file(tmp_path, "a", b"one"), file(tmp_path, "b", b"two"))
    before = LoggedArtifact("model", "weights", files, "words", {"a": 1}, TIME)
    run = opened(store)
    run.log_artifact(before)
    run.log_artifact(replace(before, name="empty", files=()))
    run.finish(Status())
    make_older(store, version)
    found, empty = reader(store).artifacts()
    assert content(found) == {"a": b"one", "b": b"two"}
    assert without_sources(found) == without_sources(before)
    assert empty.files == ()
    assert collected(store) == {f.sha256 for f in files}
    run = opened(store, resume="must")
    run.log_artifact(artifact(tmp_path, b"three"))
    read = finished(run, store)
    assert [made.label for made in read.artifacts()] == ["model", "empty", "model:v0"]
    connection = sqlite3.connect(store / "runs" / "r.sqlite")
    digests = [digest for (digest,) in connection.execute("SELECT digest FROM artifacts ORDER BY artifact")]
    connection.close()
    assert digests == [made.digest for made in read.artifacts()]
    assert digests[0] == files_digest(files)


def test_a_migrated_file_has_the_columns_of_a_new_one(store: Path) -> None:
    def columns() -> list[Any]:
        connection = sqlite3.connect(store / "runs" / "r.sqlite")
        query = "SELECT name, type, \"notnull\", dflt_value FROM pragma_table_info('{}') ORDER BY name"
        tables = ("artifacts", "artifact_files")
        found = [connection.execute(query.format(table)).fetchall() for table in tables]
        connection.close()
        return found

    opened(store).finish(Status())
    new = columns()
    make_older(store, 2)
    opened(store, resume="must").finish(Status())
    assert columns() == new


# -- bad input --------------------------------------------------------------------------------------


def test_content_that_is_not_what_was_logged_is_refused(store: Path, tmp_path: Path) -> None:
    made = artifact(tmp_path)
    Path(made.files[0].source).write_bytes(b"something else")
    run = opened(store)
    for version in (0, None):
        with pytest.raises(CorruptArtifactError, match=r"a/w\.bin"):
            run.log_artifact(replace(made, version=version))
    assert finished(run, store).artifacts() == []
    assert catalog(store).collections() == []


def test_a_place_for_artifacts_that_cannot_be_is_said_at_the_start(store: Path) -> None:
    with pytest.raises(UsageError, match="nonsense"):
        opened(store, artifacts="nonsense://x")
    assert not (store / "runs" / "r.sqlite").exists()
