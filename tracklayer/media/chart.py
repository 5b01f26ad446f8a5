"""Charts: a table, and how W&B draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast, final

from tracklayer.contents import Encoded
from tracklayer.errors import UsageError
from tracklayer.media.base import Media
from tracklayer.media.table import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray


@final
class Chart(Media):
    """A table, and which of W&B's Vega-Lite specifications draws it; `tracklayer.plot` makes the usual ones.

    Args:
        table: what is drawn, as it is at the call.
        spec: the name of the specification, such as "wandb/line/v0".
        fields: by field of the specification, the name of a column, or None.
        strings: by string of the specification, such as "title", what it says.
        split_table: whether W&B shows the table in a section of its own.

    Raises:
        UsageError: `table` is no `Table`, the specification has no name, or the fields or strings are of
            other types.
    """

    __slots__ = ()
    kind = "chart"

    def __init__(
        self,
        table: Table,
        spec: str,
        fields: Mapping[str, Any],
        strings: Mapping[str, Any] | None = None,
        *,
        split_table: bool = False,
    ) -> None:
        if not isinstance(cast("Any", table), Table):
            msg = f"a chart draws a tracklayer.Table, not a {type(table).__qualname__}"
            raise UsageError(msg)
        if not isinstance(cast("Any", spec), str) or not spec:
            msg = f"a chart's specification is a name such as 'wandb/line/v0', not {spec!r}"
            raise UsageError(msg)
        super().__init__(
            _Source(
                table.snapshot(),
                spec,
                _plain("fields", fields),
                _plain("strings", strings or {}),
                bool(split_table),
            )
        )

    @property
    def table(self) -> Table:
        """What is drawn."""
        return self._parts.table

    @property
    def spec(self) -> str:
        """The name of the specification."""
        return self._parts.spec

    @property
    def fields(self) -> Mapping[str, Any]:
        """The names of columns by field of the specification."""
        return self._parts.fields

    @property
    def strings(self) -> Mapping[str, Any]:
        """What each string of the specification says."""
        return self._parts.strings

    @property
    def title(self) -> str:
        """What stands above it; empty where nothing does."""
        return str(self.strings.get("title") or "")

    @property
    def split_table(self) -> bool:
        """Whether W&B shows the table in a section of its own."""
        return self._parts.split_table

    @property
    def _parts(self) -> _Source:
        source = self._source  # read once: it goes when it is encoded, maybe on another thread
        if source is not None:
            return cast("_Source", source)
        encoded = self.encoded
        parts = dict(encoded.data)
        return _Source(Table.of(Encoded(parts.pop("table"), encoded.contents)), **parts)


@final
@dataclass(frozen=True, slots=True)
class _Source:
    """What a chart is made of; its table does not change any more."""

    table: Table
    spec: str
    fields: Mapping[str, Any]
    strings: Mapping[str, Any]
    split_table: bool

    @property
    def nbytes(self) -> int:
        return self.table.nbytes

    def arrays(self) -> Sequence[Any]:
        return self.table.arrays()

    def landed(self, hosts: Sequence[NDArray[Any]], /) -> _Source:
        return replace(self, table=self.table.landed(hosts))

    def encoded(self) -> Encoded:
        table = self.table.encoded
        data = {
            "table": dict(table.data),
            "spec": self.spec,
            "fields": self.fields,
            "strings": self.strings,
            "split_table": self.split_table,
        }
        return Encoded(data, table.contents)


def _plain(what: str, given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        found: dict[Any, Any] = {**given}
        if all(isinstance(name, str) for name in found) and all(map(_is_plain, found.values())):
            return found
    msg = f"a chart's {what} are strings, numbers or None by name, not {given!r}"
    raise UsageError(msg)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))
