"""What several nodes ask of a job, and what a job must allow that is to run on fewer of them."""

from collections.abc import Iterator

from stoker.spec.distributed import DDP, FSDP, Auto, Cuttable
from stoker.spec.distributed._ranks import Ranks
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.rules.failures import rollbacks

MIN = "/distributed/min_nodes"


def rollback_of_shards(case: Case) -> Iterator[Hit]:
    """A run steps back by itself to what is on its disks, and there no node has the whole checkpoint."""
    spec = case.spec.distributed
    cut = isinstance(spec, Cuttable) and spec.tensor_parallel is not None
    in_pieces = cut or isinstance(spec, FSDP | Auto) or (isinstance(spec, DDP) and spec.pipeline_parallel is not None)
    if spec.nodes > 1 and in_pieces:
        for pointer, _ in rollbacks(case):
            yield hit(pointer, nodes=spec.nodes)


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
        "rollback-of-shards", "R", ("/distributed", "/debug"), rollback_of_shards,
        "no disk of {nodes} nodes has a whole checkpoint of a model in pieces to roll back to", "choose another policy, or nodes: 1",
    ),
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
