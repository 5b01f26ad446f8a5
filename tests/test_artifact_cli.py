"""Artifacts on the command line: real stores, whose runs made and used what there is."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tracklayer
from program import cli, on_a_terminal, read_json
from tracklayer.artifacts.catalog import Catalog
from tracklayer.artifacts.locations import FolderLocation, locate
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACKLAYER_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


def record(
    name: str | None = None,
    files: Mapping[str, bytes] | None = None,
    *,
    run: str,
    project: str = "digits",
    kind: str = "model",
    uses: Iterable[str] = (),
    aliases: Iterable[str] = (),
) -> None:
    """Record a run that uses some artifacts and makes one."""
    with tracklayer.init(project, id=run, backend="sqlite") as recorded:
        for ref in uses:
            recorded.use_artifact(ref)
        if name is not None:
            artifact = tracklayer.Artifact(name, kind)
            for path, content in (files or {"weights.bin": run.encode()}).items():
                with artifact.new_file(path, mode="wb") as file:
                    file.write(content)
            recorded.log_artifact(artifact, aliases=list(aliases))


def publish(
    name: str,
    files: Mapping[str, bytes] | None = None,
    *,
    run: str,
    project: str = "digits",
    kind: str = "model",
    aliases: Iterable[str] = (),
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    references: Mapping[str, str] | None = None,
) -> None:
    """Make a version that says it is a run's, but no run, which would take longer."""
    catalog = Catalog(locate(None, Path(os.environ["TRACKLAYER_DIR"])))
    contents = files or {"weights.bin": run.encode()}
    kept = tuple(ArtifactFile(path, *catalog.blobs.add_bytes(data), "") for path, data in contents.items())
    kept += tuple(ArtifactFile(path, "", 0, uri, uri) for path, uri in (references or {}).items())
    logged = LoggedArtifact(
        name, kind, kept, description, metadata or {}, time.time(), project, None, tuple(aliases)
    )
    catalog.publish(logged, run)


def blob(store: Path, content: bytes) -> Path:
    sha256 = hashlib.sha256(content).hexdigest()
    return store / "blobs" / sha256[:2] / sha256


def lines(*arguments: str | Path, expect: int = 0) -> list[str]:
    return cli(*arguments, expect=expect).stdout.splitlines()


def lineage(ref: str, *arguments: str) -> list[str]:
    """Return the lines of the tree that `artifact show` prints last."""
    shown = lines("artifact", "show", ref, *arguments)
    return shown[shown.index("lineage") + 1 :]


# -- artifacts ------------------------------------------------------------------------------------


def test_artifacts_are_listed_one_a_line() -> None:
    publish("net", {"a": b"12"}, run="r1", aliases=["best"])
    publish("net", {"a": b"1234"}, run="r2")
    publish("images", {"i": b"1"}, run="r3", kind="dataset")
    header, images, net = lines("artifacts")
    assert " ".join(header.split()) == "name type versions latest aliases bytes created"
    assert re.split(r"  +", images)[:6] == ["images", "dataset", "1", "v0", "-", "1"]
    assert re.split(r"  +", net)[:6] == ["net", "model", "2", "v1", "best (v0)", "4"]


def test_the_project_is_said_where_there_are_several() -> None:
    publish("net", run="r1", project="digits")
    publish("net", run="r2", project="letters")
    assert [line.split()[2] for line in lines("artifacts")] == ["project", "digits", "letters"]
    assert "letters" not in cli("artifacts", "--project", "digits").stdout


def test_artifacts_are_chosen_by_type() -> None:
    publish("net", run="r1")
    publish("images", run="r2", kind="dataset")
    found = read_json("artifacts", "--type", "dataset")["artifacts"]
    assert [artifact["name"] for artifact in found] == ["images"]


def test_artifacts_as_json_tell_all_of_it(store: Path) -> None:
    publish("net", {"a": b"12"}, run="r1", aliases=["best"])
    found = read_json("artifacts")
    assert found["location"] == str(store)
    [net] = found["artifacts"]
    assert net.pop("created_at") > 1_700_000_000
    assert net == {
        "name": "net",
        "type": "model",
        "project": "digits",
        "versions": 1,
        "latest": "v0",
        "aliases": {"best": "v0"},
        "size": 2,
    }


