"""The cells of a table: what they may hold, what type that is, and how they are written as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from numbers import Integral
from typing import TYPE_CHECKING, Any, Final

from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.media.base import Media, embed, embedded
from tracklayer.media.pixels import array_snapshot, is_jax_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tracklayer.contents import Content

PLAIN_TYPES: Final[Mapping[type, str | None]] = {
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    type(None): None,
}
"""The classes of cells that are kept and written as they are, with what `type_of` says of them."""
_MEDIA: Final = frozenset({"image", "audio", "video", "html", "plotly", "object3d"})
_TYPES_OF_INSTANCES: Final[Mapping[str, str]] = {
    "builtins.bool": "boolean",
    "builtins.int": "number",
    "builtins.float": "number",
    "builtins.str": "string",
    "builtins.list": "list",
    "builtins.tuple": "list",
    "builtins.dict": "dict",
    "datetime.date": "timestamp",
    "numpy.bool": "boolean",
    "numpy.bool_": "boolean",
    "numpy.number": "number",
    "numpy.datetime64": "timestamp",
    "numpy.ndarray": "list",
}
"""By the name of the class, or of the first of its bases that is here."""
_DATES: Final[Mapping[str, type[date]]] = {"date": date, "datetime": datetime}
_MARK: Final = "_kind"
"""The key of an object in JSON that stands for something else than a dict; `embed` sets it for media."""


def taken(cell: Any) -> Any:
    """Return a cell as a table keeps it: a copy, but for media and jax arrays, which do not change.

    Raises:
        UnsupportedValueError: a cell cannot hold that.
    """
    if cell.__class__ in PLAIN_TYPES or (isinstance(cell, Media) and cell.kind in _MEDIA):
        return cell
    for plain in (str, int, float):  # an IntEnum, a numpy.float64, …
        if isinstance(cell, plain):
            return plain(cell)
    if isinstance(cell, (list, tuple, Mapping)):
        return _taken_items(cell)  # pyright: ignore[reportUnknownArgumentType] - anything may be in it
    if isinstance(cell, date):
        return _taken_date(cell)
    as_jax_array = getattr(cell, "__jax_array__", None)  # of a variable of Flax's
    array: Any = cell if as_jax_array is None else as_jax_array()
    return array_snapshot(array) if is_jax_array(array) else _taken_from_numpy(array)


def type_of(cell: Any) -> str | None:
    """Return the name of the type of a cell that was taken: of media, their kind; of None, None."""
    if cell.__class__ in PLAIN_TYPES:
        return PLAIN_TYPES[cell.__class__]
    if isinstance(cell, Media):
        return cell.kind
    if isinstance(cell, date):
        return "timestamp"
    if isinstance(cell, dict):
        return "dict"
    if is_jax_array(cell) and not cell.ndim:
        return "boolean" if cell.dtype.kind == "b" else "number"
    return "list"


def type_of_instances(dtype: Any) -> str:
    """Return what `type_of` says of a class's instances.

    Raises:
        UsageError: it is no class, or a cell cannot hold them.
    """
    if isinstance(dtype, type):
        kind = getattr(dtype, "kind", None)
        if issubclass(dtype, Media) and kind in _MEDIA:
            return str(kind)
        for base in dtype.__mro__:
            name = _TYPES_OF_INSTANCES.get(f"{base.__module__}.{base.__qualname__}")
            if name is not None:
                return name
    msg = f"dtype takes a class such as float, str or tracklayer.Image, or one for each column, not {dtype!r}"
    raise UsageError(msg)


def arrays_in(cell: Any) -> Iterator[Any]:
    """Yield the jax arrays that a cell is made of."""
    if is_jax_array(cell):
        yield cell
    elif isinstance(cell, Media):
        yield from cell.arrays()
    elif cell.__class__ in {list, dict}:
        for item in cell.values() if cell.__class__ is dict else cell:
            yield from arrays_in(item)


def landed(cell: Any, hosts: Mapping[int, NDArray[Any]]) -> Any:
    """Return a cell with numpy arrays in place of jax's, by the ids of these."""
    if is_jax_array(cell):
        return _taken_from_numpy(hosts[id(cell)])
    if isinstance(cell, Media):
        arrays = cell.arrays()  # none, if it was encoded meanwhile
        return cell.landed([hosts[id(array)] for array in arrays]) if arrays else cell
    if cell.__class__ is list:
        return [landed(item, hosts) for item in cell]
    if cell.__class__ is dict:
        return {key: landed(item, hosts) for key, item in cell.items()}
    return cell


