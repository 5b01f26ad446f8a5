"""Sound: samples, written as a WAV file, or a file of one of the usual formats."""

from __future__ import annotations

import operator
from importlib import import_module
from io import BytesIO
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, cast, final

from tracklayer.errors import UnsupportedValueError, UsageError
from tracklayer.media.base import Media
from tracklayer.media.files import ArrayFile, File, array_of, checked_caption, known, read_path, require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_ENDINGS: Final = (
    "wav", "mp3", "ogg", "oga", "opus", "flac", "m4a", "aac", "mp4", "webm", "weba", "aif", "aiff", "au",
)  # fmt: skip
_DTYPES: Final = frozenset({"bfloat16", "float16", "float32", "float64", "int16", "int32"})
_MAX_CHANNELS: Final = 1024  # libsndfile's
_SAMPLES: Final = "Audio takes samples of shape (n,) or (n, channels)"


@final
class Audio(Media):
    """A sound.

    Samples become a WAV file of 16 bits.  Those of floats are amplitudes from -1 to 1; what is louder is
    clipped, and NaN is silence.  Those of int16 and int32 use the whole range of their dtype.

    Args:
        data_or_path: samples of shape (n,) or (n, channels), floats, int16 or int32 (numpy, jax, lists); or
            the path of a file of sound, which is kept as it is.  The content is that at the call.
        sample_rate: samples a second, in Hz; needed with samples.
        caption: what is shown beside it.

    Raises:
        UsageError: the sample rate is missing or cannot be.
        UnsupportedValueError: samples of another shape or dtype, a file with another ending, or soundfile,
            which writes samples, is not installed.
        FileNotFoundError: there is no such file.
    """

    __slots__ = ()
    kind = "audio"

    def __init__(
        self,
        data_or_path: str | PathLike[str] | ArrayLike,
        sample_rate: int | None = None,
        caption: str | None = None,
    ) -> None:
        rate = None if sample_rate is None else _checked_rate(sample_rate)
        fields: dict[str, Any] = {
            "format": "wav",
            "caption": checked_caption(caption),
            "sample_rate": rate,
            "duration": None,
        }
        if isinstance(data_or_path, (str, PathLike)):
            content, fields["format"] = read_path(data_or_path, _ENDINGS, "Audio")
            super().__init__(File(content, fields))
            return
        if rate is None:
            msg = "Audio of samples needs sample_rate, the samples a second"
            raise UsageError(msg)
        samples = _checked_samples(array_of(data_or_path, _SAMPLES))
        require("soundfile", "Audio of samples")
        fields["duration"] = samples.shape[0] / rate
        super().__init__(ArrayFile(samples, fields, lambda samples: _wav(samples, rate)))

    @property
    def caption(self) -> str | None:
        """What is shown beside it."""
        return cast("str | None", known(self)["caption"])

    @property
    def format(self) -> str:
        """The file's ending, such as `"wav"`."""
        return str(known(self)["format"])

    @property
    def sample_rate(self) -> int | None:
        """Samples a second, as far as it was told."""
        return cast("int | None", known(self)["sample_rate"])

    @property
    def duration(self) -> float | None:
        """In seconds; None for what was a file."""
        return cast("float | None", known(self)["duration"])

    def file(self) -> bytes:
        """Return the bytes of the file."""
        return self.content(self.encoded.data["file"])


def _checked_rate(sample_rate: int) -> int:
    try:
        rate = operator.index(sample_rate)  # numpy's integers too
    except TypeError:
        rate = 0
    if not 0 < rate < 2**31:
        msg = f"sample_rate must be a positive integer, in Hz, not {sample_rate!r}"
        raise UsageError(msg)
    return rate


def _checked_samples(samples: Any) -> Any:
    if samples.dtype.name not in _DTYPES:
        msg = f"Audio takes samples of floats, int16 or int32, not of dtype {samples.dtype}"
        raise UnsupportedValueError(msg)
    if samples.ndim == 1 or (samples.ndim == 2 and 0 < samples.shape[1] <= _MAX_CHANNELS):
        return samples
    msg = f"{_SAMPLES}, with 1 to {_MAX_CHANNELS} channels, not {samples.shape}"
    raise UnsupportedValueError(msg)


def _wav(samples: NDArray[Any], rate: int) -> bytes:
    import numpy as np

    if samples.dtype.kind != "i":
        samples = samples.astype(np.float64 if samples.dtype.itemsize == 8 else np.float32, copy=False)
        samples = np.where(np.isnan(samples), 0, samples)  # libsndfile makes the loudest sample of it
    buffer = BytesIO()
    import_module("soundfile").write(buffer, samples, rate, format="WAV")
    return buffer.getvalue()
