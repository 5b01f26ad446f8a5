"""What a run is, for training code to read: its names, its places, and where it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from tracklayer.errors import UsageError
from tracklayer.settings import NO_BACKEND

if TYPE_CHECKING:
    from tracklayer.protocol import RunInfo
    from tracklayer.queue import Queue
    from tracklayer.settings import Settings


class RunIdentity:
    """The part of `ActiveRun` that says what it is."""

    _info: RunInfo
    _queues: Sequence[Queue]
    _settings: Settings
    _sweep_id: str | None

    @property
    def info(self) -> RunInfo:
        """What the run is; the URL is there once a hosted backend gave one."""
        urls = [queue.info.url for queue in self._queues if queue.info.url]
        return replace(self._info, url=urls[0] if urls else None)

    @property
    def id(self) -> str:
        """The run's id."""
        return self._info.id

    @property
    def name(self) -> str:
        """The run's name; its id, if it was given none."""
        return self._info.name

    @name.setter
    def name(self, name: str) -> NoReturn:
        _stays("name", name)

    @property
    def project(self) -> str:
        """The run's project."""
        return self._info.project

    @property
    def entity(self) -> str | None:
        """W&B's user or team, if one was given or W&B has said it."""
        entities = [self._info.entity, *(queue.info.entity for queue in self._queues)]
        return next((entity for entity in entities if entity), None)

    @property
    def path(self) -> str:
        """Entity, project and id, with slashes; without the entity, if there is none."""
        return "/".join(part for part in (self.entity, self.project, self.id) if part)

    @property
    def group(self) -> str | None:
        """The run's group."""
        return self._info.group

    @property
    def sweep_id(self) -> str | None:
        """The sweep whose trial the run is, or is part of."""
        return self._sweep_id

    @property
    def job_type(self) -> str | None:
        """What a run of the group does."""
        return self._info.job_type

    @property
    def tags(self) -> tuple[str, ...]:
        """The run's tags."""
        return self._info.tags

    @tags.setter
    def tags(self, tags: Iterable[str]) -> NoReturn:
        _stays("tags", tags)

    @property
    def notes(self) -> str | None:
        """Free text."""
        return self._info.notes

    @notes.setter
    def notes(self, notes: str) -> NoReturn:
        _stays("notes", notes)

    @property
    def start_time(self) -> float:
        """When the run was created, in Unix seconds."""
        return self._info.created_at

    @property
    def offline(self) -> bool:
        """Whether no hosted backend shows the run."""
        return self.url is None

    @property
    def disabled(self) -> bool:
        """Whether nothing is recorded here."""
        return self._settings.backends == (NO_BACKEND,)

    @property
    def url(self) -> str | None:
        """Where a hosted backend shows the run."""
        return self.info.url

    @property
    def dir(self) -> str:
        """The store's folder."""
        return str(self._settings.dir)

    @property
    def resumed(self) -> bool:
        """Whether the run was recorded before, and is now continued."""
        return self._info.resumed


def _stays(what: str, value: object) -> NoReturn:
    msg = f"{what} is given to `init`, and stays: tracklayer.init({what}={value!r})"
    raise UsageError(msg)
