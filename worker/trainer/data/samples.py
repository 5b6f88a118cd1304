"""What every source becomes: samples that are read by row numbers, and the implementation that holds them in memory."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch

Pair = tuple[torch.Tensor, torch.Tensor]
"""Inputs and targets of some rows."""


class Samples(Protocol):
    """One part of a data set. Where its rows are, in memory or elsewhere, is the business of the implementation."""

    def __len__(self) -> int: ...

    @property
    def tokens_per_sample(self) -> int:
        """0 where samples are not text."""

    @property
    def counted(self) -> torch.Tensor:
        """(n, ...): the targets that the loss counts; their values and their number per sample decide weights."""

    def space(self, rows: int) -> torch.Tensor:
        """Memory that `drawn` can put the inputs of `rows` rows into."""

    def drawn(self, rows: torch.Tensor, epoch: int, space: torch.Tensor | None = None) -> Pair:
        """Copies of some rows, as an epoch sees them. `space`: from `space`, for as many rows or more."""

    def slice(self, start: int, stop: int, device: torch.device) -> Pair:
        """Consecutive rows as the model and the loss read them."""

    def mean(self) -> torch.Tensor:
        """(1, *shape) float64: the mean of the inputs."""

    def extremes(self) -> torch.Tensor:
        """(2, *shape): the lowest and the highest of each input."""

    def with_targets(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """The same inputs with changed targets."""

    def reconstructing(self) -> "Samples":
        """The same inputs as targets."""


@dataclass(frozen=True)
class TensorSamples:
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
        return self.inputs.shape[1] if self.inputs.dtype == torch.int32 else 0

    @property
    def counted(self) -> torch.Tensor:
        return self.targets

    def space(self, rows: int) -> torch.Tensor:
        return torch.empty(rows, *self.inputs.shape[1:], dtype=self.inputs.dtype)

    def drawn(self, rows: torch.Tensor, epoch: int, space: torch.Tensor | None = None) -> Pair:
        if space is None:
            return self.inputs.index_select(0, rows), self.targets.index_select(0, rows)
        return torch.index_select(self.inputs, 0, rows, out=space[: len(rows)]), self.targets.index_select(0, rows)

    def slice(self, start: int, stop: int, device: torch.device) -> Pair:
        return ready(self.inputs[start:stop], device), ready(self.targets[start:stop], device)

    def mean(self) -> torch.Tensor:
        return self.inputs.double().mean(0, keepdim=True)

    def extremes(self) -> torch.Tensor:
        return torch.stack([self.inputs.amin(0), self.inputs.amax(0)])

    def with_targets(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        return replace(self, targets=change(self.targets))

    def reconstructing(self) -> Samples:
        return TensorSamples(self.inputs, self.inputs)


@dataclass(frozen=True)
class Wrapped(ABC):
    """Samples that change what is drawn from other samples, and leave the rest to them."""

    inner: Samples

    @abstractmethod
    def drawn(self, rows: torch.Tensor, epoch: int, space: torch.Tensor | None = None) -> Pair: ...

    @abstractmethod
    def slice(self, start: int, stop: int, device: torch.device) -> Pair: ...

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def tokens_per_sample(self) -> int:
        return self.inner.tokens_per_sample

    @property
    def counted(self) -> torch.Tensor:
        return self.inner.counted

    def space(self, rows: int) -> torch.Tensor:
        return self.inner.space(rows)

    def mean(self) -> torch.Tensor:
        return self.inner.mean()

    def extremes(self) -> torch.Tensor:
        return self.inner.extremes()

    def with_targets(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        return replace(self, inner=self.inner.with_targets(change))

    def reconstructing(self) -> Samples:
        return replace(self, inner=self.inner.reconstructing())


def ready(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the device, ids widened to int64."""
    moved = values.to(device, non_blocking=values.is_pinned()) if device.type != "cpu" else values
    return moved.long() if moved.dtype == torch.int32 else moved
