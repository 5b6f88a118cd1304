"""Rules of `resources`."""

from collections.abc import Iterator

from stoker.spec.activation_checkpointing import KeepAll
from stoker.spec.distributed import Horovod
from stoker.spec.model import GAN
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.training.dynamic_batch import FitMemory


@rule(
    "gan-tpu",
    reads=("/model/type", "/resources/device"),
    message="a gan is not built for TPUs",
    hint="use cpu or cuda",
)
def on_tpu(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.model, GAN) and case.spec.resources.device == "tpu":
        yield hit("/resources/device", ("auto", "cpu", "cuda"))


@rule(
    "time-limit-too-short",
    reads=("/training/max_seconds", "/resources/time_limit_seconds"),
    message="the run may train for {seconds} seconds, but an attempt is stopped and failed after {limit}",
    hint="raise `resources.time_limit_seconds`",
    level="W",
)
def time_limit_too_short(case: Case) -> Iterator[Hit]:
    seconds, limit = case.spec.training.max_seconds, case.spec.resources.time_limit_seconds
    if seconds is not None and limit is not None and seconds > limit:
        yield hit("/resources/time_limit_seconds", seconds=f"{seconds:g}", limit=f"{limit:g}")


@rule(
    "gpu-memory-fraction-needs-gpu",
    reads=("/resources",),
    message="a share of a GPU's memory says nothing of device: {device}",
    hint="set device: cuda, or remove gpu_memory_fraction",
)
def fraction_of_gpu(case: Case) -> Iterator[Hit]:
    if case.spec.resources.gpu_memory_fraction is not None and case.spec.resources.device != "cuda":
        yield hit("/resources/gpu_memory_fraction", device=case.spec.resources.device)


@rule(
    "cpus-for-ranks",
    reads=("/resources/cpus", "/distributed"),
    message="{cpus} CPU slots are fewer than {ranks} ranks",
    hint="set `resources.cpus` to {ranks} or more, or leave it out",
)
def cpus_for_ranks(case: Case) -> Iterator[Hit]:
    cpus, ranks = case.spec.resources.cpus, case.spec.distributed.world_size
    if cpus is not None and cpus < ranks:
        yield hit("/resources/cpus", cpus=cpus, ranks=ranks)


@rule(
    "cpus-uneven",
    reads=("/resources/cpus", "/distributed"),
    message="{cpus} CPU slots do not divide among {ranks} ranks: {idle} would be idle",
    hint="set `resources.cpus` to {nearest}",
    level="W",
)
def cpus_uneven(case: Case) -> Iterator[Hit]:
    cpus, ranks = case.spec.resources.cpus, case.spec.distributed.world_size
    if cpus is not None and cpus > ranks and cpus % ranks:
        yield hit("/resources/cpus", cpus=cpus, ranks=ranks, idle=cpus % ranks, nearest=cpus - cpus % ranks)


@rule(
    "tpu-cannot",
    reads=(
        "/resources/device",
        "/precision",
        "/activation_checkpointing",
        "/training",
        "/debug",
        "/data/loader",
        "/checkpoint",
        "/interpretability",
    ),
    message="`{path}` is not supported on TPUs with this value",
    hint="leave `{path}` at its default, or use `resources.device: cpu` or `cuda`",
)
def tpu_cannot(case: Case) -> Iterator[Hit]:
    """A TPU has no fp16, says that it is full only once a step is over, and what torch measures on GPUs it does not measure there.

    Its compiler finds what is computed twice, and keeps it.
    """
    spec = case.spec
    asked = {
        "precision/mode": spec.precision.half,
        "activation_checkpointing/type": not isinstance(spec.activation_checkpointing, KeepAll),
        "training/dynamic_batch/mode": isinstance(spec.training.dynamic_batch, FitMemory),
        "debug/profiler": spec.debug.profiler is not None,
        "data/loader/pin_memory": spec.data.loader.pin_memory,
        "checkpoint/background": spec.checkpoint.background == "fork",
        "interpretability": spec.interpretability is not None,
    }
    if spec.resources.device == "tpu":
        yield from (hit(f"/{path}", path=path.replace("/", ".")) for path, wanted in asked.items() if wanted)


@rule(
    "horovod-on-cpu",
    reads=("/distributed", "/resources/device"),
    message="Horovod is built for CPUs, and device is {device}",
    hint="set device: cpu, or use strategy: ddp",
)
def horovod_elsewhere(case: Case) -> Iterator[Hit]:
    device = case.spec.resources.device
    if isinstance(case.spec.distributed, Horovod) and device not in ("auto", "cpu"):
        yield hit("/resources/device", ("auto", "cpu"), device=device)
