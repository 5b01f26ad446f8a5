"""What a run was: real repositories, real programs, and secrets planted where they must not come from."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tracklayer
from machine import Machine
from tracklayer.environment import PARTS, git
from tracklayer.environment.capturing import capture
from tracklayer.environment.masking import Masker, is_private_path, is_secret_name, without_credentials
from wandb_server import WandbServer

GIT_ALONE = PARTS - {"git", "diff", "untracked"}
"""What to omit where git is what a test is about."""
QUICK = {"TRACKLAYER_OMIT": "packages,devices", "TRACKLAYER_SYSTEM_INTERVAL": "0"}


@pytest.fixture(autouse=True)
def quiet_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "a")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@b")


def run_git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def commit(folder: Path, **files: str) -> str:
    """Write files, commit all there is, and return the commit."""
    for name, text in files.items():
        (folder / name.replace("__", "/").replace("_py", ".py")).write_text(text)
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "--message", "m")
    return run_git(folder, "rev-parse", "HEAD").strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, which is the working folder."""
    folder = tmp_path / "repository"
    (folder / "inner").mkdir(parents=True)
    run_git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, train_py="print(1)\n", inner__model_py="size = 1\n")
    monkeypatch.chdir(folder)
    return folder


def known(omit: frozenset[str] = GIT_ALONE) -> dict[str, Any]:
    return capture(omit, started_at=1.0)


# -- git ------------------------------------------------------------------------------------------


def test_a_clean_repository_is_its_commit_and_where_it_came_from(repository: Path) -> None:
    run_git(repository, "remote", "add", "origin", "https://me:hunter22hunter22@example.com/a/b.git?x=1")
    found = known()
    head = run_git(repository, "rev-parse", "HEAD").strip()
    assert found["git"] == {
        "commit": head,
        "branch": "main",
        "remote": "https://example.com/a/b.git",
        "root": str(repository),
        "dirty": False,
    }
    assert found.keys().isdisjoint({"diff", "diff_truncated", "diff_without", "untracked"})


def test_a_dirty_repository_is_its_commit_and_a_diff_that_makes_the_same_files(
    repository: Path, tmp_path: Path
) -> None:
    (repository / "train.py").write_text("print(2)\n")
    (repository / "inner/model.py").unlink()
    (repository / "bärbel.py").write_text("no end of line")
    run_git(repository, "add", "bärbel.py")
    (repository / "notes.py").write_text("nobody knows it\n")
    (repository / "new").mkdir()
    (repository / "new/a.py").touch()
    found = known()
    assert found["git"]["dirty"]
    assert found["untracked"] == ["new/", "notes.py"]
    assert "diff_without" not in found
    run_git(tmp_path, "clone", "--quiet", str(repository), "clone")
    subprocess.run(["git", "apply"], cwd=tmp_path / "clone", input=found["diff"].encode(), check=True)
    there = {p.name: p.read_text() for p in (tmp_path / "clone").rglob("*.py")}
    assert there == {"train.py": "print(2)\n", "bärbel.py": "no end of line"}


def test_code_that_git_does_not_know_is_there_as_a_diff_that_adds_it(
    repository: Path, tmp_path: Path
) -> None:
    code = {
        "new/__init__.py": "",
        "new/größe of it.py": "-- a\r\n+++ b\n\n  no end of line",
        "Dockerfile.gpu": "\n",
        "new/deep/requirements.txt": "jax\n",
    }
    other = {
        "new/data.csv": b"1\n",
        "new/secrets.py": b"1\n",
        ".dot/a.py": b"1\n",
        "venv/site-packages/b.py": b"1\n",
        'a "quote.py': b"1\n",
        "latin.py": b"\xff\n",
        "large.py": b"1" * 2_000_000,
    }
    for name, content in {**{name: text.encode() for name, text in code.items()}, **other}.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_bytes(content)
    (repository / "new/key.py").write_text('api_key = "hunter22hunter22"\n')
    text = known()["untracked_code"]
    clone = tmp_path / "clone"
    run_git(tmp_path, "clone", "--quiet", str(repository), "clone")
    before = {path for path in clone.rglob("*") if path.is_file()}
    subprocess.run(["git", "apply", "--whitespace=nowarn"], cwd=clone, input=text.encode(), check=True)
    added = {path for path in clone.rglob("*") if path.is_file()} - before
    assert {path.relative_to(clone).as_posix(): path.read_bytes().decode() for path in added} == {
        **code,
        "new/key.py": 'api_key = "***"\n',
    }


