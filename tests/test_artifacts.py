"""The life of an artifact as its user sees it: filled, logged, used, downloaded, checked, deleted."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import tracklayer
from tracklayer import Artifact
from tracklayer.artifacts.catalog import Catalog
from tracklayer.artifacts.locations import FolderLocation
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.errors import (
    AmbiguousArtifactError,
    ArtifactNotFoundError,
    CorruptArtifactError,
    FileChangedError,
    StoreError,
    UsageError,
)
from tracklayer.front import ActiveRun


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "store"
    monkeypatch.setenv("TRACKLAYER_DIR", str(folder))
    monkeypatch.chdir(tmp_path)
    yield folder
    tracklayer.finish()


@pytest.fixture
def run() -> ActiveRun:
    return tracklayer.init("p", id="r")


def written(path: str, text: str = "text") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def logged(run: ActiveRun, text: str, name: str = "model", **arguments: Any) -> Artifact:
    """Log an artifact with the files `a/weights` and `config`, of which the first holds a text."""
    artifact = Artifact(name, "model", **arguments)
    with artifact.new_file("a/weights") as file:
        file.write(text)
    with artifact.new_file("config", "xb") as file:
        file.write(b"{}")
    return run.log_artifact(artifact)


def content(artifact: Artifact, folder: str) -> dict[str, str]:
    """Return what its files hold, after a download."""
    root = Path(artifact.download(folder))
    return {f.relative_to(root).as_posix(): f.read_text() for f in sorted(root.rglob("*")) if f.is_file()}


def contents(store: Path) -> list[Path]:
    """Return the files that lie in the store's folder of contents."""
    return [path for path in (store / "blobs").glob("*/*") if path.is_file()]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# -- versions ------------------------------------------------------------------------------------------


def test_what_is_logged_is_a_version_and_can_be_used_by_name(run: ActiveRun) -> None:
    draft = Artifact("model", "model", "words", {"accuracy": 0.9})
    draft.add_file(written("weights.bin", "0"))
    assert draft.name == "model"
    assert draft.state == "PENDING"
    assert run.log_artifact(draft, aliases=["best"]) is draft
    assert (draft.name, draft.version, draft.project, draft.state) == ("model:v0", "v0", "p", "COMMITTED")
    assert (draft.size, draft.file_count, draft.qualified_name) == (1, 1, "p/model:v0")
    assert draft.wait() is draft
    for ref in ("model", "model:latest", "model:v0", "model:best", "p/model:best", "team/p/model:v0"):
        used = run.use_artifact(ref)
        assert (used.name, used.digest, used.type) == (draft.name, draft.digest, "model")
        assert (used.description, used.metadata) == ("words", {"accuracy": 0.9})
        assert sorted(used.aliases) == ["best", "latest"]
    assert used.created_at.startswith("20")
    assert content(used, "out") == {"weights.bin": "0"}


def test_versions_count_up_and_the_same_content_again_makes_no_new_one(run: ActiveRun, store: Path) -> None:
    assert [logged(run, text).version for text in ("a", "b", "a", "c")] == ["v0", "v1", "v0", "v2"]
    assert run.use_artifact("model").version == "v2"
    assert logged(run, "b").version == "v1"
    assert run.use_artifact("model").version == "v1", "what was logged last is the latest"
    assert logged(run, "d").version == "v3"
    assert run.use_artifact("model").version == "v3"
    texts = [path.read_text() for path in contents(store)]
    assert sorted(text for text in texts if text in {"a", "b", "c", "d", "{}"}) == ["a", "b", "c", "d", "{}"]


def test_what_is_no_argument_of_an_artifact_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'aliases'"):
        Artifact("a", "t", aliases=["best"])  # type: ignore[arg-type]


def test_an_artifact_with_a_new_file_that_is_still_open_is_not_logged(run: ActiveRun) -> None:
    artifact = Artifact("a", "t")
    with artifact.new_file("f") as file:
        file.write("half")
        with pytest.raises(UsageError, match="'f'.* is still open"):
            run.log_artifact(artifact)
    assert run.log_artifact(artifact).file_count == 1


def test_aliases_may_be_given_anew_without_latest_and_wrong_ones_change_nothing(run: ActiveRun) -> None:
    artifact = logged(run, "a")
    artifact.aliases = ["x", "a/b"]
    with pytest.raises(UsageError, match="a/b"):
        artifact.save()
    assert tracklayer.open_store().artifact("model:v0").aliases == ["latest"]
    artifact.aliases = ["x"]
    artifact.save()
    assert tracklayer.open_store().artifact("model:v0").aliases == ["latest", "x"]


def test_a_description_is_text() -> None:
    with pytest.raises(UsageError, match="5 is no description"):
        Artifact("a", "t", description=5)  # type: ignore[arg-type]


def test_a_version_keeps_the_description_and_metadata_of_the_first_time(run: ActiveRun) -> None:
    logged(run, "a", description="first", metadata={"n": 1})
    again = logged(run, "a", description="second", metadata={"n": 2})
    assert (again.version, again.description, again.metadata) == ("v0", "first", {"n": 1})


