"""Rules of `distributed.tensor_parallel`."""

from collections.abc import Iterator

from stoker.spec.distributed import DDP, FSDP, Cuttable
from stoker.spec.model import TransformerDecoder
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule

DEGREE = "/distributed/tensor_parallel/degree"


@rule(
    "distillation-needs-whole-samples",
    reads=("/training/distillation", "/distributed"),
    message="a teacher is whole on every rank, and `distributed.tensor_parallel` cuts the student",
    hint="use ddp or fsdp without it",
)
def needs_whole_samples(case: Case) -> Iterator[Hit]:
    """Context parallelism has a rule of its own."""
    cut = isinstance(case.spec.distributed, DDP | FSDP) and case.spec.distributed.tensor_parallel is not None
    if case.spec.training.distillation is not None and cut:
        yield hit("/distributed/tensor_parallel")


@rule(
    "tensor-degree-divides-ranks",
    reads=("/distributed",),
    message="{ranks} ranks do not divide into groups of {degree} that share layers",
    hint="change `processes_per_node`, or the degree",
)
def degree_divides_ranks(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, Cuttable) and spec.world_size % spec.tensor_degree:
        yield hit(DEGREE, degree=spec.tensor_degree, ranks=spec.world_size)


@rule(
    "tensor-crosses-nodes",
    reads=("/distributed",),
    message="groups of {degree} ranks that share layers do not fit on nodes of {ranks}: every layer waits for the network",
    hint="choose a degree that divides `processes_per_node`",
    level="W",
)
def crosses_nodes(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, Cuttable) and spec.nodes > 1 and spec.processes_per_node % spec.tensor_degree:
        yield hit(DEGREE, degree=spec.tensor_degree, ranks=spec.processes_per_node)


@rule(
    "tensor-parallel-fits-model",
    reads=("/distributed", "/model"),
    message="layers of a {model} cannot be cut over ranks; those of a transformer_decoder can",
    hint="remove it, or use strategy: fsdp",
)
def only_decoders_are_cut(case: Case) -> Iterator[Hit]:
    if case.tensor_parallel is not None and not isinstance(case.spec.model, TransformerDecoder):
        yield hit("/distributed/tensor_parallel", model=case.spec.model.type)


@rule(
    "offload-whole-layers",
    reads=("/distributed",),
    message="layers that are cut over ranks stay on their GPUs",
    hint="remove `distributed.tensor_parallel` or `distributed.offload`",
)
def layers_are_cut(case: Case) -> Iterator[Hit]:
    spec = case.offloading
    if spec is not None and spec.tensor_parallel is not None:
        yield hit("/distributed/tensor_parallel")
