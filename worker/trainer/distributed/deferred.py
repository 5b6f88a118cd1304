"""A whole model on each rank; gradients are averaged when all ranks got through their passes, not while they make them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist

from worker.trainer.distributed.replica import Outputs
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.world import World


class Deferred:
    """No rank waits for another during the passes, so each may fail, and say so, before gradients are exchanged."""

    def __init__(self, objective: Objective, world: World, bucket_cap_mb: int) -> None:
        self._objective, self._world, self._bytes = objective, world, bucket_cap_mb << 20
        self._nothing = nullcontext()
        self.outputs: Outputs = objective.model

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._objective(inputs, targets)  # type: ignore[no-any-return]  # modules return Any

    def exchange(self, last: bool) -> AbstractContextManager[object]:
        return self._nothing

    def average(self) -> None:
        """Gradients become their mean over all ranks; every rank calls it once per step."""
        for bucket in self._buckets():
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            flat /= self._world.size
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            torch._foreach_copy_(bucket, [part.view_as(gradient) for part, gradient in zip(parts, bucket, strict=True)])

    def _buckets(self) -> Iterator[list[torch.Tensor]]:
        """Gradients of one format, together up to the size of a bucket; the same on every rank."""
        bucket: list[torch.Tensor] = []
        size = 0
        for gradient in [p.grad for p in self._objective.parameters() if p.grad is not None]:
            if bucket and (size + gradient.nbytes > self._bytes or bucket[0].dtype != gradient.dtype):
                yield bucket
                bucket, size = [], 0
            bucket.append(gradient)
            size += gradient.nbytes
        if bucket:
            yield bucket

    def settle(self) -> None:
        for buffer in self._objective.model.buffers():
            dist.broadcast(buffer, src=0)
