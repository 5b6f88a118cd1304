"""Samples in memory: what every source becomes."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Samples:
    """Inputs and targets of equal length, on the host, in memory that torch allocated (its alignment decides bits)."""

    inputs: torch.Tensor
    """(n, *shape) float32, or (n, length) int32 token ids."""
    targets: torch.Tensor
    """(n,) int64 classes, (n, outputs) float32 numbers, or (n, length) int32 token ids; where samples have weights, (n, k + 1)
    float32 numbers, the last of which is the weight.
    """

    def __len__(self) -> int:
        return self.inputs.shape[0]

    @property
    def tokens_per_sample(self) -> int:
        """0 where samples are not text."""
        return self.inputs.shape[1] if self.inputs.dtype == torch.int32 else 0

    @property
    def counted(self) -> torch.Tensor:
        """Of the targets what the loss of a sample counts, by its size: all of them."""
        return self.targets

    def drawn(self, rows: torch.Tensor, epoch: int, space: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of some rows, as an epoch sees them. `space`: (as many or more, *shape) memory that inputs may be put into."""
        if space is None:
            return self.inputs.index_select(0, rows), self.targets.index_select(0, rows)
        return torch.index_select(self.inputs, 0, rows, out=space[: len(rows)]), self.targets.index_select(0, rows)

    def take(self, rows: torch.Tensor) -> "Samples":
        """A copy of some rows."""
        return Samples(self.inputs.index_select(0, rows), self.targets.index_select(0, rows))

    def slice(self, start: int, stop: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows as the model and the loss want them."""
        return ready(self.inputs[start:stop], device), ready(self.targets[start:stop], device)


def ready(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the device, ids widened to int64."""
    moved = values.to(device, non_blocking=values.is_pinned()) if device.type != "cpu" else values
    return moved.long() if moved.dtype == torch.int32 else moved
