"""The store's folder: made where there is none, and kept out of version control where it is ours alone."""

from __future__ import annotations

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
