"""The packages that a program may import: their versions, and where those not from an index came from."""

from __future__ import annotations

import json
import re
from importlib.metadata import Distribution, distributions
from typing import Any, Final, NamedTuple

from tracklayer.environment.masking import without_credentials

_HEAD: Final = re.compile(r"^(Name|Version): *(.+?)\s*$", re.MULTILINE)
_OF_JAX: Final = ("jax", "jaxlib", "flax", "optax")


class Packages(NamedTuple):
    """What is installed.

    Attributes:
        versions: by name, in the order of names.
        origins: where a package came from, by name, if not from an index: as pip's requirement has it, such
            as `git+https://host/repository@commit`, or `-e file:///folder` for one installed in place.
    """

    versions: dict[str, str]
    origins: dict[str, str]

    def of_jax(self) -> dict[str, str]:
        """Return the versions of JAX and its family."""
        return {name: self.versions[name] for name in _OF_JAX if name in self.versions}


def installed_packages() -> Packages:
    """Return what is installed; of a package that is found twice, what is imported: the first."""
    versions: dict[str, str] = {}
    origins: dict[str, str] = {}
    for distribution in distributions():
        name, version = _name_and_version(distribution)
        if name and name not in versions:
            versions[name] = version
            origin = _origin(distribution)
            if origin:
                origins[name] = origin
    in_order = sorted(versions, key=str.lower)
    return Packages({name: versions[name] for name in in_order}, dict(sorted(origins.items())))


def _name_and_version(distribution: Distribution) -> tuple[str, str]:
    # only the head of it: to parse all, with the text for the index, would take ten times as long
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    found = dict(_HEAD.findall(text.partition("\n\n")[0]))
    return found.get("Name", ""), found.get("Version", "")


def _origin(distribution: Distribution) -> str | None:
    """Return what PEP 610's `direct_url.json` says."""
    text = distribution.read_text("direct_url.json")
    if not text:
        return None
    try:
        said: dict[str, Any] = json.loads(text)
        url = without_credentials(said["url"])
    except (ValueError, KeyError, TypeError):
        return None
    control: dict[str, Any] = said.get("vcs_info") or {}
    if control:
        return f"{control.get('vcs', 'git')}+{url}@{control.get('commit_id', '')}"
    folder: dict[str, Any] = said.get("dir_info") or {}
    return f"-e {url}" if folder.get("editable") else url
