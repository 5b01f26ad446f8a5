"""Measuring the machine every few seconds, while a run is recorded."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from time import time as now
from typing import Final, final

from tracklayer import reporting
from tracklayer.bell import Bell
from tracklayer.surroundings import SystemRow
from tracklayer.system.accelerators import gpu_probe, jax_memory
from tracklayer.system.probes import (
    DiskProbe,
    NetworkProbe,
    Probe,
    ProcessProbe,
    ThroughputProbe,
    disk_space,
    memory,
)

_FIRST: Final = 1.0
"""Seconds until the first row: differences need a while."""
_PATIENCE: Final = 5.0
"""Seconds that `stop` waits for the last row: a driver or a network disk may hang."""


@final
class SystemSampler:
    """Measures this process and its machine, on a daemon thread of its own.

    The first row comes after a second, or the interval if that is less, and the last at the stop.  What
    fails is left out from then on, and reported once.  A forked child measures nothing.

    Args:
        sink: takes each row, on that thread.
        interval: seconds between rows.
        steps: returns the run's step, for its throughput.
    """

    def __init__(self, sink: Callable[[SystemRow], None], interval: float, steps: Callable[[], int]) -> None:
        self._sink = sink
        self._interval = min(interval, threading.TIMEOUT_MAX)
        self._steps = steps
        self._probes: dict[str, Probe] = {}
        self._bell = Bell()
        self._is_stopping = False
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="tracklayer-system", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def stop(self) -> None:
        """Measure once more, and end; nothing reaches the sink after this has returned."""
        self._is_stopping = True
        self._bell.ring()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)
        self._is_over = True

    def _work(self) -> None:
        self._open_probes()
        wait, is_last = min(_FIRST, self._interval), False
        while not is_last:
            self._bell.wait(wait)
            wait, is_last = self._interval, self._is_stopping
            row = self._sample()
            if self._is_over:
                return
            try:
                self._sink(row)
            except Exception as error:  # noqa: BLE001 - what takes no rows is not measured for
                self._give_up("the machine", error)
                return

    def _open_probes(self) -> None:
        makers: dict[str, Callable[[], Probe | None]] = {
            "process": ProcessProbe,
            "memory": lambda: memory,
            "disk space": lambda: disk_space,
            "disks": DiskProbe,
            "network": NetworkProbe,
            "GPUs": gpu_probe,
            "JAX": lambda: jax_memory,
            "throughput": lambda: ThroughputProbe(self._steps),
        }
        for name, make in makers.items():
            try:
                probe = make()
            except Exception as error:  # noqa: BLE001 - whatever a driver raises costs its own values only
                self._give_up(name, error)
            else:
                if probe is not None:
                    self._probes[name] = probe

    def _sample(self) -> SystemRow:
        """Measure now; values that are not finite are left out."""
        values: dict[str, float] = {}
        for name, probe in list(self._probes.items()):
            try:
                found = probe()
                values.update((key, float(value)) for key, value in found.items() if math.isfinite(value))
            except Exception as error:  # noqa: BLE001 - as above
                del self._probes[name]
                self._give_up(name, error)
        return SystemRow(now(), values)

    @staticmethod
    def _give_up(name: str, error: Exception) -> None:
        reporting.warn(f"system metrics: {name} is not measured any more: {error!r}")
