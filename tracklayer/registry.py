"""Which backends there are: those that installed distributions register.

A backend is an entry point of the group `tracklayer.backends` that names a `tracklayer.protocol.Backend`.
Our own are found the same way.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final

from tracklayer.errors import BackendUnavailableError, UnknownBackendError
from tracklayer.installation import State, installation_state
from tracklayer.protocol import Backend
from tracklayer.reading import Store
from tracklayer.settings import LOCAL_BACKEND, store_folder

GROUP: Final = "tracklayer.backends"


def registered() -> dict[str, EntryPoint]:
    """Return the registered backends by name, sorted."""
    return dict(_registered(installation_state()))


@lru_cache(maxsize=1)
def _registered(_: State) -> dict[str, EntryPoint]:
    """Read them: that takes 5 ms, for a few hundred packages."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    return dict(sorted(found.items()))


def load(name: str) -> Backend:
    """Return the backend of this name.

    Raises:
        UnknownBackendError: nothing registers it; the message lists what there is.
        BackendUnavailableError: its plug-in cannot be imported.
    """
    points = registered()
    if name not in points:
        known = ", ".join(points) or "none: install tracklayer itself with pip"
        msg = (
            f"unknown backend {name!r}; installed are: {known}. A backend of another distribution is "
            f"found once that is installed (entry point group {GROUP!r})"
        )
        raise UnknownBackendError(msg)
    try:
        backend = points[name].load()
    except Exception as error:
        msg = f"backend {name!r} is registered by {points[name].value!r}, which fails: {error}"
        raise BackendUnavailableError(msg) from error
    if not isinstance(backend, Backend):
        msg = f"backend {name!r}: {points[name].value!r} is no tracklayer.protocol.Backend"
        raise BackendUnavailableError(msg)
    return backend


def open_store(path: str | Path | None = None) -> Store:
    """Open a store for reading.

    Args:
        path: the store's folder; by default that of `TRACKLAYER_DIR`, else `.tracklayer`.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """
    open_local = load(LOCAL_BACKEND).open_store
    if open_local is None:
        msg = f"backend {LOCAL_BACKEND!r} keeps nothing that can be read back"
        raise BackendUnavailableError(msg)
    return open_local(store_folder(path))
