"""Distributed specs applied to the objective."""

from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any, Protocol, assert_never

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from stoker.spec.distributed import DDP, Distributed, Single
from worker.trainer.world import World

SYNC_BUFFERS = (
    "forward_sync_buffers" if "forward_sync_buffers" in signature(DistributedDataParallel).parameters else "broadcast_buffers"
)
"""What DDP calls its exchange of buffers: the first name since torch 2.13, the second before."""


class Objective(nn.Module):
    """Inputs and targets to the summed loss. A batch of nothing gives a zero that touches every weight, so that a rank
    without samples still takes part in the exchange of gradients.
    """

    def __init__(self, model: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if inputs.shape[0] == 0:
            return torch.stack([p.flatten()[0] for p in self.model.parameters()]).sum() * 0.0
        out: torch.Tensor = self.loss(self.model(inputs), targets)
        return out


class Replica(Protocol):
    """The objective as the loop calls it."""

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor: ...

    def exchange(self, last: bool) -> AbstractContextManager[object]:
        """Around one forward and backward pass: gradients are exchanged in the last of a step only."""

    def settle(self) -> None:
        """Rank 0's buffers everywhere, before they are used or saved."""


class Alone:
    def __init__(self, objective: Objective) -> None:
        self._objective, self._nothing = objective, nullcontext()

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._objective(inputs, targets)  # type: ignore[no-any-return]  # modules return Any

    def exchange(self, last: bool) -> AbstractContextManager[object]:
        return self._nothing

    def settle(self) -> None:
        return


class Replicated:
    """Gradients are averaged by DDP.

    Buffers are not exchanged in the step: training never reads them, and rank 0's are the ones that count. DDP lays its
    buckets out anew after the first backward pass, and with more than two ranks the layout decides the order of additions;
    so one pass over nothing comes first, and a resumed run adds in the same order as one that was never interrupted.
    """

    def __init__(self, objective: Objective, world: World, bucket_cap_mb: int) -> None:
        self._world, self._buffers = world, [b for b in objective.model.buffers()]
        options: dict[str, Any] = {"bucket_cap_mb": bucket_cap_mb, "gradient_as_bucket_view": True, SYNC_BUFFERS: False}
        self._ddp = DistributedDataParallel(objective, **options)
        self._nothing = nullcontext()
        nothing = torch.empty(0, device=world.device)
        self._ddp(nothing, nothing).backward()
        objective.zero_grad(set_to_none=True)

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._ddp(inputs, targets)  # type: ignore[no-any-return]  # modules return Any

    def exchange(self, last: bool) -> AbstractContextManager[object]:
        return self._nothing if last else self._ddp.no_sync()

    def settle(self) -> None:
        for buffer in self._buffers:
            dist.broadcast(buffer, src=0)


def replicate(spec: Distributed, objective: Objective, world: World) -> Replica:
    """For as many ranks as there are, which may differ from what the spec asked for: the batch is the same for any number."""
    match spec:
        case Single():
            return Alone(objective) if world.size == 1 else Replicated(objective, world, DDP().bucket_cap_mb)
        case DDP():
            return Alone(objective) if world.size == 1 else Replicated(objective, world, spec.bucket_cap_mb)
        case _:
            assert_never(spec)
