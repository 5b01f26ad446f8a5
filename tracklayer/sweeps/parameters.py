"""A sweep's parameters: the entries under `parameters`, each with what its values follow.

What an entry may hold is W&B's JSON schema (`sweeps/config/schema.json` of its package sweeps, 0.3).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Never, cast, final

from tracklayer.errors import UsageError
from tracklayer.sweeps.distributions import (
    Beta,
    Choice,
    Constant,
    Continuous,
    GridLaw,
    Integers,
    Interval,
    Law,
    Normal,
    Rounded,
    Steps,
    WeightedChoice,
)
from tracklayer.sweeps.entries import Entry, described, text_for_a_number

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_BOUNDS: Final = ("min", "max")
_KEYS: Final = {
    "constant": ("value",),
    "categorical": ("values",),
    "categorical_w_probabilities": ("values", "probabilities"),
    "int_uniform": _BOUNDS,
    "uniform": _BOUNDS,
    "q_uniform": (*_BOUNDS, "q"),
    "log_uniform": _BOUNDS,
    "log_uniform_values": _BOUNDS,
    "q_log_uniform": (*_BOUNDS, "q"),
    "q_log_uniform_values": (*_BOUNDS, "q"),
    "inv_log_uniform": _BOUNDS,
    "inv_log_uniform_values": _BOUNDS,
    "normal": ("mu", "sigma"),
    "q_normal": ("mu", "sigma", "q"),
    "log_normal": ("mu", "sigma"),
    "q_log_normal": ("mu", "sigma", "q"),
    "beta": ("a", "b"),
    "q_beta": ("a", "b", "q"),
}
"""W&B's distributions, and what each is told."""
_LARGEST_EXPONENT: Final = 700
"""e to its power, and to that of its negative, are ordinary floats."""


@final
@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a sweep.

    Attributes:
        path: its name, below the names of what it is nested in.
        kind: W&B's word for its distribution.
        law: what its values follow.
    """

    path: tuple[str, ...]
    kind: str
    law: Law

    @property
    def name(self) -> str:
        """Its name in the study: the path, joined by `/`, which no name of W&B's contains."""
        return "/".join(self.path)

    @property
    def points(self) -> int | None:
        """How many values a grid has of it; None where it is a constant."""
        return self.law.points if isinstance(self.law, GridLaw) else None

    def distribution(self) -> BaseDistribution | None:
        """Return Optuna's distribution of the study's values; None for a constant, which it has not."""
        return self.law.distribution()

    def value(self, internal: Any) -> Any:
        """Return the real value, plain data, of the study's value."""
        return self.law.value(internal)

    def internal(self, value: Any) -> Any:
        """Return the study's value of a real one, such as that of a prior run.

        Raises:
            UsageError: the parameter cannot have that value.
        """
        try:
            return self.law.internal(value)
        except ValueError as error:
            msg = f"{_shown(self.path)}: {error}"
            raise UsageError(msg) from error


def read_parameters(config: Entry, method: str, notes: list[str]) -> tuple[Parameter, ...]:
    """Return a configuration's parameters, depth-first by sorted names, as W&B walks them.

    Args:
        config: the whole configuration.
        method: the sweep's; a grid takes only what has points.
        notes: receives sentences about what is accepted, and perhaps not meant.

    Raises:
        UsageError: an entry cannot be right; the message begins with its path.
    """
    return tuple(_walk(config, (), method, notes))


def _walk(parent: Entry, path: tuple[str, ...], method: str, notes: list[str]) -> Iterator[Parameter]:
    shown = _shown(path)
    children = parent.entry("parameters", path=shown)
    if not children.data:
        children.refuse("", "give at least one parameter")
    for name in sorted(children.data):
        if not _NAME.fullmatch(name):
            what = (
                "a name is letters, digits, '_', '.' and '-', and begins with a letter or '_', as W&B has it"
            )
            children.refuse(name, what)
        value = children.data[name]
        if not isinstance(value, Mapping):
            word = "values" if isinstance(value, list) else "value"
            children.refuse(name, f"give a mapping, such as {{{word}: {_brief(value)}}}")
        entry = children.entry(name)
        if "parameters" in entry:
            entry.allow(("parameters",), "an entry of nested parameters")
            yield from _walk(entry, (*path, name), method, notes)
        else:
            yield _parameter(entry, (*path, name), method, notes)


def _parameter(entry: Entry, path: tuple[str, ...], method: str, notes: list[str]) -> Parameter:
    kind = _kind(entry)
    entry.allow(("distribution", *_KEYS[kind]), f"a parameter of the distribution {kind}")
    law = _law(entry, kind)
    if method == "grid":
        law = _in_grid(entry, kind, law)
    notes.extend(_doubts(entry, kind))
    return Parameter(path, kind, law)


def _kind(entry: Entry) -> str:
    """Return the distribution that is given, or that W&B concludes from the other keys."""
    if "distribution" in entry:
        return entry.word("distribution", tuple(_KEYS))
    if "value" in entry:
        return "constant"
    if "values" in entry:
        return "categorical_w_probabilities" if "probabilities" in entry else "categorical"
    if "min" not in entry and "max" not in entry:
        _refuse_without_kind(entry)
    bounds = [entry.number(key) for key in _BOUNDS]
    return "int_uniform" if all(isinstance(bound, int) for bound in bounds) else "uniform"


