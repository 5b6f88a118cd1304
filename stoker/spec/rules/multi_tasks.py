"""What several tasks on one trunk ask of data, model, losses and of each other."""

from collections.abc import Iterator

from stoker.facts import ColumnFacts, TableFacts
from stoker.spec.data import Csv, Parquet
from stoker.spec.evaluation import Accuracy
from stoker.spec.loss import CrossEntropy, NegativeLogLikelihood
from stoker.spec.model import MLP, Layers
from stoker.spec.model.layers import Linear
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.task.multi_task import ClassHead, Head, MultiTask, NumberHead

LOSSES = {ClassHead: ("cross_entropy", "nll", "focal"), NumberHead: ("mse", "mae", "huber", "gaussian_nll")}


def _heads(case: Case) -> Iterator[tuple[str, Head]]:
    """Pointer and task."""
    if isinstance(case.spec.task, MultiTask):
        for index, head in enumerate(case.spec.task.tasks):
            yield f"/task/tasks/{index}", head


def needs_table(case: Case) -> Iterator[Hit]:
    source = case.spec.data.source
    if isinstance(case.spec.task, MultiTask) and not isinstance(source, Csv | Parquet):
        yield hit("/data/source/type", ("csv", "parquet"), source=source.type)


def needs_last_layer(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if not isinstance(case.spec.task, MultiTask):
        return
    if not isinstance(model, MLP | Layers):
        yield hit("/model/type", ("mlp", "layers"), what=f"{model.type} learns from no table")
    elif isinstance(model, Layers) and not isinstance(model.layers[-1], Linear):
        yield hit(f"/model/layers/{len(model.layers) - 1}", what=f"the last layer is {model.layers[-1].type}")


def common_loss(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.task, MultiTask) and case.spec.loss is not None:
        yield hit("/loss")


def sample_weights(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.task, MultiTask) and case.spec.data.sample_weight_column is not None:
        yield hit("/data/sample_weight_column")


def head_loss(case: Case) -> Iterator[Hit]:
    for pointer, head in _heads(case):
        fitting = LOSSES[type(head)]
        if head.loss is not None and head.loss.type not in fitting:
            yield hit(f"{pointer}/loss/type", fitting, loss=head.loss.type, task=head.type, fitting=", ".join(fitting))


def idle_loss_keys(case: Case) -> Iterator[Hit]:
    for pointer, head in _heads(case):
        if head.loss is not None and head.loss.sample_weight_normalization is not None:
            yield hit(f"{pointer}/loss/sample_weight_normalization", key="sample_weight_normalization")
        if isinstance(head.loss, CrossEntropy) and head.loss.chunk_tokens is not None:
            yield hit(f"{pointer}/loss/chunk_tokens", key="chunk_tokens")


def name_twice(case: Case) -> Iterator[Hit]:
    seen: set[str] = set()
    for pointer, head in _heads(case):
        if head.name in seen:
            yield hit(f"{pointer}/name", name=head.name)
        seen.add(head.name)


def nothing_weighs(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.task, MultiTask) and not any(head.weight for head in case.spec.task.tasks):
        yield hit("/task/tasks")


def _column(case: Case, name: str) -> ColumnFacts | None:
    columns = case.content.columns if isinstance(case.content, TableFacts) else ()
    return next((column for column in columns if column.name == name), None)


def classes(case: Case) -> Iterator[tuple[str, ClassHead, ColumnFacts]]:
    """Classifications whose column is known."""
    for pointer, head in _heads(case):
        if isinstance(head, ClassHead) and (column := _column(case, head.target)) is not None:
            yield pointer, head, column


def one_class(case: Case) -> Iterator[Hit]:
    for pointer, _, column in classes(case):
        if column.distinct is not None and column.distinct < 2:
            yield hit(f"{pointer}/target", total=column.distinct)


def uncounted(case: Case) -> Iterator[Hit]:
    for pointer, head, column in classes(case):
        if head.num_classes is None and column.distinct is None:
            yield hit(f"{pointer}/target")


def too_few(case: Case) -> Iterator[Hit]:
    for pointer, head, column in classes(case):
        if head.num_classes is not None and column.distinct is not None and column.distinct > head.num_classes:
            yield hit(f"{pointer}/num_classes", given=head.num_classes, total=column.distinct)


def unseen(case: Case) -> Iterator[Hit]:
    for pointer, head, column in classes(case):
        if head.num_classes is not None and column.distinct is not None and 2 <= column.distinct < head.num_classes:
            yield hit(f"{pointer}/num_classes", given=head.num_classes, total=column.distinct)


def outputs_differ(case: Case) -> Iterator[Hit]:
    for pointer, head in _heads(case):
        if isinstance(head, NumberHead) and head.num_outputs is not None and head.num_outputs != len(head.columns):
            yield hit(f"{pointer}/num_outputs", given=head.num_outputs, found=len(head.columns))


def class_weights(case: Case) -> Iterator[Hit]:
    for pointer, head in _heads(case):
        weights = head.loss.class_weights if isinstance(head.loss, CrossEntropy | NegativeLogLikelihood) else None
        if isinstance(weights, tuple) and head.count is not None and (len(weights) != head.count or not any(weights)):
            yield hit(f"{pointer}/loss/class_weights", given=len(weights), classes=head.count)


def top_k(case: Case) -> Iterator[Hit]:
    for index, metric in enumerate(case.spec.evaluation.metrics or ()):
        for _, head in _heads(case):
            few = isinstance(head, ClassHead) and head.num_classes is not None and isinstance(metric, Accuracy)
            if few and isinstance(metric, Accuracy) and head.count is not None and metric.top_k > head.count:
                yield hit(f"/evaluation/metrics/{index}/top_k", name=head.name, classes=head.count)


TASK = "/task"

MULTI_TASK_RULES = (
    Rule(
        "multi-task-needs-table", "R", (TASK, "/data/source"), needs_table,
        "several tasks need several targets per sample, and source {source} has one", "use csv or parquet, and name the columns",
    ),
    Rule(
        "multi-task-needs-last-layer", "R", (TASK, "/model"), needs_last_layer,
        "each task has a head in the place of a last linear layer, and {what}", "use mlp, or layers that end with a linear one",
    ),
    Rule(
        "multi-task-loss", "R", (TASK, "/loss"), common_loss,
        "`loss` is for one task, and each of several has its own", "move it to `loss` of an entry of `task.tasks`",
    ),
    Rule(
        "multi-task-sample-weights", "R", (TASK, "/data"), sample_weights,
        "weights of samples are for one task, and there are several", "remove `data.sample_weight_column`",
    ),
    Rule(
        "head-loss-fits", "R", (TASK,), head_loss,
        "loss {loss} does not fit task {task}", "use {fitting}, or leave `loss` out",
    ),
    Rule(
        "head-loss-idle", "R", (TASK,), idle_loss_keys,
        "`{key}` does nothing in one of several tasks", "remove it",
    ),
    Rule("task-name-twice", "R", (TASK,), name_twice, "two tasks are called {name}", "give each a name of its own"),
    Rule(
        "no-task-weighs", "R", (TASK,), nothing_weighs,
        "every weight in `task.tasks` is 0, so nothing would be learned", "give some task a weight above 0",
    ),
    Rule("head-one-class", "R", (TASK, "/data"), one_class, "the target holds {total} class; there is nothing to tell apart", "choose another target"),
    Rule(
        "head-classes-uncounted", "R", (TASK, "/data"), uncounted,
        "the target has too many distinct values to be classes", "use type regression, choose another target, or set num_classes",
    ),
    Rule(
        "head-too-few-classes", "R", (TASK, "/data"), too_few,
        "`num_classes` is {given}, but the column has {total} classes", "raise it, or leave it out",
    ),
    Rule(
        "head-unseen-classes", "W", (TASK, "/data"), unseen,
        "`num_classes` is {given}, but the column has {total} classes: the others are never learned", "lower it, or leave it out",
    ),
    Rule(
        "head-outputs-differ", "R", (TASK,), outputs_differ,
        "`num_outputs` is {given}, but there are {found} target columns", "leave it out",
    ),
    Rule(
        "head-class-weights", "R", (TASK, "/data"), class_weights,
        "`class_weights` has {given} entries for {classes} classes, or nothing but zeros", "give one weight per class, or `balanced`",
    ),
    Rule(
        "head-top-k", "R", (TASK, "/evaluation/metrics"), top_k,
        "`top_k` is more than the {classes} classes of task {name}", "lower top_k",
    ),
)  # fmt: skip
