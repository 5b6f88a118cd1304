"""Rules of `model` that hold for every architecture."""

from collections.abc import Iterator

from stoker.spec.model import CNN, GAN, GRU, HF, LSTM, MLP, RNN, Layers, Transformer, TransformerDecoder, TransformerEncoder
from stoker.spec.model.layers import AttentionLayer, Dropout, RecurrentLayer
from stoker.spec.model.parts import BatchNorm
from stoker.spec.model.transformer import AlibiPosition
from stoker.spec.rules._case import Case
from stoker.spec.rules._networks import every
from stoker.spec.rules._rule import Hit, hit, rule
from stoker.spec.task import CausalLM, Generation, MaskedLM

READERS = ("transformer_encoder", "rnn", "lstm", "gru", "layers")
"""Models that read texts in a table."""


@rule(
    "model-fits-task",
    reads=("/model/type", "/task/type"),
    message="model {model} does not fit task {task}",
    hint="use {fitting}, or another task",
)
def model_fits_task(case: Case) -> Iterator[Hit]:
    if isinstance(case.spec.model, HF):
        return  # what it is, is known where its files are
    if isinstance(case.spec.task, Generation) or isinstance(case.spec.model, GAN):
        yield from _gan_fits(case)
        return
    if isinstance(case.spec.task, MaskedLM) or isinstance(case.spec.model, TransformerEncoder):
        yield from _encoder_fits(case)
        return
    decoder, language = isinstance(case.spec.model, TransformerDecoder), isinstance(case.spec.task, CausalLM)
    if isinstance(case.spec.model, RNN | LSTM | GRU | Layers):
        return
    if decoder != language:
        recurrent = ("rnn", "lstm", "gru")
        fitting = ("transformer_decoder", "layers", *recurrent) if language else ("mlp", "layers", "cnn", *recurrent)
        yield hit("/model/type", fitting, model=case.spec.model.type, task=case.spec.task.type, fitting=", ".join(fitting))


def _gan_fits(case: Case) -> Iterator[Hit]:
    """Two networks with opposite aims are a task of their own."""
    task, model = case.spec.task, case.spec.model
    if not isinstance(task, Generation):
        yield hit("/task/type", ("gan",), model=model.type, task=task.type, fitting="task gan")
    elif not isinstance(model, GAN):
        yield hit("/model/type", ("gan",), model=model.type, task=task.type, fitting="gan")


def _encoder_fits(case: Case) -> Iterator[Hit]:
    """Who fills in hidden tokens sees all others, and who sees all others does not tell what comes next."""
    model, task = case.spec.model, case.spec.task
    if isinstance(task, MaskedLM) and not isinstance(model, TransformerEncoder):
        yield hit("/model/type", ("transformer_encoder",), model=model.type, task=task.type, fitting="transformer_encoder")
    if isinstance(task, CausalLM):
        fitting = ("transformer_decoder", "rnn", "lstm", "gru")
        yield hit("/model/type", fitting, model=model.type, task=task.type, fitting=", ".join(fitting))


@rule(
    "high-dropout",
    reads=("/model",),
    message="a dropout of {p} drops more than half",
    hint="0.1 to 0.5 is usual",
    level="W",
)
def high_dropout(case: Case) -> Iterator[Hit]:
    for pointer, p in _dropouts(case):
        if p > 0.5:
            yield hit(pointer, p=f"{p:g}")


def _dropouts(case: Case) -> Iterator[tuple[str, float]]:
    for at, model, _ in case.networks:
        match model:
            case MLP(dropout=p) | CNN(dropout=p) | RNN(dropout=p) | LSTM(dropout=p) | GRU(dropout=p):
                yield f"{at}/dropout", p
            case TransformerDecoder() | TransformerEncoder():
                for key in ("dropout", "attention_dropout", "embedding_dropout"):
                    yield f"{at}/{key}", getattr(model, key)
            case Layers(layers=layers):
                for pointer, layer in every(layers, f"{at}/layers"):
                    if isinstance(layer, Dropout):
                        yield f"{pointer}/p", layer.p
                    if isinstance(layer, AttentionLayer | RecurrentLayer):
                        yield f"{pointer}/dropout", layer.dropout


@rule(
    "text-needs-reader",
    reads=("/data/source", "/model/type"),
    message="model {model} does not read texts of a table",
    hint="use {fitting}",
)
def text_needs_reader(case: Case) -> Iterator[Hit]:
    if case.text_in_table and isinstance(case.spec.model, MLP | CNN | TransformerDecoder):
        yield hit("/model/type", READERS, model=case.spec.model.type, fitting=", ".join(READERS))


@rule(
    "padding-is-seen",
    reads=("/data/source", "/model"),
    message="short texts are padded, and with this `model.{key}` the padding would change what is said of them",
    hint="set `model.{key}` to {value}",
)
def padding_is_seen(case: Case) -> Iterator[Hit]:
    """What a model cannot keep padding out of."""
    model = case.spec.model
    if not case.text_in_table:
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
