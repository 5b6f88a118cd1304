"""Rules of `optimizer`."""

from collections.abc import Iterator

from stoker.spec.distributed import FSDP, Auto, Cuttable
from stoker.spec.optimizer import SGD, Adafactor, Adagrad, Companion, Moments, Muon, RMSprop
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule

SAFE_EPS = 1e-4
"""Below it, a second moment that fp16 rounds to zero makes a step of thousands of learning rates."""


@rule(
    "nesterov-needs-momentum",
    reads=("/optimizer",),
    message="nesterov needs momentum above 0 and dampening 0",
    hint="set momentum, for example 0.9, and remove dampening, or set nesterov: false",
)
def nesterov_needs_momentum(case: Case) -> Iterator[Hit]:
    optimizer = case.spec.optimizer
    if isinstance(optimizer, SGD) and optimizer.nesterov and (optimizer.momentum == 0 or optimizer.dampening > 0):
        yield hit("/optimizer/nesterov")


@rule(
    "dampening-needs-momentum",
    reads=("/optimizer",),
    message="dampening does nothing without momentum",
    hint="set momentum or remove dampening",
    level="W",
)
def dampening_needs_momentum(case: Case) -> Iterator[Hit]:
    optimizer = case.spec.optimizer
    if isinstance(optimizer, SGD) and optimizer.dampening > 0 and optimizer.momentum == 0:
        yield hit("/optimizer/dampening")


@rule(
    "fp16-moments",
    reads=("/precision/mode", "/optimizer"),
    message="second moments below 6e-8 are zero in fp16, and with eps {eps} such a weight jumps",
    hint="set `{path}` to {safe} or more, or use bf16_pure",
    level="W",
)
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


@rule(
    "adafactor-in-parts",
    reads=("/optimizer/type", "/distributed"),
    message="adafactor keeps sums of rows and columns of whole weights, and strategy {strategy} cuts weights or may do so",
    hint="use strategy ddp, or optimizer adamw",
)
def adafactor_in_parts(case: Case) -> Iterator[Hit]:
    how = case.spec.distributed
    cut = isinstance(how, FSDP) or (isinstance(how, Cuttable) and how.tensor_parallel is not None)
    if isinstance(case.spec.optimizer, Adafactor) and (cut or (isinstance(how, Auto) and how.world_size > 1)):
        yield hit("/optimizer/type", strategy=how.strategy)
