"""Where `tracklayer push` goes: a server's project, or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tracklayer import registry, settings
from tracklayer.errors import UsageError

if TYPE_CHECKING:
    from tracklayer.cli.push import PushOne
    from tracklayer.protocol import Backend
    from tracklayer.push_report import Progress, PushReport
    from tracklayer.reading import RunReader


def pusher(
    to: str | None, run_id: str | None, store: Path, *, seconds: float, dry_run: bool, force: bool
) -> PushOne:
    """Return what pushes one run to where it is to go.

    Args:
        to: what `--to` says: `ENTITY/PROJECT`, or `BACKEND:` and a folder or again `ENTITY/PROJECT`.
        run_id: what it is called there; None for what it is called here.
        store: the run's store.
        seconds: how long a push to a server may take.
        dry_run: only say what would be sent.
        force: also where another run has its id.

    Raises:
        UsageError: there is no such place.
        BackendUnavailableError: the backend cannot be used here.
    """
    backend, where = _split(to)
    backend.check()
    if backend.hosted:
        from tracklayer.push_report import Place
        from tracklayer.pushing import push

        entity, project = _project(where)
        place = Place(entity, project, run_id)

        def push_there(reader: RunReader, progress: Progress) -> PushReport:
            return push(
                reader,
                backend,
                store,
                place=place,
                dry_run=dry_run,
                force=force,
                seconds=seconds,
                progress=progress,
            )

        return push_there
    from tracklayer.copying import push_to_folder
    from tracklayer.push_report import Place

    if not where:
        msg = f"--to {to!r}: name a folder, as in --to {backend.name}:FOLDER"
        raise UsageError(msg)
    folder = Path(where).expanduser().absolute()
    place = Place(run_id=run_id)

    def copy_there(reader: RunReader, progress: Progress) -> PushReport:
        return push_to_folder(
            reader, backend, folder, store, place=place, dry_run=dry_run, force=force, progress=progress
        )

    return copy_there


def _split(to: str | None) -> tuple[Backend, str]:
    name, colon, where = (to or "").partition(":")
    if not colon:
        return registry.load(settings.ONLINE_BACKEND), to or ""
    return registry.load(name), where


def _project(where: str) -> tuple[str | None, str | None]:
    if not where:
        return None, None
    entity, slash, project = where.partition("/")
    if not entity or not project or "/" in project:
        msg = f"--to {where!r}: use ENTITY/PROJECT, or BACKEND:FOLDER"
        raise UsageError(msg)
    del slash
    return entity, project
