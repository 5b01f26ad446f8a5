"""The files below a folder, in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tracklayer.errors import UsageError


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, sorted.  Links are followed to what lies below it, too.

    Raises:
        UsageError: a link leads out of the folder, or back into a folder above it; or something is neither a
            file nor a folder.
        FileNotFoundError: a link leads to nothing.
        OSError: a folder cannot be read.
    """
    yield from _files(folder, Path(os.path.realpath(folder)), ())


def _files(folder: Path, root: Path, above: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        msg = f"{folder} is a link to a folder above it: what lies below it has no end"
        raise UsageError(msg)
    with os.scandir(folder) as scanned:
        entries = sorted(scanned, key=lambda entry: entry.name)
    for entry in entries:
        path = folder / entry.name
        if entry.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
            msg = f"{path} is a link that leads out of {root}"
            raise UsageError(msg)
        if path.is_dir():
            yield from _files(path, root, (*above, real))
        elif path.is_file():
            yield path
        elif entry.is_symlink():
            msg = f"{path} is a link to nothing"
            raise FileNotFoundError(msg)
        else:
            msg = f"{path} is neither a file nor a folder"
            raise UsageError(msg)
