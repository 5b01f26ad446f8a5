"""`login`: what code written for wandb calls first.  Nothing is asked, stored or sent."""

from __future__ import annotations

import os
from typing import Never

from tracklayer import registry, reporting
from tracklayer.errors import BackendUnavailableError
from tracklayer.porting import refuse
from tracklayer.settings import read_settings


def login(key: str | None = None, host: str | None = None, **others: Never) -> bool:
    """Say whether the backends that `init` would choose have the credentials that they need.

    Those that record on this disk need none.  No server is asked: `init` finds out what it makes of a key.

    Args:
        key: W&B's API key; it stays in this process's environment, where its client looks for it.
        host: the address of a W&B server; it stays there, too.
        others: wandb's further arguments; what they ask for is refused.

    Raises:
        UsageError: an argument of wandb's that cannot be had here.
        BackendUnavailableError: credentials are missing, with `TRACKLAYER_FALLBACK=error`.
    """
    refuse("login", others)
    for variable, value in (("WANDB_API_KEY", key), ("WANDB_BASE_URL", host)):
        if value is not None:
            os.environ[variable] = value
    settings = read_settings()
    try:
        for backend in [registry.load(name) for name in settings.backends]:
            if backend.hosted and not settings.offline:
                backend.check()
    except BackendUnavailableError as error:
        if settings.fallback == "error":
            raise
        reporting.warn(f"login: {error}")
        return False
    return True
