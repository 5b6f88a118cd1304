"""Losses of classes and tokens: (..., classes) logits and (...) ids."""

import torch
from torch.nn import functional as F

from stoker.spec.loss import CrossEntropy, NegativeLogLikelihood
from stoker.spec.loss.classes import ClassWeights
from worker.trainer.errors import SpecProblem
from worker.trainer.loss.summed import Summed, per_sample


class OfClasses(Summed):
    """Samples count what their classes weigh."""

    def __init__(self, weights: torch.Tensor | None) -> None:
        super().__init__()
        self.weights: torch.Tensor | None
        self.register_buffer("weights", weights, persistent=False)

    def sample_weights(self, targets: torch.Tensor) -> torch.Tensor:
        if self.weights is None:
            return super().sample_weights(targets)
        return self.weights.cpu().double()[targets.long().cpu()].reshape(len(targets), -1).sum(1)

    def likelihood(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Minus the summed log-probability of the targets, without weights and smoothing: what perplexity is made of."""
        return F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="sum")


class SummedCrossEntropy(OfClasses):
    def __init__(self, spec: CrossEntropy, weights: torch.Tensor | None) -> None:
        super().__init__(weights)
        self.temperature, self.smoothing, self.z_loss = spec.temperature, spec.label_smoothing, spec.z_loss

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = self._tempered(outputs)
        loss = F.cross_entropy(logits, targets.flatten(), self.weights, reduction="sum", label_smoothing=self.smoothing)
        return loss if self.z_loss == 0 else loss + self._drift(logits, targets.flatten()).sum()

    def each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = self._tempered(outputs)
        loss = F.cross_entropy(logits, targets.flatten(), self.weights, reduction="none", label_smoothing=self.smoothing)
        loss = loss if self.z_loss == 0 else loss + self._drift(logits, targets.flatten())
        return per_sample(loss.view(targets.shape))

    def likelihood(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return super().likelihood(outputs / self.temperature, targets)

    def _tempered(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.flatten(0, -2) if self.temperature == 1.0 else outputs.flatten(0, -2) / self.temperature

    def _drift(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """z_loss x log² of the softmax's denominator, weighing what the class weighs."""
        drift = self.z_loss * logits.float().logsumexp(-1).square()
        return drift if self.weights is None else drift * self.weights[targets]


class SummedLikelihood(OfClasses):
    """Of log-probabilities, which a log-softmax makes of the logits."""

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        chances = F.log_softmax(outputs.flatten(0, -2).float(), -1)
        return F.nll_loss(chances, targets.flatten(), self.weights, reduction="sum")

    def each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        chances = F.log_softmax(outputs.flatten(0, -2).float(), -1)
        return per_sample(F.nll_loss(chances, targets.flatten(), self.weights, reduction="none").view(targets.shape))


def build_classes(spec: CrossEntropy | NegativeLogLikelihood, outputs: int, targets: torch.Tensor) -> OfClasses:
    """Balanced weights are counted in the training targets. Raises SpecProblem when weights do not fit."""
    if targets.is_floating_point():
        raise SpecProblem(f"loss.type: {spec.type} needs classes; use mse for regression, bce for multilabel")
    weights = _class_weights(spec.class_weights, outputs, targets)
    return SummedCrossEntropy(spec, weights) if isinstance(spec, CrossEntropy) else SummedLikelihood(weights)


def _class_weights(wanted: ClassWeights, outputs: int, targets: torch.Tensor) -> torch.Tensor | None:
    if wanted is None:
        return None
    if wanted == "balanced":
        counts = torch.bincount(targets.flatten().long(), minlength=outputs).double()
        return torch.where(counts > 0, counts.sum() / (outputs * counts), 0.0).float()
    if len(wanted) != outputs:
        raise SpecProblem(f"loss.class_weights: {len(wanted)} weights for {outputs} classes; give one per class")
    return torch.tensor(wanted)
