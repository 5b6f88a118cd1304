"""What happens once the gradients of a step are there: they are bounded, judged, and move the weights."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from worker.trainer.debug.guard import Guard
from worker.trainer.precision import Scaler
from worker.trainer.regularization import Regularizer
from worker.trainer.training import Clip


def always(step: int) -> bool:
    return True


@dataclass
class Update:
    """Called once per step, when all gradients are there."""

    optimizer: torch.optim.Optimizer
    scaler: Scaler
    clip: Clip
    guard: Guard
    regularizer: Regularizer = field(default_factory=Regularizer)
    due: Callable[[int], bool] = always
    """Whether the step with this number, from 0, moves these weights at all."""

    def __call__(self, step: int, loss: torch.Tensor, weight: float) -> bool:
        """Whether the step with this number counts: an untrusted one changes nothing. `loss` and `weight`: summed over this
        rank's part of the batch, and what the sum over all parts is divided by. Raises Diverged.
        """
        if not self.due(step):
            return False
        self.scaler.unscale(self.optimizer)
        self.regularizer.pull()
        self.clip()
        if counts := self.guard.admits(step, loss, weight):
            self.scaler.step(self.optimizer)
            if not self.scaler.overflowed:
                self.regularizer.shrink(self.optimizer)
        self.scaler.update()
        return counts
