"""The job spec: one immutable document that every plane reads and none translates."""

from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.activation_checkpointing import ActivationCheckpointing, KeepAll
from stoker.spec.base import Knob, Name, Spec
from stoker.spec.checkpoint import Checkpoint
from stoker.spec.data import Data
from stoker.spec.debug import Debug
from stoker.spec.distributed import Distributed, Single
from stoker.spec.evaluation import Evaluation
from stoker.spec.initialization import Initialization
from stoker.spec.interpretability import Interpretability
from stoker.spec.logging import Logging
from stoker.spec.loss import Loss
from stoker.spec.model import Model
from stoker.spec.optimizer import AdamW, Optimizer
from stoker.spec.precision import Precision
from stoker.spec.regularization import Regularization
from stoker.spec.reproducibility import Reproducibility
from stoker.spec.resources import Resources
from stoker.spec.schedule import Constant, Schedule
from stoker.spec.task import Task
from stoker.spec.training import Training

LabelKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$")]
LabelValue = Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]{0,128}$")]


class JobSpec(Spec):
    """Everything that decides what a training job computes, and where."""

    api_version: Literal["stoker/v1"] = "stoker/v1"
    """Version of this document's grammar."""
    name: Annotated[Name | None, Knob()] = None
    """Name to find the job by; it need not be unique."""
    project: Annotated[Name, Knob()] = "default"
    """Project the job belongs to; keys see one project."""
    labels: Annotated[Annotated[dict[LabelKey, LabelValue], Field(max_length=64)], Knob()] = {}
    """Free key-value pairs to filter by."""
    priority: Annotated[Annotated[int, Field(ge=-100, le=100)], Knob()] = 0
    """Jobs of higher priority are placed first; ties go to the older."""
    reproducibility: Reproducibility = Reproducibility()
    """Seeds and determinism."""
    task: Task
    """What is to be learned."""
    model: Model
    """The architecture."""
    initialization: Initialization = Initialization()
    """What the run begins with, and which of it learns."""
    data: Data
    """What it learns from."""
    loss: Annotated[Loss | None, Knob(affects=("quality",))] = None
    """What is minimised; unset, cross_entropy, bce for multilabel, mse for regression, or non_saturating for a gan."""
    optimizer: Optimizer = AdamW()
    """How weights move."""
    schedule: Schedule = Constant()
    """How the learning rate moves."""
    regularization: Regularization = Regularization()
    """What is asked of weights beside a small loss."""
    training: Training
    """How long and in what portions it trains."""
    precision: Precision = Precision()
    """In which number format."""
    activation_checkpointing: ActivationCheckpointing = KeepAll()
    """Which activations are computed again instead of kept."""
    distributed: Distributed = Single()
    """How the work is spread over processes."""
    resources: Resources = Resources()
    """What it needs of a machine."""
    evaluation: Evaluation = Evaluation()
    """When and by what it is judged."""
    checkpoint: Checkpoint = Checkpoint()
    """When it is saved and what is kept."""
    logging: Logging = Logging()
    """What it reports while it trains."""
    interpretability: Annotated[Interpretability | None, Knob(rows=("XAI-01",))] = None
    """What the finished model pays attention to; null for nothing."""
    debug: Debug = Debug()
    """What is watched for while it trains, and what is done when it goes wrong."""


METADATA = ("name", "project", "labels", "priority")
"""Fields that say how a job is filed, not what it computes; they are not part of the experiment's identity."""
