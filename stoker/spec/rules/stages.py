"""What a model that is cut into stages asks of ranks, batches and architecture."""

from collections.abc import Iterator

from stoker.spec.distributed import DDP, PipelineParallel
from stoker.spec.model import TransformerDecoder
from stoker.spec.rules._rule import Case, Hit, Rule, hit

FIELD = "/distributed/pipeline_parallel"
READS = ("/distributed", "/model")


def _pipeline(case: Case) -> PipelineParallel | None:
    spec = case.spec.distributed
    return spec.pipeline_parallel if isinstance(spec, DDP) else None


def stages_divide_ranks(case: Case) -> Iterator[Hit]:
    pipeline, ranks = _pipeline(case), case.spec.distributed.world_size
    if pipeline is not None and ranks % pipeline.degree:
        yield hit(f"{FIELD}/degree", degree=pipeline.degree, ranks=ranks)


def only_decoders_have_stages(case: Case) -> Iterator[Hit]:
    if _pipeline(case) is not None and not isinstance(case.spec.model, TransformerDecoder):
        yield hit(FIELD, model=case.spec.model.type)


def tied_ends(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if _pipeline(case) is not None and isinstance(model, TransformerDecoder) and model.tie_embeddings:
        yield hit("/model/tie_embeddings")


def fewer_layers_than_stages(case: Case) -> Iterator[Hit]:
    pipeline, model = _pipeline(case), case.spec.model
    if pipeline is not None and isinstance(model, TransformerDecoder) and model.num_layers < pipeline.stages:
        yield hit("/model/num_layers", layers=model.num_layers, stages=pipeline.stages)


def fewer_pieces_than_stages(case: Case) -> Iterator[Hit]:
    pipeline = _pipeline(case)
    if pipeline is not None and pipeline.microbatches < pipeline.stages:
        yield hit(f"{FIELD}/microbatches", pieces=pipeline.microbatches, stages=pipeline.stages)


def pieces_divide_ranks(case: Case) -> Iterator[Hit]:
    pipeline = _pipeline(case)
    if pipeline is not None and pipeline.schedule == "interleaved_1f1b" and pipeline.microbatches % pipeline.degree:
        yield hit(f"{FIELD}/microbatches", pieces=pipeline.microbatches, degree=pipeline.degree)


def pieces_divide_micro_batches(case: Case) -> Iterator[Hit]:
    pipeline, micro = _pipeline(case), case.spec.training.micro_batch_size
    if pipeline is not None and micro is not None and micro % pipeline.microbatches:
        nearest = max(1, micro // pipeline.microbatches) * pipeline.microbatches
        yield hit("/training/micro_batch_size", micro=micro, pieces=pipeline.microbatches, nearest=nearest)


def stages_alone(case: Case) -> Iterator[Hit]:
    spec, training = case.spec.distributed, case.spec.training
    if not isinstance(spec, DDP) or spec.pipeline_parallel is None:
        return
    for name in ("tensor_parallel", "context_parallel", "communication_hook"):
        if getattr(spec, name) is not None:
            yield hit(f"/distributed/{name}", path=f"distributed.{name}")
    for name in ("dynamic_batch", "adversarial", "distillation"):
        if getattr(training, name, None) is not None:
            yield hit(f"/training/{name}", path=f"training.{name}")
    for name in ("histograms", "gradients"):
        if getattr(case.spec.debug, name) is not None:
            yield hit(f"/debug/{name}", path=f"debug.{name}")


STAGE_RULES = (
    Rule(
        "stages-divide-ranks", "R", ("/distributed",), stages_divide_ranks,
        "{ranks} ranks do not divide into pipelines of {degree}", "change `processes_per_node`, or the degree",
    ),
    Rule(
        "stages-fit-model", "R", READS, only_decoders_have_stages,
        "a {model} is not cut into stages; a transformer_decoder is", "remove it, or use strategy: fsdp",
    ),
    Rule(
        "stages-tied-embeddings", "R", READS, tied_ends,
        "embedding and head are on different ranks, and cannot be the same weights", "set `model.tie_embeddings: false`",
    ),
    Rule(
        "stages-more-than-layers", "R", READS, fewer_layers_than_stages,
        "{layers} blocks are fewer than {stages} stages", "raise `model.num_layers`, or lower the degree",
    ),
    Rule(
        "pipeline-microbatches", "R", ("/distributed",), fewer_pieces_than_stages,
        "{pieces} pieces do not fill {stages} stages", "set `distributed.pipeline_parallel.microbatches` to {stages} or more",
    ),
    Rule(
        "pipeline-interleaving", "R", ("/distributed",), pieces_divide_ranks,
        "interleaved, pieces go through in rounds of {degree}, and {pieces} is no multiple of it",
        "choose `distributed.pipeline_parallel.microbatches` as a multiple of {degree}",
    ),
    Rule(
        "pipeline-pieces", "R", ("/distributed", "/training"), pieces_divide_micro_batches,
        "micro-batches of {micro} samples do not divide into {pieces} pieces", "set `training.micro_batch_size` to {nearest}",
    ),
    Rule(
        "pipeline-alone", "R", ("/distributed", "/training", "/debug"), stages_alone,
        "`{path}` needs more of the model than the stage that each rank has", "remove it, or `distributed.pipeline_parallel`",
    ),
)  # fmt: skip
