"""Schedule specs into the learning rate as a closed form of the step, so that a resumed run needs no state."""

import math
from collections.abc import Callable
from typing import assert_never

from stoker.spec.arithmetic import in_steps
from stoker.spec.schedule import Constant, Cosine, Schedule, Step
from worker.trainer.errors import SpecProblem

LearningRate = Callable[[int], float]
"""Step, from 0, to learning rate."""


def build_schedule(spec: Schedule, peak: float, *, total: int | None, per_epoch: int) -> LearningRate:
    """`total` steps of the run, None when only time ends it. Raises SpecProblem when the shape needs the total."""
    warmup = _warmup(spec, total)
    shape = _shape(spec, peak, warmup, total, per_epoch)
    start = spec.warmup_start_factor

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (start + (1 - start) * (step + 1) / warmup)
        return shape(step - warmup)

    return rate


def _warmup(spec: Schedule, total: int | None) -> int:
    if spec.warmup_ratio is None:
        return spec.warmup_steps
    if total is None:
        raise SpecProblem(
            "schedule.warmup_ratio needs a number of steps, but training.max_seconds ends the run; use warmup_steps"
        )
    return math.ceil(spec.warmup_ratio * total - 1e-9)  # 0.1 x 30 is 3, whatever binary fractions say


def _shape(spec: Schedule, peak: float, warmup: int, total: int | None, per_epoch: int) -> LearningRate:
    """Of the steps since the warm-up."""
    match spec:
        case Constant():
            return lambda k: peak
        case Cosine():
            if total is None:
                raise SpecProblem(
                    "schedule.type: cosine needs a number of steps, but training.max_seconds ends the run; use constant"
                )
            last, floor = total - 1 - warmup, spec.min_lr
            return lambda k: floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * (min(1.0, k / last) if last > 0 else 1.0)))
        case Step():
            size = in_steps(spec.step_size, per_epoch, None)
            if size is None:
                raise SpecProblem("schedule.step_size: set it in steps or epochs")
            gamma, least = spec.gamma, spec.min_lr
            return lambda k: max(least, peak * gamma ** (k // size))
        case _:
            assert_never(spec)
