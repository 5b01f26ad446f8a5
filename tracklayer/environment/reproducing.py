"""Runs again what was recorded: the commands as a script, or the code in a folder beside them."""

from __future__ import annotations

import os
import posixpath
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracklayer.environment.git import git_command, git_environment, repository_at
from tracklayer.environment.masking import without_credentials

if TYPE_CHECKING:
    from tracklayer.artifacts.blobs import Blobs
    from tracklayer.environment.recipes import Recipe

_INSTALL: Final = "venv/bin/pip install --no-deps -r"  # what was installed is all there


def script(wanted: Recipe, fetch_snapshot: Sequence[str]) -> str:
    """Return the commands of a shell that bring everything back in its working folder, and make the call.

    Args:
        wanted: the recipe.
        fetch_snapshot: the command that writes the snapshot to the folder that is its next argument.
    """
    lines = [*_head(wanted), "set -eu", "here=$PWD"]
    if wanted.commit and wanted.sources:
        lines += [
            f"git clone --no-checkout -- {shlex.quote(wanted.sources[0])} code",
            f"git -C code checkout --detach {wanted.commit}",
        ]
        if wanted.diff:
            lines += _here_document("git -C code apply --whitespace=nowarn", wanted.diff)
    else:
        lines.append("mkdir -p code")
    if wanted.snapshot is not None:
        lines += [shlex.join([*fetch_snapshot, "snapshot"]), "cp -R snapshot/. code/"]
    lines.append(_venv(wanted))
    if wanted.requirements:
        requirements = "\n".join(wanted.requirements)
        lines += _here_document(f"{_INSTALL} /dev/stdin", requirements)
    return "\n".join([*lines, *_run(wanted)]) + "\n"


def check_out(wanted: Recipe, out: Path, blobs: Blobs) -> list[str]:
    """Write the code, `requirements.txt` and `run.sh` into a new folder; return what is lacking.

    The program is not run.

    Raises:
        FileExistsError: the folder is there, and is not empty.
        CorruptArtifactError: a file of the snapshot is gone or damaged.
        OSError: the folder cannot be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        msg = f"{out} is there already; choose a new folder"
        raise FileExistsError(msg)
    code = out.absolute() / "code"
    out.mkdir(parents=True, exist_ok=True)
    lacking = list(wanted.lacking)
    if wanted.commit is not None:
        lacking += _clone(wanted, wanted.commit, code)
    if wanted.snapshot is not None:
        from tracklayer.artifacts.downloading import put_files

        put_files(wanted.snapshot.label, wanted.snapshot.files, blobs, code)
    code.mkdir(exist_ok=True)
    (out / "requirements.txt").write_text(
        "".join(f"{line}\n" for line in wanted.requirements), encoding="utf-8"
    )
    lines = [
        *("#!/bin/sh", *_head(wanted), "set -eu", 'here=$(cd "$(dirname "$0")" && pwd)', 'cd "$here"'),
        *("if [ ! -d venv ]; then", f"  {_venv(wanted)}", f"  {_INSTALL} requirements.txt", "fi"),
        *_run(wanted),
    ]
    (out / "run.sh").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "run.sh").chmod(0o755)
    return lacking


def _head(wanted: Recipe) -> list[str]:
    lines = [f"What brings back {wanted.title}.", *(f"Lacking: {line}" for line in wanted.lacking)]
    return [f"# {' '.join(line.splitlines())}" for line in lines]


def _venv(wanted: Recipe) -> str:
    return f"python{wanted.python or '3'} -m venv venv"


def _run(wanted: Recipe) -> list[str]:
    lines = [f"export {name}={shlex.quote(value)}" for name, value in wanted.variables.items()]
    lines.append(f"cd {shlex.quote(posixpath.normpath(f'code/{wanted.folder}'))}")
    if not wanted.command:
        return lines
    if wanted.command[0].endswith(".ipynb"):
        return [*lines, f'"$here"/venv/bin/jupyter execute {shlex.quote(wanted.command[0])}']
    return [*lines, f'exec "$here"/venv/bin/python {shlex.join(wanted.command)}']


def _here_document(command: str, text: str) -> list[str]:
    """Return a command with its input, whatever that holds."""
    word, lines = "END", set(text.splitlines())
    while word in lines:
        word += "_"
    return [f"{command} <<'{word}'", text.removesuffix("\n"), word]


def _clone(wanted: Recipe, commit: str, code: Path) -> list[str]:
    """Check the commit out, and apply the changes; return what went wrong."""
    failed: list[str] = []
    for source in wanted.sources:
        try:
            _git("clone", "--quiet", "--no-checkout", "--no-hardlinks", "--", source, str(code))
            repository = repository_at([code])
            if repository is None or not repository.has(commit):  # no branch leads to it any more
                _git("fetch", "--quiet", "origin", commit, cwd=code)
            _git("checkout", "--quiet", "--detach", commit, cwd=code)
        except subprocess.CalledProcessError as error:
            failed.append(f"{without_credentials(source)} does not give commit {commit}: {_said(error)}")
            shutil.rmtree(code, ignore_errors=True)
            continue
        failed.clear()
        break
    else:
        return failed
    if (code / ".gitmodules").is_file():
        failed.append("It has submodules: `git submodule update --init` in `code` fetches them.")
    if wanted.diff:
        try:
            _git("apply", "--whitespace=nowarn", "-", cwd=code, written=wanted.diff.encode())
        except subprocess.CalledProcessError as error:
            (code.parent / "changes.diff").write_bytes(wanted.diff.encode())
            failed.append(f"Its changes, in changes.diff, cannot be applied: {_said(error)}")
    return failed


def _git(*arguments: str, cwd: Path | None = None, written: bytes = b"") -> None:
    subprocess.run(  # noqa: S603 - git, with arguments that no shell reads
        git_command(*arguments),
        cwd=cwd,
        env=git_environment(os.environ),
        input=written,
        capture_output=True,
        check=True,
    )


def _said(error: subprocess.CalledProcessError) -> str:
    lines = error.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"git ended with {error.returncode}"
