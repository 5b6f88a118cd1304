"""Finds the operation whose backward pass first gives NaN."""

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch

from worker.trainer.errors import Diverged

B = TypeVar("B")
In = TypeVar("In", contravariant=True)


class Passes(Protocol[In]):
    """The passes of one step, over whatever a batch is."""

    def __call__(self, batch: In) -> torch.Tensor: ...


@dataclass(frozen=True)
class Suspicious(Generic[B]):
    """Passes in which every gradient is looked at. Raises Diverged naming the operation; its place in the code is in the log."""

    passes: Passes[B]

    def __call__(self, batch: B) -> torch.Tensor:
        try:
            with torch.autograd.set_detect_anomaly(True):
                return self.passes(batch)
        except RuntimeError as error:
            if "returned nan values" not in str(error):
                raise
            raise Diverged(f"{error} The log shows where in the forward pass it comes from (debug.detect_anomaly)") from error


def watched(passes: Passes[B], wanted: bool) -> Passes[B]:
    """The same passes where nobody suspects them."""
    return Suspicious(passes) if wanted else passes
