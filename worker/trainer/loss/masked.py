"""A loss of the tokens that are asked for, and of no others."""

import torch

from worker.trainer.loss.classes import OfClasses


class OfMasked(OfClasses):
    """Of (n, ..., V) logits and (n, ...) ids, negative where nothing is asked."""

    def __init__(self, loss: OfClasses) -> None:
        super().__init__(None)
        self.loss = loss

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        asked = targets >= 0
        out: torch.Tensor = self.loss(outputs[asked], targets[asked])
        return out

    def each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.stack([self(one, wanted) for one, wanted in zip(outputs, targets, strict=True)])

    def sample_weights(self, targets: torch.Tensor) -> torch.Tensor:
        return (targets >= 0).flatten(1).sum(1, dtype=torch.float64).cpu()

    def likelihood(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        asked = targets >= 0
        return self.loss.likelihood(outputs[asked], targets[asked])
