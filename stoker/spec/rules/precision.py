"""Rules of `precision`."""

from collections.abc import Iterator

from stoker.spec.distributed import Horovod
from stoker.spec.model import GAN
from stoker.spec.optimizer import Adafactor
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule

BUILT = ("fp32", "tf32", "bf16_mixed", "fp16_mixed", "bf16_pure", "fp16_pure")


@rule(
    "gan-precision",
    reads=("/model/type", "/precision/mode"),
    message="updates of a gan's networks are too small for {mode}, which rounds them away",
    hint="use fp32 or a mixed mode",
)
def narrow(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.model, GAN) and case.spec.precision.pure:
        yield hit("/precision/mode", mode=case.spec.precision.mode)


@rule(
    "gradient-penalty-in-fp16",
    reads=("/loss", "/model/type", "/precision/mode"),
    message="`loss.gradient_penalty` takes slopes within the loss, where no loss scale keeps them from vanishing in fp16",
    hint="use bf16_mixed or fp32",
)
def penalty_in_fp16(case: Case) -> Iterator[Hit]:
    if case.penalized and case.spec.precision.mode == "fp16_mixed":
        yield hit("/precision/mode")


@rule(
    "spectral-norm-precision",
    reads=("/regularization/spectral_norm", "/precision/mode"),
    message="spectral_norm finds singular values in 32 bits, and {mode} keeps weights in 16",
    hint="use fp32 or a mixed mode",
)
def bound_narrow(case: Case) -> Iterator[Hit]:
    if case.spec.regularization.spectral_norm is not None and case.spec.precision.pure:
        yield hit("/precision/mode", mode=case.spec.precision.mode)


@rule(
    "horovod-formats",
    reads=("/distributed", "/precision/mode"),
    message="Horovod does not send gradients in bfloat16",
    hint="use bf16_mixed, whose gradients are fp32, or strategy: ddp",
)
def horovod_formats(case: Case) -> Iterator[Hit]:
    """Gradients are sent in the format of the weights, and Horovod has no bfloat16 for PyTorch."""
    if isinstance(case.spec.distributed, Horovod) and case.spec.precision.mode == "bf16_pure":
        yield hit("/precision/mode")


@rule(
    "fp8-not-built",
    reads=("/precision/mode",),
    message="fp8 products need a GPU of compute capability 8.9 or later (H100, L40), and this version does not build them",
    hint="use bf16_mixed",
)
def fp8_not_built(case: Case) -> Iterator[Hit]:
    if case.spec.precision.mode == "fp8":
        yield hit("/precision/mode", BUILT)


@rule(
    "tf32-needs-gpu",
    reads=("/precision/mode", "/resources/device"),
    message="tf32 is a format of NVIDIA GPUs, and device {device} may be a CPU",
    hint="set `resources.device: cuda`, or mode fp32",
)
def tf32_needs_gpu(case: Case) -> Iterator[Hit]:
    if case.spec.precision.mode == "tf32" and case.spec.resources.device != "cuda":
        yield hit("/precision/mode", device=case.spec.resources.device)


@rule(
    "loss-scale-needs-fp16",
    reads=("/precision",),
    message="a loss scale keeps gradients in fp16 from vanishing, and {mode} has the range of fp32",
    hint="remove it, or use fp16_mixed",
)
def loss_scale_needs_fp16(case: Case) -> Iterator[Hit]:
    if case.spec.precision.loss_scale is not None and not case.spec.precision.half:
        yield hit("/precision/loss_scale", mode=case.spec.precision.mode)


@rule(
    "fp16-on-cpu",
    reads=("/precision/mode", "/resources/device"),
    message="CPUs compute {mode} up to 200 times slower than fp32",
    hint="use {better} or fp32 on a CPU",
    level="W",
)
def fp16_on_cpu(case: Case) -> Iterator[Hit]:
    if case.spec.precision.half and case.spec.resources.device == "cpu":
        yield hit("/precision/mode", mode=case.spec.precision.mode, better=case.spec.precision.mode.replace("fp16", "bf16"))


@rule(
    "adafactor-in-fp16",
    reads=("/optimizer/type", "/precision/mode"),
    message="adafactor's squares of small gradients are zero in fp16, and their roots divide",
    hint="use bf16_pure or fp16_mixed",
)
def adafactor_in_fp16(case: Case) -> Iterator[Hit]:
    optimizer = case.spec.optimizer
    if isinstance(optimizer, Adafactor) and case.spec.precision.mode == "fp16_pure":
        yield hit("/precision/mode")
