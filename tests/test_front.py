"""What training code holds: steps, values, config, summary, artifacts, and the ways a run begins."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import logging
import math
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tracklayer
from tracklayer.artifacts.catalog import Catalog
from tracklayer.artifacts.collecting import collect
from tracklayer.artifacts.locations import FolderLocation
from tracklayer.errors import (
    ArtifactNotFoundError,
    NoActiveRunError,
    RunExistsError,
    RunFinishedError,
    RunNotFoundError,
    TracklayerError,
    UnknownBackendError,
    UnsupportedValueError,
    UsageError,
)
from tracklayer.front import ActiveRun
from tracklayer.reading import RunReader
from tracklayer.values import Histogram, Text


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "store"
    monkeypatch.setenv("TRACKLAYER_DIR", str(folder))
    monkeypatch.chdir(tmp_path)
    yield folder
    tracklayer.finish()


@pytest.fixture
def run() -> ActiveRun:
    return tracklayer.init(id="r")


def reader(run: ActiveRun) -> RunReader:
    """Flush, and read the run back."""
    if tracklayer.lifecycle.open_run() is run:  # type: ignore[attr-defined] # a submodule, imported by now
        run.flush()
    return tracklayer.open_store(run.dir).run(run.id)


def rows(run: ActiveRun) -> dict[int, dict[str, Any]]:
    return {row.step: row.values for row in reader(run).rows()}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# -- steps --------------------------------------------------------------------------------------------


def test_without_a_step_they_count_up(run: ActiveRun) -> None:
    assert run.step == 0
    for value in range(5):
        run.log({"x": value})
    assert rows(run) == {i: {"x": i} for i in range(5)}
    assert run.step == 5


def test_commit_false_keeps_a_step_open_for_the_next_call(run: ActiveRun) -> None:
    run.log({"a": 1}, commit=False)
    run.log({"b": 2}, commit=False)
    assert run.step == 0
    run.log({"c": 3})
    run.log({"d": 4})
    assert rows(run) == {0: {"a": 1, "b": 2, "c": 3}, 1: {"d": 4}}


def test_a_step_that_is_given_stays_open_as_with_wandb(run: ActiveRun) -> None:
    run.log({"a": 1}, step=10)
    run.log({"b": 2}, step=10)
    assert run.step == 10
    run.log({"c": 3})
    assert run.step == 11
    run.log({"d": 4})
    assert rows(run) == {10: {"a": 1, "b": 2, "c": 3}, 11: {"d": 4}}


def test_commit_true_closes_a_step_that_is_given(run: ActiveRun) -> None:
    run.log({"a": 1}, step=10, commit=True)
    run.log({"b": 2})
    assert rows(run) == {10: {"a": 1}, 11: {"b": 2}}


def test_a_late_row_keeps_its_step_and_moves_none(run: ActiveRun) -> None:
    run.log({"a": 1}, step=10)
    run.log({"a": 2}, step=3)
    run.log({"a": 3}, step=4, commit=True)
    assert run.step == 10
    run.log({"b": 3})
    run.log({"b": 4})
    assert rows(run) == {3: {"a": 2}, 4: {"a": 3}, 10: {"a": 1, "b": 3}, 11: {"b": 4}}


def test_mixtures_of_steps_and_none(run: ActiveRun) -> None:
    run.log({"a": 0})
    run.log({"a": 1}, step=5)
    run.log({"a": 2}, commit=False)
    run.log({"b": 3}, step=5, commit=True)
    run.log({"a": 4})
    run.log({"a": 5}, step=7, commit=False)
    run.log({"a": 6}, step=None, commit=True)
    run.log({"a": 7})
    assert rows(run) == {0: {"a": 0}, 5: {"a": 2, "b": 3}, 6: {"a": 4}, 7: {"a": 6}, 8: {"a": 7}}


def test_an_empty_row_counts_a_step_and_records_nothing(run: ActiveRun) -> None:
    run.log({})
    run.log({"a": 1})
    assert rows(run) == {1: {"a": 1}}


def test_the_short_way_and_the_long_way_record_the_same(run: ActiveRun) -> None:
    values = {"a": 1, "b": 0.5}
    for step in range(10):  # from the second on, its keys are known
        run.log(values, step=step)
    values["a"] = 2
    run.log(values, step=4)
    run.log({"a": {"x": 1}, "b": 1}, step=10)
    run.log({"a": "text", "b": 1}, step=11)
    run.log({"a": np.float32(0.5), "b": 1}, step=np.int64(12))  # type: ignore[arg-type] # it has __index__
    expected = {step: {"a": 1, "b": 0.5} for step in range(10)}
    expected |= {4: {"a": 2, "b": 0.5}, 10: {"a/x": 1, "b": 1}}  # type: ignore[dict-item] # other keys
    expected |= {11: {"a": Text("text"), "b": 1}, 12: {"a": 0.5, "b": 1}}  # type: ignore[dict-item] # as above
    assert rows(run) == expected


@pytest.mark.parametrize("step", ["1", 1.0, True, [1], math.nan])
def test_a_step_that_is_no_integer_is_a_type_error(run: ActiveRun, step: Any) -> None:
    with pytest.raises(TypeError, match="must be an integer"):
        run.log({"a": 1}, step=step)
    run.log({"a": 2})
    assert rows(run) == {0: {"a": 2}}


@pytest.mark.parametrize("step", [-1, 2**63])
def test_a_step_out_of_range_is_a_value_error(run: ActiveRun, step: int) -> None:
    with pytest.raises(ValueError, match="is not from 0"):
        run.log({"a": 1}, step=step)
    assert rows(run) == {}


def test_steps_of_many_threads_are_each_counted_once(run: ActiveRun) -> None:
    def work() -> None:
        for _ in range(500):
            run.log({"x": 1})

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(rows(run)) == list(range(4000))


def test_a_resumed_run_counts_on(store: Path) -> None:
    for attempt in range(3):
        with tracklayer.init(id="r", resume="allow") as run:
            assert run.resumed == (attempt > 0)
            assert run.step == attempt * 2
            run.log({"x": 1})
            run.log({"x": 1})
    assert list(rows(run)) == list(range(6))


# -- values -------------------------------------------------------------------------------------------


def test_nested_mappings_become_keys_with_slashes(run: ActiveRun) -> None:
    run.log({"train": {"loss": 1, "by": {"class": {"0": 2}}}, "empty": {}, "a/b": 3})
    assert rows(run) == {0: {"train/loss": 1, "train/by/class/0": 2, "a/b": 3}}


class Colour(enum.IntEnum):
    RED = 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (Colour.RED, 3),
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.int8(-3), -3),
        (np.uint64(2**63), float(2**63)),
        (np.bool_(True), True),
        (np.array(1.5), 1.5),
        (np.array([[7]]), 7),
        ("text", Text("text")),
        (Histogram([1.0, 2.0]), Histogram([1.0, 2.0])),
    ],
)
def test_what_can_be_logged_comes_back(run: ActiveRun, value: Any, expected: Any) -> None:
    run.log({"x": value})
    assert rows(run) == {0: {"x": expected}}


def test_what_is_logged_is_what_it_was_at_the_call(run: ActiveRun) -> None:
    array, values, scalar = np.zeros(5), {"x": 1}, np.zeros(())
    run.log({"h": Histogram(array), "s": scalar})
    array += 1
    scalar += 1
    run.log(values)
    run.log(values)
    values["x"] = 2
    assert rows(run) == {0: {"h": Histogram(np.zeros(5)), "s": 0.0}, 1: {"x": 1}, 2: {"x": 1}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ok": 1, "bad": object()}, r"'bad': cannot log a builtins\.object"),
        ({"ok": 1, "bad": None}, "'bad': cannot log a builtins.NoneType"),
        ({"ok": 1, "bad": [1, 2]}, "'bad': cannot log a builtins.list"),
        ({"ok": 1, "bad": 1j}, "'bad': cannot log a builtins.complex"),
        ({"ok": 1, "bad": np.zeros(3)}, r"'bad': an array of shape \(3,\) is no scalar"),
        ({"ok": 1, "bad": np.complex64(1)}, "'bad': cannot log numbers of dtype complex64"),
        ({"ok": 1, "bad": np.str_("a")}, None),
        ({"ok": 1, 5: 1}, "key 5 is of type int, and must be a string"),
        ({"ok": 1, ("a",): 1}, "key \\('a',\\) is of type tuple"),
        ({"ok": 1, "n": {None: 1}}, "key None is of type NoneType"),
        ({"ok": 1, "n": {"bad": b"x"}}, "'n/bad': cannot log a builtins.bytes"),
    ],
)
def test_the_rest_of_a_row_is_recorded_before_an_error_names_the_key(
    run: ActiveRun, values: dict[Any, Any], message: str | None
) -> None:
    for step in range(2):
        if message is None:
            run.log(values, step=step)
        else:
            with pytest.raises(TypeError, match=message) as caught:
                run.log(values, step=step)
            assert isinstance(caught.value, UnsupportedValueError)
    run.log({"ok": 2}, step=2)
    got = rows(run)
    assert [row["ok"] for row in got.values()] == [1, 1, 2]
    if message is not None:
        assert got[0] == {"ok": 1}


def test_several_bad_values_are_all_named(run: ActiveRun) -> None:
    with pytest.raises(UnsupportedValueError, match="'a'.*'b'.*The rest is recorded"):
        run.log({"a": None, "x": 1, "b": [1]})
    assert rows(run) == {0: {"x": 1}}


@pytest.mark.parametrize("values", [None, 1, [("a", 1)], "a"])
def test_what_is_no_mapping_is_a_type_error(run: ActiveRun, values: Any) -> None:
    with pytest.raises(TypeError, match="log takes a mapping"):
        run.log(values)


# -- config -------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Model:
    width: int = 3
    layers: tuple[int, ...] = (1, 2)


@dataclasses.dataclass
class Options:
    model: Model = dataclasses.field(default_factory=Model)
    rate: float = 1e-3
    name: str | None = None


class Keyed:
    """As ml_collections has it."""

    def keys(self) -> list[str]:
        return ["a"]

    def __getitem__(self, key: str) -> int:
        return len(key)


class Dumping:
    """As pydantic has it."""

    def model_dump(self) -> dict[str, Any]:
        return {"b": [1, {"c": np.float32(0.5)}]}


NESTED = {"model": {"width": 3, "layers": [1, 2]}, "rate": 1e-3, "name": None}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, {}),
        ({}, {}),
        (Options(), NESTED),
        (argparse.Namespace(a=1, model=Model()), {"a": 1, "model": NESTED["model"]}),
        (SimpleNamespace(a=[True]), {"a": [True]}),
        (Keyed(), {"a": 1}),
        (Dumping(), {"b": [1, {"c": 0.5}]}),
        (
            {"a": {"b": {1: 2}}, "m": Model(), "k": Keyed()},
            {"a": {"b": {"1": 2}}, "m": NESTED["model"], "k": {"a": 1}},
        ),
        (
            {"i": np.int64(2**60), "f": np.float32(0.5), "b": np.bool_(True), "z": np.array(3)},
            {"i": 2**60, "f": 0.5, "b": True, "z": 3},
        ),
        ({"big": 2**70, "nan": math.inf, "e": Colour.RED}, {"big": 2**70, "nan": math.inf, "e": 3}),
    ],
)
def test_config_is_taken_from_many_sources_and_stays_nested(
    config: Any, expected: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    run = tracklayer.init(config=config)
    assert dict(run.config) == expected
    assert reader(run).config == expected
    assert warnings(caplog) == []


def test_any_other_object_in_config_is_stored_as_its_str_and_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError

    class Dict:
        def to_dict(self, required: int) -> None:
            """Be something else than what the name promises."""

        def __str__(self) -> str:
            return "dict"

    config = {"nested": {"list": [1, object()]}, "array": np.zeros(2000), "bad": Bad(), "dict": Dict()}
    run = tracklayer.init(config=config)
    run.config["bad"] = Bad()
    run.config.update({"bad": Bad()})
    assert warnings(caplog) == [
        "tracklayer: config nested.list[1], array, bad: no plain data, stored as str()"
    ]
    recorded = reader(run).config
    assert recorded["nested"]["list"][1].startswith("<object object")
    assert recorded["array"] == "[0. 0. 0. ... 0. 0. 0.]"
    assert recorded["dict"] == "dict"
    assert "Bad" in recorded["bad"]


def test_config_is_items_and_attributes_and_update(run: ActiveRun) -> None:
    run.config["a"] = 1
    run.config.b = {"c": 2}
    run.config.update({"d": 3}, e=4)
    run.config.setdefaults({"a": 9, "f": 5})
    assert (run.config.a, run.config["b"], run.config.get("nobody")) == (1, {"c": 2}, None)
    assert dict(run.config) == {"a": 1, "b": {"c": 2}, "d": 3, "e": 4, "f": 5}
    assert "a" in run.config
    assert len(run.config) == 5
    assert reader(run).config == dict(run.config)
    with pytest.raises(AttributeError, match="config has no entry 'nobody'"):
        run.config.nobody  # noqa: B018 - it raises
    with pytest.raises(ValueError, match="cannot be removed"):
        del run.config["a"]


@pytest.mark.parametrize("config", [5, "text", [1], object(), Model])
def test_what_is_no_config_is_refused_before_a_run_is_opened(store: Path, config: Any) -> None:
    with pytest.raises(ValueError, match="config takes a mapping, dataclass or namespace"):
        tracklayer.init(config=config)
    assert not store.exists()
    with pytest.raises(NoActiveRunError):
        tracklayer.log({"a": 1})


def test_a_resumed_run_shows_its_config(store: Path) -> None:
    with tracklayer.init(id="r", config={"a": 1, "b": {"c": 1}}):
        pass
    with tracklayer.init(id="r", resume="must", config={"b": {"d": 2}}) as run:
        assert dict(run.config) == {"a": 1, "b": {"d": 2}}
    assert reader(run).config == {"a": 1, "b": {"d": 2}}


# -- summary ------------------------------------------------------------------------------------------


def test_the_summary_is_the_last_values_and_what_is_set_by_hand(run: ActiveRun) -> None:
    run.log({"loss": 2.0, "n": 1})
    run.log({"loss": 1.0})
    run.summary["best"] = np.float32(0.5)
    run.summary.update({"n": 7})
    assert dict(run.summary) == {"loss": 1.0, "n": 7, "best": 0.5}
    assert run.summary.loss == 1.0
    assert run.summary.get("nobody", 3) == 3
    assert len(run.summary) == 3
    assert reader(run).summary == dict(run.summary)
    run.finish()
    assert run.summary["loss"] == 1.0


def test_a_summary_entry_by_hand_wins_over_later_values(run: ActiveRun) -> None:
    run.summary["x"] = "mine"
    run.log({"x": 1})
    assert run.summary["x"] == "mine"
    assert reader(run).summary["x"] == "mine"


def test_the_last_value_is_that_of_the_highest_step(run: ActiveRun) -> None:
    run.log({"x": 1, "y": 1}, step=5)
    run.log({"x": 2, "z": 2}, step=3)
    run.log({"y": 3}, step=9)
    assert dict(run.summary) == {"x": 1, "y": 3, "z": 2} == reader(run).summary


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "a key, or a prefix followed by one"),
        ({"name": "a*b"}, "a key, or a prefix followed by one"),
        ({"name": "*/a*"}, "a key, or a prefix followed by one"),
        ({"name": "a", "summary": "median"}, "summary 'median' is none of min, max, mean, last, none"),
        ({"name": "a", "summary": ["min", "x"]}, "summary 'x' is none of"),
        ({"name": "a", "goal": "up"}, "goal is 'minimize' or 'maximize', not 'up'"),
    ],
)
def test_a_rule_that_makes_no_sense_is_a_value_error(
    run: ActiveRun, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run.define_metric(**arguments)


def test_rules_are_recorded(run: ActiveRun) -> None:
    run.define_metric("loss", summary="min, max", step_metric="epoch", goal="minimize")
    run.define_metric("*", summary=["mean"])
    run.define_metric("loss/*")
    rules = reader(run).rules
    assert rules["loss"].summary == ("min", "max")
    assert (rules["loss"].step_metric, rules["loss"].goal) == ("epoch", "minimize")
    assert rules["*"].summary == ("mean",)
    assert rules["loss/*"].summary == ()


# -- the end ------------------------------------------------------------------------------------------


def test_after_finish_calls_say_to_call_init(run: ActiveRun, tmp_path: Path) -> None:
    run.log({"x": 1}, step=0)
    run.log({"x": 1}, step=1)
    run.finish()
    run.finish()
    (tmp_path / "file").touch()
    for call in (
        lambda: run.log({"x": 1}, step=2),
        lambda: run.log({"x": 1}),
        lambda: run.define_metric("x"),
        lambda: run.log_artifact(tmp_path / "file"),
        lambda: run.use_artifact("file"),
        lambda: run.use_model("file"),
        run.flush,
    ):
        with pytest.raises(RunFinishedError, match="run r is finished; call tracklayer.init"):
            call()
    assert list(rows(run)) == [0, 1]
    assert run.info.state == "finished"
    assert run.step == 1


@pytest.mark.parametrize(
    ("error", "state", "exit_code"),
    [
        (None, "finished", 0),
        (ValueError(), "failed", 1),
        (KeyboardInterrupt(), "failed", 130),
        (SystemExit(), "finished", 0),
        (SystemExit(0), "finished", 0),
        (SystemExit(7), "failed", 7),
        (SystemExit("words"), "failed", 1),
    ],
)
def test_the_context_manager_ends_the_run_as_the_block_ends(
    error: BaseException | None, state: str, exit_code: int
) -> None:
    caught = None
    try:
        with tracklayer.init() as run:
            run.log({"x": 1})
            if error is not None:
                raise error
    except BaseException as raised:  # noqa: BLE001 - looked at below
        caught = raised
    assert caught is error
    info = reader(run).info
    assert (info.state, info.exit_code) == (state, exit_code)
    assert (run.info.state, run.info.exit_code) == (state, exit_code)


def test_module_level_functions_act_on_the_current_run() -> None:
    run = tracklayer.init(config={"a": 1})
    assert tracklayer.run is run
    tracklayer.log({"x": 1})
    tracklayer.log({"x": 2}, 5, True)
    tracklayer.config["b"] = 2
    tracklayer.summary["s"] = 3
    tracklayer.define_metric("x", summary="max")
    tracklayer.finish(3)
    assert rows(run) == {0: {"x": 1}, 5: {"x": 2}}
    assert reader(run).config == {"a": 1, "b": 2}
    assert reader(run).summary == {"x": {"max": 2}, "s": 3}
    assert reader(run).info.exit_code == 3


@pytest.mark.parametrize(
    "call",
    [
        "tracklayer.log({'a': 1})",
        "tracklayer.config['a']",
        "tracklayer.config.a",
        "tracklayer.summary",
        "tracklayer.define_metric('a')",
        "tracklayer.log_artifact('a')",
        "tracklayer.use_artifact('a')",
        "tracklayer.log_model('a')",
        "tracklayer.use_model('a')",
    ],
)
def test_without_a_run_they_say_to_call_init(call: str) -> None:
    with pytest.raises(NoActiveRunError, match=r"call tracklayer\.init\(\) first") as caught:
        eval(call)
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, TracklayerError)


# -- init ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reinit", [None, "default", "finish_previous", True])
def test_init_while_a_run_is_open_finishes_that_one_and_says_so(
    reinit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = tracklayer.init(id="first")
    first.log({"x": 1})
    second = tracklayer.init(id="second", reinit=reinit)
    assert tracklayer.run is second
    assert reader(first).info.state == "finished"
    assert rows(first) == {0: {"x": 1}}
    assert len(warnings(caplog)) == 1
    assert "run first was still open, and is finished now" in warnings(caplog)[0]


@pytest.mark.parametrize("reinit", ["return_previous", False])
def test_the_previous_run_can_be_asked_for(reinit: Any, caplog: pytest.LogCaptureFixture) -> None:
    first = tracklayer.init(reinit=reinit)
    assert tracklayer.init(reinit=reinit) is first
    assert warnings(caplog) == []
    first.finish()
    assert tracklayer.init(reinit=reinit) is not first


def test_a_run_within_a_run_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    outer = tracklayer.init()
    with tracklayer.init(reinit="create_new") as inner:
        assert tracklayer.run is outer
        inner.log({"x": 1})
        tracklayer.log({"y": 2})
    assert tracklayer.run is outer
    assert rows(inner) == {0: {"x": 1}}
    assert rows(outer) == {0: {"y": 2}}
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reinit": "often"}, "reinit='often'"),
        ({"resume": "maybe"}, "resume='maybe'"),
        ({"mode": "fast"}, "mode 'fast'"),
        ({"backend": ""}, None),
        ({"backend": " , "}, "no backend is named"),
        ({"backend": []}, "no backend is named"),
    ],
)
def test_arguments_that_cannot_be_right_are_value_errors_and_finish_no_open_run(
    arguments: dict[str, Any], message: str | None
) -> None:
    run = tracklayer.init()
    if message is not None:
        with pytest.raises(ValueError, match=message):
            tracklayer.init(**arguments)
        run.log({"x": 1})
        assert tracklayer.run is run


def test_resume_says_whether_the_run_must_or_may_exist(store: Path) -> None:
    with pytest.raises(RunNotFoundError, match=r"resume='must', but there is no run 'r' in .*store"):
        tracklayer.init(id="r", resume="must")
    with tracklayer.init(id="r", resume="never") as run:
        assert not run.resumed
    for resume in (None, "never"):
        with pytest.raises(RunExistsError, match="resume='allow'"):
            tracklayer.init(id="r", resume=resume)
    for resume in ("allow", "must", "auto"):
        with tracklayer.init(id="r", resume=resume) as run:
            assert run.resumed
    with tracklayer.init(id="other", resume="allow") as run:
        assert not run.resumed
    assert len(reader(run).segments) == 1
    assert len(tracklayer.open_store().run("r").segments) == 4
    assert isinstance(RunExistsError(), FileExistsError)
    assert isinstance(RunNotFoundError(), LookupError)


def test_auto_continues_the_newest_run_of_this_kind_that_ended_badly(store: Path) -> None:
    def ended(run_id: str, code: int, **arguments: Any) -> None:
        tracklayer.init(id=run_id, **arguments).finish(code)

    ended("old", 1, project="p", name="n", job_type="j")
    ended("bad", 1, project="p", name="n", job_type="j")
    ended("good", 0, project="p", name="n", job_type="j")
    ended("q", 1, project="q", name="n", job_type="j")
    ended("named", 1, project="p", name="m", job_type="j")
    ended("typed", 1, project="p", name="n", job_type="k")
    ended("grouped", 1, project="p", name="n", job_type="j", group="g")
    kind = {"project": "p", "name": "n", "job_type": "j"}
    with tracklayer.init(resume="auto", group="g", **kind) as run:
        assert run.id == "grouped"
    for resume in ("auto", True):
        run = tracklayer.init(resume=resume, **kind)
        assert run.id == "bad"
        run.finish(1)
    with tracklayer.init(resume="auto", project="r") as run:
        assert not run.resumed


def test_an_unknown_backend_is_named_with_those_there_are() -> None:
    with pytest.raises(UnknownBackendError, match="unknown backend 'sqlight'; installed are:.*sqlite"):
        tracklayer.init(backend="sqlight")
    with pytest.raises(ValueError, match="'sqlight'"):
        tracklayer.init(backend=["sqlite", "sqlight"])


def test_the_environment_chooses_and_the_argument_is_stronger(
    monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    monkeypatch.setenv("TRACKLAYER_BACKEND", "disabled")
    with tracklayer.init() as run:
        run.log({"x": 1})
        assert run.summary["x"] == 1
    assert not store.exists()
    with tracklayer.init(backend="SQLite") as run:
        run.log({"x": 1})
    assert rows(run) == {0: {"x": 1}}
    monkeypatch.setenv("TRACKLAYER_BACKEND", "")
    with tracklayer.init() as run:
        run.log({"x": 1})
    assert rows(run) == {0: {"x": 1}}
    with tracklayer.init(mode="disabled") as run:
        run.log({"x": 1})
    assert len(tracklayer.open_store().runs()) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({"id": f"a{char}b"}, "run id .* which W&B does not allow") for char in ":;,#?/'\n\x7f"),
        ({"id": "a" * 129}, "has 129 characters; at most 128"),
        ({"id": " a"}, "begins or ends with white space"),
        *(({"project": f"a{char}b"}, "project .* which W&B does not allow") for char in "/\\#?%:"),
        ({"project": "a" * 129}, "at most 128"),
        ({"project": " "}, "project's name is empty"),
        ({"name": "a" * 129}, "at most 128"),
        ({"group": "a\nb"}, "group"),
        ({"job_type": "a" * 129}, "job type"),
        ({"tags": ["a", "b" * 65]}, "1 to 64 characters"),
        ({"tags": [5]}, "tag 5"),
    ],
)
def test_names_that_wandb_would_refuse_are_refused_at_init(
    store: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        tracklayer.init(**arguments)
    assert not store.exists()


def test_what_a_run_is_comes_back(store: Path) -> None:
    with tracklayer.init(
        "p", entity="e", name="n", group="g", job_type="j", tags=["b", "a", "b"], notes="é\n", id="é 1"
    ) as run:
        assert (run.id, run.name, run.project, run.dir) == ("é 1", "n", "p", str(store))
    info = reader(run).info
    assert (info.entity, info.group, info.job_type, info.notes) == ("e", "g", "j", "é\n")
    assert info.tags == ("b", "a")
    with tracklayer.init(tags="one") as run:
        assert run.info.tags == ("one",)
        assert run.name == run.id
        assert len(run.id) == 8
        assert run.project == "uncategorized"


# -- artifacts ----------------------------------------------------------------------------------------


def content(run: ActiveRun) -> dict[str, dict[str, bytes]]:
    return {
        artifact.name: {file.path: Path(file.source).read_bytes() for file in artifact.files}
        for artifact in reader(run).artifacts()
    }


def test_an_artifact_holds_what_its_files_held_at_the_call(run: ActiveRun, tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"first")
    metadata: dict[str, Any] = {"epochs": [1], "rate": np.float32(0.5)}
    artifact = tracklayer.Artifact("weights", "model", "words", metadata)
    artifact.add_file(file)
    artifact.add_file(file, "sub/folder/copy.bin")
    run.log_artifact(artifact)
    file.write_bytes(b"second")
    metadata["epochs"].append(2)
    assert content(run) == {"weights": {"weights.bin": b"first", "sub/folder/copy.bin": b"first"}}
    (recorded,) = reader(run).artifacts()
    assert (recorded.type, recorded.description) == ("model", "words")
    assert recorded.metadata == {"epochs": [1], "rate": 0.5}
    blobs = [path for path in (tmp_path / "store" / "blobs").glob("*/*") if path.read_bytes() == b"first"]
    assert len(blobs) == 1  # its content lies there once
    mask = os.umask(0)
    os.umask(mask)
    assert blobs[0].stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("backend", ["sqlite", "tensorboard"])
def test_what_a_run_uses_is_not_collected_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    location = tmp_path / "shared by several stores"
    monkeypatch.setenv("TRACKLAYER_ARTIFACTS", str(location))
    (tmp_path / "w").write_bytes(b"weights")
    with tracklayer.init("p", id="maker") as maker:
        maker.log_artifact(tmp_path / "w", "w", "model")
    catalog = Catalog(FolderLocation(location))
    with tracklayer.init("p", id="user", backend=backend) as user:
        used = user.use_artifact("w:v0")
        catalog.delete(catalog.find("w:v0", "p"))
        assert collect(catalog, [], dry_run=False).contents == 0
        assert Path(used.file(tmp_path / "out")).read_bytes() == b"weights"
        with pytest.raises(ArtifactNotFoundError):
            user.use_artifact(used)
    assert collect(catalog, [], dry_run=False).contents == 2


def test_a_file_or_a_folder_is_an_artifact_too(run: ActiveRun, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "sub" / "b.txt").write_text("b")
    run.log_artifact(folder)
    run.log_artifact(str(folder / "a.txt"), name="named", type="text")
    assert content(run) == {
        "run-r-data": {"a.txt": b"a", "sub/b.txt": b"b"},
        "named": {"a.txt": b"a"},
    }


@pytest.mark.parametrize(
    "arguments", [("a/b", "t"), ("a:b", "t"), ("", "t"), ("a" * 129, "t"), ("a", "t/u"), ("a", "")]
)
def test_names_of_artifacts_that_wandb_would_refuse_are_refused(arguments: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="artifact"):
        tracklayer.Artifact(*arguments)


def test_a_file_that_is_not_there_is_named(run: ActiveRun) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file nowhere"):
        run.log_artifact("nowhere")
    assert content(run) == {}


def test_nothing_here_is_said_twice(caplog: pytest.LogCaptureFixture) -> None:
    run = tracklayer.init(config={"object": object()})
    values: Mapping[str, Any] = {"x": 1}
    for _ in range(3):
        run.config.update({"object": object()})
        run.log(values)
    run.finish()
    assert len(warnings(caplog)) == 1
