"""Rules of `task`."""

from collections.abc import Iterator

from stoker.facts import TableFacts
from stoker.spec.data import Arrays, Csv, ImageFolder, Parquet
from stoker.spec.derived.automatic import targets_of
from stoker.spec.derived.problem import class_total
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.rules._steps import RUN_READS
from stoker.spec.task import Classification, Generation, MaskedLM, Multilabel, Regression
from stoker.spec.task.multi_task import MultiTask
from stoker.text import shown

SMALLEST, LARGEST = 0.0, 1.0


@rule(
    "target-missing",
    reads=("/data/source", "/task"),
    message="a table needs `task.target`, the column to predict",
    hint="add `target: COLUMN`",
)
def target_missing(case: Case) -> Iterator[Hit]:
    task, source = case.spec.task, case.spec.data.source
    if (
        isinstance(source, Csv | Parquet)
        and isinstance(task, Classification | Multilabel | Regression)
        and not targets_of(case.spec)
    ):
        content = case.content
        known = tuple(shown(column.name) for column in content.columns[:20]) if isinstance(content, TableFacts) else None
        yield hit("/task/target", known)


@rule(
    "target-unused",
    reads=("/data/source", "/task"),
    message="`task.target` names a column, and {source} has none: it carries its own targets",
    hint="remove it",
)
def target_unused(case: Case) -> Iterator[Hit]:
    several = isinstance(case.spec.task, MultiTask)  # which have a rule of their own
    if targets_of(case.spec) and not several and isinstance(case.spec.data.source, ImageFolder | Arrays):
        yield hit("/task/target", source=case.spec.data.source.type)


@rule(
    "one-class",
    reads=("/data/source", "/task"),
    message="the target holds {total} class, and classification needs at least 2",
    hint="choose another target",
)
def one_class(case: Case) -> Iterator[Hit]:
    total = class_total(case.spec, case.content) if isinstance(case.spec.task, Classification) else None
    if total is not None and total < 2:
        yield hit("/task/target" if targets_of(case.spec) else "/task", total=total)


@rule(
    "classes-uncounted",
    reads=("/data/source", "/task"),
    message="the target has too many distinct values to be classes",
    hint="use task regression, choose another target, or set num_classes",
)
def classes_uncounted(case: Case) -> Iterator[Hit]:
    task = case.spec.task
    if isinstance(task, Classification) and task.num_classes is None and case.facts is not None:
        column = case.columns.get(task.target or "")
        array = case.arrays.get("targets")
        if (column is not None and column.distinct is None) or (array is not None and array.distinct is None):
            yield hit("/task/target" if column is not None else "/task")


@rule(
    "too-few-classes",
    reads=("/data/source", "/task"),
    message="`task.num_classes` is {given}, but the data set has {total} classes",
    hint="raise it, or leave it out",
)
def too_few_classes(case: Case) -> Iterator[Hit]:
    task, total = case.spec.task, class_total(case.spec, case.content)
    if isinstance(task, Classification) and task.num_classes is not None and total is not None and total > task.num_classes:
        yield hit("/task/num_classes", given=task.num_classes, total=total)


@rule(
    "unseen-classes",
    reads=("/data/source", "/task"),
    message="`task.num_classes` is {given}, but the data set has {total} classes: the others are never learned",
    hint="lower it, or leave it out",
    level="W",
)
def unseen_classes(case: Case) -> Iterator[Hit]:
    task, total = case.spec.task, class_total(case.spec, case.content)
    if isinstance(task, Classification) and task.num_classes is not None and total is not None and 2 <= total < task.num_classes:
        yield hit("/task/num_classes", given=task.num_classes, total=total)


@rule(
    "outputs-differ",
    reads=("/data/source", "/task"),
    message="`task.{key}` is {given}, but the data set has {found}",
    hint="leave it out",
)
def outputs_differ(case: Case) -> Iterator[Hit]:
    task = case.spec.task
    match task:
        case Regression(num_outputs=int() as given):
            key = "num_outputs"
        case Multilabel(num_labels=int() as given):
            key = "num_labels"
        case _:
            return
    array = case.arrays.get("targets")
    found = len(targets_of(case.spec)) or (None if array is None else (array.shape[1] if len(array.shape) == 2 else 1))
    if found is not None and found != given:
        yield hit(f"/task/{key}", key=key, given=given, found=found)


@rule(
    "text-one-task",
    reads=("/data/source", "/task/type"),
    message="task multi_task learns from columns of numbers, not from texts",
    hint="use classification, multilabel or regression",
)
def text_several_tasks(case: Case) -> Iterator[Hit]:
    if case.text_in_table and isinstance(case.spec.task, MultiTask):
        yield hit("/task/type", ("classification", "multilabel", "regression"))


@rule(
    "generator-never-learns",
    reads=("/task/discriminator_steps", *RUN_READS),
    message="the generator is updated every {steps} steps, and the run has {total}",
    hint="set `task.discriminator_steps` to {total} or less, or train longer",
)
def generator_never_learns(case: Case) -> Iterator[Hit]:
    task, total = case.spec.task, case.total_steps
    if isinstance(task, Generation) and total is not None and total < task.discriminator_steps:
        yield hit("/task/discriminator_steps", steps=task.discriminator_steps, total=total)


@rule(
    "labels-not-binary",
    reads=("/task", "/data/source"),
    message="column {column} holds {value}, and labels are 0 and 1",
    hint="use task classification for one of several classes, or encode the column as 0 and 1",
)
def labels_not_binary(case: Case) -> Iterator[Hit]:
    if not isinstance(case.spec.task, Multilabel) or not isinstance(case.content, TableFacts):
        return
    columns = {column.name: column for column in case.content.columns}
    for index, name in enumerate(targets_of(case.spec)):
        counts = columns[name].counts if name in columns else None
        other = next((value for value in counts or () if not _is_label(value)), None)
        if other is not None:
            at = "/task/target" if isinstance(case.spec.task.target, str) else f"/task/target/{index}"
            yield hit(at, column=shown(name), value=shown(other))


def _is_label(text: str) -> bool:
    """Whether a value, as text, is 0 or 1; booleans are."""
    if text.lower() in ("true", "false"):
        return True
    try:
        return float(text) in (SMALLEST, LARGEST)
    except ValueError:
        return False


@rule(
    "mask-shares",
    reads=("/task",),
    message="masked_share and random_share add up to {total}, more than all",
    hint="lower one of them",
)
def shares_beyond_all(case: Case) -> Iterator[Hit]:
    task = case.spec.task
    if isinstance(task, MaskedLM) and task.masked_share + task.random_share > 1 + 1e-9:
        yield hit("/task/masked_share", total=f"{task.masked_share + task.random_share:g}")
