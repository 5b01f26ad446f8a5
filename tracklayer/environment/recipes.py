"""What it takes to run a recorded run again, as far as its record says it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import unquote

from tracklayer.environment.git import file_of, repository_at, split_diff
from tracklayer.environment.masking import MASK

if TYPE_CHECKING:
    from tracklayer.artifacts.records import LoggedArtifact
    from tracklayer.reading import RunReader
    from tracklayer.surroundings import Environment

_COMMIT: Final = re.compile(r"[0-9a-f]{40,64}")
_PACKAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_ORIGIN: Final = re.compile(r"(git|hg|svn|bzr)\+\S+|https?://\S+")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PYTHON: Final = re.compile(r"\d+\.\d+")
_BINARY: Final = re.compile(r"^Binary files .* differ$", re.MULTILINE)
_NAMED: Final = 10
"""How many files a line names."""


@final
@dataclass(frozen=True, slots=True)
class Recipe:
    """How to run a run again, as far as it is recorded.  What lies in the record is quoted, never believed.

    Attributes:
        title: what the run is, in one line.
        commit: what to check out; None where there is none.
        sources: where a repository with it may be: a path of this machine, then the remote.
        diff: what is to be applied to the commit; empty for nothing.
        snapshot: the artifact with the code.
        folder: the working folder, in the code.
        python: such as `3.11`.
        requirements: lines of pip's.
        variables: environment variables.
        command: what follows `python`; empty where it is not known.
        lacking: what is not recorded, or cannot be brought back, a sentence each.
    """

    title: str
    commit: str | None = None
    sources: tuple[str, ...] = ()
    diff: str = ""
    snapshot: LoggedArtifact | None = None
    folder: str = "."
    python: str | None = None
    requirements: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    command: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()


def recipe(reader: RunReader, environment: Environment) -> Recipe:
    """Return how to run a run again.

    Args:
        reader: the run.
        environment: what its process was, of the segment that is to be run again.
    """
    git: dict[str, Any] = environment.get("git") or {}
    commit = git.get("commit") if _COMMIT.fullmatch(str(git.get("commit"))) else None
    root = PurePosixPath(git["root"]) if "root" in git else None
    sources = _sources(git, commit) if commit else ()
    snapshot = _snapshot(reader, environment, has_commit=commit is not None)
    folder, outside = _folder(environment, root)
    command, strange = _command(environment, folder, root)
    requirements, by_hand = _requirements(environment, root)
    variables: dict[str, str] = environment.get("variables", {})
    return Recipe(
        title=f"run {reader.id} ({reader.info.name}) of {reader.info.project}",
        commit=commit,
        sources=sources,
        diff="".join(part for part in _changes(environment) if not _BINARY.search(part)),
        snapshot=snapshot,
        folder=folder,
        python=_python(environment),
        requirements=requirements,
        variables={k: v for k, v in variables.items() if _VARIABLE.fullmatch(k) and MASK not in v},
        command=command,
        lacking=(
            *_lacking_code(environment, sources, snapshot),
            *outside,
            *strange,
            *by_hand,
            *_masked(environment),
        ),
    )


def _changes(environment: Environment) -> list[str]:
    """Return how files were changed or added, a part of a diff each."""
    return split_diff(environment.get("diff", "")) + split_diff(environment.get("untracked_code", ""))


def _snapshot(reader: RunReader, environment: Environment, *, has_commit: bool) -> LoggedArtifact | None:
    made = [artifact for artifact in reader.artifacts() if artifact.type == "code"]
    own = [artifact for artifact in made if artifact.label == environment.get("code")]
    # what `log_code` made is of the working folder, which is not that of the repository
    return own[-1] if own else made[-1] if made and not has_commit else None


def _sources(git: Mapping[str, Any], commit: str) -> tuple[str, ...]:
    """Return where the commit may be had: here, if the repository still is; and at the remote."""
    root, remote = git.get("root"), git.get("remote")
    repository = repository_at([Path(root)]) if root and Path(root).is_dir() else None
    local = [str(root)] if repository is not None and repository.has(commit) else []
    return (*local, *([str(remote)] if remote else []))


def _folder(environment: Environment, root: PurePosixPath | None) -> tuple[str, list[str]]:
    """Return the working folder in the code, and what is to be said about it."""
    cwd = PurePosixPath(environment.get("cwd", ""))
    if root is None:  # then the code is that of the working folder
        return ".", []
    if cwd.is_relative_to(root) and ".." not in cwd.parts:
        return cwd.relative_to(root).as_posix(), []
    return ".", [f"It ran in {cwd}, which is not in the repository: here it runs at the top of that."]


def _command(
    environment: Environment, folder: str, root: PurePosixPath | None
) -> tuple[tuple[str, ...], list[str]]:
    """Return what follows `python`, and what is to be said about it."""
    program = str(environment.get("program", ""))
    arguments = [str(argument) for argument in environment.get("args", [])]
    if not program:
        return (), ["Its program is not known: it was interactive, `python -c`, or left out."]
    if program.startswith("-m "):
        return ("-m", program.removeprefix("-m "), *arguments), []
    if PurePosixPath(program).is_absolute() or ".." in PurePosixPath(program).parts:
        return (program, *arguments), [f"Its program {program} is not part of the code."]
    path = program if root is None else posixpath.relpath(program, folder)
    return (f"./{path}" if path.startswith("-") else path, *arguments), []


def _requirements(environment: Environment, root: PurePosixPath | None) -> tuple[tuple[str, ...], list[str]]:
    """Return the lines for pip, and what is to be said about packages that it cannot have."""
    origins: dict[str, str] = environment.get("installed_from", {})
    lines, elsewhere = list[str](), list[str]()
    for name, version in environment.get("packages", {}).items():
        origin = str(origins.get(name, ""))
        folder = PurePosixPath(unquote(origin.removeprefix("-e ").removeprefix("file://")))
        if not _PACKAGE.fullmatch(name) or not _VERSION.fullmatch(str(version)) or name.lower() == "pip":
            continue
        if _ORIGIN.fullmatch(origin):
            lines.append(f"{name} @ {origin}")
        elif origin and root is not None and folder.is_relative_to(root) and ".." not in folder.parts:
            inner = posixpath.normpath(f"code/{folder.relative_to(root).as_posix()}")
            lines.append(f"{'-e ' if origin.startswith('-e ') else ''}./{inner}")
        elif origin:
            elsewhere.append(f"{name} {version} ({origin.removeprefix('-e ')})")
        else:
            lines.append(f"{name}=={version}")
    strange = [f"Not from an index, and to be installed by hand: {_some(elsewhere)}."] if elsewhere else []
    if not environment.get("packages"):
        strange.append("Its packages are not recorded.")
    return tuple(line for line in lines if line.isprintable()), strange


def _python(environment: Environment) -> str | None:
    found = _PYTHON.match(str(environment.get("python", "")))
    return found[0] if found else None


def _lacking_code(
    environment: Environment, sources: Sequence[str], snapshot: LoggedArtifact | None
) -> list[str]:
    git: dict[str, Any] = environment.get("git") or {}
    lacking: list[str] = []
    if not git and snapshot is None:
        lacking.append("Its code is not recorded: no git repository was known, and no snapshot made.")
    elif git and "commit" not in git:
        lacking.append(f"The repository {git.get('root', '')} had no commit.")
    elif git and not sources:
        at = f"{git.get('root', 'a folder')} on {environment.get('host', 'its host')}"
        lacking.append(f"The repository has no remote, and is not here: it was {at}.")
    kept = {file.path for file in snapshot.files} if snapshot else set[str]()
    parts = split_diff(environment.get("diff", ""))
    without = [*environment.get("diff_without", []), *(file_of(p) for p in parts if _BINARY.search(p))]
    changed = [path for path in without if path not in kept]
    if changed:
        lacking.append(f"Changed, and it is not recorded how: {_some(changed)}.")
    elif git.get("dirty") and not parts and not without:
        lacking.append("Files were changed, and it is not recorded how.")
    kept |= {file_of(part) for part in split_diff(environment.get("untracked_code", ""))}
    untracked = [
        f"{path} (but for its code)" if any(name.startswith(path) for name in kept) else path
        for path in environment.get("untracked", [])
        if path not in kept
    ]
    if untracked:
        lacking.append(f"Not known to git, and not recorded: {_some(untracked)}.")
    return lacking


def _masked(environment: Environment) -> list[str]:
    masked = [name for name, value in environment.get("variables", {}).items() if MASK in value]
    said = [f"Secrets are recorded as {MASK}: put them into {', '.join(masked)}."] if masked else []
    if any(MASK in argument for argument in environment.get("args", [])):
        said.append(f"Secrets in its arguments are recorded as {MASK}: put them in.")
    if any(MASK in part for part in _changes(environment)):
        said.append(f"The changes may hold secrets, which are recorded as {MASK}.")
    return said


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
