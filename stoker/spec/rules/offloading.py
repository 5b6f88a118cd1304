"""What memory that is lent by the host goes with."""

from collections.abc import Iterator

from stoker.spec.distributed import FSDP
from stoker.spec.rules._rule import Case, Hit, Rule, hit

OFFLOAD = "/distributed/offload"


def _offloads(case: Case) -> FSDP | None:
    spec = case.spec.distributed
    return spec if isinstance(spec, FSDP) and spec.offload != "none" else None


def needs_gpu(case: Case) -> Iterator[Hit]:
    if _offloads(case) is not None and case.spec.resources.device != "cuda":
        yield hit(OFFLOAD, device=case.spec.resources.device)


def layers_are_cut(case: Case) -> Iterator[Hit]:
    spec = _offloads(case)
    if spec is not None and spec.tensor_parallel is not None:
        yield hit("/distributed/tensor_parallel")


def nothing_returns(case: Case) -> Iterator[Hit]:
    spec = _offloads(case)
    if spec is not None and not spec.reshard_after_forward:
        yield hit("/distributed/reshard_after_forward")


OFFLOADING_RULES = (
    Rule(
        "offload-needs-gpu", "R", ("/distributed", "/resources/device"), needs_gpu,
        "on a CPU weights lie in the host's memory already, and device is {device}",
        "set `resources.device` to cuda, or remove `distributed.offload`",
    ),
    Rule(
        "offload-whole-layers", "R", ("/distributed",), layers_are_cut,
        "layers that are cut over ranks stay on their GPUs", "remove `distributed.tensor_parallel` or `distributed.offload`",
    ),
    Rule(
        "offload-kept-on-gpu", "W", ("/distributed",), nothing_returns,
        "with reshard_after_forward: false all gathered weights are on the GPU at once, which offloading is to avoid",
        "set `distributed.reshard_after_forward` to true",
    ),
)  # fmt: skip
