"""Sequences cut over ranks: each holds two pieces of every sequence, and attention gathers the keys and values of all.

With 2n pieces over n ranks, rank r holds pieces r and 2n - 1 - r: late tokens look back further than early ones, and so every
rank has the same work. The model takes whole sequences and gives whole outputs, as without; only the objective leaves its
outputs where they are, and adds up losses instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.world import World


class Gathered(torch.autograd.Function):
    """Everybody's part, stacked: (ranks, *shape). Gradients are added up, and each rank takes that of its own part.

    That of `torch.distributed.nn.functional` is wrong on gloo for gradients that are not contiguous (PyTorch 2.13).
    """

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.group = group
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(group.size())]
        dist.all_gather(parts, part.contiguous(), group=group)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed, group=ctx.group)
        return summed[ctx.group.rank()], None


class Total(torch.autograd.Function):
    """The sum of everybody's loss. Each rank's gradients are those of its own part, times the number of ranks: strategies
    average gradients over all ranks, of which these are some.
    """

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.ranks = group.size()
        total = loss.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * ctx.ranks, None


def arrange_context_parallel(world: World, degree: int) -> World:
    """Neighbouring ranks share sequences, and so take the same part of each batch. Raises SpecProblem when they do not divide."""
    if world.size == 1:
        return world
    if world.size % degree:
        raise SpecProblem(f"distributed.context_parallel.degree: {world.size} ranks do not divide into groups of {degree}")
    groups = [dist.new_group(list(range(at, world.size, degree))) for at in range(degree)]
    own = groups[world.rank % degree]
    return world.arranged(world.rank // degree, world.size // degree, own, stream=world.rank)


class Context:
    """The part of every sequence that this rank holds, and the attention over all of it."""

    def __init__(self, decoder: nn.Module, group: dist.ProcessGroup) -> None:
        self.group = group
        self._rank, self._ranks = group.rank(), group.size()
        self._stays = False
        self._masks: dict[tuple[int, int, torch.dtype], torch.Tensor] = {}
        whole: Any = decoder
        for block in whole.blocks:
            block.attention.attend = self.attend
        decoder.register_forward_pre_hook(self._enter)
        decoder.register_forward_hook(self._leave)

    def places(self, length: int, device: torch.device) -> torch.Tensor:
        """(T / ranks,): positions of this rank's tokens in sequences of a length."""
        if length % (2 * self._ranks):
            raise SpecProblem(f"data.sequence.length: {length} tokens do not divide into {2 * self._ranks} pieces")
        pieces = torch.arange(length, device=device).chunk(2 * self._ranks)
        return torch.cat([pieces[index] for index in self._pieces])

    @property
    def _pieces(self) -> tuple[int, int]:
        return self._rank, 2 * self._ranks - 1 - self._rank

    @contextmanager
    def apart(self) -> Iterator[None]:
        """The model leaves its outputs, (B, T / ranks, V), where they are."""
        self._stays = True
        yield
        self._stays = False

    def _enter(self, decoder: Any, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (ids,) = given
        places = self.places(ids.shape[1], ids.device)
        decoder.place(places)
        return (ids[:, places],)

    def _leave(self, decoder: nn.Module, given: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        return out if self._stays else self._whole(out, 1)

    def _whole(self, part: torch.Tensor, dim: int) -> torch.Tensor:
        """Everybody's pieces in the order of the sequence, along one dimension."""
        first, last = Gathered.apply(part, self.group).chunk(2, dim=dim + 1)  # type: ignore[no-untyped-call]  # torch has no types here
        return torch.cat([*first.unbind(), *reversed(last.unbind())], dim=dim)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float) -> torch.Tensor:
        """Each of this rank's tokens to itself and those before it, wherever they are: (B, H, T / ranks, K)."""
        keys, values = self._whole(torch.stack((k, v)), 3)
        length = q.shape[2] // 2
        out = []
        for queries, index in zip(q.chunk(2, dim=2), self._pieces, strict=True):
            seen = (index + 1) * length
            back = keys[:, :, :seen], values[:, :, :seen], self._mask(length, seen, q)
            out.append(F.scaled_dot_product_attention(queries, *back, dropout_p=dropout, enable_gqa=q.shape[1] != k.shape[1]))
        return torch.cat(out, dim=2)

    def _mask(self, length: int, seen: int, like: torch.Tensor) -> torch.Tensor:
        """(length, seen): minus infinity where one of the last tokens would look ahead. The same memory for all layers."""
        key = length, seen, like.dtype
        if key not in self._masks:
            ahead = torch.ones(length, seen, dtype=torch.bool, device=like.device).triu(seen - length + 1)
            self._masks[key] = torch.zeros(length, seen, dtype=like.dtype, device=like.device).masked_fill_(ahead, -torch.inf)
        return self._masks[key]


class Contextual(Objective):
    """The summed loss of whole sequences, of which this rank computes its part."""

    def __init__(self, objective: Objective, context: Context) -> None:
        super().__init__(objective.model, objective.loss)
        self._context = context

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if inputs.shape[0] == 0:
            return super().forward(inputs, targets)
        with self._context.apart():
            out = self.model(inputs)
        places = self._context.places(inputs.shape[1], inputs.device)
        return Total.apply(self.loss(out, targets[:, places]), self._context.group)  # type: ignore[no-any-return, no-untyped-call]  # torch has no types here


def in_context(objective: Objective, world: World, degree: int) -> Objective:
    """The objective with sequences cut over neighbouring ranks. Raises SpecProblem for a model that is no decoder."""
    if not hasattr(objective.model, "place"):
        raise SpecProblem("distributed.context_parallel: only a transformer_decoder reads sequences in parts")
    groups = [dist.new_group(list(range(at, at + degree))) for at in range(0, world.size, degree)]
    return Contextual(objective, Context(objective.model, groups[world.rank // degree]))
