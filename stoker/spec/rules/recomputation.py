"""What activation checkpointing asks of the model."""

from collections.abc import Iterator

from stoker.spec.activation_checkpointing import KeepAll, Selective
from stoker.spec.model import Transformer
from stoker.spec.rules._rule import Case, Hit, Rule, hit


def needs_blocks(case: Case) -> Iterator[Hit]:
    if not isinstance(case.spec.activation_checkpointing, KeepAll) and not isinstance(case.spec.model, Transformer):
        yield hit("/activation_checkpointing/type", model=case.spec.model.type)


def selects_all(case: Case) -> Iterator[Hit]:
    spec, model = case.spec.activation_checkpointing, case.spec.model
    if isinstance(spec, Selective) and isinstance(model, Transformer) and spec.every > model.num_layers:
        yield hit("/activation_checkpointing/every", every=spec.every, blocks=model.num_layers)


RECOMPUTATION_RULES = (
    Rule(
        "recomputation-needs-blocks", "R", ("/activation_checkpointing", "/model/type"), needs_blocks,
        "only a transformer has blocks to compute again, and this is {model}", "set type: none, or use smaller micro-batches",
    ),
    Rule(
        "recomputation-beyond-blocks", "W", ("/activation_checkpointing", "/model"), selects_all,
        "every {every} blocks of {blocks} is the first alone", "lower `activation_checkpointing.every`",
    ),
)  # fmt: skip
