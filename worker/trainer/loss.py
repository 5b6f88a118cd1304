"""Loss specs into modules that sum, so that a mean over any batch, rank or epoch is one division at the end."""

from typing import assert_never

import torch
from torch import nn
from torch.nn import functional as F

from stoker.spec.loss import CrossEntropy, Loss, MeanSquaredError
from worker.trainer.errors import SpecProblem


class SummedCrossEntropy(nn.Module):
    """Of (..., classes) logits and (...) ids."""

    def __init__(self, spec: CrossEntropy, weights: torch.Tensor | None) -> None:
        super().__init__()
        self.temperature, self.smoothing = spec.temperature, spec.label_smoothing
        self.weights: torch.Tensor | None
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = outputs.flatten(0, -2) if self.temperature == 1.0 else outputs.flatten(0, -2) / self.temperature
        return F.cross_entropy(logits, targets.flatten(), self.weights, reduction="sum", label_smoothing=self.smoothing)

    def sample_weights(self, targets: torch.Tensor) -> torch.Tensor:
        """What each sample counts in the mean: (n,) float64 from (n, ...) targets."""
        if self.weights is None:
            return torch.full((len(targets),), targets[:1].numel(), dtype=torch.float64)
        return self.weights.cpu().double()[targets.long()].flatten(1 if targets.dim() > 1 else 0).reshape(len(targets), -1).sum(1)

    def likelihood(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Minus the summed log-probability of the targets, without weights and smoothing: what perplexity is made of."""
        return F.cross_entropy(outputs.flatten(0, -2) / self.temperature, targets.flatten(), reduction="sum")


class SummedSquares(nn.Module):
    """Of (n, outputs) numbers."""

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(outputs, targets, reduction="sum")

    def sample_weights(self, targets: torch.Tensor) -> torch.Tensor:
        """What each sample counts in the mean: (n,) float64 from (n, outputs) targets."""
        return torch.full((len(targets),), targets[:1].numel(), dtype=torch.float64)


SummedLoss = SummedCrossEntropy | SummedSquares


def build_loss(spec: Loss, outputs: int, targets: torch.Tensor) -> SummedLoss:
    """For a head of `outputs`; balanced weights are counted in the training targets. Raises SpecProblem when weights do not fit."""
    match spec:
        case CrossEntropy():
            if targets.is_floating_point():
                raise SpecProblem("loss.type: cross_entropy needs classes; use mse for regression")
            return SummedCrossEntropy(spec, _class_weights(spec, outputs, targets))
        case MeanSquaredError():
            if not targets.is_floating_point():
                raise SpecProblem("loss.type: mse needs numbers; use cross_entropy for classes and tokens")
            return SummedSquares()
        case _:
            assert_never(spec)


def _class_weights(spec: CrossEntropy, outputs: int, targets: torch.Tensor) -> torch.Tensor | None:
    if spec.class_weights is None:
        return None
    if spec.class_weights == "balanced":
        counts = torch.bincount(targets.flatten().long(), minlength=outputs).double()
        return torch.where(counts > 0, counts.sum() / (outputs * counts), 0.0).float()
    if len(spec.class_weights) != outputs:
        raise SpecProblem(f"loss.class_weights: {len(spec.class_weights)} weights for {outputs} classes; give one per class")
    return torch.tensor(spec.class_weights)
