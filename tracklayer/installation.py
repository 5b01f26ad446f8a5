"""By what a process sees that something was installed: what it read of packages holds until then."""

from __future__ import annotations

import os
import sys
from typing import TypeAlias

State: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""Of each entry of the import path: its name, device, inode, and when it was changed (ns)."""


def installation_state() -> State:
    """Return what changes when a package is installed, removed or updated, or can be found elsewhere.

    `importlib.metadata` goes by the same: by the times of the folders with packages, since the name of what
    it reads has the package's version.
    """
    return tuple(found for entry in list(sys.path) if (found := _state_of(entry)) is not None)


def _state_of(entry: str) -> tuple[str, int, int, int] | None:
    try:
        status = os.stat(entry or ".")  # noqa: PTH116 - it takes a third of the time
    except (OSError, ValueError):  # it is not there
        return None
    return entry, status.st_dev, status.st_ino, status.st_mtime_ns