def test_the_content_is_that_at_the_call(run: ActiveRun) -> None:
    metadata: dict[str, Any] = {"epochs": [1]}
    artifact = Artifact("a", "t", metadata=metadata)
    artifact.add_file(written("file", "before"))
    artifact.add_file("file", "folder/copy")
    run.log_artifact(artifact)
    written("file", "after")
    metadata["epochs"].append(2)
    Path("file").unlink()
    used = run.use_artifact("a")
    assert content(used, "out") == {"file": "before", "folder/copy": "before"}
    assert used.metadata == {"epochs": [1]}


def test_each_project_counts_its_own_versions() -> None:
    for project in ("p", "q"):
        with tracklayer.init(project) as run:
            assert logged(run, project).version == "v0"
            assert run.use_artifact("model").project == project
            assert content(run.use_artifact("p/model"), project)["a/weights"] == "p"
    with pytest.raises(AmbiguousArtifactError, match="p.*q"):
        tracklayer.open_store().artifact("model")
    assert tracklayer.open_store().artifact("model", project="q").project == "q"


def test_a_logged_artifact_does_not_change_any_more(run: ActiveRun) -> None:
    artifact = logged(run, "a")
    changes: list[Callable[[], object]] = [
        lambda: artifact.add_file(written("x")),
        lambda: artifact.add_dir("."),
        lambda: artifact.add_reference("x"),
        lambda: artifact.remove("config"),
        lambda: artifact.new_file("x"),
    ]
    for change in changes:
        with pytest.raises(UsageError, match="'model:v0' is logged, and does not change any more"):
            change()
    artifact.metadata["n"] = 1
    with pytest.raises(UsageError, match="description and metadata stay: log a new version"):
        artifact.save()
    assert run.use_artifact("model").metadata == {}


def test_a_stored_version_can_be_logged_again_by_another_run(run: ActiveRun) -> None:
    logged(run, "a")
    logged(run, "b")
    run.finish()
    with tracklayer.init("p", id="other") as other:
        assert other.log_artifact(other.use_artifact("model:v0"), aliases="again").version == "v0"
        assert other.use_artifact("model").version == "v0"
        assert other.use_artifact("model:again").version == "v0"
    assert [made.name for made in tracklayer.Api().run("other").logged_artifacts()] == ["model:v0"]
    with tracklayer.init("q") as third, pytest.raises(UsageError, match="p/model:v0 is another project's"):
        third.log_artifact(third.use_artifact("p/model:v0"))


@pytest.mark.slow
def test_two_processes_that_log_at_once_get_two_numbers(run: ActiveRun, store: Path) -> None:
    run.finish()
    code = """
        import sys, tracklayer
        with tracklayer.init("p") as run:
            for number in range(5):
                artifact = tracklayer.Artifact("model", "model")
                with artifact.new_file("weights") as file:
                    file.write(sys.argv[1] + str(number))
                print(run.log_artifact(artifact).version)
    """
    started = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), name], stdout=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    numbers = [process.communicate(timeout=60)[0].split() for process in started]
    assert sorted(number for some in numbers for number in some) == sorted(f"v{n}" for n in range(10))


# -- aliases -------------------------------------------------------------------------------------------


def test_an_alias_moves_when_it_is_asked_to(run: ActiveRun) -> None:
    first, second = logged(run, "a"), logged(run, "b")
    first.aliases.append("best")
    assert run.use_artifact("model:v0").aliases == [], "nothing is written before save"
    first.save()
    assert run.use_artifact("model:best").version == "v0"
    second.aliases = [*second.aliases, "best"]
    second.save()
    assert run.use_artifact("model:best").version == "v1"
    assert run.use_artifact("model:v0").aliases == []
    second.aliases.remove("best")
    second.save()
    with pytest.raises(ArtifactNotFoundError, match="best"):
        run.use_artifact("model:best")
    run.use_artifact("model:v0", aliases=["used"])
    assert run.use_artifact("model:used").version == "v0"


def test_save_moves_the_aliases_that_were_added_wherever_the_artifact_is_from(run: ActiveRun) -> None:
    for text, found in (
        ("a", lambda logged: logged),
        ("b", lambda _: run.use_artifact("model")),
        ("c", lambda _: tracklayer.open_store().artifact("p/model")),
    ):
        artifact = found(logged(run, text))
        artifact.aliases.append("best")
        artifact.save()
        assert run.use_artifact("model:best").digest == artifact.digest
        assert artifact.aliases == ["latest", "best"]


def test_save_leaves_the_aliases_that_moved_meanwhile_where_they_are(run: ActiveRun) -> None:
    first = logged(run, "a")
    first.aliases = ["latest", "best"]
    first.save()
    first.aliases.append("first")
    second = logged(run, "b")
    second.aliases.append("best")
    second.save()
    first.save()
    assert second.aliases == ["latest", "best"]
    assert first.aliases == ["first"]


@pytest.mark.parametrize("alias", ["v3", "a/b", "a:b", "", " "])
def test_an_alias_that_cannot_be_is_refused_before_anything_is_stored(run: ActiveRun, alias: str) -> None:
    with pytest.raises(UsageError, match="alias"):
        run.log_artifact(written("file"), "a", "t", [alias])
    assert tracklayer.open_store().artifacts() == []


# -- lineage -------------------------------------------------------------------------------------------


