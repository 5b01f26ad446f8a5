"""Taking note of what is written to one of Python's streams, at next to no cost to who writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast, final

_OURS: Final = "tracklayer_layer"
SMALL: Final = 128
"""Characters up to which a write is taken note of without counting it."""


@final
class _Layer:
    """A function that stands before another `write`: passes on first, then takes note."""

    def __init__(
        self,
        below: Callable[..., Any],
        note: Callable[[str], object],
        note_large: Callable[[str], object],
        *,
        is_first: bool,
    ) -> None:
        self.below = below
        self.is_first = is_first
        """Whether the stream had nothing but its own `write` before."""
        self.is_silent = False
        forward = below

        def write(text: str, /) -> object:
            count = forward(text)
            try:
                if count <= SMALL:
                    note(text)
                    return count
            except TypeError:  # a stream that does not say how much it wrote
                pass
            note_large(text)
            return count

        def stand_on(other: _Layer) -> None:
            nonlocal forward
            self.below, self.is_first = other.below, other.is_first
            forward = other.below

        def silence() -> None:
            nonlocal note, note_large
            self.is_silent = True
            note = note_large = _nothing

        vars(write)[_OURS] = self
        self.write: Callable[[str], object] = write
        self.stand_on: Callable[[_Layer], None] = stand_on
        self.silence: Callable[[], None] = silence


@final
class Tee:
    """Stands before a stream's `write`, in the stream itself: whoever holds the stream writes through it.

    So all else of the stream is as it was, and a logging handler that was made earlier is heard, too.  Text
    is passed on first; then it is noted by a call that neither waits nor fails.  There is no lock, so that a
    signal handler, a `__del__` or another thread may write at any moment.  Where threads print at once, one's
    text comes between another's and its line end more often than without this: `write` is a step of Python's,
    not one of C's.

    Args:
        stream: such as `sys.stdout`; any object with a `write`.
        note: given what is small.
        note_large: given the rest.
    """

    def __init__(
        self, stream: object, note: Callable[[str], object], note_large: Callable[[str], object]
    ) -> None:
        self._stream: Any = stream
        self._note = note
        self._note_large = note_large
        self._layer: _Layer | None = None
        self._is_removed = False

    def install(self) -> None:
        """Begin.

        Raises:
            AttributeError: nothing can be put into this stream.
            TypeError: likewise.
        """
        below, is_first = self._stream.write, "write" not in vars(self._stream)
        while (layer := _layer_of(below)) is not None and layer.is_silent:
            below, is_first = layer.below, layer.is_first
        layer = _Layer(below, self._note, self._note_large, is_first=is_first)
        self._stream.write = layer.write
        self._layer = layer

    def renew(self) -> None:
        """Stand before all that others have put before the stream by now."""
        layer = self._layer
        if layer is not None and self._stream.write is not layer.write:
            layer.silence()
            self.install()
            if self._is_removed:  # by another thread meanwhile
                self.remove()

    def hold(self) -> None:
        """Stand before the stream again where somebody has put back an older `write`."""
        current = self._stream.write
        layer = _layer_of(current)
        if getattr(current, "__self__", None) is self._stream or (layer is not None and layer.is_silent):
            self.renew()

    def remove(self) -> None:
        """Leave the stream as it would be without this one; what stands before it stays."""
        self._is_removed = True
        layer, self._layer = self._layer, None
        if layer is None:
            return
        layer.silence()
        above: object = cast("dict[str, object]", vars(self._stream)).get("write")
        if above is layer.write:
            if layer.is_first:
                del self._stream.write
            else:
                self._stream.write = layer.below
            return
        while (upper := _layer_of(above)) is not None:
            above = upper.below
            if above is layer.write:
                upper.stand_on(layer)
                return
        # somebody else's stands before it: it only passes on from now on


def _layer_of(write: object) -> _Layer | None:
    return cast("_Layer | None", getattr(write, "__dict__", {}).get(_OURS))


def _nothing(*_: object) -> None:
    """Take no note."""
