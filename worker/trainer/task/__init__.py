"""Task specs into what the task asks of the data and what it leaves unsaid elsewhere."""

from dataclasses import dataclass
from typing import assert_never

from stoker.spec.evaluation import Accuracy, Mae, MaximumMeanDiscrepancy, Metric, Perplexity, Rmse
from stoker.spec.loss import BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError, NonSaturating
from stoker.spec.task import CausalLM, Classification, Generation, MaskedLM, Multilabel, Regression, Task
from stoker.spec.task.multi_task import ClassHead, Head, MultiTask, NumberHead


@dataclass(frozen=True)
class Aim:
    """A task in the words of the other families."""

    columns: tuple[str, ...]
    """Target columns of a table."""
    labelled: bool
    """Samples carry targets of their own; text does not."""
    classes: bool
    """Targets are classes."""
    count: int | None
    """Classes, labels or numbers per sample, when the spec says so."""
    loss: Loss | None
    """What is minimised unless the spec says otherwise; None where each part has its own."""
    metrics: tuple[Metric, ...]
    """What is measured unless the spec says otherwise."""
    labels: bool = False
    """Targets are labels of 0 and 1."""
    targets: bool = True
    """Whether something is said of each sample; a gan makes samples, and reads no targets."""
    name: str = ""
    parts: tuple["Aim", ...] = ()
    """What each of several tasks asks."""


def build_task(spec: Task) -> Aim:
    match spec:
        case Classification():
            columns = () if spec.target is None else (spec.target,)
            return Aim(columns, True, True, spec.num_classes, CrossEntropy(), (Accuracy(),))
        case Multilabel():
            named = (spec.target,) if isinstance(spec.target, str) else spec.target or ()
            return Aim(named, True, False, spec.num_labels, BinaryCrossEntropy(), (Accuracy(),), labels=True)
        case Regression():
            named = (spec.target,) if isinstance(spec.target, str) else spec.target or ()
            return Aim(named, True, False, spec.num_outputs, MeanSquaredError(), (Mae(), Rmse()))
        case CausalLM() | MaskedLM():
            return Aim((), False, True, None, CrossEntropy(), (Perplexity(),))
        case Generation():
            return Aim((), True, False, None, NonSaturating(), (MaximumMeanDiscrepancy(),), targets=False)
        case MultiTask():
            parts = tuple(_part(head) for head in spec.tasks)
            metrics = dict.fromkeys(metric for part in parts for metric in part.metrics)
            return Aim(spec.columns, True, False, None, None, tuple(metrics), parts=parts)
        case _:
            assert_never(spec)


def _part(head: Head) -> Aim:
    match head:
        case ClassHead():
            return Aim(head.columns, True, True, head.num_classes, head.minimised, (Accuracy(),), name=head.name)
        case NumberHead():
            return Aim(head.columns, True, False, head.num_outputs, head.minimised, (Mae(), Rmse()), name=head.name)
        case _:
            assert_never(head)
