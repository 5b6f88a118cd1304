"""Losses of predicted numbers. Built by `worker.trainer.loss.numbers`."""

from typing import Annotated, Literal

from stoker.spec.base import Knob, Positive
from stoker.spec.loss._weighted import SampleWeighted


class MeanSquaredError(SampleWeighted):
    """Mean over all outputs of the squared difference."""

    type: Literal["mse"] = "mse"
    """Which loss this is."""


class MeanAbsoluteError(SampleWeighted):
    """Mean over all outputs of the absolute difference, which outliers pull on no harder than others."""

    type: Literal["mae"] = "mae"
    """Which loss this is."""


class Huber(SampleWeighted):
    """Half the squared difference where it is small, linear beyond (Huber 1964); the mean over all outputs."""

    type: Literal["huber"] = "huber"
    """Which loss this is."""
    delta: Annotated[Positive, Knob("units of the target", ("quality",), ("LOSS-01", "LOSS-02"))] = 1.0
    """Difference at which the square becomes a line of slope delta."""


class GaussianNLL(SampleWeighted):
    """Minus the log-density of a normal distribution, up to a constant: the head predicts a mean and a variance for each number.

    The head has twice the outputs: means first, then what a softplus turns into variances (Nix and Weigend 1994).
    """

    type: Literal["gaussian_nll"] = "gaussian_nll"
    """Which loss this is."""
    min_variance: Annotated[Positive, Knob("squared units of the target", ("quality",), ("LOSS-05",))] = 1e-6
    """Added to each variance, so that no prediction is certain."""
