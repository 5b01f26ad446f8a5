"""References: what tells the content at a URI apart, and a copy of it that is what it was.

`file://` is read here; any other scheme is fsspec's, with the extra `remote`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tracklayer.artifacts.blobs import sha256_of
from tracklayer.artifacts.credentials import holds_credentials
from tracklayer.artifacts.locations import local_path
from tracklayer.artifacts.records import ArtifactFile
from tracklayer.artifacts.walking import files_below
from tracklayer.errors import CorruptArtifactError, StoreError, UsageError

MAX_OBJECTS: Final = 10_000
"""How many files a folder may hold that a reference stands for, unless the call says another number."""
_ETAGS: Final = ("ETag", "etag", "md5Hash", "content_md5", "md5", "checksum")
"""Where fsspec's file systems put what the server says of the content."""


def refer(uri: str, name: str | None, *, checksum: bool, max_objects: int | None) -> list[ArtifactFile]:
    """Return what a URI stands for now: a file, or the files of a folder.

    Args:
        uri: a URI, or a path of this machine.
        name: the file's path in the artifact, or that of the folder; by default the file's name, and nothing.
        checksum: find out what tells the content apart: the SHA-256 of local files, else what a server says.
        max_objects: the most files that a folder may hold; 10,000 by default.

    Raises:
        UsageError: the URI holds credentials, nothing can be learned of its content, or it has more files.
        FileNotFoundError: there is no such file on this machine.
    """
    if holds_credentials(uri):
        msg = (
            "the URI holds credentials, which would be stored with the artifact: leave them out, and put "
            "them where its file system looks, such as the environment"
        )
        raise UsageError(msg)
    limit = MAX_OBJECTS if max_objects is None else max_objects
    path = local_path(uri)
    if path is not None:
        return _local(path, name, checksum=checksum, limit=limit)
    if checksum:
        return _remote(uri, name, limit)
    return [ArtifactFile(name or _last_part(uri), "", 0, uri, reference=uri)]


def fetch(file: ArtifactFile, target: Path) -> None:
    """Copy what a reference stands for to a path, in one step, if it is what it was.

    Raises:
        CorruptArtifactError: it is gone, or another.
        UsageError: what is needed to read it is not installed.
        OSError: the copy cannot be written.
    """
    uri = file.reference or ""
    temporary = target.with_name(f".{secrets.token_hex(8)}")
    path = local_path(uri)
    try:
        if path is not None:
            if not path.is_file():
                msg = f"there is no file {path} any more"
                raise CorruptArtifactError(msg)
            shutil.copyfile(path, temporary)
            found = sha256_of_file(temporary) if file.sha256 else ""
        else:
            found = _downloaded(uri, temporary, checked=bool(file.checksum))
        if found != (file.sha256 or file.checksum or ""):
            msg = f"{uri} holds something else than when it was added"
            raise CorruptArtifactError(msg)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb", buffering=0) as file:
        return sha256_of(file)


def _local(path: Path, name: str | None, *, checksum: bool, limit: int) -> list[ArtifactFile]:
    def entry(file: Path, inner: str) -> ArtifactFile:
        uri, size = file.as_uri(), file.stat().st_size
        sha256, md5 = _digests(file) if checksum else ("", None)
        return ArtifactFile(inner, sha256, size, uri, reference=uri, checksum=md5)

    if path.is_dir():
        files = _at_most(limit, files_below(path), str(path))
        return [entry(file, _joined(name, file.relative_to(path).as_posix())) for file in files]
    if not path.is_file():
        msg = f"there is no file or folder {path}"
        raise FileNotFoundError(msg)
    return [entry(path, name or path.name)]


def _digests(path: Path) -> tuple[str, str]:
    """Return a file's SHA-256 in hex, and its MD5 in base 64, by which W&B tells such references apart."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            md5.update(chunk)
    return sha256.hexdigest(), base64.b64encode(md5.digest()).decode()


def _remote(uri: str, name: str | None, limit: int) -> list[ArtifactFile]:
    system, path = _file_system(uri)
    try:
        info = system.info(path)
        folder = info.get("type") == "directory"
        found: Mapping[str, Mapping[str, Any]] = system.find(path, detail=True) if folder else {path: info}
    except Exception as error:  # each file system has errors of its own
        msg = f"cannot learn what {uri} holds: {error}; checksum=False adds it all the same"
        raise UsageError(msg) from error
    files: list[ArtifactFile] = []
    for key, one in _at_most(limit, sorted(found.items()), uri):
        inner = _joined(name, key.removeprefix(path).lstrip("/")) if folder else name or _last_part(uri)
        source = str(system.unstrip_protocol(key)) if folder else uri
        size, tells = int(one.get("size") or 0), _checksum(system, key, one, source)
        files.append(ArtifactFile(inner, "", size, source, reference=source, checksum=tells))
    return files


def _downloaded(uri: str, target: Path, *, checked: bool) -> str:
    """Download a file; return what its server says of its content."""
    system, path = _file_system(uri)
    try:
        system.get_file(path, str(target))
        info: Mapping[str, Any] = system.info(path) if checked else {}
    except FileNotFoundError as error:
        msg = f"{uri} is gone"
        raise CorruptArtifactError(msg) from error
    except Exception as error:  # each file system has errors of its own
        msg = f"{uri} cannot be read: {error}"
        raise StoreError(msg) from error
    return _checksum(system, path, info, uri) if checked else ""


def _checksum(system: Any, path: str, info: Mapping[str, Any], uri: str) -> str:
    """Return what a server says of a file's content: its ETag or the like, else its time and size."""
    for key in _ETAGS:
        if info.get(key):
            return str(info[key]).strip('"')
    try:
        modified = system.modified(path)
    except (NotImplementedError, AttributeError, KeyError):
        msg = f"the server says nothing that tells the content of {uri} apart; pass checksum=False"
        raise UsageError(msg) from None
    return f"{modified.isoformat()}/{info.get('size')}"


def _file_system(uri: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URI, and the path in it."""
    scheme = urlsplit(uri).scheme
    try:
        found: tuple[Any, str] = import_module("fsspec.core").url_to_fs(uri)
    except (ImportError, ValueError) as error:  # a package is missing, or nobody knows the scheme
        msg = (
            f"{scheme}:// cannot be read here: {error}; install its file system, such as with "
            "`pip install 'tracklayer[remote]'`, or pass checksum=False"
        )
        raise UsageError(msg) from error
    found[0].invalidate_cache()  # else it may say what it heard earlier
    return found


def _at_most(limit: int, items: Iterable[Any], where: str) -> list[Any]:
    found = list(islice(items, limit + 1))
    if len(found) > limit:
        msg = f"{where} holds more than {limit} files; pass a larger max_objects"
        raise UsageError(msg)
    return found


def _joined(folder: str | None, inner: str) -> str:
    return f"{folder}/{inner}" if folder else inner


def _last_part(uri: str) -> str:
    parts = urlsplit(uri)
    return os.path.basename(parts.path.rstrip("/")) or parts.netloc  # noqa: PTH119 - a URI's, not a path
