"""Rules of `distributed.communication_hook`."""

from collections.abc import Iterator

from stoker.spec.distributed import DDP, PowerSGD
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.rules._steps import RUN_READS


@rule(
    "hook-of-cut-layers",
    reads=("/distributed",),
    message="gradients of layers that are cut over ranks are exchanged without communication hooks",
    hint="remove one of both",
)
def hook_of_cut_layers(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, DDP) and spec.communication_hook is not None and spec.tensor_parallel is not None:
        yield hit("/distributed/communication_hook")


@rule(
    "compression-never-starts",
    reads=("/distributed", *RUN_READS),
    message="compression begins after {start} steps, and the run has {total}",
    hint="set `distributed.communication_hook.start_step` below {total}",
    level="W",
)
def compression_never_starts(case: Case) -> Iterator[Hit]:
    total = case.total_steps
    match case.spec.distributed:
        case DDP(communication_hook=PowerSGD(start_step=start)) if total is not None and start >= total:
            yield hit("/distributed/communication_hook/start_step", start=start, total=total)
        case _:
            return
