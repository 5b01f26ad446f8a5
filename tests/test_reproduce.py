"""`tracklayer reproduce`: code, packages and call are brought back, and nothing is run or trusted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from machine import Machine
from program import cli, on_a_terminal
from tracklayer.protocol import RunInfo, Status
from tracklayer.settings import Settings
from tracklayer_sqlite import backend


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "a")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@b")
    monkeypatch.setenv("TRACKLAYER_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two commits, the second of which is what no run saw."""
    folder = tmp_path / "repository"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    for text in ("print('one')\n", "print('two')\n"):
        (folder / "sub/train.py").write_text(text)
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "m")
    return folder


def first_commit(repository: Path) -> str:
    return git(repository, "rev-parse", "HEAD~1").strip()


def record(store: Path, **environment: Any) -> None:
    """Record a run `r` of a process that was what is given."""
    run = backend.open(RunInfo("r", "p", "r", created_at=1.0), None, Settings(("sqlite",), store))
    run.record_environment(environment)  # type: ignore[attr-defined] # a capability of this backend
    run.finish(Status())


def record_of(repository: Path, store: Path, **environment: Any) -> None:
    """Record a run of the repository's first commit."""
    known = {"commit": first_commit(repository), "root": str(repository), "dirty": False}
    said: dict[str, Any] = {
        "program": "sub/train.py", "args": [], "cwd": str(repository), "python": "3.11.7",
        "packages": {"numpy": "1.0"},
    }  # fmt: skip
    record(store, **said | environment | {"git": known | environment.get("git", {})})


DIFF = """\
diff --git a/sub/train.py b/sub/train.py
index 1..2 100644
--- a/sub/train.py
+++ b/sub/train.py
@@ -1 +1 @@
-print('one')
+print('{0}')
"""


# -- the whole of it ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("save_code", [True, False])
def test_a_run_comes_back_with_its_changes_its_own_imports_and_its_call(
    repository: Path, tmp_path: Path, *, save_code: bool
) -> None:
    script = f"""
        import json, os, sys, local, tracklayer
        with tracklayer.init("p", id="r", save_code={save_code}):
            print(json.dumps([local.NAME, sys.argv[1:], os.environ["XLA_FLAGS"], open("here").read()]))
        """
    (repository / "sub/here").write_text("the working folder\n")
    git(repository, "add", "sub/here")
    git(repository, "commit", "--quiet", "--message", "m")
    (repository / "sub/train.py").write_text(textwrap.dedent(script))
    (repository / "sub/local.py").write_text("NAME = 'untracked'\n")
    machine = Machine(tmp_path / "machine", TRACKLAYER_OMIT="devices,packages", WANDB_DISABLE_GIT=None)
    variables = {k: v for k, v in {**os.environ, **machine.environment}.items() if v is not None}
    call = [sys.executable, "train.py", "--name", "it's $HOME", "*"]
    first = subprocess.run(
        call,
        cwd=repository / "sub",
        env=variables | {"XLA_FLAGS": "--a --b"},
        capture_output=True,
        check=True,
    )
    wanted = {name: (repository / "sub" / name).read_text() for name in ("train.py", "local.py", "here")}
    git(repository, "reset", "--quiet", "--hard", "HEAD~2")
    git(repository, "clean", "-fdq")

    done = cli("reproduce", "r", "--dir", machine.store, "--out", tmp_path / "again")
    again = tmp_path / "again"
    assert {name: (again / "code/sub" / name).read_text() for name in wanted} == wanted
    assert sorted(file.name for file in again.iterdir()) == ["code", "requirements.txt", "run.sh"]
    assert done.stdout.splitlines() == [
        f"run r: the code, requirements.txt and run.sh are in {again}",
        "Its packages are not recorded.",
    ]
    (again / "venv/bin").mkdir(parents=True)
    (again / "venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (again / "venv/bin/python").chmod(0o755)
    second = subprocess.run(
        [again / "run.sh"],
        env=variables | {"TRACKLAYER_DIR": str(tmp_path / "other")},
        capture_output=True,
        check=True,
    )
    assert second.stdout == first.stdout


def test_the_script_does_what_it_says(
    repository: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = {"numpy": "1.26.4", "pip": "24.0", "own": "0.1", "forked": "2.0", "part": "0.2"}
    origins = {
        "own": f"-e {repository.as_uri()}",
        "part": (repository / "sub").as_uri(),
        "forked": "git+https://example.com/f.git@0123",
    }
    record_of(
        repository, store, args=["--a", "b c"], cwd=str(repository / "sub"), diff=DIFF.format("END"),
        variables={"XLA_FLAGS": "--x 'y'"}, packages=packages, installed_from=origins,
    )  # fmt: skip
    script = cli("reproduce", "r").stdout
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "python3.11").write_text(
        '#!/bin/sh\nmkdir -p venv/bin\nprintf "#!/bin/sh\\ncat > ../got\\n" > venv/bin/pip\n'
        'printf "#!/bin/sh\\ncat \\$1; pwd; echo \\$XLA_FLAGS; echo \\$2 \\$3\\n" > venv/bin/python\n'
        "chmod +x venv/bin/*\ncat > /dev/null\n"
    )
    (fake / "python3.11").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:{os.environ['PATH']}")
    (tmp_path / "here").mkdir()
    done = subprocess.run(
        ["sh"],
        input=script.replace("/dev/stdin", "-"),
        cwd=tmp_path / "here",
        capture_output=True,
        text=True,
        check=True,
    )
    folder = tmp_path / "here/code/sub"
    assert done.stdout.splitlines() == ["print('END')", str(folder), "--x 'y'", "--a b c"]
    assert (tmp_path / "got").read_text().splitlines() == [
        "numpy==1.26.4",
        "-e ./code",
        "forked @ git+https://example.com/f.git@0123",
        "./code/sub",
    ]


# -- where the code is ----------------------------------------------------------------------------


def test_the_remote_is_asked_where_the_repository_is_gone(
    repository: Path, store: Path, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), "remote.git")
    record_of(repository, store, git={"remote": str(tmp_path / "remote.git"), "root": "/no/such/folder"})
    cli("reproduce", "r", "--out", tmp_path / "again")
    assert (tmp_path / "again/code/sub/train.py").read_text() == "print('one')\n"


