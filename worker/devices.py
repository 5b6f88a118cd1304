"""What this machine offers, and how busy it is."""

import os
from contextlib import suppress
from pathlib import Path

import psutil
import pynvml

from stoker.protocol import Capacity, Gpu
from worker.settings import WorkerSettings

_CGROUP = Path("/sys/fs/cgroup")


def capacity(settings: WorkerSettings) -> Capacity:
    """CPU slots, memory and GPUs this worker may give away."""
    cpus = _cpus() if settings.worker_cpus is None else settings.worker_cpus
    memory = _memory() if settings.worker_memory_gb is None else int(settings.worker_memory_gb * 2**30)
    return Capacity(cpus=cpus, memory_bytes=memory, gpus=gpus())


def gpus() -> tuple[Gpu, ...]:
    """GPUs that NVML sees; none where there is no driver."""
    if not _nvml():
        return ()
    found = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        with suppress(pynvml.NVMLError):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
            name, uuid = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetUUID(handle)
            found.append(Gpu(index=index, uuid=str(uuid)[:128], name=str(name)[:128], memory_bytes=memory))
    return tuple(found)


def load() -> dict[str, float]:
    """Use of the machine since the last call, in per cent and bytes; for display."""
    used = psutil.virtual_memory()
    numbers = {"cpu_percent": psutil.cpu_percent(interval=None), "memory_used_bytes": float(used.total - used.available)}
    if _nvml():
        for index in range(min(pynvml.nvmlDeviceGetCount(), 30)):
            with suppress(pynvml.NVMLError):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                numbers[f"gpu{index}_utilization"] = float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
                numbers[f"gpu{index}_memory_used_bytes"] = float(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    return numbers


def _nvml() -> bool:
    """Whether NVML answers; asked each time, since a driver may come and go."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    return True


def _cpus() -> int:
    """Cores this process may run on, or the container's quota when that is less."""
    cores = len(os.sched_getaffinity(0))
    quota, _, period = _control("cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _memory() -> int:
    """Bytes of the machine, or of the container when that is less."""
    total = int(psutil.virtual_memory().total)
    limit = _control("memory.max")
    return min(total, int(limit)) if limit.isdecimal() else total


def _control(name: str) -> str:
    with suppress(OSError):
        return (_CGROUP / name).read_text().strip()
    return ""
