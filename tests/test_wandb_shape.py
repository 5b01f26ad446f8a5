"""Code written for wandb, with its import changed: what it finds, and what it is told of the rest."""

from __future__ import annotations

import argparse
import ast
import copy
import datetime as dt
import enum
import inspect
import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import wandb as real
from flax import linen, nnx

import tracklayer
import tracklayer as wandb
from machine import Machine
from tracklayer.configuration import Config, Summary
from tracklayer.errors import (
    NoActiveRunError,
    NotSupportedError,
    RunNotFoundError,
    UnsupportedValueError,
    UsageError,
)
from tracklayer.front import ActiveRun
from tracklayer.porting import NAMES, refuse
from tracklayer.querying import ApiRun, ApiSummary
from tracklayer.reading import RunReader
from tracklayer.settings import read_settings
from tracklayer.values import Text
from wandb_server import API_KEY, WandbServer

DOCS = (Path(__file__).parents[1] / "docs" / "wandb.md").read_text()


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "store"
    monkeypatch.setenv("TRACKLAYER_DIR", str(folder))
    monkeypatch.chdir(tmp_path)
    yield folder
    tracklayer.finish()


@pytest.fixture
def run() -> ActiveRun:
    return wandb.init(id="r")


def reader(run: ActiveRun) -> RunReader:
    """Finish, and read the run back."""
    run.finish()
    return tracklayer.open_store(run.dir).run(run.id)


def rows(run: ActiveRun) -> dict[int, dict[str, Any]]:
    return {row.step: row.values for row in reader(run).rows()}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# -- the table of names --------------------------------------------------------------------------------


CALLS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "init": (real.init, tracklayer.init),
    "login": (real.login, tracklayer.login),
    "sweep": (real.sweep, tracklayer.sweep),
    "agent": (real.agent, tracklayer.agent),
    "log": (real.Run.log, ActiveRun.log),
    "finish": (real.Run.finish, ActiveRun.finish),
    "define_metric": (real.Run.define_metric, ActiveRun.define_metric),
    "log_artifact": (real.Run.log_artifact, ActiveRun.log_artifact),
    "use_artifact": (real.Run.use_artifact, ActiveRun.use_artifact),
    "log_model": (real.Run.log_model, ActiveRun.log_model),
    "use_model": (real.Run.use_model, ActiveRun.use_model),
    "save": (real.Run.save, ActiveRun.save),
    "alert": (real.Run.alert, ActiveRun.alert),
    "watch": (real.Run.watch, ActiveRun.watch),
    "unwatch": (real.Run.unwatch, ActiveRun.unwatch),
    "Artifact": (real.Artifact.__init__, tracklayer.Artifact.__init__),
    "Artifact.add_file": (real.Artifact.add_file, tracklayer.Artifact.add_file),
    "Artifact.add_dir": (real.Artifact.add_dir, tracklayer.Artifact.add_dir),
    "Artifact.add_reference": (real.Artifact.add_reference, tracklayer.Artifact.add_reference),
    "Artifact.new_file": (real.Artifact.new_file, tracklayer.Artifact.new_file),
    "Artifact.download": (real.Artifact.download, tracklayer.Artifact.download),
    "Api": (real.Api.__init__, tracklayer.Api.__init__),
    "Api.runs": (real.Api.runs, tracklayer.Api.runs),
    "Api.artifact": (real.Api.artifact, tracklayer.Api.artifact),
    "Api.artifacts": (real.Api.artifacts, tracklayer.Api.artifacts),
    "Api.run.history": (real.apis.public.Run.history, ApiRun.history),
    "Api.run.scan_history": (real.apis.public.Run.scan_history, ApiRun.scan_history),
}
"""The calls whose arguments are in the table: wandb's, and tracklayer's."""
HINTS = frozenset({"per_page", "lazy", "page_size", "use_cache"})
"""Arguments of wandb's that say how to read, and not what."""


def arguments(call: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(call).parameters) - {"self", "others"}


def public_names_of_wandb() -> set[str]:
    declared = Path(real.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^__all__ = (\(.*?^\))", declared, re.DOTALL | re.MULTILINE)
    things = {n for n in dir(real) if not n.startswith("_") and not inspect.ismodule(getattr(real, n))}
    things.discard("annotations")  # what `from __future__ import annotations` leaves behind
    return things | {*real.__all__} | {*ast.literal_eval(listed)}


def test_the_table_is_about_the_wandb_that_is_installed() -> None:
    assert real.__version__.startswith("0.31.")
    assert "wandb 0.31" in DOCS


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        ("wandb", public_names_of_wandb()),
        ("Run", {name for name in dir(real.Run) if not name.startswith("_")}),
        ("Artifact", {name for name in dir(real.Artifact) if not name.startswith("_")}),
        ("errors", set(real.errors.__all__)),
        ("Api", {name for name in dir(real.Api) if not name.startswith("_")}),
        *((name, arguments(call)) for name, (call, _) in CALLS.items()),
    ],
    ids=["wandb", "Run", "Artifact's", "errors", "Api", *CALLS],
)
def test_each_name_of_wandb_is_in_the_table(owner: str, names: set[str]) -> None:
    assert names - NAMES[owner].keys() == set()


