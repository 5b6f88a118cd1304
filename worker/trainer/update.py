"""What happens once the gradients of a step are there: they are bounded, judged, and move the weights."""

from dataclasses import dataclass
from typing import Protocol

import torch

from worker.trainer.precision import Scaler
from worker.trainer.training import Clip


class Guard(Protocol):
    """Decides whether gradients may move the weights, the same on every rank."""

    def admits(self) -> bool: ...


class OpenGuard:
    """Everything passes; a loss that is no number ends the run when it is reported."""

    def admits(self) -> bool:
        return True


@dataclass
class Update:
    """Called once per step, when all gradients are there."""

    optimizer: torch.optim.Optimizer
    scaler: Scaler
    clip: Clip
    guard: Guard

    def __call__(self) -> None:
        self.scaler.unscale()
        self.clip()
        if self.guard.admits():
            self.scaler.step(self.optimizer)
        self.scaler.update()
