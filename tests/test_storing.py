"""Storing files: whole or not at all, once, and what they held at one moment."""

from __future__ import annotations

import hashlib
import io
import os
import pty
import random
import secrets
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import pytest

from tracklayer.artifacts import storing
from tracklayer.artifacts.blobs import Blobs
from tracklayer.artifacts.claims import collecting, leftovers
from tracklayer.artifacts.locations import FolderLocation, Location, locate
from tracklayer.artifacts.records import ArtifactFile
from tracklayer.artifacts.storing import stored
from tracklayer.errors import FileChangedError, StoreError, UsageError


@pytest.fixture
def location(tmp_path: Path) -> FolderLocation:
    return FolderLocation(tmp_path / "store")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder for the caller's files."""
    folder = tmp_path / "sources"
    folder.mkdir()
    return folder


def store(
    files: Mapping[str, Path], location: Location, known: Mapping[str, ArtifactFile] | None = None
) -> dict[str, ArtifactFile]:
    """Store files, and return what was stored, by path."""
    with stored(files, location, known=known or {}, progress=None) as found:
        return {file.path: file for file in found}


def write(folder: Path, contents: Mapping[str, bytes]) -> dict[str, Path]:
    """Write files; return their paths by their names."""
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def assert_clean(location: FolderLocation) -> None:
    """Demand that nothing is left of what was under way, and all contents are what their names say."""
    assert list(location.staging().iterdir()) == []
    assert location.names("claims") == []
    for sha256, _ in Blobs(location).all():
        Blobs(location).check(sha256)


CONTENTS = {"b.bin": secrets.token_bytes(3_000_000), "a.txt": b"hello", "empty": b"", "again.txt": b"hello"}


# -- what is stored --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_files_are_there_and_needed_inside_the_block(place: str, tmp_path: Path, sources: Path) -> None:
    if place == "memory":
        pytest.importorskip("fsspec")
    url = f"memory://{secrets.token_hex(8)}" if place == "memory" else str(tmp_path / "store")
    location = locate(url, tmp_path)
    with stored(write(sources, CONTENTS), location, known={}, progress=None) as files:
        blobs = Blobs(location)
        assert [file.path for file in files] == sorted(CONTENTS)
        for file in files:
            content = CONTENTS[file.path]
            assert (file.sha256, file.size) == (hashlib.sha256(content).hexdigest(), len(content))
            assert file.source == location.place(f"blobs/{file.sha256[:2]}/{file.sha256}")
            assert blobs.read(file.sha256) == content
        claimed = [location.read(f"claims/{name}") or b"" for name in location.names("claims")]
        assert all(any(file.sha256.encode() in claim for claim in claimed) for file in files)
    assert len(list(blobs.all())) == 3  # two files have one content
    assert location.names("claims") == []
    with collecting(location) as needed:
        assert needed.claimed == set()


def test_the_files_are_the_callers_again(location: FolderLocation, sources: Path) -> None:
    files = store(write(sources, CONTENTS), location)
    for name in CONTENTS:
        with (sources / name).open("r+b") as file:
            file.write(b"overwritten in place")
    assert {name: Blobs(location).read(file.sha256) for name, file in files.items()} == CONTENTS
    assert_clean(location)


def test_what_is_known_is_not_copied_again(location: FolderLocation, sources: Path) -> None:
    paths = write(sources, CONTENTS)
    known = store(paths, location)
    blob = Path(Blobs(location).place(known["b.bin"].sha256))
    before = blob.stat()
    assert store(paths, location, known) == known
    assert blob.stat().st_ino == before.st_ino
    assert_clean(location)


def test_a_file_of_the_same_size_is_read_all_the_same(location: FolderLocation, sources: Path) -> None:
    known = store(write(sources, CONTENTS), location)
    changed = store(write(sources, {**CONTENTS, "a.txt": b"jello"}), location, known)
    assert Blobs(location).read(changed["a.txt"].sha256) == b"jello"
    assert {**changed, "a.txt": known["a.txt"]} == known


