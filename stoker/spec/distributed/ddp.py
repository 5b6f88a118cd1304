"""A whole model on each rank. Built by `worker.trainer.distributed.ddp`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Knob
from stoker.spec.distributed.hook import Hook
from stoker.spec.distributed.pipeline_parallel import PipelineParallel
from stoker.spec.distributed.tensor_parallel import Cuttable


class DDP(Cuttable):
    """A replica per process; gradients are averaged (Li et al. 2020)."""

    strategy: Literal["ddp"] = "ddp"
    """Which strategy this is."""
    bucket_cap_mb: Annotated[Annotated[int, Field(ge=1, le=1024)], Knob("MiB", ("memory", "speed"), ("DIST-04",))] = 25
    """Gradients are exchanged in buckets of this size."""
    communication_hook: Annotated[Hook | None, Knob(affects=("speed", "quality"), rows=("DIST-04",))] = None
    """Send gradients in fewer bytes; null to send them exactly."""
    pipeline_parallel: Annotated[PipelineParallel | None, Knob(affects=("memory", "speed"), rows=("DIST-06",))] = None
    """Cut the model into stages over several ranks; null to keep it whole."""

    @property
    def pipeline_degree(self) -> int:
        return 1 if self.pipeline_parallel is None else self.pipeline_parallel.degree

    @property
    def data_parts(self) -> int:
        return max(1, super().data_parts // self.pipeline_degree)
