"""A sweep's configuration: what W&B accepts is accepted, what it refuses is refused by its path."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracklayer.errors import BackendUnavailableError, UsageError
from tracklayer.sweeps.configuration import SweepConfig, read_config

LOSS = {"name": "loss"}


def sweep(
    method: str = "random", /, parameters: Mapping[str, Any] | None = None, **others: Any
) -> SweepConfig:
    return read_config(
        {"method": method, "parameters": parameters or {"lr": {"min": 0.0, "max": 1.0}}, **others}
    )


def parameter(given: Any, method: str = "random") -> SweepConfig:
    return sweep(method, {"lr": given})


# -- what is accepted -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"value": 3}, "constant"),
        ({"value": None}, "constant"),
        ({"value": {"deep": [1]}, "distribution": "constant"}, "constant"),
        ({"values": ["adam"]}, "categorical"),
        ({"values": [1, 1.0, True, None, [1], {"a": 1}], "distribution": "categorical"}, "categorical"),
        ({"values": [1, 2], "probabilities": [0.3, 0.7]}, "categorical_w_probabilities"),
        ({"values": [1, 2], "probabilities": [0, 1.000001]}, "categorical_w_probabilities"),
        ({"min": 1, "max": 10}, "int_uniform"),
        ({"min": 1, "max": 10.0}, "uniform"),
        ({"min": 1.0, "max": 10}, "uniform"),
        ({"min": 1, "max": 10, "distribution": "uniform"}, "uniform"),
        ({"min": 1, "max": 10, "distribution": "q_uniform"}, "q_uniform"),
        ({"min": 1, "max": 10, "q": 0.5, "distribution": "q_uniform"}, "q_uniform"),
        ({"min": -9, "max": -2, "distribution": "log_uniform"}, "log_uniform"),
        ({"min": 1e-9, "max": 1, "distribution": "log_uniform_values"}, "log_uniform_values"),
        ({"min": 0, "max": 5, "q": 8, "distribution": "q_log_uniform"}, "q_log_uniform"),
        ({"min": 1, "max": 5, "q": 8, "distribution": "q_log_uniform_values"}, "q_log_uniform_values"),
        ({"min": 0, "max": 5, "distribution": "inv_log_uniform"}, "inv_log_uniform"),
        ({"min": 1, "max": 5, "distribution": "inv_log_uniform_values"}, "inv_log_uniform_values"),
        ({"distribution": "normal"}, "normal"),
        ({"mu": -2, "sigma": 0, "distribution": "normal"}, "normal"),
        ({"mu": 1, "q": 2, "distribution": "q_normal"}, "q_normal"),
        ({"sigma": 2.5, "distribution": "log_normal"}, "log_normal"),
        ({"q": 0.1, "distribution": "q_log_normal"}, "q_log_normal"),
        ({"distribution": "beta"}, "beta"),
        ({"a": 0, "b": 0.5, "q": 0.1, "distribution": "q_beta"}, "q_beta"),
        ({"min": np.int64(1), "max": np.int32(3)}, "int_uniform"),
        ({"values": np.logspace(-3, -1, 3)}, "categorical"),
    ],
)
def test_a_parameter_has_the_distribution_that_it_names_or_that_its_keys_mean(given: Any, kind: str) -> None:
    assert [found.kind for found in parameter(given).parameters] == [kind]


def test_all_that_a_configuration_can_say_is_read(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        """
        program: train.py
        method: bayes
        name: digits
        description: how far it goes
        project: vision
        entity: lab
        apiVersion: "1"
        kind: sweep
        controller: {type: local}
        run_cap: 40
        metric: {name: val/loss, goal: maximize, target: 0.99}
        early_terminate: {type: hyperband, min_iter: 2, eta: 2, strict: true}
        command: ["${env}", python3, "${program}", -n, 3, "${args}"]
        parameters:
          epochs: {value: 10}
          optimizer:
            parameters:
              name: {values: [adam, sgd]}
              lr: {min: 1.0e-5, max: 0.1, distribution: log_uniform_values}
        """
    )
    config = read_config(file)
    said = (config.method, config.program, config.name, config.project, config.entity)
    assert said == ("bayes", "train.py", "digits", "vision", "lab")
    assert config.given["description"] == "how far it goes"
    assert config.command == ("${env}", "python3", "${program}", "-n", "3", "${args}")
    assert config.run_cap == 40
    assert [found.name for found in config.parameters] == ["epochs", "optimizer/lr", "optimizer/name"]
    assert config.metric is not None
    assert (config.metric.name, config.metric.goal, config.metric.target) == ("val/loss", "maximize", 0.99)
    assert config.early_terminate is not None
    assert config.early_terminate.bands[:4] == (2, 4, 8, 16)
    assert config.early_terminate.strict
    assert config.notes == ()


def test_what_is_left_out_is_as_w_and_b_has_it() -> None:
    config = sweep(metric=LOSS, early_terminate={"type": "hyperband", "min_iter": 1})
    assert config.metric is not None
    assert config.metric.goal == "minimize"
    assert config.early_terminate is not None
    assert (config.early_terminate.eta, config.early_terminate.strict) == (3, False)
    assert config.command == ("${env}", "${interpreter}", "${program}", "${args}")
    assert (config.run_cap, config.name, config.program, config.points) == (None, None, None, None)


def test_a_function_may_give_the_configuration() -> None:
    assert read_config(lambda: {"method": "grid", "parameters": {"a": {"values": [1, 2]}}}).points == 2


def test_what_was_given_can_be_stored_and_read_again() -> None:
    config = sweep(
        "bayes",
        {
            "a": {"values": (np.float32(0.5), np.int64(2), [1])},
            "b": {"parameters": {"c": {"value": np.bool_(1)}}},
        },
        metric={"name": "loss", "target": np.float64(0.5)},
    )
    assert read_config(json.loads(json.dumps(config.given))) == config
    assert config.given["parameters"]["a"] == {"values": [0.5, 2, [1]]}


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min": 0.1, "max": 0.01}, ".min: 0.1 is not less than max 0.01; exchange them"),
        ({"min": 1, "max": 1}, ".min: 1 is not less than max 1; for one value, give 'value'"),
        ({"min": 1}, ".max: it is missing"),
        ({"min": 1, "maxi": 2}, ".max: it is missing, and has to be given; is 'maxi' meant to be it?"),
        ({"min": "1e-5", "max": 1}, ".min: '1e-5' is text; write 1.0e-5 (YAML wants a point"),
        ({"min": 0, "max": "1E6"}, ".max: '1E6' is text; write 1.0e+6"),
        ({"min": "0.1", "max": 1}, ".min: '0.1' is text; write 0.1, without quotes"),
        ({"min": None, "max": 1}, ".min: give a number, not null"),
        ({"min": True, "max": 2}, ".min: give a number, not true"),
        ({"min": 0.0, "max": float("inf")}, ".max: it is beyond what a float holds"),
        ({"min": 0, "max": 10**400}, ".max: it is beyond what a float holds"),
        ({"min": 1, "max": 2.5, "distribution": "int_uniform"}, ".max: give an int for int_uniform"),
        (
            {"min": 0, "max": 1, "distribution": "log_uniform_values"},
            ".min: 0 is too small; give more than 0",
        ),
        (
            {"min": 1, "max": 1000, "distribution": "log_uniform"},
            ".max: exp(1000) is no float; log_uniform takes exponents",
        ),
        (
            {"min": 1, "max": 2, "distribution": "log_unifrom"},
            ".distribution: 'log_unifrom' is not known; did you mean 'log_uniform'?",
        ),
        (
            {"min": 1, "max": 2, "distribution": "gamma"},
            ".distribution: 'gamma' is not known; use 'constant'",
        ),
        ({"min": 1, "max": 2, "distribution": ["uniform"]}, ".distribution: a list is not known"),
        ({"min": 1, "max": 2, "q": 1}, ".q: a parameter of the distribution int_uniform has no such key"),
        (
            {"distribution": "normal", "mu": 0, "sigm": 1},
            ".sigm: a parameter of the distribution normal has no such key; did you mean",
        ),
        ({"distribution": "normal", "sigma": -1}, ".sigma: -1 is too small; give at least 0"),
        ({"distribution": "q_beta", "q": 0}, ".q: 0 is too small; give more than 0"),
        ({"distribution": "constant"}, ".value: it is missing"),
        ({"values": []}, ".values: give a list of at least one item, not an empty list"),
        ({"values": "adam"}, ".values: give a list of at least one item, not 'adam'"),
        ({"value": 1, "values": [1]}, ".values: a parameter of the distribution constant has no such key"),
        ({"values": [1, 2], "probabilities": [1]}, ".probabilities: there are 1 of them for 2 values"),
        ({"values": [1, 2], "probabilities": [0.5, 0.4]}, ".probabilities: their sum is 0.9; make it 1"),
        ({"values": [1, 2], "probabilities": [1.5, -0.5]}, ".probabilities.1: -0.5 is too small"),
        ({"mu": 0}, ": give 'value', 'values', 'min' and 'max', or a 'distribution'"),
        ({}, ": give 'value', 'values', 'min' and 'max', or a 'distribution'"),
        ({"vlaue": 3}, ".vlaue: a parameter has no such key; did you mean 'value'?"),
        (0.1, ": give a mapping, such as {value: 0.1}"),
        ([1, 2], ": give a mapping, such as {values: [...]}"),
        ({"deep": {"value": 1}}, ": nested parameters belong under a key 'parameters'"),
        ({"parameters": {"deep": {"min": 2, "max": 1}}}, ".deep.min: 2 is not less than max 1"),
        (
            {"parameters": {"deep": {"value": 1}}, "min": 1},
            ".min: an entry of nested parameters has no such key",
        ),
        ({"parameters": {}}, ": give at least one parameter"),
        ({"values": [object()]}, ".values[0]: this is no plain data"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_by_its_path(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match="^" + re.escape(f"parameters.lr{message}")):
        parameter(given)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "bayse"}, "method: 'bayse' is not known; did you mean 'bayes'?"),
        ({"method": "custom"}, "method: custom runs a file of your own on W&B's side; use method bayes"),
        ({"parameters": {}}, "parameters: give at least one parameter"),
        ({"parameters": {"a/b": {"value": 1}}}, "parameters.a/b: a name is letters, digits"),
        (
            {"parameters": {"learning rate": {"value": 1}}},
            "parameters.learning rate: a name is letters, digits",
        ),
        ({"method": "bayes"}, "metric: it is missing; bayes optimises one"),
        (
            {"method": "bayes", "metric": LOSS, "parameters": {"a": {"value": 1}}},
            "parameters: all are constants",
        ),
        ({"metric": "loss"}, "metric: give a mapping, not 'loss'"),
        ({"metric": {}}, "metric.name: it is missing"),
        ({"metric": {"name": 3}}, "metric.name: give text, not 3"),
        (
            {"metric": {**LOSS, "goal": "minimise"}},
            "metric.goal: 'minimise' is not known; did you mean 'minimize'?",
        ),
        ({"metric": {**LOSS, "target": "1e-3"}}, "metric.target: '1e-3' is text; write 1.0e-3"),
        ({"metric": {**LOSS, "impute": "mean"}}, "metric.impute: 'mean' is not known"),
        (
            {"metric": {**LOSS, "impute_while_running": False}},
            "metric.impute_while_running: false is not known",
        ),
        (
            {"metric": {**LOSS, "gaol": "maximize"}},
            "metric.gaol: a metric has no such key; did you mean 'goal'?",
        ),
        ({"metrics": [LOSS, LOSS]}, "metrics: a sweep optimises one metric here"),
        ({"scheduler": {"engine": "optuna"}}, "scheduler: it runs a file of your own on W&B's side"),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 1}},
            "early_terminate: trials are compared by a metric",
        ),
        ({"run_cap": 0}, "run_cap: 0 is too small; give at least 1"),
        ({"run_cap": 1.5}, "run_cap: give a whole number, not 1.5"),
        ({"command": "python train.py"}, "command: give a list of words, not 'python train.py'"),
        ({"command": ["python", {"--lr": 1}]}, "command.1: give a word, not a mapping; quote it"),
        ({"name": 3}, "name: give text, not 3; leave the key out for none"),
        ({"project": None}, "project: give text, not null"),
        ({"kind": "launch"}, "kind: 'launch' is not known; use 'sweep'"),
        ({"controller": {}}, "controller.type: it is missing"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_its_path(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match="^" + re.escape(message)):
        read_config({"method": "random", "parameters": {"a": {"values": [1, 2]}}} | changed)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, ".type: it is missing, and has to be given, such as 'hyperband'"),
        ({"type": "envelope", "min_iter": 1}, ".type: 'envelope' is not known; use 'hyperband'"),
        ({"type": "hyperband"}, ": give min_iter, the first band; or max_iter and s"),
        ({"type": "hyperband", "max_iter": 27}, ": give min_iter, the first band; or max_iter and s"),
        ({"type": "hyperband", "min_iter": 0}, ".min_iter: 0 is too small; give at least 1"),
        ({"type": "hyperband", "min_iter": 1, "eta": 1}, ".eta: 1 is too small; give more than 1"),
        ({"type": "hyperband", "min_iter": 1, "strict": "yes"}, ".strict: give true or false, not 'yes'"),
        (
            {"type": "hyperband", "miniter": 1},
            ".miniter: early_terminate has no such key; did you mean 'min_iter'?",
        ),
    ],
)
def test_early_stopping_that_cannot_be_is_refused_by_its_path(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match="^" + re.escape(f"early_terminate{message}")):
        sweep(metric=LOSS, early_terminate=given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "method: it is missing, and has to be given, such as 'grid'"),
        ({"method": "grid"}, "parameters: it is missing"),
        (
            {"method": "grid", "paramters": {}},
            "parameters: it is missing, and has to be given; is 'paramters' meant",
        ),
        (["method"], "a sweep's configuration is a mapping or the path of a YAML file, not a list"),
        (None, "a sweep's configuration is a mapping or the path of a YAML file, not null"),
        (lambda: None, "a sweep's configuration is a mapping or the path of a YAML file, not null"),
    ],
)
def test_what_is_missing_is_named(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match="^" + re.escape(message)):
        read_config(given)


# -- files ------------------------------------------------------------------------------------------------


def test_a_number_that_yaml_takes_for_text_is_named_with_how_to_write_it(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("method: random\nparameters: {lr: {min: 1e-5, max: 0.1}}\n")
    with pytest.raises(UsageError, match=r"^parameters\.lr\.min: '1e-5' is text; write 1\.0e-5"):
        read_config(str(file))
    file.write_text("method: random\nparameters: {lr: {values: [1e-5, 1.0e-4]}}\n")
    assert read_config(file).notes == ("parameters.lr.values: '1e-5' is text; for the number, write 1.0e-5",)


def test_a_json_file_needs_no_such_care(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    file = tmp_path / "sweep.json"
    file.write_text('{"method": "random", "parameters": {"lr": {"min": 1e-5, "max": 1}}}')
    assert [found.kind for found in read_config(file).parameters] == ["uniform"]


def test_without_pyyaml_a_yaml_file_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    file = tmp_path / "sweep.yaml"
    file.write_text("method: random\n")
    with pytest.raises(BackendUnavailableError, match=re.escape("pip install 'tracklayer[sweeps]'")):
        read_config(file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", b"method: grid\nparameters: {a: [1, 2\n", "a.yaml, line 3: this is no YAML"),
        ("a.yaml", b"method: !!python/object:os.system {}\n", "a.yaml, line 1: this is no YAML"),
        ("a.yaml", b"method: \xff\xfe\n", "a.yaml: this is no YAML"),
        ("a.yaml", b"- method\n", "a.yaml: a sweep's configuration is a mapping; the file holds a list"),
        ("a.yaml", b"", "a.yaml: a sweep's configuration is a mapping; the file holds null"),
        ("a.json", b'{"method": \n', "a.json: this is no JSON (Expecting value: line 2"),
        ("a.json", b"\xff", "a.json: this is no JSON"),
        ("a.yaml", None, "a.yaml: the sweep's configuration cannot be read (No such file or directory)"),
    ],
)
def test_a_file_that_holds_no_configuration_is_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(message)):
        read_config(tmp_path / name)


# -- notes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        (
            {"progam": "x.py"},
            "progam: W&B's configuration has no such key, and it is not used; did you mean 'program'?",
        ),
        ({"job": "a/b/c:latest"}, "job: agents start no jobs of W&B Launch; they run `program`"),
        (
            {"metric": {**LOSS, "impute": "best"}},
            "metric.impute: trials that failed have no value for the search",
        ),
        (
            {"metric": {**LOSS, "impute_while_running": "latest"}},
            "metric.impute_while_running: the search takes",
        ),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 4, "eta": 2.6}},
            "early_terminate.eta: it is 3 here, since Optuna's pruner takes whole numbers",
        ),
        (
            {"early_terminate": {"type": "hyperband", "max_iter": 2, "s": 1}},
            "early_terminate: there is no iteration",
        ),
        (
            {"early_terminate": {"type": "hyperband", "max_iter": 9, "s": 1, "min_iter": 1}},
            "early_terminate.min_iter: it says nothing",
        ),
        (
            {"early_terminate": {"type": "hyperband", "s": 1, "min_iter": 1}},
            "early_terminate.s: it says nothing",
        ),
        (
            {"parameters": {"lr": {"min": 0.001, "max": 0.1, "distribution": "log_uniform"}}},
            (
                "parameters.lr: log_uniform takes exponents of e: values from 1.001 to 1.105; "
                "for those from 0.001 to 0.1, use log_uniform_values"
            ),
        ),
        (
            {"parameters": {"lr": {"min": 0.001, "max": 0.1, "distribution": "inv_log_uniform"}}},
            "parameters.lr: inv_log_uniform takes exponents of e: values from 0.9048 to 0.999;",
        ),
    ],
)
def test_what_is_done_otherwise_or_perhaps_not_meant_is_noted(changed: dict[str, Any], note: str) -> None:
    config = read_config(
        {"method": "bayes", "parameters": {"a": {"values": [1, 2]}}, "metric": LOSS} | changed
    )
    (said,) = config.notes
    assert said.startswith(note)


def test_nothing_is_noted_that_makes_no_difference() -> None:
    assert sweep(metric={**LOSS, "impute": "best", "impute_while_running": "best"}).notes == ()
    assert parameter({"min": -7, "max": -2, "distribution": "log_uniform"}).notes == ()
    assert sweep(scheduler={"engine": "wandb"}).notes == ()


# -- metric and bands -------------------------------------------------------------------------------------


def test_a_metric_says_what_is_better_and_whether_its_target_is_reached() -> None:
    low, high = (
        sweep(metric={**LOSS, "goal": goal, "target": 0.5}).metric for goal in ("minimize", "maximize")
    )
    assert low is not None
    assert high is not None
    assert low.is_better(1, 2)
    assert high.is_better(2, 1)
    assert not low.is_better(1, 1)
    assert not low.is_better(float("nan"), 1)
    assert [low.reached(value) for value in (0.6, 0.5, 0.4, float("nan"))] == [False, True, True, False]
    assert [high.reached(value) for value in (0.6, 0.5, 0.4, float("nan"))] == [True, True, False, False]
    without = sweep(metric=LOSS).metric
    assert without is not None
    assert not without.reached(0.0)


@pytest.mark.parametrize(
    ("given", "bands"),
    [
        ({"min_iter": 3}, (3, 9, 27, 81, 243)),
        ({"min_iter": 2, "eta": 1.5}, (2, 4, 8, 16)),
        ({"min_iter": 4, "eta": 2.6}, (4, 12, 36)),
        ({"min_iter": 1, "max_iter": 27}, (1, 3, 9, 27)),
        ({"max_iter": 100, "s": 3}, (3, 11, 33)),
        ({"max_iter": 27, "s": 9}, (1, 3, 9)),
        ({"max_iter": 27.0, "s": 2.0, "eta": 2}, (6, 13)),
    ],
)
def test_bands_are_those_of_w_and_b_but_for_a_fraction_of_eta(
    given: dict[str, Any], bands: tuple[int, ...]
) -> None:
    hyperband = sweep(metric=LOSS, early_terminate={"type": "hyperband", **given}).early_terminate
    assert hyperband is not None
    endless = "max_iter" not in given
    assert (hyperband.bands[: len(bands)] if endless else hyperband.bands) == bands
    assert hyperband.first == bands[0]
    assert [iteration for iteration in range(bands[-1] + 1) if hyperband.is_band(iteration)] == list(bands)


# -- grids and values -------------------------------------------------------------------------------------

GRID = {
    "z": {"values": ["a", "b"]},
    "deep": {"parameters": {"y": {"min": 3, "max": 5}, "c": {"value": [1]}}},
    "b": {"min": 0.0, "max": 0.5, "q": 0.25, "distribution": "q_uniform"},
}


def test_a_grid_counts_as_a_product_does_with_the_last_name_fastest() -> None:
    config = sweep("grid", GRID)
    expected = [
        {"b": b, "deep": {"c": [1], "y": y}, "z": z}
        for b, y, z in itertools.product([0.0, 0.25], [3, 4, 5], ["a", "b"])
    ]
    assert config.points == len(expected)
    assert [config.nested(config.point(index)) for index in range(len(expected))] == expected
    for index in (-1, len(expected)):
        with pytest.raises(IndexError, match=f"a grid of 12 points has no point {index}"):
            config.point(index)


def test_a_huge_grid_is_not_listed() -> None:
    config = sweep("grid", {"seed": {"min": 0, "max": 10**12}, "a": {"values": [1, 2]}})
    assert config.points == 2 * (10**12 + 1)
    assert config.nested(config.point(10**12 + 5)) == {"a": 2, "seed": 4}


def test_a_grid_of_constants_has_one_point() -> None:
    config = sweep("grid", {"a": {"value": 1}})
    assert config.points == 1
    assert config.nested(config.point(0)) == {"a": 1}


def test_a_value_that_is_repeated_is_one_point_of_a_grid() -> None:
    config = sweep("grid", {"a": {"values": [1, 2, 1.0, True, [1], [1]]}})
    found = [config.nested(config.point(index))["a"] for index in range(config.points or 0)]
    assert list(map(repr, found)) == ["1", "2", "True", "[1]"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"min": 0, "max": 4, "q": 2}, [0, 2]),
        ({"min": 1, "max": 4}, [1.0, 2.0, 3.0]),
        ({"min": 0.5, "max": 3, "q": 1}, [0.5, 1.5, 2.5]),
        ({"min": 0, "max": 1, "q": 0.3}, [0.0, 0.3, 0.6, 0.9]),
    ],
)
def test_q_uniform_in_a_grid_goes_in_steps_from_min_on(given: dict[str, Any], expected: list[float]) -> None:
    config = parameter({**given, "distribution": "q_uniform"}, "grid")
    found = [config.nested(config.point(index))["lr"] for index in range(config.points or 0)]
    assert found == pytest.approx(expected)
    assert list(map(type, found)) == list(map(type, expected))
    assert [config.parameters[0].internal(value) for value in found] == pytest.approx(found)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min": 0.0, "max": 1.0}, "parameters.lr: a grid has no points for uniform"),
        ({"distribution": "q_normal"}, "parameters.lr: a grid has no points for q_normal"),
        ({"values": [1], "probabilities": [1]}, "parameters.lr.probabilities: a grid tries each value once"),
    ],
)
def test_a_grid_refuses_what_has_no_points(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match="^" + re.escape(message)):
        parameter(given, "grid")


def test_a_trial_may_change_its_config_without_changing_the_sweep() -> None:
    config = sweep("grid", {"layers": {"value": [64]}, "blocks": {"values": [[1, 2]]}})
    for values in config.nested(config.point(0)).values():
        values.append(3)
    assert config.nested(config.point(0)) == {"blocks": [1, 2], "layers": [64]}


@pytest.mark.parametrize(
    ("given", "value", "message"),
    [
        ({"min": 0.0, "max": 1.0}, 2, "parameters.lr: 2 is out of range; the nearest is 1.0"),
        ({"min": 0.0, "max": 1.0}, "a", "parameters.lr: 'a' is no number"),
        ({"min": 0, "max": 9}, 1.5, "parameters.lr: 1.5 is no whole number from 0 to 9"),
        ({"values": [1, 2]}, True, "parameters.lr: True is none of its values"),
        ({"values": [1, 2], "probabilities": [1, 0]}, 2, "parameters.lr: 2 has the probability 0"),
        (
            {"min": 0, "max": 9, "q": 2, "distribution": "q_uniform"},
            3,
            "parameters.lr: 3 is no multiple of 2",
        ),
        ({"distribution": "log_normal"}, -1, "parameters.lr: -1 is out of range"),
        ({"value": 1}, 2, "parameters.lr: 2 is not the constant 1"),
    ],
)
def test_a_value_of_a_prior_run_that_the_sweep_cannot_give_is_refused(
    given: dict[str, Any], value: Any, message: str
) -> None:
    with pytest.raises(UsageError, match="^" + re.escape(message)):
        parameter(given).parameters[0].internal(value)


def test_choices_that_a_study_cannot_keep_or_tell_apart_are_labels_there() -> None:
    plain = parameter({"values": ["adam", None, 1, 0.5]}).parameters[0]
    assert [plain.internal(value) for value in ("adam", None, 1, 0.5)] == ["adam", None, 1, 0.5]
    equal = parameter({"values": [1, True]}).parameters[0]
    assert [equal.internal(value) for value in (1, True)] == ["0: 1", "1: true"]
    labelled = parameter({"values": [1, True, [64, 64], {"b": 1, "a": 2}, 1]}).parameters[0]
    labels = ["0: 1", "1: true", "2: [64, 64]", '3: {"a": 2, "b": 1}']
    assert [labelled.internal(value) for value in (1, True, [64, 64], {"a": 2, "b": 1})] == labels
    assert list(map(repr, map(labelled.value, [*labels, "4: 1"]))) == [
        *("1", "True", "[64, 64]", "{'b': 1, 'a': 2}"),
        "1",
    ]
