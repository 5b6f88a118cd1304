"""Which activations are thrown away and computed again in the backward pass. Built by `worker.trainer.activation_checkpointing`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Count, Knob, Spec


class KeepAll(Spec):
    """Every activation is kept."""

    type: Literal["none"] = "none"
    """Which checkpointing of activations this is."""

    def recomputed(self, blocks: int) -> tuple[int, ...]:
        """Blocks that are computed again, of so many."""
        return ()


class Full(Spec):
    """Of each block only its input is kept (Chen et al. 2016): least memory, about a third more work."""

    type: Literal["full"] = "full"
    """Which checkpointing of activations this is."""

    def recomputed(self, blocks: int) -> tuple[int, ...]:
        """Blocks that are computed again, of so many."""
        return tuple(range(blocks))


class Selective(Spec):
    """Some blocks keep their activations, the others only their inputs."""

    type: Literal["selective"] = "selective"
    """Which checkpointing of activations this is."""
    every: Annotated[Count, Knob("blocks", ("memory", "speed"))] = 2
    """The first of so many blocks, and every one so many further, is computed again."""

    def recomputed(self, blocks: int) -> tuple[int, ...]:
        """Blocks that are computed again, of so many."""
        return tuple(range(0, blocks, self.every))


ActivationCheckpointing = Annotated[KeepAll | Full | Selective, Field(discriminator="type")]
"""Gradients are the same to the bit, dropout included, whatever is chosen."""
