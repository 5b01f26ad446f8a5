"""Objects in space: clouds of points, and files of meshes and scenes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from typing import IO, TYPE_CHECKING, Any, Final, cast, final

from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.media.base import Media
from tracklayer.media.files import (
    ArrayFile,
    File,
    array_of,
    checked_caption,
    ending_of,
    known,
    listed,
    read_path,
    read_stream,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_ENDINGS: Final = ("obj", "gltf", "glb", "babylon", "stl", "pts.json")
_BLOCK: Final = 5_000  # points that are written at a time: json keeps the interpreter to itself meanwhile
_POINTS: Final = "Object3D takes points of shape (n, 3), (n, 4) or (n, 6)"


@final
class Object3D(Media):
    """A cloud of points, or a mesh or scene from a file.

    Args:
        data_or_path: points as rows of x, y, z; of x, y, z and a category from 1 to 14; or of x, y, z and
            red, green, blue from 0 to 255: real numbers of shape (n, 3), (n, 4) or (n, 6) (numpy, jax,
            lists).  A row that is not finite has no place, and is left out.  Or the path of a file, or a
            file object: obj, gltf, glb, babylon, stl or pts.json.  The content is that at the call.
        caption: what is shown beside it.
        file_type: the ending, such as `"obj"`, of a file object that has no name.

    Raises:
        UnsupportedValueError: another shape, dtype or ending, or one of wandb's scenes (a mapping).
        UsageError: `file_type` is missing, or contradicts a path.
        FileNotFoundError: there is no such file.
    """

    __slots__ = ()
    kind = "object3d"

    def __init__(
        self,
        data_or_path: str | PathLike[str] | IO[str] | IO[bytes] | ArrayLike,
        caption: str | None = None,
        *,
        file_type: str | None = None,
    ) -> None:
        fields: dict[str, Any] = {"format": "pts.json", "caption": checked_caption(caption)}
        if isinstance(data_or_path, (str, PathLike)):
            content, fields["format"] = read_path(data_or_path, _ENDINGS, "Object3D")
            if file_type not in {None, fields["format"]}:
                msg = f"file_type={file_type!r} is not that of {str(data_or_path)!r}"
                raise UsageError(msg)
            super().__init__(File(content, fields))
        elif hasattr(data_or_path, "read"):
            stream = cast("IO[bytes]", data_or_path)
            fields["format"] = _stream_type(stream, file_type)
            super().__init__(File(read_stream(stream), fields))
        elif file_type is not None:
            msg = "file_type goes with a file object, not with points"
            raise UsageError(msg)
        else:
            super().__init__(ArrayFile(_checked_points(data_or_path), fields, _points_json))

    @property
    def caption(self) -> str | None:
        """What is shown beside it."""
        return cast("str | None", known(self)["caption"])

    @property
    def format(self) -> str:
        """The file's ending: `"pts.json"` for points."""
        return str(known(self)["format"])

    def file(self) -> bytes:
        """Return the bytes of the file."""
        return self.content(self.encoded.data["file"])


def _stream_type(stream: IO[bytes], file_type: str | None) -> str:
    name = getattr(stream, "name", None)
    ending = ending_of(name, _ENDINGS) if file_type is None and isinstance(name, str) else file_type
    if ending not in _ENDINGS:
        msg = f"Object3D of a file object needs file_type, one of {listed(_ENDINGS)}, not {file_type!r}"
        raise UsageError(msg)
    return ending


def _checked_points(data: Any) -> Any:
    if isinstance(data, Mapping):
        msg = (
            "Object3D takes none of wandb's scenes (lidar/beta, from_point_cloud with boxes and vectors); "
            "log the array of their points"
        )
        raise UnsupportedValueError(msg)
    points = array_of(data, _POINTS)
    if points.ndim != 2 or points.shape[1] not in {3, 4, 6}:
        msg = f"{_POINTS}, not {points.shape}"
        raise UnsupportedValueError(msg)
    return points


def _points_json(points: NDArray[Any]) -> bytes:
    import numpy as np

    if points.dtype.kind not in "iu":
        points = points.astype(np.float64)  # of which Python's numbers are, whatever they were
    placed = points[np.isfinite(points).all(axis=1)]
    blocks = [
        json.dumps(placed[start : start + _BLOCK].tolist(), separators=(",", ":"))[1:-1]
        for start in range(0, len(placed), _BLOCK)
    ]
    return f"[{','.join(blocks)}]".encode()
