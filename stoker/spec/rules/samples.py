"""What the data set must hold: formats, columns, targets, splits."""

from collections.abc import Iterator, Sequence

from stoker.facts import ArrayFacts, ArrayFile, ColumnFacts, ImageFacts, TableFacts, TextFacts, WeightFacts
from stoker.spec.data import Arrays, Csv, ImageFolder, Parquet, Text, reads_text, text_column
from stoker.spec.derived.automatic import targets_of
from stoker.spec.derived.problem import class_counts, class_total
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.task import CausalLM, Classification, Generation, MaskedLM, Multilabel, Regression
from stoker.spec.task.multi_task import MultiTask, NumberHead
from stoker.text import nearest, shown


def dataset_mismatch(case: Case) -> Iterator[Hit]:
    if case.facts is None:
        return
    name, _, version = case.spec.data.source.dataset.partition("@")
    if name != case.facts.name or (version and int(version) != case.facts.version):
        yield hit("/data/source/dataset", found=f"{case.facts.name}@{case.facts.version}")


def source_fits_task(case: Case) -> Iterator[Hit]:
    text, language = isinstance(case.spec.data.source, Text), isinstance(case.spec.task, CausalLM | MaskedLM)
    if text != language:
        fitting = "text" if language else "csv, parquet, image_folder, arrays"
        holes = {"source": case.spec.data.source.type, "task": case.spec.task.type, "fitting": fitting}
        yield hit("/data/source/type", tuple(fitting.split(", ")), **holes)


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


def tokens_need_text(case: Case) -> Iterator[Hit]:
    data = case.spec.data
    if reads_text(data.source):
        return
    for key, part in (("tokenizer", data.tokenizer), ("sequence", data.sequence)):
        if part is not None:
            yield hit(f"/data/{key}", key=key)


def normalization_needs_numbers(case: Case) -> Iterator[Hit]:
    if reads_text(case.spec.data.source) and case.spec.data.normalization is not None:
        yield hit("/data/normalization")


def split_fits(case: Case) -> Iterator[Hit]:
    strategy = case.spec.data.split.strategy
    if isinstance(case.spec.data.source, Text):
        if strategy not in (None, "contiguous"):
            yield hit("/data/split/strategy", ("contiguous",), strategy=strategy, what="text", fitting="contiguous")
    elif strategy == "stratified" and not isinstance(case.spec.task, Classification):
        holes = {"strategy": strategy, "what": case.spec.task.type, "fitting": "random, contiguous"}
        yield hit("/data/split/strategy", ("random", "contiguous"), **holes)


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


def target_unused(case: Case) -> Iterator[Hit]:
    several = isinstance(case.spec.task, MultiTask)  # which have a rule of their own
    if targets_of(case.spec) and not several and isinstance(case.spec.data.source, ImageFolder | Arrays):
        yield hit("/task/target", source=case.spec.data.source.type)


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


def no_features(case: Case) -> Iterator[Hit]:
    source = case.spec.data.source
    if isinstance(source, Csv | Parquet) and source.columns == ():
        yield hit("/data/source/columns")


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


def _columns(case: Case) -> dict[str, ColumnFacts]:
    return {column.name: column for column in case.content.columns} if isinstance(case.content, TableFacts) else {}


def column_missing(case: Case) -> Iterator[Hit]:
    known = _columns(case)
    for pointer, name, _ in _used(case):
        if known and name not in known:
            guess = nearest(name, list(known)[:1000])
            near = f"`{guess}`" if guess else ", ".join(shown(other) for other in list(known)[:10])
            yield hit(pointer, column=shown(name), near=near)


def column_not_numeric(case: Case) -> Iterator[Hit]:
    known = _columns(case)
    for pointer, name, wanted in _used(case):
        if wanted and name in known and known[name].kind in ("string", "other"):
            yield hit(pointer, column=shown(name), kind=known[name].kind)