def test_the_runs_that_made_and_used_a_version_are_known() -> None:
    with tracklayer.init("p", id="maker") as run:
        made = logged(run, "a")
        logged(run, "b")
    for name in ("first", "second"):
        with tracklayer.init("p", id=name) as run:
            run.use_artifact("model:v0")
            run.use_artifact(made)
    found = tracklayer.open_store().artifact("model:v0")
    assert [maker.id for maker in found.logged_by()] == ["maker"]
    assert [user.id for user in found.used_by()] == ["first", "second"]
    assert tracklayer.open_store().artifact("model:v1").used_by() == []
    api = tracklayer.Api()
    assert [a.name for a in api.run("maker").logged_artifacts()] == ["model:v0", "model:v1"]
    assert [a.name for a in api.run("second").used_artifacts()] == ["model:v0"]
    assert api.run("second").logged_artifacts() == []


def test_each_run_that_logs_the_same_content_is_one_that_made_it() -> None:
    for name in ("first", "second", "second"):
        with tracklayer.init("p", id=name, resume="allow") as run:
            assert logged(run, "a").version == "v0"
    found = tracklayer.open_store().artifact("model")
    assert [maker.id for maker in found.logged_by()] == ["first", "second"]


def test_a_draft_that_is_used_is_logged_first(run: ActiveRun) -> None:
    artifact = Artifact("data", "dataset")
    artifact.add_file(written("rows.csv"))
    assert run.use_artifact(artifact).version == "v0"
    assert [user.id for user in artifact.used_by()] == ["r"]


def test_a_version_of_another_type_is_not_used(run: ActiveRun) -> None:
    logged(run, "a")
    with pytest.raises(UsageError, match="model:v0 is of type 'model', not of type 'dataset'"):
        run.use_artifact("model:v0", type="dataset")
    assert run.use_artifact("model", type="model").version == "v0"
    with pytest.raises(UsageError, match="type"):
        run.log_artifact(written("file"), "model", "dataset")


def test_what_is_not_there_is_said_with_what_is(run: ActiveRun) -> None:
    logged(run, "a").aliases.append("best")
    with pytest.raises(ArtifactNotFoundError, match="v0"):
        run.use_artifact("model:v7")
    with pytest.raises(ArtifactNotFoundError, match="model"):
        run.use_artifact("modle")
    with pytest.raises(UsageError, match="names no artifact"):
        run.use_artifact("model:")
    with pytest.raises(ArtifactNotFoundError, match="'a/weight'; did you mean 'a/weights'"):
        run.use_artifact("model").get_entry("a/weight")


# -- download ------------------------------------------------------------------------------------------


def test_files_are_downloaded_where_they_are_wanted(run: ActiveRun, tmp_path: Path) -> None:
    artifact = logged(run, "a")
    assert artifact.download() == str(Path("artifacts", "model:v0"))
    assert (tmp_path / "artifacts" / "model:v0" / "a" / "weights").read_text() == "a"
    assert artifact.path() == Path("artifacts", "model:v0")
    assert artifact.path("a/weights").read_text() == "a"
    assert artifact.download("some", path_prefix="a/") == "some"
    assert [path.name for path in Path("some").iterdir()] == ["a"]
    entry = artifact.get_entry("config")
    assert (entry.path, entry.size, entry.ref) == ("config", 2, None)
    assert Path(entry.download(tmp_path / "one")).read_text() == "{}"
    assert [file.path for file in artifact.files()] == ["a/weights", "config"]
    with pytest.raises(UsageError, match="model:v0 has 2 files: use download"):
        artifact.file()
    one = run.log_artifact(written("only", "x"), "single", "t")
    assert Path(one.file()).read_text() == "x"


def test_one_of_many_files_is_found_without_going_through_all(run: ActiveRun, store: Path) -> None:
    catalog = Catalog(FolderLocation(store))
    files = tuple(ArtifactFile(f"{number}", "", 0, "s3://b/k", "s3://b/k") for number in range(2_000))
    catalog.publish(LoggedArtifact("many", "dataset", files, project="p"), None)
    artifact = run.use_artifact("many")
    artifact.files()
    started = time.perf_counter()
    for _ in range(20_000):
        artifact.get_entry("1999")
    assert time.perf_counter() - started < 1, "going through all would take several seconds"


def test_what_is_there_already_stays_if_it_is_right_and_is_replaced_if_not(run: ActiveRun) -> None:
    artifact = logged(run, "right")
    artifact.download("out")
    os.utime("out/config", (1, 1))
    written("out/a/weights", "wrong")
    written("out/other", "mine")
    assert content(artifact, "out") == {"a/weights": "right", "config": "{}", "other": "mine"}
    assert Path("out/config").stat().st_mtime == 1


def test_what_is_downloaded_is_the_callers_to_change(run: ActiveRun) -> None:
    artifact = logged(run, "a")
    artifact.download("out")
    with Path("out/a/weights").open("a") as file:
        file.write("more")
    artifact.verify()
    assert content(artifact, "again")["a/weights"] == "a"


def test_a_link_in_the_folder_leads_no_download_out_of_it(run: ActiveRun, tmp_path: Path) -> None:
    artifact = logged(run, "a")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Path("out").mkdir()
    Path("out/a").symlink_to(elsewhere, target_is_directory=True)
    with pytest.raises(UsageError, match="is a link that leads out of out"):
        artifact.download("out")
    assert list(elsewhere.iterdir()) == []
    Path("out/a").unlink()
    secret = written("secret", "secret")
    Path("out/config").unlink(missing_ok=True)
    Path("out/config").symlink_to(secret.absolute())
    assert content(artifact, "out") == {"a/weights": "a", "config": "{}"}
    assert secret.read_text() == "secret"


