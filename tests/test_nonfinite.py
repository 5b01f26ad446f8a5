"""The watch for the first value that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import tracklayer
from tracklayer import ActiveRun, Histogram
from tracklayer.watching import NonFinite


@pytest.fixture
def run(tmp_path: Path) -> Iterator[ActiveRun]:
    with tracklayer.init(dir=tmp_path, backend="sqlite") as run:
        yield run


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "not finite" in record.getMessage()]


def test_the_first_step_and_its_keys_are_reported_once(
    run: ActiveRun, caplog: pytest.LogCaptureFixture
) -> None:
    for step in range(100):
        bad = jnp.float32(np.inf) if step >= 40 else jnp.float32(1)
        run.log({"train": {"loss": bad - bad if step >= 40 else bad, "norm": bad}, "ok": step}, step=step)
    assert run.flush()
    assert run.nonfinite == NonFinite(40, {"train/loss": "nan", "train/norm": "inf"})
    run.log({"other": float("nan")})
    run.finish()
    (message,) = said(caplog)
    assert f"run {run.id}, step 40" in message
    assert message.endswith("train/loss is nan, train/norm is inf")


def test_finite_values_of_any_kind_are_nothing_to_report(
    run: ActiveRun, caplog: pytest.LogCaptureFixture
) -> None:
    run.log({"huge": 1e308, "huger": 1.7e308, "whole": 10**400, "flag": True, "text": "nan"})
    run.log({"whole": 10**400, "small": 1.5})
    run.log({"histogram": Histogram([1.0, 2.0])})
    assert run.flush()
    assert run.nonfinite is None
    assert said(caplog) == []


def test_a_histogram_tells_of_what_it_counted_apart(run: ActiveRun, caplog: pytest.LogCaptureFixture) -> None:
    run.log({"weights": Histogram(np.array([1.0, np.nan, np.nan, -np.inf]))}, step=3)
    assert run.flush()
    assert run.nonfinite == NonFinite(3, {"weights": "2 x nan, 1 x -inf"})
    assert len(said(caplog)) == 1


def test_many_keys_are_counted(run: ActiveRun, caplog: pytest.LogCaptureFixture) -> None:
    run.log({f"k{number}": float("-inf") for number in range(20)})
    assert run.flush()
    assert said(caplog)[0].endswith("k7 is -inf, and 12 more")


def test_a_series_is_looked_through(run: ActiveRun) -> None:
    run.log_series({"loss": jnp.array([1.0, 2.0, jnp.nan, jnp.nan])}, steps=range(10, 14))
    assert run.flush()
    assert run.nonfinite == NonFinite(12, {"loss": "nan"})


def test_it_waits_for_nothing(run: ActiveRun) -> None:
    run.log({"loss": float("nan")})
    assert run.nonfinite is None or run.nonfinite.values == {"loss": "nan"}


def test_a_run_that_records_nothing_keeps_quiet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tracklayer.init(dir=tmp_path, backend="disabled") as run:
        run.log({"loss": float("nan")})
    assert said(caplog) == []
