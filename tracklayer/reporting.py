"""What tracklayer says while a program runs: through the logger `tracklayer`, once for each trouble."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Final

_LOGGER: Final = logging.getLogger("tracklayer")


def warn(message: str) -> None:
    """Say what went wrong and what to do, in one line; on stderr, unless the program set up logging."""
    _LOGGER.warning("tracklayer: %s", " ".join(message.splitlines()))


def inform(message: str) -> None:
    """Say what is good to know; shown where the program set up logging for it."""
    _LOGGER.info("tracklayer: %s", message)


def tell(message: str) -> None:
    """Say what whoever started the program will ask: on a terminal, and where `inform` is shown."""
    is_set_up = _LOGGER.hasHandlers() or _LOGGER.level != logging.NOTSET
    if is_set_up or not _is_terminal():
        inform(message)
        return
    with suppress(OSError, ValueError):  # it has just been closed
        sys.stderr.write(f"tracklayer: {message}\n")


def _is_terminal() -> bool:
    isatty = getattr(sys.stderr, "isatty", None)  # what stands there may be no file
    try:
        return bool(isatty and isatty())
    except (OSError, ValueError):  # it is closed
        return False