# -- what is damaged -----------------------------------------------------------------------------------


def damage(store: Path, text: str, into: str) -> None:
    """Change the content that holds a text, behind the store's back."""
    (blob,) = (path for path in contents(store) if path.read_text() == text)
    blob.chmod(0o644)
    blob.write_text(into)


@pytest.mark.parametrize("into", ["other", "wEights", ""])
def test_content_that_was_damaged_is_found_and_never_handed_out(
    run: ActiveRun, store: Path, into: str
) -> None:
    artifact = logged(run, "weights")
    damage(store, "weights", into)
    with pytest.raises(CorruptArtifactError, match=r"model:v0 is damaged: 'a/weights' \("):
        artifact.verify()
    with pytest.raises(CorruptArtifactError, match="model:v0, file 'a/weights'"):
        artifact.download("out")
    assert not Path("out/a/weights").exists()
    assert [path.name for path in Path("out").rglob("*") if path.is_file()] in ([], ["config"])
    assert Path(artifact.get_entry("config").download("rest")).read_text() == "{}"


def test_content_that_is_gone_is_named_and_comes_back_when_it_is_logged_again(
    run: ActiveRun, store: Path
) -> None:
    artifact = logged(run, "weights")
    (blob,) = (path for path in contents(store) if path.read_text() == "weights")
    blob.unlink()
    with pytest.raises(CorruptArtifactError, match="'a/weights'"):
        artifact.verify()
    assert logged(run, "weights").version == "v0"
    artifact.verify()
    assert content(artifact, "out")["a/weights"] == "weights"


def test_a_folder_is_compared_with_a_version(run: ActiveRun) -> None:
    artifact = logged(run, "a")
    artifact.download("out")
    artifact.verify("out")
    written("out/a/weights", "b")
    Path("out/config").unlink()
    written("out/other")
    with pytest.raises(CorruptArtifactError) as caught:
        artifact.verify("out")
    assert str(caught.value) == (
        "out is not what artifact model:v0 holds: 'a/weights' differs, 'config' is missing, "
        "'other' is none of its files"
    )


# -- deleting and pinning ------------------------------------------------------------------------------


def test_a_deleted_version_is_gone_and_its_number_is_not_used_again(run: ActiveRun) -> None:
    first, second = logged(run, "a"), logged(run, "b")
    second.delete()
    assert second.state == "DELETED"
    assert run.use_artifact("model").version == "v0"
    with pytest.raises(ArtifactNotFoundError, match="v1"):
        run.use_artifact("model:v1")
    assert logged(run, "b").version == "v2"
    first.pin()
    with pytest.raises(UsageError, match="pinned"):
        first.delete()
    first.unpin()
    first.aliases.append("best")
    first.save()
    with pytest.raises(UsageError, match="best"):
        first.delete()
    first.delete(delete_aliases=True)
    assert [version.name for version in tracklayer.open_store().artifacts(name="model")] == ["model:v2"]
    run.finish()
    assert [made.name for made in tracklayer.Api().run("r").logged_artifacts()] == ["model:v2"]


def test_versions_are_compared(run: ActiveRun) -> None:
    first = logged(run, "a", metadata={"n": 1, "same": [1]})
    second = Artifact("model", "model", metadata={"n": 2, "same": [1]})
    second.add_file(written("x", "b"), "a/weights")
    second.add_file("x", "new")
    run.log_artifact(second)
    found = first.diff(second)
    assert (found.added, found.removed) == (("new",), ("config",))
    assert [one.path for one in found.changed] == ["a/weights"]
    assert found.metadata_changed == {"n": (1, 2)}
    assert not first.diff(run.use_artifact("model:v0"))


# -- filling -------------------------------------------------------------------------------------------


def test_a_folder_is_added_with_what_its_links_lead_to(run: ActiveRun, tmp_path: Path) -> None:
    written("data/real/file", "x")
    Path("data/link").symlink_to(tmp_path / "data" / "real", target_is_directory=True)
    Path("data/file").symlink_to(Path("real") / "file")
    artifact = Artifact("data", "dataset")
    artifact.add_dir("data")
    artifact.add_dir("data/real", "under")
    run.log_artifact(artifact)
    assert content(artifact, "out") == dict.fromkeys(["file", "link/file", "real/file", "under/file"], "x")


@pytest.mark.parametrize(
    ("link", "target", "error", "message"),
    [
        ("data/out", "../secret", UsageError, "leads out of"),
        ("data/out", "..", UsageError, "leads out of"),
        ("data/sub/up", "../../data", UsageError, "has no end"),
        ("data/sub/here", ".", UsageError, "has no end"),
        ("data/nothing", "gone", FileNotFoundError, "is a link to nothing"),
        ("data/itself", "itself", FileNotFoundError, "is a link to nothing"),
    ],
)
def test_a_link_that_leads_astray_is_refused(
    link: str, target: str, error: type[Exception], message: str
) -> None:
    written("secret")
    written("data/sub/file")
    Path(link).symlink_to(target)
    with pytest.raises(error, match=message):
        Artifact("a", "t").add_dir("data")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes with names")
def test_what_is_neither_a_file_nor_a_folder_is_refused() -> None:
    written("data/file")
    os.mkfifo("data/pipe")
    with pytest.raises(UsageError, match="pipe is neither a file nor a folder"):
        Artifact("a", "t").add_dir("data")