def test_the_table_in_the_docs_is_this_one() -> None:
    sections = dict(re.findall(r"^## `([\w.]+)`\n(.*?)(?=^## |\Z)", DOCS, re.DOTALL | re.MULTILINE))
    assert sections.keys() == NAMES.keys()
    for owner, names in NAMES.items():
        written = [line for line in sections[owner].splitlines() if line.startswith("| `")]
        assert written == [
            f"| `{name}` | {'yes' if known.is_here else 'no'} | {known.note} |"
            for name, known in names.items()
        ], f"docs/wandb.md, {owner}"


@pytest.mark.parametrize("owner", ["wandb", "Run", "Api", "Api.run", "Api.run.summary", "Artifact", "errors"])
def test_what_the_table_says_is_so(run: ActiveRun, owner: str) -> None:
    run.flush()
    things: dict[str, object] = {
        "wandb": wandb,
        "Run": run,
        "Api": wandb.Api(),
        "Api.run": wandb.Api().run("r"),
        "Api.run.summary": wandb.Api().run("r").summary,
        "Artifact": run.log_artifact(wandb.Artifact("a", "t")),
        "errors": wandb.errors,
    }
    for name, known in NAMES[owner].items():
        if not known.is_here:
            with pytest.raises(NotSupportedError, match=re.escape(known.note)):
                getattr(things[owner], name)
        elif name != "overrides":  # an argument alone
            getattr(things[owner], name)


def test_what_nobody_has_is_an_ordinary_error(run: ActiveRun) -> None:
    things: list[Any] = [wandb, wandb.errors, run]
    for thing in things:
        with pytest.raises(AttributeError, match="nonsense") as caught:
            thing.nonsense  # noqa: B018 - it raises
        assert not isinstance(caught.value, NotSupportedError)


@pytest.mark.parametrize("call", CALLS)
def test_an_argument_is_taken_or_refused_with_what_to_do(call: str) -> None:
    _, ours = CALLS[call]
    taken = arguments(ours)
    for name in arguments(CALLS[call][0]):
        known = NAMES[call][name]
        if known.is_here:
            assert name in taken | HINTS
            continue
        assert name not in taken
        with pytest.raises(UsageError, match=re.escape(known.note)):
            refuse(call, {name: "secret"})
        for harmless in known.harmless:
            refuse(call, {name: harmless})


def test_what_is_refused_is_not_said_aloud() -> None:
    with pytest.raises(UsageError) as caught:
        wandb.Api(api_key="secret")  # type: ignore[arg-type] # it is Never: checkers refuse it, too
    assert "secret" not in str(caught.value)
    with pytest.raises(TypeError, match=r"init\(\) got an unexpected keyword argument 'projct'"):
        wandb.init(projct="p")  # type: ignore[arg-type] # as above
    assert wandb.run is None


# -- the module ----------------------------------------------------------------------------------------


def test_run_is_none_while_none_is_open() -> None:
    assert wandb.run is None
    for call in (
        "wandb.config",
        "wandb.summary",
        "wandb.log({})",
        "wandb.save('x')",
        "wandb.alert('t', 'x')",
    ):
        with pytest.raises(NoActiveRunError, match=r"call tracklayer\.init\(\) first"):
            eval(call)
    with wandb.init() as run:
        assert wandb.run is run
    assert wandb.run is None


def test_finish_without_a_run_does_nothing() -> None:
    wandb.finish()
    with wandb.init():
        wandb.finish()
    wandb.finish(exit_code=1)


def test_the_usual_script_runs(store: Path) -> None:
    wandb.login()
    wandb.init(project="p", name="n", config={"rate": 0.1, "epochs": 3})
    wandb.define_metric("val/*", step_metric="epoch")
    for epoch in range(wandb.config.epochs):
        wandb.log({"train": {"loss": 1 / (epoch + 1)}}, commit=False)
        wandb.log(data={"val/loss": jnp.float32(0.5), "epoch": epoch})
    assert wandb.run is not None
    wandb.run.summary["best"] = jnp.float32(0.25)
    wandb.finish(exit_code=0)
    recorded = wandb.Api().run("p/n")
    assert recorded.config == {"rate": 0.1, "epochs": 3}
    assert recorded.summary["best"] == 0.25
    assert [row["val/loss"] for row in recorded.scan_history()] == [0.5] * 3
    assert recorded.state == "finished"


# -- init ----------------------------------------------------------------------------------------------


def test_settings_are_weaker_than_arguments_and_stronger_than_the_environment(
    monkeypatch: pytest.MonkeyPatch, store: Path
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "environment")
    monkeypatch.setenv("WANDB_RUN_GROUP", "environment")
    monkeypatch.setenv("WANDB_TAGS", "a,b")
    settings = wandb.Settings(
        project="settings", run_name="settings", run_job_type="settings", run_tags=["c"]
    )
    with wandb.init(settings=settings, name="argument") as run:
        assert (run.project, run.group, run.name, run.job_type) == (
            "settings",
            "environment",
            "argument",
            "settings",
        )
        assert run.tags == ("c",)
    with wandb.init() as run:
        assert (run.project, run.tags) == ("environment", ("a", "b"))
    with wandb.init(settings={"run_id": "i", "root_dir": str(store / "deeper"), "run_notes": "x"}) as run:
        assert (run.id, run.dir, run.notes) == ("i", str(store / "deeper"), "x")
    with wandb.init(settings=wandb.Settings(run_id="i", root_dir=store / "deeper", resume="must")) as run:
        assert run.resumed
    with wandb.init(settings=wandb.Settings(mode="disabled")) as run:
        assert run.disabled


