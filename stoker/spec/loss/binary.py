"""The loss of labels that are each there or not. Built by `worker.trainer.loss.binary`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Knob, Positive
from stoker.spec.loss._weighted import SampleWeighted


class BinaryCrossEntropy(SampleWeighted):
    """Minus the log-probability of each label, which has a sigmoid of its own; the mean over samples and labels."""

    type: Literal["bce"] = "bce"
    """Which loss this is."""
    pos_weight: Annotated[
        Positive | Annotated[tuple[Positive, ...], Field(min_length=1, max_length=100_000)] | None,
        Knob(affects=("quality",), rows=("LOSS-05", "LOSS-09")),
    ] = None
    """Factor of the loss where a label is 1, or one per label, for labels that are rare."""
