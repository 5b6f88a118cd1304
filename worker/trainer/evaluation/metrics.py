"""Metric specs into torchmetrics. Imported only by runs that measure something: torchmetrics takes seconds to load."""

import warnings
from typing import Any, Protocol, assert_never

import torch

from stoker.spec.evaluation import (
    F1,
    R2,
    Accuracy,
    Auroc,
    FrechetDistance,
    Mae,
    MaximumMeanDiscrepancy,
    PrecisionScore,
    Recall,
    Rmse,
)
from worker.trainer.errors import SpecProblem
from worker.trainer.evaluation.distances import KernelDistance, NormalDistance
from worker.trainer.runtime.absent import absent

# Its plots, sounds and texts import these where they are installed: half of all the time and a fifth of all the memory that
# the imports of a run take.
with absent("matplotlib", "scipy", "transformers"):
    from torchmetrics import Metric as TorchMetric
    from torchmetrics.classification import (
        MulticlassAccuracy,
        MulticlassAUROC,
        MulticlassF1Score,
        MulticlassPrecision,
        MulticlassRecall,
        MultilabelAccuracy,
        MultilabelAUROC,
        MultilabelF1Score,
        MultilabelPrecision,
        MultilabelRecall,
    )
    from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score

Measured = Accuracy | PrecisionScore | Recall | F1 | Auroc | Mae | Rmse | R2 | MaximumMeanDiscrepancy | FrechetDistance
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


class OfLabels:
    """A torchmetrics metric of labels, which are there from a probability of one half on."""

    def __init__(self, metric: TorchMetric, device: torch.device) -> None:
        self._metric = metric.to(device).set_dtype(torch.float64)

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        if len(outputs):
            self._metric.update(outputs.sigmoid(), targets.long())

    def compute(self) -> float:
        return float(self._metric.compute())


class AreaOfLabels:
    """Mean area under the curve over the labels that are there in some samples and not in others."""

    def __init__(self, labels: int, device: torch.device) -> None:
        self._metric = MultilabelAUROC(labels, average="none", validate_args=False).to(device)
        self._hits = _Ones(labels).to(device)

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        self._metric.update(outputs.sigmoid(), targets.reshape(outputs.shape).long())
        self._hits.update(targets.reshape(outputs.shape))

    def compute(self) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of labels that are always there or never, which are left out here
            areas, (hits, count) = self._metric.compute().reshape(-1), self._hits.compute()
        return float(areas[(hits > 0) & (hits < count)].double().mean())


class _Ones(TorchMetric):
    """Samples that have each label, and samples."""

    full_state_update = False

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.ones: torch.Tensor
        self.count: torch.Tensor
        self.add_state("ones", torch.zeros(labels, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, targets: torch.Tensor) -> None:
        self.ones += targets.long().sum(0)
        self.count += len(targets)

    def compute(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.ones, self.count


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


def build_measure(spec: Measured, outputs: int, device: torch.device, *, labels: bool = False) -> Measure:
    """`labels`: outputs are for labels, each there or not, not for classes. Raises SpecProblem when there are fewer classes
    than top_k.
    """
    if labels:
        return _of_labels(spec, outputs, device)
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
        case MaximumMeanDiscrepancy(bandwidth=bandwidth, samples=samples):
            return Plain(KernelDistance(bandwidth, samples), device, takes_nothing=True)
        case FrechetDistance():
            return Plain(NormalDistance(outputs), device)
        case _:
            assert_never(spec)


def _of_labels(spec: Measured, labels: int, device: torch.device) -> Measure:
    common: dict[str, Any] = {"num_labels": labels, "validate_args": False}
    match spec:
        case Accuracy(top_k=1):
            return OfLabels(MultilabelAccuracy(**common, average="micro"), device)
        case PrecisionScore():
            return OfLabels(MultilabelPrecision(**common, average=spec.average), device)
        case Recall():
            return OfLabels(MultilabelRecall(**common, average=spec.average), device)
        case F1():
            return OfLabels(MultilabelF1Score(**common, average=spec.average), device)
        case Auroc():
            return AreaOfLabels(labels, device)
        case Accuracy():
            raise SpecProblem(
                "evaluation.metrics: top_k needs samples with exactly one right class; labels are each there or not"
            )
        case Mae() | Rmse() | R2() | MaximumMeanDiscrepancy() | FrechetDistance():
            raise SpecProblem(f"evaluation.metrics: {spec.type} is for numbers; use accuracy, precision, recall, f1 or auroc")
        case _:
            assert_never(spec)
