"""A whole model on each rank; gradients are averaged."""

from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from stoker.spec.distributed import DDP
from worker.trainer.distributed.hook import register
from worker.trainer.distributed.replica import Outputs
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.world import World

SYNC_BUFFERS = (
    "forward_sync_buffers" if "forward_sync_buffers" in signature(DistributedDataParallel).parameters else "broadcast_buffers"
)
"""What DDP calls its exchange of buffers: the first name since torch 2.13, the second before."""


class Replicated:
    """Gradients are averaged by DDP.

    Buffers are not exchanged in the step: training never reads them, and rank 0's are the ones that count. DDP lays its
    buckets out anew after the first backward pass, and with more than two ranks the layout decides the order of additions;
    so one pass over nothing comes first, and a resumed run adds in the same order as one that was never interrupted.
    """

    def __init__(self, objective: Objective, world: World, spec: DDP) -> None:
        self._world, self._buffers = world, [b for b in objective.model.buffers()]
        options: dict[str, Any] = {"bucket_cap_mb": spec.bucket_cap_mb, "gradient_as_bucket_view": True, SYNC_BUFFERS: False}
        self._ddp = DistributedDataParallel(objective, **options)
        self._nothing = nullcontext()
        self.outputs: Outputs = objective.model
        nothing = torch.empty(0, device=world.device)
        self._ddp(nothing, nothing).backward()
        objective.zero_grad(set_to_none=True)
        self.parts = register(spec.communication_hook, self._ddp, world)
        """Parts with a memory of their own, by name."""

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._ddp(inputs, targets)  # type: ignore[no-any-return]  # modules return Any

    def exchange(self, last: bool) -> AbstractContextManager[object]:
        return self._nothing if last else self._ddp.no_sync()

    def settle(self) -> None:
        for buffer in self._buffers:
            dist.broadcast(buffer, src=0)
