"""Rules of `loss` for losses of classes."""

from collections.abc import Iterator

from stoker.spec.distributed import DDP, FSDP
from stoker.spec.loss import CrossEntropy, NegativeLogLikelihood
from stoker.spec.model import TransformerDecoder
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task import CausalLM, Classification, MaskedLM


@rule(
    "class-weights-need-classes",
    reads=("/loss", "/task/type"),
    message="`loss.class_weights` is for classification, not for tokens",
    hint="remove it",
)
def class_weights_need_classes(case: Case) -> Iterator[Hit]:
    loss = case.spec.loss
    if (
        isinstance(loss, CrossEntropy | NegativeLogLikelihood)
        and loss.class_weights is not None
        and isinstance(case.spec.task, CausalLM | MaskedLM)
    ):
        yield hit("/loss/class_weights")


@rule(
    "class-weights-length",
    reads=("/loss", "/task", "/data"),
    message="`loss.class_weights` has {given} entries for {classes} classes",
    hint="give one weight per class, or `balanced`",
)
def class_weights_length(case: Case) -> Iterator[Hit]:
    loss, task = case.spec.loss, case.spec.task
    if (
        not isinstance(loss, CrossEntropy | NegativeLogLikelihood)
        or not isinstance(loss.class_weights, tuple)
        or not isinstance(task, Classification)
    ):
        return
    if task.num_classes is not None and len(loss.class_weights) != task.num_classes:
        yield hit("/loss/class_weights", given=len(loss.class_weights), classes=task.num_classes)


@rule(
    "class-weights-zero",
    reads=("/loss",),
    message="every entry of `loss.class_weights` is 0, so nothing would be learned",
    hint="give some class a weight above 0",
)
def class_weights_zero(case: Case) -> Iterator[Hit]:
    loss = case.spec.loss
    if (
        isinstance(loss, CrossEntropy | NegativeLogLikelihood)
        and isinstance(loss.class_weights, tuple)
        and not any(loss.class_weights)
    ):
        yield hit("/loss/class_weights")


@rule(
    "chunk-tokens-need-decoder",
    reads=("/loss", "/task", "/model"),
    message="`loss.chunk_tokens` makes logits of tokens in parts, which task {task} with model {model} does not have or does not tell apart",
    hint="remove it, or use causal_lm with transformer_decoder",
)
def chunks_need_decoder(case: Case) -> Iterator[Hit]:
    fits = isinstance(case.spec.task, CausalLM) and isinstance(case.spec.model, TransformerDecoder)
    if _chunked(case) and not fits:
        yield hit("/loss/chunk_tokens", task=case.spec.task.type, model=case.spec.model.type)


def _chunked(case: Case) -> bool:
    return isinstance(case.spec.loss, CrossEntropy) and case.spec.loss.chunk_tokens is not None


@rule(
    "chunk-tokens-need-whole-heads",
    reads=("/loss", "/distributed"),
    message="`loss.chunk_tokens` needs the head and the hidden states whole on each rank, and {strategy} cuts them",
    hint="remove one of the two",
)
def chunks_need_whole_heads(case: Case) -> Iterator[Hit]:
    how = case.spec.distributed
    if not _chunked(case) or not isinstance(how, DDP | FSDP):
        return
    cuts = {
        "tensor_parallel": how.tensor_degree,
        "context_parallel": how.context_degree,
        "pipeline_parallel": how.pipeline_degree if isinstance(how, DDP) else 1,
    }
    for name, degree in cuts.items():
        if degree > 1:
            yield hit("/loss/chunk_tokens", strategy=name)


@rule(
    "chunk-tokens-without-teacher",
    reads=("/loss", "/training/distillation"),
    message="a teacher is compared with all logits, and `loss.chunk_tokens` never has them at once",
    hint="remove one of the two",
)
def chunks_without_teacher(case: Case) -> Iterator[Hit]:
    if _chunked(case) and case.spec.training.distillation is not None:
        yield hit("/loss/chunk_tokens")
