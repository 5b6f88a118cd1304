"""What weights that live on servers ask of the rest of the job."""

from collections.abc import Iterator

from stoker.spec.debug import Fail
from stoker.spec.distributed import ParameterServer, Sync
from stoker.spec.rules._rule import Case, Hit, Rule, hit


def no_workers(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, ParameterServer) and spec.servers >= spec.world_size:
        yield hit("/distributed/servers", servers=spec.servers, ranks=spec.world_size)


def several_nodes(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, ParameterServer) and spec.nodes > 1:
        yield hit("/distributed/nodes")


def no_fixed_order(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, ParameterServer) and not isinstance(spec.consistency, Sync):
        yield hit("/distributed/consistency", mode=spec.consistency.mode)


def agreed_in_each_step(case: Case) -> Iterator[Hit]:
    """What would make workers wait for one another in every step, or needs their weights to be the same."""
    spec, training, debug = case.spec.distributed, case.spec.training, case.spec.debug
    if not isinstance(spec, ParameterServer) or isinstance(spec.consistency, Sync):
        return
    asked = {
        "precision/mode": case.spec.precision.half,
        "training/ema": training.ema is not None,
        "training/swa": training.swa is not None,
        "debug/nan_policy": not isinstance(debug.nan_policy, Fail),
        "debug/spike": debug.spike is not None,
    }
    for path, wanted in asked.items():
        if wanted:
            yield hit(f"/{path}", path=path.replace("/", "."), mode=spec.consistency.mode)


SERVER_RULES = (
    Rule(
        "servers-without-workers", "R", ("/distributed",), no_workers,
        "of {ranks} ranks {servers} serve: nobody is left to compute", "lower `distributed.servers`, or raise `processes_per_node`",
    ),
    Rule(
        "servers-on-one-node", "R", ("/distributed",), several_nodes,
        "servers and workers meet on one node only", "set `distributed.nodes: 1`, or use ddp or fsdp over nodes",
    ),
    Rule(
        "servers-out-of-step", "W", ("/distributed",), no_fixed_order,
        "with {mode} gradients come in no fixed order: the run cannot be repeated to the bit, nor resumed to it",
        "set `distributed.consistency: {{mode: sync}}` where that matters",
    ),
    Rule(
        "servers-agreement", "R", ("/distributed", "/precision", "/training", "/debug"), agreed_in_each_step,
        "`{path}` needs workers with the same weights in each step, and with {mode} they do not wait for one another",
        "remove it, or set `distributed.consistency: {{mode: sync}}`",
    ),
)  # fmt: skip
