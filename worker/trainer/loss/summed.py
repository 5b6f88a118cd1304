"""What every loss does: it sums, so that a mean over any batch, rank or epoch is one division at the end."""

import torch
from torch import nn


class Summed(nn.Module):
    """Of outputs (n, ..., width) and targets (n, ...)."""

    def each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(n,): of each sample, summed over its numbers, labels or tokens, with whatever they weigh."""
        raise NotImplementedError

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.each(outputs, targets).sum()

    def sample_weights(self, targets: torch.Tensor) -> torch.Tensor:
        """What each sample counts in the mean: (n,) float64."""
        return torch.full((len(targets),), targets[:1].numel(), dtype=torch.float64)


def per_sample(values: torch.Tensor) -> torch.Tensor:
    """(n, ...) summed to (n,)."""
    return values if values.dim() == 1 else values.flatten(1).sum(1)