def test_settings_say_how_long_to_wait() -> None:
    settings = wandb.Settings(init_timeout=3, finish_timeout=4)
    applied = settings.applied_to(read_settings())
    assert (applied.start_timeout, applied.finish_timeout) == (3, 4)
    for wrong in (-1, "5"):
        with pytest.raises(UsageError, match=f"init_timeout={wrong!r} is no number of seconds"):
            wandb.Settings(init_timeout=wrong)  # type: ignore[arg-type] # nor is a string one


@pytest.mark.parametrize("settings", [{"quiet": True}, {"x_file_stream_retry_max": 5}])
def test_a_field_of_settings_that_means_nothing_here_is_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    for call in (lambda: wandb.Settings(**settings), lambda: wandb.init(settings=settings)):
        with pytest.raises(UsageError, match=f"{name} means nothing to tracklayer; .*WANDB_{name.upper()}"):
            call()
    with pytest.raises(AttributeError):
        wandb.Settings().quiet = True  # type: ignore[attr-defined] # as the line says


@pytest.mark.parametrize("settings", ["text", 5])
def test_what_is_no_settings_is_refused(settings: Any) -> None:
    with pytest.raises(UsageError, match="settings takes a mapping"):
        wandb.init(settings=settings)


@pytest.mark.parametrize("off", [None, False])
def test_arguments_that_ask_for_nothing_are_let_pass(off: Any) -> None:
    arguments: dict[str, Any] = dict.fromkeys(["save_code", "force", "monitor_gym", "sync_tensorboard"], off)
    with wandb.init(**arguments, allow_val_change=True):  # type: ignore[arg-type] # nobody needs it
        pass


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("force", True),
        ("sync_tensorboard", True),
        ("resume_from", "a?_step=1"),
        ("fork_from", "a?_step=1"),
        ("anonymous", "must"),
        ("allow_val_change", False),
    ],
)
def test_arguments_that_cannot_be_had_open_no_run(store: Path, argument: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"init: wandb's argument '{argument}' is not in tracklayer: "):
        wandb.init(**{argument: value})
    assert not store.exists()


def test_a_part_of_a_config_is_taken(run: ActiveRun) -> None:
    config = argparse.Namespace(a=1, b=2, c=3)
    assert dict(wandb.init(config=config, config_include_keys=["a", "b"]).config) == {"a": 1, "b": 2}
    assert dict(wandb.init(config=config, config_exclude_keys=["a"]).config) == {"b": 2, "c": 3}
    with pytest.raises(UsageError, match="give one of them"):
        wandb.init(config=config, config_exclude_keys=["a"], config_include_keys=["b"])


def test_the_path_of_a_config_is_refused(tmp_path: Path) -> None:
    for path in ("config.yaml", tmp_path / "config.yaml"):
        with pytest.raises(UsageError, match="read the file, and give what it holds"):
            wandb.init(config=path)


# -- login ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [None, "sqlite", "tensorboard", "disabled"])
def test_login_needs_nothing_where_nothing_leaves_this_disk(
    backend: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if backend:
        monkeypatch.setenv("TRACKLAYER_BACKEND", backend)
    assert wandb.login() is True
    assert warnings(caplog) == []
    assert list(Path().iterdir()) == []


def test_login_takes_no_offline_run_for_one_that_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKLAYER_BACKEND", "wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb.login() is True


@pytest.mark.parametrize("arguments", [{"relogin": True}, {"timeout": 5}, {"verify": True}, {"prompt": True}])
def test_login_does_not_pretend(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="login: wandb's argument"):
        wandb.login(**arguments)


LOGIN = """
import json, os
import tracklayer as wandb
without = wandb.login()
with_key = wandb.login(key=os.environ["SECRET"], relogin=False)
run = wandb.init(id="r", project="p", mode="online")
wandb.log({"x": 1})
wandb.finish()
print(json.dumps([without, with_key, run.url is not None]))
"""


@pytest.mark.slow
def test_a_key_that_is_given_to_login_is_used_and_written_nowhere(tmp_path: Path) -> None:
    with WandbServer() as server:
        machine = Machine(
            tmp_path / "m", server, TRACKLAYER_BACKEND="wandb", WANDB_API_KEY=None, SECRET=API_KEY
        )
        ended = machine.run(LOGIN)
        assert ended.code == 0, ended.stderr
        assert ended.said == [False, True, True]
        (complaint,) = ended.complaints
        assert "tracklayer: login: no API key for" in complaint
        assert API_KEY not in ended.stderr + ended.stdout
        assert server.runs["r"].history[0]["x"] == 1
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert [path for path in written if API_KEY.encode() in path.read_bytes()] == []


# -- config and summary --------------------------------------------------------------------------------


class Loss(enum.Enum):
    HUBER = 1


@dataclass
class Options:
    width: int = 3
    path: Path = Path("data")


def square(x: float) -> float:
    return x * x


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (jnp.float32(0.5), 0.5),
        (jnp.bfloat16(1.5), 1.5),
        (jnp.int32(3), 3),
        (jnp.bool_(True), True),
        (np.float16(0.5), 0.5),
        (jnp.arange(3), [0, 1, 2]),
        (np.eye(2), [[1.0, 0.0], [0.0, 1.0]]),
        (Loss.HUBER, "HUBER"),
        (Path("a") / "b", str(Path("a/b"))),
        (dt.date(2020, 1, 2), "2020-01-02"),
        (Options(), {"width": 3, "path": "data"}),
        ({"b", "a"}, ["a", "b"]),
        (jnp.float32, "jax.numpy.float32"),
        (np.dtype("int8"), "int8"),
        (square, f"{__name__}.square"),
        (jax.sharding.PartitionSpec("data"), str(jax.sharding.PartitionSpec("data"))),
        (range(3), "range(0, 3)"),
    ],
)
def test_a_config_holds_what_can_be_read(value: Any, expected: Any, caplog: pytest.LogCaptureFixture) -> None:
    with wandb.init(config={"value": value, "nested": {"list": [value]}}) as run:
        assert run.config["value"] == expected
        run.summary["value"] = value
    assert reader(run).config == {"value": expected, "nested": {"list": [expected]}}
    assert reader(run).summary == {"value": expected}
    assert warnings(caplog) == []


