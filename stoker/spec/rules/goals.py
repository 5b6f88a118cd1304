"""What is minimised and measured: loss, metrics and monitors fit the task."""

from collections.abc import Iterator
from typing import assert_never

from stoker.spec.derived.automatic import better
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
from stoker.spec.loss import CrossEntropy, NegativeLogLikelihood
from stoker.spec.optimizer import SGD
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.schedule import Plateau
from stoker.spec.task import CausalLM, Classification, Generation, MaskedLM, Multilabel, Regression, Task
from stoker.spec.task.multi_task import MultiTask, metrics_of
from stoker.text import nearest, shown


def loss_fits_task(case: Case) -> Iterator[Hit]:
    loss, task = case.spec.loss, case.spec.task
    fitting = losses_of(task)
    if loss is not None and fitting and loss.type not in fitting:
        yield hit("/loss/type", fitting, loss=loss.type, task=task.type, fitting=", ".join(fitting))


def losses_of(task: Task) -> tuple[str, ...]:
    """What may be minimised, the usual one first."""
    match task:
        case Classification() | CausalLM():
            return ("cross_entropy", "nll", "focal")
        case MaskedLM():
            return ("cross_entropy", "nll")
        case Multilabel():
            return ("bce", "focal")
        case Regression():
            return ("mse", "mae", "huber", "gaussian_nll")
        case Generation():
            return ("non_saturating", "hinge", "wasserstein")
        case MultiTask():
            return ()  # each task has its own
        case _:
            assert_never(task)


METRICS_OF = {
    Classification: ("accuracy", "precision", "recall", "f1", "auroc"),
    Multilabel: ("accuracy", "precision", "recall", "f1", "auroc"),
    Regression: ("mae", "rmse", "r2"),
    CausalLM: ("perplexity", "bits_per_byte"),
    MaskedLM: ("perplexity",),
    Generation: ("mmd", "frechet_distance"),
    MultiTask: ("accuracy", "precision", "recall", "f1", "auroc", "mae", "rmse", "r2"),
}


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


def metric_twice(case: Case) -> Iterator[Hit]:
    seen: set[str] = set()
    for index, metric in enumerate(case.spec.evaluation.metrics or ()):
        if metric.key in seen:
            yield hit(f"/evaluation/metrics/{index}", key=metric.key)
        seen.add(metric.key)


def monitored(case: Case) -> tuple[str, ...]:
    """Metrics of the validation split that the run reports."""
    task, metrics = case.spec.task, case.spec.evaluation.metrics or ()
    keys = ["loss", *(task.modes(metrics) if isinstance(task, MultiTask) else (metric.key for metric in metrics))]
    return tuple(f"validation/{key}" for key in keys)


def _monitors(case: Case) -> Iterator[tuple[str, str, str | None]]:
    """Pointer, metric and mode of everything that watches a metric."""
    checkpoint, stopping = case.spec.checkpoint, case.spec.training.early_stopping
    yield "/checkpoint", checkpoint.monitor, checkpoint.mode
    if stopping is not None:
        yield "/training/early_stopping", stopping.monitor, stopping.mode
    if isinstance(case.spec.schedule, Plateau):
        yield "/schedule", case.spec.schedule.monitor, case.spec.schedule.mode


def monitor_not_logged(case: Case) -> Iterator[Hit]:
    known = monitored(case)
    for pointer, monitor, _ in _monitors(case):
        if monitor not in known:
            guess = nearest(monitor, known) or known[0]
            yield hit(f"{pointer}/monitor", known, monitor=shown(monitor), guess=guess)


def monitor_mode(case: Case) -> Iterator[Hit]:
    for pointer, monitor, mode in _monitors(case):
        right = better(case.spec, monitor)
        if mode is not None and right is not None and mode != right:
            yield hit(f"{pointer}/mode", (right,), monitor=monitor, mode=mode, right=right)


def early_stopping_blind(case: Case) -> Iterator[Hit]:
    if case.spec.training.early_stopping is not None and case.spec.data.split.validation == 0:
        yield hit("/training/early_stopping")


def keep_best_blind(case: Case) -> Iterator[Hit]:
    if case.spec.checkpoint.keep_best > 0 and case.spec.data.split.validation == 0:
        yield hit("/checkpoint/keep_best")


def evaluation_batches_unused(case: Case) -> Iterator[Hit]:
    if case.spec.evaluation.batches is not None and case.spec.data.split.validation == 0:
        yield hit("/evaluation/batches")


def class_weights_need_classes(case: Case) -> Iterator[Hit]:
    loss = case.spec.loss
    if (
        isinstance(loss, CrossEntropy | NegativeLogLikelihood)
        and loss.class_weights is not None
        and isinstance(case.spec.task, CausalLM | MaskedLM)
    ):
        yield hit("/loss/class_weights")


