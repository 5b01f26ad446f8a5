"""Moving pictures: frames, written as a GIF by Pillow or as another format by ffmpeg, or a file."""

from __future__ import annotations

import math
import subprocess
import warnings
from collections.abc import Mapping
from importlib import import_module
from io import BytesIO
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any, Final, Literal, cast, final

from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.media.base import Media
from tracklayer.media.files import (
    ArrayFile,
    File,
    array_of,
    checked_caption,
    known,
    listed,
    read_path,
    read_stream,
    require,
)
from tracklayer.media.pixels import levels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

_FORMATS: Final = ("gif", "mp4", "webm", "ogg")
_CODECS: Final[Mapping[str, tuple[str, ...]]] = {
    "mp4": ("libx264",),
    "webm": ("libvpx-vp9", "-crf", "31", "-b:v", "0"),  # constant quality, of which 31 is usual
    "ogg": ("libtheora", "-q:v", "7"),  # likewise, out of 0 to 10
}
_FRAMES: Final = "Video takes frames of shape (t, c, h, w) or (b, t, c, h, w), with 1, 3 or 4 channels"


@final
class Video(Media):
    """A moving picture.

    Args:
        data_or_path: frames of shape (t, c, h, w), c being 1 (grey), 3 (RGB) or 4 (RGBA, whose transparency
            is left out), or (b, t, c, h, w), shown side by side in 2^i rows and 2^j columns; their numbers
            mean what they mean in an `Image`, the least and the greatest being those of all frames.  Or the
            path of a .gif, .mp4, .webm or .ogg, or a file object.  The content is that at the call.
        caption: what is shown beside it.
        fps: frames a second; 4 if not told.  A file has its own.
        format: `"gif"`, the default for frames, which takes Pillow; `"mp4"` (H.264), `"webm"` (VP9) or
            `"ogg"` (Theora), which take imageio-ffmpeg.  These have even sides: an odd one is continued by a
            pixel.  Needed with a file object.

    Raises:
        UsageError: an unknown format, none with a file object, or frames a second that cannot be.
        UnsupportedValueError: another shape or dtype, a file with another ending, or what writes the format
            is not installed.
        FileNotFoundError: there is no such file.
    """

    __slots__ = ()
    kind = "video"

    def __init__(
        self,
        data_or_path: str | PathLike[str] | IO[bytes] | ArrayLike,
        caption: str | None = None,
        fps: float | None = None,
        format: Literal["gif", "mp4", "webm", "ogg"] | None = None,  # noqa: A002 - wandb's name
    ) -> None:
        if format is not None and format not in _FORMATS:
            msg = f"Video has the formats {', '.join(_FORMATS)}, not {format!r}"
            raise UsageError(msg)
        fields: dict[str, Any] = {
            "format": format,
            "caption": checked_caption(caption),
            "width": None,
            "height": None,
        }
        if isinstance(data_or_path, (str, PathLike)):
            content, fields["format"] = read_path(data_or_path, _FORMATS, "Video")
            if fps is not None or format not in {None, fields["format"]}:
                warnings.warn(f"{data_or_path} is kept as it is, whatever fps and format say", stacklevel=2)
            super().__init__(File(content, fields))
        elif hasattr(data_or_path, "read"):
            if format is None:
                msg = f"Video of a file object needs format, one of {listed(_FORMATS)}"
                raise UsageError(msg)
            if fps is not None:
                warnings.warn("the file is kept as it is, whatever fps says", stacklevel=2)
            super().__init__(File(read_stream(cast("IO[bytes]", data_or_path)), fields))
        else:
            super().__init__(_frames(data_or_path, 4 if fps is None else fps, format or "gif", fields))

    @property
    def caption(self) -> str | None:
        """What is shown beside it."""
        return cast("str | None", known(self)["caption"])

    @property
    def format(self) -> str:
        """The file's ending: `"gif"`, `"mp4"`, `"webm"` or `"ogg"`."""
        return str(known(self)["format"])

    @property
    def width(self) -> int | None:
        """In pixels, of all that is shown side by side; None for what was a file."""
        return cast("int | None", known(self)["width"])

    @property
    def height(self) -> int | None:
        """In pixels, of all that is shown side by side; None for what was a file."""
        return cast("int | None", known(self)["height"])

    def file(self) -> bytes:
        """Return the bytes of the file."""
        return self.content(self.encoded.data["file"])


