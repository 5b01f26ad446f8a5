"""Finding the run that a person means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracklayer.errors import RunNotFoundError

if TYPE_CHECKING:
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
