"""How a stream of tokens becomes samples. Built by `worker.trainer.data.sequence`."""

from typing import Annotated

from pydantic import Field

from stoker.spec.base import Knob, Spec


class Sequence(Spec):
    """Of one text, windows of consecutive tokens that do not overlap; of texts in a table, the first tokens of each, padded."""

    length: Annotated[Annotated[int, Field(ge=2, le=1_000_000)], Knob("tokens", ("memory", "speed", "quality"), ("ARCH-16",))] = (
        128
    )
    """Tokens per sample, and the longest context of the model; of a text in a table what is longer is cut off."""