def test_devices_optimizers_and_modules_can_stand_in_a_config(caplog: pytest.LogCaptureFixture) -> None:
    config = {
        "device": jax.devices()[0],
        "optimizer": optax.adam(optax.cosine_decay_schedule(1e-3, 10)),
        "module": linen.Dense(3),
        "key": jax.random.key(0),
    }
    with wandb.init(config=config) as run:
        assert run.config.device == str(jax.devices()[0])
        assert set(run.config.optimizer) == {"init", "update"}
        assert " at 0x" not in json.dumps(run.config.as_dict())
        assert run.config.module["features"] == 3
    assert reader(run).config == run.config.as_dict()
    assert warnings(caplog) == ["tracklayer: config key: no plain data, stored as str()"]


def test_what_loses_its_content_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with wandb.init(
        config={
            "large": np.zeros(5000),
            "a": {"object": object()},
            "model": nnx.Linear(1, 1, rngs=nnx.Rngs(0)),
        }
    ):
        pass
    assert warnings(caplog) == ["tracklayer: config large, a.object, model: no plain data, stored as str()"]


@pytest.mark.parametrize("value", [tracklayer.Histogram([1.0]), [tracklayer.Histogram([1.0])]])
def test_what_is_logged_is_not_set(store: Path, run: ActiveRun, value: Any) -> None:
    for call in (
        lambda: run.config.update({"x": value}),
        lambda: run.summary.update({"x": value}),
        lambda: wandb.init(config={"x": value}),
    ):
        with pytest.raises(UnsupportedValueError, match=r"'x.*: a Histogram is logged, with `run\.log`"):
            call()
    assert wandb.run is run


def test_config_behaves_as_wandbs(run: ActiveRun) -> None:
    config = wandb.config
    config.update({"a": 1}, allow_val_change=True)
    config.update({"a": 2, "items": 3})
    config.setdefaults({"a": 9, "b": 4})
    assert config.as_dict() == {"a": 2, "items": 3, "b": 4}
    assert list(config) == list(config.keys()) == ["a", "items", "b"]
    assert dict(config.items()) == config.as_dict()
    assert (config.get("a"), config.get("z", 7), "a" in config, "z" in config) == (2, 7, True, False)
    assert {**config} == config.as_dict()
    config.update({"a": 2, "c": 5}, allow_val_change=False)
    with pytest.raises(UsageError, match="config a, c: set to another value already"):
        config.update({"a": 3, "b": 4, "c": 6}, allow_val_change=False)
    assert (config.a, config.c) == (2, 5)
    for remove in (lambda: config.pop("a"), lambda: delattr(config, "a"), config.clear):
        with pytest.raises(UsageError, match="cannot be removed"):
            remove()
    with pytest.raises(UsageError, match="config takes a mapping"):
        config.setdefaults([1])
    assert reader(run).config == {"a": 2, "items": 3, "b": 4, "c": 5}


def test_a_summary_is_nested_and_set_at_any_depth(run: ActiveRun) -> None:
    run.define_metric("loss", summary="min")
    run.log({"loss": 2.0})
    run.log({"loss": 3.0})
    summary = wandb.summary
    assert summary["loss"]["min"] == summary.loss.min == 2.0
    summary["best"] = {"val": {"loss": np.float32(0.5)}}
    summary["best"]["val"]["step"] = jnp.int32(3)
    summary.best.name = "b"
    summary.update({"n": 1})
    expected = {"loss": {"min": 2.0}, "best": {"val": {"loss": 0.5, "step": 3}, "name": "b"}, "n": 1}
    assert dict(summary) == expected
    assert summary.get("best") == expected["best"]
    assert json.loads(json.dumps(dict(summary))) == expected
    copied = copy.deepcopy(dict(summary))
    copied["best"]["val"]["step"] = 4
    assert dict(summary) == expected
    with pytest.raises(UsageError, match="cannot be removed"):
        summary["best"].pop("val")
    with pytest.raises(UsageError, match="summary takes a mapping"):
        summary.update(5)
    assert reader(run).summary == expected


