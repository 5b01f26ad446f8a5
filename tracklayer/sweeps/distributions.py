"""What values follow: W&B's distributions, each as one of Optuna's and back.

Optuna has choices, whole numbers, and numbers spread evenly or by their logarithm.  What it has not is a
quantile there, a number from 0 to 1, and the inverse of the distribution function gives the value.  A value
of the study is called internal here; the value that a trial sees is the real one.

The definitions are those of W&B's sampler (`sweeps/params.py` of its package sweeps, 0.3).
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from itertools import accumulate
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final, runtime_checkable

from tracklayer.errors import BackendUnavailableError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Scalar: TypeAlias = bool | int | float | str | None
"""What Optuna keeps as a choice."""

_STANDARD: Final = NormalDist()
_EDGE: Final = 2.0**-53
"""How near a quantile comes to 0 and to 1, where a normal value would be infinite."""
_LARGEST_EXPONENT: Final = 709.0
"""e to this is about the largest float."""
_SMALLEST_SHAPE: Final = 1e-300
"""Of a beta distribution: W&B takes 0, where all of it lies at an end; so it does here."""
_LABEL: Final = 60  # characters of a choice that is shown by its JSON


class Law(Protocol):
    """What the values of a parameter follow.

    `internal` raises `ValueError`, saying why, for a value that the law cannot give.
    """

    def distribution(self) -> BaseDistribution | None:
        """Return Optuna's distribution of internal values; None for a constant, which the study has not."""
        ...

    def value(self, internal: Any) -> Any:
        """Return the real value: plain data."""
        ...

    def internal(self, value: Any) -> Any:
        """Return the study's value of a real one."""
        ...


@runtime_checkable
class GridLaw(Law, Protocol):
    """A law whose values a grid can try one by one."""

    @property
    def points(self) -> int:
        """How many values there are."""
        ...

    def point(self, index: int) -> Any:
        """Return one of them, as an internal value."""
        ...


class Continuous(Law, Protocol):
    """A law of real numbers, which can be rounded."""

    def clip(self, value: float) -> float:
        """Return the value that the law can give which is nearest."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Constant:
    """One value."""

    constant: Any

    def distribution(self) -> None:
        """Return None."""

    def value(self, internal: Any) -> Any:  # noqa: ARG002 - there is only one
        """Return the value."""
        return self.constant

    def internal(self, value: Any) -> None:
        """Return None, if it is that value."""
        if value != self.constant:
            msg = f"{value!r} is not the constant {self.constant!r}"
            raise ValueError(msg)


@final
@dataclass(frozen=True)
class Choice:
    """One of some values, each as likely as the others.

    A value that Optuna would not keep (a list, a mapping), or not tell from another one (1 and True), stands
    there as a label: its index and its JSON.
    """

    values: tuple[Any, ...]

    @cached_property
    def _choices(self) -> tuple[Scalar, ...]:
        scalars = all(isinstance(value, Scalar) and value == value for value in self.values)  # noqa: PLR0124 - NaN
        if scalars and len(set(self.values)) == len(self.values):
            return self.values
        return tuple(f"{i}: {_json(value)[:_LABEL]}" for i, value in enumerate(self.values))

    def distribution(self) -> BaseDistribution:
        """Return choices."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self._choices)

    def value(self, internal: Any) -> Any:
        """Return the value that is chosen."""
        return self.values[self._choices.index(internal)]

    def internal(self, value: Any) -> Any:
        """Return the choice, or its label."""
        return self._choices[_index(self.values, value)]

    @property
    def points(self) -> int:
        """How many values there are."""
        return len(self.values)

    def point(self, index: int) -> Any:
        """Return a choice, or its label."""
        return self._choices[index]

    def without_repetition(self) -> Choice:
        """Return the choice with each value once: one that is repeated is likelier, but one grid point."""
        first: dict[str, Any] = {}
        for value in self.values:
            first.setdefault(_key(value), value)
        return Choice(tuple(first.values()))


