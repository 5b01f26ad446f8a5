"""Processes that store artifacts, or collect garbage, are killed at random instants; nothing is torn or lost.

What must be there is worked out here from the files themselves, without the code that is tested.
"""

from __future__ import annotations

import hashlib
import json
import random
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tracklayer.artifacts.catalog import Catalog
from tracklayer.artifacts.collecting import Collected, collect
from tracklayer.artifacts.locations import FolderLocation

WAIT = 60.0  # seconds that a busy machine may take for anything
START = """
import os, random, sys
from pathlib import Path
from tracklayer.artifacts.catalog import Catalog
from tracklayer.artifacts.locations import FolderLocation
store, mine, dice = Path(sys.argv[1]), Path(sys.argv[2]), random.Random(int(sys.argv[3]))
location = FolderLocation(store)
catalog = Catalog(location)
os.fsync = lambda file: None  # a kill needs none, and there is more to be killed without

def say(*words):
    print(*words, flush=True)
"""
# few contents, which many versions share: what one version's end makes garbage, another needs a moment later
STORING = """
from tracklayer.artifacts.records import LoggedArtifact
from tracklayer.artifacts.storing import stored
from tracklayer.errors import ArtifactNotFoundError, CorruptArtifactError

def random_files():
    files = {}
    for place in range(dice.randint(1, 4)):
        content = random.Random(dice.randrange(16))
        path = mine / f"{place}"
        path.write_bytes(content.randbytes(content.choice([10, 1000, 100_000, 4_000_000])))
        os.utime(path, (1, 1))  # of a file that was just written, storing waits until a change would show
        files[f"folder/{place}"] = path
    return files

def known_files(name):
    try:
        return {file.path: file for file in catalog.files(catalog.find(name, "p"))}
    except (ArtifactNotFoundError, CorruptArtifactError):  # none yet; or deleted, and collected just now
        return {}

say("ready")
while True:
    name = dice.choice(["model", "data"])
    with stored(random_files(), location, known=known_files(name), progress=None) as files:
        aliases = ("best",) if dice.random() < 0.3 else ()
        artifact = LoggedArtifact(name, "model", files, project="p", time=1.0, aliases=aliases)
        version = catalog.publish(artifact, "r")
        for file in files:
            catalog.blobs.check(file.sha256)  # also if another process deletes the version at once
    say("made", name, version.number, version.digest)
    try:
        versions = catalog.versions("p", name)
        catalog.set_alias(dice.choice(versions), dice.choice(["best", "good", "latest"]))
        if dice.random() < 0.6:
            catalog.delete(dice.choice(versions), delete_aliases=True)
    except (ArtifactNotFoundError, IndexError):
        pass  # another process deleted it, or all
"""
COLLECTING = """
import time
from tracklayer.artifacts.collecting import collect
from tracklayer.errors import StoreError

say("ready")
while True:
    try:
        say("collected", collect(catalog, [], dry_run=False).contents)
    except StoreError as error:
        if "try again when it is done" not in str(error):
            raise
    time.sleep(dice.uniform(0, 0.05))
"""


class Worker:
    """A process that goes on until it is killed."""

    def __init__(self, folder: Path, job: str, seed: int) -> None:
        mine = folder / f"files of {seed}"
        mine.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", START + job, str(folder / "store"), str(mine), str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], WAIT)[0]
        assert self.process.stdout.readline() == "ready\n", self.process.communicate()[1]

    def kill(self) -> list[list[str]]:
        """Kill it; return what it said since it was ready."""
        died_before = self.process.poll()
        self.process.kill()
        out, err = self.process.communicate(timeout=WAIT)
        assert died_before is None, err
        return [line.split() for line in out.splitlines()]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: list[Worker] = []

    def begin(job: str, dice: random.Random) -> Worker:
        started.append(Worker(tmp_path, job, dice.randrange(1 << 40)))
        return started[-1]

    yield begin
    for worker in started:
        worker.process.kill()
        worker.process.communicate()