def test_a_summary_of_a_jax_scalar_waits_for_it(run: ActiveRun) -> None:
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 100, lambda _, x: jnp.sin(x @ x), x))(jnp.ones((100, 100)))
    run.summary["x"] = slow.sum()
    assert run.summary["x"] == pytest.approx(float(slow.sum()))


# -- the run -------------------------------------------------------------------------------------------


def test_a_run_says_what_it_is(store: Path) -> None:
    before = time.time()
    with wandb.init(
        project="p", entity="e", name="n", id="r", group="g", job_type="j", tags=["a", "b"], notes="x"
    ) as run:
        assert (run.id, run.name, run.project, run.entity, run.path) == ("r", "n", "p", "e", "e/p/r")
        assert (run.group, run.job_type, run.tags, run.notes) == ("g", "j", ("a", "b"), "x")
        assert (run.url, run.dir, run.step, run.resumed) == (None, str(store), 0, False)
        assert (run.offline, run.disabled) == (True, False)
        assert before - 1 <= run.start_time <= time.time()
    with wandb.init(mode="disabled") as run:
        assert (run.disabled, run.path, run.group) == (True, f"uncategorized/{run.id}", None)


@pytest.mark.parametrize(("name", "value"), [("name", "new"), ("tags", ("a", "b")), ("notes", "x")])
def test_what_a_run_is_called_is_given_to_init(run: ActiveRun, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=re.escape(f"tracklayer.init({name}={value!r})")):
        setattr(run, name, value)


def test_rules_of_a_metric_add_up_unless_they_overwrite(run: ActiveRun) -> None:
    wandb.define_metric("loss", "epoch", summary="min")
    wandb.define_metric("loss", goal="minimize")
    wandb.define_metric("acc", summary="max", goal="maximize")
    wandb.define_metric(name="acc", step_metric="epoch", overwrite=True)
    rules = reader(run).rules
    assert (rules["loss"].summary, rules["loss"].step_metric, rules["loss"].goal) == (
        ("min",),
        "epoch",
        "minimize",
    )
    assert (rules["acc"].summary, rules["acc"].step_metric, rules["acc"].goal) == ((), "epoch", None)


def test_arguments_go_by_wandbs_names(run: ActiveRun, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    run.log(data={"a": 1}, step=3, commit=True)
    run.log_artifact(artifact_or_path="x", name="x", type="t")
    run.finish(exit_code=3)
    assert rows(run) == {3: {"a": 1}}
    assert reader(run).info.exit_code == 3


# -- save ----------------------------------------------------------------------------------------------


def files(run: ActiveRun) -> list[dict[str, str]]:
    """What each version of the artifact with the run's files holds."""
    artifacts = reader(run).artifacts()
    assert {(a.name, a.type) for a in artifacts} <= {(f"run-{run.id}-files", "files")}
    return [{f.path: Path(f.source).read_text() for f in artifact.files} for artifact in artifacts]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.txt", "b.txt", "sub/c.txt", "[d].txt"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.stem)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["data/a.txt"], ["data/a.txt"]),
        (["data/?.txt"], ["data/a.txt", "data/b.txt"]),
        (["data/*/c.txt"], ["data/sub/c.txt"]),
        (["data/sub"], ["data/sub/c.txt"]),
        (["data/?.txt", "data"], ["a.txt", "b.txt"]),
        (["{data}/a.txt"], ["data/a.txt"]),
        (["{data}/a.txt", "{data}"], ["a.txt"]),
        (["data/[d].txt", None, "now", False], ["data/[d].txt"]),
        (["data/[d].txt"], []),
    ],
)
def test_files_are_named_as_wandb_names_them(
    run: ActiveRun, folder: Path, arguments: list[Any], expected: list[str]
) -> None:
    first: Any
    first, *rest = [a.format(data=folder) if isinstance(a, str) else a for a in arguments]
    assert wandb.save(first, *rest) == expected
    assert wandb.save(Path(first), *rest) == expected
    assert [sorted(version) for version in files(run)] == [expected] * bool(expected)


def test_files_hold_what_the_policy_says(run: ActiveRun, folder: Path) -> None:
    for name, policy in (("a", "now"), ("b", "live"), ("sub/c", "end")):
        wandb.save(f"data/{name}.txt", base_path="data", policy=policy)
    for name in ("a", "b", "sub/c"):
        (folder / f"{name}.txt").write_text("changed")
    assert files(run) == [
        {"a.txt": "a"},
        {"a.txt": "a", "b.txt": "b"},
        {"a.txt": "a", "b.txt": "changed", "sub/c.txt": "changed"},
    ]


def test_files_that_did_not_change_are_kept_once(run: ActiveRun, folder: Path) -> None:
    for _ in range(3):
        wandb.save("data/a.txt")
    assert files(run) == [{"data/a.txt": "a"}]


