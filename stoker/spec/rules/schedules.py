"""What schedules ask of the length of the run, of the metrics and of the optimizer."""

from collections.abc import Iterator

from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.rules.lengths import RUN_READS, steps_of, total_steps
from stoker.spec.schedule import Cosine, Cycled, Cyclic, MultiStep, OneCycle, Plateau


def plateau_blind(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.schedule, Plateau) and case.spec.data.split.validation == 0:
        yield hit("/schedule/type")


def plateau_too_late(case: Case) -> Iterator[Hit]:
    schedule, total = case.spec.schedule, total_steps(case)
    interval = steps_of(case, case.spec.evaluation.interval)
    if not isinstance(schedule, Plateau) or total is None or interval is None:
        return
    needed = schedule.warmup_steps + (schedule.patience + 2) * interval
    if needed >= total:
        yield hit("/schedule/patience", needed=needed, total=total)


def milestones_in_order(case: Case) -> Iterator[Hit]:
    """Each after the one before, the first not within the warm-up, the last within the run."""
    schedule, total = case.spec.schedule, total_steps(case)
    if not isinstance(schedule, MultiStep):
        return
    before = max(0, schedule.warmup_steps - 1)
    for index, milestone in enumerate(schedule.milestones):
        step = steps_of(case, milestone)
        if step is None:
            continue
        if step <= before or (total is not None and step >= total):
            yield hit(f"/schedule/milestones/{index}", step=step, before=before, total="…" if total is None else total)
        before = step


def never_turns(case: Case) -> Iterator[Hit]:
    """A cycle of which the run does not see the first turn."""
    schedule, total = case.spec.schedule, total_steps(case)
    match schedule:
        case Cosine(restarts=restarts) if restarts is not None:
            place, length = "restarts/t_0", restarts.t_0
        case Cyclic(step_size_up=length):
            place = "step_size_up"
        case _:
            return
    size = steps_of(case, length)
    if total is not None and size is not None and schedule.warmup_steps + size >= total:
        yield hit(f"/schedule/{place}", path=f"schedule.{place.replace('/', '.')}", size=size, total=total)


def cycle_upside_down(case: Case) -> Iterator[Hit]:
    schedule = case.spec.schedule
    if isinstance(schedule, Cyclic) and (schedule.base_lr or 0.0) > (schedule.max_lr or case.spec.optimizer.lr):
        yield hit("/schedule/base_lr", low="base_lr", high="max_lr")
    if isinstance(schedule, Cycled) and schedule.cycle_momentum and schedule.base_momentum > schedule.max_momentum:
        yield hit("/schedule/base_momentum", low="base_momentum", high="max_momentum")


def two_peaks(case: Case) -> Iterator[Hit]:
    schedule, optimizer = case.spec.schedule, case.spec.optimizer
    if not isinstance(schedule, Cyclic) or schedule.max_lr is None:
        return
    if optimizer.lr not in (schedule.max_lr, type(optimizer).model_fields["lr"].default):
        yield hit("/schedule/max_lr", high=f"{schedule.max_lr:g}", lr=f"{optimizer.lr:g}")


def momentum_to_cycle(case: Case) -> Iterator[Hit]:
    schedule, optimizer = case.spec.schedule, case.spec.optimizer
    if isinstance(schedule, Cycled) and schedule.cycle_momentum and optimizer.momentum_share is None:
        yield hit("/schedule/cycle_momentum", optimizer=optimizer.type)


def momentum_switched_off(case: Case) -> Iterator[Hit]:
    schedule, optimizer = case.spec.schedule, case.spec.optimizer
    if isinstance(schedule, Cycled) and schedule.cycle_momentum and optimizer.momentum_share == 0:
        yield hit("/schedule/cycle_momentum")


def three_phases_fit(case: Case) -> Iterator[Hit]:
    schedule = case.spec.schedule
    if isinstance(schedule, OneCycle) and schedule.three_phase and schedule.pct_start >= 0.5:
        yield hit("/schedule/pct_start", share=f"{schedule.pct_start:g}")


SCHEDULE_RULES = (
    Rule(
        "plateau-needs-validation", "R", ("/schedule/type", "/data/split"), plateau_blind,
        "schedule plateau watches the validation split, and `data.split.validation` is 0", "hold out a share, for example 0.1, or use schedule cosine",
    ),
    Rule(
        "plateau-too-late", "W", ("/schedule", "/evaluation/interval", *RUN_READS), plateau_too_late,
        "the learning rate can fall after {needed} steps at the earliest, but the run has {total}", "lower patience or `evaluation.interval`",
    ),
    Rule(
        "schedule-milestones", "R", ("/schedule", *RUN_READS), milestones_in_order,
        "a milestone after {step} steps is not between steps {before} and {total}",
        "name moments within the run, after its warm-up, in ascending order",
    ),
    Rule(
        "schedule-never-turns", "W", ("/schedule", *RUN_READS), never_turns,
        "`{path}` is {size} steps, and the run has {total}: the learning rate never turns", "lower it or train longer",
    ),
    Rule(
        "cycle-upside-down", "R", ("/schedule",), cycle_upside_down, "`schedule.{low}` is above `schedule.{high}`", "swap them",
    ),
    Rule(
        "two-peaks", "R", ("/schedule", "/optimizer"), two_peaks,
        "`schedule.max_lr` is {high} and `optimizer.lr` is {lr}, and both are the highest learning rate", "keep one of them",
    ),
    Rule(
        "cycle-needs-momentum", "R", ("/schedule", "/optimizer"), momentum_to_cycle,
        "optimizer {optimizer} has no momentum that could be moved", "set cycle_momentum: false, or use sgd with momentum or adamw",
    ),
    Rule(
        "cycled-momentum-is-off", "R", ("/schedule", "/optimizer"), momentum_switched_off,
        "the optimizer's momentum is 0, and cycle_momentum would switch it on", "set it above 0, for example 0.9, or cycle_momentum: false",
    ),
    Rule(
        "three-phases-fit", "R", ("/schedule",), three_phases_fit,
        "with three phases the learning rate falls as long as it rises, and `pct_start` is {share}", "set pct_start below 0.5",
    ),
)  # fmt: skip
