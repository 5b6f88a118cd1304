"""Several questions about one sample, answered by heads on one trunk. Built by `worker.trainer.task.multi_task`."""

from collections.abc import Sequence
from typing import Annotated, Literal, assert_never

from pydantic import Field

from stoker.spec.base import Knob, NonNegative, Size, Spec
from stoker.spec.data.source import Column
from stoker.spec.evaluation import F1, R2, Accuracy, Auroc, Mae, Metric, Mode, PrecisionScore, Recall, Rmse
from stoker.spec.loss import CrossEntropy, Loss, MeanSquaredError, head_width

TaskName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
LogVariance = Annotated[float, Field(ge=-20, le=20)]


class ClassHead(Spec):
    """One of several classes per sample."""

    type: Literal["classification"] = "classification"
    """What is asked of a sample."""
    name: Annotated[TaskName, Knob(rows=("TRAIN-13",))]
    """Name of the task, which its metrics begin with: `validation/<name>_accuracy`."""
    target: Annotated[Column, Knob(rows=("TRAIN-13",))]
    """Column that holds the class."""
    num_classes: Annotated[Annotated[int, Field(ge=2, le=100_000)] | None, Knob("classes", rows=("TRAIN-13",))] = None
    """How many classes the head tells apart; unset, counted in the data set."""
    loss: Annotated[Loss | None, Knob(affects=("quality",), rows=("TRAIN-13",))] = None
    """What is minimised for this task; unset, cross_entropy."""
    weight: Annotated[NonNegative, Knob(affects=("quality",), rows=("TRAIN-13",))] = 1.0
    """What the loss of this task is multiplied by; at 0 its head stays as it starts."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.target,)

    @property
    def count(self) -> int | None:
        """Classes."""
        return self.num_classes

    @property
    def minimised(self) -> Loss:
        return self.loss or CrossEntropy()


class NumberHead(Spec):
    """One or several real numbers per sample."""

    type: Literal["regression"] = "regression"
    """What is asked of a sample."""
    name: Annotated[TaskName, Knob(rows=("TRAIN-13",))]
    """Name of the task, which its metrics begin with: `validation/<name>_rmse`."""
    target: Annotated[
        Column | Annotated[tuple[Column, ...], Field(min_length=1, max_length=10_000)], Knob("columns", rows=("TRAIN-13",))
    ]
    """Column or columns to predict."""
    num_outputs: Annotated[Size | None, Knob("numbers", rows=("TRAIN-13",))] = None
    """How many numbers the head predicts; unset, as many as there are target columns."""
    loss: Annotated[Loss | None, Knob(affects=("quality",), rows=("TRAIN-13",))] = None
    """What is minimised for this task; unset, mse."""
    weight: Annotated[NonNegative, Knob(affects=("quality",), rows=("TRAIN-13",))] = 1.0
    """What the loss of this task is multiplied by; at 0 its head stays as it starts."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.target,) if isinstance(self.target, str) else self.target

    @property
    def count(self) -> int | None:
        """Numbers to predict."""
        return self.num_outputs

    @property
    def minimised(self) -> Loss:
        return self.loss or MeanSquaredError()


Head = Annotated[ClassHead | NumberHead, Field(discriminator="type")]


def metrics_of(head: ClassHead | NumberHead, metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """Those that a task can be measured by."""
    match head:
        case ClassHead():
            return tuple(metric for metric in metrics if isinstance(metric, Accuracy | PrecisionScore | Recall | F1 | Auroc))
        case NumberHead():
            return tuple(metric for metric in metrics if isinstance(metric, Mae | Rmse | R2))
        case _:
            assert_never(head)


class FixedWeighting(Spec):
    """The sum of all losses, each times its weight."""

    type: Literal["fixed"] = "fixed"
    """Which weighting this is."""


class UncertaintyWeighting(Spec):
    """Weights that are learned: each task has a log-variance s, and exp(-s) x loss + s / 2 is minimised; of mse, half the loss
    (Kendall, Gal and Cipolla 2018)."""

    type: Literal["uncertainty"] = "uncertainty"
    """Which weighting this is."""
    initial_log_variance: Annotated[LogVariance, Knob(affects=("quality",), rows=("TRAIN-13",))] = 0.0
    """Log-variance that every task starts with; 0 weighs the loss by 1, and mse by 1/2."""


Weighting = Annotated[FixedWeighting | UncertaintyWeighting, Field(discriminator="type")]


class MultiTask(Spec):
    """Several questions about each row of a table, answered by one head each on the trunk that they share."""

    type: Literal["multi_task"] = "multi_task"
    """Which task this is."""
    tasks: Annotated[
        Annotated[tuple[Head, ...], Field(min_length=2, max_length=64)],
        Knob("tasks", ("memory", "quality"), ("TRAIN-13",)),
    ]
    """What is asked of each sample; every task has a head of its own in place of the model's last layer."""
    weighting: Annotated[Weighting, Knob(affects=("quality",), rows=("TRAIN-13",))] = FixedWeighting()
    """How the losses of the tasks become one."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Target columns of all tasks, in order."""
        return tuple(column for head in self.tasks for column in head.columns)

    @property
    def widths(self) -> tuple[int, ...] | None:
        """Numbers that each head gives; None while a count is open."""
        found = tuple(head_width(head.minimised, head.count) for head in self.tasks if head.count is not None)
        return found if len(found) == len(self.tasks) else None

    def modes(self, metrics: Sequence[Metric]) -> dict[str, Mode]:
        """What is measured of the tasks, by name, and which way each is better."""
        found: dict[str, Mode] = {}
        for head in self.tasks:
            found[f"{head.name}_loss"] = "min"
            found |= {f"{head.name}_{metric.key}": metric.mode for metric in metrics_of(head, metrics)}
        return found
