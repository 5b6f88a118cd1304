"""What is watched for while a run trains, and what is done when it goes wrong. Honoured by `worker.trainer.debug`, and the
hang and straggler fields by the agent too.

Whether gradients may move the weights is decided before they do, from the loss of the step over all samples and the norm of
all gradients before clipping, and the same on every rank.
"""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Count, Knob, Positive, Spec
from stoker.spec.debug.inspection import GradientNorms, Histograms, Probe, Profiler

Factor = Annotated[float, Field(gt=0, le=1)]


class Fail(Spec):
    """The run ends with nan_loss as soon as a report or a checkpoint shows it; no step waits for a number."""

    type: Literal["fail"] = "fail"
    """Which remedy this is."""


class Notify(Spec):
    """The run goes on, and a notice says what was seen."""

    type: Literal["notify"] = "notify"
    """Which remedy this is."""


class SkipStep(Spec):
    """The weights stay as they were; the step, its samples and its learning rate are spent."""

    type: Literal["skip_step"] = "skip_step"
    """Which remedy this is."""
    max_skips: Annotated[Count, Knob("steps in a row", ("quality",), ("DBG-02",))] = 10
    """Skipped steps in a row that are forgiven; one more ends the run with nan_loss."""


class Rollback(Spec):
    """The run goes back to its newest whole checkpoint and on from there with a lower learning rate."""

    type: Literal["rollback"] = "rollback"
    """Which remedy this is."""
    lr_factor: Annotated[Factor, Knob("factor", ("quality",), ("DBG-02",))] = 0.5
    """Factor on the learning rate of all steps after each rollback."""
    max_rollbacks: Annotated[Count, Knob("rollbacks", ("quality",), ("DBG-02",))] = 3
    """Rollbacks that are tried; one more trouble ends the run with nan_loss."""


NanPolicy = Annotated[Fail | SkipStep | Rollback, Field(discriminator="type")]
SpikePolicy = Annotated[Notify | SkipStep | Rollback, Field(discriminator="type")]


class Spike(Spec):
    """A value far above what is usual for the run."""

    watch: Annotated[Literal["loss", "gradient_norm"], Knob(affects=("speed",), rows=("DBG-02",))] = "gradient_norm"
    """What is compared: the mean loss of a step, or the norm of its gradients before clipping."""
    window: Annotated[Annotated[int, Field(ge=4, le=10_000)], Knob("steps", rows=("DBG-02",))] = 50
    """Accepted steps whose median says what is usual; nothing is a spike before that many."""
    threshold: Annotated[Annotated[float, Field(gt=1, le=1e6)], Knob("x median", ("quality",), ("DBG-02",))] = 10.0
    """Multiple of the median above which a value is a spike."""
    policy: Annotated[SpikePolicy, Knob(affects=("quality",), rows=("DBG-02",))] = Notify()
    """What is done then."""


class Debug(Spec):
    nan_policy: Annotated[NanPolicy, Knob(affects=("speed", "quality"), rows=("DBG-02",))] = Fail()
    """What is done when the loss or a gradient is no longer a number; all but fail look at each step before it is made."""
    spike: Annotated[Spike | None, Knob(affects=("speed", "quality"), rows=("DBG-02",))] = None
    """What is done when a step is far out of line; null for nothing."""
    hang_timeout_seconds: Annotated[Positive | None, Knob("seconds", ("speed",))] = 600.0
    """Time without a step of some rank after which every rank says where it is and the attempt ends; null for never."""
    hang_grace_seconds: Annotated[Positive, Knob("seconds", ("speed",))] = 3600.0
    """The same for anything but steps: loading, the first step with what it compiles, a batch of evaluation, a checkpoint."""
    straggler_factor: Annotated[Annotated[float, Field(gt=1, le=1000)] | None, Knob("x median", ("speed",))] = 2.0
    """Multiple of the usual time of ranks, without waiting for others, above which one is slow; null for no watch; needs logging.performance."""
    straggler_reports: Annotated[Count, Knob("reports in a row")] = 5
    """Reports in which a rank is slow before a notice names it."""
    model_summary: Annotated[bool, Knob(rows=("DBG-01",))] = False
    """Keep a table of all layers with shapes, parameters and FLOPs as model_summary.json and model_summary.txt."""
    histograms: Annotated[Histograms | None, Knob(affects=("speed",), rows=("DBG-01",))] = None
    """Distributions of weights and gradients on an interval; null for none."""
    gradients: Annotated[GradientNorms | None, Knob(affects=("speed",), rows=("DBG-01",))] = None
    """Norm of each layer's gradients on an interval; null for none."""
    probes: Annotated[Annotated[tuple[Probe, ...], Field(max_length=100)], Knob(affects=("speed",), rows=("DBG-02",))] = ()
    """Places inside the model that are looked at on an interval."""
    detect_anomaly: Annotated[bool, Knob(affects=("speed",), rows=("DBG-02",))] = False
    """End the run with nan_loss at the operation whose backward pass first gives NaN, named in the message; steps are slower."""
    profiler: Annotated[Profiler | None, Knob(affects=("speed",), rows=("DBG-01",))] = None
    """Record a few steps as trace/rank<r>.json.gz for chrome://tracing and a table of what took longest; null for none."""
