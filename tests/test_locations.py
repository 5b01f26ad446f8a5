"""Locations: a folder, memory, and a server that speaks S3, held to the same demands."""

from __future__ import annotations

import errno
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tracklayer.artifacts.credentials import holds_credentials
from tracklayer.artifacts.locations import FolderLocation, Location, locate
from tracklayer.artifacts.remote import RemoteLocation
from tracklayer.errors import StoreError, UsageError

Another = Callable[[], Location]
"""Makes one more `Location` of the same place, as another process would."""


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A server that speaks S3, on this machine; gives its address."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of its own for each test; gives its URL."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{secrets.token_hex(4)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(params=["folder", "memory", pytest.param("s3", marks=pytest.mark.slow)])
def another(request: pytest.FixtureRequest, tmp_path: Path) -> Another:
    if request.param == "folder":
        return lambda: locate(str(tmp_path / "artifacts"), tmp_path / "store")
    if request.param == "memory":
        pytest.importorskip("fsspec")
        url = f"memory://{secrets.token_hex(8)}/artifacts"
    else:
        url = f"{request.getfixturevalue('bucket')}/artifacts"
    return lambda: locate(url, tmp_path / "store")


@pytest.fixture
def location(another: Another) -> Location:
    return another()


# -- what every location does --------------------------------------------------------------------------


def test_what_is_not_there_reads_as_nothing(location: Location) -> None:
    assert location.read("a/b.json") is None
    assert location.size("a/b.json") is None
    assert not location.has("a/b.json")
    assert location.names("a") == []
    assert location.sizes("a") == {}
    with pytest.raises(FileNotFoundError):
        location.open("a/b.json")
    location.delete("a/b.json")


def test_a_file_that_was_created_is_there_for_others(location: Location, another: Another) -> None:
    assert location.create("a/b/v0.json", b"first")
    assert another().read("a/b/v0.json") == b"first"
    assert another().size("a/b/v0.json") == 5
    with another().open("a/b/v0.json") as file:
        assert file.read(2) == b"fi"
        assert file.read() == b"rst"


def test_a_file_is_created_once(location: Location, another: Another) -> None:
    assert location.create("v0.json", b"first")
    assert not another().create("v0.json", b"second")
    assert location.read("v0.json") == b"first"


def test_of_several_who_create_a_file_at_once_one_does(another: Another) -> None:
    ready = threading.Barrier(8)

    def create(number: int) -> list[int]:
        location = another()
        ready.wait()
        return [file for file in range(8) if location.create(f"v{file}.json", b"%d" % number)]

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert sorted(file for files in won for file in files) == list(range(8))
    location = another()
    for number, files in enumerate(won):
        assert all(location.read(f"v{file}.json") == b"%d" % number for file in files)


def test_a_file_that_was_deleted_can_be_created_again(location: Location) -> None:
    location.create("a", b"1")
    location.delete("a")
    assert location.create("a", b"2")
    assert location.read("a") == b"2"


def test_what_others_write_is_seen_at_once(location: Location, another: Another) -> None:
    other = another()
    for number in range(3):
        assert location.read("aliases/best.json") == (b"%d" % (number - 1) if number else None)
        assert location.names("aliases") == (["best.json"] if number else [])
        assert location.names("versions") == [f"v{one}.json" for one in range(number)]
        other.replace("aliases/best.json", b"%d" % number)
        other.create(f"versions/v{number}.json", b"x" * number or b"none")
    other.delete("aliases/best.json")
    assert not location.has("aliases/best.json")
    assert location.names("aliases") == []


def test_a_reader_sees_a_replaced_file_as_it_was_or_as_it_is(location: Location, another: Another) -> None:
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    location.replace("alias.json", contents[0])
    done = threading.Event()

    def replace() -> None:
        other = another()
        for number in range(30):
            other.replace("alias.json", contents[number % 2])
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(replace)
        while not done.is_set():
            assert location.read("alias.json") in contents
            if writing.done():
                break
        writing.result()


def test_names_are_those_in_the_folder_alone(location: Location) -> None:
    for name in ("a/b.json", "a/c/d.json", "a/c/e.json", "ab.json"):
        location.create(name, name.encode())
    assert location.names("a") == ["b.json", "c"]
    assert location.names("a/c") == ["d.json", "e.json"]
    assert location.sizes("a") == {"b.json": 8}
    assert not location.has("a/c")


def test_a_file_of_this_machine_is_moved_in(location: Location, another: Another) -> None:
    content = secrets.token_bytes(3_000_000)
    folder = location.staging() / f"test-{secrets.token_hex(8)}"
    folder.mkdir()
    try:
        for name in ("blobs/ab/abc", "blobs/ab/abd", "blobs/ab/abc"):
            (folder / "file").write_bytes(content)
            location.move_in(folder / "file", name)
        location.settle(["blobs/ab"])
    finally:
        (folder / "file").unlink(missing_ok=True)
        folder.rmdir()
    assert another().sizes("blobs/ab") == {"abc": 3_000_000, "abd": 3_000_000}
    with another().open("blobs/ab/abc") as file:
        assert file.read() == content


def test_two_readers_of_a_file_do_not_disturb_each_other(location: Location) -> None:
    location.replace("a", b"0123456789")
    with location.open("a") as one, location.open("a") as two:
        assert one.read(4) == b"0123"
        assert two.read(6) == b"012345"
        assert one.read() == b"456789"


def test_places_are_absolute(location: Location) -> None:
    place = location.place("blobs/ab/abc")
    assert place.endswith("/artifacts/blobs/ab/abc")
    assert place.startswith(location.url)
    assert "://" in place or Path(place).is_absolute()


# -- a folder --------------------------------------------------------------------------------------------


def test_without_a_url_artifacts_lie_in_the_store(tmp_path: Path) -> None:
    assert locate(None, tmp_path).folder == tmp_path


def test_a_file_url_names_a_folder(tmp_path: Path) -> None:
    assert locate((tmp_path / "a b").as_uri(), tmp_path / "store").folder == tmp_path / "a b"


def test_a_file_url_is_taken_whole_and_names_no_other_machine(tmp_path: Path) -> None:
    assert locate("file:///data/run#3?", tmp_path).folder == Path("/data/run#3?")
    assert locate("FILE://localhost/data/a%20b", tmp_path).folder == Path("/data/a b")
    with pytest.raises(UsageError, match="a file of 'server'"):
        locate("file://server/share", tmp_path)


def test_a_folder_in_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/artifacts", tmp_path / "store").folder == tmp_path / "artifacts"


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    location = FolderLocation(tmp_path / "file")
    assert location.read("a/b") is None
    for write in (location.create, location.replace):
        with pytest.raises(StoreError, match="cannot write"):
            write("a/b", b"c")
    with pytest.raises(StoreError, match="cannot write"):
        location.staging()


@pytest.fixture
def linkless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderLocation:
    """A folder on a file system without hard links, such as exFAT."""

    def link(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    return FolderLocation(tmp_path / "artifacts")


def test_without_hard_links_a_file_is_created_once_all_the_same(linkless: FolderLocation) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: linkless.create("v0", b"%d" % number), range(8)))
    assert won.count(True) == 1
    assert linkless.read("v0") == b"%d" % won.index(True)
    assert linkless.names(".") == ["v0"]


