"""Gradients sent in fewer bytes. Built by `worker.trainer.distributed.hook`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Knob, Spec


class Halved(Spec):
    """Gradients are rounded to 16 bits, divided by the number of ranks, added up and widened again."""

    type: Literal["fp16", "bf16"]
    """Number format they are sent in."""


class PowerSGD(Spec):
    """Each matrix of gradients is sent as a product of two narrow ones; what is lost is added the next time (Vogels et al. 2019)."""

    type: Literal["powersgd"] = "powersgd"
    """Which compression this is."""
    rank: Annotated[Annotated[int, Field(ge=1, le=1024)], Knob("columns", ("speed", "quality"), ("DIST-04",))] = 1
    """Width of the narrow matrices; small and one-dimensional gradients are sent as they are."""
    start_step: Annotated[
        Annotated[int, Field(ge=2, le=2**31 - 1)], Knob("optimizer steps", ("speed", "quality"), ("DIST-04",))
    ] = 1000
    """Steps in which everything is sent as it is, before compression begins."""


Hook = Annotated[Halved | PowerSGD, Field(discriminator="type")]
