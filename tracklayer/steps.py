"""What a step and a time may be, as callers give them."""

from __future__ import annotations

import math
import operator
from typing import Any, Final

from tracklayer.errors import UnsupportedValueError, UsageError

_MAX_STEP: Final = (1 << 63) - 1


def checked_step(step: Any) -> int:
    """Return a step as an `int`.

    Raises:
        UnsupportedValueError: it is no integer.
        UsageError: it is negative, or more than SQLite holds.
    """
    if isinstance(step, bool) or not hasattr(step, "__index__"):
        msg = f"step {step!r} is a {type(step).__name__}, and must be an integer"
        raise UnsupportedValueError(msg)
    number = operator.index(step)
    if not 0 <= number <= _MAX_STEP:
        msg = f"step {number} is not from 0 to 2^63 - 1"
        raise UsageError(msg)
    return number


def checked_time(time: Any) -> float:
    """Return a time in Unix seconds as a `float`.

    Raises:
        UsageError: it is none.
    """
    if isinstance(time, (int, float)) and math.isfinite(time):
        return float(time)
    msg = f"time {time!r} is no time in Unix seconds"
    raise UsageError(msg)