def test_what_was_known_and_is_gone_is_copied_again(location: FolderLocation, sources: Path) -> None:
    paths = write(sources, CONTENTS)
    known = store(paths, location)
    for name in ("b.bin", "a.txt"):
        Blobs(location).delete(known[name].sha256)
    assert store(paths, location, known) == known
    assert Blobs(location).read(known["b.bin"].sha256) == CONTENTS["b.bin"]
    assert_clean(location)


def test_damaged_content_is_repaired_by_storing_it_again(location: FolderLocation, sources: Path) -> None:
    paths = write(sources, CONTENTS)
    known = store(paths, location)
    Path(Blobs(location).place(known["a.txt"].sha256)).write_bytes(b"jello")
    store(paths, location)
    assert_clean(location)


def test_many_small_files_are_stored(location: FolderLocation, sources: Path) -> None:
    contents = {f"{number}.txt": str(number // 2).encode() for number in range(300)}
    files = store(write(sources, contents), location)
    assert {name: Blobs(location).read(file.sha256) for name, file in files.items()} == contents
    assert len(list(Blobs(location).all())) == 150
    assert_clean(location)


def test_no_files_are_stored_too(location: FolderLocation) -> None:
    assert store({}, location) == {}
    assert_clean(location)


def test_files_are_stored_while_the_interpreter_ends(location: FolderLocation, sources: Path) -> None:
    """Where no thread can be started any more."""
    write(sources, CONTENTS)
    script = f"""
        import atexit
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path
        from tracklayer.artifacts.locations import FolderLocation
        from tracklayer.artifacts.storing import stored

        @atexit.register
        def store():
            files = {{path.name: path for path in Path({str(sources)!r}).iterdir()}}
            location = FolderLocation(Path({location.url!r}))
            with stored(files, location, known={{}}, progress="storing") as found:
                print(len(found))
        """
    done = run(script)
    assert (done.stdout, done.stderr) == ("4\n", "")
    assert len(list(Blobs(location).all())) == 3
    assert_clean(location)


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# -- the caller's files ----------------------------------------------------------------------------------


def test_a_missing_file_is_the_callers_error_and_nothing_is_stored(
    location: FolderLocation, sources: Path
) -> None:
    files = {**write(sources, CONTENTS), "missing": sources / "missing"}
    with pytest.raises(FileNotFoundError, match="missing") as error:
        store(files, location)
    assert not isinstance(error.value, StoreError)
    assert list(Blobs(location).all()) == []
    assert_clean(location)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that nobody can read, root included")
def test_a_file_that_cannot_be_read_is_the_callers_error(location: FolderLocation, sources: Path) -> None:
    files = {**write(sources, CONTENTS), "unreadable": Path("/proc/self/mem")}
    with pytest.raises(OSError, match="Input/output error") as error:
        store(files, location)
    assert not isinstance(error.value, StoreError)
    assert list(Blobs(location).all()) == []
    assert_clean(location)


def test_what_is_no_regular_file_is_refused(location: FolderLocation, sources: Path) -> None:
    os.mkfifo(sources / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(sources / "socket"))
        for source in (sources / "fifo", sources / "socket", Path(os.devnull), sources):
            with pytest.raises(UsageError, match=f"'inner/path': {source} is no regular file"):
                store({"inner/path": source}, location)
    assert_clean(location)


@contextmanager
def writer(body: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Have another process write; it says `ready` first."""
    script = "import os, sys, time\nsay = lambda: print('ready', flush=True)\n" + textwrap.dedent(body)
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_file_that_keeps_changing_is_refused(location: FolderLocation, sources: Path) -> None:
    files = write(sources, {"calm.txt": b"calm", "log.txt": bytes(900_000)})  # too small for a reflink
    rewrite = """
        file = os.open(sys.argv[1], os.O_WRONLY)
        say()
        while True:
            os.pwrite(file, os.urandom(1000), 450_000)
        """
    refused = pytest.raises(FileChangedError, match=r"log\.txt changed each of the 3 times")
    with writer(rewrite, str(files["log.txt"])), refused:
        store(files, location)
    assert list(Blobs(location).all()) == []
    assert_clean(location)


@pytest.mark.slow
def test_what_is_stored_is_never_half_of_one_write_and_half_of_the_next(
    location: FolderLocation, sources: Path
) -> None:
    files = write(sources, {"alternating": b"a" * 900_000})
    rewrite = """
        file = os.open(sys.argv[1], os.O_WRONLY)
        say()
        for number in range(100_000):
            os.pwrite(file, b"ab"[number % 2:][:1] * 900_000, 0)
            time.sleep(number % 5 / 25)
        """
    kept = 0
    with writer(rewrite, str(files["alternating"])):
        for _ in range(20):
            with suppress(FileChangedError):
                content = Blobs(location).read(store(files, location)["alternating"].sha256)
                assert content in {b"a" * 900_000, b"b" * 900_000}
                kept += 1
    assert kept
    assert_clean(location)


@pytest.mark.slow
def test_a_file_that_comes_and_goes_is_stored_whole_or_missing(
    location: FolderLocation, sources: Path
) -> None:
    content = b"x" * 100_000
    come_and_go = """
        say()
        while True:
            with open(sys.argv[1] + "~", "wb") as file:
                file.write(b"x" * 100_000)
            os.rename(sys.argv[1] + "~", sys.argv[1])
            time.sleep(0.002)
            os.unlink(sys.argv[1])
        """
    ends: set[type] = set()
    with writer(come_and_go, str(sources / "ghost")):
        for _ in range(20):
            try:
                found = store({"ghost": sources / "ghost"}, location)
                assert Blobs(location).read(found["ghost"].sha256) == content
                ends.add(dict)
            except (FileNotFoundError, FileChangedError) as error:
                ends.add(type(error))
    assert ends & {FileNotFoundError, FileChangedError}
    assert_clean(location)


# -- the location's troubles -----------------------------------------------------------------------------


def test_a_store_that_cannot_be_written_is_no_error_of_the_callers_files(
    location: FolderLocation, sources: Path
) -> None:
    location.staging()
    Path(location.url, "blobs").touch()
    with pytest.raises(StoreError, match="cannot write"):
        store(write(sources, CONTENTS), location)
    assert list(location.staging().iterdir()) == []
    assert location.names("claims") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[FolderLocation]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tracklayer-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs to be allowed to mount a file system")
    try:
        yield FolderLocation(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stores_nothing_and_leaves_its_room_to_others(
    small_disk: FolderLocation, sources: Path
) -> None:
    files = write(sources, {f"{number}.bin": secrets.token_bytes(500_000) for number in range(6)})
    with pytest.raises(StoreError, match="No space left on device"):
        store(files, small_disk)
    assert list(Blobs(small_disk).all()) == []
    assert_clean(small_disk)
    assert len(store({"0.bin": files["0.bin"]}, small_disk)) == 1


@pytest.mark.parametrize("already", [0, 1])
def test_what_goes_wrong_is_told_where_the_system_gives_no_more_threads(
    location: FolderLocation, sources: Path, monkeypatch: pytest.MonkeyPatch, already: int
) -> None:
    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("tracklayer-storing"):
            if len(started) == already:
                msg = "can't start new thread"
                raise RuntimeError(msg)
            started.append(thread)
        start_one(thread)

    def content(reading: storing._Reading, state: storing._State) -> storing._Taken:
        if reading.path == broken:
            raise PermissionError(reading.path)
        return read(reading, state)

    started, start_one, read = list[threading.Thread](), threading.Thread.start, storing._content
    files = write(sources, {f"{number}": b"x" * (100 - number) for number in range(20)})
    broken = "0"  # the largest, which the first thread takes
    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(storing, "_content", content)
    with pytest.raises(PermissionError):
        store(files, location)
    assert list(Blobs(location).all()) == []
    broken = ""
    started.clear()
    assert store(files, location).keys() == files.keys()
    assert_clean(location)


# -- killed at any instant -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_kill_leaves_whole_contents_and_what_it_left_is_found(
    location: FolderLocation, sources: Path
) -> None:
    chance = random.Random(5)
    contents = {f"{number}.bin": secrets.token_bytes(1_500_000) for number in range(8)}
    contents |= {f"{number}.txt": str(number).encode() for number in range(100)}
    write(sources, contents)
    script = """
        from pathlib import Path
        from tracklayer.artifacts.locations import FolderLocation
        from tracklayer.artifacts.storing import stored
        say()
        files = {path.name: path for path in Path(sys.argv[1]).iterdir()}
        with stored(files, FolderLocation(Path(sys.argv[2])), known={}, progress=None):
            pass
        """
    littered = 0
    for _ in range(12):
        with writer(script, str(sources), location.url) as process:
            time.sleep(chance.uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
        for sha256, _ in Blobs(location).all():
            Blobs(location).check(sha256)
        littered += bool(leftovers(location))
    assert littered
    left = leftovers(location)
    there = {location.place(f"claims/{name}") for name in location.names("claims")}
    there |= {str(path) for path in location.staging().iterdir()}
    assert {one if isinstance(one, Path) else Path(location.place(one)) for one in left} == set(
        map(Path, there)
    )
    files = store({name: sources / name for name in contents}, location)
    assert {name: Blobs(location).read(file.sha256) for name, file in files.items()} == contents


# -- the progress line -----------------------------------------------------------------------------------


def slow_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each piece take as long as with a slow disk."""
    read = storing.sha256_of
    monkeypatch.setattr(storing._Line, "SECONDS", 0.02)
    monkeypatch.setattr(storing, "sha256_of", lambda file, count: (time.sleep(0.1), read(file, count))[1])


def test_storing_that_takes_long_says_how_far_it_is(
    location: FolderLocation,
    sources: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = write(sources, {"a.bin": bytes(2_000_000), "b.bin": bytes(2_000_000)})
    known = store(paths, location)
    monkeypatch.setattr(storing, "_QUIET_SECONDS", 0.03)
    slow_work(monkeypatch)
    with stored(paths, location, known=known, progress="storing artifact x"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("tracklayer: storing artifact x: ") for line in lines)
    assert all(line.endswith(" of 4 MB") for line in lines)


class Tee:
    """What a program may have put in the place of stderr."""

    def __init__(self) -> None:
        self.written = ""

    def write(self, text: str) -> None:
        self.written += text


def broken_pipe() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return io.TextIOWrapper(io.FileIO(writing, "w"), write_through=True)


def closed_file() -> TextIO:
    file = io.StringIO()
    file.close()
    return file


@pytest.mark.parametrize("stderr", [Tee, broken_pipe, closed_file])
def test_a_progress_line_that_cannot_be_written_harms_nothing(
    location: FolderLocation,
    sources: Path,
    monkeypatch: pytest.MonkeyPatch,
    stderr: Callable[[], Any],
) -> None:
    paths = write(sources, {"a.bin": bytes(2_000_000)})
    known = store(paths, location)
    monkeypatch.setattr(storing, "_QUIET_SECONDS", 0.03)
    slow_work(monkeypatch)
    monkeypatch.setattr(sys, "stderr", place := stderr())
    with stored(paths, location, known=known, progress="storing artifact x"):
        pass
    if isinstance(place, Tee):
        assert place.written.startswith("tracklayer: storing artifact x: ")
    else:
        with suppress(OSError):  # of the broken pipe
            place.close()


def test_storing_that_is_soon_done_says_nothing(
    location: FolderLocation, sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stored(write(sources, CONTENTS), location, known={}, progress="storing artifact x"):
        pass
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_one_line_and_none_in_the_end(
    location: FolderLocation, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write(sources, {"a.bin": bytes(2_000_000), "b.bin": bytes(2_000_000)})
    known = store(paths, location)
    monkeypatch.setattr(storing, "_IMPATIENCE", 0.03)
    slow_work(monkeypatch)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with stored(paths, location, known=known, progress="storing artifact x"):
            pass
        shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "\rtracklayer: storing artifact x: " in shown
    assert "\n" not in shown
    assert shown.endswith("\r\x1b[K")
