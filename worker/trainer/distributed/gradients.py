"""Gradients that no wrapper exchanges: averaged over the parts of the batch after the last backward pass of a step."""

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from worker.trainer.runtime.shards import local
from worker.trainer.runtime.world import World

BUCKET_BYTES = 25 << 20
"""Gradients are exchanged in portions of about this size."""


def average(params: Iterable[nn.Parameter], world: World) -> None:
    """In place, over the data parts of the world; a gradient that lies otherwise than its weight is brought in line first."""
    for bucket in buckets([_aligned(p) for p in params if p.grad is not None]):
        if world.data_parts == 1:
            continue
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        world.sum(flat).div_(world.data_parts)
        parts = torch.split(flat, [gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _aligned(param: nn.Parameter) -> torch.Tensor:
    """This rank's part of a gradient. Ranks that share a layer may each hold an addend of it."""
    if isinstance(param, DTensor) and isinstance(param.grad, DTensor) and param.grad.placements != param.placements:
        param.grad = param.grad.redistribute(placements=param.placements)
    assert param.grad is not None
    return local(param.grad)


def buckets(gradients: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Neighbours of one number format together, up to the size of a bucket; the same on every rank."""
    bucket: list[torch.Tensor] = []
    for gradient in gradients:
        if bucket and (bucket[0].dtype != gradient.dtype or sum(g.nbytes for g in bucket) + gradient.nbytes > BUCKET_BYTES):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


class Averaging:
    """Around the last pass of a step."""

    def __init__(self, params: Sequence[nn.Parameter], world: World) -> None:
        self._params, self._world = params, world

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            average(self._params, self._world)
