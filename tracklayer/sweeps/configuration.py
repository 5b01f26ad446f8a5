"""A sweep's configuration: W&B's, read and checked whole before anything of the sweep exists.

What W&B accepts is accepted, and what it refuses is refused, here with the path of the entry; but for
`method: custom`, which runs a file on W&B's side.  What is done otherwise here is told in a note, and so is
an unknown key of the whole, of which W&B warns.  The source is W&B's JSON schema
(`sweeps/config/schema.json` of its package sweeps, 0.3), its samplers, and its documentation.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast, final

from tracklayer.configuration import plain
from tracklayer.errors import BackendUnavailableError, UsageError
from tracklayer.sweeps.distributions import GridLaw
from tracklayer.sweeps.entries import Entry, described, nearest
from tracklayer.sweeps.parameters import Parameter, read_parameters

Method: TypeAlias = Literal["grid", "random", "bayes"]
Goal: TypeAlias = Literal["minimize", "maximize"]

DEFAULT_COMMAND: Final = ("${env}", "${interpreter}", "${program}", "${args}")
"""W&B's: the program by this Python, with a `--name=value` for each parameter."""
_METHODS: Final = ("grid", "random", "bayes")
_TEXTS: Final = ("name", "description", "project", "entity", "program", "job", "image_uri", "apiVersion")
_OTHERS: Final = (
    *("method", "metric", "metrics", "parameters", "early_terminate", "run_cap"),
    *("command", "kind", "controller", "scheduler"),
)
_LAUNCH: Final = ("job", "image_uri")
_IMPUTED: Final = ("latest", "best", "worst")
_MOST_BANDS: Final = 100
"""As many as W&B counts from `min_iter` on."""


@final
@dataclass(frozen=True, slots=True)
class Metric:
    """What a sweep optimises.

    Attributes:
        name: the key under which it is logged.
        goal: what is better: a lower value, or a higher one.
        target: a value at which the sweep is done.
    """

    name: str
    goal: Goal = "minimize"
    target: float | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """What it may be logged as: W&B joins the names of what is nested by dots, `log` by slashes."""
        return tuple(dict.fromkeys((self.name, self.name.replace(".", "/"))))

    def is_better(self, value: float, other: float) -> bool:
        """Say whether a value is better than another; NaN is no better than any."""
        return value < other if self.goal == "minimize" else value > other

    def reached(self, value: float) -> bool:
        """Say whether a value is at the target, or better; never where there is none."""
        return self.target is not None and not self.is_better(self.target, value) and not math.isnan(value)


@final
@dataclass(frozen=True, slots=True)
class Hyperband:
    """When trials are compared, to stop those that do badly: W&B's `early_terminate`.

    An iteration is a logged value of the metric, counted from 1.  At a band a trial goes on if it is among
    the best 1/eta of all that have reached it.

    Attributes:
        bands: the iterations at which trials are compared, ascending; at least one.
        eta: what the bands lie apart, as a factor; at least 2.
        strict: the value at the band counts, not the best so far.
    """

    bands: tuple[int, ...]
    eta: int
    strict: bool

    @property
    def first(self) -> int:
        """The first band."""
        return self.bands[0]

    def is_band(self, iteration: int) -> bool:
        """Say whether trials are compared at this iteration."""
        return iteration in self.bands


