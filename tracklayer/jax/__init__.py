"""JAX at home: taking values off a device without making it wait.

The only part of tracklayer that imports jax.  At the call, one jitted function copies the call's device
scalars into buffers of our own, and their transfer is started; the queue's thread reads them when they
are there.  A buffer that the very next step donates is therefore no loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from tracklayer.errors import UnsupportedValueError
from tracklayer.values import Scalar


@final
class DeviceScalar:
    """A scalar that is still on its way from a device."""

    __slots__ = ("_array",)

    def __init__(self, array: jax.Array) -> None:
        self._array = array

    def resolve(self) -> Scalar:
        """Wait for the value; return it as the Python number that its dtype's value is."""
        number = np.asarray(self._array).reshape(()).item()
        return number if isinstance(number, (bool, int, float)) else float(number)  # bfloat16, …


def check_scalar(array: jax.Array) -> None:
    """Say whether an array can be logged as a scalar.

    Raises:
        UnsupportedValueError: it is traced, holds several elements, or no real number.
    """
    if isinstance(array, jax.core.Tracer):
        msg = (
            "it is traced: inside jit there is no value to log yet. Return it from the jitted function "
            "and log it outside"
        )
        raise UnsupportedValueError(msg)
    if array.size != 1:
        msg = (
            f"an array of shape {array.shape} is no scalar; log tracklayer.Histogram(array), or one of "
            "its elements"
        )
        raise UnsupportedValueError(msg)
    if not (jnp.issubdtype(array.dtype, np.number) or array.dtype == np.bool_) or jnp.issubdtype(
        array.dtype, np.complexfloating
    ):
        msg = f"cannot log a number of dtype {array.dtype}"
        raise UnsupportedValueError(msg)


def device_scalars(arrays: Sequence[jax.Array]) -> list[DeviceScalar]:
    """Take several scalars at once, in one dispatch where they share their devices.

    Raises:
        UnsupportedValueError: one was deleted (its buffer was donated before this call).
    """
    local = [_addressable(array) for array in arrays]
    try:
        copies = _copies(local)
    except ValueError:  # they live on different devices
        copies = [copy for array in local for copy in _copies([array])]
    return [DeviceScalar(_started(copy)) for copy in copies]


def snapshot(array: jax.Array) -> jax.Array:
    """Return a copy of an array, in a buffer of our own, on its way to the host.

    Raises:
        UnsupportedValueError: the array is traced.
    """
    if isinstance(array, jax.core.Tracer):
        msg = "a traced array has no content yet: build the Histogram outside jit"
        raise UnsupportedValueError(msg)
    return _started(_copies([_addressable(array)])[0])


def _copy_each(arrays: list[jax.Array]) -> list[jax.Array]:
    return [jnp.copy(array) for array in arrays]


_jitted_copies: Callable[[list[jax.Array]], list[jax.Array]] = jax.jit(_copy_each)  # pyright: ignore[reportUnknownMemberType] - jax's own types are partial


def _copies(arrays: list[jax.Array]) -> list[jax.Array]:
    """Copy arrays in one call, in an order that does not depend on how they were named."""
    order = sorted(range(len(arrays)), key=lambda i: (str(arrays[i].dtype), arrays[i].shape))
    try:
        copied = _jitted_copies([arrays[i] for i in order])
    except RuntimeError as error:
        msg = f"the array was deleted before it was logged: {error}"
        raise UnsupportedValueError(msg) from error
    back = dict(zip(order, copied, strict=True))
    return [back[i] for i in range(len(arrays))]


def _addressable(array: jax.Array) -> jax.Array:
    """Return this process's copy of an array that spans several."""
    return array if array.is_fully_addressable else array.addressable_data(0)


def _started(array: jax.Array) -> jax.Array:
    array.copy_to_host_async()
    return array
