"""What tracklayer says while a command is at work: on stderr, so that stdout stays what it prints."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def informed() -> Generator[None]:
    """Show on stderr all that is said in the block, also what is only good to know."""
    logger = logging.getLogger("tracklayer")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
