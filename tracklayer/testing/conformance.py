"""The tests themselves, to be inherited by a backend's test class."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest

from tracklayer import registry
from tracklayer.artifacts.records import ArtifactFile, LoggedArtifact
from tracklayer.errors import RunExistsError, RunNotFoundError
from tracklayer.protocol import (
    Backend,
    Run,
    RunInfo,
    State,
    Status,
    TakesConsole,
    TakesEnvironment,
    TakesSystemMetrics,
    TakesUses,
)
from tracklayer.settings import Settings
from tracklayer.surroundings import ConsoleLine, SystemRow
from tracklayer.testing.examples import HISTOGRAMS, KEYS, SCALARS, TEXTS
from tracklayer.testing.recorded import Point, Recorded
from tracklayer.values import Histogram, Scalar, Text

_T0 = 1_700_000_000.0625  # a time with a fraction that float64 holds exactly
_PROJECT = "conformance"
_CONTENT = {"sub/config.json": b"{}", "weights.bin": bytes(range(256)) * 10}
_URI = "s3://no-such-bucket/train.bin"


class BackendConformance:
    """Inherit, name the backend, and say how to read back what it recorded."""

    backend_name: str

    def read_back(self, folder: Path, info: RunInfo) -> Recorded:
        """Read a run by other means than the backend's own code."""
        raise NotImplementedError

    # -- making runs ------------------------------------------------------------------------------

    @pytest.fixture
    def backend(self) -> Backend:
        """The backend, found as users find it."""
        return registry.load(self.backend_name)

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """The store's folder."""
        return tmp_path / "store"

    def open_run(self, backend: Backend, folder: Path, run_id: str = "conform1", resume: Any = None) -> Run:
        """Open a run directly, without queue and front."""
        info = RunInfo(
            id=run_id,
            project=_PROJECT,
            name="a name",
            group="a group",
            job_type="test",
            tags=("one", "two"),
            notes="some notes",
            created_at=_T0,
        )
        settings = Settings(backends=(self.backend_name,), dir=folder)
        folder.mkdir(exist_ok=True)
        return backend.open(info, resume, settings)

    def finished(self, run: Run, folder: Path, state: State = "finished") -> Recorded:
        """Finish a run and read it back."""
        run.commit()
        info = run.info
        run.finish(Status(state, 0 if state == "finished" else 1))
        return self.read_back(folder, info)

    # -- values -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("value", SCALARS.values(), ids=SCALARS.keys())
    def test_a_scalar_comes_back_at_its_step_and_time(
        self, backend: Backend, folder: Path, value: Scalar
    ) -> None:
        run = self.open_run(backend, folder)
        run.log({"key": value}, step=7, time=_T0 + 1)
        recorded = self.finished(run, folder)
        (point,) = recorded.scalars["key"]
        assert (point.step, point.time) == (7, _T0 + 1)
        assert _agree(point.value, value, recorded), (point.value, value)

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
    def test_a_text_comes_back(self, backend: Backend, folder: Path, text: Text) -> None:
        _need(backend, "text")
        run = self.open_run(backend, folder)
        run.log({"key": text, "other": 1.0}, step=3, time=_T0)
        recorded = self.finished(run, folder)
        assert recorded.texts is not None
        assert [(p.step, p.value) for p in recorded.texts["key"]] == [(3, text.text)]

    @pytest.mark.parametrize("histogram", HISTOGRAMS.values(), ids=HISTOGRAMS.keys())
    def test_a_histogram_comes_back_with_its_counts_and_edges(
        self, backend: Backend, folder: Path, histogram: Histogram
    ) -> None:
        _need(backend, "histogram")
        run = self.open_run(backend, folder)
        run.log({"key": histogram}, step=3, time=_T0)
        recorded = self.finished(run, folder)
        assert recorded.histograms is not None
        (point,) = recorded.histograms["key"]
        counts, edges = point.value
        assert point.step == 3
        if histogram.bins.count == 0:
            assert sum(counts) == 0  # an empty one may have no bins, either
        else:
            assert list(counts) == list(histogram.bins.counts)
            assert list(edges) == pytest.approx(list(histogram.bins.edges), rel=1e-9)

    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
    def test_a_key_comes_back_as_it_was(self, backend: Backend, folder: Path, key: str) -> None:
        run = self.open_run(backend, folder)
        run.log({key: 1.5}, step=0, time=_T0)
        recorded = self.finished(run, folder)
        assert [point.value for point in recorded.scalars[key]] == [1.5]

    # -- rows and steps ---------------------------------------------------------------------------

    def test_every_row_is_there_in_order_of_steps(self, backend: Backend, folder: Path) -> None:
        run = self.open_run(backend, folder)
        for step in range(3_000):
            run.log({"a": step * 0.5, "b": step}, step=step, time=_T0 + step)
            if step % 1_000 == 0:
                run.commit()
        recorded = self.finished(run, folder)
        assert recorded.scalars["a"] == [Point(s, _T0 + s, s * 0.5) for s in range(3_000)]
        assert [p.value for p in recorded.scalars["b"]] == list(range(3_000))

    def test_values_of_one_step_merge(self, backend: Backend, folder: Path) -> None:
        run = self.open_run(backend, folder)
        run.log({"a": 1.0}, step=5, time=_T0)
        run.log({"b": 2.0}, step=5, time=_T0)
        recorded = self.finished(run, folder)
        assert {k: [(p.step, p.value) for p in v] for k, v in recorded.scalars.items()} == {
            "a": [(5, 1.0)],
            "b": [(5, 2.0)],
        }

    def test_a_late_row_keeps_its_step(self, backend: Backend, folder: Path) -> None:
        run = self.open_run(backend, folder)
        run.log({"a": 10.0}, step=10, time=_T0)
        run.commit()
        run.log({"late": 4.0}, step=4, time=_T0 + 1)
        run.log({"a": 11.0}, step=11, time=_T0 + 2)
        recorded = self.finished(run, folder)
        assert recorded.scalars["late"] == [Point(4, _T0 + 1, 4.0)]
        assert [(p.step, p.value) for p in recorded.scalars["a"]] == [(10, 10.0), (11, 11.0)]

    def test_a_value_logged_again_replaces_the_older(self, backend: Backend, folder: Path) -> None:
        run = self.open_run(backend, folder)
        run.log({"a": 1.0}, step=1, time=_T0)
        run.log({"a": 2.0}, step=1, time=_T0 + 1)
        recorded = self.finished(run, folder)
        assert recorded.scalars["a"] == [Point(1, _T0 + 1, 2.0)]

    def test_what_was_committed_is_there_before_the_end(self, backend: Backend, folder: Path) -> None:
        run = self.open_run(backend, folder)
        run.log({"a": 1.0}, step=1, time=_T0)
        run.commit()
        recorded = self.read_back(folder, run.info)
        run.finish(Status())
        if not recorded.live:
            pytest.skip("read back once it is finished")
        assert [p.value for p in recorded.scalars["a"]] == [1.0]

    def test_a_backend_leaves_the_mapping_as_it_was(self, backend: Backend, folder: Path) -> None:
        run = self.open_run(backend, folder)
        values: dict[str, Any] = {"a": 1.0, "text": Text("t"), "h": Histogram([1.0])}
        before = dict(values)
        run.log(values, step=1, time=_T0)
        self.finished(run, folder)
        assert values == before

    # -- what goes with the rows ------------------------------------------------------------------

    def test_config_stays_nested_and_merges(self, backend: Backend, folder: Path) -> None:
        run = self.open_run(backend, folder)
        run.update_config({"lr": 0.1, "model": {"layers": [1, 2], "name": "cnn"}, "none": None})
        run.update_config({"lr": 0.2, "seed": 3, "flag": True, "ключ": "значение"})
        run.log({"a": 1.0}, step=0, time=_T0)
        recorded = self.finished(run, folder)
        if recorded.config is None:
            pytest.skip("shows no config")
        assert recorded.config == {
            "lr": 0.2,
            "model": {"layers": [1, 2], "name": "cnn"},
            "none": None,
            "seed": 3,
            "flag": True,
            "ключ": "значение",
        }

    def test_summary_entries_set_by_hand_win(self, backend: Backend, folder: Path) -> None:
        run = self.open_run(backend, folder)
        run.log({"loss": 5.0}, step=0, time=_T0)
        run.update_summary({"best": 0.5, "note": "good"})
        recorded = self.finished(run, folder)
        if recorded.summary is None:
            pytest.skip("shows no summary")
        assert recorded.summary["best"] == 0.5
        assert recorded.summary["note"] == "good"

    @pytest.mark.parametrize("state", ["finished", "failed"])
    def test_the_end_is_recorded(self, backend: Backend, folder: Path, state: State) -> None:
        run = self.open_run(backend, folder)
        run.log({"a": 1.0}, step=0, time=_T0)
        recorded = self.finished(run, folder, state)
        if recorded.state is None:
            pytest.skip("shows no state")
        assert recorded.state == state

    def test_an_artifact_comes_back_with_its_files(
        self, backend: Backend, folder: Path, tmp_path: Path
    ) -> None:
        run = self.open_run(backend, folder)
        run.log({"a": 1.0}, step=0, time=_T0)
        run.log_artifact(LoggedArtifact("model", "model", _files(tmp_path), "d", {"acc": 0.9}, _T0))
        recorded = self.finished(run, folder)
        if recorded.artifacts is None:
            pytest.skip("shows no artifacts' content")
        assert recorded.artifacts == {"model": _CONTENT}

    def test_a_version_comes_back_with_its_aliases(
        self, backend: Backend, folder: Path, tmp_path: Path
    ) -> None:
        run = self.open_run(backend, folder)
        run.log_artifact(_version(tmp_path))
        recorded = self.finished(run, folder)
        if recorded.aliases is None:
            pytest.skip("shows no aliases")
        assert {name: aliases - {"latest"} for name, aliases in recorded.aliases.items()} == {
            "model": {"best", "a b"}
        }

    def test_a_reference_comes_back_as_its_uri_and_is_not_read(
        self, backend: Backend, folder: Path, tmp_path: Path
    ) -> None:
        run = self.open_run(backend, folder)
        run.log_artifact(_version(tmp_path))  # there is nothing where it points to
        recorded = self.finished(run, folder)
        if recorded.references is None:
            pytest.skip("shows no references")
        assert recorded.references == {"model": {"data/train.bin": _URI}}
        assert recorded.artifacts in ({"model": _CONTENT}, None)

    def test_what_a_run_used_is_recorded(self, backend: Backend, folder: Path, tmp_path: Path) -> None:
        version = _version(tmp_path)
        maker = self.open_run(backend, folder, "maker")
        maker.log_artifact(version)
        self.finished(maker, folder)
        user = self.open_run(backend, folder, "user")
        if not isinstance(user, TakesUses):
            user.finish(Status())
            pytest.skip("takes no uses")
        user.use_artifact(version)
        recorded = self.finished(user, folder)
        assert recorded.uses == ["model:v0"]
        assert not recorded.artifacts  # it made none

    def test_an_empty_run_can_be_finished(self, backend: Backend, folder: Path) -> None:
        recorded = self.finished(self.open_run(backend, folder), folder)
        assert recorded.scalars == {}

    # -- what the process is, prints and measures --------------------------------------------------

    def test_the_environment_comes_back_with_later_entries(self, backend: Backend, folder: Path) -> None:
        run = self.open_run(backend, folder)
        if not isinstance(run, TakesEnvironment):
            run.finish(Status())
            pytest.skip("takes no environment")
        run.record_environment(
            {"host": "здесь", "git": {"commit": "abc", "dirty": True}, "jax": {"jax": "1"}}
        )
        run.commit()
        run.record_environment({"jax": {"jax": "1", "devices": [{"kind": "cpu", "count": 8}]}})
        assert self.finished(run, folder).environment == {
            "host": "здесь",
            "git": {"commit": "abc", "dirty": True},
            "jax": {"jax": "1", "devices": [{"kind": "cpu", "count": 8}]},
        }

    def test_lines_of_the_console_come_back_in_order(self, backend: Backend, folder: Path) -> None:
        run = self.open_run(backend, folder)
        if not isinstance(run, TakesConsole):
            run.finish(Status())
            pytest.skip("takes no console")
        texts = ["first", "", "ünïcode ∂ 学习", "\ud800 is no text", "x" * 100_000, "first"]
        lines = [ConsoleLine(_T0 + i, "stderr" if i == 2 else "stdout", t) for i, t in enumerate(texts)]
        run.log_console(lines[:4])
        run.commit()
        run.log_console(lines[4:])
        texts[3] = "\\ud800 is no text"
        assert self.finished(run, folder).console == texts

    def test_system_metrics_come_back_at_their_times(self, backend: Backend, folder: Path) -> None:
        run = self.open_run(backend, folder)
        if not isinstance(run, TakesSystemMetrics):
            run.finish(Status())
            pytest.skip("takes no system metrics")
        run.log({"cpu": 1.0}, step=1000, time=_T0)
        for second in range(3):
            run.log_system(SystemRow(_T0 + 10 * second, {"cpu": 12.5 * second, "proc.memory.rssMB": 1024.0}))
            run.commit()
        recorded = self.finished(run, folder)
        assert recorded.system_metrics == {
            "cpu": [(_T0, 0.0), (_T0 + 10, 12.5), (_T0 + 20, 25.0)],
            "proc.memory.rssMB": [(_T0, 1024.0), (_T0 + 10, 1024.0), (_T0 + 20, 1024.0)],
        }
        assert recorded.scalars == {"cpu": [Point(1000, _T0, 1.0)]}

    # -- runs that are there already --------------------------------------------------------------

    def test_an_id_is_not_used_twice_unasked(self, backend: Backend, folder: Path) -> None:
        run = self.open_run(backend, folder)
        run.log({"a": 1.0}, step=0, time=_T0)
        self.finished(run, folder)
        for resume in (None, "never"):
            with pytest.raises(RunExistsError, match="conform1"):
                self.open_run(backend, folder, resume=resume)

    def test_resuming_demands_a_run(self, backend: Backend, folder: Path) -> None:
        with pytest.raises(RunNotFoundError, match="conform1"):
            self.open_run(backend, folder, resume="must")

    @pytest.mark.parametrize("resume", ["allow", "must"])
    def test_a_resumed_run_goes_on(self, backend: Backend, folder: Path, resume: str) -> None:
        run = self.open_run(backend, folder, resume="allow")
        assert not run.info.resumed
        run.log({"a": 1.0}, step=0, time=_T0)
        self.finished(run, folder, "failed")
        run = self.open_run(backend, folder, resume=resume)
        assert run.info.resumed
        run.log({"a": 2.0}, step=1, time=_T0 + 1)
        recorded = self.finished(run, folder)
        assert [(p.step, p.value) for p in recorded.scalars["a"]] == [(0, 1.0), (1, 2.0)]
        assert recorded.state in {None, "finished"}

    def test_runs_do_not_mix(self, backend: Backend, folder: Path) -> None:
        first = self.open_run(backend, folder, "conform1")
        second = self.open_run(backend, folder, "conform2")
        first.log({"a": 1.0}, step=0, time=_T0)
        second.log({"a": 2.0}, step=0, time=_T0)
        assert [p.value for p in self.finished(first, folder).scalars["a"]] == [1.0]
        assert [p.value for p in self.finished(second, folder).scalars["a"]] == [2.0]