def column_has_gaps(case: Case) -> Iterator[Hit]:
    known = _columns(case)
    for pointer, name, _ in _used(case):
        if name in known and known[name].nulls > 0:
            yield hit(pointer, column=shown(name), nulls=known[name].nulls)


def delimiter_differs(case: Case) -> Iterator[Hit]:
    source, content = case.spec.data.source, case.content
    if isinstance(source, Csv) and isinstance(content, TableFacts) and content.delimiter not in (None, source.delimiter):
        yield hit("/data/source/delimiter", given=shown(source.delimiter), found=shown(content.delimiter))


def one_class(case: Case) -> Iterator[Hit]:
    total = class_total(case.spec, case.content) if isinstance(case.spec.task, Classification) else None
    if total is not None and total < 2:
        yield hit("/task/target" if targets_of(case.spec) else "/task", total=total)


def classes_uncounted(case: Case) -> Iterator[Hit]:
    task = case.spec.task
    if isinstance(task, Classification) and task.num_classes is None and case.facts is not None:
        column = _columns(case).get(task.target or "")
        array = _array(case, "targets")
        if (column is not None and column.distinct is None) or (array is not None and array.distinct is None):
            yield hit("/task/target" if column is not None else "/task")


def too_few_classes(case: Case) -> Iterator[Hit]:
    task, total = case.spec.task, class_total(case.spec, case.content)
    if isinstance(task, Classification) and task.num_classes is not None and total is not None and total > task.num_classes:
        yield hit("/task/num_classes", given=task.num_classes, total=total)


def unseen_classes(case: Case) -> Iterator[Hit]:
    task, total = case.spec.task, class_total(case.spec, case.content)
    if isinstance(task, Classification) and task.num_classes is not None and total is not None and 2 <= total < task.num_classes:
        yield hit("/task/num_classes", given=task.num_classes, total=total)


def rare_class(case: Case) -> Iterator[Hit]:
    counts, split = class_counts(case.spec, case.content), case.spec.data.split
    if split.strategy != "stratified" or not counts:
        return
    parts = 1 + (split.validation > 0) + (split.test > 0)
    name, least = min(counts.items(), key=lambda item: item[1])
    if least < parts:
        yield hit("/data/split/strategy", name=shown(name), count=least, parts=parts)


def outputs_differ(case: Case) -> Iterator[Hit]:
    task = case.spec.task
    match task:
        case Regression(num_outputs=int() as given):
            key = "num_outputs"
        case Multilabel(num_labels=int() as given):
            key = "num_labels"
        case _:
            return
    array = _array(case, "targets")
    found = len(targets_of(case.spec)) or (None if array is None else (array.shape[1] if len(array.shape) == 2 else 1))
    if found is not None and found != given:
        yield hit(f"/task/{key}", key=key, given=given, found=found)


def nothing_left(case: Case) -> Iterator[Hit]:
    split, samples = case.spec.data.split, case.problem.samples
    if split.validation + split.test >= 1 or (
        samples is not None and samples.train < 1 and not isinstance(case.spec.data.source, Text)
    ):
        yield hit("/data/split", held=f"{split.validation + split.test:g}")


def part_empty(case: Case) -> Iterator[Hit]:
    split, samples = case.spec.data.split, case.problem.samples
    if samples is None or samples.train < 1:
        return
    for key, share, count in (("validation", split.validation, samples.validation), ("test", split.test, samples.test)):
        if share > 0 and count == 0:
            yield hit(f"/data/split/{key}", key=key, share=f"{share:g}")


def text_too_short(case: Case) -> Iterator[Hit]:
    tokens, samples, sequence = case.problem.tokens, case.problem.samples, case.spec.data.sequence
    if tokens is not None and samples is not None and sequence is not None and samples.train < 1:
        yield hit("/data/sequence/length", tokens=tokens.train, length=sequence.length)


