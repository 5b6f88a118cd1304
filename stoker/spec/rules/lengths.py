"""How long things last: training, warm-up, intervals."""

from collections.abc import Iterator

from stoker.spec.base import Duration
from stoker.spec.data import reads_text
from stoker.spec.debug import Debug
from stoker.spec.derived.arithmetic import in_steps, share_of, steps_per_epoch
from stoker.spec.derived.timeline import Timeline
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.schedule import WSD, Step
from stoker.spec.training import LENGTHS, Training
from stoker.spec.training.dynamic_batch import BatchSchedule, OnPlateau

DURATION_READS = tuple(f"/training/{key}" for key in LENGTHS)
RUN_READS = (*DURATION_READS, "/training/batch_size", "/data", "/task")
"""What the number of steps of the run follows from."""


def _lengths(case: Case) -> list[str]:
    return [key for key in LENGTHS if getattr(case.spec.training, key) is not None]


def no_duration(case: Case) -> Iterator[Hit]:
    if not _lengths(case):
        yield hit("/training", allowed=LENGTHS)


def many_durations(case: Case) -> Iterator[Hit]:
    given = _lengths(case)
    for key in given[1:]:
        yield hit(f"/training/{key}", key=key, first=given[0])


def durations(case: Case) -> Iterator[tuple[str, Duration]]:
    """Every duration of a spec and its pointer."""
    spec = case.spec
    yield "/evaluation/interval", spec.evaluation.interval
    yield "/checkpoint/interval", spec.checkpoint.interval
    yield "/logging/interval", spec.logging.interval
    for place, length in spec.schedule.lengths():
        yield f"/schedule/{place}", length
    yield from averaging(spec.training)
    yield from inspections(spec.debug)
    yield from milestones(spec.training)


def milestones(training: Training) -> Iterator[tuple[str, Duration]]:
    """When the batch size changes."""
    if isinstance(training.dynamic_batch, BatchSchedule):
        for index, milestone in enumerate(training.dynamic_batch.milestones):
            yield f"/training/dynamic_batch/milestones/{index}/after", milestone.after


def inspections(debug: Debug) -> Iterator[tuple[str, Duration]]:
    """How often the inside of a run is looked at."""
    if debug.histograms is not None:
        yield "/debug/histograms/interval", debug.histograms.interval
    if debug.gradients is not None:
        yield "/debug/gradients/interval", debug.gradients.interval
    for index, probe in enumerate(debug.probes):
        yield f"/debug/probes/{index}/interval", probe.interval


def averaging(training: Training) -> Iterator[tuple[str, Duration]]:
    """When weights are averaged."""
    if training.ema is not None and training.ema.start is not None:
        yield "/training/ema/start", training.ema.start
    if training.swa is not None:
        yield "/training/swa/start", training.swa.start
        yield "/training/swa/every", training.swa.every


def tokens_need_text(case: Case) -> Iterator[Hit]:
    if reads_text(case.spec.data.source):
        return
    if case.spec.training.max_tokens is not None:
        yield hit("/training/max_tokens", path="training.max_tokens")
    for pointer, length in durations(case):
        if length.tokens is not None:
            yield hit(f"{pointer}/tokens", path=f"{pointer[1:].replace('/', '.')}.tokens")


def per_epoch(case: Case) -> int | None:
    """Optimizer steps per epoch, where the data set is known."""
    samples = case.problem.samples
    if samples is None:
        return None
    return steps_per_epoch(samples.train, case.spec.training.batch_size, case.spec.data.loader.drop_last)


def tokens_per_step(case: Case) -> int | None:
    sequence = case.spec.data.sequence
    return None if sequence is None else case.spec.training.batch_size * sequence.length


def total_steps(case: Case) -> int | None:
    """Optimizer steps of the run, where arithmetic knows them."""
    training = case.spec.training
    if len(_lengths(case)) != 1 or training.max_seconds is not None:
        return None
    length = Duration(steps=training.max_steps, epochs=training.epochs, tokens=training.max_tokens)
    match training.dynamic_batch:
        case OnPlateau():
            return training.max_steps
        case BatchSchedule() if training.max_steps is None:
            return _scheduled(case, length)
        case _:
            return steps_of(case, length)


