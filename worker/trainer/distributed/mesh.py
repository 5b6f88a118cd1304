"""Ranks as a grid: replicas x shards x ranks that compute one layer together. The last dimension is on neighbouring ranks."""

import functools
import math

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.world import World


@functools.cache
def _mesh(device: str, shape: tuple[int, ...], names: tuple[str, ...]) -> DeviceMesh:
    """Made once per process: each one opens connections."""
    return init_device_mesh(device, shape, mesh_dim_names=names)


def grid(world: World, *, replicas: int = 1, tensor: int = 1) -> DeviceMesh:
    """Dimensions `replica`, `shard` and `tensor` over all ranks; the shards are as many as the others leave.

    With another number of ranks than the spec asked for, there are as many replicas as divide what there is. Raises
    SpecProblem when the ranks do not make whole models.
    """
    if world.size % tensor:
        raise SpecProblem(f"distributed.tensor_parallel.degree: {world.size} ranks do not divide into groups of {tensor}")
    parts = world.size // tensor
    replicas = math.gcd(replicas, parts)
    return _mesh(world.device.type, (replicas, parts // replicas, tensor), ("replica", "shard", "tensor"))