def test_artifacts_are_listed_where_a_version_is_damaged(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for content in (b"1", b"22", b"1"):
        publish("net", {"a": content}, run="r1")
    (store / "artifacts/digits/net/versions/v0.json").write_text("{")
    assert re.split(r"  +", lines("artifacts")[1])[:6] == ["net", "model", "2", "v1", "-", "2"]
    assert "v0.json is damaged" in caplog.text


def test_no_artifacts_says_where_it_looked(store: Path) -> None:
    assert cli("artifacts").stdout == f"no artifacts in {store}\n"
    assert not store.exists()


# -- show -----------------------------------------------------------------------------------------


def test_a_version_is_shown_with_all_that_is_known_of_it(store: Path) -> None:
    content = b"weights"
    publish(
        "net", {"sub/w.bin": content}, run="r1", aliases=["best"], description="the one",
        metadata={"accuracy": 0.98, "nested": {"a": [1, 2]}, "worst": float("nan")},
    )  # fmt: skip
    cli("artifact", "pin", "net:best")
    shown = cli("artifact", "show", "net:v0").stdout
    for line in (
        r"artifact +net:v0",
        r"type +model",
        r"project +digits",
        r"aliases +latest, best",
        r"pinned +yes",
        r"description +the one",
        r"bytes +7",
        r"run +r1",
        rf"location +{re.escape(str(store))}",
        r"  accuracy: 0.98",
        r"    a: \[1, 2\]",
        rf"sub/w.bin +7 +{hashlib.sha256(content).hexdigest()}",
    ):
        assert re.search(rf"^{line}$", shown, re.MULTILINE), line
    assert "\nversions\n" not in shown

    described = read_json("artifact", "show", "net:v0")
    assert (described["version"], described["aliases"], described["pinned"]) == (
        "v0",
        ["latest", "best"],
        True,
    )
    assert described["metadata"] == {"accuracy": 0.98, "nested": {"a": [1, 2]}, "worst": "NaN"}
    [file] = described["files"]
    assert (file["path"], file["size"], file["source"]) == ("sub/w.bin", 7, str(blob(store, content)))


def test_without_a_version_the_latest_is_shown_and_all_are_listed() -> None:
    publish("net", {"a": b"1"}, run="r1", aliases=["best"])
    publish("net", {"a": b"22"}, run="r2")
    cli("artifact", "pin", "net:v0")
    shown = lines("artifact", "show", "net")
    assert shown[0].split() == ["artifact", "net:v1"]
    header, v0, v1 = shown[shown.index("versions") + 1 :][:3]
    assert " ".join(header.split()) == "version aliases pinned files bytes created run"
    assert re.split(r"  +", v0)[:5] == ["v0", "best", "yes", "1", "1"]
    assert re.split(r"  +", v1)[:5] == ["v1", "latest", "-", "1", "2"]
    assert [version["run"] for version in read_json("artifact", "show", "net")["versions"]] == ["r1", "r2"]


def test_pins_are_listed_once_for_all_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        publish("net", {"a": b"%d" % number}, run="r1")
    cli("artifact", "pin", "net:v1")
    asked: list[str] = []
    for method in ("has", "names"):
        ask = getattr(FolderLocation, method)
        monkeypatch.setattr(
            FolderLocation, method, lambda self, name, ask=ask: asked.append(name) or ask(self, name)
        )
    assert [version["pinned"] for version in read_json("artifact", "show", "net")["versions"]] == [
        False,
        True,
        False,
    ]
    assert len([name for name in asked if "/pins" in name]) == 1


def test_a_reference_is_shown_as_it_is_stored() -> None:
    uri = "abfs://container@account.dfs.core.windows.net/images/1.png"
    publish("net", run="r1", references={"image": uri})
    assert f" {uri}\n" in cli("artifact", "show", "net:v0").stdout
    reference = read_json("artifact", "show", "net:v0")["files"][0]
    assert (reference["path"], reference["reference"], reference["source"]) == ("image", uri, uri)


def test_of_many_files_the_first_20_are_listed_unless_all_are_asked_for() -> None:
    publish("net", {f"{number:03}": b"x" for number in range(30)}, run="r1")
    shown = cli("artifact", "show", "net:v0").stdout
    assert "files: 20 of 30; --files lists all" in shown
    assert "\n019 " in shown
    assert "\n020 " not in shown
    assert "\n029 " in cli("artifact", "show", "net:v0", "--files").stdout
    assert len(read_json("artifact", "show", "net:v0")["files"]) == 30


def test_an_artifact_is_found_in_its_project() -> None:
    publish("net", {"a": b"1"}, run="r1", project="digits")
    publish("net", {"a": b"2"}, run="r2", project="letters")
    message = cli("artifact", "show", "net:v0", expect=3).stderr
    assert "digits" in message
    assert "letters" in message
    for arguments in (["net", "--project", "letters"], ["letters/net"]):
        assert read_json("artifact", "show", *arguments)["run"] == "r2"
    assert "--project" in cli("artifact", "show", "letters/net", "--project", "digits", expect=2).stderr


@pytest.mark.parametrize("ref", ["nut", "net:v7", "net:worst", "elsewhere/net"])
def test_an_unknown_artifact_version_or_alias_is_exit_code_3(ref: str) -> None:
    publish("net", run="r1", aliases=["best"])
    for command in (["show"], ["get", "--out", "x"], ["verify"], ["pin"], ["unpin"], ["delete", "--yes"]):
        if command[0] != "delete" or ":" in ref:
            assert cli("artifact", command[0], ref, *command[1:], expect=3).stderr.startswith("tracklayer: ")
    assert not Path("x").exists()


def test_a_reference_of_no_form_is_exit_code_2() -> None:
    publish("net", run="r1")
    for ref in ("", "net:", ":v1", "a/b/c/net"):
        assert repr(ref) in cli("artifact", "show", ref, expect=2).stderr


def test_what_an_artifact_holds_cannot_steer_the_terminal() -> None:
    names = {"\x1b[2Jfile": b"1", "line\nbreak": b"2", "größe [bold]": b"3"}
    publish(
        "net", names, run="r1", kind="mo[red]del", aliases=["b[st]"],
        description="\x1b]0;title\x07", metadata={"k\ney": "\x1b[31m"},
    )  # fmt: skip
    record(run="r2", uses=["net"])
    for arguments in (["show", "net"], ["diff", "net:v0", "v0"], ["verify", "net"]):
        written = cli("artifact", *arguments).stdout
        assert "\x1b" not in written
        assert "\x07" not in written
    shown = cli("artifact", "show", "net").stdout
    assert r"\x1b[2Jfile" in shown
    assert r"line\nbreak" in shown
    assert "größe [bold]" in shown
    assert "mo[red]del" in shown
    assert "latest, b[st]" in shown


@pytest.mark.slow
def test_what_the_output_cannot_encode_is_escaped_and_a_tree_is_drawn_in_ascii() -> None:
    publish("net", {"größe": b"1"}, run="λ")
    done = subprocess.run(
        [sys.executable, "-m", "tracklayer", "artifact", "show", "net:v0"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert r"gr\xf6\xdfe" in done.stdout
    assert done.stdout.endswith("net:v0\n`-- made by run \\u03bb (not in this store)\n")


# -- lineage --------------------------------------------------------------------------------------


def test_the_lineage_is_a_tree_of_runs_and_versions() -> None:
    record("raw", run="collect", kind="dataset")
    record("images", run="prepare", kind="dataset", uses=["raw"])
    record("net", run="train", uses=["images"])
    record("report", run="evaluate", kind="report", uses=["net", "images"])
    assert lineage("net") == [
        "net:v0",
        "├── made by run train (finished)",
        "│   └── used images:v0",
        "│       └── made by run prepare (finished)",
        "│           └── used raw:v0",
        "│               └── made by run collect (finished)",
        "└── used by run evaluate (finished)",
        "    └── made report:v0",
    ]
    assert lineage("images")[3:] == [
        "│       └── made by run collect (finished)",
        "├── used by run train (finished)",
        "│   └── made net:v0",
        "│       └── used by run evaluate (finished)",
        "│           └── made report:v0",
        "└── used by run evaluate (finished) (above)",
    ]
    found = read_json("artifact", "show", "net")["lineage"]
    assert [run["id"] for run in found["before"]] == ["train", "prepare", "collect"]
    [evaluate] = found["after"]
    assert evaluate == {
        "id": "evaluate",
        "name": "evaluate",
        "state": "finished",
        "problem": None,
        "used": ["digits/net:v0", "digits/images:v0"],
        "made": ["digits/report:v0"],
    }


def test_a_run_that_uses_what_it_made_is_no_endless_lineage() -> None:
    with tracklayer.init("digits", id="loop", backend="sqlite") as run:
        for content in ("one", "two"):
            artifact = tracklayer.Artifact("net", "model")
            with artifact.new_file("a") as file:
                file.write(content)
            run.log_artifact(artifact)
            run.use_artifact("net:latest")
    assert lineage("net:v0") == [
        "net:v0",
        "├── made by run loop (finished)",
        "│   ├── used net:v0 (above)",
        "│   └── used net:v1",
        "│       └── made by run loop (finished) (above)",
        "└── used by run loop (finished)",
        "    ├── made net:v0 (above)",
        "    └── made net:v1",
        "        └── used by run loop (finished) (above)",
    ]
    found = read_json("artifact", "show", "net:v0")["lineage"]
    assert [[run["id"] for run in found[side]] for side in ("before", "after")] == [["loop"], ["loop"]]


def test_a_run_with_a_name_is_shown_with_it_and_a_version_of_another_project_with_that() -> None:
    record("raw", run="collect", project="shared", kind="dataset")
    with tracklayer.init("digits", id="r1", name="first try", backend="sqlite") as run:
        run.use_artifact("shared/raw:v0")
        Path("w").write_bytes(b"w")
        run.log_artifact("w", "net", "model")
    assert lineage("net")[1:3] == [
        "└── made by run r1 (first try, finished)",
        "    └── used shared/raw:v0",
    ]


def test_runs_that_are_not_there_or_cannot_be_read_are_shown_by_their_ids(store: Path) -> None:
    record("net", run="gone")
    record(run="broken", uses=["net"])
    (store / "runs" / "gone.sqlite").unlink()
    (store / "runs" / "broken.sqlite").write_bytes(b"x" * 5000)
    assert lineage("net") == [
        "net:v0",
        "├── made by run gone (not in this store)",
        "└── used by run broken (cannot be read)",
    ]
    [gone] = read_json("artifact", "show", "net")["lineage"]["before"]
    assert (gone["id"], gone["problem"], gone["state"]) == ("gone", "not in this store", None)


@pytest.mark.slow
def test_a_version_that_is_gone_or_damaged_is_marked_in_the_lineage(store: Path) -> None:
    record("raw", run="collect", kind="dataset")
    record("net", run="train", uses=["raw"])
    cli("artifact", "delete", "raw:v0", "--yes")
    assert lineage("net")[-1] == "    └── used raw:v0 (gone)"
    record("report", run="evaluate", uses=["net"])
    [version] = store.glob("artifacts/digits/net/versions/*")
    version.write_bytes(b"{}")
    assert lineage("report")[-1] == "    └── used net:v0 (cannot be read)"


@pytest.mark.slow
def test_a_long_lineage_is_cut_in_the_tree_and_whole_in_json() -> None:
    record("net", run="r0")
    for number in range(1, 12):
        record("net", run=f"r{number}", uses=["net:latest"])
    drawn = lineage("net")
    assert len([line for line in drawn if "made by run" in line]) == 6
    assert drawn[-1].endswith("made by 1 more run: see --json")
    before = read_json("artifact", "show", "net")["lineage"]["before"]
    assert [run["id"] for run in before] == [f"r{number}" for number in reversed(range(12))]


@pytest.mark.slow
def test_of_many_users_the_newest_are_drawn() -> None:
    record("images", run="prepare")
    for number in range(25):
        record(run=f"u{number}", uses=["images"])
    drawn = lineage("images")
    assert drawn[2] == "├── used by 5 more runs: see --json"
    assert drawn[3] == "├── used by run u5 (finished)"
    assert drawn[-1] == "└── used by run u24 (finished)"
    assert len(read_json("artifact", "show", "images")["lineage"]["after"]) == 25


@pytest.mark.slow
def test_a_terminal_gets_a_tree_with_coloured_states() -> None:
    record("net", run="train")
    written = on_a_terminal("artifact", "show", "net")
    assert "\x1b[32mfinished" in written
    assert "└── made by run train (finished)" in re.sub(r"\x1b\[[0-9;]*m", "", written)


# -- get ------------------------------------------------------------------------------------------


def test_get_writes_a_version_out_and_says_so(tmp_path: Path) -> None:
    publish("net", {"a.bin": b"first", "sub/b.bin": b"second"}, run="r1")
    out = tmp_path / "out"
    assert cli("artifact", "get", "net:v0", "--out", out).stdout == f"net:v0: 2 files, 11 bytes, in {out}\n"
    assert (out / "a.bin").read_bytes() == b"first"
    assert (out / "sub" / "b.bin").read_bytes() == b"second"


def test_get_leaves_what_is_there_with_the_same_content(tmp_path: Path) -> None:
    publish("net", {"a": b"first", "b": b"second"}, run="r1")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_bytes(b"first")
    (out / "mine").write_bytes(b"stays")
    os.utime(out / "a", (1, 1))
    assert cli("artifact", "get", "net", "--out", out).stdout.endswith("; 1 there already\n")
    assert (out / "a").stat().st_mtime == 1
    assert (out / "mine").read_bytes() == b"stays"
    assert [file["written"] for file in read_json("artifact", "get", "net", "--out", out)["files"]] == [
        False,
        False,
    ]


def test_get_overwrites_nothing(tmp_path: Path) -> None:
    publish("net", {"a": b"first", "b": b"second"}, run="r1")
    out = tmp_path / "out"
    out.mkdir()
    (out / "b").write_bytes(b"mine")
    message = cli("artifact", "get", "net:v0", "--out", out, expect=1).stderr
    assert "'b' already, with other content" in message
    assert [(file.name, file.read_bytes()) for file in out.iterdir()] == [("b", b"mine")]


def test_get_takes_no_link_for_a_file(tmp_path: Path) -> None:
    publish("net", {"a": b"first"}, run="r1")
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "mine").write_bytes(b"first")
    (out / "a").symlink_to(tmp_path / "mine")
    assert (
        "'a' already, with other content" in cli("artifact", "get", "net:v0", "--out", out, expect=1).stderr
    )


def test_get_follows_no_link_out_of_the_folder(tmp_path: Path) -> None:
    publish("net", {"sub/a": b"first"}, run="r1")
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "sub").symlink_to(elsewhere)
    assert "leads out" in cli("artifact", "get", "net:v0", "--out", out, expect=2).stderr
    assert not list(elsewhere.iterdir())


def test_get_hands_out_nothing_that_is_damaged(store: Path, tmp_path: Path) -> None:
    publish("net", {"a": b"content"}, run="r1")
    damage(blob(store, b"content"))
    message = cli("artifact", "get", "net:v0", "--out", tmp_path / "out", expect=4).stderr
    assert "'a'" in message
    assert not list((tmp_path / "out").glob("**/*"))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


# -- diff -----------------------------------------------------------------------------------------


def test_diff_says_what_was_added_removed_and_changed() -> None:
    publish("net", {"same": b"1", "old": b"22", "edited": b"333"}, run="r1", metadata={"a": 1, "b": 2})
    publish("net", {"same": b"1", "new": b"4444", "edited": b"55555"}, run="r2", metadata={"a": 1, "c": None})
    written = cli("artifact", "diff", "net:v0", "v1").stdout
    assert written.startswith("from digits/net:v0 to digits/net:v1\n")
    for line in (
        r"added +new +- +4",
        r"removed +old +2 +-",
        r"changed +edited +3 +5",
        r"b +2 +-",
        r"c +- +null",
    ):
        assert re.search(rf"^{line}$", written, re.MULTILINE), line
    assert "same" not in written
    assert cli("artifact", "diff", "net:v0", "net:latest").stdout == written
    found = read_json("artifact", "diff", "net:v0", "latest")
    assert found["metadata"] == {"b": {"before": 2}, "c": {"after": None}}
    assert [(file["path"], file["size_before"], file["size_after"]) for file in found["files"]] == [
        ("new", None, 4),
        ("old", 2, None),
        ("edited", 3, 5),
    ]


def test_diff_of_two_artifacts_with_the_same_files_says_so() -> None:
    publish("net", {"a": b"1"}, run="r1")
    publish("copy", {"a": b"1"}, run="r2")
    assert cli("artifact", "diff", "net:v0", "copy:v0").stdout == (
        "digits/net:v0 and digits/copy:v0 have the same files and metadata\n"
    )
    cli("artifact", "diff", "net:v0", "v1", expect=3)


# -- verify ---------------------------------------------------------------------------------------


def test_verify_reads_what_is_stored() -> None:
    publish("net", {"a": b"1", "b": b"22"}, run="r1")
    publish("images", {"a": b"1"}, run="r2", kind="dataset")
    assert lines("artifact", "verify", "net") == ["digits/net:v0: 2 files, 3 bytes: intact"]
    assert lines("artifact", "verify", "--all") == [
        "digits/images:v0: 1 file, 1 byte: intact",
        "digits/net:v0: 2 files, 3 bytes: intact",
    ]


@pytest.mark.parametrize("harm", [damage, Path.unlink])
def test_verify_finds_damage_and_names_the_files(store: Path, harm: Any) -> None:
    publish("net", {"a": b"fine", "sub/b": b"broken"}, run="r1")
    publish("other", {"c": b"broken", "d": b"also fine"}, run="r2")
    harm(blob(store, b"broken"))
    done = cli("artifact", "verify", "--all", expect=4)
    assert "digits/net:v0: 2 files, 10 bytes: 1 damaged\n" in done.stdout
    assert "digits/net:v0/sub/b: " in done.stderr
    assert "digits/other:v0/c: " in done.stderr
    found = read_json("artifact", "verify", "net", expect=4)
    assert [file["path"] for file in found["versions"][0]["damaged"]] == ["sub/b"]


def test_verify_finds_a_damaged_list_of_files_and_a_damaged_version(store: Path) -> None:
    publish("net", {"a": b"1"}, run="r1")
    publish("other", {"a": b"2"}, run="r2")
    [version] = store.glob("artifacts/digits/net/versions/*")
    damage(blob_of(store, json.loads(version.read_bytes())["files"]))
    done = cli("artifact", "verify", "--all", expect=4)
    assert "digits/net:v0: " in done.stderr
    assert "digits/other:v0: 1 file, 1 byte: intact" in done.stdout
    version.chmod(0o644)
    version.write_bytes(b"{}")
    assert str(version) in cli("artifact", "verify", "--all", expect=4).stderr


def blob_of(store: Path, sha256: str) -> Path:
    return store / "blobs" / sha256[:2] / sha256


def test_verify_needs_a_version_or_all() -> None:
    publish("net", run="r1")
    for arguments in ([], ["net", "--all"]):
        assert "--all" in cli("artifact", "verify", *arguments, expect=2).stderr


# -- aliases and pins -----------------------------------------------------------------------------


def test_an_alias_moves_from_one_version_to_another() -> None:
    publish("net", {"a": b"1"}, run="r1")
    publish("net", {"a": b"2"}, run="r2")
    assert cli("artifact", "alias", "net:v0", "best").stdout == "net:v0 is best\n"
    assert cli("artifact", "alias", "net:v1", "best").stdout == "net:v1 is best; v0 was\n"
    assert read_json("artifact", "show", "net:best")["version"] == "v1"
    assert read_json("artifact", "show", "net:v0")["aliases"] == []


def test_an_alias_is_removed_from_the_version_that_has_it() -> None:
    publish("net", {"a": b"1"}, run="r1", aliases=["best"])
    publish("net", {"a": b"2"}, run="r2")
    assert "no alias 'best'" in cli("artifact", "alias", "net:v1", "best", "--remove", expect=2).stderr
    assert read_json("artifact", "alias", "net:v0", "best", "--remove")["aliases"] == []
    cli("artifact", "show", "net:best", expect=3)


@pytest.mark.parametrize("alias", ["v3", "", "a/b", "a:b", "line\nbreak"])
def test_an_alias_that_is_not_allowed_is_exit_code_2(alias: str) -> None:
    publish("net", run="r1")
    cli("artifact", "alias", "net:v0", alias, expect=2)
    assert read_json("artifact", "show", "net")["aliases"] == ["latest"]


def test_a_pinned_version_is_not_deleted_until_it_is_unpinned() -> None:
    publish("net", run="r1")
    assert cli("artifact", "pin", "net:v0").stdout == "net:v0 is pinned\n"
    assert "net:v0 is pinned: unpin it first" in cli("artifact", "delete", "net:v0", "--yes", expect=2).stderr
    assert read_json("artifact", "unpin", "net:v0")["pinned"] is False
    assert cli("artifact", "delete", "net:v0", "--yes").stdout == "net:v0 is deleted\n"


# -- delete ---------------------------------------------------------------------------------------


def test_without_a_terminal_nothing_is_deleted_unless_it_is_told_to() -> None:
    publish("net", run="r1")
    for options in ([], ["--json"]):
        assert "--yes" in cli("artifact", "delete", "net:v0", *options, expect=2).stderr
    assert read_json("artifact", "show", "net")["version"] == "v0"
    assert read_json("artifact", "delete", "net:v0", "--yes") == {"deleted": "digits/net:v0"}
    cli("artifact", "show", "net", expect=3)


def test_delete_asks_for_a_version() -> None:
    publish("net", run="r1")
    assert "net:vN" in cli("artifact", "delete", "net", "--yes", expect=2).stderr
    cli("artifact", "show", "net:v0")


def test_a_version_with_aliases_is_deleted_only_if_they_may_go_with_it() -> None:
    publish("net", {"a": b"1"}, run="r1", aliases=["best"])
    publish("net", {"a": b"2"}, run="r2")
    assert "goes by 'best'" in cli("artifact", "delete", "net:v0", "--yes", expect=2).stderr
    cli("artifact", "delete", "net:v0", "--yes", "--with-aliases")
    cli("artifact", "show", "net:best", expect=3)
    assert [version["version"] for version in read_json("artifact", "show", "net")["versions"]] == ["v1"]


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "deleted"), [(b"y\n", True), (b"n\n", False), (b"\n", False)])
def test_on_a_terminal_delete_asks(answer: bytes, deleted: bool) -> None:
    publish("net", {"a": b"1"}, run="r1")
    record(run="r2", uses=["net"])
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "tracklayer", "artifact", "delete", "net:v0"]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        question = b""
        while b"[y/N]" not in question:
            question += os.read(controller, 65536)
        assert b"Delete net:v0 (1 file, 1 byte, latest, used by 1 run)?" in question
        os.write(controller, answer)
        assert (process.wait() == 0) is deleted
    os.close(controller)
    cli("artifact", "show", "net", expect=3 if deleted else 0)


