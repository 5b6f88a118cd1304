"""Tensors of which each rank may hold a part: the part, the whole, their norm. A plain tensor is part and whole at once.

What a rank holds of a DTensor is one block of it: a slice along every dimension.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from worker.trainer.runtime.compat import compute_local_shape_and_global_offset


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part, sharing memory with the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as one process would hold it. Every rank that has a part of it must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def placed(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor, laid out as another one is: a copy in fresh memory on its device, of this rank's part alone."""
    if not isinstance(like, DTensor):
        return torch.empty_like(value, device=like.device).copy_(value)
    shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    part = value[tuple(slice(at, at + size) for at, size in zip(offset, shape, strict=True))]
    copy = torch.empty_like(part, device=like.device, memory_format=torch.contiguous_format).copy_(part)
    return DTensor.from_local(copy, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride())


def total_norm(
    tensors: Sequence[torch.Tensor],
    order: float,
    pieces: dist.ProcessGroup | None = None,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Norm of all elements of all tensors, each counted once however many ranks hold it; the same bits on every rank.

    `pieces`: ranks with other tensors, which count too. `device`: of the norm where there are no tensors, which is then 0.
    """
    if pieces is not None:
        part = total_norm(tensors, order, device=device).double().pow(order)
        dist.all_reduce(part, group=pieces)
        return part.pow(1 / order).float()
    if not tensors:
        return torch.zeros((), device=device)
    each = torch._foreach_norm([local(tensor) for tensor in tensors], order, dtype=torch.float32)
    if len({norm.device for norm in each}) > 1:  # some are offloaded
        each = tuple(norm.cpu() for norm in each)
    norms = torch.stack(each)
    if not any(isinstance(tensor, DTensor) for tensor in tensors):
        norm: torch.Tensor = torch.linalg.vector_norm(norms, order)
        return norm
    groups: dict[tuple[dist.ProcessGroup, ...], list[int]] = {}
    for index, tensor in enumerate(tensors):
        groups.setdefault(_sharers(tensor), []).append(index)
    total = torch.zeros((), dtype=torch.float64, device=norms.device)
    for sharers, indices in groups.items():
        part = norms[torch.tensor(indices, device=norms.device)].double().pow(order).sum()
        for group in sharers:
            dist.all_reduce(part, group=group)
        total += part
    return total.pow(1 / order).float()


def _sharers(tensor: torch.Tensor) -> tuple[dist.ProcessGroup, ...]:
    """Groups of ranks that hold different parts of a tensor; together those that have all of it."""
    if not isinstance(tensor, DTensor):
        return ()
    return tuple(tensor.device_mesh.get_group(i) for i, place in enumerate(tensor.placements) if not place.is_replicate())
