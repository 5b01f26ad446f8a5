"""The program's code as an artifact: the program and its local imports, or the code below a folder."""

from __future__ import annotations

import inspect
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from tracklayer import reporting
from tracklayer.artifacts.artifact import Artifact
from tracklayer.environment.git import INSTALLED, repository_at
from tracklayer.environment.masking import Masker, is_private_path, process_variables
from tracklayer.environment.program import program_file

FILE_BYTES: Final = 1_000_000
ALL_BYTES: Final = 20_000_000
_NO_NAME: Final = re.compile(r"[^a-zA-Z0-9_\-.]")

Choice: TypeAlias = Callable[[str, str], bool] | Callable[[str], bool]
"""Says yes or no of a file's path; W&B's may also take the folder that is walked."""


def is_code(path: str) -> bool:
    """Say whether a file is Python's, a `requirements*` or a `Dockerfile*`, as W&B has it."""
    name = Path(path).name
    return name.endswith(".py") or name.startswith(("requirements", "Dockerfile"))


def is_of_wandb(path: str, root: str) -> bool:
    """Say whether a file lies in one of the folders where W&B's client keeps its own, as W&B has it."""
    return Path(path).relative_to(root).parts[0] in {"wandb", ".wandb"}


def imported_code(project: str, name: str | None = None) -> Artifact | None:
    """Return the program and those of its imports that are no installed packages; None if there are none.

    Args:
        project: the run's, which is part of the artifact's name.
        name: the artifact's, if it is to have another.
    """
    program = _program()
    root = _root(program)
    files = sorted({*_modules(), program or root})
    own = [file for file in files if file.is_relative_to(root) and _is_own(file, root)]
    return _artifact(name or _name(project, program), root, own)


def code_below(
    root: str | os.PathLike[str], project: str, name: str | None, include: Choice, exclude: Choice
) -> Artifact | None:
    """Return the code below a folder: see `ActiveRun.log_code`."""
    folder = Path(root).absolute()
    includes, excludes = _with_root(include), _with_root(exclude)
    chosen = [
        file
        for file in _files_below(folder)
        if includes(str(file), str(folder)) and not excludes(str(file), str(folder))
    ]
    if not chosen:
        reporting.warn(f"log_code: no code is found below {folder}, and none is recorded")
    return _artifact(name or _name(project, _program()), folder, chosen)


def _artifact(name: str, root: Path, files: Iterable[Path]) -> Artifact | None:
    """Return an artifact with files below a folder, in which what looks like a secret is `***`."""
    artifact = Artifact(name, "code")
    masker, left, left_out = Masker(process_variables()), ALL_BYTES, list[str]()
    is_empty = True
    for file in files:
        path = file.relative_to(root).as_posix()
        size = file.stat().st_size
        if size > min(FILE_BYTES, left):
            left_out.append(path)
            continue
        left, is_empty = left - size, False
        text = file.read_bytes().decode(errors="surrogateescape")
        masked = masker.code(text)
        if masked == text:
            artifact.add_file(file, path)
        else:
            with artifact.new_file(path, "wb") as copy:
                copy.write(masked.encode(errors="surrogateescape"))
    if left_out:
        limits = f"{FILE_BYTES // 1_000_000} MB a file, {ALL_BYTES // 1_000_000} MB in all"
        reporting.warn(f"code that is too large is not recorded ({limits}): {', '.join(left_out[:10])}")
    return None if is_empty else artifact


def _program() -> Path | None:
    """Return the program's file, where it really is."""
    file = program_file()
    return None if file is None else Path(os.path.realpath(file))


def _root(program: Path | None) -> Path:
    """Return git's root, or the working folder if the program lies below it, else the program's folder."""
    cwd = Path(os.path.realpath(Path.cwd()))
    repository = repository_at([cwd, *([program.parent] if program else [])])
    if repository is not None:
        return repository.root
    return cwd if program is None or program.is_relative_to(cwd) else program.parent


def _name(project: str, program: Path | None) -> str:
    """Return what W&B calls the code of a program; in the middle of a long name is `..`."""
    root = _root(program)
    path = program.relative_to(root).as_posix() if program and program.is_relative_to(root) else program
    name = _NO_NAME.sub("_", f"source-{project}-{path}")
    return name if len(name) <= 128 else f"{name[:63]}..{name[-63:]}"


def _modules() -> Iterator[Path]:
    """Yield the files of the modules that are imported."""
    for module in list(sys.modules.values()):
        # not `module.__file__`, for which a module that loads itself lazily might do so
        file = cast("dict[str, Any]", getattr(module, "__dict__", {})).get("__file__")
        if isinstance(file, str) and file.endswith(".py"):
            yield Path(os.path.realpath(file))


def _is_own(file: Path, root: Path) -> bool:
    path = file.relative_to(root)
    of_python = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    return (
        INSTALLED.isdisjoint(path.parts)
        and not is_private_path(path.as_posix())
        and not any(file.is_relative_to(folder) for folder in of_python)
        and file.is_file()
    )


def _files_below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not is_private_path(f) and f not in INSTALLED)
        for name in sorted(names):
            file = Path(place, name)
            if not is_private_path(name) and file.is_file():
                yield file


def _with_root(choice: Choice) -> Callable[[str, str], bool]:
    if len(inspect.signature(choice).parameters) == 2:
        return cast("Callable[[str, str], bool]", choice)
    alone = cast("Callable[[str], bool]", choice)
    return lambda path, _: alone(path)
