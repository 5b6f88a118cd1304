"""Model and loss as one module: what every strategy of distribution wraps."""

import torch
from torch import nn


class Objective(nn.Module):
    """Inputs and targets to the summed loss. A batch of nothing gives a zero that touches every weight, so that a rank
    without samples still takes part in the exchange of gradients.
    """

    def __init__(self, model: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if inputs.shape[0] == 0:
            return torch.stack([p.flatten()[0] for p in self.parameters()]).sum() * 0.0
        out: torch.Tensor = self.loss(self.model(inputs), targets)
        return out
