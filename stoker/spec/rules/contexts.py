"""What sequences that are cut over ranks ask of ranks, lengths and architecture."""

from collections.abc import Iterator

from stoker.spec.distributed import ContextParallel, Cuttable
from stoker.spec.model import TransformerDecoder
from stoker.spec.rules._rule import Case, Hit, Rule, hit

FIELD = "/distributed/context_parallel"
DEGREE = f"{FIELD}/degree"


def _context(case: Case) -> ContextParallel | None:
    spec = case.spec.distributed
    return spec.context_parallel if isinstance(spec, Cuttable) else None


def context_divides_ranks(case: Case) -> Iterator[Hit]:
    context, ranks = _context(case), case.spec.distributed.world_size
    if context is not None and ranks % context.degree:
        yield hit(DEGREE, degree=context.degree, ranks=ranks)


def context_crosses_nodes(case: Case) -> Iterator[Hit]:
    context, spec = _context(case), case.spec.distributed
    if context is not None and isinstance(spec, Cuttable) and spec.nodes > 1 and spec.processes_per_node % context.degree:
        yield hit(DEGREE, degree=context.degree, ranks=spec.processes_per_node)


def only_decoders_read_in_parts(case: Case) -> Iterator[Hit]:
    if _context(case) is not None and not isinstance(case.spec.model, TransformerDecoder):
        yield hit(FIELD, model=case.spec.model.type)


def context_divides_sequences(case: Case) -> Iterator[Hit]:
    context, sequence = _context(case), case.spec.data.sequence
    if context is None or sequence is None or not isinstance(case.spec.model, TransformerDecoder):
        return
    pieces, length = 2 * context.degree, sequence.length
    if length % pieces:
        yield hit("/data/sequence/length", length=length, pieces=pieces, nearest=max(1, length // pieces) * pieces)


def context_and_tensor(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, Cuttable) and spec.context_parallel is not None and spec.tensor_parallel is not None:
        yield hit(FIELD)


def context_and_teacher(case: Case) -> Iterator[Hit]:
    if _context(case) is not None and case.spec.training.distillation is not None:
        yield hit("/training/distillation")


CONTEXT_RULES = (
    Rule(
        "context-degree-divides-ranks", "R", ("/distributed",), context_divides_ranks,
        "{ranks} ranks do not divide into groups of {degree} that share sequences", "change `processes_per_node`, or the degree",
    ),
    Rule(
        "context-crosses-nodes", "W", ("/distributed",), context_crosses_nodes,
        "groups of {degree} ranks that share sequences do not fit on nodes of {ranks}: every attention waits for the network",
        "choose a degree that divides `processes_per_node`",
    ),
    Rule(
        "context-parallel-fits-model", "R", ("/distributed", "/model"), only_decoders_read_in_parts,
        "a {model} does not read sequences in parts; a transformer_decoder does", "remove it, or use another model",
    ),
    Rule(
        "context-parallel-length", "R", ("/distributed", "/model", "/data/sequence"), context_divides_sequences,
        "sequences of {length} tokens do not divide into {pieces} pieces, two for each rank", "set `data.sequence.length` to {nearest}",
    ),
    Rule(
        "context-parallel-alone", "R", ("/distributed",), context_and_tensor,
        "ranks cannot share layers and sequences at once", "remove `tensor_parallel` or `context_parallel`",
    ),
    Rule(
        "context-parallel-teacher", "R", ("/distributed", "/training/distillation"), context_and_teacher,
        "a teacher reads whole sequences, and ranks that share them have parts", "remove it, or `distributed.context_parallel`",
    ),
)  # fmt: skip
