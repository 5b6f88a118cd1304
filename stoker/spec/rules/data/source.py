"""Rules of `data.source`: formats, columns and arrays of the data set."""

from collections.abc import Iterator, Sequence

from stoker.facts import ArrayFacts, ArrayFile, ImageFacts, TableFacts, TextFacts, WeightFacts
from stoker.spec.data import Arrays, Csv, ImageFolder, Parquet, Text, reads_text, text_column
from stoker.spec.derived.automatic import targets_of
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task import CausalLM, Classification, Generation, MaskedLM, Multilabel
from stoker.spec.task.multi_task import MultiTask, NumberHead
from stoker.text import nearest, shown


@rule(
    "multi-task-needs-table",
    reads=("/task", "/data/source"),
    message="several tasks need several targets per sample, and source {source} has one",
    hint="use csv or parquet, and name the columns",
)
def needs_table(case: Case) -> Iterator[Hit]:
    source = case.spec.data.source
    if isinstance(case.spec.task, MultiTask) and not isinstance(source, Csv | Parquet):
        yield hit("/data/source/type", ("csv", "parquet"), source=source.type)


@rule(
    "dataset-mismatch",
    reads=("/data/source",),
    message="the data set that was looked up is {found}",
    hint="name that one, or leave the version out",
)
def dataset_mismatch(case: Case) -> Iterator[Hit]:
    if case.facts is None:
        return
    name, _, version = case.spec.data.source.dataset.partition("@")
    if name != case.facts.name or (version and int(version) != case.facts.version):
        yield hit("/data/source/dataset", found=f"{case.facts.name}@{case.facts.version}")


@rule(
    "source-fits-task",
    reads=("/data/source/type", "/task/type"),
    message="task {task} does not learn from source {source}",
    hint="use {fitting}, or another task",
)
def source_fits_task(case: Case) -> Iterator[Hit]:
    text, language = isinstance(case.spec.data.source, Text), isinstance(case.spec.task, CausalLM | MaskedLM)
    if text != language:
        fitting = "text" if language else "csv, parquet, image_folder, arrays"
        holes = {"source": case.spec.data.source.type, "task": case.spec.task.type, "fitting": fitting}
        yield hit("/data/source/type", tuple(fitting.split(", ")), **holes)


@rule(
    "content-fits-source",
    reads=("/data/source",),
    message="the data set holds {found}, not {source}",
    hint="set `data.source.type: {found}`",
)
def content_fits_source(case: Case) -> Iterator[Hit]:
    content, source = case.content, case.spec.data.source
    match content:
        case None:
            return
        case TableFacts(format="csv"):
            fits, found = isinstance(source, Csv), "csv"
        case TableFacts():
            fits, found = isinstance(source, Parquet), "parquet"
        case TextFacts():
            fits, found = isinstance(source, Text), "text"
        case ImageFacts():
            fits, found = isinstance(source, ImageFolder), "image_folder"
        case ArrayFacts():
            fits, found = isinstance(source, Arrays), "arrays"
        case WeightFacts():
            yield hit("/data/source/dataset", source=source.type, found="weights")
            return
    if not fits:
        yield hit("/data/source/type", (found,), source=source.type, found=found)


@rule(
    "column-twice",
    reads=("/data/source", "/task"),
    message="column {column} is used twice, or has two roles: feature, target or weight",
    hint="remove it from one place",
)
def column_twice(case: Case) -> Iterator[Hit]:
    source, targets = case.spec.data.source, targets_of(case.spec)
    columns = (source.columns if isinstance(source, Csv | Parquet) else None) or ()
    for index, name in enumerate(columns):
        if name in columns[:index] or name in targets:
            yield hit(f"/data/source/columns/{index}", column=shown(name))
    for index, (pointer, name, _) in enumerate(_targets(case)):
        if name in targets[:index]:
            yield hit(pointer, column=shown(name))
    weights, text = case.spec.data.sample_weight_column, text_column(source)
    if text is not None and text in targets:
        yield hit("/data/source/text", column=shown(text))
    if weights is not None and weights in (*columns, *targets, text):
        yield hit("/data/sample_weight_column", column=shown(weights))


