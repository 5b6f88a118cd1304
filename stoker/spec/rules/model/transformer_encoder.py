"""Rules of `model` for transformer_encoder."""

from collections.abc import Iterator

from stoker.spec.data import reads_text
from stoker.spec.model import TransformerEncoder
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task import MaskedLM


@rule(
    "encoder-inputs",
    reads=("/model/type", "/data"),
    message="a transformer_encoder reads text or sequences of (steps, features), and samples are {given}",
    hint="use mlp or layers",
)
def encoder_inputs(case: Case) -> Iterator[Hit]:
    """Text, or sequences of numbers."""
    shape = case.problem.input_shape
    numbers = isinstance(case.spec.model, TransformerEncoder) and not reads_text(case.spec.data.source)
    if numbers and shape is not None and len(shape) != 2:
        yield hit("/model/type", ("mlp", "layers"), given=f"({', '.join(map(str, shape))})")


@rule(
    "encoder-head",
    reads=("/model", "/task/type"),
    message="`model.{name}` has no effect here: {what}",
    hint="remove it",
)
def unused_by_head(case: Case) -> Iterator[Hit]:
    """Fields of the head that the task does not have."""
    model = case.spec.model
    if not isinstance(model, TransformerEncoder):
        return
    filled = isinstance(case.spec.task, MaskedLM)
    for name, used, what in (
        ("pooler", not filled, "masked_lm has no pooling"),
        ("head_transform", filled, "it is of the vocabulary head of masked_lm"),
    ):
        if getattr(model, name) and not used:
            yield hit(f"/model/{name}", name=name, what=what)
