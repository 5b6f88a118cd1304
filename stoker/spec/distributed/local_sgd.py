"""Ranks that learn apart and meet now and then. Built by `worker.trainer.distributed.local_sgd`."""

from typing import Annotated, Literal

from stoker.spec.base import Count, Knob
from stoker.spec.distributed._ranks import Ranks


class LocalSGD(Ranks):
    """Each rank steps alone on its part of every batch, and weights are averaged now and then (Stich 2019)."""

    strategy: Literal["local_sgd"] = "local_sgd"
    """Which strategy this is."""
    sync_every: Annotated[Count, Knob("optimizer steps", ("speed", "quality"))] = 8
    """Steps that ranks take alone between two averages of their weights."""
    average_optimizer_state: Annotated[bool, Knob(affects=("speed", "quality"))] = False
    """Average the optimizer's moments with the weights; otherwise each rank keeps its own."""
