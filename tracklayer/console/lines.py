r"""From what a process prints to the lines that stand on its screen: a small part of a terminal.

A progress bar rewrites its line (`\r`), several rewrite the lines above (`ESC [ A`): what counts is how a
line looks at last.  Colours and titles are kept out.  The control sequences are those of ECMA-48, of which
the ones that move and erase within a few lines are followed, and all others left out.  A character is taken
to be one column wide, and no line to be folded.
"""

from __future__ import annotations

import math
import re
from typing import Final, final

from tracklayer.surroundings import ConsoleLine, Stream

LINE_LIMIT: Final = 16_384
"""Characters of a line that are kept."""
_CUT: Final = f" … (cut after {LINE_LIMIT} characters)"
_WINDOW: Final = 32
"""Lines that can be rewritten: the last ones."""
_HOLD: Final = 10.0
"""Seconds for which lines may be rewritten once more, after one was."""
_LONGEST_SEQUENCE: Final = 65_536
"""Characters for which the end of a control sequence is waited for."""

_OBEYED: Final = "\x1b\r\b"
"""What moves the cursor, besides a line's end; other control characters are kept as they are."""
_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]*m")
_TOKEN: Final = re.compile(
    r"\x1b\[(?P<parameters>[0-?]*)[ -/]*(?P<final>[@-~])"
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # a title, a link, a device's own
    r"|\x1b[ -/]*[0-~]"
    r"|(?P<control>[\n\r\b])"
)
_BEGUN: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)\Z")
"""The beginning of a sequence whose end has not come."""


class _Row:
    """A line of the screen."""

    __slots__ = ("is_cut", "is_rewritten", "said", "text", "time")

    def __init__(self, time: float, text: str = "", said: str | None = None) -> None:
        self.time = time
        self.text = text
        self.said = said
        """How it looked when it was handed on."""
        self.is_rewritten = False
        self.is_cut = False

    def line(self, stream: Stream) -> ConsoleLine | None:
        """Return it as it looks now, unless that was said or it was wiped away."""
        if self.text == self.said or (self.is_rewritten and not self.text.strip()):
            return None
        self.said = self.text
        shown = self.text.rstrip() if self.is_rewritten else self.text
        return ConsoleLine(self.time, stream, shown + _CUT if self.is_cut else shown)


