"""Media on their way: from the call, over the encoder, into the run's file, and back."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pillow

import tracklayer
from machine import Machine
from tracklayer import ActiveRun
from tracklayer.contents import Encoded
from tracklayer.encoder import Encoder
from tracklayer.errors import CorruptRunError, UnsupportedValueError
from tracklayer.media.base import Media, Source
from tracklayer.media.html import Html
from tracklayer.media.image import Image
from tracklayer.media.list import MediaList
from tracklayer.media.table import Table
from tracklayer.protocol import RunInfo, Status
from tracklayer.queue import Queue
from tracklayer.reading import MediaPoint, RunReader
from tracklayer.rows import MediaValues, RichValues


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRACKLAYER_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def run(store: Path) -> Iterator[ActiveRun]:
    run = tracklayer.init(id="r")
    yield run
    run.finish()


def reader(store: Path, run_id: str = "r") -> RunReader:
    return tracklayer.open_store(store).run(run_id)


def points(store: Path, key: str | None = None) -> list[MediaPoint]:
    return list(reader(store).media(key))


def noise(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class SlowSource:
    """Encoded when it is allowed to be."""

    nbytes = 1000

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.error: Exception | None = None

    def arrays(self) -> tuple[()]:
        return ()

    def landed(self, hosts: Any) -> SlowSource:
        del hosts
        return self

    def encoded(self) -> Encoded:
        assert self.may_go.wait(30)
        if self.error is not None:
            raise self.error
        return Html("slow", inject=False).encoded


def html(source: Source) -> Media:
    return Html.of(source)


# -- there and back ------------------------------------------------------------------------------------


def test_what_is_logged_is_what_is_read(run: ActiveRun, store: Path) -> None:
    pixels = noise(8, 6, 3)
    run.log({"loss": 0.5, "picture": Image(pixels, caption="noise"), "page": Html("<p>hi</p>", inject=False)})
    run.log({"picture": Image(255 - pixels)})
    run.finish()
    rows = list(reader(store).rows())
    assert [set(row.values) for row in rows] == [{"loss", "picture", "page"}, {"picture"}]
    found = points(store, "picture")
    assert [point.step for point in found] == [0, 1]
    first = found[0].value
    assert isinstance(first, Image)
    assert first.caption == "noise"
    assert np.array_equal(np.asarray(Pillow.open(io.BytesIO(first.file()))), pixels)
    assert [point.key for point in points(store)] == ["picture", "page", "picture"]
    with pytest.raises(LookupError, match="did you mean 'picture'"):
        points(store, "pictur")


def test_the_content_is_that_at_the_call(run: ActiveRun, store: Path, tmp_path: Path) -> None:
    pixels = noise(32, 32, 3)
    page = tmp_path / "page.html"
    page.write_text("<p>before</p>")
    table = Table(columns=["a"])
    table.add_data(1)
    picture = Pillow.fromarray(pixels.copy())
    kept = pixels.copy()
    run.log({"array": Image(pixels), "page": Html(page, inject=False), "table": table, "pil": picture})
    pixels[:] = 0
    picture.paste(0, (0, 0, 32, 32))
    page.unlink()
    table.add_data(2)
    run.finish()
    values = {point.key: point.value for point in points(store)}
    for key in ("array", "pil"):
        value = values[key]
        assert isinstance(value, Image)
        assert np.array_equal(value.array(), kept)
    assert isinstance(values["page"], Html)
    assert values["page"].file() == b"<p>before</p>"
    assert isinstance(values["table"], Table)
    assert values["table"].data == [[1]]


def test_values_of_a_device_come_with_their_row(run: ActiveRun, store: Path) -> None:
    @jax.jit
    def step(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.mean(x), (x * 255).astype(jnp.uint8)

    x = jnp.linspace(0, 1, 4 * 5 * 3).reshape(4, 5, 3)
    loss, picture = step(x)
    expected = np.array(picture)
    run.log({"loss": loss, "picture": Image(picture), "again": [Image(picture), Image(picture)]})
    loss.delete()
    picture.delete()
    run.finish()
    values = {point.key: point.value for point in points(store)}
    assert reader(store).metric("loss").value[0] == pytest.approx(0.5)
    picture_read, again = values["picture"], values["again"]
    assert isinstance(picture_read, Image)
    assert isinstance(again, MediaList)
    assert np.array_equal(picture_read.array(), expected)
    assert [np.array_equal(item.array(), expected) for item in again.items if isinstance(item, Image)] == [
        True
    ] * 2


def test_a_deleted_array_costs_its_picture_only(run: ActiveRun, store: Path) -> None:
    gone = jnp.zeros((4, 4, 3), jnp.uint8)
    picture = Image(gone)
    gone.delete()
    with pytest.raises(UnsupportedValueError, match=r"'gone': .*deleted"):
        run.log({"gone": picture, "there": Image(noise(4, 4)), "x": 1})
    run.finish()
    assert [point.key for point in points(store)] == ["there"]
    assert reader(store).metric("x").value.tolist() == [1]


def test_figures_pictures_and_frames_need_no_wrapping(run: ActiveRun, store: Path) -> None:
    import pandas as pd
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([1, 2])
    run.log(
        {
            "figure": figure,
            "picture": Pillow.new("RGB", (2, 2)),
            "plotly": go.Figure(go.Scatter(x=[1, 2], y=[3, 4])),
            "frame": pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
            "nested": {"list": [Image(noise(2, 2)), Image(noise(2, 2))]},
        }
    )
    run.finish()
    kinds = {point.key: point.value.kind for point in points(store)}
    assert kinds == {
        "figure": "image",
        "picture": "image",
        "plotly": "plotly",
        "frame": "table",
        "nested/list": "list",
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "an empty list"),
        (["a", "b"], "cannot log a builtins.list"),
        (object(), "cannot log a builtins.object"),
        (np.zeros((4, 4, 3)), r"an array of shape \(4, 4, 3\) is no scalar; .*tracklayer.Image"),
    ],
)
def test_what_cannot_be_logged_is_refused_at_the_call(
    run: ActiveRun, store: Path, value: Any, message: str
) -> None:
    with pytest.raises(UnsupportedValueError, match=f"'bad': {message}"):
        run.log({"bad": value, "good": Image(noise(2, 2)), "x": 1})
    run.finish()
    assert [point.key for point in points(store)] == ["good"]


def test_media_are_no_series(run: ActiveRun) -> None:
    with pytest.raises(UnsupportedValueError, match="'picture': <Image> is no series"):
        run.log_series({"picture": Image(jnp.zeros((3, 4, 4))), "x": [1, 2, 3]})


@pytest.mark.parametrize(
    "key",
    ["a/b", "[0]", "a key with spaces", "größe/ß∂", "k" * 600, "../../etc/passwd", "nul\0", "\n", ""],
)
def test_any_key_will_do(run: ActiveRun, store: Path, key: str) -> None:
    run.log({key: Image(noise(2, 2))})
    run.finish()
    assert [point.key for point in points(store)] == [key]


@pytest.mark.slow
def test_ten_thousand_keys_in_one_row(run: ActiveRun, store: Path) -> None:
    page = Html("same", inject=False)
    run.log({f"page/{number}": page for number in range(5_000)} | {f"x/{n}": n for n in range(5_000)})
    run.finish()
    (row,) = reader(store).rows()
    assert len(row.values) == 10_000


# -- where it lies -------------------------------------------------------------------------------------


def test_small_content_lies_in_the_runs_file_and_large_content_once_beside_it(
    run: ActiveRun, store: Path
) -> None:
    small, large = noise(16, 16, 3), noise(700, 700, 3)  # noise of 1.4 MB
    for _ in range(3):
        run.log({"small": Image(small), "large": Image(large)})
    run.finish()
    blobs = [path for path in (store / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == 1
    assert [path.name for path in (store / "runs").iterdir()] == ["r.sqlite"]
    file = sqlite3.connect(store / "runs" / "r.sqlite")
    rows = file.execute("SELECT sha256, size, length(content) FROM contents ORDER BY size").fetchall()
    file.close()
    assert [row[2] for row in rows] == [rows[0][1], None]
    assert rows[1][0] == blobs[0].name
    for point in points(store):
        assert isinstance(point.value, Image)
        assert np.array_equal(point.value.array(), small if point.key == "small" else large)


def test_content_that_was_lost_or_changed_is_named_when_it_is_read(run: ActiveRun, store: Path) -> None:
    run.log({"large": Image(noise(700, 700, 3)), "x": 1})
    run.finish()
    (blob,) = [path for path in (store / "blobs").rglob("*") if path.is_file()]
    (point,) = points(store)
    assert isinstance(point.value, Image)
    blob.write_bytes(b"something else")
    with pytest.raises(CorruptRunError, match="not what was recorded"):
        point.value.file()
    blob.unlink()
    with pytest.raises(CorruptRunError, match="cannot be read"):
        point.value.file()
    assert reader(store).metric("x").value.tolist() == [1]


def test_a_step_that_is_logged_again_has_the_newer_picture(run: ActiveRun, store: Path) -> None:
    for number in range(3):
        run.log({"page": Html(str(number), inject=False)}, step=5)
    run.finish()
    ((_, step, _, value),) = points(store)
    assert isinstance(value, Html)
    assert (step, value.file()) == (5, b"2")


def test_a_copy_of_the_run_has_the_same_media(run: ActiveRun, store: Path, tmp_path: Path) -> None:
    run.log({"picture": Image(noise(700, 700, 3), caption="c"), "x": 1})
    run.log({"pages": [Html("a"), Html("b")]})
    run.finish()
    copy = tracklayer.init(id="copy", dir=tmp_path / "other")
    assert tracklayer.replay(reader(store), copy) == 2
    copied = reader(tmp_path / "other", "copy")
    assert [tuple(point) for point in copied.media()] == [tuple(point) for point in points(store)]
    assert [p.value.content(next(iter(p.value.encoded.contents))) for p in copied.media("picture")]  # type: ignore[union-attr]


# -- the encoder ---------------------------------------------------------------------------------------


def test_scalars_do_not_wait_for_media(run: ActiveRun, store: Path) -> None:
    slow = SlowSource()
    run.log({"slow": html(slow), "loss": 1.0}, step=0)
    run.log({"loss": 2.0}, step=1)
    deadline = time.monotonic() + 10
    while reader(store).last_step < 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert reader(store).metric("loss").value.tolist() == [1.0, 2.0]
    assert reader(store).keys() == ["loss"]
    assert not run.flush(0.3)
    slow.may_go.set()
    assert run.flush()
    assert [(point.key, point.step) for point in points(store)] == [("slow", 0)]
    rows = list(reader(store).rows())
    assert [set(row.values) for row in rows] == [{"loss", "slow"}, {"loss"}]


def test_finish_waits_for_media(store: Path) -> None:
    slow = SlowSource()
    threading.Timer(0.5, slow.may_go.set).start()
    with tracklayer.init(id="r") as run:
        run.log({"slow": html(slow)})
    assert [point.key for point in points(store)] == ["slow"]


def test_what_cannot_be_encoded_is_reported_once_and_costs_itself(
    run: ActiveRun, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        slow = SlowSource()
        slow.may_go.set()
        slow.error = ValueError(f"no picture {number}")
        run.log({"bad": html(slow), "good": Html("good"), "x": number})
    run.finish()
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [
        "tracklayer: 'bad' could not be encoded: no picture 0. The rest is recorded",
        "tracklayer: 3 values in all could not be encoded",
    ]
    assert [point.step for point in points(store, "good")] == [0, 1, 2]
    assert reader(store).metric("x").value.tolist() == [0, 1, 2]


def test_callers_wait_only_when_much_waits_to_be_encoded() -> None:
    encoder = Encoder(limit_bytes=2500)
    passed: list[int] = []
    sources = [SlowSource() for _ in range(4)]

    def put(number: int) -> None:
        media = MediaValues({"k": html(sources[number])}, None)
        encoder.put(media, lambda _: passed.append(number))

    put(0)
    put(1)
    third = threading.Thread(target=put, args=(2,))
    third.start()
    third.join(0.2)
    assert third.is_alive()
    sources[0].may_go.set()
    third.join(10)
    assert not third.is_alive()
    assert passed == [0]
    for source in sources:
        source.may_go.set()
    put(3)
    encoder.finish()
    assert passed == [0, 1, 2, 3]


def test_one_that_is_larger_than_the_limit_is_taken() -> None:
    encoder = Encoder(limit_bytes=10)
    source = SlowSource()
    source.may_go.set()
    passed: list[Any] = []
    encoder.put(MediaValues({"k": html(source)}, None), passed.append)
    encoder.finish()
    assert [list(values) for values in passed] == [["k"]]


def test_nothing_is_encoded_where_nothing_is_recorded(store: Path) -> None:
    with tracklayer.init(backend="disabled") as run:
        run.log({"never": html(SlowSource()), "x": 1})


# -- ends ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "ending", ["", "import sys; sys.exit(3)", "raise ValueError", "os.kill(os.getpid(), 15)"]
)
def test_whatever_ends_the_process_media_are_kept(tmp_path: Path, ending: str) -> None:
    Machine(tmp_path).run(
        f"""
        import os
        import numpy as np
        import tracklayer

        run = tracklayer.init(id="r")
        pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
        for step in range(40):
            run.log({{"picture": tracklayer.Image(pixels), "x": step}})
        {ending}
        """
    )
    found = list(reader(tmp_path / "store").media())
    assert [point.step for point in found] == list(range(40))


@pytest.mark.slow
def test_a_killed_process_has_lost_no_media_that_were_flushed(tmp_path: Path) -> None:
    process = Machine(tmp_path).start(
        """
        import numpy as np
        import time
        import tracklayer

        run = tracklayer.init(id="r")
        pixels = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
        for step in range(5):
            run.log({"picture": tracklayer.Image(pixels + np.uint8(step)), "x": step})
        run.flush(60)
        print("flushed", flush=True)
        while True:
            run.log({"picture": tracklayer.Image(pixels), "x": 0}, step=100)
            time.sleep(0.01)
        """
    )
    assert process.hear() == "flushed"
    time.sleep(0.5)
    os.kill(process.process.pid, signal.SIGKILL)
    process.end()
    found = [point for point in reader(tmp_path / "store").media() if point.step < 100]
    assert [point.step for point in found] == [0, 1, 2, 3, 4]
    assert all(
        isinstance(point.value, Image) and point.value.array().shape == (700, 700, 3) for point in found
    )


@pytest.mark.slow
def test_media_that_were_spilled_are_brought_in(tmp_path: Path, store: Path) -> None:
    from tracklayer.spill import Spill, read_spill

    with tracklayer.init(id="r") as run:
        spill = Spill(run.info)
    pixels = noise(9, 9)
    spill.write((3, 1.5, {"x": 1, "picture": Image(pixels), "page": Html("p")}))
    spill.close()
    ((step, at, values),) = list(read_spill(spill.path))  # type: ignore[misc]
    assert (step, at, values["x"]) == (3, 1.5, 1)
    assert np.array_equal(values["picture"].array(), pixels)
    assert values["page"] == Html("p")
    assert "pickle" not in json.dumps(spill.path.read_text())
    spill.remove()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_leaves_what_waits_to_the_parent(run: ActiveRun, store: Path) -> None:
    slow = SlowSource()
    run.log({"slow": html(slow)})
    child = os.fork()
    if child == 0:
        try:
            run.log({"lost": Html("x")})
            run.finish()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    slow.may_go.set()
    run.finish()
    assert [point.key for point in points(store)] == ["slow"]


def test_a_damaged_row_is_an_error_that_names_the_file(run: ActiveRun, store: Path) -> None:
    run.log({"page": Html("x")})
    run.finish()
    file = sqlite3.connect(store / "runs" / "r.sqlite")
    file.execute("UPDATE objects SET data = '{'")
    file.commit()
    file.close()
    with pytest.raises(CorruptRunError, match=r"r\.sqlite is damaged"):
        points(store)


# -- the queues behind it ------------------------------------------------------------------------------


class Sink:
    """A backend's run that keeps what it gets."""

    info = RunInfo("r", "p", "n")

    def __init__(self) -> None:
        self.logged: list[tuple[int, set[str]]] = []

    def log(self, values: Any, *, step: int, time: float) -> None:
        del time
        self.logged.append((step, set(values)))

    def commit(self) -> None: ...

    def finish(self, status: Status) -> None: ...


