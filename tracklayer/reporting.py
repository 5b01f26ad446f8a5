"""What tracklayer says while a program runs: through the logger `tracklayer`, once for each trouble."""

from __future__ import annotations

import logging
from typing import Final

_LOGGER: Final = logging.getLogger("tracklayer")


def warn(message: str) -> None:
    """Say what went wrong and what to do, in one line; on stderr, unless the program set up logging."""
    _LOGGER.warning("tracklayer: %s", " ".join(message.splitlines()))


def inform(message: str) -> None:
    """Say what is good to know; shown where the program set up logging for it."""
    _LOGGER.info("tracklayer: %s", message)
