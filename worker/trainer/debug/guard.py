"""Decides before each step whether its gradients may move the weights, the same on every rank, and remembers what is usual."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol, assert_never

import torch

from stoker.events import Notice
from stoker.spec.debug import Fail, Notify, Rollback, SkipStep, Spike
from worker.trainer.errors import Diverged
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.part import Part
from worker.trainer.runtime.world import World

Remedy = Fail | Notify | SkipStep | Rollback


class Guard(Protocol):
    """Asked once per step, when all gradients are there and bounded."""

    def part(self) -> Part:
        """What the log reports and the checkpoint keeps of it."""

    def admits(self, step: int, loss: torch.Tensor, weight: float) -> bool:
        """Whether the step with this number, from 0, is made. `loss` and `weight`: summed over this rank's part of the batch,
        and what the sum over all parts is divided by. Raises Diverged when the run must not go on like this.
        """


class OpenGuard:
    """Everything passes; a loss that is no number ends the run when it is reported."""

    def part(self) -> Part:
        return Part()

    def admits(self, step: int, loss: torch.Tensor, weight: float) -> bool:
        return True


@dataclass
class Backoff:
    """What rollbacks leave behind: how many there were, and a factor on the learning rate of all that follows."""

    count: int = 0
    factor: float = 1.0

    def applied(self, rate: Callable[[int], float]) -> Callable[[int], float]:
        """A learning rate by step, as it is after the rollbacks so far."""
        return lambda step: rate(step) * self.factor

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def values(self) -> dict[str, Any]:
        return {"count": self.count, "factor": self.factor}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        self.count, self.factor = values.get("count", 0), values.get("factor", 1.0)


@dataclass
class Trouble:
    """What is wrong with a step, and what the spec wants to be done."""

    code: str
    what: str
    remedy: Remedy


@dataclass
class Sentinel:
    """Waits for two numbers of each step, its loss and the norm of its gradients, and judges them."""

    world: World
    journal: Journal
    norm: Callable[[], torch.Tensor]
    """Of all gradients, before they were bounded."""
    nan: Fail | SkipStep | Rollback
    spike: Spike | None
    overflowed: Callable[[], bool]
    """Whether a scale of the loss was too large for this step; the scaler lowers it and leaves the step out by itself."""
    usual: list[float] = field(default_factory=list)
    """What the spike policy watches, of the newest accepted steps."""
    skipped: int = 0
    in_a_row: int = 0

    def part(self) -> Part:
        policies = (self.nan, None if self.spike is None else self.spike.policy)
        skips = any(isinstance(policy, SkipStep) for policy in policies)
        gauges = {"train/skipped_steps": lambda: torch.tensor(float(self.skipped))} if skips else {}
        return Part({"guard": self}, gauges)

    def admits(self, step: int, loss: torch.Tensor, weight: float) -> bool:
        mean, norm = self._read(loss, weight)
        value = mean if self.spike is not None and self.spike.watch == "loss" else norm
        trouble = self._trouble(mean, norm, value)
        if trouble is not None and not self._forgiven(trouble, step):
            return False
        self.in_a_row = 0
        if self.spike is not None and math.isfinite(value):
            self.usual = [*self.usual, value][-self.spike.window :]
        return True

    def _read(self, loss: torch.Tensor, weight: float) -> tuple[float, float]:
        """Mean loss and norm of gradients, as all ranks see them: infinite as soon as one rank has no number."""
        mean = self.world.sum(loss.detach().double().clone()) / weight if weight else loss.detach().double() * 0.0
        numbers = torch.stack([mean, self.norm().detach().double().to(mean.device)])
        mean_loss, norm = self.world.most(torch.where(numbers.isfinite(), numbers, torch.inf)).tolist()
        return mean_loss, norm

    def _trouble(self, mean: float, norm: float, value: float) -> Trouble | None:
        if not math.isfinite(mean) or not (math.isfinite(norm) or self.overflowed()):
            which = "loss is" if not math.isfinite(mean) else "gradients are"
            return Trouble("not_finite", f"the {which} not finite", self.nan)
        spike = self.spike
        if spike is None or len(self.usual) < spike.window or not math.isfinite(value):
            return None
        middle = median(self.usual)
        if value <= spike.threshold * middle:
            return None
        name = spike.watch.replace("_", " ")
        return Trouble("spike", f"the {name} is {value:.4g}, {spike.window} steps had a median of {middle:.4g}", spike.policy)

    def _forgiven(self, trouble: Trouble, step: int) -> bool:
        """Whether the step is made all the same. Raises Diverged when it is not enough to leave it out."""
        said = f"{trouble.what} at step {step + 1}"
        match trouble.remedy:
            case Notify():
                self.journal.write(Notice(level="warning", code=trouble.code, message=said, step=step + 1))
                return True
            case SkipStep(max_skips=most):
                return self._skip(trouble.code, said, step, most)
            case Rollback():
                raise Diverged(said, trouble.remedy)
            case Fail():
                raise Diverged(f"{said}; lower optimizer.lr, add training.gradient_clipping or a warm-up")
            case _:
                assert_never(trouble.remedy)

    def _skip(self, code: str, said: str, step: int, most: int) -> bool:
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.in_a_row > most:
            raise Diverged(f"{said}, and {most} steps before it were skipped already; lower optimizer.lr or look at the data")
        message = f"{said}: the step is skipped"
        data = {"cause": code, "in_a_row": self.in_a_row, "skipped": self.skipped}
        self.journal.write(Notice(level="warning", code="step_skipped", message=message, step=step + 1, data=data))
        return False

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def values(self) -> dict[str, Any]:
        return {"usual": self.usual, "skipped": self.skipped, "in_a_row": self.in_a_row}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        self.usual, self.skipped = list(values.get("usual", [])), values.get("skipped", 0)
        self.in_a_row = values.get("in_a_row", 0)