def _scheduled(case: Case, length: Duration) -> int | None:
    """A length in steps whose batches change along the run."""
    samples, training = case.problem.samples, case.spec.training
    if samples is None or samples.train < 1 or not isinstance(training.dynamic_batch, BatchSchedule):
        return None
    tokens = 0 if case.spec.data.sequence is None else case.spec.data.sequence.length
    try:
        timeline = Timeline(samples.train, training.batch_size, case.spec.data.loader.drop_last)
        timeline.lay_out(training.dynamic_batch.changes, tokens)
    except ValueError:  # another rule says so
        return None
    return timeline.steps_of(length, tokens)


def steps_of(case: Case, length: Duration) -> int | None:
    epoch = per_epoch(case)
    if length.epochs is not None and epoch is None:
        return None
    return in_steps(length, epoch or 1, tokens_per_step(case))


def warmup_twice(case: Case) -> Iterator[Hit]:
    if case.spec.schedule.warmup_steps > 0 and case.spec.schedule.warmup_ratio is not None:
        yield hit("/schedule/warmup_ratio")


def warmup_beyond_end(case: Case) -> Iterator[Hit]:
    total = total_steps(case)
    warmup = case.spec.schedule.warmup_steps
    if total is not None and warmup > total:
        yield hit("/schedule/warmup_steps", warmup=warmup, total=total)


def decay_twice(case: Case) -> Iterator[Hit]:
    schedule = case.spec.schedule
    if isinstance(schedule, WSD) and schedule.decay_steps is not None and schedule.decay_ratio is not None:
        yield hit("/schedule/decay_ratio")


def decay_before_warmup_ends(case: Case) -> Iterator[Hit]:
    schedule, total = case.spec.schedule, total_steps(case)
    if not isinstance(schedule, WSD) or total is None:
        return
    warmup = schedule.warmup_steps if schedule.warmup_ratio is None else share_of(schedule.warmup_ratio, total)
    decay = schedule.decay_steps or share_of(schedule.decay_ratio or 0.0, total)
    if warmup <= total < warmup + decay:
        key = "decay_ratio" if schedule.decay_steps is None else "decay_steps"
        yield hit(f"/schedule/{key}", warmup=warmup, decay=decay, total=total)


def schedule_needs_steps(case: Case) -> Iterator[Hit]:
    if case.spec.training.max_seconds is not None:
        yield from needing_total(case)


def plateau_hides_steps(case: Case) -> Iterator[Hit]:
    training = case.spec.training
    if isinstance(training.dynamic_batch, OnPlateau) and training.max_steps is None and training.max_seconds is None:
        yield from needing_total(case)


def needing_total(case: Case) -> Iterator[Hit]:
    """What follows the number of steps of the whole run."""
    if case.spec.schedule.asks_total:
        yield hit("/schedule/type", what=case.spec.schedule.type)
    elif case.spec.schedule.warmup_ratio is not None:
        yield hit("/schedule/warmup_ratio", what="warmup_ratio")


def step_size_unit(case: Case) -> Iterator[Hit]:
    for place, length in case.spec.schedule.lengths():
        if length.steps is None and length.epochs is None:
            yield hit(f"/schedule/{place}", path=f"schedule.{place.replace('/', '.')}")


def step_beyond_end(case: Case) -> Iterator[Hit]:
    schedule, total = case.spec.schedule, total_steps(case)
    if not isinstance(schedule, Step) or total is None:
        return
    size = steps_of(case, schedule.step_size)
    if size is not None and size + schedule.warmup_steps >= total:
        yield hit("/schedule/step_size", size=size, total=total)


def min_lr_above_lr(case: Case) -> Iterator[Hit]:
    schedule, lr = case.spec.schedule, case.spec.optimizer.lr
    if schedule.floor > lr:
        yield hit("/schedule/min_lr", min_lr=f"{schedule.floor:g}", lr=f"{lr:g}")


