"""What a run says while it runs: one JSON line per event in a rank's journal. The trainer writes them, the agent reads them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class Event(BaseModel):
    """Lenient on reading: an older agent must survive a newer trainer."""

    model_config = ConfigDict(extra="ignore", frozen=True, ser_json_inf_nan="constants")


class Started(Event):
    """The loop is about to make its first step of this attempt."""

    type: Literal["started"] = "started"
    step: int
    """Steps already made, 0 or those of the checkpoint it resumed from."""
    total_steps: int | None
    """Steps the run will make when it is not stopped early; null when only time decides."""
    parameters: int
    world_size: int
    device: str


class Phase(Event):
    """What the run is busy with: loading_data building_model training evaluating checkpointing."""

    type: Literal["phase"] = "phase"
    name: str
    t: float
    """Unix time in seconds on the worker's clock, for display only."""


class Metrics(Event):
    """Numbers measured at a step, already reduced over ranks; only rank 0 writes them. NaN and infinities are allowed."""

    type: Literal["metrics"] = "metrics"
    step: int
    values: dict[str, float]
    """By key, `train/loss`, `validation/accuracy`, `test/loss`, `train/lr`, `train/samples_per_second` …"""
    t: float


class Progress(Event):
    """How far the run is; written with each log of training metrics."""

    type: Literal["progress"] = "progress"
    step: int
    epoch: float
    samples: int
    tokens: int


class Saved(Event):
    """A checkpoint directory was committed on the worker's disk."""

    type: Literal["saved"] = "saved"
    step: int
    path: str
    """Relative to the workspace, `checkpoints/step-00000100`; it holds manifest.json."""
    metrics: dict[str, float]
    """Newest evaluation at or before the step."""
    final: bool
    """Whether it holds the weights the run ends with."""
    stall_seconds: float = 0.0
    """How long the run stood still for it."""


class Notice(Event):
    """Something a user should know: a warning, a remedy, a fallback."""

    type: Literal["notice"] = "notice"
    level: Literal["info", "warning", "error"]
    code: str
    message: str
    step: int | None = None
    data: dict[str, Any] = {}


class Artifact(Event):
    """A file that belongs to the job's results."""

    type: Literal["artifact"] = "artifact"
    name: str
    """Name under which it is downloaded, `predictions.json`."""
    path: str
    """Relative to the workspace."""


class Finished(Event):
    """The verdict of a rank's run, always its last line. Rank 0's counts; the exit code only matters without it."""

    type: Literal["finished"] = "finished"
    step: int
    reason: str
    """A code of `stoker.reasons`: completed, early_stopped, preempted (a stop was asked for and a checkpoint is saved), nan_loss …"""
    message: str = ""
    """What a user reads when it failed."""
    metrics: dict[str, float] = {}
    """Final values by key."""


AnyEvent = Annotated[Started | Phase | Metrics | Progress | Saved | Notice | Artifact | Finished, Field(discriminator="type")]
EVENT: TypeAdapter[Started | Phase | Metrics | Progress | Saved | Notice | Artifact | Finished] = TypeAdapter(AnyEvent)
"""Validates one journal line: `EVENT.validate_json(line)`."""
