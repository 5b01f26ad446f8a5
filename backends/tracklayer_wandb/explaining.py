"""What trouble on the way to a W&B server means, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_ADVICE: Final[Mapping[int, str]] = {
    401: "it does not take the API key: run `wandb login`, or set WANDB_API_KEY",
    403: "the API key's user may not do that there: ask for access, or choose another place with `--to`",
    404: "it has no such entity or project: check them, and the server's address in WANDB_BASE_URL",
    409: "something else changes the same run: push again later",
    413: "the server, or a proxy before it, takes no such size: its administrator can raise the limit",
    429: "the server asks for fewer requests: push again later, or fewer runs at a time",
}
_SERVER_FAILS: Final = "the server fails: push again later"
_NO_ANSWER: Final = "push again when the server can be reached; its address is in WANDB_BASE_URL"
_DELETED: Final = (
    "a run of that id was deleted there, and W&B gives no id out again: choose another with `--id`"
)

_STATUS: Final = re.compile(
    r"(?:HTTP(?: status| error)?|error|status|status code|failed to upload)[: ]+([45]\d\d)\b", re.IGNORECASE
)
_NO_ANSWERS: Final = re.compile(
    r"no such host|connection (?:refused|reset)|EOF\b|timed? ?out|deadline exceeded|broken pipe|unreachable"
    r"|in time|certificate",
    re.IGNORECASE,
)
_SECRETS: Final = (
    (re.compile(r"(https?://[^\s\"?]*)\?[^\s\"]*"), r"\1"),  # a signed URL is its own permission
    (re.compile(r"(https?://)[^\s/@\"]*@"), r"\1"),
    (re.compile(r"\b(?:[\w.]+-)?[0-9a-f]{40,}\b|\bwandb_v1_\w+"), "***"),  # what an API key looks like
)
_LONGEST: Final = 600


def explained(said: str, status: int = 0) -> str:
    """Return what the client or the server said, without secrets, with what to do where that is known.

    Args:
        said: the text.
        status: the HTTP status, where it is known apart from the text.
    """
    text = " ".join(without_secrets(said).split())
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    found = _STATUS.search(text)
    status = status or (int(found[1]) if found else 0)
    advice = _advice(text, status)
    return f"{text}; {advice}" if advice else text


def without_secrets(text: str) -> str:
    """Return a text without API keys, and without what permits something in URLs."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _advice(text: str, status: int) -> str:
    if "previously created and deleted" in text:
        return _DELETED
    if status >= 500:
        return _SERVER_FAILS
    if status:
        return _ADVICE.get(status, "")
    return _NO_ANSWER if _NO_ANSWERS.search(text) else ""
