"""Rules of `data.sample_weight_column`."""

from collections.abc import Iterator

from stoker.facts import TableFacts
from stoker.spec.data import Csv, Parquet
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task.multi_task import MultiTask
from stoker.text import shown


@rule(
    "multi-task-sample-weights",
    reads=("/task", "/data"),
    message="weights of samples are for one task, and there are several",
    hint="remove `data.sample_weight_column`",
)
def sample_weights(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.task, MultiTask) and case.spec.data.sample_weight_column is not None:
        yield hit("/data/sample_weight_column")


@rule(
    "sample-weights-need-tables",
    reads=("/data/sample_weight_column", "/data/source"),
    message="`data.sample_weight_column` names a column, and {source} has none",
    hint="remove it, or use csv or parquet",
)
def sample_weights_need_tables(case: Case) -> Iterator[Hit]:
    if case.spec.data.sample_weight_column is not None and not isinstance(case.spec.data.source, Csv | Parquet):
        yield hit("/data/sample_weight_column", source=case.spec.data.source.type)


@rule(
    "sample-weights-without-teacher",
    reads=("/data/sample_weight_column", "/training/distillation"),
    message="a teacher's samples all weigh the same",
    hint="remove `data.sample_weight_column` or `training.distillation`",
)
def sample_weights_without_teacher(case: Case) -> Iterator[Hit]:
    if case.spec.data.sample_weight_column is not None and case.spec.training.distillation is not None:
        yield hit("/data/sample_weight_column")


@rule(
    "sample-weights-negative",
    reads=("/data/sample_weight_column", "/data/source"),
    message="column {column} goes down to {least}, and weights are 0 or more",
    hint="use another column, or correct it before uploading",
)
def sample_weights_negative(case: Case) -> Iterator[Hit]:
    name = case.spec.data.sample_weight_column
    if name is None or not isinstance(case.content, TableFacts):
        return
    counts = next((column.counts for column in case.content.columns if column.name == name), None) or {}
    least = min((value for text in counts if (value := _number(text)) is not None), default=0.0)
    if least < 0:
        yield hit("/data/sample_weight_column", column=shown(name), least=f"{least:g}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
