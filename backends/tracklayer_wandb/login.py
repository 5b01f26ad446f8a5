"""Whether the wandb client can log in by itself: asked without a prompt and without the network.

The client would ask on a terminal; a training run must not wait for an answer there.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import wandb
from wandb.errors import AuthenticationError, term
from wandb.sdk import wandb_setup
from wandb.sdk.lib import wbauth

from tracklayer.errors import BackendUnavailableError
from tracklayer_wandb.explaining import without_secrets


def api_url() -> str:
    """Return the address of the server that the client would talk to, without credentials in it."""
    return _without_user(wandb_setup.singleton().settings.base_url)


def app_url() -> str:
    """Return the address of that server's pages, without credentials in it."""
    return _without_user(wandb_setup.singleton().settings.app_url).rstrip("/")


def quiet_client() -> None:
    """Keep the client from printing and asking: what the user must know, tracklayer says, once."""
    # a run's own setting does not reach all of it
    term.termsetup(wandb.Settings(silent=True), None)


def check_login() -> None:
    """Look whether the client has credentials for its server.

    Raises:
        BackendUnavailableError: there are none, or they cannot be right.
    """
    credentials()


def credentials() -> wbauth.Auth:
    """Return the credentials that the client would use for its server, from where it would look for them.

    Raises:
        BackendUnavailableError: there are none, or they cannot be right.
    """
    quiet_client()
    try:
        # `wandb.setup` would start the client's process
        settings = wandb_setup.singleton().settings
        host = wbauth.HostUrl(settings.base_url, app_url=settings.app_url)
        # `wandb.login`, too, asks without a prompt; but where the mode is offline it does not look
        found = wbauth.authenticate_session(
            host=host, source="tracklayer", prompt=False, update_session=False
        )
    except (AuthenticationError, ValueError) as error:
        raise BackendUnavailableError(without_secrets(str(error))) from error
    if found is None:
        msg = f"no API key for {api_url()}: run `wandb login`, or set WANDB_API_KEY"
        raise BackendUnavailableError(msg)
    return found


def _without_user(address: object) -> str:
    parts = urlsplit(str(address))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
