"""What the scheduler must find for a job."""

from typing import Any

from stoker.plan.prediction import Plan
from stoker.spec import JobSpec


def needs(spec: JobSpec, plan: Plan) -> dict[str, Any]:
    """{"device": auto|cpu|cuda, "ranks": n, "cpus": n, "memory_bytes": n, "nodes": n}, of all nodes together.

    A reservation in the spec, which is that of each node, overrides the estimate. Every node gets an equal share.
    """
    ranks = spec.distributed.world_size
    reserved, nodes = spec.resources.memory_gb, spec.distributed.nodes
    return {
        "device": spec.resources.device,
        "ranks": ranks,
        "cpus": spec.resources.cpus or ranks,
        "memory_bytes": plan.memory.total_bytes if reserved is None else nodes * int(reserved * 2**30),
        "nodes": nodes,
    }
