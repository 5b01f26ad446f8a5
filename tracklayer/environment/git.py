"""What git says of the code that runs, by the `git` program; without one there is nothing to say.

Nothing of the user's is run by it but the filters of a repository, such as git-lfs, without which its files
would not be what was committed: no external diff, no hook, no file system monitor, no pager; and nothing is
written or asked.  What git refuses, such as a folder of somebody else's, or does not know, such as the commit
of a repository that has none, is absent.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from threading import Timer
from time import monotonic
from typing import Any, Final, NamedTuple, final

from tracklayer.environment.masking import Masker, is_private_path, without_credentials

SECONDS: Final = 5.0
"""What all commands may take together; they take about 0.03 s, and longer on a busy network file system."""
DIFF_BYTES: Final = 1_000_000
INSTALLED: Final = frozenset({"site-packages", "dist-packages", "__pycache__"})
"""Folders with code that is nobody's own."""
_UNTRACKED: Final = 500
"""The most names of untracked files that are kept."""
_UNKNOWN: Final = "??"
"""With which git marks a file that it does not know."""
_LISTING_BYTES: Final = 1_000_000
_QUIET: Final = (
    *("--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"),
    *("-c", "core.quotePath=false", "-c", "diff.submodule=short"),
)
_ELSEWHERE: Final = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_EXTERNAL_DIFF")
"""Variables that a hook of git's gives its children, and that speak of another repository."""
_REMOTE: Final = re.compile(r"remote\.(.+)\.url (.+)")
_NEXT_FILE: Final = re.compile(r"^(?=diff --git )", re.MULTILINE)


class Diff(NamedTuple):
    """What differs from the last commit.

    Attributes:
        text: as git prints it; of binary files only that they differ.
        is_whole: whether it fitted.
        without: the changed files that are not in it: their content is somebody's own, or did not fit.
    """

    text: str
    is_whole: bool
    without: list[str]


