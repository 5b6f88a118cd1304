"""Rules of `distributed` for fsdp."""

from collections.abc import Iterator

from stoker.spec.distributed import FSDP
from stoker.spec.optimizer import Muon
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule

OFFLOAD = "/distributed/offload"


@rule(
    "fsdp-replicas-divide",
    reads=("/distributed",),
    message="{replicas} copies of the model do not divide {ranks} ranks",
    hint="set `distributed.replicate` to {nearest}",
)
def replicas_divide(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, FSDP) and spec.data_parts % spec.replicate:
        nearest = next(n for n in range(min(spec.replicate, spec.data_parts), 0, -1) if spec.data_parts % n == 0)
        yield hit("/distributed/replicate", replicas=spec.replicate, ranks=spec.data_parts, nearest=nearest)


@rule(
    "fsdp-one-shard",
    reads=("/distributed",),
    message="each rank holds the whole model: there is nothing to shard",
    hint="set strategy: ddp or single, or use more ranks per copy",
    level="W",
)
def one_shard(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, FSDP) and spec.data_parts * spec.context_degree == spec.replicate:
        yield hit("/distributed/replicate" if spec.replicate > 1 else "/distributed/processes_per_node")


@rule(
    "offload-needs-gpu",
    reads=("/distributed", "/resources/device"),
    message="on a CPU weights lie in the host's memory already, and device is {device}",
    hint="set `resources.device` to cuda, or remove `distributed.offload`",
)
def needs_gpu(case: Case) -> Iterator[Hit]:
    if case.offloading is not None and case.spec.resources.device != "cuda":
        yield hit(OFFLOAD, device=case.spec.resources.device)


@rule(
    "offload-kept-on-gpu",
    reads=("/distributed",),
    message="with reshard_after_forward: false all gathered weights are on the GPU at once, which offloading is to avoid",
    hint="set `distributed.reshard_after_forward` to true",
    level="W",
)
def nothing_returns(case: Case) -> Iterator[Hit]:
    spec = case.offloading
    if spec is not None and not spec.reshard_after_forward:
        yield hit("/distributed/reshard_after_forward")


@rule(
    "muon-in-the-host",
    reads=("/optimizer/type", "/distributed"),
    message="muon puts matrices together on the GPU, and with offload their parts wait in the host's memory",
    hint="set `offload: none`, or use optimizer adamw",
)
def muon_waits_in_the_host(case: Case) -> Iterator[Hit]:
    how = case.spec.distributed
    if isinstance(case.spec.optimizer, Muon) and isinstance(how, FSDP) and how.offload != "none":
        yield hit("/distributed/offload")
