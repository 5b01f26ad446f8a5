"""Conditions on what is known of a run, such as `state == finished or val/loss < 0.1`.

The grammar:

    condition  = all { "or" all }
    all        = one { "and" one }
    one        = "not" one | "(" condition ")" | name operator value
    operator   = "==" | "!=" | "<" | "<=" | ">" | ">="
    name       = word | quoted
    value      = number | "true" | "false" | word | quoted

A word is of anything but spaces, parentheses, quotes and `= ! < >`, and none of `and`, `or`, `not`; what
stands between two `'` or two `"` is of anything but that.  A comparison with what is not known is false, and
so is one of a number with a word.
"""

from __future__ import annotations

import operator
import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias, final

from tracklayer.errors import UsageError

Lookup: TypeAlias = Callable[[str], Any]
"""Returns what is known under a name; None for nothing."""
Condition: TypeAlias = Callable[[Lookup], bool]
"""Says whether it holds for what is known."""

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TOKEN: Final = re.compile(
    r"""(?P<sign> [<>=!]+ | [()] )
    | "(?P<double> [^"]* )" | '(?P<single> [^']* )'
    | (?P<word> [^\s()<>=!"']+ )
    | (?P<stray> \S )""",
    re.VERBOSE,
)
_JOINING: Final = frozenset({"and", "or", "not"})
_DEEPEST: Final = 50


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        UsageError: it is none; the message says where that shows.
    """
    return _Parser(text).whole()


class _Token(NamedTuple):
    kind: str
    text: str
    at: int
    """The number of its first character, from 1 on."""


@final
class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        found = [(match.lastgroup or "", match) for match in _TOKEN.finditer(text)]
        self._tokens = deque(_Token(kind, match[kind], match.start() + 1) for kind, match in found)
        self._tokens.append(_Token("end", "", len(text) + 1))
        self._depth = 0

    def whole(self) -> Condition:
        found = self._any()
        if self._tokens[0].kind != "end":
            self._refuse("'and', 'or' or the end")
        return found

    def _any(self) -> Condition:
        parts = [self._all()]
        while self._takes("word", "or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda lookup: any(part(lookup) for part in parts)

    def _all(self) -> Condition:
        parts = [self._one()]
        while self._takes("word", "and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda lookup: all(part(lookup) for part in parts)

    def _one(self) -> Condition:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._refuse(f"no more than {_DEEPEST} parts in one another")
        if self._takes("word", "not"):
            negated = self._one()
            found: Condition = lambda lookup: not negated(lookup)  # noqa: E731 - as short as the others
        elif self._takes("sign", "("):
            found = self._any()
            if not self._takes("sign", ")"):
                self._refuse("')'")
        else:
            found = self._comparison()
        self._depth -= 1
        return found

    def _comparison(self) -> Condition:
        name = self._word("the name of a metric, 'state' or 'step'").text
        if self._tokens[0].text not in _OPERATORS or self._tokens[0].kind != "sign":
            self._refuse(f"one of {' '.join(_OPERATORS)}")
        compare = _OPERATORS[self._tokens.popleft().text]
        value = _value(self._word("a number or a word"))
        is_word = isinstance(value, str)

        def holds(lookup: Lookup) -> bool:
            known = lookup(name)
            return isinstance(known, str if is_word else (int, float)) and compare(known, value)

        return holds

    def _takes(self, kind: str, text: str) -> bool:
        """Go past the next token, if it is this one."""
        is_next = self._tokens[0][:2] == (kind, text)
        if is_next:
            self._tokens.popleft()
        return is_next

    def _word(self, wanted: str) -> _Token:
        kind, text, _ = self._tokens[0]
        if kind not in {"word", "double", "single"} or (kind == "word" and text in _JOINING):
            self._refuse(wanted)
        return self._tokens.popleft()

    def _refuse(self, wanted: str) -> NoReturn:
        kind, text, at = self._tokens[0]
        if kind == "stray":
            msg = f"{self._text!r}: the quote at character {at} is not closed"
        else:
            found = "it ends" if kind == "end" else f"there is {text!r}"
            msg = f"{self._text!r}: at character {at}, {found}; {wanted} is expected"
        raise UsageError(msg)


def _value(token: _Token) -> float | str:
    if token.kind != "word":
        return token.text
    if token.text in {"true", "false"}:
        return token.text == "true"
    try:
        return float(token.text)
    except ValueError:
        return token.text
