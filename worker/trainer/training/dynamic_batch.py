"""Dynamic batch specs into passes that find out which micro-batch fits, and into batches that change along the run."""

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from stoker.events import Notice
from stoker.spec.derived.timeline import Timeline
from stoker.spec.training import Training
from stoker.spec.training.dynamic_batch import BatchSchedule, DynamicBatch, FitMemory, OnPlateau
from worker.trainer.data import Batch
from worker.trainer.distributed import Deferred, Replica
from worker.trainer.errors import SpecProblem, no_memory
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.part import Part
from worker.trainer.runtime.world import World
from worker.trainer.training import total_steps
from worker.trainer.training.passes import Passes


@dataclass(frozen=True)
class Before:
    """What passes change beside gradients."""

    noise: torch.Tensor
    gpu_noise: torch.Tensor | None
    buffers: tuple[torch.Tensor, ...]


@dataclass
class Fitting:
    """The passes of a step, made again in smaller pieces, on every rank alike, when one rank had too little memory for them."""

    mode: str
    least: int
    """Smallest micro-batch that is tried."""
    passes: Passes
    late: Deferred | None
    """Where gradients wait for every rank; None for one rank."""
    params: Sequence[torch.nn.Parameter]
    buffers: Sequence[torch.Tensor]
    micro: int
    """Samples per pass at most, of one rank."""
    world: World
    journal: Journal

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Raises OutOfMemoryError or MemoryError, on every rank, when the smallest micro-batch does not fit either."""
        before = self._remember()
        while True:
            loss, trouble = self._try(batch.divided(self.micro))
            failed = self.world.most(torch.tensor(float(loss is None), device=self.world.device)).item() > 0
            if not failed and loss is not None:
                break
            self._put_back(before)
            self._halve(trouble or "another rank had too little memory")
        if self.late is not None:
            self.late.average()
        return loss

    def _try(self, batch: Batch) -> tuple[torch.Tensor | None, str]:
        """The loss, or None and why not. The error itself is dropped here, for its frames hold the tensors of the pass."""
        try:
            return self.passes(batch), ""
        except (RuntimeError, MemoryError) as error:
            if not no_memory(error):
                raise
            return None, f"{type(error).__name__}: {error}"

    def _remember(self) -> Before:
        on_gpu = self.world.device.type == "cuda"
        gpu_noise = torch.cuda.get_rng_state(self.world.device) if on_gpu else None
        return Before(torch.get_rng_state(), gpu_noise, tuple(buffer.clone() for buffer in self.buffers))

    def _put_back(self, before: Before) -> None:
        for param in self.params:
            param.grad = None
        torch.set_rng_state(before.noise)
        for buffer, value in zip(self.buffers, before.buffers, strict=True):
            buffer.copy_(value)
        gc.collect()
        if before.gpu_noise is not None:
            torch.cuda.set_rng_state(before.gpu_noise, self.world.device)
            torch.cuda.empty_cache()

    def _halve(self, why: str) -> None:
        was, self.micro = self.micro, max(self.least, self.micro // 2)
        if self.micro >= was:
            text = f"a micro-batch of {was} does not fit in memory, and training.dynamic_batch.min_micro allows no smaller one: {why}"
            raise torch.OutOfMemoryError(text) if self.world.device.type == "cuda" else MemoryError(text)
        step = self.journal.heartbeat.step
        message = f"step {step + 1} did not fit in memory with micro-batches of {was}: it is made again with {self.micro}"
        data = {"micro_batch_size": self.micro, "before": was, "reason": why[:500]}
        self.journal.write(Notice(level="warning", code="micro_batch_halved", message=message, step=step, data=data))

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def values(self) -> dict[str, Any]:
        return {"mode": self.mode, "micro": self.micro}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        self.micro = min(self.micro, values.get("micro", self.micro))


def fits_memory(spec: DynamicBatch | None) -> bool:
    """Whether a step may be made again, so that ranks must not exchange gradients before all of them got through it."""
    return isinstance(spec, FitMemory)


def build_fitting(
    spec: DynamicBatch | None,
    passes: Passes,
    replica: Replica,
    model: torch.nn.Module,
    micro: int,
    world: World,
    journal: Journal,
) -> tuple[Passes, Part]:
    """The passes of each step, and what the checkpoint keeps of them."""
    if not isinstance(spec, FitMemory):
        return passes, Part()
    params = [param for param in model.parameters() if param.requires_grad]
    late = replica if isinstance(replica, Deferred) else None
    fitting = Fitting(spec.mode, spec.min_micro, passes, late, params, list(model.buffers()), micro, world, journal)
    return fitting, Part({"dynamic_batch": fitting})


class Growth(Protocol):
    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """After an evaluation at which as many steps were made."""


class NoGrowth:
    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        return


@dataclass
class Plateau:
    """Lets the batch grow when evaluations are no better than before, time after time."""

    spec: OnPlateau
    direction: Literal["min", "max"]
    timeline: Timeline
    most: int
    """Batch size that is never exceeded."""
    journal: Journal
    grown: Callable[[], None]
    """Called when batches have changed: the run may be shorter now."""
    ends: Callable[[], float]
    """Steps of the whole run, as far as known."""
    best: float | None = None
    stale: int = 0

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        value = metrics[self.spec.monitor]
        if self._improves(value):
            self.best, self.stale = value, 0
            return
        self.stale += 1
        size = self.timeline.segments[-1].size
        larger = min(self.most, int(size * self.spec.factor))
        if self.stale < self.spec.patience or larger <= size or step >= self.ends():
            return
        self.stale = 0
        self.timeline.change(step, larger)
        self.grown()
        message = (
            f"{self.spec.monitor} did not improve in {self.spec.patience} evaluations: batches of {larger} samples after {size}"
        )
        data = {"batch_size": larger, "before": size, "best": self.best, "monitor": self.spec.monitor}
        self.journal.write(Notice(level="info", code="batch_grown", message=message, step=step, data=data))

    def _improves(self, value: float) -> bool:
        if self.best is None or math.isnan(value):
            return not math.isnan(value)
        return value < self.best - self.spec.min_delta if self.direction == "min" else value > self.best + self.spec.min_delta

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def values(self) -> dict[str, Any]:
        segments = [list(segment) for segment in self.timeline.segments]
        return {"mode": self.spec.mode, "best": self.best, "stale": self.stale, "segments": segments}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        self.best, self.stale = values.get("best"), values.get("stale", 0)
        if "segments" in values:
            self.timeline.restore(values["segments"])
        self.grown()


def keeps_size(spec: DynamicBatch | None) -> bool:
    """Whether every step of the run takes the same number of samples."""
    return spec is None or isinstance(spec, FitMemory)


def lay_out(spec: DynamicBatch | None, timeline: Timeline, tokens_per_sample: int) -> None:
    """Put the changes that are known ahead into a fresh timeline. Raises SpecProblem."""
    if not isinstance(spec, BatchSchedule):
        return
    try:
        timeline.lay_out([(each.after, each.batch_size) for each in spec.milestones], tokens_per_sample)
    except ValueError as error:
        raise SpecProblem(f"training.dynamic_batch.{spec.mode}: {error}") from error


def run_length(spec: Training, timeline: Timeline, tokens_per_sample: int) -> int | None:
    """Steps of the whole run as its batches are now; None when only time ends it."""
    samples = timeline.samples_after(timeline.steps_of_epochs(1))
    if keeps_size(spec.dynamic_batch):
        per_epoch = timeline.per_epoch(spec.batch_size)
        return total_steps(spec, per_epoch=per_epoch, samples=samples, tokens_per_sample=tokens_per_sample)
    if spec.max_steps is not None:
        return spec.max_steps
    if spec.epochs is not None:
        return timeline.steps_of_epochs(spec.epochs)
    if spec.max_tokens is not None and tokens_per_sample:
        return timeline.steps_of_samples(-(-spec.max_tokens // tokens_per_sample))
    return total_steps(spec, per_epoch=1, samples=samples, tokens_per_sample=tokens_per_sample)


def build_growth(
    spec: DynamicBatch | None,
    timeline: Timeline,
    modes: Mapping[str, Literal["min", "max"]],
    journal: Journal,
    *,
    largest: int,
    grown: Callable[[], None],
    ends: Callable[[], float],
) -> tuple[Growth, Part]:
    """`modes`: which way each evaluated metric is better; `largest`: batch that the samples fill. Raises SpecProblem."""
    if not isinstance(spec, OnPlateau):
        return NoGrowth(), Part()
    if spec.monitor not in modes:
        raise SpecProblem(
            f"training.dynamic_batch.monitor: {spec.monitor} is not evaluated; there are {', '.join(sorted(modes))}"
        )
    direction = spec.direction or modes[spec.monitor]
    plateau = Plateau(spec, direction, timeline, min(spec.max, largest), journal, grown, ends)
    return plateau, Part({"dynamic_batch": plateau})
