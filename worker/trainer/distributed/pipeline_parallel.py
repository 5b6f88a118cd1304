"""A decoder cut into stages, each on a rank of its own: samples flow through them in pieces, forwards and backwards.

Schedules are those of `torch.distributed.pipelining` (GPipe, Huang et al. 2019; 1F1B and interleaved, Narayanan et al. 2021).
They want pieces of one shape: what a micro-batch lacks is filled up with samples that count nothing.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any, assert_never

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B
from torch.nn import functional as F

from stoker.spec.distributed import PipelineParallel
from worker.trainer.distributed.gradients import average
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.softcap import softcapped
from worker.trainer.runtime.world import World

Autocast = Callable[[], AbstractContextManager[object]]
UNMERGED: dict[str, Any] = {"return_outputs": False} if "return_outputs" in signature(Schedule1F1B.step).parameters else {}
"""Where torch can leave the outputs of pieces apart, which nobody reads."""


def arrange_pipeline_parallel(world: World, degree: int) -> World:
    """Neighbouring ranks hold stages of one model, and so take the same part of each batch. Raises SpecProblem when they do
    not divide.
    """
    if world.size == 1:
        return world
    if world.size % degree:
        raise SpecProblem(f"distributed.pipeline_parallel.degree: {world.size} ranks do not divide into pipelines of {degree}")
    parts = [dist.new_group(list(range(at, world.size, degree))) for at in range(degree)]
    pipes = [dist.new_group(list(range(at, at + degree))) for at in range(0, world.size, degree)]
    part, stage = divmod(world.rank, degree)
    return world.arranged(part, world.size // degree, parts[stage], stream=world.rank, pieces=pipes[part])


class Stage(nn.Module):
    """Consecutive layers of a decoder: ids (B, T) or a stream (B, T, C) in, a stream or logits (B, T, V) out."""

    def __init__(self, decoder: Any, blocks: Sequence[nn.Module], *, first: bool, last: bool) -> None:
        super().__init__()
        widen = decoder.widen or nn.Identity()
        self.entry = nn.ModuleList([decoder.tokens, widen, decoder.positions or nn.Identity(), decoder.dropout] if first else [])
        self.placed = first and decoder.positions is not None
        self.blocks, self.rotation = nn.ModuleList(blocks), decoder.rotation
        self.exit = nn.ModuleList([decoder.norm, decoder.head] if last else [])
        self.cap: float | None = decoder.final_softcap
        self.autocast: Autocast = nullcontext

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.autocast():
            if self.entry:
                tokens, widen, positions, dropout = self.entry
                stream = widen(tokens(x))
                x = dropout(stream + positions(torch.arange(x.shape[1], device=x.device)) if self.placed else stream)
            for block in self.blocks:
                x = block(x, self.rotation)
            if self.exit:
                norm, head = self.exit
                x = head(norm(x))
                x = x if self.cap is None else softcapped(x, self.cap)
        return x


def owned(stage: int, stages: int, layers: int) -> range:
    """Blocks of one stage: equally many for each, as far as they divide."""
    return range(layers * stage // stages, layers * (stage + 1) // stages)


def cut(decoder: Any, spec: PipelineParallel, rank: int) -> dict[int, Stage]:
    """This rank's stages by number. The decoder keeps what they need, under the same names, and forgets the rest."""
    if not hasattr(decoder, "blocks") or decoder.head is None:
        raise SpecProblem(
            "distributed.pipeline_parallel: only a transformer_decoder with tie_embeddings: false is cut into stages"
        )
    layers, total = list(decoder.blocks), spec.stages
    if len(layers) < total:
        raise SpecProblem(f"distributed.pipeline_parallel: {len(layers)} blocks are fewer than {total} stages")
    mine = range(rank, total, spec.degree)
    stages = {
        at: Stage(decoder, [layers[i] for i in owned(at, total, len(layers))], first=at == 0, last=at == total - 1) for at in mine
    }
    decoder.blocks = nn.ModuleDict({str(i): layers[i] for at in mine for i in owned(at, total, len(layers))})
    if 0 not in stages:
        decoder.tokens = decoder.widen = decoder.positions = None
    if total - 1 not in stages:
        decoder.norm = decoder.head = None
    return stages