def _frames(data: Any, fps: float, ending: str, fields: Mapping[str, Any]) -> ArrayFile:
    if not 0 < fps < math.inf:
        msg = f"fps must be positive, not {fps!r}"
        raise UsageError(msg)
    frames = array_of(data, _FRAMES)
    if frames.ndim not in {4, 5} or frames.shape[-3] not in {1, 3, 4} or 0 in frames.shape:
        msg = f"{_FRAMES}, not {frames.shape}"
        raise UnsupportedValueError(msg)
    require(*(("PIL", "a GIF") if ending == "gif" else ("imageio_ffmpeg", f"Video as {ending}")))
    rows, columns = _grid(frames.shape[0] if frames.ndim == 5 else 1)
    size = {"width": columns * frames.shape[-1], "height": rows * frames.shape[-2]}

    def write(frames: NDArray[Any]) -> bytes:
        pictures = _tiled(levels(frames), rows, columns)
        return _gif(pictures, fps) if ending == "gif" else _by_ffmpeg(pictures, fps, ending)

    return ArrayFile(frames, {**fields, **size, "format": ending}, write)


def _grid(batch: int) -> tuple[int, int]:
    """Return the rows and columns, powers of two, in which `wandb.Video` shows so many side by side."""
    rows = 1 << (batch.bit_length() - 1) // 2
    return rows, (1 << (batch - 1).bit_length()) // rows


def _tiled(videos: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """Return frames of shape (t, h, w, 3), with those of a batch side by side, row by row."""
    import numpy as np

    videos = videos.reshape(-1, *videos.shape[-4:])
    batch, t, c, h, w = videos.shape
    grid = np.zeros((rows * columns, t, c, h, w), np.uint8)  # black where the batch is too small
    grid[:batch] = videos
    side_by_side = grid.reshape(rows, columns, t, c, h, w).transpose(2, 0, 4, 1, 5, 3)
    pictures = side_by_side.reshape(t, rows * h, columns * w, c)
    return pictures.repeat(3, axis=3) if c == 1 else pictures[..., :3]


def _gif(pictures: NDArray[np.uint8], fps: float) -> bytes:
    """Return a GIF, the one that `wandb.Video` has written by imageio, which has it written by Pillow."""
    from PIL import Image

    first, *rest = [Image.fromarray(picture) for picture in pictures]
    buffer = BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=rest, loop=0, duration=1000 / fps)
    return buffer.getvalue()


def _by_ffmpeg(pictures: NDArray[np.uint8], fps: float, ending: str) -> bytes:
    """Return a video that ffmpeg has written, in a process of its own.

    It is started here and not by `imageio_ffmpeg.write_frames`, which forks Python with all its threads, and
    does not say when ffmpeg failed.
    """
    import numpy as np

    even = [(0, 0), (0, pictures.shape[1] % 2), (0, pictures.shape[2] % 2), (0, 0)]
    pictures = np.ascontiguousarray(np.pad(pictures, even, mode="edge"))
    _, height, width, _ = pictures.shape
    with TemporaryDirectory(prefix="tracklayer-") as folder:
        file = Path(folder, f"video.{ending}")
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
        codec = ["-c:v", *_CODECS[ending], "-pix_fmt", "yuv420p"]
        # bitexact: without names made up at random, so that the same frames make the same file
        command = [
            import_module("imageio_ffmpeg").get_ffmpeg_exe(),
            "-v",
            "error",
            *source,
            *codec,
            "-bitexact",
            str(file),
        ]
        done = subprocess.run(  # noqa: S603 - our own command
            command,
            input=pictures.data.cast("B"),
            capture_output=True,
            check=False,
            process_group=0,  # a Ctrl-C is for the program, and leaves no half a video
        )
        if done.returncode:
            msg = f"ffmpeg cannot write this as {ending}: {done.stderr.decode(errors='replace').strip()}"
            raise UnsupportedValueError(msg)
        return file.read_bytes()
