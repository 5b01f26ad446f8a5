"""What is measured of the machine: real values of this process, a stand-in for NVML, and JAX's own words."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from machine import Machine, killed_at_the_end, wait_until
from tracklayer.surroundings import SystemRow
from tracklayer.system import sampling
from tracklayer.system.accelerators import gpu_probe, jax_memory
from tracklayer.system.probes import ProcessProbe, ThroughputProbe
from tracklayer.system.sampling import SystemSampler
from wandb_server import WandbServer

EVERYWHERE = {
    "cpu",
    "proc.memory.rssMB",
    "proc.memory.percent",
    "proc.memory.availableMB",
    "proc.cpu.threads",
    "memory_percent",
    "disk./.usagePercent",
    "disk./.usageGB",
    "network.sent",
    "network.recv",
    "throughput.steps_per_second",
}
"""What is measured on any machine."""
WHERE_A_DISK_CAN_BE_SEEN = re.compile(r"disk\.([\w-]+\.)?(in|out)")

NVML = """
class NVMLError(Exception):
    pass

NVML_TEMPERATURE_GPU = 0

class Record:
    def __init__(self, **fields):
        self.__dict__.update(fields)

def nvmlInit():
    {on_init}

def nvmlDeviceGetCount():
    return 2

def nvmlDeviceGetHandleByIndex(index):
    return index

def nvmlDeviceGetUtilizationRates(handle):
    return Record(gpu=90 + handle, memory=40 + handle)

def nvmlDeviceGetMemoryInfo(handle):
    return Record(used=20 * 10**9, total=80 * 10**9)

def nvmlDeviceGetTemperature(handle, sensor):
    assert sensor == NVML_TEMPERATURE_GPU
    return 60 + handle

asked = []

def nvmlDeviceGetPowerUsage(handle):
    asked.append(handle)
    if handle == 1:
        raise NVMLError("Not Supported")
    return 350_000

def nvmlDeviceGetEnforcedPowerLimit(handle):
    return 700_000
"""
"""Two GPUs, one of which cannot tell its power, as NVML's package would show them."""


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # an import of it fails


@pytest.fixture
def sampled(no_gpu: None) -> Iterator[Callable[..., SystemSampler]]:
    """Make samplers that end with the test."""
    made: list[SystemSampler] = []

    def make(
        sink: Callable[[SystemRow], None], interval: float, steps: Callable[[], int] = int
    ) -> SystemSampler:
        made.append(SystemSampler(sink, interval, steps))
        made[-1].start()
        return made[-1]

    yield make
    for sampler in made:
        sampler.stop()


def nvml(folder: Path, monkeypatch: pytest.MonkeyPatch, on_init: str = "pass") -> None:
    (folder / "pynvml.py").write_text(NVML.format(on_init=on_init))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)


# -- this process ---------------------------------------------------------------------------------------


def test_rows_are_plausible_and_have_the_names_of_w_and_bs_panel(
    sampled: Callable[..., SystemSampler],
) -> None:
    rows: list[SystemRow] = []
    before = time.time()
    sampler = sampled(rows.append, 0.05)
    wait_until(lambda: len(rows) >= 3)
    sampler.stop()
    for row in rows:
        assert {key for key in row.values if not WHERE_A_DISK_CAN_BE_SEEN.fullmatch(key)} == EVERYWHERE
        assert all(type(value) is float and math.isfinite(value) for value in row.values.values())
        assert 0 <= row.values["cpu"] <= 110
        for key in ("memory_percent", "proc.memory.percent", "disk./.usagePercent"):
            assert 0 < row.values[key] <= 100
        for key in ("network.sent", "network.recv"):
            assert row.values[key] >= 0
    times = [row.time for row in rows]
    assert times == sorted(times)
    assert before < times[0] < times[-1] <= time.time()
    last = rows[-1].values
    mib = psutil.Process().memory_info().rss / 2**20
    assert last["proc.memory.rssMB"] == pytest.approx(mib, rel=0.3)
    assert last["proc.memory.availableMB"] < psutil.virtual_memory().total / 2**20
    assert last["proc.cpu.threads"] >= threading.active_count() - 1


