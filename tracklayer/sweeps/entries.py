"""Entries of a configuration: what each may be, and errors that begin with the path of the one at fault."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Never, cast, final

from tracklayer.errors import UsageError

_EXPONENT: Final = re.compile(r"([-+]?[0-9]+)(\.[0-9]*)?[eE]([-+]?)([0-9]+)")


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """A mapping within a configuration.

    What it is asked for it checks first; each method raises `UsageError` for what cannot be right.

    Attributes:
        path: where it stands, such as `parameters.lr`; empty for the whole configuration.
        data: its keys and their values.
    """

    path: str
    data: Mapping[str, Any]

    def __contains__(self, key: object) -> bool:
        return key in self.data

    def refuse(self, key: str, what: str) -> Never:
        """Raise the error about a key, or about the entry itself, with the key `""`."""
        msg = f"{self._at(key)}: {what}"
        raise UsageError(msg)

    def entry(self, key: str, *, path: str | None = None) -> Entry:
        """Return the mapping at a key, which messages call by `path` where one is given."""
        value = self._required(key)
        if not isinstance(value, Mapping):
            self.refuse(key, f"give a mapping, not {described(value)}")
        mapping = cast("Mapping[str, Any]", value)
        return Entry(self._at(key) if path is None else path, mapping)

    def allow(self, keys: Collection[str], what: str) -> None:
        """Refuse any other keys; `what` says of what these are the keys."""
        for key in self.data:
            if key not in keys:
                self.refuse(key, f"{what} has no such key; {nearest(key, keys)}")

    def text(self, key: str) -> str | None:
        """Return text; None where there is none."""
        value = self.data.get(key)
        if key in self.data and not isinstance(value, str):
            self.refuse(key, f"give text, not {described(value)}; leave the key out for none")
        return value

    def word(self, key: str, words: Sequence[str], default: str | None = None) -> str:
        """Return one of some words."""
        value = self._required(key, default, example=words[0])
        if not isinstance(value, str) or value not in words:
            hint = nearest(value, words) if isinstance(value, str) else nearest("", words)
            self.refuse(key, f"{described(value)} is not known; {hint}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            self.refuse(key, f"give true or false, not {described(value)}")
        return value

    def number(
        self, key: str, default: float | None = None, *, above: float = -math.inf, least: float = -math.inf
    ) -> float:
        """Return a finite number, an int where it was given as one."""
        value = self._required(key, default)
        if isinstance(value, str) and _is_number(value):
            self.refuse(key, f"{value!r} is text; write {_as_yaml(value)}{_why(value)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.refuse(key, f"give a number, not {described(value)}")
        if not _is_finite(value):
            self.refuse(key, "it is beyond what a float holds; give a finite number")
        if value <= above or value < least:
            bound = f"more than {above:g}" if value <= above else f"at least {least:g}"
            self.refuse(key, f"{value} is too small; give {bound}")
        return value

    def integer(self, key: str, default: int | None = None, *, least: float = -math.inf) -> int:
        """Return a whole number."""
        value = self.number(key, default, least=least)
        if value != int(value):
            self.refuse(key, f"give a whole number, not {value}")
        return int(value)

    def sequence(self, key: str) -> Sequence[Any]:
        """Return a list that is not empty."""
        value = self._required(key)
        if not isinstance(value, list) or not value:
            said = described(cast("object", value))
            self.refuse(key, f"give a list of at least one item, not {said}")
        return cast("Sequence[Any]", value)

    def _at(self, key: str) -> str:
        return ".".join(filter(None, (self.path, key)))

    def _required(self, key: str, default: Any = None, *, example: str | None = None) -> Any:
        if key in self.data:
            return self.data[key]
        if default is None:
            close = get_close_matches(key, list(self.data), 1)
            hint = (
                f"; is {close[0]!r} meant to be it?" if close else f", such as {example!r}" if example else ""
            )
            self.refuse(key, f"it is missing, and has to be given{hint}")
        return default


def described(value: object) -> str:
    """Return words for what was found in place of something else."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    return repr(value)


def nearest(word: str, words: Collection[str]) -> str:
    """Return which of some words is meant, or which there are."""
    close = get_close_matches(word, list(words), 1)
    return f"did you mean {close[0]!r}?" if close else f"use {', '.join(map(repr, words))}"


def text_for_a_number(value: object) -> str | None:
    """Return how a number is written in YAML that YAML takes for text: `1e-5` is `1.0e-5` there."""
    return _as_yaml(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else None


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float holds
        return False


def _as_yaml(text: str) -> str:
    """Return a number as YAML 1.1 has it: with a point and a sign before an exponent, without quotes."""
    parts = _EXPONENT.fullmatch(text)
    if parts is None:
        return text
    whole, fraction, sign, exponent = parts.groups()
    return f"{whole}{fraction if fraction and fraction != '.' else '.0'}e{sign or '+'}{exponent}"


def _why(text: str) -> str:
    return (
        " (YAML wants a point, and the exponent's sign)" if _EXPONENT.fullmatch(text) else ", without quotes"
    )
