"""Names of runs: W&B's rules for them, fresh ids, and the file names that stand for ids.

The rules are those of the W&B client (`wandb.Settings`, 0.31), so that a push never founders on a
name that was accepted here.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Iterable
from typing import Final

from tracklayer.errors import UsageError

_ID_ALPHABET: Final = string.digits + string.ascii_lowercase
_ID_RESERVED: Final = ":;,#?/'"
_PROJECT_RESERVED: Final = "/\\#?%:"
_MAX_NAME: Final = 128
_MAX_TAG: Final = 64
# lower case only, so that ids differ on a case-insensitive file system; no name that Windows reserves
_PLAIN_FILE_NAME: Final = re.compile(r"(?!(con|prn|aux|nul|com\d|lpt\d)$)[a-z0-9][a-z0-9_\-]{0,99}")


def new_run_id() -> str:
    """Return a random id of W&B's form: 8 digits of base 36."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(8))


def check_run_id(run_id: str) -> str:
    """Return the id if W&B takes it.

    Raises:
        UsageError: it does not.
    """
    if run_id != run_id.strip() or not run_id:
        msg = f"run id {run_id!r} is empty, or begins or ends with white space"
        raise UsageError(msg)
    return _check("run id", run_id, _ID_RESERVED)


def check_project(project: str) -> str:
    """Return the project's name if W&B takes it.

    Raises:
        UsageError: it does not.
    """
    if not project.strip():
        msg = "the project's name is empty"
        raise UsageError(msg)
    return _check("project", project, _PROJECT_RESERVED)


def check_name(what: str, name: str | None) -> str | None:
    """Return a run's name, group, job type or entity if W&B takes it.

    Raises:
        UsageError: it does not.
    """
    if not name:
        return None
    return _check(what, name, "")


def check_tags(tags: Iterable[str] | str | None) -> tuple[str, ...]:
    """Return the tags if W&B takes them: each 1 to 64 characters, none twice.

    Raises:
        UsageError: it does not.
    """
    if tags is None:
        return ()
    checked = (tags,) if isinstance(tags, str) else tuple(tags)
    for tag in checked:
        if not isinstance(tag, str) or not 1 <= len(tag) <= _MAX_TAG:  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
            msg = f"tag {tag!r}: a tag is a string of 1 to {_MAX_TAG} characters"
            raise UsageError(msg)
    return tuple(dict.fromkeys(checked))


def file_name(run_id: str) -> str:
    """Return the file name, without an ending, that stands for a run id.

    Most ids stand for themselves.  Any other is spelled in safe characters and told apart by a hash, so
    that two ids never share a file, whatever the file system makes of case, length or unicode.
    """
    if _PLAIN_FILE_NAME.fullmatch(run_id):
        return run_id
    readable = re.sub(r"[^a-z0-9_\-]+", "-", run_id.lower()).strip("-")[:60]
    digest = hashlib.sha256(run_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{readable or 'run'}~{digest}"


def _check(what: str, name: str, reserved: str) -> str:
    if len(name) > _MAX_NAME:
        msg = f"{what} {name[:40]!r}… has {len(name)} characters; at most {_MAX_NAME} are allowed"
        raise UsageError(msg)
    found = sorted({char for char in name if char in reserved or not char.isprintable()})
    if found:
        msg = f"{what} {name!r} contains {' '.join(map(repr, found))}, which W&B does not allow"
        raise UsageError(msg)
    return name
