"""What the scheduler must find for a job."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from stoker.document.strict_json import JsonValue
from stoker.plan.prediction import Plan
from stoker.spec import JobSpec
from stoker.spec.distributed import Horovod


class Needs(BaseModel):
    """Ranks, cpus and memory are those of all nodes together; every node gets an equal share."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    device: Literal["auto", "cpu", "cuda", "tpu"]
    ranks: int
    cpus: int
    memory_bytes: int
    nodes: int = 1
    min_nodes: int | None = None
    """The fewest nodes that will do; None: all of them."""
    placement: Literal["pack", "spread"] = "pack"
    backends: tuple[str, ...] = ()
    """What the worker's image must provide, where not every worker's does."""
    time_limit_seconds: float | None = None

    def document(self) -> dict[str, JsonValue]:
        """As JSON, as it is stored and shown: without what is not asked for."""
        shown = self.model_dump(mode="json")
        return {name: value for name, value in shown.items() if name not in _LEFT_OUT or value != _LEFT_OUT[name]}


_LEFT_OUT: dict[str, JsonValue] = {"min_nodes": None, "placement": "pack", "backends": []}


def needs(spec: JobSpec, plan: Plan) -> Needs:
    """A reservation in the spec, which is that of each node, overrides the estimate."""
    nodes, fewest = spec.distributed.nodes, spec.distributed.fewest_nodes
    reserved = spec.resources.memory_gb
    estimated = max(-(-plan.memory.total_bytes // nodes), -(-plan.fewest_total_bytes // fewest) if plan.fewest_total_bytes else 0)
    horovod = isinstance(spec.distributed, Horovod)
    return Needs(
        device="cpu" if horovod else spec.resources.device,  # Horovod is built for CPUs: auto takes no GPU that would stand idle
        ranks=spec.distributed.world_size,
        cpus=spec.resources.cpus or spec.distributed.world_size,
        memory_bytes=nodes * (estimated if reserved is None else int(reserved * 2**30)),
        nodes=nodes,
        min_nodes=fewest if fewest < nodes else None,
        placement=spec.resources.placement,
        backends=("horovod",) if horovod else (),
        time_limit_seconds=spec.resources.time_limit_seconds,
    )