def test_without_hard_links_a_file_that_is_only_reserved_reads_as_not_there(
    linkless: FolderLocation, tmp_path: Path
) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "v0").touch()  # where a kill leaves it
    assert linkless.read("v0") is None
    assert not linkless.create("v0", b"content")


# -- remote ones -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://key:secret@bucket/x", "credentials"),
        ("s3://key:se/cret@bucket/x", "credentials"),
        ("s3://bucket/x?token=secret", "credentials"),
        ("http://secret@host/x", "credentials"),
        ("s3://bucket/x?versionId=secret", "address alone"),
        ("simplecache::s3://bucket/secret", "address alone"),
        ("nosuch://bucket", "fsspec knows no nosuch://"),
        ("ftp://host/folder", "mount it"),
    ],
)
def test_a_url_that_cannot_be_right_is_refused_and_secrets_are_not_shown(url: str, said: str) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(UsageError, match=said) as refused:
        locate(url, Path("store"))
    assert "secret" not in str(refused.value)
    assert "se/cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@bucket/x",
        "s3://KEY:sec/ret@bucket/x",
        "simplecache::https://user:secret@host/x",
        "http://user:se::cret@host/x",
        "zip://a.zip::https://secret@host/x",
        "https://secret@host/x",
        "s3://secret@bucket/x",
        "ssh://user:secret@host/x",
        "abfs://container:secret@account/x",
        "https://host/x?X-Amz-Signature=secret",
        "https://host/x?a=1;access_token=secret",
        "https://host/x?SIG=secret",
        "https://host/x#key=secret",
        "https://host/x?to%6ben=secret",
        "zip://a.zip::https://host/x?sas=secret",
    ],
)
def test_a_url_with_credentials_is_known(url: str) -> None:
    assert holds_credentials(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/a@b",
        "s3://bucket/a:b@c",
        "http://host:80/a@b",
        "http://[::1]:80/a@b",
        "zip://a.zip::s3://bucket/a@b",
        "abfs://container@account.dfs.core.windows.net/x",
        "ssh://user@host/x",
        "github://owner:repository@main/x",
        "https://host/x?versionId=3",
        "https://host/x#section",
        "/folder/a:b@c",
    ],
)
def test_a_url_without_credentials_is_known(url: str) -> None:
    assert not holds_credentials(url)


