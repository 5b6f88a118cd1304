"""A model in shards, one per rank. Built by `worker.trainer.distributed.fsdp`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Knob
from stoker.spec.distributed.tensor_parallel import Cuttable


class FSDP(Cuttable):
    """Weights, gradients and optimizer in shards; each layer is whole only while it computes (Zhao et al. 2023)."""

    strategy: Literal["fsdp"] = "fsdp"
    """Which strategy this is."""
    replicate: Annotated[Annotated[int, Field(ge=1, le=4096)], Knob("replicas", ("memory", "speed"), ("DIST-03",))] = 1
    """Copies of the sharded model, a divisor of the number of ranks: each is spread over ranks / replicas (HSDP)."""
    reshard_after_forward: Annotated[bool, Knob(affects=("memory", "speed"), rows=("DIST-03",))] = True
    """Give back each layer's gathered weights after its forward pass and gather them again for the backward pass."""
    offload: Annotated[Literal["none", "parameters"], Knob(affects=("memory", "speed"), rows=("DIST-09",))] = "none"
    """What waits in the host's memory rather than the GPU's: nothing, or weights, gradients and optimizer, which the CPU steps."""
