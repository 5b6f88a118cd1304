"""Distributed specs: first into which rank takes which samples, then applied to the objective."""

from typing import assert_never

import torch

from stoker.spec.distributed import (
    DDP,
    FSDP,
    Async,
    Auto,
    BoundedStaleness,
    ContextParallel,
    Distributed,
    Horovod,
    LocalSGD,
    ParameterServer,
    PipelineParallel,
    Single,
    TensorParallel,
)
from worker.trainer.distributed.auto import decided
from worker.trainer.distributed.context_parallel import arrange_context_parallel, in_context
from worker.trainer.distributed.ddp import Replicated
from worker.trainer.distributed.deferred import Deferred
from worker.trainer.distributed.fsdp import Sharded
from worker.trainer.distributed.horovod import Allreduced
from worker.trainer.distributed.local_sgd import Apart, PeriodicAveraging
from worker.trainer.distributed.parameter_server import Served
from worker.trainer.distributed.pipeline_parallel import Piped, arrange_pipeline_parallel
from worker.trainer.distributed.replica import Replica
from worker.trainer.distributed.single import Alone
from worker.trainer.distributed.tensor_parallel import Cut, arrange_tensor_parallel
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.part import Part
from worker.trainer.runtime.world import World

__all__ = [
    "Apart",
    "Deferred",
    "PeriodicAveraging",
    "Piped",
    "Replica",
    "arrange",
    "decided",
    "offloads",
    "periodic_averaging",
    "remote",
    "replicate",
    "slack",
    "stands_still",
]

FREE_STEPS = 16
"""Steps that asynchronous workers make before they hear from each other."""


def arrange(spec: Distributed, world: World) -> World:
    """The world with the batch shared out as the strategy wants it; before data is read."""
    match spec:
        case DDP(tensor_parallel=TensorParallel(degree=degree)) | FSDP(tensor_parallel=TensorParallel(degree=degree)):
            return arrange_tensor_parallel(world, degree)
        case DDP(context_parallel=ContextParallel(degree=degree)) | FSDP(context_parallel=ContextParallel(degree=degree)):
            return arrange_context_parallel(world, degree)
        case DDP(pipeline_parallel=PipelineParallel(degree=degree)):
            return arrange_pipeline_parallel(world, degree)
        case Auto() | Single() | DDP() | FSDP() | Horovod() | LocalSGD() | ParameterServer():
            return world
        case _:
            assert_never(spec)


def replicate(spec: Distributed, objective: Objective, world: World, *, late: bool = False) -> Replica:
    """For as many ranks as there are, which may differ from what the spec asked for: the batch is the same for any number.

    `late`: gradients are exchanged when somebody asks for it after the passes; for whole models on each rank only.
    """
    if late and world.size > 1:
        return Deferred(objective, world, spec.bucket_cap_mb if isinstance(spec, DDP) else DDP().bucket_cap_mb)
    match spec:
        case DDP(context_parallel=ContextParallel(degree=degree)) | FSDP(context_parallel=ContextParallel(degree=degree)):
            objective = objective if world.size == 1 else in_context(objective, world, degree)
        case _:
            pass
    match spec:
        case Auto():
            raise ValueError("strategy auto is decided before it is built")
        case Single():
            return Alone(objective) if world.size == 1 else Replicated(objective, world, DDP())
        case DDP(pipeline_parallel=PipelineParallel() as pipeline):
            return Alone(objective) if world.size == 1 else Piped(objective, world, pipeline)
        case DDP(tensor_parallel=TensorParallel() as tensor):
            return Alone(objective) if world.size == 1 else Cut(objective, world, tensor)
        case DDP():
            return Alone(objective) if world.size == 1 else Replicated(objective, world, spec)
        case FSDP():
            return Alone(objective) if world.size == 1 else Sharded(spec, objective, world)
        case Horovod():
            return Alone(objective) if world.size == 1 else Allreduced(objective, world)
        case LocalSGD():
            return Apart(objective, world, spec.sync_every)
        case ParameterServer():
            return Served(spec, objective, world) if world.servers else Alone(objective)
        case _:
            assert_never(spec)


def offloads(spec: Distributed) -> bool:
    """Whether ranks with GPUs may come to exchange what lies in host memory."""
    return isinstance(spec, Auto) or (isinstance(spec, FSDP) and spec.offload != "none")


def remote(replica: Replica, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer to step with: where servers have the weights, theirs."""
    return replica.begin(optimizer) if isinstance(replica, Served) else optimizer


def slack(spec: Distributed) -> int:
    """Steps after which ranks ask each other whether to stop: workers that do not wait for one another do so rarely."""
    match spec:
        case ParameterServer(consistency=BoundedStaleness(bound=bound)):
            return bound
        case ParameterServer(consistency=Async()):
            return FREE_STEPS
        case _:
            return 1


def stands_still(replica: Replica) -> bool:
    """Whether nothing but an optimizer's step on this rank changes the weights between two evaluations."""
    return not isinstance(replica, Apart | Served)


def strategy_part(replica: Replica) -> Part:
    """Parts of a strategy with a memory of their own, by the name under which the checkpoint keeps it."""
    match replica:
        case Replicated():
            return Part(replica.parts)
        case Served():
            return Part({"parameter_server": replica})
        case _:
            return Part()


def periodic_averaging(
    spec: Distributed, replica: Replica, optimizer: torch.optim.Optimizer, world: World
) -> dict[str, PeriodicAveraging]:
    """What ranks do together after a step, by the name under which the checkpoint keeps it."""
    match spec, replica:
        case LocalSGD(), Apart():
            return {"local_sgd": PeriodicAveraging(replica, optimizer, world, moments=spec.average_optimizer_state)}
        case _:
            return {}