def test_a_detached_head_has_no_branch(repository: Path) -> None:
    run_git(repository, "checkout", "--quiet", "--detach")
    assert known()["git"].keys() == {"commit", "root", "dirty"}


def test_a_repository_bare_of_commits_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    (tmp_path / "train.py").touch()
    run_git(tmp_path, "add", "train.py")
    monkeypatch.chdir(tmp_path)
    found = known()
    assert found["git"] == {"branch": "main", "root": str(tmp_path), "dirty": True}
    assert "diff" not in found


def test_a_subfolder_belongs_to_the_repository_above_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "train.py").write_text("print(2)\n")
    (repository / "new.py").touch()
    monkeypatch.chdir(repository / "inner")
    found = known()
    assert found["git"]["root"] == str(repository)
    assert "a/train.py" in found["diff"]
    assert found["untracked"] == ["new.py"]


def test_a_worktree_is_a_repository_of_its_own(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_git(repository, "worktree", "add", "--quiet", "-b", "other", str(tmp_path / "tree"))
    monkeypatch.chdir(tmp_path / "tree")
    found = known()["git"]
    assert (found["branch"], found["root"]) == ("other", str(tmp_path / "tree"))


def nowhere(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "../elsewhere").mkdir()
    monkeypatch.chdir(repository / "../elsewhere")


def no_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository / "inner"))


def another_owner(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # what git's own tests use


def inside_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository / ".git")


def gone(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "../gone").mkdir()
    monkeypatch.chdir(repository / "../gone")
    (repository / "../gone").rmdir()


@pytest.mark.parametrize("lose", [nowhere, no_git, another_owner, inside_git, gone])
def test_where_git_knows_nothing_nothing_is_said(
    lose: Callable[[Path, pytest.MonkeyPatch], None],
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (repository / "train.py").write_text("print(2)\n")
    lose(repository, monkeypatch)
    assert known().keys() == {"started_at", "os", "python", "pid"}
    assert capfd.readouterr() == ("", "")


def test_a_git_that_hangs_is_given_up(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(git, "SECONDS", 0.2)
    start = time.monotonic()
    assert "git" not in known()
    assert time.monotonic() - start < 10


def test_git_runs_no_program_of_the_users(repository: Path, tmp_path: Path) -> None:
    spy = tmp_path / "spy"
    spy.write_text(f'#!/bin/sh\necho ran >> {tmp_path / "ran"}\ncat "$@"\n')
    spy.chmod(0o755)
    commit(repository, **{".gitattributes": "*.py diff=spy\n"})
    for name in ("diff.external", "diff.spy.textconv", "diff.spy.command", "core.fsmonitor", "core.pager"):
        run_git(repository, "config", name, str(spy))
    (repository / "train.py").write_text("print(2)\n")
    assert "+print(2)" in known()["diff"]
    assert not (tmp_path / "ran").exists()


def test_the_diff_of_somebodys_own_files_is_left_out(repository: Path) -> None:
    own = [".env", "secrets.yaml", "id_rsa", "inner/credentials.json"]
    commit(repository, **dict.fromkeys(own, "old\n"))
    for name in [*own, "train.py"]:
        (repository / name).write_text("print('new')\n")
    found = known()
    assert found["diff"].count("diff --git") == 1
    assert found["diff_without"] == sorted(own)


def test_a_large_diff_ends_with_a_whole_file(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "DIFF_BYTES", 3000)
    commit(repository, a_py="1\n", b_py="1\n", c_py="1\n")
    for name in ("a.py", "b.py", "c.py"):
        (repository / name).write_text("2\n" * 400)
    found = known()
    assert found["diff_truncated"]
    assert [git.file_of(part) for part in git.split_diff(found["diff"])] == ["a.py", "b.py"]
    assert found["diff_without"] == ["c.py"]
    assert found["diff"].endswith("+2\n")


def test_of_a_binary_file_the_diff_says_that_it_differs(repository: Path) -> None:
    commit(repository, weights="\0\1")
    (repository / "weights").write_bytes(b"\0\2")
    assert "Binary files a/weights and b/weights differ" in known()["diff"]


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://user:password@host/a.git", "https://host/a.git"),
        ("https://ghp_token@host:8443/a.git", "https://host:8443/a.git"),
        ("https://host/a.git?private_token=x#y", "https://host/a.git"),
        ("ssh://git:password@host/a.git", "ssh://git@host/a.git"),
        ("git+ssh://git@host/a.git", "git+ssh://git@host/a.git"),
        ("git@host:a/b.git", "git@host:a/b.git"),
        ("/srv/a.git", "/srv/a.git"),
        ("file:///srv/a.git", "file:///srv/a.git"),
    ],
)
def test_a_remote_is_known_without_its_credentials(url: str, kept: str) -> None:
    assert without_credentials(url) == kept


