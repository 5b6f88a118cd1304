"""The networks that a model consists of, what each of them reads, and what stands in them."""

from collections.abc import Iterator
from typing import NamedTuple

from stoker.spec.derived.problem import Problem
from stoker.spec.model import CNN, GAN, GRU, HF, LSTM, MLP, RNN, Layers, Model, TransformerDecoder, TransformerEncoder
from stoker.spec.model.layers import Layer, Norm, Residual
from stoker.spec.model.parts import BatchNorm
from stoker.spec.model.shapes import Form, Misfit, infer

Single = MLP | Layers | CNN | RNN | LSTM | GRU | TransformerDecoder | TransformerEncoder


class Network(NamedTuple):
    """One network of a model."""

    pointer: str
    model: Single
    reads: Form | None
    """One sample, where it is known."""


def networks(model: Model, problem: Problem) -> Iterator[Network]:
    """The model itself, or the two of a gan; none where it is in a directory that nobody has opened yet."""
    shape = problem.input_shape
    reads = None if shape is None else Form(shape, tokens=problem.vocab_size is not None)
    if isinstance(model, GAN):
        yield Network("/model/generator", model.generator, Form((model.latent_dim,)))
        yield Network("/model/discriminator", model.discriminator, reads)
    elif not isinstance(model, HF):
        yield Network("/model", model, reads)


def every(layers: tuple[Layer, ...], at: str) -> Iterator[tuple[str, Layer]]:
    """All layers, those of residual stacks too, with their pointers."""
    for index, layer in enumerate(layers):
        yield f"{at}/{index}", layer
        if isinstance(layer, Residual):
            yield from every(layer.layers, f"{at}/{index}/layers")
            yield from every(layer.shortcut, f"{at}/{index}/shortcut")


def misfit_of(network: Network) -> Misfit | None:
    """Where the layers do not fit each other; of a cnn, at the field that its layers follow from."""
    _, model, start = network
    if start is None:
        return None
    try:
        match model:
            case Layers(layers=layers):
                infer(layers, start, "/layers")
            case CNN():
                infer(model.stack(1), start)
            case _:
                pass
    except Misfit as misfit:
        return misfit if isinstance(model, Layers) else Misfit(misfit.kind, CAUSES.get(misfit.kind, ""), misfit.holes)
    return None


CAUSES = {
    "dimensions": "/input_shape",
    "size": "/input_shape",
    "norm-groups": "/normalization/groups",
    "tokens": "/type",
    "window": "/stages",
}
"""Fields of a cnn behind what may be wrong with its layers."""


def batch_norm_of(model: Single, at: str) -> str | None:
    """Pointer of the first BatchNorm of one network, which stands at a pointer."""
    match model:
        case MLP(normalization=BatchNorm(), hidden_sizes=sizes):
            return f"{at}/normalization" if sizes else None
        case CNN(normalization=BatchNorm()):
            return f"{at}/normalization"
        case Layers(layers=layers):
            norms = (
                pointer for pointer, layer in every(layers, f"{at}/layers") if isinstance(layer, Norm) and layer.kind == "batch"
            )
            return next(norms, None)
        case TransformerDecoder(normalization=BatchNorm()) | TransformerEncoder(normalization=BatchNorm()):
            return f"{at}/normalization"
        case MLP() | CNN() | RNN() | LSTM() | GRU() | TransformerDecoder() | TransformerEncoder():
            return None
