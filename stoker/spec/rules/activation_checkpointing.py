"""Rules of `activation_checkpointing`."""

from collections.abc import Iterator

from stoker.spec.activation_checkpointing import KeepAll, Selective
from stoker.spec.model import Transformer
from stoker.spec.model.parts import BatchNorm
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule


@rule(
    "batch-norm-computed-twice",
    reads=("/model/normalization", "/activation_checkpointing"),
    message="blocks that are computed again would count their batch statistics twice",
    hint="set type: none, or use layer or rms",
)
def batch_norm_twice(case: Case) -> Iterator[Hit]:
    model = case.transformer
    if model is None or not isinstance(model.normalization, BatchNorm):
        return
    if not isinstance(case.spec.activation_checkpointing, KeepAll):
        yield hit("/activation_checkpointing/type")


@rule(
    "recomputation-needs-blocks",
    reads=("/activation_checkpointing", "/model/type"),
    message="only a transformer has blocks to compute again, and this is {model}",
    hint="set type: none, or use smaller micro-batches",
)
def needs_blocks(case: Case) -> Iterator[Hit]:
    if not isinstance(case.spec.activation_checkpointing, KeepAll) and not isinstance(case.spec.model, Transformer):
        yield hit("/activation_checkpointing/type", model=case.spec.model.type)


@rule(
    "recomputation-beyond-blocks",
    reads=("/activation_checkpointing", "/model"),
    message="every {every} blocks of {blocks} is the first alone",
    hint="lower `activation_checkpointing.every`",
    level="W",
)
def selects_all(case: Case) -> Iterator[Hit]:
    spec, model = case.spec.activation_checkpointing, case.spec.model
    if isinstance(spec, Selective) and isinstance(model, Transformer) and spec.every > model.num_layers:
        yield hit("/activation_checkpointing/every", every=spec.every, blocks=model.num_layers)
