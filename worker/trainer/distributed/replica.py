"""What the loop asks of any strategy of distribution."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import torch

Outputs = Callable[[torch.Tensor], torch.Tensor]
"""Inputs of this rank's part of a batch to the model's outputs."""


class Replica(Protocol):
    """The objective as the loop calls it."""

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor: ...

    def exchange(self, last: bool) -> AbstractContextManager[object]:
        """Around one forward and backward pass: gradients are exchanged in the last of a step only."""

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """What the model says of inputs, whole on every rank that shares the model; outside of training."""

    def settle(self) -> None:
        """Rank 0's buffers everywhere, before they are used or saved."""
