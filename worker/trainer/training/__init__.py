"""Training spec into the length of the run, its portions, the bound on gradients and the judge of evaluations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, assert_never

import torch
import torch.distributed as dist
from torch import nn

from stoker.spec.derived.arithmetic import batch_of
from stoker.spec.evaluation import Mode
from stoker.spec.training import ClipByNorm, ClipByValue, Clipping, EarlyStopping, Training
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.shards import local, total_norm


def micro_size(spec: Training, ranks: int) -> int:
    """Samples per forward pass, for the number of ranks that the spec asks for."""
    batch = batch_of(spec.batch_size, spec.micro_batch_size, spec.gradient_accumulation_steps, ranks)
    if batch is None:
        raise SpecProblem(
            f"training.batch_size: {spec.batch_size} is not micro_batch_size x gradient_accumulation_steps x {ranks} ranks"
        )
    return batch.micro


def total_steps(spec: Training, *, per_epoch: int, samples: int, tokens_per_sample: int) -> int | None:
    """Steps of the whole run; None when only time ends it. `samples`: those of one epoch."""
    if spec.max_steps is not None:
        return spec.max_steps
    if spec.epochs is not None:
        return spec.epochs * per_epoch
    if spec.max_tokens is not None:
        if not tokens_per_sample:
            raise SpecProblem("training.max_tokens is for text; use epochs or max_steps")
        epochs, rest = divmod(spec.max_tokens, samples * tokens_per_sample)
        return epochs * per_epoch + math.ceil(rest / (spec.batch_size * tokens_per_sample))
    if spec.max_seconds is None:
        raise SpecProblem("training: set one of epochs, max_steps, max_tokens, max_seconds")
    return None


class Clip(Protocol):
    """Called once per step, when all gradients are there."""

    def __call__(self) -> None: ...

    def norm(self) -> torch.Tensor:
        """Norm of all gradients of the last step, before clipping."""


@dataclass
class NoClip:
    """Gradients pass; their norm is only computed when somebody asks, while they are still there."""

    params: Sequence[nn.Parameter]
    pieces: dist.ProcessGroup | None = None
    """Ranks that hold other weights of the model."""

    def __call__(self) -> None:
        return

    def norm(self) -> torch.Tensor:
        return total_norm([p.grad for p in self.params if p.grad is not None], 2.0, self.pieces, _device(self.params))


@dataclass
class NormClip:
    """As `torch.nn.utils.clip_grad_norm_`, without looking up devices and types again at each step."""

    params: Sequence[nn.Parameter]
    largest: float
    order: float
    pieces: dist.ProcessGroup | None = None
    _norm: torch.Tensor = field(default_factory=lambda: torch.zeros(()))

    def __call__(self) -> None:
        gradients = [p.grad for p in self.params if p.grad is not None]
        self._norm = total_norm(gradients, self.order, self.pieces, _device(self.params))
        if gradients:  # none are there while all weights wait to be thawed
            torch._foreach_mul_(
                [local(gradient) for gradient in gradients], torch.clamp(self.largest / (self._norm + 1e-6), max=1.0)
            )

    def norm(self) -> torch.Tensor:
        return self._norm


@dataclass
class ValueClip:
    params: Sequence[nn.Parameter]
    largest: float
    measured: bool
    """Whether somebody will ask for the norm."""
    pieces: dist.ProcessGroup | None = None
    _norm: torch.Tensor = field(default_factory=lambda: torch.zeros(()))

    def __call__(self) -> None:
        gradients = [p.grad for p in self.params if p.grad is not None]
        if self.measured:
            self._norm = total_norm(gradients, 2.0, self.pieces, _device(self.params))
        if parts := [local(gradient) for gradient in gradients]:
            torch._foreach_clamp_min_(parts, -self.largest)
            torch._foreach_clamp_max_(parts, self.largest)

    def norm(self) -> torch.Tensor:
        return self._norm


def _device(params: Sequence[nn.Parameter]) -> torch.device | None:
    return params[0].device if params else None


def build_clip(
    spec: Clipping | None, params: Sequence[nn.Parameter], *, measured: bool, pieces: dist.ProcessGroup | None = None
) -> Clip:
    """`pieces`: ranks that hold other weights of the model, whose gradients count in the norm."""
    match spec:
        case None:
            return NoClip(params, pieces)
        case ClipByNorm():
            return NormClip(params, spec.max_norm, spec.norm_type, pieces)
        case ClipByValue():
            return ValueClip(params, spec.value, measured, pieces)
        case _:
            assert_never(spec)


@dataclass
class Judge:
    """Watches evaluations: remembers the best one, and says when enough of them were no better."""

    spec: EarlyStopping | None
    mode: Mode
    best: float | None = None
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    stale: int = 0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    """The model as it was at the best evaluation, when it is to be restored."""

    @property
    def patience_is_over(self) -> bool:
        return self.spec is not None and self.stale >= self.spec.patience

    def look(self, step: int, metrics: Mapping[str, float], state: Mapping[str, torch.Tensor]) -> None:
        """One evaluation, and the model's state at it."""
        if self.spec is None:
            return
        value = metrics[self.spec.monitor]
        if not self._improves(value, self.spec.min_delta):
            self.stale += 1
            return
        self.best, self.best_step, self.best_metrics, self.stale = value, step, dict(metrics), 0
        if self.spec.restore_best:
            self.weights = {name: tensor.detach().clone() for name, tensor in state.items()}

    def _improves(self, value: float, min_delta: float) -> bool:
        if self.best is None or math.isnan(value):
            return not math.isnan(value)
        return value < self.best - min_delta if self.mode == "min" else value > self.best + min_delta


def build_judge(spec: EarlyStopping | None, modes: Mapping[str, Literal["min", "max"]]) -> Judge:
    """`modes`: which way each evaluated metric is better. Raises SpecProblem when the monitored one is not evaluated."""
    if spec is None:
        return Judge(None, "min")
    if spec.monitor not in modes:
        raise SpecProblem(
            f"training.early_stopping.monitor: {spec.monitor} is not evaluated; there are {', '.join(sorted(modes)) or 'no validation samples'}"
        )
    return Judge(spec, spec.mode or modes[spec.monitor])
