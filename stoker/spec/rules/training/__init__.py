"""Rules of `training`: its length and its batches."""

from collections.abc import Iterator

from stoker.spec.data import reads_text
from stoker.spec.derived.arithmetic import batch_of
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.rules._steps import DURATION_READS, RUN_READS, durations, lengths
from stoker.spec.training import LENGTHS


@rule(
    "early-stopping-needs-validation",
    reads=("/training/early_stopping", "/data/split"),
    message="early stopping watches the validation split, and `data.split.validation` is 0",
    hint="hold out a share, for example 0.1, or remove early_stopping",
)
def early_stopping_blind(case: Case) -> Iterator[Hit]:
    if case.spec.training.early_stopping is not None and case.spec.data.split.validation == 0:
        yield hit("/training/early_stopping")


@rule(
    "no-training-length",
    reads=(*DURATION_READS,),
    message="`training` does not say when the run ends",
    hint="set one of epochs, max_steps, max_tokens, max_seconds",
)
def no_duration(case: Case) -> Iterator[Hit]:
    if not lengths(case.spec.training):
        yield hit("/training", allowed=LENGTHS)


@rule(
    "many-training-lengths",
    reads=(*DURATION_READS,),
    message="`training.{key}` and `training.{first}` both end the run",
    hint="keep one of them",
)
def many_durations(case: Case) -> Iterator[Hit]:
    given = lengths(case.spec.training)
    for key in given[1:]:
        yield hit(f"/training/{key}", key=key, first=given[0])


@rule(
    "tokens-need-text",
    reads=(
        "/training/max_tokens",
        "/data/source",
        "/evaluation",
        "/checkpoint",
        "/logging",
        "/schedule",
        "/debug",
        "/training/ema",
        "/training/swa",
    ),
    message="`{path}` counts tokens, and only text has tokens",
    hint="use steps or epochs",
)
def tokens_need_text(case: Case) -> Iterator[Hit]:
    if reads_text(case.spec.data.source):
        return
    if case.spec.training.max_tokens is not None:
        yield hit("/training/max_tokens", path="training.max_tokens")
    for pointer, length in durations(case.spec):
        if length.tokens is not None:
            yield hit(f"{pointer}/tokens", path=f"{pointer[1:].replace('/', '.')}.tokens")


@rule(
    "early-stopping-too-late",
    reads=("/training/early_stopping", "/evaluation/interval", *RUN_READS),
    message="early stopping can act after {needed} steps at the earliest, but the run has {total}",
    hint="lower patience or `evaluation.interval`",
    level="W",
)
def early_stopping_too_late(case: Case) -> Iterator[Hit]:
    stopping, total = case.spec.training.early_stopping, case.total_steps
    interval = case.steps_of(case.spec.evaluation.interval)
    if stopping is None or total is None or interval is None:
        return
    needed = (stopping.patience + 1) * interval
    if needed > total:
        yield hit("/training/early_stopping/patience", needed=needed, total=total)


@rule(
    "batch-indivisible",
    reads=("/training/batch_size", "/training/micro_batch_size", "/training/gradient_accumulation_steps", "/distributed"),
    message="`training.batch_size` {size} is not made of {parts}",
    hint="the nearest batch_size that fits is {nearest}",
)
def indivisible(case: Case) -> Iterator[Hit]:
    training, ranks = case.spec.training, case.spec.distributed.data_parts
    micro, accumulation = training.micro_batch_size, training.gradient_accumulation_steps
    if batch_of(training.batch_size, micro, accumulation, ranks) is not None:
        return
    unit = (micro or 1) * (accumulation or 1) * ranks
    fixed = micro is not None and accumulation is not None
    nearest = unit if fixed else max(unit, round(training.batch_size / unit) * unit)
    parts = [f"micro_batch_size {micro}"] if micro else []
    parts += [f"gradient_accumulation_steps {accumulation}"] if accumulation else []
    parts += [f"{ranks} ranks"] if ranks > 1 else []
    yield hit("/training/batch_size", size=training.batch_size, parts=" x ".join(parts), nearest=nearest)


@rule(
    "batch-larger-than-data",
    reads=("/training/batch_size", "/data", "/task"),
    message="one batch of {size} is more than the {samples} training samples: every epoch is one smaller step",
    hint="lower `training.batch_size`",
    level="W",
)
def larger_than_data(case: Case) -> Iterator[Hit]:
    samples, size = case.problem.samples, case.spec.training.batch_size
    if samples is not None and 0 < samples.train < size:
        yield hit("/training/batch_size", size=size, samples=samples.train)


@rule(
    "pipeline-pieces",
    reads=("/distributed", "/training"),
    message="micro-batches of {micro} samples do not divide into {pieces} pieces",
    hint="set `training.micro_batch_size` to {nearest}",
)
def pieces_divide_micro_batches(case: Case) -> Iterator[Hit]:
    pipeline, micro = case.pipeline_parallel, case.spec.training.micro_batch_size
    if pipeline is not None and micro is not None and micro % pipeline.microbatches:
        nearest = max(1, micro // pipeline.microbatches) * pipeline.microbatches
        yield hit("/training/micro_batch_size", micro=micro, pieces=pipeline.microbatches, nearest=nearest)
