"""What a number format asks of the machine and of the optimizer."""

from collections.abc import Iterator

from stoker.spec.optimizer import Adagrad, Companion, Moments, Muon, RMSprop
from stoker.spec.rules._rule import Case, Hit, Rule, hit

BUILT = ("fp32", "tf32", "bf16_mixed", "fp16_mixed", "bf16_pure", "fp16_pure")
SAFE_EPS = 1e-4
"""Below it, a second moment that fp16 rounds to zero makes a step of thousands of learning rates."""


def fp8_not_built(case: Case) -> Iterator[Hit]:
    if case.spec.precision.mode == "fp8":
        yield hit("/precision/mode", BUILT)


def tf32_needs_gpu(case: Case) -> Iterator[Hit]:
    if case.spec.precision.mode == "tf32" and case.spec.resources.device != "cuda":
        yield hit("/precision/mode", device=case.spec.resources.device)


def loss_scale_needs_fp16(case: Case) -> Iterator[Hit]:
    if case.spec.precision.loss_scale is not None and not case.spec.precision.half:
        yield hit("/precision/loss_scale", mode=case.spec.precision.mode)


def fp16_on_cpu(case: Case) -> Iterator[Hit]:
    if case.spec.precision.half and case.spec.resources.device == "cpu":
        yield hit("/precision/mode", mode=case.spec.precision.mode, better=case.spec.precision.mode.replace("fp16", "bf16"))


def fp16_moments(case: Case) -> Iterator[Hit]:
    if case.spec.precision.mode != "fp16_pure":
        return
    match case.spec.optimizer:
        case Muon(companion=Companion(eps=eps)):
            pointer = "/optimizer/companion/eps"
        case Moments(eps=eps) | RMSprop(eps=eps) | Adagrad(eps=eps):
            pointer = "/optimizer/eps"
        case _:
            return
    if eps < SAFE_EPS:
        yield hit(pointer, path=pointer[1:].replace("/", "."), eps=f"{eps:g}", safe=f"{SAFE_EPS:g}")


FORMAT_RULES = (
    Rule(
        "fp8-not-built", "R", ("/precision/mode",), fp8_not_built,
        "fp8 products need a GPU of compute capability 8.9 or later (H100, L40), and this version does not build them",
        "use bf16_mixed",
    ),
    Rule(
        "tf32-needs-gpu", "R", ("/precision/mode", "/resources/device"), tf32_needs_gpu,
        "tf32 is a format of NVIDIA GPUs, and device {device} may be a CPU", "set `resources.device: cuda`, or mode fp32",
    ),
    Rule(
        "loss-scale-needs-fp16", "R", ("/precision",), loss_scale_needs_fp16,
        "a loss scale keeps gradients in fp16 from vanishing, and {mode} has the range of fp32", "remove it, or use fp16_mixed",
    ),
    Rule(
        "fp16-on-cpu", "W", ("/precision/mode", "/resources/device"), fp16_on_cpu,
        "CPUs compute {mode} up to 200 times slower than fp32", "use {better} or fp32 on a CPU",
    ),
    Rule(
        "fp16-moments", "W", ("/precision/mode", "/optimizer"), fp16_moments,
        "second moments below 6e-8 are zero in fp16, and with eps {eps} such a weight jumps", "set `{path}` to {safe} or more, or use bf16_pure",
    ),
)  # fmt: skip
