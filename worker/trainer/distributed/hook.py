"""Communication hooks of DDP, as PyTorch has them, and the memory of those that have one."""

from collections.abc import Mapping
from typing import Any, assert_never

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook, fp16_compress_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from stoker.spec.distributed import Halved, Hook, PowerSGD
from worker.trainer.runtime.state import Stateful
from worker.trainer.runtime.world import World

SHARED = ("p_memory_dict", "q_memory_dict")
"""Narrow matrices by bucket, the same on every rank."""
OWN = "error_dict"
"""What a rank has not sent yet, by bucket."""


class Owed:
    """What PowerSGD remembers: a run that resumes with the same ranks goes on to the bit, with others nothing is owed."""

    def __init__(self, state: PowerSGDState, world: World) -> None:
        self._state, self._world = state, world

    def tensors(self) -> dict[str, torch.Tensor]:
        """On rank 0: the shared matrices, and everybody's errors stacked by rank; nothing elsewhere."""
        kept = {f"{name}.{bucket}": value for name in SHARED for bucket, value in getattr(self._state, name).items()}
        for bucket, error in sorted(getattr(self._state, OWN).items()):
            parts = [torch.empty_like(error) for _ in range(self._world.size)] if self._world.is_lead else None
            dist.gather(error, parts, dst=0)
            if parts is not None:
                kept[f"{OWN}.{bucket}"] = torch.stack(parts)
        return kept if self._world.is_lead else {}

    def values(self) -> dict[str, Any]:
        return {"iteration": self._state.iter, "ranks": self._world.size}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        if values.get("ranks") != self._world.size:
            self._state.iter = values.get("iteration", 0)
            return
        self._state.iter = values["iteration"]
        for key, value in tensors.items():
            name, _, bucket = key.partition(".")
            own = value[self._world.rank] if name == OWN else value
            getattr(self._state, name)[int(bucket)] = own.to(self._world.device, copy=True)


def in_bf16(
    state: Any,
    bucket: dist.GradBucket,  # type: ignore[name-defined]  # PyTorch does not export it to type checkers
) -> torch.futures.Future[torch.Tensor]:
    """PyTorch's hook. By its own name DDP refuses it where there is no NCCL, but gloo adds bfloat16 too."""
    sent: torch.futures.Future[torch.Tensor] = bf16_compress_hook(state, bucket)
    return sent


def register(spec: Hook | None, wrapped: DistributedDataParallel, world: World) -> dict[str, Stateful]:
    """Have gradients sent as the spec says; parts with a memory of their own, by name."""
    match spec:
        case None:
            return {}
        case Halved():
            wrapped.register_comm_hook(None, fp16_compress_hook if spec.type == "fp16" else in_bf16)
            return {}
        case PowerSGD():
            state = PowerSGDState(None, spec.rank, start_powerSGD_iter=spec.start_step)
            wrapped.register_comm_hook(state, powerSGD_hook)
            return {"power_sgd": Owed(state, world)}
        case _:
            assert_never(spec)
