"""What recording the console costs a program that prints, as ratios within one run.

    python benchmarks/console.py

A loop prints 100,000 lines to where a program prints: nowhere, a file, a terminal.  Machines are shared and
noisy: what is compared is interleaved in one process, and medians are taken of the ratios of neighbours.
"""

from __future__ import annotations

import json
import operator
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from tracklayer.console.capturing import ConsoleCapture

LINES = 100_000
ROUNDS = 9


def main() -> None:
    print(f"a loop that prints {LINES:,} lines: ns a line, and ratio to the same loop without capture")
    with tempfile.TemporaryDirectory() as folder, terminal() as screen:
        places = {"/dev/null": os.devnull, "a file": str(Path(folder, "out")), "a terminal": screen}
        for name, path in places.items():
            figures = measured_in_a_child(path, Path(folder, "figures"))
            print(f"  to {name}")
            for what, (nanoseconds, ratio) in figures.items():
                target = "  target <= 1.3" if what == 'mode "python", the loop' else ""
                print(f"    {what:<44}{nanoseconds:>8.0f} ns   x {ratio:.2f}{target}")


@contextmanager
def terminal() -> Iterator[str]:
    """A terminal of which somebody reads all."""
    controller, end = pty.openpty()

    def read() -> None:
        while os.read(controller, 65536):
            pass

    threading.Thread(target=read, daemon=True).start()
    yield os.ttyname(end)


def measured_in_a_child(path: str, figures: Path) -> dict[str, tuple[float, float]]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open(path, "w") as place:  # noqa: PTH123 - it is one that a path names, such as a terminal
        subprocess.run([sys.executable, __file__, str(figures)], stdout=place, env=environment, check=True)
    return json.loads(figures.read_text())


def child(figures: Path) -> None:
    """Measure here, where standard output leads."""
    found: dict[str, list[float]] = {}
    ways: dict[str, Callable[[], Any]] = {
        "without": nullcontext,
        'mode "python"': lambda: captured("python"),
        'mode "process"': lambda: captured("process"),
    }
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            with way():
                seconds = timed_loop()
            whole = time.perf_counter() - start
            found.setdefault(name if name == "without" else f"{name}, the loop", []).append(seconds)
            if name != "without":
                found.setdefault(f"{name}, with start and stop", []).append(whole)
    with wandb_capture():  # at last: it never gives `write` back
        found["wandb's, its callback doing nothing"] = [timed_loop() for _ in range(ROUNDS)]
    figures.write_text(
        json.dumps(
            {
                name: (
                    statistics.median(times) / LINES * 1e9,
                    statistics.median(map(operator.truediv, times, found["without"])),
                )
                for name, times in found.items()
            }
        )
    )


def timed_loop() -> float:
    start = time.perf_counter()
    for step in range(LINES):
        print(f"step {step}: loss {1 / (step + 1):.4f}, accuracy {step / LINES:.4f}")
    sys.stdout.flush()
    return time.perf_counter() - start


@contextmanager
def captured(mode: Any) -> Iterator[None]:
    count = 0

    def sink(lines: Sequence[Any]) -> None:
        nonlocal count
        count += len(lines)

    capture = ConsoleCapture(sink, mode)
    capture.start()
    yield
    capture.stop()
    assert count == LINES, count


@contextmanager
def wandb_capture() -> Iterator[None]:
    from wandb.sdk.lib import console_capture

    undo = console_capture.capture_stdout(lambda *_: None)
    yield
    undo()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(Path(sys.argv[1]))
    else:
        main()