class Truth:
    """What a store's files say, read without the code that wrote them."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.digests: dict[tuple[str, int], str] = {}
        """Of every version that was ever seen."""

    def contents(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self.store.glob("blobs/??/*")}

    def check(self, said: list[list[str]]) -> set[str]:
        """Check that all versions are whole; return the contents that those that live need."""
        needed: set[str] = set()
        living: dict[str, set[int]] = {"model": set(), "data": set()}
        for path in self.store.glob("artifacts/p/*/versions/v*.json"):
            version = json.loads(path.read_bytes())
            name, number = version["name"], version["version"]
            assert (path.parts[-3], path.stem) == (name, f"v{number}")
            assert self.digests.setdefault((name, number), version["digest"]) == version["digest"]
            if not path.with_suffix(".deleted").exists():
                living[name].add(number)
                files = [json.loads(line) for line in self._content(version["files"]).splitlines()]
                assert len(files) == version["file_count"]
                assert sum(file["size"] for file in files) == version["size"]
                assert version["digest"] == self._digest(files)
                needed |= {version["files"], *(file["sha256"] for file in files)}
        for sha256 in needed:
            self._content(sha256)
        for _, name, number, digest in (words for words in said if words[0] == "made"):
            assert self.digests[name, int(number)] == digest
        catalog = Catalog(FolderLocation(self.store))
        for name, numbers in living.items():
            of_name = [number for seen, number in self.digests if seen == name]
            assert sorted(of_name) == list(range(len(of_name)))
            alive = [self.digests[name, number] for number in numbers]
            assert len(set(alive)) == len(alive)
            assert set(catalog.aliases("p", name).values()) <= numbers
        return needed

    def _content(self, sha256: str) -> bytes:
        data = (self.store / "blobs" / sha256[:2] / sha256).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256
        return data

    def _digest(self, files: list[dict[str, Any]]) -> str:
        lines = "".join(f"{file['path']}:{file['sha256']}\n" for file in files)
        return hashlib.sha256(f"tracklayer-artifact-v1\n{lines}".encode()).hexdigest()


def collected(truth: Truth, dice: random.Random) -> Collected:
    """Collect, when every worker is dead; the garbage is taken and nothing else."""
    needed = truth.check([])
    garbage = truth.contents().keys() - needed
    for_runs = set(dice.sample(sorted(garbage), len(garbage) // 2))
    taken = {sha256: size for sha256, size in truth.contents().items() if sha256 in garbage - for_runs}
    catalog = Catalog(FolderLocation(truth.store))
    would = collect(catalog, for_runs, dry_run=True)
    assert truth.contents().keys() == needed | garbage
    did = collect(catalog, for_runs, dry_run=False)
    assert did == would
    assert (did.contents, did.bytes) == (len(taken), sum(taken.values()))
    assert truth.contents().keys() == needed | for_runs
    assert truth.check([]) == needed
    assert not list(truth.store.glob("claims/*.json"))
    assert not list(truth.store.glob("incoming/*"))
    return did


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_fifty_kills_while_storing_tear_no_version_and_lose_no_content(
    tmp_path: Path, start: Any, seed: int
) -> None:
    dice, truth, leftovers = random.Random(seed), Truth(tmp_path / "store"), 0
    for _ in range(5):
        said: list[list[str]] = []
        workers = [start(STORING, dice), start(STORING, dice)]  # one gets ready while the other works
        for _ in range(8):
            workers.append(start(STORING, dice))
            workers[0].wait_until_ready()
            time.sleep(dice.uniform(0.005, 0.15))
            said += workers.pop(0).kill()
        for worker in workers:
            worker.wait_until_ready()
            said += worker.kill()
        truth.check(said)
        leftovers += collected(truth, dice).leftovers
    assert len(truth.digests) > 5
    assert leftovers > 5  # kills hit somebody who was storing


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 6])
def test_collections_at_work_and_killed_take_nothing_from_those_who_store(
    tmp_path: Path, start: Any, seed: int
) -> None:
    dice, truth = random.Random(seed), Truth(tmp_path / "store")
    said: list[list[str]] = []
    workers = [start(job, dice) for job in (STORING, STORING, COLLECTING)]
    for worker in workers:
        worker.wait_until_ready()
    for _ in range(15):
        time.sleep(dice.uniform(0.05, 0.3))
        place = dice.choice([0, 1, 2, 2])
        said += workers[place].kill()
        workers[place] = start(COLLECTING if place == 2 else STORING, dice)
        workers[place].wait_until_ready()
    for worker in workers:
        said += worker.kill()
    truth.check(said)
    assert sum(int(words[1]) for words in said if words[0] == "collected") > 10
    collected(truth, dice)
