"""How the work is spread over processes. Built by `worker.trainer.distributed`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec._base import Knob, Spec


class Single(Spec):
    """One process."""

    strategy: Literal["single"] = "single"
    """Which strategy this is."""

    @property
    def world_size(self) -> int:
        return 1


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


Distributed = Annotated[Single | DDP, Field(discriminator="strategy")]
