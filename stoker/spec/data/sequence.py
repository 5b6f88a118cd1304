"""How a stream of tokens becomes samples. Built by `worker.trainer.data.sequence`."""

from typing import Annotated

from pydantic import Field

from stoker.spec._base import Knob, Spec


class Sequence(Spec):
    """Windows of consecutive tokens that do not overlap; each predicts the token after every one of its own."""

    length: Annotated[Annotated[int, Field(ge=2, le=1_000_000)], Knob("tokens", ("memory", "speed", "quality"), ("ARCH-16",))] = (
        128
    )
    """Tokens per sample, and the longest context of the model."""
