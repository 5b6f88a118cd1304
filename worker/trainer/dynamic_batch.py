"""Dynamic batch specs into passes that find out which micro-batch fits."""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stoker.events import Notice
from stoker.spec.dynamic_batch import DynamicBatch, FitMemory
from worker.trainer.data import Batch
from worker.trainer.distributed import Deferred, Replica
from worker.trainer.errors import no_memory
from worker.trainer.journal import Journal
from worker.trainer.passes import Passes
from worker.trainer.world import World


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
        step = self.journal.heart.step
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
) -> tuple[Passes, dict[str, Fitting]]:
    """The passes of each step, and what the checkpoint keeps of them."""
    if not isinstance(spec, FitMemory):
        return passes, {}
    params = [param for param in model.parameters() if param.requires_grad]
    late = replica if isinstance(replica, Deferred) else None
    fitting = Fitting(spec.mode, spec.min_micro, passes, late, params, list(model.buffers()), micro, world, journal)
    return fitting, {"dynamic_batch": fitting}
