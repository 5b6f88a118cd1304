"""Batches that change while the run goes on. Honoured by `worker.trainer.training.dynamic_batch`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Count, Duration, Knob, MetricKey, NonNegative, Spec


class FitMemory(Spec):
    """Halve the micro-batch when a step does not fit in memory, and make the step again: same samples, same gradient."""

    mode: Annotated[Literal["fit_memory"], Knob(rows=("TRAIN-10",))] = "fit_memory"
    """Which way batches change."""
    min_micro: Annotated[Count, Knob("samples", ("memory", "speed"), ("TRAIN-10",))] = 1
    """Smallest micro-batch that is tried; what does not fit then ends the attempt."""


class Milestone(Spec):
    """One change of the batch size."""

    after: Annotated[Duration, Knob(affects=("speed", "quality"), rows=("TRAIN-10",))]
    """How much of the run is over before it, in steps, epochs or tokens."""
    batch_size: Annotated[Count, Knob("samples", ("speed", "quality"), ("TRAIN-10",))]
    """Samples per optimizer step from then on, over all ranks; micro-batches keep their size."""


class BatchSchedule(Spec):
    """Batches of other sizes at set places of the run (Smith et al. 2018); each sample is still seen once per epoch."""

    mode: Annotated[Literal["schedule"], Knob(rows=("TRAIN-10",))] = "schedule"
    """Which way batches change."""
    milestones: Annotated[
        Annotated[tuple[Milestone, ...], Field(min_length=1, max_length=100)],
        Knob(affects=("speed", "quality"), rows=("TRAIN-10",)),
    ]
    """Changes of the batch size, in order."""

    @property
    def changes(self) -> tuple[tuple[Duration, int], ...]:
        return tuple((milestone.after, milestone.batch_size) for milestone in self.milestones)


class OnPlateau(Spec):
    """Larger batches whenever an evaluated metric no longer improves, where others would lower the learning rate."""

    mode: Annotated[Literal["on_plateau"], Knob(rows=("TRAIN-10",))] = "on_plateau"
    """Which way batches change."""
    monitor: Annotated[MetricKey, Knob(rows=("TRAIN-10",))] = "validation/loss"
    """Metric that must improve."""
    direction: Annotated[Literal["min", "max"] | None, Knob(rows=("TRAIN-10",))] = None
    """Whether smaller or larger is better; unset, what the metric says."""
    factor: Annotated[Annotated[float, Field(gt=1, le=1000)], Knob("factor", ("speed", "quality"), ("TRAIN-10",))] = 2.0
    """Factor on the batch size, rounded down."""
    patience: Annotated[Count, Knob("evaluations", ("speed", "quality"), ("TRAIN-10",))] = 3
    """Evaluations without improvement before the batch grows."""
    min_delta: Annotated[NonNegative, Knob(affects=("quality",), rows=("TRAIN-10",))] = 0.0
    """Smallest change that counts as improvement."""
    max: Annotated[Count, Knob("samples", ("speed", "quality"), ("TRAIN-10",))]
    """Batch size that is never exceeded."""


DynamicBatch = Annotated[FitMemory | BatchSchedule | OnPlateau, Field(discriminator="mode")]
