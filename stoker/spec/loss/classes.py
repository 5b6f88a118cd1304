"""Losses of one right class or token among several. Built by `worker.trainer.loss.classes`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Count, Decay, Knob, NonNegative, Positive
from stoker.spec.loss._weighted import SampleWeighted

ClassWeights = Literal["balanced"] | Annotated[tuple[NonNegative, ...], Field(min_length=2, max_length=100_000)] | None


class CrossEntropy(SampleWeighted):
    """Minus the log-probability of the right class or token."""

    type: Literal["cross_entropy"] = "cross_entropy"
    """Which loss this is."""
    temperature: Annotated[Positive, Knob(affects=("quality",), rows=("LOSS-04",))] = 1.0
    """Logits are divided by it before the softmax."""
    label_smoothing: Annotated[Decay, Knob("probability", ("quality",), ("LOSS-03",))] = 0.0
    """Probability taken from the right class and spread over all (Szegedy et al. 2016)."""
    class_weights: Annotated[ClassWeights, Knob(affects=("quality",), rows=("LOSS-09",))] = None
    """Weight of each class, or `balanced` for n / (classes x count) of the training split; the mean divides by the weights."""
    z_loss: Annotated[NonNegative, Knob(affects=("quality",), rows=("LOSS-03",))] = 0.0
    """Weight of the squared log of the softmax's denominator, which keeps logits from drifting (Chowdhery et al. 2022)."""
    chunk_tokens: Annotated[Count | None, Knob("tokens", ("memory", "speed"), ("LOSS-03",))] = None
    """Tokens whose logits are there at once, computed again on the way back; unset, those of the whole micro-batch."""


class NegativeLogLikelihood(SampleWeighted):
    """Minus the log-likelihood of the right class or token, where the head's outputs are normalised by a log-softmax."""

    type: Literal["nll"] = "nll"
    """Which loss this is."""
    class_weights: Annotated[ClassWeights, Knob(affects=("quality",), rows=("LOSS-05", "LOSS-09"))] = None
    """Weight of each class, or `balanced` for n / (classes x count) of the training split; the mean divides by the weights."""
