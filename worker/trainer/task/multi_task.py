"""Multi-task specs into heads on one trunk and one loss of all of them. Source of learned weights: Kendall, Gal, Cipolla 2018."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import assert_never

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from stoker.spec.evaluation import Metric, Mode
from stoker.spec.loss import Loss, MeanSquaredError, head_width
from stoker.spec.task import Task
from stoker.spec.task.multi_task import ClassHead, FixedWeighting, MultiTask, UncertaintyWeighting, metrics_of
from worker.trainer.data import Description
from worker.trainer.errors import SpecProblem
from worker.trainer.evaluation import Measuring, MetricGroups, Question, Report
from worker.trainer.loss import build_loss, reading_of
from worker.trainer.loss.summed import Summed
from worker.trainer.model.parts import shared_cast
from worker.trainer.runtime.part import Part


class Heads(nn.Module):
    """(n, features) → (n, widths): what each head says, side by side, then the log-variance of each task where it is learned."""

    def __init__(self, whole: nn.Linear, spec: MultiTask, widths: Sequence[int]) -> None:
        """The heads start as the rows of one layer over all outputs would. A task that weighs nothing learns nothing."""
        super().__init__()
        self._names = tuple(head.name for head in spec.tasks)
        self._uncertain = isinstance(spec.weighting, UncertaintyWeighting)
        for task, (start, stop) in zip(spec.tasks, bounds(widths), strict=True):
            self.add_module(f"head_{task.name}", _rows(whole, start, stop).requires_grad_(task.weight > 0))
        match spec.weighting:
            case FixedWeighting():
                return
            case UncertaintyWeighting(initial_log_variance=start_at):
                for task in spec.tasks:
                    value = torch.full((1,), start_at, dtype=whole.weight.dtype, device=whole.weight.device)
                    self.register_parameter(f"log_variance_{task.name}", nn.Parameter(value, requires_grad=task.weight > 0))
            case _:
                assert_never(spec.weighting)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = shared_cast(features)
        said = [self.get_submodule(f"head_{name}")(features) for name in self._names]
        return torch.cat([*said, *(value.expand(len(features), 1) for value in self.log_variances.values())], -1)

    @property
    def log_variances(self) -> dict[str, torch.Tensor]:
        """By task, (1,) each; empty where weights are fixed."""
        return {name: self.get_parameter(f"log_variance_{name}") for name in self._names} if self._uncertain else {}


def _rows(whole: nn.Linear, start: int, stop: int) -> nn.Linear:
    """A layer of its own, of some outputs of another."""
    with torch.device("meta"):  # where nothing is drawn
        part = nn.Linear(whole.in_features, stop - start, bias=whole.bias is not None, dtype=whole.weight.dtype)
    part.to_empty(device=whole.weight.device)
    with torch.no_grad():
        part.weight.copy_(whole.weight[start:stop])
        if whole.bias is not None:
            part.bias.copy_(whole.bias[start:stop])
    return part


def bounds(widths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where each part of so many columns begins and ends."""
    return pairwise(accumulate(widths, initial=0))


def with_heads(spec: Task, model: nn.Module, about: Description) -> nn.Module:
    """For several tasks, the model with a head for each of them in the place of its last layer; else as it is.

    Raises SpecProblem where the last layer is not linear.
    """
    if not isinstance(spec, MultiTask):
        return model
    widths = widths_of(spec, about)
    named = [(name, module) for name, module in model.named_modules() if next(module.children(), None) is None]
    name, last = named[-1]
    if not isinstance(last, nn.Linear) or last.out_features != sum(widths) or not name:
        raise SpecProblem(
            f"model: several tasks share a model that ends in a linear layer of {sum(widths)} units; use mlp or layers"
        )
    if sum(other is last.weight for _, other in model.named_parameters(remove_duplicate=False)) > 1:
        raise SpecProblem(f"model.sharing: {name} becomes a head for each task, and shares its weights; share other parts")
    parent, _, key = name.rpartition(".")
    setattr(model.get_submodule(parent), key, Heads(last, spec, widths))
    return model


def width_of(spec: Task, goal: Loss | None, about: Description) -> int:
    """Numbers that the model says of a sample, without log-variances."""
    return sum(widths_of(spec, about)) if isinstance(spec, MultiTask) else head_width(goal, about.outputs)


def widths_of(spec: MultiTask, about: Description) -> tuple[int, ...]:
    """Numbers that each head gives."""
    return tuple(head_width(task.minimised, answer.outputs) for task, answer in zip(spec.tasks, about.answers, strict=True))


