"""Names of runs and artifacts: W&B's rules for them, fresh ids, and the file names that stand for names.

The rules are those of the W&B client (`wandb.Settings` and `wandb.sdk.artifacts._validators`, 0.31), so that
a push never founders on a name that was accepted here.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Iterable, Sequence
from typing import Final

from tracklayer.errors import UsageError

_ID_ALPHABET: Final = string.digits + string.ascii_lowercase
_ID_RESERVED: Final = ":;,#?/'"
_PROJECT_RESERVED: Final = "/\\#?%:"
_MAX_NAME: Final = 128
_MAX_TAG: Final = 64
_ARTIFACT_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,128}")  # what W&B's server takes
_ARTIFACT_RESERVED: Final = "/:"
_ARTIFACT_PREFIXES: Final = {"job": "", "run_table": "run-"}  # by type: W&B's own names, but for what is code
_VERSION: Final = re.compile(r"v(0|[1-9][0-9]{0,17})")
_NEVER_IN_A_PATH: Final = re.compile(r"^[A-Za-z]:|[\\\0\ud800-\udfff]")  # drives, and what UTF-8 cannot spell
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


def check_artifact_name(name: str) -> str:
    """Return an artifact's name if W&B takes it.

    Raises:
        UsageError: it does not.
    """
    if not _ARTIFACT_NAME.fullmatch(name):
        msg = f"artifact name {name[:160]!r}: use 1 to 128 letters, digits, '-', '_' and '.'"
        raise UsageError(msg)
    return name


def check_artifact_type(artifact_type: str, name: str = "") -> str:
    """Return an artifact's type if W&B takes it for an artifact of this name.

    Raises:
        UsageError: it does not, or keeps it for artifacts of its own.
    """
    if not artifact_type:
        msg = "the artifact's type is empty; say what it is, such as 'model' or 'dataset'"
        raise UsageError(msg)
    prefix = _ARTIFACT_PREFIXES.get(artifact_type)
    if artifact_type.startswith("wandb-") or (prefix is not None and name.startswith(prefix)):
        named = f" with a name that begins with {prefix!r}" if prefix else ""
        msg = f"artifact type {artifact_type!r}{named} is W&B's own; use another"
        raise UsageError(msg)
    return _check("artifact type", artifact_type, _ARTIFACT_RESERVED)


def check_alias(alias: str) -> str:
    """Return an alias of an artifact's version if W&B takes it; `latest` is one.

    Raises:
        UsageError: it does not, or the alias names a version: `v3`.
    """
    if not alias.strip():
        msg = "an alias is empty"
        raise UsageError(msg)
    if re.fullmatch(r"v\d+", alias):
        msg = f"alias {alias!r} is how a version is named; use another"
        raise UsageError(msg)
    return _check("alias", alias, _ARTIFACT_RESERVED)


def version_number(name: str) -> int | None:
    """Return the number of a version that goes by a name such as `v3`; None where the name is an alias."""
    found = _VERSION.fullmatch(name)
    return int(found[1]) if found else None


def is_inner_path(path: str) -> bool:
    """Say whether a path, with `/`, stays inside whatever folder it is joined to, on every system.

    Only the one plain spelling passes: no `.`, `..` or empty part, no backslash, no drive.
    """
    return not _NEVER_IN_A_PATH.search(path) and not {"", ".", ".."} & set(path.split("/"))


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return the end of a message about a name that is not known: close ones, if there are any."""
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=3)
    return f"; did you mean {', '.join(map(repr, close))}?" if close else ""


def file_name(name: str) -> str:
    """Return the file name, without an ending, that stands for a run id or another name.

    Most ids stand for themselves.  Any other name is spelled in safe characters and told apart by a hash, so
    that two never share a file, whatever the file system makes of case, length or unicode.
    """
    if _PLAIN_FILE_NAME.fullmatch(name):
        return name
    readable = re.sub(r"[^a-z0-9_\-]+", "-", name.lower()).strip("-")[:60]
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
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
