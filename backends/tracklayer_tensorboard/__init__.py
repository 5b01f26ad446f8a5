"""The TensorBoard backend: one folder of event files a run, written with tensorboardX.

A run is the folder `<store>/tensorboard/<project>/<id>`; `tensorboard --logdir <store>/tensorboard`
shows them all.  Importing this package costs next to nothing; tensorboardX and numpy are imported
when a run is opened.

What TensorBoard makes of what is logged:

- Scalars are float32: its default loader, the data server, leaves out float64 tensors without a
  word.  NaN and the infinities are shown; what is beyond float32 becomes infinite.  They have the
  form `simple_value`, which every reader of event files knows.
- Histograms keep float64 edges and counts.  The moments, and the counts of NaN and infinite
  elements, have no place there.
- Texts are shown as Markdown.
- Images are shown as the files that they are, without their boxes and masks.
- Sounds likewise; of other formats than WAV, the browser plays those that it recognises by themselves.
- Videos are shown among the images if they are GIFs, which browsers play; others are left out.
- Charts are drawn with matplotlib and shown among the images.  Where it is not installed, and for
  charts that only W&B can draw, their tables are shown.
- Tables are Markdown: of the first 100 rows and 20 columns, 200 characters a cell, and a line that says
  how many more there are.  Of an image or sound in a cell, its kind and its caption stand there.
- A list of images or sounds is shown as the samples of one step.
- Captions are texts, `<key>/caption`: TensorBoard shows none beside a picture that changes by step.
- HTML, plotly's figures and objects in 3D are not shown.
- Keys are tags, whatever they contain.  A tag holds one kind of value, so that a key which changes
  its kind continues as `<key> (<kind>)`.
- What is not a row stands in texts under `tracklayer/`: `run`, `config`, `summary`, `status` and
  `artifacts/<name>`; the prefix keeps a metric called `config` apart from them.  Numbers of the
  explicit summary are also scalars, `tracklayer/summary/<name>`, and so in the HParams table.
- The config as it is when the first rows are committed is the run's hyperparameters.  TensorBoard
  holds on to the first that it reads: what changes later, or in a resumed run, is in the text only.
- Metric rules are not taken.

Steps that go back.  TensorBoard expects ascending steps.  Rows are written as they come, and where
a step of a tag goes back, its loaders differ: the data server drops that tag's points from there
on, as after a restart from a checkpoint; the Python loader (`--load_fast=false`) shows old and new
points side by side.  So the newer value is always shown, but a late row may hide later ones for the
time being.  `finish` mends that for both loaders: one more file repeats, in order, what stands from
that step on (see `tracklayer_tensorboard.mending`, also for when it does not).

There is no lock: two processes that record one run at the same time are not told.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tracklayer.errors import BackendUnavailableError
from tracklayer.protocol import Backend, Resume, RunInfo

if TYPE_CHECKING:
    from tracklayer.settings import Settings
    from tracklayer_tensorboard.recording import TensorBoardRun


def _open(info: RunInfo, resume: Resume | None, settings: Settings) -> TensorBoardRun:
    _check()
    from tracklayer_tensorboard.recording import open_run

    return open_run(info, resume, settings.dir)


def _check() -> None:
    try:
        import_module("tracklayer_tensorboard.encoding")  # imports tensorboardX
    except ImportError as error:
        msg = (
            f"the tensorboard backend cannot import tensorboardX ({error}): "
            "pip install 'tracklayer[tensorboard]'"
        )
        raise BackendUnavailableError(msg) from error


backend = Backend(
    name="tensorboard",
    summary="event files for TensorBoard, in a folder on this disk",
    open=_open,
    check=_check,
    kinds=frozenset({"scalar", "text", "histogram", "image", "audio", "video", "table", "chart"}),
)
