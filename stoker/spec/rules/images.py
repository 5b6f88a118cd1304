"""What jobs that need a worker image of their own ask of the rest of the job."""

from collections.abc import Iterator

from stoker.spec.activation_checkpointing import KeepAll
from stoker.spec.distributed import Horovod, Single
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.training.dynamic_batch import FitMemory


def horovod_elsewhere(case: Case) -> Iterator[Hit]:
    device = case.spec.resources.device
    if isinstance(case.spec.distributed, Horovod) and device not in ("auto", "cpu"):
        yield hit("/resources/device", ("auto", "cpu"), device=device)


def horovod_formats(case: Case) -> Iterator[Hit]:
    """Gradients are sent in the format of the weights, and Horovod has no bfloat16 for PyTorch."""
    if isinstance(case.spec.distributed, Horovod) and case.spec.precision.mode == "bf16_pure":
        yield hit("/precision/mode")


def tpu_of_one_process(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if case.spec.resources.device == "tpu" and not isinstance(spec, Single):
        yield hit("/distributed/strategy", strategy=spec.strategy)


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


IMAGE_RULES = (
    Rule(
        "tpu-one-process", "R", ("/distributed", "/resources/device"), tpu_of_one_process,
        "a TPU is used by one process, and strategy is {strategy}", "set strategy: single, or another `resources.device`",
    ),
    Rule(
        "tpu-cannot", "R", ("/resources/device", "/precision", "/activation_checkpointing", "/training", "/debug", "/data/loader", "/checkpoint", "/interpretability"), tpu_cannot,
        "`{path}` as it is set does not go with a TPU", "change or remove it, or set another `resources.device`",
    ),
    Rule(
        "horovod-on-cpu", "R", ("/distributed", "/resources/device"), horovod_elsewhere,
        "Horovod is built for CPUs, and device is {device}", "set device: cpu, or use strategy: ddp",
    ),
    Rule(
        "horovod-formats", "R", ("/distributed", "/precision/mode"), horovod_formats,
        "Horovod does not send gradients in bfloat16", "use bf16_mixed, whose gradients are fp32, or strategy: ddp",
    ),
)  # fmt: skip
