"""Finding the run, the keys in it, and the artifacts and sweeps that a person means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracklayer.errors import RunNotFoundError, SweepNotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tracklayer.artifacts.catalog import Catalog, Version
    from tracklayer.reading import RunReader, Store
    from tracklayer.sweeps.study import SweepStudy


def find_run(store: Store, ref: str, project: str | None = None) -> RunReader:
    """Return the run with this id, unique id prefix, or name.

    Raises:
        RunNotFoundError: there is none.
        AmbiguousRunError: there are several.
        StoreError: its file cannot be read.
    """
    try:
        if project is None:
            return store.run(ref)
        from tracklayer.reading import pick_run

        return pick_run(store.runs(project=project), ref, store.path)
    except RunNotFoundError:
        for unreadable in store.unreadable():
            if ref and unreadable.name.startswith(ref):
                raise unreadable.error from None  # "no such run" would be wrong
        raise


def find_keys(known: Sequence[str], wanted: Sequence[str], where: str) -> list[str]:
    """Return the known keys that are among the wanted ones, or match one as a pattern (`*`, `?`, `[abc]`).

    Raises:
        UsageError: a wanted one finds none; the message says `where` that was, and lists close ones.
    """
    from fnmatch import fnmatchcase

    from tracklayer.naming import did_you_mean

    found = {want: {key for key in known if key == want or fnmatchcase(key, want)} for want in wanted}
    for want, keys in found.items():
        if not keys:
            msg = f"{where} {want!r}{did_you_mean(want, known)}"
            raise UsageError(msg)
    return [key for key in known if any(key in keys for keys in found.values())]


def catalog_of(store: Store) -> Catalog:
    """Return the versions of the store's artifacts, wherever `TRACKLAYER_ARTIFACTS` says that they lie."""
    from tracklayer.artifacts.catalog import Catalog
    from tracklayer.artifacts.locations import locate
    from tracklayer.settings import artifacts_url

    return Catalog(locate(artifacts_url(), store.path))


def find_version(catalog: Catalog, ref: str, project: str | None) -> Version:
    """Return the version that a reference such as `name:v3` names.

    Raises:
        ArtifactNotFoundError: there is none.
        AmbiguousArtifactError: several projects have an artifact of that name.
        UsageError: no reference has this form, or it names another project.
        StoreError: it cannot be read.
    """
    *places, _ = ref.partition(":")[0].split("/")
    if project is not None and places and places[-1] != project:
        msg = f"{ref!r} is in project {places[-1]!r}, not in {project!r}, which --project names"
        raise UsageError(msg)
    return catalog.find(ref, project)


def find_sweep(folder: Path | None, ref: str) -> SweepStudy:
    """Return the sweep with this id, or unique beginning of one.

    Raises:
        SweepNotFoundError: there is none, or there are several.
        BackendUnavailableError: what sweeps need is not installed.
        StoreError: it cannot be read.
    """
    from tracklayer.settings import store_folder
    from tracklayer.sweeps import agents

    try:
        return agents.find_sweep(store_folder(folder), ref)
    except SweepNotFoundError as error:
        if not server_has_sweeps(folder):
            raise
        msg = f"{error}; one of W&B's server is looked after on its page there"
        raise SweepNotFoundError(msg) from None


def server_has_sweeps(folder: Path | None) -> bool:
    """Say whether new sweeps are a server's, by the backend that was chosen."""
    from tracklayer.settings import read_settings
    from tracklayer.sweeps.creating import hosted_sweeps

    return hosted_sweeps(read_settings(dir=folder)) is not None
