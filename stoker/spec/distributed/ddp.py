"""A whole model on each rank. Built by `worker.trainer.distributed.ddp`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec._base import Knob, Spec


class DDP(Spec):
    """A replica per process; gradients are averaged (Li et al. 2020)."""

    strategy: Literal["ddp"] = "ddp"
    """Which strategy this is."""
    processes_per_node: Annotated[
        Annotated[int, Field(ge=1, le=64)], Knob("ranks", ("memory", "speed"), ("DIST-01", "DIST-04"))
    ] = 2
    """Ranks, one device each."""
    bucket_cap_mb: Annotated[Annotated[int, Field(ge=1, le=1024)], Knob("MiB", ("memory", "speed"), ("DIST-04",))] = 25
    """Gradients are exchanged in buckets of this size."""

    @property
    def world_size(self) -> int:
        return self.processes_per_node
