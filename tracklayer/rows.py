"""What waits in a queue: rows of plain scalars, and rows that are not all there yet.

A plain row's values are a dict of Python numbers.  Everything else takes its time on the queue's thread:
values that are still computed on a device, histograms whose bins are to be counted, whole series.  Media are
encoded on a thread of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, cast, final

from tracklayer.media.base import Media
from tracklayer.seeds import seed_key
from tracklayer.values import Scalar, Value, python_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracklayer.values import OnDevice

QueuedRow: TypeAlias = "tuple[int, float, dict[str, Any] | RichValues | Series]"
"""(step, Unix seconds, values): a plain tuple, because one is made for every `log` call."""
ReadyRow: TypeAlias = tuple[int, float, dict[str, Value]]
"""The same, with all of its values there."""
Report: TypeAlias = Callable[[str, str], None]
"""Told once what went wrong: about what, and a message."""


class Shipment(Protocol):
    """Arrays on their way from a device; methods that wait raise what their computation raised."""

    @property
    def nbytes(self) -> int:
        """About what it holds in memory, in bytes."""
        ...

    def is_ready(self) -> bool:
        """Say whether all is computed."""
        ...

    def numbers(self, count: int) -> Sequence[Scalar]:
        """Wait; return the first `count` arrays, which are scalars."""
        ...

    def array(self, index: int) -> NDArray[Any]:
        """Wait for one."""
        ...


@final
class Arriving(NamedTuple):
    """An array of a shipment."""

    shipment: Shipment
    place: int

    def array(self) -> NDArray[Any]:
        """Wait for it."""
        return self.shipment.array(self.place)


@final
class Landing(NamedTuple):
    """A value that was computed on a device, and its arrays on their way."""

    value: OnDevice
    arrays: Sequence[Arriving]

    def resolve(self) -> Value | Mapping[str, Value]:
        """Wait for it."""
        return self.value.landed([arriving.array() for arriving in self.arrays])

    def series(self) -> list[Value | Mapping[str, Value]]:
        """Wait for it, where it was stacked; return one for each step."""
        stacked = [arriving.array() for arriving in self.arrays]
        return [self.value.landed(arrays) for arrays in zip(*stacked, strict=True)]


@final
class MediaValues:
    """The media of a row, until they are encoded.

    Args:
        values: by key, here or on their way from a device.
        shipment: what has to come from a device first.

    Attributes:
        count: how many there are.
        size: about what they hold in memory before they are encoded, in bytes.
        encoded_size: the same of what they were encoded to; 0 until then.
    """

    __slots__ = ("_encoded", "_lock", "_values", "count", "encoded_size", "size")

    def __init__(self, values: Mapping[str, Media | Landing], shipment: Shipment | None) -> None:
        self._values = dict(values)
        self._encoded: dict[str, Value] | None = None
        self._lock = threading.Lock()
        self.count = len(values)
        self.encoded_size = 0
        media = [value.value if isinstance(value, Landing) else value for value in values.values()]
        self.size = sum(value.nbytes for value in media if isinstance(value, Media))
        self.size += 0 if shipment is None else shipment.nbytes

    @property
    def is_encoded(self) -> bool:
        """Whether nothing is left to do."""
        return self._encoded is not None

    def encoded(self, report: Report) -> dict[str, Value]:
        """Return those that could be encoded, which happens once; wait for what is on a device."""
        with self._lock:
            found = self._encoded
            if found is None:
                found = {}
                for key, value in self._values.items():
                    try:
                        media = value.resolve() if isinstance(value, Landing) else value
                        for content in cast("Media", media).encoded.contents.values():
                            if not content.is_here:  # of a store's, which may have lost it
                                content.read()
                    except Exception as error:  # noqa: BLE001 - whatever a library raises costs this value only
                        report("media", f"{key!r} could not be encoded: {error}. The rest is recorded")
                    else:
                        found[key] = cast("Media", media)
                        self.encoded_size += cast("Media", media).nbytes
                self._encoded = found
                self._values.clear()
        return found


@final
class RichValues:
    """A row's values when not all are plain scalars: those on the host, scalars on their way, and media.

    `size` is about what they hold in memory, in bytes, but for media: those are counted by the encoder, and
    by the queue from when they are encoded.  `shipment` is what has to come from a device first.
    """

    __slots__ = ("_here", "_on_device", "media", "shipment", "size")

    def __init__(
        self,
        values: Mapping[str, Any],
        on_device: Sequence[str] = (),
        shipment: Shipment | None = None,
        media: MediaValues | None = None,
    ) -> None:
        self._here = values
        self._on_device = on_device  # the keys of the shipment's first arrays
        self.shipment = shipment
        self.media = media
        self.size = sum([getattr(value, "nbytes", 100) for value in values.values()]) if values else 0
        if shipment is not None:
            self.size += shipment.nbytes

    def __contains__(self, key: object) -> bool:
        """Say whether a key is among those that are no media, before those that bring their own are there."""
        return key in self._here or key in self._on_device

    def without_media(self) -> RichValues | None:
        """Return the rest of the row, if there is any."""
        if not (self._here or self._on_device):
            return None
        waits = self._on_device or any(isinstance(value, Landing) for value in self._here.values())
        return RichValues(self._here, self._on_device, self.shipment if waits else None)

    def is_ready(self) -> bool:
        """Say whether the row can be had without waiting for a device, or for media to be encoded."""
        if self.media is not None and not self.media.is_encoded:
            return False
        return self.shipment is None or self.shipment.is_ready()

    def rows(self, step: int, time: float, report: Report) -> Iterable[ReadyRow]:
        """Return the one row with what of it can be had; wait for that."""
        values: dict[str, Any] = {}
        failed: dict[str, Exception] = {}
        for key, value in self._here.items():
            resolve = getattr(value, "resolve", None)
            try:
                found = value if resolve is None else resolve()
            except Exception as error:  # noqa: BLE001 - whatever the device raises costs this value only
                failed[key] = error
                continue
            if isinstance(found, Mapping):
                values.update((f"{key}/{name}", part) for name, part in cast("Any", found).items())
            else:
                values[key] = found
        shipment, keys = self.shipment, self._on_device
        if shipment is not None and keys:
            try:
                values.update(zip(keys, shipment.numbers(len(keys)), strict=True))
            except Exception:  # noqa: BLE001 - as above: one by one, then
                for index, key in enumerate(keys):
                    try:
                        values[key] = python_numbers(shipment.array(index))[0]
                    except Exception as error:  # noqa: BLE001 - as above
                        failed[key] = error
        if failed:
            _report_failed(failed, report)
        if self.media is not None:
            values.update(self.media.encoded(report))
        return ((step, time, values),)


@final
class Series:
    """The rows of many steps, logged at once.

    Args:
        columns: for each key, the values of `count` steps: an array of shape (count,) or, with an axis of
            seeds, (count, seeds), here or on its way, or a stacked value that was computed on a device.
        steps: int64 of shape (count,), here or on its way; None for steps that count up.
        count: the number of steps.
        shipment: what has to come from a device first.
    """

    __slots__ = ("_columns", "_steps", "count", "last_step", "shipment", "size")

    def __init__(
        self,
        columns: Mapping[str, NDArray[Any] | Arriving | Landing],
        steps: NDArray[Any] | Arriving | None,
        count: int,
        shipment: Shipment | None,
    ) -> None:
        self._columns = columns
        self._steps = steps
        self.count = count
        self.last_step = None if steps is None or isinstance(steps, Arriving) else int(steps.max(initial=-1))
        """The highest step that was given, if it is known here."""
        self.shipment = shipment
        self.size = sum(getattr(column, "nbytes", 100) for column in columns.values())
        self.size += 0 if shipment is None else shipment.nbytes

    def __contains__(self, key: object) -> bool:
        """Say whether there is a column of this key."""
        return key in self._columns

    def is_ready(self) -> bool:
        """Say whether the rows can be had without waiting for a device."""
        return self.shipment is None or self.shipment.is_ready()

    def rows(self, step: int, time: float, report: Report) -> Iterable[ReadyRow]:
        """Yield the rows, the first at `step` where they count up; wait for them."""
        columns: dict[str, Sequence[Value]] = {}
        steps: Sequence[int] = range(step, step + self.count)
        failed: dict[str, Exception] = {}
        for key, column in self._columns.items():
            try:
                columns.update(_landed(key, column))
            except Exception as error:  # noqa: BLE001 - whatever the device raises costs this column only
                failed[key] = error
        if self._steps is not None:
            try:
                steps = _array(self._steps).tolist()
            except Exception as error:  # noqa: BLE001 - as above; but without steps there are no rows
                failed["steps"], steps = error, ()
        if failed:
            _report_failed(failed, report)
        keys = tuple(columns)
        for at, values in zip(steps, zip(*columns.values(), strict=True), strict=False):
            if at < 0:
                report("steps", f"log_series: rows at negative steps, such as {at}, are left out")
            else:
                yield at, time, dict(zip(keys, values, strict=True))


def _landed(key: str, column: Any) -> dict[str, Sequence[Value]]:
    if isinstance(column, Landing):
        found = column.series()
        if not (found and isinstance(found[0], Mapping)):
            return {key: cast("list[Value]", found)}
        parts = cast("list[Mapping[str, Value]]", found)
        return {f"{key}/{name}": [part[name] for part in parts] for name in parts[0]}
    array = _array(column)
    if array.ndim == 1:
        return {key: python_numbers(array)}
    return {seed_key(key, seed): python_numbers(array[:, seed]) for seed in range(array.shape[1])}


def _array(column: NDArray[Any] | Arriving) -> NDArray[Any]:
    return column.array() if isinstance(column, Arriving) else column


def _report_failed(failed: Mapping[str, Exception], report: Report) -> None:
    keys = ", ".join(map(repr, failed))
    error = next(iter(failed.values()))
    report("device", f"{keys} could not be fetched: {error}. The rest is recorded")
