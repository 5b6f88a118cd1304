"""Metric specs into torchmetrics. Imported only by runs that measure something: torchmetrics takes seconds to load."""

import warnings
from typing import Any, Protocol, assert_never

import torch
from torchmetrics import Metric as TorchMetric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score

from stoker.spec.evaluation import F1, R2, Accuracy, Auroc, Mae, PrecisionScore, Recall, Rmse
from worker.trainer.errors import SpecProblem

Measured = Accuracy | PrecisionScore | Recall | F1 | Auroc | Mae | Rmse | R2
"""Metrics of outputs against targets; the others follow from the loss."""


class Measure(Protocol):
    """One metric over one split. A rank without samples updates with none, so that all of them hold states of one shape."""

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """(n, outputs) and (n,) classes or (n, outputs) numbers."""

    def compute(self) -> float:
        """Over all ranks; every rank calls it. NaN where it is not defined."""


class Plain:
    """A torchmetrics metric, summed in float64."""

    def __init__(self, metric: TorchMetric, device: torch.device, *, takes_nothing: bool = False) -> None:
        self._metric = metric.to(device).set_dtype(torch.float64)
        self._takes_nothing = takes_nothing
        """Whether an update without samples is possible, and needed for the shape of its states."""

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        if len(outputs) or self._takes_nothing:
            self._metric.update(outputs, targets)

    def compute(self) -> float:
        try:
            return float(self._metric.compute())
        except ValueError:  # r2 of fewer than two samples
            return float("nan")


class OneAgainstRest:
    """Mean area under the curve over the classes that have both positive and negative samples."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self._metric = MulticlassAUROC(classes, average="none", validate_args=False).to(device)
        self._hits = _Counts(classes).to(device)

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        self._metric.update(outputs.softmax(-1), targets)
        self._hits.update(targets)

    def compute(self) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of classes without samples, which are left out here
            areas, hits = self._metric.compute(), self._hits.compute()
        defined = (hits > 0) & (hits < hits.sum())
        return float(areas[defined].double().mean())


class _Counts(TorchMetric):
    """Samples per class."""

    full_state_update = False

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.counts: torch.Tensor
        self.add_state("counts", torch.zeros(classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, targets: torch.Tensor) -> None:
        self.counts += torch.bincount(targets, minlength=len(self.counts))

    def compute(self) -> torch.Tensor:
        return self.counts


def build_measure(spec: Measured, outputs: int, device: torch.device) -> Measure:
    """Raises SpecProblem when there are fewer classes than top_k."""
    common: dict[str, Any] = {"num_classes": outputs, "validate_args": False}
    match spec:
        case Accuracy():
            if spec.top_k > outputs:
                raise SpecProblem(
                    f"evaluation.metrics: accuracy among the {spec.top_k} likeliest of {outputs} classes is always 1; lower top_k"
                )
            return Plain(MulticlassAccuracy(**common, average="micro", top_k=spec.top_k), device)
        case PrecisionScore():
            return Plain(MulticlassPrecision(**common, average=spec.average), device)
        case Recall():
            return Plain(MulticlassRecall(**common, average=spec.average), device)
        case F1():
            return Plain(MulticlassF1Score(**common, average=spec.average), device)
        case Auroc():
            return OneAgainstRest(outputs, device)
        case Mae():
            return Plain(MeanAbsoluteError(), device)
        case Rmse():
            return Plain(MeanSquaredError(squared=False), device)
        case R2():
            return Plain(R2Score(), device, takes_nothing=True)
        case _:
            assert_never(spec)