def test_one_path_is_one_file(run: ActiveRun) -> None:
    artifact = Artifact("a", "t")
    artifact.add_file(written("one", "1"), "x")
    artifact.add_file("one", "x")
    with pytest.raises(UsageError, match="has a file 'x' already; give another name, or overwrite=True"):
        artifact.add_file(written("two", "2"), "x")
    with pytest.raises(UsageError, match="has a file 'x' already"), artifact.new_file("x"):
        pass
    with pytest.raises(UsageError, match="has a file 'x' already"):
        artifact.add_reference("two", "x")
    artifact.add_file("two", "x", overwrite=True)
    with artifact.new_file("y", "w") as file:
        file.write("3")
    with artifact.new_file("y", "w") as file:
        file.write("4")
    assert content(run.log_artifact(artifact), "out") == {"x": "2", "y": "4"}


def test_a_file_cannot_be_a_folder_too(run: ActiveRun) -> None:
    artifact = Artifact("a", "t")
    artifact.add_file(written("one"), "x/y")
    artifact.add_file("one", "x")
    with pytest.raises(UsageError, match="has a file 'x', which is a folder to 'x/y'"):
        run.log_artifact(artifact)


def test_what_was_added_can_be_taken_out_again(run: ActiveRun) -> None:
    artifact = Artifact("a", "t")
    for name in ("a", "sub/b", "sub/c", "submarine"):
        artifact.add_file(written("file"), name)
    artifact.add_reference("file", "sub/ref")
    artifact.remove("sub")
    with pytest.raises(FileNotFoundError, match="has no file or folder 'sub'"):
        artifact.remove("sub")
    run.log_artifact(artifact)
    assert [file.path for file in artifact.files()] == ["a", "submarine"]


def test_a_new_file_is_added_only_if_it_was_written_whole(run: ActiveRun, tmp_path: Path) -> None:
    artifact = Artifact("a", "t")
    with pytest.raises(ValueError, match="chr"), artifact.new_file("half") as file:
        file.write(chr(10**9))
    with artifact.new_file("é.txt") as file:
        file.write("é")
    folder = Path(file.name).parent
    assert folder.is_dir()
    with pytest.raises(UsageError, match="mode 'r' does not write a new file"), artifact.new_file("x", "r"):
        pass
    assert content(run.log_artifact(artifact), "out") == {"é.txt": "é"}
    assert not folder.exists()


def test_files_that_were_never_logged_are_cleaned_up() -> None:
    artifact = Artifact("a", "t")
    with artifact.new_file("x") as file:
        file.write("x")
    folder = Path(file.name).parent
    del artifact
    assert not folder.exists()


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../up", "C:\\x", "..", ".", "a\0b", "\ud800"])
def test_paths_that_leave_an_artifact_are_refused(path: str) -> None:
    artifact = Artifact("a", "t")
    with pytest.raises(UsageError, match="is no path inside it"):
        artifact.add_file(written("file"), path)
    with pytest.raises(UsageError, match="is no path inside it"):
        artifact.add_reference("file", path)
    with pytest.raises(UsageError, match="is no path inside it"), artifact.new_file(path):
        pass


def test_a_file_that_is_gone_when_it_is_logged_is_named(run: ActiveRun) -> None:
    artifact = Artifact("a", "t")
    artifact.add_file(written("file"), "inner")
    Path("file").unlink()
    with pytest.raises(FileNotFoundError, match="file, added as 'inner', is gone; a file has to stay until"):
        run.log_artifact(artifact)
    assert tracklayer.open_store().artifacts() == []
    written("file")
    assert run.log_artifact(artifact).version == "v0"


@pytest.mark.slow
def test_a_file_that_changes_all_the_time_is_refused(run: ActiveRun) -> None:
    file = written("file", "x" * 20_000_000)
    artifact = Artifact("a", "t")
    artifact.add_file(file)
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            with file.open("r+b") as opened:
                opened.write(os.urandom(8))
            time.sleep(0.001)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        with pytest.raises(FileChangedError, match="file"):
            run.log_artifact(artifact)
    finally:
        done.set()
        changing.join()
    assert run.log_artifact(artifact).version == "v0", "it may be tried again"


# -- references ----------------------------------------------------------------------------------------


def test_a_reference_is_kept_by_its_content_and_copied_nowhere(run: ActiveRun, store: Path) -> None:
    big = written("data/big file.bin", "content")
    written("data/sub/b", "b")
    artifact = Artifact("data", "dataset")
    artifact.add_reference(big.absolute().as_uri(), "one")
    added = artifact.add_reference("data", "all")
    assert [one.path for one in added] == ["all/big file.bin", "all/sub/b"]
    run.log_artifact(artifact)
    assert [path.read_text() for path in contents(store) if path.read_text() in {"content", "b"}] == []
    assert [(file.path, file.size) for file in artifact.files()] == [
        ("all/big file.bin", 7),
        ("all/sub/b", 1),
        ("one", 7),
    ]
    assert artifact.get_entry("one").ref == big.absolute().as_uri()
    artifact.verify()
    expected = {"all/big file.bin": "content", "all/sub/b": "b", "one": "content"}
    assert content(artifact, "out") == expected
    assert run.log_artifact(written("x", "content"), "data", "dataset").version == "v1"


