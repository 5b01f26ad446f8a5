"""What a process of a run was, as the client tells it: the record, and the files beside it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from tracklayer_wandb.messages import pb

if TYPE_CHECKING:
    from tracklayer.protocol import RunInfo
    from tracklayer.surroundings import Environment

METADATA: Final = "wandb-metadata.json"
"""The file that the client makes of the record."""
_FIELDS: Final = {
    "os": "os",
    "host": "host",
    "user": "username",
    "executable": "executable",
    "cpu_count": "cpu_count",
    "cpu_count_logical": "cpu_count_logical",
}
"""Entries that the record has as they are, and what it calls them."""


def environment_record(environment: Environment, writer: str) -> Any:
    """Return the client's record of an environment."""
    known = {field: environment[name] for name, field in _FIELDS.items() if name in environment}
    git: Mapping[str, Any] = environment.get("git", {})
    gpus: Sequence[str] = environment.get("gpus", ())
    python: str | None = environment.get("python")
    record: Any = pb.EnvironmentRecord(
        writer_id=writer,
        **known,
        program=program_path(environment),
        python=python and f"CPython {python}",
        args=environment.get("args"),
        code_path=environment.get("program"),
        code_path_local=environment.get("program"),
        root=git.get("root") or environment.get("cwd"),
        git=git_record(git) if git else None,
        gpu_type=gpus[0] if gpus else None,
        gpu_count=len(gpus),
        gpu_nvidia=[pb.GpuNvidiaInfo(name=name) for name in gpus],
        slurm={name: str(value) for name, value in environment.get("slurm", {}).items()},
    )
    if "started_at" in environment:
        record.started_at.FromNanoseconds(round(environment["started_at"] * 1e9))
    if "cpu" in environment:
        record.cpu.model = environment["cpu"]
    if "memory_bytes" in environment:
        record.memory.total = environment["memory_bytes"]
    return record


def program_path(environment: Environment) -> str | None:
    """Return the program as the client names it: by its whole path, as far as that is known."""
    program: str | None = environment.get("program")
    root = environment.get("git", {}).get("root") or environment.get("cwd")
    if program is None or root is None or program.startswith("-m "):
        return program
    return str(PurePath(root, program))


def git_record(git: Mapping[str, Any]) -> Any:
    """Return the client's record of a commit."""
    return pb.GitRepoRecord(commit=git.get("commit"), remote_url=git.get("remote"))


def environment_files(environment: Environment) -> dict[str, str]:
    """Return the texts of the files, by name, in which the client keeps packages and uncommitted changes."""
    files: dict[str, str] = {}
    if packages := environment.get("packages"):
        files["requirements.txt"] = "".join(f"{name}=={packages[name]}\n" for name in sorted(packages))
    if diff := environment.get("diff"):
        files["diff.patch"] = diff
    return files


def writer_id(info: RunInfo) -> str:
    """Return what stands for the writer of a run's record; the same in each push."""
    seed = hashlib.sha256(f"{info.id}\n{info.created_at!r}".encode()).digest()
    return str(uuid.UUID(bytes=seed[:16], version=4))


def told_live(kept: Mapping[str, Any], writer: str) -> dict[str, Any]:
    """Return what a run's own client told of its processes, and no push: by the client's key.

    Args:
        kept: what the server has in the config below `_wandb`.
        writer: the pushes' own `writer_id`.
    """
    told: Mapping[str, Any] = kept.get("e") or {}
    return {key: one for key, one in told.items() if one.get("writerId") != writer}


def began_since(told: Mapping[str, Any], time: float) -> bool:
    """Say whether one of these processes began at a time, given in Unix seconds, or later."""
    starts = (one.get("startedAt") for one in told.values())
    return any(datetime.fromisoformat(start).timestamp() >= time for start in starts if start)
