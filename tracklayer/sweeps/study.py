"""A sweep in the store: an Optuna study in a file of its own, `<store>/sweeps/<id>.journal`.

All of a sweep is in its study.  The study's attribute `tracklayer` holds the configuration as it was given
and what else is settled at the start, and its attribute `state` whether agents may begin trials.  A trial has
the attributes that `tracklayer.sweeps.claiming` lists.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, cast, final

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.trial import create_trial

from tracklayer import reporting
from tracklayer.errors import StoreError, StoreTooNewError, SweepNotFoundError, UsageError
from tracklayer.folders import make_store, move_new
from tracklayer.naming import new_run_id
from tracklayer.sweeps import RETRIES
from tracklayer.sweeps.configuration import SweepConfig, nested, read_config
from tracklayer.sweeps.journal import open_journal

State = Literal["running", "paused", "stopped"]

_VERSION: Final = 1
_FOLDER: Final = "sweeps"
_JOURNAL: Final = ".journal"
_SETTLED: Final = "tracklayer"
_STATE: Final = "state"
_LOCK_SECONDS: Final = 60.0
"""A claim takes milliseconds: whoever waits longer waits for a process that hangs."""
_POLL_SECONDS: Final = 0.01
_DAMAGED: Final = (ValueError, KeyError, TypeError, AttributeError, AssertionError)
"""What Optuna raises, or this module, of a file that is no sweep."""


@final
@dataclass(frozen=True, slots=True)
class PriorRun:
    """A run that was there before the sweep, and counts as one of its trials.

    Attributes:
        parameters: its config, nested.
        value: the best that it logged of the metric.
        run: its id.
    """

    parameters: Mapping[str, Any]
    value: float | None
    run: str


@final
@dataclass(frozen=True, eq=False)
class SweepStudy:
    """A sweep, as it is just now; what other processes do to it is seen at the next look.

    Attributes:
        id: what names it.
        store: the store's folder, absolute.
        config: what is tried, and how.
        project: of its runs.
        entity: likewise.
        seed: of its choices, for one agent to repeat them.
        retries: how often a trial is tried again whose process died.
        created_at: Unix seconds.
        study: Optuna's; it is for one process, and its trials' attributes are for `claiming` to set.
        storage: what holds that.
    """

    id: str
    store: Path
    config: SweepConfig
    project: str
    entity: str | None
    seed: int | None
    retries: int
    created_at: float
    study: optuna.Study
    storage: JournalStorage

    @property
    def path(self) -> Path:
        """The file that holds all of it."""
        return _path(self.store, self.id)

    @property
    def agents(self) -> Path:
        """The folder of its agents' leases."""
        return self.path.with_suffix(".agents")

    @property
    def state(self) -> State:
        """Whether agents may begin trials."""
        return cast("State", self.study.user_attrs[_STATE])

    def set_state(self, state: State) -> None:
        """Let agents begin trials, or not; those that run go on.

        Raises:
            StoreError: the file cannot be written.
        """
        with self.errors():
            self.study.set_user_attr(_STATE, state)

    def prune_nothing(self) -> None:
        """Have this process stop no trial early, as where all of one is done before it is reported."""
        self.study.pruner = NopPruner()

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """What Optuna chooses from, by its names; constants are not among it."""
        return _distributions(self.config)

    @contextmanager
    def lock(self) -> Generator[None]:
        """Be the one thread, of all processes, that claims a trial or ends one, until it is killed.

        Raises:
            StoreError: it cannot be had.
        """
        lock = FileLock(self.path.with_suffix(".claim"), timeout=_LOCK_SECONDS)
        try:
            lock.acquire(poll_interval=_POLL_SECONDS)
        except Timeout as error:
            msg = f"another process has held {lock.lock_file} for {_LOCK_SECONDS:.0f} s: end it if it hangs"
            raise StoreError(msg) from error
        except (OSError, NotImplementedError) as error:  # the latter: a file system that has no locks
            msg = f"cannot lock {lock.lock_file}: {error}; a sweep needs a file system with file locks"
            raise StoreError(msg) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def errors(self) -> Generator[None]:
        """Raise errors of the file as what they mean here.

        Raises:
            StoreError: the file cannot be read or written.
        """
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            msg = f"cannot write {self.path}: {error.strerror}"
            raise StoreError(msg) from error


