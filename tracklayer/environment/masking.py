"""Secrets do not get into a record: what looks like one, or is one by its name, becomes `***`.

Told by its form are the keys of W&B, OpenAI, Anthropic, Hugging Face, GitHub, GitLab, Slack, Google and AWS,
JSON web tokens, private keys, and what stands before the `@` of a URL; told by its name, a value in the
environment or the arguments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast, final

MASK: Final = "***"

_KEY_FORMS: Final = (
    *("sk- [A-Za-z0-9_-]{20,}", "sk_live_ [A-Za-z0-9]{16,}"),  # OpenAI, Anthropic; Stripe
    *(f"{start} [A-Za-z0-9_]{{20,}}" for start in ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_")),
    *(
        "glpat- [A-Za-z0-9_-]{16,}",
        "hf_ [A-Za-z0-9]{20,}",
        "xox [abeoprs]-[A-Za-z0-9-]{10,}",
    ),  # GitLab; Slack
    *("AKIA [A-Z0-9]{16}", "ASIA [A-Z0-9]{16}", "AIza [A-Za-z0-9_-]{35}"),  # AWS; Google
    *("wandb_v1_ [A-Za-z0-9_-]{20,}", "local- [0-9a-f]{40}"),  # W&B
    *("pypi- [A-Za-z0-9_-]{30,}", "npm_ [A-Za-z0-9]{30,}"),
    r"eyJ [A-Za-z0-9_-]{10,1000}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*",  # JSON web tokens
)
"""How a key begins, and goes on."""


def _compiled(form: str) -> re.Pattern[str]:
    # it begins with what is found fastest; that no word goes before it is looked at then
    start, rest = form.split(" ")
    return re.compile(rf"{start}(?<![A-Za-z0-9_]{start}){rest}")


_FORMS: Final = (
    *((_compiled(form), MASK) for form in _KEY_FORMS),
    (re.compile(r"PRIVATE KEY-----[A-Za-z0-9+/=\s\\]{32,}"), f"PRIVATE KEY-----{MASK}"),
    (re.compile(r"""://[^\s/?#@"'<>:]{0,200}:[^\s/@"'<>]{1,200}@"""), f"://{MASK}@"),
    (re.compile(r"""://(?:(?<=http://)|(?<=https://))[^\s/?#@"'<>]{1,200}@"""), f"://{MASK}@"),
)
"""What a secret looks like, and what stands for it."""
_HEX_KEY: Final = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])")
"""W&B's older keys; a git commit looks the same."""
_ASSIGNED: Final = re.compile(
    r"""
    (?P<before>
        (?: api_?key | secret(?:_?access)?(?:_?key)? | access_?key | private_?key | auth_?token
          | access_?token | passw(?:or)?d | passphrase | \blogin(?=\() )
        ["']? \]? \s* [=:(] \s* (?:key \s* = \s*)?
    )
    (?: (?P<quote>["']) [^"'\s]{8,} (?=["']) | (?=\S*\d) [A-Za-z0-9+/=_-]{16,} $ )
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
"""A secret that a file spells out: `api_key = "…"`, `"password": "…"`, `login(key="…"`, `API_KEY=…`."""
_URL_PASSWORD: Final = re.compile(r"://[^\s/?#@:]*:([^\s/@]+)@")
_PARAMETER: Final = re.compile(r"([?&;])([^=?&;#\s]{1,60})=[^&;#\s\"']+")
_TELLTALES: Final = ("key", "secret", "token", "pass", "login")
"""What a line has that may match `_ASSIGNED`."""
_OPTION: Final = re.compile(r"[+-]*[\w.-]+")
_WORDS: Final = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
_SECRET_WORDS: Final = frozenset(
    {
        *("apikey", "apitoken", "auth", "authorization", "credential", "credentials", "jwt", "pass"),
        *("passphrase", "passwd", "password", "passwords", "pat", "pwd", "secret", "secrets", "signature"),
        *("sig", "token"),
    }
)
"""With which the name of a secret ends."""
_KEYS: Final = frozenset(
    {
        *("access", "account", "api", "auth", "aws", "client", "deploy", "encryption", "license", "master"),
        *("openai", "private", "secret", "service", "signing", "ssh", "storage", "subscription", "wandb"),
    }
)
"""What stands before `key` in the name of a secret."""
_TOKENS: Final = frozenset(
    {
        *("bos", "cls", "end", "eos", "image", "mask", "max", "min", "new", "num", "pad", "per", "sep"),
        *("special", "start", "stop", "unk"),
    }
)
"""What stands before `token` in the name of something of a language model."""
_PRIVATE_FILE: Final = re.compile(
    r"secret|credential|passw|api_?key|\.(pem|key|p12|pfx|jks|keystore|kdbx)$|^id_(rsa|dsa|ecdsa|ed25519)|netrc",
    re.IGNORECASE,
)
_SHORTEST: Final = 8
"""Characters of the shortest value in the environment that is looked for elsewhere."""


@final
class Masker:
    """Puts `***` in the place of secrets: of what looks like one, and of those that a process was given.

    Args:
        variables: the process's environment; values whose names are those of secrets are known by themselves.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        known = {value for name, value in variables.items() if _is_known(name, value)}
        for value in variables.values():
            known.update(found for found in _URL_PASSWORD.findall(value) if len(found) >= _SHORTEST)
        self._known = tuple(sorted(known, key=lambda secret: (-len(secret), secret)))

    def __eq__(self, other: object) -> bool:
        """Say whether another one makes the same of everything."""
        return isinstance(other, Masker) and self._known == other._known

    def __hash__(self) -> int:
        return hash(self._known)

    def text(self, text: str) -> str:
        """Return text without the secrets in it."""
        for secret in self._known:
            text = text.replace(secret, MASK)
        for form, masked in _FORMS:
            text = form.sub(masked, text)
        return _PARAMETER.sub(_without_value, text)

    def code(self, text: str) -> str:
        """Return a program's text, or a diff's, without the secrets that it spells out."""
        lines = self.text(text).splitlines(keepends=True)
        return "".join(_without_assigned(line) for line in lines)

    def arguments(self, arguments: Sequence[str]) -> list[str]:
        """Return a program's arguments without the values of options such as `--api-key`."""
        masked: list[str] = []
        is_value = False
        for argument in arguments:
            name, _, value = argument.partition("=")
            if is_value and not argument.startswith("--"):
                masked.append(MASK)
                is_value = False
            elif value and _OPTION.fullmatch(name) and is_secret_name(name):
                masked.append(f"{name}={MASK}")
                is_value = False
            else:
                masked.append(_HEX_KEY.sub(MASK, self.text(argument)))
                is_value = argument.startswith("-") and "=" not in argument and is_secret_name(argument)
        return masked

    def data(self, data: Any) -> Any:
        """Return JSON data without the secrets in its strings, the names of its entries included."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, Mapping):
            entries = cast("Mapping[str, Any]", data)
            return {self.text(name): self.data(value) for name, value in entries.items()}
        if isinstance(data, (list, tuple)):
            return [self.data(item) for item in cast("Sequence[Any]", data)]
        return data


def is_secret_name(name: str) -> bool:
    """Say whether an option, variable or parameter of this name holds a secret; `--max-token` does not."""
    words = [word.lower() for word in _WORDS.split(name) if word]
    if not words:
        return False
    before = words[-2] if len(words) > 1 else ""
    if words[-1] == "token":
        return before not in _TOKENS
    return words[-1] in _SECRET_WORDS or (words[-1] in {"key", "keys"} and before in _KEYS)


def is_private_path(path: str) -> bool:
    """Say whether a file's content is its owner's alone: a dotfile, or one whose name tells of secrets.

    Args:
        path: with `/`; a folder with such a name makes what lies in it private, too.
    """
    return any(part.startswith(".") or _PRIVATE_FILE.search(part) for part in path.split("/"))


def without_credentials(url: str) -> str:
    """Return the URL of a repository without passwords, tokens and query; the user of SSH stays."""
    scheme, separator, rest = url.partition("://")
    if not separator:  # a path, or SSH's short form
        return url
    place, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    user, at, host = place.rpartition("@")
    kept = user.partition(":")[0] + at if at and "ssh" in scheme.lower() else ""
    return f"{scheme}://{kept}{host}{slash}{path}"


def process_variables() -> dict[str, str]:
    """Return the environment of this process, which W&B's agents change from another thread."""
    return {name: os.environ.get(name, "") for name in list(os.environ)}


def _is_known(name: str, value: str) -> bool:
    if len(value) < _SHORTEST or os.path.exists(value):  # noqa: PTH110 - it may be too long for a path
        return False
    return is_secret_name(name) or (name.upper().endswith("_KEY") and len(value) >= 2 * _SHORTEST)


def _without_value(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}={MASK}" if is_secret_name(found[2]) else found[0]


def _without_assigned(line: str) -> str:
    lower = line.lower()
    if not any(word in lower for word in _TELLTALES):
        return line
    return _ASSIGNED.sub(lambda found: f"{found['before']}{found['quote'] or ''}{MASK}", line)
