"""Loss specs into modules that sum, so that a mean over any batch, rank or epoch is one division at the end."""

from typing import assert_never

import torch

from stoker.spec.loss import (
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    GaussianNLL,
    Hinge,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    NegativeLogLikelihood,
    NonSaturating,
    Wasserstein,
)
from worker.trainer.errors import SpecProblem
from worker.trainer.loss.adversarial import GanLoss, of_discriminator, slope_penalty
from worker.trainer.loss.binary import build_binary
from worker.trainer.loss.chunked import in_chunks
from worker.trainer.loss.classes import OfClasses, SummedCrossEntropy, SummedLikelihood, build_classes
from worker.trainer.loss.focal import FocalOfClasses, build_focal
from worker.trainer.loss.masked import OfMasked
from worker.trainer.loss.numbers import SummedGaussian, SummedSquares, build_numbers
from worker.trainer.loss.reading import Reading, reading_of
from worker.trainer.loss.summed import Summed
from worker.trainer.loss.weighted import SampleWeighted

SummedLoss = Summed
"""Any of them: `forward(outputs, targets)` sums, `each` is the sum of each sample, `sample_weights(targets)` what each counts."""


def build_loss(spec: Loss, outputs: int, targets: torch.Tensor) -> SummedLoss:
    """For so many classes, labels or numbers; what is counted is counted in the training targets. Raises SpecProblem when
    the loss does not fit them.
    """
    match spec:
        case CrossEntropy() | NegativeLogLikelihood():
            return build_classes(spec, outputs, targets)
        case Focal():
            return build_focal(spec, outputs, targets)
        case BinaryCrossEntropy():
            return build_binary(spec, outputs, targets)
        case MeanSquaredError() | MeanAbsoluteError() | Huber() | GaussianNLL():
            return build_numbers(spec, targets)
        case NonSaturating() | Hinge() | Wasserstein():
            raise SpecProblem(f"loss.type: {spec.type} is for two networks; use it with task gan")
        case _:
            assert_never(spec)


def build_masked_loss(spec: Loss, outputs: int, targets: torch.Tensor) -> OfMasked:
    """For text of which some tokens are asked for. Raises SpecProblem when the loss is not one of tokens."""
    loss = build_loss(spec, outputs, targets)
    if not isinstance(loss, OfClasses):
        raise SpecProblem(f"loss.type: {spec.type} is not for masked_lm; use cross_entropy")
    return OfMasked(loss)


def build_weighted_loss(spec: Loss, outputs: int, targets: torch.Tensor, *, classes: bool) -> SampleWeighted:
    """For targets with the weight of each sample in their last column. Raises SpecProblem when the loss does not fit them."""
    loss = build_loss(spec, outputs, targets[:, 0].long() if classes else targets[:, :-1])
    return SampleWeighted(loss, classes=classes, normalization=spec.sample_weight_normalization or "weights")


__all__ = [
    "FocalOfClasses",
    "GanLoss",
    "OfClasses",
    "OfMasked",
    "Reading",
    "SampleWeighted",
    "SummedCrossEntropy",
    "SummedGaussian",
    "SummedLikelihood",
    "SummedLoss",
    "SummedSquares",
    "build_loss",
    "build_masked_loss",
    "build_weighted_loss",
    "in_chunks",
    "of_discriminator",
    "reading_of",
    "slope_penalty",
]
