"""A generative adversarial network on paper: a pass of the discriminator in every step, one of the generator in some."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from stoker.plan.layers import play_cnn, play_layers
from stoker.plan.mlp import play_mlp
from stoker.plan.sharing import share
from stoker.plan.spectral import bound
from stoker.plan.tape import FP32, Shape, Storage, Tape, Value, Weight
from stoker.spec.loss import Contested, Hinge, NonSaturating, Wasserstein
from stoker.spec.model import CNN, GAN, MLP, Layers
from stoker.spec.model.shapes import Misfit
from stoker.spec.regularization import Regularization

GENERATOR, DISCRIMINATOR = "generator.", "discriminator."


def play_gan(tape: Tape, spec: GAN, shape: Shape, loss: Contested, regularization: Regularization, every: int) -> None:
    """Of samples of a shape; `every`: steps of the discriminator for one of the generator.

    What a step keeps is what the larger of its two passes does. Raises Misfit for a network that does not fit.
    """
    teach, learn, drawing = (replace(tape, weights=[], buffers=[]) for _ in range(3))
    numbers = math.prod(shape)
    _generator(drawing, spec, numbers)
    _teach(teach, spec, shape, loss, regularization)
    said = _discriminator(learn, spec, _generator(learn, spec, numbers).viewed(*shape), resting=True)
    _of_generator(learn, loss, said)
    for part in (learn, drawing):
        bound(regularization, part)
    tape.weights += learn.weights
    tape.buffers += learn.buffers
    larger = max(teach, learn, key=lambda part: part.activation_bytes)
    tape.saved, tape.casts, tape.high = larger.saved, larger.casts, max(teach.high, learn.high)
    tape.forward += drawing.forward + teach.forward + learn.forward // every
    tape.backward += teach.backward + learn.backward // every
    tape.in_turn = max(_bytes(w for w in tape.weights if w.name.startswith(of)) for of in (GENERATOR, DISCRIMINATOR))


def _bytes(weights: Iterable[Weight]) -> int:
    return sum(weight.size * weight.item for weight in weights)


def _generator(tape: Tape, spec: GAN, numbers: int) -> Value:
    """Its samples as rows, of noise that stands in the first part of longer rows."""
    noise = Value((spec.latent_dim,), Storage(2 * spec.latent_dim + 1, FP32), grad=False)
    apart = _apart(tape)
    out = _network(apart, spec.generator, noise, numbers, "/model/generator")
    share(apart, spec.generator.sharing)
    _into(tape, apart, GENERATOR)
    return tape.activation(out.viewed(out.size), spec.output)


def _discriminator(tape: Tape, spec: GAN, samples: Value, *, resting: bool = False) -> Value:
    """One number of each; `resting`: its weights get no gradients."""
    apart = _apart(tape)
    apart.resting = resting
    out = _network(apart, spec.discriminator, samples, 1, "/model/discriminator")
    share(apart, spec.discriminator.sharing)
    apart.resting = False
    _into(tape, apart, DISCRIMINATOR)
    return out


def _network(tape: Tape, spec: MLP | Layers | CNN, value: Value, outputs: int, at: str) -> Value:
    try:
        match spec:
            case MLP():
                return play_mlp(tape, spec, value, outputs)
            case Layers():
                return play_layers(tape, spec, value, None)
            case CNN():
                return play_cnn(tape, spec, value, outputs)
            case _:
                assert_never(spec)
    except Misfit as misfit:
        raise Misfit(misfit.kind, at, misfit.holes) from misfit


def _apart(tape: Tape) -> Tape:
    """The same pass, with names of its own."""
    return replace(tape, weights=[], buffers=[])


def _into(tape: Tape, part: Tape, prefix: str) -> None:
    """What one network added to a pass."""
    for name in ("forward", "backward", "saved", "high", "casts"):
        setattr(tape, name, getattr(part, name))
    tape.weights += [replace(w, name=prefix + w.name, part=prefix + w.part) for w in part.weights]
    tape.buffers += [replace(w, name=prefix + w.name, part=prefix + w.part) for w in part.buffers]


def _teach(tape: Tape, spec: GAN, shape: Shape, loss: Contested, regularization: Regularization) -> None:
    """Real and generated samples through the discriminator, one after the other."""
    numbers = math.prod(shape)
    real = _discriminator(tape, spec, Value((numbers,), Storage(numbers, FP32), grad=False).viewed(*shape))
    weights, buffers, casts = list(tape.weights), list(tape.buffers), tape.casts
    drawn = _discriminator(tape, spec, Value((numbers,), Storage(numbers, FP32), grad=False).viewed(*shape))
    tape.casts = casts  # narrow copies of weights are made once
    match loss:
        case NonSaturating(label_smoothing=smoothing):
            tape.keep(_wide(tape, real))
            tape.keep(_wide(tape, drawn))
            if smoothing > 0:
                tape.keep_more(1)  # the same numbers turned around
        case Hinge():
            tape.keep_more(2)
        case Wasserstein(gradient_penalty=penalty):
            if penalty > 0:
                _penalty(tape, spec, shape)
        case _:
            raise TypeError(f"{type(loss).__name__} is a loss of no gan")
    tape.weights, tape.buffers = weights, buffers
    bound(regularization, tape)


def _penalty(tape: Tape, spec: GAN, shape: Shape) -> None:
    """A third pass, of which the way back is gone through as if it was a pass too: about as much is kept of it again, and twice
    as much computed on the way back through both.
    """
    casts, before, forward, backward = tape.casts, tape.saved, tape.forward, tape.backward
    _discriminator(tape, spec, tape.made(shape, FP32))
    tape.casts = casts
    tape.saved += tape.saved - before
    work = tape.forward - forward
    tape.forward, tape.backward = forward + 2 * work, backward + 4 * work


def _of_generator(tape: Tape, loss: Contested, said: Value) -> None:
    if isinstance(loss, NonSaturating):
        tape.keep(_wide(tape, said))


def _wide(tape: Tape, said: Value) -> Value:
    return said if said.item == FP32 else tape.made(said.shape, FP32)
