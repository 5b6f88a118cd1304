"""Rules of `task.tasks`."""

from collections.abc import Iterator

from stoker.facts import ColumnFacts
from stoker.spec.loss import CrossEntropy, NegativeLogLikelihood
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task.multi_task import ClassHead, MultiTask, NumberHead

LOSSES = {ClassHead: ("cross_entropy", "nll", "focal"), NumberHead: ("mse", "mae", "huber", "gaussian_nll")}


@rule(
    "head-loss-fits",
    reads=("/task",),
    message="loss {loss} does not fit task {task}",
    hint="use {fitting}, or leave `loss` out",
)
def head_loss(case: Case) -> Iterator[Hit]:
    for pointer, head in case.heads:
        fitting = LOSSES[type(head)]
        if head.loss is not None and head.loss.type not in fitting:
            yield hit(f"{pointer}/loss/type", fitting, loss=head.loss.type, task=head.type, fitting=", ".join(fitting))


@rule(
    "head-loss-idle",
    reads=("/task",),
    message="`{key}` has no effect in one of several tasks",
    hint="remove `{key}`",
)
def idle_loss_keys(case: Case) -> Iterator[Hit]:
    for pointer, head in case.heads:
        if head.loss is not None and head.loss.sample_weight_normalization is not None:
            yield hit(f"{pointer}/loss/sample_weight_normalization", key="sample_weight_normalization")
        if isinstance(head.loss, CrossEntropy) and head.loss.chunk_tokens is not None:
            yield hit(f"{pointer}/loss/chunk_tokens", key="chunk_tokens")


@rule(
    "task-name-twice",
    reads=("/task",),
    message="two tasks are named {name}",
    hint="give each task a different name",
)
def name_twice(case: Case) -> Iterator[Hit]:
    seen: set[str] = set()
    for pointer, head in case.heads:
        if head.name in seen:
            yield hit(f"{pointer}/name", name=head.name)
        seen.add(head.name)


@rule(
    "no-task-weighs",
    reads=("/task",),
    message="every weight in `task.tasks` is 0, so nothing would be learned",
    hint="give some task a weight above 0",
)
def nothing_weighs(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.task, MultiTask) and not any(head.weight for head in case.spec.task.tasks):
        yield hit("/task/tasks")


@rule(
    "head-one-class",
    reads=("/task", "/data"),
    message="the target holds {total} class, and classification needs at least 2",
    hint="choose another target",
)
def one_class(case: Case) -> Iterator[Hit]:
    for pointer, _, column in classes(case):
        if column.distinct is not None and column.distinct < 2:
            yield hit(f"{pointer}/target", total=column.distinct)


def classes(case: Case) -> Iterator[tuple[str, ClassHead, ColumnFacts]]:
    """Classifications whose column is known."""
    for pointer, head in case.heads:
        if isinstance(head, ClassHead) and (column := case.columns.get(head.target)) is not None:
            yield pointer, head, column


@rule(
    "head-classes-uncounted",
    reads=("/task", "/data"),
    message="the target has too many distinct values to be classes",
    hint="use type regression, choose another target, or set num_classes",
)
def uncounted(case: Case) -> Iterator[Hit]:
    for pointer, head, column in classes(case):
        if head.num_classes is None and column.distinct is None:
            yield hit(f"{pointer}/target")


@rule(
    "head-too-few-classes",
    reads=("/task", "/data"),
    message="`num_classes` is {given}, but the column has {total} classes",
    hint="raise it, or leave it out",
)
def too_few(case: Case) -> Iterator[Hit]:
    for pointer, head, column in classes(case):
        if head.num_classes is not None and column.distinct is not None and column.distinct > head.num_classes:
            yield hit(f"{pointer}/num_classes", given=head.num_classes, total=column.distinct)


@rule(
    "head-unseen-classes",
    reads=("/task", "/data"),
    message="`num_classes` is {given}, but the column has {total} classes: the others are never learned",
    hint="lower it, or leave it out",
    level="W",
)
def unseen(case: Case) -> Iterator[Hit]:
    for pointer, head, column in classes(case):
        if head.num_classes is not None and column.distinct is not None and 2 <= column.distinct < head.num_classes:
            yield hit(f"{pointer}/num_classes", given=head.num_classes, total=column.distinct)


@rule(
    "head-outputs-differ",
    reads=("/task",),
    message="`num_outputs` is {given}, but there are {found} target columns",
    hint="leave it out",
)
def outputs_differ(case: Case) -> Iterator[Hit]:
    for pointer, head in case.heads:
        if isinstance(head, NumberHead) and head.num_outputs is not None and head.num_outputs != len(head.columns):
            yield hit(f"{pointer}/num_outputs", given=head.num_outputs, found=len(head.columns))


@rule(
    "head-class-weights",
    reads=("/task", "/data"),
    message="`class_weights` has {given} entries for {classes} classes, or nothing but zeros",
    hint="give one weight per class, or `balanced`",
)
def class_weights(case: Case) -> Iterator[Hit]:
    for pointer, head in case.heads:
        weights = head.loss.class_weights if isinstance(head.loss, CrossEntropy | NegativeLogLikelihood) else None
        if isinstance(weights, tuple) and head.count is not None and (len(weights) != head.count or not any(weights)):
            yield hit(f"{pointer}/loss/class_weights", given=len(weights), classes=head.count)
