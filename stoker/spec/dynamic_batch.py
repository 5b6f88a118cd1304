"""Batches that change while the run goes on. Honoured by `worker.trainer.dynamic_batch`."""

from typing import Annotated, Literal

from stoker.spec._base import Count, Knob, Spec


class FitMemory(Spec):
    """Halve the micro-batch when a step does not fit in memory, and make the step again: same samples, same gradient."""

    mode: Annotated[Literal["fit_memory"], Knob(rows=("TRAIN-10",))] = "fit_memory"
    """Which way batches change."""
    min_micro: Annotated[Count, Knob("samples", ("memory", "speed"), ("TRAIN-10",))] = 1
    """Smallest micro-batch that is tried; what does not fit then ends the attempt."""


DynamicBatch = FitMemory