@pytest.mark.slow
def test_the_names_are_those_that_w_and_bs_client_sends(
    tmp_path: Path, sampled: Callable[..., SystemSampler]
) -> None:
    script = "import sys, wandb; run = wandb.init(project='p'); sys.stdin.readline(); run.finish()"
    # the client's monitor has a socket in the temporary folder, and that of a test has too long a path
    stats = {"TMPDIR": None, "WANDB_X_DISABLE_STATS": None, "WANDB_X_STATS_SAMPLING_INTERVAL": "1"}
    with WandbServer() as server:

        def sent() -> set[str]:
            return {key for run in server.runs.values() for event in run.events for key in event}

        client = Machine(tmp_path, server).start(script, **stats)
        with killed_at_the_end(client):
            wait_until(lambda: "system.cpu" in sent())
            client.tell()
            client.end()
    theirs = {key.removeprefix("system.") for key in sent() if key.startswith("system.")}
    rows: list[SystemRow] = []
    sampler = sampled(rows.append, 0.01)
    wait_until(lambda: rows)
    sampler.stop()
    ours = rows[0].values.keys()
    assert theirs - ours <= {"network.tcpRetransmits"}
    assert ours - theirs == {"throughput.steps_per_second"}


def test_a_busy_process_shows_in_its_share_of_the_cpus() -> None:
    probe = ProcessProbe()
    used, end = time.process_time(), time.monotonic() + 0.25
    while time.monotonic() < end:
        pass
    used = time.process_time() - used
    cpu = probe()["cpu"]
    assert cpu == pytest.approx(100 * used / 0.25 / (psutil.cpu_count() or 1), rel=0.5, abs=10)
    assert cpu > 0


def test_the_throughput_is_that_since_the_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, step = [100.0], [7]
    monkeypatch.setattr("tracklayer.system.probes.monotonic", lambda: clock[0])
    probe = ThroughputProbe(lambda: step[0])
    found: list[float] = []
    for seconds, steps in ((10, 2000), (10, 0), (5, 100), (5, -300), (0, 0)):
        clock[0] += seconds
        step[0] += steps
        found += probe().values()
    assert found[:4] == [200.0, 0.0, 20.0, 0.0]  # a run that went back to an older step is not slower than 0
    assert math.isnan(found[4])  # which the sampler leaves out


# -- the sampler ------------------------------------------------------------------------------------------


def test_a_short_run_has_one_row_from_its_stop(sampled: Callable[..., SystemSampler]) -> None:
    rows: list[SystemRow] = []
    sampler = sampled(rows.append, 10.0)
    sampler.stop()
    assert len(rows) == 1
    assert EVERYWHERE - {"cpu", "throughput.steps_per_second"} <= rows[0].values.keys()


