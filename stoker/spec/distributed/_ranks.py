"""What every strategy that runs on several ranks has in common. Honoured by the scheduler, which finds the nodes, and the agent."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field

from stoker.spec.base import Knob, Spec

PerNode = Annotated[
    Annotated[int, Field(ge=1, le=64)], Knob("ranks", ("memory", "speed"), ("DIST-01", "DIST-02", "DIST-04", "DIST-08"))
]
"""How many ranks a node runs, for strategies whose default is another number."""


class Ranks(Spec):
    """Ranks on one or several nodes: `nodes` workers run `processes_per_node` ranks each."""

    nodes: Annotated[Annotated[int, Field(ge=1, le=64)], Knob("workers", ("speed",), ("DIST-02",))] = 1
    """Workers that run the job together, reserved all at once or not at all."""
    min_nodes: Annotated[Annotated[int, Field(ge=1, le=64)] | None, Knob("workers", ("speed",), ("DIST-09",))] = None
    """Nodes that are enough where not all can be had, as after a loss: the batch stays the same; unset, all nodes are needed."""
    processes_per_node: PerNode = 2
    """Ranks on each node, one device each."""

    @property
    def world_size(self) -> int:
        return self.nodes * self.processes_per_node

    @property
    def fewest_nodes(self) -> int:
        """Nodes without which the job waits."""
        return self.nodes if self.min_nodes is None else self.min_nodes

    def on_fewer_nodes(self) -> Iterator[Self]:
        """The same on each smaller number of nodes that is allowed, the largest first."""
        return (self.model_copy(update={"nodes": nodes}) for nodes in range(self.nodes - 1, self.fewest_nodes - 1, -1))

    @property
    def data_parts(self) -> int:
        """In how many parts each batch is taken: all ranks, but where several hold one model together."""
        return self.world_size
