"""Captures what this process is, as JSON data; what cannot be found out is absent, and nothing is raised."""

from __future__ import annotations

import getpass
import os
import platform
import sys
from collections.abc import Callable, Collection
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

from tracklayer.environment import git, machine, packages, program
from tracklayer.environment.masking import Masker, process_variables
from tracklayer.installation import State, installation_state

Part: TypeAlias = tuple[str, Callable[[], dict[str, Any] | None]]
"""What `omit` calls it, and what finds its entries."""

_CODE: Final = ("diff", "untracked_code")
"""Entries in which secrets are masked as in code."""


def capture(omit: Collection[str], started_at: float) -> dict[str, Any]:
    """Return what this process is: the entries of `tracklayer.environment`.

    It takes a tenth of a second or so, most of it for git and the list of packages, and so is called on a
    thread of its own; from the second time on, a millisecond.  Secrets are masked: see
    `tracklayer.environment.masking`.

    What git says of a program is asked once a process, at its first run: what is changed later, while it
    runs one trial after another, is not the code that it loaded.  Nor is git asked again for what it could
    not say in time.  In a notebook or at a prompt, where code comes and goes, it is asked each time, and
    everywhere anew in another working folder, or when the process was given another secret to mask.  The
    packages are listed anew when some were installed.

    Args:
        omit: parts to leave out, of `PARTS`.
        started_at: when the process began to record, in Unix seconds.
    """
    variables = process_variables()
    masker = Masker(variables)
    known: dict[str, Any] = {
        "started_at": started_at,
        "os": _found(platform.platform),
        "python": platform.python_version(),
        "pid": os.getpid(),
    }
    known |= _entries(
        omit,
        ("arguments", lambda: {"args": masker.arguments(program.program_arguments())}),
        ("host", machine.host_facts),
        ("user", lambda: {"user": getpass.getuser()}),
        ("devices", lambda: _devices(masker)),
        ("jobs", _jobs),
        ("variables", lambda: {"variables": machine.allowed_variables(variables)}),
    )
    code = _code.__wrapped__ if program.is_interactive() else _code
    return {
        **masker.data(known),
        **_entries(omit, ("packages", lambda: _packages(masker))),
        **(_found(lambda: code(frozenset(omit), Path.cwd(), masker)) or {}),
    }


def _entries(omit: Collection[str], *parts: Part) -> dict[str, Any]:
    """Return the entries of the parts that are not left out; what is not known is absent."""
    found: dict[str, Any] = {}
    for part, find in parts:
        if part not in omit:
            found |= _found(find) or {}
    return {name: value for name, value in found.items() if not _is_empty(value)}


def _found(find: Callable[[], Any]) -> Any:
    """Return what a function finds out; None if it fails."""
    try:
        return find()
    except Exception:  # noqa: BLE001 - of the system, of JAX or of NVML: a run is recorded without that part
        return None


@lru_cache(maxsize=4)
def _code(omit: frozenset[str], folder: Path, masker: Masker) -> dict[str, Any]:
    """Return which program this is, and what git says of its code; masked.

    Args:
        omit: parts to leave out.
        folder: the working folder.
        masker: knows the secrets, of which the process may come to know more.
    """
    repository = None if "git" in omit else _found(lambda: _repository(folder))
    parts: list[Part] = [("program", lambda: _program(repository, folder))]
    if repository is not None:
        parts += [
            ("git", lambda: {"git": repository.facts()}),
            ("diff", lambda: _diff(repository, masker)),
            ("untracked", lambda: _untracked(repository, masker, with_code="diff" not in omit)),
        ]
    found = _entries(omit, *parts)
    texts = {name: found.pop(name) for name in _CODE if name in found}
    return {**masker.data(found), **texts}


def _repository(folder: Path) -> git.Repository | None:
    """Return the repository of the working folder, as W&B has it, else that of the program.

    A program of the Python environment, such as `pytest` or `jupyter`, says nothing of the user's code,
    though that environment may lie in a repository.
    """
    file = program.program_file()
    is_own = file is not None and not file.is_relative_to(sys.prefix)
    return git.repository_at([folder, *([file.parent] if file and is_own else [])])


def _program(repository: git.Repository | None, folder: Path) -> dict[str, Any]:
    return {
        "program": program.program_name(repository.root if repository else folder),
        "cwd": str(folder),
        "executable": sys.executable,
    }


def _packages(masker: Masker) -> dict[str, Any]:
    installed = _installed(masker, installation_state())
    return {"packages": installed.versions, "installed_from": installed.origins}


@lru_cache(maxsize=1)
def _installed(masker: Masker, _: State) -> packages.Packages:
    """Return what is installed, masked."""
    found = packages.installed_packages()
    return packages.Packages(masker.data(found.versions), masker.data(found.origins))


def _devices(masker: Masker) -> dict[str, Any]:
    devices: dict[str, Any] = _found(machine.jax_devices) or {}
    installed = _installed(masker, installation_state())
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
