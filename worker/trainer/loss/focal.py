"""Focal losses: of classes by a softmax over all, of labels by a sigmoid for each."""

import torch
from torch.nn import functional as F

from stoker.spec.loss import Focal
from worker.trainer.errors import SpecProblem
from worker.trainer.loss.classes import OfClasses
from worker.trainer.loss.summed import Summed, per_sample


class FocalOfClasses(OfClasses):
    """alpha[c] x (1 - p)^gamma x -log p of (..., classes) logits and (...) ids; samples count alike, whatever their alpha."""

    def __init__(self, alpha: torch.Tensor | None, gamma: float) -> None:
        """`alpha`: one per class."""
        super().__init__(None)
        self.gamma = gamma
        self.alpha: torch.Tensor | None
        self.register_buffer("alpha", alpha, persistent=False)

    def each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        surprise = F.cross_entropy(outputs.flatten(0, -2).float(), targets.flatten(), reduction="none")
        loss = _focused(surprise, self.gamma)
        loss = loss if self.alpha is None else loss * self.alpha[targets.flatten()]
        return per_sample(loss.view(targets.shape))


class FocalOfLabels(Summed):
    """Of (n, labels) logits and zeros and ones; alpha for ones, 1 - alpha for zeros."""

    def __init__(self, alpha: torch.Tensor | None, gamma: float) -> None:
        """`alpha`: one for all labels, or one per label."""
        super().__init__()
        self.gamma = gamma
        self.alpha: torch.Tensor | None
        self.register_buffer("alpha", alpha, persistent=False)

    def each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = _focused(F.binary_cross_entropy_with_logits(outputs.float(), targets, reduction="none"), self.gamma)
        loss = loss if self.alpha is None else loss * (self.alpha * targets + (1 - self.alpha) * (1 - targets))
        return per_sample(loss)


def _focused(surprise: torch.Tensor, gamma: float) -> torch.Tensor:
    """-log p times (1 - p)^gamma. 1 - p is taken from -log p without cancellation; its power has no slope at 0 below gamma 1,
    so what is certain is kept a little away from it.
    """
    if gamma == 0:
        return surprise
    return (-torch.expm1(-surprise)).clamp(min=torch.finfo(surprise.dtype).tiny) ** gamma * surprise


def build_focal(spec: Focal, outputs: int, targets: torch.Tensor) -> FocalOfClasses | FocalOfLabels:
    """Raises SpecProblem when alphas do not fit."""
    if isinstance(spec.alpha, tuple) and len(spec.alpha) != outputs:
        raise SpecProblem(
            f"loss.alpha: {len(spec.alpha)} factors for {outputs} outputs; give one per class or label, or a number"
        )
    if targets.is_floating_point():
        return FocalOfLabels(None if spec.alpha is None else torch.tensor(spec.alpha), spec.gamma)
    alpha = spec.alpha if spec.alpha is None or isinstance(spec.alpha, tuple) else (spec.alpha,) * outputs
    return FocalOfClasses(None if alpha is None else torch.tensor(alpha), spec.gamma)
