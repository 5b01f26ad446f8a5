"""The catalog: versions, what they are called, who used them; alone and with others at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tracklayer.artifacts.catalog import Catalog, Version
from tracklayer.artifacts.collecting import collect
from tracklayer.artifacts.comparing import ArtifactDiff, ChangedFile, compare
from tracklayer.artifacts.locations import FolderLocation
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.artifacts.remote import remote_location
from tracklayer.artifacts.versions import version_data
from tracklayer.errors import (
    AmbiguousArtifactError,
    ArtifactNotFoundError,
    CorruptArtifactError,
    StoreTooNewError,
    UsageError,
)
from tracklayer.naming import check_alias, check_artifact_name, check_artifact_type, is_inner_path


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here would show whether a file is on the disk already, and to wait for the disk costs most."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(FolderLocation(tmp_path))


def logged(catalog: Catalog, content: Mapping[str, str] | str, **fields: Any) -> LoggedArtifact:
    """What a run logs: the contents are in the location."""
    contents = {"weights": content} if isinstance(content, str) else content
    files: list[ArtifactFile] = []
    for path, text in contents.items():
        sha256, size = catalog.blobs.add_bytes(text.encode())
        files.append(ArtifactFile(path, sha256, size, catalog.blobs.place(sha256)))
    fields = {"name": "model", "type": "model", "project": "p", "time": 1.0} | fields
    return LoggedArtifact(files=tuple(files), **fields)


def publish(catalog: Catalog, content: Mapping[str, str] | str, run: str = "r", **fields: Any) -> Version:
    return catalog.publish(logged(catalog, content, **fields), run)


def version_path(catalog: Catalog, number: int, name: str = "model") -> Path:
    assert catalog.location.folder is not None
    return catalog.location.folder / f"artifacts/p/{name}/versions/v{number}.json"


def test_versions_count_up_from_v0(catalog: Catalog) -> None:
    made = [publish(catalog, text, time=9.5, metadata={"acc": 0.5}, description="d") for text in "abc"]
    assert [version.label for version in made] == ["model:v0", "model:v1", "model:v2"]
    assert catalog.versions("p", "model") == made
    again = Catalog(catalog.location).get("p", "model", 1)
    assert again == made[1]
    assert (again.created_at, again.metadata, again.description, again.run_id) == (
        9.5,
        {"acc": 0.5},
        "d",
        "r",
    )
    assert (again.size, again.file_count) == (1, 1)


def test_a_version_gives_back_its_files_in_the_order_of_their_paths(catalog: Catalog) -> None:
    reference = ArtifactFile("far", "", 7, "s3://b/k", "s3://b/k", "etag-1")
    artifact = logged(catalog, {"ü/b": "second", "a": "first"}, aliases=("best",))
    whole = LoggedArtifact("model", "model", (reference, *artifact.files), project="p", aliases=("best",))
    version = catalog.publish(whole, None)
    files = catalog.files(version)
    assert [file.path for file in files] == ["a", "far", "ü/b"]
    assert files[1] == reference
    assert Path(files[0].source).read_text() == "first"
    assert version.digest == whole.digest
    assert catalog.logged(version).digest == whole.digest
    assert (catalog.logged(version).version, catalog.logged(version).aliases) == (0, ("best",))


def test_the_same_content_again_is_the_version_that_has_it(catalog: Catalog) -> None:
    first = publish(catalog, "a", run="r1", description="first", metadata={"lr": 1})
    publish(catalog, "b")
    again = publish(catalog, "a", run="r2", description="second", metadata={"lr": 2})
    assert again == first
    assert (again.description, again.metadata, again.run_id) == ("first", {"lr": 1}, "r1")
    assert len(catalog.versions("p", "model")) == 2


def test_a_copy_and_a_reference_to_the_same_content_are_two_versions(catalog: Catalog) -> None:
    artifact = logged(catalog, "a")
    (copy,) = artifact.files
    made = [
        catalog.publish(replace(artifact, files=(file,)), "r")
        for file in (
            replace(copy, source="file:///x", reference="file:///x"),
            copy,
            replace(copy, source="file:///y", reference="file:///y"),
            copy,
        )
    ]
    assert [version.number for version in made] == [0, 1, 2, 1]
    assert [catalog.files(version)[0].reference for version in made] == ["file:///x", None, "file:///y", None]
    assert compare(made[0], made[1], catalog).changed == (ChangedFile("weights", 1, 1),)


def test_latest_is_what_was_logged_last(catalog: Catalog) -> None:
    seen: list[str] = []
    for text in "abaabcab":
        publish(catalog, text)
        seen.append(catalog.find("model").label[-2:])
    assert seen == ["v0", "v1", "v0", "v0", "v1", "v2", "v0", "v1"]
    publish(catalog, "d")
    assert catalog.find("model:latest").number == 3
    assert catalog.aliases("p", "model") == {"latest": 3}


def test_an_alias_names_one_version_and_moves(catalog: Catalog) -> None:
    first = publish(catalog, "a", aliases=("best", "latest"))
    second = publish(catalog, "b", aliases=("Best",))
    assert catalog.aliases("p", "model") == {"latest": 1, "Best": 1, "best": 0}
    assert catalog.aliases_of(second) == ("latest", "Best")
    catalog.set_alias(second, "best")
    assert catalog.find("model:best") == second
    assert catalog.aliases_of(first) == ()
    catalog.set_alias(first, "latest")
    assert catalog.find("model") == first
    catalog.remove_alias(first, "best")  # which is the second's
    assert catalog.find("model:best") == second
    catalog.remove_alias(second, "best")
    assert catalog.aliases("p", "model") == {"latest": 0, "Best": 1}
    with pytest.raises(UsageError, match="'latest' cannot be removed"):
        catalog.remove_alias(first, "latest")


def test_a_deleted_version_is_gone_with_its_aliases_and_its_number_is_not_used_again(
    catalog: Catalog,
) -> None:
    publish(catalog, "a", aliases=("old",))
    second = publish(catalog, "b", aliases=("best",))
    other_process = Catalog(catalog.location)
    assert len(other_process.versions("p", "model")) == 2
    with pytest.raises(UsageError, match="model:v1 goes by 'best'"):
        catalog.delete(second)
    catalog.delete(second, delete_aliases=True)
    for each in (catalog, other_process):
        assert [version.number for version in each.versions("p", "model")] == [0]
        assert each.aliases("p", "model") == {"latest": 0, "old": 0}
        with pytest.raises(ArtifactNotFoundError, match="no version or alias 'v1'"):
            each.find("model:v1")
        with pytest.raises(ArtifactNotFoundError):
            each.get("p", "model", 1)
        with pytest.raises(ArtifactNotFoundError):
            each.set_alias(second, "best")
        with pytest.raises(ArtifactNotFoundError):
            each.pin(second)
    assert publish(other_process, "b").number == 2
    assert [each.count for each in catalog.collections()] == [2]


def test_a_pinned_version_cannot_be_deleted(catalog: Catalog) -> None:
    version = publish(catalog, "a")
    catalog.pin(version)
    assert catalog.is_pinned(version)
    with pytest.raises(UsageError, match="model:v0 is pinned"):
        catalog.delete(version)
    catalog.unpin(version)
    assert not catalog.is_pinned(version)
    catalog.delete(version)
    catalog.delete(version)
    assert catalog.versions("p", "model") == []
    assert catalog.aliases("p", "model") == {}
    assert catalog.collections() == []


def test_a_version_that_is_pinned_while_it_is_being_deleted_stays_with_its_content(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish(catalog, {"a": "1", "b": "2"})
    create = FolderLocation.create

    def create_while_others_pin_and_collect(location: FolderLocation, name: str, data: bytes) -> bool:
        if not name.endswith(".deleted"):
            return create(location, name, data)
        Catalog(location).pin(version)
        was_free = create(location, name, data)
        collect(Catalog(location), [], dry_run=False)
        return was_free

    with monkeypatch.context() as patched:
        patched.setattr(FolderLocation, "create", create_while_others_pin_and_collect)
        with pytest.raises(UsageError, match="model:v0 is pinned"):
            catalog.delete(version)
    assert catalog.versions("p", "model") == [version]
    assert catalog.pinned("p", "model") == {0}
    assert [catalog.blobs.read(file.sha256) for file in catalog.files(version)] == [b"1", b"2"]


def test_a_version_whose_list_of_files_is_damaged_can_be_deleted(catalog: Catalog) -> None:
    version = publish(catalog, "a")
    Path(catalog.blobs.place(version.manifest)).write_bytes(b"damaged")
    catalog.delete(version)
    assert catalog.versions("p", "model") == []


def test_a_name_has_one_type_in_a_project(catalog: Catalog) -> None:
    publish(catalog, "a")
    with pytest.raises(UsageError, match="'model' of project 'p' is of type 'model'.*'dataset'"):
        publish(catalog, "b", type="dataset")
    assert publish(catalog, "b", type="dataset", project="q").number == 0


@pytest.mark.parametrize(
    "field", [{"name": "a/b"}, {"name": ""}, {"type": "a:b"}, {"type": ""}, {"project": ""}]
)
def test_what_cannot_be_a_name_makes_no_version(catalog: Catalog, field: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        publish(catalog, "a", **field)
    assert catalog.collections() == []


@pytest.mark.parametrize("alias", ["v3", "v007", "a:b", "a/b", "", " ", "x" * 129, "a\nb"])
def test_what_cannot_be_an_alias_is_refused_before_anything_is_made(catalog: Catalog, alias: str) -> None:
    with pytest.raises(UsageError):
        publish(catalog, "a", aliases=(alias,))
    assert catalog.collections() == []
    version = publish(catalog, "a")
    with pytest.raises(UsageError):
        catalog.set_alias(version, alias)


def test_metadata_that_is_no_json_data_makes_no_version(catalog: Catalog) -> None:
    with pytest.raises(UsageError, match="artifact 'model': its metadata is no JSON data"):
        publish(catalog, "a", metadata={"x": object()})
    assert catalog.collections() == []


@pytest.mark.parametrize("ref", ["m", "m:latest", "m:v0", "m:best", "p/m", "p/m:v0", "entity/p/m:best"])
def test_a_version_is_found_by_what_it_is_called(catalog: Catalog, ref: str) -> None:
    version = publish(catalog, "a", name="m", aliases=("best",))
    assert catalog.find(ref) == version
    assert catalog.find(ref, "p") == version


@pytest.mark.parametrize("ref", ["", ":v0", "m:", "/m", "p/", "a/b/c/d", "p//m"])
def test_what_is_no_reference_is_refused(catalog: Catalog, ref: str) -> None:
    with pytest.raises(UsageError, match="names no artifact"):
        catalog.find(ref)


def test_names_that_no_file_system_has_are_names(catalog: Catalog) -> None:
    made = [
        publish(catalog, "a", name="CON", project="Ü b"),
        publish(catalog, "a", name="con", project="ü b", aliases=("Größe", "größe")),
        publish(catalog, "a", name="..", project=".."),
    ]
    assert [version.number for version in made] == [0, 0, 0]
    assert [(each.project, each.name) for each in catalog.collections()] == [
        ("..", ".."),
        ("Ü b", "CON"),
        ("ü b", "con"),
    ]
    assert catalog.find("con").project == "ü b"
    assert catalog.find("..").project == ".."
    assert catalog.aliases("ü b", "con") == {"latest": 0, "Größe": 0, "größe": 0}
    folder = catalog.location.folder
    assert folder is not None
    assert {path.name for path in folder.parent.iterdir()} >= {folder.name}
    assert {path.name for path in folder.iterdir()} <= {"artifacts", "blobs", "claims", "incoming"}


def test_a_name_in_several_projects_must_say_which(catalog: Catalog) -> None:
    publish(catalog, "a", project="vision")
    version = publish(catalog, "a", project="speech")
    with pytest.raises(AmbiguousArtifactError, match=r"projects speech, vision have an artifact 'model'"):
        catalog.find("model")
    assert catalog.find("speech/model") == catalog.find("model", "speech") == version
    assert catalog.find("speech/model", "vision") == version
    catalog.delete(version)
    assert catalog.find("model").project == "vision"


def test_what_is_not_there_is_answered_with_what_is(catalog: Catalog) -> None:
    with pytest.raises(ArtifactNotFoundError, match="^there is no artifact 'model'$"):
        catalog.find("model")
    for text in "abcdefg":
        publish(catalog, text, aliases=("best",))
    publish(catalog, "a", name="data")
    with pytest.raises(
        ArtifactNotFoundError,
        match=r"no version or alias 'v9'; there are v6, v5, v4, v3, v2 and 2 more, and ",
    ):
        catalog.find("model:v9")
    with pytest.raises(
        ArtifactNotFoundError, match=r"'bets'; did you mean 'best'\?; there are .*, and latest, best$"
    ):
        catalog.find("model:bets")
    with pytest.raises(ArtifactNotFoundError, match=r"no artifact 'modle'; did you mean 'model'\?"):
        catalog.find("modle")
    with pytest.raises(
        ArtifactNotFoundError, match=r"no artifact 'x' in project 'p'; there are data, model$"
    ):
        catalog.find("x", "p")
    with pytest.raises(
        ArtifactNotFoundError, match=r"'model' in project 'q', but in p: write 'project/model'"
    ):
        catalog.find("model", "q")


def test_collections_say_type_latest_and_count(catalog: Catalog) -> None:
    for text in "aba":
        publish(catalog, text)
    publish(catalog, "a", name="data", type="dataset", project="q")
    assert [
        (each.project, each.name, each.type, each.latest.label, each.count) for each in catalog.collections()
    ] == [
        ("p", "model", "model", "model:v0", 2),
        ("q", "data", "dataset", "data:v0", 1),
    ]
    assert [each.name for each in catalog.collections("q")] == ["data"]
    assert catalog.collections("none") == []


def test_runs_that_used_a_version_come_in_the_order_of_their_first_use(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish(catalog, "a")
    times = iter([5.0, 3.0, 1.0])
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: next(times))
        for run_id in ("b", "Ä", "b"):
            catalog.note_use(version, run_id)
    assert catalog.users(version) == ["Ä", "b"]
    assert catalog.users(publish(catalog, "b")) == []


# Damage

DAMAGES = {
    "half": b'{"format": 1, "project": "p", "na',
    "no object": b"[1]",
    "deep": b"[" * 100_000,
    "no text": b"\xff\xfe",
    "no format": b"{}",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_version_is_named_and_the_others_stay(
    catalog: Catalog, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for text in "abc":
        publish(catalog, text)
    catalog = Catalog(catalog.location)
    version_path(catalog, 1).write_bytes(damage)
    with pytest.raises(CorruptArtifactError, match=r"v1\.json is damaged"):
        catalog.find("model:v1")
    assert [version.number for version in catalog.versions("p", "model")] == [0, 2]
    assert [version.number for version in catalog.versions("p", "model")] == [0, 2]
    assert len(caplog.records) == 1
    assert "v1.json" in caplog.text
    assert catalog.find("model").number == 2
    assert publish(catalog, "d").number == 3
    with pytest.raises(CorruptArtifactError, match=r"v1\.json is damaged"):
        list(catalog.all())
    version_path(catalog, 3).write_bytes(damage)
    assert [each.latest.number for each in Catalog(catalog.location).collections()] == [2]


def test_a_damaged_version_that_latest_names_is_left_out_like_any_other(catalog: Catalog) -> None:
    for text in "aba":
        publish(catalog, text)
    catalog = Catalog(catalog.location)
    version_path(catalog, 0).write_bytes(b"{")
    assert [(each.latest.number, each.count) for each in catalog.collections()] == [(1, 2)]
    assert catalog.aliases("p", "model") == {"latest": 1}
    with pytest.raises(CorruptArtifactError, match=r"v0\.json is damaged"):
        catalog.find("model")


def test_a_version_whose_file_is_empty_is_not_there_yet(catalog: Catalog) -> None:
    """Without hard links a file is empty for a moment; for ever, if its process is killed just then."""
    for text in "ab":
        publish(catalog, text)
    version_path(catalog, 2).touch()
    assert catalog.find("model").number == 1
    assert [version.number for version in catalog.versions("p", "model")] == [0, 1]
    assert [each.latest.number for each in catalog.collections()] == [1]
    assert publish(catalog, "b").number == 1
    assert publish(catalog, "c").number == 3
    with pytest.raises(CorruptArtifactError, match=r"v2\.json is damaged: it is empty"):
        list(catalog.all())


WRONG_FIELDS: dict[str, list[object]] = {
    "project": ["q", "", "../p", 1, None],
    "name": ["other", "../model", "", 1],
    "type": [1, None],
    "version": [0, -1, True, "1", 1.0, None],
    "digest": ["", "x" * 64, "../" * 21 + "x", "A" * 64, None],
    "files": ["", "x" * 64, f"{'a' * 63}/", None],
    "metadata": [[], None, 1],
    "created_at": ["now", None, float("nan"), True, 10**400],
    "description": [1],
    "run": [1],
    "size": [-1, None],
    "file_count": [1.5, None],
    "format": ["1", None],
}


@pytest.mark.parametrize(
    ("field", "value"), [(key, value) for key, values in WRONG_FIELDS.items() for value in values]
)
def test_a_version_file_that_says_what_cannot_be_is_damaged(
    catalog: Catalog, field: str, value: object
) -> None:
    for text in "ab":
        publish(catalog, text)
    path = version_path(catalog, 1)
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(CorruptArtifactError, match=r"v1\.json is damaged"):
        Catalog(catalog.location).find("model:v1")


def test_a_version_of_a_newer_tracklayer_says_so(catalog: Catalog) -> None:
    for text in "ab":
        publish(catalog, text)
    version_path(catalog, 1).write_text('{"format": 2}')
    catalog = Catalog(catalog.location)
    with pytest.raises(StoreTooNewError, match=r"v1\.json was written by a newer tracklayer"):
        catalog.find("model")
    assert [version.number for version in catalog.versions("p", "model")] == [0]


OUTSIDE = [
    "/etc/passwd",
    "../x",
    "a/../../x",
    "..",
    ".",
    "",
    "a//b",
    "a/",
    "C:/x",
    "c:x",
    "\\\\host\\x",
    "a\\..\\b",
    "a\0",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_out_of_an_artifact_is_neither_written_nor_read(catalog: Catalog, path: str) -> None:
    assert not is_inner_path(path)
    with pytest.raises(UsageError):
        publish(catalog, {path: "x"})
    good = publish(catalog, "x")
    line = json.dumps({"path": path, "sha256": catalog.files(good)[0].sha256, "size": 1})
    forged, _ = catalog.blobs.add_bytes(f"{line}\n".encode())
    version_path(catalog, 0).write_text(version_path(catalog, 0).read_text().replace(good.manifest, forged))
    catalog = Catalog(catalog.location)
    with pytest.raises(CorruptArtifactError, match="is no path inside an artifact"):
        catalog.files(catalog.find("model"))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        '{"path": "weights"}',
        '{"path": "weights", "sha256": "../../x", "size": 1}',
        '{"path": "weights", "sha256": "", "size": 1}',
        '{"path": "weights", "sha256": "%s", "size": -1}' % ("0" * 64),
        '{"path": "weights", "sha256": "%s", "size": 1}' % ("0" * 64),
    ],
)
def test_a_list_of_files_that_is_not_the_versions_is_damaged(catalog: Catalog, line: str) -> None:
    good = publish(catalog, "x")
    forged, _ = catalog.blobs.add_bytes(line.encode())
    version_path(catalog, 0).write_text(version_path(catalog, 0).read_text().replace(good.manifest, forged))
    catalog = Catalog(catalog.location)
    with pytest.raises(CorruptArtifactError, match="model:v0"):
        catalog.files(catalog.find("model"))


@pytest.mark.parametrize("content", [b"{", b"{}", b'{"format": 1, "alias": "other", "version": 0}'])
@pytest.mark.parametrize("alias", ["best", "latest"])
def test_a_damaged_alias_is_named_and_the_others_stay(
    catalog: Catalog, alias: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for text in "aba":
        publish(catalog, text, aliases=("best", "good"))
    assert catalog.location.folder is not None
    (catalog.location.folder / f"artifacts/p/model/aliases/{alias}.json").write_bytes(content)
    with pytest.raises(CorruptArtifactError, match=rf"{alias}\.json is damaged"):
        catalog.find(f"model:{alias}")
    assert catalog.aliases("p", "model").keys() == {"latest", "best", "good"} - ({alias} - {"latest"})
    assert f"{alias}.json" in caplog.text
    assert [each.count for each in catalog.collections()] == [2]
    catalog.set_alias(catalog.find("model:v0"), alias)
    assert catalog.find(f"model:{alias}").number == 0


# With others at once

PUBLISHER = """
import sys
from pathlib import Path
from tracklayer.artifacts.catalog import Catalog
from tracklayer.artifacts.locations import FolderLocation
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact

folder, me, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
catalog = Catalog(FolderLocation(folder))
print("ready", flush=True)
sys.stdin.readline()
for i in range(count):
    text = f"all {i}" if i % 2 else f"{me} {i}"  # every other content is that of the other processes, too
    sha256, size = catalog.blobs.add_bytes(text.encode())
    file = ArtifactFile("f", sha256, size, "")
    artifact = LoggedArtifact("model", "model", (file,), project="p", time=1.0, aliases=("best", f"by-{me}"))
    version = catalog.publish(artifact, f"r{me}")
    print(version.number, version.digest, flush=True)
"""


@pytest.mark.slow
def test_eight_processes_at_once_get_numbers_without_gaps_and_equal_content_one(
    catalog: Catalog, tmp_path: Path
) -> None:
    count, processes = 12, []
    for me in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PUBLISHER), str(tmp_path), str(me), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [line.split() for process in processes for line in process.communicate(timeout=60)[0].splitlines()]
    assert [process.returncode for process in processes] == [0] * 8
    assert len(said) == 8 * count

    versions = catalog.versions("p", "model")
    different = 8 * count // 2 + count // 2
    assert [version.number for version in versions] == list(range(different))
    assert len({version.digest for version in versions}) == different
    assert {(int(number), digest) for number, digest in said} == {(v.number, v.digest) for v in versions}
    aliases = catalog.aliases("p", "model")
    assert aliases.keys() == {"latest", "best", *(f"by-{me}" for me in range(8))}
    assert set(aliases.values()) <= set(range(different))


@pytest.mark.slow
def test_threads_at_once_in_a_location_without_a_file_system_count_as_well(tmp_path: Path) -> None:
    location = remote_location(f"memory://{tmp_path.name}")

    def log(me: int) -> None:
        catalog = Catalog(location)
        for i in range(10):
            publish(catalog, f"all {i}" if i % 2 else f"{me} {i}", aliases=(f"by-{me}",))

    threads = [threading.Thread(target=log, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    catalog = Catalog(location)
    versions = catalog.versions("p", "model")
    assert [version.number for version in versions] == list(range(25))
    assert len({version.digest for version in versions}) == 25
    assert catalog.aliases("p", "model").keys() == {"latest", "by-0", "by-1", "by-2", "by-3"}
    assert [file.path for file in catalog.files(versions[0])] == ["weights"]


def test_a_version_that_is_deleted_while_its_content_is_logged_again_is_made_anew(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(catalog, "a")
    make_latest = catalog._make_latest

    def deleted_meanwhile(version: Version) -> None:
        make_latest(version)
        Catalog(catalog.location).delete(version)

    monkeypatch.setattr(catalog, "_make_latest", deleted_meanwhile)
    again = publish(catalog, "a", aliases=("best",))
    assert (first.number, again.number) == (0, 1)
    assert catalog.aliases("p", "model") == {"latest": 1, "best": 1}


def test_versions_are_read_while_the_interpreter_ends(tmp_path: Path) -> None:
    script = """
