"""Contents by their hash: stored once, checked when they are read, whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from tracklayer.artifacts import claims
from tracklayer.artifacts.blobs import Blobs
from tracklayer.artifacts.claims import claimed, collecting, leftovers, remove_leftover, staged
from tracklayer.artifacts.locations import FolderLocation, Location, locate
from tracklayer.artifacts.reflink import reflink
from tracklayer.errors import CorruptArtifactError, StoreError
from tracklayer.processes import this_process

HELLO = hashlib.sha256(b"hello").hexdigest()


@pytest.fixture(params=["folder", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "memory":
        pytest.importorskip("fsspec")
        return locate(f"memory://{secrets.token_hex(8)}", tmp_path)
    return FolderLocation(tmp_path / "store")


@pytest.fixture
def blobs(location: Location) -> Blobs:
    return Blobs(location)


@pytest.fixture
def folder(tmp_path: Path) -> FolderLocation:
    return FolderLocation(tmp_path / "store")


# -- contents --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 10_000])
def test_content_reads_back_as_it_was(blobs: Blobs, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    assert blobs.add(tmp_path / "file") == (sha256, len(content))
    assert blobs.add_bytes(content) == (sha256, len(content))
    assert list(blobs.all()) == [(sha256, len(content))]
    assert blobs.has(sha256)
    assert blobs.read(sha256) == content
    blobs.check(sha256)
    with blobs.open(sha256) as file:
        assert file.read() == content
    blobs.fetch(sha256, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "store") == ["copy", "file"]


def test_content_that_was_removed_is_gone(blobs: Blobs, tmp_path: Path) -> None:
    blobs.add_bytes(b"hello")
    blobs.delete(HELLO)
    blobs.delete(HELLO)
    assert list(blobs.all()) == []
    for use in (blobs.open, blobs.read, blobs.check, lambda sha256: blobs.fetch(sha256, tmp_path / "copy")):
        with pytest.raises(CorruptArtifactError, match=f"{HELLO} is gone"):
            use(HELLO)
    assert not (tmp_path / "copy").exists()


def test_damaged_content_is_never_handed_out(location: Location, tmp_path: Path) -> None:
    blobs = Blobs(location)
    blobs.add_bytes(b"hello")
    location.replace(f"blobs/{HELLO[:2]}/{HELLO}", b"jello")
    (tmp_path / "copy").write_bytes(b"as before")
    for use in (blobs.read, blobs.check, lambda sha256: blobs.fetch(sha256, tmp_path / "copy")):
        with pytest.raises(CorruptArtifactError, match=f"{HELLO} is damaged"):
            use(HELLO)
    assert (tmp_path / "copy").read_bytes() == b"as before"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_nothing_stays_behind_where_content_was_staged(folder: FolderLocation, tmp_path: Path) -> None:
    Blobs(folder).add_bytes(b"hello")
    with pytest.raises(FileNotFoundError):
        Blobs(folder).add(tmp_path / "missing")
    assert list(folder.staging().iterdir()) == []


def test_a_content_lies_under_its_hash(location: Location) -> None:
    assert Blobs(location).place(HELLO) == f"{location.url}/blobs/{HELLO[:2]}/{HELLO}"


def test_what_somebody_else_put_among_the_contents_is_none(folder: FolderLocation) -> None:
    Blobs(folder).add_bytes(b"hello")
    for name in ("README", f"{HELLO[:2]}/{HELLO}.part", f"00/{HELLO}", f"{HELLO[:2]}/{HELLO.upper()}"):
        folder.create(f"blobs/{name}", b"hello")
    assert list(Blobs(folder).all()) == [(HELLO, 5)]


def test_others_may_read_what_was_stored(folder: FolderLocation, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    Blobs(folder).add_bytes(b"hello")
    assert Path(Blobs(folder).place(HELLO)).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_target_that_cannot_be_written_is_no_trouble_of_the_store(blobs: Blobs, tmp_path: Path) -> None:
    blobs.add_bytes(b"hello")
    with pytest.raises(FileNotFoundError) as error:
        blobs.fetch(HELLO, tmp_path / "no folder" / "copy")
    assert not isinstance(error.value, StoreError)


# -- claims ----------------------------------------------------------------------------------------------


def test_what_is_claimed_is_told_to_who_collects_until_the_block_ends(location: Location) -> None:
    with claimed(location, ["a", "b"]), claimed(location, ["b", "c"]), collecting(location) as needed:
        assert needed.claimed == {"a", "b", "c"}
    with collecting(location) as needed:
        assert needed.claimed == set()
    assert location.names("claims") == []


def test_a_claim_waits_for_who_collects(location: Location) -> None:
    order: list[str] = []

    def claim() -> None:
        with claimed(location, ["a"]):
            order.append("claimed")

    with ThreadPoolExecutor(1) as pool:
        with collecting(location):
            claiming = pool.submit(claim)
            time.sleep(0.15)
            order.append("collected")
        claiming.result()
    assert order == ["collected", "claimed"]


def test_two_do_not_collect_at_once(location: Location) -> None:
    refused = pytest.raises(StoreError, match=f"process {os.getpid()} on .* collects here")
    with collecting(location), refused, collecting(location):
        pytest.fail("it must not come in")
    with collecting(location):
        pass


def test_who_waits_for_a_collection_that_does_not_end_gives_up(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_PATIENCE", 0.1)
    with collecting(location), pytest.raises(StoreError, match="does not end"), claimed(location, ["a"]):
        pytest.fail("it must not come in")
    assert location.names("claims") == []


HOLD = """
import sys
from pathlib import Path
from tracklayer.artifacts.claims import claimed, collecting, staged
from tracklayer.artifacts.locations import FolderLocation
location = FolderLocation(Path(sys.argv[1]))
with staged(location) as folder, claimed(location, ["a"]):
    (folder / "half").write_bytes(bytes(1000))
    with collecting(location):
        print("ready", flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def holder(folder: FolderLocation) -> Iterator[subprocess.Popen[str]]:
    """Another process, which claims, stages and collects."""
    command = [sys.executable, "-c", HOLD, folder.url]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_what_a_live_process_holds_counts_and_what_a_killed_one_held_does_not(
    folder: FolderLocation, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(StoreError, match=f"process {holder.pid} on "), collecting(folder):
        pytest.fail("it must not come in")
    assert leftovers(folder) == []
    holder.kill()
    holder.wait()
    with collecting(folder) as needed:
        assert needed.claimed == set()
    left = leftovers(folder)
    assert len(left) == 3  # the claim, the collection's, and the staging folder
    for one in left:
        remove_leftover(folder, one)
    assert leftovers(folder) == []
    assert folder.names("claims") == []
    assert list(folder.staging().iterdir()) == []


@pytest.mark.parametrize(("age", "is_live"), [(0.0, True), (500.0, True), (700.0, False), (-5000.0, True)])
def test_a_claim_of_another_host_counts_as_long_as_it_is_refreshed(
    folder: FolderLocation, age: float, is_live: bool
) -> None:
    claim = {"host": "elsewhere", "pid": 1, "started_at": 0.0, "contents": ["a"]}
    folder.create("claims/x.json", json.dumps({**claim, "refreshed_at": time.time() - age}).encode())
    with collecting(folder) as needed:
        assert needed.claimed == ({"a"} if is_live else set())
    assert leftovers(folder) == ([] if is_live else ["claims/x.json"])


def test_staged_files_of_another_host_stay_as_long_as_they_are_written(folder: FolderLocation) -> None:
    other = folder.staging() / "tracklayer-1-0-0123456789abcdef-x"
    other.mkdir()
    (other / "half").touch()
    assert leftovers(folder) == []
    for path in (other / "half", other):
        os.utime(path, (time.time() - 700,) * 2)
    assert leftovers(folder) == [other]


def test_a_claim_is_refreshed_while_it_is_held(
    folder: FolderLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "REFRESH_SECONDS", 0.02)
    with claimed(folder, ["a"]):
        (name,) = folder.names("claims")
        first = folder.read(f"claims/{name}")
        deadline = time.monotonic() + 10
        while folder.read(f"claims/{name}") == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert folder.names("claims") == []


def test_a_claim_that_cannot_be_read_stops_a_collection_until_it_is_old(folder: FolderLocation) -> None:
    folder.create("claims/x.json", b'{"format": 2}')
    with pytest.raises(StoreError, match=r"x\.json is no claim.*delete the file"), collecting(folder):
        pytest.fail("it must not come in")
    os.utime(folder.place("claims/x.json"), (time.time() - 700,) * 2)
    with collecting(folder) as needed:
        assert needed.claimed == set()
    assert leftovers(folder) == ["claims/x.json"]


def test_a_staging_folder_is_touched_while_it_is_used(
    folder: FolderLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "REFRESH_SECONDS", 0.02)
    with staged(folder) as staging:
        (staging / "still").touch()
        os.utime(staging, (1.0, 1.0))
        deadline = time.monotonic() + 10
        while time.time() - staging.stat().st_mtime > 60:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not staging.exists()


def test_a_forked_child_leaves_its_parents_claim_and_staging_folder(folder: FolderLocation) -> None:
    script = """
import os, sys, warnings
from pathlib import Path
from tracklayer.artifacts.claims import claimed, staged
from tracklayer.artifacts.locations import FolderLocation
warnings.simplefilter("ignore")
location = FolderLocation(Path(sys.argv[1]))
parent = os.getpid()
with staged(location) as folder, claimed(location, ["a"]):
    if os.fork():
        assert os.wait()[1] == 0
        assert folder.exists() and len(location.names("claims")) == 1
assert folder.exists() == (os.getpid() != parent)
"""
    subprocess.run([sys.executable, "-c", script, folder.url], check=True, timeout=60)
    assert folder.names("claims") == []


def test_a_collection_on_another_host_is_waited_for_as_long_as_it_is_refreshed(
    folder: FolderLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a minute since it was seen to be refreshed, whatever its host's clock says."""
    clock, slow_clock = [1000.0], time.time() - 300
    claim = {"host": "elsewhere", "pid": 1, "started_at": 0.0, "contents": []}

    def refresh() -> None:
        said = json.dumps({**claim, "refreshed_at": slow_clock + len(clock)}).encode()
        folder.replace("claims/collecting-x.json", said)

    def sleep(_: float) -> None:
        clock.append(clock[-1] + 30)
        if len(clock) < 6:
            refresh()

    refresh()
    passing = SimpleNamespace(time=time.time, monotonic=lambda: clock[-1], sleep=sleep)
    monkeypatch.setattr(claims, "time", passing)
    with claimed(folder, ["a"]):
        assert clock[-1] == 1000 + 4 * 30 + 60
    with claimed(folder, ["a"]):  # and is not waited for again
        assert clock[-1] == 1000 + 4 * 30 + 60


def test_a_collection_that_others_may_not_wait_for_any_more_takes_nothing(
    folder: FolderLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting(folder) as collection:
        collection.check()
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 40)  # as after a machine slept
        with pytest.raises(StoreError, match=r"interrupted for \d+ s: run it again"):
            collection.check()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells its boots apart")
def test_two_machines_of_one_name_are_told_apart() -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert boot in this_process().host


@pytest.mark.slow
def test_content_is_never_lost_between_who_claims_and_who_collects(folder: FolderLocation) -> None:
    """What is found inside a claim is there until its end, whatever collectors do meanwhile."""
    blobs, done = Blobs(folder), threading.Event()

    def collect() -> int:
        rounds = 0
        while not done.is_set():
            with collecting(folder) as needed:
                for sha256, _ in list(blobs.all()):
                    if sha256 not in needed.claimed:
                        blobs.delete(sha256)
            rounds += 1
        return rounds

    def rely(_: int) -> None:
        with claimed(folder, [HELLO]):
            if not blobs.has(HELLO):
                blobs.add_bytes(b"hello")
            time.sleep(0.002)
            assert blobs.read(HELLO) == b"hello"

    with ThreadPoolExecutor(5) as pool:
        collector = pool.submit(collect)
        try:
            list(pool.map(rely, range(40)))
        finally:
            done.set()
        assert collector.result() > 1


# -- reflinks --------------------------------------------------------------------------------------------


def test_a_reflink_is_a_copy_that_does_not_change_with_the_original(tmp_path: Path) -> None:
    content = secrets.token_bytes(2_000_000)
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file:
        if not reflink(file.fileno(), tmp_path / "copy"):
            pytest.skip("the file system of the temporary folder has no reflinks")
    with (tmp_path / "file").open("r+b") as file:
        file.write(b"changed")
    assert (tmp_path / "copy").read_bytes() == content


def test_where_a_reflink_cannot_be_nothing_is_left(tmp_path: Path) -> None:
    with Path(os.devnull).open("rb") as file:
        assert not reflink(file.fileno(), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