def _targets(case: Case) -> Iterator[tuple[str, str, bool]]:
    """The same of target columns, in order."""
    task = case.spec.task
    if not isinstance(task, MultiTask):
        single = isinstance(getattr(task, "target", None), str)
        for index, name in enumerate(targets_of(case.spec)):
            yield "/task/target" if single else f"/task/target/{index}", name, not isinstance(task, Classification)
        return
    for at, head in enumerate(task.tasks):
        for index, name in enumerate(head.columns):
            pointer = f"/task/tasks/{at}/target"
            yield pointer if isinstance(head.target, str) else f"{pointer}/{index}", name, isinstance(head, NumberHead)


@rule(
    "no-features",
    reads=("/data/source", "/task"),
    message="no feature column is left",
    hint="name at least one, or use another data set",
)
def no_features(case: Case) -> Iterator[Hit]:
    source = case.spec.data.source
    if isinstance(source, Csv | Parquet) and source.columns == ():
        yield hit("/data/source/columns")


@rule(
    "column-missing",
    reads=("/data/source", "/task"),
    message="the data set has no column {column}",
    hint="did you mean {near}?",
)
def column_missing(case: Case) -> Iterator[Hit]:
    known = case.columns
    for pointer, name, _ in _used(case):
        if known and name not in known:
            guess = nearest(name, list(known)[:1000])
            near = f"`{guess}`" if guess else ", ".join(shown(other) for other in list(known)[:10])
            yield hit(pointer, column=shown(name), near=near)


def _used(case: Case) -> Iterator[tuple[str, str, bool]]:
    """Pointer and name of each column in use, and whether it must hold numbers."""
    source = case.spec.data.source
    if not isinstance(source, Csv | Parquet):
        return
    for index, name in enumerate(source.columns or ()):
        yield f"/data/source/columns/{index}", name, True
    if source.text is not None:
        yield "/data/source/text", source.text, False
    if case.spec.data.sample_weight_column is not None:
        yield "/data/sample_weight_column", case.spec.data.sample_weight_column, True
    yield from _targets(case)


@rule(
    "column-not-numeric",
    reads=("/data/source", "/task"),
    message="column {column} holds {kind} values, and the model needs numbers",
    hint="leave it out with `data.source.columns`, or encode it as numbers before uploading",
)
def column_not_numeric(case: Case) -> Iterator[Hit]:
    known = case.columns
    for pointer, name, wanted in _used(case):
        if wanted and name in known and known[name].kind in ("string", "other"):
            yield hit(pointer, column=shown(name), kind=known[name].kind)


@rule(
    "column-has-gaps",
    reads=("/data/source", "/task"),
    message="column {column} has no value in {nulls} rows",
    hint="leave it out with `data.source.columns`, or fill or drop those rows before uploading",
)
def column_has_gaps(case: Case) -> Iterator[Hit]:
    known = case.columns
    for pointer, name, _ in _used(case):
        if name in known and known[name].nulls > 0:
            yield hit(pointer, column=shown(name), nulls=known[name].nulls)


@rule(
    "delimiter-differs",
    reads=("/data/source",),
    message="the file's cells are separated by {found}, and `data.source.delimiter` is {given}",
    hint="set `data.source.delimiter: {found}`",
)
def delimiter_differs(case: Case) -> Iterator[Hit]:
    source, content = case.spec.data.source, case.content
    if isinstance(source, Csv) and isinstance(content, TableFacts) and content.delimiter not in (None, source.delimiter):
        yield hit("/data/source/delimiter", given=shown(source.delimiter), found=shown(content.delimiter))


@rule(
    "array-missing",
    reads=("/data/source", "/task/type"),
    message="the data set has no file {file}",
    hint="use one of {known}",
)
def array_missing(case: Case) -> Iterator[Hit]:
    source, content = case.spec.data.source, case.content
    if not isinstance(source, Arrays) or not isinstance(content, ArrayFacts):
        return
    for key in case.array_keys:
        if getattr(source, key) not in content.files:
            known = tuple(sorted(content.files))[:20]
            yield hit(f"/data/source/{key}", known, file=getattr(source, key), known=", ".join(known))