# -- secrets --------------------------------------------------------------------------------------

WANDB_KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["--api-key", "hunter22", "--lr", "0.1"], ["--api-key", "***", "--lr", "0.1"]),
        (["--api-key=hunter22"], ["--api-key=***"]),
        (["wandb.api_key=hunter22", "+db.password=x"], ["wandb.api_key=***", "+db.password=***"]),
        (["--hfToken", "x", "--auth_token=x"], ["--hfToken", "***", "--auth_token=***"]),
        (["--password", "-x"], ["--password", "***"]),
        (["--token", "--verbose"], ["--token", "--verbose"]),
        (["--pad-token", "<pad>", "--max-tokens=5"], ["--pad-token", "<pad>", "--max-tokens=5"]),
        (["--tokenizer=gpt2", "--obs-key", "image"], ["--tokenizer=gpt2", "--obs-key", "image"]),
        ([WANDB_KEY, f"--key={WANDB_KEY}"], ["***", "--key=***"]),
        (["https://me:pass@host/x?token=abc&n=1"], ["https://***@host/x?token=***&n=1"]),
    ],
)
def test_secrets_in_arguments_are_masked(arguments: list[str], kept: list[str]) -> None:
    assert Masker({}).arguments(arguments) == kept


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghijklmnopqrstuvwx",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "github_pat_abcdefghijklmnopqrstuvwxyz",
        "hf_abcdefghijklmnopqrstuvwxyzabcd",
        "AKIAIOSFODNN7EXAMPLE",
        "xoxb-1234567890-abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3In0.c2lnbmF0dXJl",
        "wandb_v1_abcdefghijklmnopqrstuvwxyz",
        f"local-{WANDB_KEY}",
        "npm_abcdefghijklmnopqrstuvwxyz0123456789",
    ],
)
def test_what_looks_like_a_key_is_masked_wherever_it_stands(secret: str) -> None:
    assert Masker({}).data({"a": [f"x={secret}, y"], secret: 1}) == {"a": ["x=***, y"], "***": 1}


def test_a_private_key_is_masked_and_what_follows_is_not() -> None:
    lines = [
        "-----BEGIN RSA PRIVATE KEY-----",
        *["+MIIEpAIBAAKCAQEA7b"] * 3,
        "-----END RSA PRIVATE KEY-----",
        "x = 1",
    ]
    assert Masker({}).text("\n".join(lines)) == f"{lines[0]}***{lines[-2]}\nx = 1"
    assert Masker({}).text(f'"{lines[0]}" in text') == f'"{lines[0]}" in text'


