"""Copies that share their content with the original until one of the two changes (reflinks).

A copy takes no time and no room, and holds what the file held at one instant.  Btrfs, XFS, bcachefs, ZFS,
OCFS2, NFS 4.2 and APFS can do it.  Sources: `ioctl_ficlone(2)` of Linux, `clonefile(2)` of macOS.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

_FICLONE: Final = 0x40049409  # _IOW(0x94, 9, int) of <linux/fs.h>
_AT_FDCWD: Final = -2  # <fcntl.h> of macOS


def reflink(source: int, target: Path) -> bool:
    """Make a file that shares an open file's content; say whether the file system could.

    Args:
        source: the descriptor of a file that is open for reading.
        target: a path where nothing is; if it could not, nothing is there afterwards.
    """
    try:
        if sys.platform == "linux":
            _clone_on_linux(source, target)
        elif sys.platform == "darwin":
            _clone_on_macos(source, target)
        else:
            return False
    except OSError:  # whatever it was: a copy by reading meets it again, if it is more than a refusal
        with suppress(OSError):
            target.unlink()
        return False
    return True


def _clone_on_linux(source: int, target: Path) -> None:
    from fcntl import ioctl

    with target.open("xb") as file:
        ioctl(file.fileno(), _FICLONE, source)


def _clone_on_macos(source: int, target: Path) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fclonefileat(source, _AT_FDCWD, os.fsencode(target), 0) != 0:
        raise OSError(ctypes.get_errno(), "fclonefileat")
    target.chmod(0o644)  # it has the original's mode, which may be for its owner alone
