"""What single losses ask of the task, the model and the data."""

from collections.abc import Iterator

from stoker.facts import TableFacts
from stoker.spec.data import Csv, ImageFolder, Parquet
from stoker.spec.derived.automatic import targets_of
from stoker.spec.distributed import DDP, FSDP
from stoker.spec.evaluation import Accuracy
from stoker.spec.loss import BinaryCrossEntropy, CrossEntropy, Focal
from stoker.spec.model import TransformerDecoder
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.task import CausalLM, Classification, Multilabel
from stoker.text import shown

SMALLEST, LARGEST = 0.0, 1.0


def _is_label(text: str) -> bool:
    """Whether a value, as text, is 0 or 1; booleans are."""
    if text.lower() in ("true", "false"):
        return True
    try:
        return float(text) in (SMALLEST, LARGEST)
    except ValueError:
        return False


def labels_need_columns(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.task, Multilabel) and isinstance(case.spec.data.source, ImageFolder):
        yield hit("/data/source/type", ("csv", "parquet", "arrays"))


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


def labels_top_k(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.task, Multilabel):
        for index, metric in enumerate(case.spec.evaluation.metrics or ()):
            if isinstance(metric, Accuracy) and metric.top_k > 1:
                yield hit(f"/evaluation/metrics/{index}/top_k")


def _decided(case: Case) -> int | None:
    """Classes or labels that the head decides on."""
    match case.spec.task:
        case Classification(num_classes=count) | Multilabel(num_labels=count):
            return count
        case CausalLM():
            return case.problem.outputs
        case _:
            return None


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


def alpha_of_labels(case: Case) -> Iterator[Hit]:
    loss = case.spec.loss
    if not isinstance(loss, Focal) or loss.alpha is None or not isinstance(case.spec.task, Multilabel):
        return
    over = [value for value in (loss.alpha if isinstance(loss.alpha, tuple) else (loss.alpha,)) if value > 1]
    if over:
        yield hit("/loss/alpha", alpha=f"{over[0]:g}")


def alpha_zero(case: Case) -> Iterator[Hit]:
    loss = case.spec.loss
    if not isinstance(loss, Focal) or loss.alpha is None or isinstance(case.spec.task, Multilabel):
        return
    if not any(loss.alpha if isinstance(loss.alpha, tuple) else (loss.alpha,)):
        yield hit("/loss/alpha")


def _chunked(case: Case) -> bool:
    return isinstance(case.spec.loss, CrossEntropy) and case.spec.loss.chunk_tokens is not None


def chunks_need_decoder(case: Case) -> Iterator[Hit]:
    fits = isinstance(case.spec.task, CausalLM) and isinstance(case.spec.model, TransformerDecoder)
    if _chunked(case) and not fits:
        yield hit("/loss/chunk_tokens", task=case.spec.task.type, model=case.spec.model.type)


def chunks_need_whole_heads(case: Case) -> Iterator[Hit]:
    how = case.spec.distributed
    if not _chunked(case) or not isinstance(how, DDP | FSDP):
        return
    cuts = {
        "tensor_parallel": how.tensor_degree,
        "context_parallel": how.context_degree,
        "pipeline_parallel": how.pipeline_degree if isinstance(how, DDP) else 1,
    }
    for name, degree in cuts.items():
        if degree > 1:
            yield hit("/loss/chunk_tokens", strategy=name)


def chunks_without_teacher(case: Case) -> Iterator[Hit]:
    if _chunked(case) and case.spec.training.distillation is not None:
        yield hit("/loss/chunk_tokens")


def lesson_needs_cross_entropy(case: Case) -> Iterator[Hit]:
    loss = case.spec.loss
    if case.spec.training.distillation is None or not isinstance(case.spec.task, Classification | CausalLM):
        return
    if loss is not None and not isinstance(loss, CrossEntropy):
        yield hit("/loss/type", ("cross_entropy",), loss=loss.type)


def sample_weights_need_tables(case: Case) -> Iterator[Hit]:
    if case.spec.data.sample_weight_column is not None and not isinstance(case.spec.data.source, Csv | Parquet):
        yield hit("/data/sample_weight_column", source=case.spec.data.source.type)


