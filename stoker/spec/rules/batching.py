"""Where batches may change while the run goes on."""

from collections.abc import Iterator

from stoker.spec.distributed import DDP, Single
from stoker.spec.dynamic_batch import FitMemory
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.rules.batches import batch_norm

MODE = "/training/dynamic_batch/mode"


def _fits_memory(case: Case) -> bool:
    return isinstance(case.spec.training.dynamic_batch, FitMemory)


def fit_needs_whole_models(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    whole = isinstance(spec, DDP) and spec.data_parts == spec.world_size
    if _fits_memory(case) and not isinstance(spec, Single) and not whole:
        what = "a model that is cut over ranks" if isinstance(spec, DDP) else f"strategy {spec.strategy}"
        yield hit(MODE, what=what)


def fit_sends_gradients_whole(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if _fits_memory(case) and isinstance(spec, DDP) and spec.communication_hook is not None:
        yield hit(MODE)


def fit_changes_batch_norm(case: Case) -> Iterator[Hit]:
    if _fits_memory(case) and batch_norm(case) is not None:
        yield hit(MODE)


def fit_needs_whole_sequences(case: Case) -> Iterator[Hit]:
    if _fits_memory(case) and case.spec.training.tbptt is not None:
        yield hit(MODE)


def nothing_to_halve(case: Case) -> Iterator[Hit]:
    dynamic, micro = case.spec.training.dynamic_batch, case.spec.training.micro_batch_size
    if isinstance(dynamic, FitMemory) and micro is not None and dynamic.min_micro >= micro:
        yield hit("/training/dynamic_batch/min_micro", least=dynamic.min_micro, micro=micro)


READS = ("/training/dynamic_batch", "/distributed")

BATCHING_RULES = (
    Rule(
        "fit-memory-strategy", "R", READS, fit_needs_whole_models,
        "fit_memory makes a step again when one rank had too little memory, and with {what} the others wait for it inside the step",
        "use strategy single or plain ddp, or leave dynamic_batch out: an attempt that runs out of memory is followed by one with half the micro-batch",
    ),
    Rule(
        "fit-memory-hook", "R", READS, fit_sends_gradients_whole,
        "fit_memory exchanges gradients after the passes, where no communication_hook acts", "remove communication_hook or dynamic_batch",
    ),
    Rule(
        "fit-memory-batch-norm", "R", ("/training/dynamic_batch", "/model"), fit_changes_batch_norm,
        "fit_memory changes the micro-batch and keeps the gradient, and that of BatchNorm depends on the micro-batch",
        "use layer or rms normalisation, or remove dynamic_batch",
    ),
    Rule(
        "fit-memory-tbptt", "R", ("/training",), fit_needs_whole_sequences,
        "fit_memory makes steps again from their start, and tbptt carries state through them", "remove tbptt or dynamic_batch",
    ),
    Rule(
        "nothing-to-halve", "R", ("/training",), nothing_to_halve,
        "`training.dynamic_batch.min_micro` is {least}, and micro-batches have {micro} samples: nothing can be halved",
        "lower min_micro",
    ),
)  # fmt: skip
