"""What the run needs of a machine. Honoured by the scheduler and the agent."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Knob, Positive, Spec


class Resources(Spec):
    device: Annotated[Literal["auto", "cpu", "cuda", "tpu"], Knob(affects=("speed",), rows=("DIST-10", "DIST-11", "DIST-12"))] = (
        "auto"
    )
    """Kind of device; auto takes GPUs where a worker has them and CPU slots elsewhere; a tpu is taken only when asked for."""
    cpus: Annotated[Annotated[int, Field(ge=1, le=1024)] | None, Knob("CPU slots", ("speed",), ("DIST-08",))] = None
    """CPU slots reserved for all ranks together; each rank computes with cpus / ranks threads; unset, one per rank."""
    placement: Annotated[Literal["pack", "spread"], Knob(affects=("speed",), rows=("DIST-08",))] = "pack"
    """Of the workers that fit: the fullest, which leaves others whole for large jobs, or the emptiest, where least runs beside it."""
    gpu_memory_fraction: Annotated[
        Annotated[float, Field(ge=0.01, le=1)] | None, Knob("of each GPU's memory", ("memory",), ("DIST-08",))
    ] = None
    """Most that a rank may take of its GPU; beyond it the run ends with cuda_oom; unset, all of it."""
    memory_gb: Annotated[Positive | None, Knob("GiB", ("memory",), ("DIST-08",))] = None
    """Memory reserved on each worker; unset, the plan's estimate."""
    max_retries: Annotated[Annotated[int, Field(ge=0, le=20)], Knob("attempts", ())] = 3
    """Further attempts after failures that count against the job; losses of a node do not."""
    time_limit_seconds: Annotated[Annotated[float, Field(ge=60, le=7_776_000)] | None, Knob("seconds", ())] = None
    """Longest time an attempt may run before it is stopped at a checkpoint and failed; unset, none."""