@final
class Screen:
    """The last lines of one stream.  What it needs is bounded, whatever is printed."""

    def __init__(self, stream: Stream) -> None:
        self._stream: Stream = stream
        self._rows = [_Row(0.0)]
        self._at = 0
        self._column = 0
        self._begun = ""
        self._moved_up = -math.inf

    def feed(self, text: str, time: float) -> list[ConsoleLine]:
        """Take what was printed by a time (Unix seconds); return the lines that have ended."""
        if not text.isascii():  # half a character, as of a file's name, can be stored nowhere
            text = text.encode("utf-8", "backslashreplace").decode("utf-8")
        if self._begun:
            text, self._begun = self._begun + text, ""
        if "\x1b" in text:
            text = _COLOUR.sub("", text)
        ended = self.ended(time)
        if self._is_plain() and not any(control in text for control in _OBEYED):
            return ended + self._feed_plain(text, time)
        if "\x1b" in text and (begun := _BEGUN.search(text)):
            text, self._begun = text[: begun.start()], begun.group()[:_LONGEST_SEQUENCE]
            if len(self._begun) == _LONGEST_SEQUENCE:
                self._begun = ""
        position = 0
        for token in _TOKEN.finditer(text):
            self._write(text[position : token.start()], time)
            position = token.end()
            if token["control"]:
                self._obey(token["control"], time, ended)
            elif token["final"]:
                self._move(token["final"], token["parameters"], time, ended)
        self._write(text[position:], time)
        return ended + self.ended(time)

    def ended(self, time: float) -> list[ConsoleLine]:
        """Return the lines that have ended and are not rewritten any more at this time."""
        if time - self._moved_up < _HOLD:
            return []
        self._moved_up = -math.inf
        return self._said(self._rows[: self._at]) if self._at else []

    def close(self) -> list[ConsoleLine]:
        """Return what is left, the line that has not ended included."""
        rows = self._rows if self._rows[-1].text else self._rows[:-1]
        return self._said(rows)

    def _is_plain(self) -> bool:
        """Say whether the cursor is where it is without any control, and nothing is held back."""
        if self._at + 1 < len(self._rows) or self._moved_up != -math.inf:
            return False
        row = self._rows[self._at]
        return self._column == len(row.text) and not row.is_rewritten and not row.is_cut

    def _feed_plain(self, text: str, time: float) -> list[ConsoleLine]:
        *lines, last = text.split("\n")
        if not lines:
            self._write(last, time)
            return []
        lines[0] = self._rows[-1].text + lines[0]
        if max(map(len, lines)) > LINE_LIMIT:
            lines = [line if len(line) <= LINE_LIMIT else line[:LINE_LIMIT] + _CUT for line in lines]
        stream = self._stream
        made = [ConsoleLine(time, stream, line) for line in lines]
        rows = [_Row(time, line[:LINE_LIMIT], line[:LINE_LIMIT]) for line in lines[-_WINDOW:]]
        self._rows = [*self._rows[:-1], *rows][-_WINDOW + 1 :]
        self._rows.append(_Row(time))
        self._at = len(self._rows) - 1
        self._column = 0
        self._write(last, time)
        return made

    def _said(self, rows: list[_Row]) -> list[ConsoleLine]:
        lines = [row.line(self._stream) for row in rows]
        return [line for line in lines if line is not None]

    def _write(self, text: str, time: float) -> None:
        if not text:
            return
        row, start = self._rows[self._at], self._column
        self._column += len(text)
        row.time = time
        room = LINE_LIMIT - start
        if len(text) > room:
            row.is_cut = True
            text = text[: max(0, room)]
        if start < len(row.text):
            row.is_rewritten = True
        if text:
            row.text = row.text[:start].ljust(start) + text + row.text[start + len(text) :]

    def _obey(self, control: str, time: float, ended: list[ConsoleLine]) -> None:
        if control == "\n":
            self._down(time, ended)
            self._column = 0
        elif control == "\r":
            self._column = 0
        elif control == "\b":
            self._column = max(0, self._column - 1)

    def _move(self, final_byte: str, parameters: str, time: float, ended: list[ConsoleLine]) -> None:
        first = parameters.partition(";")[0]
        number = min(int(first), LINE_LIMIT) if first.isdecimal() else 0
        if final_byte in "AF":
            self._at = max(0, self._at - max(1, number))
            self._moved_up = time
        elif final_byte in "BE":
            for _ in range(min(max(1, number), _WINDOW)):
                self._down(time, ended)
        elif final_byte == "C":
            self._column = min(self._column + max(1, number), LINE_LIMIT)
        elif final_byte == "D":
            self._column = max(0, self._column - max(1, number))
        elif final_byte in "KJ":
            self._erase(final_byte, number)
        if final_byte in "EF":
            self._column = 0
        elif final_byte == "G":
            self._column = max(1, number) - 1

    def _erase(self, final_byte: str, number: int) -> None:
        row = self._rows[self._at]
        row.is_rewritten = True
        before, after = row.text[: self._column], row.text[self._column + 1 :]
        row.text = ("" if number else before) + (" " * len(before) + " " + after if number == 1 else "")
        if final_byte == "J" and number in {0, 2}:
            for below in self._rows[self._at + 1 :]:
                below.text, below.is_rewritten = "", True

    def _down(self, time: float, ended: list[ConsoleLine]) -> None:
        self._at += 1
        if self._at == len(self._rows):
            self._rows.append(_Row(time))
        if len(self._rows) > _WINDOW:
            ended += self._said([self._rows.pop(0)])
            self._at -= 1
