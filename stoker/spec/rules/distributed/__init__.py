"""Rules of `distributed` that hold for several strategies."""

from collections.abc import Iterator

from stoker.spec.distributed import DDP, FSDP, Horovod, LocalSGD, Single
from stoker.spec.distributed._ranks import Ranks
from stoker.spec.model import GAN
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule

MIN = "/distributed/min_nodes"


@rule(
    "gan-strategy",
    reads=("/model/type", "/distributed"),
    message="the two networks of a gan learn in turn, each whole on every rank, which {what} does not do",
    hint="use strategy single, or ddp without it",
)
def strategy(case: Case) -> Iterator[Hit]:
    how = case.spec.distributed
    if not isinstance(case.spec.model, GAN) or isinstance(how, Single):
        return
    if not isinstance(how, DDP):
        yield hit("/distributed/strategy", ("single", "ddp"), what=f"strategy {how.strategy}")
        return
    for key in ("tensor_parallel", "context_parallel", "pipeline_parallel", "communication_hook"):
        if getattr(how, key) is not None:
            yield hit(f"/distributed/{key}", what=key)


@rule(
    "ddp-one-rank",
    reads=("/distributed",),
    message="{strategy} with one rank only costs time",
    hint="set strategy: single, or more processes_per_node",
    level="W",
)
def one_rank(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, DDP | Horovod | LocalSGD) and spec.world_size == 1:
        yield hit("/distributed/processes_per_node", strategy=spec.strategy)


@rule(
    "finetune-strategy",
    reads=("/initialization/finetune", "/distributed"),
    message="{strategy} updates every weight, and fine-tuning keeps some of them fixed",
    hint="use strategy single, ddp or fsdp without tensor, context or pipeline parallelism",
)
def tuned_where(case: Case) -> Iterator[Hit]:
    how = case.spec.distributed
    if case.spec.initialization.finetune is None:
        return
    if not isinstance(how, Single | DDP | FSDP):
        yield hit("/distributed/strategy", ("single", "ddp", "fsdp"), strategy=how.strategy)
        return
    for key in ("tensor_parallel", "context_parallel", "pipeline_parallel"):
        if getattr(how, key, None) is not None:
            yield hit(f"/distributed/{key}", strategy=key)


@rule(
    "min-nodes-above-nodes",
    reads=("/distributed",),
    message="`min_nodes` {fewest} is more than `nodes` {nodes}",
    hint="set `min_nodes` to {nodes} or less",
)
def more_than_all(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, Ranks) and spec.min_nodes is not None and spec.min_nodes > spec.nodes:
        yield hit(MIN, fewest=spec.min_nodes, nodes=spec.nodes)


@rule(
    "min-nodes-groups",
    reads=("/distributed",),
    message="on {nodes} nodes the {ranks} ranks do not divide into the groups that hold one model together",
    hint="raise `min_nodes`, or change `processes_per_node`",
)
def groups_of_ranks(case: Case) -> Iterator[Hit]:
    """Ranks that hold one model together stay as many on every number of nodes."""
    spec = case.spec.distributed
    if not isinstance(spec, Ranks):
        return
    together = max(1, spec.world_size // spec.data_parts)
    for fewer in spec.on_fewer_nodes():
        if fewer.world_size % together or (isinstance(fewer, FSDP) and fewer.data_parts % fewer.replicate):
            yield hit(MIN, ranks=fewer.world_size, nodes=fewer.nodes)
            return


@rule(
    "min-nodes-uneven",
    reads=("/distributed", "/training/batch_size"),
    message="on {nodes} nodes a batch of {size} does not divide among {ranks} ranks: some take a sample more, and the others wait",
    hint="choose a batch_size that every number of nodes divides",
    level="W",
)
def uneven_shares(case: Case) -> Iterator[Hit]:
    spec, size = case.spec.distributed, case.spec.training.batch_size
    if not isinstance(spec, Ranks):
        return
    for fewer in spec.on_fewer_nodes():
        if size % fewer.data_parts:
            yield hit(MIN, size=size, ranks=fewer.data_parts, nodes=fewer.nodes)
            return


@rule(
    "tpu-one-process",
    reads=("/distributed", "/resources/device"),
    message="a TPU is used by one process, and strategy is {strategy}",
    hint="set strategy: single, or another `resources.device`",
)
def tpu_of_one_process(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if case.spec.resources.device == "tpu" and not isinstance(spec, Single):
        yield hit("/distributed/strategy", strategy=spec.strategy)