def _files(folder: Path) -> tuple[ArtifactFile, ...]:
    """Write the example's files to a folder."""
    files: list[ArtifactFile] = []
    for path, data in _CONTENT.items():
        source = folder / path.replace("/", "_")
        source.write_bytes(data)
        files.append(ArtifactFile(path, hashlib.sha256(data).hexdigest(), len(data), str(source)))
    return tuple(files)


def _version(folder: Path) -> LoggedArtifact:
    """Return the first version of an artifact, with a reference to a file that is not there."""
    reference = ArtifactFile("data/train.bin", "", 12, _URI, reference=_URI, checksum="an etag")
    return LoggedArtifact(
        name="model",
        type="model",
        files=(reference, *_files(folder)),
        description="d",
        metadata={"acc": 0.9},
        time=_T0,
        project=_PROJECT,
        version=0,
        aliases=("best", "a b"),
    )


def _need(backend: Backend, kind: str) -> None:
    if kind not in backend.kinds:
        pytest.skip(f"shows no {kind}")


def _agree(found: Any, value: Scalar, recorded: Recorded) -> bool:
    if isinstance(value, float) and math.isnan(value):
        return isinstance(found, float) and math.isnan(found)
    if isinstance(value, int) and abs(value) > recorded.largest_integer:
        return bool(math.isclose(found, value, rel_tol=max(recorded.relative_error, 1e-15)))
    if recorded.relative_error:
        return bool(math.isclose(found, value, rel_tol=recorded.relative_error))
    return bool(found == value)
