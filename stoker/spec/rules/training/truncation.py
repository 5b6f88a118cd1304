"""Rules of `training.tbptt`."""

from collections.abc import Iterator

from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task import CausalLM


@rule(
    "tbptt-needs-memory",
    reads=("/training/tbptt", "/model"),
    message="`training.tbptt` cuts the memory of a recurrent model that reads forwards, and this is {model}",
    hint="use rnn, lstm or gru in one direction, or remove tbptt",
)
def tbptt_needs_memory(case: Case) -> Iterator[Hit]:
    model = case.recurrent
    if case.spec.training.tbptt is not None and (model is None or model.bidirectional):
        yield hit("/training/tbptt", model="one that reads both ways" if model else case.spec.model.type)


@rule(
    "tbptt-longer-than-samples",
    reads=("/training/tbptt", "/model", "/data"),
    message="gradients are to go back {steps} steps, and a sample has {length}",
    hint="lower `training.tbptt.steps`, or remove tbptt",
)
def tbptt_longer_than_samples(case: Case) -> Iterator[Hit]:
    cut, length = case.spec.training.tbptt, _length(case)
    if cut is not None and length is not None and cut.steps > length:
        yield hit("/training/tbptt/steps", steps=cut.steps, length=length)


def _length(case: Case) -> int | None:
    """Time steps of a sample, for a recurrent model."""
    shape = case.problem.input_shape
    return None if shape is None or case.recurrent is None else shape[0]


@rule(
    "tbptt-stride",
    reads=("/training/tbptt",),
    message="a stride of {stride} does not divide windows of {steps} steps",
    hint="set `training.tbptt.stride: {nearest}`",
)
def tbptt_stride(case: Case) -> Iterator[Hit]:
    cut = case.spec.training.tbptt
    if cut is not None and cut.stride is not None and cut.steps % cut.stride:
        nearest = next(n for n in range(min(cut.stride, cut.steps), 0, -1) if cut.steps % n == 0)
        yield hit("/training/tbptt/stride", stride=cut.stride, steps=cut.steps, nearest=nearest)


@rule(
    "tbptt-stride-unused",
    reads=("/training/tbptt", "/model", "/task/type"),
    message="samples with one target at their end have one window, the last, and no stride",
    hint="remove `training.tbptt.stride`",
)
def tbptt_stride_unused(case: Case) -> Iterator[Hit]:
    cut = case.spec.training.tbptt
    if cut is not None and cut.stride not in (None, cut.steps) and case.recurrent and not isinstance(case.spec.task, CausalLM):
        yield hit("/training/tbptt/stride")


@rule(
    "distillation-in-windows",
    reads=("/training/distillation", "/training/tbptt"),
    message="a teacher sees whole samples, and `training.tbptt` cuts them",
    hint="remove one of the two",
)
def not_in_windows(case: Case) -> Iterator[Hit]:
    if case.spec.training.distillation is not None and case.spec.training.tbptt is not None:
        yield hit("/training/tbptt")


@rule(
    "text-in-windows",
    reads=("/data/source", "/training/tbptt"),
    message="a text of a table is read whole, not in windows",
    hint="remove `training.tbptt`",
)
def text_in_windows(case: Case) -> Iterator[Hit]:
    if case.text_in_table and case.spec.training.tbptt is not None:
        yield hit("/training/tbptt")