def test_a_file_that_vanishes_is_kept_as_it_was_or_named(
    run: ActiveRun, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wandb.save("data/a.txt")
    wandb.save("data/b.txt", policy="end")
    (folder / "a.txt").unlink()
    (folder / "b.txt").unlink()
    assert files(run) == [{"data/a.txt": "a"}]
    kept, lost = warnings(caplog)
    assert "a.txt cannot be read any more" in kept
    assert "what it held is kept" in kept
    assert "b.txt cannot be read any more" in lost
    assert "it is not recorded" in lost


def test_what_cannot_be_saved_is_said(run: ActiveRun, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UsageError, match="policy 'often' is none of live, now, end"):
        wandb.save("data/a.txt", policy="often")
    with pytest.raises(UsageError, match="does not lie below"):
        wandb.save("../*")
    with pytest.raises(UsageError, match="does not lie below"):
        wandb.save("data/a.txt", base_path="data/sub")
    assert warnings(caplog) == []
    assert wandb.save("s3://bucket/*") == []
    assert warnings(caplog) == ["tracklayer: save: nothing matches 's3://bucket/*'"]
    assert files(run) == []


def test_files_of_a_run_with_any_id_are_kept(folder: Path) -> None:
    run = wandb.init(id="é 1")
    run.save("data/a.txt")
    (artifact,) = reader(run).artifacts()
    assert artifact.name == "run--1-files"


def test_nothing_is_kept_where_nothing_is_recorded(folder: Path, store: Path) -> None:
    with wandb.init(mode="disabled") as run:
        assert run.save("data/a.txt") == ["data/a.txt"]
    assert not store.exists()


# -- alert ---------------------------------------------------------------------------------------------


def test_an_alert_is_recorded_each_time_and_said_once_a_while(
    run: ActiveRun, caplog: pytest.LogCaptureFixture
) -> None:
    run.log({"x": 1})
    wandb.alert("low", "acc is 0.1")
    wandb.alert(title="low", text="acc is 0.2", level=wandb.AlertLevel.WARN)
    run.log({"x": 2})
    wandb.alert("low", "acc is 0.3", level="ERROR", wait_duration=0)
    wandb.alert("other", "words", wait_duration=dt.timedelta(minutes=5))
    assert warnings(caplog) == [
        "tracklayer: alert 'low', INFO: acc is 0.1",
        "tracklayer: alert 'low', ERROR: acc is 0.3",
        "tracklayer: alert 'other', INFO: words",
    ]
    assert rows(run) == {
        0: {"x": 1},
        1: {"x": 2, "alert/low": Text("WARN: acc is 0.2")},
        2: {"alert/low": Text("ERROR: acc is 0.3"), "alert/other": Text("INFO: words")},
    }


def test_an_alert_of_what_is_not_recorded_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    with wandb.init(mode="disabled") as run:
        run.alert("low", "words")
    assert warnings(caplog) == []


def test_an_alert_of_no_level_is_refused(run: ActiveRun) -> None:
    with pytest.raises(UsageError, match="level 'LOUD' is none of INFO, WARN, ERROR"):
        wandb.alert("t", "x", level="LOUD")
    assert rows(run) == {}


# -- watch ---------------------------------------------------------------------------------------------


def linear(width: int = 2) -> nnx.Module:
    return nnx.Linear(3, width, rngs=nnx.Rngs(0))


def test_the_parameters_of_a_model_are_logged_every_so_often(run: ActiveRun) -> None:
    model = nnx.Sequential(linear(4), nnx.BatchNorm(4, rngs=nnx.Rngs(0)))
    wandb.watch(model, log_freq=2)
    for step in range(4):
        wandb.log({"x": step})
    wandb.unwatch(model)
    wandb.log({"x": 4})
    names = {"layers.0.kernel", "layers.0.bias", "layers.1.scale", "layers.1.bias"}
    due = {f"parameters/{name}" for name in names}
    got = rows(run)
    assert [got[step].keys() - {"x"} for step in range(5)] == [due, set(), due, set(), set()]
    assert [got[step]["x"] for step in range(5)] == [0, 1, 2, 3, 4]
    assert got[0]["parameters/layers.0.kernel"].bins.count == 12


def test_the_parameters_are_those_at_the_call(run: ActiveRun) -> None:
    model = linear()
    run.watch(model, log_freq=1)
    run.log({"x": 0}, step=0)
    model.kernel[...] += 5.0  # type: ignore[attr-defined] # of nnx.Linear
    run.log({"x": 1}, step=1)
    got = rows(run)
    before, after = (got[step]["parameters/kernel"].bins for step in (0, 1))
    assert after.total - before.total == pytest.approx(5.0 * before.count, abs=1e-3)


def test_several_models_are_told_apart(run: ActiveRun) -> None:
    first, second, third = linear(), linear(), linear()
    run.watch([first, second], log_freq=1)
    run.watch(third, log_freq=1, idx=7)
    run.log({"x": 0, "parameters/bias": 1.0})
    run.unwatch([first])
    run.log({"x": 1})
    run.unwatch()
    run.log({"x": 2})
    got = rows(run)
    places = [{key.partition("/")[0] for key in got[step]} - {"x"} for step in range(3)]
    assert places == [{"parameters", "parameters_1", "parameters_7"}, {"parameters_1", "parameters_7"}, set()]
    assert got[0]["parameters/bias"] == 1.0


def test_a_row_from_inside_a_program_or_of_a_replay_is_left_as_it_is(run: ActiveRun) -> None:
    run.watch(linear(), log_freq=1)
    jax.jit(lambda x: tracklayer.jax.log(run, {"tapped": x}, step=5))(1.0)
    jax.effects_barrier()
    run.log({"x": 1}, step=6, time=1.0)
    run.log_series({"y": [1.0, 2.0]}, steps=[7, 8])
    assert {step: set(row) for step, row in rows(run).items()} == {
        5: {"tapped"},
        6: {"x"},
        7: {"y"},
        8: {"y"},
    }


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"log": "gradients"}, UsageError, r"log='gradients', and JAX has no hooks.*tracklayer\.jax\.stats"),
        ({"log": "all"}, UsageError, "no hooks on gradients"),
        ({"log_freq": 0}, UsageError, "log_freq=0 is less than 1"),
        ({"log_graph": True}, UsageError, "wandb's argument 'log_graph'"),
        ({"criterion": square}, UsageError, "wandb's argument 'criterion'"),
        ({"models": linen.Dense(3)}, UnsupportedValueError, "a Dense is no module of Flax NNX"),
        ({"models": [{"kernel": 1}]}, UnsupportedValueError, "a dict is no module of Flax NNX"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    run: ActiveRun, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        wandb.watch(**{"models": linear(), **arguments})
    run.log({"x": 1})
    assert rows(run) == {0: {"x": 1}}


# -- reading back --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder_of_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    for number, (rate, loss) in enumerate(((0.1, 3.0), (0.2, 1.0), (0.3, 2.0))):
        run = wandb.init(
            id=f"r{number}",
            project="p",
            name=f"n{number}",
            group="even" if number % 2 == 0 else None,
            tags=["a", f"t{number}"],
            config={"rate": rate, "model": {"depth": number, "dotted.key": 1}},
            backend="sqlite",
            dir=folder,
        )
        run.log({"val/loss": loss, "words": "w"})
        run.log({"val/loss": loss / 2, "x": math.nan})
        run.finish(exit_code=number % 2)
    wandb.init(id="other", project="q", entity="e", backend="sqlite", dir=folder).finish()
    return folder


@pytest.fixture
def recorded(folder_of_runs: Path) -> wandb.Api:
    return wandb.Api(dir=folder_of_runs)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (None, "012"),
        ({}, "012"),
        ({"state": "failed"}, "1"),
        ({"state": {"$ne": "failed"}}, "02"),
        ({"config.rate": 0.2}, "1"),
        ({"config.rate.value": 0.2}, "1"),
        ({"config.rate": {"$gt": 0.1, "$lte": 0.3}}, "12"),
        ({"config.rate": {"$in": [0.1, 0.3]}}, "02"),
        ({"config.rate": {"$nin": [0.1, 0.3]}}, "1"),
        ({"config.model.depth": {"$gte": 1}}, "12"),
        ({"config.model.dotted.key": 1}, "012"),
        ({"config.model": {"depth": 2, "dotted.key": 1}}, "2"),
        ({"config.absent": None}, "012"),
        ({"config.absent": {"$exists": False}}, "012"),
        ({"config.rate": {"$gt": "0.1"}}, ""),
        ({"summary_metrics.val/loss": {"$lt": 1}}, "1"),
        ({"tags": "t2"}, "2"),
        ({"tags": {"$in": ["t0", "t1"]}}, "01"),
        ({"tags": {"$nin": ["t0", "t1"]}}, "2"),
        ({"tags": ["a", "t1"]}, "1"),
        ({"group": "even"}, "02"),
        ({"group": None}, "1"),
        ({"group": {"$exists": True}}, "02"),
        ({"display_name": {"$regex": "^n[01]$"}}, "01"),
        ({"name": "r1"}, "1"),
        ({"$or": [{"config.rate": 0.1}, {"config.rate": 0.2}]}, "01"),
        ({"$and": [{"tags": "a"}, {"group": "even"}], "config.rate": 0.3}, "2"),
        ({"$nor": [{"config.rate": 0.1}, {"state": "failed"}]}, "2"),
        ({"created_at": {"$gt": "2020-01-01T00:00:00Z"}}, "012"),
    ],
)
def test_runs_are_found_by_filters(
    recorded: wandb.Api, filters: dict[str, Any] | None, expected: str
) -> None:
    assert [run.id for run in recorded.runs("p", filters)] == [f"r{number}" for number in expected]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"heartbeat_at": 1}, "runs have no field 'heartbeat_at' here; there are name, "),
        ({"config.rate": {"$near": 1}}, "filters have no operator '\\$near' here; there are \\$and"),
        ({"name": {"$regex": "("}}, "'\\(' is no regular expression: missing \\)"),
        ({"name": {"$in": "r1"}}, "\\$in takes a list, not 'r1'"),
        ({"$or": {"state": "finished"}}, "\\$or takes a list, not {'state'"),
    ],
)
def test_a_filter_that_is_not_known_is_refused(
    recorded: wandb.Api, filters: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        recorded.runs(filters=filters)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("+created_at", "012"),
        ("-created_at", "210"),
        ("created_at", "012"),
        ("config.rate", "012"),
        ("-summary_metrics.val/loss", "021"),
        ("+summary_metrics.x", "012"),
        ("-group", "201"),
        ("display_name", "012"),
    ],
)
def test_runs_come_in_an_order(recorded: wandb.Api, order: str, expected: str) -> None:
    assert [run.id for run in recorded.runs("p", order=order)] == [f"r{number}" for number in expected]


