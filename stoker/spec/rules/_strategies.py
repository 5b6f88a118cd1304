"""What strategies leave to each rank."""

from typing import assert_never

from stoker.spec.distributed import DDP, FSDP, Auto, Distributed, Horovod, LocalSGD, ParameterServer, Single


def whole_on_each_rank(spec: Distributed) -> bool:
    """Whether a rank can run the model by itself."""
    match spec:
        case Single() | Horovod() | LocalSGD():
            return True
        case DDP():
            return spec.data_parts == spec.world_size
        case Auto() | FSDP() | ParameterServer():
            return False
        case _:
            assert_never(spec)
