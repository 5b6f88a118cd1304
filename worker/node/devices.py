"""What this machine offers, and how busy it is."""

import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import pynvml

from stoker.protocol import Capacity, Gpu
from worker.settings import WorkerSettings

_CGROUP = Path("/sys/fs/cgroup")
_PCI = Path("/sys/bus/pci/devices")
_GOOGLE = "0x1ae0"
_TPUS = frozenset({"0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"})
"""PCI ids of Google and of its TPUs from the second version on, as torch_xla 2.9 counts them."""


def capacity(settings: WorkerSettings) -> Capacity:
    """CPU slots, memory and GPUs this worker may give away."""
    cpus = _cpus() if settings.worker_cpus is None else settings.worker_cpus
    memory = _memory() if settings.worker_memory_gb is None else int(settings.worker_memory_gb * 2**30)
    tpus = int(_has_tpu()) if settings.worker_tpus is None else settings.worker_tpus
    return Capacity(cpus=cpus, memory_bytes=memory, gpus=gpus(), tpus=tpus, backends=backends())


def backends() -> tuple[str, ...]:
    """What runs may use here beside what every worker has. Only looked up: importing it costs seconds."""
    return ("horovod",) if find_spec("horovod") is not None else ()


def _has_tpu() -> bool:
    """Whether a run could have one. A TPU is one process's, so this one must not open it: the bus tells."""
    if find_spec("torch_xla") is None:
        return False
    return any(_line(path / "vendor") == _GOOGLE and _line(path / "device") in _TPUS for path in _PCI.glob("*"))


def _line(path: Path) -> str:
    with suppress(OSError):
        return path.read_text().strip()
    return ""


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
