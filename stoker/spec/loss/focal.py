"""A loss for classes of very different frequency. Built by `worker.trainer.loss.focal`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Knob, NonNegative
from stoker.spec.loss._weighted import SampleWeighted


class Focal(SampleWeighted):
    """Cross-entropy in which samples count less the better they are known (Lin et al. 2017); one sigmoid per label for multilabel."""

    type: Literal["focal"] = "focal"
    """Which loss this is."""
    alpha: Annotated[
        NonNegative | Annotated[tuple[NonNegative, ...], Field(min_length=1, max_length=100_000)] | None,
        Knob(affects=("quality",), rows=("LOSS-06", "LOSS-07")),
    ] = None
    """Factor of the loss, or one per class; of labels, that of ones, where zeros have 1 - alpha. The mean does not divide by it."""
    gamma: Annotated[Annotated[float, Field(ge=0, le=100)], Knob(affects=("quality",), rows=("LOSS-06", "LOSS-08"))] = 2.0
    """Exponent of (1 - p), where p is the probability of what is right; 0 is cross-entropy."""
