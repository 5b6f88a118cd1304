"""Rules of `model` for rnn, lstm and gru."""

from collections.abc import Iterator

from stoker.spec.data import Arrays, Csv, ImageFolder, Parquet, Text, reads_text
from stoker.spec.model import GRU, LSTM, RNN
from stoker.spec.model.shapes import written
from stoker.spec.rules._case import Case
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task import CausalLM


@rule(
    "recurrent-needs-sequence",
    reads=("/model/type", "/data", "/task"),
    message="a {model} reads one step after another, and {what}",
    hint="use text, or arrays whose samples are (steps, features) or (steps,); or another model",
)
def needs_sequence(case: Case) -> Iterator[Hit]:
    model, source, shape = case.recurrent, case.spec.data.source, case.problem.input_shape
    if model is None:
        return
    match source:
        case Csv(text=None) | Parquet(text=None):
            yield hit("/model/type", ("mlp",), model=model.type, what="the columns of a table have no order in time")
        case ImageFolder():
            yield hit("/model/type", ("mlp", "layers"), model=model.type, what="a picture has no order in time")
        case Arrays() if shape is not None and len(shape) > 2:
            what = f"a sample of shape {written(shape)} is not (steps, features) or (steps,)"
            yield hit("/model/type", ("mlp", "layers"), model=model.type, what=what)


@rule(
    "bidirectional-sees-ahead",
    reads=("/model", "/task/type"),
    message="a model that reads backwards too has seen the tokens that a causal_lm predicts",
    hint="set `bidirectional: false`",
)
def sees_ahead(case: Case) -> Iterator[Hit]:
    model = case.recurrent
    if model is not None and model.bidirectional and isinstance(case.spec.task, CausalLM):
        yield hit("/model/bidirectional")


@rule(
    "embedding-needs-text",
    reads=("/model", "/data/source"),
    message="`model.{key}` needs tokens, and the samples are numbers",
    hint="remove `model.{key}`, or use a source of text",
)
def embedding_needs_text(case: Case) -> Iterator[Hit]:
    model = case.recurrent
    if model is None or reads_text(case.spec.data.source):
        return
    for key, given in (("embedding_size", model.embedding_size is not None), ("tie_embeddings", model.tie_embeddings)):
        if given:
            yield hit(f"/model/{key}", key=key)


@rule(
    "tied-width",
    reads=("/model", "/data/source"),
    message="the tied embedding is {given} wide, and the last layer says {width} numbers",
    hint="set `model.embedding_size: {width}`, or `tie_embeddings: false`",
)
def tied_width(case: Case) -> Iterator[Hit]:
    model = case.recurrent
    if model is None or not model.tie_embeddings or not isinstance(case.spec.data.source, Text) or model.bidirectional:
        return
    if model.embedding_size is not None and model.embedding_size != model.width:
        yield hit("/model/embedding_size", given=model.embedding_size, width=model.width)


@rule(
    "recurrent-dropout-unused",
    reads=("/model",),
    message="`model.dropout` acts between recurrent layers, and there is one",
    hint="raise num_layers, or set dropout: 0",
)
def dropout_between(case: Case) -> Iterator[Hit]:
    model = case.recurrent
    if model is not None and model.dropout > 0 and model.num_layers == 1:
        yield hit("/model/dropout")


@rule(
    "projection-too-wide",
    reads=("/model",),
    message="a projection to {given} units does not narrow a state of {size}",
    hint="set `proj_size` below hidden_size, or remove it",
)
def projection_narrows(case: Case) -> Iterator[Hit]:
    model = case.recurrent
    if isinstance(model, LSTM) and model.proj_size is not None and model.proj_size >= model.hidden_size:
        yield hit("/model/proj_size", given=model.proj_size, size=model.hidden_size)


@rule(
    "forget-bias-needs-bias",
    reads=("/model",),
    message="`forget_bias` sets a bias, and `bias` is false",
    hint="set `bias: true`, or remove forget_bias",
)
def forget_bias_needs_bias(case: Case) -> Iterator[Hit]:
    model = case.recurrent
    if isinstance(model, LSTM) and model.forget_bias is not None and not model.bias:
        yield hit("/model/forget_bias")


@rule(
    "text-ties-nothing",
    reads=("/data/source", "/model"),
    message="the head says something of a text, not its next token, so that there is no embedding to share with it",
    hint="set tie_embeddings: false",
)
def text_ties_nothing(case: Case) -> Iterator[Hit]:
    model = case.spec.model
    if case.text_in_table and isinstance(model, RNN | LSTM | GRU) and model.tie_embeddings:
        yield hit("/model/tie_embeddings")
