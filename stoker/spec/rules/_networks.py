"""The networks that a model consists of, and what each of them reads."""

from collections.abc import Iterator
from typing import NamedTuple

from stoker.spec.model import CNN, GAN, GRU, HF, LSTM, MLP, RNN, Layers, TransformerDecoder, TransformerEncoder
from stoker.spec.model.shapes import Form
from stoker.spec.rules._rule import Case

Single = MLP | Layers | CNN | RNN | LSTM | GRU | TransformerDecoder | TransformerEncoder


class Network(NamedTuple):
    pointer: str
    model: Single
    reads: Form | None
    """One sample, where it is known."""


def networks(case: Case) -> Iterator[Network]:
    """The model itself, or the two of a gan; none where it is in a directory that nobody has opened yet."""
    model, shape = case.spec.model, case.problem.input_shape
    reads = None if shape is None else Form(shape, tokens=case.problem.vocab_size is not None)
    if isinstance(model, GAN):
        yield Network("/model/generator", model.generator, Form((model.latent_dim,)))
        yield Network("/model/discriminator", model.discriminator, reads)
    elif not isinstance(model, HF):
        yield Network("/model", model, reads)
