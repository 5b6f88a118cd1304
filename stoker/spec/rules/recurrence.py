"""What recurrent models need of their samples and of themselves."""

from collections.abc import Iterator

from stoker.spec.data import Arrays, Csv, ImageFolder, Parquet, Text, reads_text
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
        case Csv(text=None) | Parquet(text=None):
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
    if model is None or reads_text(case.spec.data.source):
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


def tbptt_needs_memory(case: Case) -> Iterator[Hit]:
    model = recurrent(case)
    if case.spec.training.tbptt is not None and (model is None or model.bidirectional):
        yield hit("/training/tbptt", model="one that reads both ways" if model else case.spec.model.type)


def _length(case: Case) -> int | None:
    """Time steps of a sample, for a recurrent model."""
    shape = case.problem.input_shape
    return None if shape is None or recurrent(case) is None else shape[0]


def tbptt_longer_than_samples(case: Case) -> Iterator[Hit]:
    cut, length = case.spec.training.tbptt, _length(case)
    if cut is not None and length is not None and cut.steps > length:
        yield hit("/training/tbptt/steps", steps=cut.steps, length=length)


def tbptt_stride(case: Case) -> Iterator[Hit]:
    cut = case.spec.training.tbptt
    if cut is not None and cut.stride is not None and cut.steps % cut.stride:
        nearest = next(n for n in range(min(cut.stride, cut.steps), 0, -1) if cut.steps % n == 0)
        yield hit("/training/tbptt/stride", stride=cut.stride, steps=cut.steps, nearest=nearest)


def tbptt_stride_unused(case: Case) -> Iterator[Hit]:
    cut = case.spec.training.tbptt
    if cut is not None and cut.stride not in (None, cut.steps) and recurrent(case) and not isinstance(case.spec.task, CausalLM):
        yield hit("/training/tbptt/stride")


def _stateful(case: Case) -> bool:
    cut = case.spec.training.tbptt
    return cut is not None and cut.stateful


def streams_shuffled(case: Case) -> Iterator[Hit]:
    if _stateful(case) and case.spec.data.loader.shuffle:
        yield hit("/data/loader/shuffle")


def streams_split(case: Case) -> Iterator[Hit]:
    if _stateful(case) and not isinstance(case.spec.data.source, Text) and case.spec.data.split.strategy != "contiguous":
        yield hit("/data/split/strategy", ("contiguous",), strategy=case.spec.data.split.strategy)


def streams_uneven(case: Case) -> Iterator[Hit]:
    samples, size = case.problem.samples, case.spec.training.batch_size
    if _stateful(case) and not case.spec.data.loader.drop_last and (samples is None or samples.train % size):
        yield hit("/data/loader/drop_last", size=size)


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
    Rule(
        "tbptt-needs-memory", "R", ("/training/tbptt", "/model"), tbptt_needs_memory,
        "`training.tbptt` cuts the memory of a recurrent model that reads forwards, and this is {model}",
        "use rnn, lstm or gru in one direction, or remove tbptt",
    ),
    Rule(
        "tbptt-longer-than-samples", "R", ("/training/tbptt", "/model", "/data"), tbptt_longer_than_samples,
        "gradients are to go back {steps} steps, and a sample has {length}", "lower `training.tbptt.steps`, or remove tbptt",
    ),
    Rule(
        "tbptt-stride", "R", ("/training/tbptt",), tbptt_stride,
        "a stride of {stride} does not divide windows of {steps} steps", "set `training.tbptt.stride: {nearest}`",
    ),
    Rule(
        "tbptt-stride-unused", "R", ("/training/tbptt", "/model", "/task/type"), tbptt_stride_unused,
        "samples with one target at their end have one window, the last, and no stride", "remove `training.tbptt.stride`",
    ),
    Rule(
        "streams-shuffled", "R", ("/training/tbptt", "/data/loader"), streams_shuffled,
        "a stateful run reads consecutive samples, and the loader shuffles them", "set `data.loader.shuffle: false`",
    ),
    Rule(
        "streams-split", "R", ("/training/tbptt", "/data"), streams_split,
        "a stateful run reads consecutive samples, and split strategy {strategy} takes some from between them",
        "set `data.split.strategy: contiguous`",
    ),
    Rule(
        "streams-uneven", "R", ("/training/tbptt", "/data", "/task", "/training/batch_size"), streams_uneven,
        "a smaller last batch has no place for some of the {size} streams of a stateful run", "set `data.loader.drop_last: true`",
    ),
)  # fmt: skip
