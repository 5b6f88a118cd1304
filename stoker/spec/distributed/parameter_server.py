"""Weights that live on servers. Built by `worker.trainer.distributed.parameter_server`."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Count, Knob, Spec
from stoker.spec.distributed._ranks import Ranks


class Sync(Spec):
    """Servers wait for the gradients of all workers and step once: what one process computes."""

    mode: Literal["sync"] = "sync"
    """Which consistency this is."""


class Async(Spec):
    """Servers step with each gradient as it comes; it may have been computed from older weights (Dean et al. 2012)."""

    mode: Literal["async"] = "async"
    """Which consistency this is."""


class BoundedStaleness(Spec):
    """As async, but no worker runs further ahead of the slowest than a bound (Ho et al. 2013)."""

    mode: Literal["bounded_staleness"] = "bounded_staleness"
    """Which consistency this is."""
    bound: Annotated[Count, Knob("steps", ("speed", "quality"), ("DIST-07",))] = 2
    """Steps that a worker may be ahead of the slowest one."""


Consistency = Annotated[Sync | Async | BoundedStaleness, Field(discriminator="mode")]


class ParameterServer(Ranks):
    """The last ranks hold shares of the weights and the optimizer; the others push gradients and pull weights (Li et al. 2014)."""

    strategy: Literal["parameter_server"] = "parameter_server"
    """Which strategy this is."""
    servers: Annotated[Annotated[int, Field(ge=1, le=64)], Knob("ranks", ("memory", "speed"), ("DIST-07",))] = 1
    """Ranks that serve, out of all; the rest are workers that share each batch."""
    consistency: Annotated[Consistency, Knob(affects=("speed", "quality"), rows=("DIST-07",))] = Sync()
    """Whether servers wait for all workers before they step."""

    @property
    def workers(self) -> int:
        """Ranks that compute; never less than one, so that rules can say what is wrong."""
        return max(1, self.world_size - self.servers)

    @property
    def data_parts(self) -> int:
        return self.workers
