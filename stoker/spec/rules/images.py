"""What jobs that need a worker image of their own ask of the rest of the job."""

from collections.abc import Iterator

from stoker.spec.distributed import Horovod
from stoker.spec.rules._rule import Case, Hit, Rule, hit


def horovod_elsewhere(case: Case) -> Iterator[Hit]:
    device = case.spec.resources.device
    if isinstance(case.spec.distributed, Horovod) and device not in ("auto", "cpu"):
        yield hit("/resources/device", ("auto", "cpu"), device=device)


def horovod_formats(case: Case) -> Iterator[Hit]:
    """Gradients are sent in the format of the weights, and Horovod has no bfloat16 for PyTorch."""
    if isinstance(case.spec.distributed, Horovod) and case.spec.precision.mode == "bf16_pure":
        yield hit("/precision/mode")


IMAGE_RULES = (
    Rule(
        "horovod-on-cpu", "R", ("/distributed", "/resources/device"), horovod_elsewhere,
        "Horovod is built for CPUs, and device is {device}", "set device: cpu, or use strategy: ddp",
    ),
    Rule(
        "horovod-formats", "R", ("/distributed", "/precision/mode"), horovod_formats,
        "Horovod does not send gradients in bfloat16", "use bf16_mixed, whose gradients are fp32, or strategy: ddp",
    ),
)  # fmt: skip
