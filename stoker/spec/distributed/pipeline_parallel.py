"""A model cut into stages. Built by `worker.trainer.distributed.pipeline_parallel`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Count, Knob, Spec


class PipelineParallel(Spec):
    """Neighbouring ranks hold consecutive layers, and samples flow through them in pieces (Huang et al. 2019)."""

    degree: Annotated[Annotated[int, Field(ge=2, le=64)], Knob("ranks", ("memory", "speed"), ("DIST-06",))] = 2
    """Ranks that hold one model together, a divisor of the number of ranks."""
    schedule: Annotated[Literal["gpipe", "1f1b", "interleaved_1f1b"], Knob(affects=("memory", "speed"), rows=("DIST-06",))] = (
        "1f1b"
    )
    """In which order pieces go forwards and backwards; interleaved, each rank holds two stages and idles less."""
    microbatches: Annotated[Count, Knob("pieces", ("memory", "speed"), ("DIST-06",))] = 4
    """Pieces that each micro-batch is cut into, a divisor of its size; at least as many as there are stages."""

    @property
    def stages(self) -> int:
        """Consecutive parts of the model, over all ranks of a pipeline."""
        return 2 * self.degree if self.schedule == "interleaved_1f1b" else self.degree
