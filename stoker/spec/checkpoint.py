"""When and how the run is saved and what is kept. Honoured by `worker.trainer.checkpoint` and the server's retention."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Duration, Knob, MetricKey, Natural, Spec
from stoker.spec.checkpoint_ref import CheckpointRef

Export = Literal["safetensors", "huggingface"]


class Checkpoint(Spec):
    """The end of a run is always saved."""

    interval: Annotated[Duration, Knob(affects=("speed",), rows=("CKPT-01",))] = Duration(epochs=1)
    """How often the run is saved."""
    background: Annotated[Literal["off", "fork", "copy"] | None, Knob(affects=("memory", "speed"), rows=("CKPT-01",))] = None
    """Write while the run goes on: from a copy (copy, as unset), from a forked process (fork, on a CPU), or not (off)."""
    on_exception: Annotated[bool, Knob(rows=("CKPT-03",))] = False
    """Save the last whole step when the run fails of an error in the job, for one process; not when a weight is no number."""
    export: Annotated[Annotated[tuple[Export, ...], Field(max_length=2)], Knob(rows=("CKPT-01",))] = ()
    """Formats in which the weights the run ends with are kept as artifacts export/<format>/…, for other programs."""
    resume_from: Annotated[CheckpointRef | None, Knob(affects=("quality",), rows=("CKPT-02",))] = None
    """Another job's checkpoint that this one goes on from, with its step, optimizer and data position; null to start fresh."""
    keep_last: Annotated[Annotated[int, Field(ge=2, le=1000)], Knob("checkpoints", (), ("CKPT-03",))] = 3
    """Newest checkpoints kept; two at least, so that a damaged one never leaves none."""
    keep_best: Annotated[Natural, Knob("checkpoints", (), ("CKPT-03",))] = 1
    """Best checkpoints kept beside them."""
    monitor: Annotated[MetricKey, Knob(rows=("CKPT-03",))] = "validation/loss"
    """Metric that says which is best."""
    mode: Annotated[Literal["min", "max"] | None, Knob(rows=("CKPT-03",))] = None
    """Whether smaller or larger is better; unset, what the metric says."""
