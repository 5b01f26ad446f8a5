"""Finding the run, the keys in it, and the artifacts that a person means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracklayer.errors import RunNotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracklayer.artifacts.catalog import Catalog, Version
    from tracklayer.reading import RunReader, Store


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
