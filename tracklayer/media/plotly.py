"""Plots of plotly, which stay interactive where they are shown."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from types import ModuleType
from typing import Any, cast, final

from tracklayer.errors import UnsupportedValueError
from tracklayer.media.base import Media
from tracklayer.media.files import File


@final
class Plotly(Media):
    """A plot of plotly, as JSON.

    Args:
        val: a figure of plotly; or a figure of matplotlib without images (its axes, or pyplot, stand for
            theirs), which plotly converts as far as it can.  The content is that at the call.

    Raises:
        UnsupportedValueError: something else, or a figure that cannot be converted.
    """

    __slots__ = ()
    kind = "plotly"

    def __init__(self, val: object) -> None:
        super().__init__(File(_json(_plotly_figure(val)), {}))

    def file(self) -> bytes:
        """Return the bytes of the file, UTF-8."""
        return self.content(self.encoded.data["file"])

    def figure(self) -> dict[str, Any]:
        """Return the plot as JSON data, of which `plotly.io.from_json(json.dumps(data))` makes a figure."""
        return cast("dict[str, Any]", json.loads(self.file()))


def _plotly_figure(value: object) -> Any:
    plotly = sys.modules.get("plotly.basedatatypes")
    if plotly is not None and isinstance(value, plotly.BaseFigure):
        return value
    home = getattr(value, "__name__", type(value).__module__)  # of a module such as pyplot, its own
    if home.startswith("matplotlib."):
        return _converted(value)
    kind = type(value)
    msg = f"Plotly takes a figure of plotly or matplotlib, not {kind.__module__}.{kind.__qualname__}"
    raise UnsupportedValueError(msg)


def _converted(value: Any) -> Any:
    try:
        figure = value.gcf() if isinstance(value, ModuleType) else value
        figure = getattr(figure, "figure", figure)  # of axes and whatever else is in one
        if not any(axes.images for axes in figure.axes):
            return import_module("plotly.tools").mpl_to_plotly(figure)
        reason = "it has images"
    except (ImportError, AttributeError) as error:  # plotly falls behind: it uses what matplotlib removes
        reason = str(error)
    msg = f"plotly cannot convert this figure of matplotlib ({reason}); log tracklayer.Image(figure)"
    raise UnsupportedValueError(msg)


def _json(figure: Any) -> bytes:
    """Return a figure's JSON by plotly's own encoder: NaN, which JSON has not, is null.

    The figure may change at any time and copying it costs more than this, so this is not left for later.
    """
    encoder = import_module("plotly.utils").PlotlyJSONEncoder
    data = figure.to_plotly_json()
    return json.dumps(data, cls=encoder, separators=(",", ":"), ensure_ascii=False).encode()
