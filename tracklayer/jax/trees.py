"""The arrays of a tree, and what each is called: `layers.0.kernel`."""

# jax's own types are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

_NUMPY_NUMBERS: Final = "?bBhHiIlLqQefdFD"
"""What jax, too, has of numpy's numbers."""
_MAX_NAMED: Final = 1024  # a program with ever new trees must not fill the memory with their names


def leaves(
    tree: Any, is_taken: Callable[[Any], object], reserved: Sequence[str] = ()
) -> tuple[tuple[str, ...], list[jax.Array]]:
    """Return the names and the arrays of a tree's leaves, numbers among them.

    A name is the path, with dots; Flax's variables and boxes add nothing to it.  An array that is the whole
    tree is called `value`; of several that would have the same name, the later ones get `#2`, `#3` and so on.

    Args:
        tree: any pytree.
        is_taken: says of a dtype whether arrays of it are wanted.
        reserved: what no leaf may be called.
    """
    found, structure = jax.tree_util.tree_flatten(tree)
    is_traced = any(isinstance(leaf, jax.core.Tracer) for leaf in found)
    arrays: list[jax.Array] = []
    taken: list[int] = []
    for index, leaf in enumerate(found):
        array = leaf if isinstance(leaf, jax.Array) else _number(leaf)
        if array is not None and is_taken(array.dtype):
            arrays.append(array if isinstance(array, jax.Array) else _from_host(array, is_traced=is_traced))
            taken.append(index)
    key = (structure, tuple(taken), reserved)
    try:
        names = _named.get(key)
    except TypeError:  # what the tree holds besides arrays cannot be hashed
        return _names(tree, taken, reserved), arrays
    if names is None:
        if len(_named) >= _MAX_NAMED:
            _named.clear()
        names = _named[key] = _names(tree, taken, reserved)
    return names, arrays


def _number(leaf: Any) -> Any:
    if isinstance(leaf, (np.ndarray, np.generic)):
        is_known = leaf.dtype.char in _NUMPY_NUMBERS or leaf.dtype.type.__module__ == "ml_dtypes"
        return leaf if is_known else None
    if isinstance(leaf, (bool, int, float, complex)):
        return np.asarray(leaf)
    return leaf.__jax_array__() if hasattr(leaf, "__jax_array__") else None


def _from_host(array: Any, *, is_traced: bool) -> jax.Array:
    """Return a copy, which is the caller's to change no more."""
    if is_traced:  # then the caller's jitted function takes it, and has it as jax would
        return jnp.asarray(array)
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):  # noqa: FBT003 - jax's way
        return jnp.array(array)


def _names(tree: Any, taken: Sequence[int], reserved: Sequence[str]) -> tuple[str, ...]:
    paths = _paths(tree)
    names = dict.fromkeys(reserved)
    for index in taken:
        path = jax.tree_util.keystr(paths[index], simple=True, separator=".") or "value"
        name, copy = path, 1
        while name in names:
            copy += 1
            name = f"{path}#{copy}"
        names[name] = None
    return tuple(names)[len(reserved) :]


def _paths(tree: Any) -> list[tuple[Any, ...]]:
    boxes = _box_types()

    def is_box(node: Any) -> bool:
        return isinstance(node, boxes)

    paths: list[tuple[Any, ...]] = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_box)[0]:
        if is_box(leaf):
            inner = jax.tree_util.tree_flatten_with_path(leaf)[0]
            paths += [path + below[1:] for below, _ in inner]  # the first part is the box's own
        else:
            paths.append(path)
    return paths


def _box_types() -> tuple[type, ...]:
    """Return Flax's classes that stand around an array, if Flax was imported."""
    places = (("flax.nnx", "Variable"), ("flax.core.meta", "AxisMetadata"))
    found = [getattr(sys.modules.get(module), name, None) for module, name in places]
    return tuple([kind for kind in found if kind is not None])


_named: dict[Any, tuple[str, ...]] = {}