class CannotPrepare(Sink):
    def prepare(self, values: Any) -> None:
        raise ZeroDivisionError(str(set(values)))


def test_media_that_wait_to_be_encoded_do_not_fill_a_queue_that_keeps_the_order() -> None:
    sink, slow = Sink(), SlowSource()
    slow.nbytes = 10**9  # of an image of 300 megapixels
    queue = Queue("hosted", Sink.info, lambda: sink, in_order=True, hosted=True, limit_bytes=100_000)  # type: ignore[arg-type,return-value]
    media = MediaValues({"slow": html(slow)}, None)
    queue.put((0, 0.0, RichValues({}, media=media)))
    for step in range(1, 20):
        queue.put((step, 0.0, {"x": step}))
    assert queue.usable
    slow.may_go.set()
    media.encoded(lambda about, message: pytest.fail(f"{about}: {message}"))
    queue.hold(media.encoded_size)
    queue.finish(Status())
    assert sink.logged == [(0, {"slow"}), *[(step, {"x"}) for step in range(1, 20)]]
    assert queue.lost == 0


def test_what_a_backend_cannot_prepare_is_left_to_its_log(caplog: pytest.LogCaptureFixture) -> None:
    sink = CannotPrepare()
    queue = Queue("fake", Sink.info, lambda: sink)  # type: ignore[arg-type,return-value]
    assert queue.wait_open(10) is None
    queue.prepare({"page": Html("x")})
    queue.put((0, 0.0, RichValues({"page": Html("x")})))
    queue.finish(Status())
    assert sink.logged == [(0, {"page"})]
    assert [record.getMessage() for record in caplog.records] == [
        "tracklayer: fake cannot show 'page': ZeroDivisionError(\"{'page'}\")"
    ]


