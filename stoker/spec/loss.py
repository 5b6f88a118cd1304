"""What is minimised. Built by `worker.trainer.loss`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec._base import Decay, Knob, NonNegative, Positive, Spec


class CrossEntropy(Spec):
    """Minus the log-probability of the right class or token."""

    type: Literal["cross_entropy"] = "cross_entropy"
    """Which loss this is."""
    temperature: Annotated[Positive, Knob(affects=("quality",), rows=("LOSS-04",))] = 1.0
    """Logits are divided by it before the softmax."""
    label_smoothing: Annotated[Decay, Knob("probability", ("quality",), ("LOSS-03",))] = 0.0
    """Probability taken from the right class and spread over all (Szegedy et al. 2016)."""
    class_weights: Annotated[
        Literal["balanced"] | Annotated[tuple[NonNegative, ...], Field(min_length=2, max_length=100_000)] | None,
        Knob(affects=("quality",), rows=("LOSS-09",)),
    ] = None
    """Weight of each class, or `balanced` for n / (classes x count) of the training split; the mean divides by the weights."""


class MeanSquaredError(Spec):
    """Mean over all outputs of the squared difference."""

    type: Literal["mse"] = "mse"
    """Which loss this is."""


Loss = Annotated[CrossEntropy | MeanSquaredError, Field(discriminator="type")]
