"""Which waiting job goes to which worker: a pure function of what waits and what is free.

Jobs are taken by priority, then age. A job is placed on one worker whole or not at all. Smaller jobs may pass one that does
not fit, but not for ever: once a job has waited longer than `patience`, the worker where it could fit soonest is kept free
for it, and only jobs before it in the order may still use that worker. So a large job waits at most its patience and the
longest run on that worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Need:
    """What a job asks for."""

    job_id: str
    device: str
    """auto, cpu or cuda."""
    ranks: int
    cpus: int
    memory_bytes: int
    priority: int = 0
    age: float = 0.0
    """Seconds since it was queued."""


@dataclass(frozen=True)
class Node:
    """A worker that may be given work: what it has in all and what is free."""

    id: str
    name: str
    cpus: int
    memory_bytes: int
    gpus: tuple[int, ...]
    free_cpus: int
    free_memory_bytes: int
    free_gpus: tuple[int, ...]
    warm: bool = False

    def emptied(self) -> "Node":
        """The worker with nothing on it."""
        return replace(self, free_cpus=self.cpus, free_memory_bytes=self.memory_bytes, free_gpus=self.gpus)


@dataclass(frozen=True)
class Placement:
    job_id: str
    worker_id: str
    worker_name: str
    device: str
    """cpu or cuda."""
    cpus: int
    memory_bytes: int
    gpus: tuple[int, ...]

    def devices(self) -> dict[str, Any]:
        return {"device": self.device, "cpus": self.cpus, "gpus": list(self.gpus), "memory_bytes": self.memory_bytes}


def in_order(pending: Sequence[Need]) -> list[Need]:
    """Priority, then age, then id."""
    return sorted(pending, key=lambda n: (-n.priority, -n.age, n.job_id))


def place(pending: Sequence[Need], nodes: Sequence[Node], *, patience: float = 60.0) -> list[Placement]:
    """Placements that can all be made at once. Deterministic; uses nothing twice."""
    free = {n.id: n for n in nodes}
    reserved: set[str] = set()
    made: list[Placement] = []
    for need in in_order(pending):
        open_nodes = [n for n in free.values() if n.id not in reserved]
        if (placement := _best(need, open_nodes)) is not None:
            free[placement.worker_id] = _take(free[placement.worker_id], placement)
            made.append(placement)
        elif need.age > patience and (kept := _to_reserve(need, open_nodes)) is not None:
            reserved.add(kept)
    return made


def _best(need: Need, nodes: Sequence[Node]) -> Placement | None:
    """The tightest fit: warm workers first, then the least left over. GPUs before CPU slots when either will do."""
    for device in _devices(need):
        fitting = [n for n in nodes if not missing(need, n, device)]
        if fitting:
            node = min(fitting, key=lambda n: (not n.warm, len(n.free_gpus), n.free_cpus, n.free_memory_bytes, n.name))
            gpus = node.free_gpus[: need.ranks] if device == "cuda" else ()
            return Placement(need.job_id, node.id, node.name, device, need.cpus, need.memory_bytes, gpus)
    return None


def _devices(need: Need) -> tuple[str, ...]:
    return ("cuda", "cpu") if need.device == "auto" else (need.device,)


def missing(need: Need, node: Node, device: str) -> dict[str, int]:
    """What the node lacks for the job on a device kind: name → amount; empty when it fits."""
    lacks = {
        "cpus": need.cpus - node.free_cpus,
        "memory_bytes": need.memory_bytes - node.free_memory_bytes,
        "gpus": need.ranks - len(node.free_gpus) if device == "cuda" else 0,
    }
    return {name: amount for name, amount in lacks.items() if amount > 0}


def could_ever(need: Need, node: Node) -> bool:
    """Whether the empty node would hold the job."""
    return any(not missing(need, node.emptied(), d) for d in _devices(need))


def _to_reserve(need: Need, nodes: Sequence[Node]) -> str | None:
    """The worker that could hold the job and lacks least now."""
    able = [n for n in nodes if could_ever(need, n)]
    if not able:
        return None
    return min(able, key=lambda n: (-len(n.free_gpus), -n.free_cpus, -n.free_memory_bytes, n.name)).id


def _take(node: Node, placement: Placement) -> Node:
    return replace(
        node,
        free_cpus=node.free_cpus - placement.cpus,
        free_memory_bytes=node.free_memory_bytes - placement.memory_bytes,
        free_gpus=tuple(g for g in node.free_gpus if g not in placement.gpus),
    )
