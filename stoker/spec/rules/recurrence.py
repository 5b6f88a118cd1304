"""What recurrent models need of their samples and of themselves."""

from collections.abc import Iterator

from stoker.spec.data import Arrays, Csv, ImageFolder, Parquet, Text
from stoker.spec.model import GRU, LSTM, RNN
from stoker.spec.model.shapes import written
from stoker.spec.rules._rule import Case, Hit, Rule, hit
from stoker.spec.task import CausalLM


def recurrent(case: Case) -> RNN | LSTM | GRU | None:
    """The model, where it is recurrent."""
    model = case.spec.model
    return model if isinstance(model, RNN | LSTM | GRU) else None


def needs_sequence(case: Case) -> Iterator[Hit]:
    model, source, shape = recurrent(case), case.spec.data.source, case.problem.input_shape
    if model is None:
        return
    match source:
        case Csv() | Parquet():
            yield hit("/model/type", ("mlp",), model=model.type, what="the columns of a table have no order in time")
        case ImageFolder():
            yield hit("/model/type", ("mlp", "layers"), model=model.type, what="a picture has no order in time")
        case Arrays() if shape is not None and len(shape) > 2:
            what = f"a sample of shape {written(shape)} is not (steps, features) or (steps,)"
            yield hit("/model/type", ("mlp", "layers"), model=model.type, what=what)


def sees_ahead(case: Case) -> Iterator[Hit]:
    model = recurrent(case)
    if model is not None and model.bidirectional and isinstance(case.spec.task, CausalLM):
        yield hit("/model/bidirectional")


def embedding_needs_text(case: Case) -> Iterator[Hit]:
    model = recurrent(case)
    if model is None or isinstance(case.spec.data.source, Text):
        return
    for key, given in (("embedding_size", model.embedding_size is not None), ("tie_embeddings", model.tie_embeddings)):
        if given:
            yield hit(f"/model/{key}", key=key)


def tied_width(case: Case) -> Iterator[Hit]:
    model = recurrent(case)
    if model is None or not model.tie_embeddings or not isinstance(case.spec.data.source, Text) or model.bidirectional:
        return
    if model.embedding_size is not None and model.embedding_size != model.width:
        yield hit("/model/embedding_size", given=model.embedding_size, width=model.width)


def dropout_between(case: Case) -> Iterator[Hit]:
    model = recurrent(case)
    if model is not None and model.dropout > 0 and model.num_layers == 1:
        yield hit("/model/dropout")


def projection_narrows(case: Case) -> Iterator[Hit]:
    model = recurrent(case)
    if isinstance(model, LSTM) and model.proj_size is not None and model.proj_size >= model.hidden_size:
        yield hit("/model/proj_size", given=model.proj_size, size=model.hidden_size)


def forget_bias_needs_bias(case: Case) -> Iterator[Hit]:
    model = recurrent(case)
    if isinstance(model, LSTM) and model.forget_bias is not None and not model.bias:
        yield hit("/model/forget_bias")


RECURRENCE_RULES = (
    Rule(
        "recurrent-needs-sequence", "R", ("/model/type", "/data", "/task"), needs_sequence,
        "a {model} reads one step after another, and {what}",
        "use text, or arrays whose samples are (steps, features) or (steps,); or another model",
    ),
    Rule(
        "bidirectional-sees-ahead", "R", ("/model", "/task/type"), sees_ahead,
        "a model that reads backwards too has seen the tokens that a causal_lm predicts", "set `bidirectional: false`",
    ),
    Rule(
        "embedding-needs-text", "R", ("/model", "/data/source"), embedding_needs_text,
        "`model.{key}` is for tokens, and the samples are numbers", "remove it",
    ),
    Rule(
        "tied-width", "R", ("/model", "/data/source"), tied_width,
        "the tied embedding is {given} wide, and the last layer says {width} numbers",
        "set `model.embedding_size: {width}`, or `tie_embeddings: false`",
    ),
    Rule(
        "recurrent-dropout-unused", "R", ("/model",), dropout_between,
        "`model.dropout` acts between recurrent layers, and there is one", "raise num_layers, or set dropout: 0",
    ),
    Rule(
        "projection-too-wide", "R", ("/model",), projection_narrows,
        "a projection to {given} units does not narrow a state of {size}", "set `proj_size` below hidden_size, or remove it",
    ),
    Rule(
        "forget-bias-needs-bias", "R", ("/model",), forget_bias_needs_bias,
        "`forget_bias` sets a bias, and `bias` is false", "set `bias: true`, or remove forget_bias",
    ),
)  # fmt: skip
