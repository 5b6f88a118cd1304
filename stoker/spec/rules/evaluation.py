"""Rules of `evaluation`."""

from collections.abc import Iterator
from typing import assert_never

from stoker.spec.evaluation import (
    F1,
    R2,
    Accuracy,
    Auroc,
    BitsPerByte,
    FrechetDistance,
    Mae,
    MaximumMeanDiscrepancy,
    MetricSpec,
    Perplexity,
    PrecisionScore,
    Recall,
    Rmse,
)
from stoker.spec.loss import GaussianNLL
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task import CausalLM, Classification, Generation, MaskedLM, Multilabel, Regression, Task
from stoker.spec.task.multi_task import ClassHead, MultiTask, UncertaintyWeighting, metrics_of

MOST_COVARIANCES = 1024
"""Numbers of a sample whose covariances, each with each, are worth their memory: 8 MiB."""
METRICS_OF = {
    Classification: ("accuracy", "precision", "recall", "f1", "auroc"),
    Multilabel: ("accuracy", "precision", "recall", "f1", "auroc"),
    Regression: ("mae", "rmse", "r2"),
    CausalLM: ("perplexity", "bits_per_byte"),
    MaskedLM: ("perplexity",),
    Generation: ("mmd", "frechet_distance"),
    MultiTask: ("accuracy", "precision", "recall", "f1", "auroc", "mae", "rmse", "r2"),
}


@rule(
    "head-top-k",
    reads=("/task", "/evaluation/metrics"),
    message="`top_k` is more than the {classes} classes of task {name}",
    hint="lower top_k",
)
def top_k(case: Case) -> Iterator[Hit]:
    for index, metric in enumerate(case.spec.evaluation.metrics or ()):
        for _, head in case.heads:
            few = isinstance(head, ClassHead) and head.num_classes is not None and isinstance(metric, Accuracy)
            if few and isinstance(metric, Accuracy) and head.count is not None and metric.top_k > head.count:
                yield hit(f"/evaluation/metrics/{index}/top_k", name=head.name, classes=head.count)


@rule(
    "frechet-numbers",
    reads=("/evaluation/metrics", "/data", "/task"),
    message="frechet_distance compares the covariances of all {numbers} numbers of a sample, and {most} are the most",
    hint="use mmd",
)
def many_covariances(case: Case) -> Iterator[Hit]:
    numbers = case.problem.outputs
    for index, metric in enumerate(case.spec.evaluation.metrics or ()):
        if isinstance(metric, FrechetDistance) and numbers is not None and numbers > MOST_COVARIANCES:
            yield hit(f"/evaluation/metrics/{index}", numbers=numbers, most=MOST_COVARIANCES)


@rule(
    "metric-fits-task",
    reads=("/task/type", "/evaluation/metrics"),
    message="metric {metric} is not defined for task {task}",
    hint="use one of {fitting}",
)
def metric_fits_task(case: Case) -> Iterator[Hit]:
    task = case.spec.task
    for index, metric in enumerate(case.spec.evaluation.metrics or ()):
        if not (
            any(metrics_of(head, (metric,)) for head in task.tasks)
            if isinstance(task, MultiTask)
            else isinstance(task, _tasks_of(metric))
        ):
            fitting = METRICS_OF[type(task)]
            yield hit(f"/evaluation/metrics/{index}", fitting, metric=metric.type, task=task.type, fitting=", ".join(fitting))


def _tasks_of(metric: MetricSpec) -> tuple[type[Task], ...]:
    match metric:
        case Accuracy() | PrecisionScore() | Recall() | F1() | Auroc():
            return (Classification, Multilabel)
        case Mae() | Rmse() | R2():
            return (Regression,)
        case Perplexity():
            return (CausalLM, MaskedLM)
        case BitsPerByte():
            return (CausalLM,)
        case MaximumMeanDiscrepancy() | FrechetDistance():
            return (Generation,)
        case _:
            assert_never(metric)


@rule(
    "metric-twice",
    reads=("/task/type", "/evaluation/metrics"),
    message="metric `{key}` stands in the list twice",
    hint="remove one",
)
def metric_twice(case: Case) -> Iterator[Hit]:
    seen: set[str] = set()
    for index, metric in enumerate(case.spec.evaluation.metrics or ()):
        if metric.key in seen:
            yield hit(f"/evaluation/metrics/{index}", key=metric.key)
        seen.add(metric.key)


@rule(
    "evaluation-batches-unused",
    reads=("/evaluation", "/data/split"),
    message="`evaluation.batches` bounds validation, and `data.split.validation` is 0",
    hint="remove it, or hold out a share",
    level="W",
)
def evaluation_batches_unused(case: Case) -> Iterator[Hit]:
    if case.spec.evaluation.batches is not None and case.spec.data.split.validation == 0:
        yield hit("/evaluation/batches")


@rule(
    "top-k-beyond-classes",
    reads=("/evaluation/metrics", "/task", "/data"),
    message="`top_k` is {top_k}, but there are {classes} classes",
    hint="lower top_k",
)
def top_k_beyond_classes(case: Case) -> Iterator[Hit]:
    task = case.spec.task
    if not isinstance(task, Classification) or task.num_classes is None:
        return
    for index, metric in enumerate(case.spec.evaluation.metrics or ()):
        if isinstance(metric, Accuracy) and metric.top_k > task.num_classes:
            yield hit(f"/evaluation/metrics/{index}/top_k", top_k=metric.top_k, classes=task.num_classes)


@rule(
    "labels-top-k",
    reads=("/task", "/evaluation/metrics"),
    message="`top_k` is for classes, of which one is right; labels are each there or not",
    hint="remove it",
)
def labels_top_k(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.task, Multilabel):
        for index, metric in enumerate(case.spec.evaluation.metrics or ()):
            if isinstance(metric, Accuracy) and metric.top_k > 1:
                yield hit(f"/evaluation/metrics/{index}/top_k")


@rule(
    "fit-needs-validation",
    reads=("/evaluation/fit_diagnosis", "/data/split"),
    message="`evaluation.fit_diagnosis` compares with the validation split, and `data.split.validation` is 0",
    hint="hold out a share, for example 0.1",
)
def fit_unseen(case: Case) -> Iterator[Hit]:
    if case.spec.evaluation.fit_diagnosis is not None and case.spec.data.split.validation == 0:
        yield hit("/evaluation/fit_diagnosis")


@rule(
    "fit-of-density",
    reads=("/evaluation/fit_diagnosis", "/loss"),
    message="`evaluation.fit_diagnosis` says what share of a loss is explained, and gaussian_nll has no zero",
    hint="use mse, or remove it",
)
def fit_of_density(case: Case) -> Iterator[Hit]:
    task = case.spec.task
    losses = [head.loss for head in task.tasks] if isinstance(task, MultiTask) else [case.spec.loss]
    if case.spec.evaluation.fit_diagnosis is not None and any(isinstance(loss, GaussianNLL) for loss in losses):
        yield hit("/evaluation/fit_diagnosis")


@rule(
    "fit-of-learned-weights",
    reads=("/evaluation/fit_diagnosis", "/task"),
    message="`evaluation.fit_diagnosis` says what share of a loss is explained, and learned weights of tasks leave it no zero",
    hint="set `task.weighting` to fixed, or remove it",
)
def fit_of_learned_weights(case: Case) -> Iterator[Hit]:
    task = case.spec.task
    learned = isinstance(task, MultiTask) and isinstance(task.weighting, UncertaintyWeighting)
    if case.spec.evaluation.fit_diagnosis is not None and learned:
        yield hit("/evaluation/fit_diagnosis")