@rule(
    "array-lengths",
    reads=("/data/source",),
    message="there are {inputs} inputs and {targets} targets",
    hint="upload arrays of equal length",
)
def array_lengths(case: Case) -> Iterator[Hit]:
    inputs, targets = case.arrays.get("inputs"), case.arrays.get("targets")
    if inputs is not None and targets is not None and inputs.shape[:1] != targets.shape[:1]:
        yield hit("/data/source", inputs=_count(inputs.shape), targets=_count(targets.shape))


def _count(shape: Sequence[int]) -> int:
    return shape[0] if shape else 0


@rule(
    "array-form",
    reads=("/data/source", "/task"),
    message="the array is {given}, not {expected}",
    hint="convert it before uploading",
)
def array_form(case: Case) -> Iterator[Hit]:
    inputs, targets = case.arrays.get("inputs"), case.arrays.get("targets")
    if inputs is not None and not (2 <= len(inputs.shape) <= 4 and _kind(inputs) in "iubf"):
        expected = "numbers of 2 to 4 dimensions, samples first"
        yield hit("/data/source/inputs", given=_form(inputs), expected=expected)
    if targets is None:
        return
    if isinstance(case.spec.task, Classification):
        if len(targets.shape) != 1 or _kind(targets) not in "iub":
            yield hit("/data/source/targets", given=_form(targets), expected="integers of shape (samples,)")
    elif len(targets.shape) not in (1, 2) or _kind(targets) not in "iubf":
        yield hit("/data/source/targets", given=_form(targets), expected="numbers of shape (samples,) or (samples, outputs)")


def _form(array: ArrayFile) -> str:
    return f"{shown(array.dtype)} ({', '.join(map(str, array.shape))})"


def _kind(array: ArrayFile) -> str:
    """The letter of a NumPy dtype string, `f` of `<f4`."""
    return array.dtype.lstrip("<>|=")[:1] or "?"


@rule(
    "image-size-unknown",
    reads=("/data/source",),
    message="the pictures differ in {key}, and `data.source.{key}` is not set",
    hint="set `data.source.{key}`, to which all pictures are resized",
)
def image_size_unknown(case: Case) -> Iterator[Hit]:
    source = case.spec.data.source
    if isinstance(source, ImageFolder) and case.facts is not None:
        for key in ("height", "width"):
            if getattr(source, key) is None:
                yield hit(f"/data/source/{key}", key=key)


@rule(
    "text-beside-numbers",
    reads=("/data/source",),
    message="`data.source.text` and `data.source.columns` both say what the samples are",
    hint="keep one of them",
)
def text_beside_numbers(case: Case) -> Iterator[Hit]:
    if case.text_in_table and getattr(case.spec.data.source, "columns", None) is not None:
        yield hit("/data/source/columns")


@rule(
    "text-column-kind",
    reads=("/data/source",),
    message="column {column} holds {kind} values, not text",
    hint="name a column of text, or use `data.source.columns`",
)
def text_column_kind(case: Case) -> Iterator[Hit]:
    name = text_column(case.spec.data.source)
    for column in getattr(case.content, "columns", ()):
        if column.name == name and column.kind != "string":
            yield hit("/data/source/text", column=shown(name), kind=column.kind)


@rule(
    "gan-of-text",
    reads=("/task/type", "/data/source"),
    message="a gan makes numbers and pictures, not text",
    hint="use columns of numbers, pictures or arrays",
)
def of_text(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.task, Generation) and reads_text(case.spec.data.source):
        yield hit("/data/source")


@rule(
    "labels-need-columns",
    reads=("/task", "/data/source"),
    message="pictures in folders have one class each, not several labels",
    hint="use csv, parquet or arrays, or task classification",
)
def labels_need_columns(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.task, Multilabel) and isinstance(case.spec.data.source, ImageFolder):
        yield hit("/data/source/type", ("csv", "parquet", "arrays"))