@dataclass(frozen=True)
class Share:
    """One task in the loss of all."""

    name: str
    answers: int
    """Classes or numbers."""
    classes: bool
    said: slice
    """Columns of the outputs."""
    meant: slice
    """Columns of the targets."""
    weight: float
    half: float
    """What the loss is multiplied by beside the inverse of the variance, where that is learned."""
    unit: float
    """What a training sample counts on average in the mean of the task's own loss."""

    def outputs(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs[..., self.said]

    def targets(self, targets: torch.Tensor) -> torch.Tensor:
        """(n,) classes, or (n, numbers)."""
        return targets[:, self.meant.start].long() if self.classes else targets[:, self.meant]


class JointLoss(Summed):
    """The weighted sum of the losses of all tasks, in samples: each is divided by what a training sample counts in its own mean.

    Targets are packed as columns of numbers: one for the class of a classification, one per number of a regression.
    """

    def __init__(self, shares: Sequence[Share], losses: Sequence[Summed], *, uncertain: bool) -> None:
        super().__init__()
        self.shares, self.losses = tuple(shares), nn.ModuleList(losses)
        self._variances = shares[-1].said.stop if uncertain else None
        """Column of the outputs in which the log-variances begin."""

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        outputs = outputs.float()
        losses = [part(share.outputs(outputs), share.targets(targets)) for share, part in self._parts(learned=True)]
        return self._joined(losses, outputs, len(outputs))

    def each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        outputs = outputs.float()
        losses = [part.each(share.outputs(outputs), share.targets(targets)) for share, part in self._parts(learned=True)]
        return self._joined(losses, outputs, 1)

    def _joined(self, losses: Sequence[torch.Tensor], outputs: torch.Tensor, count: int) -> torch.Tensor:
        """`losses`: of each task that is learned, as they come, summed over `count` samples."""
        total = torch.zeros_like(losses[0])
        for (share, _), loss in zip(self._parts(learned=True), losses, strict=True):
            if self._variances is None or len(outputs) == 0:
                total = total + share.weight * (loss / share.unit)
            else:
                s = outputs[0, self._variances + self.shares.index(share)]
                total = total + share.weight * (share.half * torch.exp(-s) * (loss / share.unit) + 0.5 * s * count)
        return total

    def _parts(self, *, learned: bool = False) -> Iterator[tuple[Share, Summed]]:
        for share, part in zip(self.shares, self.losses, strict=True):
            assert isinstance(part, Summed)
            if share.weight > 0 or not learned:
                yield share, part

    def sample_weights(self, targets: torch.Tensor) -> torch.Tensor:
        """What each sample counts in the mean: one, (n,) float64."""
        return torch.ones(len(targets), dtype=torch.float64)

    def report(self) -> Report:
        """The loss of each task, and its log-variance."""
        modes: dict[str, Mode | None] = {f"{share.name}_loss": "min" for share in self.shares}
        if self._variances is not None:
            modes |= {f"{share.name}_log_variance": None for share in self.shares}
        return Report(modes, self._reported)

    def _reported(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses = torch.stack([part(share.outputs(outputs), share.targets(targets)) / share.unit for share, part in self._parts()])
        return losses if self._variances is None else torch.cat((losses, outputs[:, self._variances :].sum(0)))


def join_losses(spec: Task, about: Description, targets: torch.Tensor) -> JointLoss:
    """`targets`: those of the training split, packed; classes and weights are counted in them. Raises SpecProblem."""
    assert isinstance(spec, MultiTask), "only several tasks have no loss in common"
    uncertain = isinstance(spec.weighting, UncertaintyWeighting)
    if not any(task.weight > 0 for task in spec.tasks):
        raise SpecProblem("task.tasks: every weight is 0, so nothing would be learned; give some task a weight above 0")
    said = bounds(widths_of(spec, about))
    meant = bounds([len(task.columns) for task in spec.tasks])
    shares, losses = [], []
    for task, answer, outputs, columns in zip(spec.tasks, about.answers, said, meant, strict=True):
        half = 0.5 if isinstance(task.minimised, MeanSquaredError) else 1.0
        share = Share(
            task.name, answer.outputs, isinstance(task, ClassHead), slice(*outputs), slice(*columns), task.weight, half, 1.0
        )
        mine = share.targets(targets)
        loss = build_loss(task.minimised, answer.outputs, mine)
        losses.append(loss)
        unit = float(loss.sample_weights(mine).mean())
        shares.append(replace(share, unit=unit if unit > 0 else 1.0))
    return JointLoss(shares, losses, uncertain=uncertain)


def metric_groups_of(spec: Task, loss: nn.Module) -> MetricGroups | None:
    """How the tasks are judged, each by itself; None where there is one."""
    if not isinstance(spec, MultiTask) or not isinstance(loss, JointLoss):
        return None

    def questions(metrics: tuple[Metric, ...]) -> tuple[Question, ...]:
        return tuple(
            Question(metrics_of(task, metrics), share.answers, _measuring(share, part), f"{task.name}_")
            for task, share, part in zip(spec.tasks, loss.shares, loss.losses, strict=True)
        )

    return MetricGroups(questions, loss.report())


def _measuring(share: Share, loss: nn.Module) -> Measuring:
    predicted = reading_of(loss).predicted
    return Measuring(predicted=lambda outputs: predicted(share.outputs(outputs)), truth=share.targets)


def log_variances(model: nn.Module) -> Part:
    """What is learned about the noise of each task, by the name under which training reports it; every rank reads it."""
    heads = next((module for module in model.modules() if isinstance(module, Heads)), None)
    if heads is None:
        return Part()
    return Part(gauges={f"train/{name}_log_variance": _reader(heads, name) for name in heads.log_variances})


def _reader(heads: Heads, name: str) -> Callable[[], torch.Tensor]:
    def read() -> torch.Tensor:
        value = heads.log_variances[name].detach()  # looked up each time: a strategy may have put another in its place
        return (value.full_tensor() if isinstance(value, DTensor) else value).sum()

    return read
