"""The machine and the job that a program runs on: processors, memory, devices, Slurm, Kubernetes, variables.

JAX is not imported, and none of its backends is initialised: what it knows is read where the program made it
known already.
"""

from __future__ import annotations

import platform
import re
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from tracklayer.environment.masking import is_secret_name

_VARIABLES: Final = re.compile(
    r"(JAX|XLA|LIBTPU|TPU|NCCL|OMP|MKL|OPENBLAS|OMPI_COMM_WORLD|PMI|KMP|CUDA|HIP|ROCR|NVIDIA|NEURON|KERAS"
    r"|FLAX|OPTAX|ORBAX|MALLOC|TF_(CPP|CUDNN|DETERMINISTIC|ENABLE|FORCE|GPU|XLA))_[A-Z0-9_]+"
    r"|PYTHON(HASHSEED|OPTIMIZE|UNBUFFERED|WARNINGS|FAULTHANDLER|PATH|NOUSERSITE|MALLOC)"
    r"|LD_PRELOAD|LD_LIBRARY_PATH|CONDA_DEFAULT_ENV|TOKENIZERS_PARALLELISM"
)
"""What steers how a program computes; nothing that says who runs it."""
_SLURM: Final = (
    *("ARRAY_JOB_ID", "ARRAY_TASK_ID", "CLUSTER_NAME", "CPUS_PER_TASK", "GPUS_ON_NODE", "JOB_ID", "JOB_NAME"),
    *("JOB_NODELIST", "JOB_NUM_NODES", "JOB_PARTITION", "JOB_QOS", "LOCALID", "NODEID", "NTASKS", "PROCID"),
    *("RESTART_COUNT", "SUBMIT_DIR"),
)
_KUBERNETES: Final = {
    "POD_NAME": "pod",
    "POD_NAMESPACE": "namespace",
    "NODE_NAME": "node",
    "JOB_NAME": "job",
    "JOB_COMPLETION_INDEX": "completion_index",
}
_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_NVIDIA: Final = Path("/proc/driver/nvidia/gpus")


@cache
def host_facts() -> dict[str, Any]:
    """Return the host's name, its processors and its memory in bytes."""
    import psutil

    return {
        "host": platform.node(),
        "cpu": _processor(),
        "cpu_count": psutil.cpu_count(logical=False),
        "cpu_count_logical": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def jax_devices() -> dict[str, Any]:
    """Return what JAX runs on, if it has found that out already: backend, processes, devices of this one."""
    jax, bridge = _imported("jax"), _imported("jax._src.xla_bridge")
    lock = getattr(bridge, "_backend_lock", None)
    # without a backend, to ask would initialise one; while one is being initialised, to ask would wait
    if jax is None or not getattr(bridge, "_backends", None) or lock is None or lock.locked():
        return {}
    devices = jax.local_devices()
    counts = Counter(device.device_kind for device in devices)
    memory = {device.device_kind: _memory(device) for device in reversed(devices)}
    return {
        "backend": jax.default_backend(),
        "process_count": jax.process_count(),
        "process_index": jax.process_index(),
        "devices": [
            {"kind": kind, "count": count} | ({"memory_bytes": memory[kind]} if memory[kind] else {})
            for kind, count in counts.items()
        ],
    }


@cache
def gpu_names() -> list[str]:
    """Return the names of the machine's NVIDIA GPUs, whether or not the program may use them."""
    models = [
        line.partition(":")[2].strip()
        for file in sorted(_NVIDIA.glob("*/information"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.startswith("Model:")
    ]
    return models or _names_by_nvml()


def slurm_job(variables: Mapping[str, str]) -> dict[str, str]:
    """Return which job of Slurm's this is, by its variables' names in lower case: `job_id` and so on."""
    return {name.lower(): variables[f"SLURM_{name}"] for name in _SLURM if f"SLURM_{name}" in variables}


def kubernetes_job(variables: Mapping[str, str]) -> dict[str, str]:
    """Return which pod of Kubernetes this is."""
    if "KUBERNETES_SERVICE_HOST" not in variables:
        return {}
    known = {"pod": platform.node()}
    with suppress(OSError):
        known["namespace"] = _NAMESPACE.read_text(encoding="utf-8").strip()
    return known | {entry: variables[name] for name, entry in _KUBERNETES.items() if name in variables}


def allowed_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that steer how a program computes, but for those that may be secrets."""
    return {
        name: value
        for name, value in sorted(variables.items())
        if _VARIABLES.fullmatch(name) and not is_secret_name(name)
    }


def _processor() -> str | None:
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or None


def _imported(name: str) -> Any:
    """Return a module that the program has imported, and is not importing just now."""
    module = sys.modules.get(name)
    is_halfway = getattr(getattr(module, "__spec__", None), "_initializing", False)
    return None if is_halfway else module


def _memory(device: Any) -> int | None:
    """Return the bytes that a device lets JAX use; None for one that does not say, such as a CPU."""
    statistics = device.memory_stats()
    return statistics.get("bytes_limit") if statistics else None


def _names_by_nvml() -> list[str]:
    """Ask NVML, where its Python module is installed: for containers and systems without `/proc/driver`."""
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        return []
    nvml.nvmlInit()
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        names = [nvml.nvmlDeviceGetName(handle) for handle in handles]
    finally:
        nvml.nvmlShutdown()
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
