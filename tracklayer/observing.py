"""What a run's process is, prints and measures: recorded beside it, from `init` to `finish`.

Nothing of it makes the program wait but the end of what is going on at `finish`, for a bounded time, and
nothing of it brings the program down: what fails is reported once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, final

from tracklayer import reporting
from tracklayer.environment import PARTS
from tracklayer.fanout import FanOut
from tracklayer.forking import ForkGate, tell_children
from tracklayer.protocol import TakesConsole, TakesEnvironment, TakesSystemMetrics

if TYPE_CHECKING:
    from tracklayer.artifacts.artifact import Artifact
    from tracklayer.queue import Queue
    from tracklayer.settings import Settings
    from tracklayer.surroundings import ConsoleLine, Environment, SystemRow

_PATIENCE: Final = 5.0
"""Seconds that `stop` waits for the environment, and for the last lines."""


@final
class Observers:
    """Records the environment, the console and the system metrics of this process.

    Args:
        queues: where to; what no backend takes is not looked at.
        log_artifact: logs the code.
        project: the run's.
        settings: what is wanted.
        started_at: when the run was opened here, in Unix seconds.
        steps: returns how many steps were logged so far.
    """

    def __init__(
        self,
        queues: Sequence[Queue],
        log_artifact: Callable[[Artifact], Artifact],
        project: str,
        settings: Settings,
        started_at: float,
        steps: Callable[[], int],
    ) -> None:
        self._queues = queues
        self._sink = FanOut(queues)
        self._log_artifact = log_artifact
        self._project = project
        self._settings = settings
        self._started_at = started_at
        self._steps = steps
        self._stops: list[tuple[str, Callable[[], None]]] = []
        self._has_stopped = False
        self._at_work = ForkGate()
        """Held by the capture: a child must not inherit the lock of a module that is just being imported."""
        self._jax: dict[str, Any] | None = None
        """The environment's entry about JAX, which may be without its devices yet."""
        tell_children(self)

    def start(self) -> None:
        """Begin; what takes its time is done on threads of its own."""
        wanted = self._settings
        if wanted.replaying:
            return
        if wanted.omit < PARTS and self._is_taken(TakesEnvironment):
            self._attempt("the environment", self._start_capture)
        if wanted.system_interval and self._is_taken(TakesSystemMetrics):
            self._attempt("the system metrics", self._start_sampler)
        mode = wanted.console
        if mode != "off" and self._is_taken(TakesConsole):
            self._attempt("the console", lambda: self._start_console(mode))

    def stop(self) -> None:
        """End it, and wait for a few seconds until the queues have all of it.

        A second call waits for nothing, as that of a signal handler which interrupts the first.
        """
        stops, self._stops = self._stops, []
        if stops:
            ending = threading.Thread(target=self._end, args=(stops,), name="tracklayer-ending", daemon=True)
            try:
                ending.start()
            except RuntimeError:  # the interpreter is going down and starts no threads any more
                self._end(stops)
            else:
                ending.join(_PATIENCE)
                if ending.is_alive():
                    reporting.warn(
                        f"what this process is and printed is recorded without what was still being looked "
                        f"for {_PATIENCE:.0f} s after its end"
                    )
        self._has_stopped = True

    def record_preemption(self, by: str) -> None:
        """Record which signal ends the process, or that its program announces that something does."""
        self._record_environment({"preempted_by": by})

    def after_fork_in_child(self) -> None:
        """Record nothing here: the run is the parent's."""
        self._has_stopped = True
        self._stops = []

    def _is_taken(self, capability: type) -> bool:
        return any(queue.takes(capability) for queue in self._queues)

    def _attempt(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - tracking never brings training down
            reporting.warn(f"{what} of this process cannot be recorded: {error!r}")

    def _end(self, stops: list[tuple[str, Callable[[], None]]]) -> None:
        for what, stop in reversed(stops):
            self._attempt(what, stop)

    # -- the environment --------------------------------------------------------------------------

    def _start_capture(self) -> None:
        thread = threading.Thread(
            target=self._attempt,
            args=("the environment", self._capture),
            name="tracklayer-environment",
            daemon=True,
        )
        self._stops.append(("the devices", self._find_devices))  # after the rest: the last is ended first
        self._stops.append(("the environment", thread.join))
        thread.start()

    def _capture(self) -> None:
        with self._at_work:
            from tracklayer.environment.capturing import capture

            environment = capture(self._settings.omit, self._started_at)
        self._jax = environment.get("jax")
        self._record_environment(environment)
        if self._settings.save_code and "code" not in self._settings.omit:
            self._attempt("the code", self._record_code)

    def _record_code(self) -> None:
        from tracklayer.environment.sources import imported_code

        code = imported_code(self._project)
        if code is not None and not self._has_stopped:
            self._record_environment({"code": self._log_artifact(code).wait().name})

    def _find_devices(self) -> None:
        """Record what JAX runs on once it knows: most programs ask it after `init`."""
        if self._jax is None or "backend" in self._jax:
            return
        from tracklayer.environment.machine import jax_devices

        found = jax_devices()
        if found:
            self._jax = {**self._jax, **found}
            self._record_environment({"jax": self._jax})

    def _record_environment(self, environment: Environment) -> None:
        if not self._has_stopped:
            self._sink.record_environment(environment)

    # -- the machine ------------------------------------------------------------------------------

    def _start_sampler(self) -> None:
        from tracklayer.system.sampling import SystemSampler

        sampler = SystemSampler(self._log_system, self._settings.system_interval, self._steps)
        sampler.start()
        self._stops.append(("the system metrics", sampler.stop))

    def _log_system(self, row: SystemRow) -> None:
        if not self._has_stopped:
            self._sink.log_system(row)
            self._find_devices()

    # -- the console ------------------------------------------------------------------------------

    def _start_console(self, mode: Literal["python", "process"]) -> None:
        from tracklayer.console.capturing import ConsoleCapture

        console = ConsoleCapture(self._log_console, mode)
        console.start()
        self._stops.append(("the console", console.stop))

    def _log_console(self, lines: Sequence[ConsoleLine]) -> None:
        if not self._has_stopped:
            self._sink.log_console(lines)