def class_weights_length(case: Case) -> Iterator[Hit]:
    loss, task = case.spec.loss, case.spec.task
    if (
        not isinstance(loss, CrossEntropy | NegativeLogLikelihood)
        or not isinstance(loss.class_weights, tuple)
        or not isinstance(task, Classification)
    ):
        return
    if task.num_classes is not None and len(loss.class_weights) != task.num_classes:
        yield hit("/loss/class_weights", given=len(loss.class_weights), classes=task.num_classes)


def class_weights_zero(case: Case) -> Iterator[Hit]:
    loss = case.spec.loss
    if (
        isinstance(loss, CrossEntropy | NegativeLogLikelihood)
        and isinstance(loss.class_weights, tuple)
        and not any(loss.class_weights)
    ):
        yield hit("/loss/class_weights")


def top_k_beyond_classes(case: Case) -> Iterator[Hit]:
    task = case.spec.task
    if not isinstance(task, Classification) or task.num_classes is None:
        return
    for index, metric in enumerate(case.spec.evaluation.metrics or ()):
        if isinstance(metric, Accuracy) and metric.top_k > task.num_classes:
            yield hit(f"/evaluation/metrics/{index}/top_k", top_k=metric.top_k, classes=task.num_classes)


def nesterov_needs_momentum(case: Case) -> Iterator[Hit]:
    optimizer = case.spec.optimizer
    if isinstance(optimizer, SGD) and optimizer.nesterov and (optimizer.momentum == 0 or optimizer.dampening > 0):
        yield hit("/optimizer/nesterov")


def dampening_needs_momentum(case: Case) -> Iterator[Hit]:
    optimizer = case.spec.optimizer
    if isinstance(optimizer, SGD) and optimizer.dampening > 0 and optimizer.momentum == 0:
        yield hit("/optimizer/dampening")


METRIC_READS = ("/task/type", "/evaluation/metrics")
MONITOR_READS = (*METRIC_READS, "/checkpoint", "/training/early_stopping", "/schedule")

GOAL_RULES = (
    Rule(
        "loss-fits-task", "R", ("/task/type", "/loss"), loss_fits_task,
        "loss {loss} does not fit task {task}", "use {fitting}, or leave `loss` out",
    ),
    Rule(
        "metric-fits-task", "R", METRIC_READS, metric_fits_task,
        "metric {metric} is not defined for task {task}", "use one of {fitting}",
    ),
    Rule("metric-twice", "R", METRIC_READS, metric_twice, "metric `{key}` stands in the list twice", "remove one"),
    Rule(
        "monitor-not-logged", "R", MONITOR_READS, monitor_not_logged,
        "the run never reports {monitor}", "did you mean `{guess}`? Add the metric to `evaluation.metrics` if it is missing there",
    ),
    Rule(
        "monitor-mode", "R", MONITOR_READS, monitor_mode,
        "`mode: {mode}` would keep the worst {monitor}", "set {right}, or leave `mode` out",
    ),
    Rule(
        "early-stopping-needs-validation", "R", ("/training/early_stopping", "/data/split"), early_stopping_blind,
        "early stopping watches the validation split, and `data.split.validation` is 0", "hold out a share, for example 0.1, or remove early_stopping",
    ),
    Rule(
        "keep-best-needs-validation", "R", ("/checkpoint", "/data/split"), keep_best_blind,
        "`checkpoint.keep_best` watches the validation split, and `data.split.validation` is 0", "hold out a share, or set keep_best: 0",
    ),
    Rule(
        "evaluation-batches-unused", "W", ("/evaluation", "/data/split"), evaluation_batches_unused,
        "`evaluation.batches` bounds validation, and `data.split.validation` is 0", "remove it, or hold out a share",
    ),
    Rule(
        "class-weights-need-classes", "R", ("/loss", "/task/type"), class_weights_need_classes,
        "`loss.class_weights` is for classification, not for tokens", "remove it",
    ),
    Rule(
        "class-weights-length", "R", ("/loss", "/task", "/data"), class_weights_length,
        "`loss.class_weights` has {given} entries for {classes} classes", "give one weight per class, or `balanced`",
    ),
    Rule(
        "class-weights-zero", "R", ("/loss",), class_weights_zero,
        "every entry of `loss.class_weights` is 0, so nothing would be learned", "give some class a weight above 0",
    ),
    Rule(
        "top-k-beyond-classes", "R", ("/evaluation/metrics", "/task", "/data"), top_k_beyond_classes,
        "`top_k` is {top_k}, but there are {classes} classes", "lower top_k",
    ),
    Rule(
        "nesterov-needs-momentum", "R", ("/optimizer",), nesterov_needs_momentum,
        "nesterov needs momentum above 0 and dampening 0", "set momentum, for example 0.9, and remove dampening, or set nesterov: false",
    ),
    Rule(
        "dampening-needs-momentum", "W", ("/optimizer",), dampening_needs_momentum,
        "dampening does nothing without momentum", "set momentum or remove dampening",
    ),
)  # fmt: skip