def test_runs_are_found_by_paths(recorded: wandb.Api, folder_of_runs: Path) -> None:
    assert {run.id for run in recorded.runs()} == {"r0", "r1", "r2", "other"}
    assert [run.id for run in recorded.runs("e/q")] == ["other"]
    assert [run.id for run in recorded.runs("nobody/q")] == []
    assert len(recorded.runs("anybody/p", per_page=1)) == 3  # type: ignore[arg-type] # nobody needs it
    assert len(wandb.Api({"project": "p"}, dir=folder_of_runs).runs()) == 3
    for path in ("r0", "p/r0", "team/p/r0", "/p/runs/r0", "n0"):
        assert recorded.run(path).id == "r0"
    with pytest.raises(RunNotFoundError, match="run r0 is one of p, not of q"):
        recorded.run("q/r0")
    with pytest.raises(RunNotFoundError):
        recorded.run("nothing")
    with pytest.raises(UsageError, match="has 4 parts, and may have 3"):
        recorded.run("a/b/c/d")
    with pytest.raises(UsageError, match="overrides has base_url"):
        wandb.Api(overrides={"base_url": "http://x"})


def test_a_recorded_run_says_what_it_was(recorded: wandb.Api) -> None:
    run = recorded.run("r2")
    assert (run.id, run.name, run.project, run.entity, run.state) == ("r2", "n2", "p", None, "finished")
    assert (run.group, run.job_type, run.tags, run.notes, run.url) == ("even", None, ["a", "t2"], None, None)
    assert run.path == ["p", "r2"]
    assert recorded.run("other").path == ["e", "q", "other"]
    assert run.config == {"rate": 0.3, "model": {"depth": 2, "dotted.key": 1}}
    assert run.lastHistoryStep == 1
    assert run.logged_artifacts() == []
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(run.created_at)
    assert 0 <= age.total_seconds() < 600


