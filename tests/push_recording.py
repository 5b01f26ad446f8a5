"""Runs for the trials of push: drawn by a seed as plain data, and recorded by processes of their own.

What a run is to log stands in its `Plan`, from which the trials' oracle works out what a server must have.
The recording processes only add when they made each call.
"""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import random
import signal
import sys
import time
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import tracklayer

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Ending: TypeAlias = Literal["live", "finished", "failed", "killed"]
"""What becomes of the recording process after a phase; after "live" it goes on with the next one."""

PROJECT: Final = "trials"
WAIT: Final = 60.0  # seconds that a recording process may take for one phase


class Rich(NamedTuple):
    """A value that is no scalar: its kind, and from what it is made."""

    kind: str
    source: Any


@dataclass(frozen=True)
class Call:
    """One `log`."""

    step: int
    values: Mapping[str, Any]
    """Scalars, strings and `Rich`."""


@dataclass(frozen=True)
class Made:
    """One `log_artifact`: texts by path."""

    name: str
    files: Mapping[str, str]
    aliases: tuple[str, ...]


@dataclass
class Phase:
    """What a run does between two pushes."""

    calls: list[Call] = field(default_factory=list[Call])
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    summary: dict[str, Any] = field(default_factory=dict[str, Any])
    artifacts: list[Made] = field(default_factory=list[Made])
    uses: list[str] = field(default_factory=list[str])
    prints: list[str] = field(default_factory=list[str])
    ending: Ending = "finished"

    @property
    def has_media(self) -> bool:
        """Whether something is logged that has a file."""
        values = [value for call in self.calls for value in call.values.values()]
        return any(isinstance(value, Rich) and value.kind != "histogram" for value in values)


@dataclass
class Plan:
    """A run, whole."""

    id: str
    attributes: dict[str, Any]
    rules: dict[str, dict[str, Any]]
    """What `define_metric` is given, by pattern."""
    phases: list[Phase]
    measures_system: bool
    is_live: bool = False
    """Whether it is recorded on W&B, too, by the client itself."""

    def latest(self, phase: int) -> dict[tuple[int, str], Any]:
        """Return the value of each step and key, as the record has it at the end of a phase."""
        calls = [call for one in self.phases[: phase + 1] for call in one.calls]
        return {(call.step, key): value for call in calls for key, value in call.values.items()}


# -- drawing -----------------------------------------------------------------------------------------------


def draw_plan(dice: random.Random, run_id: str, phases: int, *, lively: bool) -> Plan:
    """Draw a run; a lively one goes on in the same process where it can."""
    attributes: dict[str, Any] = {
        "name": f"run {run_id}",
        "group": dice.choice([None, "g"]),
        "job_type": dice.choice([None, "train"]),
        "tags": dice.choice([(), ("x", "ÿ")]),
        "notes": dice.choice([None, "some notes"]),
    }
    rules: dict[str, dict[str, Any]] = {}
    if dice.random() < 0.5:
        rules["ruled"] = {"summary": dice.choice(["min", "max", "min,max,mean,last"])}
    if dice.random() < 0.3:
        rules["hidden"] = {"summary": "none"}
    if dice.random() < 0.3:
        rules["val/*"] = {"step_metric": "epoch"}
    plan = Plan(run_id, attributes, rules, [], measures_system=dice.random() < 0.3)
    for number in range(phases):
        plan.phases.append(_draw_phase(dice, plan, number))
        is_last = number == phases - 1
        endings: list[Ending] = ["finished", "failed", "killed"] + (
            ["live"] * 6 if lively and not is_last else []
        )
        plan.phases[-1].ending = dice.choice(endings)
    return plan


