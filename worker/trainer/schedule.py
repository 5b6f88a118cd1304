"""Schedule specs into the learning rate of each step: closed forms of the step, which need no memory, and one that listens."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, Protocol, assert_never

import torch

from stoker.events import Notice
from stoker.spec.base import Duration
from stoker.spec.derived.arithmetic import in_steps, share_of
from stoker.spec.schedule import (
    WSD,
    Constant,
    Cosine,
    Cycled,
    Cyclic,
    Exponential,
    MultiStep,
    OneCycle,
    Plateau,
    Polynomial,
    Schedule,
    Step,
)
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.part import Part

DECAY = 0.2
"""Share of a run that wsd decays over, where nothing says otherwise."""
LearningRate = Callable[[int], float]
"""Step, from 0, to learning rate."""


class Listener(Protocol):
    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """An evaluation after so many steps."""


def unheard(step: int, metrics: Mapping[str, float]) -> None:
    return


@dataclass(frozen=True)
class Course:
    """What the schedule does to the groups of an optimizer."""

    rate: LearningRate
    momentum: Callable[[int], float] | None = None
    """Of each step, where the schedule moves it."""
    look: Listener = unheard
    part: Part = field(default_factory=Part)
    """What the checkpoint keeps of it."""

    def steer(self, groups: Iterable[dict[str, Any]], rate: float, step: int) -> None:
        """Before each step. `rate`: of weights whose group has scale 1."""
        for group in groups:
            group["lr"] = rate * group["scale"]
            if self.momentum is not None:
                _carry(group, self.momentum(step))


def _carry(group: dict[str, Any], momentum: float) -> None:
    if "momentum" in group:
        group["momentum"] = momentum
    elif "betas" in group:
        group["betas"] = (momentum, group["betas"][1])


def build_schedule(
    spec: Schedule,
    peak: float,
    *,
    total: int | None,
    per_epoch: int,
    modes: Mapping[str, Literal["min", "max"]] | None = None,
    journal: Journal | None = None,
) -> Course:
    """`total` steps of the run, None when only time ends it; `modes`: which way each evaluated metric is better.

    Raises SpecProblem when the shape needs a total or a metric that is not there.
    """
    warmup = _warmup(spec, total)
    if isinstance(spec, Plateau):
        return _listening(spec, peak, warmup, modes or {}, journal)
    shape, (first, momentum) = _shape(spec, peak, warmup, total, per_epoch), _cycled(spec, peak, warmup, total, per_epoch)
    return Course(_warmed(shape, first, warmup, spec.warmup_start_factor), momentum)


def _warmed(shape: LearningRate, first: float, warmup: int, start: float) -> LearningRate:
    def rate(step: int) -> float:
        if step < warmup:
            return first * (start + (1 - start) * (step + 1) / warmup)
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


def _steps(length: Duration, name: str, per_epoch: int) -> int:
    size = in_steps(length, per_epoch, None)
    if size is None:
        raise SpecProblem(f"schedule.{name}: set it in steps or epochs")
    return size


def _whole(spec: Schedule, total: int | None) -> int:
    """Steps of the run, which the shape needs."""
    if total is None:
        raise SpecProblem(
            f"schedule.type: {spec.type} needs a number of steps, but training.max_seconds ends the run; use constant"
        )
    return total


def _shape(spec: Schedule, peak: float, warmup: int, total: int | None, per_epoch: int) -> LearningRate:
    """Of the steps since the warm-up."""
    match spec:
        case Constant() | Plateau():
            return lambda k: peak
        case Cosine(restarts=None):
            last, floor = _whole(spec, total) - 1 - warmup, spec.min_lr
            return lambda k: floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * _share(k, last)))
        case Cosine():
            return _restarted(spec, peak, per_epoch)
        case Step():
            size = _steps(spec.step_size, "step_size", per_epoch)
            return lambda k: max(spec.min_lr, peak * spec.gamma ** (k // size))
        case MultiStep():
            drops = [_steps(milestone, "milestones", per_epoch) - warmup for milestone in spec.milestones]
            return lambda k: max(spec.min_lr, peak * spec.gamma ** sum(k >= drop for drop in drops))
        case Exponential():
            every = _steps(spec.every, "every", per_epoch)
            return lambda k: max(spec.min_lr, peak * spec.gamma ** (k / every))
        case Polynomial():
            last, floor = _whole(spec, total) - 1 - warmup, spec.min_lr
            return lambda k: floor + (peak - floor) * (1 - _share(k, last)) ** spec.power
        case Cyclic():
            low, high = _span(spec, peak)
            height = _heights(spec, per_epoch)
            return lambda k: low + (high - low) * height(k)
        case OneCycle():
            bends = _bends(spec, _whole(spec, total) - warmup, peak)
            return lambda k: _between(spec, bends, k)
        case WSD():
            return _decayed(spec, peak, warmup, _whole(spec, total))
        case _:
            assert_never(spec)


def _share(k: int, last: int) -> float:
    """Of the way to the last step."""
    return min(1.0, k / last) if last > 0 else 1.0


def _restarted(spec: Cosine, peak: float, per_epoch: int) -> LearningRate:
    assert spec.restarts is not None
    first, factor, floor = _steps(spec.restarts.t_0, "restarts.t_0", per_epoch), spec.restarts.t_mult, spec.min_lr

    def rate(k: int) -> float:
        period = first
        if factor == 1:
            k %= period
        while k >= period:
            k, period = k - period, period * factor
        return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * k / period))

    return rate


def _decayed(spec: WSD, peak: float, warmup: int, total: int) -> LearningRate:
    """The peak, and at the end of the run the decay, whose last step has min_lr."""
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


def _span(spec: Cyclic, peak: float) -> tuple[float, float]:
    """Lowest and highest rate."""
    high = peak if spec.max_lr is None else spec.max_lr
    return high / 10 if spec.base_lr is None else spec.base_lr, high


def _heights(spec: Cyclic, per_epoch: int) -> Callable[[int], float]:
    """Share of the way from the lowest rate to the highest."""
    up = _steps(spec.step_size_up, "step_size_up", per_epoch)
    down = up if spec.step_size_down is None else _steps(spec.step_size_down, "step_size_down", per_epoch)

    def height(k: int) -> float:
        cycle, at = divmod(k, up + down)
        line = at / up if at <= up else (up + down - at) / down
        match spec.mode:
            case "triangular":
                return line
            case "triangular2":
                return line * 0.5**cycle
            case "exp_range":
                return line * spec.gamma**k
            case _:
                assert_never(spec.mode)

    return height


Bends = list[tuple[float, float, bool]]
"""Moments between which a value moves from one to the next: the step, the rate there, and whether it is the peak."""


def _bends(spec: OneCycle, steps: int, peak: float) -> Bends:
    low, last = peak / spec.div_factor, max(1, steps - 1)
    top = min(max(0.0, spec.pct_start * steps - 1), last)
    middle = [(2 * top, low, False)] if spec.three_phase and 2 * top < last else []
    return [(0.0, low, False), (top, peak, True), *middle, (float(last), low / spec.final_div_factor, False)]


def _between(spec: OneCycle, bends: Bends, k: int) -> float:
    for (start, one, _), (end, other, _) in pairwise(bends):
        if k <= end and end > start:
            share = (k - start) / (end - start)
            line = share if spec.anneal_strategy == "linear" else 0.5 * (1 - math.cos(math.pi * share))
            return one + (other - one) * line
    return bends[-1][1]


def _cycled(
    spec: Schedule, peak: float, warmup: int, total: int | None, per_epoch: int
) -> tuple[float, Callable[[int], float] | None]:
    """The rate that the shape begins with, and momentum by step of the run where it moves."""
    if not isinstance(spec, Cycled):
        return peak, None
    low, high = spec.base_momentum, spec.max_momentum
    if isinstance(spec, Cyclic):
        height = _heights(spec, per_epoch)
        return _span(spec, peak)[0], (
            lambda step: high - (high - low) * height(max(0, step - warmup))
        ) if spec.cycle_momentum else None
    assert isinstance(spec, OneCycle)
    bends = _bends(spec, _whole(spec, total) - warmup, peak)
    course = [(at, low if top else high, top) for at, _, top in bends]
    return bends[0][1], (lambda step: _between(spec, course, max(0, step - warmup))) if spec.cycle_momentum else None


@dataclass
class Reducer:
    """Lowers the rate when evaluations are no better than before, time after time, by the rules of ReduceLROnPlateau."""

    spec: Plateau
    mode: Literal["min", "max"]
    peak: float
    warmup: int
    journal: Journal | None
    drops: int = 0
    best: float | None = None
    bad: int = 0
    """Evaluations in a row that were no better."""
    cooling: int = 0
    """Evaluations that will not count."""

    def rate(self, k: int) -> float:
        """Of any step since the warm-up, as of now."""
        return max(self.spec.min_lr, self.peak * self.spec.factor**self.drops)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Evaluations during the warm-up say what is best, and do not count as bad."""
        value = metrics[self.spec.monitor]
        if self._improves(value):
            self.best, self.bad = value, 0
        elif step > self.warmup:
            self.bad += 1
        if self.cooling:
            self.cooling, self.bad = self.cooling - 1, 0
        if self.bad > self.spec.patience:
            self._drop(step)

    def _drop(self, step: int) -> None:
        before = self.rate(0)
        self.drops, self.bad, self.cooling = self.drops + 1, 0, self.spec.cooldown
        if self.journal is not None and self.rate(0) < before:
            message = f"{self.spec.monitor} no longer improves: the learning rate falls to {self.rate(0):g}"
            data = {"from": before, "to": self.rate(0), "monitor": self.spec.monitor}
            self.journal.write(Notice(level="info", code="lr_reduced", message=message, step=step, data=data))

    def _improves(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        margin = self.spec.threshold * (abs(self.best) if self.spec.threshold_mode == "rel" else 1.0)
        return value < self.best - margin if self.mode == "min" else value > self.best + margin

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def values(self) -> dict[str, Any]:
        return {"drops": self.drops, "best": self.best, "bad": self.bad, "cooling": self.cooling}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        self.drops, self.best = values.get("drops", 0), values.get("best")
        self.bad, self.cooling = values.get("bad", 0), values.get("cooling", 0)


def _listening(
    spec: Plateau, peak: float, warmup: int, modes: Mapping[str, Literal["min", "max"]], journal: Journal | None
) -> Course:
    if spec.monitor not in modes:
        known = ", ".join(sorted(modes)) or "no validation samples"
        raise SpecProblem(f"schedule.monitor: {spec.monitor} is not evaluated; there are {known}")
    reducer = Reducer(spec, spec.mode or modes[spec.monitor], peak, warmup, journal)
    return Course(_warmed(reducer.rate, peak, warmup, spec.warmup_start_factor), look=reducer, part=Part({"schedule": reducer}))