def early_stopping_too_late(case: Case) -> Iterator[Hit]:
    stopping, total = case.spec.training.early_stopping, total_steps(case)
    interval = steps_of(case, case.spec.evaluation.interval)
    if stopping is None or total is None or interval is None:
        return
    needed = (stopping.patience + 1) * interval
    if needed > total:
        yield hit("/training/early_stopping/patience", needed=needed, total=total)


def time_limit_too_short(case: Case) -> Iterator[Hit]:
    seconds, limit = case.spec.training.max_seconds, case.spec.resources.time_limit_seconds
    if seconds is not None and limit is not None and seconds > limit:
        yield hit("/resources/time_limit_seconds", seconds=f"{seconds:g}", limit=f"{limit:g}")


LENGTH_RULES = (
    Rule(
        "no-training-length", "R", DURATION_READS, no_duration,
        "training does not say how long it lasts", "add one of epochs, max_steps, max_tokens, max_seconds",
    ),
    Rule(
        "many-training-lengths", "R", DURATION_READS, many_durations,
        "`training.{key}` and `training.{first}` both end the run", "keep one of them",
    ),
    Rule(
        "tokens-need-text", "R", ("/data/source", "/training/max_tokens", "/evaluation", "/checkpoint", "/logging", "/schedule", "/debug", "/training/ema", "/training/swa"),
        tokens_need_text, "`{path}` counts tokens, and only text has tokens", "use steps or epochs",
    ),
    Rule(
        "warmup-twice", "R", ("/schedule",), warmup_twice,
        "`schedule.warmup_steps` and `schedule.warmup_ratio` both set the warm-up", "keep one of them",
    ),
    Rule(
        "warmup-beyond-end", "R", ("/schedule", *RUN_READS), warmup_beyond_end,
        "the warm-up takes {warmup} steps, the whole run {total}", "lower `schedule.warmup_steps` or train longer",
    ),
    Rule(
        "decay-twice", "R", ("/schedule",), decay_twice,
        "`schedule.decay_steps` and `schedule.decay_ratio` both set the decay", "keep one of them",
    ),
    Rule(
        "decay-beyond-end", "R", ("/schedule", *RUN_READS), decay_before_warmup_ends,
        "a warm-up of {warmup} steps and a decay of {decay} do not fit into {total}", "shorten one of them or train longer",
    ),
    Rule(
        "schedule-needs-steps", "R", ("/schedule", *DURATION_READS), schedule_needs_steps,
        "{what} needs to know the number of steps, and a run that ends by seconds does not", "use max_steps or epochs, or schedule constant",
    ),
    Rule(
        "plateau-hides-steps", "R", ("/schedule", "/training"), plateau_hides_steps,
        "{what} needs to know the number of steps, and with dynamic_batch on_plateau nobody does", "set `training.max_steps`, or schedule constant",
    ),
    Rule(
        "step-size-unit", "R", ("/schedule",), step_size_unit,
        "`{path}` must be in steps or epochs", "set {{steps: …}} or {{epochs: …}}",
    ),
    Rule(
        "step-beyond-end", "W", ("/schedule", *RUN_READS), step_beyond_end,
        "the first drop comes after {size} steps, but the run has {total}: the learning rate never drops",
        "lower `schedule.step_size` or train longer",
    ),
    Rule(
        "min-lr-above-lr", "R", ("/schedule", "/optimizer"), min_lr_above_lr,
        "`schedule.min_lr` is {min_lr}, above the peak `optimizer.lr` of {lr}", "lower min_lr or raise lr",
    ),
    Rule(
        "early-stopping-too-late", "W", ("/training/early_stopping", "/evaluation/interval", *RUN_READS), early_stopping_too_late,
        "early stopping can act after {needed} steps at the earliest, but the run has {total}",
        "lower patience or `evaluation.interval`",
    ),
    Rule(
        "time-limit-too-short", "W", ("/training/max_seconds", "/resources/time_limit_seconds"), time_limit_too_short,
        "the run may train for {seconds} seconds, but an attempt is stopped and failed after {limit}", "raise `resources.time_limit_seconds`",
    ),
)  # fmt: skip
