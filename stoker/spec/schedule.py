"""How the learning rate moves. Built by `worker.trainer.schedule`.

Step k (from 0) of the run uses lr(k). During warm-up lr(k) = peak x (f + (1 - f) x (k + 1) / warmup) with f the start
factor, so the peak is reached at step warmup - 1; after it, the shape below counts from k - warmup.
"""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec._base import Count, Duration, Fraction, Knob, Natural, NonNegative, Spec


class Warmup(Spec):
    """What every schedule shares."""

    warmup_steps: Annotated[Natural, Knob("optimizer steps", ("quality",), ("SCHED-07",))] = 0
    """Steps over which the learning rate rises to its peak."""
    warmup_ratio: Annotated[Fraction | None, Knob("share of the run", ("quality",), ("SCHED-07",))] = None
    """The same as a share of all steps, rounded up; not together with warmup_steps."""
    warmup_start_factor: Annotated[Fraction, Knob("share of the peak", ("quality",), ("SCHED-07",))] = 0.0
    """Share of the peak that the rise starts from."""


class Constant(Warmup):
    """The peak learning rate throughout."""

    type: Literal["constant"] = "constant"
    """Which schedule this is."""


class Cosine(Warmup):
    """Half a cosine from the peak to min_lr at the last step (Loshchilov and Hutter 2017)."""

    type: Literal["cosine"] = "cosine"
    """Which schedule this is."""
    min_lr: Annotated[NonNegative, Knob("learning rate", ("quality",), ("SCHED-04",))] = 0.0
    """Learning rate of the last step."""


class Step(Warmup):
    """Multiply by gamma after every interval."""

    type: Literal["step"] = "step"
    """Which schedule this is."""
    step_size: Annotated[Duration, Knob(affects=("quality",), rows=("SCHED-02",))] = Duration(epochs=10)
    """Length between two drops, in steps or epochs."""
    gamma: Annotated[Fraction, Knob("factor", ("quality",), ("SCHED-02",))] = 0.1
    """Factor of each drop."""
    min_lr: Annotated[NonNegative, Knob("learning rate", ("quality",), ("SCHED-09",))] = 0.0
    """Floor under the learning rate."""


class WSD(Warmup):
    """Warm-up, a long stable stretch at the peak, and a decay at the end (Hu et al. 2024): a run may go on from its stable stretch."""

    type: Literal["wsd"] = "wsd"
    """Which schedule this is."""
    decay_steps: Annotated[Count | None, Knob("optimizer steps", ("quality",), ("SCHED-01", "SCHED-09"))] = None
    """Last steps, over which the learning rate falls from its peak to min_lr; unset, decay_ratio says it."""
    decay_ratio: Annotated[Fraction | None, Knob("share of the run", ("quality",), ("SCHED-01", "SCHED-09"))] = None
    """The same as a share of all steps, rounded up; unset without decay_steps, 0.2."""
    decay_shape: Annotated[Literal["linear", "cosine", "sqrt"], Knob(affects=("quality",), rows=("SCHED-09",))] = "linear"
    """How it falls: in a line, along half a cosine, or as 1 minus the root of the share of the decay that is over."""
    min_lr: Annotated[NonNegative, Knob("learning rate", ("quality",), ("SCHED-09",))] = 0.0
    """Learning rate of the last step."""


Schedule = Annotated[Constant | Cosine | Step | WSD, Field(discriminator="type")]
