"""Orbax at work: a tree of arrays written into a folder, behind the caller's back, and read from one.

Orbax can write one folder for each array, or pack all of them into a few files (OCDBT).  In the first layout,
arrays that did not change since another checkpoint are equal files, of which the store keeps one;
`benchmarks/checkpoints.py` shows that cutting packed files up by their content finds less.  But then each
array takes a file, and so states of small arrays are packed.
"""

# jax's and orbax's own types are partial
# mypy: disable-error-code="no-untyped-call, no-any-return, import-untyped"
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, final

import jax
import jax.numpy as jnp
import numpy as np

from tracklayer.errors import StoreError
from tracklayer.forking import tell_children
from tracklayer.jax.processes import place
from tracklayer.jax.structures import PYTHON_TYPES, Structure, leaf_name

_PACKED_BELOW: Final = 256 << 10
"""Bytes of a file on average, below which arrays share files.  Quotas of clusters allow for about one file a
megabyte."""
_PATIENCE: Final = 24 * 3600
"""Seconds that Orbax may take to write a checkpoint; by default, ten minutes."""
_PLAIN_NAME: Final = re.compile(r"(?!array_metadatas$)(?=.{1,200}$)[A-Za-z0-9][\w\-]*(\.[\w\-]+)*", re.ASCII)
"""Names that can be those of folders beside Orbax's own files."""


@final
class Writing:
    """A checkpoint that Orbax is writing; see `begin`."""

    def __init__(self, tree: Any, folder: Path) -> None:
        ocp, processes = _orbax(), _this_process()
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._is_done = False
        self._quiet = _Quiet()
        logging.getLogger("absl").addFilter(self._quiet)
        self._checkpointer: Any = ocp.AsyncCheckpointer(
            ocp.PyTreeCheckpointHandler(use_ocdbt=_is_packed(tree), multiprocessing_options=processes),
            async_options=ocp.AsyncOptions(timeout_secs=_PATIENCE),
            multiprocessing_options=processes,
        )
        try:
            folder.mkdir(parents=True)  # where Orbax cannot make one, its threads wait for it for minutes
            folder.rmdir()
            self._checkpointer.save(folder, args=ocp.args.PyTreeSave(tree))
        except Exception as error:  # noqa: BLE001 - of many kinds; raised by `wait`: training goes on
            self._error = error

    def wait(self) -> None:
        """Wait until Orbax has committed.

        Raises:
            StoreError: it could not write.
        """
        with self._lock:
            if not self._is_done:
                self._finish()
        if self._error is not None:
            said = str(self._error).partition("\n")[0] or type(self._error).__name__
            msg = f"Orbax could not write the checkpoint: {said}"
            raise StoreError(msg) from self._error

    def _finish(self) -> None:
        try:
            self._checkpointer.wait_until_finished()
        except Exception as error:  # noqa: BLE001 - as above
            self._error = self._error or error
        finally:
            self._checkpointer.close()
            self._is_done = True
            logging.getLogger("absl").removeFilter(self._quiet)


def begin(tree: Any, folder: Path) -> Writing:
    """Begin to write a tree into a new folder; its content is that of now, whatever becomes of the arrays.

    Waits until Orbax is done with the tree before, so that the memory never holds the copies of two.
    """
    return _writings.begin(tree, folder)


def read_like(folder: Path, like: Any) -> Any:
    """Read a tree that has the structure, shapes and dtypes of another, and put the arrays where its are."""
    return _read(folder, like, lambda _, leaf: _as_wanted(leaf))


def read_on_host(folder: Path, structure: Structure) -> Any:
    """Read a tree as dicts and lists of numpy arrays, random keys, and Python's numbers and strings."""
    return _read(folder, None, lambda name, _: _as_described(structure[name]))


@final
class _Writings:
    """What this process writes: one checkpoint at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: Writing | None = None
        tell_children(self)

    def begin(self, tree: Any, folder: Path) -> Writing:
        with self._lock:
            if self._latest is not None:
                with suppress(StoreError):  # whose it was hears of it
                    self._latest.wait()
            self._latest = Writing(tree, folder)
            return self._latest

    def after_fork_in_child(self) -> None:
        """The threads that write are the parent's."""
        self._lock = threading.Lock()
        self._latest = None


_writings: Final = _Writings()


@final
class _Quiet(logging.Filter):
    """Keeps back what Orbax logs while it writes: every error is raised, too, and reported once."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is somebody else's."""
        return "orbax" not in Path(record.pathname).parts


def _is_packed(tree: Any) -> bool:
    """Say whether arrays share files: small ones do, and those whose names are no names of files."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    size = sum(getattr(leaf, "nbytes", 0) for _, leaf in found)
    if size < _PACKED_BELOW * sum(_files(leaf) for _, leaf in found):
        return True
    names = [leaf_name(path) for path, _ in found]
    distinct = {name.lower() for name in names}  # on some file systems, case does not count
    return len(distinct) < len(names) or not all(map(_PLAIN_NAME.fullmatch, names))


def _files(leaf: Any) -> int:
    """Return how many files hold a leaf that shares none: one for each part of an array in several."""
    if not isinstance(leaf, jax.Array):
        return 1
    return math.prod(leaf.shape) // math.prod(leaf.sharding.shard_shape(leaf.shape))


def _read(folder: Path, like: Any, how: Callable[[str, Any], Any]) -> Any:
    """Read a tree; `how` says how to read a leaf, given its name and what it is like."""
    ocp, processes = _orbax(), _this_process()
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=processes)
    with ocp.Checkpointer(handler, multiprocessing_options=processes) as checkpointer:
        tree = checkpointer.metadata(folder).item_metadata.tree if like is None else like

        def argument(path: Any, leaf: Any) -> Any:
            return how(leaf_name(path), leaf)

        arguments = jax.tree_util.tree_map_with_path(argument, tree)
        return checkpointer.restore(folder, args=ocp.args.PyTreeRestore(like, arguments))


def _as_wanted(leaf: Any) -> Any:
    """Say how to read what is like a given leaf."""
    ocp = _orbax()
    if isinstance(leaf, (np.ndarray, np.generic)):
        return ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
    if type(leaf).__name__ in PYTHON_TYPES:
        return ocp.RestoreArgs(restore_type=type(leaf))
    return ocp.ArrayRestoreArgs(dtype=leaf.dtype, sharding=leaf.sharding or jnp.zeros(()).sharding)


def _as_described(description: str) -> Any:
    """Say how to read a leaf, given what a structure says of it."""
    ocp = _orbax()
    if description in PYTHON_TYPES:
        return ocp.RestoreArgs(restore_type=PYTHON_TYPES[description])
    if description.startswith("key<"):
        return ocp.ArrayRestoreArgs(sharding=jnp.zeros(()).sharding)
    return ocp.RestoreArgs(restore_type=np.ndarray)


def _this_process() -> Any:
    """Return the options by which Orbax waits for no other process."""
    index, _ = place()
    return _orbax().options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"tracklayer_{index}"
    )


def _orbax() -> Any:
    """Return Orbax, whose import takes 0.2 s."""
    import orbax.checkpoint

    return orbax.checkpoint
