"""Ranks that step alone on their part of every batch and average their weights now and then (Stich 2019, Lin et al. 2020)."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist

from worker.trainer.distributed.replica import Outputs
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.world import World

BUCKET_BYTES = 32 << 20
"""Weights are exchanged in portions of this size, so that small ones share a message."""


def averaged(tensors: list[torch.Tensor], world: World) -> None:
    """Each tensor becomes its mean over all ranks, in place, the same bits on every rank."""
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.flatten() for tensor in bucket])
        dist.all_reduce(flat)
        flat /= world.size
        for tensor, part in zip(bucket, torch.split(flat, [t.numel() for t in bucket]), strict=True):
            tensor.copy_(part.view_as(tensor))


def _buckets(tensors: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Neighbours of one number format together."""
    bucket: list[torch.Tensor] = []
    held = 0
    for tensor in tensors:
        if bucket and (held + tensor.nbytes > BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(tensor)
        held += tensor.nbytes
    if bucket:
        yield bucket


class Apart:
    """A model of its own on each rank; nothing is exchanged in a step.

    Between two averages the ranks' weights differ. What is judged and saved is their mean: `settle` puts it into the model,
    and `part` gives each rank its own weights back, so that neither evaluation nor a checkpoint moves the run.
    """

    def __init__(self, objective: Objective, world: World, sync_every: int) -> None:
        self._objective, self._world, self._nothing = objective, world, nullcontext()
        self.sync_every = sync_every
        self.weights: list[torch.Tensor] = [p for p in objective.parameters() if p.requires_grad]
        self._buffers = list(objective.model.buffers())
        self.own: list[torch.Tensor] | None = None
        """This rank's weights while the model holds the mean."""
        self.differ = False
        """Whether the ranks' weights may differ."""
        self.outputs: Outputs = objective.model

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._objective(inputs, targets)  # type: ignore[no-any-return]  # modules return Any

    def exchange(self, last: bool) -> AbstractContextManager[object]:
        return self._nothing

    @torch.no_grad()
    def settle(self) -> None:
        if self._world.size == 1:
            return
        for buffer in self._buffers:
            dist.broadcast(buffer, src=0)
        if self.differ and self.own is None:
            self.own = [weight.clone() for weight in self.weights]
            averaged(self.weights, self._world)

    @torch.no_grad()
    def part(self) -> None:
        """Give each rank its own weights back; called before it learns."""
        if self.own is not None:
            for weight, own in zip(self.weights, self.own, strict=True):
                weight.copy_(own)
            self.own = None


class PeriodicAveraging:
    """Averages weights every so many steps, and knows each rank's own state for the checkpoint."""

    def __init__(self, replica: Apart, optimizer: torch.optim.Optimizer, world: World, *, moments: bool) -> None:
        """`moments`: average those of the optimizer too."""
        self._replica, self._optimizer, self._world, self._moments = replica, optimizer, world, moments

    @torch.no_grad()
    def __call__(self, step: int) -> None:
        """After the optimizer step with this number, from 0."""
        replica = self._replica
        replica.differ = (step + 1) % replica.sync_every != 0
        if replica.differ or self._world.size == 1:
            return
        averaged([*replica.weights, *([value for _, value in self._states()] if self._moments else [])], self._world)

    def used(self) -> AbstractContextManager[object]:
        """What is judged is in the model already: see `Apart.settle`."""
        return nullcontext()

    def end(self, *, restored: bool) -> None:
        """The mean is in the model already."""

    def _states(self) -> list[tuple[str, torch.Tensor]]:
        """Tensors of the optimizer that ranks do not share; counts of steps they do."""
        return [
            (f"{index}.{key}", value)
            for index, weight in enumerate(self._replica.weights)
            for key, value in sorted(self._optimizer.state.get(weight, {}).items())
            if isinstance(value, torch.Tensor) and value.dim()
        ]

    def _own(self) -> list[tuple[str, torch.Tensor]]:
        """What this rank has for itself, by name; the same names on every rank."""
        weights = self._replica.own or [weight.detach() for weight in self._replica.weights]
        shared = self._moments and not self._replica.differ
        return [
            *([(f"weight.{index}", weight) for index, weight in enumerate(weights)] if self._replica.differ else []),
            *([] if shared else [(f"state.{name}", value) for name, value in self._states()]),
        ]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everybody's own weights and moments, stacked by rank, on rank 0; nothing elsewhere."""
        if self._world.size == 1:
            return {}
        found = {}
        for name, value in self._own():
            parts = [torch.empty_like(value) for _ in range(self._world.size)] if self._world.is_lead else None
            dist.gather(value.contiguous(), parts, dst=0)
            if parts is not None:
                found[name] = torch.stack([part.cpu() for part in parts])
        return found

    def values(self) -> dict[str, Any]:
        return {"differ": self._replica.differ}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """Each rank takes its own; for another number of ranks, all begin with the mean, which the model holds already."""
        self._replica.own, self._replica.differ = None, False
        ranks = len(next(iter(tensors.values()))) if tensors else self._world.size
        alike = ranks == self._world.size
        self._replica.differ = bool(values.get("differ")) and alike
        states = dict(self._states())
        for name, stacked in tensors.items():
            kind, _, key = name.partition(".")
            value = stacked[self._world.rank] if alike else stacked.mean(0)
            if kind == "weight" and alike:
                self._replica.weights[int(key)].copy_(value)
            elif kind == "state" and key in states:
                states[key].copy_(value)
