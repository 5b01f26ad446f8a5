"""Checkpoints: a state of Flax, Optax or JAX as a version of an artifact, written and read by Orbax.

The artifact holds the files of an Orbax checkpoint, which Orbax alone can read as well, and one more, the
state's structure, by which a state that does not fit is refused before Orbax reads anything.
"""

# jax's, flax's and orbax's own types are partial
# mypy: disable-error-code="no-untyped-call, no-any-return"
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from tracklayer.artifacts.artifact import Artifact
from tracklayer.errors import StoreTooNewError, UnsupportedValueError, UsageError
from tracklayer.jax.orbax_files import begin, read_like, read_on_host
from tracklayer.jax.processes import place
from tracklayer.jax.structures import Structure, check_same, leaf_name, structure_of
from tracklayer.lifecycle import current_run, open_run
from tracklayer.registry import open_store
from tracklayer.steps import checked_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracklayer.front import ActiveRun

_TYPE: Final = "checkpoint"
_STRUCTURE: Final = "tracklayer-structure.json"
_FORMAT: Final = 1


def save_checkpoint(
    state: Any,
    name: str = "checkpoint",
    *,
    step: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    aliases: Iterable[str] | str = (),
    run: ActiveRun | None = None,
    wait: bool = False,
) -> Artifact:
    """Store a state as the next version of an artifact of type `checkpoint`, while training goes on.

    The content is that at the call, which returns when it is in the host's memory: what is donated or changed
    afterwards changes nothing.  Orbax then writes it, and once Orbax has committed it becomes a version; a
    process that is killed before leaves none.  While an earlier checkpoint is still being stored, the call
    waits for that.  Trouble with the disk is reported once, and is raised by `wait` of what is returned;
    `run.finish` waits until all is stored.

    Arrays that are as they were in another version take no further space where the arrays of the state are of
    256 KiB or more on average; the arrays of such a state are files of their own.

    Of several processes (`jax.distributed`), the one that records the run stores what every process has, and
    waits for no other.  It stores neither arrays that are spread over processes nor random keys then.

    Args:
        state: a Flax NNX module or optimizer, an `nnx.State`, a Linen `TrainState` or dict of parameters, an
            Optax state, or any pytree of these, of jax and numpy arrays, of random keys, numbers and strings.
        name: the artifact's: letters, digits, `-`, `_` and `.`.
        step: kept in the metadata as `step`.
        metadata: JSON-like data.
        aliases: besides `latest`, such as `"best"`.
        run: an open run; by default, the current one.
        wait: return only when it is stored, and raise what went wrong.

    Raises:
        UnsupportedValueError: a leaf is no array, number or string, has no elements, or is spread over
            several processes.
        UsageError: a name, alias or step that is not allowed; two leaves that Orbax would call the same.
        NoActiveRunError: no run is open.
        RunFinishedError: the run was finished.
    """
    run = current_run() if run is None else run
    described = dict(metadata or {}) | ({} if step is None else {"step": checked_step(step)})
    artifact = Artifact(name, _TYPE, metadata=described)

    def write(folder: Path) -> Callable[[], None]:
        tree = _without_modules(state)
        structure = structure_of(tree)
        writing = begin(_storable(tree), folder)

        def finish() -> None:
            writing.wait()
            _write_structure(structure, folder)

        return finish

    run.log_written(artifact, aliases, write)
    return artifact.wait() if wait else artifact


def restore_checkpoint(
    artifact: Artifact | str,
    like: Any = None,
    *,
    project: str | None = None,
) -> Any:
    """Return the state that `save_checkpoint` stored, each content checked before Orbax reads it.

    Args:
        artifact: a version, or its name: `"checkpoint:latest"`, `"checkpoint:v3"`, `"checkpoint:best"`.  Of
            a name, the open run, if there is one, takes note that it used it.
        like: what the state is to be: abstract, as `jax.eval_shape` and `nnx.eval_shape` return it, or a
            state with values.  Its tree, shapes and dtypes must be those of the checkpoint.  The arrays are
            placed as its are; on the default device, where it does not say.  NNX modules and optimizers in
            it are updated in place: all of them or, after an error, none.
        project: whose artifact it is, where no run is open and the name alone is ambiguous.

    Returns:
        A state of the structure of `like`, with modules and optimizers themselves.  Without `like`, dicts and
        lists of numpy arrays, random keys, numbers and strings.

    Raises:
        UsageError: the checkpoint does not fit `like`: the message lists what is missing, what is there
            besides, and whose shape or dtype is another; or the artifact is no checkpoint.
        ArtifactNotFoundError: there is no such version; the message lists what there is.
        CorruptArtifactError: content is gone, or is not what was stored.
        StoreError: it cannot be read.
    """
    found = _found(artifact, project) if isinstance(artifact, str) else artifact.wait()
    if _STRUCTURE not in {file.path for file in found.files()}:
        msg = f"artifact {found.name} was not made by save_checkpoint: download it, and read what it holds"
        raise UsageError(msg)
    with _checked_files(found) as folder:
        saved = _read_structure(folder, found.name)
        if like is None:
            return read_on_host(folder, saved)
        wanted = _without_modules(like)
        check_same(saved, structure_of(wanted), found.name)
        restored = read_like(folder, wanted)
    return _into_modules(like, restored)


