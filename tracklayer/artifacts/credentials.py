"""Tells URLs that hold credentials, which are neither to be stored nor shown."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

_PARAMETER: Final = re.compile(r"[?&;#]([^=?&;#]+)=")
_SECRET: Final = re.compile(
    r"token|secret|passw|pwd|signature|credential|authorization|jwt|access_?key|api_?key|(key|auth|sig|sas)$",
    re.IGNORECASE,
)
"""What the name of a parameter has in it by which servers know who asks; the short ones end it."""
_CHAINED: Final = re.compile(r"::(?=[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_PASSWORD: Final = re.compile(r"[^/@:?#[]*:(?!\d*([/?#]|$))[^@]*@")
"""What follows `://`, with a password, which may hold anything; without an @, what `:` starts is a port."""
_WITH_USERS: Final = frozenset(
    {
        *("abfs", "abfss", "adl", "wasb", "wasbs"),  # before the @ they have a container
        *("ftp", "hdfs", "scp", "sftp", "smb", "ssh", "webhdfs"),  # a user, who needs a password as well
    }
)
_WITH_REPOSITORIES: Final = frozenset({"git", "github"})
"""Which have `owner:repository@` there (fsspec's `github`), or `path:reference@` (its `git`)."""


def holds_credentials(url: str) -> bool:
    """Say whether a URL holds, or may well hold, what should be known to nobody else.

    Args:
        url: a URL; also a chained one of fsspec, such as `simplecache::s3://bucket/file`.
    """
    return any(_SECRET.search(name) for name in _PARAMETER.findall(unquote(url))) or any(
        _names_who_asks(part) for part in _CHAINED.split(url)
    )


def _names_who_asks(url: str) -> bool:
    before, _, rest = url.partition("://")  # without it, a path, or such as `simplecache`
    scheme = before.lower()
    if scheme not in _WITH_REPOSITORIES and _PASSWORD.match(rest):
        return True
    user = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[0]
    return bool(user) and scheme not in _WITH_USERS | _WITH_REPOSITORIES