def test_what_the_environment_calls_a_secret_is_masked_wherever_it_stands() -> None:
    masker = Masker(
        {
            "MY_PASSWORD": "correct horse",
            "SERVICE_KEY": "0123456789abcdefg",
            "DATABASE": "postgres://me:batterystaple@host/db",
            "TOKENIZERS_PARALLELISM": "disabled",
            "HF_TOKEN": str(Path.cwd()),
        }
    )
    text = f"correct horse 0123456789abcdefg batterystaple disabled {Path.cwd()}"
    assert masker.text(text) == f"*** *** *** disabled {Path.cwd()}"


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("+api_key = 'hunter22hunter22'", "+api_key = '***'"),
        ('os.environ["WANDB_API_KEY"] = "hunter22hunter22"', 'os.environ["WANDB_API_KEY"] = "***"'),
        (f'wandb.login(key="{WANDB_KEY}")', 'wandb.login(key="***")'),
        (f"export WANDB_API_KEY={WANDB_KEY}", "export WANDB_API_KEY=***"),
        ("password: hunter22hunter22", "password: ***"),
        ("password = arguments.password", "password = arguments.password"),
        ("pad_token = '<|endoftext|>'", "pad_token = '<|endoftext|>'"),
        (f"-Subproject commit {WANDB_KEY}", f"-Subproject commit {WANDB_KEY}"),
    ],
)
def test_secrets_that_code_spells_out_are_masked(line: str, kept: str) -> None:
    assert Masker({}).code(f"a\n{line}\nb\n") == f"a\n{kept}\nb\n"


@pytest.mark.parametrize("path", [".env", "a/.ssh/config", "my_secrets.py", "aws-credentials", "key.pem"])
def test_a_file_whose_name_tells_of_secrets_is_its_owners_alone(path: str) -> None:
    assert is_private_path(path)
    assert not is_private_path("src/tokens/keys.py")


def test_variables_are_kept_by_a_list_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    kept = {"XLA_FLAGS": "--x", "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    other = {
        "HOME": "/x",
        "JAX_API_KEY": "hunter22hunter22",
        "EDITOR": "vi",
        "NCCL_DEBUG": "hunter22hunter22",
    }
    for name, value in (kept | other).items():
        monkeypatch.setenv(name, value)
    found = known(PARTS - {"variables"})
    assert found["variables"] == kept | {"NCCL_DEBUG": "***"}


def test_names_of_secrets_are_told_from_those_of_a_language_model() -> None:
    assert all(map(is_secret_name, ["token", "HF_TOKEN", "--api-key", "dbPassword", "aws_secret_access_key"]))
    assert not any(map(is_secret_name, ["eos_token", "tokens", "sort-key", "", "keys", "monkey"]))


# -- the process and its machine ------------------------------------------------------------------


