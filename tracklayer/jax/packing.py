"""Packing arrays of any dtype into one, bit for bit, and taking them apart again.

They travel as 32-bit words, and not as numbers, so that values of every dtype go together and arrive as they
were, NaN under `jax_debug_nans` included.
"""

# jax's own types are partial
# mypy: disable-error-code="no-untyped-call, no-any-return"
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD: Final = 4  # bytes
_STRUCT_CODES: Final = {"i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f4": "f", "f8": "d"}


@final
@dataclass(frozen=True, slots=True)
class Group:
    """Arrays of one dtype and shape, side by side in the words.

    Attributes:
        dtype: theirs.
        shape: that of each.
        length: how many there are, padding included.
        word_count: how many words they take.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    length: int
    word_count: int = field(init=False)
    _carrier: np.dtype[Any] = field(init=False)

    def __post_init__(self) -> None:
        """Work out once what every `unpack` needs."""
        carrier = _carrier(self.dtype)
        object.__setattr__(self, "_carrier", carrier)
        object.__setattr__(
            self, "word_count", self.length * math.prod(self.shape) * carrier.itemsize // _WORD
        )

    @property
    def is_scalar(self) -> bool:
        """Whether each of the arrays has one element."""
        return math.prod(self.shape) == 1

    @property
    def format(self) -> str:
        """The words in the notation of `struct`: scalars by their type, anything else skipped."""
        code = _STRUCT_CODES[self._carrier.str[1:]]
        return f"{self.length}{code}" if self.is_scalar else f"{self.word_count * _WORD}x"

    def unpack(self, words: NDArray[np.uint32]) -> NDArray[Any]:
        """Return their values, of shape (length, *shape) and of their own dtype."""
        values = words.view(self._carrier).reshape(self.length, *self.shape)
        return values.astype(self.dtype, copy=False)


def pack(arrays: Sequence[jax.Array]) -> jax.Array:
    """Return the bits of arrays, one after the other, as uint32 of shape (words,); may be traced.

    `Group.unpack` takes them apart again.
    """
    return jnp.concatenate([_words(array) for array in arrays])


def unpack(words: Any, groups: Sequence[Group]) -> list[NDArray[Any]]:
    """Take apart what `pack` put together: return each group's values, of shape (length, *shape)."""
    words = np.asarray(words)
    blocks: list[NDArray[Any]] = []
    start = 0
    for group in groups:
        stop = start + group.word_count
        blocks.append(group.unpack(words[start:stop]))
        start = stop
    return blocks


def is_real(dtype: Any) -> bool:
    """Say whether a dtype is one of real numbers or of truth values."""
    return bool(dtype == np.bool_ or jnp.issubdtype(dtype, np.integer) or jnp.issubdtype(dtype, np.floating))


def _carrier(dtype: Any) -> np.dtype[Any]:
    """Return the dtype of whole words that holds each of a dtype's values exactly."""
    if dtype == np.bool_:
        return np.dtype(np.uint32)
    if jnp.issubdtype(dtype, np.integer):
        kind = "i" if jnp.issubdtype(dtype, np.signedinteger) else "u"
        return np.dtype(f"{kind}{8 if jnp.iinfo(dtype).bits > 32 else _WORD}")
    return np.dtype(np.float64 if jnp.finfo(dtype).bits > 32 else np.float32)


def _words(array: jax.Array) -> jax.Array:
    exact = jax.lax.convert_element_type(array, _carrier(array.dtype))
    words = jax.lax.bitcast_convert_type(exact, np.uint32)  # two each for 64 bits, the lower first
    return jnp.reshape(words, -1)
