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
- Images are shown as the files that they are, without their boxes and masks; those of formats that
  TensorBoard does not tell browsers of, such as TIFF, as PNG.
- Sounds are played as the files that they are; TensorBoard tells browsers of WAV only, and of others
  they have to find out the format.
- Videos stand among the images: browsers play a GIF.  Others are left out, with a warning.
- A list of these is the samples of one step.
- Captions are texts, `<key>/caption`, because TensorBoard knows a description of a whole tag only.
- Charts are drawn with matplotlib and stand among the images; where it is not installed, and if only
  W&B can draw a chart, its table is shown.
- Tables are Markdown: 100 rows of 20 columns with 200 characters a cell at most, and how many more
  there are.  Media in a cell are told by kind and caption.
- HTML, figures of plotly and 3D objects are not taken.
- Keys are tags, whatever they contain.  A tag holds what one of TensorBoard's plugins shows, so that a
  key whose values become another one's continues as `<key> (<kind>)`.
- What is not a row stands in texts under `tracklayer/`: `run`, `environment`, `config`, `summary`,
  `status`, `artifacts/<name>` and `used_artifacts/<name>`; the prefix keeps a metric called `config`
  apart from them.  Numbers of the explicit summary are also scalars, `tracklayer/summary/<name>`, and so
  in the HParams table.
- The config as it is when the first rows are committed is the run's hyperparameters.  TensorBoard
  holds on to the first that it reads: what changes later, or in a resumed run, is in the text only.
- System metrics are scalars, `system/<key>`; their steps are the seconds since the run began.
- Metric rules and lines of the console are not taken.

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
    from pathlib import Path

    from tracklayer.settings import Settings
    from tracklayer_tensorboard.recording import TensorBoardRun


def _open(info: RunInfo, resume: Resume | None, settings: Settings) -> TensorBoardRun:
    _check()
    from tracklayer_tensorboard.recording import open_run

    return open_run(info, resume, settings.dir)


def _place(store: Path, info: RunInfo) -> Path:
    from tracklayer_tensorboard.recording import run_folder

    return run_folder(store, info)


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
    place=_place,
    kinds=frozenset({"scalar", "text", "histogram", "image", "audio", "video", "table", "chart"}),
)
