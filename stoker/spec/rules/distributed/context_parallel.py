"""Rules of `distributed.context_parallel`."""

from collections.abc import Iterator

from stoker.spec.distributed import Cuttable
from stoker.spec.model import TransformerDecoder
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule

FIELD = "/distributed/context_parallel"
DEGREE = f"{FIELD}/degree"


@rule(
    "context-degree-divides-ranks",
    reads=("/distributed",),
    message="{ranks} ranks do not divide into groups of {degree} that share sequences",
    hint="change `processes_per_node`, or the degree",
)
def context_divides_ranks(case: Case) -> Iterator[Hit]:
    context, ranks = case.context_parallel, case.spec.distributed.world_size
    if context is not None and ranks % context.degree:
        yield hit(DEGREE, degree=context.degree, ranks=ranks)


@rule(
    "context-crosses-nodes",
    reads=("/distributed",),
    message="groups of {degree} ranks that share sequences do not fit on nodes of {ranks}: every attention waits for the network",
    hint="choose a degree that divides `processes_per_node`",
    level="W",
)
def context_crosses_nodes(case: Case) -> Iterator[Hit]:
    context, spec = case.context_parallel, case.spec.distributed
    if context is not None and isinstance(spec, Cuttable) and spec.nodes > 1 and spec.processes_per_node % context.degree:
        yield hit(DEGREE, degree=context.degree, ranks=spec.processes_per_node)


@rule(
    "context-parallel-fits-model",
    reads=("/distributed", "/model"),
    message="a {model} does not read sequences in parts; a transformer_decoder does",
    hint="remove it, or use another model",
)
def only_decoders_read_in_parts(case: Case) -> Iterator[Hit]:
    if case.context_parallel is not None and not isinstance(case.spec.model, TransformerDecoder):
        yield hit(FIELD, model=case.spec.model.type)


@rule(
    "context-parallel-alone",
    reads=("/distributed",),
    message="ranks cannot share layers and sequences at once",
    hint="remove `tensor_parallel` or `context_parallel`",
)
def context_and_tensor(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, Cuttable) and spec.context_parallel is not None and spec.tensor_parallel is not None:
        yield hit(FIELD)
