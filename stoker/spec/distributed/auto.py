"""Whatever fits. Built by `worker.trainer.distributed.auto`, chosen by `stoker.plan.choice`."""

from typing import Literal

from stoker.spec.distributed._ranks import Ranks


class Auto(Ranks):
    """The fastest strategy that fits into `resources.memory_gb` and the GPU by the plan: ddp, or single for one rank, else fsdp."""

    strategy: Literal["auto"] = "auto"
    """Which strategy this is."""
