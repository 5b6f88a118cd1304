"""Rules of BatchNorm in any model."""

from collections.abc import Iterator

from stoker.spec.model.parts import BatchNorm
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task import CausalLM


@rule(
    "batch-norm-alone",
    reads=(
        "/model",
        "/training/batch_size",
        "/training/micro_batch_size",
        "/training/gradient_accumulation_steps",
        "/distributed",
    ),
    message="BatchNorm cannot normalize over a micro-batch of one sample",
    hint="raise micro_batch_size, or use layer or rms normalization",
)
def batch_norm_alone(case: Case) -> Iterator[Hit]:
    pointer = case.batch_norm
    if pointer is not None and case.spec.training.micro_batch_size == 1:
        yield hit(pointer)


@rule(
    "batch-norm-last-batch",
    reads=(
        "/model",
        "/data",
        "/task",
        "/training/batch_size",
        "/training/micro_batch_size",
        "/training/gradient_accumulation_steps",
        "/distributed",
    ),
    message="the last batch of an epoch has {last} samples and leaves one or none to some forward pass, which BatchNorm cannot normalize",
    hint="set `data.loader.drop_last: true`, or change `training.batch_size`",
)
def batch_norm_last(case: Case) -> Iterator[Hit]:
    """The last batch of an epoch, shared among ranks and cut into micro-batches, must not leave one sample to anyone."""
    pointer, samples, training = case.batch_norm, case.problem.samples, case.spec.training
    micro = training.micro_batch_size
    if pointer is None or samples is None or case.spec.data.loader.drop_last or micro is None or micro == 1:
        return
    last, ranks = samples.train % training.batch_size, case.spec.distributed.data_parts
    if last == 0:
        return
    shares = {last * (rank + 1) // ranks - last * rank // ranks for rank in range(ranks)}
    if any(share % micro == 1 or share == 0 for share in shares):
        yield hit(pointer, last=last)


@rule(
    "batch-norm-accumulation",
    reads=(
        "/model",
        "/training/batch_size",
        "/training/micro_batch_size",
        "/training/gradient_accumulation_steps",
        "/distributed",
    ),
    message="BatchNorm sees micro-batches of {micro}, so accumulation does not equal a batch of {size}",
    hint="use layer or rms normalization, or no accumulation",
    level="W",
)
def batch_norm_accumulates(case: Case) -> Iterator[Hit]:
    pointer, steps = case.batch_norm, case.spec.training.gradient_accumulation_steps
    if pointer is not None and steps is not None and steps > 1:
        yield hit(pointer, micro=case.spec.training.micro_batch_size, size=case.spec.training.batch_size)


@rule(
    "batch-norm-sees-ahead",
    reads=("/model/normalization", "/task/type"),
    message="batch normalization of tokens lets each see later ones while the model learns",
    hint="use layer or rms",
    level="W",
)
def batch_norm_sees_ahead(case: Case) -> Iterator[Hit]:
    model = case.transformer
    if model is not None and isinstance(model.normalization, BatchNorm) and isinstance(case.spec.task, CausalLM):
        yield hit("/model/normalization")


@rule(
    "attack-mixes-statistics",
    reads=("/training/adversarial", "/model"),
    message="BatchNorm's statistics will be those of attacked samples, and clean ones are judged with them",
    hint="use layer or rms normalization, or a lower ratio",
    level="W",
)
def attack_mixes_statistics(case: Case) -> Iterator[Hit]:
    pointer = case.batch_norm
    if pointer is not None and case.spec.training.adversarial is not None:
        yield hit(pointer)
