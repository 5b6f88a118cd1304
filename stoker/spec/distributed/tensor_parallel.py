"""Layers cut across ranks. Built by `worker.trainer.distributed.tensor_parallel`."""

from typing import Annotated

from pydantic import Field

from stoker.spec.base import Knob, Spec
from stoker.spec.distributed._ranks import Ranks
from stoker.spec.distributed.context_parallel import ContextParallel


class TensorParallel(Spec):
    """Each layer's matrices are cut over neighbouring ranks, which see the same samples (Shoeybi et al. 2019)."""

    degree: Annotated[Annotated[int, Field(ge=2, le=64)], Knob("ranks", ("memory", "speed"), ("DIST-06",))] = 2
    """Ranks that compute each layer together, a divisor of the number of ranks."""
    sequence_parallel: Annotated[bool, Knob(affects=("memory", "speed"), rows=("DIST-06",))] = False
    """Between the cut layers each of them holds a part of every sequence instead of all of it (Korthikanti et al. 2022)."""


class Cuttable(Ranks):
    """Ranks that may also share layers."""

    tensor_parallel: Annotated[TensorParallel | None, Knob(affects=("memory", "speed"), rows=("DIST-06",))] = None
    """Cut each layer over several ranks; null to keep layers whole."""
    context_parallel: Annotated[ContextParallel | None, Knob(affects=("memory", "speed"), rows=("DIST-06",))] = None
    """Cut each sequence over several ranks; null to keep sequences whole."""

    @property
    def tensor_degree(self) -> int:
        return 1 if self.tensor_parallel is None else self.tensor_parallel.degree

    @property
    def context_degree(self) -> int:
        return 1 if self.context_parallel is None else self.context_parallel.degree

    @property
    def data_parts(self) -> int:
        """Ranks that share a layer or a sequence take the same part; never less than one, so that rules can say what is wrong."""
        return max(1, self.world_size // (self.tensor_degree * self.context_degree))
