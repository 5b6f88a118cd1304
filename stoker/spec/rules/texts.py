"""What texts in a table ask of the run: one column of them, a tokenizer that is known, and models that leave padding out."""

from collections.abc import Iterator

from stoker.spec.data import CharTokenizer, FileTokenizer, text_column
from stoker.spec.model import CNN, GRU, LSTM, MLP, RNN, Transformer, TransformerDecoder
from stoker.spec.model.parts import BatchNorm
from stoker.spec.model.transformer import AlibiPosition
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.task.multi_task import MultiTask
from stoker.text import shown

READERS = ("transformer_encoder", "rnn", "lstm", "gru", "layers")
"""Models that read texts in a table."""


def _texts(case: Case) -> bool:
    return text_column(case.spec.data.source) is not None


def text_beside_numbers(case: Case) -> Iterator[Hit]:
    if _texts(case) and getattr(case.spec.data.source, "columns", None) is not None:
        yield hit("/data/source/columns")


def text_column_kind(case: Case) -> Iterator[Hit]:
    name = text_column(case.spec.data.source)
    for column in getattr(case.content, "columns", ()):
        if column.name == name and column.kind != "string":
            yield hit("/data/source/text", column=shown(name), kind=column.kind)


def characters_uncounted(case: Case) -> Iterator[Hit]:
    if _texts(case) and isinstance(case.spec.data.tokenizer, CharTokenizer):
        yield hit("/data/tokenizer", ("byte", "bpe", "file"))


def tokens_beyond(case: Case) -> Iterator[Hit]:
    known = case.spec.data.tokenizer
    if not isinstance(known, FileTokenizer) or known.vocab_size is None:
        return
    for key, token in (("mask_id", known.mask_id), ("pad_id", known.pad_id)):
        if token is not None and token >= known.vocab_size:
            yield hit(f"/data/tokenizer/{key}", key=key, token=token, rows=known.vocab_size)


def text_needs_reader(case: Case) -> Iterator[Hit]:
    if _texts(case) and isinstance(case.spec.model, MLP | CNN | TransformerDecoder):
        yield hit("/model/type", READERS, model=case.spec.model.type, fitting=", ".join(READERS))


def text_several_tasks(case: Case) -> Iterator[Hit]:
    if _texts(case) and isinstance(case.spec.task, MultiTask):
        yield hit("/task/type", ("classification", "multilabel", "regression"))


def padding_is_seen(case: Case) -> Iterator[Hit]:
    """What a model cannot keep padding out of."""
    model = case.spec.model
    if not _texts(case):
        return
    if isinstance(model, RNN | LSTM | GRU) and model.bidirectional:
        yield hit("/model/bidirectional", key="bidirectional", value="false")
    if isinstance(model, Transformer):
        if isinstance(model.position, AlibiPosition):
            yield hit("/model/position", key="position", value="learned, sinusoidal or rope")
        if model.window is not None:
            yield hit("/model/window", key="window", value="null")
        if isinstance(model.normalization, BatchNorm):
            yield hit("/model/normalization", key="normalization", value="layer or rms")


def text_ties_nothing(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if _texts(case) and isinstance(model, RNN | LSTM | GRU) and model.tie_embeddings:
        yield hit("/model/tie_embeddings")


def text_in_windows(case: Case) -> Iterator[Hit]:
    if _texts(case) and case.spec.training.tbptt is not None:
        yield hit("/training/tbptt")


def text_unexplained(case: Case) -> Iterator[Hit]:
    if _texts(case) and case.spec.interpretability is not None:
        yield hit("/interpretability")


SOURCE = "/data/source"

TEXT_RULES = (
    Rule(
        "text-beside-numbers", "R", (SOURCE,), text_beside_numbers,
        "`data.source.text` and `data.source.columns` both say what the samples are", "keep one of them",
    ),
    Rule(
        "text-column-kind", "R", (SOURCE,), text_column_kind,
        "column {column} holds {kind} values, not text", "name a column of text, or use `data.source.columns`",
    ),
    Rule(
        "text-characters", "R", (SOURCE, "/data/tokenizer"), characters_uncounted,
        "the characters of a column are not counted at upload, so nobody knows how many tokens there would be", "use tokenizer byte, bpe or file",
    ),
    Rule(
        "token-beyond-vocabulary", "R", ("/data/tokenizer",), tokens_beyond,
        "`{key}` {token} is beyond the {rows} rows of the embedding, which are counted from 0", "name a token of the file, or leave it out",
    ),
    Rule(
        "text-needs-reader", "R", (SOURCE, "/model/type"), text_needs_reader,
        "model {model} does not read texts of a table", "use {fitting}",
    ),
    Rule(
        "text-one-task", "R", (SOURCE, "/task/type"), text_several_tasks,
        "task multi_task learns from columns of numbers, not from texts", "use classification, multilabel or regression",
    ),
    Rule(
        "padding-is-seen", "R", (SOURCE, "/model"), padding_is_seen,
        "short texts are padded, and with this `model.{key}` the padding would change what is said of them", "set `model.{key}` to {value}",
    ),
    Rule(
        "text-ties-nothing", "R", (SOURCE, "/model"), text_ties_nothing,
        "the head says something of a text, not its next token, so that there is no embedding to share with it", "set tie_embeddings: false",
    ),
    Rule(
        "text-in-windows", "R", (SOURCE, "/training/tbptt"), text_in_windows,
        "a text of a table is read whole, not in windows", "remove `training.tbptt`",
    ),
    Rule(
        "text-unexplained", "R", (SOURCE, "/interpretability"), text_unexplained,
        "texts of a table have no features whose share could be measured", "remove `interpretability`",
    ),
)  # fmt: skip
