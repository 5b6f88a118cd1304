"""Two networks that learn in turn: the discriminator in every step, the generator in the last of each so many.

It is one more kind of passes: the discriminator's come first and are followed by its own update; those of the generator leave
their gradients to the update of the loop, which moves nothing where the generator's turn has not come.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from stoker.spec.distributed import Distributed
from stoker.spec.evaluation import Metric
from stoker.spec.loss import Wasserstein
from stoker.spec.task import Generation, Task
from worker.trainer.data import Batch
from worker.trainer.debug.guard import Guard
from worker.trainer.distributed import Replica, replicate
from worker.trainer.distributed.replica import Outputs
from worker.trainer.distributed.timed import timed
from worker.trainer.evaluation import Measuring, MetricGroups, Question, Report
from worker.trainer.logging import Meter
from worker.trainer.loss import GanLoss, SummedLoss, of_discriminator, slope_penalty
from worker.trainer.measure.stopwatch import Watch
from worker.trainer.model import GanModel
from worker.trainer.precision import Arithmetic
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.part import Part
from worker.trainer.runtime.world import World
from worker.trainer.training import Clip
from worker.trainer.training.passes import Accumulated, Passes
from worker.trainer.training.update import Update, always


class DiscriminatorObjective(Objective):
    """Noise and real samples to the summed loss of the discriminator. The generator is no part of the module, and learns nothing."""

    def __init__(self, gan_model: GanModel, loss: GanLoss) -> None:
        super().__init__(gan_model.judging, loss)
        self._drawing = (gan_model.drawing,)
        self._contest, self._penalty = (loss,), loss.spec.gradient_penalty if isinstance(loss.spec, Wasserstein) else 0.0

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if inputs.shape[0] == 0:
            return super().forward(inputs, targets)
        with torch.no_grad():
            drawn = self._drawing[0](inputs)
        gan_loss = self._contest[0]
        total = gan_loss.of_discriminator(targets, drawn).sum()
        if self._penalty > 0:
            total = total + self._penalty * slope_penalty(gan_loss, targets, drawn.to(targets), inputs[:, -1:]).sum()
        return total


class GanReplica:
    """Two strategies of one kind, each around its network; whoever asks for outputs asks the generator."""

    def __init__(self, generator: Replica, discriminator: Replica) -> None:
        self._generator, self.discriminator = generator, discriminator
        self.exchange = generator.exchange
        self.outputs: Outputs = generator.outputs

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._generator(inputs, targets)

    def settle(self) -> None:
        self._generator.settle()
        self.discriminator.settle()


def learner(model: nn.Module) -> nn.Module:
    """What the objective of a run is about: the model, or the generator of a gan."""
    return model.drawing if isinstance(model, GanModel) else model


def with_rival(spec: Distributed, model: nn.Module, loss: SummedLoss, world: World, replica: Replica) -> Replica:
    """`replica`: of the generator, beside which the discriminator's is put; the same where there is none."""
    if not isinstance(model, GanModel) or not isinstance(loss, GanLoss):
        return replica
    return GanReplica(replica, replicate(spec, DiscriminatorObjective(model, loss), world))


@contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """The network is gone through and its weights get no gradients."""
    learning = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


