"""What `init` is told besides its arguments: W&B's settings object, and W&B's variables.

An argument is stronger than the object, and the object stronger than the environment.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Never, final

from tracklayer.configuration import checked_mapping, plain
from tracklayer.environment import PARTS
from tracklayer.errors import UsageError
from tracklayer.settings import NO_CODE, NO_GIT, console_of, wandb_default
from tracklayer.settings import Settings as RecordingSettings

_FIELDS: Final[Mapping[str, str]] = {
    "project": "project",
    "entity": "entity",
    "name": "run_name",
    "id": "run_id",
    "group": "run_group",
    "job_type": "run_job_type",
    "notes": "run_notes",
    "resume": "resume",
}
"""What W&B's object calls that for which W&B also has a variable."""


@final
class Settings:
    """W&B's object for what `init` may be told in one piece.

    Args:
        entity: as `init` has it; so are `project`, `mode`, `resume` and `reinit`.
        project: see `entity`.
        run_id: `id` of `init`, and so on, down to `run_tags`.
        run_name: see `run_id`.
        run_group: see `run_id`.
        run_job_type: see `run_id`.
        run_notes: see `run_id`.
        run_tags: see `run_id`.
        mode: see `entity`.
        resume: see `entity`.
        reinit: see `entity`.
        root_dir: `dir` of `init`.
        init_timeout: seconds that `init` waits for a backend.
        finish_timeout: seconds that `finish` waits for a hosted backend.
        console: `"off"` records nothing of what is printed, `"redirect"` also what C code and children
            print, and `"auto"`, `"wrap"`, `"wrap_raw"` and `"wrap_emu"` what Python does.
        save_code: whether the program and its local imports are recorded as an artifact; not by default.
        disable_code: record neither the code nor how it differs from the commit.
        disable_git: record nothing of the git repository.
        x_disable_stats: measure nothing of the machine.
        x_stats_sampling_interval: seconds between measurements of the machine.
        x_disable_meta: record nothing of what the process is, its code and packages included.
        x_save_requirements: False records no packages.
        others: W&B's further fields, which are refused: they are its client's own.

    Raises:
        UsageError: a field that means nothing here, or a value that cannot be right.
    """

    __slots__ = (
        "console",
        "disable_code",
        "disable_git",
        "entity",
        "finish_timeout",
        "init_timeout",
        "mode",
        "project",
        "reinit",
        "resume",
        "root_dir",
        "run_group",
        "run_id",
        "run_job_type",
        "run_name",
        "run_notes",
        "run_tags",
        "save_code",
        "x_disable_meta",
        "x_disable_stats",
        "x_save_requirements",
        "x_stats_sampling_interval",
    )

    def __init__(
        self,
        *,
        entity: str | None = None,
        project: str | None = None,
        run_id: str | None = None,
        run_name: str | None = None,
        run_group: str | None = None,
        run_job_type: str | None = None,
        run_notes: str | None = None,
        run_tags: Iterable[str] | None = None,
        mode: str | None = None,
        resume: str | bool | None = None,
        reinit: str | bool | None = None,
        root_dir: str | os.PathLike[str] | None = None,
        init_timeout: float | None = None,
        finish_timeout: float | None = None,
        console: str | None = None,
        save_code: bool | None = None,
        disable_code: bool | None = None,
        disable_git: bool | None = None,
        x_disable_stats: bool | None = None,
        x_stats_sampling_interval: float | None = None,
        x_disable_meta: bool | None = None,
        x_save_requirements: bool | None = None,
        **others: Never,
    ) -> None:
        for name in others:
            msg = (
                f"Settings: {name} means nothing to tracklayer; W&B's client, where it records, also "
                f"reads it from WANDB_{name.upper()}"
            )
            raise UsageError(msg)
        self.entity = entity
        self.project = project
        self.run_id = run_id
        self.run_name = run_name
        self.run_group = run_group
        self.run_job_type = run_job_type
        self.run_notes = run_notes
        self.run_tags = run_tags
        self.mode = mode
        self.resume = resume
        self.reinit = reinit
        self.root_dir = root_dir
        self.init_timeout = _checked_seconds("init_timeout", init_timeout)
        self.finish_timeout = _checked_seconds("finish_timeout", finish_timeout)
        self.console = None if console is None else console_of(console, "Settings: console")
        self.save_code = save_code
        self.disable_code = disable_code
        self.disable_git = disable_git
        self.x_disable_stats = x_disable_stats
        self.x_stats_sampling_interval = _checked_seconds(
            "x_stats_sampling_interval", x_stats_sampling_interval
        )
        self.x_disable_meta = x_disable_meta
        self.x_save_requirements = x_save_requirements

    @classmethod
    def of(cls, given: Settings | Mapping[str, Any] | None) -> Settings:
        """Return what `init` was given as an object.

        Raises:
            UsageError: a field that means nothing here, or something else than settings.
        """
        if isinstance(given, Settings):
            return given
        return cls(**checked_mapping({} if given is None else given, "settings"))

    def applied_to(self, settings: RecordingSettings) -> RecordingSettings:
        """Return the settings with what this says."""
        said: dict[str, Any] = {
            "start_timeout": self.init_timeout,
            "finish_timeout": self.finish_timeout,
            "console": self.console,
            "system_interval": 0.0 if self.x_disable_stats else self.x_stats_sampling_interval,
            "omit": self._omitted(settings.omit),
            "save_code": self.save_code,
        }
        return replace(settings, **{name: value for name, value in said.items() if value is not None})

    def _omitted(self, omitted: frozenset[str]) -> frozenset[str]:
        """Return what is left out of the environment, given what is left out so far."""
        for leaves_out, parts in (
            (self.disable_code, NO_CODE),
            (self.disable_git, NO_GIT),
            (self.x_save_requirements is False, {"packages"}),
            (self.x_disable_meta, PARTS),
        ):
            if leaves_out:
                omitted |= parts
        return omitted

    def default(self, argument: str, otherwise: str | None = None) -> Any:
        """Return what an argument is that `init` was not given, or None.

        It is what this says, else the one otherwise meant, else what W&B's variable says.
        """
        said = getattr(self, _FIELDS[argument])
        return said if said is not None else otherwise or wandb_default(argument)


def chosen_config(
    config: Any, include: Container[str] | None = None, exclude: Container[str] | None = None
) -> Mapping[str, Any]:
    """Return the mapping view of a config: all of it, what is included, or all but what is excluded.

    Raises:
        UsageError: it has none, or both are given.
        UnsupportedValueError: it holds what is logged, such as an image.
    """
    if include and exclude:
        msg = "config_include_keys and config_exclude_keys: give one of them"
        raise UsageError(msg)
    view = checked_mapping({} if config is None else config)
    chosen = {
        k: v for k, v in view.items() if not (include and k not in include) and k not in (exclude or ())
    }
    for key, value in chosen.items():
        plain(value, key, [])  # what it cannot be is said before a run is opened
    return chosen


def _checked_seconds(name: str, seconds: float | None) -> float | None:
    if seconds is not None and not (isinstance(seconds, (int, float)) and 0 <= seconds < float("inf")):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
        msg = f"Settings: {name}={seconds!r} is no number of seconds"
        raise UsageError(msg)
    return seconds