# -- the tree ------------------------------------------------------------------------------------------


def _without_modules(tree: Any) -> Any:
    """Return a tree with the states of Flax NNX's modules and optimizers in their places."""
    kinds = _module_types()
    if not kinds:
        return tree
    from flax import nnx

    def state(node: Any) -> Any:
        return nnx.state(node) if isinstance(node, kinds) else node

    return jax.tree.map(state, tree, is_leaf=lambda node: isinstance(node, kinds))


def _into_modules(like: Any, restored: Any) -> Any:
    """Put states into the modules and optimizers in whose places they are; return the tree with those."""
    kinds = _module_types()
    if not kinds:
        return restored
    from flax import nnx

    def put(node: Any, state: Any) -> Any:
        if not isinstance(node, kinds):
            return state
        nnx.update(node, state)
        return node

    return jax.tree.map(put, like, restored, is_leaf=lambda node: isinstance(node, kinds))


def _module_types() -> tuple[type, ...]:
    kind = getattr(sys.modules.get("flax.nnx"), "Pytree", None)
    return () if kind is None else (kind,)


def _storable(tree: Any) -> Any:
    """Return a tree as Orbax takes it: each array with its dtype, and whole in this process.

    Raises:
        UnsupportedValueError: an array is traced, abstract, deleted, or one that this process cannot store.
        UsageError: there are no leaves.
    """
    if not jax.tree.leaves(tree):
        msg = "the state has no arrays, numbers or strings"
        raise UsageError(msg)
    return jax.tree_util.tree_map_with_path(_whole, tree)


def _whole(path: Any, leaf: Any) -> Any:
    if isinstance(leaf, np.generic):
        return np.asarray(leaf)
    if isinstance(leaf, (jax.core.Tracer, jax.ShapeDtypeStruct)):
        why = "has no content: save outside of jit, and the state itself"
    elif not isinstance(leaf, jax.Array):
        return leaf
    elif leaf.is_deleted():
        why = "was deleted: its buffer was donated before this call"
    elif place()[1] == 1:
        return leaf
    elif not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        why = (
            "is spread over several processes, and no call of ours waits for the others: save it with "
            "orbax.checkpoint from all of them, and log the folder with run.log_artifact"
        )
    elif jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        why = "is a random key, which Orbax takes from all processes or none: save jax.random.key_data of it"
    else:  # of one process's own, Orbax takes arrays of numpy's only
        return np.asarray(leaf if leaf.is_fully_addressable else leaf.addressable_data(0))
    msg = f"leaf {leaf_name(path)!r} of the state {why}"
    raise UnsupportedValueError(msg)


# -- the artifact --------------------------------------------------------------------------------------


def _found(name: str, project: str | None) -> Artifact:
    run = open_run()
    if run is None or run.disabled:
        store = open_store(None if run is None else run.dir)
        return store.artifact(name, project or (None if run is None else run.project))
    return run.use_artifact(name if project is None else f"{project}/{name}")


@contextmanager
def _checked_files(artifact: Artifact) -> Generator[Path]:
    """Give a folder with the files of an artifact, each with the content that was stored."""
    with tempfile.TemporaryDirectory(prefix="tracklayer-") as name:
        folder = Path(name)
        files = artifact.files()
        if os.name == "posix" and all(Path(file.source).is_absolute() for file in files):
            artifact.verify()
            for file in files:  # nothing is copied: they may be large
                (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
                (folder / file.path).symlink_to(file.source)
        else:
            artifact.download(folder)
        yield folder


def _write_structure(structure: Structure, folder: Path) -> None:
    text = json.dumps({"format": _FORMAT, "leaves": structure}, indent=0)
    (folder / _STRUCTURE).write_text(text, encoding="utf-8")


def _read_structure(folder: Path, label: str) -> Structure:
    found = json.loads((folder / _STRUCTURE).read_bytes())
    if found["format"] > _FORMAT:
        msg = f"checkpoint {label} was written by a newer tracklayer: update this one"
        raise StoreTooNewError(msg)
    return found["leaves"]