def sample_weights_without_teacher(case: Case) -> Iterator[Hit]:
    if case.spec.data.sample_weight_column is not None and case.spec.training.distillation is not None:
        yield hit("/data/sample_weight_column")


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


def normalization_of_nothing(case: Case) -> Iterator[Hit]:
    loss = case.spec.loss
    if loss is not None and loss.sample_weight_normalization is not None and case.spec.data.sample_weight_column is None:
        yield hit("/loss/sample_weight_normalization")


LOSS, TASK, COLUMN = "/loss", "/task", "/data/sample_weight_column"

LOSS_RULES = (
    Rule(
        "labels-need-columns", "R", (TASK, "/data/source"), labels_need_columns,
        "pictures in folders have one class each, not several labels", "use csv, parquet or arrays, or task classification",
    ),
    Rule(
        "labels-not-binary", "R", (TASK, "/data/source"), labels_not_binary,
        "column {column} holds {value}, and labels are 0 and 1", "use task classification for one of several classes, or encode the column as 0 and 1",
    ),
    Rule(
        "labels-top-k", "R", (TASK, "/evaluation/metrics"), labels_top_k,
        "`top_k` is for classes, of which one is right; labels are each there or not", "remove it",
    ),
    Rule(
        "loss-factors-length", "R", (LOSS, TASK, "/data"), factors_length,
        "`loss.{key}` has {given} entries for {count} classes or labels", "give one for each, or a single number",
    ),
    Rule(
        "focal-alpha-of-labels", "R", (LOSS, TASK), alpha_of_labels,
        "alpha {alpha} leaves zeros of a label the weight 1 - alpha, which is below 0", "set `loss.alpha` between 0 and 1",
    ),
    Rule(
        "focal-alpha-zero", "R", (LOSS, TASK), alpha_zero,
        "every `loss.alpha` is 0, so nothing would be learned", "give some class a factor above 0",
    ),
    Rule(
        "chunk-tokens-need-decoder", "R", (LOSS, TASK, "/model"), chunks_need_decoder,
        "`loss.chunk_tokens` makes logits of tokens in parts, which task {task} with model {model} does not have or does not tell apart",
        "remove it, or use causal_lm with transformer_decoder",
    ),
    Rule(
        "chunk-tokens-need-whole-heads", "R", (LOSS, "/distributed"), chunks_need_whole_heads,
        "`loss.chunk_tokens` needs the head and the hidden states whole on each rank, and {strategy} cuts them", "remove one of the two",
    ),
    Rule(
        "chunk-tokens-without-teacher", "R", (LOSS, "/training/distillation"), chunks_without_teacher,
        "a teacher is compared with all logits, and `loss.chunk_tokens` never has them at once", "remove one of the two",
    ),
    Rule(
        "distillation-needs-cross-entropy", "R", (LOSS, TASK, "/training/distillation"), lesson_needs_cross_entropy,
        "a teacher's probabilities go with cross_entropy, not with {loss}", "use cross_entropy, or remove `training.distillation`",
    ),
    Rule(
        "sample-weights-need-tables", "R", (COLUMN, "/data/source"), sample_weights_need_tables,
        "`data.sample_weight_column` names a column, and {source} has none", "remove it, or use csv or parquet",
    ),
    Rule(
        "sample-weights-without-teacher", "R", (COLUMN, "/training/distillation"), sample_weights_without_teacher,
        "a teacher's samples all weigh the same", "remove `data.sample_weight_column` or `training.distillation`",
    ),
    Rule(
        "sample-weights-negative", "R", (COLUMN, "/data/source"), sample_weights_negative,
        "column {column} goes down to {least}, and weights are 0 or more", "use another column, or correct it before uploading",
    ),
    Rule(
        "sample-weight-normalization-unused", "R", (LOSS, COLUMN), normalization_of_nothing,
        "`loss.sample_weight_normalization` says how weighted samples are averaged, and no sample has a weight",
        "set `data.sample_weight_column`, or remove it",
    ),
)  # fmt: skip