@final
@dataclass(frozen=True)
class WeightedChoice:
    """One of some values, by given probabilities; a quantile in the study."""

    values: tuple[Any, ...]
    probabilities: tuple[float, ...]

    @cached_property
    def _bounds(self) -> tuple[float, ...]:
        """Where, from 0 to 1, the share of each value ends."""
        ends = tuple(accumulate(self.probabilities))
        return tuple(end / ends[-1] for end in ends)  # the sum is 1 only nearly

    def distribution(self) -> BaseDistribution:
        """Return that of a quantile."""
        return _quantiles()

    def value(self, internal: Any) -> Any:
        """Return the value in whose share the quantile lies."""
        return self.values[bisect_right(self._bounds, _inside(internal))]

    def internal(self, value: Any) -> float:
        """Return the middle of the value's share."""
        index = _index(self.values, value)
        if not self.probabilities[index]:
            msg = f"{value!r} has the probability 0"
            raise ValueError(msg)
        return ((self._bounds[index - 1] if index else 0.0) + self._bounds[index]) / 2


@final
@dataclass(frozen=True, slots=True)
class Integers:
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int

    def distribution(self) -> BaseDistribution:
        """Return whole numbers."""
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high)

    def value(self, internal: Any) -> int:
        """Return the number."""
        return int(internal)

    def internal(self, value: Any) -> int:
        """Return the number."""
        number = _number(value)
        if number != int(number) or not self.low <= number <= self.high:
            msg = f"{value!r} is no whole number from {self.low} to {self.high}"
            raise ValueError(msg)
        return int(number)

    @property
    def points(self) -> int:
        """How many numbers there are."""
        return self.high - self.low + 1

    def point(self, index: int) -> int:
        """Return one of them."""
        return self.low + index


