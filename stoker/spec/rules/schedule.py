"""Rules of `schedule`."""

from collections.abc import Iterator

from stoker.spec.derived.arithmetic import share_of
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.rules._steps import DURATION_READS, RUN_READS
from stoker.spec.schedule import WSD, Cosine, Cycled, Cyclic, MultiStep, OneCycle, Plateau, Step
from stoker.spec.training.dynamic_batch import OnPlateau


@rule(
    "warmup-twice",
    reads=("/schedule",),
    message="`schedule.warmup_steps` and `schedule.warmup_ratio` both set the warm-up",
    hint="keep one of them",
)
def warmup_twice(case: Case) -> Iterator[Hit]:
    if case.spec.schedule.warmup_steps > 0 and case.spec.schedule.warmup_ratio is not None:
        yield hit("/schedule/warmup_ratio")


@rule(
    "warmup-beyond-end",
    reads=("/schedule", *RUN_READS),
    message="the warm-up takes {warmup} steps, the whole run {total}",
    hint="set `schedule.warmup_steps` to {total} or less, or train longer",
)
def warmup_beyond_end(case: Case) -> Iterator[Hit]:
    total = case.total_steps
    warmup = case.spec.schedule.warmup_steps
    if total is not None and warmup > total:
        yield hit("/schedule/warmup_steps", warmup=warmup, total=total)


@rule(
    "decay-twice",
    reads=("/schedule",),
    message="`schedule.decay_steps` and `schedule.decay_ratio` both set the decay",
    hint="keep one of them",
)
def decay_twice(case: Case) -> Iterator[Hit]:
    schedule = case.spec.schedule
    if isinstance(schedule, WSD) and schedule.decay_steps is not None and schedule.decay_ratio is not None:
        yield hit("/schedule/decay_ratio")


@rule(
    "decay-beyond-end",
    reads=("/schedule", *RUN_READS),
    message="a warm-up of {warmup} steps and a decay of {decay} do not fit into {total}",
    hint="shorten one of them or train longer",
)
def decay_before_warmup_ends(case: Case) -> Iterator[Hit]:
    schedule, total = case.spec.schedule, case.total_steps
    if not isinstance(schedule, WSD) or total is None:
        return
    warmup = schedule.warmup_steps if schedule.warmup_ratio is None else share_of(schedule.warmup_ratio, total)
    decay = schedule.decay_steps or share_of(schedule.decay_ratio or 0.0, total)
    if warmup <= total < warmup + decay:
        key = "decay_ratio" if schedule.decay_steps is None else "decay_steps"
        yield hit(f"/schedule/{key}", warmup=warmup, decay=decay, total=total)


@rule(
    "schedule-needs-steps",
    reads=("/schedule", *DURATION_READS),
    message="{what} needs to know the number of steps, and a run that ends by seconds does not",
    hint="use max_steps or epochs, or schedule constant",
)
def schedule_needs_steps(case: Case) -> Iterator[Hit]:
    if case.spec.training.max_seconds is not None:
        yield from needing_total(case)


def needing_total(case: Case) -> Iterator[Hit]:
    """What follows the number of steps of the whole run."""
    if case.spec.schedule.asks_total:
        yield hit("/schedule/type", what=case.spec.schedule.type)
    elif case.spec.schedule.warmup_ratio is not None:
        yield hit("/schedule/warmup_ratio", what="warmup_ratio")


@rule(
    "plateau-hides-steps",
    reads=("/schedule", "/training"),
    message="{what} needs to know the number of steps, and with dynamic_batch on_plateau nobody does",
    hint="set `training.max_steps`, or schedule constant",
)
def plateau_hides_steps(case: Case) -> Iterator[Hit]:
    training = case.spec.training
    if isinstance(training.dynamic_batch, OnPlateau) and training.max_steps is None and training.max_seconds is None:
        yield from needing_total(case)


@rule(
    "step-size-unit",
    reads=("/schedule",),
    message="`{path}` must be in steps or epochs",
    hint="set {{steps: …}} or {{epochs: …}}",
)
def step_size_unit(case: Case) -> Iterator[Hit]:
    for place, length in case.spec.schedule.lengths():
        if length.steps is None and length.epochs is None:
            yield hit(f"/schedule/{place}", path=f"schedule.{place.replace('/', '.')}")


@rule(
    "step-beyond-end",
    reads=("/schedule", *RUN_READS),
    message="the first drop comes after {size} steps, but the run has {total}: the learning rate never drops",
    hint="lower `schedule.step_size` or train longer",
    level="W",
)
def step_beyond_end(case: Case) -> Iterator[Hit]:
    schedule, total = case.spec.schedule, case.total_steps
    if not isinstance(schedule, Step) or total is None:
        return
    size = case.steps_of(schedule.step_size)
    if size is not None and size + schedule.warmup_steps >= total:
        yield hit("/schedule/step_size", size=size, total=total)


@rule(
    "min-lr-above-lr",
    reads=("/schedule", "/optimizer"),
    message="`schedule.min_lr` is {min_lr}, above the peak `optimizer.lr` of {lr}",
    hint="lower min_lr or raise lr",
)
def min_lr_above_lr(case: Case) -> Iterator[Hit]:
    schedule, lr = case.spec.schedule, case.spec.optimizer.lr
    if schedule.floor > lr:
        yield hit("/schedule/min_lr", min_lr=f"{schedule.floor:g}", lr=f"{lr:g}")


