"""A run that is ready to start, and its clock."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from stoker.spec import JobSpec
from worker.trainer.data import Dataset, Feed
from worker.trainer.debug.guard import Backoff
from worker.trainer.distributed import Replica
from worker.trainer.evaluation import Examiner
from worker.trainer.logging import Log
from worker.trainer.reproducibility import Seeds
from worker.trainer.runtime.control import Control
from worker.trainer.runtime.hooks import FinishHook, StepHook
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.rhythm import Rhythm
from worker.trainer.runtime.state import Stateful
from worker.trainer.runtime.world import World
from worker.trainer.schedule import Course, LearningRate
from worker.trainer.staging import Staging
from worker.trainer.training import Judge
from worker.trainer.training.average import Average
from worker.trainer.training.dynamic_batch import Growth
from worker.trainer.training.passes import Passes
from worker.trainer.training.update import Update


@dataclass
class Clock:
    """Where the run is. It is made before everything else, so that what is built first may read it later."""

    step: int = 0
    """Optimizer steps made so far."""
    logged: int = 0
    """Step of the last report of training metrics."""
    evaluated: int = -1
    """Step of the last evaluation."""
    saved: int = -1
    """Step of the last checkpoint."""
    total: int | None = None
    """Steps of the whole run, None when only time ends it. It changes when the batch size does."""

    @property
    def steps(self) -> float:
        """`total` as a bound: infinite when only time ends the run."""
        return math.inf if self.total is None else self.total


@dataclass
class Run:
    """Everything that the loop touches, built and in its place."""

    spec: JobSpec
    home: Path
    world: World
    journal: Journal
    clock: Clock
    control: Control
    seeds: Seeds
    data: Dataset
    feed: Feed
    model: nn.Module
    params: Sequence[nn.Parameter]
    parameters: int
    """Number of trainable parameters, over all ranks."""
    replica: Replica
    passes: Passes
    optimizer: torch.optim.Optimizer
    update: Update
    backoff: Backoff
    average: Average
    course: Course
    """What the schedule does to the optimizer."""
    lr: LearningRate
    growth: Growth
    log: Log
    examiner: Examiner
    judge: Judge
    saving: Rhythm
    staging: Staging
    """How checkpoints reach the disk."""
    step_hooks: Sequence[StepHook]
    """What else is done between steps."""
    explain: FinishHook
    """Called with the final weights, before they are saved; not by a run that is to go on later."""
    leave: FinishHook
    """Called once the run has ended and is saved."""
    stateful: Mapping[str, Stateful]
    """State besides weights and optimizer that the checkpoint keeps, by name."""
    seconds: float
    """Training time of the whole run, infinite when only steps end it."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Values of the newest evaluation."""
    ended: str | None = None
    """Why the run is over, once it is."""
