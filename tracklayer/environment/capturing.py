"""Captures what this process is, as JSON data; what cannot be found out is absent, and nothing is raised."""

from __future__ import annotations

import getpass
import os
import platform
import sys
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any, Final

from tracklayer.environment import git, machine, packages, program
from tracklayer.environment.masking import Masker

_CODE: Final = ("diff", "untracked_code")
"""Entries in which secrets are masked as in code."""


def capture(omit: Collection[str], started_at: float) -> dict[str, Any]:
    """Return what this process is: the entries of `tracklayer.environment`.

    It takes a tenth of a second or so, most of it for git and the list of packages, and so is called on a
    thread of its own.  Secrets are masked: see `tracklayer.environment.masking`.

    Args:
        omit: parts to leave out, of `PARTS`.
        started_at: when the process began to record, in Unix seconds.
    """
    masker = Masker(os.environ)
    installed = cache(packages.installed_packages)
    repository = None if "git" in omit else _found(_repository)
    parts: list[tuple[str, Callable[[], dict[str, Any] | None]]] = [
        ("program", lambda: _program(repository)),
        ("arguments", lambda: {"args": masker.arguments(program.program_arguments())}),
        ("host", machine.host_facts),
        ("user", lambda: {"user": getpass.getuser()}),
        ("packages", lambda: {"packages": installed().versions, "installed_from": installed().origins}),
        ("devices", lambda: _devices(installed())),
        ("jobs", _jobs),
        ("variables", lambda: {"variables": machine.allowed_variables(os.environ)}),
    ]
    if repository is not None:
        parts += [
            ("git", lambda: {"git": repository.facts()}),
            ("diff", lambda: _diff(repository, masker)),
            ("untracked", lambda: _untracked(repository, masker, with_code="diff" not in omit)),
        ]
    known: dict[str, Any] = {
        "started_at": started_at,
        "os": _found(platform.platform),
        "python": platform.python_version(),
        "pid": os.getpid(),
    }
    for part, find in parts:
        if part not in omit:
            known |= _found(find) or {}
    known = {name: value for name, value in known.items() if not _is_empty(value)}
    code = {name: known.pop(name) for name in _CODE if name in known}
    return {**masker.data(known), **code}


def _found(find: Callable[[], Any]) -> Any:
    """Return what a function finds out; None if it fails."""
    try:
        return find()
    except Exception:  # noqa: BLE001 - of the system, of JAX or of NVML: a run is recorded without that part
        return None


def _repository() -> git.Repository | None:
    """Return the repository of the working folder, as W&B has it, else that of the program.

    A program of the Python environment, such as `pytest` or `jupyter`, says nothing of the user's code,
    though that environment may lie in a repository.
    """
    file = program.program_file()
    is_own = file is not None and not file.is_relative_to(sys.prefix)
    return git.repository_at([Path.cwd(), *([file.parent] if file and is_own else [])])


def _program(repository: git.Repository | None) -> dict[str, Any]:
    cwd = Path.cwd()
    return {
        "program": program.program_name(repository.root if repository else cwd),
        "cwd": str(cwd),
        "executable": sys.executable,
    }


def _devices(installed: packages.Packages) -> dict[str, Any]:
    devices: dict[str, Any] = _found(machine.jax_devices) or {}
    return {"jax": {**installed.of_jax(), **devices}, "gpus": _found(machine.gpu_names)}


def _jobs() -> dict[str, Any]:
    return {"slurm": machine.slurm_job(os.environ), "kubernetes": machine.kubernetes_job(os.environ)}


def _diff(repository: git.Repository, masker: Masker) -> dict[str, Any]:
    found = repository.diff(masker)
    if found is None:
        return {}
    truncated = {} if found.is_whole else {"diff_truncated": True}
    return {"diff": found.text or None, "diff_without": found.without, **truncated}


def _untracked(repository: git.Repository, masker: Masker, *, with_code: bool) -> dict[str, Any]:
    names = repository.untracked()
    code = repository.untracked_code(masker) if with_code and names else None
    return {"untracked": names, "untracked_code": code}


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})
