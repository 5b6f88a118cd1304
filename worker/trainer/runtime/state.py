"""What parts of a run must not forget: each hands its tensors and numbers to the checkpoint and takes them back."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch


class Stateful(Protocol):
    """A part of the run with a memory of its own, beside weights and optimizer."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """By name; saved in safetensors. Every rank asks at the same time, so parts may gather; what rank 0 gets is saved.
        They may be sharded over ranks as the weights are."""

    def values(self) -> dict[str, Any]:
        """By name; saved as JSON, the same on every rank."""

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """What `tensors` and `values` gave, maybe to another number of ranks."""