def _refuse_without_kind(entry: Entry) -> Never:
    if entry.data and all(isinstance(value, Mapping) for value in entry.data.values()):
        entry.refuse("", "nested parameters belong under a key 'parameters'")
    known = {key for keys in _KEYS.values() for key in keys}
    for key in entry.data:
        if key not in known:
            entry.allow(("value", "values", "min", "max", "distribution", "parameters"), "a parameter")
    entry.refuse("", "give 'value', 'values', 'min' and 'max', or a 'distribution'")


def _law(entry: Entry, kind: str) -> Law:
    if kind == "constant":
        if "value" not in entry:
            entry.refuse("value", "it is missing; a constant is given as {value: ...}")
        return Constant(entry.data["value"])
    if kind == "categorical":
        return Choice(tuple(entry.sequence("values")))
    if kind == "categorical_w_probabilities":
        return _weighted(entry)
    if kind == "int_uniform":
        low, high = _bounds(entry)
        if not (isinstance(low, int) and isinstance(high, int)):
            key, bound = ("max", high) if isinstance(low, int) else ("min", low)
            entry.refuse(key, f"give an int for int_uniform, not {bound}; or use uniform, or q_uniform")
        return Integers(low, high)
    if kind.startswith("q_"):
        return Rounded(_continuous(entry, kind.removeprefix("q_")), entry.number("q", 1.0, above=0))
    return _continuous(entry, kind)


def _continuous(entry: Entry, kind: str) -> Continuous:
    """Return the law of a kind of real numbers, from its keys."""
    match kind:
        case "uniform":
            low, high = _bounds(entry)
            return Interval(float(low), float(high))
        case "log_uniform_values" | "inv_log_uniform_values":  # evenly by the logarithm is so by its negative
            low, high = _bounds(entry, above=0)
            return Interval(float(low), float(high), log=True)
        case "log_uniform" | "inv_log_uniform":
            low, high = _exponents(entry, kind)
            return Interval(math.exp(low), math.exp(high), log=True)
        case "beta":
            return Beta(entry.number("a", 1.0, least=0), entry.number("b", 1.0, least=0))
        case _:
            mu, sigma = entry.number("mu", 0.0), entry.number("sigma", 1.0, least=0)
            return Normal(mu, sigma, log=kind == "log_normal")


def _bounds(entry: Entry, *, above: float = -math.inf) -> tuple[float, float]:
    low, high = entry.number("min", above=above), entry.number("max")
    if low >= high:
        what = f"{low} is not less than max {high}"
        entry.refuse(
            "min", f"{what}; exchange them" if low > high else f"{what}; for one value, give 'value'"
        )
    return low, high


def _exponents(entry: Entry, kind: str) -> tuple[float, float]:
    """Return the logarithms of the bounds."""
    low, high = _bounds(entry)
    for key, exponent in (("min", low), ("max", high)):
        if abs(exponent) > _LARGEST_EXPONENT:
            what = f"exp({exponent}) is no float; {kind} takes exponents of e, and {kind}_values takes values"
            entry.refuse(key, what)
    return (-high, -low) if kind.startswith("inv_") else (low, high)


def _weighted(entry: Entry) -> WeightedChoice:
    values, said = entry.sequence("values"), entry.sequence("probabilities")
    indexed = Entry(
        f"{entry.path}.probabilities", {str(i): probability for i, probability in enumerate(said)}
    )
    probabilities = tuple(float(indexed.number(key, least=0)) for key in indexed.data)
    if len(probabilities) != len(values):
        what = f"there are {len(probabilities)} of them for {len(values)} values; give one for each"
        entry.refuse("probabilities", what)
    if not math.isclose(math.fsum(probabilities), 1.0, rel_tol=1e-5):
        entry.refuse("probabilities", f"their sum is {math.fsum(probabilities):g}; make it 1")
    return WeightedChoice(tuple(values), probabilities)


def _in_grid(entry: Entry, kind: str, law: Law) -> Law:
    """Return the law as a grid has it: a value that is repeated once, `q_uniform` in steps."""
    if isinstance(law, WeightedChoice):
        entry.refuse("probabilities", "a grid tries each value once; leave them out, or use method random")
    if kind == "q_uniform":
        return Steps(*_bounds(entry), entry.number("q", 1.0))
    if not isinstance(law, (Choice, Constant, Integers)):
        entry.refuse(
            "", f"a grid has no points for {kind}; use 'values', int_uniform or q_uniform, or method random"
        )
    return law.without_repetition() if isinstance(law, Choice) else law


def _doubts(entry: Entry, kind: str) -> Iterator[str]:
    """Say what is perhaps not meant."""
    for key in ("value", "values"):
        for said in _items(entry.data.get(key)):
            if written := text_for_a_number(said):
                yield f"{entry.path}.{key}: {said!r} is text; for the number, write {written}"
    if kind in {"log_uniform", "inv_log_uniform", "q_log_uniform"}:
        low, high = _bounds(entry)
        if 0 < low < high < 1:
            ends = sorted(math.exp(-end if kind.startswith("inv_") else end) for end in (low, high))
            yield (
                f"{entry.path}: {kind} takes exponents of e: values from {ends[0]:.4g} to {ends[1]:.4g}; "
                f"for those from {low:g} to {high:g}, use {kind}_values"
            )


def _items(value: Any) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list) else (value,)


def _brief(value: Any) -> str:
    return "[...]" if isinstance(value, list) else described(value)


def _shown(path: Sequence[str]) -> str:
    return ".".join(("parameters", *path))