def test_each_part_can_be_left_out(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--a"])
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (repository / "train.py").write_text("print(2)\n")
    (repository / "new.py").touch()
    always = {"started_at", "os", "python", "pid"}
    entries = {part: known(PARTS - {part, "git"}).keys() - always for part in PARTS - {"code"}}
    assert {part: found - {"git"} for part, found in entries.items()} == {
        "arguments": {"args"},
        "devices": {"jax"},
        "diff": {"diff"},
        "git": set(),
        "host": {"host", "cpu", "cpu_count", "cpu_count_logical", "memory_bytes"},
        "jobs": {"slurm"},
        "packages": {"packages", "installed_from"},
        "program": {"program", "cwd", "executable"},
        "untracked": {"untracked"},
        "user": {"user"},
        "variables": {"variables"},
    }
    assert known(PARTS).keys() == always
    assert known(PARTS - {"diff", "untracked"}).keys() == always
    assert known(GIT_ALONE).keys() - always == {"git", "diff", "untracked", "untracked_code"}


def test_packages_are_those_that_can_be_imported() -> None:
    found = known(PARTS - {"packages"})
    for name in ("numpy", "SQLAlchemy", "typing_extensions"):
        assert found["packages"][name] == importlib.metadata.version(name)
    assert list(found["packages"]) == sorted(found["packages"], key=str.lower)
    there = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    assert set(found["packages"]) == there
    assert json.loads(json.dumps(found)) == found


def test_a_package_that_is_installed_while_a_process_runs_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    assert "late" not in known(PARTS - {"packages"})["packages"]
    (tmp_path / "late").mkdir()
    (tmp_path / "late/METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 2.0\n")
    (tmp_path / "late").rename(site / "late-2.0.dist-info")
    assert known(PARTS - {"packages"})["packages"]["late"] == "2.0"


# -- the second run of a process ------------------------------------------------------------------


def test_the_code_of_a_program_is_what_it_was_at_its_first_run(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "train.py").write_text("print(2)\n")
    first = known()
    commit(repository, train_py="print(3)\n")
    monkeypatch.setenv("PATH", "")  # there is no git any more
    assert known() == first
    assert "+print(2)" in first["diff"]


def test_at_a_prompt_the_code_is_looked_at_for_each_run(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    first = known()["git"]["commit"]
    head = commit(repository, train_py="print(3)\n")
    assert known()["git"]["commit"] == head != first


def test_each_working_folder_has_its_own_repository(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_git(tmp_path, "clone", "--quiet", str(repository), "clone")
    first = known()
    monkeypatch.chdir(tmp_path / "clone")
    assert known()["git"]["root"] == str(tmp_path / "clone")
    monkeypatch.chdir(repository)
    assert known() == first


def test_a_secret_that_a_process_is_given_later_is_masked_from_then_on(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "train.py").write_text("say('correct horse')\n")
    assert "correct horse" in known()["diff"]
    monkeypatch.setenv("MY_PASSWORD", "correct horse")
    assert "say('***')" in known()["diff"]


def test_what_changes_from_run_to_run_is_of_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    known(PARTS - {"arguments", "variables"})
    monkeypatch.setattr(sys, "argv", ["x", "--lr=1"])
    monkeypatch.setenv("XLA_FLAGS", "--of-the-second")
    found = known(PARTS - {"arguments", "variables"})
    assert found["args"] == ["--lr=1"]
    assert found["variables"]["XLA_FLAGS"] == "--of-the-second"


# -- jobs, programs, devices ----------------------------------------------------------------------


def test_jobs_are_known_by_what_slurm_and_kubernetes_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JWT": "hunter22hunter22",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1", "POD_NAMESPACE": "science", "JOB_COMPLETION_INDEX": "2",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    found = known(PARTS - {"jobs"})
    assert found["slurm"] == {"job_id": "7", "array_task_id": "3"}
    assert found["kubernetes"]["namespace"] == "science"
    assert found["kubernetes"]["completion_index"] == "2"


TELL = """
import json, sys
from tracklayer.environment.capturing import capture
print(json.dumps(capture(("devices", "packages"), 1.0)))
"""


@pytest.mark.slow
def test_a_program_is_told_as_wandb_tells_it(repository: Path) -> None:
    (repository / "inner/tell.py").write_text(
        TELL
        + textwrap.dedent("""
        from wandb.sdk.wandb_settings import Settings
        settings = Settings()
        program = settings._get_program()
        print(json.dumps([program, Settings._get_program_relpath(program, sys.argv[1]), sys.argv[1:]]))
        """)
    )

    def run(folder: Path, *command: str) -> list[Any]:
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=True
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    found, (_, relative, arguments) = run(repository / "inner", "tell.py", str(repository), "--lr=1")
    assert (found["program"], found["args"]) == (relative, arguments) == ("inner/tell.py", arguments)
    assert found["cwd"] == str(repository / "inner")
    found, (program, _, _) = run(repository, "-m", "inner.tell", str(repository))
    assert found["program"] == program == "-m inner.tell"
    (found,) = run(repository, "-c", TELL)
    assert "program" not in found


@pytest.mark.slow
def test_jax_is_neither_imported_nor_hurried(tmp_path: Path) -> None:
    done = Machine(tmp_path / "machine", JAX_PLATFORMS="cpu").run(
        """
        import json, sys
        from tracklayer.environment.capturing import capture
        before = capture((), 1.0)
        assert "jax" not in sys.modules
        import jax
        from jax._src.xla_bridge import backends_are_initialized
        imported = capture((), 1.0)
        assert not backends_are_initialized()
        jax.devices()
        print(json.dumps([before["jax"], imported["jax"], capture((), 1.0)["jax"]]))
        """
    )
    before, imported, used = done.well().said
    assert before == imported
    assert before["jax"] == importlib.metadata.version("jax")
    assert {name: used[name] for name in used.keys() - before.keys()} == {
        "backend": "cpu",
        "process_count": 1,
        "process_index": 0,
        "devices": [{"kind": "cpu", "count": 8}],
    }


# -- the code -------------------------------------------------------------------------------------


@pytest.fixture
def run(repository: Path, monkeypatch: pytest.MonkeyPatch) -> tracklayer.ActiveRun:
    monkeypatch.setenv("TRACKLAYER_DIR", str(repository / "../store"))
    monkeypatch.setenv("TRACKLAYER_OMIT", ",".join(PARTS - {"code"}))
    monkeypatch.setenv("TRACKLAYER_SYSTEM_INTERVAL", "0")
    monkeypatch.setenv("TRACKLAYER_CONSOLE", "off")
    with tracklayer.init("p") as run:
        yield run


def test_the_code_below_a_folder_is_an_artifact(run: tracklayer.ActiveRun, repository: Path) -> None:
    for name in (
        ".hidden.py",
        "secrets.py",
        "data.csv",
        "requirements.txt",
        "wandb__a_py",
        "lib__site-packages__b_py",
    ):
        file = repository / name.replace("__", "/").replace("_py", ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x = 1\n")
    found = run.log_code(name="code-of-it")
    assert (found.name, found.type) == ("code-of-it:v0", "code")
    assert [file.path for file in found.files()] == ["inner/model.py", "requirements.txt", "train.py"]
    again = run.log_code(".", "code-of-it", lambda path: path.endswith(".csv"), lambda path, root: False)
    assert (again.version, [file.path for file in again.files()]) == ("v1", ["data.csv"])
    assert run.log_code(name="code-of-it").version == "v0"


def test_without_a_folder_it_is_the_program_with_its_local_imports(
    run: tracklayer.ActiveRun, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "only_here.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(repository)
    monkeypatch.setitem(sys.modules, "only_here", importlib.import_module("only_here"))
    found = run.log_code(None, "code-of-it")
    assert (found.name, [file.path for file in found.files()]) == ("code-of-it:v0", ["only_here.py"])


def test_a_secret_in_code_is_stored_as_stars(
    run: tracklayer.ActiveRun, repository: Path, tmp_path: Path
) -> None:
    (repository / "train.py").write_bytes(b'# \xff\napi_key = "hunter22hunter22"\nprint(1)\n')
    run.log_code(name="c").download(tmp_path / "out")
    assert (tmp_path / "out/train.py").read_bytes() == b'# \xff\napi_key = "***"\nprint(1)\n'


def test_a_folder_without_code_is_told(
    run: tracklayer.ActiveRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    assert run.log_code(tmp_path / "empty") is None
    assert "no code is found below" in caplog.text
    run.finish()
    assert tracklayer.open_store().artifacts() == []  # nor is there any that nobody asked for


@pytest.mark.slow
def test_a_run_keeps_its_program_and_what_that_imports_of_its_own(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", **QUICK)
    (machine.folder / "package").mkdir()
    (machine.folder / "package/__init__.py").touch()
    (machine.folder / "package/model.py").write_text("size = 1\n")
    (machine.folder / "other.py").write_text("nobody imports it\n")
    script = """
        import sys, click, tracklayer, package.model
        with tracklayer.init("p", id=sys.argv[1], save_code=sys.argv[1] == "a" or None):
            pass
        """
    machine.run(script, "a").well()
    machine.run(script, "b", TRACKLAYER_SAVE_CODE="1").well()
    first, second = machine.recorded("a"), machine.recorded("b")
    (code,) = first.artifacts()
    assert (code.type, code.label) == ("code", "source-p-train.py:v0")
    assert [file.path for file in code.files] == ["package/__init__.py", "package/model.py", "train.py"]
    assert [artifact.label for artifact in second.artifacts()] == ["source-p-train.py:v0"]
    assert first.environments()[1]["code"] == "source-p-train.py:v0"


@pytest.mark.slow
def test_code_is_on_the_server_what_the_wandb_client_makes_of_it(tmp_path: Path) -> None:
    with WandbServer() as server:
        machine = Machine(tmp_path / "machine", server, **QUICK)
        machine.run(
            """
            import tracklayer, wandb
            with tracklayer.init("p", id="ours", backend="wandb") as run:
                assert run.log_code().version == "v0"
            with tracklayer.init("p", id="pushed") as run:
                run.log_code()
            with wandb.init(project="p", id="theirs", settings=wandb.Settings(silent=True)) as run:
                run.log_code()
            """
        ).well()
        assert [machine.push("pushed")["outcome"] for _ in range(2)] == ["sent", "unchanged"]
        codes = [artifact for artifact in server.artifacts if artifact.type == "code"]
        runs = [server.runs[run_id] for run_id in ("ours", "pushed", "theirs")]
    assert [(code.name, code.version) for code in codes] == [("source-p-train.py", 0)]
    hidden = [run.raw_config["_wandb"]["value"] for run in runs]
    assert [entries["code_path"] for entries in hidden] == ["source-p-train.py"] * 3
    assert ["tracklayer" in entries for entries in hidden] == [True, True, False]


@pytest.mark.slow
def test_no_planted_secret_is_stored_or_pushed(repository: Path, tmp_path: Path) -> None:
    secrets = {
        "environment": "env-hunter-0001-value",
        "remote": "remote-hunter-0002-value",
        "argument": "argument-hunter-0003-value",
        "dotfile": "dotfile-hunter-0004-value",
        "tracked": "tracked-hunter-0005-value",
        "code": "code-hunter-0006-value",
        "url": "url-hunter-0007-value",
        "form": "ghp_hunter0008hunter0008hunter0008hunt",
        "untracked dotfile": "hidden-hunter-0009-value",
        "untracked code": "untracked-hunter-0010-value",
    }
    commit(repository, **{".env": "A=1\n", "secrets.json": "{}\n"})
    run_git(repository, "remote", "add", "origin", f"https://me:{secrets['remote']}@example.com/a.git")
    (repository / ".env").write_text(f"A={secrets['dotfile']}\n")
    (repository / ".env.local.py").write_text(f"A={secrets['untracked dotfile']}\n")
    (repository / "secrets.json").write_text(f'{{"a": "{secrets["tracked"]}"}}\n')
    (repository / "inner/model.py").write_text(f'password = "{secrets["code"]}"\n')
    (repository / "new.py").write_text(f'secret_key = "{secrets["untracked code"]}"\n')
    script = """
        import tracklayer, inner.model
        with tracklayer.init("p", id="r", save_code=True) as run:
            run.log({"loss": 1.0})
        """
    (repository / "train.py").write_text(textwrap.dedent(script))
    variables = {
        "TRACKLAYER_OMIT": "",
        "WANDB_DISABLE_GIT": "",
        "MY_API_KEY": secrets["environment"],
        "XLA_FLAGS": f"--x={secrets['environment']}",
        "JAX_COMPILATION_CACHE_DIR": f"https://me:{secrets['url']}@host/cache",
    }
    command = ["--token", secrets["argument"], secrets["environment"], secrets["form"]]
    with WandbServer() as server:
        machine = Machine(tmp_path / "machine", server)
        subprocess.run(
            [sys.executable, "train.py", *command],
            cwd=repository, env={**os.environ, **machine.environment, **variables}, check=True,
        )  # fmt: skip
        assert machine.push("r")["outcome"] == "sent"
        pushed = [
            *(repr(request.body).encode() for request in server.requests),
            *server.runs["r"].files.values(),
            *(content for artifact in server.artifacts for content in artifact.files.values()),
        ]
    environment = machine.recorded("r").environments()[1]
    assert environment["args"] == ["--token", "***", "***", "***"]
    assert {"diff", "untracked_code", "code", "variables", "packages"} <= environment.keys()
    stored = [file.read_bytes() for file in machine.folder.rglob("*") if file.is_file()]
    for kept in (b"with tracklayer.init", str(repository).encode(), b"--x=***"):  # it can be found at all
        assert any(kept in content for content in stored), kept
    for kept in (b"with tracklayer.init", str(repository).encode(), b'"--token"', b'password = "***"'):
        assert any(kept in content for content in pushed), kept
    for where, secret in secrets.items():
        assert not [content[:200] for content in stored + pushed if secret.encode() in content], where