def test_a_commit_that_no_branch_leads_to_is_found(repository: Path, store: Path, tmp_path: Path) -> None:
    git(repository, "checkout", "--quiet", "--detach", "HEAD~1")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "lost")
    lost = git(repository, "rev-parse", "HEAD").strip()
    git(repository, "checkout", "--quiet", "main")
    record_of(repository, store, git={"commit": lost})
    cli("reproduce", "r", "--out", tmp_path / "again")
    assert git(tmp_path / "again/code", "rev-parse", "HEAD").strip() == lost


def test_the_repository_itself_stays_as_it_is(repository: Path, store: Path, tmp_path: Path) -> None:
    (repository / "sub/train.py").write_text("not saved yet\n")
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    record_of(repository, store, diff=DIFF.format("three"))
    cli("reproduce", "r", "--out", tmp_path / "again")
    assert (tmp_path / "again/code/sub/train.py").read_text() == "print('three')\n"
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == before


def test_a_hook_is_not_run(
    repository: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = tmp_path / "template/hooks/post-checkout"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(tmp_path / "template"))
    record_of(repository, store)
    cli("reproduce", "r", "--out", tmp_path / "again")
    assert (tmp_path / "again/code/.git/hooks/post-checkout").exists()
    assert not (tmp_path / "ran").exists()


# -- what is lacking ------------------------------------------------------------------------------


def test_what_is_lacking_is_said(repository: Path, store: Path) -> None:
    record_of(
        repository, store, git={"dirty": True}, diff_without=[".env"], untracked=["notes.py", "data/"],
        diff="diff --git a/w b/w\nBinary files a/w and b/w differ\n", args=["--token", "***"],
        variables={"NCCL_DEBUG": "***"}, cwd="/elsewhere", installed_from={"numpy": "file:///wheels/numpy"},
    )  # fmt: skip
    script = cli("reproduce", "r").stdout
    assert [line.removeprefix("# Lacking: ") for line in script.splitlines() if "Lacking" in line] == [
        "Changed, and it is not recorded how: .env, w.",
        "Not known to git, and not recorded: notes.py, data/.",
        "It ran in /elsewhere, which is not in the repository: here it runs at the top of that.",
        "Not from an index, and to be installed by hand: numpy 1.0 (file:///wheels/numpy).",
        "Secrets are recorded as ***: put them into NCCL_DEBUG.",
        "Secrets in its arguments are recorded as ***: put them in.",
    ]
    assert "git -C code apply" not in script
    assert "export NCCL_DEBUG" not in script


def test_code_that_was_not_recorded_does_not_come_back(store: Path, tmp_path: Path) -> None:
    record(store, program="train.py", cwd="/x")
    done = cli("reproduce", "r", "--out", tmp_path / "again", expect=1)
    assert "but no code" in done.stdout
    assert "Its code is not recorded: no git repository was known, and no snapshot made." in done.stdout


