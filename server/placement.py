"""Which waiting job goes to which workers: a pure function of what waits and what is free.

Jobs are taken by priority, then age. A job is placed whole or not at all: on one worker, or on as many different workers as it
has nodes, all of one network and with the same kind of device. A job that accepts fewer nodes gets as many as fit now.
Smaller jobs may pass a job that does not fit until it has waited longer than `patience`. From then on the workers where it could
fit soonest are reserved for it, and only jobs ahead of it may use them. So a large job waits at most its patience and the longest
run on those workers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Need:
    """What a job asks for. Ranks, cpus and memory are those of one node."""

    job_id: str
    device: str
    """auto, cpu, cuda or tpu."""
    ranks: int
    cpus: int
    memory_bytes: int
    priority: int = 0
    age: float = 0.0
    """Seconds since it was queued."""
    nodes: int = 1
    fewest: int = 1
    """The fewest nodes that will do; `nodes` where it must have all."""
    spread: bool = False
    """Whether it is placed where most is free; else where least is left over."""
    backends: frozenset[str] = frozenset()
    """What the worker's image must provide, where not every worker's does."""


@dataclass(frozen=True)
class Node:
    """A worker that jobs may be placed on: what it has in all and what is free."""

    id: str
    name: str
    cpus: int
    memory_bytes: int
    gpus: tuple[int, ...]
    free_cpus: int
    free_memory_bytes: int
    free_gpus: tuple[int, ...]
    warm: bool = False
    network: str = ""
    """Workers of one network reach each other; empty: no other worker reaches it, so it takes no part in jobs of several nodes."""
    tpus: int = 0
    free_tpus: int = 0
    backends: frozenset[str] = frozenset()

    def emptied(self) -> "Node":
        """The worker with nothing on it."""
        return replace(self, free_cpus=self.cpus, free_memory_bytes=self.memory_bytes, free_gpus=self.gpus, free_tpus=self.tpus)


@dataclass(frozen=True)
class Part:
    """What a job holds of one worker."""

    worker_id: str
    worker_name: str
    device: str
    """cpu, cuda or tpu."""
    cpus: int
    memory_bytes: int
    gpus: tuple[int, ...]
    tpus: int = 0

    def devices(self) -> dict[str, Any]:
        held = {"device": self.device, "cpus": self.cpus, "gpus": list(self.gpus), "memory_bytes": self.memory_bytes}
        return held | ({"tpus": self.tpus} if self.tpus else {})


@dataclass(frozen=True)
class Placement:
    job_id: str
    parts: tuple[Part, ...]
    """One for each node; the first is node 0."""


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
            for part in placement.parts:
                free[part.worker_id] = _take(free[part.worker_id], part)
            made.append(placement)
        elif need.age > patience:
            reserved.update(_to_reserve(need, open_nodes))
    return made


def _best(need: Need, nodes: Sequence[Node]) -> Placement | None:
    """The tightest fit or the loosest, warm workers first. GPUs before CPU slots when either will do.

    A job without GPU or TPU takes CPU slots of a worker that has one only when no others are free: jobs that use the device need
    slots of the same worker.
    """
    for device in _devices(need):
        order = _loosest if need.spread else _tightest
        fitting = sorted((n for n in nodes if not missing(need, n, device)), key=order)
        if device == "cpu":
            fitting.sort(key=lambda n: bool(n.gpus or n.tpus))
        for count in range(need.nodes, need.fewest - 1, -1):
            for together in _reaching(fitting, count):
                return Placement(need.job_id, tuple(_part(need, n, device) for n in together[:count]))
    return None


def _tightest(node: Node) -> tuple[bool, int, int, int, str]:
    return not node.warm, len(node.free_gpus), node.free_cpus, node.free_memory_bytes, node.name


def _loosest(node: Node) -> tuple[int, int, int, bool, str]:
    return -len(node.free_gpus), -node.free_cpus, -node.free_memory_bytes, not node.warm, node.name


def _reaching(nodes: Sequence[Node], count: int) -> Iterator[list[Node]]:
    """Groups of at least `count` nodes that reach each other, in the order given; a single node needs no network."""
    if count == 1:
        groups = [list(nodes)]
    else:
        names = dict.fromkeys(n.network for n in nodes if n.network)
        groups = [[n for n in nodes if n.network == name] for name in names]
    yield from (group for group in groups if len(group) >= count)


def _part(need: Need, node: Node, device: str) -> Part:
    gpus = node.free_gpus[: need.ranks] if device == "cuda" else ()
    return Part(node.id, node.name, device, need.cpus, need.memory_bytes, gpus, need.ranks if device == "tpu" else 0)


def _devices(need: Need) -> tuple[str, ...]:
    return ("cuda", "cpu") if need.device == "auto" else (need.device,)


def missing(need: Need, node: Node, device: str) -> dict[str, int]:
    """What the node lacks for one node's part of the job on a device kind: name → amount, 1 for what its image does not provide.
    Empty when the part fits.
    """
    lacks = {
        "cpus": need.cpus - node.free_cpus,
        "memory_bytes": need.memory_bytes - node.free_memory_bytes,
        "gpus": need.ranks - len(node.free_gpus) if device == "cuda" else 0,
        "tpus": need.ranks - node.free_tpus if device == "tpu" else 0,
        **{backend: 1 for backend in sorted(need.backends - node.backends)},
    }
    return {name: amount for name, amount in lacks.items() if amount > 0}


def could_ever(need: Need, node: Node) -> bool:
    """Whether the empty node would hold one node's part of the job."""
    return any(not missing(need, node.emptied(), d) for d in _devices(need))


def reachable(need: Need, nodes: Sequence[Node]) -> int:
    """The most nodes that the job could get together if they were empty."""
    best = 0
    for device in _devices(need):
        able = [n for n in nodes if not missing(need, n.emptied(), device)]
        best = max([best, min(1, len(able)), *(len(group) for group in _reaching(able, 2))])
    return best


def _to_reserve(need: Need, nodes: Sequence[Node]) -> list[str]:
    """The workers that could hold the job and lack least now: as many as it needs, or none."""
    for device in _devices(need):
        able = [n for n in nodes if not missing(need, n.emptied(), device)]
        able.sort(key=lambda n: (-len(n.free_gpus), -n.free_cpus, -n.free_memory_bytes, n.name))
        for together in _reaching(able, need.fewest):
            return [n.id for n in together[: need.fewest]]
    return []


def _take(node: Node, part: Part) -> Node:
    return replace(
        node,
        free_cpus=node.free_cpus - part.cpus,
        free_memory_bytes=node.free_memory_bytes - part.memory_bytes,
        free_gpus=tuple(g for g in node.free_gpus if g not in part.gpus),
        free_tpus=node.free_tpus - part.tpus,
    )