def test_a_copy_of_what_was_a_reference_is_kept(run: ActiveRun, store: Path) -> None:
    file = written("file", "content")
    referring, copying = Artifact("data", "dataset"), Artifact("data", "dataset")
    referring.add_reference(file.absolute())
    copying.add_file(file)
    assert [run.log_artifact(each).version for each in (referring, copying)] == ["v0", "v1"]
    run.finish()
    assert "content" in [path.read_text() for path in contents(store)]
    file.unlink()
    assert content(tracklayer.open_store().artifact("data:v1"), "out") == {"file": "content"}


@pytest.mark.parametrize("change", ["changed", None])
def test_a_reference_whose_content_is_another_or_gone_is_not_handed_out(
    run: ActiveRun, change: str | None
) -> None:
    file = written("file", "content")
    artifact = Artifact("a", "t")
    artifact.add_reference(file.absolute())
    run.log_artifact(artifact)
    if change is None:
        file.unlink()
    else:
        written("file", change)
    with pytest.raises(CorruptArtifactError, match=r"a:v0, file 'file': .*file"):
        artifact.download("out")
    assert list(Path("out").iterdir()) == []


def test_a_reference_without_a_checksum_is_told_apart_by_its_uri(run: ActiveRun) -> None:
    def log(uri: str) -> str:
        artifact = Artifact("a", "t")
        artifact.add_reference(uri, checksum=False)
        return run.log_artifact(artifact).version

    uri = written("file", "1").absolute().as_uri()
    assert log(uri) == "v0"
    written("file", "2")
    assert log(uri) == "v0"
    assert content(run.use_artifact("a:v0"), "out") == {"file": "2"}
    assert log("s3://bucket/file") == "v1"
    assert [(f.path, f.reference) for f in run.use_artifact("a:v1").files()] == [("file", "s3://bucket/file")]


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:secret@bucket/x",
        "https://token@host/x",
        "https://host/x?X-Amz-Signature=secret",
        "https://account.blob.core.windows.net/x?sv=1&sig=secret",
        "gs://b/x?access_token=secret",
        "https://host/x#access_token=secret",
        "https://host/x?auth=secret",
        "simplecache::https://user:secret@host/x",
        "zip://a.csv::https://user:secret@host/a.zip",
    ],
)
def test_credentials_in_a_reference_are_refused_and_not_said_aloud(uri: str) -> None:
    for checksum in (True, False):
        with pytest.raises(UsageError, match="the URI holds credentials") as caught:
            Artifact("a", "t").add_reference(uri, checksum=checksum)
        assert "secret" not in str(caught.value)
        assert "token@" not in str(caught.value)


def test_what_no_reference_can_be_is_refused() -> None:
    artifact = Artifact("a", "t")
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        artifact.add_reference("nowhere")
    with pytest.raises(UsageError, match="names a file of 'host'"):
        artifact.add_reference("file://host/x")
    with pytest.raises(UsageError, match=r"nonsense:// cannot be read here: .*pass checksum=False"):
        artifact.add_reference("nonsense://x/y")
    for name in "abc":
        written(f"data/{name}")
    with pytest.raises(UsageError, match="data holds more than 2 files; pass a larger max_objects"):
        artifact.add_reference("data", max_objects=2)
    assert len(artifact.add_reference("data", max_objects=3)) == 3


class _Served(BaseHTTPRequestHandler):
    """Serves files with ETags."""

    files: dict[str, tuple[bytes, str | None]] = {}  # noqa: RUF012 - each test sets it

    def do_GET(self) -> None:
        data, etag = self.files.get(self.path, (None, None))
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data or b"")

    do_HEAD = do_GET  # noqa: N815 - as its base class looks for it

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Served)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    _Served.files = {"/x.bin": (b"content", '"e1"'), "/bare": (b"content", None)}
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_server_is_asked_what_tells_its_content_apart(run: ActiveRun, served: str) -> None:
    pytest.importorskip("aiohttp")
    artifact = Artifact("a", "t")
    (added,) = artifact.add_reference(f"{served}/x.bin")
    assert (added.path, added.size, added.checksum, added.sha256) == ("x.bin", 7, "e1", "")
    with pytest.raises(UsageError, match=r"the content of .*/bare apart; pass checksum=False"):
        artifact.add_reference(f"{served}/bare")
    with pytest.raises(UsageError, match="cannot learn what .*/gone holds"):
        artifact.add_reference(f"{served}/gone")
    run.log_artifact(artifact)
    assert content(artifact, "out") == {"x.bin": "content"}
    _Served.files["/x.bin"] = (b"changed", '"e2"')
    with pytest.raises(CorruptArtifactError, match="x.bin holds something else than when it was added"):
        artifact.download("again")


@pytest.mark.slow
def test_a_folder_of_any_file_system_is_a_reference(run: ActiveRun) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe({"/bucket/data/a": b"a", "/bucket/data/sub/b": b"bb"})
    artifact = Artifact("a", "t")
    added = artifact.add_reference("memory://bucket/data", "in")
    assert [(one.path, one.size) for one in added] == [("in/a", 1), ("in/sub/b", 2)]
    run.log_artifact(artifact)
    assert content(artifact, "out") == {"in/a": "a", "in/sub/b": "bb"}
    memory.pipe({"/bucket/data/a": b"A"})
    with pytest.raises(CorruptArtifactError, match="in/a"):
        artifact.download("again")
    memory.rm("/bucket", recursive=True)


# -- without waiting -----------------------------------------------------------------------------------