# -- gc -------------------------------------------------------------------------------------------


def test_gc_frees_what_only_a_deleted_version_had(store: Path) -> None:
    publish("net", {"shared": b"both", "own": b"first"}, run="r1")
    publish("net", {"shared": b"both", "own": b"second"}, run="r2")
    assert read_json("gc")["contents"] == 0
    cli("artifact", "delete", "net:v0", "--yes")
    planned = read_json("gc", "--dry-run")
    assert planned["dry_run"] is True
    assert planned["contents"] == 2  # b"first", and the list of v0's files
    assert blob(store, b"first").exists()
    assert {**read_json("gc"), "dry_run": True} == planned
    assert not blob(store, b"first").exists()
    assert blob(store, b"both").exists()
    cli("artifact", "verify", "--all")
    assert read_json("gc")["contents"] == 0


def test_gc_says_how_much_it_frees(store: Path) -> None:
    publish("net", {"a": b"12345"}, run="r1")
    (store / "artifacts" / "digits" / "net" / "versions" / "v0.json").unlink()
    cli("gc")
    assert not blob(store, b"12345").exists()


@pytest.mark.slow
def test_gc_keeps_large_media_and_what_a_running_run_needs(store: Path) -> None:
    large = os.urandom(1_500_000)
    Path("w").write_bytes(b"of a running run")
    with tracklayer.init("digits", id="r1", backend="sqlite") as run:
        run.log({"page": tracklayer.Html("<p>" + large.hex() + "</p>")}, step=0)
        run.log_artifact("w", "net", "model")
        run.flush()
        cli("artifact", "delete", "net:v0", "--yes")
        cli("gc")
        assert blob(store, b"of a running run").exists()
    cli("gc")
    assert not blob(store, b"of a running run").exists()
    [point] = tracklayer.open_store().run("r1").media("page")
    assert large.hex()[:64] in read_text(point.value)


