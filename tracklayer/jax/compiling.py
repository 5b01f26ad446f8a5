"""Compiling a function whatever its caller stands in: another mesh, a trace in progress, `disable_jit`."""

# jax's own types are partial
# mypy: disable-error-code="no-untyped-call, no-any-return"
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax


def compiled(
    function: Callable[..., Any], arguments: Sequence[jax.ShapeDtypeStruct], out_shardings: Any = None
) -> Callable[..., Any]:
    """Compile a function for arguments of these shapes, dtypes and shardings, and no others.

    Most of what surrounds a caller belongs to its thread, and a new thread has none of it.  Calling what
    was compiled needs nothing of it either.
    """

    def compile_() -> Callable[..., Any]:
        is_wide = any(argument.dtype.itemsize == 8 for argument in arguments)
        with jax.enable_x64(is_wide), jax.disable_jit(False):  # noqa: FBT003 - jax's way
            return jax.jit(function, out_shardings=out_shardings).lower(*arguments).compile()

    with ThreadPoolExecutor(1, thread_name_prefix="tracklayer-compile") as thread:
        return thread.submit(compile_).result()
