"""Pages of HTML."""

from __future__ import annotations

from os import PathLike
from typing import IO, Final, cast, final

from tracklayer.errors import UnsupportedValueError
from tracklayer.media.base import Media
from tracklayer.media.files import File, ending_of, read_path, read_stream

_ENDINGS: Final = ("html",)
_HEAD: Final = (  # wandb's, byte for byte: it names a style sheet of W&B's, without which a page still shows
    '<base target="_blank">'
    '<link rel="stylesheet" type="text/css" href="https://app.wandb.ai/normalize.css" />'
)


@final
class Html(Media):
    """A page of HTML.

    Args:
        data: the page; or the path of a file that ends in .html; or a file object.  A string is a path if it
            ends in .html and has no `<` in it.  The content is that at the call.
        inject: put wandb's style sheet into the page's head, as wandb does.
        data_is_not_path: a string is the page, whatever it looks like.

    Raises:
        UnsupportedValueError: something else, a file with another ending, or a page that is not UTF-8.
        FileNotFoundError: there is no such file.
    """

    __slots__ = ()
    kind = "html"

    def __init__(
        self,
        data: str | PathLike[str] | IO[str] | IO[bytes],
        inject: bool = True,  # noqa: FBT001, FBT002 - wandb's signature
        data_is_not_path: bool = False,  # noqa: FBT001, FBT002 - wandb's signature
    ) -> None:
        try:
            content = _page(data, is_text=data_is_not_path)
            super().__init__(File(_injected(content.decode()).encode() if inject else content, {}))
        except UnicodeError as error:
            msg = f"Html takes UTF-8, and this is none: {error}"
            raise UnsupportedValueError(msg) from error

    def file(self) -> bytes:
        """Return the bytes of the file, UTF-8."""
        return self.content(self.encoded.data["file"])

    def text(self) -> str:
        """Return the page."""
        return self.file().decode()


def _page(data: object, *, is_text: bool) -> bytes:
    is_name = isinstance(data, str) and "<" not in data and ending_of(data, _ENDINGS) is not None
    if not is_text and (is_name or isinstance(data, PathLike)):
        return read_path(cast("str | PathLike[str]", data), _ENDINGS, "Html")[0]
    if isinstance(data, str):
        return data.encode()
    if hasattr(data, "read"):
        return read_stream(cast("IO[str]", data))
    msg = f"Html takes a page, the path of an .html file or a file object, not {type(data).__name__}"
    raise UnsupportedValueError(msg)


def _injected(page: str) -> str:
    """Return the page with the head that `wandb.Html` gives it, put where that puts it."""
    before, tag, after = page.partition("<head>")
    if tag:
        return f"{before}<head>{_HEAD}{after}".strip()
    before, tag, after = page.partition("<html>")
    if tag:
        return f"{before}<html><head>{_HEAD}</head>{after}".strip()
    return f"{_HEAD}{page}".strip()
