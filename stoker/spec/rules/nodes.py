"""What several nodes ask of a job, and what a job must allow that is to run on fewer of them."""

from collections.abc import Iterator

from stoker.spec.distributed import FSDP
from stoker.spec.distributed._ranks import Ranks
from stoker.spec.rules._rule import Case, Hit, Rule, hit

MIN = "/distributed/min_nodes"


def more_than_all(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, Ranks) and spec.min_nodes is not None and spec.min_nodes > spec.nodes:
        yield hit(MIN, fewest=spec.min_nodes, nodes=spec.nodes)


def groups_of_ranks(case: Case) -> Iterator[Hit]:
    """Ranks that hold one model together stay as many on every number of nodes."""
    spec = case.spec.distributed
    if not isinstance(spec, Ranks):
        return
    together = max(1, spec.world_size // spec.data_parts)
    for fewer in spec.on_fewer_nodes():
        if fewer.world_size % together or (isinstance(fewer, FSDP) and fewer.data_parts % fewer.replicate):
            yield hit(MIN, ranks=fewer.world_size, nodes=fewer.nodes)
            return


def uneven_shares(case: Case) -> Iterator[Hit]:
    spec, size = case.spec.distributed, case.spec.training.batch_size
    if not isinstance(spec, Ranks):
        return
    for fewer in spec.on_fewer_nodes():
        if size % fewer.data_parts:
            yield hit(MIN, size=size, ranks=fewer.data_parts, nodes=fewer.nodes)
            return


NODE_RULES = (
    Rule(
        "min-nodes-above-nodes", "R", ("/distributed",), more_than_all,
        "`min_nodes` {fewest} is more than `nodes` {nodes}", "set `min_nodes` to {nodes} or less",
    ),
    Rule(
        "min-nodes-groups", "R", ("/distributed",), groups_of_ranks,
        "on {nodes} nodes the {ranks} ranks do not divide into the groups that hold one model together",
        "raise `min_nodes`, or change `processes_per_node`",
    ),
    Rule(
        "min-nodes-uneven", "W", ("/distributed", "/training/batch_size"), uneven_shares,
        "on {nodes} nodes a batch of {size} does not divide among {ranks} ranks: some take a sample more, and the others wait",
        "choose a batch_size that every number of nodes divides",
    ),
)  # fmt: skip
