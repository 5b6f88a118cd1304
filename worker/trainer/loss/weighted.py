"""Samples that weigh more than others: their weights travel with the targets, as the last column."""

from typing import Literal

import torch

from worker.trainer.loss.summed import Summed


class SampleWeighted(Summed):
    """Of (n, k + 1) numbers: targets and the weight of each sample."""

    def __init__(self, loss: Summed, *, classes: bool, normalization: Literal["weights", "samples"]) -> None:
        """`classes`: targets are one class per sample, else k numbers or labels."""
        super().__init__()
        self.loss, self._classes, self._normalization = loss, classes, normalization

    def each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.loss.each(outputs, self.plain(targets)) * targets[:, -1]

    def sample_weights(self, targets: torch.Tensor) -> torch.Tensor:
        counts = self.loss.sample_weights(self.plain(targets))
        return counts * targets[:, -1].cpu().double() if self._normalization == "weights" else counts

    def plain(self, targets: torch.Tensor) -> torch.Tensor:
        """The targets alone: (n,) classes or (n, k) numbers."""
        return targets[:, 0].long() if self._classes else targets[:, :-1]
