"""A whole model on each rank, kept alike by Horovod. Built by `worker.trainer.distributed.horovod`."""

from typing import Literal

from stoker.spec.distributed._ranks import Ranks


class Horovod(Ranks):
    """As ddp, on CPUs, with gradients averaged by Horovod over gloo (Sergeev and Del Balso 2018); for workers that have it."""

    strategy: Literal["horovod"] = "horovod"
    """Which strategy this is."""