def drop_last_drops_all(case: Case) -> Iterator[Hit]:
    samples, size = case.problem.samples, case.spec.training.batch_size
    if samples is not None and case.spec.data.loader.drop_last and 0 < samples.train < size:
        yield hit("/data/loader/drop_last", samples=samples.train, size=size)


def _read(case: Case) -> tuple[str, ...]:
    """Arrays that are read: a gan reads no targets."""
    return ("inputs",) if isinstance(case.spec.task, Generation) else ("inputs", "targets")


def _array(case: Case, which: str) -> ArrayFile | None:
    source, content = case.spec.data.source, case.content
    if not isinstance(source, Arrays) or not isinstance(content, ArrayFacts) or which not in _read(case):
        return None
    return content.files.get(getattr(source, which))


def array_missing(case: Case) -> Iterator[Hit]:
    source, content = case.spec.data.source, case.content
    if not isinstance(source, Arrays) or not isinstance(content, ArrayFacts):
        return
    for key in _read(case):
        if getattr(source, key) not in content.files:
            known = tuple(sorted(content.files))[:20]
            yield hit(f"/data/source/{key}", known, file=getattr(source, key), known=", ".join(known))


def array_lengths(case: Case) -> Iterator[Hit]:
    inputs, targets = _array(case, "inputs"), _array(case, "targets")
    if inputs is not None and targets is not None and inputs.shape[:1] != targets.shape[:1]:
        yield hit("/data/source", inputs=_count(inputs.shape), targets=_count(targets.shape))


def _count(shape: Sequence[int]) -> int:
    return shape[0] if shape else 0


def array_form(case: Case) -> Iterator[Hit]:
    inputs, targets = _array(case, "inputs"), _array(case, "targets")
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


def _kind(array: ArrayFile) -> str:
    """The letter of a NumPy dtype string, `f` of `<f4`."""
    return array.dtype.lstrip("<>|=")[:1] or "?"


def _form(array: ArrayFile) -> str:
    return f"{shown(array.dtype)} ({', '.join(map(str, array.shape))})"


def image_size_unknown(case: Case) -> Iterator[Hit]:
    source = case.spec.data.source
    if isinstance(source, ImageFolder) and case.facts is not None:
        for key in ("height", "width"):
            if getattr(source, key) is None:
                yield hit(f"/data/source/{key}", key=key)


SOURCE, TASK = "/data/source", "/task"