def to_json(cell: Any, contents: dict[str, Content]) -> Any:
    """Return a cell that was taken as JSON data; the files of media join the contents.

    Raises:
        UnsupportedValueError: one of its media cannot be encoded.
    """
    if cell.__class__ in PLAIN_TYPES:
        return cell
    if isinstance(cell, Media):
        return embed(cell, contents)
    if cell.__class__ is list:
        return [to_json(item, contents) for item in cell]
    if cell.__class__ is dict:
        items = {key: to_json(item, contents) for key, item in cell.items()}
        return {_MARK: "dict", "items": items} if _MARK in items else items
    if cell.__class__ in _DATES.values():
        return {_MARK: cell.__class__.__name__, "iso": cell.isoformat()}
    import numpy as np

    return _numbers(np.asarray(cell))


def from_json(data: Any, contents: Mapping[str, Content]) -> Any:
    """Return the cell that `to_json` described, given the files of its table."""
    if data.__class__ is list:
        return [from_json(item, contents) for item in data]
    if data.__class__ is not dict:
        return data
    mark: Any = data.get(_MARK)
    if mark in _DATES:
        return _DATES[mark].fromisoformat(data["iso"])
    if mark not in {None, "dict"}:
        return embedded(data, contents)
    items = data if mark is None else data["items"]
    return {key: from_json(item, contents) for key, item in items.items()}


def _taken_items(cell: Any) -> Any:
    if isinstance(cell, Mapping):
        items: Mapping[Any, Any] = cell  # pyright: ignore[reportUnknownVariableType] - anything may be in it
        return {_name(key): taken(item) for key, item in items.items()}
    return [taken(item) for item in cell]


def _taken_date(cell: date) -> Any:
    if not isinstance(cell, datetime):
        return date(cell.year, cell.month, cell.day)
    if cell != cell:  # noqa: PLR0124 - only NaT, of pandas, is not equal to itself
        return None
    # without the nanoseconds that pandas has
    return datetime.combine(datetime.date(cell), datetime.time(cell), cell.tzinfo)


def _taken_from_numpy(cell: Any) -> Any:
    numpy = sys.modules.get("numpy")
    missing = getattr(sys.modules.get("pandas"), "NA", None)  # absent while another thread imports it
    if missing is not None and cell is missing:
        return None
    if numpy is None or not isinstance(cell, (numpy.generic, numpy.ndarray)):
        msg = (
            f"a cell cannot hold a {type(cell).__module__}.{type(cell).__qualname__}; it takes None, "
            "numbers, strings, dates, arrays of numbers, lists and dicts of these, and Image, Audio, Video, "
            "Html, Plotly and Object3D"
        )
        raise UnsupportedValueError(msg)
    array: NDArray[Any] = numpy.asarray(cell)
    if array.dtype.kind == "M":
        return array.astype("datetime64[us]").tolist()
    if array.dtype.kind in "UTO":
        return taken(array.tolist())
    return _real(array).copy() if array.ndim else _numbers(_real(array))


def _real(array: Any) -> Any:
    """Return an array of real numbers as it is.

    Raises:
        UnsupportedValueError: it is of another dtype.
    """
    dtype = array.dtype
    # bfloat16 and its relatives are of numpy kind "V"; a jax array of keys has no kind at all
    if getattr(dtype, "kind", "V") not in "biuf" and dtype.type.__module__ != "ml_dtypes":
        msg = f"a cell cannot hold numbers of dtype {dtype}"
        raise UnsupportedValueError(msg)
    return array


def _numbers(array: NDArray[Any]) -> Any:
    """Return an array's elements as Python numbers, each with the value that it has in its own dtype."""
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:  # bfloat16, int4, …; float128
        array = array.astype("int64" if "int" in array.dtype.name else "float64")
    return array.tolist()


def _name(key: Any) -> str:
    """Return a dict's key as JSON has it."""
    if isinstance(key, (str, Integral)):
        return str(key)
    msg = f"the keys of a dict in a cell must be strings or whole numbers, not a {type(key).__qualname__}"
    raise UnsupportedValueError(msg)