def test_what_is_stored_meanwhile_is_there_after_wait(run: ActiveRun) -> None:
    artifacts = []
    for number in range(3):
        artifact = Artifact("a", "t", metadata={"n": number})
        artifact.add_file(written(f"file{number}", str(number)), "file")
        assert run.log_artifact(artifact, wait=False) is artifact
        artifact.metadata["n"] = "changed afterwards"
        artifacts.append(artifact)
    sync = run.log_artifact(written("file"), "a", "t")
    assert sync.version == "v3", "the order of the versions is that of the calls"
    assert [artifact.wait(10).version for artifact in artifacts] == ["v0", "v1", "v2"]
    assert [artifact.metadata for artifact in artifacts] == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.fixture
def goes_on(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return what is to be set before anything is published."""
    event, publish = threading.Event(), Catalog.publish

    def late(*arguments: Any) -> Any:
        event.wait(30)
        return publish(*arguments)

    monkeypatch.setattr(Catalog, "publish", late)
    return event


def test_while_it_is_being_stored_there_is_no_version_yet(run: ActiveRun, goes_on: threading.Event) -> None:
    artifact = Artifact("a", "t")
    with pytest.raises(UsageError, match="'a' is not stored yet: pass it to run.log_artifact"):
        _ = artifact.version
    with pytest.raises(UsageError, match="pass it to run.log_artifact"):
        artifact.wait()
    artifact.add_file(written("file"))
    run.log_artifact(artifact, wait=False)
    for read in (lambda: artifact.version, lambda: artifact.digest, lambda: artifact.aliases, artifact.files):
        with pytest.raises(UsageError, match=r"'a' is not stored yet: call wait\(\)"):
            read()
    with pytest.raises(UsageError, match="is logged, and does not change any more"):
        artifact.add_file("file", "more")
    with pytest.raises(TimeoutError, match=r"is not stored after 0\.01 s"):
        artifact.wait(0.01)
    goes_on.set()
    assert artifact.wait().version == "v0"
    assert run.use_artifact("a").version == "v0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
def test_a_forked_child_does_not_wait_for_what_its_parent_stores(
    run: ActiveRun, goes_on: threading.Event
) -> None:
    artifact = run.log_artifact(written("file"), "a", "t", wait=False)
    child = os.fork()
    if child == 0:
        try:
            artifact.wait()
        except UsageError as error:
            os._exit(0 if "is being stored by the process that logged it" in str(error) else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    goes_on.set()
    assert artifact.wait().version == "v0"


def test_what_goes_wrong_meanwhile_is_said_once_and_raised_by_wait(
    run: ActiveRun, caplog: pytest.LogCaptureFixture
) -> None:
    run.log_artifact(written("file"), "a", "model")
    artifact = Artifact("a", "dataset")
    artifact.add_file("file")
    run.log_artifact(artifact, wait=False)
    for _ in range(2):
        with pytest.raises(UsageError, match="type"):
            artifact.wait()
    with pytest.raises(UsageError, match="'a' is not stored: .*type"):
        _ = artifact.version
    run.finish()
    (said,) = warnings(caplog)
    assert "artifact 'a' of run r is not recorded: " in said


def test_finish_waits_for_what_is_being_stored(run: ActiveRun) -> None:
    artifact = Artifact("a", "t")
    artifact.add_file(written("file", "x" * 1_000_000))
    run.log_artifact(artifact, wait=False)
    run.finish()
    assert artifact.version == "v0"
    (made,) = tracklayer.open_store().run("r").artifacts()
    assert (made.name, made.version) == ("a", 0)


# -- where nothing is recorded, or cannot be -----------------------------------------------------------


def test_where_nothing_is_recorded_code_that_logs_goes_on(store: Path) -> None:
    with tracklayer.init("p", mode="disabled") as run:
        artifact = logged(run, "a", metadata={"n": 1})
        assert (artifact.wait().version, artifact.name, artifact.aliases) == ("v0", "model:v0", ["latest"])
        artifact.aliases.append("best")
        artifact.save()
        assert run.log_artifact("a-file-of-another-machine", aliases=["x"]).aliases == ["latest", "x"]
        assert run.use_artifact(artifact) is artifact
        with pytest.raises(UsageError, match="nothing was kept of it"):
            artifact.download()
        with pytest.raises(ArtifactNotFoundError):
            run.use_artifact("model")
    assert not store.exists()


def test_a_run_that_records_nothing_uses_what_others_stored(run: ActiveRun) -> None:
    logged(run, "a")
    run.finish()
    with tracklayer.init("p", mode="disabled") as other:
        assert content(other.use_artifact("model:v0"), "out")["a/weights"] == "a"
    assert tracklayer.open_store().artifact("model").used_by() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
def test_a_forked_child_logs_nothing_and_reads_on(run: ActiveRun) -> None:
    logged(run, "a")
    child = os.fork()
    if child == 0:
        good = (
            logged(run, "b").version == "v0" and content(run.use_artifact("model"), "out")["a/weights"] == "a"
        )
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    found = tracklayer.open_store().artifacts()
    assert [version.name for version in found] == ["model:v0"]
    assert found[0].used_by() == []


def test_a_store_that_cannot_take_it_is_reported_and_training_goes_on(
    run: ActiveRun, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run.flush()
    (store / "incoming").touch()  # as good as a full disk: nothing can be staged
    artifact = run.log_artifact(written("file"), "a", "t")
    (said,) = warnings(caplog)
    assert "artifact 'a' of run r is not recorded: cannot write" in said
    with pytest.raises(StoreError, match="'a' is not stored: cannot write"):
        _ = artifact.version
    run.log({"x": 1})
    (store / "incoming").unlink()
    assert run.log_artifact(artifact).version == "v0", "it may be tried again"
    run.finish()
    recorded = tracklayer.open_store().run("r")
    assert [row.values for row in recorded.rows()] == [{"x": 1}]
    assert [made.label for made in recorded.artifacts()] == ["a:v0"]


def test_artifacts_may_lie_elsewhere(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKLAYER_ARTIFACTS", str(tmp_path / "shared"))
    with tracklayer.init("p") as run:
        logged(run, "a")
    assert (tmp_path / "shared" / "artifacts").is_dir()
    assert not (store / "artifacts").exists()
    assert content(tracklayer.open_store().artifact("model"), "out")["a/weights"] == "a"


def test_a_place_that_cannot_be_is_said_before_anything_is_recorded(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKLAYER_ARTIFACTS", "s3://key:secret@bucket/x")
    with pytest.raises(UsageError) as caught:
        tracklayer.init("p")
    assert "secret" not in str(caught.value)
    assert not store.exists()


# -- the files of a run --------------------------------------------------------------------------------


def test_the_files_that_a_run_saves_are_versions_too(run: ActiveRun, store: Path) -> None:
    run.save(str(written("log.txt", "1")), base_path=".")
    run.save(str(written("more.txt", "m")), base_path=".")
    written("log.txt", "22")
    Path("more.txt").unlink()
    (blob,) = (path for path in contents(store) if path.read_text() == "m")
    run.finish()
    found = tracklayer.open_store().artifacts("p", "run-r-files", "files")
    assert [version.version for version in found] == ["v0", "v1", "v2"]
    assert content(found[0], "0") == {"log.txt": "1"}
    assert content(found[2], "2") == {"log.txt": "22", "more.txt": "m"}
    assert blob.exists()
    assert [maker.id for maker in found[2].logged_by()] == ["r"]


def test_content_of_saved_files_that_is_gone_is_stored_again(run: ActiveRun, store: Path) -> None:
    run.save(str(written("a", "a-content")), base_path=".")
    (blob,) = (path for path in contents(store) if path.read_text() == "a-content")
    blob.unlink()
    run.save(str(written("b", "b")), base_path=".")
    assert content(run.use_artifact("run-r-files:v1"), "out") == {"a": "a-content", "b": "b"}


# -- models, and the module ----------------------------------------------------------------------------


def test_a_model_is_logged_and_used_by_its_path(run: ActiveRun) -> None:
    written("net/w", "w")
    written("net/sub/b", "b")
    assert tracklayer.log_model("net", aliases=["best"]).name == "run-r-net:v0"
    assert tracklayer.log_model(written("w.bin", "x"), "one").type == "model"
    assert {path.name for path in Path(tracklayer.use_model("run-r-net:best")).iterdir()} == {"sub", "w"}
    assert Path(tracklayer.use_model("one:latest")).read_text() == "x"
    tracklayer.log_artifact("w.bin", "data", "dataset")
    with pytest.raises(UsageError, match="use_model: data:v0 is of type 'dataset'"):
        tracklayer.use_model("data")
    assert tracklayer.use_artifact("data").version == "v0"


def test_the_api_finds_artifacts(run: ActiveRun) -> None:
    logged(run, "a")
    logged(run, "b")
    run.finish()
    api = tracklayer.Api({"project": "p"})
    assert api.artifact("model:v0", type="model").version == "v0"
    assert api.artifact("team/p/model:latest").version == "v1"
    assert [found.version for found in api.artifacts("model", "p/model")] == ["v1", "v0"]
    assert api.artifacts("dataset", "model") == []
    assert [api.artifact_exists(name) for name in ("model:v1", "model:v2", "q/model:v1")] == [
        True,
        False,
        False,
    ]
    assert not api.artifact_exists("model:v1", type="dataset")
    assert api.artifact_collection_exists("model", "model")
    assert not api.artifact_collection_exists("other", "model")
    with pytest.raises(UsageError, match="model:v0 is of type 'model', not of type 'dataset'"):
        api.artifact("model:v0", type="dataset")


# -- killed at any instant -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_logs_leaves_whole_versions(store: Path) -> None:
    code = """
        import random, sys, tracklayer
        random.seed(int(sys.argv[1]))
        with tracklayer.init("p") as run:
            while True:
                artifact = tracklayer.Artifact("model", "model")
                for name in ("a", "b", "c"):
                    with artifact.new_file(name, "xb") as file:
                        file.write(random.randbytes(300_000))
                run.log_artifact(artifact, aliases=["newest"])
                print("logged", flush=True)
    """
    chance = random.Random(0)
    for number in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(number)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "logged\n"
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    versions = tracklayer.open_store().artifacts()
    assert len(versions) >= 10
    for version in versions:
        version.verify()
        assert len(version.files()) == 3
    assert tracklayer.open_store().artifact("model:newest").size == 900_000
    numbers = [int(version.version[1:]) for version in versions]
    assert numbers == list(range(len(numbers)))
    assert Catalog(FolderLocation(store)).aliases("p", "model").keys() == {"latest", "newest"}
