"""What the scheduler must find for a job."""

from typing import Any

from stoker.plan.prediction import Plan
from stoker.spec import JobSpec
from stoker.spec.distributed import Horovod


def needs(spec: JobSpec, plan: Plan) -> dict[str, Any]:
    """{"device": auto|cpu|cuda|tpu, "ranks": n, "cpus": n, "memory_bytes": n, "nodes": n}, of all nodes together;
    "min_nodes" where fewer will do, "placement" where it is not to pack, "backends" where not every worker's image can run it.

    A reservation in the spec, which is that of each node, overrides the estimate. Every node gets an equal share.
    """
    ranks = spec.distributed.world_size
    reserved, nodes, fewest = spec.resources.memory_gb, spec.distributed.nodes, spec.distributed.fewest_nodes
    wishes: dict[str, Any] = {"min_nodes": fewest} if fewest < nodes else {}
    if spec.resources.placement != "pack":
        wishes["placement"] = spec.resources.placement
    device = spec.resources.device
    if isinstance(spec.distributed, Horovod):
        wishes["backends"] = ["horovod"]
        device = "cpu"  # Horovod is built for CPUs: auto takes no GPU that would stand idle
    each = max(-(-plan.memory.total_bytes // nodes), -(-plan.fewest_total_bytes // fewest) if plan.fewest_total_bytes else 0)
    return {
        "device": device,
        "ranks": ranks,
        "cpus": spec.resources.cpus or ranks,
        "memory_bytes": nodes * (each if reserved is None else int(reserved * 2**30)),
        "nodes": nodes,
        **wishes,
    }
