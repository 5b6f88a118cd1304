"""What the scheduler must find for a job."""

from typing import Any

from stoker.plan.prediction import Plan
from stoker.spec import JobSpec


def needs(spec: JobSpec, plan: Plan) -> dict[str, Any]:
    """{"device": auto|cpu|cuda, "ranks": n, "cpus": n, "memory_bytes": n}; a reservation in the spec overrides the estimate."""
    ranks = spec.distributed.world_size
    reserved = spec.resources.memory_gb
    return {
        "device": spec.resources.device,
        "ranks": ranks,
        "cpus": spec.resources.cpus or ranks,
        "memory_bytes": plan.memory.total_bytes if reserved is None else int(reserved * 2**30),
    }
