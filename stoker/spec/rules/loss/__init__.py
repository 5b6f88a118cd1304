"""Rules of `loss` that hold for several losses."""

from collections.abc import Iterator
from typing import assert_never

from stoker.spec.loss import BinaryCrossEntropy, CrossEntropy, Focal
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task import CausalLM, Classification, Generation, MaskedLM, Multilabel, Regression, Task
from stoker.spec.task.multi_task import MultiTask


@rule(
    "multi-task-loss",
    reads=("/task", "/loss"),
    message="`loss` is for one task, and each of several has its own",
    hint="move it to `loss` of an entry of `task.tasks`",
)
def common_loss(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.task, MultiTask) and case.spec.loss is not None:
        yield hit("/loss")


@rule(
    "loss-fits-task",
    reads=("/task/type", "/loss"),
    message="loss {loss} does not fit task {task}",
    hint="use {fitting}, or leave `loss` out",
)
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


@rule(
    "loss-factors-length",
    reads=("/loss", "/task", "/data"),
    message="`loss.{key}` has {given} entries for {count} classes or labels",
    hint="give one for each, or a single number",
)
def factors_length(case: Case) -> Iterator[Hit]:
    loss, count = case.spec.loss, _decided(case)
    if count is None:
        return
    match loss:
        case Focal(alpha=tuple() as factors):
            key = "alpha"
        case BinaryCrossEntropy(pos_weight=tuple() as factors):
            key = "pos_weight"
        case _:
            return
    if len(factors) != count:
        yield hit(f"/loss/{key}", key=key, given=len(factors), count=count)


def _decided(case: Case) -> int | None:
    """Classes or labels that the head decides on."""
    match case.spec.task:
        case Classification(num_classes=count) | Multilabel(num_labels=count):
            return count
        case CausalLM():
            return case.problem.outputs
        case _:
            return None


@rule(
    "distillation-needs-cross-entropy",
    reads=("/loss", "/task", "/training/distillation"),
    message="a teacher's probabilities go with cross_entropy, not with {loss}",
    hint="use cross_entropy, or remove `training.distillation`",
)
def lesson_needs_cross_entropy(case: Case) -> Iterator[Hit]:
    loss = case.spec.loss
    if case.spec.training.distillation is None or not isinstance(case.spec.task, Classification | CausalLM):
        return
    if loss is not None and not isinstance(loss, CrossEntropy):
        yield hit("/loss/type", ("cross_entropy",), loss=loss.type)


@rule(
    "sample-weight-normalization-unused",
    reads=("/loss", "/data/sample_weight_column"),
    message="`loss.sample_weight_normalization` says how weighted samples are averaged, and no sample has a weight",
    hint="set `data.sample_weight_column`, or remove it",
)
def normalization_of_nothing(case: Case) -> Iterator[Hit]:
    loss = case.spec.loss
    if loss is not None and loss.sample_weight_normalization is not None and case.spec.data.sample_weight_column is None:
        yield hit("/loss/sample_weight_normalization")
