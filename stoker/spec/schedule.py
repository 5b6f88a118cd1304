"""How the learning rate moves. Built by `worker.trainer.schedule`.

Step k (from 0) of the run uses lr(k). During warm-up lr(k) = first x (f + (1 - f) x (k + 1) / warmup) with f the start factor
and `first` the rate that the shape begins with, the peak for most, so that it is reached at step warmup - 1; after it, the
shape below counts from k - warmup. The peak is `optimizer.lr`.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Count, Decay, Duration, Fraction, Knob, MetricKey, Natural, NonNegative, Positive, Spec


class Warmup(Spec):
    """What every schedule shares."""

    warmup_steps: Annotated[Natural, Knob("optimizer steps", ("quality",), ("SCHED-07",))] = 0
    """Steps over which the learning rate rises to its peak."""
    warmup_ratio: Annotated[Fraction | None, Knob("share of the run", ("quality",), ("SCHED-07",))] = None
    """The same as a share of all steps, rounded up; not together with warmup_steps."""
    warmup_start_factor: Annotated[Fraction, Knob("share of the peak", ("quality",), ("SCHED-07",))] = 0.0
    """Share of the peak that the rise starts from."""

    @property
    def asks_total(self) -> bool:
        """Whether the shape depends on the number of steps of the run."""
        return False

    @property
    def floor(self) -> float:
        """What the learning rate never falls below after the warm-up."""
        return 0.0

    def lengths(self) -> Iterator[tuple[str, Duration]]:
        """Its durations, which are in steps or epochs, by their place in it."""
        yield from ()


class Floored(Warmup):
    """Schedules that fall to a floor."""

    min_lr: Annotated[NonNegative, Knob("learning rate", ("quality",), ("SCHED-09",))] = 0.0
    """Floor under the learning rate."""

    @property
    def floor(self) -> float:
        return self.min_lr


class Constant(Warmup):
    """The peak learning rate throughout."""

    type: Literal["constant"] = "constant"
    """Which schedule this is."""


class Restarts(Spec):
    """Cosines one after the other, each from the peak (SGDR)."""

    t_0: Annotated[Duration, Knob(affects=("quality",), rows=("SCHED-04",))]
    """Length of the first cosine, in steps or epochs."""
    t_mult: Annotated[Annotated[int, Field(ge=1, le=1000)], Knob("factor", ("quality",), ("SCHED-04",))] = 1
    """Each cosine is so many times as long as the one before."""


class Cosine(Warmup):
    """Half a cosine from the peak to min_lr at the last step (Loshchilov and Hutter 2017)."""

    type: Literal["cosine"] = "cosine"
    """Which schedule this is."""
    min_lr: Annotated[NonNegative, Knob("learning rate", ("quality",), ("SCHED-04",))] = 0.0
    """Learning rate of the last step; with restarts, what each cosine ends just above."""
    restarts: Restarts | None = None
    """Begin again from the peak now and then; unset, one cosine lasts until the end of the run."""

    @property
    def asks_total(self) -> bool:
        return self.restarts is None

    @property
    def floor(self) -> float:
        return self.min_lr

    def lengths(self) -> Iterator[tuple[str, Duration]]:
        if self.restarts is not None:
            yield "restarts/t_0", self.restarts.t_0


class Step(Floored):
    """Multiply by gamma after every interval."""

    type: Literal["step"] = "step"
    """Which schedule this is."""
    step_size: Annotated[Duration, Knob(affects=("quality",), rows=("SCHED-02",))] = Duration(epochs=10)
    """Length between two drops, in steps or epochs."""
    gamma: Annotated[Fraction, Knob("factor", ("quality",), ("SCHED-02",))] = 0.1
    """Factor of each drop."""

    def lengths(self) -> Iterator[tuple[str, Duration]]:
        yield "step_size", self.step_size


class MultiStep(Floored):
    """Multiply by gamma at chosen moments of the run."""

    type: Literal["multistep"] = "multistep"
    """Which schedule this is."""
    milestones: Annotated[
        tuple[Duration, ...], Knob(affects=("quality",), rows=("SCHED-02",)), Field(min_length=1, max_length=1000)
    ]
    """Steps or epochs of the run, the warm-up included, after which the learning rate drops; in ascending order."""
    gamma: Annotated[Fraction, Knob("factor", ("quality",), ("SCHED-02",))] = 0.1
    """Factor of each drop."""

    def lengths(self) -> Iterator[tuple[str, Duration]]:
        for index, milestone in enumerate(self.milestones):
            yield f"milestones/{index}", milestone


class Exponential(Floored):
    """Multiply by gamma over every interval, a little in each step."""

    type: Literal["exponential"] = "exponential"
    """Which schedule this is."""
    gamma: Annotated[Fraction, Knob("factor", ("quality",), ("SCHED-03",))] = 0.95
    """Factor over each interval."""
    every: Annotated[Duration, Knob(affects=("quality",), rows=("SCHED-03",))] = Duration(epochs=1)
    """Length of an interval, in steps or epochs."""

    def lengths(self) -> Iterator[tuple[str, Duration]]:
        yield "every", self.every


class Polynomial(Floored):
    """From the peak to min_lr at the last step, along a power of the share of the run that is left."""

    type: Literal["polynomial"] = "polynomial"
    """Which schedule this is."""
    power: Annotated[Annotated[float, Field(gt=0, le=100)], Knob(affects=("quality",), rows=("SCHED-01", "SCHED-09"))] = 1.0
    """Power of the share of the run that is left; 1 is a line."""

    @property
    def asks_total(self) -> bool:
        return True


class Cycled(Warmup):
    """Schedules under which momentum may fall while the learning rate rises."""

    cycle_momentum: Annotated[bool, Knob(affects=("quality",), rows=("SCHED-05",))] = False
    """Move momentum too, or beta1: down while the learning rate rises, and up while it falls."""
    base_momentum: Annotated[Decay, Knob(affects=("quality",), rows=("SCHED-05",))] = 0.85
    """Momentum where the learning rate is highest; for cycle_momentum."""
    max_momentum: Annotated[Decay, Knob(affects=("quality",), rows=("SCHED-05",))] = 0.95
    """Momentum where the learning rate is lowest; for cycle_momentum."""


class Cyclic(Cycled):
    """Up and down between two learning rates in straight lines (Smith 2017)."""

    type: Literal["cyclic"] = "cyclic"
    """Which schedule this is."""
    base_lr: Annotated[NonNegative | None, Knob("learning rate", ("quality",), ("SCHED-05",))] = None
    """Lowest learning rate, at which cycles begin; unset, a tenth of the highest."""
    max_lr: Annotated[Positive | None, Knob("learning rate", ("quality",), ("SCHED-05",))] = None
    """Highest learning rate; unset, `optimizer.lr`."""
    step_size_up: Annotated[Duration, Knob(affects=("quality",), rows=("SCHED-05",))] = Duration(epochs=4)
    """Length of the way up, in steps or epochs."""
    step_size_down: Annotated[Duration | None, Knob(affects=("quality",), rows=("SCHED-05",))] = None
    """Length of the way down, in steps or epochs; unset, that of the way up."""
    mode: Annotated[Literal["triangular", "triangular2", "exp_range"], Knob(affects=("quality",), rows=("SCHED-05",))] = (
        "triangular"
    )
    """Height of the cycles: all the same, halved after each, or times gamma in each step."""
    gamma: Annotated[Fraction, Knob("factor", ("quality",), ("SCHED-05",))] = 0.9999
    """Factor on the height of cycles in each step; for mode exp_range."""

    def lengths(self) -> Iterator[tuple[str, Duration]]:
        yield "step_size_up", self.step_size_up
        if self.step_size_down is not None:
            yield "step_size_down", self.step_size_down


class OneCycle(Cycled):
    """One rise to the peak, and a fall to almost nothing over the rest of the run (Smith and Topin 2018)."""

    type: Literal["one_cycle"] = "one_cycle"
    """Which schedule this is."""
    pct_start: Annotated[Decay, Knob("share of the run", ("quality",), ("SCHED-01", "SCHED-09"))] = 0.3
    """Share of the run over which the learning rate rises."""
    anneal_strategy: Annotated[Literal["cos", "linear"], Knob(affects=("quality",), rows=("SCHED-01",))] = "cos"
    """How it moves: along half a cosine, or in a line."""
    div_factor: Annotated[Annotated[float, Field(ge=1, le=1e12)], Knob("factor", ("quality",), ("SCHED-01",))] = 25.0
    """The rise begins with the peak divided by this."""
    final_div_factor: Annotated[
        Annotated[float, Field(ge=1, le=1e12)], Knob("factor", ("quality",), ("SCHED-01", "SCHED-09"))
    ] = 1e4
    """The last step has what the rise began with, divided by this."""
    three_phase: Annotated[bool, Knob(affects=("quality",), rows=("SCHED-01",))] = False
    """Fall as steeply as it rose first, and over the rest of the run to the last step's rate."""

    @property
    def asks_total(self) -> bool:
        return True


