"""A model in shards; gradients are averaged over the parts of a batch and each rank keeps its share of them.

Every rank takes part in gathering every layer, so all make equally many passes: one without samples runs the model over a
sample of nothing and throws the result away.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import assert_never

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard

from stoker.spec.distributed import FSDP
from worker.trainer.distributed.gradients import Averaging
from worker.trainer.distributed.heap import give_back_large_blocks
from worker.trainer.distributed.mesh import grid
from worker.trainer.distributed.nothing import pass_over_nothing
from worker.trainer.distributed.tensor_parallel import cut
from worker.trainer.runtime.compat import AnyBatchNorm
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.world import World


def units(model: nn.Module) -> Iterator[nn.Module]:
    """Parts that are gathered one at a time: the members of lists of blocks, and of a stack of layers; at last the model itself."""
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            yield from (part for member in child for part in (*_in_other_words(member), member))
        elif isinstance(model, nn.Sequential) and next(child.parameters(), None) is not None:
            yield from (*_in_other_words(child), child)
    yield model


def _in_other_words(unit: nn.Module) -> list[nn.Module]:
    """Norms of batches within a unit of narrow weights: they stay in fp32, and what is gathered together has one format."""
    if len({weight.dtype for weight in unit.parameters()}) < 2:
        return []
    return [module for module in unit.modules() if isinstance(module, AnyBatchNorm) and module is not unit]


def home(spec: FSDP, world: World) -> OffloadPolicy:
    """Where shards wait until they are gathered. Host memory is pinned where a GPU copies from it."""
    match spec.offload:
        case "none":
            return OffloadPolicy()
        case "parameters":
            return CPUOffloadPolicy(pin_memory=world.device.type == "cuda")
        case _:
            assert_never(spec.offload)


class Sharded:
    """The root is the model itself, so that it is gathered for training and for evaluation alike."""

    def __init__(self, spec: FSDP, objective: Objective, world: World) -> None:
        give_back_large_blocks()
        self._objective, self._nothing = objective, nullcontext()
        self._buffers = list(objective.model.buffers())
        ranks = grid(world, replicas=spec.replicate, tensor=spec.tensor_degree)
        if spec.tensor_parallel is not None:
            cut(objective.model, ranks["tensor"], sequence=spec.tensor_parallel.sequence_parallel)
        mesh = ranks["shard"] if ranks.size(0) == 1 else ranks["replica", "shard"]
        for part in units(objective.model):
            fully_shard(part, mesh=mesh, reshard_after_forward=spec.reshard_after_forward, offload_policy=home(spec, world))
        self._parts = [module for module in objective.model.modules() if isinstance(module, FSDPModule)]
        sharded = {id(parameter) for parameter in objective.model.parameters()}
        others = [p for p in objective.parameters() if p.requires_grad and id(p) not in sharded]
        self._others: AbstractContextManager[object] = Averaging(others, world) if others else self._nothing

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if inputs.shape[0] == 0:
            return pass_over_nothing(self._objective, inputs, targets)
        return self._objective(inputs, targets)  # type: ignore[no-any-return]  # modules return Any

    def exchange(self, last: bool) -> AbstractContextManager[object]:
        """Gradients stay whole on each rank until the last pass."""
        for part in self._parts:
            part.set_requires_gradient_sync(last, recurse=False)
            part.set_is_last_backward(last)
        return self._others if last else self._nothing

    @torch.no_grad()
    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self._objective.model(inputs)
        self._reshard()
        return outputs

    def settle(self) -> None:
        for buffer in self._buffers:
            dist.broadcast(buffer, src=0)

    def _reshard(self) -> None:
        """No backward pass does it."""
        for part in self._parts:
            part.reshard()
