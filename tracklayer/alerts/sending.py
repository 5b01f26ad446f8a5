"""Sending alerts where the user wants them: to a command's standard input, and to a web address.

Both get one JSON object: `title`, `text`, `level`, `time` (Unix seconds), and `run` with the `id`, `name`,
`project`, `entity`, `group`, `job_type` and `url` of the run.
"""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import urlsplit

from tracklayer import reporting
from tracklayer.errors import UsageError

if TYPE_CHECKING:
    import urllib.request

    from tracklayer.alerts.alert import Alert
    from tracklayer.protocol import RunInfo

TIME_LIMIT: Final = 10.0
"""Seconds that a command may take, and that a server may take to answer."""


def checked_command(text: str | None) -> tuple[str, ...]:
    """Return the program and its arguments that `TRACKLAYER_ALERT_COMMAND` names, as a shell splits words.

    Raises:
        UsageError: a quote that is not closed.
    """
    try:
        return tuple(shlex.split(text or "", posix=os.name != "nt"))
    except ValueError as error:
        msg = f"TRACKLAYER_ALERT_COMMAND: {error}; it is a program and its arguments, as a shell splits words"
        raise UsageError(msg) from error


def checked_url(text: str | None) -> str | None:
    """Return the address that `TRACKLAYER_ALERT_URL` names, which may hold a secret: it is never shown.

    Raises:
        UsageError: it is no address of a web server.
    """
    if not text:
        return None
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable, parts = False, None
    if not usable or (parts is not None and "@" in parts.netloc):
        msg = "TRACKLAYER_ALERT_URL: give an address with http:// or https://, without a user and a password"
        raise UsageError(msg)
    return text


@final
class AlertSender:
    """Sends alerts, each to all that is named; what fails is reported once.

    Args:
        command: a program and its arguments; empty for none.
        url: an address of a web server, for a POST; None for none.
    """

    def __init__(self, command: tuple[str, ...], url: str | None) -> None:
        self._command = command
        self._url = url
        self._reported: set[str] = set()

    @property
    def is_needed(self) -> bool:
        """Whether anything is named."""
        return bool(self._command or self._url)

    def send(self, alert: Alert, run: RunInfo) -> None:
        """Send an alert, and wait until it is there, or is given up."""
        message = json.dumps(_message(alert, run)).encode()
        if self._command:
            self._give_to_command(self._command, message)
        if self._url:
            self._post(self._url, message)

    def _give_to_command(self, command: tuple[str, ...], message: bytes) -> None:
        import subprocess

        program = f"the command {command[0]!r}"
        try:
            done = subprocess.run(  # noqa: S603 - no shell, and the user's own
                command,
                input=message,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=TIME_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self._report(f"{program} was ended after {TIME_LIMIT:g} s")
        except (OSError, ValueError) as error:  # a program that is not there; a zero byte in an argument
            self._report(f"{program} cannot be run: {getattr(error, 'strerror', None) or error}")
        else:
            if done.returncode:
                self._report(f"{program} failed with exit code {done.returncode}")

    def _post(self, url: str, message: bytes) -> None:
        import http.client
        from urllib.error import HTTPError
        from urllib.request import Request

        parts = urlsplit(url)
        where = f"{parts.scheme}://{parts.hostname}"  # a path, a query or a fragment may be the secret
        request = Request(  # noqa: S310 - http and https alone: see `checked_url`
            url, data=message, headers={"Content-Type": "application/json", "User-Agent": "tracklayer"}
        )
        try:
            with _opener().open(request, timeout=TIME_LIMIT):
                pass
        except HTTPError as error:
            with error:
                self._report(f"{where} answered with status {error.code}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            # the words of an error may repeat the address
            reason: Any = getattr(error, "reason", error)
            self._report(f"{where}: {getattr(reason, 'strerror', None) or type(reason).__name__}")

    def _report(self, message: str) -> None:
        if message not in self._reported:
            self._reported.add(message)
            reporting.warn(f"an alert was not sent: {message}")


def _message(alert: Alert, run: RunInfo) -> dict[str, Any]:
    shown = ("id", "name", "project", "entity", "group", "job_type", "url")
    return {
        "title": alert.title,
        "text": alert.text,
        "level": str(alert.level),
        "time": alert.time,
        "run": {name: getattr(run, name) for name in shown},
    }


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens web addresses alone, and takes a redirect for a failure: it would lose the POST."""
    import urllib.request as web

    opener = web.OpenerDirector()
    for handler in (
        web.ProxyHandler,
        web.HTTPHandler,
        web.HTTPSHandler,
        web.HTTPDefaultErrorHandler,
        web.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