import atexit, sys
from pathlib import Path
from tracklayer.artifacts.catalog import Catalog
from tracklayer.artifacts.locations import FolderLocation
catalog = Catalog(FolderLocation(Path(sys.argv[1])))
atexit.register(lambda: print(len(catalog.versions("p", "model"))))
"""
    for text in "abc":
        publish(Catalog(FolderLocation(tmp_path)), text)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_what_fails_while_versions_are_read_ahead_is_raised(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in "ab":
        publish(catalog, text)
    read = FolderLocation.read

    def fail_in_other_threads(location: FolderLocation, name: str) -> bytes | None:
        if threading.current_thread() is not threading.main_thread():
            msg = "out of order"
            raise RuntimeError(msg)
        return read(location, name)

    monkeypatch.setattr(FolderLocation, "read", fail_in_other_threads)
    with pytest.raises(RuntimeError, match="out of order"):
        Catalog(catalog.location).versions("p", "model")


def test_thousands_of_versions_are_read_once_and_cost_a_listing_afterwards(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(catalog, "a")
    for number in range(1, 2000):
        version = Version(
            **{name: getattr(first, name) for name in Version.__slots__}
            | {"number": number, "digest": f"{number:064x}"}
        )
        version_path(catalog, number).write_bytes(version_data(version))
    catalog = Catalog(catalog.location)
    assert publish(catalog, "b").number == 2000
    reads: list[str] = []
    read = FolderLocation.read
    monkeypatch.setattr(FolderLocation, "read", lambda self, name: reads.append(name) or read(self, name))
    assert publish(catalog, "c").number == 2001
    assert catalog.find("model").number == 2001
    assert catalog.find("model:v1000").number == 1000
    assert len(catalog.versions("p", "model")) == 2002
    assert len([name for name in reads if "/versions/" in name]) <= 2  # the two that were made since


# Comparing


def test_two_versions_differ_in_files_and_metadata(catalog: Catalog) -> None:
    nan = float("nan")
    one = publish(
        catalog, {"a": "1", "b": "22", "c": "3"}, metadata={"lr": 1, "gone": 2, "nan": nan, "n": {"x": 1}}
    )
    other = publish(
        catalog, {"a": "1", "b": "333", "d": "3"}, metadata={"lr": True, "new": 3, "nan": nan, "n": {"x": 1}}
    )
    found = compare(one, other, catalog)
    assert found == ArtifactDiff(
        added=("d",),
        removed=("c",),
        changed=(ChangedFile("b", 2, 3),),
        metadata_added={"new": 3},
        metadata_removed={"gone": 2},
        metadata_changed={"lr": (1, True)},
    )
    assert found
    assert not compare(one, one, catalog)


# Names


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a", "A.b-c_1", "x" * 128, "x" * 129, "a/b", "a b", "ä", "", "a:b"])
def test_no_name_passes_that_the_wandb_client_refuses(name: str) -> None:
    validators = pytest.importorskip("wandb.sdk.artifacts._validators")

    def passes(check: Any, *arguments: Any) -> bool:
        try:
            check(*arguments)
        except ValueError:
            return False
        return True

    assert passes(validators.validate_artifact_name, name) or not passes(check_artifact_name, name)
    assert passes(validators.validate_aliases, [name]) or not passes(check_alias, name)
    assert passes(validators.validate_artifact_types, [name]) or not passes(check_artifact_type, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("artifact_type", "name"),
    [
        ("job", "x"),
        ("run_table", "run-x"),
        ("run_table", "x"),
        ("code", "x"),
        ("wandb-x", "x"),
    ],
)
def test_the_types_that_wandb_keeps_for_itself_are_refused_but_for_code(
    artifact_type: str, name: str
) -> None:
    validators = pytest.importorskip("wandb.sdk.artifacts._validators")
    try:
        validators.validate_artifact_type(artifact_type, name)
    except ValueError:
        with pytest.raises(UsageError, match="W&B's own"):
            check_artifact_type(artifact_type, name)
    else:
        assert check_artifact_type(artifact_type, name) == artifact_type