@final
@dataclass(frozen=True, slots=True)
class Interval:
    """A number from `low` to `high`, spread evenly, or evenly by its logarithm."""

    low: float
    high: float
    log: bool = False

    def distribution(self) -> BaseDistribution:
        """Return numbers."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log)

    def value(self, internal: Any) -> float:
        """Return the number."""
        return float(internal)

    def internal(self, value: Any) -> float:
        """Return the number."""
        return _unclipped(self, value)

    def clip(self, value: float) -> float:
        """Return the nearest number of the interval."""
        return min(max(value, self.low), self.high)


@final
@dataclass(frozen=True, slots=True)
class Normal:
    """A normal number, or e to the power of one; a quantile in the study."""

    mu: float
    sigma: float
    log: bool = False

    def distribution(self) -> BaseDistribution:
        """Return that of a quantile."""
        return _quantiles()

    def value(self, internal: Any) -> float:
        """Return the number at a quantile."""
        number = self.mu + self.sigma * _STANDARD.inv_cdf(_inside(internal))
        return math.exp(min(number, _LARGEST_EXPONENT)) if self.log else number

    def internal(self, value: Any) -> float:
        """Return the quantile of a number."""
        number = _unclipped(self, value)
        if not self.sigma:
            return 0.5
        return _inside(_STANDARD.cdf(((math.log(number) if self.log else number) - self.mu) / self.sigma))

    def clip(self, value: float) -> float:
        """Return the nearest number that has a quantile."""
        if not self.sigma:
            return self.value(0.5)
        return max(value, math.ulp(0.0)) if self.log else value


@final
@dataclass(frozen=True, slots=True)
class Beta:
    """A number from 0 to 1 that follows a beta distribution; a quantile in the study."""

    a: float
    b: float

    def distribution(self) -> BaseDistribution:
        """Return that of a quantile."""
        return _quantiles()

    def value(self, internal: Any) -> float:
        """Return the number at a quantile."""
        return float(_special().betaincinv(*self._shape, _inside(internal)))

    def internal(self, value: Any) -> float:
        """Return the quantile of a number."""
        return _inside(float(_special().betainc(*self._shape, _unclipped(self, value))))

    def clip(self, value: float) -> float:
        """Return the nearest number from 0 to 1."""
        return min(max(value, 0.0), 1.0)

    @property
    def _shape(self) -> tuple[float, float]:
        return max(self.a, _SMALLEST_SHAPE), max(self.b, _SMALLEST_SHAPE)


@final
@dataclass(frozen=True, slots=True)
class Rounded:
    """What another law gives, rounded to a multiple of `q`: an int where `q` is one."""

    law: Continuous
    q: float

    def distribution(self) -> BaseDistribution | None:
        """Return that of what is rounded."""
        return self.law.distribution()

    def value(self, internal: Any) -> float:
        """Return the multiple of `q`."""
        number = self.law.value(internal)
        multiple = number / self.q
        if abs(multiple) < 2.0**53:  # beyond, floats are farther apart than multiples
            number = round(multiple) * self.q
        return int(number) if isinstance(self.q, int) else number

    def internal(self, value: Any) -> Any:
        """Return a value that is rounded to this one."""
        internal = self.law.internal(self.law.clip(_number(value)))
        if not math.isclose(self.value(internal), value, rel_tol=1e-9, abs_tol=self.q * 1e-9):
            msg = f"{value!r} is no multiple of {self.q} that it gives"
            raise ValueError(msg)
        return internal


@final
@dataclass(frozen=True, slots=True)
class Steps:
    """`low` and what follows in steps of `q`, up to `high`, which is not included: `q_uniform` in a grid."""

    low: float
    high: float
    q: float

    def distribution(self) -> BaseDistribution:
        """Return numbers: the study need not know the steps, since a grid draws nothing."""
        return Interval(self.low, self.high).distribution()

    def value(self, internal: float) -> float:
        """Return the number: an int where `low` and `q` are."""
        return self.low + round((internal - self.low) / self.q) * self.q

    def internal(self, value: Any) -> float:
        """Return the number."""
        number = _number(value)
        if not self.low <= number < self.high or not math.isclose(self.value(number), number, rel_tol=1e-9):
            msg = f"{value!r} is no step of {self.q} from {self.low} on, below {self.high}"
            raise ValueError(msg)
        return number

    @property
    def points(self) -> int:
        """How many numbers there are."""
        return math.ceil((self.high - self.low) / self.q)

    def point(self, index: int) -> float:
        """Return one of them."""
        return min(float(self.low + index * self.q), float(self.high))


def _quantiles() -> BaseDistribution:
    from optuna.distributions import FloatDistribution

    return FloatDistribution(0.0, 1.0)


def _inside(quantile: float) -> float:
    return min(max(quantile, _EDGE), 1.0 - _EDGE)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        msg = f"{value!r} is no number"
        raise ValueError(msg)
    return value


def _unclipped(law: Continuous, value: Any) -> float:
    number = float(_number(value))
    if not math.isclose(law.clip(number), number, rel_tol=1e-9):
        msg = f"{value!r} is out of range; the nearest is {law.clip(number)!r}"
        raise ValueError(msg)
    return law.clip(number)


def _index(values: tuple[Any, ...], value: Any) -> int:
    """Return where a value stands."""
    wanted = _key(value)
    for index, known in enumerate(values):
        if _key(known) == wanted:
            return index
    msg = f"{value!r} is none of its values"
    raise ValueError(msg)


def _key(value: Any) -> str:
    """Return what two values have in common that W&B takes for one: 1 and 1.0."""
    return _json(int(value) if isinstance(value, float) and value.is_integer() else value)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _special() -> Any:
    try:
        return import_module("scipy.special")
    except ImportError as error:
        msg = "a beta distribution needs scipy, which is not installed: pip install 'tracklayer[sweeps]'"
        raise BackendUnavailableError(msg) from error
