"""What a model in shards, or with its layers cut, asks of ranks and architecture."""

from collections.abc import Iterator

from stoker.spec.distributed import DDP, FSDP, Cuttable, PowerSGD, TensorParallel
from stoker.spec.model import TransformerDecoder
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.rules.lengths import RUN_READS, total_steps

DEGREE = "/distributed/tensor_parallel/degree"
READS = ("/distributed", "/model")


def _cut(case: Case) -> TensorParallel | None:
    spec = case.spec.distributed
    return spec.tensor_parallel if isinstance(spec, Cuttable) else None


def replicas_divide(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, FSDP) and spec.data_parts % spec.replicate:
        nearest = next(n for n in range(min(spec.replicate, spec.data_parts), 0, -1) if spec.data_parts % n == 0)
        yield hit("/distributed/replicate", replicas=spec.replicate, ranks=spec.data_parts, nearest=nearest)


def one_shard(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, FSDP) and spec.data_parts * spec.context_degree == spec.replicate:
        yield hit("/distributed/replicate" if spec.replicate > 1 else "/distributed/processes_per_node")


def degree_divides_ranks(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, Cuttable) and spec.world_size % spec.tensor_degree:
        yield hit(DEGREE, degree=spec.tensor_degree, ranks=spec.world_size)


def crosses_nodes(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, Cuttable) and spec.nodes > 1 and spec.processes_per_node % spec.tensor_degree:
        yield hit(DEGREE, degree=spec.tensor_degree, ranks=spec.processes_per_node)


def only_decoders_are_cut(case: Case) -> Iterator[Hit]:
    if _cut(case) is not None and not isinstance(case.spec.model, TransformerDecoder):
        yield hit("/distributed/tensor_parallel", model=case.spec.model.type)


def degree_divides_layers(case: Case) -> Iterator[Hit]:
    cut, model = _cut(case), case.spec.model
    if cut is None or not isinstance(model, TransformerDecoder):
        return
    sizes = {
        "num_heads": model.num_heads,
        "num_kv_heads": model.num_kv_heads or model.num_heads,
        "ffn_size": model.ffn_size or 4 * model.hidden_size,
    }
    for name, size in sizes.items():
        if size % cut.degree and not (name == "num_kv_heads" and model.num_kv_heads is None):
            yield hit(f"/model/{name}", name=name, size=size, degree=cut.degree)


def degree_divides_sequences(case: Case) -> Iterator[Hit]:
    cut, sequence = _cut(case), case.spec.data.sequence
    if cut is None or sequence is None or not cut.sequence_parallel or not isinstance(case.spec.model, TransformerDecoder):
        return
    if (length := sequence.length) % cut.degree:
        yield hit("/data/sequence/length", length=length, degree=cut.degree, nearest=max(1, length // cut.degree) * cut.degree)


def dropout_of_cut_layers(case: Case) -> Iterator[Hit]:
    """Ranks that share a model draw the same random numbers, which is right for what all of them hold and wrong for parts."""
    cut, model = _cut(case), case.spec.model
    if cut is None or not isinstance(model, TransformerDecoder):
        return
    held = {"attention_dropout": model.attention_dropout}
    if cut.sequence_parallel:
        held |= {"dropout": model.dropout, "embedding_dropout": model.embedding_dropout}
    for name, p in held.items():
        if p > 0:
            yield hit(f"/model/{name}", name=name)


def hook_of_cut_layers(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, DDP) and spec.communication_hook is not None and spec.tensor_parallel is not None:
        yield hit("/distributed/communication_hook")


def compression_never_starts(case: Case) -> Iterator[Hit]:
    total = total_steps(case)
    match case.spec.distributed:
        case DDP(communication_hook=PowerSGD(start_step=start)) if total is not None and start >= total:
            yield hit("/distributed/communication_hook/start_step", start=start, total=total)
        case _:
            return


SHARDING_RULES = (
    Rule(
        "hook-of-cut-layers", "R", ("/distributed",), hook_of_cut_layers,
        "gradients of layers that are cut over ranks are exchanged without communication hooks", "remove one of both",
    ),
    Rule(
        "compression-never-starts", "W", ("/distributed", *RUN_READS), compression_never_starts,
        "compression begins after {start} steps, and the run has {total}", "lower `distributed.communication_hook.start_step`",
    ),
    Rule(
        "fsdp-replicas-divide", "R", ("/distributed",), replicas_divide,
        "{replicas} copies of the model do not divide {ranks} ranks", "set `distributed.replicate` to {nearest}",
    ),
    Rule(
        "fsdp-one-shard", "W", ("/distributed",), one_shard,
        "each rank holds the whole model: there is nothing to shard", "set strategy: ddp or single, or use more ranks per copy",
    ),
    Rule(
        "tensor-degree-divides-ranks", "R", ("/distributed",), degree_divides_ranks,
        "{ranks} ranks do not divide into groups of {degree} that share layers", "change `processes_per_node`, or the degree",
    ),
    Rule(
        "tensor-crosses-nodes", "W", ("/distributed",), crosses_nodes,
        "groups of {degree} ranks that share layers do not fit on nodes of {ranks}: every layer waits for the network",
        "choose a degree that divides `processes_per_node`",
    ),
    Rule(
        "tensor-parallel-fits-model", "R", READS, only_decoders_are_cut,
        "layers of a {model} cannot be cut over ranks; those of a transformer_decoder can", "remove it, or use strategy: fsdp",
    ),
    Rule(
        "tensor-degree-divides-layers", "R", READS, degree_divides_layers,
        "`model.{name}` {size} does not divide among {degree} ranks", "choose a degree that divides it",
    ),
    Rule(
        "sequence-parallel-length", "R", (*READS, "/data/sequence"), degree_divides_sequences,
        "sequences of {length} tokens do not divide among {degree} ranks", "set `data.sequence.length` to {nearest}",
    ),
    Rule(
        "tensor-parallel-dropout", "R", READS, dropout_of_cut_layers,
        "with `tensor_parallel` each rank draws the same random numbers, so `{name}` would fall alike on the part that each of them holds",
        "set `model.{name}` to 0",
    ),
)  # fmt: skip
