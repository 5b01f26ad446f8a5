"""The store's folder, kept out of version control where it is ours alone; and files that come to it whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_OURS: Final = frozenset(
    {"runs", "tensorboard", "blobs", "ledgers", "artifacts", "incoming", "claims", "sweeps"}
)


def make_store(store: Path) -> None:
    """Make the folder if it is not there; one that holds nothing but a store gets its own `.gitignore`.

    Raises:
        OSError: it cannot be written.
    """
    store.mkdir(parents=True, exist_ok=True)
    if _OURS.issuperset(entry.name for entry in store.iterdir()):  # not a project's folder, as with dir="."
        (store / ".gitignore").write_text("*\n", encoding="utf-8")


def move_new(source: Path, target: Path) -> None:
    """Give a file a name that is not taken.

    Raises:
        FileExistsError: it is.
        OSError: it cannot be moved.
    """
    try:
        os.link(source, target)  # fails, where a rename would overwrite what just came there
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        target.touch(exist_ok=False)
        source.replace(target)