class Record(Meter):
    """The mean loss of the discriminator since the last report, kept by the checkpoint until it is reported."""

    def read(self) -> torch.Tensor:
        mean = torch.tensor(self.mean(), dtype=torch.float64)
        self.reset()
        return mean

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"loss": self._world.gather(self.total)}

    def values(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """Each rank's own sum; with other ranks, the sum of all in the first."""
        self.weight, kept = values.get("weight", 0.0), tensors.get("loss", torch.zeros(1, dtype=torch.float64))
        world = self._world
        own = kept[world.rank] if len(kept) == world.size else kept.sum() * world.is_lead
        self.total.copy_(own)


@dataclass
class InTurn:
    """Passes of the discriminator, its update, and where it is due the passes of the generator."""

    teach: Passes
    """Of the discriminator."""
    move: Update
    learn: Passes
    """Of the generator."""
    judging: nn.Module
    latent: int
    due: Callable[[int], bool]
    moment: Callable[[], int]
    record: Record

    def __call__(self, batch: Batch) -> torch.Tensor:
        step = self.moment()
        loss = self.teach(batch)
        self.record.add(loss, batch.weight, made=self.move(step, loss, batch.weight))
        for weight in self.judging.parameters():
            weight.grad = None
        if not self.due(step):
            return torch.zeros_like(loss)
        fresh = tuple((noise[:, self.latent :], samples) for noise, samples in batch.micros)
        with at_rest(self.judging):
            return self.learn(replace(batch, micros=fresh))


def turns(task: Task) -> Callable[[int], bool]:
    """Whether the step with this number, from 0, moves what the loop's update is about."""
    every = task.discriminator_steps if isinstance(task, Generation) else 1
    return lambda step: (step + 1) % every == 0


def in_turn(
    spec: Task,
    model: nn.Module,
    replica: Replica,
    passes: Passes,
    update: Update,
    *,
    judge: Callable[[], tuple[Clip, Guard]],
    arithmetic: Arithmetic,
    watch: Watch,
    world: World,
    moment: Callable[[], int],
) -> tuple[Passes, Part]:
    """`passes` and `update`: of the generator; `judge`: makes what bounds and watches gradients, for the discriminator's own."""
    if not isinstance(model, GanModel) or not isinstance(replica, GanReplica):
        return passes, Part()
    clip, guard = judge()
    teach = Accumulated(timed(replica.discriminator, watch), arithmetic)
    move, record = replace(update, clip=clip, guard=guard, due=always), Record(world)
    made = InTurn(teach, move, passes, model.discriminator, model.drawing.latent, turns(spec), moment, record)
    watched = guard.part()
    stateful = {"discriminator": record, **{f"discriminator_{name}": part for name, part in watched.stateful.items()}}
    return made, Part(stateful, {**watched.gauges, "train/discriminator_loss": record.read})


def gan_metric_groups(loss: SummedLoss, measuring: Measuring, numbers: int) -> MetricGroups | None:
    """How two networks are judged: by what is measured of samples, and what the discriminator says; None for other losses."""
    if not isinstance(loss, GanLoss):
        return None
    names = ["discriminator_loss", "real_score", "generated_score"]
    if not isinstance(loss.spec, Wasserstein):  # whose discriminator has no threshold
        names.append("discriminator_accuracy")

    def sums(drawn: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        said, told = loss.says(drawn), loss.says(real)
        right = ((told > 0).float() + (said < 0).float()) / 2
        values = [of_discriminator(loss.spec, told, said), told, said, right]
        return torch.stack([each.double().sum() for each in values[: len(names)]])

    def questions(metrics: tuple[Metric, ...]) -> tuple[Question, ...]:
        return (Question(metrics, numbers, measuring),)

    return MetricGroups(questions, Report(dict.fromkeys(names), sums))


def shares_of(spec: Task, loss: SummedLoss) -> Sequence[tuple[float, Callable[[nn.Module, torch.Tensor], torch.Tensor]]]:
    """What a step computes of noise for a meta_model copy of a gan: the part of steps that do it, and how; empty for other models."""
    if not isinstance(spec, Generation) or not isinstance(loss, GanLoss):
        return ()

    def teach(model: nn.Module, noise: torch.Tensor) -> torch.Tensor:
        assert isinstance(model, GanModel), "it is a copy of one"
        own = GanLoss(loss.spec, model.judging)
        objective = DiscriminatorObjective(model, own)
        return _forward(objective, noise, noise.new_zeros(len(noise), math.prod(model.judging.shape)))

    def learn(model: nn.Module, noise: torch.Tensor) -> torch.Tensor:
        assert isinstance(model, GanModel), "it is a copy of one"
        model.discriminator.requires_grad_(False)
        lost: torch.Tensor = GanLoss(loss.spec, model.judging)(model(noise), noise).sum()
        return lost

    return ((1.0, teach), (1 / spec.discriminator_steps, learn))


def _forward(objective: Objective, noise: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = objective(noise, samples)
    return total
