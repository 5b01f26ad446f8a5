"""What is measured of accelerators: NVIDIA's through NVML, and all of JAX's by what JAX says of them.

Of each GPU that NVML lists, by its index there, with W&B's keys and units:

    gpu.0.gpu, gpu.0.memory           percent of the last moment in which it computed, and used its memory
    gpu.0.memoryAllocated             memory in use, percent
    gpu.0.memoryAllocatedBytes        the same, bytes
    gpu.0.temp                        degrees Celsius
    gpu.0.powerWatts                  and gpu.0.enforcedPowerLimitWatts, and the one in percent of the
                                      other, gpu.0.powerPercent

Of each local device of JAX, in JAX's order, what `memory_stats()` says, in bytes:
`jax.0.bytes_in_use`, `jax.0.peak_bytes_in_use` and `jax.0.bytes_limit`.  CPUs say nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, final

_JAX_STATS: Final = ("bytes_in_use", "peak_bytes_in_use", "bytes_limit")
_NVML: Final = "pynvml"  # the module of the package nvidia-ml-py


def gpu_probe() -> NvmlProbe | None:
    """Return a probe of NVIDIA's GPUs, where NVML and its Python package are there and list any."""
    try:
        nvml: Any = import_module(_NVML)
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:  # no driver, or none that this process may ask
        return None
    return NvmlProbe(nvml, handles) if handles else None


@final
class NvmlProbe:
    """Measures GPUs; what one of them does not support is not asked of it again."""

    def __init__(self, nvml: Any, handles: list[Any]) -> None:
        self._nvml = nvml
        readings: tuple[Callable[[Any], Mapping[str, float]], ...] = (
            self._utilization,
            self._memory,
            self._temperature,
            self._power,
        )
        self._readings = [(index, handle, read) for index, handle in enumerate(handles) for read in readings]

    def __call__(self) -> dict[str, float]:
        """Return the values of now."""
        values: dict[str, float] = {}
        supported: list[Any] = []
        for index, handle, read in self._readings:
            try:
                found = read(handle)
            except self._nvml.NVMLError:
                continue
            values.update((f"gpu.{index}.{name}", value) for name, value in found.items())
            supported.append((index, handle, read))
        self._readings = supported
        return values

    def _utilization(self, handle: Any) -> Mapping[str, float]:
        rates = self._nvml.nvmlDeviceGetUtilizationRates(handle)
        return {"gpu": rates.gpu, "memory": rates.memory}

    def _memory(self, handle: Any) -> Mapping[str, float]:
        found = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        return {"memoryAllocated": 100 * found.used / found.total, "memoryAllocatedBytes": found.used}

    def _temperature(self, handle: Any) -> Mapping[str, float]:
        return {"temp": self._nvml.nvmlDeviceGetTemperature(handle, self._nvml.NVML_TEMPERATURE_GPU)}

    def _power(self, handle: Any) -> Mapping[str, float]:
        watts = self._nvml.nvmlDeviceGetPowerUsage(handle) / 1000
        limit = self._nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000
        return {
            "powerWatts": watts,
            "enforcedPowerLimitWatts": limit,
            "powerPercent": 100 * watts / limit,
        }


def jax_memory() -> dict[str, float]:
    """Return what JAX's devices say of their memory; nothing before the program has made JAX find them.

    JAX is not imported here, and not made to look for devices: which it finds, and when, is the program's.
    """
    bridge: Any = sys.modules.get("jax._src.xla_bridge")  # JAX has no public way to ask
    has_devices = getattr(bridge, "backends_are_initialized", None)  # nor has it that while it is imported
    if has_devices is None or not has_devices():
        return {}
    values: dict[str, float] = {}
    for index, device in enumerate(sys.modules["jax"].local_devices()):
        stats: Mapping[str, float] = device.memory_stats() or {}
        values.update((f"jax.{index}.{name}", stats[name]) for name in _JAX_STATS if name in stats)
    return values
