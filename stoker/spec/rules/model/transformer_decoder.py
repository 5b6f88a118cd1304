"""Rules of `model` for transformer_decoder under strategies that cut it."""

from collections.abc import Iterator

from stoker.spec.model import TransformerDecoder
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule


@rule(
    "stages-tied-embeddings",
    reads=("/distributed", "/model"),
    message="embedding and head are on different ranks, and cannot be the same weights",
    hint="set `model.tie_embeddings: false`",
)
def tied_ends(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if case.pipeline_parallel is not None and isinstance(model, TransformerDecoder) and model.tie_embeddings:
        yield hit("/model/tie_embeddings")


@rule(
    "stages-more-than-layers",
    reads=("/distributed", "/model"),
    message="{layers} blocks are fewer than {stages} stages",
    hint="raise `model.num_layers`, or lower the degree",
)
def fewer_layers_than_stages(case: Case) -> Iterator[Hit]:
    pipeline, model = case.pipeline_parallel, case.spec.model
    if pipeline is not None and isinstance(model, TransformerDecoder) and model.num_layers < pipeline.stages:
        yield hit("/model/num_layers", layers=model.num_layers, stages=pipeline.stages)


@rule(
    "tensor-degree-divides-layers",
    reads=("/distributed", "/model"),
    message="`model.{name}` {size} does not divide among {degree} ranks",
    hint="choose a degree that divides it",
)
def degree_divides_layers(case: Case) -> Iterator[Hit]:
    cut, model = case.tensor_parallel, case.spec.model
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


@rule(
    "tensor-parallel-dropout",
    reads=("/distributed", "/model"),
    message="with `tensor_parallel` all ranks draw the same random numbers, so `{name}` would drop the same places of every rank's part",
    hint="set `model.{name}` to 0",
)
def dropout_of_cut_layers(case: Case) -> Iterator[Hit]:
    """Ranks that share a model draw the same random numbers, which is right for what all of them hold and wrong for parts."""
    cut, model = case.tensor_parallel, case.spec.model
    if cut is None or not isinstance(model, TransformerDecoder):
        return
    held = {"attention_dropout": model.attention_dropout}
    if cut.sequence_parallel:
        held |= {"dropout": model.dropout, "embedding_dropout": model.embedding_dropout}
    for name, p in held.items():
        if p > 0:
            yield hit(f"/model/{name}", name=name)