def test_media_that_come_while_the_encoder_ends_are_encoded_at_once() -> None:
    encoder = Encoder()
    passed: list[set[str]] = []
    encoder.put(MediaValues({"a": Html("x")}, None), lambda values: passed.append(set(values)))
    encoder.finish()
    encoder.put(MediaValues({"b": Html("y")}, None), lambda values: passed.append(set(values)))
    assert passed == [{"a"}, {"b"}]
    assert encoder.flush(0)


def test_the_rest_of_a_row_counts_where_nothing_is_recorded(store: Path) -> None:
    with tracklayer.init(backend="disabled") as run:
        run.log({"loss": 1.0, "page": Html("x")})
        run.log({"acc": 0.5})
        assert run.flush()
        assert dict(run.summary) == {"loss": 1.0, "acc": 0.5}


def test_numbers_do_not_wait_for_a_picture_that_is_still_computed(run: ActiveRun, store: Path) -> None:
    @jax.jit
    def slow(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 3000, lambda _, w: jnp.tanh(w @ w), x)

    picture = slow(jnp.full((128, 128), 0.01))
    run.log({"x": 1, "picture": Image(picture)}, step=0)
    run.log({"x": 2}, step=1)
    deadline = time.monotonic() + 10
    while reader(store).last_step < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert reader(store).metric("x").value.tolist() == [1, 2]
    assert run.flush(60)
    assert [point.key for point in points(store)] == ["picture"]