SAMPLE_RULES = (
    Rule(
        "dataset-mismatch", "R", (SOURCE,), dataset_mismatch,
        "the data set that was looked up is {found}", "name that one, or leave the version out",
    ),
    Rule(
        "source-fits-task", "R", ("/data/source/type", "/task/type"), source_fits_task,
        "task {task} does not learn from source {source}", "use {fitting}, or another task",
    ),
    Rule(
        "content-fits-source", "R", (SOURCE,), content_fits_source,
        "the data set holds {found}, not {source}", "set `data.source.type: {found}`",
    ),
    Rule(
        "tokenizer-needs-text", "R", (SOURCE, "/data/tokenizer", "/data/sequence"), tokens_need_text,
        "`data.{key}` is for text only", "remove it",
    ),
    Rule(
        "normalization-needs-numbers", "R", (SOURCE, "/data/normalization"), normalization_needs_numbers,
        "`data.normalization` rescales numbers, and text has none", "remove it",
    ),
    Rule(
        "split-fits", "R", (SOURCE, TASK, "/data/split"), split_fits,
        "split strategy {strategy} is not possible for {what}", "use {fitting}, or leave it out",
    ),
    Rule(
        "target-missing", "R", (SOURCE, TASK), target_missing,
        "a table needs `task.target`, the column to predict", "add `target: COLUMN`",
    ),
    Rule(
        "target-unused", "R", (SOURCE, TASK), target_unused,
        "`task.target` names a column, and {source} has none: it carries its own targets", "remove it",
    ),
    Rule(
        "column-twice", "R", (SOURCE, TASK), column_twice,
        "column {column} is used twice, or is two of feature, target and weight at once", "remove it from one place",
    ),
    Rule("no-features", "R", (SOURCE, TASK), no_features, "no feature column is left", "name at least one, or use another data set"),
    Rule("column-missing", "R", (SOURCE, TASK), column_missing, "the data set has no column {column}", "did you mean {near}?"),
    Rule(
        "column-not-numeric", "R", (SOURCE, TASK), column_not_numeric,
        "column {column} holds {kind} values, and the model needs numbers",
        "leave it out with `data.source.columns`, or encode it as numbers before uploading",
    ),
    Rule(
        "column-has-gaps", "R", (SOURCE, TASK), column_has_gaps,
        "column {column} has no value in {nulls} rows", "leave it out with `data.source.columns`, or fill or drop those rows before uploading",
    ),
    Rule(
        "delimiter-differs", "R", (SOURCE,), delimiter_differs,
        "the data set separates cells by {found}, not by {given}", "set `data.source.delimiter` to that",
    ),
    Rule("one-class", "R", (SOURCE, TASK), one_class, "the target holds {total} class; there is nothing to tell apart", "choose another target"),
    Rule(
        "classes-uncounted", "R", (SOURCE, TASK), classes_uncounted,
        "the target has too many distinct values to be classes", "use task regression, choose another target, or set num_classes",
    ),
    Rule(
        "too-few-classes", "R", (SOURCE, TASK), too_few_classes,
        "`task.num_classes` is {given}, but the data set has {total} classes", "raise it, or leave it out",
    ),
    Rule(
        "unseen-classes", "W", (SOURCE, TASK), unseen_classes,
        "`task.num_classes` is {given}, but the data set has {total} classes: the others are never learned", "lower it, or leave it out",
    ),
    Rule(
        "rare-class", "R", (SOURCE, TASK, "/data/split"), rare_class,
        "class {name} has {count} samples, fewer than the {parts} parts of a stratified split",
        "set `data.split.strategy: random`, or add samples",
    ),
    Rule(
        "outputs-differ", "R", (SOURCE, TASK), outputs_differ,
        "`task.{key}` is {given}, but the data set has {found}", "leave it out",
    ),
    Rule(
        "nothing-left", "R", ("/data", TASK), nothing_left,
        "validation and test take {held} of the data set, so nothing is left to train on", "lower `data.split.validation` and `test`",
    ),
    Rule(
        "part-empty", "R", ("/data", TASK), part_empty,
        "a {key} share of {share} of this data set is no sample at all", "raise `data.split.{key}`, or set it to 0",
    ),
    Rule(
        "text-too-short", "R", ("/data", TASK), text_too_short,
        "the training text has {tokens} tokens, fewer than one sample of {length} and the token after it",
        "lower `data.sequence.length`, or hold out less",
    ),
    Rule(
        "drop-last-drops-all", "R", ("/data", TASK, "/training/batch_size"), drop_last_drops_all,
        "{samples} training samples do not fill one batch of {size}, and drop_last drops the rest",
        "set drop_last: false, or lower `training.batch_size`",
    ),
    Rule(
        "array-missing", "R", (SOURCE, "/task/type"), array_missing,
        "the data set has no file {file}", "it has {known}",
    ),
    Rule(
        "array-lengths", "R", (SOURCE,), array_lengths,
        "there are {inputs} inputs and {targets} targets", "upload arrays of equal length",
    ),
    Rule("array-form", "R", (SOURCE, TASK), array_form, "the array is {given}, not {expected}", "convert it before uploading"),
    Rule(
        "image-size-unknown", "R", (SOURCE,), image_size_unknown,
        "the pictures differ in {key}", "set `data.source.{key}`, and they are resized",
    ),
)  # fmt: skip
