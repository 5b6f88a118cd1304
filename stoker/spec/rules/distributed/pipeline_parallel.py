"""Rules of `distributed.pipeline_parallel`."""

from collections.abc import Iterator

from stoker.spec.distributed import DDP
from stoker.spec.model import TransformerDecoder
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule

FIELD = "/distributed/pipeline_parallel"


@rule(
    "stages-divide-ranks",
    reads=("/distributed",),
    message="{ranks} ranks do not divide into pipelines of {degree}",
    hint="change `processes_per_node`, or the degree",
)
def stages_divide_ranks(case: Case) -> Iterator[Hit]:
    pipeline, ranks = case.pipeline_parallel, case.spec.distributed.world_size
    if pipeline is not None and ranks % pipeline.degree:
        yield hit(f"{FIELD}/degree", degree=pipeline.degree, ranks=ranks)


@rule(
    "stages-fit-model",
    reads=("/distributed", "/model"),
    message="a {model} is not cut into stages; a transformer_decoder is",
    hint="remove it, or use strategy: fsdp",
)
def only_decoders_have_stages(case: Case) -> Iterator[Hit]:
    if case.pipeline_parallel is not None and not isinstance(case.spec.model, TransformerDecoder):
        yield hit(FIELD, model=case.spec.model.type)


@rule(
    "pipeline-microbatches",
    reads=("/distributed",),
    message="{pieces} pieces do not fill {stages} stages",
    hint="set `distributed.pipeline_parallel.microbatches` to {stages} or more",
)
def fewer_pieces_than_stages(case: Case) -> Iterator[Hit]:
    pipeline = case.pipeline_parallel
    if pipeline is not None and pipeline.microbatches < pipeline.stages:
        yield hit(f"{FIELD}/microbatches", pieces=pipeline.microbatches, stages=pipeline.stages)


@rule(
    "pipeline-interleaving",
    reads=("/distributed",),
    message="interleaved, pieces go through in rounds of {degree}, and {pieces} is no multiple of it",
    hint="choose `distributed.pipeline_parallel.microbatches` as a multiple of {degree}",
)
def pieces_divide_ranks(case: Case) -> Iterator[Hit]:
    pipeline = case.pipeline_parallel
    if pipeline is not None and pipeline.schedule == "interleaved_1f1b" and pipeline.microbatches % pipeline.degree:
        yield hit(f"{FIELD}/microbatches", pieces=pipeline.microbatches, degree=pipeline.degree)


@rule(
    "pipeline-alone",
    reads=("/distributed", "/training", "/debug"),
    message="`{path}` needs more of the model than the stage that each rank has",
    hint="remove it, or `distributed.pipeline_parallel`",
)
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