@rule(
    "plateau-needs-validation",
    reads=("/schedule/type", "/data/split"),
    message="schedule plateau watches the validation split, and `data.split.validation` is 0",
    hint="hold out a share, for example 0.1, or use schedule cosine",
)
def plateau_blind(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.schedule, Plateau) and case.spec.data.split.validation == 0:
        yield hit("/schedule/type")


@rule(
    "plateau-too-late",
    reads=("/schedule", "/evaluation/interval", *RUN_READS),
    message="the learning rate can fall after {needed} steps at the earliest, but the run has {total}",
    hint="lower patience or `evaluation.interval`",
    level="W",
)
def plateau_too_late(case: Case) -> Iterator[Hit]:
    schedule, total = case.spec.schedule, case.total_steps
    interval = case.steps_of(case.spec.evaluation.interval)
    if not isinstance(schedule, Plateau) or total is None or interval is None:
        return
    needed = schedule.warmup_steps + (schedule.patience + 2) * interval
    if needed >= total:
        yield hit("/schedule/patience", needed=needed, total=total)


@rule(
    "schedule-milestones",
    reads=("/schedule", *RUN_READS),
    message="a milestone after {step} steps is not between steps {before} and {total}",
    hint="name moments within the run, after its warm-up, in ascending order",
)
def milestones_in_order(case: Case) -> Iterator[Hit]:
    """Each after the one before, the first not within the warm-up, the last within the run."""
    schedule, total = case.spec.schedule, case.total_steps
    if not isinstance(schedule, MultiStep):
        return
    before = max(0, schedule.warmup_steps - 1)
    for index, milestone in enumerate(schedule.milestones):
        step = case.steps_of(milestone)
        if step is None:
            continue
        if step <= before or (total is not None and step >= total):
            yield hit(f"/schedule/milestones/{index}", step=step, before=before, total="…" if total is None else total)
        before = step


@rule(
    "schedule-never-turns",
    reads=("/schedule", *RUN_READS),
    message="`{path}` is {size} steps, and the run has {total}: the learning rate never turns",
    hint="lower it or train longer",
    level="W",
)
def never_turns(case: Case) -> Iterator[Hit]:
    """A cycle of which the run does not see the first turn."""
    schedule, total = case.spec.schedule, case.total_steps
    match schedule:
        case Cosine(restarts=restarts) if restarts is not None:
            place, length = "restarts/t_0", restarts.t_0
        case Cyclic(step_size_up=length):
            place = "step_size_up"
        case _:
            return
    size = case.steps_of(length)
    if total is not None and size is not None and schedule.warmup_steps + size >= total:
        yield hit(f"/schedule/{place}", path=f"schedule.{place.replace('/', '.')}", size=size, total=total)


@rule(
    "cycle-upside-down",
    reads=("/schedule",),
    message="`schedule.{low}` is above `schedule.{high}`",
    hint="swap them",
)
def cycle_upside_down(case: Case) -> Iterator[Hit]:
    schedule = case.spec.schedule
    if isinstance(schedule, Cyclic) and (schedule.base_lr or 0.0) > (schedule.max_lr or case.spec.optimizer.lr):
        yield hit("/schedule/base_lr", low="base_lr", high="max_lr")
    if isinstance(schedule, Cycled) and schedule.cycle_momentum and schedule.base_momentum > schedule.max_momentum:
        yield hit("/schedule/base_momentum", low="base_momentum", high="max_momentum")


@rule(
    "two-peaks",
    reads=("/schedule", "/optimizer"),
    message="`schedule.max_lr` is {high} and `optimizer.lr` is {lr}; both set the highest learning rate",
    hint="remove `schedule.max_lr`, or leave `optimizer.lr` at its default",
)
def two_peaks(case: Case) -> Iterator[Hit]:
    schedule, optimizer = case.spec.schedule, case.spec.optimizer
    if not isinstance(schedule, Cyclic) or schedule.max_lr is None:
        return
    if optimizer.lr not in (schedule.max_lr, type(optimizer).model_fields["lr"].default):
        yield hit("/schedule/max_lr", high=f"{schedule.max_lr:g}", lr=f"{optimizer.lr:g}")


@rule(
    "cycle-needs-momentum",
    reads=("/schedule", "/optimizer"),
    message="optimizer {optimizer} has no momentum that could be moved",
    hint="set cycle_momentum: false, or use sgd with momentum or adamw",
)
def momentum_to_cycle(case: Case) -> Iterator[Hit]:
    schedule, optimizer = case.spec.schedule, case.spec.optimizer
    if isinstance(schedule, Cycled) and schedule.cycle_momentum and optimizer.momentum_share is None:
        yield hit("/schedule/cycle_momentum", optimizer=optimizer.type)


@rule(
    "cycled-momentum-is-off",
    reads=("/schedule", "/optimizer"),
    message="the optimizer's momentum is 0, and cycle_momentum would switch it on",
    hint="set it above 0, for example 0.9, or cycle_momentum: false",
)
def momentum_switched_off(case: Case) -> Iterator[Hit]:
    schedule, optimizer = case.spec.schedule, case.spec.optimizer
    if isinstance(schedule, Cycled) and schedule.cycle_momentum and optimizer.momentum_share == 0:
        yield hit("/schedule/cycle_momentum")


@rule(
    "three-phases-fit",
    reads=("/schedule",),
    message="with three phases the learning rate falls as long as it rises, and `pct_start` is {share}",
    hint="set pct_start below 0.5",
)
def three_phases_fit(case: Case) -> Iterator[Hit]:
    schedule = case.spec.schedule
    if isinstance(schedule, OneCycle) and schedule.three_phase and schedule.pct_start >= 0.5:
        yield hit("/schedule/pct_start", share=f"{schedule.pct_start:g}")
