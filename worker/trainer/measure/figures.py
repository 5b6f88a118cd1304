"""How fast a run is and where its time goes, in numbers that are reported with the training metrics."""

import resource
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple, Protocol

import torch

from worker.trainer.measure.stopwatch import PARTS, STEPS, Part, Stopwatch
from worker.trainer.runtime.world import World

GIB = 2**30


class Figures(Protocol):
    def read(self, steps: int, count: int) -> dict[str, float]:
        """Since the last reading: `steps` steps over `count` samples or tokens of all ranks. Every rank calls it."""


@dataclass
class Since:
    """Seconds by part since it was last asked."""

    watch: Stopwatch
    _before: dict[Part, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def read(self) -> dict[Part, float]:
        now = self.watch.read()
        passed = {part: now[part] - self._before[part] for part in PARTS}
        self._before = now
        return passed


class RankFigures(NamedTuple):
    """What one rank measured since the last report."""

    step_seconds: float
    """Per step, waiting for other ranks included."""
    own_seconds: float
    """Per step, before it waits for others: its data and forward passes. A rank that is slow here holds up all."""
    data_share: float
    """Of the time of steps."""
    memory_gb: float
    """Highest resident memory of the process so far, GiB."""
    device_memory_gb: float
    """Highest memory of tensors on its GPU so far, GiB."""


class Performance:
    """Speed, memory, and what share of the hardware's arithmetic is used."""

    def __init__(
        self, watch: Stopwatch, world: World, *, unit: str, flops: Callable[[], float | None], peak_tflops: float | None
    ) -> None:
        """`unit`: tokens or samples; `flops` of one of them, forward and backward; `peak_tflops` of one device."""
        self._since, self._world, self._unit, self._flops, self._peak = Since(watch), world, unit, flops, peak_tflops
        self.ranks: tuple[RankFigures, ...] = ()
        """Of each rank at the last report, the same on every rank."""

    def read(self, steps: int, count: int) -> dict[str, float]:
        passed = self._since.read()
        seconds = max(sum(passed[part] for part in STEPS), 1e-9)
        self.ranks = self._gathered(self._mine(passed, seconds, max(steps, 1)))
        mean, most, least = self.ranks * 3 if len(self.ranks) == 1 else (self._each(one) for one in (fmean, max, min))
        values = {
            f"train/{self._unit}_per_second": count / seconds,
            "train/step_seconds": mean.step_seconds,
            "train/data_wait_share": mean.data_share,
            "train/memory_gb": most.memory_gb,
        }
        if self._world.device.type == "cuda":
            values["train/device_memory_gb"] = most.device_memory_gb
        if self._world.size > 1:
            values |= {"train/step_seconds_min": least.step_seconds, "train/step_seconds_max": most.step_seconds}
            values |= {"train/own_seconds_min": least.own_seconds, "train/own_seconds_max": most.own_seconds}
        return values | self._arithmetic(count / seconds)

    def _gathered(self, mine: RankFigures) -> tuple[RankFigures, ...]:
        if self._world.size == 1:
            return (mine,)
        everyone = self._world.gather(torch.tensor(mine, dtype=torch.float64, device=self._world.device))
        return tuple(RankFigures(*one) for one in everyone.tolist())

    def _each(self, one: Callable[[Iterable[float]], float]) -> RankFigures:
        """Each figure over all ranks."""
        return RankFigures(*(one(column) for column in zip(*self.ranks, strict=True)))

    def _mine(self, passed: Mapping[Part, float], seconds: float, steps: int) -> RankFigures:
        on_gpu = self._world.device.type == "cuda"
        held = torch.cuda.max_memory_allocated(self._world.device) if on_gpu else 0
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
        own = (passed["data"] + passed["forward"]) / steps
        return RankFigures(seconds / steps, own, passed["data"] / seconds, resident / GIB, held / GIB)

    def _arithmetic(self, per_second: float) -> dict[str, float]:
        """Of all ranks together, where the FLOPs are known; the lead alone counts and reports them."""
        flops = self._flops() if self._world.is_lead else None
        if flops is None:
            return {}
        tflops = flops * per_second / 1e12
        used = {} if self._peak is None else {"train/mfu": tflops / (self._peak * self._world.size)}
        return {"train/tflops_per_second": tflops, **used}


class Timing:
    """Seconds by part, of each report and of the whole run over all its attempts. Kept by the checkpoint."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch, self._since = watch, Since(watch)
        self._earlier: list[dict[str, Any]] = []
        self._reported = 0

    def read(self, steps: int, count: int) -> dict[str, float]:
        passed = self._since.read()
        self._reported += steps
        return {f"train/{part}_seconds": passed[part] for part in PARTS if part != "startup"}

    def attempts(self, step: int) -> list[dict[str, Any]]:
        """What each attempt spent its time on, the earlier ones up to the checkpoint that was resumed from."""
        seconds = self._watch.read()
        return [
            *self._earlier,
            {"from_step": self._watch.first, "to_step": step, "wall_seconds": self._watch.wall, "seconds": seconds},
        ]

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def values(self) -> dict[str, Any]:
        return {"attempts": self.attempts((self._watch.first or 0) + self._reported)}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        if self._watch.first is None:  # else the run goes back to a checkpoint of its own, and no time with it
            self._earlier = list(values.get("attempts", []))
