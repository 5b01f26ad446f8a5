"""What `gc` takes, and what it never takes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracklayer.artifacts.catalog import Catalog, Version
from tracklayer.artifacts.claims import claimed
from tracklayer.artifacts.collecting import Collected, collect
from tracklayer.artifacts.locations import FolderLocation
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.errors import StoreError


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(FolderLocation(tmp_path))


def publish(catalog: Catalog, *texts: str, name: str = "model") -> Version:
    files: list[ArtifactFile] = []
    for text in texts:
        sha256, size = catalog.blobs.add_bytes(text.encode())
        files.append(ArtifactFile(f"file {text}", sha256, size, catalog.blobs.place(sha256)))
    return catalog.publish(LoggedArtifact(name, "model", tuple(files), project="p", time=1.0), None)


def contents(catalog: Catalog) -> set[str]:
    return {sha256 for sha256, _ in catalog.blobs.all()}


def needed(catalog: Catalog, *versions: Version) -> set[str]:
    files = {file.sha256 for version in versions for file in catalog.files(version)}
    return files | {version.manifest for version in versions}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_only_deleted_versions_needed_is_taken(catalog: Catalog) -> None:
    first = publish(catalog, "aaa", "bb")
    second = publish(catalog, "bb", "c")
    other = publish(catalog, "c", name="other")
    catalog.delete(first)
    gone = contents(catalog) - needed(catalog, second, other)
    sizes = dict(catalog.blobs.all())
    assert len(gone) == 2  # "aaa", and the list of the first one's files
    assert collect(catalog, [], dry_run=False) == Collected(2, sum(sizes[sha256] for sha256 in gone), 0)
    assert contents(catalog) == needed(catalog, second, other)
    assert collect(catalog, [], dry_run=False) == Collected(0, 0, 0)


def test_a_dry_run_says_the_same_and_changes_nothing(catalog: Catalog, tmp_path: Path) -> None:
    catalog.delete(publish(catalog, "a"))
    leave_claim_of_a_dead_process(tmp_path)
    before = everything(tmp_path)
    would = collect(catalog, [], dry_run=True)
    assert everything(tmp_path) == before
    assert would == collect(catalog, [], dry_run=False)
    assert (would.contents, would.leftovers) == (2, 1)


def test_a_dry_run_makes_nobody_wait_and_waits_for_nobody(catalog: Catalog) -> None:
    def meanwhile() -> Iterator[str]:
        assert catalog.location.names("claims") == []
        yield from ()

    def planned_meanwhile() -> Iterator[str]:
        assert collect(Catalog(catalog.location), [], dry_run=True).contents == 1
        yield from ()

    catalog.blobs.add_bytes(b"a")
    assert collect(catalog, meanwhile(), dry_run=True).contents == 1
    assert collect(catalog, planned_meanwhile(), dry_run=False).contents == 1


def test_a_collection_that_others_may_not_wait_for_any_more_ends(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile() -> Iterator[str]:
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 40)  # as after a machine slept
        yield from ()

    content, _ = catalog.blobs.add_bytes(b"a")
    with pytest.raises(StoreError, match="run it again"):
        collect(catalog, meanwhile(), dry_run=False)
    assert contents(catalog) == {content}


def test_what_runs_need_stays(catalog: Catalog) -> None:
    picture, _ = catalog.blobs.add_bytes(b"a picture")
    catalog.blobs.add_bytes(b"another")
    assert collect(catalog, [picture, "0" * 64], dry_run=False).contents == 1
    assert contents(catalog) == {picture}


def test_what_a_live_process_claims_stays_until_its_claim_ends(catalog: Catalog) -> None:
    sha256, size = catalog.blobs.add_bytes(b"to be published")
    with claimed(catalog.location, [sha256]):
        assert collect(catalog, [], dry_run=False) == Collected(0, 0, 0)
    assert collect(catalog, [], dry_run=False) == Collected(1, size, 0)


def test_a_pinned_version_and_one_with_an_alias_keep_their_contents(catalog: Catalog) -> None:
    pinned, named, last = (publish(catalog, text) for text in "abc")
    catalog.pin(pinned)
    catalog.set_alias(named, "best")
    collect(catalog, [], dry_run=False)
    assert contents(catalog) == needed(catalog, pinned, named, last)


def test_what_a_reference_names_is_not_kept_for_it(catalog: Catalog) -> None:
    sha256, _ = catalog.blobs.add_bytes(b"a")
    reference = ArtifactFile("far", sha256, 1, "s3://b/k", "s3://b/k")
    version = catalog.publish(LoggedArtifact("far", "data", (reference,), project="p"), None)
    assert collect(catalog, [], dry_run=False).contents == 1
    assert contents(catalog) == {version.manifest}


@pytest.mark.parametrize("damage", ["{", '{"format": 2}'])
def test_nothing_is_taken_where_a_version_cannot_be_read(
    catalog: Catalog, tmp_path: Path, damage: str
) -> None:
    catalog.delete(publish(catalog, "a"))
    publish(catalog, "b")
    (tmp_path / "artifacts/p/model/versions/v1.json").write_text(damage)
    before = everything(tmp_path)
    with pytest.raises(StoreError, match=r"nothing was collected, .*v1\.json"):
        collect(Catalog(catalog.location), [], dry_run=False)
    assert everything(tmp_path) == before


def test_nothing_is_taken_where_a_list_of_files_is_damaged(catalog: Catalog, tmp_path: Path) -> None:
    version = publish(catalog, "b")
    catalog.delete(publish(catalog, "c"))
    Path(catalog.blobs.place(version.manifest)).write_bytes(b"")
    before = everything(tmp_path)
    with pytest.raises(StoreError, match="nothing was collected"):
        collect(catalog, [], dry_run=False)
    assert everything(tmp_path) == before


def test_nothing_is_taken_where_what_runs_need_cannot_be_read(catalog: Catalog, tmp_path: Path) -> None:
    catalog.delete(publish(catalog, "c"))
    before = everything(tmp_path)

    def unreadable() -> Iterator[str]:
        yield "0" * 64
        msg = "run r is damaged"
        raise StoreError(msg)

    with pytest.raises(StoreError, match="run r is damaged"):
        collect(catalog, unreadable(), dry_run=False)
    assert everything(tmp_path) == before


def test_only_one_collects_at_a_time(catalog: Catalog) -> None:
    def meanwhile() -> Iterator[str]:
        with pytest.raises(StoreError):
            collect(Catalog(catalog.location), [], dry_run=False)
        yield from ()

    catalog.blobs.add_bytes(b"a")
    assert collect(catalog, meanwhile(), dry_run=False).contents == 1


def test_who_stores_while_a_collection_is_at_work_waits_and_loses_nothing(catalog: Catalog) -> None:
    content, _ = catalog.blobs.add_bytes(b"a")  # garbage, which a new version is about to need
    made: list[Version] = []

    def log() -> None:
        with claimed(catalog.location, [content]):
            made.append(publish(catalog, "a"))

    logging = threading.Thread(target=log)

    def meanwhile() -> Iterator[str]:
        logging.start()
        logging.join(0.3)
        assert logging.is_alive()
        yield from ()

    assert collect(catalog, meanwhile(), dry_run=False).contents == 1
    logging.join(10)
    catalog.blobs.check(content)
    assert contents(catalog) == needed(catalog, made[0])


def test_what_killed_processes_left_is_removed(catalog: Catalog, tmp_path: Path) -> None:
    version = publish(catalog, "a")
    leave_claim_of_a_dead_process(tmp_path)
    assert collect(catalog, [], dry_run=False) == Collected(0, 0, 1)
    assert not list((tmp_path / "claims").iterdir())
    assert contents(catalog) == needed(catalog, version)


def test_files_that_were_half_written_are_removed_when_nobody_writes_them_any_more(
    catalog: Catalog, tmp_path: Path
) -> None:
    publish(catalog, "a")
    old, new, others = (
        tmp_path / "artifacts/p/model/versions" / name
        for name in (".0123456789abcdef", ".fedcba9876543210", ".DS_Store")
    )
    for path in (old, new, others):
        path.write_bytes(b"{")
    for path in (old, others):
        os.utime(path, (1.0, 1.0))
    assert collect(catalog, [], dry_run=True).leftovers == 1
    assert collect(catalog, [], dry_run=False).leftovers == 1
    assert (old.exists(), new.exists(), others.exists()) == (False, True, True)


def test_a_version_that_was_only_reserved_when_its_process_was_killed_stops_no_collection(
    catalog: Catalog, tmp_path: Path
) -> None:
    version = publish(catalog, "a")
    reserved = tmp_path / "artifacts/p/model/versions/v1.json"  # as without hard links
    reserved.touch()
    with pytest.raises(StoreError, match="nothing was collected"):  # it may just be coming
        collect(Catalog(catalog.location), [], dry_run=False)
    os.utime(reserved, (1.0, 1.0))
    assert collect(Catalog(catalog.location), [], dry_run=False).leftovers == 1
    assert not reserved.exists()
    assert contents(catalog) == needed(catalog, version)


def leave_claim_of_a_dead_process(folder: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from tracklayer.artifacts.claims import claimed
from tracklayer.artifacts.locations import FolderLocation
with claimed(FolderLocation(Path(sys.argv[1])), ["0" * 64]):
    os.kill(os.getpid(), 9)
"""
    process = subprocess.run([sys.executable, "-c", script, str(folder)], check=False)
    assert process.returncode != 0
    assert any((folder / "claims").iterdir())