def test_the_first_row_does_not_wait_for_a_long_interval(
    sampled: Callable[..., SystemSampler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_FIRST", 0.05)
    rows: list[SystemRow] = []
    sampler = sampled(rows.append, math.inf)
    wait_until(lambda: rows)
    sampler.stop()
    assert len(rows) == 2


def test_nothing_comes_after_the_stop_even_if_a_probe_hangs(
    sampled: Callable[..., SystemSampler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_PATIENCE", 0.05)
    hanging, goes_on = threading.Event(), threading.Event()

    def hangs() -> Mapping[str, float]:
        hanging.set()
        goes_on.wait(60)
        return {"memory_percent": 1.0}

    monkeypatch.setattr(sampling, "memory", hangs)
    rows: list[SystemRow] = []
    sampler = sampled(rows.append, 0.01)
    assert hanging.wait(60)
    sampler.stop()
    goes_on.set()
    sampler._thread.join(60)
    assert not sampler._thread.is_alive()
    assert rows == []


def test_a_probe_that_fails_is_left_out_and_reported_once(
    sampled: Callable[..., SystemSampler], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def fails() -> Mapping[str, float]:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(5, "it is gone")
        return {"memory_percent": 1.0}

    monkeypatch.setattr(sampling, "memory", fails)
    rows: list[SystemRow] = []
    sampler = sampled(rows.append, 0.01)
    wait_until(lambda: len(rows) >= 4)
    sampler.stop()
    assert ["memory_percent" in row.values for row in rows][:4] == [True, False, False, False]
    assert all("cpu" in row.values for row in rows[1:])
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("tracklayer: system metrics: memory is not measured any more: OSError(5")


def test_a_sink_that_fails_ends_the_measuring_with_one_report(
    sampled: Callable[..., SystemSampler], caplog: pytest.LogCaptureFixture
) -> None:
    taken = []

    def sink(row: SystemRow) -> None:
        taken.append(row)
        raise OSError(28, "full")

    sampler = sampled(sink, 0.01)
    sampler._thread.join(60)
    assert not sampler._thread.is_alive()
    assert len(taken) == len(caplog.records) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_measures_nothing(sampled: Callable[..., SystemSampler], tmp_path: Path) -> None:
    rows: list[SystemRow] = []
    sampler = sampled(rows.append, 0.02)
    wait_until(lambda: rows)
    child = os.fork()
    if child == 0:
        had = len(rows)
        time.sleep(0.2)
        sampler.stop()
        os._exit(0 if len(rows) == had else 1)
    assert os.waitpid(child, 0)[1] == 0
    had = len(rows)
    wait_until(lambda: len(rows) > had)  # the parent goes on


# -- accelerators -----------------------------------------------------------------------------------------


def test_nvml_tells_of_each_gpu_with_w_and_bs_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(tmp_path, monkeypatch)
    probe = gpu_probe()
    assert probe is not None
    alike = {"memoryAllocated": 25.0, "memoryAllocatedBytes": 20 * 10**9}
    first = {"gpu": 90, "memory": 40, "temp": 60, **alike}
    first |= {"powerWatts": 350, "enforcedPowerLimitWatts": 700, "powerPercent": 50}
    second = {"gpu": 91, "memory": 41, "temp": 61, **alike}
    expected = {f"gpu.0.{k}": v for k, v in first.items()} | {f"gpu.1.{k}": v for k, v in second.items()}
    assert probe() == expected
    assert probe() == expected
    asked: Any = sys.modules["pynvml"].asked
    assert asked == [0, 1, 0]  # the power of the second is not asked for again


def test_gpus_are_in_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nvml(tmp_path, monkeypatch)
    rows: list[SystemRow] = []
    sampler = SystemSampler(rows.append, 10, int)
    sampler.start()
    sampler.stop()
    assert rows[0].values["gpu.0.powerWatts"] == 350.0
    assert rows[0].values["gpu.1.gpu"] == 91.0
    assert caplog.records == []


def test_without_a_driver_or_without_the_package_there_are_no_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nvml(tmp_path, monkeypatch, on_init='raise NVMLError("Driver Not Loaded")')
    assert gpu_probe() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_probe() is None
    assert caplog.records == []


class _Device:
    """A device of JAX that counts its memory, which a CPU does not."""

    def __init__(self, stats: dict[str, int] | None) -> None:
        self._stats = stats

    def memory_stats(self) -> dict[str, int] | None:
        return self._stats


def test_devices_of_jax_tell_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    assert jax.local_devices()  # the program has made JAX find them
    assert jax_memory() == {}  # CPUs do not count
    stats = {"bytes_in_use": 10, "peak_bytes_in_use": 20, "bytes_limit": 30, "num_allocs": 4}
    found = [_Device(stats), _Device(None), _Device({"bytes_in_use": 5})]
    monkeypatch.setattr(jax, "local_devices", lambda: found)
    assert jax_memory() == {
        "jax.0.bytes_in_use": 10,
        "jax.0.peak_bytes_in_use": 20,
        "jax.0.bytes_limit": 30,
        "jax.2.bytes_in_use": 5,
    }


@pytest.mark.slow
def test_jax_is_neither_imported_nor_made_to_look_for_devices() -> None:
    script = """
        import sys
        from tracklayer.system.accelerators import jax_memory
        assert jax_memory() == {}
        assert "jax" not in sys.modules
        import jax
        from jax._src import xla_bridge
        assert jax_memory() == {}
        assert not xla_bridge.backends_are_initialized()
        jax.devices()
        assert jax_memory() == {}
        assert xla_bridge.backends_are_initialized()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
