"""Real numbers as their bits and as multiples of a power of two, so that nothing is lost on the way.

Two things go wrong when a device sums squares or cuts a range into bins: 1e30 squared is too large for
float32, and what is smaller than 1.2e-38 (subnormal) is taken for zero by XLA's CPU code and by TPUs, in
comparisons too.  So zeros and extremes are found among the bits, as integers, and everything else is
computed on numbers that were multiplied by a power of two, which is exact, such that the largest is near 1.
"""

# jax's own types are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any, Final, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@final
class Format(NamedTuple):
    """How a floating-point type of 32 or 64 bits lays out its bits (IEEE 754)."""

    dtype: np.dtype[Any]
    integer: np.dtype[Any]
    """The signed integer of the same size."""
    mantissa: int
    """How many bits the fraction has."""
    bias: int
    """The exponent field of the number 1."""

    @property
    def infinity(self) -> int:
        """The bits of infinity: those of a magnitude that is greater are NaN's."""
        return (2 * self.bias + 1) << self.mantissa

    @property
    def smallest_normal(self) -> int:
        """The bits of the smallest number that no device takes for zero."""
        return 1 << self.mantissa


SINGLE: Final = Format(np.dtype(np.float32), np.dtype(np.int32), 23, 127)
DOUBLE: Final = Format(np.dtype(np.float64), np.dtype(np.int64), 52, 1023)


def working_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype of 32 or 64 bits that holds each value of a dtype of real numbers."""
    if dtype == np.bool_:
        return np.dtype(np.int32)
    kind = (
        "f" if jnp.issubdtype(dtype, np.floating) else "i" if jnp.issubdtype(dtype, np.signedinteger) else "u"
    )
    return np.dtype(f"{kind}{8 if np.dtype(dtype).itemsize == 8 else 4}")


def format_of(dtype: Any) -> Format:
    """Return the floating-point format in which numbers of a dtype are computed with."""
    return DOUBLE if np.dtype(dtype).itemsize == 8 else SINGLE


def bits_of(array: jax.Array) -> jax.Array:
    """Return the bits of floating-point numbers in the format of their working dtype."""
    layout = format_of(array.dtype)
    if array.dtype == jnp.bfloat16:  # the upper half of a float32; a conversion would lose subnormals
        upper = lax.convert_element_type(lax.bitcast_convert_type(array, np.uint16), np.uint32)
        return lax.bitcast_convert_type(upper << 16, np.int32)
    return lax.bitcast_convert_type(lax.convert_element_type(array, layout.dtype), layout.integer)


def magnitude(bits: jax.Array) -> jax.Array:
    """Return the bits without the sign: in the order of the magnitudes, then infinity, then NaN."""
    return bits & np.iinfo(bits.dtype).max


def ordered(bits: jax.Array) -> jax.Array:
    """Return integers in the order of the numbers that have these bits; its own inverse."""
    limits = np.iinfo(bits.dtype)
    return bits ^ ((bits >> (limits.bits - 1)) & limits.max)


def exponent(largest: Any, layout: Format) -> Any:
    """Return the k for which 2^k times the largest magnitude, given by its bits, is near 1.

    Works on jax and on numpy integers alike.  2^k and 2^-k are both normal numbers.
    """
    limit = layout.bias - 1
    return (layout.bias - (largest >> layout.mantissa)).clip(-limit, limit)


def power(k: jax.Array, layout: Format) -> jax.Array:
    """Return 2^k, or zero where that is no normal number."""
    field = jnp.clip(k + layout.bias, 0, 2 * layout.bias)
    return lax.bitcast_convert_type(field << layout.mantissa, layout.dtype)


def scaled(bits: jax.Array, k: jax.Array, layout: Format) -> jax.Array:
    """Return 2^k times the numbers with these bits, subnormal ones included."""
    size = magnitude(bits)
    unit = power(k + (1 - layout.bias - layout.mantissa), layout)  # the spacing of subnormal numbers
    small = lax.convert_element_type(size, layout.dtype) * unit
    small = jnp.where(bits < 0, -small, small)
    number = lax.bitcast_convert_type(bits, layout.dtype) * power(k, layout)
    return jnp.where(size < layout.smallest_normal, small, number)
