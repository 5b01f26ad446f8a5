"""What is measured of this process and its machine, through psutil.

A probe is a call without arguments that returns values by key.  Keys and units are those of W&B's client
(docs.wandb.ai, "System Metrics Reference"), so that W&B's system panel shows them:

    cpu                          percent of all logical CPUs that this process used, since the last row
    proc.memory.rssMB            resident memory of this process, MiB
    proc.memory.percent          the same, in percent of the machine's
    proc.memory.availableMB      what the machine can still give, MiB
    proc.cpu.threads             threads of this process
    memory_percent               memory in use on the machine, percent
    disk./.usagePercent, disk./.usageGB    space in use on the disk of /
    disk.vda.in, disk.vda.out    MiB read from and written to that disk, here vda, since the first look;
                                 disk.in and disk.out, of all disks, where it has no name
    network.sent, network.recv   bytes of all interfaces but the loopback, likewise

`throughput.steps_per_second`, of the run since the last row, is ours.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from time import monotonic, process_time
from typing import Final, TypeAlias, final

Probe: TypeAlias = Callable[[], Mapping[str, float]]

MIB: Final = 2.0**20
_GIB: Final = 2.0**30
_DISK: Final = "/"


@final
class ProcessProbe:
    """Measures this process: its share of the CPUs, its memory and its threads."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self._cpus = psutil.cpu_count() or 1
        self._memory = psutil.virtual_memory().total
        self._cpu_seconds = Rate(process_time())

    def __call__(self) -> dict[str, float]:
        """Return the values of now."""
        with self._process.oneshot():
            rss = self._process.memory_info().rss
            return {
                "cpu": 100 * self._cpu_seconds.since_last(process_time()) / self._cpus,
                "proc.memory.rssMB": rss / MIB,
                "proc.memory.percent": 100 * rss / self._memory,
                "proc.cpu.threads": self._process.num_threads(),
            }


def memory() -> dict[str, float]:
    """Return how much of the machine's memory is in use."""
    import psutil

    found = psutil.virtual_memory()
    return {"memory_percent": found.percent, "proc.memory.availableMB": found.available / MIB}


def disk_space() -> dict[str, float]:
    """Return how full the disk of the root folder is."""
    import psutil

    found = psutil.disk_usage(_DISK)
    return {f"disk.{_DISK}.usagePercent": found.percent, f"disk.{_DISK}.usageGB": found.used / _GIB}


@final
class DiskProbe:
    """Measures what was read from and written to the disk of the root folder since the first look."""

    def __init__(self) -> None:
        self._name = _root_disk()
        self._first = self._counters()

    def __call__(self) -> dict[str, float]:
        """Return the values of now; nothing where there are no disks to see, as in some containers."""
        first, now = self._first, self._counters()
        if first is None or now is None:
            return {}
        disk = f"disk.{self._name}" if self._name else "disk"
        return {f"{disk}.in": (now[0] - first[0]) / MIB, f"{disk}.out": (now[1] - first[1]) / MIB}

    def _counters(self) -> tuple[int, int] | None:
        import psutil

        if self._name:
            found = psutil.disk_io_counters(perdisk=True).get(self._name)
        else:
            found = psutil.disk_io_counters()
        return None if found is None else (found.read_bytes, found.write_bytes)


@cache
def _root_disk() -> str | None:
    """Return Linux's name of the whole disk that holds the root folder; None where there is none to see."""
    if sys.platform != "linux":
        return None
    number = Path(_DISK).stat().st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    if (device / "partition").exists():
        device = device.parent
    return device.name if device.exists() else None


@final
class NetworkProbe:
    """Measures what all interfaces but the loopback have sent and received since the first look."""

    def __init__(self) -> None:
        self._first = self._counters()

    def __call__(self) -> dict[str, float]:
        """Return the values of now."""
        now = self._counters()
        return {"network.sent": now[0] - self._first[0], "network.recv": now[1] - self._first[1]}

    @staticmethod
    def _counters() -> tuple[int, int]:
        import psutil

        found = [c for name, c in psutil.net_io_counters(pernic=True).items() if not name.startswith("lo")]
        return sum(c.bytes_sent for c in found), sum(c.bytes_recv for c in found)


@final
class ThroughputProbe:
    """Measures the steps a second of the run.

    Args:
        steps: returns the run's step.
    """

    def __init__(self, steps: Callable[[], int]) -> None:
        self._steps = steps
        self._rate = Rate(steps())

    def __call__(self) -> dict[str, float]:
        """Return the values of now."""
        return {"throughput.steps_per_second": self._rate.since_last(self._steps())}


@final
class Rate:
    """How fast a number grows, in units a second."""

    def __init__(self, number: float) -> None:
        self._number = number
        self._time = monotonic()

    def since_last(self, number: float) -> float:
        """Return it since the last call, or since the start; NaN if that is no time at all."""
        now = monotonic()
        seconds, grown = now - self._time, number - self._number
        self._time, self._number = now, number
        return max(0.0, grown / seconds) if seconds > 0 else math.nan
