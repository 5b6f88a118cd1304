"""Everything in one process. Built by `worker.trainer.distributed.single`."""

from typing import Literal

from stoker.spec.base import Spec


class Single(Spec):
    """One process."""

    strategy: Literal["single"] = "single"
    """Which strategy this is."""

    @property
    def nodes(self) -> int:
        return 1

    @property
    def fewest_nodes(self) -> int:
        return 1

    @property
    def processes_per_node(self) -> int:
        return 1

    @property
    def world_size(self) -> int:
        return 1

    @property
    def data_parts(self) -> int:
        return 1
