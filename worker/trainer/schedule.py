"""Schedule specs into the learning rate as a closed form of the step, so that a resumed run needs no state."""

import math
from collections.abc import Callable
from typing import assert_never

from stoker.spec.arithmetic import in_steps, share_of
from stoker.spec.schedule import WSD, Constant, Cosine, Schedule, Step
from worker.trainer.errors import SpecProblem

DECAY = 0.2
"""Share of a run that wsd decays over, where nothing says otherwise."""
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
    return share_of(spec.warmup_ratio, total)


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
        case WSD():
            return _decayed(spec, peak, warmup, total)
        case _:
            assert_never(spec)


def _decayed(spec: WSD, peak: float, warmup: int, total: int | None) -> LearningRate:
    """The peak, and at the end of the run the decay, whose last step has min_lr."""
    if total is None:
        raise SpecProblem("schedule.type: wsd needs a number of steps, but training.max_seconds ends the run; use constant")
    length = (
        share_of(DECAY if spec.decay_ratio is None else spec.decay_ratio, total) if spec.decay_steps is None else spec.decay_steps
    )
    begin, floor = total - warmup - length, spec.min_lr

    def rate(k: int) -> float:
        over = min(1.0, (k - begin + 1) / length) if k >= begin and length else 0.0
        return floor + (peak - floor) * _left(spec, over)

    return rate


def _left(spec: WSD, over: float) -> float:
    """Share of the way from the peak to the floor that is left, from the share of the decay that is over."""
    match spec.decay_shape:
        case "linear":
            return 1 - over
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * over))
        case "sqrt":
            return 1 - math.sqrt(over)
        case _:
            assert_never(spec.decay_shape)