def test_a_url_without_fsspec_says_what_to_install() -> None:
    script = """
import sys
sys.modules["fsspec"] = None
from pathlib import Path
from tracklayer.artifacts.locations import locate
try:
    locate("s3://bucket/x", Path("store"))
except ValueError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UsageError")
    assert "pip install 'tracklayer[remote]'" in done.stdout


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_a_store_error(bucket: str) -> None:
    location = locate(f"{bucket}-not/artifacts", Path("store"))
    assert location.read("v0.json") is None
    with pytest.raises(StoreError, match=r"cannot write s3://.*does not exist"):
        location.replace("v0.json", b"content")
    with pytest.raises(StoreError, match=r"cannot write s3://.*does not exist"):
        location.create("v0.json", b"content")


@pytest.mark.slow
def test_a_server_that_is_away_is_a_store_error(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs.core

    monkeypatch.setattr(s3fs.core.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody listens
    location = locate(bucket, Path("store"))
    with pytest.raises(StoreError, match="cannot read s3://"):
        location.read("v0.json")
    with pytest.raises(StoreError, match="cannot write s3://"):
        location.create("v0.json", b"content")


@pytest.fixture
def memory() -> RemoteLocation:
    pytest.importorskip("fsspec")
    return RemoteLocation(f"memory://{secrets.token_hex(8)}")


def test_a_server_without_conditional_writes_is_refused_before_it_loses_a_version(
    memory: RemoteLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pipe_file(path: str, value: bytes, mode: str = "overwrite") -> None:
        overwrite(path, value)

    overwrite = memory._system.pipe_file
    monkeypatch.setattr(memory._system, "pipe_file", pipe_file)
    memory._is_exclusive = False  # as of every server until it is tried
    with pytest.raises(StoreError, match="8 of 8 at once did"):
        memory.create("v0.json", b"content")
    assert memory.names(".") == []


@pytest.mark.parametrize("creates_once", [True, False])
def test_a_server_is_tried_without_threads_where_none_can_be_started(
    memory: RemoteLocation, monkeypatch: pytest.MonkeyPatch, creates_once: bool
) -> None:
    def start(thread: threading.Thread) -> None:
        if started:
            msg = "can't start new thread"
            raise RuntimeError(msg)
        started.append(thread)
        start_one(thread)

    def pipe_file(path: str, value: bytes, mode: str = "overwrite") -> None:
        write(path, value, mode=mode if creates_once else "overwrite")

    started, start_one, write = list[threading.Thread](), threading.Thread.start, memory._system.pipe_file
    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(memory._system, "pipe_file", pipe_file)
    memory._is_exclusive = False
    if creates_once:
        assert memory.create("v0.json", b"content")
    else:
        with pytest.raises(StoreError, match="8 of 8"):
            memory.create("v0.json", b"content")
    assert memory.names("incoming") == []


def test_a_file_system_that_sends_files_is_given_the_file_and_not_its_content(
    memory: RemoteLocation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def put_file(_: object, source: str, target: str) -> None:
        sent.append((source, target.rpartition("/")[2]))

    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(type(memory._system), "put_file", put_file)
    memory.move_in(tmp_path / "file", "name")
    assert sent == [(str(tmp_path / "file"), "name")]


def test_a_conflict_of_two_requests_is_tried_again(
    memory: RemoteLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["ConditionalRequestConflict", "ConditionalRequestConflict"]

    def pipe_file(*arguments: Any, **more: Any) -> None:
        if answers:
            raise OSError(errno.EIO, f"An error occurred ({answers.pop()}) when calling PutObject")
        write(*arguments, **more)

    write = memory._system.pipe_file
    monkeypatch.setattr(memory._system, "pipe_file", pipe_file)
    assert memory.create("v0.json", b"content")
    assert memory.read("v0.json") == b"content"


@pytest.mark.slow
def test_a_forked_child_goes_on_with_a_connection_of_its_own(bucket: str) -> None:
    script = f"""
import os, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from tracklayer.artifacts.locations import locate
location = locate("{bucket}/a", Path("store"))
location.create("parent", b"1")
if os.fork() == 0:
    assert location.read("parent") == b"1"
    location.create("child", b"2")
    os._exit(0)
assert os.wait()[1] == 0
assert location.read("child") == b"2"
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
