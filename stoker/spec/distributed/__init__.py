"""How the work is spread over processes. Built by `worker.trainer.distributed`."""

from typing import Annotated

from pydantic import Field

from stoker.spec.distributed.auto import Auto
from stoker.spec.distributed.context_parallel import ContextParallel
from stoker.spec.distributed.ddp import DDP
from stoker.spec.distributed.fsdp import FSDP
from stoker.spec.distributed.hook import Halved, Hook, PowerSGD
from stoker.spec.distributed.horovod import Horovod
from stoker.spec.distributed.local_sgd import LocalSGD
from stoker.spec.distributed.parameter_server import Async, BoundedStaleness, ParameterServer, Sync
from stoker.spec.distributed.pipeline_parallel import PipelineParallel
from stoker.spec.distributed.single import Single
from stoker.spec.distributed.tensor_parallel import Cuttable, TensorParallel

Distributed = Annotated[Auto | Single | DDP | FSDP | Horovod | LocalSGD | ParameterServer, Field(discriminator="strategy")]

__all__ = [
    "DDP",
    "FSDP",
    "Async",
    "Auto",
    "BoundedStaleness",
    "ContextParallel",
    "Cuttable",
    "Distributed",
    "Halved",
    "Hook",
    "Horovod",
    "LocalSGD",
    "ParameterServer",
    "PipelineParallel",
    "PowerSGD",
    "Single",
    "Sync",
    "TensorParallel",
]