@final
class Repository:
    """A folder that git knows.

    Attributes:
        root: its top folder.

    Raises:
        LookupError: there is no git, or it does not know the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._deadline = monotonic() + SECONDS
        root = self._line("rev-parse", "--show-toplevel")
        if not root:
            msg = f"{folder} is no git repository"
            raise LookupError(msg)
        self.root = self._folder = Path(root)

    def facts(self) -> dict[str, Any]:
        """Return the commit, the branch, the remote without credentials, and whether files were changed."""
        known = {
            "commit": self._line("rev-parse", "--verify", "--quiet", "HEAD^{commit}"),
            "branch": self._line("symbolic-ref", "--quiet", "--short", "HEAD"),
            "remote": self._remote(),
            "root": str(self.root),
            "dirty": None if self._status is None else bool(self._changed),
        }
        return {name: value for name, value in known.items() if value is not None}

    def has(self, commit: str) -> bool:
        """Say whether a commit is here."""
        return self._line("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}") == commit

    def untracked(self) -> list[str]:
        """Return the first names of what git neither knows nor ignores; those of folders end with a slash."""
        names = [entry[3:] for entry in self._status or () if entry.startswith(_UNKNOWN)]
        return names[:_UNTRACKED]

    def untracked_code(self, masker: Masker) -> str:
        """Return the code that git neither knows nor ignores, as a diff that adds it; secrets are masked.

        Left out are installed packages, files that are somebody's own (`is_private_path`), those that are no
        UTF-8, and what does not fit any more.
        """
        patterns = (f":(top,glob)**/{name}" for name in ("*.py", "requirements*", "Dockerfile*"))
        listed = self._output("ls-files", "--others", "--exclude-standard", "-z", "--", *patterns) or ""
        parts: list[str] = []
        left = DIFF_BYTES
        for path in listed.split("\0")[:-1]:  # after the last one, or after what is cut off, there is none
            if not _is_own_code(path):
                continue
            try:
                with open(self.root / path, "rb") as file:  # noqa: PTH123 - to read no more than is taken
                    text = file.read(left + 1).decode()
            except (OSError, UnicodeDecodeError):
                continue
            part = _added(path, masker.code(text))
            if len(part) <= left:
                left -= len(part)
                parts.append(part)
        return "".join(parts)

    def diff(self, masker: Masker) -> Diff | None:
        """Return what was changed since the commit; None where nothing was, or that is not known.

        The files that are somebody's own (`is_private_path`) are left out, and secrets in others are masked.
        """
        changed = self._changed
        private = [path for path in changed if is_private_path(path)]
        if not changed:
            return None
        if len(private) == len(changed):
            return Diff("", is_whole=True, without=private)
        text = self._output(
            *("diff", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-color"),
            *("--src-prefix=a/", "--dst-prefix=b/", "--ignore-submodules=dirty", "HEAD", "--", ":/"),
            *(f":(top,exclude,literal){path}" for path in private),
            limit=DIFF_BYTES + 1,
        )
        if text is None:
            return None
        files = split_diff(text)
        is_whole = len(text.encode(errors="surrogateescape")) <= DIFF_BYTES
        if not is_whole:
            files.pop()  # the one that is cut off
        shown = {file_of(file) for file in files}
        masked = "".join(masker.code(file) for file in files)
        readable = masked.encode(errors="surrogateescape").decode(errors="replace")
        return Diff(readable, is_whole, [path for path in changed if path not in shown])

    @cached_property
    def _status(self) -> list[str] | None:
        """The letters and the name of each file that is not as it was committed; None if it is not known."""
        listed = self._output("status", "--porcelain", "-z", "--no-renames", "--ignore-submodules=dirty")
        return None if listed is None else [entry for entry in listed.split("\0") if entry]

    @property
    def _changed(self) -> list[str]:
        return [entry[3:] for entry in self._status or () if not entry.startswith(_UNKNOWN)]

    def _remote(self) -> str | None:
        listed = self._output("config", "--get-regexp", r"^remote\..*\.url$") or ""
        urls: dict[str, str] = dict(_REMOTE.findall(listed))
        url = urls.get("origin") or next(iter(urls.values()), None)
        return without_credentials(url) if url else None

    def _line(self, *arguments: str) -> str | None:
        output = self._output(*arguments)
        return output.rstrip("\n") or None if output else None

    def _output(self, *arguments: str, limit: int = _LISTING_BYTES) -> str | None:
        """Return what git prints, up to a number of bytes; None where it fails or takes too long."""
        left = self._deadline - monotonic()
        if left <= 0:
            return None
        try:
            process = subprocess.Popen(  # noqa: S603 - git, with arguments that no shell reads
                git_command(*arguments),
                cwd=self._folder,
                env=git_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError:  # there is no git, or the folder is gone
            return None
        with process:
            watchdog = Timer(left, process.kill)
            watchdog.daemon = True
            watchdog.start()
            try:
                printed = process.stdout.read(limit) if process.stdout else b""
            finally:
                watchdog.cancel()
            if len(printed) == limit:
                process.kill()  # the rest of it nobody reads
        if process.returncode and len(printed) < limit:
            return None
        return printed.decode(errors="surrogateescape")


def git_command(*arguments: str) -> list[str]:
    """Return a command of git that runs nothing of the user's."""
    return ["git", *_QUIET, *arguments]


def git_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which git asks nothing, writes nothing by the way, and speaks English."""
    kept = {name: value for name, value in variables.items() if name not in _ELSEWHERE}
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}


def repository_at(folders: Iterable[Path]) -> Repository | None:
    """Return the repository of the first folder that lies in one."""
    for folder in folders:
        try:
            return Repository(folder)
        except LookupError:
            continue
    return None


def _is_own_code(path: str) -> bool:
    has_plain_name = path.isprintable() and not any(sign in path for sign in '"\\')
    return has_plain_name and not is_private_path(path) and INSTALLED.isdisjoint(path.split("/"))


def _added(path: str, text: str) -> str:
    """Return the part of a diff that adds a file, as git writes it."""
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n"
    if not text:
        return f"{head}index 0000000..e69de29\n"
    lines = text.removesuffix("\n").split("\n")
    end = "" if text.endswith("\n") else "\\ No newline at end of file\n"
    place = f"--- /dev/null\n+++ b/{path}{chr(9) if ' ' in path else ''}\n@@ -0,0 +1,{len(lines)} @@\n"
    return f"{head}{place}{''.join(f'+{line}{chr(10)}' for line in lines)}{end}"


def split_diff(text: str) -> list[str]:
    """Return the parts of a diff, one for each file."""
    return [part for part in _NEXT_FILE.split(text) if part.startswith("diff --git ")]


def file_of(part: str) -> str:
    """Return the path of the file that a part of a diff is about."""
    line = part.partition("\n")[0].removeprefix("diff --git ")
    half = len(line) // 2  # `a/path b/path`, which are the same path
    return line[half + 1 :].removeprefix("b/").removesuffix('"').removeprefix('"b/')