def create(
    store: Path,
    config: SweepConfig,
    *,
    project: str,
    entity: str | None = None,
    seed: int | None = None,
    retries: int = RETRIES,
    prior: Sequence[PriorRun] = (),
) -> SweepStudy:
    """Create a sweep; it is in the store whole, or not at all.

    A prior run that is none of the sweep's possible trials is left out, and a warning says why.

    Args:
        store: the store's folder, which is made if it is not there.
        config: what is tried, and how.
        project: of its runs.
        entity: likewise.
        seed: of its choices, for one agent to repeat them.
        retries: how often a trial is tried again whose process died.
        prior: runs that count as trials.

    Raises:
        StoreError: the store cannot be written.
    """
    settled = {
        "version": _VERSION,
        "config": config.given,
        "project": project,
        "entity": entity,
        "seed": seed,
        "retries": retries,
        "created_at": time.time(),
    }
    store = store.absolute()
    try:
        make_store(store)
        (store / _FOLDER).mkdir(exist_ok=True)
        sweep_id = new_run_id()
        path = _path(store, sweep_id)
        aside = path.with_suffix(".new")
        try:
            with _quiet():
                study = optuna.create_study(
                    storage=open_journal(aside),
                    study_name=sweep_id,
                    direction="minimize" if config.metric is None else config.metric.goal,
                )
            study.set_user_attr(_SETTLED, settled)
            study.set_user_attr(_STATE, "running")
            for run in prior:
                _add(study, config, run)
            move_new(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        msg = f"cannot write {store / _FOLDER}: {error.strerror}"
        raise StoreError(msg) from error
    return _open(store, sweep_id)


def open_sweep(store: Path, sweep: str) -> SweepStudy:
    """Open a sweep.

    Args:
        store: the store's folder.
        sweep: its id, or the beginning of it; also as `"project/id"` or `"entity/project/id"`.

    Raises:
        SweepNotFoundError: there is none of that name, or several.
        StoreError: it cannot be read.
    """
    *where, wanted = sweep.split("/")
    ids = _ids(store)
    found = [wanted] if wanted in ids else [known for known in ids if wanted and known.startswith(wanted)]
    if len(found) > 1:
        msg = f"several sweeps of {store} begin with {wanted!r}: {', '.join(found)}"
        raise SweepNotFoundError(msg)
    if not found:
        msg = f"no sweep {wanted!r} is in {store}: `tracklayer sweeps` lists those that are"
        raise SweepNotFoundError(msg)
    opened = _open(store.absolute(), found[0])
    if where and where[-1] != opened.project:
        msg = f"sweep {opened.id} is of project {opened.project!r}, not {where[-1]!r}"
        raise SweepNotFoundError(msg)
    return opened


def find_sweeps(store: Path) -> list[SweepStudy]:
    """Return the sweeps of a store, oldest first; a warning names each one that cannot be read."""
    found: list[SweepStudy] = []
    for sweep_id in _ids(store):
        try:
            found.append(_open(store.absolute(), sweep_id))
        except StoreError as error:
            reporting.warn(str(error))
    return sorted(found, key=lambda sweep: (sweep.created_at, sweep.id))


def _open(store: Path, sweep_id: str) -> SweepStudy:
    path = _path(store, sweep_id)
    try:
        storage = open_journal(path)
        study = optuna.load_study(
            study_name=sweep_id, storage=storage, sampler=optuna.samplers.RandomSampler()
        )
        settled = _checked(study.user_attrs[_SETTLED], path)
        config = read_config(settled["config"])
        study.pruner = _pruner(config)
        return SweepStudy(
            id=sweep_id,
            store=store,
            config=config,
            project=settled["project"],
            entity=settled["entity"],
            seed=settled["seed"],
            retries=settled["retries"],
            created_at=settled["created_at"],
            study=study,
            storage=storage,
        )
    except StoreTooNewError:
        raise
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise StoreError(msg) from error
    except _DAMAGED as error:
        msg = f"{path} is no sweep, or is damaged ({error!r}): bring it back from a copy, or delete it"
        raise StoreError(msg) from error


def _checked(settled: dict[str, Any], path: Path) -> dict[str, Any]:
    if settled["version"] > _VERSION:
        msg = f"{path} was written by a newer version of tracklayer: update this one"
        raise StoreTooNewError(msg)
    return settled


def _pruner(config: SweepConfig) -> BasePruner:
    bands = config.early_terminate
    if bands is None:
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=bands.first, reduction_factor=bands.eta)


def _distributions(config: SweepConfig) -> dict[str, BaseDistribution]:
    found = {parameter.name: parameter.distribution() for parameter in config.parameters}
    return {name: distribution for name, distribution in found.items() if distribution is not None}


def _add(study: optuna.Study, config: SweepConfig, run: PriorRun) -> None:
    """Add a prior run to a study, or say why that cannot be."""
    distributions = _distributions(config)
    try:
        if run.value is None and config.metric is not None:
            msg = f"it has no value of {config.metric.name!r}"
            raise UsageError(msg)
        params: dict[str, Any] = {}
        real: dict[tuple[str, ...], Any] = {}
        for parameter in config.parameters:
            if parameter.name in distributions:
                real[parameter.path] = _at(run.parameters, parameter.path)
                params[parameter.name] = parameter.internal(real[parameter.path])
            else:  # whatever it was: nothing is chosen of it
                with suppress(UsageError):
                    real[parameter.path] = _at(run.parameters, parameter.path)
        trial = create_trial(
            value=run.value or 0.0,
            params=params,
            distributions=distributions,
            user_attrs={
                "parameters": nested(real),
                "run": run.run,
                "attempt": 0,  # it was not one of the sweep's own
                "outcome": "finished",
            },
        )
    except ValueError as error:  # a value that lies outside
        reporting.warn(f"sweep: prior run {run.run} is left out: {error}")
    else:
        study.add_trial(trial)


def _at(config: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = config
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            msg = f"its config has no {'.'.join(path)!r}"
            raise UsageError(msg)
        found = cast("Mapping[str, Any]", found)[name]
    return found


@contextmanager
def _quiet() -> Generator[None]:
    """Have Optuna not tell of the study that is made."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _ids(store: Path) -> list[str]:
    return sorted(path.stem for path in (store / _FOLDER).glob(f"*{_JOURNAL}"))


def _path(store: Path, sweep_id: str) -> Path:
    return store / _FOLDER / f"{sweep_id}{_JOURNAL}"
