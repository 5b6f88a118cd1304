"""A checkpoint of another job. The server finds it, pins it to a step, and hands its files to the run."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Count, Knob, Spec

JobId = Annotated[str, Field(pattern=r"^job_[0-9a-z]{26}$")]


class CheckpointRef(Spec):
    job: Annotated[JobId, Knob()]
    """Job that made the checkpoint, of the same project."""
    checkpoint: Annotated[Literal["last", "best", "final"] | Count, Knob("optimizer steps")] = "last"
    """Which of its checkpoints: the newest, the best, the one it ended with, or that of a step; pinned to the step at submit."""
