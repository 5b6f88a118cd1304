"""What `strategy: auto` stands for where the run is: chosen by the plan's own arithmetic, the same on every rank."""

import torch

from stoker.events import Notice
from stoker.plan.choice import choose, rank_limit
from stoker.plan.known import Known
from stoker.spec import JobSpec
from stoker.spec.distributed import Auto
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.world import World


def decided(spec: JobSpec, known: Known, world: World, journal: Journal, teacher: int = 0) -> JobSpec:
    """The job with the strategy to build, and the memory it saves beside, told to whoever follows the run.

    `teacher`: bytes of the model that teaches.

    It depends on the spec, the data and the size of the GPU alone, so an attempt on a machine of the same kind decides the
    same and goes on to the bit; on another kind the checkpoint is read into other shards.
    """
    if not isinstance(spec.distributed, Auto):
        return spec
    gpu = torch.cuda.get_device_properties(world.device).total_memory if world.device.type == "cuda" else None
    least = None if gpu is None else int(-world.most(torch.tensor(-gpu, dtype=torch.float64, device=world.device)).item())
    choice = choose(spec, known, rank_limit(spec, device_bytes=least), host=rank_limit(spec), teacher=teacher)
    level = "warning" if choice.fits is False else "info"
    journal.write(Notice(level=level, code="strategy_chosen", message=f"strategy auto is {choice.reason}"))
    return choice.spec
