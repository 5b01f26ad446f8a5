"""What a tree of arrays looks like, in words, and in what two such trees differ.

A structure gives each leaf's name, its path with dots as Orbax has it, and what it is: `float32[8,2]` for an
array, `key<fry>[]` for a random key, `int`, `float`, `bool` or `str` for Python's own.
"""

# jax's own types are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from tracklayer.errors import UnsupportedValueError, UsageError

Structure = Mapping[str, str]

_NAMED: Final = 10
"""How many differences a message lists."""
PYTHON_TYPES: Final[Mapping[str, type]] = {"bool": bool, "int": int, "float": float, "str": str}
"""Python's own leaves."""
_STANDS_FOR: Final[Mapping[str, str]] = {
    "bool": r"bool\[\]",
    "int": r"u?int\d+\[\]",
    "float": r"b?float\w+\[\]",
}
"""The arrays that may stand for them: a `TrainState` counts its steps in an int until its first step, and in
an array from then on."""


def structure_of(tree: Any) -> dict[str, str]:
    """Return the structure of a tree of arrays, of what stands for arrays, and of numbers and strings.

    Raises:
        UnsupportedValueError: a leaf is something else, or has no elements.
        UsageError: two leaves have the same name.
    """
    found: dict[str, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = leaf_name(path)
        if name in found:
            msg = f"two leaves of the state are called {name!r}: rename one of them"
            raise UsageError(msg)
        found[name] = _described(name, leaf)
    return found


def leaf_name(path: Any) -> str:
    """Return the name of the leaf at a path of jax's."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def check_same(saved: Structure, wanted: Structure, label: str) -> None:
    """Make sure that what was saved fits what is wanted.

    Raises:
        UsageError: it does not; the message lists what differs.
    """
    differing = [
        *(f"{name}: {saved[name]} in the checkpoint, not wanted" for name in saved if name not in wanted),
        *(f"{name}: {wanted[name]} wanted, not in the checkpoint" for name in wanted if name not in saved),
        *(
            f"{name}: {saved[name]} in the checkpoint, {wanted[name]} wanted"
            for name in saved
            if name in wanted and not _fits(saved[name], wanted[name])
        ),
    ]
    if differing:
        more = len(differing) - _NAMED
        lines = differing[:_NAMED] + ([f"and {more} more"] if more > 0 else [])
        msg = f"checkpoint {label} does not fit the state that it is to be restored into:\n  "
        raise UsageError(msg + "\n  ".join(lines))


def _described(name: str, leaf: Any) -> str:
    if type(leaf).__name__ in PYTHON_TYPES and not hasattr(leaf, "dtype"):
        if type(leaf) is int and not -(2**63) <= leaf < 2**63:
            msg = f"leaf {name!r} of the state: {leaf} does not fit in 64 bits"
            raise UnsupportedValueError(msg)
        return type(leaf).__name__
    dtype, shape = getattr(leaf, "dtype", None), getattr(leaf, "shape", None)
    if dtype is None or shape is None or not _is_stored(dtype):
        msg = (
            f"leaf {name!r} of the state: a {type(leaf).__name__} is no array, number or string"
            if dtype is None
            else f"leaf {name!r} of the state: no array of dtype {dtype} can be stored"
        )
        raise UnsupportedValueError(msg)
    if 0 in shape:
        msg = f"leaf {name!r} of the state: an array of shape {shape} has no elements, and Orbax stores none"
        raise UnsupportedValueError(msg)
    return f"{dtype}[{','.join(map(str, shape))}]"


def _is_stored(dtype: Any) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in (np.number, np.bool_, jax.dtypes.prng_key))


def _fits(saved: str, wanted: str) -> bool:
    return saved == wanted or any(
        python in _STANDS_FOR and re.fullmatch(_STANDS_FOR[python], array) is not None
        for python, array in ((saved, wanted), (wanted, saved))
    )