class Piped:
    """A model over the ranks of each part of the batch. It makes forward and backward passes together: see `step`."""

    def __init__(self, objective: Objective, world: World, spec: PipelineParallel) -> None:
        assert world.pieces is not None
        decoder: Any = objective.model
        weight: torch.Tensor = decoder.tokens.weight
        self._vocabulary, self._width = weight.shape[0], decoder.width
        self._dtype = weight.dtype
        self._world, self._spec, self._group, self._loss = world, spec, world.pieces, objective.loss
        self._ranks = dist.get_process_group_ranks(self._group)
        self._stages = cut(decoder, spec, self._group.rank())
        self._params = [p for p in objective.parameters() if p.requires_grad]
        self._schedule: Any = None  # made for the first piece
        self._counting: list[int] = []
        self._total, self._scale = torch.zeros(()), torch.ones(())
        decoder.forward = self.outputs

    def use(self, autocast: Autocast, micro: int) -> None:
        """The context that layers compute in while they learn, and samples of a whole micro-batch. Raises SpecProblem when
        these do not divide into pieces.
        """
        if micro % self._spec.microbatches:
            raise SpecProblem(
                f"training.micro_batch_size: {micro} samples do not divide into the {self._spec.microbatches} pieces of "
                "distributed.pipeline_parallel.microbatches; choose a multiple of it"
            )
        for stage in self._stages.values():
            stage.autocast = autocast

    def step(self, inputs: torch.Tensor, targets: torch.Tensor, micro: int, scale: torch.Tensor) -> torch.Tensor:
        """Forward and backward pass of at most `micro` samples; gradients add up. Gives the summed loss, times nothing, on
        every rank of the pipeline; gradients are those of the loss times `scale`.
        """
        count, pieces = inputs.shape[0], self._spec.microbatches
        ids, expected = (F.pad(part, (0, 0, 0, micro - count)) for part in (inputs, targets))
        self._counting = [max(0, min(micro // pieces, count - at)) for at in range(0, micro, micro // pieces)]
        self._total, self._scale = torch.zeros((), dtype=torch.float64, device=inputs.device), scale
        schedule = self._schedule = self._schedule or self._scheduled(ids[: micro // pieces])
        given = (ids,) if 0 in self._stages else ()
        wanted = {"target": expected} if self._spec.stages - 1 in self._stages else {}
        schedule.step(*given, **wanted, **UNMERGED)
        dist.broadcast(self._total, src=self._ranks[-1], group=self._group)
        return self._total

    def average(self) -> None:
        """Gradients over the parts of the batch, once all of a step are there."""
        average(self._params, self._world)

    def _piece_loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Of one piece, without the samples that count nothing; pieces come in order."""
        count = self._counting.pop(0)
        if count == 0:
            return outputs.sum() * 0.0
        with self._last.autocast():
            loss: torch.Tensor = self._loss(outputs[:count], targets[:count])
        self._total += loss.detach()
        return loss * self._scale

    @property
    def _last(self) -> Stage:
        return self._stages[self._spec.stages - 1]

    def _scheduled(self, piece: torch.Tensor) -> Any:
        """Shapes are told, not tried out: trying would draw random numbers that a resumed run draws again."""
        ends = [self._staged(at, stage, piece) for at, stage in self._stages.items()]
        options: dict[str, Any] = {"loss_fn": self._piece_loss, "scale_grads": False}  # without a loss there is no way back
        match self._spec.schedule:
            case "gpipe":
                return ScheduleGPipe(ends[0], self._spec.microbatches, **options)
            case "1f1b":
                return Schedule1F1B(ends[0], self._spec.microbatches, **options)
            case "interleaved_1f1b":
                return ScheduleInterleaved1F1B(list(ends), self._spec.microbatches, **options)
            case _:
                assert_never(self._spec.schedule)

    def _staged(self, at: int, stage: Stage, piece: torch.Tensor) -> PipelineStage:
        stream = torch.empty(*piece.shape, self._width, dtype=self._dtype, device="meta", requires_grad=True)
        with stage.autocast():
            products = self._products(piece.device)
        logits = torch.empty(*piece.shape, self._vocabulary, dtype=products, device="meta", requires_grad=True)
        enters = torch.empty_like(piece, device="meta") if at == 0 else stream
        leaves = logits if at == self._spec.stages - 1 else stream
        return PipelineStage(stage, at, self._spec.stages, piece.device, (enters,), (leaves,), group=self._group)

    def _products(self, device: torch.device) -> torch.dtype:
        """Number format of matrix products here."""
        return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else self._dtype

    @torch.no_grad()
    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits on every rank of the pipeline; its stages compute one after the other."""
        stream, own = inputs, self._group.rank()
        for at in range(self._spec.stages):
            owner, before = at % self._spec.degree, (at - 1) % self._spec.degree
            if at and owner != before and own == before:
                dist.send(stream.contiguous(), dst=self._ranks[owner], group=self._group)
            if own == owner:
                if at and owner != before:
                    stream = torch.empty(*inputs.shape, self._width, dtype=self._dtype, device=inputs.device)
                    dist.recv(stream, src=self._ranks[before], group=self._group)
                stream = self._stages[at](stream)
        if self._spec.stages - 1 not in self._stages:
            stream = torch.empty(*inputs.shape, self._vocabulary, dtype=self._products(inputs.device), device=inputs.device)
        stream = stream.contiguous()
        dist.broadcast(stream, src=self._ranks[-1], group=self._group)
        return stream

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise SpecProblem(
            "distributed.pipeline_parallel: forward and backward passes run interleaved, so their times cannot be reported separately"
        )

    def exchange(self, last: bool) -> AbstractContextManager[object]:
        return nullcontext()

    def settle(self) -> None:
        """A decoder has no statistics."""
