"""The push ledger: what each target has confirmed of a run.

A small JSON file a run, beside the run's file and never in it, because another machine may be writing that
one.  It is replaced by rename.  Lost or not copied along, it costs a look at the server, nothing else.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, cast, final

from tracklayer.naming import file_name


@final
class Ledger:
    """What the targets of one run's pushes have confirmed."""

    def __init__(self, store: Path, run_id: str) -> None:
        self._path = store / "ledgers" / f"{file_name(run_id)}.json"

    def entry(self, target: str) -> dict[str, Any]:
        """Return what a target confirmed last: `revision`, `rows`, `url`, `confirmed_at`; or nothing."""
        found = self._read().get(target, {})
        return cast("dict[str, Any]", found) if isinstance(found, dict) else {}

    def confirm(self, target: str, entry: dict[str, Any]) -> None:
        """Record what a target confirmed.

        Raises:
            OSError: the store cannot be written.
        """
        entries = {**self._read(), target: entry}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{self._path.name}-", dir=self._path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(entries, file, indent=1)
            Path(name).replace(self._path)
        finally:
            Path(name).unlink(missing_ok=True)

    def targets(self) -> dict[str, dict[str, Any]]:
        """Return every target's entry."""
        return self._read()

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}  # none yet, or torn by another program: the server knows
        return cast("dict[str, Any]", entries) if isinstance(entries, dict) else {}
