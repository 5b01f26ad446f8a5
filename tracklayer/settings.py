"""Settings: arguments, environment, defaults; read once, at `init`, into one frozen object.

This is the only module where backends' names stand, as defaults that a setting can change.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, cast, get_args

from tracklayer.environment import PARTS
from tracklayer.errors import UsageError

DEFAULT_BACKEND: Final = "sqlite"
LOCAL_BACKEND: Final = "sqlite"
"""What accompanies a hosted backend, so that nothing is lost when the network is."""
ONLINE_BACKEND: Final = "wandb"
"""What `mode="online"` means, and where `tracklayer push` goes."""
NO_BACKEND: Final = "disabled"
DEFAULT_FOLDER: Final = ".tracklayer"
DEFAULT_PROJECT: Final = "uncategorized"

Mode = Literal["online", "offline", "disabled"]
Console = Literal["off", "python", "process"]
_FINISH_TIMEOUT: Final = 30.0
_SYSTEM_INTERVAL: Final = 10.0
_CONSOLE: Final = "python"
_WANDB_CONSOLES: Final[Mapping[str, Console]] = {
    "auto": _CONSOLE,
    "off": "off",
    "wrap": "python",
    "wrap_raw": "python",
    "wrap_emu": "python",
    "redirect": "process",
}
"""What W&B calls the ways to record the console."""
NO_GIT: Final = frozenset({"git"})
"""What W&B's `disable_git` leaves out of the environment."""
NO_CODE: Final = frozenset({"code", "diff"})
"""What W&B's `disable_code` leaves out of it."""

