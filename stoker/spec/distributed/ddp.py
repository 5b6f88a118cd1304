"""A whole model on each rank. Built by `worker.trainer.distributed.ddp`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec._base import Knob
from stoker.spec.distributed.hook import Hook
from stoker.spec.distributed.tensor_parallel import Cuttable


class DDP(Cuttable):
    """A replica per process; gradients are averaged (Li et al. 2020)."""

    strategy: Literal["ddp"] = "ddp"
    """Which strategy this is."""
    bucket_cap_mb: Annotated[Annotated[int, Field(ge=1, le=1024)], Knob("MiB", ("memory", "speed"), ("DIST-04",))] = 25
    """Gradients are exchanged in buckets of this size."""
    communication_hook: Annotated[Hook | None, Knob(affects=("speed", "quality"), rows=("DIST-04",))] = None
    """Send gradients in fewer bytes; null to send them exactly."""
