"""Push: the replay of a recorded run into a hosted backend, with a ledger of what its server confirmed.

The server is read first, and only what it does not have is sent.  Success is what the server says it has,
read back afterwards; never an exit code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, final

from tracklayer.errors import BackendUnavailableError, TracklayerError
from tracklayer.ledger import Ledger
from tracklayer.protocol import Received, RunInfo
from tracklayer.reading import Row, RunReader
from tracklayer.replaying import replay
from tracklayer.settings import Settings

if TYPE_CHECKING:
    from tracklayer.protocol import Backend

Outcome = Literal["sent", "unchanged", "would send", "unconfirmed", "failed"]
OK_OUTCOMES: Final[frozenset[Outcome]] = frozenset({"sent", "unchanged", "would send"})
_CONFIRM_SECONDS: Final = 30.0  # a server may take a moment to count what it was just sent
_FINISH_SECONDS: Final = 3600.0  # of a push: the rows may be many, and nobody's training waits


@final
@dataclass(frozen=True, slots=True)
class PushReport:
    """What became of one run's push: `rows` were sent (or would be), of `total` that the run has."""

    run_id: str
    outcome: Outcome
    rows: int
    total: int
    message: str
    url: str | None = None


def push(
    reader: RunReader,
    backend: Backend,
    store: Path,
    *,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
) -> PushReport:
    """Send what the server does not have yet, and read back that it has it.

    Args:
        reader: the run.
        backend: a hosted backend.
        store: the run's store, where the ledger lies.
        dry_run: only say what would be sent.
        progress: told the number of rows sent so far.

    Returns:
        What happened; an error of ours or of the network is a report, not an exception.
    """
    try:
        return _push(reader, backend, store, dry_run=dry_run, progress=progress)
    except (TracklayerError, OSError) as error:
        return PushReport(reader.id, "failed", 0, 0, str(error))


def _push(
    reader: RunReader,
    backend: Backend,
    store: Path,
    *,
    dry_run: bool,
    progress: Callable[[int], None] | None,
) -> PushReport:
    if backend.received is None:
        msg = f"backend {backend.name!r} has no server to push to"
        raise BackendUnavailableError(msg)
    backend.check()
    info, revision = reader.info, reader.revision
    ledger = Ledger(store, info.id)
    target = target_of(backend, info)
    confirmed = ledger.entry(target)
    if confirmed.get("revision") == revision:
        rows = int(confirmed.get("rows", 0))
        return PushReport(info.id, "unchanged", 0, rows, "sent before", confirmed.get("url"))

    found = backend.received(info)
    total, lacking = _count(reader, found)
    if dry_run:
        return PushReport(info.id, "would send", lacking, total, _lack(reader, found, lacking, confirmed))
    if found is None or not _is_complete(reader, info, found, lacking) or confirmed:
        _send(reader, backend, info, found, store, progress)
        found = _read_back(reader, backend, info)
    if found is None:
        return PushReport(info.id, "unconfirmed", lacking, total, "the server does not show the run")
    _, still = _count(reader, found)
    if not _is_complete(reader, info, found, still):
        message = f"the server still lacks {_lack(reader, found, still, {})}; push again"
        return PushReport(info.id, "unconfirmed", lacking - still, total, message, found.url)
    ledger.confirm(
        target,
        {"revision": revision, "rows": total, "url": found.url, "confirmed_at": time.time()},
    )
    message = "confirmed by the server" if lacking else "the server had every row"
    return PushReport(info.id, "sent", lacking, total, message, found.url)


def target_of(backend: Backend, info: RunInfo) -> str:
    """Return the name under which the ledger keeps a target."""
    return f"{backend.name}:{info.entity or ''}/{info.project}"


def _send(
    reader: RunReader,
    backend: Backend,
    info: RunInfo,
    found: Received | None,
    store: Path,
    progress: Callable[[int], None] | None,
) -> None:
    settings = Settings(
        backends=(backend.name,), dir=store, finish_timeout=_FINISH_SECONDS, replaying=True
    )
    run = backend.open(info, "never" if found is None else "must", settings)
    replay(
        reader,
        run,
        missing=lambda row: lacking_of(row, found),
        without_artifacts=found.artifacts if found else (),
        progress=progress,
    )


def _read_back(reader: RunReader, backend: Backend, info: RunInfo) -> Received | None:
    """Ask until the server shows everything, or time is up."""
    deadline, pause = time.monotonic() + _CONFIRM_SECONDS, 0.2
    while True:
        found = backend.received(info) if backend.received else None
        if found is not None and _is_complete(reader, info, found, _count(reader, found)[1]):
            return found
        if time.monotonic() + pause > deadline:
            return found
        time.sleep(pause)
        pause *= 2


def lacking_of(row: Row, found: Received | None) -> Row | None:
    """Return what of a row the server does not have; None for nothing."""
    if found is None:
        return row
    present = found.keys.get(row.step, frozenset())
    if row.values.keys() <= present:
        return None
    return row._replace(values={k: v for k, v in row.values.items() if k not in present})


def _count(reader: RunReader, found: Received | None) -> tuple[int, int]:
    """Return how many rows the run has, and how many of them the server lacks, wholly or in part."""
    total = lacking = 0
    for row in reader.rows():
        total += 1
        lacking += lacking_of(row, found) is not None
    return total, lacking


def _is_complete(reader: RunReader, info: RunInfo, found: Received, lacking: int) -> bool:
    names = {artifact.name for artifact in reader.artifacts()}
    return not lacking and names <= found.artifacts and _same_end(info, found)


def _same_end(info: RunInfo, found: Received) -> bool:
    """Say whether the run ended there as it did here; a server may show a failed run as crashed."""
    ill = {"failed", "crashed"}
    return info.state == found.state or (info.state in ill and found.state in ill)


def _lack(
    reader: RunReader, found: Received | None, lacking: int, confirmed: Mapping[str, object]
) -> str:
    names = {artifact.name for artifact in reader.artifacts()}
    parts = [f"{lacking} rows"] if lacking else []
    missing = sorted(names - (found.artifacts if found else frozenset()))
    if missing:
        parts.append(f"artifacts {', '.join(missing)}")
    if found is not None and not _same_end(replace(reader.info), found):
        parts.append(f"the state {reader.info.state!r} (it shows {found.state!r})")
    if not parts:
        parts.append("config and summary" if confirmed else "nothing")
    return ", ".join(parts)