@final
@dataclass(frozen=True, slots=True)
class SweepConfig:
    """What a sweep was told.

    Attributes:
        method: how parameters are chosen.
        parameters: depth-first by sorted names.
        metric: what is optimised; bayes and early stopping have one.
        early_terminate: when trials are stopped early.
        run_cap: how many trials there are at most.
        name: for people.
        project: of the sweep's runs.
        entity: of the sweep's runs.
        program: what agents run that are given no function.
        command: how they run it: words, with W&B's macros.
        notes: sentences about what is accepted, and done otherwise here or perhaps not meant.
        given: the configuration as it was given, as plain data.
    """

    method: Method
    parameters: tuple[Parameter, ...]
    metric: Metric | None
    early_terminate: Hyperband | None
    run_cap: int | None
    name: str | None
    project: str | None
    entity: str | None
    program: str | None
    command: tuple[str, ...]
    notes: tuple[str, ...]
    given: Mapping[str, Any]

    @property
    def points(self) -> int | None:
        """How many points a grid has; None for other methods."""
        return math.prod(law.points for _, law in self._axes()) if self.method == "grid" else None

    def point(self, index: int) -> dict[str, Any]:
        """Return the study's parameters at a point of a grid, by their names there.

        The last parameter varies fastest.  Nothing is listed: a grid may be huge.

        Raises:
            IndexError: the grid has no such point.
        """
        if not 0 <= index < (self.points or 0):
            msg = f"a grid of {self.points} points has no point {index}"
            raise IndexError(msg)
        chosen: dict[str, Any] = {}
        for name, law in reversed(self._axes()):
            index, at = divmod(index, law.points)
            chosen[name] = law.point(at)
        return dict(reversed(chosen.items()))

    def nested(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a trial's config: real values, nested as the parameters are, constants included.

        Args:
            values: the study's values, by the parameters' names there.
        """
        # the study has no constants
        return nested(
            {parameter.path: parameter.value(values.get(parameter.name)) for parameter in self.parameters}
        )

    def _axes(self) -> list[tuple[str, GridLaw]]:
        return [(p.name, p.law) for p in self.parameters if isinstance(p.law, GridLaw)]


def nested(values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """Return parameters' real values, by their paths, as a config of its own."""
    config: dict[str, Any] = {}
    for (*parents, last), value in values.items():
        inner = config
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = copy.deepcopy(value)  # a list of the configuration is not for a trial to change
    return config


def read_config(
    config: Mapping[str, Any] | str | os.PathLike[str] | Callable[[], Mapping[str, Any]],
) -> SweepConfig:
    """Return a sweep's configuration, checked.

    Args:
        config: W&B's configuration: a mapping, the path of a YAML or JSON file, or a function that returns a
            mapping.

    Raises:
        UsageError: an entry cannot be right, and the message begins with its path, such as
            `parameters.lr.min`; or a file cannot be read, or holds no mapping.
        UnsupportedValueError: an entry is media, which is no configuration.
        BackendUnavailableError: a YAML file is given, and PyYAML is not installed.
    """
    source: object = config() if callable(config) else config
    if isinstance(source, (str, os.PathLike)):
        source = _from_file(Path(source))
    if not isinstance(source, Mapping):
        msg = f"a sweep's configuration is a mapping or the path of a YAML file, not {described(source)}"
        raise UsageError(msg)
    strange: list[str] = []
    given = plain(cast("Mapping[str, Any]", source), "", strange)
    if strange:
        msg = f"{strange[0]}: this is no plain data; give numbers, text, lists and mappings"
        raise UsageError(msg)
    return _read(Entry("", given))


def _from_file(path: Path) -> Any:
    """Return what a file holds: JSON by its name, else YAML."""
    try:
        content = path.read_bytes()
        found = json.loads(content) if path.suffix == ".json" else _from_yaml(path, content)
    except UsageError:
        raise
    except OSError as error:
        msg = f"{path}: the sweep's configuration cannot be read ({error.strerror or error})"
        raise UsageError(msg) from error
    except ValueError as error:  # the content's
        msg = f"{path}: this is no JSON ({error})"
        raise UsageError(msg) from error
    if not isinstance(found, dict):
        msg = f"{path}: a sweep's configuration is a mapping; the file holds {described(found)}"
        raise UsageError(msg)
    return cast("Mapping[Any, Any]", found)


def _from_yaml(path: Path, content: bytes) -> Any:
    try:
        yaml: Any = import_module("yaml")
    except ImportError as error:
        msg = f"{path}: YAML needs PyYAML, which is not installed: pip install 'tracklayer[sweeps]'"
        raise BackendUnavailableError(msg) from error
    try:
        return yaml.safe_load(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        msg = f"{where}: this is no YAML ({getattr(error, 'problem', None) or error})"
        raise UsageError(msg) from error


def _read(config: Entry) -> SweepConfig:
    notes = [
        f"{key}: W&B's configuration has no such key, and it is not used; {nearest(key, _TEXTS + _OTHERS)}"
        for key in config.data
        if key not in _TEXTS + _OTHERS
    ]
    texts = {key: config.text(key) for key in _TEXTS}
    notes += [
        f"{key}: agents start no jobs of W&B Launch; they run `program`" for key in _LAUNCH if key in config
    ]
    _check_kind(config)
    _refuse_custom(config)
    method = cast("Method", config.word("method", _METHODS))
    parameters = read_parameters(config, method, notes)
    metric = _metric(config.entry("metric"), method, notes) if "metric" in config else None
    if method == "bayes" and metric is None:
        config.refuse("metric", "it is missing; bayes optimises one, such as {name: loss, goal: minimize}")
    if method == "bayes" and all(parameter.kind == "constant" for parameter in parameters):
        config.refuse("parameters", "all are constants, and bayes has nothing to choose; use method grid")
    hyperband = _hyperband(config.entry("early_terminate"), notes) if "early_terminate" in config else None
    if hyperband is not None and metric is None:
        config.refuse("early_terminate", "trials are compared by a metric, and there is none; give 'metric'")
    return SweepConfig(
        method=method,
        parameters=parameters,
        metric=metric,
        early_terminate=hyperband,
        run_cap=config.integer("run_cap", least=1) if "run_cap" in config else None,
        name=texts["name"],
        project=texts["project"],
        entity=texts["entity"],
        program=texts["program"],
        command=tuple(_command(config)),
        notes=tuple(notes),
        given=config.data,
    )


def _check_kind(config: Entry) -> None:
    """Check what says nothing new here: that this is a sweep, and who chooses its parameters."""
    if "kind" in config:
        config.word("kind", ("sweep",))
    if "controller" in config:
        config.entry("controller").word("type", ("local", "cloud"))


def _refuse_custom(config: Entry) -> None:
    instead = "use method bayes, which is Optuna's TPE here"
    if config.data.get("method") == "custom":
        config.refuse("method", f"custom runs a file of your own on W&B's side; {instead}")
    if "metrics" in config:
        config.refuse("metrics", "a sweep optimises one metric here; give 'metric'")
    if "scheduler" in config and config.data["scheduler"] != {"engine": "wandb"}:
        config.refuse("scheduler", f"it runs a file of your own on W&B's side; leave it out, and {instead}")


def _metric(entry: Entry, method: Method, notes: list[str]) -> Metric:
    entry.allow(("name", "goal", "target", "impute", "impute_while_running"), "a metric")
    name = entry.text("name")
    if name is None:
        entry.refuse("name", "it is missing; give the key under which the metric is logged")
    goal = cast("Goal", entry.word("goal", ("minimize", "maximize"), "minimize"))
    target = entry.number("target") if "target" in entry else None
    entry.word("impute", _IMPUTED, "worst")
    running = entry.word("impute_while_running", (*_IMPUTED, "false"), "false")
    if method == "bayes" and "impute" in entry:
        notes.append(
            f"{entry.path}.impute: trials that failed have no value for the search, whatever is said"
        )
    if method == "bayes" and running != "false":
        notes.append(
            f"{entry.path}.impute_while_running: the search takes trials that are running for bad ones, "
            "whatever is said, so that agents keep apart"
        )
    return Metric(name, goal, target)


def _hyperband(entry: Entry, notes: list[str]) -> Hyperband | None:
    entry.allow(("type", "min_iter", "max_iter", "s", "eta", "strict"), "early_terminate")
    entry.word("type", ("hyperband",))
    given = entry.number("eta", 3, above=1)
    eta = max(2, round(given))
    if eta != given:
        notes.append(
            f"{entry.path}.eta: it is {eta} here, since Optuna's pruner takes whole numbers from 2 on"
        )
    strict = entry.flag("strict", default=False)
    first = entry.integer("min_iter", least=1) if "min_iter" in entry else None
    last = entry.integer("max_iter") if "max_iter" in entry else None
    backwards = entry.number("s") if "s" in entry else None
    if last is not None and backwards is not None:
        if first is not None:
            notes.append(f"{entry.path}.min_iter: it says nothing beside max_iter and s")
        bands = _bands(last / eta**k for k in range(1, math.floor(min(backwards, _MOST_BANDS)) + 1))
    elif first is not None:
        ends = (first * eta**k for k in range(_MOST_BANDS))
        bands = _bands(end for end in ends if last is None or end <= last)
        if backwards is not None:
            notes.append(f"{entry.path}.s: it says nothing without max_iter")
    else:
        entry.refuse("", "give min_iter, the first band; or max_iter and s, how many bands lie before it")
    if not bands:
        notes.append(
            f"{entry.path}: there is no iteration at which trials are compared, so none is stopped early"
        )
        return None
    return Hyperband(bands, eta, strict)


def _bands(ends: Iterable[float]) -> tuple[int, ...]:
    return tuple(sorted({int(end) for end in ends if 1 <= end < math.inf}))


def _command(config: Entry) -> Iterable[str]:
    """Return the words of the command: W&B's where there are none."""
    words = config.data.get("command", [])
    if not isinstance(words, list):
        config.refuse("command", f"give a list of words, not {described(words)}")
    for index, word in enumerate(cast("Sequence[Any]", words)):
        if isinstance(word, (list, dict)):
            config.refuse(f"command.{index}", f"give a word, not {described(cast('object', word))}; quote it")
    return map(str, cast("Sequence[Any]", words)) if words else DEFAULT_COMMAND