@pytest.mark.slow
def test_gc_keeps_the_media_of_the_store_that_another_keeps_its_artifacts_in(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = os.urandom(1_500_000)
    with tracklayer.init("digits", id="r1", backend="sqlite") as run:
        run.log({"page": tracklayer.Html("<p>" + large.hex() + "</p>")}, step=0)
    monkeypatch.setenv("TRACKLAYER_DIR", str(tmp_path / "another"))
    monkeypatch.setenv("TRACKLAYER_ARTIFACTS", str(store))
    record("net", {"a": b"1"}, run="r2")
    cli("artifact", "delete", "net:v0", "--yes")
    assert read_json("gc")["contents"] == 2  # b"1", and the list of the version's files
    [point] = tracklayer.open_store(store).run("r1").media("page")
    assert large.hex()[:64] in read_text(point.value)


def read_text(value: Any) -> str:
    [content] = value.encoded.contents.values()
    return content.read().decode()


def test_gc_frees_nothing_while_a_run_cannot_be_read(store: Path) -> None:
    publish("net", {"a": b"1"}, run="r1")
    record(run="broken")
    (store / "runs" / "broken.sqlite").write_bytes(b"x" * 5000)
    cli("artifact", "delete", "net:v0", "--yes")
    for options in ([], ["--dry-run"]):
        message = cli("gc", *options, expect=4).stderr
        assert "broken.sqlite" in message
        assert "nothing is freed" in message
    assert blob(store, b"1").exists()


def test_gc_of_no_store_makes_none(store: Path) -> None:
    cli("gc")
    assert not store.exists()


# -- elsewhere ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_artifacts_lie_where_the_environment_says(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("TRACKLAYER_ARTIFACTS", f"{scheme}{tmp_path / 'elsewhere'}")
    record("net", {"a": b"1"}, run="r1")
    assert str(tmp_path / "elsewhere") in read_json("artifacts")["location"]
    assert not blob(store, b"1").exists()
    cli("artifact", "get", "net:v0", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "a").read_bytes() == b"1"
    assert lineage("net:v0") == ["net:v0", "└── made by run r1 (finished)"]
    assert lines("artifact", "verify", "--all") == ["digits/net:v0: 1 file, 1 byte: intact"]
    cli("artifact", "delete", "net:v0", "--yes")
    for options, contents in ((["--dry-run"], 2), ([], 2), ([], 0)):
        found = read_json("gc", *options)
        assert found["contents"] == contents
        assert list(found["locations"]) == [read_json("artifacts")["location"], str(store)]


@pytest.mark.slow
def test_a_run_is_shown_with_the_artifacts_that_it_made_and_used() -> None:
    record("images", {"i": b"1"}, run="prepare", kind="dataset", aliases=["train"])
    record("net", {"a": b"22", "b": b"333"}, run="train", uses=["images:train"], aliases=["best"])
    shown = cli("show", "train").stdout
    assert re.search(r"^artifacts made\n.*\nnet:v0 +model +best +2 +5$", shown, re.MULTILINE)
    assert re.search(r"^artifacts used\n.*\nimages:v0 +dataset +\S+ +1 +1$", shown, re.MULTILINE)
    described = read_json("show", "train")
    assert [(a["label"], a["size"], a["aliases"]) for a in described["artifacts"]] == [
        ("net:v0", 5, ["best"])
    ]
    assert [a["label"] for a in described["used_artifacts"]] == ["images:v0"]