def test_the_summary_of_a_recorded_run_is_read_as_wandbs_examples_do(recorded: wandb.Api) -> None:
    run = recorded.run("r2")
    assert run.summary["val/loss"] == 1.0
    assert math.isnan(run.summary["x"])
    assert run.summary.get("absent") is None
    assert run.summary._json_dict.keys() == run.summary_metrics.keys() == {"val/loss", "x"}
    with pytest.raises(TypeError):
        run.summary["x"] = 1  # type: ignore[index] # as the line says
    with pytest.raises(NotSupportedError, match='resume="must"'):
        run.summary.update({"x": 1})  # type: ignore[attr-defined] # as above


def test_the_history_of_a_recorded_run(recorded: wandb.Api) -> None:
    run = recorded.run("r0")
    first, second = run.scan_history()
    assert {key: first[key] for key in ("_step", "val/loss", "words")} == {
        "_step": 0,
        "val/loss": 3.0,
        "words": "w",
    }
    assert 0 <= first["_runtime"] <= second["_runtime"]
    assert first["_timestamp"] == pytest.approx(time.time(), abs=600)
    assert list(run.scan_history(keys=["words"])) == [{"words": "w"}]
    assert list(run.scan_history(["_step", "val/loss"], min_step=1)) == [{"_step": 1, "val/loss": 1.5}]
    assert list(run.scan_history(["_step"], max_step=1)) == [{"_step": 0}]
    assert run.history(keys=["val/loss"], pandas=False) == [
        {"_step": 0, "val/loss": 3.0},
        {"_step": 1, "val/loss": 1.5},
    ]
    assert run.history(keys=["val/loss"], x_axis="words", pandas=False) == [{"words": "w", "val/loss": 3.0}]
    frame = run.history()
    assert list(frame["val/loss"]) == [3.0, 1.5]
    for keys in ("loss", [1]):
        with pytest.raises(UsageError, match="give a list of strings"):
            run.history(keys=keys)  # type: ignore[arg-type] # as the line says
    with pytest.raises(UsageError, match="'stream'"):
        run.history(stream="system")  # type: ignore[arg-type] # as above


def test_a_long_history_is_sampled_evenly(run: ActiveRun) -> None:
    run.log_series({"x": np.arange(100)})
    run.finish()
    history = wandb.Api().run("r").history
    assert [row["_step"] for row in history(samples=4, pandas=False)] == [0, 33, 66, 99]
    assert len(history(samples=100, pandas=False)) == 100
    assert [row["_step"] for row in history(samples=1, pandas=False)] == [0]
    with pytest.raises(UsageError, match="samples=0 is less than 1"):
        history(samples=0)


def test_the_history_of_a_live_run_is_what_is_there(run: ActiveRun) -> None:
    run.log({"x": 1})
    run.flush()
    found = wandb.Api().run("r")
    assert (found.state, [row["x"] for row in found.scan_history()]) == ("running", [1])


def test_what_is_reached_by_a_name_is_also_documented() -> None:
    for thing in (ActiveRun, tracklayer.Artifact, tracklayer.Api, ApiRun, ApiSummary, Config, Summary):
        for name, member in vars(thing).items():
            if not name.startswith("_") and type(member).__name__ != "_Absent":
                assert inspect.getdoc(member), f"{thing.__name__}.{name}"