def _draw_phase(dice: random.Random, plan: Plan, number: int) -> Phase:
    phase = Phase()
    known = plan.latest(number)
    step = max((step for step, _ in known), default=dice.choice([-1, 5]))
    for _ in range(dice.choice([0, 3, 30, 120]) if number else dice.choice([1, 10, 60, 200])):
        step += dice.choice([1, 1, 1, 7])
        phase.calls.append(Call(step, _draw_values(dice, plan.rules, step)))
        if dice.random() < 0.05:  # late, or of the same step, or logged again
            back = max(0, step - dice.choice([0, 0, 1, 5, 50]))
            phase.calls.append(Call(back, {dice.choice(["a", "late"]): dice.random()}))
    if number and known and dice.random() < 0.7:  # what an earlier push may have sent
        rich = sorted(place for place, value in known.items() if isinstance(value, Rich))
        for old, key in dice.sample(sorted(known), min(3, len(known))) + dice.sample(rich, len(rich) // 3):
            again = _drawn_again(dice, known[old, key])
            phase.calls += [Call(old, {key: again}), Call(old, {f"later{number}": dice.random()})]
    phase.config = {"lr": dice.random(), f"of{number}": {"a": [1, dice.randrange(9)], "b": None}}
    if dice.random() < 0.5:
        phase.summary = {"best": {"score": dice.randrange(100)}, f"note{number}": "said"}
    if dice.random() < 0.4:
        # few contents, which runs and phases share
        files = {f"{dice.choice('xy')}.txt": f"content {dice.randrange(4)}", "same.txt": "the same" * 1000}
        phase.artifacts.append(Made("model", files, dice.choice([(), ("best",)])))
        if dice.random() < 0.5:
            phase.uses.append("model")
    phase.prints = [f"line {number}.{i} of {plan.id}" for i in range(dice.choice([0, 0, 3, 40]))]
    return phase


_NUMBERS: Final = (0, 1, -3, 2**53 + 1, True, 0.1, -2.5e-30, 1e30, math.nan, math.inf, -math.inf)


def _draw_values(dice: random.Random, rules: Mapping[str, Any], step: int) -> dict[str, Any]:
    values: dict[str, Any] = {"a": dice.choice(_NUMBERS) if dice.random() < 0.3 else step + dice.random()}
    if dice.random() < 0.5:
        values["train/loss"] = dice.random()
    for pattern in rules:
        values[pattern.replace("*", "loss")] = dice.random()
    if "val/*" in rules and dice.random() < 0.5:
        values["epoch"] = step // 10
    if dice.random() < 0.04:
        kind = dice.choice([*_MAKERS, "text"])
        seed = dice.randrange(6)  # few contents, too
        values[f"rich/{kind}"] = f"text {seed}\nüber" if kind == "text" else Rich(kind, _source(kind, seed))
    return values


def _drawn_again(dice: random.Random, value: Any) -> Any:
    if isinstance(value, Rich):
        return Rich(value.kind, _source(value.kind, dice.randrange(6)))
    return "another text" if isinstance(value, str) else dice.random()


def _source(kind: str, seed: int) -> Any:
    match kind:
        case "image" | "audio":
            return seed
        case "images":
            return [seed, seed + 1]
        case "html":
            return f"<p>page {seed}</p>"
        case "table":
            return [["a", seed], ["b", seed + 1]]
        case _:
            return [seed, seed, seed + 1.5]


# -- making ------------------------------------------------------------------------------------------------


def pixels(seed: int) -> list[list[list[int]]]:
    """Return an image's content, of shape (4, 5, 3)."""
    dice = random.Random(seed)
    return [[[dice.randrange(256) for _ in range(3)] for _ in range(5)] for _ in range(4)]


def sound(seed: int) -> bytes:
    """Return the content of a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(random.Random(seed).randbytes(200))
    return file.getvalue()


def _image(seed: int) -> tracklayer.Image:
    import numpy as np

    return tracklayer.Image(np.array(pixels(seed), np.uint8), caption=f"{seed}")


def _audio(seed: int) -> tracklayer.Audio:
    path = Path(f"{os.getpid()}.wav")
    path.write_bytes(sound(seed))
    return tracklayer.Audio(str(path))


_MAKERS: Final[dict[str, Callable[[Any], Any]]] = {
    "image": _image,
    "images": lambda seeds: [_image(seed) for seed in seeds],
    "audio": _audio,
    "html": tracklayer.Html,
    "table": lambda rows: tracklayer.Table(columns=["name", "n"], data=rows),
    "histogram": lambda values: tracklayer.Histogram(values, num_bins=3),
}


# -- recording ---------------------------------------------------------------------------------------------


class Recorder:
    """Records a run's phases, one after the other, each time that it is told."""

    # a server that has everything imported, so that a process starts in some milliseconds
    _context = multiprocessing.get_context("forkserver")
    _context.set_forkserver_preload(
        ["push_recording", "numpy", "tracklayer.starting", "tracklayer_sqlite.store"]
    )

    def __init__(self, plan: Plan, store: Path, environment: Mapping[str, str] | None = None) -> None:
        self.plan = plan
        self._environment = dict(environment or {})
        self.spans: dict[int, list[tuple[float, float]]] = {}
        """When each step was logged: the time before the call and after it."""
        self._store = store
        self._next = 0
        self._process: Any = None
        self._pipe: Any = None

    def record(self) -> int:
        """Record the next phase; return its number."""
        number, self._next = self._next, self._next + 1
        if self._process is None:
            self._pipe, other = self._context.Pipe()
            arguments = (self.plan, number, self._store, self._environment, other)
            process = self._context.Process(target=_record, args=arguments, daemon=True)
            process.start()
            self._process = process
            other.close()
        else:
            self._pipe.send("go on")
        if not self._pipe.poll(WAIT):
            msg = f"recording {self.plan.id} hangs"
            raise TimeoutError(msg)
        for call, span in zip(self.plan.phases[number].calls, self._pipe.recv(), strict=True):
            self.spans.setdefault(call.step, []).append(span)
        if self.plan.phases[number].ending != "live":
            self._process.join(WAIT)
            self._process = None
        return number

    def close(self) -> None:
        """End a process that is still there."""
        if self._process is not None:
            self._process.kill()
            self._process.join(WAIT)


def _record(plan: Plan, first: int, store: Path, environment: dict[str, str], pipe: Connection) -> None:
    os.chdir(store.parent)
    said = os.open(f"recording-{plan.id}.txt", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    for name in [name for name in os.environ if name.startswith(("TRACKLAYER_", "WANDB_"))]:
        del os.environ[name]
    os.environ["TRACKLAYER_CONSOLE"] = "python"
    os.environ["TRACKLAYER_SYSTEM_INTERVAL"] = "0.05" if plan.measures_system else "0"
    options = {name: value for name, value in plan.attributes.items() if value is not None}
    run = tracklayer.init(project=PROJECT, id=plan.id, resume="allow", backend="sqlite", dir=store, **options)
    for pattern, rule in plan.rules.items():
        run.define_metric(pattern, **rule)
    for number in range(first, len(plan.phases)):
        phase = plan.phases[number]
        spans = _do(run, phase)
        if phase.ending in {"finished", "failed"}:
            run.finish(exit_code=3 * (phase.ending == "failed"))
        else:
            run.flush()
        pipe.send(spans)
        if phase.ending == "killed":
            time.sleep(random.choice([0.0, 0.5, 1.5]) * plan.is_live)  # some of it is sent, or all
            os.kill(os.getpid(), signal.SIGKILL)
        if phase.ending != "live":
            return
        pipe.recv()


def _do(run: Any, phase: Phase) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []
    run.config.update(phase.config)
    for call in phase.calls:
        values = {k: _MAKERS[v.kind](v.source) if isinstance(v, Rich) else v for k, v in call.values.items()}
        before = time.time()
        run.log(values, step=call.step)
        spans.append((before, time.time()))
    for key, value in phase.summary.items():
        run.summary[key] = value
    for made in phase.artifacts:
        artifact = tracklayer.Artifact(made.name, "model", metadata={"files": len(made.files)})
        for path, text in made.files.items():
            with artifact.new_file(path) as file:
                file.write(text)
        run.log_artifact(artifact, aliases=list(made.aliases))
    for name in phase.uses:
        run.use_artifact(f"{name}:latest")
    for line in phase.prints:
        print(line, file=sys.stderr if "1" in line else sys.stdout)
    return spans
