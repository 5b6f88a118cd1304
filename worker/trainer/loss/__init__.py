"""Loss specs into modules that sum, so that a mean over any batch, rank or epoch is one division at the end."""

from typing import assert_never

import torch

from stoker.spec.loss import (
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    GaussianNLL,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    NegativeLogLikelihood,
)
from worker.trainer.loss.binary import SummedBinary, build_binary
from worker.trainer.loss.classes import OfClasses, SummedCrossEntropy, SummedLikelihood, build_classes
from worker.trainer.loss.focal import FocalOfClasses, FocalOfLabels, build_focal
from worker.trainer.loss.numbers import SummedDistances, SummedGaussian, SummedHuber, SummedSquares, build_numbers

SummedLoss = OfClasses | FocalOfLabels | SummedBinary | SummedSquares | SummedDistances | SummedHuber | SummedGaussian


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
        case _:
            assert_never(spec)


__all__ = [
    "FocalOfClasses",
    "OfClasses",
    "SummedCrossEntropy",
    "SummedGaussian",
    "SummedLikelihood",
    "SummedLoss",
    "SummedSquares",
    "build_loss",
]
