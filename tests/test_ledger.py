"""The push ledger: what targets confirmed, and one push of a run at a time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tracklayer.errors import RunInUseError
from tracklayer.ledger import Entry, Ledger, Sending

SENDING = Sending(lines=3, last_step=7, through=5, rows=3, upto=9, digest="d", host="h", pid=1, at=2.0)
ENTRY = Entry(revision="r", lines=0, through=5, url="http://x", confirmed_at=1.5, sending=SENDING)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path, "r")


def file_of(folder: Path) -> Path:
    return folder / "ledgers" / "r.json"


def test_what_was_recorded_is_read_again(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.entry("a") == Entry()
    ledger.record("a", ENTRY)
    ledger.record("b", Entry(lines=4))
    again = Ledger(tmp_path, "r")
    assert again.targets() == {"a": ENTRY, "b": Entry(lines=4)}
    assert json.loads(file_of(tmp_path).read_text())["b"] == {"lines": 4}
    assert Ledger(tmp_path, "other").targets() == {}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"revision": "r", "rows": 3, "url": None}, Entry(revision="r", rows=3)),
        ({"lines": "3", "rows": True, "later": 1}, Entry()),
        ({"sending": {"lines": 2, "later": 1}}, Entry(sending=Sending(lines=2))),
        ({"sending": 5}, Entry(sending=Sending())),
        (None, Entry()),
        ([], Entry()),
    ],
)
def test_what_other_versions_wrote_is_read_as_far_as_it_is_known(
    ledger: Ledger, tmp_path: Path, written: Any, expected: Entry
) -> None:
    file_of(tmp_path).parent.mkdir()
    file_of(tmp_path).write_text(json.dumps({"a": written}))
    assert ledger.entry("a") == expected


@pytest.mark.parametrize("content", ["", "{", "[]", "5"])
def test_a_torn_file_is_a_ledger_that_knows_nothing(ledger: Ledger, tmp_path: Path, content: str) -> None:
    file_of(tmp_path).parent.mkdir()
    file_of(tmp_path).write_text(content)
    assert ledger.targets() == {}
    ledger.record("a", ENTRY)
    assert ledger.entry("a") == ENTRY


def test_one_process_pushes_a_run_at_a_time(ledger: Ledger, tmp_path: Path) -> None:
    with ledger.locked(1), pytest.raises(RunInUseError, match="'r'"), Ledger(tmp_path, "r").locked(0.05):
        pass
    with Ledger(tmp_path, "r").locked(0.05), Ledger(tmp_path, "other").locked(0.05):
        pass


@pytest.mark.slow
def test_a_killed_process_holds_no_run(ledger: Ledger, tmp_path: Path) -> None:
    code = """
import sys, time, pathlib
from tracklayer.ledger import Ledger
with Ledger(pathlib.Path(sys.argv[1]), "r").locked(1):
    print("locked", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with pytest.raises(RunInUseError), ledger.locked(0.05):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with ledger.locked(5):
            pass
