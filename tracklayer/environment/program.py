"""Which program runs, and with what arguments, as W&B's client tells it."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def program_file() -> Path | None:
    """Return the file of the program, or the notebook; None for one that has none, such as `python -c`."""
    notebook = _notebook()
    if notebook is not None:
        return notebook
    found = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(os.path.abspath(found)) if isinstance(found, str) else None  # noqa: PTH100 - without following links


def program_name(root: Path) -> str | None:
    """Return the program's path relative to a folder, if it lies below it; `-m package.module` for a module.

    Args:
        root: git's root, or the working folder.
    """
    specification = getattr(sys.modules.get("__main__"), "__spec__", None)
    if specification is not None and _notebook() is None:
        return f"-m {specification.name}"
    file = program_file()
    if file is None:
        return None
    for found, folder in ((file, root), (Path(os.path.realpath(file)), Path(os.path.realpath(root)))):
        if found.is_relative_to(folder):
            return found.relative_to(folder).as_posix()
    return str(file)


def program_arguments() -> list[str]:
    """Return the program's arguments; none of a notebook, whose kernel has arguments of its own."""
    return [] if _notebook() is not None or is_notebook() else sys.argv[1:]


def is_interactive() -> bool:
    """Say whether code is typed in while the process runs: in a notebook, or at a prompt."""
    return is_notebook() or hasattr(sys, "ps1")


def is_notebook() -> bool:
    """Say whether this is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def _notebook() -> Path | None:
    """Return the notebook of which this is the kernel, if it is known which."""
    if not is_notebook():
        return None
    # what Jupyter's server says since its version 2, and what VS Code puts among the notebook's names
    said = os.environ.get("WANDB_NOTEBOOK_NAME") or os.environ.get("JPY_SESSION_NAME")
    found = said or getattr(sys.modules.get("__main__"), "__vsc_ipynb_file__", None)
    return Path(os.path.abspath(found)) if isinstance(found, str) else None  # noqa: PTH100 - without following links
