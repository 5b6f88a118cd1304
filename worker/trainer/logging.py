"""Logging spec into what is measured between two reports."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch

from stoker.spec.logging import Logging
from worker.trainer.rhythm import Rhythm, rhythm
from worker.trainer.world import World


class Meter:
    """The mean training loss since the last report, summed on the device so that no step waits for a number."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.total = torch.zeros((), dtype=torch.float64, device=world.device)
        """Summed losses of this rank."""
        self.weight = 0.0
        """What they are divided by, of all ranks."""

    def add(self, loss: torch.Tensor, weight: float) -> None:
        """One step: the summed loss of this rank's part, and what the losses of all parts are divided by."""
        self.total += loss
        self.weight += weight

    def mean(self) -> float:
        """Over all ranks; waits for the device. NaN when there was no step."""
        return self._world.sum(self.total.clone()).item() / self.weight if self.weight else float("nan")

    def reset(self) -> None:
        self.total.zero_()
        self.weight = 0.0


class Watch(Protocol):
    """Measures how fast steps are made."""

    def paused(self) -> AbstractContextManager[None]:
        """Around what is no step."""

    def read(self, steps: int, count: int) -> dict[str, float]:
        """Since the last reading: `steps` steps over `count` samples or tokens."""


@dataclass
class Speed:
    """Seconds in steps alone: evaluation and checkpoints stop the watch."""

    unit: str
    _since: float = field(default_factory=time.perf_counter)

    @contextmanager
    def paused(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def read(self, steps: int, count: int) -> dict[str, float]:
        now = time.perf_counter()
        spent, self._since = max(now - self._since, 1e-9), now
        return {f"train/{self.unit}_per_second": count / spent, "train/step_seconds": spent / steps}


class NoSpeed:
    def paused(self) -> AbstractContextManager[None]:
        return nullcontext()

    def read(self, steps: int, count: int) -> dict[str, float]:
        return {}


@dataclass
class Log:
    """When training metrics are written, and which."""

    rhythm: Rhythm
    meter: Meter
    gauges: Mapping[str, Callable[[], torch.Tensor]]
    """Further values by key, read when they are written."""
    watch: Watch

    def read(self, *, lr: float, steps: int, count: int) -> dict[str, float]:
        """Everything since the last report, which was `steps` steps and `count` samples or tokens ago; waits for the device."""
        values = {"train/loss": self.meter.mean(), "train/lr": lr}
        self.meter.reset()
        for key, read in self.gauges.items():
            values[key] = read().item()
        return values | self.watch.read(steps, count)


def build_log(
    spec: Logging, world: World, *, norm: Callable[[], torch.Tensor], per_epoch: int, batch_size: int, tokens_per_sample: int
) -> Log:
    return Log(
        rhythm(spec.interval, per_epoch, batch_size * tokens_per_sample),
        Meter(world),
        {"train/gradient_norm": norm} if spec.gradient_norm else {},
        Speed("tokens" if tokens_per_sample else "samples") if spec.performance else NoSpeed(),
    )
