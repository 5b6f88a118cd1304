"""A decoder whose layers are cut over ranks: each has some heads, some inner features and some tokens of the vocabulary.

Between the cut layers the stream of activations is a plain tensor: whole on each rank or, sequence parallel, this rank's part
of every sequence. Hooks at the edges of layers say how plain tensors lie over the ranks, and DTensor does the exchanges.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from stoker.spec.distributed import TensorParallel
from worker.trainer.distributed.gradients import Averaging
from worker.trainer.distributed.mesh import grid
from worker.trainer.distributed.nothing import pass_over_nothing
from worker.trainer.distributed.replica import Outputs
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.world import World

WHOLE = Replicate()
ROWS = ("q", "k", "v", "gate", "up", "tokens", "head")
"""Modules whose matrices are cut by output feature, head or token."""
COLUMNS = ("out", "down")
"""Modules whose matrices are cut by input feature; what they give is added up."""


def arrange_tensor_parallel(world: World, degree: int) -> World:
    """Neighbouring ranks share layers, and so take the same part of each batch. Raises SpecProblem when they do not divide."""
    if world.size == 1:
        return world
    grid(world, tensor=degree)
    parts = world.size // degree
    groups = [dist.new_group(list(range(at, world.size, degree))) for at in range(degree)]
    return world.arranged(world.rank // degree, parts, groups[world.rank % degree])


def cut(model: nn.Module, mesh: DeviceMesh, *, sequence: bool) -> None:
    """A decoder's weights become DTensors over a mesh of one dimension, in place. `sequence`: the stream is cut between layers."""
    decoder: Any = model
    if not hasattr(decoder, "blocks") or not hasattr(decoder, "tokens"):
        raise SpecProblem("distributed.tensor_parallel: only a transformer_decoder can be cut; use fsdp for other models")
    for name, module in list(model.named_modules()):
        _cut_weights(name.rpartition(".")[2], module, mesh)
    stream = Shard(1) if sequence else WHOLE
    _edges(decoder.tokens, mesh, enter=WHOLE, leave=stream)
    if isinstance(decoder.positions, nn.Embedding):
        _edges(decoder.positions, mesh, enter=WHOLE, leave=Shard(0) if sequence else WHOLE)
    elif decoder.positions is not None and sequence:
        decoder.positions.register_forward_hook(lambda _, given, out: _lying(out, mesh, WHOLE, Shard(0)).to_local())
    for block in decoder.blocks:
        for norm in (block.attention_norm, block.ffn_norm):
            _edges(norm, mesh, enter=stream, leave=stream)
        for part, inner, last in ((block.attention, "qkv", "out"), (block.ffn, ("gate", "up"), "down")):
            part.register_forward_pre_hook(lambda _, given: (_lying(given[0], mesh, stream, WHOLE), *given[1:]))
            for layer in (getattr(part, each) for each in inner):
                if layer is not None:
                    layer.register_forward_hook(lambda _, given, out: out.to_local())
            _edges(getattr(part, last), mesh, enter=Shard(2), leave=stream)
    decoder.norm.register_forward_pre_hook(lambda _, given: (_lying(given[0], mesh, stream, stream),))
    decoder.norm.register_forward_hook(lambda _, given, out: out.redistribute(placements=[WHOLE]))
    decoder.register_forward_hook(lambda _, given, out: out.redistribute(placements=[WHOLE]).to_local())


def _cut_weights(kind: str, module: nn.Module, mesh: DeviceMesh) -> None:
    """Each rank was given the same whole weights and keeps its part."""
    for name, weight in list(module.named_parameters(recurse=False)):
        place: Placement = WHOLE
        if kind in ROWS:
            place = Shard(0)
        elif kind in COLUMNS and name == "weight":
            place = Shard(1)
        whole = DTensor.from_local(weight.detach(), mesh, [WHOLE], run_check=False)
        part = whole.redistribute(placements=[place])
        if place is not WHOLE:  # memory of its own, so that the whole is forgotten
            part = DTensor.from_local(
                part.to_local().clone(), mesh, [place], run_check=False, shape=whole.shape, stride=whole.stride()
            )
        module.register_parameter(name, nn.Parameter(part, requires_grad=weight.requires_grad))


def _lying(value: torch.Tensor, mesh: DeviceMesh, now: Placement, then: Placement) -> DTensor:
    """A plain tensor that lies over the ranks one way, brought to lie another."""
    lying = value if isinstance(value, DTensor) else DTensor.from_local(value, mesh, [now], run_check=False)
    return lying.redistribute(placements=[then])


def _edges(module: nn.Module, mesh: DeviceMesh, *, enter: Placement, leave: Placement) -> None:
    """Plain tensors go in, lying one way, and come out, lying another."""
    module.register_forward_pre_hook(lambda _, given: (_lying(given[0], mesh, enter, enter),))
    module.register_forward_hook(lambda _, given, out: out.redistribute(placements=[leave]).to_local())


class Cut:
    """A model over the ranks of each part of the batch; gradients are averaged over the parts after the last pass."""

    def __init__(self, objective: Objective, world: World, spec: TensorParallel) -> None:
        cut(objective.model, grid(world, tensor=spec.degree)["tensor"], sequence=spec.sequence_parallel)
        self._objective, self._nothing = objective, nullcontext()
        self._averaging = Averaging([p for p in objective.parameters() if p.requires_grad], world)
        self._buffers = list(objective.model.buffers())
        self.outputs: Outputs = objective.model

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if inputs.shape[0] == 0:
            return pass_over_nothing(self._objective, inputs, targets)
        return self._objective(inputs, targets)  # type: ignore[no-any-return]  # modules return Any

    def exchange(self, last: bool) -> AbstractContextManager[object]:
        return self._averaging if last else self._nothing

    def settle(self) -> None:
        for buffer in self._buffers:
            dist.broadcast(buffer, src=0)