def test_a_run_without_any_record_of_it_is_told(store: Path) -> None:
    backend.open(RunInfo("r", "p", "r"), None, Settings(("sqlite",), store)).finish(Status())
    assert "has no record of its code" in cli("reproduce", "r", expect=1).stderr


def test_changes_that_do_not_fit_are_put_beside_the_code(
    repository: Path, store: Path, tmp_path: Path
) -> None:
    changes = DIFF.replace("-print('one')", "-print('***')").format("three")
    record_of(repository, store, diff=changes)
    done = cli("reproduce", "r", "--out", tmp_path / "again")
    assert (
        "Its changes, in changes.diff, cannot be applied: error: sub/train.py: patch does not apply"
        in done.stdout
    )
    assert (tmp_path / "again/changes.diff").read_text() == changes


def test_a_repository_that_is_nowhere_is_told(repository: Path, store: Path, tmp_path: Path) -> None:
    record_of(repository, store, host="node7", git={"root": "/no/such/folder"})
    done = cli("reproduce", "r", "--out", tmp_path / "again", expect=1)
    assert "it was /no/such/folder on node7." in done.stdout


def test_a_remote_that_does_not_answer_is_told_with_git_s_words(
    repository: Path, store: Path, tmp_path: Path
) -> None:
    record_of(repository, store, git={"root": "/no", "remote": str(tmp_path / "gone.git")})
    done = cli("reproduce", "r", "--out", tmp_path / "again", expect=1)
    assert f"{tmp_path / 'gone.git'} does not give commit {first_commit(repository)}: fatal: " in done.stdout


def test_a_folder_that_is_there_is_left_alone(repository: Path, store: Path, tmp_path: Path) -> None:
    record_of(repository, store)
    (tmp_path / "again").mkdir()
    (tmp_path / "again/mine").touch()
    assert "choose a new folder" in cli("reproduce", "r", "--out", tmp_path / "again", expect=1).stderr
    assert list((tmp_path / "again").iterdir()) == [tmp_path / "again/mine"]


# -- a record that is not to be trusted -----------------------------------------------------------


def test_nothing_in_a_record_becomes_a_command(repository: Path, store: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = f"\ntouch {canary}\n"
    record_of(
        repository, store, program=f"sub/train.py{evil}", args=[evil, f"$(touch {canary})"],
        diff=f"{DIFF}\nEND{evil}END_{evil}", variables={"XLA_FLAGS": evil, f"A{evil}": "x"},
        packages={f"a{evil}": "1", "b": f"1{evil}END{evil}", "numpy": "1.0"}, python=f"3.11{evil}",
        installed_from={"numpy": f"https://x{evil}"}, untracked=[evil], host=evil,
        git={"remote": f"--upload-pack=touch {canary};", "branch": evil},
    )  # fmt: skip
    script = cli("reproduce", "r").stdout
    (tmp_path / "bin").mkdir()
    for name in ("git", "python3.11", "mkdir", "cp", "cd"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\ncat > /dev/null\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "venv/bin").mkdir(parents=True)
    for name in ("pip", "python"):
        shutil.copy(tmp_path / "bin/git", tmp_path / "venv/bin" / name)
    (tmp_path / "code").mkdir()
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        check=True,
    )
    assert not canary.exists()


@pytest.mark.parametrize("path", ["../outside", "/tmp/../outside", ".git/hooks/post-checkout"])
def test_changes_stay_in_the_folder(repository: Path, store: Path, tmp_path: Path, path: str) -> None:
    head = f"diff --git a/{path} b/{path}\nnew file mode 100755\n--- /dev/null\n+++ b/{path}\n"
    diff = f"{head}@@ -0,0 +1 @@\n+x\n"
    record_of(repository, store, diff=diff)
    before = {file for file in tmp_path.rglob("*") if "store" not in file.parts}
    done = cli("reproduce", "r", "--out", tmp_path / "again")
    assert "cannot be applied" in done.stdout
    added = {file for file in tmp_path.rglob("*") if "store" not in file.parts} - before
    assert all(file.is_relative_to(tmp_path / "again") for file in added)
    assert not (tmp_path / "again/code/.git/hooks/post-checkout").exists()


@pytest.mark.slow
def test_a_terminal_is_not_steered(repository: Path, store: Path) -> None:
    record_of(repository, store, diff=DIFF.format("\x1b[31m\ttwo"))
    shown = on_a_terminal("reproduce", "r")
    assert "\x1b" not in shown
    assert "+print('\\x1b[31m\ttwo')" in shown
