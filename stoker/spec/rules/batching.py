"""Where batches may change while the run goes on."""

from collections.abc import Iterator

from stoker.spec.derived.automatic import better
from stoker.spec.distributed import DDP, Single
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.rules.batches import batch_norm
from stoker.spec.rules.goals import monitored
from stoker.spec.rules.lengths import durations, steps_of
from stoker.spec.training.dynamic_batch import BatchSchedule, FitMemory, OnPlateau
from stoker.text import nearest, shown

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


def _changes_size(case: Case) -> bool:
    return isinstance(case.spec.training.dynamic_batch, BatchSchedule | OnPlateau)


def milestones_in_seconds(case: Case) -> Iterator[Hit]:
    dynamic = case.spec.training.dynamic_batch
    if isinstance(dynamic, BatchSchedule):
        for index, milestone in enumerate(dynamic.milestones):
            if milestone.after.seconds is not None:
                yield hit(f"/training/dynamic_batch/milestones/{index}/after/seconds")


def milestones_in_order(case: Case) -> Iterator[Hit]:
    """In steps as if batches did not change, which keeps the order; of one unit, they need no data set."""
    dynamic = case.spec.training.dynamic_batch
    if not isinstance(dynamic, BatchSchedule):
        return
    before = 0.0
    for index, milestone in enumerate(dynamic.milestones):
        steps = steps_of(case, milestone.after)
        if steps is None:
            return
        if steps <= before:
            yield hit(f"/training/dynamic_batch/milestones/{index}/after")
        before = max(before, steps)


def never_filled(case: Case) -> Iterator[Hit]:
    dynamic, samples = case.spec.training.dynamic_batch, case.problem.samples
    if not isinstance(dynamic, BatchSchedule) or samples is None or not case.spec.data.loader.drop_last:
        return
    for index, milestone in enumerate(dynamic.milestones):
        if milestone.batch_size > samples.train:
            pointer = f"/training/dynamic_batch/milestones/{index}/batch_size"
            yield hit(pointer, size=milestone.batch_size, samples=samples.train)


def other_lengths_in_steps(case: Case) -> Iterator[Hit]:
    if not _changes_size(case):
        return
    for pointer, length in durations(case):
        if pointer.startswith(("/schedule", "/training/ema", "/training/swa")) and (length.epochs or length.tokens):
            yield hit(pointer, path=pointer[1:].replace("/", "."))


def size_changes_batch_norm(case: Case) -> Iterator[Hit]:
    if _changes_size(case) and batch_norm(case) is not None:
        yield hit(MODE)


def size_changes_streams(case: Case) -> Iterator[Hit]:
    training, spec = case.spec.training, case.spec.distributed
    if not _changes_size(case):
        return
    if training.tbptt is not None and training.tbptt.stateful:
        yield hit(MODE, what="`training.tbptt.stateful`")
    if isinstance(spec, DDP) and spec.pipeline_parallel is not None:
        yield hit(MODE, what="`distributed.pipeline_parallel`")


def plateau_monitor(case: Case) -> Iterator[Hit]:
    dynamic, known = case.spec.training.dynamic_batch, monitored(case)
    if not isinstance(dynamic, OnPlateau):
        return
    if case.spec.data.split.validation == 0:
        yield hit("/training/dynamic_batch/monitor", known, monitor=shown(dynamic.monitor), guess="data.split.validation")
    elif dynamic.monitor not in known:
        guess = nearest(dynamic.monitor, known) or known[0]
        yield hit("/training/dynamic_batch/monitor", known, monitor=shown(dynamic.monitor), guess=guess)


def plateau_direction(case: Case) -> Iterator[Hit]:
    dynamic = case.spec.training.dynamic_batch
    if isinstance(dynamic, OnPlateau) and dynamic.direction is not None:
        right = better(case.spec, dynamic.monitor)
        if right is not None and right != dynamic.direction:
            yield hit(
                "/training/dynamic_batch/direction", (right,), monitor=dynamic.monitor, given=dynamic.direction, right=right
            )


def plateau_never_grows(case: Case) -> Iterator[Hit]:
    dynamic, size = case.spec.training.dynamic_batch, case.spec.training.batch_size
    if isinstance(dynamic, OnPlateau) and dynamic.max <= size:
        yield hit("/training/dynamic_batch/max", most=dynamic.max, size=size)


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
        "milestone-seconds", "R", ("/training/dynamic_batch",), milestones_in_seconds,
        "the batch size changes after steps, epochs or tokens, not after seconds", "set {{steps: …}} or {{epochs: …}}",
    ),
    Rule(
        "milestones-in-order", "R", ("/training", "/data"), milestones_in_order,
        "each change of the batch size comes after the one before it", "sort `milestones`, and give each its own place",
    ),
    Rule(
        "milestone-never-fills", "R", ("/training", "/data"), never_filled,
        "{samples} training samples do not fill one batch of {size}, and drop_last drops the rest", "lower batch_size, or set `data.loader.drop_last: false`",
    ),
    Rule(
        "changing-batch-steps", "R", ("/training", "/schedule"), other_lengths_in_steps,
        "`{path}` must be in steps when the batch size changes along the run", "set {{steps: …}}",
    ),
    Rule(
        "changing-batch-norm", "R", ("/training/dynamic_batch", "/model"), size_changes_batch_norm,
        "batches that change leave passes of one sample, which BatchNorm cannot normalise", "use layer or rms normalisation",
    ),
    Rule(
        "changing-batch-places", "R", ("/training", "/distributed"), size_changes_streams,
        "{what} needs batches that keep their size", "remove one of them",
    ),
    Rule(
        "plateau-monitor", "R", ("/training/dynamic_batch", "/evaluation", "/data/split"), plateau_monitor,
        "batches grow by {monitor}, which the run never reports", "did you mean `{guess}`?",
    ),
    Rule(
        "plateau-direction", "R", ("/training/dynamic_batch", "/evaluation"), plateau_direction,
        "{given} would be the worst {monitor}", "set {right}, or leave `direction` out",
    ),
    Rule(
        "plateau-never-grows", "R", ("/training",), plateau_never_grows,
        "batches have {size} samples and may have {most} at most: they never grow", "raise `training.dynamic_batch.max`",
    ),
    Rule(
        "nothing-to-halve", "R", ("/training",), nothing_to_halve,
        "`training.dynamic_batch.min_micro` is {least}, and micro-batches have {micro} samples: nothing can be halved",
        "lower min_micro",
    ),
)  # fmt: skip
