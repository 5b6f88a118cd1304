"""Losses of numbers: (n, outputs), or twice as many where a variance goes with each."""

from typing import assert_never

import torch
from torch.nn import functional as F

from stoker.spec.loss import GaussianNLL, Huber, MeanAbsoluteError, MeanSquaredError
from worker.trainer.errors import SpecProblem
from worker.trainer.loss.summed import Summed, per_sample


class SummedSquares(Summed):
    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(outputs, targets, reduction="sum")

    def each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return per_sample(F.mse_loss(outputs, targets, reduction="none"))


class SummedDistances(Summed):
    def each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return per_sample(F.l1_loss(outputs.float(), targets, reduction="none"))


class SummedHuber(Summed):
    def __init__(self, delta: float) -> None:
        super().__init__()
        self.delta = delta

    def each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return per_sample(F.huber_loss(outputs.float(), targets, reduction="none", delta=self.delta))


class SummedGaussian(Summed):
    """(log variance + (mean - target)² / variance) / 2."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least

    def each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        means, variances = self.parts(outputs)
        return per_sample((variances.log() + (means - targets).square() / variances) / 2)

    def parts(self, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and variances, (n, outputs) each."""
        means, open_ = outputs.float().chunk(2, -1)
        return means, F.softplus(open_) + self.least


OfNumbers = SummedSquares | SummedDistances | SummedHuber | SummedGaussian


def build_numbers(spec: MeanSquaredError | MeanAbsoluteError | Huber | GaussianNLL, targets: torch.Tensor) -> OfNumbers:
    """Raises SpecProblem for classes."""
    if not targets.is_floating_point():
        raise SpecProblem(f"loss.type: {spec.type} needs numbers; use cross_entropy for classes and tokens")
    match spec:
        case MeanSquaredError():
            return SummedSquares()
        case MeanAbsoluteError():
            return SummedDistances()
        case Huber():
            return SummedHuber(spec.delta)
        case GaussianNLL():
            return SummedGaussian(spec.min_variance)
        case _:
            assert_never(spec)
