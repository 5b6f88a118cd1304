"""Sequences cut across ranks. Built by `worker.trainer.distributed.context_parallel`."""

from typing import Annotated

from pydantic import Field

from stoker.spec.base import Knob, Spec


class ContextParallel(Spec):
    """Neighbouring ranks hold parts of the same sequences; attention gathers keys and values (Llama team 2024)."""

    degree: Annotated[Annotated[int, Field(ge=2, le=64)], Knob("ranks", ("memory", "speed"), ("DIST-06",))] = 2
    """Ranks that share each sequence, a divisor of the number of ranks; each holds two pieces of it, one early and one late."""
