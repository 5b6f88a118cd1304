"""Rules of `training.dynamic_batch`."""

from collections.abc import Iterator

from stoker.spec.derived.automatic import better
from stoker.spec.distributed import DDP, Single
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.rules._steps import durations
from stoker.spec.training.dynamic_batch import BatchSchedule, FitMemory, OnPlateau
from stoker.text import nearest, shown

MODE = "/training/dynamic_batch/mode"


@rule(
    "fit-memory-strategy",
    reads=("/training/dynamic_batch", "/distributed"),
    message="fit_memory makes a step again when one rank had too little memory, and with {what} the others wait for it inside the step",
    hint="use strategy single or plain ddp, or leave dynamic_batch out: an attempt that runs out of memory is followed by one with half the micro-batch",
)
def fit_needs_whole_models(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    whole = isinstance(spec, DDP) and spec.data_parts == spec.world_size
    if _fits_memory(case) and not isinstance(spec, Single) and not whole:
        what = "a model that is cut over ranks" if isinstance(spec, DDP) else f"strategy {spec.strategy}"
        yield hit(MODE, what=what)


def _fits_memory(case: Case) -> bool:
    return isinstance(case.spec.training.dynamic_batch, FitMemory)


@rule(
    "fit-memory-hook",
    reads=("/training/dynamic_batch", "/distributed"),
    message="fit_memory exchanges gradients after the passes, where no communication_hook acts",
    hint="remove communication_hook or dynamic_batch",
)
def fit_sends_gradients_whole(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if _fits_memory(case) and isinstance(spec, DDP) and spec.communication_hook is not None:
        yield hit(MODE)


@rule(
    "fit-memory-batch-norm",
    reads=("/training/dynamic_batch", "/model"),
    message="fit_memory changes the micro-batch and keeps the gradient, and that of BatchNorm depends on the micro-batch",
    hint="use layer or rms normalization, or remove dynamic_batch",
)
def fit_changes_batch_norm(case: Case) -> Iterator[Hit]:
    if _fits_memory(case) and case.batch_norm is not None:
        yield hit(MODE)


@rule(
    "fit-memory-tbptt",
    reads=("/training",),
    message="fit_memory makes steps again from their start, and tbptt carries state through them",
    hint="remove tbptt or dynamic_batch",
)
def fit_needs_whole_sequences(case: Case) -> Iterator[Hit]:
    if _fits_memory(case) and case.spec.training.tbptt is not None:
        yield hit(MODE)


@rule(
    "milestone-seconds",
    reads=("/training/dynamic_batch",),
    message="the batch size changes after steps, epochs or tokens, not after seconds",
    hint="set {{steps: …}} or {{epochs: …}}",
)
def milestones_in_seconds(case: Case) -> Iterator[Hit]:
    dynamic = case.spec.training.dynamic_batch
    if isinstance(dynamic, BatchSchedule):
        for index, milestone in enumerate(dynamic.milestones):
            if milestone.after.seconds is not None:
                yield hit(f"/training/dynamic_batch/milestones/{index}/after/seconds")


@rule(
    "milestones-in-order",
    reads=("/training", "/data"),
    message="each change of the batch size comes after the one before it",
    hint="sort `milestones`, and give each its own place",
)
def milestones_in_order(case: Case) -> Iterator[Hit]:
    """In steps as if batches did not change, which keeps the order; of one unit, they need no data set."""
    dynamic = case.spec.training.dynamic_batch
    if not isinstance(dynamic, BatchSchedule):
        return
    before = 0.0
    for index, milestone in enumerate(dynamic.milestones):
        steps = case.steps_of(milestone.after)
        if steps is None:
            return
        if steps <= before:
            yield hit(f"/training/dynamic_batch/milestones/{index}/after")
        before = max(before, steps)


@rule(
    "milestone-never-fills",
    reads=("/training", "/data"),
    message="{samples} training samples do not fill one batch of {size}, and drop_last drops the rest",
    hint="lower batch_size, or set `data.loader.drop_last: false`",
)
def never_filled(case: Case) -> Iterator[Hit]:
    dynamic, samples = case.spec.training.dynamic_batch, case.problem.samples
    if not isinstance(dynamic, BatchSchedule) or samples is None or not case.spec.data.loader.drop_last:
        return
    for index, milestone in enumerate(dynamic.milestones):
        if milestone.batch_size > samples.train:
            pointer = f"/training/dynamic_batch/milestones/{index}/batch_size"
            yield hit(pointer, size=milestone.batch_size, samples=samples.train)


@rule(
    "changing-batch-steps",
    reads=("/training", "/schedule"),
    message="`{path}` must be in steps when the batch size changes along the run",
    hint="set {{steps: …}}",
)
def other_lengths_in_steps(case: Case) -> Iterator[Hit]:
    if not _changes_size(case):
        return
    for pointer, length in durations(case.spec):
        if pointer.startswith(("/schedule", "/training/ema", "/training/swa")) and (length.epochs or length.tokens):
            yield hit(pointer, path=pointer[1:].replace("/", "."))


def _changes_size(case: Case) -> bool:
    return isinstance(case.spec.training.dynamic_batch, BatchSchedule | OnPlateau)


@rule(
    "changing-batch-norm",
    reads=("/training/dynamic_batch", "/model"),
    message="batches that change leave passes of one sample, which BatchNorm cannot normalize",
    hint="use layer or rms normalization",
)
def size_changes_batch_norm(case: Case) -> Iterator[Hit]:
    if _changes_size(case) and case.batch_norm is not None:
        yield hit(MODE)


@rule(
    "changing-batch-places",
    reads=("/training", "/distributed"),
    message="{what} needs batches that keep their size",
    hint="remove one of them",
)
def size_changes_streams(case: Case) -> Iterator[Hit]:
    training, spec = case.spec.training, case.spec.distributed
    if not _changes_size(case):
        return
    if training.tbptt is not None and training.tbptt.stateful:
        yield hit(MODE, what="`training.tbptt.stateful`")
    if isinstance(spec, DDP) and spec.pipeline_parallel is not None:
        yield hit(MODE, what="`distributed.pipeline_parallel`")


@rule(
    "plateau-monitor",
    reads=("/training/dynamic_batch", "/evaluation", "/data/split"),
    message="batches grow by {monitor}, which the run never reports",
    hint="did you mean `{guess}`?",
)
def plateau_monitor(case: Case) -> Iterator[Hit]:
    dynamic, known = case.spec.training.dynamic_batch, case.monitored
    if not isinstance(dynamic, OnPlateau):
        return
    if case.spec.data.split.validation == 0:
        yield hit("/training/dynamic_batch/monitor", known, monitor=shown(dynamic.monitor), guess="data.split.validation")
    elif dynamic.monitor not in known:
        guess = nearest(dynamic.monitor, known) or known[0]
        yield hit("/training/dynamic_batch/monitor", known, monitor=shown(dynamic.monitor), guess=guess)


@rule(
    "plateau-direction",
    reads=("/training/dynamic_batch", "/evaluation"),
    message="{given} would be the worst {monitor}",
    hint="set {right}, or leave `direction` out",
)
def plateau_direction(case: Case) -> Iterator[Hit]:
    dynamic = case.spec.training.dynamic_batch
    if isinstance(dynamic, OnPlateau) and dynamic.direction is not None:
        right = better(case.spec, dynamic.monitor)
        if right is not None and right != dynamic.direction:
            yield hit(
                "/training/dynamic_batch/direction", (right,), monitor=dynamic.monitor, given=dynamic.direction, right=right
            )


@rule(
    "plateau-never-grows",
    reads=("/training",),
    message="batches have {size} samples and may have {most} at most: they never grow",
    hint="raise `training.dynamic_batch.max`",
)
def plateau_never_grows(case: Case) -> Iterator[Hit]:
    dynamic, size = case.spec.training.dynamic_batch, case.spec.training.batch_size
    if isinstance(dynamic, OnPlateau) and dynamic.max <= size:
        yield hit("/training/dynamic_batch/max", most=dynamic.max, size=size)


@rule(
    "nothing-to-halve",
    reads=("/training",),
    message="`training.dynamic_batch.min_micro` is {least}, and micro-batches have {micro} samples: nothing can be halved",
    hint="lower min_micro",
)
def nothing_to_halve(case: Case) -> Iterator[Hit]:
    dynamic, micro = case.spec.training.dynamic_batch, case.spec.training.micro_batch_size
    if isinstance(dynamic, FitMemory) and micro is not None and dynamic.min_micro >= micro:
        yield hit("/training/dynamic_batch/min_micro", least=dynamic.min_micro, micro=micro)
