"""Whether the wandb client can log in by itself: asked without a prompt and without the network.

The client would ask on a terminal; a training run must not wait for an answer there.
"""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import wandb
from wandb.errors import term
from wandb.sdk import wandb_setup

from tracklayer.errors import BackendUnavailableError


def api_url() -> str:
    """Return the address of the server that the client would talk to, without credentials in it."""
    parts = urlsplit(str(wandb_setup.singleton().settings.base_url))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def quiet_client() -> None:
    """Keep the client from printing: what the user must know, tracklayer says, once."""
    term.termsetup(wandb.Settings(silent=True), None)  # a run's own setting does not reach all of it


def check_login() -> None:
    """Find the credentials that the client would use for its server.

    Raises:
        BackendUnavailableError: there are none.
    """
    settings = wandb_setup.singleton().settings  # `wandb.setup` would start the client's process
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return
    if settings.api_key or _in_netrc(urlsplit(settings.base_url).hostname or ""):
        return
    msg = f"no API key for {api_url()}: run `wandb login`, or set WANDB_API_KEY"
    raise BackendUnavailableError(msg)


def _in_netrc(host: str) -> bool:
    given = os.environ.get("NETRC")
    paths = [Path(given).expanduser()] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for path in paths:
        if path.is_file():
            try:
                return netrc.netrc(path).authenticators(host) is not None
            except (OSError, netrc.NetrcParseError):
                return False
    return False