class Plateau(Floored):
    """Lower the learning rate whenever an evaluated metric no longer improves (ReduceLROnPlateau)."""

    type: Literal["plateau"] = "plateau"
    """Which schedule this is."""
    monitor: Annotated[MetricKey, Knob(affects=("quality",), rows=("SCHED-06", "SCHED-08"))] = "validation/loss"
    """Metric that must improve."""
    mode: Annotated[Literal["min", "max"] | None, Knob(rows=("SCHED-06",))] = None
    """Whether smaller or larger is better; unset, what the metric says."""
    factor: Annotated[Annotated[float, Field(gt=0, lt=1)], Knob("factor", ("quality",), ("SCHED-06",))] = 0.1
    """Factor of each drop."""
    patience: Annotated[Natural, Knob("evaluations", ("quality",), ("SCHED-06",))] = 10
    """Evaluations without improvement that are let pass; the next one lowers the learning rate."""
    threshold: Annotated[NonNegative, Knob(affects=("quality",), rows=("SCHED-06",))] = 1e-4
    """Smallest change that counts as improvement, as threshold_mode says."""
    threshold_mode: Annotated[Literal["rel", "abs"], Knob(affects=("quality",), rows=("SCHED-06",))] = "rel"
    """Whether the threshold is a share of the best value or a difference from it."""
    cooldown: Annotated[Natural, Knob("evaluations", ("quality",), ("SCHED-06",))] = 0
    """Evaluations after a drop that do not count against the metric."""


class WSD(Floored):
    """Warm-up, a long stable stretch at the peak, and a decay at the end (Hu et al. 2024): a run may go on from its stable stretch."""

    type: Literal["wsd"] = "wsd"
    """Which schedule this is."""
    decay_steps: Annotated[Count | None, Knob("optimizer steps", ("quality",), ("SCHED-01", "SCHED-09"))] = None
    """Last steps, over which the learning rate falls from its peak to min_lr; unset, decay_ratio says it."""
    decay_ratio: Annotated[Fraction | None, Knob("share of the run", ("quality",), ("SCHED-01", "SCHED-09"))] = None
    """The same as a share of all steps, rounded up; unset without decay_steps, 0.2."""
    decay_shape: Annotated[Literal["linear", "cosine", "sqrt"], Knob(affects=("quality",), rows=("SCHED-09",))] = "linear"
    """How it falls: in a line, along half a cosine, or as 1 minus the root of the share of the decay that is over."""

    @property
    def asks_total(self) -> bool:
        return True


Schedule = Annotated[
    Constant | Cosine | Step | MultiStep | Exponential | Polynomial | Cyclic | OneCycle | Plateau | WSD,
    Field(discriminator="type"),
]
