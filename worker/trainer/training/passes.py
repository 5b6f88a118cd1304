"""The forward and backward passes of one optimizer step: they leave gradients on the weights and say what the loss was."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from worker.trainer.data import Batch
from worker.trainer.data.loader import Micro
from worker.trainer.distributed import Apart, Piped, Replica
from worker.trainer.precision import Arithmetic


class Pass(NamedTuple):
    """One forward and backward pass."""

    inputs: torch.Tensor
    targets: torch.Tensor
    last: bool
    """Whether it is the last of the step, in which gradients are exchanged."""


Portions = Callable[[tuple[Micro, ...]], Iterable[Pass]]
"""Micro-batches to passes: one each, unless the task is to go through a long sequence in pieces."""


class Adversary(Protocol):
    """Turns samples against the model before it learns from them."""

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The inputs to train on, of the same shape."""


class Passes(Protocol):
    """Called once per step."""

    def __call__(self, batch: Batch) -> torch.Tensor:
        """The summed loss of this rank's part of the batch, detached; gradients of the mean loss are on the weights after it."""


def whole(micros: tuple[Micro, ...]) -> Iterator[Pass]:
    """Each micro-batch in one pass."""
    for inputs, targets in micros:
        yield Pass(inputs, targets, inputs is micros[-1][0])


def unharmed(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """No adversary."""
    return inputs


@dataclass
class Accumulated:
    """One pass after the other, gradients adding up."""

    replica: Replica
    arithmetic: Arithmetic
    portions: Portions = whole
    adversary: Adversary = unharmed

    def __call__(self, batch: Batch) -> torch.Tensor:
        losses = []
        scale = self.arithmetic.scaled(batch.scale)
        for inputs, targets, last in self.portions(batch.micros):
            attacked = self.adversary(inputs, targets)
            with self.replica.exchange(last=last):
                with self.arithmetic.autocast():
                    loss = self.replica(attacked, targets)
                loss.backward(scale)  # type: ignore[no-untyped-call]  # torch has no types here
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).double().sum()


@dataclass
class AfterParting:
    """The ranks' own weights come back before they learn: between two steps the model may hold what they have in common."""

    replica: Apart
    passes: Passes

    def __call__(self, batch: Batch) -> torch.Tensor:
        self.replica.part()
        return self.passes(batch)


@dataclass
class ThroughStages:
    """Each micro-batch in pieces through the stages of a model, forwards and backwards at once."""

    replica: Piped
    arithmetic: Arithmetic
    micro: int
    """Samples of a whole micro-batch."""

    def __call__(self, batch: Batch) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64, device=batch.scale.device)
        scale = self.arithmetic.scaled(batch.scale)
        for inputs, targets in batch.micros:
            total += self.replica.step(inputs, targets, self.micro, scale)
        self.replica.average()
        return total


def build_passes(replica: Replica, passes: Accumulated, micro: int) -> Passes:
    """With what the strategy does before a step, or instead of single passes. `micro`: samples of a whole micro-batch.

    Raises SpecProblem when the strategy cannot take such micro-batches.
    """
    match replica:
        case Piped():
            replica.use(passes.arithmetic.autocast, micro)
            return ThroughStages(replica, passes.arithmetic, micro)
        case Apart():
            return AfterParting(replica, passes)
        case _:
            return passes