# W&B's variables for what `init` is not told: a ported script finds what it found before
_WANDB_VARIABLES: Final[Mapping[str, str]] = {
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "name": "WANDB_NAME",
    "id": "WANDB_RUN_ID",
    "group": "WANDB_RUN_GROUP",
    "job_type": "WANDB_JOB_TYPE",
    "notes": "WANDB_NOTES",
    "tags": "WANDB_TAGS",
    "resume": "WANDB_RESUME",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run was told about where and how to record.

    Attributes:
        backends: names, in the order given, none twice.
        dir: the store folder (`TRACKLAYER_DIR`), absolute.
        offline: backends that need a server are left out.
        fallback: what a hosted backend's failure at the start is (`TRACKLAYER_FALLBACK`).
        start_timeout: seconds that `init` waits for a backend.
        finish_timeout: seconds that `finish` waits for a hosted backend (`TRACKLAYER_FINISH_TIMEOUT`).
        commit_interval: seconds between commits, unless a backend chooses its own.
        queue_bytes: about the most memory that a backend's queue holds.
        artifacts: where artifacts lie: a folder or an fsspec URL (`TRACKLAYER_ARTIFACTS`); None is the store.
        replaying: the run comes from a record, so this machine and this process are none of it.
        console: what is recorded of what the process prints (`TRACKLAYER_CONSOLE`): `"python"`, what goes
            through `sys.stdout` and `sys.stderr`; `"process"`, also what C code and children write; `"off"`.
        system_interval: seconds between measurements of the machine (`TRACKLAYER_SYSTEM_INTERVAL`); 0 for
            none.
        omit: parts of the environment that are not recorded (`TRACKLAYER_OMIT`, with commas), of
            `tracklayer.environment.PARTS`.
        save_code: the program and its local imports are recorded as an artifact (`TRACKLAYER_SAVE_CODE`).
        alert_command: a program that is given alerts (`TRACKLAYER_ALERT_COMMAND`), and its arguments.
        alert_url: the address to which they are posted (`TRACKLAYER_ALERT_URL`).
    """

    backends: tuple[str, ...]
    dir: Path
    offline: bool = False
    fallback: Literal["record", "error"] = "record"
    start_timeout: float = 9.0
    finish_timeout: float = _FINISH_TIMEOUT
    commit_interval: float = 0.1
    queue_bytes: int = 256_000_000
    artifacts: str | None = None
    replaying: bool = False
    console: Console = _CONSOLE
    system_interval: float = _SYSTEM_INTERVAL
    omit: frozenset[str] = frozenset()
    save_code: bool = False
    alert_command: tuple[str, ...] = field(default=(), repr=False)  # they may hold secrets
    alert_url: str | None = field(default=None, repr=False)


def read_settings(
    *,
    backend: str | Iterable[str] | None = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 - the name that `init` shows
    mode: str | None = None,
) -> Settings:
    """Combine `init`'s arguments with the environment.

    `backend` is stronger than `TRACKLAYER_BACKEND`.  `mode` and `WANDB_MODE` are W&B's habits:
    `"disabled"` records nothing, `"offline"` leaves hosted backends out, `"online"` means W&B unless
    the environment chose a backend.

    Raises:
        UsageError: a setting has a value that it cannot have.
    """
    from tracklayer.alerts.sending import checked_command, checked_url  # with it comes more than this module

    environment = os.environ
    mode = mode or environment.get("WANDB_MODE") or None
    if mode not in {None, "dryrun", *get_args(Mode)}:
        msg = f"mode {mode!r}: use 'online', 'offline' or 'disabled'"
        raise UsageError(msg)
    chosen = backend if backend is not None else environment.get("TRACKLAYER_BACKEND") or None
    if chosen is None:
        chosen = ONLINE_BACKEND if mode == "online" else DEFAULT_BACKEND
    if mode == "disabled":
        chosen = NO_BACKEND
    words = chosen.split(",") if isinstance(chosen, str) else chosen
    names = tuple(dict.fromkeys(word.strip().lower() for word in words if word.strip()))
    if not names:
        msg = f"no backend is named by {chosen!r}"
        raise UsageError(msg)
    fallback = environment.get("TRACKLAYER_FALLBACK") or "record"
    if fallback not in {"record", "error"}:
        msg = f"TRACKLAYER_FALLBACK={fallback!r}: use 'record' (the default) or 'error'"
        raise UsageError(msg)
    return Settings(
        backends=names,
        dir=store_folder(dir),
        offline=mode in {"offline", "dryrun"},
        fallback="error" if fallback == "error" else "record",
        finish_timeout=_seconds(environment, "TRACKLAYER_FINISH_TIMEOUT", _FINISH_TIMEOUT),
        artifacts=artifacts_url(),
        console=_console(environment),
        system_interval=_seconds(environment, "TRACKLAYER_SYSTEM_INTERVAL", _SYSTEM_INTERVAL),
        omit=_omitted(environment),
        save_code=_is_on(environment, "TRACKLAYER_SAVE_CODE") or _is_on(environment, "WANDB_SAVE_CODE"),
        alert_command=checked_command(environment.get("TRACKLAYER_ALERT_COMMAND")),
        alert_url=checked_url(environment.get("TRACKLAYER_ALERT_URL")),
    )


def store_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the store's folder: the argument, else `TRACKLAYER_DIR`, else `.tracklayer` here."""
    return Path(folder or os.environ.get("TRACKLAYER_DIR") or DEFAULT_FOLDER).expanduser().absolute()


def artifacts_url() -> str | None:
    """Return where artifacts lie: `TRACKLAYER_ARTIFACTS`, a folder or an fsspec URL; None is the store."""
    chosen = os.environ.get("TRACKLAYER_ARTIFACTS") or None
    if chosen is None or "://" in chosen:
        return chosen
    return str(Path(chosen).expanduser().absolute())


def wandb_default(argument: str) -> str | None:
    """Return what W&B's own variable says for an argument that `init` was not given."""
    return os.environ.get(_WANDB_VARIABLES[argument]) or None


def console_of(said: str, where: str) -> Console:
    """Return what W&B's name of a way to record the console means here.

    Raises:
        UsageError: it has no such way; the message says where it was asked for.
    """
    if said not in _WANDB_CONSOLES:
        msg = f"{where}={said!r}: use one of {', '.join(map(repr, _WANDB_CONSOLES))}"
        raise UsageError(msg)
    return _WANDB_CONSOLES[said]


def _console(environment: Mapping[str, str]) -> Console:
    said = environment.get("TRACKLAYER_CONSOLE")
    if not said:
        return console_of(environment.get("WANDB_CONSOLE") or "auto", "WANDB_CONSOLE")
    for console in get_args(Console):
        if said == console:
            return cast("Console", console)
    msg = f"TRACKLAYER_CONSOLE={said!r}: use 'python' (the default), 'process' or 'off'"
    raise UsageError(msg)


def _omitted(environment: Mapping[str, str]) -> frozenset[str]:
    """Return what is left out of the environment."""
    words = environment.get("TRACKLAYER_OMIT", "").split(",")
    omitted = {word.strip().lower() for word in words if word.strip()}
    if unknown := omitted - PARTS:
        msg = f"TRACKLAYER_OMIT names {', '.join(sorted(unknown))}; use words of {', '.join(sorted(PARTS))}"
        raise UsageError(msg)
    for variable, parts in (("WANDB_DISABLE_GIT", NO_GIT), ("WANDB_DISABLE_CODE", NO_CODE)):
        if _is_on(environment, variable):
            omitted |= parts
    return frozenset(omitted)


def _is_on(environment: Mapping[str, str], variable: str) -> bool:
    return environment.get(variable, "").lower() in {"1", "true", "yes", "on", "t", "y"}


def _seconds(environment: Mapping[str, str], variable: str, default: float) -> float:
    text = environment.get(variable)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        msg = f"{variable}={text!r}: use a number of seconds"
        raise UsageError(msg)
    return seconds
