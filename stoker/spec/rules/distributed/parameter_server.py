"""Rules of `distributed` for parameter_server."""

from collections.abc import Iterator

from stoker.spec.debug import Fail
from stoker.spec.distributed import ParameterServer, Sync
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule


@rule(
    "servers-without-workers",
    reads=("/distributed",),
    message="{servers} of {ranks} ranks are servers, which leaves no worker",
    hint="lower `distributed.servers`, or raise `processes_per_node`",
)
def no_workers(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, ParameterServer) and spec.servers >= spec.world_size:
        yield hit("/distributed/servers", servers=spec.servers, ranks=spec.world_size)


@rule(
    "servers-on-one-node",
    reads=("/distributed",),
    message="parameter_server runs on one node, and `distributed.nodes` is more",
    hint="set `distributed.nodes: 1`, or use ddp or fsdp over nodes",
)
def several_nodes(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, ParameterServer) and spec.nodes > 1:
        yield hit("/distributed/nodes")


@rule(
    "servers-out-of-step",
    reads=("/distributed",),
    message="with {mode} gradients come in no fixed order: the run cannot be repeated to the bit, nor resumed to it",
    hint="set `distributed.consistency: {{mode: sync}}` where that matters",
    level="W",
)
def no_fixed_order(case: Case) -> Iterator[Hit]:
    spec = case.spec.distributed
    if isinstance(spec, ParameterServer) and not isinstance(spec.consistency, Sync):
        yield hit("/distributed/consistency", mode=spec.consistency.mode)


@rule(
    "servers-agreement",
    reads=("/distributed", "/precision", "/training", "/debug"),
    message="`{path}` needs workers with the same weights in each step, and with {mode} they do not wait for one another",
    hint="remove it, or set `distributed.consistency: {{mode: sync}}`",
)
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
