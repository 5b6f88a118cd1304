"""What is minimised. Built by `worker.trainer.loss`."""

from typing import Annotated

from pydantic import Field

from stoker.spec.loss.adversarial import Contested, Hinge, NonSaturating, Wasserstein
from stoker.spec.loss.binary import BinaryCrossEntropy
from stoker.spec.loss.classes import CrossEntropy, NegativeLogLikelihood
from stoker.spec.loss.focal import Focal
from stoker.spec.loss.numbers import GaussianNLL, Huber, MeanAbsoluteError, MeanSquaredError

Loss = Annotated[
    CrossEntropy
    | NegativeLogLikelihood
    | Focal
    | BinaryCrossEntropy
    | MeanSquaredError
    | MeanAbsoluteError
    | Huber
    | GaussianNLL
    | NonSaturating
    | Hinge
    | Wasserstein,
    Field(discriminator="type"),
]


def head_width(loss: Loss | None, outputs: int) -> int:
    """Numbers that the head gives for so many classes, labels or predicted numbers: a variance beside each for gaussian_nll."""
    return 2 * outputs if isinstance(loss, GaussianNLL) else outputs


__all__ = [
    "BinaryCrossEntropy",
    "Contested",
    "CrossEntropy",
    "Focal",
    "GaussianNLL",
    "Hinge",
    "Huber",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "NegativeLogLikelihood",
    "NonSaturating",
    "Wasserstein",
    "head_width",
]