@pytest.mark.slow
def test_media_need_no_jax(tmp_path: Path) -> None:
    done = Machine(tmp_path).run(
        """
        import sys
        import numpy as np
        import tracklayer

        class NotInstalled:
            def find_spec(self, name, path=None, target=None):
                if name == "jax":
                    raise ModuleNotFoundError("No module named 'jax'", name="jax")

        sys.meta_path.insert(0, NotInstalled())
        with tracklayer.init(id="r") as run:
            run.log({"picture": tracklayer.Image(np.zeros((8, 8), np.uint8)), "x": 1})
            run.log({"table": tracklayer.Table(["a"], [[1]]), "chart": tracklayer.plot.bar(
                tracklayer.Table(["a", "b"], [["x", 1]]), "a", "b")})
        """
    )
    assert done.code == 0, done.stderr
    assert [p.key for p in reader(tmp_path / "store").media()] == ["picture", "table", "chart"]


def test_a_recorded_value_whose_file_is_gone_costs_itself_alone(
    run: ActiveRun, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run.log({"large": Image(noise(700, 700, 3))})
    run.finish()
    (point,) = points(store)
    for blob in (store / "blobs").rglob("*"):
        if blob.is_file():
            blob.unlink()
    with tracklayer.init(id="again") as again:
        again.log({"large": point.value, "x": 1})
        again.log({"page": Html("x"), "x": 2})
    assert reader(store, "again").info.state == "finished"
    assert reader(store, "again").metric("x").value.tolist() == [1, 2]
    assert [found.key for found in reader(store, "again").media()] == ["page"]
    (warning,) = [r.getMessage() for r in caplog.records if "large" in r.getMessage()]
    assert "cannot be read" in warning


def test_a_class_is_refused_by_name(run: ActiveRun) -> None:
    with pytest.raises(UnsupportedValueError, match="'x': cannot log the class Image itself"):
        run.log({"x": Image, "y": 1})
